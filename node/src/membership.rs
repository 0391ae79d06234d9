//! Who this node is in the committee.

use std::sync::Arc;

use protocol::{
    BlobId, NetworkId, NodeIndex, PeerId, SegmentIndex, ShardIndex, SliverPairIndex, committee::Committee,
    genesis::Genesis,
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

    /// The sliver pairs of a segment that this node answers for, in the order of its shards.
    pub fn pairs<'a>(
        &'a self,
        blob_id: &'a BlobId,
        segment: SegmentIndex,
    ) -> impl Iterator<Item = SliverPairIndex> + 'a {
        self.shards().iter().map(move |shard| self.committee.pair_of(blob_id, segment, *shard))
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
