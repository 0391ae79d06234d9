use super::world::*;
use crate::{
    genesis::GenesisStake,
    ids::Epoch,
    ledger::{
        parameters::Parameters,
        state::{Event, Rejected},
        transaction::{Action, NodeDescription},
    },
};

const fn stake(index: u8, amount: u64) -> (u8, u64) {
    (index, amount)
}

fn put((index, amount): (u8, u64)) -> Action {
    Action::Stake { node: node(index), amount }
}

fn take(index: u8, amount: Option<u64>) -> Action {
    Action::Unstake { node: node(index), amount }
}

#[test]
fn withdrawn_stake_is_locked_for_its_time() {
    let mut world = World::new(4, 4);
    world.does(0, put(stake(0, 1_000)));
    assert_eq!(world.balance(0), BALANCE - 1_000);
    let event = world.does(0, take(0, Some(400)));
    let release = Epoch(3);
    assert_eq!(event, Event::Unstaked { node: node(0), account: account(0), amount: 400, release });
    let event = world.does(0, take(0, None));
    assert_eq!(event, Event::Unstaked { node: node(0), account: account(0), amount: 600, release });
    for _ in 0..2 {
        world.next_epoch();
        assert_eq!(world.balance(0), BALANCE - 1_000);
    }
    let events = world.next_epoch();
    assert!(events.contains(&Event::Released { node: node(0), account: account(0), amount: 1_000 }));
    assert_eq!(world.balance(0), BALANCE);
    world.audit();
}

#[test]
fn stake_that_is_not_there_is_not_withdrawn() {
    let mut world = World::new(4, 4);
    world.does(0, put(stake(0, 1_000)));
    let refused = |account, has, needs| Rejected::TooLittleStake { node: node(0), account, has, needs };
    assert_eq!(world.is_refused(0, take(0, Some(1_001))), refused(account(0), 1_000, 1_001));
    assert_eq!(world.is_refused(1, take(0, Some(1))), refused(account(1), 0, 1));
    assert_eq!(world.is_refused(1, take(0, None)), Rejected::NoAmount);
    assert_eq!(world.is_refused(0, take(0, Some(0))), Rejected::NoAmount);
    assert_eq!(world.is_refused(0, put(stake(0, 0))), Rejected::NoAmount);
    assert_eq!(world.is_refused(0, put(stake(50, 1))), Rejected::UnknownNode { node: node(50) });
    assert_eq!(world.is_refused(0, take(50, None)), Rejected::UnknownNode { node: node(50) });
    let rejected = world.is_refused(0, put(stake(0, BALANCE)));
    let needs = u128::from(BALANCE);
    assert_eq!(rejected, Rejected::Overdraft { account: account(0), has: BALANCE - 1_000, needs });
    world.does(NODES, Action::LeaveNode { node: node(0) });
    assert_eq!(world.is_refused(0, put(stake(0, 1))), Rejected::NodeLeaving { node: node(0) });
    world.does(0, take(0, None));
}

#[test]
fn rewards_go_to_operator_and_stakers() {
    let stakes = vec![
        GenesisStake { node: node(0), account: account(0), amount: 300 },
        GenesisStake { node: node(0), account: account(1), amount: 100 },
    ];
    let parameters = Parameters { transaction_fee: 4_000, ..Parameters::default() };
    let mut world = World::with(4, 4, parameters, stakes);
    assert_eq!(world.state.staked(&node(0), &account(0)), Ok(300));
    // Fees fill the fund: 8000 of them, 2000 a shard.
    world.does(0, Action::Transfer { to: account(NODES), amount: 4_000 });
    let commission = NodeDescription { commission_bp: 2_000, operator: account(3), ..description(0) };
    world.does(NODES, Action::UpdateNode { node: node(0), description: Box::new(commission) });
    let events = world.next_epoch();
    assert!(events.contains(&Event::Rewarded { node: node(0), operator: 0, stakers: 2_000 }));
    assert_eq!(world.balance(3), BALANCE, "the commission is for the next committee on");
    assert_eq!(world.state.staked(&node(0), &account(0)), Ok(300 + 1_500));
    assert_eq!(world.balance(NODES + 1), 2_000, "nobody stakes on it: all to the operator");
    for _ in 0..2 {
        world.does(2, Action::Transfer { to: account(1), amount: 1 });
    }
    let events = world.next_epoch();
    assert_eq!(world.balance(3), BALANCE + 400, "a fifth to the operator");
    assert_eq!(world.state.staked(&node(0), &account(0)), Ok(300 + 1_500 + 1_200));
    assert_eq!(world.state.staked(&node(0), &account(1)), Ok(100 + 500 + 400));
    assert!(events.contains(&Event::Rewarded { node: node(0), operator: 400, stakers: 1_600 }));
}

#[test]
fn an_operator_does_not_take_what_stakes_earned_already() {
    let stakes = vec![GenesisStake { node: node(0), account: account(0), amount: 100 }];
    let parameters = Parameters { transaction_fee: 4_000, ..Parameters::default() };
    let mut world = World::with(4, 4, parameters, stakes);
    world.does(0, Action::Transfer { to: account(NODES), amount: 12_000 });
    let all = NodeDescription { commission_bp: 10_000, ..description(0) };
    world.does(NODES, Action::UpdateNode { node: node(0), description: Box::new(all.clone()) });
    // Nor by leaving and registering again.
    world.does(NODES, Action::LeaveNode { node: node(0) });
    world.does(NODES, Action::RegisterNode { description: Box::new(all) });
    world.next_epoch();
    assert_eq!(world.state.staked(&node(0), &account(0)), Ok(100 + 4_000));
    assert_eq!(world.balance(NODES), 0);
}

#[test]
fn what_cannot_be_divided_stays_in_the_fund() {
    let mut world =
        World::with(7, 4, Parameters { transaction_fee: 10, ..Parameters::default() }, Vec::new());
    world.does(0, Action::Transfer { to: account(1), amount: 1 });
    let weights = [0, 1, 2, 3].map(|index| world.state.committee().weight(world.member(index)));
    world.next_epoch();
    let paid = [0, 1, 2, 3].map(|index| world.balance(NODES + index));
    assert_eq!(paid, weights.map(|weight| u64::from(10 * weight / 7)));
    let left = 10 - paid.iter().sum::<u64>();
    assert!(left > 0);
    assert_eq!(world.state.bucket(Epoch(1)).unwrap().credits, left);
}

#[test]
fn a_stake_that_rounding_would_eat_is_refused() {
    let stakes = vec![GenesisStake { node: node(0), account: account(0), amount: 1 }];
    let parameters = Parameters { transaction_fee: 4_000, ..Parameters::default() };
    let mut world = World::with(4, 4, parameters, stakes);
    // One credit at stake earns a thousand: a share is dear now.
    world.does(1, Action::Transfer { to: account(0), amount: 1 });
    world.next_epoch();
    assert_eq!(world.state.staked(&node(0), &account(0)), Ok(1_001));
    assert_eq!(
        world.is_refused(1, put(stake(0, 1_500))),
        Rejected::StakeTooSmall { node: node(0), amount: 1_500 }
    );
    world.does(1, put(stake(0, 2_002)));
    assert_eq!(world.state.staked(&node(0), &account(1)), Ok(2_002));
    world.audit();
}
