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
