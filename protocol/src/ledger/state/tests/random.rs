//! Whatever is sent, in whatever order: credits are conserved, counts are right, and what is refused changes nothing.

use proptest::prelude::*;

use super::world::*;
use crate::{
    certificate::Persistence,
    genesis::GenesisStake,
    ids::{BlobId, Epoch},
    ledger::{
        parameters::{Ballot, Parameters},
        state::{ApplyError, Event},
        transaction::{Action, NodeDescription},
    },
};

/// Something that happens, by whoever, sensible or not.
#[derive(Clone, Debug)]
enum Step {
    Act {
        sender: u8,
        kind: u8,
        a: u8,
        b: u8,
        amount: u64,
    },
    /// What an honest user does.
    Use {
        sender: u8,
        kind: u8,
        a: u8,
        b: u8,
        amount: u64,
    },
    Replay {
        sender: u8,
    },
    Advance,
    HandOver,
}

fn senders() -> impl Strategy<Value = u8> {
    prop_oneof![4 => 0..N_ACCOUNTS, 2 => NODES..NODES + 6, 1 => Just(50_u8)]
}

fn amounts() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..2_000_u64, 2 => 0..BALANCE, 1 => Just(u64::MAX), 1 => Just(BALANCE)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let act = (senders(), 0..14_u8, 0..6_u8, 0..10_u8, amounts())
        .prop_map(|(sender, kind, a, b, amount)| Step::Act { sender, kind, a, b, amount });
    let honest = (0..N_ACCOUNTS, 0..5_u8, 0..4_u8, 1..10_u8, 1..5_000_u64)
        .prop_map(|(sender, kind, a, b, amount)| Step::Use { sender, kind, a, b, amount });
    let step = prop_oneof![
        20 => act,
        20 => honest,
        1 => senders().prop_map(|sender| Step::Replay { sender }),
        2 => Just(Step::Advance),
        2 => Just(Step::HandOver),
    ];
    proptest::collection::vec(step, 1..60)
}

fn action(world: &World, kind: u8, a: u8, b: u8, amount: u64) -> Action {
    let persistence = if b.is_multiple_of(2) { Persistence::Permanent } else { Persistence::Deletable };
    let blob = a % 3;
    let epoch = world.epoch();
    let end = epoch.0 + u32::from(b) / 2;
    let describe = |index: u8| {
        let commission_bp = u16::from(b) * 1_200;
        let operator = account(if b < 5 { NODES + index } else { b - 5 });
        Box::new(NodeDescription { commission_bp, operator, ..description(index) })
    };
    match kind {
        0 => Action::Transfer { to: account(b), amount },
        1 => Action::RegisterNode { description: describe(a) },
        2 => Action::UpdateNode { node: node(a), description: describe(a) },
        3 => Action::LeaveNode { node: node(a) },
        4 => Action::Stake { node: node(a), amount },
        5 => Action::Unstake { node: node(a), amount: (b > 3).then_some(amount) },
        6 => register(world, blob, persistence, end),
        7 if b > 5 => Action::StoreBlob {
            header: header(world, blob),
            persistence,
            end_epoch: Epoch(end),
            certificate: world.availability(a % N_ACCOUNTS, blob, epoch),
        },
        7 => {
            let epoch = Epoch(epoch.0.saturating_sub(u32::from(a > 4)));
            Action::CertifyBlob { certificate: world.availability(b % N_ACCOUNTS, blob, epoch) }
        }
        8 => Action::ExtendBlob { blob_id: blob_id(world, blob), end_epoch: Epoch(end) },
        9 => Action::DeleteBlob { blob_id: blob_id(world, blob) },
        // Rarely the right one, or soon there would be nothing else to see.
        10 if b > 7 => Action::InvalidateBlob { certificate: world.invalidity(blob, epoch) },
        10 => Action::DeleteBlob { blob_id: BlobId([b; 32]) },
        11 => Action::ShardsReady { epoch: Epoch(u32::from(b)) },
        12 => Action::Vote {
            node: node(a),
            ballot: Ballot {
                storage_price: amount % 1_000,
                write_price: u64::from(b),
                capacity_bytes: amount << 8,
            },
        },
        _ if b > 8 => Action::Evidence { equivocation: world.equivocation(a) },
        _ => Action::Unstake { node: node(a), amount: None },
    }
}

