//! Members and committees for the tests of this crate, made from small numbers.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(unreachable_pub, reason = "shared between test files")]

use protocol::{
    Epoch, PeerId, ShardIndex,
    bls::SecretKey,
    committee::{Committee, Member, spread},
};

/// The peer ID of the node with this seed. Descends with the seed, so that members are not sorted by accident.
pub fn peer(seed: u8) -> PeerId {
    PeerId([255 - seed; 32])
}

/// The signing key of the node with this seed.
pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// A member with a valid proof of possession.
pub fn member(seed: u8, shards: Vec<ShardIndex>) -> Member {
    Member {
        name: format!("node-{seed}"),
        peer: peer(seed),
        public_key: key(seed).public_key(),
        proof_of_possession: key(seed).prove_possession(&peer(seed)),
        addresses: vec![
            format!("/ip4/10.0.0.{seed}/tcp/7000"),
            format!("/ip4/10.0.0.{seed}/udp/7000/quic-v1"),
        ],
        shards,
    }
}

/// Members of seeds 0, 1, ... that share the shards evenly.
pub fn members(n_shards: u16, n_members: u16) -> Vec<Member> {
    (0..).zip(spread(n_shards, n_members)).map(|(seed, shards)| member(seed, shards)).collect()
}

/// A committee of the members above.
pub fn committee(epoch: u32, n_shards: u16, n_members: u16) -> Committee {
    Committee::new(Epoch(epoch), n_shards, members(n_shards, n_members)).unwrap()
}
