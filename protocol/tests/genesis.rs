//! The genesis file: one ID per meaning, and errors that point at the line.

#![allow(clippy::unwrap_used, reason = "tests")]

mod committee_support;

use std::error::Error;

use committee_support::{key, members, peer};
use proptest::prelude::*;
use protocol::{
    AccountId, Epoch, ShardIndex,
    committee::{CommitteeError, Member, NameError},
    genesis::{Endowment, Genesis, GenesisAccount, GenesisError, GenesisStake},
    ledger::parameters::{CREDITS_MAX, Parameters},
};

fn genesis() -> Genesis {
    Genesis::new("test network".to_owned(), 10, members(10, 4)).unwrap()
}

#[test]
fn a_genesis_survives_its_text() {
    let text = genesis().to_toml();
    let parsed = Genesis::parse(&text).unwrap();
    assert_eq!(parsed, genesis());
    assert_eq!(parsed.to_toml(), text);
    assert_eq!(parsed.network_id(), genesis().network_id());
    assert_eq!((parsed.name(), parsed.n_shards()), ("test network", 10));
    assert_eq!(parsed.committee().epoch(), Epoch(0));
}

#[test]
fn the_id_is_frozen() {
    let id = genesis().network_id().to_string();
    assert_eq!(id, "4df510982f275a4011d4e965766161962efc02a011fb7d2d9c9849ace2841f9c");
}

#[test]
fn the_id_does_not_depend_on_how_the_text_is_written() {
    let text = genesis().to_toml();
    let (head, members) = text.split_once("[[members]]").unwrap();
    let members: Vec<&str> = members.split("[[members]]").collect();
    let mut rewritten = format!("# a comment\n{}", head.replace(" = ", "   =\t"));
    for member in members.iter().rev() {
        rewritten +=
            &format!("\n\n[[members]] # another\n{}", member.replace("[0, 1, 2]", "[\n  2,\n  0, 1,\n]"));
    }
    assert_ne!(rewritten, text);
    let rewritten = rewritten.replace('\n', "\r\n");
    let parsed = Genesis::parse(&rewritten).unwrap();
    assert_eq!(parsed, genesis());
    assert_eq!(parsed.network_id(), genesis().network_id());
}

#[test]
fn the_id_changes_with_every_field() {
    let changed = |change: fn(&mut Vec<Member>)| {
        let mut members = members(10, 4);
        change(&mut members);
        Genesis::new("test network".to_owned(), 10, members).unwrap().network_id()
    };
    let ids = [
        genesis().network_id(),
        Genesis::new("test network 2".to_owned(), 10, members(10, 4)).unwrap().network_id(),
        Genesis::new("test network".to_owned(), 11, members(11, 4)).unwrap().network_id(),
        Genesis::new("test network".to_owned(), 10, members(10, 5)).unwrap().network_id(),
        changed(|members| members[0].name.push('x')),
        changed(|members| {
            members[0].peer = peer(9);
            members[0].proof_of_possession = key(0).prove_possession(&peer(9));
        }),
        changed(|members| {
            members[0].public_key = key(9).public_key();
            members[0].proof_of_possession = key(9).prove_possession(&peer(0));
        }),
        changed(|members| members[0].addresses.reverse()),
        changed(|members| members[0].addresses[0].push('x')),
        changed(|members| drop(members[0].addresses.pop())),
        changed(|members| members[0].addresses.clear()),
        changed(|members| {
            let moved = members[0].shards.pop().unwrap();
            members[1].shards.push(moved);
        }),
        changed(|members| {
            members[0].shards[0] = ShardIndex(3);
            members[1].shards[0] = ShardIndex(0);
        }),
    ];
    for (i, id) in ids.iter().enumerate() {
        assert!(!ids[..i].contains(id), "change {i}");
    }
}

fn balance(account: u8, balance: u64) -> GenesisAccount {
    GenesisAccount { account: AccountId([account; 32]), balance }
}

fn stake(account: u8, node: u8, amount: u64) -> GenesisStake {
    GenesisStake { node: peer(node), account: AccountId([account; 32]), amount }
}

fn endowment() -> Endowment {
    Endowment {
        accounts: vec![balance(2, 20), balance(1, 10)],
        stakes: vec![stake(1, 0, 5), stake(1, 1, 6), stake(2, 0, 7)],
        parameters: Parameters { storage_price: 3, unbonding_epochs: 9, ..Parameters::default() },
    }
}

