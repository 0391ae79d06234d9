//! Which connections are let in: refused peers are not, others within limits.
//!
//! Written by hand because libp2p's own limits keep an entry for every identity that ever connected, and identities
//! are free to make; because they do not count networks; and because refusal and roles live in one place here.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

use super::{address, keys, mailbox::Shared};
use crate::{network::PeerRole, traffic::Dropped};

/// How many connections a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections from outside whose handshake is under way.
    pub pending_incoming_max: usize,
    /// The same from one network, or from one address where networks are not told apart.
    pub pending_per_network_max: usize,
    /// Connections with one stranger.
    pub per_stranger_max: usize,
    /// Connections with one member.
    pub per_member_max: usize,
    /// Connections with strangers in all.
    pub strangers_max: usize,
    /// Connections with strangers of one network: a /24 of IPv4, a /56 of IPv6. Private networks are not counted.
    pub per_network_max: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            // A handshake takes a millisecond of a core and a round trip, and holds a socket and a few kilobytes: a quarter
            // of the 1,024 files that a process may have at least.
            pending_incoming_max: 256,
            // An eighth: whoever begins handshakes and leaves them, for the ten seconds that they may take, keeps out
            // nobody but its neighbours. Sixty-four nodes of one machine that all dial at once find out and dial again.
            pending_per_network_max: 32,
            // Two peers that dial each other at the same moment have two.
            per_stranger_max: 2,
            // A member may open more to spread load over cores, and reconnects before we notice that it was gone.
            per_member_max: 8,
            // 70 KiB each when idle (measured).
            strangers_max: 400,
            // A twentieth: no single network can take all places.
            per_network_max: 20,
        }
    }
}

/// Why a connection was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("too many handshakes are under way")]
    Pending,
    #[error("the peer is refused for a while")]
    Refused,
    #[error("the peer's identity is not an ed25519 key")]
    Identity,
    #[error("too many connections with this peer")]
    Peer,
    #[error("too many connections")]
    Total,
    #[error("too many connections with this network")]
    Network,
}

impl Denied {
    const fn limit(self) -> Dropped {
        match self {
            Self::Pending => Dropped::Handshakes,
            Self::Refused => Dropped::RefusedPeer,
            Self::Identity => Dropped::Identity,
            Self::Peer => Dropped::PeerConnections,
            Self::Total => Dropped::Connections,
            Self::Network => Dropped::NetworkConnections,
        }
    }
}

/// A network for counting.
type Network = [u8; 8];

/// The network of a public address; private and local ones are not counted.
fn network(ip: IpAddr) -> Option<Network> {
    match ip {
        IpAddr::V4(ip) => {
            let local = ip.is_loopback() || ip.is_private() || ip.is_link_local();
            let [a, b, c, _] = ip.octets();
            (!local).then_some([4, a, b, c, 0, 0, 0, 0])
        }
        IpAddr::V6(ip) => {
            if let Some(ip) = ip.to_ipv4_mapped() {
                return network(IpAddr::V4(ip));
            }
            let local = ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local();
            let [a, b, c, d, e, f, g, ..] = ip.octets();
            (!local).then_some([6, a, b, c, d, e, f, g])
        }
    }
}

/// Where a connection comes from, before it is known from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Network(Network),
    /// A local address: those of one network may belong to as many people as there are networks elsewhere.
    Address(IpAddr),
    /// No address of the internet.
    Unknown,
}

impl Origin {
    fn of(address: &Multiaddr) -> Self {
        let Some(ip) = address::ip(address) else { return Self::Unknown };
        network(ip).map_or(Self::Address(ip), Self::Network)
    }
}

/// An established connection.
struct Connection {
    peer: PeerId,
    network: Option<Network>,
    stranger: bool,
}

