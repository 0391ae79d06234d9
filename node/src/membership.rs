//! Who answers for which shards, as the ledger of this node says, and what of that is this node's.
//!
//! ```text
//!            previous          current           next
//! steady                       answers
//! selected                     answers           copies what it gains
//! handover   has what is old   answers, gains
//! ```
//!
//! # Invariants
//!
//! - What is said holds as of one block: whoever needs several answers that fit together takes one [`Roster`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{
    BlobId, Epoch, NetworkId, NodeIndex, PeerId, SegmentIndex, ShardIndex, SliverPairIndex,
    committee::{Committee, Member},
    encoding::SegmentShape,
    ledger::state::{Corrupt, State, entry::Stage},
    message::SliverAt,
    planted::{Bug, is_planted},
};

use crate::{latest, ledger::View};

/// A place on a committee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The committee.
    pub committee: Arc<Committee>,
    /// The index of the node in it.
    pub node: NodeIndex,
}

impl Seat {
    /// The place of a peer on a committee, if it has one.
    #[must_use]
    pub fn of(committee: &Arc<Committee>, peer: &PeerId) -> Option<Self> {
        committee.index_of(peer).map(|node| Self { committee: Arc::clone(committee), node })
    }

    /// The shards that go with it.
    #[must_use]
    pub fn shards(&self) -> &[ShardIndex] {
        self.committee.shards(self.node)
    }

    /// The slivers of a segment that are to be held, in the order of the shards.
    ///
    /// # Panics
    ///
    /// If the shape is for another number of shards.
    pub fn slivers(
        &self,
        blob_id: BlobId,
        segment: SegmentIndex,
        shape: SegmentShape,
    ) -> impl Iterator<Item = SliverAt> + use<'_> {
        let slivers = self.committee.slivers_of(self.node, (blob_id, segment), shape);
        slivers.map(move |(pair, axis)| SliverAt { blob_id, segment, pair, axis })
    }
}

/// Places of one node on several committees, those that matter most first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seats(Vec<Seat>);

impl From<Seat> for Seats {
    fn from(seat: Seat) -> Self {
        Self(vec![seat])
    }
}

impl Seats {
    /// The slivers of a segment that are to be held for any of the places, each once.
    ///
    /// # Panics
    ///
    /// If the shape is for another number of shards.
    #[must_use]
    pub fn slivers(&self, blob_id: BlobId, segment: SegmentIndex, shape: SegmentShape) -> Vec<SliverAt> {
        let mut slivers: Vec<SliverAt> = Vec::new();
        for seat in &self.0 {
            // Those of one place are all different.
            let n_before = slivers.len();
            for at in seat.slivers(blob_id, segment, shape) {
                if !slivers[..n_before].contains(&at) {
                    slivers.push(at);
                }
            }
        }
        slivers
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if all of these are among them.
    #[must_use]
    pub fn include(&self, others: &Self) -> bool {
        others.0.iter().all(|seat| self.0.contains(seat))
    }

    /// The shards of all of them.
    #[must_use]
    pub fn shards(&self) -> BTreeSet<ShardIndex> {
        self.0.iter().flat_map(Seat::shards).copied().collect()
    }
}

/// Who answers for which shards, as of a block.
#[derive(Clone, Debug)]
pub struct Roster {
    /// The network.
    pub network: NetworkId,
    /// This node.
    pub me: PeerId,
    /// How far the epoch has come.
    pub stage: Stage,
    /// The committee that answers for the shards.
    pub current: Arc<Committee>,
    /// The committee before, while members of the current one still take over from it.
    pub previous: Option<Arc<Committee>>,
    /// The next committee, once it is fixed.
    pub next: Option<Arc<Committee>>,
}

impl Roster {
    /// What a state says.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself, which is a bug.
    pub fn of(state: &State, me: PeerId) -> Result<Self, Corrupt> {
        let head = state.head()?;
        Ok(Self {
            network: head.network,
            me,
            stage: head.stage,
            current: Arc::clone(state.committee()),
            previous: state.previous_committee().cloned(),
            next: state.next_committee().cloned(),
        })
    }

    /// The current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.current.epoch()
    }