#[test]
fn a_genesis_without_an_endowment_is_one_without_prices() {
    assert_eq!(genesis().endowment(), &Endowment::default());
    assert!(!genesis().to_toml().contains("parameters"));
    let spelt_out =
        format!("{}\n[parameters]\nstorage_price = 0\nunbonding_epochs = 2\n", genesis().to_toml());
    assert_eq!(Genesis::parse(&spelt_out), Ok(genesis()));
    assert_eq!(genesis().with_endowment(Endowment::default()), Ok(genesis()));
}

#[test]
fn an_endowment_survives_its_text_in_any_order() {
    let genesis = genesis().with_endowment(endowment()).unwrap();
    let text = genesis.to_toml();
    assert_eq!(Genesis::parse(&text), Ok(genesis.clone()));
    let mut reversed = endowment();
    reversed.accounts.reverse();
    reversed.stakes.reverse();
    let reversed = self::genesis().with_endowment(reversed).unwrap();
    assert_eq!(reversed, genesis);
    assert_eq!(reversed.network_id(), genesis.network_id());
    let unknown = text.replace("storage_price = 3", "storage_prize = 3");
    assert!(Genesis::parse(&unknown).unwrap_err().to_string().contains("unknown field `storage_prize`"));
    let unknown = text.replace("balance = 10", "balance = 10\nnote = 1");
    assert!(Genesis::parse(&unknown).unwrap_err().to_string().contains("unknown field `note`"));
}

#[test]
fn the_id_changes_with_every_field_of_the_endowment() {
    let changed = |change: fn(&mut Endowment)| {
        let mut endowment = endowment();
        change(&mut endowment);
        genesis().with_endowment(endowment).unwrap().network_id()
    };
    let ids = [
        genesis().network_id(),
        changed(|_| {}),
        changed(|endowment| endowment.accounts[0].balance += 1),
        changed(|endowment| endowment.accounts[0].account = AccountId([3; 32])),
        changed(|endowment| endowment.accounts.truncate(1)),
        changed(|endowment| endowment.stakes[0].amount += 1),
        changed(|endowment| endowment.stakes[0].account = AccountId([3; 32])),
        changed(|endowment| endowment.stakes[0].node = peer(2)),
        changed(|endowment| endowment.stakes.truncate(2)),
        changed(|endowment| endowment.parameters.storage_price = 4),
        changed(|endowment| endowment.parameters.write_price = 4),
        changed(|endowment| endowment.parameters.capacity_bytes = 4),
        changed(|endowment| endowment.parameters.transaction_fee = 4),
        changed(|endowment| endowment.parameters.unbonding_epochs = 4),
        changed(|endowment| endowment.parameters.epochs_ahead_max = 4),
        changed(|endowment| endowment.parameters.equivocation_slash_bp = 4),
    ];
    for (i, id) in ids.iter().enumerate() {
        assert!(!ids[..i].contains(id), "change {i}");
    }
}

#[test]
fn an_endowment_that_does_not_add_up_is_refused() {
    let refused = |change: fn(&mut Endowment)| {
        let mut endowment = endowment();
        change(&mut endowment);
        genesis().with_endowment(endowment).unwrap_err()
    };
    let account = AccountId([1; 32]);
    let cases = [
        (
            refused(|endowment| endowment.accounts.push(balance(1, 4))),
            GenesisError::DuplicateAccount { account },
        ),
        (
            refused(|endowment| endowment.stakes.push(stake(1, 0, 4))),
            GenesisError::DuplicateStake { account, node: peer(0) },
        ),
        (
            refused(|endowment| endowment.stakes.push(stake(1, 99, 4))),
            GenesisError::UnknownNode { account, node: peer(99) },
        ),
        (refused(|endowment| endowment.accounts[1].balance = 0), GenesisError::NoCredits { account }),
        (refused(|endowment| endowment.stakes[0].amount = 0), GenesisError::NoCredits { account }),
        (
            refused(|endowment| endowment.accounts[0].balance = CREDITS_MAX - 27),
            GenesisError::TooManyCredits { got: u128::from(CREDITS_MAX) + 1 },
        ),
    ];
    for (got, expected) in cases {
        assert_eq!(got, expected);
    }
    let error = refused(|endowment| endowment.parameters.unbonding_epochs = 0);
    assert_eq!(error.source().unwrap().to_string(), "unbonding_epochs is 0, allowed are 1 to 1000");
    let most = |endowment: &mut Endowment| endowment.accounts[0].balance = CREDITS_MAX - 28;
    let mut endowment = endowment();
    most(&mut endowment);
    let genesis = genesis().with_endowment(endowment).unwrap();
    assert_eq!(Genesis::parse(&genesis.to_toml()), Ok(genesis), "TOML holds it");
}

