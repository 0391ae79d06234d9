//! A real state that one node has and another takes, on disks that die.

use std::{sync::Arc, time::Duration};

use protocol::{
    PeerId,
    bls::SecretKey,
    committee::{Member, spread},
    genesis::{Endowment, Genesis, GenesisAccount},
    ids::AccountId,
    ledger::{
        signature::SigningKey,
        transaction::{Action, Transaction},
        wire::{Message, Request, Response},
    },
};
use storage::disk::SimulatedDisk;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Config,
    actor::{StartError, load},
    consensus::{self, Now, Output, RequestId},
    core::{Core, Step, Stopped},
    mailbox::Input,
    tests::ledger_parts,
};

/// So many that the state has several pages.
const N_ACCOUNTS: u16 = 2_000;

fn key(byte: u8) -> SigningKey {
    SigningKey::from_secret(&[byte; 32])
}

/// The only member of the network, and whoever spends.
fn member() -> SigningKey {
    key(1)
}

fn account(n: u16) -> AccountId {
    let [high, low] = n.to_be_bytes();
    let mut bytes = [9; 32];
    (bytes[0], bytes[1]) = (high, low);
    AccountId(bytes)
}

fn genesis() -> Arc<Genesis> {
    let bls = SecretKey::from_seed(&[1; 32]);
    let it = Member {
        name: "node".to_owned(),
        peer: member().peer(),
        public_key: bls.public_key(),
        proof_of_possession: bls.prove_possession(&member().peer()),
        addresses: Vec::new(),
        shards: spread(4, 1).remove(0),
    };
    let genesis = Genesis::new("test".to_owned(), 4, vec![it]).unwrap();
    let others = (0..N_ACCOUNTS).map(|n| GenesisAccount { account: account(n), balance: 5 });
    let spender = GenesisAccount { account: member().account(), balance: 1_000 };
    let accounts = others.chain([spender]).collect();
    Arc::new(genesis.with_endowment(Endowment { accounts, ..Endowment::default() }).unwrap())
}

struct Node {
    core: Core,
    disk: SimulatedDisk,
    me: PeerId,
    now: Duration,
}

impl Node {
    fn open(key: &SigningKey, disk: SimulatedDisk, snapshot_lag_min: u64) -> Result<Self, StartError> {
        let consensus =
            consensus::Config { snapshot_lag_min, blocks_kept: 3, ..consensus::Config::default() };
        let config = Config { consensus, snapshot_blocks: 4, ..Config::default() };
        let parts = ledger_parts(key, &disk, Instant::now());
        let now = Duration::from_secs(1);
        let (core, _) = load(&config, parts, &genesis(), clock(now))?;
        Ok(Self { core, disk, me: key.peer(), now })
    }

    fn height(&self) -> u64 {
        self.core.replica().height()
    }

    fn step(&mut self, inputs: Vec<Input>) -> Result<Step, Stopped> {
        self.core.step(clock(self.now), inputs)
    }

    /// Has a block made.
    fn grow(&mut self) {
        let (nonce, height) = (self.height(), self.height());
        let action = Action::Transfer { to: account(7), amount: 1 };
        let transaction = Transaction { sender: member().account(), nonce, action };
        let transaction = transaction.sign(&genesis().network_id(), &member()).to_bytes();
        let (reply, _answer) = oneshot::channel();
        let mut step = self.step(vec![Input::Submit { transaction, reply }]).unwrap();
        while self.height() == height {
            self.now = step.deadline.unwrap().max(self.now);
            step = self.step(Vec::new()).unwrap();
        }
    }

    fn answer(&mut self, from: PeerId, request: Request) -> Response {
        let (reply, mut answer) = oneshot::channel();
        self.step(vec![Input::Request { from, request, reply }]).unwrap();
        answer.try_recv().unwrap()
    }
}

fn clock(uptime: Duration) -> Now {
    Now { uptime, unix_ms: 1_700_000_000_000 + u64::try_from(uptime.as_millis()).unwrap() }
}

/// Lets one node take from another what it lacks. Returns how many requests that took; none, if it stopped.
fn follow(node: &mut Node, server: &mut Node) -> Option<Vec<Request>> {
    let claim = Message::Status { height: server.height() };
    let mut inputs = vec![Input::Message { from: server.me, message: claim }];
    let mut asked = Vec::new();
    while !inputs.is_empty() {
        let mut step = node.step(std::mem::take(&mut inputs)).ok()?;
        // The next request is not made at once.
        while step.outputs.is_empty() && node.height() < server.height() {
            node.now = step.deadline.expect("there is more to be asked for").max(node.now);
            step = node.step(Vec::new()).ok()?;
        }
        for output in step.outputs {
            match output {
                Output::Request { id: RequestId(id), peer, request } => {
                    assert_eq!(peer, server.me);
                    asked.push(request.clone());
                    // Its clock is its own, and those who come again after a crash come later.
                    server.now += Duration::from_millis(50);
                    let response = Some(server.answer(node.me, request));
                    inputs.push(Input::Response { from: peer, id: RequestId(id), response });
                }
                Output::Misbehaved { offence, .. } => panic!("{offence}"),
                _ => {}
            }
        }
    }
    Some(asked)
}

