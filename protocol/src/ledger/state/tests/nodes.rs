use super::world::*;
use crate::{
    certificate::Persistence,
    committee::CommitteeError,
    genesis::Genesis,
    ids::Epoch,
    ledger::{
        parameters::{Ballot, CREDITS_MAX, Parameters},
        state::{Event, Rejected, State, entry::NodeStatus},
        transaction::{Action, NodeDescription},
        vote::Equivocation,
    },
};

fn register_node(description: NodeDescription) -> Action {
    Action::RegisterNode { description: Box::new(description) }
}

fn update(index: u8, description: NodeDescription) -> Action {
    Action::UpdateNode { node: node(index), description: Box::new(description) }
}

#[test]
fn a_node_registers_with_its_own_key() {
    let mut world = World::new(4, 4);
    let event = world.does(NODES + 7, register_node(description(7)));
    assert_eq!(event, Event::NodeRegistered { node: node(7) });
    let entry = world.state.node(&node(7)).unwrap().unwrap();
    assert_eq!((entry.description, entry.status), (description(7), NodeStatus::Active));
    assert_eq!(
        world.is_refused(NODES + 7, register_node(description(7))),
        Rejected::NodeExists { node: node(7) }
    );
    // Another's proof of possession is no proof for oneself.
    let rejected = world
        .is_refused(NODES + 8, register_node(NodeDescription { name: "eight".into(), ..description(9) }));
    assert!(
        matches!(&rejected, Rejected::Description(error) if matches!(**error, CommitteeError::Possession { .. }))
    );
}

#[test]
fn names_and_keys_are_unique() {
    let mut world = World::new(4, 4);
    let same_name = NodeDescription { name: "node-2".into(), ..description(7) };
    assert_eq!(
        world.is_refused(NODES + 7, register_node(same_name)),
        Rejected::NameTaken { name: "node-2".into(), other: node(2) }
    );
    let same_key = NodeDescription { name: "seven".into(), ..description(2) };
    assert_eq!(
        world.is_refused(NODES + 7, register_node(same_key)),
        Rejected::KeyTaken { key: Box::new(bls_key(2).public_key()), other: node(2) }
    );
    // A name and a key that were given up can be taken.
    let with_key = |index: u8, key: u8, name: &str| NodeDescription {
        name: name.into(),
        public_key: bls_key(key).public_key(),
        proof_of_possession: bls_key(key).prove_possession(&node(index)),
        ..description(index)
    };
    world.does(NODES + 2, update(2, with_key(2, 22, "two")));
    world.does(NODES + 7, register_node(with_key(7, 2, "node-2")));
    world.next_epoch();
}

#[test]
fn a_name_of_the_genesis_stays_whatever_its_letters() {
    let mut world = World::new(4, 4);
    let mut members = world.state.committee().members().to_vec();
    let member = members.iter_mut().find(|member| member.peer == node(0)).unwrap();
    member.name = "k\u{f6}ln".into();
    let genesis = Genesis::new("test network".into(), 4, members).unwrap();
    world.network = genesis.network_id();
    world.state = State::genesis(&genesis).unwrap();
    let named = |name: &str| NodeDescription { name: name.into(), commission_bp: 5, ..description(0) };
    world.does(NODES, update(0, named("k\u{f6}ln")));
    let rejected = world.is_refused(NODES, update(0, named("k\u{f6}ln 2")));
    assert!(
        matches!(&rejected, Rejected::Description(error) if matches!(**error, CommitteeError::Name { .. }))
    );
}

#[test]
fn a_description_that_cannot_be_used_is_refused() {
    let mut world = World::new(4, 4);
    let good = description(7);
    for bad in [
        NodeDescription { name: String::new(), ..good.clone() },
        NodeDescription { name: "a\nb".into(), ..good.clone() },
        NodeDescription { name: "k\u{f6}ln".into(), ..good.clone() },
        NodeDescription { addresses: vec![String::new()], ..good.clone() },
        NodeDescription { addresses: vec!["a".into(); 13], ..good.clone() },
        NodeDescription { proof_of_possession: description(8).proof_of_possession, ..good.clone() },
    ] {
        assert!(matches!(world.is_refused(NODES + 7, register_node(bad)), Rejected::Description(_)));
    }
    for bad in [
        NodeDescription { commission_bp: 10_001, ..good.clone() },
        NodeDescription { capacity_bytes: CREDITS_MAX + 1, ..good },
    ] {
        assert!(matches!(world.is_refused(NODES + 7, register_node(bad)), Rejected::Parameter(_)));
    }
}

