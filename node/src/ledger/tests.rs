//! Whole nodes on a simulated network that agree on a ledger.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    PeerId,
    bls::SecretKey,
    codec,
    committee::{Member, spread},
    genesis::{Endowment, Genesis, GenesisAccount},
    ids::AccountId,
    ledger::{
        answer::{Answer, KEY_BYTES_MAX, KEYS_MAX},
        chain::TrustedChain,
        signature::SigningKey,
        state::{State, entry::Account, key},
        transaction::{Action, TRANSACTION_BYTES_MAX, Transaction, TransactionId},
        wire,
    },
    message::{REASON_BYTES_MAX, Refusal, Request, Response},
};
use storage::{
    Store,
    disk::{Disk as _, SimulatedDisk},
    index::MemoryIndex,
};
use swarm::{
    Address, Channel, ConnectedPeers, Frame, InboundReceiver, Network, Offence, PeerRole, PublishError,
    RequestError, Topic,
    simulated::{Plan, SimulatedNetwork, Simulation},
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Clock, Parts, SubmitError};
use crate::{
    encoder::Encoder,
    exchange::{ExchangeError, ask},
    node::{self, Handles, Settings, introduce_members},
    sliver_store::Blocking,
    supervisor::Supervisor,
};

const N: u16 = 4;
const CREDITS: u64 = 1_000;
const TIMEOUT: Duration = Duration::from_secs(10);
/// When simulations begin, in milliseconds since 1970.
const BEGAN_MS: u64 = 1_700_000_000_000;

/// Identities in ascending order, as committees list them.
pub(crate) fn signing_keys(n: u16) -> Vec<SigningKey> {
    let key = |i: u16| SigningKey::from_secret(&[u8::try_from(i).unwrap(); 32]);
    let mut keys: Vec<SigningKey> = (1..=n).map(key).collect();
    keys.sort_by_key(SigningKey::peer);
    keys
}

/// What the ledger of a simulated node stands on: one disk holds all of it.
pub(crate) fn ledger_parts(key: &SigningKey, disk: &SimulatedDisk, began: Instant) -> Parts {
    let config = storage::Config { reserve_bytes: 0, ..storage::Config::default() };
    let disk = Arc::new(disk.clone());
    let index = Box::new(MemoryIndex::default());
    let (blocks, _) = Store::open(Arc::<SimulatedDisk>::clone(&disk), index, config).unwrap();
    let clock = Clock::Simulated { start: began, unix_ms: BEGAN_MS };
    Parts { key: key.clone(), disk, blocks: Arc::new(blocks), clock }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test)
}

/// Counts what nodes say of the ledger.
#[derive(Clone)]
struct Counting {
    network: SimulatedNetwork,
    n_said: Arc<AtomicU64>,
}

impl Counting {
    fn count(&self, is_ledgers: bool) {
        self.n_said.fetch_add(u64::from(is_ledgers), Ordering::Relaxed);
    }
}

impl Network for Counting {
    fn local_peer(&self) -> PeerId {
        self.network.local_peer()
    }

    async fn request(
        &self,
        to: PeerId,
        channel: Channel,
        request: Frame,
        timeout: Duration,
    ) -> Result<Frame, RequestError> {
        self.count(matches!(Request::from_bytes(&request.header), Ok(Request::Ledger(_))));
        self.network.request(to, channel, request, timeout).await
    }

    async fn publish(&self, topic: Topic, data: Bytes) -> Result<(), PublishError> {
        self.count(matches!(topic, Topic::Ledger | Topic::Transactions));
        self.network.publish(topic, data).await
    }

    fn add_peer(&self, peer: PeerId, addresses: Vec<Address>, role: PeerRole) {
        self.network.add_peer(peer, addresses, role);
    }

    fn report(&self, peer: PeerId, offence: Offence) {
        panic!("{peer} is honest and was blamed for {offence:?}");
    }

    fn connected(&self) -> ConnectedPeers {
        self.network.connected()
    }
}

struct Node {
    key: SigningKey,
    disk: SimulatedDisk,
    running: Option<(Handles, JoinSet<()>)>,
}

struct Cluster {
    simulation: Simulation,
    genesis: Arc<Genesis>,
    began: Instant,
    nodes: Vec<Node>,
    n_said: Arc<AtomicU64>,
    client: (SimulatedNetwork, InboundReceiver),
}

/// The account of whoever spends.
fn owner() -> SigningKey {
    SigningKey::from_secret(&[99; 32])
}

fn account(byte: u8) -> AccountId {
    SigningKey::from_secret(&[byte; 32]).account()
}