#[test]
fn who_asks_too_often_is_told_so_and_others_are_answered() {
    let mut server = server(5);
    let mut ask = |from: PeerId, request: Request| {
        let (reply, mut answer) = oneshot::channel();
        server.step(vec![Input::Request { from, request, reply }]).unwrap();
        answer.try_recv().is_ok()
    };
    let (greedy, other) = (key(2).peer(), key(3).peer());
    let n_answered = (0..1_000).filter(|_| ask(greedy, Request::Page { height: 4, after: None })).count();
    assert!((100..200).contains(&n_answered), "{n_answered}");
    for request in [
        Request::Blocks { from: 5, n_max: 1 },
        Request::Link { after: 0 },
        Request::Committee { height: 1, offset: 0 },
    ] {
        assert!(!ask(greedy, request.clone()));
        assert!(ask(other, request));
    }
    assert!(ask(greedy, Request::Status { height: 0 }), "which costs nothing");
}

fn server(n_blocks: u64) -> Node {
    let mut server = Node::open(&member(), SimulatedDisk::new(1), 4).unwrap();
    for _ in 0..n_blocks {
        server.grow();
    }
    server
}

fn assert_same(node: &Node, server: &Node) {
    assert_eq!(node.height(), server.height());
    assert_eq!(node.core.replica().app().state().root(), server.core.replica().app().state().root());
}

#[test]
fn a_state_of_several_pages_is_taken_and_blocks_follow() {
    let mut server = server(18);
    assert!(
        matches!(server.answer(key(2).peer(), Request::Blocks { from: 1, n_max: 1 }), Response::Blocks(it) if it.is_empty())
    );
    let mut node = Node::open(&key(2), SimulatedDisk::new(2), 4).unwrap();
    let asked = follow(&mut node, &mut server).unwrap();
    let n_pages = asked.iter().filter(|it| matches!(it, Request::Page { .. })).count();
    assert!(n_pages > 2, "{asked:?}");
    assert_same(&node, &server);
    server.grow();
    assert_eq!(follow(&mut node, &mut server).unwrap().len(), 1, "the next is a block");
    // What it took it can give.
    let mut other = Node::open(&key(3), SimulatedDisk::new(3), 4).unwrap();
    follow(&mut other, &mut node).unwrap();
    assert_same(&other, &server);
    // And it starts from what it took.
    let node = Node::open(&key(2), node.disk.crash(), 4).unwrap();
    assert_same(&node, &server);
}

/// Cuts the power at each operation of taking a state, from what a disk holds.
fn crash_everywhere(old: &SimulatedDisk, server: &mut Node, height_before: u64) {
    for n in 0.. {
        for seed in 0..3 {
            let disk = if height_before == 0 { SimulatedDisk::new(seed) } else { old.fork() };
            let mut node = Node::open(&key(2), disk, 4).unwrap();
            assert_eq!(node.height(), height_before);
            node.disk.fail_after(n);
            let ended = follow(&mut node, server);
            let is_dead = node.disk.is_dead();
            assert!(is_dead || ended.is_some());
            let disk = node.disk.crash();
            drop(node);
            let mut node = Node::open(&key(2), disk, 4)
                .unwrap_or_else(|error| panic!("seed {seed}, operation {n}: {error:?}"));
            assert!(node.height() >= height_before);
            follow(&mut node, server).unwrap();
            assert_same(&node, server);
            let disk = node.disk.crash();
            assert_same(&Node::open(&key(2), disk, 4).unwrap(), server);
            if !is_dead && seed == 2 {
                assert!(n > 5, "only {n} operations");
                return;
            }
        }
    }
}

#[test]
fn whatever_dies_while_a_state_is_taken_an_empty_disk_starts() {
    let mut server = server(13);
    crash_everywhere(&SimulatedDisk::new(0), &mut server, 0);
}

#[test]
fn whatever_dies_while_a_state_is_taken_an_old_state_starts() {
    let mut server = server(5);
    let mut node = Node::open(&key(2), SimulatedDisk::new(2), 100).unwrap();
    follow(&mut node, &mut server).unwrap();
    assert_same(&node, &server);
    let old = node.disk.crash();
    for _ in 0..16 {
        server.grow();
    }
    crash_everywhere(&old, &mut server, 5);
}

#[test]
fn a_fallen_behind_node_whose_snapshots_rot_says_so() {
    use storage::disk::Disk as _;
    let mut server = server(13);
    let mut node = Node::open(&key(2), SimulatedDisk::new(2), 4).unwrap();
    follow(&mut node, &mut server).unwrap();
    let disk = node.disk.crash();
    for name in disk.list().unwrap().iter().filter(|name| name.ends_with(".snapshot")) {
        assert!(disk.flip(name, 30, 1));
    }
    let error = Node::open(&key(2), disk, 4).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("no snapshot of the ledger can be read"), "{error}");
}
