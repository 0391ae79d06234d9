//! Who is connected, and who is dialled.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::FutureExt as _;
use libp2p::{
    Multiaddr, identify, ping,
    swarm::{ConnectionId, dial_opts::DialOpts},
};
use protocol::PeerId;
use rand::Rng as _;

use super::{
    super::{address, keys, limits},
    EventLoop,
};
use crate::{
    address::{Address, Transport},
    inbound::Inbound,
    network::{PeerRole, RequestError},
};

/// Addresses to dial.
pub(super) struct Resolved {
    pub(super) peer: PeerId,
    pub(super) addresses: Vec<Multiaddr>,
}

impl EventLoop {
    /// Looks again at peers whose entry in the table changed.
    pub(super) fn peers_changed(&mut self, peers: BTreeSet<PeerId>) {
        let now = self.shared.now();
        for peer in peers {
            let (kept, role, refused_until) = self
                .shared
                .with_book(|book| (book.is_kept(peer), book.role(peer), book.refused_until(peer, now)));
            self.dials.keep(peer, kept, refused_until.unwrap_or(now));
            if self.waiting.contains_key(&peer) {
                self.dials.want(peer, now);
            }
            self.set_gossip_score(peer, role);
            if refused_until.is_some() {
                self.fail_waiting(peer, RequestError::Unreachable);
                // Not connected is fine.
                let _ = self.swarm.disconnect_peer_id(keys::to_libp2p(peer));
            }
        }
    }

    pub(super) fn start_dials(&mut self) {
        while let Some((peer, failures)) = self.dials.start(self.shared.now()) {
            let addresses = self.shared.with_book(|book| book.addresses(peer).to_vec());
            let addresses = preferred(addresses, failures);
            self.resolving
                .push(async move { Resolved { peer, addresses: address::resolve(addresses).await } }.boxed());
        }
    }

    pub(super) fn dial(&mut self, resolved: Resolved) {
        let Resolved { peer, addresses } = resolved;
        if !self.dials.is_dialing(peer) {
            return; // it connected to us meanwhile
        }
        let options = DialOpts::peer_id(keys::to_libp2p(peer)).addresses(addresses).build();
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(%peer, %error, "dial not started");
            self.dial_failed(peer);
        }
    }

    pub(super) fn dial_failed(&mut self, peer: PeerId) {
        if self.dials.is_dialing(peer) {
            self.dials.failed(peer, self.shared.now(), self.jitter.random());
            self.fail_waiting(peer, RequestError::Unreachable);
        }
    }

    pub(super) fn connected(&mut self, peer: &libp2p::PeerId) {
        let Some(peer) = keys::from_libp2p(peer) else { return };
        self.dials.connected(peer);
        let role = self.shared.with_book(|book| book.role(peer));
        self.set_gossip_score(peer, role);
        for request in self.take_waiting(peer) {
            self.send(peer, request);
        }
    }

    pub(super) fn disconnected(&mut self, peer: &libp2p::PeerId) {
        let Some(peer) = keys::from_libp2p(peer) else { return };
        let now = self.shared.now();
        self.dials.disconnected(peer, now, self.jitter.random());
        self.finish_undecided(peer);
        self.foreign.remove(&peer);
        if let Some(until) = self.shared.with_book(|book| book.refused_until(peer, now)) {
            let kept = self.shared.with_book(|book| book.is_kept(peer));
            self.dials.keep(peer, false, now);
            self.dials.keep(peer, kept, until);
        }
        if self.known.remove(&peer) {
            self.ends.view.send_modify(|peers| {
                Arc::make_mut(peers).remove(&peer);
            });
            // Notices are never refused.
            let _ = self.ends.inbox.push(Inbound::Disconnected(peer));
        }
        if self.usage.len() > limits::RATES_REMEMBERED {
            let known = &self.known;
            self.usage.retain(|peer, _| known.contains(peer));
        }
    }

    /// A peer showed that it belongs to this network.
    pub(super) fn belongs(&mut self, peer: PeerId) {
        if self.swarm.is_connected(&keys::to_libp2p(peer)) && self.known.insert(peer) {
            self.ends.view.send_modify(|peers| {
                Arc::make_mut(peers).insert(peer);
            });
            // Notices are never refused.
            let _ = self.ends.inbox.push(Inbound::Connected(peer));
            self.finish_undecided(peer);
        }
    }

    pub(super) fn identified(&mut self, from: &libp2p::PeerId, id: ConnectionId, info: identify::Info) {
        let Some(peer) = keys::from_libp2p(from) else { return };
        if info.protocol_version == self.names.identify() {
            self.belongs(peer);
            if let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() {
                for address in info.listen_addrs.into_iter().take(limits::FOUND_ADDRESSES_MAX) {
                    kademlia.add_address(from, address);
                }
            }
        } else {
            tracing::debug!(%peer, version = ?info.protocol_version, "peer of another network");
            self.foreign.insert(peer);
            let ids = self.outgoing_to(peer).map(|(id, _)| id).collect();
            self.finish_all(ids, RequestError::Unsupported);
            // The side that dialled hangs up: were it the other, this side would not learn the reason.
            if self.dialed.contains(&id) {
                self.swarm.close_connection(id);
            }
        }
    }

    pub(super) fn pinged(
        &mut self,
        peer: &libp2p::PeerId,
        id: ConnectionId,
        result: Result<Duration, ping::Failure>,
    ) {
        if let Err(ping::Failure::Timeout) = result {
            tracing::debug!(%peer, "ping not answered");
            self.swarm.close_connection(id);
        }
    }

    /// The hash table found a stranger.
    pub(super) fn found(&self, peer: &libp2p::PeerId, addresses: &[Multiaddr]) {
        let Some(peer) = keys::from_libp2p(peer) else { return };
        let addresses: Vec<Address> =
            addresses.iter().filter_map(address::from_libp2p).take(limits::FOUND_ADDRESSES_MAX).collect();
        self.shared.with_book(|book| {
            // What a stranger says never touches what the ledger says.
            if book.role(peer) == PeerRole::Other {
                book.add(peer, addresses, PeerRole::Other);
            }
        });
    }
}

/// TCP addresses alone on every other attempt: QUIC takes three times the CPU (measured), but may be all that works.
fn preferred(addresses: Vec<Address>, failures: u32) -> Vec<Address> {
    let is_tcp = |address: &Address| address.transport() == Transport::Tcp;
    if failures.is_multiple_of(2) && addresses.iter().any(is_tcp) {
        addresses.into_iter().filter(is_tcp).collect()
    } else {
        addresses
    }
}
