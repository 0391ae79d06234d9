//! The client against doubles of storage nodes on a simulated network, under a paused clock.

mod double;
mod epochs;
mod fake_ledger;
mod ledger;
mod reading;
mod storing;

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use protocol::{
    BlobId, Epoch, NodeIndex, PeerId, ShardIndex,
    bls::SecretKey,
    certificate::{
        CertificateBuilder, InvalidityAttestation, InvalidityCertificate, Persistence, Statement as _,
    },
    commitment::BlobHeader,
    committee::{Committee, Member, spread},
    encoding::BlobShape,
    genesis::{Endowment, Genesis},
    ledger::{
        signature::SigningKey,
        state::entry::Registration,
        transaction::{Action, NodeDescription},
    },
};
use swarm::simulated::{Plan, SimulatedNetwork, Simulation};
use tokio::task::JoinSet;

use self::{
    double::{Double, Manner, Scope},
    fake_ledger::FakeLedger,
};
use super::{
    Client, ClientConfig, DEFAULT_EPOCHS, OnProgress, Progress, ReadError, ReadSummary, StoreError,
    StoreOptions, Stored,
};
use crate::{encoder::Encoder, ledger::tests::signing_keys};

const CLIENT: PeerId = PeerId([200; 32]);

/// Whose blobs these are.
fn owner() -> SigningKey {
    SigningKey::from_secret(&[100; 32])
}

/// Another account.
fn stranger() -> SigningKey {
    SigningKey::from_secret(&[101; 32])
}

fn key(i: u16) -> SecretKey {
    SecretKey::from_seed(&[u8::try_from(i + 1).unwrap(); 32])
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test)
}

/// Nodes, the network between them, the ledger that they share, and a client.
struct Cluster {
    simulation: Simulation,
    genesis: Arc<Genesis>,
    ledger: Arc<Mutex<FakeLedger>>,
    doubles: Vec<Arc<Double>>,
    client: Client<SimulatedNetwork>,
    /// What nodes say of themselves, in the order of their identities.
    descriptions: Vec<NodeDescription>,
    peers: Vec<PeerId>,
    _servers: JoinSet<()>,
}

impl Cluster {
    fn new(n_shards: u16, n_members: u16) -> Self {
        Self::with(Plan::new(1), n_shards, n_members, ClientConfig::default())
    }

    fn with(plan: Plan, n_shards: u16, n_members: u16, config: ClientConfig) -> Self {
        Self::build((plan, config), (n_shards, n_members, 0), |_| Endowment::default())
    }

    /// A network on which there are credits; `endow` is given the identities of the members, in ascending order.
    fn endowed(n_shards: u16, n_members: u16, endow: impl FnOnce(&[PeerId]) -> Endowment) -> Self {
        Self::build((Plan::new(1), ClientConfig::default()), (n_shards, n_members, 0), endow)
    }

    fn build(
        (plan, config): (Plan, ClientConfig),
        (n_shards, n_members, n_others): (u16, u16, u16),
        endow: impl FnOnce(&[PeerId]) -> Endowment,
    ) -> Self {
        let simulation = Simulation::new(plan);
        let keys = signing_keys(n_members + n_others);
        let peers: Vec<PeerId> = keys.iter().map(SigningKey::peer).collect();
        let descriptions: Vec<NodeDescription> =
            (0..).zip(&peers).map(|(i, peer)| description(&simulation, i, *peer)).collect();
        let members = peers.iter().zip(&descriptions).zip(spread(n_shards, n_members));
        let members = members.map(|((peer, description), shards)| description.to_member(*peer, shards));
        let genesis = Genesis::new("test".into(), n_shards, members.collect()).unwrap();
        let genesis = Arc::new(genesis.with_endowment(endow(&peers[..n_members.into()])).unwrap());
        let mut ledger = FakeLedger::new(&genesis, keys.clone());
        for (key, description) in keys.iter().zip(&descriptions).skip(n_members.into()) {
            ledger.execute(key, Action::RegisterNode { description: Box::new(description.clone()) });
        }
        let ledger = Arc::new(Mutex::new(ledger));
        let mut servers = JoinSet::new();
        let mut doubles = Vec::new();
        for (i, peer) in (0..).zip(peers.iter().copied()) {
            // Members are sorted by peer ID, which ascends with `i`.
            let double = Arc::new(Double::new((i, peer), key(i), Arc::clone(&genesis), Arc::clone(&ledger)));
            let (_network, inbound) = simulation.join(peer, genesis.network_id());
            servers.spawn(Arc::clone(&double).serve(inbound));
            doubles.push(double);
        }
        let client = join(&simulation, &genesis, CLIENT, config);
        Self { simulation, genesis, ledger, doubles, client, descriptions, peers, _servers: servers }
    }

    fn peer(&self, node: u16) -> PeerId {
        self.peers[usize::from(node)]
    }

    /// Another client.
    fn join(&self, peer: PeerId) -> Client<SimulatedNetwork> {
        join(&self.simulation, &self.genesis, peer, ClientConfig::default())
    }