#[test]
fn only_the_operator_decides_for_a_node() {
    let mut world = World::new(4, 4);
    let cold = NodeDescription { operator: account(1), ..description(0) };
    world.does(NODES, update(0, cold.clone()));
    let ballot = Ballot { storage_price: 1, write_price: 1, capacity_bytes: 1 };
    let refused = Rejected::NotOperator { node: node(0), operator: account(1), sender: account(NODES) };
    for action in [
        update(0, description(0)),
        Action::LeaveNode { node: node(0) },
        Action::Vote { node: node(0), ballot },
    ] {
        assert_eq!(world.is_refused(NODES, action.clone()), refused);
        assert_eq!(
            world.is_refused(
                NODES,
                match action {
                    Action::UpdateNode { description, .. } =>
                        Action::UpdateNode { node: node(50), description },
                    Action::LeaveNode { .. } => Action::LeaveNode { node: node(50) },
                    _ => Action::Vote { node: node(50), ballot },
                }
            ),
            Rejected::UnknownNode { node: node(50) }
        );
    }
    assert_eq!(world.does(1, Action::Vote { node: node(0), ballot }), Event::Voted { node: node(0) });
    assert_eq!(world.does(1, Action::LeaveNode { node: node(0) }), Event::NodeLeaving { node: node(0) });
    assert_eq!(
        world.is_refused(1, Action::LeaveNode { node: node(0) }),
        Rejected::NodeLeaving { node: node(0) }
    );
    assert_eq!(world.is_refused(NODES, register_node(description(0))), refused, "not even by a new start");
    assert_eq!(world.does(NODES, register_node(cold)), Event::NodeRegistered { node: node(0) });
    assert_eq!(world.state.node(&node(0)).unwrap().unwrap().ballot, Some(ballot), "what it said stands");
}

#[test]
fn votes_move_prices_when_the_epoch_changes() {
    let mut world = World::new(4, 4);
    let vote = |index: u8, price: u64, capacity_bytes: u64| Action::Vote {
        node: node(index),
        ballot: Ballot { storage_price: price, write_price: 2 * price, capacity_bytes },
    };
    let bad = Ballot { storage_price: CREDITS_MAX + 1, write_price: 0, capacity_bytes: 0 };
    let rejected = world.is_refused(NODES, Action::Vote { node: node(0), ballot: bad });
    assert!(matches!(rejected, Rejected::Parameter(_)));
    for (index, price) in [(0, 10), (1, 20), (2, 30)] {
        world.does(NODES + index, vote(index, price, 1000 * price));
    }
    assert_eq!(world.state.parameters().unwrap(), Parameters::default(), "not yet");
    world.next_epoch();
    let parameters = world.state.parameters().unwrap();
    // Of four, three are a quorum. The one who said nothing is for what was: 0, and no limit.
    assert_eq!((parameters.storage_price, parameters.write_price), (20, 40));
    assert_eq!(parameters.capacity_bytes, 4 * 20_000, "each stands for a quarter");
}

#[test]
fn who_says_nothing_is_for_what_is() {
    let parameters = Parameters { storage_price: 10, write_price: 3, ..Parameters::default() };
    let mut world = World::with(4, 4, parameters, Vec::new());
    let free = Ballot { storage_price: 0, write_price: 0, capacity_bytes: CREDITS_MAX };
    for index in 0..2 {
        world.does(NODES + index, Action::Vote { node: node(index), ballot: free });
    }
    world.next_epoch();
    assert_eq!(world.state.parameters().unwrap(), parameters, "two of four are no quorum for less");
    world.does(NODES + 2, Action::Vote { node: node(2), ballot: free });
    world.next_epoch();
    assert_eq!(world.state.parameters().unwrap(), parameters.with_market(free));
}

#[test]
fn capacity_that_is_not_voted_for_is_what_the_node_says_it_has() {
    let mut world = World::new(4, 4);
    for index in 0..4 {
        world.does(
            NODES + index,
            update(index, NodeDescription { capacity_bytes: 500, ..description(index) }),
        );
    }
    world.next_epoch();
    assert_eq!(world.state.parameters().unwrap().capacity_bytes, 2_000);
}

