//! What this node knows of its peers: role, addresses, and how well they behave. Pure; time is an argument.

use std::{collections::BTreeMap, time::Duration};

use protocol::PeerId;

use crate::{
    address::Address,
    network::{Offence, PeerRole},
};

/// Addresses remembered for a peer: a host seldom has more than two networks with two transports each.
const ADDRESSES_MAX: usize = 8;

/// Peers remembered that are neither members nor bootstrap peers. Identities are free to make, so the list must end;
/// 4,096 take about a megabyte.
const OTHERS_MAX: usize = 4_096;

/// A peer below this score is refused: two failed proofs, or four messages that do not decode.
const REFUSED_BELOW: i64 = -99;

/// A point is forgiven in this time, so a single failed proof is forgotten after five minutes.
const FORGIVEN_EVERY: Duration = Duration::from_secs(6);

/// What is left of the score after a refusal: half the way down, so that a peer that goes on is refused sooner.
const SCORE_AFTER_REFUSAL: i64 = REFUSED_BELOW / 2;

/// A stranger is refused for this long. Shorter, and breaking rules is cheap; longer, and a fixed bug is not noticed.
const STRANGER_REFUSED_FOR: Duration = Duration::from_secs(600);

/// A member is refused for this long: its shards are needed, and too few faulty members exist to be worth more.
const MEMBER_REFUSED_FOR: Duration = Duration::from_secs(30);

impl Offence {
    /// Points that this takes off the score.
    const fn points(self) -> i64 {
        match self {
            Self::Unverifiable => 50,
            Self::Malformed => 25,
            Self::Flooding => 10,
            Self::Unhelpful => 5,
        }
    }
}

/// One peer.
#[derive(Debug, Default)]
struct Entry {
    role: PeerRole,
    addresses: Vec<Address>,
    /// Zero or below, as of `scored_at`.
    score: i64,
    scored_at: Duration,
    /// When it was refused; for how long, its role says, which may change meanwhile.
    refused_at: Option<Duration>,
    /// Larger is more recent.
    touched: u64,
}

/// The peers known.
#[derive(Debug, Default)]
pub(crate) struct PeerBook {
    entries: BTreeMap<PeerId, Entry>,
    n_others: usize,
    touches: u64,
}

impl PeerBook {
    /// Adds addresses of a peer, and sets its role.
    pub(crate) fn add(&mut self, peer: PeerId, addresses: Vec<Address>, role: PeerRole) {
        self.set_role(peer, role);
        let entry = self.entry(peer);
        for address in addresses {
            // The latest go first: an address given again is the one that its peer uses now.
            entry.addresses.retain(|known| *known != address);
            entry.addresses.insert(0, address);
        }
        entry.addresses.truncate(ADDRESSES_MAX);
    }

    fn set_role(&mut self, peer: PeerId, role: PeerRole) {
        let before = std::mem::replace(&mut self.entry(peer).role, role);
        self.n_others -= usize::from(before == PeerRole::Other);
        self.n_others += usize::from(role == PeerRole::Other);
    }

    /// The entry of a peer, made if needed; the stranger untouched for longest makes room for it.
    fn entry(&mut self, peer: PeerId) -> &mut Entry {
        self.touches += 1;
        if !self.entries.contains_key(&peer) {
            if self.n_others >= OTHERS_MAX {
                let others = self.entries.iter().filter(|(_, entry)| entry.role == PeerRole::Other);
                let oldest = others.min_by_key(|(_, entry)| entry.touched).map(|(peer, _)| *peer);
                if let Some(oldest) = oldest {
                    self.entries.remove(&oldest);
                    self.n_others -= 1;
                }
            }
            self.n_others += 1;
        }
        let touched = self.touches;
        let entry = self.entries.entry(peer).or_default();
        entry.touched = touched;
        entry
    }

    /// The role of a peer.
    pub(crate) fn role(&self, peer: PeerId) -> PeerRole {
        self.entries.get(&peer).map_or(PeerRole::Other, |entry| entry.role)
    }

    /// The addresses known of a peer, the latest first.
    pub(crate) fn addresses(&self, peer: PeerId) -> &[Address] {
        self.entries.get(&peer).map_or(&[], |entry| &entry.addresses)
    }

    /// Whether to stay connected to a peer.
    pub(crate) fn is_kept(&self, peer: PeerId) -> bool {
        self.role(peer) != PeerRole::Other && !self.addresses(peer).is_empty()
    }

