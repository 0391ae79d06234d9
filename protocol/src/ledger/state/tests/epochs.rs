use std::sync::Arc;

use super::world::*;
use crate::{
    committee::{Committee, Member},
    ids::{Epoch, ShardIndex},
    ledger::{
        state::{AdvanceError, Corrupt, Event, Rejected, State, entry::Stage},
        transaction::Action,
        tree::Tree,
    },
};

fn stage(world: &World) -> Stage {
    world.state.head().unwrap().stage
}

#[test]
fn a_committee_takes_over_when_a_quorum_is_ready() {
    let mut world = World::new(4, 4);
    assert_eq!(stage(&world), Stage::Steady);
    let events = world.advance().unwrap();
    assert_eq!(events.last(), Some(&Event::EpochChanged { epoch: Epoch(1) }));
    assert_eq!(stage(&world), Stage::Handover { ready_shards: 0 });
    assert_eq!(world.state.committee().epoch(), Epoch(1));
    assert_eq!(world.state.previous_committee().unwrap().epoch(), Epoch(0));
    let ready = |epoch| Action::ShardsReady { epoch: Epoch(epoch) };
    let event = world.does(NODES, ready(1));
    assert_eq!(event, Event::ShardsReady { epoch: Epoch(1), member: world.member(0) });
    assert_eq!(
        world.is_refused(NODES, ready(1)),
        Rejected::AlreadyReady { sender: account(NODES), epoch: Epoch(1) }
    );
    assert_eq!(
        world.is_refused(NODES + 1, ready(0)),
        Rejected::WrongEpoch { got: Epoch(0), current: Epoch(1) }
    );
    assert_eq!(world.is_refused(0, ready(1)), Rejected::NotMember { sender: account(0), epoch: Epoch(1) });
    world.does(NODES + 1, ready(1));
    assert_eq!(stage(&world), Stage::Handover { ready_shards: 2 });
    assert_eq!(world.reopened().root(), world.state.root());
    let running = AdvanceError::HandoverRunning { epoch: Epoch(1), ready: 2 };
    assert_eq!(world.advance().unwrap_err(), running);
    let receipt = world.send(NODES + 2, ready(1)).unwrap();
    assert_eq!(receipt.events[1], Event::HandoverDone { epoch: Epoch(1) });
    assert_eq!(stage(&world), Stage::Steady);
    assert_eq!(world.state.previous_committee(), None);
    world.does(NODES + 3, ready(1));
    assert_eq!(world.reopened().root(), world.state.root());
    world.next_epoch();
}

#[test]
fn only_the_next_committee_of_known_nodes_takes_over() {
    let mut world = World::new(4, 4);
    let root = world.state.root();
    for epoch in [0, 2] {
        let committee = world.committee(Epoch(epoch));
        let refused = AdvanceError::Epoch { got: Epoch(epoch), required: Epoch(1) };
        assert_eq!(world.state.advance_epoch(committee).unwrap_err(), refused);
    }
    let members: Vec<Member> = world.state.committee().members().to_vec();
    let mut more = members.clone();
    more[0].shards.push(ShardIndex(4));
    let more = Arc::new(Committee::new(Epoch(1), 5, more).unwrap());
    assert_eq!(world.state.advance_epoch(more).unwrap_err(), AdvanceError::Shards { got: 5, required: 4 });
    let stranger = description(9).to_member(node(9), vec![members[0].shards[0]]);
    let replaced = [vec![stranger], members[1..].to_vec()].concat();
    let replaced = Arc::new(Committee::new(Epoch(1), 4, replaced).unwrap());
    let refused = AdvanceError::UnknownNode { node: node(9) };
    assert_eq!(world.state.advance_epoch(Arc::clone(&replaced)).unwrap_err(), refused);
    assert_eq!(world.state.root(), root);
    world.does(NODES + 9, Action::RegisterNode { description: Box::new(description(9)) });
    world.state.advance_epoch(replaced).unwrap();
}

#[test]
fn members_of_one_committee_are_kept_no_longer_than_needed() {
    let mut world = World::new(4, 4);
    world.next_epoch();
    let n_entries = world.state.tree().entries().count();
    for _ in 0..5 {
        world.next_epoch();
        assert_eq!(world.state.tree().entries().count(), n_entries, "nothing piles up");
    }
}

#[test]
fn an_ejected_member_does_not_hold_up_the_others() {
    let mut world = World::new(4, 4);
    world.does(0, Action::Evidence { equivocation: world.equivocation(3) });
    world.next_epoch();
}

#[test]
fn a_damaged_state_is_named_not_obeyed() {
    let world = World::new(4, 4);
    assert!(matches!(State::open(Tree::default()), Err(Corrupt::Missing { .. })));
    let keys: Vec<Vec<u8>> = world.state.tree().entries().map(|(key, _)| key.to_vec()).collect();
    for key in keys {
        let mut tree = world.state.tree().clone();
        tree.insert(&key, &[0xff; 3]);
        let audit = |tree: Tree| {
            let state = State::open(tree)?;
            state.parameters()?;
            state.total()?;
            state.advance_and_say()
        };
        let is_index = matches!(key[0], 4 | 5);
        assert_eq!(audit(tree).is_err(), !is_index, "entry {}", hex::encode(&key));
    }
}

impl State {
    /// Reads all that an epoch change reads.
    fn advance_and_say(mut self) -> Result<(), Corrupt> {
        let epoch = Epoch(self.committee().epoch().0 + 1);
        let next = Committee::new(epoch, self.committee().n_shards(), self.committee().members().to_vec())?;
        match self.advance_epoch(Arc::new(next)) {
            Err(AdvanceError::Corrupt(corrupt)) => Err(corrupt),
            other => other.map(|_| ()).map_err(|error| panic!("{error}")),
        }
    }
}
