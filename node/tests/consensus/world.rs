//! A network of replicas in virtual time: everything that happens comes from one seed.
//!
//! What must hold is checked at every step:
//! - no two different blocks are committed at one height, and states are equal at equal heights;
//! - no honest node signs two different votes or proposals for one height, round and kind, whatever it forgot;
//! - a node that starts again still has every block that it committed and every vote that it sent;
//! - nobody but a liar is blamed or convicted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use node::ledger::consensus::{
    BlockStore as _, Config, Fatal, FileWal, Now, Output, Parts, Replica, RequestId, StoredBlocks, Wal,
    WalError,
};
use protocol::{
    BlockId, NetworkId, PeerId,
    hash::Hash,
    ledger::{
        block::{Decided, transaction_id},
        signature::SigningKey,
        vote::VoteKind,
        wire::{Message, Request, Response},
    },
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use storage::{Store, disk::SimulatedDisk, index::MemoryIndex};

use super::{
    byzantine::{Liar, Lie, is_one_of},
    toy::{Disk, State, Toy, committees_of, key, node_of},
};

pub const NETWORK: NetworkId = NetworkId([5; 32]);
/// Unix time at the start.
const START_MS: u64 = 1_700_000_000_000;

/// What can be wrong with the network.
#[derive(Clone, Debug)]
pub struct Weather {
    pub latency_ms: (u64, u64),
    pub loss: f64,
    pub duplication: f64,
    /// Loss of proposals, beside that of everything.
    pub proposal_loss: f64,
    /// The side of a partition that each node is on.
    pub side: Vec<u8>,
}

#[derive(Debug)]
enum Event {
    Deliver { to: usize, from: usize, message: Message },
    Ask { to: usize, from: usize, id: RequestId, request: Request },
    Answer { to: usize, from: usize, id: RequestId, response: Option<Response> },
    Tick { node: usize },
    Restart { node: usize },
}

struct Node {
    key: SigningKey,
    replica: Option<Replica<Toy>>,
    wal: SimulatedDisk,
    blocks: SimulatedDisk,
    state: Disk,
    /// How far its clock is ahead.
    skew_ms: i64,
    /// Blocks that it said it committed.
    committed: u64,
    ticks_at: Option<Duration>,
}

/// A log of votes that remembers nothing: a fault to be noticed.
struct Forgetful;

impl Wal for Forgetful {
    fn open(&mut self, _: u64) -> Result<Vec<Vec<u8>>, WalError> {
        Ok(Vec::new())
    }

    fn reset(&mut self, _: u64) -> Result<(), WalError> {
        Ok(())
    }

    fn append(&mut self, _: &[u8]) -> Result<(), WalError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WalError> {
        Ok(())
    }
}

pub struct World {
    pub seed: u64,
    pub n: usize,
    pub rng: ChaCha8Rng,
    pub now: Duration,
    pub weather: Weather,
    pub liars: Vec<(usize, Lie)>,
    /// Messages sent so far.
    pub n_messages: u64,
    pub evidence: BTreeSet<PeerId>,
    pub blamed: BTreeSet<PeerId>,
    /// The kinds of things that peers were blamed for.
    pub offences: BTreeSet<String>,
    pub n_crashes: u64,
    /// Snapshots taken by honest nodes.
    pub n_installed: u64,
    /// Pages of states that were answered.
    pub n_pages: u64,
    /// Requests that were too many.
    pub n_busy: u64,
    /// Nodes that found blocks to be far ahead of their clocks.
    pub behind: BTreeSet<usize>,
    pub rounds_max: u32,
    /// A log of votes is damaged on purpose.
    pub may_be_muted: bool,
    /// Logs of votes remember nothing.
    pub wal_forgets: bool,
    /// The disks of the votes' logs, or those of the blocks, claim to have synced and have not.
    pub wal_lies: bool,
    pub blocks_lie: bool,
    /// A node that ends right after this many of its votes and proposals have left; true cuts its power.
    pub ends_after: Option<(usize, u64, bool)>,
    /// Votes and proposals of its own that each node has sent, repetitions included.
    pub n_sent: Vec<u64>,
    config: Config,
    genesis: State,
    nodes: Vec<Node>,
    queue: BTreeMap<(Duration, u64), Event>,
    n_events: u64,
    /// Requests under way, by a number of the network's own.
    asked: BTreeMap<u64, (usize, RequestId)>,
    /// The block and the state root of each height.
    chain: BTreeMap<u64, (BlockId, Hash)>,
    /// Transactions of the blocks committed.
    pub done: BTreeSet<Vec<u8>>,
    /// What each honest node signed.
    signed: BTreeMap<(usize, u64, u32, u8), Option<BlockId>>,
    trace: blake3::Hasher,
}

fn open_blocks(disk: &SimulatedDisk) -> Result<StoredBlocks, String> {
    let config = storage::Config { log_bytes: 1 << 20, reserve_bytes: 0, ..storage::Config::default() };
    let store = Store::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), config);
    let (store, _) = store.map_err(|error| format!("{error:?}"))?;
    StoredBlocks::new(Arc::new(store)).map_err(|error| format!("{error:?}"))
}

