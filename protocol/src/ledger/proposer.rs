//! Whose turn it is to propose a block.
//!
//! Turns are dealt by weighted round robin: of any `n` turns in a row, `n` the number of shards, a member has as many as it
//! has shards, spread as evenly as they can be. Even spreading matters when a member is down: each of its turns costs a
//! timeout, and turns in a row would add up. The turn of a height and round is turn `(height + round) mod n`.

use crate::{committee::Committee, ids::NodeIndex};

/// The turns of a committee, dealt once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation(
    /// `[n_shards]` member of each turn. INV: not empty.
    Vec<NodeIndex>,
);

impl Rotation {
    /// Deals the turns. Each turn goes to the member that is owed most: all are owed their weight more, the first of
    /// those with most takes the turn and is owed `n` less.
    ///
    /// Costs members times shards, a million steps at most; keep the result.
    ///
    /// # Panics
    ///
    /// Never: a committee has members.
    #[must_use]
    pub fn new(committee: &Committee) -> Self {
        let n = i64::from(committee.n_shards());
        let mut owed: Vec<(NodeIndex, i64, i64)> =
            committee.nodes().map(|node| (node, i64::from(committee.weight(node)), 0)).collect();
        let turns = (0..committee.n_shards()).map(|_| {
            for (_, weight, credit) in &mut owed {
                *credit += *weight;
            }
            // `max_by_key` takes the last of equals; reversed, that is the member with the lowest index.
            let most = owed.iter_mut().rev().max_by_key(|(_, _, credit)| *credit);
            let (node, _, credit) = most.expect("a committee has members");
            *credit -= n;
            *node
        });
        Self(turns.collect())
    }

    /// The member whose turn it is.
    ///
    /// # Panics
    ///
    /// Never: there are 1000 turns at most.
    #[must_use]
    pub fn proposer(&self, height: u64, round: u32) -> NodeIndex {
        let n = u64::try_from(self.0.len()).expect("there are 1000 turns at most");
        let turn = (height % n + u64::from(round) % n) % n;
        self.0[usize::try_from(turn).expect("there are 1000 turns at most")]
    }
}
