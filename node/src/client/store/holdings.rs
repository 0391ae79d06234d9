//! What members are known to hold of a blob that is being stored, over changes of the committee: pure.
//!
//! Shards move from member to member when the committee changes, and most of them stay. So it is remembered of each member
//! which segments it holds as a member of which committee; from that follows what it lacks as a member of another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{
    BlobId, NodeIndex, PeerId, SegmentIndex, SliverPairIndex,
    committee::Committee,
    encoding::{Axis, SegmentShape},
};

/// Slivers of a segment.
pub(super) type Slivers = Vec<(SliverPairIndex, Axis)>;

/// What one member was sent, or vouched for, as a member of one committee.
#[derive(Debug)]
struct Part {
    committee: Arc<Committee>,
    node: NodeIndex,
    /// All segments below this one.
    below: SegmentIndex,
    /// Others behind it.
    later: BTreeSet<SegmentIndex>,
}

impl Part {
    fn has(&self, segment: SegmentIndex) -> bool {
        segment < self.below || self.later.contains(&segment)
    }

    fn add(&mut self, segment: SegmentIndex) {
        if segment >= self.below {
            self.later.insert(segment);
        }
        // Segments go out in order, so few are ever behind a gap.
        while self.later.remove(&self.below) {
            self.below.0 += 1;
        }
    }
}

/// What members hold.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    parts: BTreeMap<PeerId, Vec<Part>>,
}

impl Holdings {
    fn part(&mut self, committee: &Arc<Committee>, node: NodeIndex) -> Option<&mut Part> {
        let parts = self.parts.entry(committee.member(node)?.peer).or_default();
        let known = parts.iter().position(|part| part.committee.epoch() == committee.epoch());
        let position = known.unwrap_or_else(|| {
            let (below, later) = (SegmentIndex(0), BTreeSet::new());
            parts.push(Part { committee: Arc::clone(committee), node, below, later });
            parts.len() - 1
        });
        parts.get_mut(position)
    }

    /// A member of a committee holds all that it is to hold of a segment.
    pub(super) fn add(&mut self, committee: &Arc<Committee>, node: NodeIndex, segment: SegmentIndex) {
        if let Some(part) = self.part(committee, node) {
            part.add(segment);
        }
    }

    /// A member of a committee holds all that it is to hold of all segments, of which there are this many.
    pub(super) fn add_all(&mut self, committee: &Arc<Committee>, node: NodeIndex, n_segments: u32) {
        if let Some(part) = self.part(committee, node) {
            part.below = SegmentIndex(n_segments);
            part.later.clear();
        }
    }

