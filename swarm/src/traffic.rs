//! What went over the network, and what its limits kept out: counters for whoever watches the node.
//!
//! Counting is one addition that waits for nobody, and nothing is decided by these numbers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{frame::Topic, network::Offence};

/// A count since the start for each of a closed set of keys. Cheap to clone: clones count together.
#[derive(Debug)]
pub struct Tally<K>(Arc<BTreeMap<K, AtomicU64>>);

impl<K> Clone for Tally<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Copy + Ord> Tally<K> {
    /// A count of zero for each of these keys.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = K>) -> Self {
        Self(Arc::new(keys.into_iter().map(|key| (key, AtomicU64::new(0))).collect()))
    }

    /// Counts one more. A key that is not of the set is not counted.
    pub fn count(&self, key: K) {
        if let Some(count) = self.0.get(&key) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts, in the order of the keys.
    #[must_use]
    pub fn counts(&self) -> Vec<(K, u64)> {
        self.0.iter().map(|(key, count)| (*key, count.load(Ordering::Relaxed))).collect()
    }
}

/// How full a queue is, and what went through it since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLoad {
    /// Messages that wait.
    pub waiting: usize,
    /// Messages that may wait.
    pub capacity: usize,
    /// Messages taken out.
    pub taken: u64,
    /// Messages that were refused because it was full.
    pub refused: u64,
}

/// What a limit kept out of what peers sent. What a full queue refused is in its [`QueueLoad`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// A request beyond what its peer may ask in a second.
    Rate,
    /// A request beyond what its peer may have in hand at once.
    InFlight,
    /// A request for whose bytes there was no room.
    RequestBytes,
    /// A request that broke the form of a frame.
    Malformed,
    /// An answer of this node for whose bytes there was no room.
    AnswerBytes,
    /// A message on a topic while too many were still to be judged.
    Verdicts,
    /// A connection while too many handshakes were under way.
    Handshakes,
    /// A connection with a peer that is refused for a while.
    RefusedPeer,
    /// A connection with a peer whose identity is of another kind.
    Identity,
    /// One connection too many with a peer.
    PeerConnections,
    /// One connection too many in all.
    Connections,
    /// One connection too many with peers of one address range.
    NetworkConnections,
}

impl Dropped {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Rate,
        Self::InFlight,
        Self::RequestBytes,
        Self::Malformed,
        Self::AnswerBytes,
        Self::Verdicts,
        Self::Handshakes,
        Self::RefusedPeer,
        Self::Identity,
        Self::PeerConnections,
        Self::Connections,
        Self::NetworkConnections,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::InFlight => "in_flight",
            Self::RequestBytes => "request_bytes",
            Self::Malformed => "malformed",
            Self::AnswerBytes => "answer_bytes",
            Self::Verdicts => "verdicts",
            Self::Handshakes => "handshakes",
            Self::RefusedPeer => "refused_peer",
            Self::Identity => "identity",
            Self::PeerConnections => "peer_connections",
            Self::Connections => "connections",
            Self::NetworkConnections => "network_connections",
        }
    }
}

/// What became of a message on a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gossip {
    /// This node wrote it.
    Published,
    /// It came from a peer, was valid, and travels on.
    Accepted,
    /// It came from a peer and goes no further: it was stale, or there was no room for it.
    Ignored,
    /// It came from a peer and was invalid.
    Rejected,
}

impl Gossip {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Published, Self::Accepted, Self::Ignored, Self::Rejected];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Accepted => "accepted",
            Self::Ignored => "ignored",
            Self::Rejected => "rejected",
        }
    }
}

/// Counts of a network since it started. Cheap to clone: clones count together.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// What limits kept out.
    pub dropped: Tally<Dropped>,
    /// Messages on topics.
    pub gossip: Tally<(Topic, Gossip)>,
    /// Rules that peers broke.
    pub offences: Tally<Offence>,
}

impl Default for Traffic {
    fn default() -> Self {
        let outcomes = |topic| Gossip::ALL.map(|outcome| (topic, outcome));
        Self {
            dropped: Tally::new(Dropped::ALL),
            gossip: Tally::new(Topic::ALL.into_iter().flat_map(outcomes)),
            offences: Tally::new(Offence::ALL),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_key_counts_by_itself_and_clones_count_together() {
        let tally = Tally::new([1, 2, 3]);
        let clone = tally.clone();
        for key in [3, 1, 3, 7] {
            clone.count(key);
        }
        assert_eq!(tally.counts(), [(1, 1), (2, 0), (3, 2)]);
    }

    #[test]
    fn names_are_distinct_and_all_are_listed() {
        let dropped: BTreeSet<_> = Dropped::ALL.map(Dropped::name).into();
        assert_eq!(dropped.len(), Dropped::ALL.len());
        let gossip: BTreeSet<_> = Gossip::ALL.map(Gossip::name).into();
        assert_eq!(gossip.len(), Gossip::ALL.len());
        let offences: BTreeSet<_> = Offence::ALL.map(Offence::name).into();
        assert_eq!(offences.len(), Offence::ALL.len());
        assert_eq!(Traffic::default().gossip.counts().len(), Topic::ALL.len() * Gossip::ALL.len());
    }
}