impl Cluster {
    async fn start() -> Self {
        let simulation = Simulation::new(Plan::new(1));
        let bls = |i: u16| SecretKey::from_seed(&[u8::try_from(i).unwrap(); 32]);
        let keys = signing_keys(N);
        let members = (0..).zip(&keys).zip(spread(N, N)).map(|((i, key), shards)| Member {
            name: format!("node-{i}"),
            peer: key.peer(),
            public_key: bls(i).public_key(),
            proof_of_possession: bls(i).prove_possession(&key.peer()),
            addresses: vec![simulation.address(key.peer()).to_string()],
            shards,
        });
        let genesis = Genesis::new("test".to_owned(), N, members.collect()).unwrap();
        let accounts = vec![GenesisAccount { account: owner().account(), balance: CREDITS }];
        let genesis =
            Arc::new(genesis.with_endowment(Endowment { accounts, ..Endowment::default() }).unwrap());
        let topics = simulation.join_with_topics(PeerId([200; 32]), genesis.network_id(), &[]);
        introduce_members(&topics.0, &genesis);
        let nodes = (0..).zip(keys).map(|(i, key)| Node { key, disk: SimulatedDisk::new(i), running: None });
        let mut cluster = Self {
            nodes: nodes.collect(),
            simulation,
            genesis,
            began: Instant::now(),
            n_said: Arc::default(),
            client: topics,
        };
        for node in 0..usize::from(N) {
            cluster.restart(node).await;
        }
        cluster
    }

    async fn restart(&mut self, node: usize) {
        let index = u16::try_from(node).unwrap();
        let Node { key, disk, .. } = &self.nodes[node];
        let (network, inbound) = self.simulation.join(key.peer(), self.genesis.network_id());
        let config = storage::Config { reserve_bytes: 0, ..storage::Config::default() };
        let slivers = Arc::new(SimulatedDisk::new(7));
        let store = Store::open(slivers, Box::new(MemoryIndex::default()), config).unwrap();
        let ledger = super::Config { snapshot_blocks: 2, ..super::Config::default() };
        let parts = node::Parts {
            name: format!("node-{node}"),
            genesis: Arc::clone(&self.genesis),
            key: SecretKey::from_seed(&[u8::try_from(index).unwrap(); 32]),
            network: (Counting { network, n_said: Arc::clone(&self.n_said) }, inbound),
            store: Arc::new(store.0),
            ledger: ledger_parts(key, disk, self.began),
            blocking: Blocking::Inline,
            encoder: Encoder::inline(N),
            bootstrap: Vec::new(),
            settings: Settings { ledger, ..Settings::default() },
        };
        let mut supervisor = Supervisor::new(Duration::from_secs(5));
        let handles = node::start(parts, &mut supervisor).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { supervisor.run(CancellationToken::new()).await.unwrap() });
        self.nodes[node].running = Some((handles, tasks));
    }

    /// Cuts a node's power.
    async fn crash(&mut self, node: usize) {
        self.simulation.crash(self.nodes[node].key.peer());
        let (_, mut tasks) = self.nodes[node].running.take().unwrap();
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        self.nodes[node].disk = self.nodes[node].disk.crash();
    }

    fn handles(&self, node: usize) -> &Handles {
        &self.nodes[node].running.as_ref().unwrap().0
    }

    fn transfer(&self, nonce: u64, amount: u64) -> Vec<u8> {
        let action = Action::Transfer { to: account(7), amount };
        let transaction = Transaction { sender: owner().account(), nonce, action };
        transaction.sign(&self.genesis.network_id(), &owner()).to_bytes()
    }

    async fn ask(
        &self,
        node: usize,
        request: Request,
        payload: Vec<u8>,
    ) -> Result<(Response, Bytes), Refusal> {
        let peer = self.nodes[node].key.peer();
        match ask(&self.client.0, peer, (&request, payload.into()), TIMEOUT).await {
            Ok(answer) => Ok(answer),
            Err(ExchangeError::Refused(refusal)) => Err(refusal),
            Err(error) => panic!("node {node}: {error}"),
        }
    }

    async fn submit(&self, node: usize, transaction: Vec<u8>) -> Result<u64, Refusal> {
        match self.ask(node, Request::Submit { keys: Vec::new() }, transaction).await? {
            (Response::Submitted { height }, _) => Ok(height),
            (response, _) => panic!("{response:?}"),
        }
    }

    async fn entries(&self, node: usize, keys: &[Vec<u8>]) -> Result<Bytes, Refusal> {
        match self.ask(node, Request::Entries { keys: keys.to_vec() }, Vec::new()).await? {
            (Response::Entries, answer) => Ok(answer),
            (response, _) => panic!("{response:?}"),
        }
    }

    fn chain(&self) -> TrustedChain {
        TrustedChain::from_genesis(self.genesis.network_id(), self.genesis.committee().clone())
    }

    fn genesis_root(&self) -> protocol::hash::Hash {
        State::genesis(&self.genesis).unwrap().root()
    }

    /// Waits until these nodes have executed the block of a height, and returns the height at which all of them are then.
    async fn reach(&self, nodes: impl IntoIterator<Item = usize>, height: u64) -> u64 {
        let mut ends = BTreeSet::new();
        for node in nodes {
            let mut views = self.handles(node).ledger.watch();
            let reached = views.wait_for(|view| view.height() >= height);
            let view = tokio::time::timeout(TIMEOUT, reached).await.unwrap().unwrap().clone();
            ends.insert((view.height(), view.state.root()));
        }
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends.first().unwrap().0
    }
}