    /// Takes an offence off the score; `true` if the peer is refused from now on.
    pub(crate) fn report(&mut self, peer: PeerId, offence: Offence, now: Duration) -> bool {
        if self.is_refused(peer, now) {
            return false;
        }
        let entry = self.entry(peer);
        let forgiven = now.saturating_sub(entry.scored_at).as_secs() / FORGIVEN_EVERY.as_secs();
        let forgiven = i64::try_from(forgiven).unwrap_or(i64::MAX);
        entry.score = entry.score.saturating_add(forgiven).min(0) - offence.points();
        entry.scored_at = now;
        let refused = entry.score < REFUSED_BELOW;
        if refused {
            entry.refused_at = Some(now);
            entry.score = SCORE_AFTER_REFUSAL;
        }
        refused
    }

    /// Until when a peer is refused, if it is.
    pub(crate) fn refused_until(&self, peer: PeerId, now: Duration) -> Option<Duration> {
        let entry = self.entries.get(&peer)?;
        let period = if entry.role == PeerRole::Member { MEMBER_REFUSED_FOR } else { STRANGER_REFUSED_FOR };
        Some(entry.refused_at?.saturating_add(period)).filter(|until| now < *until)
    }

    /// Whether a peer is refused.
    pub(crate) fn is_refused(&self, peer: PeerId, now: Duration) -> bool {
        self.refused_until(peer, now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([1; 32]);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn two_failed_proofs_are_refused_and_time_forgives() {
        let mut book = PeerBook::default();
        assert!(!book.report(PEER, Offence::Unverifiable, seconds(0)));
        assert!(book.report(PEER, Offence::Unverifiable, seconds(1)));
        assert!(book.is_refused(PEER, seconds(600)));
        assert!(!book.is_refused(PEER, seconds(601)));
        assert!(!book.report(PEER, Offence::Unverifiable, seconds(10_000)));
        assert!(!book.report(PEER, Offence::Unverifiable, seconds(10_301)), "forgotten after five minutes");
    }

    #[test]
    fn a_member_is_refused_only_briefly() {
        let mut book = PeerBook::default();
        book.add(PEER, Vec::new(), PeerRole::Member);
        for at in 0..1_000 {
            book.report(PEER, Offence::Unverifiable, seconds(at));
        }
        assert!(!book.is_refused(PEER, seconds(1_030)));
    }

    #[test]
    fn who_becomes_a_member_is_refused_no_longer_than_a_member() {
        let mut book = PeerBook::default();
        book.report(PEER, Offence::Unverifiable, seconds(0));
        assert!(book.report(PEER, Offence::Unverifiable, seconds(1)));
        assert!(book.is_refused(PEER, seconds(100)));
        book.add(PEER, Vec::new(), PeerRole::Member);
        assert!(!book.is_refused(PEER, seconds(100)));
        assert!(book.is_refused(PEER, seconds(30)));
    }

    #[test]
    fn strangers_are_forgotten_and_members_are_not() {
        let mut book = PeerBook::default();
        book.add(PEER, Vec::new(), PeerRole::Member);
        let id = |i: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&i.to_le_bytes());
            PeerId(id)
        };
        for i in 0..OTHERS_MAX + 10 {
            book.add(id(i), Vec::new(), PeerRole::Other);
        }
        assert_eq!(book.entries.len(), OTHERS_MAX + 1);
        assert_eq!(book.role(PEER), PeerRole::Member);
        assert!(!book.entries.contains_key(&id(9)));
        book.add(PEER, Vec::new(), PeerRole::Other);
        book.add(id(20), Vec::new(), PeerRole::Bootstrap);
        assert_eq!(book.n_others, OTHERS_MAX);
    }

    #[test]
    fn the_latest_addresses_are_kept() {
        let mut book = PeerBook::default();
        let address = |port: usize| format!("/ip4/127.0.0.1/tcp/{port}").parse::<Address>().unwrap();
        book.add(PEER, (0..ADDRESSES_MAX + 2).map(address).collect(), PeerRole::Other);
        assert_eq!(book.addresses(PEER).first(), Some(&address(ADDRESSES_MAX + 1)));
        assert_eq!(book.addresses(PEER).len(), ADDRESSES_MAX);
        assert!(!book.is_kept(PEER));
        book.add(PEER, Vec::new(), PeerRole::Member);
        assert!(book.is_kept(PEER));
    }
}