impl World {
    pub fn new(seed: u64, n: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let nodes = (0..=n).map(|node| Node {
            key: key(node),
            replica: None,
            wal: SimulatedDisk::new(rng.random()),
            blocks: SimulatedDisk::new(rng.random()),
            state: Arc::default(),
            skew_ms: rng.random_range(-2_000..2_000),
            committed: 0,
            ticks_at: None,
        });
        let nodes = nodes.collect();
        let weather = Weather {
            latency_ms: (1, 40),
            loss: 0.0,
            duplication: 0.0,
            proposal_loss: 0.0,
            side: vec![0; n + 1],
        };
        let mut world = Self {
            seed,
            n,
            rng,
            now: Duration::from_secs(1),
            weather,
            liars: Vec::new(),
            n_messages: 0,
            evidence: BTreeSet::new(),
            blamed: BTreeSet::new(),
            offences: BTreeSet::new(),
            n_crashes: 0,
            n_installed: 0,
            n_pages: 0,
            n_busy: 0,
            behind: BTreeSet::new(),
            rounds_max: 0,
            may_be_muted: false,
            wal_forgets: false,
            wal_lies: false,
            blocks_lie: false,
            ends_after: None,
            n_sent: vec![0; n + 1],
            config: Config::default(),
            genesis: State::default(),
            nodes,
            queue: BTreeMap::new(),
            n_events: 0,
            asked: BTreeMap::new(),
            chain: BTreeMap::new(),
            done: BTreeSet::new(),
            signed: BTreeMap::new(),
            trace: blake3::Hasher::new(),
        };
        for node in 0..=n {
            world.start(node);
        }
        world
    }

    /// Changes the state that every node starts from, before anything happens.
    pub fn with_due(mut self, due_ms: u64) -> Self {
        self.genesis.due_ms = Some(START_MS + due_ms);
        self.started_again()
    }

    /// Changes how all replicas behave, before anything happens: who is some blocks behind takes a snapshot, and few blocks
    /// are kept.
    pub fn with_snapshots(mut self, snapshot_lag_min: u64, blocks_kept: u64) -> Self {
        self.config = Config { snapshot_lag_min, blocks_kept, ..self.config };
        self.started_again()
    }

    fn started_again(mut self) -> Self {
        for node in 0..=self.n {
            self.nodes[node].replica = None;
            self.start(node);
        }
        self
    }

    /// Sets the clock of a node.
    pub fn skew(&mut self, node: usize, ms: i64) {
        self.nodes[node].skew_ms = ms;
    }

    fn clock(&self, node: usize) -> Now {
        let unix_ms = START_MS + u64::try_from(self.now.as_millis()).unwrap();
        Now { uptime: self.now, unix_ms: unix_ms.saturating_add_signed(self.nodes[node].skew_ms) }
    }

    pub fn is_liar(&self, node: usize) -> bool {
        self.liars.iter().any(|(liar, _)| *liar == node)
    }

    pub fn honest(&self) -> Vec<usize> {
        (0..=self.n).filter(|node| !self.is_liar(*node)).collect()
    }

    pub fn is_up(&self, node: usize) -> bool {
        self.nodes[node].replica.is_some()
    }

    pub fn replica(&self, node: usize) -> &Replica<Toy> {
        self.nodes[node].replica.as_ref().expect("the node is up")
    }

