//! Who is on the next committee, and which shards each member answers for: a pure function, so that all nodes that have the
//! same ledger come to the same answer.
//!
//! ```text
//! candidates --active set, by stake--> --apportion: D'Hondt with a cap--> entitlements --assign: keep what one has--> shards
//! ```
//!
//! # Invariants
//!
//! - Every shard is assigned once, and no node has more than the cap.
//! - As few shards move as the entitlements allow: a node keeps what it has up to its entitlement.
//! - The order in which candidates are given makes no difference.
//!
//! Source: Walrus paper (2025), section 4.6: stake decides how many shards a node has, and nodes keep theirs where they can.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use crate::ids::{PeerId, ShardIndex};

/// A node that may be selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: PeerId,
    /// Credits behind it. A node with none counts as if it had one, so that a network without stake gives each node as much.
    pub stake: u64,
}

/// What a selection has to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Shards to assign.
    pub n_shards: u16,
    /// Most nodes on a committee.
    pub members_max: u16,
    /// Most shards of one node.
    pub node_shards_max: u16,
}

/// Why no committee can be formed. Nobody is at fault; the old one goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{candidates} candidates, of which at most {members_max} are selected with at most {node_shards_max} shards each, cannot take \
     {n_shards} shards"
)]
pub struct SelectionError {
    /// Nodes that may be selected.
    pub candidates: usize,
    /// Most nodes on a committee.
    pub members_max: u16,
    /// Most shards of one node.
    pub node_shards_max: u16,
    /// Shards to assign.
    pub n_shards: u16,
}

/// The shards of each member; none has no shard.
pub type Assignment = BTreeMap<PeerId, Vec<ShardIndex>>;

/// Selects the next committee and gives each member its shards, ascending. `current` has the shards of the committee that
/// hands over.
///
/// # Errors
///
/// [`SelectionError`].
pub fn select(
    candidates: &[Candidate],
    current: &Assignment,
    rules: Rules,
) -> Result<Assignment, SelectionError> {
    Ok(assign(&apportion(candidates, rules)?, current, rules.n_shards))
}

/// A claim to one more shard. The greatest is served first: by stake per shard, then by stake, then the smaller identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    stake: u64,
    /// Shards that the node would have with this one.
    shards: u16,
    node: PeerId,
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // stake / shards against other.stake / other.shards, without a division.
        let per_shard = |claim: &Self, other: &Self| u128::from(claim.stake) * u128::from(other.shards);
        per_shard(self, other)
            .cmp(&per_shard(other, self))
            .then(self.stake.cmp(&other.stake))
            .then(other.node.cmp(&self.node))
    }
}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// How many shards each selected node is entitled to: D'Hondt's method over the stakes of the nodes with the most stake, with
/// a cap. Nodes that are entitled to none are left out.
///
/// # Errors
///
/// [`SelectionError`] if all of them at the cap have fewer shards than there are.
pub fn apportion(candidates: &[Candidate], rules: Rules) -> Result<BTreeMap<PeerId, u16>, SelectionError> {
    let Rules { n_shards, members_max, node_shards_max } = rules;
    let mut active: Vec<Candidate> = candidates
        .iter()
        .map(|candidate| Candidate { stake: candidate.stake.max(1), ..*candidate })
        .collect();
    active.sort_unstable_by_key(|candidate| (Reverse(candidate.stake), candidate.node));
    active.dedup_by_key(|candidate| candidate.node);
    active.truncate(usize::from(members_max));
    if active.len() * usize::from(node_shards_max) < usize::from(n_shards) {
        let candidates = candidates.len();
        return Err(SelectionError { candidates, members_max, node_shards_max, n_shards });
    }
    let first =
        active.iter().map(|candidate| Claim { stake: candidate.stake, shards: 1, node: candidate.node });
    let mut claims: BinaryHeap<Claim> = first.filter(|_| node_shards_max > 0).collect();
    let mut entitled = BTreeMap::new();
    for _ in 0..n_shards {
        // There are as many claims as shards: the active nodes at the cap have enough.
        let Some(claim) = claims.pop() else { break };
        entitled.insert(claim.node, claim.shards);
        if claim.shards < node_shards_max {
            claims.push(Claim { shards: claim.shards + 1, ..claim });
        }
    }
    Ok(entitled)
}

