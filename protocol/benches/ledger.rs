//! What a change of the ledger costs: `cargo bench -p protocol --bench ledger`.
//!
//! Times are CPU-microseconds of the one thread that did the work, beside the time of hashing one branch in the same run:
//! only the ratio between two times of one run survives a noisy machine.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and panics where a program would report"
)]

use std::{hint::black_box, time::Duration};

use protocol::{
    AccountId, NetworkId, PeerId, bls,
    committee::{Member, spread},
    genesis::{Endowment, Genesis, GenesisAccount},
    hash::LEDGER_NODE,
    ledger::{
        signature::SigningKey,
        state::State,
        transaction::{Action, SignedTransaction, Transaction, VerifiedTransaction},
        tree::{PAGE_BYTES_AIM, Restore, Tree},
    },
};
use rand::{RngCore, SeedableRng as _};
use rustix::time::{ClockId, clock_gettime};

const ENTRIES: u32 = 200_000;
const BLOCK: u32 = 1_000;
const ACCOUNTS: u32 = 1_000;

/// CPU time of this thread.
fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

struct Bench {
    /// Microseconds of hashing one branch.
    hash: f64,
}

impl Bench {
    fn new() -> Self {
        let start = cpu();
        for _ in 0..100_000 {
            black_box(LEDGER_NODE.hash(black_box(&[7; 66])));
        }
        Self { hash: (cpu() - start).as_secs_f64() * 10.0 }
    }

    fn report(&self, what: &str, n: u32, took: Duration) {
        let each = took.as_secs_f64() * 1e6 / f64::from(n);
        println!("{what:<44} {each:9.3} us {:8.1} hashes", each / self.hash);
    }
}

fn random_key(rng: &mut impl RngCore) -> [u8; 33] {
    let mut key = [2; 33];
    rng.fill_bytes(&mut key[1..]);
    key
}

fn tree(bench: &Bench) {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let keys: Vec<_> = (0..ENTRIES).map(|_| random_key(&mut rng)).collect();
    let mut tree = Tree::default();
    let start = cpu();
    for key in &keys {
        tree.insert(key, &[1; 16]);
    }
    bench.report("insert into an empty tree, no root", ENTRIES, cpu() - start);
    let start = cpu();
    let root = tree.root();
    bench.report("root of all of them, an entry", ENTRIES, cpu() - start);
    let before = tree.clone();
    let start = cpu();
    for key in &keys[..usize::try_from(BLOCK).unwrap()] {
        tree.insert(key, &[2; 16]);
    }
    black_box(tree.root());
    bench.report("change 1000 of them and root, an entry", BLOCK, cpu() - start);
    let start = cpu();
    for key in &keys[..usize::try_from(BLOCK).unwrap()] {
        tree.insert(key, &[3; 16]);
        black_box(tree.root());
    }
    bench.report("change one and root", BLOCK, cpu() - start);
    let start = cpu();
    for key in &keys[..usize::try_from(BLOCK).unwrap()] {
        black_box(tree.prove(key));
    }
    bench.report("prove", BLOCK, cpu() - start);
    let start = cpu();
    let mut restore = Restore::new(root);
    while !restore.is_complete() {
        restore.accept(before.page(restore.last_key(), PAGE_BYTES_AIM).unwrap()).unwrap();
    }
    black_box(restore.finish().unwrap());
    bench.report("cut, check and rebuild a snapshot, an entry", ENTRIES, cpu() - start);
}

fn account(index: u32) -> SigningKey {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&index.to_le_bytes());
    SigningKey::from_secret(&seed)
}

fn genesis() -> Genesis {
    let members = (0..4_u8).zip(spread(4, 4)).map(|(index, shards)| {
        let (peer, key) =
            (PeerId(account(5_000 + u32::from(index)).account().0), bls::SecretKey::from_seed(&[index; 32]));
        Member {
            name: format!("node-{index}"),
            peer,
            public_key: key.public_key(),
            proof_of_possession: key.prove_possession(&peer),
            addresses: Vec::new(),
            shards,
        }
    });
    let genesis = Genesis::new("bench".to_owned(), 4, members.collect()).unwrap();
    let accounts =
        (0..ACCOUNTS).map(|index| GenesisAccount { account: account(index).account(), balance: 1_000_000 });
    genesis.with_endowment(Endowment { accounts: accounts.collect(), ..Endowment::default() }).unwrap()
}

fn transfer(network: &NetworkId, index: u32, to: AccountId) -> SignedTransaction {
    let key = account(index);
    let action = Action::Transfer { to, amount: 1 };
    Transaction { sender: key.account(), nonce: 0, action }.sign(network, &key)
}

fn transfers(bench: &Bench) {
    let genesis = genesis();
    let network = genesis.network_id();
    let mut state = State::genesis(&genesis).unwrap();
    black_box(state.root());
    let signed: Vec<SignedTransaction> = (0..ACCOUNTS)
        .map(|index| transfer(&network, index, account((index + 7) % ACCOUNTS).account()))
        .collect();
    let start = cpu();
    let verified: Vec<VerifiedTransaction> =
        signed.into_iter().map(|signed| signed.verify(&network).unwrap()).collect();
    bench.report("verify a transfer", ACCOUNTS, cpu() - start);
    let start = cpu();
    state.begin_block(1, 1).unwrap();
    for transaction in &verified {
        state.apply(transaction).unwrap();
    }
    bench.report("apply a transfer", ACCOUNTS, cpu() - start);
    let start = cpu();
    black_box(state.end_block());
    bench.report("root of a block of 1000, a transfer", ACCOUNTS, cpu() - start);
}

fn main() {
    let bench = Bench::new();
    println!("{:<44} {:9.3} us", "hash a branch", bench.hash);
    tree(&bench);
    transfers(&bench);
}