    /// A hash over all that was delivered, and when.
    pub fn trace(&self) -> blake3::Hash {
        self.trace.finalize()
    }

    /// Starts a node. If its disk dies meanwhile, it starts again later.
    pub fn start(&mut self, node: usize) {
        let started = self.try_start(node);
        let it = &mut self.nodes[node];
        it.ticks_at = None;
        match started {
            _ if it.wal.is_dead() || it.blocks.is_dead() => {
                self.crash(node, true);
                let after = Duration::from_millis(self.rng.random_range(1..3_000));
                self.restart_later(node, after);
            }
            Ok(replica) => {
                let height = replica.height();
                assert!(height >= it.committed, "seed {}: node {node} lost blocks it committed", self.seed);
                let muted = replica.is_muted() && !self.may_be_muted;
                assert!(!muted, "seed {}: node {node} lost votes that were durable", self.seed);
                it.replica = Some(replica);
                self.pump(node);
            }
            Err(reason) => panic!("seed {}: node {node} does not start: {reason}", self.seed),
        }
    }

    fn try_start(&self, node: usize) -> Result<Replica<Toy>, String> {
        let it = &self.nodes[node];
        it.wal.set_lying_sync(self.wal_lies);
        it.blocks.set_lying_sync(self.blocks_lie);
        let wal = FileWal::new(&it.wal).map_err(|error| format!("{error:?}"))?;
        let blocks = open_blocks(&it.blocks)?;
        let app = Toy::open(&it.state, &self.genesis, &blocks, self.n);
        let (signed_by, committee) = app.committees();
        let wal: Box<dyn Wal + Send> = if self.wal_forgets { Box::new(Forgetful) } else { Box::new(wal) };
        let blocks = Box::new(blocks);
        let parts = Parts { network: NETWORK, key: it.key.clone(), signed_by, committee, app, wal, blocks };
        Replica::new(self.config, parts, self.clock(node)).map_err(|error| format!("{error:?}"))
    }

    /// Ends a process, with or without the power.
    pub fn crash(&mut self, node: usize, power: bool) {
        let it = &mut self.nodes[node];
        (it.wal, it.blocks) =
            if power { (it.wal.crash(), it.blocks.crash()) } else { (it.wal.kill(), it.blocks.kill()) };
        it.replica = None;
        self.n_crashes += 1;
    }

    /// Cuts the power in the middle of one of the next few writes.
    pub fn crash_while_writing(&mut self, node: usize) {
        let n = self.rng.random_range(0..12);
        let it = &self.nodes[node];
        if self.rng.random() { it.wal.fail_after(n) } else { it.blocks.fail_after(n) }
    }

    /// Cuts the power after so many operations on the disk of a node's blocks.
    pub fn fail_blocks_after(&self, node: usize, n: u64) {
        self.nodes[node].blocks.fail_after(n);
    }

    /// Height of the first block that a node has.
    pub fn first_block(&self, node: usize) -> u64 {
        let blocks = open_blocks(&self.nodes[node].blocks.fork()).expect("blocks can be read");
        blocks.first().expect("blocks can be read")
    }

    /// Changes a byte of a node's log of votes.
    pub fn flip_log(&mut self, node: usize, offset: u64) {
        self.may_be_muted = true;
        assert!(self.nodes[node].wal.flip("votes.wal", offset, 0x10), "the log is longer than that");
    }

    /// A node that is down loses its disks: it starts from the genesis alone.
    pub fn wipe(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.wal = SimulatedDisk::new(self.rng.random());
        it.blocks = SimulatedDisk::new(self.rng.random());
        it.state = Arc::default();
        it.committed = 0;
    }

    pub fn restart_later(&mut self, node: usize, after: Duration) {
        self.schedule(after, Event::Restart { node });
    }

    pub fn connect_all(&mut self) {
        for node in 0..=self.n {
            for other in (0..=self.n).filter(|other| *other != node) {
                let peer = self.nodes[other].key.peer();
                self.call(node, |replica, now| replica.on_connected(now, peer));
            }
        }
    }

    /// Submits a transaction; true if the node keeps it.
    pub fn submit(&mut self, node: usize, transaction: &[u8]) -> bool {
        let mut kept = false;
        self.call(node, |replica, now| {
            kept = replica.submit(now, transaction.to_vec()).is_ok();
            Ok(())
        });
        kept
    }

