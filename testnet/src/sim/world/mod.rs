//! The nodes of a simulation: their disks, their starts and their ends.

mod standing;

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use node::{
    client::{Client, ClientConfig},
    encoder::Encoder,
    ledger::{self, Clock},
    membership::{Roster, Seat},
    node::{Handles, Parts, Settings},
    repair::ScrubConfig,
    sliver_store::{self, Blocking, CompactConfig},
    supervisor::Supervisor,
};
use protocol::{
    Epoch, NodeIndex, PeerId,
    bls::SecretKey,
    committee::{Committee, Member, spread},
    genesis::Genesis,
    ledger::{signature::SigningKey, state::State, transaction::NodeDescription},
    planted::{Bug, is_planted},
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use storage::{Store, disk::SimulatedDisk, index::MemoryIndex};
use swarm::simulated::{Link, Simulation};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    byzantine::{Behaviour, Peers, Watched},
    ledger::endowment,
    lies::{Conspiracy, Liar},
    model::Model,
    operators::{Operated, operator},
    plan::{Epochs, Plan},
};

/// How long an actor of a simulated node may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// When simulations begin, in milliseconds since 1970.
const BEGAN_MS: u64 = 1_700_000_000_000;

/// How long simulated nodes keep part of a blob that is not certified.
pub const PENDING_TTL: Duration = Duration::from_secs(60);

/// A client of a simulation.
pub type SimClient = Client<Watched>;

/// One node.
struct Node {
    peer: PeerId,
    /// What it says of itself; its shards are those of no epoch.
    member: Member,
    key: SecretKey,
    signing: SigningKey,
    disk: SimulatedDisk,
    /// Log of votes, blocks and snapshots. Faults of single disks are the other one's; power and loss are both's.
    ledger: SimulatedDisk,
    running: Option<Running>,
    /// Lost its disk and has not been seen whole since: counts as faulty.
    is_healing: bool,
    /// Lost its disk at some time: what it vouched for before then, it need not hold at every moment since.
    was_wiped: bool,
    /// Height that the ledger has to pass before the node, which lost its log of votes, can no longer contradict itself.
    forgot: Option<u64>,
}

struct Running {
    handles: Handles,
    /// The supervisor; aborting it takes the actors with it.
    tasks: JoinSet<()>,
}

/// All nodes, their network and what clients were told.
pub struct World {
    /// The options of the run.
    pub plan: Plan,
    /// The network.
    pub simulation: Simulation,
    /// Who is faulty, and who was blamed.
    pub peers: Peers,
    /// The genesis of the network.
    pub genesis: Arc<Genesis>,
    nodes: Vec<Node>,
    model: Arc<Mutex<Model>>,
    conspiracy: Conspiracy,
    n_clients: u16,
    settings: Settings,
    began: Instant,
    /// The farthest ledger that was seen.
    last: Mutex<ledger::View>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// Keys and members are the same in every run; making them costs more than many a run.
fn identity(index: u16) -> (SigningKey, SecretKey, Member) {
    static CACHE: OnceLock<Mutex<Vec<(SigningKey, SecretKey, Member)>>> = OnceLock::new();
    let mut cache = CACHE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    for next in cache.len()..=usize::from(index) {
        let byte = u8::try_from(next).expect("a simulation has at most 256 nodes");
        let signing = SigningKey::from_secret(&[byte + 1; 32]);
        let peer = signing.peer();
        let key = SecretKey::from_seed(&[byte; 32]);
        let member = Member {
            name: format!("node-{next}"),
            peer,
            public_key: key.public_key(),
            proof_of_possession: key.prove_possession(&peer),
            addresses: vec![format!("/ip4/10.0.0.{byte}/tcp/4100")],
            shards: Vec::new(),
        };
        cache.push((signing, key, member));
    }
    cache[usize::from(index)].clone()
}

/// The genesis of a network of this size; verified once and kept.
fn genesis(n_nodes: u16, n_shards: u16, n_spenders: u16, epochs: Option<Epochs>) -> Arc<Genesis> {
    type Key = (u16, u16, u16, Option<Duration>);
    type Cache = Mutex<std::collections::BTreeMap<Key, Arc<Genesis>>>;
    static CACHE: OnceLock<Cache> = OnceLock::new();
    let mut cache = CACHE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let genesis = cache
        .entry((n_nodes, n_shards, n_spenders, epochs.map(|epochs| epochs.length)))
        .or_insert_with(|| {
            let members = spread(n_shards, n_nodes).into_iter().zip(0..).map(|(shards, index)| {
                let (_, _, member) = identity(index);
                Member { shards, ..member }
            });
            let genesis = Genesis::new("simulation".to_owned(), n_shards, members.collect());
            let genesis =
                genesis.expect("the members are sound").with_endowment(endowment(n_spenders, epochs));
            Arc::new(genesis.expect("spenders have credits"))
        });
    Arc::clone(genesis)
}

impl World {
    /// Starts the network of a plan.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn start(plan: Plan) -> Self {
        let genesis = genesis(plan.n_nodes, plan.n_shards, plan.n_clients, plan.epochs);
        let mut network = swarm::simulated::Plan::new(plan.seed);
        // A cut is noticed sooner than on a real network, so that a run of a minute sees both sides of it.
        network.detection = Duration::from_secs(5);
        network.link = link(&plan);
        let simulation = Simulation::new(network);
        let peers = Peers::new(plan.seed);
        let n_more = plan.epochs.map_or(0, |epochs| epochs.n_more);
        // In the order of the committee, so that a node's place in the list is its index in the first one; then the others.
        let identities: Vec<_> = (0..plan.n_nodes).map(identity).collect();
        let members = genesis.committee().members().iter().map(|member| {
            let found = identities.iter().find(|(signing, ..)| signing.peer() == member.peer);
            found.expect("a member's identity is known").clone()
        });
        let more = (plan.n_nodes..plan.n_nodes + n_more).map(identity);
        let nodes = members.chain(more).zip(0_u64..).map(|((signing, key, member), index)| {
            let seed = plan.seed.wrapping_mul(1009).wrapping_add(index);
            let (disk, ledger) = (SimulatedDisk::new(seed), SimulatedDisk::new(!seed));
            Node {
                peer: member.peer,
                member,
                key,
                signing,
                disk,
                ledger,
                running: None,
                is_healing: false,
                was_wiped: false,
                forgot: None,
            }
        });
        let model = Arc::default();
        let mut world = Self {
            nodes: nodes.collect(),
            conspiracy: Conspiracy::new(plan.seed, Arc::clone(&genesis), Arc::clone(&model)),
            settings: settings(),
            plan,
            simulation,
            peers,
            model,
            n_clients: 0,
            last: Mutex::new(ledger::View {
                head: None,
                state: State::genesis(&genesis).expect("a genesis is verified when it is made"),
            }),
            genesis,
            began: Instant::now(),
        };
        for node in world.all() {
            world.restart(node).await;
        }
        world
    }

