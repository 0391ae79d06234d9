//! Who holds what of a blob that is being stored, and what follows from it. Pure: time is an argument.
//!
//! ```text
//! Sending --all segments--> Complete --signature--> Confirmed
//!  ^ |  \--too slow--> Behind       |
//!  | +------------------failure-----+--> Failed
//!  +--------lost some of them-------+
//! ```
//!
//! # Invariants
//!
//! - A segment is in hand from `offer` until a release, so whoever bounds those in hand bounds memory.
//! - Nobody is left behind unless memory is wanted, and never before a quorum holds the segment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{NodeIndex, SegmentIndex, committee::Committee};

/// Failures named in an error; more are counted. A committee may have a thousand members.
const REASONS_MAX: usize = 8;
/// How often a member that lost what it was sent is sent it again. Twice may be a restart and a disk that ran full for
/// a moment; one that loses it again and again would have the blob sent for ever.
const RESENDS_MAX: u8 = 2;

/// What became of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// Takes slivers, and holds those of this many segments.
    Sending { segments: u32 },
    /// Holds all its slivers.
    Complete,
    /// Signed that it holds all its slivers.
    Confirmed,
    /// Too slow for this blob; it repairs itself later.
    Behind,
    /// Failed, and why.
    Failed(String),
}

#[derive(Debug)]
struct Member {
    name: String,
    weight: u16,
    standing: Standing,
    /// How often it was sent the blob again.
    resends: u8,
}

/// A segment in hand.
#[derive(Debug)]
struct Held {
    offered: Duration,
    /// When nodes worth a quorum held it.
    quorum_at: Option<Duration>,
    holders: BTreeSet<NodeIndex>,
}

/// What a release asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Release {
    /// Segments to forget.
    pub(super) segments: Vec<SegmentIndex>,
    /// Members to leave behind.
    pub(super) behind: Vec<NodeIndex>,
}

/// The members of the committee and the segments in hand.
#[derive(Debug)]
pub(super) struct State {
    quorum: u16,
    n_segments: u32,
    tail: Duration,
    members: Vec<Member>,
    held: BTreeMap<SegmentIndex, Held>,
    /// Segments that a quorum holds.
    uploaded: BTreeSet<SegmentIndex>,
}

impl State {
    pub(super) fn new(committee: &Committee, n_segments: u32, tail: Duration) -> Self {
        let members = committee.members().iter().zip(committee.nodes()).map(|(member, node)| Member {
            name: member.name.clone(),
            weight: committee.weight(node),
            standing: Standing::Sending { segments: 0 },
            resends: 0,
        });
        Self {
            quorum: committee.quorum(),
            n_segments,
            tail,
            members: members.collect(),
            held: BTreeMap::new(),
            uploaded: BTreeSet::new(),
        }
    }

    /// Goes on with the members of another committee, of whom nobody is known to hold anything, and nothing in hand.
    pub(super) fn move_to(&mut self, committee: &Committee) {
        // Progress does not go back.
        let uploaded = std::mem::take(&mut self.uploaded);
        *self = Self { uploaded, ..Self::new(committee, self.n_segments, self.tail) };
    }

    fn nodes(&self) -> impl Iterator<Item = (NodeIndex, &Member)> {
        (0..).map(NodeIndex).zip(&self.members)
    }

    /// The members that take slivers.
    pub(super) fn sending(&self) -> Vec<NodeIndex> {
        let sending =
            |(_, member): &(NodeIndex, &Member)| matches!(member.standing, Standing::Sending { .. });
        self.nodes().filter(sending).map(|(node, _)| node).collect()
    }

