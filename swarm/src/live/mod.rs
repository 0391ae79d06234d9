//! The network over libp2p.
//!
//! ```text
//!  LiveNetwork --Command--> mailbox --> EventLoop --> Swarm: gate, control, bulk, gossip, identify, ping, kademlia
//!       |                                 ^   |          |
//!       +------ peer table (Shared) ------+   |          +-- one task per connection: encryption, streams, codec
//!  InboundReceiver <------- bounded queues ---+
//! ```
//!
//! Read `event_loop` first; `gate` says which connections are let in, `dials` which are made, `codec` what a stream
//! carries. Nothing outside this module names libp2p.
//!
//! # Invariants
//!
//! - The event loop never waits for the node: what the node's queues do not take is refused.
//! - A peer counts as connected once it showed that it belongs to this network: by its identification or by a request.
//! - Every peer has an ed25519 identity; a connection with another kind is not let in.

mod address;
mod behaviour;
mod budget;
mod codec;
mod dials;
mod event_loop;
mod gate;
#[cfg(feature = "hostile")]
pub mod hostile;
mod keys;
mod limits;
mod mailbox;
mod score;
#[cfg(test)]
mod tests;
mod transport;

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
};

use futures::StreamExt as _;
use libp2p::{Swarm, core::transport::ListenerId, swarm::SwarmEvent};
use protocol::NetworkId;
use tokio::time::timeout;

#[cfg(feature = "fuzz")]
pub(crate) use self::{
    address::address_of_multiaddr,
    codec::{read_answer, read_request},
};
use self::{behaviour::Behaviour, mailbox::Shared};
pub use self::{event_loop::EventLoop, gate::ConnectionLimits, keys::SecretKey, mailbox::LiveNetwork};
use crate::{
    address::{Address, Transport},
    frame::Topic,
    inbound::{InboundReceiver, queue},
    limits::Limits,
};

/// What a node's network is started with.
#[derive(Clone, Debug)]
pub struct LiveConfig {
    /// The secret key of the node's identity.
    pub secret: SecretKey,
    /// The network to be part of; peers of others are not talked to.
    pub network: NetworkId,
    /// Where to listen; empty for a client. Names are not allowed, port 0 lets the system choose.
    pub listen: Vec<Address>,
    /// Where peers elsewhere reach this node, if that is not where it listens.
    pub external: Vec<Address>,
    /// The topics to follow.
    pub topics: Vec<Topic>,
    /// Whether to find strangers by Kademlia. Costly (measured: half a core for 100 nodes), and its answers can be forged,
    /// so members are never looked up there.
    pub kademlia: bool,
    /// What peers may ask for.
    pub limits: Limits,
    /// How many connections there may be.
    pub connections: ConnectionLimits,
}

impl LiveConfig {
    /// A node that listens nowhere, follows every topic, and has the default limits.
    #[must_use]
    pub fn new(secret: SecretKey, network: NetworkId) -> Self {
        Self {
            secret,
            network,
            listen: Vec::new(),
            external: Vec::new(),
            topics: Topic::ALL.to_vec(),
            kademlia: false,
            limits: Limits::default(),
            connections: ConnectionLimits::default(),
        }
    }
}

/// Why a network did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process listens there.
    #[error("address {address} is already in use; stop the other process or choose another port")]
    AddressInUse {
        /// The address.
        address: Address,
    },
    /// The system does not let this node listen there.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: Address,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A name was given where only an IP address makes sense.
    #[error("cannot listen on {address}, which is a name; give an IP address")]
    ListenOnName {
        /// The address.
        address: Address,
    },
    /// The parts of the network do not fit together.
    #[error("cannot set up the network: {0}")]
    Setup(String),
}

/// Starts networks over libp2p.
#[derive(Clone, Copy, Debug)]
pub struct Live;

impl Live {
    /// Listens on every configured address, and returns a handle, the receiving end, and the event loop, which the
    /// caller runs. Must be called inside a tokio runtime with I/O and time.
    ///
    /// Cancel safe: nothing stays open.
    ///
    /// # Errors
    ///
    /// [`StartError`] if an address cannot be listened on.
    pub async fn start(config: LiveConfig) -> Result<(LiveNetwork, InboundReceiver, EventLoop), StartError> {
        let keypair = config.secret.keypair();
        let peer = config.secret.peer();
        let shared = Arc::new(Shared::new());
        let mut swarm = transport::build(&config, keypair, Arc::clone(&shared)).map_err(StartError::Setup)?;
        let listening = listen(&mut swarm, &config.listen).await?;
        for address in &config.external {
            for address in address::resolve(vec![address.clone()]).await {
                swarm.add_external_address(address);
            }
        }
        let limits = &config.limits;
        let (inbox, receiver) = queue(limits.control_queue, limits.gossip_queue, limits.bulk_queue);
        let (view, connected) = crate::view::view(Arc::default());
        let (network, commands) = LiveNetwork::new(peer, listening, Arc::clone(&shared), connected);
        tracing::info!(%peer, network = %config.network, listening = ?network.listen_addresses(), "network started");
        let event_loop = EventLoop::new(&config, swarm, shared, event_loop::Ends { commands, inbox, view });
        Ok((network, receiver, event_loop))
    }
}

/// Listens on the addresses and returns what the system made of them.
async fn listen(swarm: &mut Swarm<Behaviour>, addresses: &[Address]) -> Result<Vec<Address>, StartError> {
    let mut waiting: Vec<ListenerId> = Vec::new();
    for address in addresses {
        let Some(ip) = address.ip() else {
            return Err(StartError::ListenOnName { address: address.clone() });
        };
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::AddressInUse { address: address.clone() },
            _ => StartError::Listen { address: address.clone(), source },
        };
        check_free(SocketAddr::new(ip, address.port()), address.transport()).map_err(failed)?;
        let listener = swarm.listen_on(address::to_libp2p(ip, address.transport(), address.port())).map_err(
            |error| match error {
                libp2p::TransportError::Other(error) => failed(error),
                error @ libp2p::TransportError::MultiaddrNotSupported(_) => failed(io::Error::other(error)),
            },
        )?;
        waiting.push(listener);
    }
    let mut listening = Vec::new();
    let all = async {
        while !waiting.is_empty() {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, address } => {
                    waiting.retain(|waiting| *waiting != listener_id);
                    listening.extend(address::from_libp2p(&address));
                }
                SwarmEvent::ListenerClosed { reason: Err(error), .. } => return Err(error),
                _ => {}
            }
        }
        Ok(())
    };
    let failed = |source| StartError::Listen { address: addresses[0].clone(), source };
    match timeout(limits::LISTEN_TIMEOUT, all).await {
        Ok(result) => result.map_err(failed)?,
        Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
    }
    Ok(listening)
}

/// Fails if another process listens there. Needed because libp2p opens its TCP sockets with `SO_REUSEPORT`: two nodes
/// of one user would share a port, and each would get half of the connections.
fn check_free(socket: SocketAddr, transport: Transport) -> io::Result<()> {
    match transport {
        _ if socket.port() == 0 => Ok(()),
        Transport::Tcp => TcpListener::bind(socket).map(drop),
        Transport::Quic => UdpSocket::bind(socket).map(drop),
    }
}
