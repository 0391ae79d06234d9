//! Connections: dials, pauses between them, cuts.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use protocol::PeerId;
use rand::Rng as _;

use super::world::{Event, Pair, World, pair};
use crate::{
    address::Address,
    inbound::Inbound,
    network::{Offence, PeerRole, RequestError},
};

/// How long a dial into silence takes; as in the live network.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after the first failed dial; it doubles up to [`PAUSE_MAX`]. As in the live network.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// The longest pause between dials, so that a mended link is used again within half a minute.
const PAUSE_MAX: Duration = Duration::from_secs(30);

impl World {
    pub(super) fn add_peer(&mut self, node: PeerId, peer: PeerId, addresses: Vec<Address>, role: PeerRole) {
        if node == peer {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&node) {
            node.book.add(peer, addresses, role);
        }
        self.keep(node, peer);
    }

    pub(super) fn report(&mut self, node: PeerId, peer: PeerId, offence: Offence) {
        let now = self.now();
        let Some(state) = self.nodes.get_mut(&node) else { return };
        if state.book.report(peer, offence, now) {
            self.record("refuse", node, peer, 0);
            self.disconnect(pair(node, peer));
        }
    }

    pub(super) fn cut(&mut self, from: PeerId, to: PeerId) {
        if from == to || !self.cuts.insert((from, to)) {
            return;
        }
        self.record("cut", from, to, 0);
        let pair = pair(from, to);
        if let Some(session) = self.sessions.get(&pair).copied() {
            self.schedule_in(self.plan.detection, Event::CutNoticed { pair, session });
        }
    }

    pub(super) fn mend(&mut self, from: PeerId, to: PeerId) {
        if self.cuts.remove(&(from, to)) {
            self.record("mend", from, to, 0);
        }
    }

    pub(super) fn heal(&mut self) {
        for (from, to) in std::mem::take(&mut self.cuts) {
            self.record("mend", from, to, 0);
        }
    }

    fn is_cut(&self, (a, b): Pair) -> bool {
        self.cuts.contains(&(a, b)) || self.cuts.contains(&(b, a))
    }

    pub(super) fn cut_noticed(&mut self, pair: Pair, session: u64) {
        if self.sessions.get(&pair) == Some(&session) && self.is_cut(pair) {
            self.disconnect(pair);
        }
    }

    /// Dials a peer that is to be kept connected and is not.
    pub(super) fn keep(&mut self, from: PeerId, to: PeerId) {
        if self.nodes.get(&from).is_some_and(|node| node.book.is_kept(to)) {
            self.dial(from, to);
        }
    }

    /// Dials a peer, unless it is connected or being dialled.
    pub(super) fn dial(&mut self, from: PeerId, to: PeerId) {
        let pair = pair(from, to);
        let Some(incarnation) = self.nodes.get(&from).map(|node| node.incarnation) else { return };
        if self.sessions.contains_key(&pair) || !self.dialing.insert(pair) {
            return;
        }
        let there = self.transmit(from, to, 0);
        let back = self.transmit(to, from, 0);
        let event = Event::DialEnds { from, to, incarnation };
        match (there, back) {
            (Some(there), Some(back)) => {
                let round_trip = there.max(back);
                self.schedule(round_trip, event);
            }
            _ => self.schedule_in(DIAL_TIMEOUT, event),
        }
    }

    pub(super) fn dial_ends(&mut self, from: PeerId, to: PeerId, incarnation: u64) {
        let pair = pair(from, to);
        self.dialing.remove(&pair);
        if self.check_up(from, incarnation).is_none() {
            // The peer may have asked for the same connection meanwhile.
            self.fail_waiting(pair, RequestError::Unreachable);
            self.keep(to, from);
            return;
        }
        let now = self.now();
        let refused = |a, b| self.nodes.get(&a).is_none_or(|node| node.book.is_refused(b, now));
        if self.is_cut(pair) || refused(from, to) || refused(to, from) {
            return self.dial_failed(from, to, incarnation, RequestError::Unreachable);
        }
        let network = |peer| self.nodes.get(&peer).map(|node| node.network);
        if network(from) != network(to) {
            return self.dial_failed(from, to, incarnation, RequestError::Unsupported);
        }
        self.connect(pair);
    }

    fn dial_failed(&mut self, from: PeerId, to: PeerId, incarnation: u64, error: RequestError) {
        self.record("dial failed", from, to, 0);
        self.fail_waiting(pair(from, to), error);
        let mut pause = PAUSE_MIN;
        if let Some(failures) = self.nodes.get_mut(&from).map(|node| node.failures.entry(to).or_default()) {
            // Six doublings pass the longest pause.
            pause = PAUSE_MIN.saturating_mul(1 << (*failures).min(6)).min(PAUSE_MAX);
            *failures = failures.saturating_add(1);
        }
        self.redial_after(pause, from, to, incarnation);
        // The other side may have wanted the connection as well, and left it to this dial.
        if let Some(incarnation) = self.nodes.get(&to).map(|node| node.incarnation) {
            self.redial_after(pause, to, from, incarnation);
        }
    }

    /// Dials a peer that is to be kept connected again after a pause, unless one runs already.
    fn redial_after(&mut self, pause: Duration, from: PeerId, to: PeerId, incarnation: u64) {
        let jitter = self.rng.random_range(0.5..=1.0);
        let Some(node) = self.nodes.get_mut(&from) else { return };
        if node.book.is_kept(to) && node.pausing.insert(to) {
            self.schedule_in(pause.mul_f64(jitter), Event::Redial { from, to, incarnation });
        }
    }

    pub(super) fn pause_over(&mut self, from: PeerId, to: PeerId) {
        if let Some(node) = self.nodes.get_mut(&from) {
            node.pausing.remove(&to);
        }
        self.keep(from, to);
    }

    fn connect(&mut self, pair: Pair) {
        let session = self.number();
        self.sessions.insert(pair, session);
        self.record("connect", pair.0, pair.1, 0);
        for (node, peer) in [pair, (pair.1, pair.0)] {
            if let Some(node) = self.nodes.get_mut(&node) {
                node.failures.remove(&peer);
                node.connected.send_modify(|peers| change(peers, |peers| peers.insert(peer)));
                // Notices are never refused.
                let _ = node.inbox.push(Inbound::Connected(peer));
            }
        }
        if self.is_cut(pair) {
            self.schedule_in(self.plan.detection, Event::CutNoticed { pair, session });
        }
        self.send_waiting(pair);
    }

    pub(super) fn disconnect(&mut self, pair: Pair) {
        let Some(session) = self.sessions.remove(&pair) else { return };
        self.record("disconnect", pair.0, pair.1, 0);
        self.close_requests(session);
        for (from, to) in [pair, (pair.1, pair.0)] {
            let Some(node) = self.nodes.get_mut(&from) else { continue };
            node.connected.send_modify(|peers| change(peers, |peers| peers.remove(&to)));
            node.admissions.remove(&to);
            // Notices are never refused.
            let _ = node.inbox.push(Inbound::Disconnected(to));
            let incarnation = node.incarnation;
            self.redial_after(PAUSE_MIN, from, to, incarnation);
        }
    }
}

fn change(peers: &mut Arc<BTreeSet<PeerId>>, step: impl FnOnce(&mut BTreeSet<PeerId>) -> bool) {
    step(Arc::make_mut(peers));
}