    /// Segments in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.held.len()
    }

    /// A segment is in hand and is being sent.
    pub(super) fn offer(&mut self, segment: SegmentIndex, now: Duration) {
        self.held.insert(segment, Held { offered: now, quorum_at: None, holders: BTreeSet::new() });
    }

    /// A segment is in hand once more, for members that lost it; the others need it no longer.
    pub(super) fn offer_again(&mut self, segment: SegmentIndex, to: &BTreeSet<NodeIndex>, now: Duration) {
        let others = self.nodes().map(|(node, _)| node).filter(|node| !to.contains(node)).collect();
        let held = Held { offered: now, quorum_at: Some(now), holders: others };
        // In hand again for others that lost it a moment before, it is in hand for both.
        let held = self.held.entry(segment).or_insert(held);
        held.holders.retain(|node| !to.contains(node));
    }

    /// A member that was sent everything lacks something of it, and does not know what. True if it is to be sent
    /// everything again; what is in hand is kept for it.
    pub(super) fn lost(&mut self, node: NodeIndex) -> bool {
        let member = &mut self.members[node.as_usize()];
        if member.standing != Standing::Complete || member.resends >= RESENDS_MAX {
            return false;
        }
        member.resends += 1;
        member.standing = Standing::Sending { segments: 0 };
        for held in self.held.values_mut() {
            held.holders.remove(&node);
        }
        true
    }

    /// A member holds its slivers of a segment. True if these were its last.
    pub(super) fn holds(&mut self, node: NodeIndex, segment: SegmentIndex, now: Duration) -> bool {
        let n_segments = self.n_segments;
        let Standing::Sending { segments } = &mut self.members[node.as_usize()].standing else {
            return false;
        };
        *segments += 1;
        let is_complete = *segments == n_segments;
        if is_complete {
            self.members[node.as_usize()].standing = Standing::Complete;
        }
        if let Some(held) = self.held.get_mut(&segment) {
            held.holders.insert(node);
            let weight: u16 = held.holders.iter().map(|node| self.members[node.as_usize()].weight).sum();
            if weight >= self.quorum {
                held.quorum_at.get_or_insert(now);
                self.uploaded.insert(segment);
            }
        }
        is_complete
    }

    /// Members may hold everything already: each is taken to, until it says that it lacks something.
    pub(super) fn assume_held(&mut self) {
        for member in &mut self.members {
            member.standing = Standing::Complete;
        }
        self.uploaded = (0..self.n_segments).map(SegmentIndex).collect();
    }

    /// True if a member is taken to hold everything, and has not said so.
    pub(super) fn is_asking(&self) -> bool {
        self.members.iter().any(|member| member.standing == Standing::Complete)
    }

    /// A member signed.
    pub(super) fn confirmed(&mut self, node: NodeIndex) {
        self.members[node.as_usize()].standing = Standing::Confirmed;
    }

    /// A member failed for good. Nothing follows for one that was given up already.
    pub(super) fn failed(&mut self, node: NodeIndex, reason: String) {
        let standing = &mut self.members[node.as_usize()].standing;
        if !matches!(standing, Standing::Behind | Standing::Failed(_)) {
            *standing = Standing::Failed(reason);
        }
    }

    /// When a segment may be let go although members still lack it: a quorum that can still confirm holds it, and the
    /// others had their tail.
    fn due(&self, held: &Held) -> Option<Duration> {
        let holders = held.holders.iter().filter(|node| self.is_reachable(**node));
        let weight: u16 = holders.map(|node| self.members[node.as_usize()].weight).sum();
        if weight < self.quorum {
            return None;
        }
        held.quorum_at.map(|at| at + self.tail.max(at.saturating_sub(held.offered) / 2))
    }

    /// Lets go of segments that all who still take slivers hold and, if memory is wanted, of those whose tail is over.
    pub(super) fn release(&mut self, now: Duration, wanted: bool) -> Release {
        let mut release = Release::default();
        let mut sending: BTreeSet<NodeIndex> = self.sending().into_iter().collect();
        for (segment, held) in &self.held {
            let lacking: Vec<NodeIndex> = sending.difference(&held.holders).copied().collect();
            if lacking.is_empty() {
                release.segments.push(*segment);
            } else if wanted && self.due(held).is_some_and(|due| due <= now) {
                release.segments.push(*segment);
                sending.retain(|node| held.holders.contains(node));
                release.behind.extend(lacking);
            } else if wanted {
                // One is enough to go on; the later ones keep their tails.
                break;
            }
        }
        for node in &release.behind {
            self.members[node.as_usize()].standing = Standing::Behind;
        }
        for segment in &release.segments {
            self.held.remove(segment);
        }
        release
    }

    /// When the next segment may be let go, if a quorum holds it.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.held.values().filter_map(|held| self.due(held)).min()
    }

    /// Segments that a quorum holds, without a gap from the first.
    pub(super) fn uploaded(&self) -> u32 {
        let without_gap = (0..).zip(&self.uploaded).take_while(|(at, segment)| *at == segment.0);
        without_gap.map(|(at, _)| at + 1).last().unwrap_or(0)
    }

    /// True if a member confirmed or still can.
    pub(super) fn is_reachable(&self, node: NodeIndex) -> bool {
        !matches!(self.members[node.as_usize()].standing, Standing::Behind | Standing::Failed(_))
    }

    /// Weight of the members that confirmed or still can.
    pub(super) fn reachable(&self) -> u16 {
        self.nodes().filter(|(node, _)| self.is_reachable(*node)).map(|(_, member)| member.weight).sum()
    }

    /// True if a quorum of confirmations can no longer be had.
    pub(super) fn is_hopeless(&self) -> bool {
        self.reachable() < self.quorum
    }

    /// What became of those that cannot confirm any more, one clause a member.
    pub(super) fn reasons(&self) -> String {
        let mut clauses = self.nodes().filter_map(|(_, member)| match &member.standing {
            Standing::Failed(reason) => Some(format!("{}: {reason}", member.name)),
            Standing::Behind => Some(format!("{}: too slow, it was left behind", member.name)),
            _ => None,
        });
        let mut text = clauses.by_ref().take(REASONS_MAX).collect::<Vec<_>>().join("; ");
        let more = clauses.count();
        if more > 0 {
            text.push_str(&format!("; and {more} more"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Members of these weights; the quorum is that of their sum.
    fn state(weights: &[u16], n_segments: u32) -> State {
        let members = weights.iter().zip(0..).map(|(weight, node)| Member {
            name: format!("node-{node}"),
            weight: *weight,
            standing: Standing::Sending { segments: 0 },
            resends: 0,
        });
        State {
            quorum: protocol::quorum::quorum(weights.iter().sum()),
            n_segments,
            tail: ms(100),
            members: members.collect(),
            held: BTreeMap::new(),
            uploaded: BTreeSet::new(),
        }
    }

    const A: SegmentIndex = SegmentIndex(0);
    const B: SegmentIndex = SegmentIndex(1);

    fn released(segments: &[SegmentIndex], behind: &[u16]) -> Release {
        Release { segments: segments.to_vec(), behind: behind.iter().copied().map(NodeIndex).collect() }
    }

    #[test]
    fn a_segment_is_let_go_when_all_hold_it() {
        let mut state = state(&[1; 4], 2);
        state.offer(A, ms(0));
        for node in 0..3 {
            assert_eq!(state.release(ms(9_000), false), released(&[], &[]));
            assert!(!state.holds(NodeIndex(node), A, ms(10)));
        }
        assert_eq!(state.uploaded(), 1);
        assert_eq!(state.release(ms(9_000), false), released(&[], &[]), "memory is not wanted");
        state.holds(NodeIndex(3), A, ms(9_001));
        assert_eq!(state.release(ms(9_001), false), released(&[A], &[]));
        assert_eq!(state.in_hand(), 0);
    }

    #[test]
    fn a_failed_member_is_not_waited_for() {
        let mut state = state(&[1; 4], 1);
        state.offer(A, ms(0));
        for node in 0..3 {
            assert!(state.holds(NodeIndex(node), A, ms(10)));
        }
        state.failed(NodeIndex(3), "gone".into());
        assert_eq!(state.release(ms(10), true), released(&[A], &[]));
        assert!(!state.is_hopeless());
        assert_eq!(state.reasons(), "node-3: gone");
    }

    #[test]
    fn the_slow_are_left_behind_after_the_tail_and_only_for_memory() {
        // offered, quorum at, due: the tail, or half the time that the quorum took.
        for (quorum_at, due) in [(10, 110), (200, 300), (1_000, 1_500)] {
            let mut state = state(&[1; 4], 2);
            state.offer(A, ms(0));
            assert_eq!(state.next_due(), None);
            for node in 0..3 {
                state.holds(NodeIndex(node), A, ms(quorum_at));
            }
            assert_eq!(state.next_due(), Some(ms(due)));
            assert_eq!(state.release(ms(due - 1), true), released(&[], &[]));
            assert_eq!(state.release(ms(due), true), released(&[A], &[3]));
            assert_eq!(state.sending(), [0, 1, 2].map(NodeIndex));
            assert!(!state.holds(NodeIndex(3), A, ms(due)), "it no longer counts");
            assert!(!state.is_hopeless());
            state.failed(NodeIndex(0), "gone".into());
            assert!(state.is_hopeless());
            assert_eq!(state.reachable(), 2);
        }
    }

    #[test]
    fn a_quorum_of_which_one_failed_is_none() {
        let mut state = state(&[1; 5], 2);
        state.offer(A, ms(0));
        for node in 0..4 {
            state.holds(NodeIndex(node), A, ms(1));
        }
        assert_eq!(state.next_due(), Some(ms(101)));
        state.failed(NodeIndex(0), "gone".into());
        assert_eq!(state.next_due(), None);
        assert_eq!(state.release(ms(9_000), true), released(&[], &[]), "the last one is needed");
    }

    #[test]
    fn who_lost_something_is_sent_everything_again_a_few_times() {
        let mut state = state(&[1; 4], 2);
        let (lost, slow) = (NodeIndex(0), NodeIndex(3));
        state.offer(A, ms(0));
        state.offer(B, ms(0));
        for node in 0..3 {
            state.holds(NodeIndex(node), A, ms(1));
            assert!(!state.lost(NodeIndex(node)), "it was not sent everything yet");
            assert!(state.holds(NodeIndex(node), B, ms(1)));
        }
        state.holds(slow, A, ms(1));
        assert_eq!(state.release(ms(1), false), released(&[A], &[]));
        for round in 1..=2 {
            assert!(state.lost(lost), "{round}");
            assert_eq!(state.sending(), [lost, slow]);
            assert_eq!(state.uploaded(), 2, "progress does not go back");
            // The first segment was let go and comes back, for this member alone; the second is still in hand.
            state.offer_again(A, &BTreeSet::from([lost]), ms(2));
            assert!(!state.holds(lost, B, ms(3)));
            assert_eq!(state.release(ms(3), false), released(&[], &[]));
            assert!(state.holds(lost, A, ms(4)));
            assert_eq!(state.release(ms(4), false), released(&[A], &[]));
        }
        assert!(!state.lost(lost));
        assert!(state.holds(slow, B, ms(5)));
        assert_eq!(state.release(ms(5), false), released(&[B], &[]));
    }

    #[test]
    fn who_is_sent_everything_again_may_be_left_behind_for_memory() {
        let mut state = state(&[1; 4], 1);
        state.offer(A, ms(0));
        for node in 0..4 {
            assert!(state.holds(NodeIndex(node), A, ms(1)));
        }
        assert_eq!(state.release(ms(1), false), released(&[A], &[]));
        assert!(state.lost(NodeIndex(0)));
        state.offer_again(A, &BTreeSet::from([NodeIndex(0)]), ms(10));
        assert_eq!(state.release(ms(109), true), released(&[], &[]));
        assert_eq!(state.release(ms(110), true), released(&[A], &[0]));
        assert!(!state.is_hopeless());
    }

    #[test]
    fn weights_decide_not_heads() {
        let mut state = state(&[4, 1, 1, 1], 1);
        state.offer(A, ms(0));
        for node in 1..4 {
            state.holds(NodeIndex(node), A, ms(1));
        }
        assert_eq!((state.uploaded(), state.next_due()), (0, None), "three of seven are no quorum");
        state.holds(NodeIndex(0), A, ms(2));
        assert_eq!(state.uploaded(), 1);
        state.failed(NodeIndex(0), "gone".into());
        assert!(state.is_hopeless());
    }

    #[test]
    fn progress_has_no_gaps() {
        let mut state = state(&[1; 4], 2);
        state.offer(A, ms(0));
        state.offer(B, ms(0));
        for node in 0..3 {
            state.holds(NodeIndex(node), B, ms(1));
        }
        assert_eq!(state.uploaded(), 0);
        for node in 0..3 {
            assert!(state.holds(NodeIndex(node), A, ms(1)));
        }
        assert_eq!(state.uploaded(), 2);
    }

    #[test]
    fn long_lists_of_reasons_are_cut() {
        let mut state = state(&[1; 20], 1);
        for node in 0..20 {
            state.failed(NodeIndex(node), "gone".into());
        }
        assert!(state.reasons().ends_with("node-7: gone; and 12 more"), "{}", state.reasons());
    }
}
