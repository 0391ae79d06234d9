//! Whom to ask for which symbols; no I/O, no clock.
//!
//! Symbols come from crossing slivers, each held by one node, or during a handover perhaps by two. What this node holds itself
//! costs nothing and is taken first. Of the others, whole nodes are asked in a given order until enough is on its way, one
//! message for all slivers of a node; a node that fails is replaced by the next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::PeerId;

/// Crossing slivers to be asked of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// The node.
    pub(super) node: PeerId,
    /// Indices of its slivers.
    pub(super) crossings: Vec<u16>,
}

/// How the gathering of symbols stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Answers are on their way.
    Waiting,
    /// Enough symbols are at hand.
    Complete,
    /// Too few symbols can be had.
    Short {
        /// Symbols at hand.
        got: usize,
        /// Symbols needed.
        required: usize,
    },
}

/// Collects enough crossings of one kind.
#[derive(Clone, Debug)]
pub(super) struct Gather {
    required: usize,
    got: BTreeSet<u16>,
    pending: BTreeSet<u16>,
    /// Nodes not asked yet, in the order in which to ask them, with the slivers they hold.
    candidates: VecDeque<Ask>,
}

impl Gather {
    /// Starts with the crossings `at_hand`; `candidates` are asked in order, none twice for the same sliver.
    pub(super) fn new(
        required: usize,
        at_hand: impl IntoIterator<Item = u16>,
        candidates: impl IntoIterator<Item = Ask>,
    ) -> Self {
        let got: BTreeSet<u16> = at_hand.into_iter().collect();
        let candidates = candidates
            .into_iter()
            .map(|mut ask| {
                ask.crossings.retain(|crossing| !got.contains(crossing));
                ask
            })
            .filter(|ask| !ask.crossings.is_empty())
            .collect();
        Self { required, got, pending: BTreeSet::new(), candidates }
    }

    /// What to ask now, so that enough is at hand or on its way.
    pub(super) fn next(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        while self.got.len() + self.pending.len() < self.required {
            let missing = self.required - self.got.len() - self.pending.len();
            let Some(candidate) = self.candidates.front_mut() else { break };
            // Another node may have been asked for the same.
            candidate.crossings.retain(|it| !self.got.contains(it) && !self.pending.contains(it));
            let take = missing.min(candidate.crossings.len());
            let crossings: Vec<u16> = candidate.crossings.drain(..take).collect();
            let node = candidate.node;
            if candidate.crossings.is_empty() {
                self.candidates.pop_front();
            }
            if crossings.is_empty() {
                continue;
            }
            self.pending.extend(&crossings);
            asks.push(Ask { node, crossings });
        }
        asks
    }

    /// Books the answer to an [`Ask`]: all of its symbols.
    pub(super) fn received(&mut self, ask: &Ask) {
        for crossing in &ask.crossings {
            if self.pending.remove(crossing) {
                self.got.insert(*crossing);
            }
        }
    }

    /// Books a failed [`Ask`]: nothing more is asked of its node.
    pub(super) fn failed(&mut self, ask: &Ask) {
        for crossing in &ask.crossings {
            self.pending.remove(crossing);
        }
        self.exclude(ask.node);
    }

    /// Asks nothing more of a node.
    pub(super) fn exclude(&mut self, node: PeerId) {
        self.candidates.retain(|candidate| candidate.node != node);
    }

    /// Takes back a symbol that turned out to be wrong.
    pub(super) fn reject(&mut self, crossing: u16) {
        self.got.remove(&crossing);
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        let got = self.got.len();
        if got >= self.required {
            Standing::Complete
        } else if self.pending.is_empty() && self.candidates.is_empty() {
            Standing::Short { got, required: self.required }
        } else {
            Standing::Waiting
        }
    }
}

