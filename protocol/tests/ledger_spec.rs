//! `docs/spec/consensus.md` by hand: hashes and the check of a certificate, from bytes and nothing else.

#![allow(clippy::unwrap_used, reason = "tests")]

mod ledger_support;

use ed25519_dalek::VerifyingKey;
use ledger_support::{Chain, NETWORK};
use protocol::codec;

fn h(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let key = *blake3::hash(format!("floe/v1/{tag}").as_bytes()).as_bytes();
    *blake3::keyed_hash(&key, &parts.concat()).as_bytes()
}

/// A list of bytes.
fn bytes(it: &[u8]) -> Vec<u8> {
    [&u64::try_from(it.len()).unwrap().to_le_bytes(), it].concat()
}

#[test]
fn hashes_are_as_specified() {
    let mut chain = Chain::new(10, &[1, 2, 3, 4]);
    let committee = chain.tip.committee().clone();
    let (first, certificate, _) = chain.decide(&[b"one"], None);
    let (second, _, next) = chain.decide(&[b"two", b"three", b"four"], Some((1, &[2, 3, 4, 5])));

    let mut form = committee.epoch().0.to_le_bytes().to_vec();
    form.extend(10_u16.to_le_bytes());
    form.extend(4_u64.to_le_bytes());
    for member in committee.members() {
        form.extend(bytes(member.name.as_bytes()));
        form.extend(member.peer.0);
        form.extend(member.public_key.to_bytes());
        form.extend(member.proof_of_possession.to_bytes());
        form.extend(0_u64.to_le_bytes());
        form.extend(u64::try_from(member.shards.len()).unwrap().to_le_bytes());
        form.extend(member.shards.iter().flat_map(|shard| shard.0.to_le_bytes()));
    }
    let committee_hash = h("ledger-committee", &[&form]);
    let next_hash = h("ledger-committee", &[&codec::encode(&next.unwrap())]);

    let mut commit = 1_u64.to_le_bytes().to_vec();
    commit.extend(0_u32.to_le_bytes());
    commit.extend(first.id().0);
    commit.extend(4_u64.to_le_bytes());
    for (member, signature) in certificate.signatures() {
        commit.extend(member.0.to_le_bytes());
        commit.extend(signature.0);
    }

    let header = |height: u64, parent: [u8; 32], transactions: [u8; 32], next: &[u8], last: [u8; 32]| {
        let mut it = 2_u16.to_le_bytes().to_vec();
        it.extend(NETWORK.0);
        it.extend(height.to_le_bytes());
        it.extend((1_000 * height).to_le_bytes());
        it.extend(parent);
        it.extend(transactions);
        it.extend([u8::try_from(height - 1).unwrap(); 32]);
        it.extend(0_u32.to_le_bytes());
        it.extend(committee_hash);
        it.extend(next);
        it.extend(last);
        it
    };
    let genesis = h("ledger-genesis", &[&NETWORK.0]);
    let root = h("ledger-transaction", &[b"one"]);
    let transactions = h("ledger-transactions", &[&1_u64.to_le_bytes(), &root]);
    let id = h("ledger-header", &[&header(1, genesis, transactions, &[0], h("ledger-commit", &[&[0]]))]);
    assert_eq!(first.id().0, id);

    let [two, three, four] =
        [&b"two"[..], b"three", b"four"].map(|transaction| h("ledger-transaction", &[transaction]));
    let root = h("node", &[&h("node", &[&two, &three]), &four]);
    let transactions = h("ledger-transactions", &[&3_u64.to_le_bytes(), &root]);
    let next = [&[1], &next_hash[..]].concat();
    let last = h("ledger-commit", &[&[1], &commit]);
    assert_eq!(second.id().0, h("ledger-header", &[&header(2, id, transactions, &next, last)]));
}

#[test]
fn a_certificate_is_checked_as_specified() {
    let mut chain = Chain::new(10, &[1, 2, 3, 4]);
    let committee = chain.tip.committee().clone();
    let (block, certificate, _) = chain.decide(&[], None);
    let mut statement = b"floe/v1/consensus-vote\0".to_vec();
    statement.extend(NETWORK.0);
    statement.extend(1_u64.to_le_bytes());
    statement.extend(0_u32.to_le_bytes());
    statement.extend(2_u32.to_le_bytes());
    statement.push(1);
    statement.extend(block.id().0);
    assert_eq!(certificate.signatures().len(), 4);
    for (member, signature) in certificate.signatures() {
        let peer = committee.members()[member.as_usize()].peer;
        let key = VerifyingKey::from_bytes(&peer.0).unwrap();
        key.verify_strict(&statement, &ed25519_dalek::Signature::from_bytes(&signature.0)).unwrap();
    }
}