    /// What clients were told.
    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle to what clients were told, for their tasks.
    #[must_use]
    pub fn shared_model(&self) -> Arc<Mutex<Model>> {
        Arc::clone(&self.model)
    }

    /// Who answers for what, as the node says whose ledger reaches farthest; the last that was known if none runs.
    fn roster(&self) -> Roster {
        let views = self.nodes.iter().filter_map(|node| node.running.as_ref());
        let newest = views.map(|running| running.handles.ledger.view()).max_by_key(ledger::View::height);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(newest) = newest.filter(|newest| last.height() <= newest.height()) {
            *last = newest;
        }
        Roster::of(&last.state, self.nodes[0].peer).expect("a ledger that was executed can be read")
    }

    /// The committee that answers for the shards.
    #[must_use]
    pub fn committee(&self) -> Arc<Committee> {
        self.roster().current
    }

    /// The current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.committee().epoch()
    }

    /// Number of shards.
    #[must_use]
    pub fn n_shards(&self) -> u16 {
        self.genesis.n_shards()
    }

    /// A node's place on the current committee, if it has one.
    #[must_use]
    pub fn seat(&self, node: NodeIndex) -> Option<Seat> {
        Seat::of(&self.committee(), &self.peer(node))
    }

    /// The place of a peer in the list of nodes.
    #[must_use]
    pub fn place_of(&self, peer: &PeerId) -> Option<NodeIndex> {
        self.all().into_iter().find(|node| self.peer(*node) == *peer)
    }

    /// The nodes as their operators know them, in the order of [`all`](Self::all).
    pub(super) fn operated(&self) -> Vec<Operated> {
        let operated = |node: &Node| {
            let Member { name, peer, public_key, proof_of_possession, addresses, .. } = node.member.clone();
            let description = NodeDescription {
                name,
                public_key,
                proof_of_possession,
                addresses,
                operator: operator(peer),
                commission_bp: 0,
                capacity_bytes: 0,
            };
            Operated { peer, signing: node.signing.clone(), description }
        };
        self.nodes.iter().map(operated).collect()
    }

    /// All nodes, by their places in a list that begins with the members of the genesis.
    #[must_use]
    pub fn all(&self) -> Vec<NodeIndex> {
        (0..u16::try_from(self.nodes.len()).unwrap_or(u16::MAX)).map(NodeIndex).collect()
    }

    /// The nodes that run.
    #[must_use]
    pub fn running(&self) -> Vec<NodeIndex> {
        self.all().into_iter().filter(|node| self.node(*node).running.is_some()).collect()
    }

    fn node(&self, node: NodeIndex) -> &Node {
        &self.nodes[node.as_usize()]
    }

    /// The network identity of a node.
    #[must_use]
    pub fn peer(&self, node: NodeIndex) -> PeerId {
        self.node(node).peer
    }

    /// The disk of a node.
    #[must_use]
    pub fn disk(&self, node: NodeIndex) -> SimulatedDisk {
        self.node(node).disk.clone()
    }

    /// The actors of a node that runs.
    #[must_use]
    pub fn handles(&self, node: NodeIndex) -> Option<&Handles> {
        self.node(node).running.as_ref().map(|running| &running.handles)
    }

    /// Makes a member lie in consensus for the rest of the run.
    pub fn lie(&self, node: NodeIndex, behaviour: Behaviour) {
        let Node { peer, signing, .. } = self.node(node);
        let liar = Liar::new(behaviour, signing.clone(), self.conspiracy.clone());
        self.peers.lie(*peer, behaviour, liar);
    }

    /// Cuts a node's power: its tasks end, and what it had not synced is lost in part or whole.
    pub async fn crash(&mut self, node: NodeIndex) {
        self.end(node).await;
        let node = &mut self.nodes[node.as_usize()];
        node.disk = node.disk.crash();
        node.ledger = node.ledger.crash();
    }

    /// Kills a node's process: the system keeps what it wrote.
    pub async fn kill(&mut self, node: NodeIndex) {
        self.end(node).await;
        let node = &mut self.nodes[node.as_usize()];
        node.disk = node.disk.kill();
        node.ledger = node.ledger.kill();
    }

    async fn end(&mut self, node: NodeIndex) {
        let Node { peer, running, .. } = &mut self.nodes[node.as_usize()];
        self.simulation.crash(*peer);
        if let Some(mut running) = running.take() {
            running.tasks.abort_all();
            while running.tasks.join_next().await.is_some() {}
            // The actors were aborted with their supervisor; they go when they are next polled.
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Gives a node that is down an empty disk.
    ///
    /// # Panics
    ///
    /// If the node runs.
    pub fn wipe(&mut self, node: NodeIndex) {
        let seed = self.plan.seed ^ 0x7769_7065 ^ u64::from(node.0);
        let highest = {
            let mut model = self.model();
            model.ledger_heights.remove(&node);
            model.ledger_roots.keys().next_back().copied().unwrap_or_default()
        };
        let node = &mut self.nodes[node.as_usize()];
        // What it voted for is of the height after the last at most, and others may be one further than was seen.
        node.forgot = Some(highest + 2);
        node.ledger = SimulatedDisk::new(!seed);
        assert!(node.running.is_none(), "a disk is replaced in a node that is down");
        node.disk = SimulatedDisk::new(seed);
        node.is_healing = true;
        node.was_wiped = true;
    }

    /// Starts a node over what its disk holds. Nothing happens if it runs.
    ///
    /// # Panics
    ///
    /// If its store does not open: recovery from a crash must always succeed.
    pub async fn restart(&mut self, node: NodeIndex) {
        if self.node(node).running.is_some() {
            return;
        }
        let Node { peer, key, disk, signing, ledger, .. } = self.node(node);
        let (peer, key, disk, ledger) = (*peer, key.clone(), disk.clone(), Arc::new(ledger.clone()));
        disk.set_lying_sync(is_planted(Bug::SkippedSync));
        let (store, _) = Store::open(Arc::new(disk), Box::new(MemoryIndex::default()), store_config())
            .unwrap_or_else(|error| {
                panic!("seed {}: node {node} cannot open its store: {error}", self.plan.seed)
            });
        let index = Box::new(MemoryIndex::default());
        let (blocks, _) = Store::open(Arc::<SimulatedDisk>::clone(&ledger), index, ledger_store_config())
            .unwrap_or_else(|error| {
                panic!("seed {}: node {node} cannot open its blocks: {error}", self.plan.seed)
            });
        let ledger = ledger::Parts {
            key: signing.clone(),
            disk: ledger,
            blocks: Arc::new(blocks),
            clock: Clock::Simulated { start: self.began, unix_ms: BEGAN_MS },
        };
        let (network, inbound) = self.simulation.join(peer, self.genesis.network_id());
        let n_shards = self.genesis.n_shards();
        let parts = Parts {
            name: format!("node-{node}"),
            genesis: Arc::clone(&self.genesis),
            key,
            network: (Watched::new(network, self.peers.clone()), inbound),
            store: Arc::new(store),
            ledger,
            blocking: Blocking::Inline,
            encoder: Encoder::inline(n_shards),
            bootstrap: Vec::new(),
            settings: self.settings,
        };
        let mut supervisor = Supervisor::new(STOP_GRACE);
        let handles = node::node::start(parts, &mut supervisor)
            .await
            .unwrap_or_else(|error| panic!("seed {}: node {node} does not start: {error}", self.plan.seed));
        self.peers.started(peer, handles.ledger.watch());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = supervisor.run(CancellationToken::new()).await {
                // A disk that fails ends the node; the run restarts it.
                tracing::info!(%error, "a simulated node ended");
            }
        });
        self.nodes[node.as_usize()].running = Some(Running { handles, tasks });
    }

    /// Takes note of nodes that ended by themselves, as after a failed sync; returns them.
    pub async fn reap(&mut self) -> Vec<NodeIndex> {
        let mut ended = Vec::new();
        for node in self.all() {
            let Some(running) = &mut self.nodes[node.as_usize()].running else { continue };
            if running.tasks.try_join_next().is_some() {
                ended.push(node);
                self.end(node).await;
            }
        }
        ended
    }

    /// Brings up a party that is no member, with an identity of its own.
    pub fn stranger(&mut self) -> Watched {
        self.n_clients += 1;
        let mut peer = [0xC0; 32];
        peer[1..3].copy_from_slice(&self.n_clients.to_be_bytes());
        let (network, _inbound) =
            self.simulation.join_with_topics(PeerId(peer), self.genesis.network_id(), &[]);
        Watched::new(network, self.peers.clone())
    }

    /// Brings up a client.
    pub fn client(&mut self) -> SimClient {
        let network = self.stranger();
        let config = ClientConfig { request_timeout: Duration::from_secs(5), ..ClientConfig::default() };
        Client::new(network, Arc::clone(&self.genesis), Encoder::inline(self.genesis.n_shards()), config)
    }

    /// The key of an account of its own for one purpose. Storing is free of charge.
    #[must_use]
    pub fn wallet(&self, purpose: u64) -> SigningKey {
        let mut secret = [0x3A; 32];
        secret[..8].copy_from_slice(&purpose.to_be_bytes());
        SigningKey::from_secret(&secret)
    }

    /// A stream of chance of its own for one purpose.
    #[must_use]
    pub fn rng(&self, purpose: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.plan.seed.wrapping_mul(31).wrapping_add(purpose))
    }

    /// Sets every link as the plan says, or without any loss.
    pub fn set_links(&self, lossless: bool) {
        let mut link = link(&self.plan);
        if lossless {
            link.loss = 0.0;
        }
        self.simulation.set_default_link(link);
    }
}