/// Groups crossing slivers by a node that holds them, in the order of `nodes`: first as those say who surely does, then as others
/// say who may as well. `holders` has the nodes of each sliver in that order.
pub(super) fn group_by_node(
    holders: impl IntoIterator<Item = (u16, Vec<PeerId>)>,
    nodes: &[PeerId],
) -> Vec<Ask> {
    let mut by_rank: [BTreeMap<PeerId, Vec<u16>>; 2] = Default::default();
    for (crossing, holders) in holders {
        for (rank, node) in holders.into_iter().enumerate() {
            by_rank[rank.min(1)].entry(node).or_default().push(crossing);
        }
    }
    let asks = by_rank.into_iter().flat_map(|mut by_node| {
        let ask = move |node: &PeerId| by_node.remove(node).map(|crossings| Ask { node: *node, crossings });
        nodes.iter().filter_map(ask).collect::<Vec<_>>()
    });
    asks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(node: u8, crossings: &[u16]) -> Ask {
        Ask { node: peer(node), crossings: crossings.to_vec() }
    }

    fn peer(node: u8) -> PeerId {
        PeerId([node; 32])
    }

    #[test]
    fn what_two_nodes_hold_is_asked_of_the_second_if_the_first_fails() {
        let mut gather = Gather::new(3, [], [ask(1, &[1, 2]), ask(2, &[3]), ask(3, &[1, 3, 4])]);
        assert_eq!(gather.next(), [ask(1, &[1, 2]), ask(2, &[3])]);
        gather.received(&ask(2, &[3]));
        gather.failed(&ask(1, &[1, 2]));
        assert_eq!(gather.next(), [ask(3, &[1, 4])]);
        assert_eq!(gather.standing(), Standing::Waiting);
        gather.received(&ask(3, &[1, 4]));
        assert_eq!(gather.standing(), Standing::Complete);
    }

    #[test]
    fn what_is_at_hand_is_not_asked_for() {
        let mut gather = Gather::new(4, [0, 1], [ask(1, &[1, 2]), ask(2, &[3, 4]), ask(3, &[5])]);
        assert_eq!(gather.standing(), Standing::Waiting);
        assert_eq!(gather.next(), [ask(1, &[2]), ask(2, &[3])]);
        assert_eq!(gather.next(), []);
        gather.received(&ask(1, &[2]));
        gather.received(&ask(2, &[3]));
        assert_eq!(gather.standing(), Standing::Complete);
    }

    #[test]
    fn a_node_that_fails_is_replaced_and_not_asked_again() {
        let mut gather = Gather::new(2, [], [ask(1, &[1, 2, 3]), ask(2, &[4]), ask(3, &[5])]);
        assert_eq!(gather.next(), [ask(1, &[1, 2])]);
        gather.failed(&ask(1, &[1, 2]));
        assert_eq!(gather.next(), [ask(2, &[4]), ask(3, &[5])]);
        gather.received(&ask(2, &[4]));
        gather.failed(&ask(3, &[5]));
        assert_eq!(gather.next(), []);
        assert_eq!(gather.standing(), Standing::Short { got: 1, required: 2 });
    }

    #[test]
    fn a_wrong_symbol_is_replaced() {
        let mut gather = Gather::new(2, [0], [ask(1, &[1]), ask(2, &[2])]);
        assert_eq!(gather.next(), [ask(1, &[1])]);
        gather.received(&ask(1, &[1]));
        gather.reject(1);
        assert_eq!(gather.standing(), Standing::Waiting);
        assert_eq!(gather.next(), [ask(2, &[2])]);
    }

    #[test]
    fn nothing_more_is_asked_of_a_liar() {
        let mut gather = Gather::new(2, [0], [ask(1, &[1, 2, 3]), ask(2, &[4])]);
        assert_eq!(gather.next(), [ask(1, &[1])]);
        gather.received(&ask(1, &[1]));
        gather.reject(1);
        gather.exclude(peer(1));
        assert_eq!(gather.next(), [ask(2, &[4])]);
    }

    #[test]
    fn slivers_are_asked_node_by_node() {
        let holders = [
            (0, vec![peer(5)]),
            (1, vec![peer(6), peer(5)]),
            (2, vec![peer(5), peer(6)]),
            (3, vec![peer(7)]),
        ];
        let asks = group_by_node(holders, &[peer(6), peer(5)]);
        assert_eq!(asks, [ask(6, &[1]), ask(5, &[0, 2]), ask(6, &[2]), ask(5, &[1])]);
    }
}