/// Lets connections in or not.
pub(super) struct Gate {
    limits: ConnectionLimits,
    shared: Arc<Shared>,
    pending: BTreeMap<ConnectionId, Origin>,
    pending_from: BTreeMap<Origin, usize>,
    connections: BTreeMap<ConnectionId, Connection>,
    per_peer: BTreeMap<PeerId, usize>,
    per_network: BTreeMap<Network, usize>,
    n_strangers: usize,
}

impl Gate {
    pub(super) const fn new(limits: ConnectionLimits, shared: Arc<Shared>) -> Self {
        Self {
            limits,
            shared,
            pending: BTreeMap::new(),
            pending_from: BTreeMap::new(),
            connections: BTreeMap::new(),
            per_peer: BTreeMap::new(),
            per_network: BTreeMap::new(),
            n_strangers: 0,
        }
    }

    /// A handshake begins, if one more fits.
    fn begun(&mut self, id: ConnectionId, address: &Multiaddr) -> Result<(), Denied> {
        let origin = Origin::of(address);
        let from = self.pending_from.get(&origin).copied().unwrap_or(0);
        if self.pending.len() >= self.limits.pending_incoming_max
            || from >= self.limits.pending_per_network_max
        {
            return Err(Denied::Pending);
        }
        self.pending.insert(id, origin);
        *self.pending_from.entry(origin).or_default() += 1;
        Ok(())
    }

    /// A handshake is over, one way or the other.
    fn settled(&mut self, id: ConnectionId) {
        if let Some(origin) = self.pending.remove(&id) {
            decrement(&mut self.pending_from, &origin);
        }
    }

    /// Whether one more connection with this peer fits.
    fn check(&self, peer: PeerId, address: &Multiaddr) -> Result<(), Denied> {
        let id = keys::from_libp2p(&peer).ok_or(Denied::Identity)?;
        let now = self.shared.now();
        let (refused, role) = self.shared.with_book(|book| (book.is_refused(id, now), book.role(id)));
        if refused {
            return Err(Denied::Refused);
        }
        let with_peer = self.per_peer.get(&peer).copied().unwrap_or(0);
        if role == PeerRole::Member {
            return if with_peer < self.limits.per_member_max { Ok(()) } else { Err(Denied::Peer) };
        }
        if with_peer >= self.limits.per_stranger_max {
            return Err(Denied::Peer);
        }
        if self.n_strangers >= self.limits.strangers_max {
            return Err(Denied::Total);
        }
        let network = address::ip(address).and_then(network);
        let in_network = network.and_then(|network| self.per_network.get(&network)).copied().unwrap_or(0);
        if in_network >= self.limits.per_network_max {
            return Err(Denied::Network);
        }
        Ok(())
    }

    fn denied(&self, denied: Denied) -> ConnectionDenied {
        self.shared.traffic.dropped.count(denied.limit());
        ConnectionDenied::new(denied)
    }

    fn established(&mut self, id: ConnectionId, peer: PeerId, address: &Multiaddr) {
        let role = keys::from_libp2p(&peer).map(|peer| self.shared.with_book(|book| book.role(peer)));
        let stranger = role != Some(PeerRole::Member);
        let network = address::ip(address).and_then(network).filter(|_| stranger);
        *self.per_peer.entry(peer).or_default() += 1;
        if let Some(network) = network {
            *self.per_network.entry(network).or_default() += 1;
        }
        self.n_strangers += usize::from(stranger);
        self.connections.insert(id, Connection { peer, network, stranger });
    }

    fn closed(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        decrement(&mut self.per_peer, &connection.peer);
        if let Some(network) = connection.network {
            decrement(&mut self.per_network, &network);
        }
        self.n_strangers -= usize::from(connection.stranger);
    }
}