    /// Number of shards, `n`.
    #[must_use]
    pub fn n_shards(&self) -> u16 {
        self.current.n_shards()
    }

    /// The committees that matter: the current one, then the next, then the one before.
    pub fn committees(&self) -> impl Iterator<Item = &Arc<Committee>> {
        [Some(&self.current), self.next.as_ref(), self.previous.as_ref()].into_iter().flatten()
    }

    /// This node's place on the current committee, if it has one.
    #[must_use]
    pub fn seat(&self) -> Option<Seat> {
        Seat::of(&self.current, &self.me)
    }

    /// This node's place on the committee for which it may vouch in this epoch's name: the current one, and during the handover
    /// the one before.
    #[must_use]
    pub fn vouching_seat(&self, epoch: Epoch) -> Option<Seat> {
        let committees = [Some(&self.current), self.previous.as_ref()];
        let committee = committees.into_iter().flatten().find(|committee| committee.epoch() == epoch)?;
        Seat::of(committee, &self.me)
    }

    fn seats<'a>(&self, committees: impl IntoIterator<Item = &'a Arc<Committee>>) -> Seats {
        Seats(committees.into_iter().filter_map(|committee| Seat::of(committee, &self.me)).collect())
    }

    /// The places for which this node is to hold slivers, and looks for those that it lacks: on the current committee, and on
    /// the next.
    #[must_use]
    pub fn owed(&self) -> Seats {
        let next = self.next.as_ref().filter(|_| !is_planted(Bug::ReadyBlindly));
        self.seats([&self.current].into_iter().chain(next))
    }

    /// The places for which this node takes and keeps slivers: the same, and that on the committee before.
    #[must_use]
    pub fn kept(&self) -> Seats {
        self.seats(self.committees())
    }

    /// True if a peer is on one of the committees.
    #[must_use]
    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.committees().any(|committee| committee.index_of(peer).is_some())
    }

    /// The members of all committees, each once, as the latest committee describes it.
    #[must_use]
    pub fn members(&self) -> Vec<&Member> {
        let latest = [self.next.as_ref(), Some(&self.current), self.previous.as_ref()];
        let mut seen = BTreeSet::new();
        let members = latest.into_iter().flatten().flat_map(|committee| committee.members());
        members.filter(|member| seen.insert(member.peer)).collect()
    }

    /// The other members of the committees that hold slivers: those of the current one and of the one before, each once.
    #[must_use]
    pub fn others(&self) -> BTreeSet<PeerId> {
        let holding = [Some(&self.current), self.previous.as_ref()].into_iter().flatten();
        let peers = holding.flat_map(|committee| committee.members()).map(|member| member.peer);
        peers.filter(|peer| *peer != self.me).collect()
    }

    /// The committees whose members hold a blob that a committee of epoch `certified` vouched for, those that surely do first:
    /// during the handover what is older than the epoch is with the committee before.
    fn holding(&self, certified: Epoch) -> impl Iterator<Item = &Arc<Committee>> {
        let is_old = certified < self.epoch();
        let (first, second) = match &self.previous {
            Some(previous) if is_old => (previous, Some(&self.current)),
            previous => (&self.current, previous.as_ref()),
        };
        [Some(first), second].into_iter().flatten()
    }

    /// The peers that hold a sliver pair, those that surely do first; `certified` is the epoch of the committee that vouched for
    /// the blob.
    #[must_use]
    pub fn holders(
        &self,
        certified: Epoch,
        (blob_id, segment): (BlobId, SegmentIndex),
        pair: SliverPairIndex,
    ) -> Vec<PeerId> {
        let mut holders = Vec::new();
        for committee in self.holding(certified) {
            let owner = committee.owner(committee.shard_of(&blob_id, segment, pair));
            if let Some(member) = committee.member(owner)
                && !holders.contains(&member.peer)
            {
                holders.push(member.peer);
            }
        }
        holders
    }

    /// The pairs of a segment of which somebody holds slivers, with the peers that do: of a coded segment all pairs, of a replicated
    /// one some.
    #[must_use]
    pub fn held_pairs(
        &self,
        certified: Epoch,
        of: (BlobId, SegmentIndex),
        shape: SegmentShape,
    ) -> BTreeMap<SliverPairIndex, Vec<PeerId>> {
        let mut held: BTreeMap<SliverPairIndex, Vec<PeerId>> = BTreeMap::new();
        for committee in self.holding(certified) {
            for (node, member) in committee.nodes().zip(committee.members()) {
                for (pair, _) in committee.slivers_of(node, of, shape) {
                    let peers = held.entry(pair).or_default();
                    if !peers.contains(&member.peer) {
                        peers.push(member.peer);
                    }
                }
            }
        }
        held
    }
}