    /// A peer lost some of it, and nobody knows what.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.parts.remove(peer);
    }

    /// What a member of a committee is to hold of a segment, and is not known to.
    pub(super) fn lacking(
        &self,
        committee: &Committee,
        node: NodeIndex,
        (blob_id, segment): (BlobId, SegmentIndex),
        shape: SegmentShape,
    ) -> Slivers {
        let owed = committee.slivers_of(node, (blob_id, segment), shape);
        let parts = committee.member(node).and_then(|member| self.parts.get(&member.peer));
        let parts = parts.into_iter().flatten().filter(|part| part.has(segment));
        let held: BTreeSet<_> =
            parts.flat_map(|part| part.committee.slivers_of(part.node, (blob_id, segment), shape)).collect();
        owed.filter(|sliver| !held.contains(sliver)).collect()
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        Epoch, ShardIndex, bls,
        committee::{Member, pair_of},
        encoding::BlobShape,
    };

    use super::*;

    const ID: BlobId = BlobId([7; 32]);

    /// Four shards, of which shard `i` belongs to `owners[i]`.
    fn committee(epoch: u32, owners: [u8; 4]) -> Arc<Committee> {
        let member = |owner: u8| {
            let (peer, secret) = (PeerId([owner; 32]), bls::SecretKey::from_seed(&[owner; 32]));
            let shards = (0..).zip(owners).filter(|(_, other)| *other == owner).map(|(i, _)| ShardIndex(i));
            Member {
                name: format!("node-{owner}"),
                peer,
                public_key: secret.public_key(),
                proof_of_possession: secret.prove_possession(&peer),
                addresses: Vec::new(),
                shards: shards.collect(),
            }
        };
        let nodes: BTreeSet<u8> = owners.into_iter().collect();
        Arc::new(Committee::new(Epoch(epoch), 4, nodes.into_iter().map(member).collect()).unwrap())
    }

    /// Shards of which a member lacks slivers.
    fn lacking(
        holdings: &Holdings,
        committee: &Committee,
        owner: u8,
        (segment, len): (u32, u64),
    ) -> Vec<u16> {
        let segment = SegmentIndex(segment);
        let shape = BlobShape::new(4, len).unwrap().segment(SegmentIndex(0)).unwrap();
        let node = committee.index_of(&PeerId([owner; 32])).unwrap();
        let slivers = holdings.lacking(committee, node, (ID, segment), shape);
        let shard = |pair| (0..4).find(|shard| pair_of(4, &ID, segment, ShardIndex(*shard)) == pair).unwrap();
        let shards: BTreeSet<u16> = slivers.into_iter().map(|(pair, _)| shard(pair)).collect();
        shards.into_iter().collect()
    }

    #[test]
    fn a_member_lacks_what_it_gained_over_all_committees() {
        let large = |segment| (segment, 10_000);
        let [first, second, third] =
            [committee(0, [1, 2, 3, 3]), committee(1, [2, 2, 3, 1]), committee(2, [1, 1, 2, 3])];
        let mut holdings = Holdings::default();
        assert_eq!(lacking(&holdings, &first, 3, large(0)), [2, 3]);
        for node in first.nodes() {
            holdings.add(&first, node, SegmentIndex(0));
        }
        for owner in [1, 2, 3] {
            assert!(lacking(&holdings, &first, owner, large(0)).is_empty());
        }
        assert_eq!(lacking(&holdings, &second, 1, large(0)), [3]);
        assert_eq!(lacking(&holdings, &second, 2, large(0)), [0]);
        assert!(lacking(&holdings, &second, 3, large(0)).is_empty());
        assert_eq!(lacking(&holdings, &second, 3, large(1)), [2], "nothing is known of another segment");
        let one = second.index_of(&PeerId([1; 32])).unwrap();
        holdings.add_all(&second, one, 1);
        // It had shard 0 in the first epoch, and has 0 and 1 in the third.
        assert_eq!(lacking(&holdings, &third, 1, large(0)), [1]);
        assert!(lacking(&holdings, &third, 3, large(0)).is_empty());
        holdings.forget(&PeerId([1; 32]));
        assert_eq!(lacking(&holdings, &third, 1, large(0)), [0, 1]);
    }

    #[test]
    fn segments_may_arrive_in_any_order_and_twice() {
        let committee = committee(0, [1, 2, 3, 4]);
        let mut holdings = Holdings::default();
        for segment in [2, 0, 2, 1, 0, 4] {
            holdings.add(&committee, NodeIndex(0), SegmentIndex(segment));
        }
        let held = (0..6).filter(|segment| lacking(&holdings, &committee, 1, (*segment, 10_000)).is_empty());
        assert_eq!(held.collect::<Vec<_>>(), [0, 1, 2, 4]);
        let part = &holdings.parts[&PeerId([1; 32])][0];
        assert_eq!((part.below, part.later.len()), (SegmentIndex(3), 1), "what has no gap takes no memory");
    }

    #[test]
    fn a_copy_of_a_small_blob_is_kept_at_another_place_by_who_has_another_first_shard() {
        let small = (0, 10);
        let [first, second] = [committee(0, [1, 2, 3, 3]), committee(1, [2, 2, 3, 1])];
        let mut holdings = Holdings::default();
        for node in first.nodes() {
            holdings.add(&first, node, SegmentIndex(0));
        }
        assert_eq!(lacking(&holdings, &second, 1, small), [3]);
        assert_eq!(lacking(&holdings, &second, 2, small), [0]);
        assert!(lacking(&holdings, &second, 3, small).is_empty());
    }
}
