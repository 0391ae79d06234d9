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

#[cfg(test)]
pub(crate) mod tests {
    use protocol::{bls::SecretKey, committee::Member};

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
    fn a_node_holds_a_pair_for_each_of_its_shards() {
        let membership = lone_member(4);
        let blob_id = BlobId([9; 32]);
        let mut pairs: Vec<u16> = membership.pairs(&blob_id, SegmentIndex(3)).map(|pair| pair.0).collect();
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