#[test]
fn unknown_missing_and_mistyped_keys_are_refused_with_their_line() {
    let text = genesis().to_toml();
    for (from, to, says, line) in [
        ("n_shards = 10", "n_shards = 10\nprice = 3", "unknown field `price`", "line 4"),
        ("shards = [0, 1, 2]", "shards = [0, 1, 2]\ncolour = 1", "unknown field `colour`", "line 36"),
        ("n_shards = 10\n", "", "missing field `n_shards`", "line 1"),
        ("n_shards = 10", "n_shards = \"10\"", "invalid type", "line 3"),
        ("n_shards = 10", "n_shards = 100000", "invalid value", "line 3"),
        ("n_shards = 10", "n_shards = 10\nn_shards = 10", "duplicate key", "line 4"),
        ("n_shards = 10", "n_shards = ", "", "line 3"),
        ("public_key = \"", "public_key = \"00", "expected 96 hexadecimal digits, got 98", "line 8"),
        ("peer = \"", "peer = \"x", "expected 64 characters, got 65", "line 7"),
        ("version = 1\n", "", "missing field `version`", "line 1"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let error = Genesis::parse(&changed).unwrap_err();
        assert!(matches!(error, GenesisError::Toml(_)), "{error}");
        let error = error.to_string();
        assert!(error.contains(says), "{to}: {error}");
        assert!(error.contains(line), "{to}: {error}");
    }
}

#[test]
fn a_key_that_is_no_point_is_refused_with_its_line() {
    let text = genesis().to_toml();
    let public_key = key(0).public_key().to_string();
    let infinity = format!("c0{}", "0".repeat(94));
    let error = Genesis::parse(&text.replace(&public_key, &infinity)).unwrap_err().to_string();
    assert!(error.contains("the point at infinity"), "{error}");
    assert!(error.contains("public_key = \"c000"), "{error}");
}

#[test]
fn a_later_version_is_refused_as_such() {
    let later = genesis().to_toml().replace("version = 1", "version = 2\nprice = 3");
    assert_eq!(Genesis::parse(&later), Err(GenesisError::Version { got: 2 }));
}

#[test]
fn a_member_at_fault_is_found_by_its_line() {
    let text = genesis().to_toml();
    let other = key(9).prove_possession(&peer(9)).to_string();
    let changed = text.replace(&key(2).prove_possession(&peer(2)).to_string(), &other);
    let error = Genesis::parse(&changed).unwrap_err();
    let begins = text.lines().position(|line| line.contains("node-2")).unwrap();
    let GenesisError::Committee { line: Some(line), source: CommitteeError::Possession { member, .. } } =
        &error
    else {
        panic!("{error:?}");
    };
    assert_eq!((*line, member.as_str()), (begins, "node-2"));
    assert_eq!(
        error.to_string(),
        format!("the genesis describes no committee: see the member at line {begins}")
    );
    assert!(error.source().unwrap().to_string().contains("proof of possession of member `node-2`"));

    let changed = text.replace("[0, 1, 2]", "[0, 1]");
    let error = Genesis::parse(&changed).unwrap_err();
    let source = CommitteeError::UnownedShard { shard: ShardIndex(2) };
    assert_eq!(error, GenesisError::Committee { line: None, source });
}

#[test]
fn a_network_needs_a_printable_name() {
    let changed = genesis().to_toml().replace("test network", "");
    assert_eq!(Genesis::parse(&changed), Err(GenesisError::Name(NameError::Empty)));
}

#[test]
fn an_endless_text_is_not_read() {
    let text = "#".repeat(9 << 20);
    assert_eq!(Genesis::parse(&text), Err(GenesisError::TooLong { got: 9 << 20 }));
}

proptest! {
    #[test]
    fn hostile_text_is_refused_quietly(text in ".{0,200}") {
        prop_assert!(Genesis::parse(&text).is_err());
        let versioned = ["version = 1\n", &text].concat();
        prop_assert!(Genesis::parse(&versioned).is_err());
    }
}