/// Takes one off, and forgets what is at zero.
fn decrement<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.begun(id, remote).map_err(|denied| self.denied(denied))
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.settled(id);
        self.check(peer, remote).map_err(|denied| self.denied(denied))?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(peer, address).map_err(|denied| self.denied(denied))?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                self.established(event.connection_id, event.peer_id, event.endpoint.get_remote_address());
            }
            FromSwarm::ConnectionClosed(event) => self.closed(event.connection_id),
            FromSwarm::ListenFailure(event) => self.settled(event.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Offence;

    fn id(i: usize) -> ConnectionId {
        ConnectionId::new_unchecked(i)
    }

    fn remote(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn strangers_are_counted_and_members_are_not() {
        let limits = ConnectionLimits { strangers_max: 3, per_network_max: 2, ..ConnectionLimits::default() };
        let shared = Arc::new(Shared::new());
        let mut gate = Gate::new(limits, Arc::clone(&shared));
        let peer = |i: u8| keys::to_libp2p(protocol::PeerId([i; 32]));
        let near = remote("/ip4/192.0.2.1/tcp/1");
        let far = remote("/ip4/198.51.100.1/tcp/1");
        gate.established(id(1), peer(1), &near);
        gate.established(id(2), peer(2), &near);
        assert_eq!(gate.check(peer(3), &near), Err(Denied::Network));
        assert_eq!(gate.check(peer(3), &far), Ok(()));
        assert_eq!(gate.check(peer(3), &remote("/ip4/127.0.0.1/tcp/1")), Ok(()));
        gate.established(id(3), peer(1), &far);
        assert_eq!(gate.check(peer(1), &far), Err(Denied::Peer));
        assert_eq!(gate.check(peer(3), &far), Err(Denied::Total));
        shared.with_book(|book| book.add(protocol::PeerId([9; 32]), Vec::new(), PeerRole::Member));
        assert_eq!(gate.check(peer(9), &near), Ok(()));
        for i in 1..=3 {
            gate.closed(id(i));
        }
        assert!(gate.connections.is_empty() && gate.per_peer.is_empty() && gate.per_network.is_empty());
        assert_eq!(gate.n_strangers, 0);
        shared.with_book(|book| {
            for _ in 0..4 {
                book.report(protocol::PeerId([1; 32]), Offence::Unverifiable, shared.now());
            }
        });
        assert_eq!(gate.check(peer(1), &far), Err(Denied::Refused));
        assert_eq!(gate.check(PeerId::random(), &far), Err(Denied::Identity));
    }

    #[test]
    fn whoever_leaves_handshakes_keeps_out_its_own_network() {
        let limits = ConnectionLimits {
            pending_incoming_max: 5,
            pending_per_network_max: 2,
            ..ConnectionLimits::default()
        };
        let mut gate = Gate::new(limits, Arc::new(Shared::new()));
        let begin = |gate: &mut Gate, i, ip: &str| gate.begun(id(i), &remote(&format!("/ip4/{ip}/tcp/1")));
        assert_eq!(begin(&mut gate, 1, "192.0.2.1"), Ok(()));
        assert_eq!(begin(&mut gate, 2, "192.0.2.2"), Ok(()));
        assert_eq!(begin(&mut gate, 3, "192.0.2.3"), Err(Denied::Pending));
        assert_eq!(begin(&mut gate, 4, "198.51.100.1"), Ok(()));
        assert_eq!(begin(&mut gate, 5, "127.0.0.1"), Ok(()));
        assert_eq!(begin(&mut gate, 6, "127.0.0.2"), Ok(()), "local addresses are told apart");
        assert_eq!(begin(&mut gate, 7, "203.0.113.1"), Err(Denied::Pending), "five in all");
        gate.settled(id(1));
        gate.settled(id(1));
        assert_eq!(begin(&mut gate, 8, "192.0.2.3"), Ok(()));
        for i in 0..9 {
            gate.settled(id(i));
        }
        assert!(gate.pending.is_empty() && gate.pending_from.is_empty());
    }

    #[test]
    fn networks_are_prefixes() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("192.0.2.1"), network("192.0.2.200"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:0:100::1"), network("2001:db8:0:1ff::1"));
        assert_ne!(network("2001:db8:0:100::1"), network("2001:db8:0:200::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_eq!(network("10.0.0.1"), None);
        assert_eq!(network("fd00::1"), None);
    }
}
