//! Sockets, encryption and streams.
//!
//! TCP is secured with Noise and multiplexed with Yamux; QUIC brings both itself. Noise always encrypts with ChaCha20.
//! TLS with AES-GCM would take half the CPU (measured): it belongs in [`build`], before Noise, as the security upgrade
//! that two peers try first.

use std::sync::Arc;

use libp2p::{Swarm, SwarmBuilder, core::upgrade::Version, identity, noise, quic, tcp, yamux};

use super::{LiveConfig, behaviour::Behaviour, limits, mailbox::Shared};

/// Returns a swarm that does not listen yet.
pub(super) fn build(
    config: &LiveConfig,
    keypair: identity::Keypair,
    shared: Arc<Shared>,
) -> Result<Swarm<Behaviour>, String> {
    let behaviour = Behaviour::new(config, &keypair, shared)?;
    let builder = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, multiplexing)
        .map_err(|error| error.to_string())?
        .with_quic_config(|mut config: quic::Config| {
            config.max_concurrent_stream_limit = limits::QUIC_STREAMS_MAX;
            config.max_stream_data = limits::QUIC_STREAM_BYTES_MAX;
            config.max_connection_data = limits::QUIC_CONNECTION_BYTES_MAX;
            config
        })
        .with_behaviour(|_| behaviour)
        .map_err(|error| error.to_string())?;
    let swarm = builder
        .with_swarm_config(|swarm| {
            swarm
                // Saves a round trip per request: at 20 ms, 240 KiB ranges come twice as fast (measured).
                .with_substream_upgrade_protocol_override(Version::V1Lazy)
                .with_max_negotiating_inbound_streams(limits::NEGOTIATING_MAX)
                .with_idle_connection_timeout(limits::IDLE_TIMEOUT)
        })
        .with_connection_timeout(limits::CONNECT_TIMEOUT)
        .build();
    Ok(swarm)
}

fn multiplexing() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(limits::CONNECTION_STREAMS_MAX);
    config
}
