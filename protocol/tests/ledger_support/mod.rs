//! Committees whose members can sign blocks, made from small numbers.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(unreachable_pub, reason = "shared between test files")]

use std::sync::Arc;

use protocol::{
    Epoch, NetworkId, NodeIndex,
    bls::SecretKey,
    committee::{Committee, Member, spread},
    hash::Hash,
    ledger::{
        block::{Block, Draft, Tip, committee_hash},
        commit::CommitCertificate,
        signature::{Signature, SigningKey},
        vote::{VoteKind, vote_bytes},
    },
};

pub const NETWORK: NetworkId = NetworkId([3; 32]);

/// The ledger key of the node with this seed.
pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_secret(&[seed; 32])
}

/// A committee of the nodes with these seeds, which share the shards evenly.
pub fn committee(epoch: u32, n_shards: u16, seeds: &[u8]) -> Committee {
    let shards = spread(n_shards, u16::try_from(seeds.len()).unwrap());
    let members = seeds.iter().zip(shards).map(|(seed, shards)| {
        let bls = SecretKey::from_seed(&[*seed; 32]);
        let peer = key(*seed).peer();
        Member {
            name: format!("node-{seed}"),
            peer,
            public_key: bls.public_key(),
            proof_of_possession: bls.prove_possession(&peer),
            addresses: Vec::new(),
            shards,
        }
    });
    Committee::new(Epoch(epoch), n_shards, members.collect()).unwrap()
}

/// The precommit of the node with this seed.
pub fn precommit(committee: &Committee, seed: u8, block: &Block) -> (NodeIndex, Signature) {
    let node = committee.index_of(&key(seed).peer()).unwrap();
    let bytes = vote_bytes(&NETWORK, block.header().height, 0, VoteKind::Precommit, Some(block.id()));
    (node, key(seed).sign(&bytes))
}

/// A certificate by the nodes with these seeds.
pub fn certificate(committee: &Committee, seeds: &[u8], block: &Block) -> CommitCertificate {
    let signatures = seeds.iter().map(|seed| precommit(committee, *seed, block));
    CommitCertificate::new(block.header().height, 0, block.id(), signatures).unwrap()
}

/// A chain in the making.
pub struct Chain {
    pub tip: Tip,
    pub seeds: Vec<u8>,
    pub last_commit: Option<CommitCertificate>,
}

impl Chain {
    pub fn new(n_shards: u16, seeds: &[u8]) -> Self {
        let committee = Arc::new(committee(0, n_shards, seeds));
        Self { tip: Tip::genesis(NETWORK, committee), seeds: seeds.to_vec(), last_commit: None }
    }

    /// The draft of the next block.
    pub fn draft(&self, transactions: &[&[u8]], next: Option<&Committee>) -> Draft {
        Draft {
            tip: self.tip.clone(),
            time_ms: 1_000 * (self.tip.height + 1),
            last_commit: self.last_commit.clone(),
            transactions: transactions.iter().map(|it| it.to_vec()).collect(),
            state_root: Hash([u8::try_from(self.tip.height).unwrap(); 32]),
            next_committee: next.map(committee_hash),
        }
    }

    /// Decides on the next block, with everybody's signature; `next` are the epoch and seeds of the next committee.
    pub fn decide(
        &mut self,
        transactions: &[&[u8]],
        next: Option<(u32, &[u8])>,
    ) -> (Block, CommitCertificate, Option<Committee>) {
        let n_shards = self.tip.committee().n_shards();
        let next_committee = next.map(|(epoch, seeds)| committee(epoch, n_shards, seeds));
        let block = Block::build(self.draft(transactions, next_committee.as_ref())).unwrap();
        self.tip.check(&block).unwrap();
        let certificate = certificate(self.tip.committee(), &self.seeds, &block);
        self.tip = self.tip.advanced(block.header(), next_committee.clone().map(Arc::new));
        if let Some((_, seeds)) = next {
            self.seeds = seeds.to_vec();
        }
        self.last_commit = Some(certificate.clone());
        (block, certificate, next_committee)
    }
}