fn link(plan: &Plan) -> Link {
    Link {
        latency: Duration::from_millis(1)..=plan.latency_max,
        loss: f64::from(plan.loss_percent) / 100.0,
        bytes_per_second: None,
    }
}

/// Log files are small and compacted early, so that runs see many of them come and go.
fn store_config() -> storage::Config {
    storage::Config {
        log_bytes: 16 << 10,
        reserve_bytes: 0,
        compact_below_percent: 90,
        ..storage::Config::default()
    }
}

/// Blocks are never compacted away, and small log files make many of them.
fn ledger_store_config() -> storage::Config {
    storage::Config { log_bytes: 64 << 10, reserve_bytes: 0, ..storage::Config::default() }
}

/// Everything is quicker than on a real network, so that a simulated minute sees all of it.
fn settings() -> Settings {
    let request_timeout = Duration::from_secs(3);
    Settings {
        sliver_store: sliver_store::Config {
            compact: CompactConfig { interval: Duration::from_secs(5), ..CompactConfig::default() },
            ..sliver_store::Config::default()
        },
        repair: node::repair::Config {
            request_timeout,
            // So that what a node lost of a small blob is rebuilt together, and of a large one sliver by sliver.
            segment_bytes: 64 << 10,
            retry_max: Duration::from_secs(8),
            pass_interval: Duration::from_secs(30),
            ..Default::default()
        },
        upload: node::upload::Config { pending_ttl: PENDING_TTL, ..Default::default() },
        // So that restarts begin at snapshots of all ages.
        ledger: ledger::Config { snapshot_blocks: 3, ..ledger::Config::default() },
        scrub: Some(ScrubConfig { bytes_per_second: 1 << 20, interval: Duration::from_secs(10) }),
        ..Settings::default()
    }
}

/// Opens a copy of what a node's disk would hold if its power were cut now.
pub(super) fn durable_image(disk: &SimulatedDisk) -> Option<Store> {
    let image = disk.fork().crash();
    Store::open(Arc::new(image), Box::new(MemoryIndex::default()), store_config())
        .ok()
        .map(|(store, _)| store)
}
