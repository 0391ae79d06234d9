//! Repair between whole nodes on a simulated network.

use std::{sync::Arc, time::Duration};

use protocol::{
    PeerId, SegmentIndex, SliverPairIndex,
    bls::SecretKey,
    committee::{Member, spread},
    encoding::Axis,
    genesis::Genesis,
    message::SliverAt,
};
use storage::{
    Store,
    disk::{Disk as _, SimulatedDisk},
    index::MemoryIndex,
};
use swarm::simulated::{Plan, Simulation};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Client, ClientConfig, StoreOptions},
    encoder::Encoder,
    node::{Handles, Parts, Settings, start},
    sliver_store::Blocking,
    supervisor::Supervisor,
};

const N: u16 = 7;
const CLIENT: PeerId = PeerId([200; 32]);

pub(crate) struct Node {
    disk: SimulatedDisk,
    pub(crate) handles: Handles,
}

/// Seven nodes of one shard each.
pub(crate) struct Network {
    pub(crate) simulation: Simulation,
    pub(crate) genesis: Arc<Genesis>,
    pub(crate) nodes: Vec<Node>,
    _tasks: JoinSet<()>,
}

impl Network {
    pub(crate) async fn start(settings: Settings) -> Self {
        let simulation = Simulation::new(Plan::new(1));
        let key = |i: u8| SecretKey::from_seed(&[i; 32]);
        let peer = |i: u8| PeerId([i + 1; 32]);
        let members = (0..).zip(spread(N, N)).map(|(i, shards)| Member {
            name: format!("node-{i}"),
            peer: peer(i),
            public_key: key(i).public_key(),
            proof_of_possession: key(i).prove_possession(&peer(i)),
            addresses: vec![simulation.address(peer(i)).to_string()],
            shards,
        });
        let genesis = Arc::new(Genesis::new("test".to_owned(), N, members.collect()).unwrap());
        let (mut nodes, mut tasks) = (Vec::new(), JoinSet::new());
        for i in 0..u8::try_from(N).unwrap() {
            let disk = SimulatedDisk::new(u64::from(i));
            let config = storage::Config { reserve_bytes: 0, ..storage::Config::default() };
            let store = Store::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), config);
            let parts = Parts {
                name: format!("node-{i}"),
                genesis: Arc::clone(&genesis),
                key: key(i),
                network: simulation.join(peer(i), genesis.network_id()),
                store: Arc::new(store.unwrap().0),
                blocking: Blocking::Inline,
                encoder: Encoder::inline(N),
                settings,
            };
            let mut supervisor = Supervisor::new(Duration::from_secs(5));
            let handles = start(parts, &mut supervisor).await.unwrap();
            tasks.spawn(async move { supervisor.run(CancellationToken::new()).await.unwrap() });
            nodes.push(Node { disk, handles });
        }
        Self { simulation, genesis, nodes, _tasks: tasks }
    }

    /// Stores a blob, and returns the slivers that a node holds of it.
    async fn store(&self, data: &[u8], node: &Node) -> [SliverAt; 2] {
        let (network, _inbound) = self.simulation.join(CLIENT, self.genesis.network_id());
        let encoder = Encoder::inline(N);
        let client = Client::new(network, Arc::clone(&self.genesis), encoder, ClientConfig::default());
        let source = Arc::new(data.to_vec());
        let stored = client.store(source, StoreOptions::default(), Arc::new(|_| {})).await.unwrap();
        let (blob_id, segment) = (stored.blob_id, SegmentIndex(0));
        let membership = &node.handles.membership;
        let is_owned = |pair: &SliverPairIndex| membership.owner(&blob_id, segment, *pair) == membership.node;
        let pair = (0..N).map(SliverPairIndex).find(is_owned).unwrap();
        // Until the client no longer counts as sending it.
        tokio::time::sleep(Duration::from_secs(5)).await;
        [Axis::Primary, Axis::Secondary].map(|axis| SliverAt { blob_id, segment, pair, axis })
    }
}

impl Node {
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

#[test]
fn what_is_found_missing_while_a_segment_is_repaired_is_repaired_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let network = Network::start(Settings::default()).await;
        let node = &network.nodes[3];
        let data: Vec<u8> = (0..5_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let [primary, secondary] = network.store(&data, node).await;
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
