//! Whole nodes on a simulated network go from one epoch to the next.

use std::{collections::BTreeSet, time::Duration};

use protocol::{
    AccountId, BlobId, Epoch, ShardIndex,
    encoding::Axis,
    ledger::{
        parameters::Parameters,
        signature::SigningKey,
        state::entry::Stage,
        transaction::{Action, NodeDescription, Transaction},
    },
};
use tokio::time::Instant;

use crate::{
    ledger::View,
    node::Settings,
    repair::tests::{N, Network, Node, data, key, owner, run, store},
};

/// Blobs of which each member is sent one message, and several; one that is too small to be coded.
const SIZES: [u32; 3] = [10, 5_000, 2_000_000];

/// How long an epoch takes here, and how long what is done at once may.
const EPOCH: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(10);

fn rules() -> Parameters {
    Parameters { epoch_ms: 20_000, selection_ms: 8_000, min_stake: 5, ..Parameters::default() }
}

impl Network {
    /// Has a transaction executed by way of a node.
    async fn execute(&self, key: &SigningKey, action: Action) {
        let ledger = &self.nodes[0].handles.ledger;
        let nonce = ledger.view().state.account(&key.account()).unwrap().nonce;
        let transaction = Transaction { sender: key.account(), nonce, action };
        ledger.submit(transaction.sign(&self.genesis.network_id(), key).to_bytes()).await.unwrap();
        self.settle().await;
    }

    async fn stake(&self, node: usize, amount: u64) {
        let node = self.nodes[node].handles.membership.me();
        self.execute(&owner(), Action::Stake { node, amount }).await;
    }

    /// Registers a node that is on no committee.
    async fn register(&self, index: u8) {
        let signing = &self.nodes[usize::from(index)].signing;
        let peer = signing.peer();
        let description = NodeDescription {
            name: format!("node-{index}"),
            public_key: key(index).public_key(),
            proof_of_possession: key(index).prove_possession(&peer),
            addresses: vec![self.simulation.address(peer).to_string()],
            operator: AccountId::from(peer),
            commission_bp: 0,
            capacity_bytes: 0,
        };
        self.execute(signing, Action::RegisterNode { description: Box::new(description) }).await;
    }

    /// Waits until every node's ledger says this.
    async fn wait_for(&self, what: &str, mut is_so: impl FnMut(&View) -> bool) {
        let begin = Instant::now();
        for node in &self.nodes {
            let mut views = node.handles.ledger.watch();
            let waited = tokio::time::timeout(Duration::from_secs(60), views.wait_for(&mut is_so)).await;
            let head = || node.handles.ledger.view().state.head().unwrap();
            assert!(waited.is_ok(), "not {what} after {:?}: {:?}", begin.elapsed(), head());
        }
    }

    async fn wait_for_epoch(&self, epoch: u32) {
        self.wait_for("the epoch", |view| view.state.head().unwrap().epoch == Epoch(epoch)).await;
    }

    /// Waits until a node says that it is ready for the epoch.
    async fn wait_for_ready(&self, epoch: u32, node: usize) {
        let seat = self.nodes[node].handles.membership.now().unwrap().seat().unwrap();
        self.wait_for("ready", |view| view.state.is_ready(Epoch(epoch), seat.node).unwrap()).await;
    }

    async fn wait_for_stage(&self, what: &str, is_it: fn(Stage) -> bool) {
        self.wait_for(what, |view| is_it(view.state.head().unwrap().stage)).await;
    }
}

impl Node {
    fn shards(&self) -> Vec<ShardIndex> {
        self.handles.membership.now().unwrap().owed().shards().into_iter().collect()
    }

    async fn stored(&self) -> BTreeSet<ShardIndex> {
        self.handles.store.shards().await.unwrap().into_iter().collect()
    }

