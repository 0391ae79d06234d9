//! Repair between whole nodes on a simulated network.

use std::{future::Future, sync::Arc, time::Duration};

use protocol::{
    BlobId, PeerId, SegmentIndex,
    bls::SecretKey,
    committee::{Member, spread},
    encoding::Axis,
    genesis::{Endowment, Genesis, GenesisAccount},
    ledger::{parameters::Parameters, signature::SigningKey, transaction::Action},
    message::SliverAt,
};
use storage::{
    Store,
    disk::{Disk as _, SimulatedDisk},
    index::MemoryIndex,
};
use swarm::simulated::{Plan, SimulatedNetwork, Simulation};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    blobs::BlobStatus,
    client::{Client, ClientConfig, StoreOptions, Stored},
    encoder::Encoder,
    ledger::tests::{ledger_parts, signing_keys},
    node::{Handles, Parts, Settings, start},
    sliver_store::Blocking,
    supervisor::Supervisor,
};

pub(crate) const N: u16 = 7;
const CLIENT: PeerId = PeerId([200; 32]);

/// An account.
pub(crate) fn owner() -> SigningKey {
    SigningKey::from_secret(&[100; 32])
}

/// Another one.
fn stranger() -> SigningKey {
    SigningKey::from_secret(&[101; 32])
}

/// Different bytes.
pub(crate) fn data(len: u32) -> Vec<u8> {
    (0..len).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

pub(crate) async fn store(client: &Client<SimulatedNetwork>, data: &[u8], key: &SigningKey) -> Stored {
    let source = Arc::new(data.to_vec());
    client.store(source, key, StoreOptions::default(), Arc::new(|_| {})).await.unwrap()
}

/// Credits of the owner of blobs.
pub(crate) const CREDITS: u64 = 1_000_000;

/// The key by which node `i` vouches.
pub(crate) fn key(i: u8) -> SecretKey {
    SecretKey::from_seed(&[i; 32])
}

pub(crate) struct Node {
    disk: SimulatedDisk,
    pub(crate) handles: Handles,
    pub(crate) signing: SigningKey,
}

/// Seven nodes of one shard each, and perhaps some that are on no committee.
pub(crate) struct Network {
    pub(crate) simulation: Simulation,
    pub(crate) genesis: Arc<Genesis>,
    pub(crate) nodes: Vec<Node>,
    _tasks: JoinSet<()>,
}

impl Network {
    pub(crate) async fn start(settings: Settings) -> Self {
        Self::with(settings, Parameters::default(), 0).await
    }

    /// With these rules, and so many nodes that are on no committee. The owner has [`CREDITS`].
    pub(crate) async fn with(settings: Settings, parameters: Parameters, n_more: u8) -> Self {
        let simulation = Simulation::new(Plan::new(1));
        let (mut signing, began) = (signing_keys(N), Instant::now());
        signing.extend((0..n_more).map(|i| SigningKey::from_secret(&[50 + i; 32])));
        let peer = |i: u8| signing[usize::from(i)].peer();
        let members = (0..).zip(spread(N, N)).map(|(i, shards)| Member {
            name: format!("node-{i}"),
            peer: peer(i),
            public_key: key(i).public_key(),
            proof_of_possession: key(i).prove_possession(&peer(i)),
            addresses: vec![simulation.address(peer(i)).to_string()],
            shards,
        });
        let genesis = Genesis::new("test".to_owned(), N, members.collect()).unwrap();
        let accounts = vec![GenesisAccount { account: owner().account(), balance: CREDITS }];
        let endowment = Endowment { accounts, parameters, ..Endowment::default() };
        let genesis = Arc::new(genesis.with_endowment(endowment).unwrap());
        let (mut nodes, mut tasks) = (Vec::new(), JoinSet::new());
        for i in 0..u8::try_from(signing.len()).unwrap() {
            let disk = SimulatedDisk::new(u64::from(i));
            let config = storage::Config { reserve_bytes: 0, ..storage::Config::default() };
            let store = Store::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), config);
            let parts = Parts {
                name: format!("node-{i}"),
                genesis: Arc::clone(&genesis),
                key: key(i),
                network: simulation.join(peer(i), genesis.network_id()),
                store: Arc::new(store.unwrap().0),
                ledger: ledger_parts(
                    &signing[usize::from(i)],
                    &SimulatedDisk::new(100 + u64::from(i)),
                    began,
                ),
                blocking: Blocking::Inline,
                encoder: Encoder::inline(N),
                bootstrap: Vec::new(),
                settings,
            };
            let mut supervisor = Supervisor::new(Duration::from_secs(5));
            let handles = start(parts, &mut supervisor).await.unwrap();
            tasks.spawn(async move { supervisor.run(CancellationToken::new()).await.unwrap() });
            nodes.push(Node { disk, handles, signing: signing[usize::from(i)].clone() });
        }
        Self { simulation, genesis, nodes, _tasks: tasks }
    }

    pub(crate) fn client(&self) -> Client<SimulatedNetwork> {
        let (network, _inbound) = self.simulation.join(CLIENT, self.genesis.network_id());
        Client::new(network, Arc::clone(&self.genesis), Encoder::inline(N), ClientConfig::default())
    }

    /// Stores a blob, and returns the slivers that a node holds of it.
    async fn store(&self, data: &[u8], node: &Node) -> [SliverAt; 2] {
        let stored = store(&self.client(), data, &owner()).await;
        // Until the client no longer counts as sending it.
        tokio::time::sleep(Duration::from_secs(5)).await;
        node.slivers_of(stored.blob_id)
    }

    /// How many slivers of a blob of one segment all nodes hold.
    fn n_slivers(&self, blob_id: BlobId) -> usize {
        let held = |node: &Node| {
            let slivers = node.slivers_of(blob_id);
            slivers.iter().filter(|at| node.handles.store.has_sliver(at)).count()
        };
        self.nodes.iter().map(held).sum()
    }

    /// Waits until every node has executed as much as any.
    pub(crate) async fn settle(&self) {
        let height = |node: &Node| node.handles.ledger.view().height();
        let highest = self.nodes.iter().map(height).max().unwrap();
        for node in &self.nodes {
            let mut views = node.handles.ledger.watch();
            views.wait_for(|view| view.height() >= highest).await.unwrap();
        }
    }
}

