use proptest::prelude::*;

use super::world::*;
use crate::{
    hash::Hash,
    ids::NetworkId,
    ledger::{
        parameters::Parameters,
        state::{ApplyError, BlockError, Event, Rejected},
        transaction::{
            Action, Place, SignedTransaction, TRANSACTION_BYTES_MAX, Transaction, TransactionError,
        },
    },
};

const fn transfer(to: u8, amount: u64) -> (u8, u64) {
    (to, amount)
}

fn action((to, amount): (u8, u64)) -> Action {
    Action::Transfer { to: account(to), amount }
}

#[test]
fn a_transfer_moves_credits_and_pays_the_fee() {
    let mut world = World::priced();
    let event = world.does(0, action(transfer(9, 500)));
    assert_eq!(event, Event::Transferred { from: account(0), to: account(9), amount: 500 });
    assert_eq!((world.balance(0), world.balance(9)), (BALANCE - 501, 500));
    assert_eq!(world.state.bucket(world.epoch()).unwrap().credits, 1, "the fee");
    world.does(9, action(transfer(9, 499)));
    assert_eq!(world.balance(9), 499, "to itself, for the fee");
}

#[test]
fn an_overdraft_says_what_there_is_and_what_is_needed() {
    let mut world = World::priced();
    let account_0 = account(0);
    let has = BALANCE - 1;
    for (amount, needs) in [(BALANCE, u128::from(BALANCE)), (u64::MAX, u128::from(u64::MAX))] {
        let rejected = world.is_refused(0, action((1, amount)));
        assert_eq!(rejected, Rejected::Overdraft { account: account_0, has, needs });
    }
    assert_eq!(
        world.is_refused(0, action((1, BALANCE))).to_string(),
        format!("account {account_0} has 999999 credits and needs 1000000")
    );
    let rejected = world.is_refused(50, action((1, 1)));
    assert_eq!(rejected, Rejected::Overdraft { account: account(50), has: 0, needs: 1 }, "the fee");
    assert_eq!(world.is_refused(0, action((1, 0))), Rejected::NoAmount);
    world.does(0, action((1, has)));
    assert_eq!(world.balance(0), 0);
}

#[test]
fn a_look_at_the_account_says_whose_turn_it_is() {
    let mut world = World::priced();
    let place = |sender, nonce, pays_fee| Place { sender: account(sender), nonce, pays_fee };
    world.does(0, action((9, 2)));
    for (nonce, turn) in [(1, 0), (2, 1), (u64::MAX, u64::MAX - 1)] {
        assert_eq!(world.state.turn(&place(0, nonce, true)), Ok(turn));
    }
    let passed = Rejected::Nonce { account: account(0), got: 0, required: 1 };
    assert_eq!(world.state.turn(&place(0, 0, true)), Err(passed.into()));
    let poor = Rejected::Overdraft { account: account(50), has: 0, needs: 1 };
    assert_eq!(world.state.turn(&place(50, 0, true)), Err(poor.into()));
    assert_eq!(world.state.turn(&place(50, 0, false)), Ok(0), "a duty costs nothing");
}

#[test]
fn a_transaction_is_taken_once_and_in_its_turn() {
    let mut world = World::new(4, 4);
    let first = world.sign(0, 0, action((1, 1)));
    let later = world.sign(0, 1, action((1, 2)));
    let refused =
        |got, required| Err(ApplyError::Rejected(Rejected::Nonce { account: account(0), got, required }));
    let last = |world: &World, seed| world.state.account(&account(seed)).unwrap().last;
    assert_eq!(world.state.apply(&later), refused(1, 0));
    assert_eq!((last(&world, 0), last(&world, 1)), (None, None));
    assert_eq!(world.state.apply(&first).unwrap().id, first.id());
    assert_eq!((last(&world, 0), last(&world, 1)), (Some(first.id()), None), "the sender's alone");
    assert_eq!(world.state.apply(&first), refused(0, 1));
    assert_ne!(world.state.apply(&later).unwrap().id, first.id());
    assert_eq!(last(&world, 0), Some(later.id()));
    assert_eq!(world.balance(1), BALANCE + 3);
}

#[test]
fn a_transaction_of_another_network_is_refused() {
    let mut world = World::new(4, 4);
    let other = World::priced();
    let transaction = other.sign(0, 0, action((1, 1)));
    let (got, required) = (other.network, world.network);
    assert_eq!(
        world.state.apply(&transaction),
        Err(ApplyError::Rejected(Rejected::WrongNetwork { got, required }))
    );
    let signed = transaction.signed().clone();
    assert!(matches!(signed.verify(&required), Err(TransactionError::Signature(_))));
}