/// Credits of an account, its nonce, and its last transaction.
fn account_of(value: Option<&Vec<u8>>) -> (u64, u64, Option<TransactionId>) {
    let read = |value: &Vec<u8>| codec::decode_exact::<_, 64>(value).unwrap();
    let Account { balance, nonce, last } = value.map(read).unwrap_or_default();
    (balance, nonce, last)
}

#[test]
fn what_one_node_is_asked_all_execute_and_prove() {
    run(async {
        let cluster = Cluster::start().await;
        let keys = [key::account(&owner().account()), key::account(&account(7)), key::account(&account(8))];
        let before = Answer::from_bytes(&cluster.entries(2, &keys).await.unwrap()).unwrap();
        let values = before.verify(&mut cluster.chain(), &cluster.genesis_root(), &keys).unwrap();
        assert_eq!(account_of(values[0].as_ref()), (CREDITS, 0, None));

        let mut executed = cluster.handles(3).ledger.executed();
        assert_eq!(cluster.submit(0, cluster.transfer(0, 30)).await, Ok(1));
        cluster.reach(0..4, 1).await;
        let executed = executed.recv().await.unwrap();
        assert_eq!((executed.height, executed.receipts.len()), (1, 1));
        assert!(executed.time_ms >= BEGAN_MS);
        for node in 0..4 {
            let bytes = cluster.entries(node, &keys).await.unwrap();
            let answer = Answer::from_bytes(&bytes).unwrap();
            let mut chain = cluster.chain();
            let values = answer.verify(&mut chain, &cluster.genesis_root(), &keys).unwrap();
            assert_eq!(chain.height(), 1);
            assert_eq!(account_of(values[0].as_ref()), (CREDITS - 30, 1, Some(executed.receipts[0].id)));
            assert_eq!(account_of(values[1].as_ref()), (30, 0, None));
            assert_eq!(values[2], None);
        }
        // Asked again, as by someone whose answer was lost, it is not executed again.
        assert_eq!(cluster.submit(0, cluster.transfer(0, 30)).await, Ok(1));
        assert_eq!(cluster.submit(2, cluster.transfer(0, 30)).await, Ok(1));
        let Response::Health(health) = cluster.ask(1, Request::Health, Vec::new()).await.unwrap().0 else {
            panic!("asked for its health");
        };
        assert_eq!(health.ledger_height, 1);
        assert_eq!(health.ledger_root, cluster.handles(0).ledger.view().state.root());
    });
}

#[test]
fn who_submits_is_shown_what_it_asks_for_as_of_the_block() {
    run(async {
        let cluster = Cluster::start().await;
        let submit = async |nonce, keys: &[Vec<u8>]| {
            let request = Request::Submit { keys: keys.to_vec() };
            match cluster.ask(1, request, cluster.transfer(nonce, 30)).await {
                Ok((Response::Submitted { height }, answer)) => Ok((height, answer)),
                Ok((response, _)) => panic!("{response:?}"),
                Err(refusal) => Err(refusal),
            }
        };
        let keys = [key::account(&owner().account()), key::account(&account(7)), key::account(&account(8))];
        for nonce in 0..2 {
            let (height, answer) = submit(nonce, &keys).await.unwrap();
            let mut chain = cluster.chain();
            let answer = Answer::from_bytes(&answer).unwrap();
            let values = answer.verify(&mut chain, &cluster.genesis_root(), &keys).unwrap();
            assert_eq!((height, chain.height()), (nonce + 1, nonce + 1));
            let paid = 30 * (nonce + 1);
            let (credits, next, last) = account_of(values[0].as_ref());
            assert_eq!((credits, next, last.is_some()), (CREDITS - paid, nonce + 1, true));
            assert_eq!(account_of(values[1].as_ref()), (paid, 0, None));
            assert_eq!(values[2], None);
        }
        // Too much is refused before anything is ordered.
        for keys in [vec![vec![1]; KEYS_MAX + 1], vec![vec![0; KEY_BYTES_MAX + 1]]] {
            assert_eq!(submit(2, &keys).await, Err(Refusal::Malformed));
        }
        assert_eq!(cluster.handles(1).ledger.view().height(), 2);
    });
}