    /// What of blobs it lacks that it is to hold.
    fn lacks(&self, blobs: &[(BlobId, u32)]) -> usize {
        let seats = self.handles.membership.now().unwrap().owed();
        let slivers = blobs.iter().flat_map(|(blob_id, len)| {
            let shape = protocol::encoding::BlobShape::new(N, u64::from(*len)).unwrap();
            let segments: Vec<_> = shape.segments().collect();
            let of = |segment| seats.slivers(*blob_id, segment, shape.segment(segment).unwrap());
            segments.into_iter().flat_map(of).collect::<Vec<_>>()
        });
        slivers.filter(|at| !self.handles.store.has_sliver(at)).count()
    }
}

/// Waits until this is so, for no longer than this.
async fn becomes(what: &str, limit: Duration, is_so: impl AsyncFn() -> bool) {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < limit, "not {what} after {:?}", begin.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Blobs of every size.
async fn store_some(network: &Network) -> Vec<(BlobId, u32)> {
    let client = network.client();
    let mut blobs = Vec::new();
    for len in SIZES {
        blobs.push((store(&client, &data(len), &owner()).await.blob_id, len));
    }
    blobs
}

#[test]
fn a_stranger_is_selected_copies_what_it_gains_and_the_leaver_lets_go() {
    run(async {
        let network = Network::with(Settings::default(), rules(), 1).await;
        let blobs = store_some(&network).await;
        network.register(7).await;
        // All but the first member, and the stranger.
        for node in 1..=7 {
            network.stake(node, 10).await;
        }
        let (leaver, stranger) = (&network.nodes[0], &network.nodes[7]);
        let moving = leaver.shards();
        assert_eq!(stranger.shards(), []);
        network.wait_for_stage("selected", |stage| matches!(stage, Stage::Selected { .. })).await;
        assert_eq!(stranger.shards(), moving, "it gains what the leaver had");
        // It copies while the old epoch still runs.
        becomes("whole", SOON, async || stranger.lacks(&blobs) == 0).await;
        assert_eq!(stranger.handles.ledger.view().state.head().unwrap().epoch, Epoch(0));
        // Just what had to move, and what says so.
        let moved: usize = blobs
            .iter()
            .map(|(_, len)| {
                let shape = protocol::encoding::BlobShape::new(N, u64::from(*len)).unwrap();
                let shape = shape.segment(protocol::SegmentIndex(0)).unwrap();
                let axes: &[Axis] =
                    if shape.is_replicated() { &[Axis::Primary] } else { &[Axis::Primary, Axis::Secondary] };
                axes.iter().map(|axis| shape.sliver_bytes(*axis)).sum::<usize>()
            })
            .sum();
        let regained = stranger.handles.repair.regained_bytes();
        assert_eq!(regained, u64::try_from(moved).unwrap());
        let received = stranger.handles.repair.received_bytes();
        assert!(received < regained + 5_000, "{received} bytes received for {regained}");
        network.wait_for_epoch(1).await;
        network.wait_for_ready(1, 7).await;
        assert!(leaver.stored().await.is_superset(&moving.iter().copied().collect()), "its grace period");
        network.wait_for_stage("selected", |stage| matches!(stage, Stage::Selected { .. })).await;
        becomes("empty", SOON, async || leaver.stored().await.is_empty()).await;
        assert_eq!(stranger.lacks(&blobs), 0);
    });
}

#[test]
fn a_silent_owner_is_replaced_by_repair() {
    run(async {
        let network = Network::with(Settings::default(), rules(), 1).await;
        let blobs = store_some(&network).await;
        network.register(7).await;
        for node in 1..=7 {
            network.stake(node, 10).await;
        }
        let gone = network.nodes[0].handles.membership.me();
        network.simulation.crash(gone);
        let stranger = &network.nodes[7];
        becomes("selected", EPOCH, async || !stranger.shards().is_empty()).await;
        becomes("whole", SOON, async || stranger.lacks(&blobs) == 0).await;
    });
}