#[test]
fn what_the_sender_did_not_sign_is_refused() {
    let world = World::new(4, 4);
    let good = world.sign(0, 0, action((1, 1))).signed().to_bytes();
    let mut n_decoded = 0;
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        if let Ok(signed) = SignedTransaction::from_bytes(&changed) {
            n_decoded += 1;
            assert_eq!(signed.to_bytes(), changed, "one form");
            assert!(signed.verify(&world.network).is_err(), "byte {at}");
        }
    }
    assert!(n_decoded > 100, "the signature is what refuses: {n_decoded}");
    let forged = Transaction { sender: account(0), nonce: 0, action: action((1, 1)) };
    let forged = forged.sign(&world.network, &key(1));
    assert!(matches!(forged.verify(&world.network), Err(TransactionError::Signature(_))));
}

#[test]
fn the_signed_text_is_what_it_always_was() {
    let network = NetworkId([7; 32]);
    let transaction = Transaction { sender: account(0), nonce: 3, action: action((1, 5)) };
    let signed = transaction.sign(&network, &key(0));
    let bytes = signed.to_bytes();
    let (fields, signature) = bytes.split_at(bytes.len() - 64);
    let expected =
        [&account(0).0[..], &[3, 0, 0, 0, 0, 0, 0, 0], &[0; 4], &account(1).0, &[5, 0, 0, 0, 0, 0, 0, 0]];
    assert_eq!(fields, expected.concat());
    let text = [b"floe/v1/transaction\0", &[7; 32][..], fields].concat();
    assert_eq!(signature, key(0).sign(&text).0);
}

#[test]
fn an_unknown_action_and_too_many_bytes_are_refused() {
    let world = World::new(4, 4);
    let mut bytes = world.sign(0, 0, action((1, 1))).signed().to_bytes();
    bytes[40] = 14;
    assert!(matches!(SignedTransaction::from_bytes(&bytes), Err(TransactionError::Decode(_))));
    let long = vec![0; TRANSACTION_BYTES_MAX + 1];
    assert_eq!(
        SignedTransaction::from_bytes(&long),
        Err(TransactionError::TooLong { got: TRANSACTION_BYTES_MAX + 1 })
    );
    let mut long = description(0);
    long.addresses = vec!["x".repeat(9000)];
    let action = Action::RegisterNode { description: Box::new(long) };
    let signed = Transaction { sender: account(0), nonce: 0, action }.sign(&world.network, &key(0));
    assert!(matches!(signed.verify(&world.network), Err(TransactionError::TooLong { .. })));
}

#[test]
fn the_largest_legal_transaction_fits() {
    let world = World::new(4, 4);
    let mut large = description(9);
    large.name = "x".repeat(64);
    large.addresses = vec!["x".repeat(320); 12];
    let action = Action::RegisterNode { description: Box::new(large) };
    assert!(canonical_len(&action) > 4_000);
    let mut world_after = world;
    world_after.does(NODES + 9, action);
}

#[test]
fn blocks_follow_each_other() {
    let mut world = World::new(4, 4);
    let root = world.state.root();
    assert_eq!(world.state.begin_block(0, 5), Err(BlockError::Height { got: 0, required: 1 }));
    assert_eq!(world.state.begin_block(2, 5), Err(BlockError::Height { got: 2, required: 1 }));
    assert_eq!(world.state.root(), root);
    world.state.begin_block(1, 5).unwrap();
    assert_ne!(world.state.end_block(), root);
    assert_eq!(world.state.begin_block(2, 4), Err(BlockError::Time { got: 4, min: 5 }));
    world.state.begin_block(2, 5).unwrap();
    let head = world.state.head().unwrap();
    assert_eq!((head.height, head.time_ms), (2, 5));
}

#[test]
fn genesis_is_a_function_of_its_file() {
    let root = World::new(4, 4).state.root();
    assert_eq!(root, World::new(4, 4).state.root());
    assert_ne!(root, World::priced().state.root());
    assert_ne!(root, World::new(4, 3).state.root());
    assert_ne!(root, Hash([0; 32]));
    let world = World::new(4, 4);
    assert_eq!(world.state.total().unwrap(), u128::from(BALANCE) * u128::from(N_ACCOUNTS));
    assert_eq!(world.state.parameters().unwrap(), Parameters::default());
    assert_eq!(world.reopened().root(), root);
    world.audit();
}

proptest! {
    #[test]
    fn hostile_bytes_are_refused_quietly(
        tag in 0_u32..16,
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let network = NetworkId([7; 32]);
        let framed = [&account(0).0[..], &[0; 8], &tag.to_le_bytes(), &bytes].concat();
        for bytes in [bytes, framed] {
            if let Ok(signed) = SignedTransaction::from_bytes(&bytes) {
                prop_assert_eq!(signed.to_bytes(), bytes);
                prop_assert!(signed.verify(&network).is_err());
            }
        }
    }
}
