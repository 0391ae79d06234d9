//! The same over QUIC, whose handshake is not to be written by hand: its packets are those of the library.

use std::{io, net::SocketAddr};

use libp2p::{
    Transport as _,
    core::{
        Endpoint,
        muxing::StreamMuxerBox,
        transport::{DialOpts, ListenerId, PortUse},
    },
    identity, quic,
};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use tokio::net::UdpSocket;

use super::{Target, wire};
use crate::{address::Transport, live::address::to_libp2p};

/// Bytes of a first packet. Source: RFC 9000, section 14.1.
const FIRST_BYTES: usize = 1_200;
/// Bytes of the longest packet that is looked at.
const PACKET_BYTES_MAX: usize = 2_048;

type Dial = <quic::tokio::Transport as libp2p::Transport>::Dial;

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// A transport with a new identity.
fn transport() -> quic::tokio::Transport {
    quic::tokio::Transport::new(quic::Config::new(&identity::Keypair::generate_ed25519()))
}

fn dial(transport: &mut quic::tokio::Transport, to: SocketAddr, port_use: PortUse) -> io::Result<Dial> {
    let options = DialOpts { role: Endpoint::Dialer, port_use };
    transport.dial(to_libp2p(to.ip(), Transport::Quic, to.port()), options).map_err(failed)
}

/// Connects, and completes the handshake with a new identity.
pub(super) async fn connect(target: &Target) -> io::Result<StreamMuxerBox> {
    let mut transport = transport();
    // It dials from where it listens, and so from this address.
    let source = to_libp2p(target.source, Transport::Quic, 0);
    transport.listen_on(ListenerId::next(), source).map_err(failed)?;
    let (_, connection) = dial(&mut transport, target.node, PortUse::Reuse)?.await.map_err(failed)?;
    Ok(StreamMuxerBox::new(connection))
}

/// A socket that sends to the node.
pub(super) async fn socket(target: &Target) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(target.source, 0)).await?;
    socket.connect(target.node).await?;
    Ok(socket)
}

/// Begins a handshake and leaves it when the node has answered, which it does once it has done its part of the cryptography.
/// Returns how many bytes were sent.
pub(super) async fn half_open(target: &Target) -> io::Result<usize> {
    let socket = socket(target).await?;
    let first = first_packet(target).await?;
    let sent = socket.send(&first).await?;
    socket.recv(&mut [0; PACKET_BYTES_MAX]).await?;
    Ok(sent)
}

/// The first packet of a handshake with a new identity: what is sent to a socket of our own that never answers.
async fn first_packet(target: &Target) -> io::Result<Vec<u8>> {
    let silent = UdpSocket::bind(SocketAddr::new(target.source, 0)).await?;
    let mut transport = transport();
    let dial = dial(&mut transport, silent.local_addr()?, PortUse::New)?;
    let mut packet = vec![0; PACKET_BYTES_MAX];
    tokio::select! {
        received = silent.recv(&mut packet) => packet.truncate(received?),
        dialled = dial => return Err(dialled.err().map_or_else(|| io::ErrorKind::InvalidData.into(), failed)),
    }
    Ok(packet)
}

/// A packet that is none: without a form, or one that begins a handshake of a version, known or not, and then is garbage.
/// Source: RFC 9000, section 17.2.
pub(super) fn garbage(dice: &mut ChaCha8Rng) -> Vec<u8> {
    let version: Option<[u8; 4]> = match dice.random_range(0..4) {
        0 => None,
        1 => Some(dice.random()),
        // Which asks for the versions that there are.
        2 => Some([0; 4]),
        _ => Some([0, 0, 0, 1]),
    };
    let Some(version) = version else { return wire::random(dice, FIRST_BYTES) };
    // Both names of the connection have eight bytes; no token; the rest is the payload.
    let names = [&[8][..], &wire::random(dice, 8), &[8], &wire::random(dice, 8), &[0]].concat();
    let header = [&[0xc0 | (dice.random::<u8>() & 0x3f)][..], &version, &names].concat();
    let payload = FIRST_BYTES - header.len() - 2;
    let [.., high, low] = (0x4000 | payload).to_be_bytes();
    [header, vec![high, low], wire::random(dice, payload)].concat()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn garbage_is_as_long_as_a_first_packet() {
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        let packets: Vec<_> = (0..50).map(|_| garbage(&mut dice)).collect();
        assert!(packets.iter().all(|packet| packet.len() == FIRST_BYTES));
        assert!(packets.iter().any(|packet| packet[1..5] == [0, 0, 0, 1]));
    }
}