/// Actions that are taken unless something stands in their way.
fn honest(world: &World, sender: u8, kind: u8, (a, b, amount): (u8, u8, u64)) -> Vec<Action> {
    let persistence = if b > 7 { Persistence::Permanent } else { Persistence::Deletable };
    let (blob, end) = (a % 3, world.epoch().0 + 1 + u32::from(b) % 4);
    match kind {
        0 => vec![
            register(world, blob, persistence, end),
            Action::CertifyBlob { certificate: world.availability(sender, blob, world.epoch()) },
        ],
        1 => vec![Action::StoreBlob {
            header: header(world, blob),
            persistence,
            end_epoch: Epoch(end),
            certificate: world.availability(sender, blob, world.epoch()),
        }],
        2 => vec![Action::DeleteBlob { blob_id: blob_id(world, blob) }],
        3 => vec![Action::Stake { node: node(a), amount }],
        _ => vec![Action::Unstake { node: node(a), amount: (b > 5).then_some(amount / 3) }],
    }
}

/// Which steps had an effect, so that a test that sees nothing is seen.
#[derive(Debug, Default)]
struct Seen {
    applied: usize,
    refused: usize,
    slashed: usize,
    released: usize,
    refunded: usize,
}

fn run(world: &mut World, steps: &[Step], seen: &mut Seen) -> Result<(), TestCaseError> {
    let total = world.state.total().unwrap();
    for step in steps {
        let before = world.state.clone();
        let mut events = Vec::new();
        match step {
            Step::Act { sender, kind, a, b, amount } => {
                let action = action(world, *kind, *a, *b, *amount);
                events = send(world, *sender, action, seen)?;
            }
            Step::Use { sender, kind, a, b, amount } => {
                for action in honest(world, *sender, *kind, (*a, *b, *amount)) {
                    events.extend(send(world, *sender, action, seen)?);
                }
            }
            Step::Replay { sender } => {
                let nonce = world.state.account(&account(*sender)).unwrap().nonce;
                let old = world.sign(
                    *sender,
                    nonce.wrapping_sub(1),
                    Action::Transfer { to: account(1), amount: 1 },
                );
                prop_assert!(matches!(world.state.apply(&old), Err(ApplyError::Rejected(_))));
                prop_assert_eq!(world.state.root(), before.root());
            }
            Step::Advance => match world.advance() {
                Ok(told) => events = told,
                Err(_) => prop_assert_eq!(world.state.root(), before.root()),
            },
            Step::HandOver => {
                for index in 0..4 {
                    let epoch = world.epoch();
                    // Some are ready already.
                    let _ = world.send(NODES + index, Action::ShardsReady { epoch });
                }
            }
        }
        seen.slashed += count(&events, |event| matches!(event, Event::NodeEjected { slashed: 1.., .. }));
        seen.released += count(&events, |event| matches!(event, Event::Released { amount: 1.., .. }));
        seen.refunded += count(&events, |event| matches!(event, Event::BlobDeleted { refund: 1.., .. }));
        prop_assert_eq!(world.state.total().unwrap(), total, "after {:?}", step);
        world.audit();
    }
    prop_assert_eq!(world.reopened().root(), world.state.root());
    Ok(())
}

fn send(world: &mut World, sender: u8, action: Action, seen: &mut Seen) -> Result<Vec<Event>, TestCaseError> {
    let root = world.state.root();
    match world.send(sender, action) {
        Ok(receipt) => {
            seen.applied += 1;
            Ok(receipt.events)
        }
        Err(ApplyError::Rejected(_)) => {
            seen.refused += 1;
            prop_assert_eq!(world.state.root(), root);
            Ok(Vec::new())
        }
        Err(ApplyError::Corrupt(corrupt)) => Err(TestCaseError::fail(corrupt.to_string())),
    }
}

fn count(events: &[Event], is: fn(&Event) -> bool) -> usize {
    events.iter().filter(|event| is(event)).count()
}

#[test]
fn credits_are_conserved_whatever_happens() {
    let stakes = vec![
        GenesisStake { node: node(0), account: account(0), amount: 77_777 },
        GenesisStake { node: node(1), account: account(1), amount: 1 },
    ];
    let parameters = Parameters { unbonding_epochs: 1, epochs_ahead_max: 4, ..priced() };
    let mut world = World::with(4, 4, parameters, stakes);
    for index in 0..6 {
        world.does(2, Action::Transfer { to: account(NODES + index), amount: 20_000 });
    }
    let mut seen = Seen::default();
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let seen_in_all = std::cell::RefCell::new(&mut seen);
    let result = runner.run(&steps(), |steps| run(&mut world.clone(), &steps, &mut seen_in_all.borrow_mut()));
    result.unwrap_or_else(|error| panic!("{error}"));
    for n in [seen.applied / 300, seen.refused / 300, seen.slashed, seen.released, seen.refunded] {
        assert!(n > 0, "this saw too little: {seen:?}");
    }
}