#[test]
fn equivocation_costs_stake_and_the_place_for_good() {
    let parameters = Parameters { equivocation_slash_bp: 2_500, ..Parameters::default() };
    let mut world = World::with(4, 4, parameters, Vec::new());
    world.does(0, Action::Stake { node: node(0), amount: 1_000 });
    world.does(1, Action::Stake { node: node(0), amount: 3_000 });
    world.does(1, Action::Unstake { node: node(0), amount: Some(1_000) });
    let event = world.does(2, Action::Evidence { equivocation: world.equivocation(0) });
    assert_eq!(event, Event::NodeEjected { node: node(0), slashed: 750 + 250 });
    assert_eq!(world.state.staked(&node(0), &account(0)), Ok(750));
    assert_eq!(world.state.staked(&node(0), &account(1)), Ok(1_500));
    assert_eq!(world.state.bucket(Epoch(0)).unwrap().credits, 1_000);
    let ejected = Rejected::NodeEjected { node: node(0) };
    assert_eq!(world.is_refused(2, Action::Evidence { equivocation: world.equivocation(0) }), ejected);
    assert_eq!(world.is_refused(2, Action::Stake { node: node(0), amount: 1 }), ejected);
    assert_eq!(world.is_refused(NODES, Action::LeaveNode { node: node(0) }), ejected);
    assert_eq!(world.is_refused(NODES, register_node(description(0))), ejected);
    // Its part of the fund stays for the others.
    world.next_epoch();
    assert_eq!((world.balance(NODES), world.balance(NODES + 1)), (0, 250));
    assert_eq!(world.state.bucket(Epoch(1)).unwrap().credits, 250);
    // What was withdrawn before was slashed as well, and is released in its time.
    let balance = world.balance(1);
    world.next_epoch();
    world.next_epoch();
    assert_eq!(world.balance(1), balance + 750);
    world.does(1, Action::Unstake { node: node(0), amount: None });
    world.audit();
}

#[test]
fn all_of_a_slashed_stake_is_withdrawn_to_the_last_share() {
    let parameters = Parameters { equivocation_slash_bp: 2_500, ..Parameters::default() };
    let mut world = World::with(4, 4, parameters, Vec::new());
    world.does(0, Action::Stake { node: node(0), amount: 1_001 });
    world.does(1, Action::Stake { node: node(0), amount: 3_000 });
    world.does(2, Action::Evidence { equivocation: world.equivocation(0) });
    let Event::Unstaked { amount, .. } = world.does(0, Action::Unstake { node: node(0), amount: None })
    else {
        panic!()
    };
    assert_eq!(amount, 750, "of 750.75");
    assert_eq!(world.state.node(&node(0)).unwrap().unwrap().stake.shares, 3_000);
    world.audit();
}

#[test]
fn duties_cost_no_fee() {
    let mut world = World::priced();
    world.does(0, register(&world, 1, Persistence::Permanent, 2));
    let poor = 50;
    world.does(poor, Action::InvalidateBlob { certificate: world.invalidity(1, Epoch(0)) });
    world.does(poor, Action::Evidence { equivocation: world.equivocation(0) });
    world.does(NODES + 1, Action::ShardsReady { epoch: Epoch(0) });
    assert_eq!((world.balance(poor), world.balance(NODES + 1)), (0, 0));
}

#[test]
fn evidence_that_proves_nothing_is_refused() {
    let mut world = World::new(4, 4);
    let votes = |world: &World, index| match *world.equivocation(index) {
        Equivocation::Votes(first, second) => (first, second),
        Equivocation::Proposals(..) => unreachable!("the world makes votes"),
    };
    let ((first, second), (_, of_another)) = (votes(&world, 0), votes(&world, 1));
    for pair in [(first, first), (first, of_another)] {
        let equivocation = Box::new(Equivocation::Votes(pair.0, pair.1));
        let rejected = world.is_refused(0, Action::Evidence { equivocation });
        assert!(matches!(rejected, Rejected::Evidence(_)), "{rejected}");
    }
    let mut forged = second;
    forged.vote.block = None;
    let equivocation = Box::new(Equivocation::Votes(first, forged));
    assert!(matches!(world.is_refused(0, Action::Evidence { equivocation }), Rejected::Evidence(_)));
    let unknown = world.equivocation(50);
    let rejected = world.is_refused(0, Action::Evidence { equivocation: unknown });
    assert_eq!(rejected, Rejected::UnknownNode { node: node(50) });
}
