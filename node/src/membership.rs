//! Who this node is in the committee.

use std::sync::Arc;

use protocol::{
    BlobId, NetworkId, NodeIndex, PeerId, SegmentIndex, ShardIndex, SliverPairIndex, committee::Committee,
    encoding::SegmentShape, genesis::Genesis, message::SliverAt,
};

/// This node's place in the committee of the epoch.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The network.
    pub network: NetworkId,
    /// The committee.
    pub committee: Arc<Committee>,
    /// This node's index in it.
    pub node: NodeIndex,
}

/// The node is not on the committee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key of this node ({0}) is not on the committee of the genesis file")]
pub struct NotMember(pub PeerId);

impl Membership {
    /// Finds the place of `peer` in the genesis committee.
    ///
    /// # Errors
    ///
    /// [`NotMember`].
    pub fn of(peer: PeerId, genesis: &Genesis) -> Result<Self, NotMember> {
        let committee = Arc::new(genesis.committee().clone());
        let node = committee.index_of(&peer).ok_or(NotMember(peer))?;
        Ok(Self { network: genesis.network_id(), committee, node })
    }

    /// Number of shards, `n`.
    #[must_use]
    pub fn n_shards(&self) -> u16 {
        self.committee.n_shards()
    }

    /// The shards that this node answers for.
    #[must_use]
    pub fn shards(&self) -> &[ShardIndex] {
        self.committee.shards(self.node)
    }

    /// The node that answers for a sliver pair.
    #[must_use]
    pub fn owner(&self, blob_id: &BlobId, segment: SegmentIndex, pair: SliverPairIndex) -> NodeIndex {
        self.committee.owner(self.committee.shard_of(blob_id, segment, pair))
    }

    /// The slivers of a segment that this node is to hold, in the order of its shards.
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

    /// The network identity of a member.
    #[must_use]
    pub fn peer(&self, node: NodeIndex) -> Option<PeerId> {
        self.committee.member(node).map(|member| member.peer)
    }

    /// The other members, as node index and network identity.
    pub fn others(&self) -> impl Iterator<Item = (NodeIndex, PeerId)> + '_ {
        self.committee
            .nodes()
            .filter(|node| *node != self.node)
            .filter_map(|node| self.peer(node).map(|peer| (node, peer)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use protocol::{
        bls::SecretKey,
        committee::Member,
        encoding::{Axis, BlobShape},
    };

    use super::*;

    const PEER: PeerId = PeerId([1; 32]);

    /// The membership of a node that holds all shards of its network.
    pub(crate) fn lone_member(n_shards: u16) -> Membership {
        Membership::of(PEER, &lone_genesis(n_shards)).unwrap()
    }

    fn lone_genesis(n_shards: u16) -> Genesis {
        let (peer, key) = (PEER, SecretKey::from_seed(&[1; 32]));
        let member = Member {
            name: "alone".to_owned(),
            peer,
            public_key: key.public_key(),
            proof_of_possession: key.prove_possession(&peer),
            addresses: vec!["/ip4/10.0.0.1/tcp/4100".to_owned()],
            shards: (0..n_shards).map(ShardIndex).collect(),
        };
        Genesis::new("test".to_owned(), n_shards, vec![member]).unwrap()
    }

    #[test]
    fn a_node_holds_a_pair_for_each_of_its_shards_and_a_small_blob_once() {
        let membership = lone_member(4);
        let (blob_id, segment) = (BlobId([9; 32]), SegmentIndex(3));
        let slivers = |length| {
            let shape = BlobShape::new(4, length).unwrap().segment(SegmentIndex(0)).unwrap();
            membership.slivers(blob_id, segment, shape).collect::<Vec<_>>()
        };
        let mut pairs: Vec<u16> =
            slivers(1000).iter().filter(|at| at.axis == Axis::Primary).map(|at| at.pair.0).collect();
        assert_eq!(slivers(1000).len(), 2 * pairs.len());
        let first = SliverAt { blob_id, segment, pair: SliverPairIndex(pairs[0]), axis: Axis::Primary };
        assert_eq!(slivers(10), [first]);
        pairs.sort_unstable();
        assert_eq!(pairs, [0, 1, 2, 3]);
        assert!(pairs.iter().all(|pair| {
            membership.owner(&blob_id, SegmentIndex(3), SliverPairIndex(*pair)) == membership.node
        }));
        assert_eq!(membership.others().count(), 0);
    }

    #[test]
    fn a_stranger_is_no_member() {
        let stranger = PeerId([2; 32]);
        assert_eq!(Membership::of(stranger, &lone_genesis(4)).unwrap_err(), NotMember(stranger));
    }
}