    fn ledger(&self) -> MutexGuard<'_, FakeLedger> {
        self.ledger.lock().unwrap()
    }

    fn behave(&self, nodes: impl IntoIterator<Item = u16>, manner: &Manner) {
        for node in nodes {
            self.doubles[usize::from(node)].become_(manner.clone(), Scope::All);
        }
    }

    /// Has nodes behave so with blobs; of the ledger they are honest.
    fn behave_with_blobs(&self, nodes: impl IntoIterator<Item = u16>, manner: &Manner) {
        for node in nodes {
            self.doubles[usize::from(node)].become_(manner.clone(), Scope::Blobs);
        }
    }

    fn crash(&self, nodes: impl IntoIterator<Item = u16>) {
        for node in nodes {
            self.simulation.crash(self.peer(node));
        }
    }

    async fn store(&self, data: &[u8]) -> Result<Stored, StoreError> {
        self.store_as(&owner(), data, StoreOptions::default()).await
    }

    async fn store_as(
        &self,
        key: &SigningKey,
        data: &[u8],
        options: StoreOptions,
    ) -> Result<Stored, StoreError> {
        self.client.store(Arc::new(data.to_vec()), key, options, quiet()).await
    }

    async fn read(&self, blob_id: BlobId) -> Result<(ReadSummary, Vec<u8>), ReadError> {
        self.client.read(blob_id, Vec::new(), quiet()).await
    }

    /// Stores and reads back.
    async fn round_trip(&self, data: &[u8]) -> (Stored, ReadSummary) {
        let stored = self.store(data).await.unwrap();
        let (summary, read) = self.read(stored.blob_id).await.unwrap();
        assert!(read == data, "what was read is what was stored");
        (stored, summary)
    }

    /// An account registers a blob of which nobody was sent anything.
    fn register(&self, key: &SigningKey, header: BlobHeader) -> u64 {
        let (persistence, end_epoch) = (Persistence::Deletable, Epoch(DEFAULT_EPOCHS));
        self.ledger().execute(key, Action::RegisterBlob { header, persistence, end_epoch })
    }

    async fn header_of(&self, data: &[u8]) -> BlobHeader {
        let other = Self::new(self.genesis.n_shards(), 1);
        let stored = other.store(data).await.unwrap();
        other.ledger().blob(stored.blob_id).unwrap().header
    }

    fn registration(&self, key: &SigningKey, blob_id: BlobId) -> Registration {
        self.ledger().registration(blob_id, &key.account()).unwrap()
    }

    /// The committee finds out that a blob was encoded wrongly.
    fn invalidate(&self, blob_id: BlobId) {
        let certificate = Box::new(self.invalidity(blob_id));
        self.ledger().execute(&stranger(), Action::InvalidateBlob { certificate });
    }

    /// Messages so far that brought slivers to any node.
    fn n_uploads(&self) -> usize {
        self.doubles.iter().map(|double| double.n_uploads()).sum()
    }

    fn invalidity(&self, blob_id: BlobId) -> InvalidityCertificate {
        let committee = Arc::new(self.genesis.committee().clone());
        let statement = InvalidityAttestation { epoch: committee.epoch(), blob_id };
        let network = self.genesis.network_id();
        let mut builder = CertificateBuilder::new(statement, &network, Arc::clone(&committee)).unwrap();
        for node in committee.nodes() {
            builder.add(&statement.sign(&network, node, &key(node.0))).unwrap();
        }
        builder.finish().unwrap()
    }
}

fn description(simulation: &Simulation, i: u16, peer: PeerId) -> NodeDescription {
    NodeDescription {
        name: format!("node-{i}"),
        public_key: key(i).public_key(),
        proof_of_possession: key(i).prove_possession(&peer),
        addresses: vec![simulation.address(peer).to_string()],
        operator: peer.into(),
        commission_bp: 0,
        capacity_bytes: 0,
    }
}

fn join(
    simulation: &Simulation,
    genesis: &Arc<Genesis>,
    peer: PeerId,
    config: ClientConfig,
) -> Client<SimulatedNetwork> {
    let (network, _inbound) = simulation.join(peer, genesis.network_id());
    Client::new(network, Arc::clone(genesis), Encoder::inline(genesis.n_shards()), config)
}

fn quiet() -> OnProgress {
    Arc::new(|_| {})
}

/// Collects what is reported.
fn recorded() -> (OnProgress, Arc<Mutex<Vec<Progress>>>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&log);
    (Arc::new(move |progress| writer.lock().unwrap().push(progress)), log)
}

/// Bytes that differ from segment to segment.
fn blob(len: usize) -> Vec<u8> {
    let mut state = 12_345_u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

/// Bytes of a full segment.
fn segment_bytes(n_shards: u16) -> usize {
    let shape = BlobShape::new(n_shards, 1 << 40).unwrap();
    usize::try_from(shape.range(protocol::SegmentIndex(0)).unwrap().end).unwrap()
}

const SECOND: Duration = Duration::from_secs(1);
const MILLIS: Duration = Duration::from_millis(1);

#[test]
fn long_operations_can_run_on_any_thread() {
    const fn is_send<T: Send>(_: &T) {}
    run(async {
        let cluster = Cluster::new(4, 4);
        let key = owner();
        is_send(&cluster.client.store(Arc::new(Vec::new()), &key, StoreOptions::default(), quiet()));
        is_send(&cluster.client.read(BlobId([0; 32]), Vec::new(), quiet()));
        is_send(&cluster.client.status(BlobId([0; 32])));
        is_send(&cluster.client.health());
    });
}

#[test]
fn health_is_asked_of_all_and_bounded() {
    run(async {
        let cluster = Cluster::new(10, 4);
        cluster.behave([1], &Manner::Silent);
        cluster.crash([2]);
        let started = tokio::time::Instant::now();
        let health = cluster.client.health().await;
        assert!(started.elapsed() <= 25 * SECOND);
        let shards: Vec<u16> = health.iter().map(|member| member.shards).collect();
        assert_eq!(shards, [3, 3, 2, 2]);
        assert_eq!(health[0].report.as_ref().unwrap().name, "node-0");
        assert_eq!(health[1].report.as_ref().unwrap_err(), "the peer did not answer in time");
        assert_eq!(health[2].report.as_ref().unwrap_err(), "the peer cannot be reached");
        assert!(health[3].report.is_ok());
    });
}
