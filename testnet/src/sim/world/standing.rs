//! Who is faulty, what that weighs, and of whom something may be asked.

use std::sync::PoisonError;

use protocol::{Epoch, NodeIndex, ShardIndex, ledger::state::entry::NodeStatus, quorum::max_faulty};

use super::{Node, Seat, World};

impl World {
    /// What a node weighs in the fault model: its most shards on any of the committees that matter, or that it may be given in the
    /// next.
    #[must_use]
    pub fn weight(&self, node: NodeIndex) -> u16 {
        let (roster, peer) = (self.roster(), self.peer(node));
        let seats = roster.committees().filter_map(|committee| Seat::of(committee, &peer));
        let has = seats.map(|seat| u16::try_from(seat.shards().len()).unwrap_or(u16::MAX)).max().unwrap_or(0);
        if self.plan.epochs.is_none() {
            return has;
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let candidates = last
            .state
            .nodes()
            .filter_map(Result::ok)
            .filter(|(_, node)| node.status == NodeStatus::Active && node.stake.credits > 0);
        let n_candidates = u16::try_from(candidates.count()).unwrap_or(u16::MAX);
        has.max(self.n_shards().div_ceil(n_candidates.max(1)))
    }

    /// True if a node has answered for a shard in every epoch from this one on.
    #[must_use]
    pub fn has_kept(&self, node: NodeIndex, shard: ShardIndex, since: Epoch) -> bool {
        let (peer, now, model) = (self.peer(node), self.epoch(), self.model());
        let answers = |epoch| {
            let (_, committee) = model.committees.get(&Epoch(epoch))?;
            Some(committee.member(committee.owner(shard))?.peer == peer)
        };
        (since.0..=now.0).all(|epoch| answers(epoch).unwrap_or(false))
    }

    /// True if the node is faulty in the sense of the fault model: down, lying, or without what it lost.
    #[must_use]
    pub fn is_faulty(&self, node: NodeIndex) -> bool {
        let Node { peer, running, is_healing, .. } = self.node(node);
        running.is_none() || *is_healing || self.peers.is_faulty(*peer)
    }

    /// True if others may refuse to talk to the node for longer than a run takes: it was faulty, and is no member now. Nothing is
    /// owed to it then, nor by it.
    #[must_use]
    pub fn is_let_down(&self, node: NodeIndex) -> bool {
        self.seat(node).is_none() && self.peers.was_faulty(self.peer(node))
    }

    /// True if the node must hold at every moment what it vouched for: it never lost its disk, and is not faulty now.
    #[must_use]
    pub fn is_answerable(&self, node: NodeIndex) -> bool {
        !self.node(node).was_wiped && !self.is_faulty(node)
    }

    /// Weight in shards of the nodes that are faulty now.
    #[must_use]
    pub fn faulty_weight(&self) -> u16 {
        self.all().into_iter().filter(|node| self.is_faulty(*node)).map(|node| self.weight(node)).sum()
    }

    /// True if this node may become faulty too without going beyond the fault model.
    #[must_use]
    pub fn may_fail(&self, node: NodeIndex) -> bool {
        let f = max_faulty(self.n_shards());
        !self.is_faulty(node) && self.faulty_weight() + self.weight(node) <= f
    }

    /// True if the node can still contradict votes that it lost.
    #[must_use]
    pub fn may_contradict_itself(&self, node: NodeIndex) -> bool {
        let height = self.handles(node).map_or(0, |handles| handles.ledger.view().height());
        self.node(node).forgot.is_some_and(|forgot| height <= forgot)
    }

    /// Says that a node that had lost its disk has regained what it owes.
    pub fn set_whole(&mut self, node: NodeIndex) {
        self.nodes[node.as_usize()].is_healing = false;
    }
}
