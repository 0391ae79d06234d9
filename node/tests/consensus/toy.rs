//! A ledger of opaque transactions: each is executed once, and the root is that of a tree in which all of them are, and a hash
//! over all of them in order.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, LazyLock, Mutex},
};

use node::ledger::consensus::{Application, BlockStore, InvalidPayload, Payload, PrepareError};
use protocol::{
    Epoch, PeerId, bls, codec,
    committee::{Committee, Member, spread},
    hash::{Domain, Hash},
    ledger::{
        block::{Block, Decided, committee_hash, transaction_id},
        signature::SigningKey,
        transaction::Place,
        tree::{Page, Tree},
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

/// Blocks from one state of which pages are handed out to the next.
pub const PIN_BLOCKS: u64 = 4;
/// Bytes of a value of the tree: so many that a state of some dozen transactions takes several pages.
const VALUE_BYTES: usize = 200;
/// Bytes at which a page ends.
const PAGE_BYTES: usize = 2_000;
/// The key of what is not a transaction.
const HEAD: &[u8] = b"head";

/// What the transactions lead to.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub height: u64,
    /// Hash over all transactions in order.
    pub all: Hash,
    pub root: Hash,
    pub done: BTreeSet<Hash>,
    /// All of it but `height` and `last_epoch`, which the block says.
    pub tree: Tree,
    /// Epoch of the committee that signs the next height, and of the one that signed the last.
    pub epoch: usize,
    pub last_epoch: usize,
    /// Block time from which a block is due, once.
    pub due_ms: Option<u64>,
}

impl State {
    /// The state after a block with these transactions.
    fn after(&self, transactions: &[Vec<u8>], (height, time_ms): (u64, u64), epoch: usize) -> Self {
        let mut next = self.clone();
        let ids: Vec<Hash> = transactions.iter().map(|it| transaction_id(it)).collect();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
        next.all = ROOT.hash_parts(&[self.all.as_bytes(), &time_ms.to_le_bytes(), &bytes]);
        for id in &ids {
            next.tree.insert(&id.0, &[7; VALUE_BYTES]);
        }
        next.done.extend(ids);
        (next.height, next.last_epoch, next.epoch) = (height, self.epoch, epoch);
        next.due_ms = self.due_ms.filter(|due| time_ms < *due);
        let epoch = u64::try_from(epoch).unwrap();
        next.tree.insert(HEAD, &codec::encode(&(next.all, epoch, next.due_ms)));
        next.root = next.tree.root();
        next
    }

    /// The state that a tree holds.
    fn open(height: u64, last_epoch: usize, tree: Tree) -> Self {
        let (all, epoch, due_ms) =
            codec::decode_exact::<(Hash, u64, Option<u64>), 100>(tree.get(HEAD).unwrap()).unwrap();
        let ids = tree.entries().filter(|(key, _)| *key != HEAD);
        let done = ids.map(|(key, _)| Hash(key.try_into().unwrap())).collect();
        let epoch = usize::try_from(epoch).unwrap();
        Self { height, all, root: tree.root(), done, tree, epoch, last_epoch, due_ms }
    }
}

/// The states on a disk: the newest of which the block is there counts.
pub type Disk = Arc<Mutex<VecDeque<State>>>;

/// The state as it is in memory, and as it would be after a restart.
#[derive(Debug)]
pub struct Toy {
    pub state: State,
    /// Blocks looked at so far.
    pub n_checks: u64,
    durable: Disk,
    pinned: BTreeMap<u64, State>,
    prepared: Option<State>,
    committees: &'static [Arc<Committee>],
}

impl Toy {
    /// What a node starts from; `genesis` if there is nothing on its disk.
    pub fn open(durable: &Disk, genesis: &State, blocks: &dyn BlockStore, n: usize) -> Self {
        let first = blocks.first().unwrap();
        let has_block = |state: &&State| blocks.read(state.height).unwrap().is_some();
        let state = durable.lock().unwrap().iter().rev().find(has_block).cloned();
        let state = state.unwrap_or_else(|| genesis.clone());
        assert!(state.height > 0 || first <= 1, "neither a state nor the blocks to make one");
        let mut toy = Self {
            state,
            n_checks: 0,
            durable: Arc::clone(durable),
            pinned: BTreeMap::new(),
            prepared: None,
            committees: committees_of(n),
        };
        toy.pin();
        toy
    }

    fn pin(&mut self) {
        if self.state.height > 0 {
            self.pinned.insert(self.state.height, self.state.clone());
        }
        while self.pinned.len() > 2 {
            self.pinned.pop_first();
        }
    }

    /// The first page of the oldest state of which there are pages: to one who fetches another, a lie.
    pub fn page_of_oldest(&self) -> Option<Page> {
        self.pinned.first_key_value()?.1.tree.page(None, PAGE_BYTES)
    }

    fn write(&self, state: State) {
        let mut durable = self.durable.lock().unwrap();
        durable.retain(|other| other.height < state.height);
        durable.push_back(state);
        while durable.len() > 2 {
            durable.pop_front();
        }
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

    fn executed(&self, transactions: &[Vec<u8>], time_ms: u64) -> (State, Option<Hash>) {
        let epoch = self.next_epoch(transactions);
        let next = self.state.after(transactions, (self.state.height + 1, time_ms), epoch);
        let changed = epoch != self.state.epoch;
        (next, changed.then(|| committee_hash(&self.committees[epoch])))
    }

    fn is_new(&self, transaction: &[u8]) -> bool {
        !transaction.starts_with(BAD) && !self.state.done.contains(&transaction_id(transaction))
    }

    /// A payload that an honest node would accept.
    pub fn payload(&self, transactions: Vec<Vec<u8>>, time_ms: u64) -> Payload {
        let (state, next_committee) = self.executed(&transactions, time_ms);
        Payload { transactions, state_root: state.root, next_committee }
    }
}

impl Application for Toy {
    fn height(&self) -> u64 {
        self.state.height
    }

    fn is_sound(&self, transaction: &[u8]) -> bool {
        !transaction.starts_with(BAD)
    }

    fn place(&self, _: &[u8]) -> Option<Place> {
        None
    }

    fn admits(&self, transaction: &[u8], _: &[&[u8]]) -> bool {
        self.is_new(transaction)
    }

    fn turn(&self, transaction: &[u8], _: Option<&Place>) -> Option<u64> {
        self.is_new(transaction).then_some(0)
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
        let (state, next) = self.executed(block.transactions(), header.time_ms);
        if state.root != header.state_root || next != header.next_committee {
            return refuse("roots differ");
        }
        Ok(())
    }

    fn commit(&mut self, decided: &Decided) -> Option<Committee> {
        let (block, header) = (&decided.block, decided.block.header());
        assert_eq!(header.height, self.state.height + 1, "blocks are committed in order");
        let (state, next) = self.executed(block.transactions(), header.time_ms);
        assert_eq!(state.root, header.state_root, "what is committed was checked");
        self.state = state;
        // The state reaches the disk only now and then; what is missing is executed again from the blocks.
        if self.state.height.is_multiple_of(3) {
            self.write(self.state.clone());
        }
        if self.state.height.is_multiple_of(PIN_BLOCKS) {
            self.pin();
        }
        next.map(|_| Committee::clone(&self.committees[self.state.epoch]))
    }

    fn pinned(&self) -> Option<u64> {
        self.pinned.last_key_value().map(|(height, _)| *height)
    }

    fn page(&self, height: u64, after: Option<&[u8]>) -> Option<Page> {
        self.pinned.get(&height)?.tree.page(after, PAGE_BYTES)
    }

    fn needs_from(&self) -> u64 {
        let durable = self.durable.lock().unwrap();
        let oldest = durable.front().filter(|_| durable.len() > 1).map(|state| state.height);
        let pinned = self.pinned.first_key_value().map(|(height, _)| *height);
        oldest.unwrap_or_default().min(pinned.unwrap_or_default())
    }

    fn prepare(&mut self, decided: &Decided, tree: Tree) -> Result<(), PrepareError> {
        let header = decided.block.header();
        assert_eq!(tree.root(), header.state_root);
        let state = State::open(header.height, usize::try_from(header.epoch.0).unwrap(), tree);
        self.write(state.clone());
        self.prepared = Some(state);
        Ok(())
    }

    fn adopt(&mut self, decided: &Decided) {
        self.state = self.prepared.take().expect("prepared before");
        assert_eq!(self.state.height, decided.block.header().height);
        self.pinned.clear();
        self.pin();
    }
}

/// Index of the node with this identity.
pub fn node_of(peer: &PeerId) -> usize {
    (0..10).find(|node| key(*node).peer() == *peer).expect("a node of the network")
}
