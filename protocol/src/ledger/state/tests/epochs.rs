use std::{collections::BTreeSet, sync::Arc};

use super::world::*;
use crate::{
    committee::{Committee, Member},
    ids::{Epoch, PeerId, ShardIndex},
    ledger::{
        parameters::Parameters,
        state::{AdvanceError, Corrupt, Event, Rejected, State, entry::Stage},
        transaction::Action,
        tree::Tree,
    },
    selection::SelectionError,
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

/// Four members and as many who wait, with the given stakes, on a network whose epochs take ten seconds.
fn with_epochs(parameters: Parameters, stakes: &[(u8, u64)]) -> World {
    let mut world = World::with(4, 4, parameters, Vec::new());
    let first = world.next_block();
    assert_eq!(first, [], "the first block begins the first epoch");
    for (index, amount) in stakes {
        if *index >= 4 {
            let description = Box::new(description(*index));
            world.does(NODES + index, Action::RegisterNode { description });
        }
        world.does(0, Action::Stake { node: node(*index), amount: *amount });
    }
    world
}

fn ten_seconds() -> Parameters {
    Parameters { epoch_ms: 10_000, selection_ms: 4_000, ..Parameters::default() }
}

fn block_at(world: &mut World, time_ms: u64) -> Vec<Event> {
    let height = world.state.head().unwrap().height + 1;
    let events = world.state.begin_block(height, time_ms).unwrap();
    assert_eq!(world.reopened().root(), world.state.root());
    assert_eq!(world.reopened().next_committee(), world.state.next_committee());
    events
}

fn due(world: &World) -> Option<u64> {
    world.state.due_ms().unwrap()
}

fn peers(committee: &Committee) -> Vec<PeerId> {
    committee.members().iter().map(|member| member.peer).collect()
}

#[test]
fn an_epoch_goes_through_its_stages_by_block_time() {
    let mut world = World::with(4, 4, ten_seconds(), Vec::new());
    assert_eq!(due(&world), Some(0), "the first block begins the first epoch, whenever that is");
    assert_eq!(block_at(&mut world, 1_000_000), []);
    assert_eq!(due(&world), Some(1_004_000));
    world.does(NODES + 5, Action::RegisterNode { description: Box::new(description(5)) });
    for (index, amount) in [(0, 500), (1, 500), (2, 500), (5, 600)] {
        world.does(0, Action::Stake { node: node(index), amount });
    }
    assert_eq!(block_at(&mut world, 1_003_999), []);
    let selected = Event::NextSelected { epoch: Epoch(1), ends_ms: 1_010_000, kept: None };
    assert_eq!(block_at(&mut world, 1_004_000), [selected]);
    assert_eq!((stage(&world), due(&world)), (Stage::Selected { ends_ms: 1_010_000 }, Some(1_010_000)));
    assert_eq!(world.epoch(), Epoch(0), "the old committee still answers");
    // What is said from now on is for later.
    world.does(0, Action::Stake { node: node(3), amount: 5_000 });
    let next = Arc::clone(world.state.next_committee().unwrap());
    assert_eq!(
        peers(&next),
        [0, 1, 2, 5].map(node).into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    );
    assert_eq!(block_at(&mut world, 1_009_999), []);
    let events = block_at(&mut world, 1_010_000);
    assert_eq!(events.last(), Some(&Event::EpochChanged { epoch: Epoch(1) }));
    assert_eq!(world.state.committee(), &next);
    assert_eq!((stage(&world), due(&world)), (Stage::Handover { ready_shards: 0 }, None));
    // Nobody is ready in the block that tells it.
    let ready = Action::ShardsReady { epoch: Epoch(1) };
    assert_eq!(world.is_refused(NODES, ready.clone()), Rejected::ReadyTooEarly { epoch: Epoch(1) });
    // However long it takes, nothing happens without a quorum.
    assert_eq!(block_at(&mut world, 1_050_000), []);
    for index in [0, 1, 5] {
        world.does(NODES + index, ready.clone());
    }
    assert_eq!(stage(&world), Stage::Steady);
    // The selection is late, and leaves half the time for copying that one in time does.
    let selected = Event::NextSelected { epoch: Epoch(2), ends_ms: 1_054_000, kept: None };
    assert_eq!(block_at(&mut world, 1_051_000), [selected]);
}

#[test]
fn those_who_leave_or_have_too_little_stake_are_not_selected() {
    let parameters = Parameters { min_stake: 100, ..ten_seconds() };
    let mut world =
        with_epochs(parameters, &[(0, 100), (1, 200), (2, 100), (3, 900), (4, 99), (5, 100), (6, 400)]);
    world.does(NODES + 3, Action::LeaveNode { node: node(3) });
    world.does(0, Action::Evidence { equivocation: world.equivocation(6) });
    block_at(&mut world, 5_000);
    let next: BTreeSet<PeerId> = peers(world.state.next_committee().unwrap()).into_iter().collect();
    assert_eq!(next, [0, 1, 2, 5].map(node).into());
}

#[test]
fn as_few_shards_move_as_can_be() {
    let mut world = with_epochs(ten_seconds(), &[(0, 100), (1, 100), (2, 100), (3, 100), (4, 200)]);
    let before = world.state.committee().clone();
    block_at(&mut world, 5_000);
    let next = world.state.next_committee().unwrap();
    let owner = |committee: &Committee, shard| committee.member(committee.owner(shard)).unwrap().peer;
    let moved = (0..4).map(ShardIndex).filter(|shard| owner(&before, *shard) != owner(next, *shard));
    assert_eq!(moved.count(), 1);
}

#[test]
fn where_no_committee_can_be_formed_the_old_one_goes_on_and_says_so() {
    let parameters = Parameters { min_stake: 1, ..ten_seconds() };
    let mut world = with_epochs(parameters, &[(0, 1), (1, 1), (5, 1)]);
    let members = world.state.committee().members().to_vec();
    let events = block_at(&mut world, 5_000);
    let kept = SelectionError { candidates: 3, members_max: 100, node_shards_max: 1, n_shards: 4 };
    assert_eq!(events, [Event::NextSelected { epoch: Epoch(1), ends_ms: 10_001, kept: Some(kept) }]);
    block_at(&mut world, 10_001);
    assert_eq!((world.epoch(), world.state.committee().members()), (Epoch(1), &members[..]));
}

#[test]
fn a_network_without_an_epoch_time_keeps_its_committee() {
    let mut world = World::new(4, 4);
    assert_eq!(due(&world), None);
    assert_eq!(block_at(&mut world, u64::MAX), []);
    assert_eq!(due(&world), None);
}