    /// Delivers a message that nobody of the network sent.
    pub fn inject(&mut self, to: usize, from: usize, message: Message) {
        self.schedule(Duration::ZERO, Event::Deliver { to, from, message });
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.n_events += 1;
        self.queue.insert((self.now + after, self.n_events), event);
    }

    /// True if nothing is under way and nobody waits for anything.
    pub fn is_idle(&self) -> bool {
        let under_way = self.queue.values().any(|event| !matches!(event, Event::Tick { .. }));
        !under_way && self.nodes.iter().flat_map(|node| &node.replica).all(Replica::is_idle)
    }

    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((&(at, _), _)) = self.queue.first_key_value()
            && at <= until
        {
            let ((at, _), event) = self.queue.pop_first().expect("there is one");
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    fn happen(&mut self, event: Event) {
        let peer = |node: usize| key(node).peer();
        self.trace.update(&self.now.as_nanos().to_le_bytes());
        match event {
            Event::Deliver { to, from, message } => {
                self.trace.update(&message.encode());
                self.call(to, |replica, now| replica.on_message(now, peer(from), message));
            }
            Event::Ask { to, from, id, request } => {
                self.trace.update(&request.encode());
                if self.is_up(to) {
                    self.call(to, |replica, now| replica.on_request(now, peer(from), id, request));
                } else {
                    self.answer(to, id, None);
                }
            }
            Event::Answer { to, from, id, response } => {
                self.call(to, |replica, now| replica.on_response(now, peer(from), id, response));
            }
            Event::Tick { node } => {
                if self.nodes[node].ticks_at == Some(self.now) {
                    self.nodes[node].ticks_at = None;
                    self.call(node, |replica, now| replica.on_tick(now));
                }
            }
            Event::Restart { node } => {
                if !self.is_up(node) {
                    self.start(node);
                    for other in (0..=self.n).filter(|other| *other != node) {
                        let (mine, theirs) = (peer(node), peer(other));
                        self.call(node, |replica, now| replica.on_connected(now, theirs));
                        self.call(other, |replica, now| replica.on_connected(now, mine));
                    }
                }
            }
        }
    }

    fn call(&mut self, node: usize, call: impl FnOnce(&mut Replica<Toy>, Now) -> Result<(), Fatal>) {
        let now = self.clock(node);
        let it = &mut self.nodes[node];
        let Some(replica) = &mut it.replica else { return };
        let result = call(replica, now);
        if it.wal.is_dead() || it.blocks.is_dead() {
            // Whether or not it has noticed: what it wanted to say died with it.
            self.crash(node, true);
            let after = Duration::from_millis(self.rng.random_range(1..3_000));
            self.restart_later(node, after);
            return;
        }
        if let Err(fatal) = result {
            panic!("seed {}: node {node} stopped: {fatal:?}", self.seed);
        }
        self.pump(node);
    }

    /// Carries out what a replica wants done.
    fn pump(&mut self, node: usize) {
        let Some(replica) = &mut self.nodes[node].replica else { return };
        let outputs = replica.drain();
        let deadline = replica.next_deadline().map(|at| at.max(self.now));
        for output in outputs {
            self.carry_out(node, output);
            // What it wanted to say next died with it.
            if !self.is_up(node) {
                return;
            }
        }
        if let Some(at) = deadline
            && self.nodes[node].ticks_at.is_none_or(|other| at < other)
        {
            self.nodes[node].ticks_at = Some(at);
            self.schedule(at - self.now, Event::Tick { node });
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        let lie = self.liars.iter().find(|(liar, _)| *liar == node).map(|(_, lie)| *lie);
        match output {
            Output::Broadcast(message) => {
                // What leaves is within its bounds and understood.
                let message = Message::decode(&message.encode()).expect("honest messages can be read");
                match lie {
                    None => {
                        self.check_signed(node, &message);
                        self.broadcast(node, &message, None);
                        self.has_left(node, &message);
                    }
                    Some(lie) => {
                        for (first, second) in self.liar(node, lie, |liar| liar.twist(message)) {
                            self.broadcast(node, &first, second.as_ref());
                        }
                    }
                }
            }
            Output::Request { id, peer, request } => {
                let to = node_of(&peer);
                self.n_messages += 1;
                let number = self.n_events;
                self.asked.insert(number, (node, id));
                match self.delay(node, to) {
                    Some(delay) => {
                        let id = RequestId(number);
                        self.schedule(delay, Event::Ask { to, from: node, id, request });
                    }
                    None => self.answer(to, RequestId(number), None),
                }
            }
            Output::Reply { id, response } => {
                let response = Response::decode(&response.encode()).expect("honest answers can be read");
                self.n_pages += u64::from(matches!(response, Response::Page(Some(_))));
                let response = match lie {
                    None => Some(response),
                    Some(lie) => self.liar(node, lie, |liar| liar.twist_answer(response)),
                };
                self.answer(node, id, response);
            }
            Output::Busy { id } => {
                self.n_busy += 1;
                self.answer(node, id, None);
            }
            Output::Committed(decided) if lie.is_none() => {
                let header = decided.block.header();
                self.nodes[node].committed = header.height;
                let what = (decided.block.id(), header.state_root);
                let first = *self.chain.entry(header.height).or_insert(what);
                assert_eq!(first, what, "seed {}: two blocks at height {}", self.seed, header.height);
                self.check_certificate(&decided);
                self.rounds_max = self.rounds_max.max(decided.certificate.round());
                self.done.extend(decided.block.transactions().iter().cloned());
            }
            Output::Committed(_) => {}
            Output::Installed(decided) if lie.is_none() => self.installed(node, &decided),
            Output::Installed(_) => {}
            Output::Evidence(evidence) => {
                evidence.verify(&NETWORK).expect("evidence convicts");
                let accused = evidence.accused();
                assert!(is_one_of(&accused, &self.liars), "seed {}: convicted: {evidence:?}", self.seed);
                if lie.is_none() {
                    self.evidence.insert(accused);
                }
            }
            Output::ClockBehind { .. } => drop(self.behind.insert(node)),
            Output::Misbehaved { peer, offence } => {
                let is_liar = is_one_of(&peer, &self.liars);
                assert!(is_liar, "seed {}: {node} blames {}: {offence}", self.seed, node_of(&peer));
                self.blamed.insert(peer);
                let offence = format!("{offence:?}");
                let name = offence.split(|c: char| !c.is_alphanumeric()).next().unwrap();
                self.offences.insert(name.to_owned());
            }
        }
    }

    /// Counts what a node signed, and ends the node if it is time.
    fn has_left(&mut self, node: usize, message: &Message) {
        let author = match message {
            Message::Vote(signed) => signed.vote.voter,
            Message::Proposal { proposal, .. } => proposal.proposal.proposer,
            _ => return,
        };
        if author != self.nodes[node].key.peer() {
            return;
        }
        self.n_sent[node] += 1;
        if let Some((victim, n, power)) = self.ends_after
            && victim == node
            && self.n_sent[node] == n
        {
            self.crash(node, power);
            // Often soon enough for what others say of the same round to reach it.
            let after = Duration::from_millis(self.rng.random_range(1..200));
            self.restart_later(node, after);
        }
    }

    /// An honest node has taken a state from others.
    fn installed(&mut self, node: usize, decided: &Decided) {
        let header = decided.block.header();
        assert!(header.height > self.nodes[node].committed, "seed {}: node {node} goes back", self.seed);
        self.nodes[node].committed = header.height;
        let what = (decided.block.id(), header.state_root);
        let first = *self.chain.entry(header.height).or_insert(what);
        assert_eq!(first, what, "seed {}: two blocks at height {}", self.seed, header.height);
        self.check_certificate(decided);
        self.n_installed += 1;
    }

    fn liar<R>(&mut self, node: usize, lie: Lie, lying: impl FnOnce(&mut Liar<'_>) -> R) -> R {
        let it = &self.nodes[node];
        let replica = it.replica.as_ref().expect("the node is up");
        let (key, tip) = (it.key.clone(), replica.tip().clone());
        lying(&mut Liar { lie, network: NETWORK, key, tip, app: replica.app(), rng: &mut self.rng })
    }

    /// Honest signatures in a certificate are those that were given. (A node may have died before its vote left.)
    fn check_certificate(&self, decided: &Decided) {
        let (certificate, height) = (&decided.certificate, decided.block.header().height);
        let epoch = usize::try_from(decided.block.header().epoch.0).unwrap();
        let committee = &committees_of(self.n)[epoch];
        assert!(certificate.verify(&NETWORK, committee).is_ok(), "seed {}: height {height}", self.seed);
        for signer in certificate.signatures().keys() {
            let node = node_of(&committee.member(*signer).unwrap().peer);
            if let Some(block) = self.signed.get(&(node, height, certificate.round(), 1)) {
                assert_eq!(*block, Some(certificate.block_id()), "seed {}: node {node}", self.seed);
            }
        }
    }

    /// No honest node contradicts itself.
    fn check_signed(&mut self, node: usize, message: &Message) {
        let (height, round, kind, block) = match message {
            Message::Vote(signed) => {
                let vote = signed.vote;
                let kind = if vote.kind == VoteKind::Prevote { 0 } else { 1 };
                assert_eq!(signed.verify(&NETWORK), Ok(()));
                if vote.voter != self.nodes[node].key.peer() {
                    return;
                }
                (vote.height, vote.round, kind, vote.block)
            }
            Message::Proposal { proposal, .. } => {
                let proposal = proposal.proposal;
                // In late rounds members pass on the proposal that they lock on.
                if proposal.proposer != self.nodes[node].key.peer() {
                    return;
                }
                (proposal.height, proposal.round, 2, Some(proposal.block))
            }
            _ => return,
        };
        let first = *self.signed.entry((node, height, round, kind)).or_insert(block);
        assert_eq!(
            first, block,
            "seed {}: node {node} contradicts itself at height {height}, round {round}",
            self.seed
        );
    }

    fn broadcast(&mut self, from: usize, message: &Message, other: Option<&Message>) {
        for to in (0..=self.n).filter(|to| *to != from) {
            let message = match other {
                Some(other) if self.rng.random() => other,
                _ => message,
            };
            self.n_messages += 1;
            let is_proposal = matches!(message, Message::Proposal { .. });
            if is_proposal && self.rng.random_bool(self.weather.proposal_loss) {
                continue;
            }
            let n = 1 + u8::from(self.rng.random_bool(self.weather.duplication));
            for _ in 0..n {
                if let Some(delay) = self.delay(from, to) {
                    self.schedule(delay, Event::Deliver { to, from, message: message.clone() });
                }
            }
        }
    }

    fn answer(&mut self, from: usize, id: RequestId, response: Option<Response>) {
        let Some((to, id)) = self.asked.remove(&id.0) else { return };
        let delay = self.delay(from, to);
        let response = response.filter(|_| delay.is_some());
        // A connection that breaks is noticed after a while.
        let delay = delay.filter(|_| response.is_some()).unwrap_or(Duration::from_millis(500));
        self.schedule(delay, Event::Answer { to, from, id, response });
    }

    /// How long something takes from one node to another; none if it is lost.
    fn delay(&mut self, from: usize, to: usize) -> Option<Duration> {
        let Weather { latency_ms: (min, max), loss, ref side, .. } = self.weather;
        let is_lost = side[from] != side[to] || self.rng.random_bool(loss);
        let delay = Duration::from_micros(self.rng.random_range(min * 1_000..=max * 1_000));
        (!is_lost).then_some(delay)
    }

    /// Every node up and equal, and nothing acknowledged missing. (A block may be durable of which its only member died
    /// before it could say so.)
    pub fn check_equal(&self) {
        let honest = self.honest();
        let first = &self.replica(honest[0]).app().state;
        assert!(first.height >= self.height(), "seed {}: a block is missing", self.seed);
        for transaction in &self.done {
            let id = transaction_id(transaction);
            assert!(first.done.contains(&id), "seed {}: an acknowledged transaction is missing", self.seed);
        }
        for node in honest {
            let state = &self.replica(node).app().state;
            assert_eq!(state.height, first.height, "seed {}: height of node {node}", self.seed);
            assert_eq!(state.root, first.root, "seed {}: state of node {node}", self.seed);
            assert_eq!(state.done, first.done, "seed {}: state of node {node}", self.seed);
        }
    }

    pub fn height(&self) -> u64 {
        self.chain.last_key_value().map_or(0, |(height, _)| *height)
    }
}