impl Node {
    /// The slivers that the node is to hold of a blob of one segment.
    fn slivers_of(&self, blob_id: BlobId) -> [SliverAt; 2] {
        let segment = SegmentIndex(0);
        let seat = self.handles.membership.now().unwrap().seat().unwrap();
        let pair = seat.committee.pair_of(&blob_id, segment, seat.shards()[0]);
        [Axis::Primary, Axis::Secondary].map(|axis| SliverAt { blob_id, segment, pair, axis })
    }

    async fn lose(&self, at: SliverAt) {
        let (parity, sliver) = self.handles.store.read_whole_sliver(at).await.unwrap();
        self.handles.store.drop_wrong_sliver(at, parity, &sliver).await.unwrap();
        assert!(!self.handles.store.has_sliver(&at));
    }

    /// Flips a bit of a sliver on the disk.
    async fn rot(&self, at: SliverAt) {
        let (_, sliver) = self.handles.store.read_whole_sliver(at).await.unwrap();
        let mut n_flipped = 0;
        for name in self.disk.list().unwrap() {
            let file = self.disk.open(&name).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_at(0, &mut bytes).unwrap();
            for (offset, window) in (0..).zip(bytes.windows(sliver.len())) {
                if window == sliver {
                    n_flipped += u32::from(self.disk.flip(&name, offset, 1));
                }
            }
        }
        assert_eq!(n_flipped, 1);
        assert!(self.handles.store.read_whole_sliver(at).await.is_err());
    }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(test);
}

#[test]
fn what_is_found_missing_while_a_segment_is_repaired_is_repaired_at_once() {
    run(async {
        let network = Network::start(Settings::default()).await;
        let node = &network.nodes[3];
        let [primary, secondary] = network.store(&data(5_000), node).await;
        let whole = [primary, secondary].map(|at| node.handles.store.has_sliver(&at));
        assert_eq!(whole, [true, true]);
        node.lose(primary).await;
        // Read when the primary sliver is rebuilt, when the secondary ones have been looked at already.
        node.rot(secondary).await;
        let (begin, mut report) = (Instant::now(), node.handles.repair.report());
        node.handles.repair.hint(primary.blob_id);
        while node.handles.repair.corrupt() == 0 || !report.is_settled {
            tokio::time::sleep(Duration::from_millis(50)).await;
            report = node.handles.repair.report();
            assert!(begin.elapsed() < Duration::from_secs(10), "{report:?}");
        }
        for at in [primary, secondary] {
            assert!(node.handles.store.read_whole_sliver(at).await.is_ok(), "{at:?}");
        }
    });
}

/// Blobs of which each member is sent one message, and several.
const SIZES: [u32; 2] = [5_000, 2_000_000];

#[test]
fn a_blob_deleted_on_the_ledger_is_dropped_at_once() {
    for len in SIZES {
        run(async {
            let network = Network::start(Settings::default()).await;
            let client = network.client();
            let data = data(len);
            let blob_id = store(&client, &data, &owner()).await.blob_id;
            network.settle().await;
            assert_eq!(network.n_slivers(blob_id), 14);
            client.submit(Action::DeleteBlob { blob_id }, &owner()).await.unwrap();
            network.settle().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(network.n_slivers(blob_id), 0);
            for node in &network.nodes {
                assert!(!node.handles.store.has_commitment(blob_id, SegmentIndex(0)));
                assert!(!node.handles.store.has_order(blob_id));
                assert_eq!(node.handles.blobs.status(blob_id), Ok(BlobStatus::Unknown));
            }
            // And it may come back.
            let stored = store(&client, &data, &owner()).await;
            assert!(!stored.already_certified);
            network.settle().await;
            assert_eq!(network.n_slivers(blob_id), 14);
        });
    }
}

#[test]
fn a_blob_that_another_account_has_registered_too_stays() {
    for len in SIZES {
        run(async {
            let network = Network::start(Settings::default()).await;
            let client = network.client();
            let data = data(len);
            let blob_id = store(&client, &data, &owner()).await.blob_id;
            store(&client, &data, &stranger()).await;
            client.submit(Action::DeleteBlob { blob_id }, &owner()).await.unwrap();
            network.settle().await;
            // Nor does the next pass over all blobs drop it.
            tokio::time::sleep(Duration::from_secs(1_000)).await;
            assert_eq!(network.n_slivers(blob_id), 14);
            let (_, read) = client.read(blob_id, Vec::new(), Arc::new(|_| {})).await.unwrap();
            assert!(read == data);
            // Until it is deleted as well.
            client.submit(Action::DeleteBlob { blob_id }, &stranger()).await.unwrap();
            network.settle().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(network.n_slivers(blob_id), 0);
        });
    }
}
