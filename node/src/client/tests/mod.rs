//! The client against doubles of storage nodes on a simulated network, under a paused clock.

mod double;
mod fake_ledger;
mod ledger;
mod reading;
mod storing;

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use protocol::{
    BlobId, NodeIndex, PeerId,
    bls::SecretKey,
    certificate::{CertificateBuilder, InvalidityAttestation, InvalidityCertificate, Statement as _},
    committee::{Member, spread},
    encoding::BlobShape,
    genesis::Genesis,
};
use swarm::simulated::{Plan, SimulatedNetwork, Simulation};
use tokio::task::JoinSet;

use self::{
    double::{Double, Manner},
    fake_ledger::FakeLedger,
};
use super::{
    Client, ClientConfig, OnProgress, Progress, ReadError, ReadSummary, StoreError, StoreOptions, Stored,
};
use crate::encoder::Encoder;

const CLIENT: PeerId = PeerId([200; 32]);

fn peer(i: u16) -> PeerId {
    PeerId([u8::try_from(i + 1).unwrap(); 32])
}

fn key(i: u16) -> SecretKey {
    SecretKey::from_seed(&[u8::try_from(i + 1).unwrap(); 32])
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test)
}

/// Nodes, the network between them, and a client.
struct Cluster {
    simulation: Simulation,
    genesis: Arc<Genesis>,
    doubles: Vec<Arc<Double>>,
    client: Client<SimulatedNetwork>,
    _servers: JoinSet<()>,
}

impl Cluster {
    fn new(n_shards: u16, n_members: u16) -> Self {
        Self::with(Plan::new(1), n_shards, n_members, ClientConfig::default())
    }

    fn with(plan: Plan, n_shards: u16, n_members: u16, config: ClientConfig) -> Self {
        let peers: Vec<PeerId> = (0..n_members).map(peer).collect();
        Self::build((Simulation::new(plan), config), n_shards, &peers, |genesis| (genesis, None))
    }

    /// A network of members with these identities, in ascending order, and a genesis to which something was added.
    fn build(
        (simulation, config): (Simulation, ClientConfig),
        n_shards: u16,
        peers: &[PeerId],
        complete: impl FnOnce(Genesis) -> (Genesis, Option<Arc<Mutex<FakeLedger>>>),
    ) -> Self {
        let shards = spread(n_shards, u16::try_from(peers.len()).unwrap());
        let members = (0..).zip(peers).zip(shards).map(|((i, peer), shards)| Member {
            name: format!("node-{i}"),
            peer: *peer,
            public_key: key(i).public_key(),
            proof_of_possession: key(i).prove_possession(peer),
            addresses: vec![simulation.address(*peer).to_string()],
            shards,
        });
        let genesis = Genesis::new("test".into(), n_shards, members.collect()).unwrap();
        let (genesis, ledger) = complete(genesis);
        let genesis = Arc::new(genesis);
        let mut servers = JoinSet::new();
        let mut doubles = Vec::new();
        for (i, peer) in (0..).zip(peers) {
            // Members are sorted by peer ID, which ascends with `i`.
            let double = Double::new(NodeIndex(i), key(i), Arc::clone(&genesis));
            let double = Arc::new(match &ledger {
                Some(ledger) => double.with_ledger(Arc::clone(ledger)),
                None => double,
            });
            let (_network, inbound) = simulation.join(*peer, genesis.network_id());
            servers.spawn(Arc::clone(&double).serve(inbound));
            doubles.push(double);
        }
        let (network, _inbound) = simulation.join(CLIENT, genesis.network_id());
        let client = Client::new(network, Arc::clone(&genesis), Encoder::inline(n_shards), config);
        Self { simulation, genesis, doubles, client, _servers: servers }
    }

    fn behave(&self, nodes: impl IntoIterator<Item = u16>, manner: &Manner) {
        for node in nodes {
            self.doubles[usize::from(node)].become_(manner.clone());
        }
    }

    fn crash(&self, nodes: impl IntoIterator<Item = u16>) {
        for node in nodes {
            self.simulation.crash(self.genesis.committee().member(NodeIndex(node)).unwrap().peer);
        }
    }

    async fn store(&self, data: &[u8]) -> Result<Stored, StoreError> {
        self.client.store(Arc::new(data.to_vec()), StoreOptions::default(), quiet()).await
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

#[test]
fn long_operations_can_run_on_any_thread() {
    const fn is_send<T: Send>(_: &T) {}
    run(async {
        let cluster = Cluster::new(4, 4);
        is_send(&cluster.client.store(Arc::new(Vec::new()), StoreOptions::default(), quiet()));
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
        assert!(started.elapsed() <= 20 * SECOND);
        let shards: Vec<u16> = health.iter().map(|member| member.shards).collect();
        assert_eq!(shards, [3, 3, 2, 2]);
        assert_eq!(health[0].report.as_ref().unwrap().name, "node-0");
        assert_eq!(health[1].report.as_ref().unwrap_err(), "the peer did not answer in time");
        assert_eq!(health[2].report.as_ref().unwrap_err(), "the peer cannot be reached");
        assert!(health[3].report.is_ok());
    });
}