#[test]
fn what_the_rules_forbid_is_refused_with_the_reason() {
    run(async {
        let cluster = Cluster::start().await;
        let rejected = async |transaction| match cluster.submit(1, transaction).await {
            Err(Refusal::Rejected(reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert!(rejected(cluster.transfer(0, CREDITS + 1)).await.contains("has 1000 credits and needs 1001"));
        assert!(rejected(cluster.transfer(1, 1)).await.contains("nonce 1"));
        assert!(rejected(vec![1; 100]).await.contains("not a transaction"));
        let mut forged = cluster.transfer(0, 1);
        *forged.last_mut().unwrap() ^= 1;
        assert!(rejected(forged).await.contains("not signed by its sender"));
        let long = vec![0; TRANSACTION_BYTES_MAX + 1];
        assert_eq!(cluster.submit(1, long).await, Err(Refusal::Malformed));
        // Two that exclude each other: one is executed, who waits for the other is told.
        let (first, second) = (cluster.transfer(0, 1), cluster.transfer(0, 2));
        let both = tokio::join!(cluster.submit(0, first), cluster.submit(0, second));
        let (executed, refused) = if both.0.is_ok() { both } else { (both.1, both.0) };
        assert_eq!(executed, Ok(1));
        assert!(matches!(refused, Err(Refusal::Rejected(reason)) if reason.len() <= REASON_BYTES_MAX));

        let too_many = vec![vec![1]; KEYS_MAX + 1];
        assert_eq!(cluster.entries(0, &too_many).await, Err(Refusal::Malformed));
        assert_eq!(cluster.entries(0, &[vec![0; KEY_BYTES_MAX + 1]]).await, Err(Refusal::Malformed));
        let longest = vec![vec![0xFF; KEY_BYTES_MAX]; KEYS_MAX];
        let answer = Answer::from_bytes(&cluster.entries(0, &longest).await.unwrap()).unwrap();
        let values = answer.verify(&mut cluster.chain(), &cluster.genesis_root(), &longest).unwrap();
        assert_eq!(values, vec![None; KEYS_MAX]);
    });
}

#[test]
fn a_client_need_not_wait_for_one_transaction_to_sign_the_next() {
    run(async {
        let cluster = Cluster::start().await;
        let ledger = &cluster.handles(0).ledger;
        let submit = |nonce| {
            let (ledger, transaction) = (ledger.clone(), cluster.transfer(nonce, 1));
            async move { (nonce, ledger.submit(transaction).await) }
        };
        let mut submitted = JoinSet::new();
        for nonce in 0..16 {
            submitted.spawn(submit(nonce));
        }
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        // One more than may wait, and one behind a gap.
        assert_eq!(submit(16).await.1, Err(SubmitError::Busy));
        assert!(matches!(submit(20).await.1, Err(SubmitError::Rejected { .. })));
        let mut heights: Vec<(u64, u64)> = Vec::new();
        while let Some(ended) = submitted.join_next().await {
            let (nonce, height) = ended.unwrap();
            heights.push((nonce, height.unwrap()));
        }
        heights.sort_unstable();
        assert!(heights.is_sorted_by_key(|(_, height)| *height), "{heights:?}");
        let last = heights.last().unwrap().1;
        assert!(last <= 3, "{heights:?}");
        cluster.reach(0..4, last).await;
        let state = cluster.handles(3).ledger.view().state;
        assert_eq!(state.account(&account(7)).unwrap().balance, 16);
        // Those behind one that a rival overtook wait for their turn as before.
        let (first, rival, second) =
            (cluster.transfer(16, 1), cluster.transfer(16, 2), cluster.transfer(17, 3));
        let (one, other, next) =
            tokio::join!(cluster.submit(0, first), cluster.submit(0, rival), cluster.submit(0, second));
        assert!(one.is_ok() != other.is_ok(), "{one:?}, {other:?}");
        assert!(next.is_ok(), "{next:?}");
    });
}

#[test]
fn a_forged_answer_is_refused() {
    run(async {
        let cluster = Cluster::start().await;
        cluster.submit(0, cluster.transfer(0, 30)).await.unwrap();
        let keys = [key::account(&account(7))];
        let bytes = cluster.entries(0, &keys).await.unwrap();
        let verify = |bytes: &[u8]| {
            let answer = Answer::from_bytes(bytes)?;
            answer.verify(&mut cluster.chain(), &cluster.genesis_root(), &keys)
        };
        let expected = verify(&bytes).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut forged = bytes.to_vec();
                forged[at] ^= 1 << bit;
                assert!(verify(&forged).is_err(), "bit {bit} of byte {at} of {expected:?}");
            }
        }
    });
}

#[test]
fn a_crash_of_one_and_of_all_loses_nothing() {
    run(async {
        let mut cluster = Cluster::start().await;
        for nonce in 0..3 {
            cluster.submit(usize::try_from(nonce).unwrap(), cluster.transfer(nonce, 1)).await.unwrap();
        }
        let height = cluster.reach(0..4, 3).await;
        cluster.crash(1).await;
        cluster.submit(0, cluster.transfer(3, 1)).await.unwrap();
        cluster.restart(1).await;
        assert!(cluster.handles(1).ledger.view().height() >= height);
        let height = cluster.reach(0..4, height + 1).await;
        for node in 0..4 {
            cluster.crash(node).await;
        }
        for node in 0..4 {
            cluster.restart(node).await;
            assert_eq!(cluster.handles(node).ledger.view().height(), height, "node {node}");
            let names = cluster.nodes[node].disk.list().unwrap();
            assert!(names.iter().any(|name| name.ends_with(".snapshot")), "{names:?}");
        }
        assert_eq!(cluster.reach(0..4, height).await, height);
        let state = cluster.handles(2).ledger.view().state;
        assert_eq!(state.account(&account(7)).unwrap().balance, 4);
        assert_eq!(state.total().unwrap(), u128::from(CREDITS));
        cluster.submit(2, cluster.transfer(4, 1)).await.unwrap();
        cluster.reach(0..4, height + 1).await;
    });
}

#[test]
fn below_a_quorum_nothing_is_ordered_and_above_it_what_waited_is() {
    run(async {
        let mut cluster = Cluster::start().await;
        cluster.crash(2).await;
        cluster.crash(3).await;
        assert_eq!(cluster.submit(0, cluster.transfer(0, 5)).await, Err(Refusal::NotOrdered));
        cluster.restart(2).await;
        let mut views = cluster.handles(1).ledger.watch();
        let waited = views.wait_for(|view| view.height() > 0);
        tokio::time::timeout(Duration::from_secs(60), waited).await.unwrap().unwrap();
        let submitted = cluster.submit(0, cluster.transfer(0, 5)).await;
        assert!(submitted.is_ok(), "{submitted:?}");
        assert_eq!(cluster.handles(0).ledger.view().state.account(&account(7)).unwrap().balance, 5);
    });
}

#[test]
fn an_idle_ledger_says_nothing() {
    run(async {
        let cluster = Cluster::start().await;
        cluster.submit(0, cluster.transfer(0, 30)).await.unwrap();
        cluster.reach(0..4, 1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let n_said = cluster.n_said.load(Ordering::Relaxed);
        assert!(n_said > 0);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(cluster.n_said.load(Ordering::Relaxed), n_said);
    });
}

#[test]
fn strangers_are_not_heard_and_peers_are_asked_for_blocks_within_a_frame() {
    run(async {
        let cluster = Cluster::start().await;
        cluster.submit(0, cluster.transfer(0, 30)).await.unwrap();
        cluster.reach(0..4, 1).await;
        let (network, _inbound) = &cluster.client;
        let lie = wire::Message::Status { height: 1_000 };
        let n_said = cluster.n_said.load(Ordering::Relaxed);
        network.publish(Topic::Ledger, lie.encode().into()).await.unwrap();
        let request = wire::Request::Blocks { from: 1, n_max: u16::MAX };
        let (response, payload) = cluster.ask(3, Request::Ledger(request), Vec::new()).await.unwrap();
        assert_eq!(response, Response::Ledger);
        let wire::Response::Blocks(blocks) = wire::Response::decode(&payload).unwrap() else {
            panic!("asked for blocks");
        };
        assert_eq!(blocks.len(), 1);
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Nobody went to look for the thousand blocks.
        let asked = cluster.n_said.load(Ordering::Relaxed) - n_said;
        assert!(asked <= 4, "{asked} messages, one of each member when it settles");
    });
}
