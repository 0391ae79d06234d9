//! Nodes: who they are, who decides for them, what they vote for.

use super::{
    ApplyError, Corrupt, Event, Rejected, State,
    entry::{Node, NodeStatus},
    pool::Pool,
    slot::{BlsKey, KeySlot, NameSlot, NodeSlot},
};
use crate::{
    committee::{self, CommitteeError, NameError},
    hash::NODE_NAME,
    ids::{AccountId, PeerId},
    ledger::{
        parameters::{BASIS_POINTS, Ballot, CREDITS_MAX, ParameterError},
        transaction::NodeDescription,
    },
};

fn name_slot(description: &NodeDescription) -> NameSlot {
    NameSlot { name: NODE_NAME.hash(description.name.as_bytes()) }
}

fn key_slot(description: &NodeDescription) -> KeySlot {
    KeySlot { key: BlsKey(description.public_key.to_bytes()) }
}

/// Checks that all nodes agree on whether a name is one, whatever they were built with: which letters other scripts have
/// changes from one release of the standard library to the next. Names of the genesis were read by everyone, and stay.
fn check_letters(
    node: PeerId,
    old: Option<&NodeDescription>,
    new: &NodeDescription,
) -> Result<(), CommitteeError> {
    if old.is_some_and(|old| old.name == new.name) {
        return Ok(());
    }
    match new.name.chars().find(|character| !character.is_ascii()) {
        None => Ok(()),
        Some(character) => {
            Err(CommitteeError::Name { peer: node, source: NameError::Character { character } })
        }
    }
}

/// Checks what a description says by itself, the pairing last.
fn check(node: PeerId, old: Option<&NodeDescription>, description: &NodeDescription) -> Result<(), Rejected> {
    let NodeDescription { commission_bp, capacity_bytes, .. } = *description;
    if commission_bp > BASIS_POINTS {
        let (got, max) = (commission_bp.into(), BASIS_POINTS.into());
        return Err(ParameterError { name: "commission_bp", got, min: 0, max }.into());
    }
    if capacity_bytes > CREDITS_MAX {
        let (got, max) = (capacity_bytes, CREDITS_MAX);
        return Err(ParameterError { name: "capacity_bytes", got, min: 0, max }.into());
    }
    let refused = |error: CommitteeError| Rejected::Description(Box::new(error));
    check_letters(node, old, description).map_err(refused)?;
    let member = description.to_member(node, Vec::new());
    committee::check_texts(&member).map_err(refused)?;
    committee::check_possession(&member).map_err(refused)
}

impl State {
    /// A node, if it ever registered.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself.
    pub fn node(&self, node: &PeerId) -> Result<Option<Node>, Corrupt> {
        self.store.get(&NodeSlot { node: *node })
    }

    pub(super) fn known_node(&self, node: PeerId) -> Result<Node, ApplyError> {
        Ok(self.node(&node)?.ok_or(Rejected::UnknownNode { node })?)
    }

    /// A node that was not ejected, for its operator.
    fn operated_node(&self, sender: AccountId, node: PeerId) -> Result<Node, ApplyError> {
        let known = self.known_node(node)?;
        let operator = known.description.operator;
        if operator != sender {
            return Err(Rejected::NotOperator { node, operator, sender }.into());
        }
        if known.status == NodeStatus::Ejected {
            return Err(Rejected::NodeEjected { node }.into());
        }
        Ok(known)
    }

    /// Gives a node its name and key, which no other has, in place of those it had.
    fn describe(
        &mut self,
        node: PeerId,
        old: Option<&NodeDescription>,
        new: &NodeDescription,
    ) -> Result<(), ApplyError> {
        let (name, key) = (name_slot(new), key_slot(new));
        if let Some(other) = self.store.get(&name)?.filter(|other| *other != node) {
            return Err(Rejected::NameTaken { name: new.name.clone(), other }.into());
        }
        if let Some(other) = self.store.get(&key)?.filter(|other| *other != node) {
            return Err(Rejected::KeyTaken { key: Box::new(new.public_key), other }.into());
        }
        check(node, old, new)?;
        if let Some(old) = old {
            self.store.remove(&name_slot(old))?;
            self.store.remove(&key_slot(old))?;
        }
        self.store.set(&name, &node);
        self.store.set(&key, &node);
        Ok(())
    }

    /// Adds a node. The sender signed with the node's key as a peer, so nobody takes another's name on the network.
    pub(super) fn register_node(
        &mut self,
        sender: AccountId,
        description: &NodeDescription,
    ) -> Result<Event, ApplyError> {
        let node = PeerId(sender.0);
        let known = self.node(&node)?;
        match known.as_ref().map(|known| known.status) {
            None | Some(NodeStatus::Leaving) => {}
            Some(NodeStatus::Active) => return Err(Rejected::NodeExists { node }.into()),
            Some(NodeStatus::Ejected) => return Err(Rejected::NodeEjected { node }.into()),
        }
        // Whoever got hold of the key on the node does not become its operator by registering it again.
        if let Some(operator) = known.as_ref().map(|known| known.description.operator)
            && operator != description.operator
        {
            return Err(Rejected::NotOperator { node, operator, sender }.into());
        }
        self.describe(node, known.as_ref().map(|known| &known.description), description)?;
        let (stake, ballot, commission_bp) = known.map_or_else(
            || (Pool::default(), None, 0),
            |known| (known.stake, known.ballot, known.commission_bp),
        );
        let description = description.clone();
        let entry = Node { description, status: NodeStatus::Active, stake, ballot, commission_bp };
        self.store.set(&NodeSlot { node }, &entry);
        Ok(Event::NodeRegistered { node })
    }

    pub(super) fn update_node(
        &mut self,
        sender: AccountId,
        node: PeerId,
        description: &NodeDescription,
    ) -> Result<Event, ApplyError> {
        let known = self.operated_node(sender, node)?;
        self.describe(node, Some(&known.description), description)?;
        let description = description.clone();
        self.store.set(&NodeSlot { node }, &Node { description, ..known });
        Ok(Event::NodeUpdated { node })
    }

    pub(super) fn leave_node(&mut self, sender: AccountId, node: PeerId) -> Result<Event, ApplyError> {
        let known = self.operated_node(sender, node)?;
        if known.status == NodeStatus::Leaving {
            return Err(Rejected::NodeLeaving { node }.into());
        }
        self.store.set(&NodeSlot { node }, &Node { status: NodeStatus::Leaving, ..known });
        Ok(Event::NodeLeaving { node })
    }

    pub(super) fn vote(
        &mut self,
        sender: AccountId,
        node: PeerId,
        ballot: Ballot,
    ) -> Result<Event, ApplyError> {
        let known = self.operated_node(sender, node)?;
        ballot.check().map_err(Rejected::Parameter)?;
        self.store.set(&NodeSlot { node }, &Node { ballot: Some(ballot), ..known });
        Ok(Event::Voted { node })
    }
}
