//! Files that people write and programs read: configurations, the genesis, keys.

use std::path::Path;

use node::config::{ClientFile, NodeConfig};
use protocol::genesis::Genesis;

use super::{
    Seed, Target,
    fixture::{WORLD, key, small_genesis},
};

/// A parser of TOML keeps where each value stood, and quotes lines in errors: some hundred times the text.
const TOML_MEMORY: usize = 8 << 20;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "node_config",
        bytes_max: 8 << 10,
        memory_max: TOML_MEMORY,
        run: node_config,
        seeds: || vec![("default", NodeConfig::default().to_toml().into_bytes()), ("empty", Vec::new())],
    },
    Target {
        name: "client_file",
        bytes_max: 8 << 10,
        memory_max: TOML_MEMORY,
        run: |bytes| rewritten(bytes, node::fuzz::client_file),
        seeds: || vec![("example", ClientFile::EXAMPLE.as_bytes().to_vec())],
    },
    Target {
        name: "member_file",
        bytes_max: 4 << 10,
        memory_max: TOML_MEMORY,
        run: |bytes| rewritten(bytes, node::fuzz::member_file),
        seeds: members,
    },
    Target {
        name: "genesis",
        bytes_max: 4 << 10,
        memory_max: TOML_MEMORY,
        run: genesis,
        seeds: || {
            [("one", 1), ("two", 2)].map(|(name, n)| (name, small_genesis(n).to_toml().into_bytes())).to_vec()
        },
    },
    Target { name: "key_file", bytes_max: 128, memory_max: 16 << 10, run: key_file, seeds: keys },
];

/// What is read is written, and means the same.
fn node_config(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let parse = |text| NodeConfig::parse(Path::new("config.toml"), text);
    let config = match parse(text) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let written = config.to_toml();
    assert_eq!(parse(&written).ok(), Some(config), "{written}");
    true
}

fn rewritten(bytes: &[u8], read: fn(&str) -> Option<String>) -> bool {
    let Some(written) = str::from_utf8(bytes).ok().and_then(read) else { return false };
    assert_eq!(
        read(&written).as_ref(),
        Some(&written),
        "what is written is read, and written again as it was"
    );
    true
}

/// A genesis means the same however it is written.
fn genesis(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let genesis = match Genesis::parse(text) {
        Ok(genesis) => genesis,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let again = Genesis::parse(&genesis.to_toml()).expect("what a genesis is written as is one");
    assert_eq!((again.network_id(), &again), (genesis.network_id(), &genesis));
    true
}

/// 64 digits, and perhaps the end of the line: a key has two forms.
fn key_file(bytes: &[u8]) -> bool {
    node::fuzz::key_file(bytes).is_some_and(|digits| {
        assert_eq!(digits.as_bytes(), bytes.strip_suffix(b"\n").unwrap_or(bytes));
        true
    })
}

fn members() -> Vec<Seed> {
    let member = &WORLD.committee.members()[0];
    let text = format!(
        "name = \"{}\"\npeer = \"{}\"\npublic_key = \"{}\"\nproof_of_possession = \"{}\"\naddresses = [\"{}\"]\n",
        member.name, member.peer, member.public_key, member.proof_of_possession, member.addresses[0]
    );
    vec![("member", text.into_bytes())]
}

fn keys() -> Vec<Seed> {
    // Any 64 digits are a key; those of a public one are nobody's secret.
    let digits = key(0).peer().to_string();
    vec![("line", format!("{digits}\n").into_bytes()), ("no-line-end", digits.into_bytes())]
}
