//! A ledger of opaque transactions: each is executed once, and the root is a hash over all of them in order.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock, Mutex},
};

use node::ledger::consensus::{Application, InvalidPayload, Payload};
use protocol::{
    Epoch, PeerId, bls,
    committee::{Committee, Member, spread},
    hash::{Domain, Hash},
    ledger::{
        block::{Block, Decided, committee_hash, transaction_id},
        signature::SigningKey,
    },
};

/// The transaction that puts the next committee in place, followed by its epoch.
pub const NEXT_EPOCH: &[u8] = b"next epoch ";
/// Begins transactions that the ledger never accepts.
pub const BAD: &[u8] = b"bad ";

static ROOT: LazyLock<Domain> = LazyLock::new(|| Domain::new("toy"));

/// The key of a node.
pub fn key(node: usize) -> SigningKey {
    SigningKey::from_secret(&[u8::try_from(node + 1).unwrap(); 32])
}

fn committee(epoch: usize, n_shards: u16, nodes: &[usize]) -> Arc<Committee> {
    let shards = spread(n_shards, u16::try_from(nodes.len()).unwrap());
    let members = nodes.iter().zip(shards).map(|(node, shards)| {
        let peer = key(*node).peer();
        let secret = bls::SecretKey::from_seed(&[u8::try_from(node + 1).unwrap(); 32]);
        Member {
            name: format!("node-{node}"),
            peer,
            public_key: secret.public_key(),
            proof_of_possession: secret.prove_possession(&peer),
            addresses: Vec::new(),
            shards,
        }
    });
    let epoch = Epoch(u32::try_from(epoch).unwrap());
    Arc::new(Committee::new(epoch, n_shards, members.collect()).unwrap())
}

/// The committees of a network of `n` members and one node that is none at first: then the first member leaves for it, and
/// at last all are members.
fn committees(n: usize, n_shards: u16) -> Vec<Arc<Committee>> {
    let (first, second, third): (Vec<_>, Vec<_>, Vec<_>) =
        ((0..n).collect(), (1..=n).collect(), (0..=n).collect());
    [first, second, third]
        .iter()
        .enumerate()
        .map(|(epoch, nodes)| committee(epoch, n_shards, nodes))
        .collect()
}

static OF_ONE: LazyLock<Vec<Arc<Committee>>> = LazyLock::new(|| committees(1, 4));
static OF_FOUR: LazyLock<Vec<Arc<Committee>>> = LazyLock::new(|| committees(4, 10));
static OF_SEVEN: LazyLock<Vec<Arc<Committee>>> = LazyLock::new(|| committees(7, 21));

/// The committees of a network of 1, 4 or 7 members, by epoch.
pub fn committees_of(n: usize) -> &'static [Arc<Committee>] {
    match n {
        1 => &OF_ONE,
        4 => &OF_FOUR,
        7 => &OF_SEVEN,
        _ => panic!("networks have 1, 4 or 7 members"),
    }
}

/// What the transactions lead to.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub height: u64,
    pub root: Hash,
    pub done: BTreeSet<Hash>,
    /// Epoch of the committee that signs the next height, and of the one that signed the last.
    pub epoch: usize,
    pub last_epoch: usize,
    /// Block time from which a block is due, once.
    pub due_ms: Option<u64>,
}

/// The state as it is in memory, and as it would be after a restart.
#[derive(Debug)]
pub struct Toy {
    pub state: State,
    /// Blocks looked at so far.
    pub n_checks: u64,
    durable: Arc<Mutex<State>>,
    committees: &'static [Arc<Committee>],
}

impl Toy {
    /// What a node starts from.
    pub fn open(durable: &Arc<Mutex<State>>, n: usize) -> Self {
        let state = durable.lock().unwrap().clone();
        Self { state, n_checks: 0, durable: Arc::clone(durable), committees: committees_of(n) }
    }

