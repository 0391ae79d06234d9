//! Single stories told on a simulated network: what happens is written out step by step, and every promise is looked at
//! in the end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use node::{
    client::{StoreOptions, SubmitError},
    exchange::{ExchangeError, ask},
};
use protocol::{
    BlobId, NodeIndex, PeerId, SegmentIndex, SliverPairIndex,
    certificate::Persistence,
    commitment::BlobHeader,
    encoding::{Axis, BlobShape, EncodedSegment, SegmentEncoder},
    genesis::Genesis,
    ledger::transaction::Action,
    message::{Request, SliverAt},
};
use rand::RngCore as _;
use swarm::Network;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{
    byzantine::Behaviour,
    model::Violation,
    operators::{self, Operated},
    oracle,
    plan::Plan,
    run::{ACKNOWLEDGEMENTS, PENDING_MAX, WHOLE_MAX, simulate},
    workload::{User, silent},
    world::World,
};

/// How long a party that sends parts of blobs waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A network on which a story is told, and a user of it.
pub struct Story {
    /// The nodes.
    pub world: World,
    user: User,
    acknowledged: mpsc::Receiver<BlobId>,
    acknowledgements: mpsc::Sender<BlobId>,
    /// Who was faulty at some time.
    ever_faulty: BTreeSet<PeerId>,
    n_users: u64,
}

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Story").field("world", &self.world).finish_non_exhaustive()
    }
}

/// Tells a story on the network of a plan, then ends all faults and looks at every promise. Returns those that were
/// broken.
///
/// # Panics
///
/// If the story does, or a node does not start on what its disk holds.
#[must_use]
pub fn tell(plan: Plan, story: impl AsyncFnOnce(&mut Story)) -> Vec<Violation> {
    simulate(async {
        let mut told = Box::pin(Story::begin(plan)).await;
        Box::pin(story(&mut told)).await;
        Box::pin(told.end()).await
    })
}

impl Story {
    async fn begin(plan: Plan) -> Self {
        let mut world = World::start(plan).await;
        operators::open(&mut world).await;
        let (acknowledgements, acknowledged) = mpsc::channel(ACKNOWLEDGEMENTS);
        let user = user(&mut world, 100, &acknowledgements);
        Self { world, user, acknowledged, acknowledgements, ever_faulty: BTreeSet::new(), n_users: 1 }
    }

    /// Stores as many random bytes. An acknowledgement is compared with the disks of those who vouched (D2).
    ///
    /// # Errors
    ///
    /// What the client says if it was not acknowledged.
    pub async fn store(&mut self, bytes: usize) -> Result<(), String> {
        let data = self.bytes(bytes);
        self.store_this(&data).await
    }

    /// Stores as many random bytes for as many epochs; no promise is looked at for a blob that ends. Returns its ID.
    ///
    /// # Errors
    ///
    /// What the client says if it was not acknowledged.
    pub async fn store_for(&mut self, bytes: usize, epochs: u32) -> Result<BlobId, String> {
        let source = Arc::new(self.bytes(bytes).to_vec());
        let options = StoreOptions { persistence: Persistence::Permanent, epochs };
        let stored = self.user.client.store(source, &self.user.key, options, silent()).await;
        stored.map(|stored| stored.blob_id).map_err(|error| error.to_string())
    }

    /// Random bytes.
    pub fn bytes(&mut self, bytes: usize) -> Arc<Vec<u8>> {
        let mut data = vec![0; bytes];
        self.user.rng.fill_bytes(&mut data);
        Arc::new(data)
    }

    /// Stores these bytes; see [`Self::store`].
    ///
    /// # Errors
    ///
    /// What the client says if it was not acknowledged.
    pub async fn store_this(&mut self, data: &Arc<Vec<u8>>) -> Result<(), String> {
        let result = self.user.store(data).await;
        self.look_at_acknowledged();
        result
    }