/// What the ledger of this node says of the committees; cheap to clone.
#[derive(Clone, Debug)]
pub struct Membership {
    me: PeerId,
    view: latest::Receiver<View>,
    n_shards: u16,
}

impl Membership {
    /// Follows the views of a ledger.
    #[must_use]
    pub fn new(me: PeerId, view: latest::Receiver<View>) -> Self {
        let n_shards = view.get().state.committee().n_shards();
        Self { me, view, n_shards }
    }

    /// This node.
    #[must_use]
    pub const fn me(&self) -> PeerId {
        self.me
    }

    /// Number of shards, `n`: the same in all epochs.
    #[must_use]
    pub const fn n_shards(&self) -> u16 {
        self.n_shards
    }

    /// Who answers for what after the last block.
    ///
    /// # Errors
    ///
    /// If the ledger's state contradicts itself, which is a bug: then nothing should follow from it.
    pub fn now(&self) -> Result<Roster, Corrupt> {
        let state = self.view.get().state;
        Roster::of(&state, self.me)
    }

    /// True if a peer is on one of the committees that matter now.
    #[must_use]
    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.now().is_ok_and(|roster| roster.is_member(peer))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use protocol::{
        bls::SecretKey,
        encoding::{Axis, BlobShape},
        genesis::Genesis,
    };

    use super::*;

    const PEER: PeerId = PeerId([1; 32]);

    /// The membership of a node that holds all shards of its network.
    pub(crate) fn lone_member(n_shards: u16) -> Membership {
        let state = State::genesis(&lone_genesis(n_shards)).unwrap();
        Membership::new(PEER, latest::channel(View { head: None, state }).1)
    }

    fn member(index: u8, shards: &[u16]) -> Member {
        let (peer, key) = (PeerId([index; 32]), SecretKey::from_seed(&[index; 32]));
        Member {
            name: format!("node-{index}"),
            peer,
            public_key: key.public_key(),
            proof_of_possession: key.prove_possession(&peer),
            addresses: vec!["/ip4/10.0.0.1/tcp/4100".to_owned()],
            shards: shards.iter().copied().map(ShardIndex).collect(),
        }
    }

    fn lone_genesis(n_shards: u16) -> Genesis {
        let all: Vec<u16> = (0..n_shards).collect();
        Genesis::new("test".to_owned(), n_shards, vec![member(1, &all)]).unwrap()
    }

    pub(crate) fn committee(epoch: u32, shards: &[(u8, &[u16])]) -> Arc<Committee> {
        let members: Vec<Member> = shards.iter().map(|(index, shards)| member(*index, shards)).collect();
        let n = shards.iter().map(|(_, shards)| u16::try_from(shards.len()).unwrap()).sum();
        Arc::new(Committee::new(Epoch(epoch), n, members).unwrap())
    }

    pub(crate) fn roster(me: u8, previous: Option<Arc<Committee>>, next: Option<Arc<Committee>>) -> Roster {
        let current = committee(5, &[(1, &[0, 1]), (2, &[2]), (3, &[3])]);
        let (network, stage) = (NetworkId([0; 32]), Stage::Steady);
        Roster { network, me: PeerId([me; 32]), stage, current, previous, next }
    }