/// Gives each node as many shards as it is entitled to: first those that it has, the lowest first, then, in the order of the
/// nodes, what is left.
fn assign(entitled: &BTreeMap<PeerId, u16>, current: &Assignment, n_shards: u16) -> Assignment {
    let mut owners: Vec<Option<PeerId>> = vec![None; usize::from(n_shards)];
    let mut missing: BTreeMap<PeerId, u16> = entitled.clone();
    for (node, shards) in current {
        let Some(missing) = missing.get_mut(node) else { continue };
        let mut shards: Vec<ShardIndex> = shards.iter().copied().filter(|shard| shard.0 < n_shards).collect();
        shards.sort_unstable();
        for shard in shards {
            let owner = &mut owners[usize::from(shard.0)];
            if *missing > 0 && owner.is_none() {
                *owner = Some(*node);
                *missing -= 1;
            }
        }
    }
    let mut gainers = missing.into_iter().flat_map(|(node, n)| std::iter::repeat_n(node, usize::from(n)));
    for owner in &mut owners {
        if owner.is_none() {
            *owner = gainers.next();
        }
    }
    let mut assignment = Assignment::new();
    for (shard, owner) in (0..n_shards).map(ShardIndex).zip(owners) {
        if let Some(owner) = owner {
            assignment.entry(owner).or_default().push(shard);
        }
    }
    assignment
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(index: u8) -> PeerId {
        PeerId([index; 32])
    }

    fn candidates(stakes: &[u64]) -> Vec<Candidate> {
        (0..).zip(stakes).map(|(index, stake)| Candidate { node: peer(index), stake: *stake }).collect()
    }

    fn rules(n_shards: u16, members_max: u16, node_shards_max: u16) -> Rules {
        Rules { n_shards, members_max, node_shards_max }
    }

    fn seats(stakes: &[u64], rules: Rules) -> Vec<u16> {
        let entitled = apportion(&candidates(stakes), rules).unwrap();
        (0..stakes.len())
            .map(|index| entitled.get(&peer(u8::try_from(index).unwrap())).copied().unwrap_or(0))
            .collect()
    }

    #[test]
    fn shards_follow_stake() {
        let table: [(&[u64], Rules, &[u16]); 8] = [
            // The textbook's: 8 seats for 100, 80, 30 and 20 (thousands of) votes.
            (&[100_000, 80_000, 30_000, 20_000], rules(8, 9, 8), &[4, 3, 1, 0]),
            (&[1, 1, 1, 1], rules(10, 9, 10), &[3, 3, 2, 2]),
            // Without stake, everyone has as much.
            (&[0, 0, 0], rules(7, 9, 7), &[3, 2, 2]),
            (&[1000, 0, 0], rules(7, 9, 7), &[7, 0, 0]),
            // The cap leaves the rest to the others.
            (&[1000, 2, 1], rules(7, 9, 3), &[3, 3, 1]),
            (&[1000, 0, 0], rules(6, 9, 2), &[2, 2, 2]),
            // Only those with the most stake are selected.
            (&[5, 9, 7, 8], rules(6, 2, 6), &[0, 3, 0, 3]),
            (&[u64::MAX, u64::MAX, 1], rules(1000, 9, 1000), &[500, 500, 0]),
        ];
        for (stakes, rules, expected) in table {
            assert_eq!(seats(stakes, rules), expected, "{stakes:?} {rules:?}");
        }
    }

    #[test]
    fn a_committee_that_cannot_be_formed_is_refused() {
        for (stakes, rules) in [
            (&[][..], rules(4, 9, 4)),
            (&[5, 5, 5][..], rules(7, 9, 2)),
            (&[5, 5, 5][..], rules(7, 2, 3)),
            (&[5][..], rules(4, 0, 4)),
            (&[5][..], rules(4, 4, 0)),
        ] {
            let error = apportion(&candidates(stakes), rules).unwrap_err();
            assert_eq!(error.candidates, stakes.len());
        }
    }

    /// A selection after another.
    #[derive(Debug)]
    struct Case {
        before: Vec<u64>,
        after: Vec<u64>,
        rules: Rules,
        seed: usize,
    }

    fn case() -> impl Strategy<Value = Case> {
        let stake = prop_oneof![3 => 0..20_u64, 3 => 0..1_000_000_u64, 1 => any::<u64>()];
        let stakes = || proptest::collection::vec(stake.clone(), 1..24);
        (stakes(), stakes(), 1..80_u16, 1..30_u16, 1..80_u16, any::<usize>()).prop_map(
            |(before, after, n_shards, members_max, node_shards_max, seed)| Case {
                before,
                after,
                rules: rules(n_shards, members_max, node_shards_max),
                seed,
            },
        )
    }

    /// D'Hondt by its definition: the greatest of all quotients of stake and number of shards.
    fn by_definition(candidates: &[Candidate], rules: Rules) -> BTreeMap<PeerId, u16> {
        let mut active = candidates.to_vec();
        active.sort_by_key(|candidate| (Reverse(candidate.stake.max(1)), candidate.node));
        active.truncate(usize::from(rules.members_max));
        let mut claims: Vec<Claim> = active
            .iter()
            .flat_map(|candidate| {
                (1..=rules.node_shards_max).map(|shards| Claim {
                    stake: candidate.stake.max(1),
                    shards,
                    node: candidate.node,
                })
            })
            .collect();
        claims.sort_by(|a, b| b.cmp(a));
        let mut entitled = BTreeMap::new();
        for claim in claims.into_iter().take(usize::from(rules.n_shards)) {
            *entitled.entry(claim.node).or_default() += 1;
        }
        entitled
    }

    proptest! {
        #[test]
        fn selections_keep_to_the_rules_and_move_as_little_as_they_can(case in case()) {
            let Case { before, after, rules, seed } = case;
            let before = candidates(&before);
            let mut after = candidates(&after);
            let current = select(&before, &Assignment::new(), rules).unwrap_or_default();
            let Ok(next) = select(&after, &current, rules) else {
                let n_active = after.len().min(usize::from(rules.members_max));
                prop_assert!(n_active * usize::from(rules.node_shards_max) < usize::from(rules.n_shards));
                return Ok(());
            };
            // Every shard once.
            let mut shards: Vec<ShardIndex> = next.values().flatten().copied().collect();
            shards.sort_unstable();
            prop_assert!(shards.into_iter().eq((0..rules.n_shards).map(ShardIndex)));
            // As many as each is entitled to, by the definition, and none above the cap.
            let entitled = by_definition(&after, rules);
            prop_assert_eq!(entitled.len(), next.len());
            for (node, shards) in &next {
                prop_assert_eq!(Some(&u16::try_from(shards.len()).unwrap()), entitled.get(node));
                prop_assert!(shards.len() <= usize::from(rules.node_shards_max));
                prop_assert!(shards.is_sorted());
                // It keeps what it has, up to that.
                let had = current.get(node).map_or(&[][..], Vec::as_slice);
                let kept = shards.iter().filter(|shard| had.contains(shard)).count();
                prop_assert_eq!(kept, had.len().min(shards.len()));
            }
            // In whichever order they are given.
            let n = after.len();
            after.rotate_left(seed % n);
            after.reverse();
            prop_assert_eq!(select(&after, &current, rules), Ok(next.clone()));
            // The same stakes again move nothing.
            prop_assert_eq!(select(&after, &next, rules), Ok(next));
        }
    }
}