    fn look_at_acknowledged(&mut self) {
        while let Ok(blob_id) = self.acknowledged.try_recv() {
            oracle::certificate_is_backed(&self.world, blob_id);
        }
    }

    /// Another user, who stores as many blobs of as many bytes, one after the other, beside what else happens. Says how
    /// many were acknowledged.
    pub fn store_aside(&mut self, blobs: usize, bytes: usize) -> JoinSet<usize> {
        self.n_users += 1;
        let mut user = user(&mut self.world, 100 + self.n_users, &self.acknowledgements);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut n_acknowledged = 0;
            for _ in 0..blobs {
                let mut data = vec![0; bytes];
                user.rng.fill_bytes(&mut data);
                n_acknowledged += usize::from(user.store(&Arc::new(data)).await.is_ok());
            }
            n_acknowledged
        });
        tasks
    }

    /// Waits for another user to come to an end, which must happen in bounded time (L1).
    pub async fn join(&mut self, mut user: JoinSet<usize>) -> usize {
        let end = tokio::time::timeout(PENDING_MAX, user.join_next()).await;
        self.look_at_acknowledged();
        match end {
            Ok(Some(Ok(n_acknowledged))) => n_acknowledged,
            other => {
                self.world.model().violation("L1", format!("a client does not come to an end: {other:?}"));
                0
            }
        }
    }

    /// Makes a node faulty from now on.
    pub fn corrupt(&mut self, node: NodeIndex, behaviour: Behaviour) {
        let peer = self.world.peer(node);
        self.world.peers.corrupt(peer, behaviour);
        self.ever_faulty.insert(peer);
    }

    /// Gives a node an empty disk, and starts it again.
    pub async fn replace_disk(&mut self, node: NodeIndex) {
        self.world.kill(node).await;
        self.world.wipe(node);
        self.world.restart(node).await;
    }

    /// Cuts everybody's power, and starts all of them again after a while.
    pub async fn black_out(&mut self, pause: Duration) {
        for node in self.world.all() {
            self.world.crash(node).await;
        }
        tokio::time::sleep(pause).await;
        for node in self.world.all() {
            self.world.restart(node).await;
        }
    }

    /// Has a node leave, or come back, on the ledger.
    ///
    /// # Errors
    ///
    /// Why the ledger does not have it so.
    pub async fn set_active(&mut self, node: NodeIndex, is_active: bool) -> Result<(), SubmitError> {
        let Operated { peer, signing, description } = self.world.operated().swap_remove(node.as_usize());
        let action = match is_active {
            true => Action::RegisterNode { description: Box::new(description) },
            false => Action::LeaveNode { node: peer },
        };
        self.user.client.submit(action, &signing).await.map(drop)
    }

    /// Waits until something is so, and starts nodes again that end meanwhile; not within `limit` breaks a promise (L8). Looks at
    /// what is promised of epochs all the while. Returns how many nodes ended.
    pub async fn until(&mut self, limit: Duration, what: &str, is_so: impl Fn(&World) -> bool) -> usize {
        let (start, mut n_ended) = (Instant::now(), 0);
        loop {
            for node in self.world.reap().await {
                n_ended += 1;
                self.world.crash(node).await;
                self.world.restart(node).await;
            }
            operators::look(&self.world);
            if is_so(&self.world) {
                return n_ended;
            }
            if start.elapsed() > limit {
                self.world.model().violation("L8", format!("not {what} after {:?}", start.elapsed()));
                return n_ended;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// True if the node knows what all others know and holds all that it owes.
    #[must_use]
    pub fn is_whole(&self, node: NodeIndex) -> bool {
        oracle::is_whole(&self.world, node)
    }

    /// Waits until every node is whole, and says for how long; not within `limit` breaks a promise (D3).
    pub async fn becomes_whole(&mut self, limit: Duration) -> Duration {
        let start = Instant::now();
        oracle::becomes_whole(&mut self.world, limit).await;
        start.elapsed()
    }

    /// Waits until every node that runs knows that a blob is invalid and keeps nothing of it; not within a minute breaks
    /// a promise (H5).
    pub async fn becomes_invalid(&self, blob_id: BlobId) {
        oracle::becomes_invalid(&self.world, blob_id, WHOLE_MAX).await;
        oracle::is_let_go(&self.world, blob_id, WHOLE_MAX).await;
    }

    /// Ends all faults, and looks at every promise.
    async fn end(mut self) -> Vec<Violation> {
        let Self { world, user, ever_faulty, .. } = &mut self;
        for node in world.all() {
            world.peers.reform(world.peer(node));
            world.disk(node).set_capacity(None);
            world.restart(node).await;
        }
        world.simulation.heal();
        world.simulation.reset_links();
        for node in world.all() {
            oracle::nothing_acknowledged_was_lost(world, node);
        }
        oracle::becomes_whole(world, WHOLE_MAX).await;
        oracle::what_is_listed_is_readable(world, user).await;
        oracle::all_read_with_f_down(world, user).await;
        oracle::becomes_whole(world, WHOLE_MAX).await;
        oracle::slivers_are_the_encoders(world);
        oracle::no_honest_node_was_blamed(world, ever_faulty);
        std::mem::take(&mut world.model().violations)
    }
}

fn user(world: &mut World, purpose: u64, acknowledgements: &mpsc::Sender<BlobId>) -> User {
    User {
        client: world.client(),
        key: world.wallet(purpose),
        rng: world.rng(purpose),
        model: world.shared_model(),
        acknowledgements: acknowledgements.clone(),
    }
}

/// A blob of one segment of which a node is sent a part and no more.
#[derive(Debug)]
pub struct PartialUpload {
    genesis: Arc<Genesis>,
    segment: EncodedSegment,
    header: BlobHeader,
}

impl PartialUpload {
    /// Encodes `data`.
    ///
    /// # Panics
    ///
    /// If `data` takes more than one segment.
    #[must_use]
    pub fn new(genesis: Arc<Genesis>, data: &[u8]) -> Self {
        let n = genesis.n_shards();
        let length = u64::try_from(data.len()).expect("a small blob");
        let shape = BlobShape::new(n, length).expect("a small blob");
        assert_eq!(shape.n_segments(), 1, "a small blob");
        let segment_shape = shape.segment(SegmentIndex(0)).expect("the first segment exists");
        let segment = SegmentEncoder::new(n).encode(segment_shape, data);
        let header = BlobHeader::new(&shape, &[segment.commitment().root()]);
        Self { genesis, segment, header }
    }

    /// The ID of the blob.
    #[must_use]
    pub fn blob_id(&self) -> BlobId {
        self.header.blob_id()
    }

    /// Sends a node the commitment and one of its secondary slivers.
    ///
    /// # Errors
    ///
    /// [`ExchangeError`].
    ///
    /// # Panics
    ///
    /// If there is no such node.
    pub async fn send<N: Network>(&self, network: &N, node: NodeIndex) -> Result<(), ExchangeError> {
        let (blob_id, segment) = (self.blob_id(), SegmentIndex(0));
        let committee = self.genesis.committee();
        let member = committee.member(node).expect("the node is a member");
        let request = Request::StoreCommitment { header: self.header, segment, path: Vec::new() };
        let commitment = self.segment.commitment().to_bytes();
        ask(network, member.peer, (&request, commitment.into()), TIMEOUT).await?;
        let shard = *committee.shards(node).first().expect("every member has a shard");
        let pair: SliverPairIndex = committee.pair_of(&blob_id, segment, shard);
        let axis = Axis::Secondary;
        let request = Request::StoreSliver { at: SliverAt { blob_id, segment, pair, axis }, offset: 0 };
        let sliver = Bytes::copy_from_slice(self.segment.sliver_of_pair(axis, pair));
        ask(network, member.peer, (&request, sliver), TIMEOUT).await?;
        Ok(())
    }
}