    /// The committees that signed the last height and that signs the next.
    pub fn committees(&self) -> (Arc<Committee>, Arc<Committee>) {
        let of = |epoch: usize| Arc::clone(&self.committees[epoch]);
        (of(self.state.last_epoch), of(self.state.epoch))
    }

    fn next_epoch(&self, transactions: &[Vec<u8>]) -> usize {
        let n = transactions.iter().filter(|it| it.starts_with(NEXT_EPOCH)).count();
        (self.state.epoch + n.min(1)).min(self.committees.len() - 1)
    }

    fn executed(&self, transactions: &[Vec<u8>], time_ms: u64) -> (Hash, Option<Hash>) {
        let ids: Vec<u8> = transactions.iter().flat_map(|it| transaction_id(it).0).collect();
        let root = ROOT.hash_parts(&[self.state.root.as_bytes(), &time_ms.to_le_bytes(), &ids]);
        let next = self.next_epoch(transactions);
        let changed = next != self.state.epoch;
        (root, changed.then(|| committee_hash(&self.committees[next])))
    }

    fn is_new(&self, transaction: &[u8]) -> bool {
        !transaction.starts_with(BAD) && !self.state.done.contains(&transaction_id(transaction))
    }

    /// A payload that an honest node would accept.
    pub fn payload(&self, transactions: Vec<Vec<u8>>, time_ms: u64) -> Payload {
        let (state_root, next_committee) = self.executed(&transactions, time_ms);
        Payload { transactions, state_root, next_committee }
    }
}

impl Application for Toy {
    fn height(&self) -> u64 {
        self.state.height
    }

    fn admits(&self, transaction: &[u8]) -> bool {
        self.is_new(transaction)
    }

    fn due_ms(&self) -> Option<u64> {
        self.state.due_ms
    }

    fn propose(&mut self, _: u64, time_ms: u64, candidates: &[&[u8]]) -> Payload {
        let new = candidates.iter().filter(|it| self.is_new(it)).take(50).map(|it| it.to_vec());
        self.payload(new.collect(), time_ms)
    }

    fn check(&mut self, block: &Block) -> Result<(), InvalidPayload> {
        self.n_checks += 1;
        let refuse = |reason: &str| Err(InvalidPayload { reason: reason.to_owned() });
        let ids: BTreeSet<Hash> = block.transactions().iter().map(|it| transaction_id(it)).collect();
        if ids.len() != block.transactions().len() {
            return refuse("a transaction twice");
        }
        if !block.transactions().iter().all(|it| self.is_new(it)) {
            return refuse("a transaction that is not accepted");
        }
        let header = block.header();
        let (root, next) = self.executed(block.transactions(), header.time_ms);
        if root != header.state_root || next != header.next_committee {
            return refuse("roots differ");
        }
        Ok(())
    }

    fn commit(&mut self, decided: &Decided) -> Option<Committee> {
        let (block, header) = (&decided.block, decided.block.header());
        assert_eq!(header.height, self.state.height + 1, "blocks are committed in order");
        let (root, _) = self.executed(block.transactions(), header.time_ms);
        assert_eq!(root, header.state_root, "what is committed was checked");
        let next = self.next_epoch(block.transactions());
        let changed = next != self.state.epoch;
        self.state.height += 1;
        self.state.root = root;
        self.state.last_epoch = self.state.epoch;
        self.state.epoch = next;
        self.state.done.extend(block.transactions().iter().map(|it| transaction_id(it)));
        self.state.due_ms = self.state.due_ms.filter(|due| header.time_ms < *due);
        // The state reaches the disk only now and then; what is missing is executed again from the blocks.
        if self.state.height.is_multiple_of(3) {
            *self.durable.lock().unwrap() = self.state.clone();
        }
        changed.then(|| Committee::clone(&self.committees[next]))
    }
}

/// Index of the node with this identity.
pub fn node_of(peer: &PeerId) -> usize {
    (0..10).find(|node| key(*node).peer() == *peer).expect("a node of the network")
}