    #[test]
    fn a_node_holds_a_pair_for_each_of_its_shards_and_a_small_blob_once() {
        let membership = lone_member(4);
        let seat = membership.now().unwrap().seat().unwrap();
        let (blob_id, segment) = (BlobId([9; 32]), SegmentIndex(3));
        let slivers = |length| {
            let shape = BlobShape::new(4, length).unwrap().segment(SegmentIndex(0)).unwrap();
            seat.slivers(blob_id, segment, shape).collect::<Vec<_>>()
        };
        let mut pairs: Vec<u16> =
            slivers(1000).iter().filter(|at| at.axis == Axis::Primary).map(|at| at.pair.0).collect();
        assert_eq!(slivers(1000).len(), 2 * pairs.len());
        let first = SliverAt { blob_id, segment, pair: SliverPairIndex(pairs[0]), axis: Axis::Primary };
        assert_eq!(slivers(10), [first]);
        pairs.sort_unstable();
        assert_eq!(pairs, [0, 1, 2, 3]);
        let roster = membership.now().unwrap();
        assert!(pairs.iter().all(|pair| {
            roster.holders(Epoch(0), (blob_id, SegmentIndex(3)), SliverPairIndex(*pair)) == [PEER]
        }));
        assert!(roster.others().is_empty());
    }

    #[test]
    fn a_node_owes_what_it_has_and_gains_and_keeps_what_it_had() {
        let before = committee(4, &[(1, &[0]), (2, &[1, 2]), (4, &[3])]);
        let after = committee(6, &[(1, &[0]), (2, &[1, 2]), (3, &[3])]);
        let shards = |seats: Seats| seats.shards().into_iter().map(|shard| shard.0).collect::<Vec<_>>();
        let selected = roster(2, None, Some(after));
        assert_eq!((shards(selected.owed()), shards(selected.kept())), (vec![1, 2], vec![1, 2]));
        let handover = roster(2, Some(Arc::clone(&before)), None);
        assert_eq!((shards(handover.owed()), shards(handover.kept())), (vec![2], vec![1, 2]));
        let leaver = roster(4, Some(before), None);
        assert_eq!((shards(leaver.owed()), shards(leaver.kept())), (vec![], vec![3]));
        assert_eq!(leaver.seat(), None);
        assert!(leaver.vouching_seat(Epoch(4)).is_some());
        for epoch in [3, 5, 6] {
            assert_eq!(leaver.vouching_seat(Epoch(epoch)), None);
        }
        assert_eq!(leaver.members().len(), 4);
        assert!((1..=4).all(|peer| leaver.is_member(&PeerId([peer; 32]))));
        assert!(!leaver.is_member(&PeerId([5; 32])));
    }

    #[test]
    fn what_a_node_is_to_hold_for_two_committees_is_named_once() {
        let roster = roster(2, None, Some(committee(6, &[(1, &[0]), (2, &[1, 2]), (3, &[3])])));
        let shape = |length| BlobShape::new(4, length).unwrap().segment(SegmentIndex(0)).unwrap();
        let slivers = |length| roster.owed().slivers(BlobId([9; 32]), SegmentIndex(0), shape(length));
        assert_eq!(slivers(1000).len(), 4, "two pairs");
        assert_eq!(slivers(10).len(), 2, "its first shard is another one then");
    }

    #[test]
    fn during_the_handover_old_blobs_are_with_the_committee_before() {
        let before = committee(4, &[(1, &[0]), (2, &[1, 2]), (4, &[3])]);
        let roster = roster(1, Some(before), None);
        let (blob_id, segment) = (BlobId([9; 32]), SegmentIndex(0));
        let holders = |certified, shard| {
            let pair = roster.current.pair_of(&blob_id, segment, ShardIndex(shard));
            let holders = roster.holders(Epoch(certified), (blob_id, segment), pair);
            holders.iter().map(|peer| peer.0[0]).collect::<Vec<_>>()
        };
        assert_eq!((holders(4, 1), holders(5, 1)), (vec![2, 1], vec![1, 2]));
        assert_eq!((holders(4, 3), holders(5, 3)), (vec![4, 3], vec![3, 4]));
        assert_eq!((holders(4, 0), holders(5, 0)), (vec![1], vec![1]));
        let small = BlobShape::new(4, 10).unwrap().segment(segment).unwrap();
        assert_eq!(roster.held_pairs(Epoch(4), (blob_id, segment), small).len(), 4);
    }
}
