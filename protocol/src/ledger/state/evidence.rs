//! What follows from proof that a node lied in consensus.

use super::{ApplyError, Event, Rejected, State, entry::NodeStatus, slot::NodeSlot};
use crate::ledger::vote::Equivocation;

impl State {
    /// Slashes and ejects a node that equivocated. Once: an ejected node has no more to lose by the same fault.
    ///
    /// The credits go to the epoch's fund, so to the other members. Whoever reports gets nothing, or proposers would
    /// put their own reports in place of others'.
    pub(super) fn punish(&mut self, equivocation: &Equivocation) -> Result<Event, ApplyError> {
        let peer = equivocation.accused();
        let mut node = self.known_node(peer)?;
        if node.status == NodeStatus::Ejected {
            return Err(Rejected::NodeEjected { node: peer }.into());
        }
        let head = self.head()?;
        equivocation.verify(&head.network).map_err(Rejected::Evidence)?;
        let basis_points = self.parameters()?.equivocation_slash_bp;
        let slashed = self.slash(peer, &mut node, basis_points)?;
        node.status = NodeStatus::Ejected;
        self.store.set(&NodeSlot { node: peer }, &node);
        self.fund(head.epoch, slashed)?;
        Ok(Event::NodeEjected { node: peer, slashed })
    }
}
