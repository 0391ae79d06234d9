//! Uploads over a store that runs: what is given up gives its room back.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::{
    AccountId, BlobId, Epoch, PeerId, RegistrationId, SegmentIndex, ShardIndex, SliverPairIndex,
    bls::SecretKey,
    certificate::{MemberSignature, Persistence, Statement as _, StorageConfirmation},
    commitment::BlobHeader,
    committee::Member,
    encoding::{Axis, BlobShape, EncodedSegment, SegmentEncoder},
    genesis::{Endowment, Genesis, GenesisAccount},
    hash::Hash,
    ledger::{
        parameters::Parameters,
        signature::SigningKey,
        transaction::{Action, Transaction},
    },
    message::{RANGE_BYTES_MAX, Refusal, Request, SliverAt},
};
use storage::disk::SimulatedDisk;
use swarm::{
    InboundReceiver, Network as _,
    simulated::{Plan, Simulation},
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Config, StaleUploads, Uploads};
use crate::{
    blobs::Blobs,
    commitments::CommitmentCache,
    encoder::Encoder,
    exchange::{ExchangeError, ask},
    ledger::{self, Ledger, tests::ledger_parts},
    membership::{Membership, Seat},
    node::{Settings, introduce_members},
    repair::tests::Network,
    sliver_store::{Blocking, tests::Bench},
};

const N: u16 = 7;
const ALICE: PeerId = PeerId([2; 32]);
const BOB: PeerId = PeerId([3; 32]);
const TTL: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
/// Bytes of a blob of which a row takes three parts.
const LARGE: usize = 1_500_000;

fn key() -> SecretKey {
    SecretKey::from_seed(&[1; 32])
}

/// Accounts, of which the first two can pay for what they store.
fn account(i: u8) -> SigningKey {
    SigningKey::from_secret(&[100 + i; 32])
}

const OWNER: u8 = 0;
const STRANGER: u8 = 1;
const PAUPER: u8 = 2;

/// A network of one member, which holds all shards, and where storage is not free of charge.
fn lone_genesis(simulation: &Simulation, identity: &SigningKey) -> Genesis {
    let peer = identity.peer();
    let member = Member {
        name: "alone".to_owned(),
        peer,
        public_key: key().public_key(),
        proof_of_possession: key().prove_possession(&peer),
        addresses: vec![simulation.address(peer).to_string()],
        shards: (0..N).map(ShardIndex).collect(),
    };
    let rich = |i| GenesisAccount { account: account(i).account(), balance: 1_000_000 };
    let endowment = Endowment {
        accounts: vec![rich(OWNER), rich(STRANGER)],
        parameters: Parameters { storage_price: 1, ..Parameters::default() },
        ..Endowment::default()
    };
    Genesis::new("test".to_owned(), N, vec![member]).unwrap().with_endowment(endowment).unwrap()
}

/// Uploads to a node that holds all shards, and a blob of one segment whose rows take three parts.
struct Fixture {
    uploads: Uploads,
    config: Config,
    membership: Membership,
    ledger: Ledger,
    encoder: Encoder,
    header: BlobHeader,
    segment: EncodedSegment,
    tasks: JoinSet<()>,
    bench: Bench,
    _inbound: InboundReceiver,
}

async fn blob(encoder: &Encoder, len: usize, byte: u8) -> (BlobHeader, EncodedSegment) {
    let shape = BlobShape::new(N, u64::try_from(len).unwrap()).unwrap();
    let segment_shape = shape.segment(SegmentIndex(0)).unwrap();
    let encode = move |encoder: &mut SegmentEncoder| encoder.encode(segment_shape, &vec![byte; len]);
    let segment = encoder.run(encode).await.unwrap();
    (BlobHeader::new(&shape, &[segment.commitment().root()]), segment)
}

/// The registration that an account makes with this nonce.
fn registration(of: u8, nonce: u64) -> RegistrationId {
    RegistrationId { owner: account(of).account(), nonce }
}

impl Fixture {
    async fn new() -> Self {
        Self::with(Config { pending_ttl: TTL, ..Config::default() }).await
    }

    async fn with(config: Config) -> Self {
        let fixture = Self::empty(config).await;
        fixture.send_commitment().await;
        fixture
    }

    /// Without the commitment of the blob.
    async fn empty(config: Config) -> Self {
        let (simulation, identity) = (Simulation::new(Plan::new(1)), SigningKey::from_secret(&[1; 32]));
        let genesis = Arc::new(lone_genesis(&simulation, &identity));
        let (bench, encoder) = (Bench::new(N, 0), Encoder::inline(N));
        let (network, inbound) = simulation.join(identity.peer(), genesis.network_id());
        let parts = ledger_parts(&identity, &SimulatedDisk::new(2), Instant::now());
        let starting =
            ledger::Actor::new(ledger::Config::default(), parts, genesis, network, Blocking::Inline);
        let (actor, ledger) = starting.await.unwrap();
        let membership = Membership::new(identity.peer(), ledger.watch());
        let mut tasks = JoinSet::new();
        tasks.spawn(actor.run(CancellationToken::new()));
        let (header, segment) = blob(&encoder, LARGE, 7).await;
        let uploads = Uploads::new(
            config,
            (membership.clone(), key()),
            (bench.store.clone(), Blobs::new(ledger.clone())),
            CommitmentCache::new(bench.store.clone()),
            encoder.clone(),
        );
        let _inbound = inbound;
        Self { uploads, config, membership, ledger, encoder, header, segment, tasks, bench, _inbound }
    }

    /// Forgets all that is not on the disk, as a restart does.
    async fn restart(&mut self) {
        self.uploads = Uploads::new(
            self.config,
            (self.membership.clone(), key()),
            (self.bench.store.clone(), Blobs::new(self.ledger.clone())),
            CommitmentCache::new(self.bench.store.clone()),
            self.encoder.clone(),
        );
        self.uploads.find_orders().await.unwrap();
        self.uploads.find_pending().await.unwrap();
    }

    fn run_stale_uploads(&mut self) {
        self.tasks.spawn(StaleUploads::new(self.uploads.clone()).run(CancellationToken::new()));
    }

    async fn send_commitment(&self) {
        let bytes = self.segment.commitment().to_bytes().into();
        self.uploads.commitment(self.header, SegmentIndex(0), Vec::new(), bytes).await.unwrap();
    }

    fn blob_id(&self) -> BlobId {
        self.header.blob_id()
    }

    fn first(&self) -> SliverAt {
        let (blob_id, segment) = (self.blob_id(), SegmentIndex(0));
        SliverAt { blob_id, segment, pair: SliverPairIndex(0), axis: Axis::Primary }
    }

    /// Sends one part of the first primary sliver.
    async fn send(&self, from: PeerId, part: usize) -> Result<(), Refusal> {
        let at = self.first();
        assert_eq!(self.segment.sliver_of_pair(at.axis, at.pair).len().div_ceil(RANGE_BYTES_MAX), 3);
        self.send_part(from, at, part * RANGE_BYTES_MAX).await
    }

    async fn send_part(&self, from: PeerId, at: SliverAt, start: usize) -> Result<(), Refusal> {
        let sliver = self.segment.sliver_of_pair(at.axis, at.pair);
        let end = sliver.len().min(start + RANGE_BYTES_MAX);
        let bytes = Bytes::copy_from_slice(&sliver[start..end]);
        self.uploads.part(from, at, u32::try_from(start).unwrap(), bytes).await
    }

    /// Sends all slivers.
    async fn send_slivers(&self) -> Result<(), Refusal> {
        for pair in (0..N).map(SliverPairIndex) {
            for axis in [Axis::Primary, Axis::Secondary] {
                let at = SliverAt { pair, axis, ..self.first() };
                for start in (0..self.segment.sliver_of_pair(axis, pair).len()).step_by(RANGE_BYTES_MAX) {
                    self.send_part(ALICE, at, start).await?;
                }
            }
        }
        Ok(())
    }

    fn seat(&self) -> Seat {
        self.membership.now().unwrap().seat().unwrap()
    }

    /// What a client sends of a blob in one message, behind the order.
    fn payload(&self, (header, segment): &(BlobHeader, EncodedSegment)) -> Bytes {
        let mut payload = segment.commitment().to_bytes();
        for at in self.seat().slivers(header.blob_id(), SegmentIndex(0), segment.shape()) {
            payload.extend_from_slice(segment.sliver_of_pair(at.axis, at.pair));
        }
        payload.into()
    }

    /// Sends a blob in one message.
    async fn send_blob(
        &self,
        blob: &(BlobHeader, EncodedSegment),
        registration: RegistrationId,
        order: Vec<u8>,
    ) -> Result<MemberSignature, Refusal> {
        self.uploads.blob(blob.0, (registration, Epoch(0)), (order.into(), self.payload(blob))).await
    }

    /// A small blob.
    async fn small(&self, byte: u8) -> (BlobHeader, EncodedSegment) {
        blob(&self.encoder, 5_000, byte).await
    }

    fn sign(&self, by: u8, nonce: u64, action: Action) -> Vec<u8> {
        let key = account(by);
        Transaction { sender: key.account(), nonce, action }
            .sign(&self.membership.now().unwrap().network, &key)
            .to_bytes()
    }

    /// The transaction by which an account registers a blob.
    fn order(&self, header: BlobHeader, by: u8, nonce: u64) -> Vec<u8> {
        let (persistence, end_epoch) = (Persistence::Deletable, Epoch(3));
        self.sign(by, nonce, Action::RegisterBlob { header, persistence, end_epoch })
    }

    async fn execute(&self, transaction: Vec<u8>) {
        self.ledger.submit(transaction).await.unwrap();
        tokio::task::yield_now().await;
    }

    /// Checks that this is the node's word for a registration.
    fn check(&self, header: BlobHeader, registration: RegistrationId, signature: &MemberSignature) {
        let (network, Seat { committee, node }) = (self.membership.now().unwrap().network, self.seat());
        let statement =
            StorageConfirmation { epoch: committee.epoch(), blob_id: header.blob_id(), registration };
        assert_eq!(*signature, statement.sign(&network, node, &key()));
    }

    fn n_in_the_making(&self) -> usize {
        self.uploads.bytes_in_the_making()
            / self.segment.sliver_of_pair(Axis::Primary, SliverPairIndex(0)).len()
    }

    /// Number of slivers of a small blob that are here.
    fn n_held(&self, header: BlobHeader) -> usize {
        let shape = header.verify().unwrap().shape().segment(SegmentIndex(0)).unwrap();
        let seat = self.seat();
        let slivers = seat.slivers(header.blob_id(), SegmentIndex(0), shape);
        slivers.filter(|at| self.bench.store.has_sliver(at)).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_gone_holds_no_room() {
    let fixture = Fixture::new().await;
    fixture.send(ALICE, 0).await.unwrap();
    fixture.send(BOB, 0).await.unwrap();
    assert_eq!(fixture.n_in_the_making(), 2);
    fixture.uploads.peer_left(ALICE);
    assert_eq!(fixture.n_in_the_making(), 1);
    // What it sends when it is back begins anew; the other one goes on.
    fixture.send(ALICE, 1).await.unwrap();
    fixture.send(BOB, 1).await.unwrap();
    assert_eq!(fixture.n_in_the_making(), 2);
    fixture.send(BOB, 2).await.unwrap();
    assert_eq!(fixture.n_in_the_making(), 0, "written, so nobody else needs to send it");
}

#[tokio::test(start_paused = true)]
async fn a_sliver_that_was_repaired_meanwhile_is_in_the_making_no_more() {
    let fixture = Fixture::new().await;
    fixture.send(ALICE, 0).await.unwrap();
    fixture.send(BOB, 0).await.unwrap();
    fixture.bench.store.put_sliver(fixture.first(), Hash([0; 32]), &[7]).await.unwrap();
    fixture.send(BOB, 1).await.unwrap();
    assert_eq!(fixture.n_in_the_making(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_is_dropped_or_invalid_holds_no_room() {
    let fixture = Fixture::new().await;
    fixture.send(ALICE, 0).await.unwrap();
    tokio::time::sleep(TTL + Duration::from_secs(1)).await;
    assert_eq!(fixture.n_in_the_making(), 1);
    assert_eq!(fixture.uploads.drop_stale().await.unwrap(), 1);
    assert_eq!(fixture.n_in_the_making(), 0);
    assert_eq!(fixture.send(ALICE, 1).await, Err(Refusal::NotFound), "its commitment went too");
    fixture.send_commitment().await;
    fixture.send(ALICE, 0).await.unwrap();
    fixture.uploads.forget(fixture.blob_id());
    assert_eq!(fixture.n_in_the_making(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sliver_that_nobody_goes_on_with_gives_its_room_back_by_itself() {
    let mut fixture = Fixture::new().await;
    fixture.tasks.spawn(StaleUploads::new(fixture.uploads.clone()).run(CancellationToken::new()));
    fixture.send(ALICE, 0).await.unwrap();
    let idle_max = Config::default().idle_max;
    tokio::time::sleep(idle_max).await;
    assert_eq!(fixture.n_in_the_making(), 1);
    tokio::time::sleep(idle_max + Duration::from_secs(1)).await;
    assert_eq!(fixture.n_in_the_making(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_room_of_a_client_that_has_gone_is_there_for_the_next() {
    let (header, segment) = blob(&Encoder::inline(N), LARGE, 7).await;
    let sliver = segment.sliver_of_pair(Axis::Primary, SliverPairIndex(0));
    // Room for one sliver of each of two clients.
    let upload = Config { assembly_bytes: 2 * sliver.len(), ..Config::default() };
    let network = Network::start(Settings { upload, ..Settings::default() }).await;
    let seat = network.nodes[0].handles.membership.now().unwrap().seat().unwrap();
    let (blob_id, index, axis) = (header.blob_id(), SegmentIndex(0), Axis::Primary);
    let pair = seat.committee.pair_of(&blob_id, index, seat.shards()[0]);
    let to = network.nodes[0].handles.membership.me();
    let clients = [ALICE, BOB, PeerId([4; 32])].map(|PeerId(id)| {
        let peer = PeerId([id[0] + 100; 32]);
        let (client, inbound) = network.simulation.join(peer, network.genesis.network_id());
        introduce_members(&client, &network.genesis);
        (peer, client, inbound)
    });
    let commitment = Request::StoreCommitment { header, segment: index, path: Vec::new() };
    let bytes = Bytes::from(segment.commitment().to_bytes());
    let timeout = Duration::from_secs(5);
    clients[0].1.connected().wait_until(|peers| peers.contains(&to)).await;
    ask(&clients[0].1, to, (&commitment, bytes), timeout).await.unwrap();
    let send = async |client: usize| {
        let at = SliverAt { blob_id, segment: index, pair, axis };
        let part = Bytes::copy_from_slice(&segment.sliver_of_pair(axis, pair)[..RANGE_BYTES_MAX]);
        let client = &clients[client].1;
        client.connected().wait_until(|peers| peers.contains(&to)).await;
        ask(client, to, (&Request::StoreSliver { at, offset: 0 }, part), timeout).await
    };
    send(0).await.unwrap();
    send(1).await.unwrap();
    assert_eq!(send(2).await, Err(ExchangeError::Refused(Refusal::Busy)));
    network.simulation.crash(clients[0].0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    send(2).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_waits_for_the_registration_and_is_given_once_the_block_is_executed() {
    let fixture = Fixture::new().await;
    let (header, id) = (fixture.header, registration(OWNER, 0));
    let lacks = fixture.uploads.confirm(header, id, Epoch(0));
    let register = async {
        tokio::time::sleep(SECOND / 2).await;
        fixture.execute(fixture.order(header, OWNER, 0)).await;
        Instant::now()
    };
    // What is missing is told then too.
    let (missing, registered_at) = tokio::join!(lacks, register);
    assert!(matches!(missing, Ok(Err(14))), "{missing:?}");
    assert_eq!(registered_at, Instant::now());
    fixture.send_slivers().await.unwrap();
    let signature = fixture.uploads.confirm(header, id, Epoch(0)).await.unwrap().unwrap();
    fixture.check(header, id, &signature);
    assert_eq!(registered_at, Instant::now(), "nothing to wait for");

    // Another account's is waited for in vain, and comes later.
    let other = registration(STRANGER, 0);
    assert_eq!(fixture.uploads.confirm(header, other, Epoch(0)).await, Err(Refusal::Busy));
    assert_eq!(registered_at.elapsed(), Config::default().registration_wait);
    fixture.execute(fixture.order(header, STRANGER, 0)).await;
    let signature = fixture.uploads.confirm(header, other, Epoch(0)).await.unwrap().unwrap();
    fixture.check(header, other, &signature);

    // One that has ended is not waited for, nor one whose transaction did something else.
    let blob_id = fixture.blob_id();
    fixture.execute(fixture.sign(OWNER, 1, Action::DeleteBlob { blob_id })).await;
    for nonce in [0, 1] {
        let gone = fixture.uploads.confirm(header, registration(OWNER, nonce), Epoch(0)).await;
        assert_eq!(gone, Err(Refusal::NotRegistered), "{nonce}");
    }
    assert!(
        fixture.uploads.confirm(header, other, Epoch(0)).await.is_ok(),
        "that of another owner is not touched"
    );
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_registration_are_bounded() {
    let config = Config { waiting_max: 2, ..Config::default() };
    let fixture = Fixture::with(config).await;
    let wait = || fixture.uploads.confirm(fixture.header, registration(OWNER, 0), Epoch(0));
    let first = async { tokio::join!(wait(), wait()) };
    let late = async {
        tokio::time::sleep(SECOND / 2).await;
        let began = Instant::now();
        (wait().await, began.elapsed())
    };
    let (_, (refused, after)) = tokio::join!(first, late);
    assert_eq!((refused, after), (Err(Refusal::Busy), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_registered_is_bounded_and_room_comes_back_with_a_registration() {
    let config = Config { unregistered_bytes: 1_000_000, ..Config::default() };
    let fixture = Fixture::with(config).await;
    // A row of three parts and a column of two, and no more.
    assert_eq!(fixture.send_slivers().await, Err(Refusal::Busy));
    assert_eq!(fixture.bench.store.counts().slivers, 2);
    let other = blob(&fixture.encoder, 700_000, 8).await;
    assert!(fixture.payload(&other).len() > 20_000);
    let order = Vec::new();
    let refused = fixture.send_blob(&other, registration(STRANGER, 0), order.clone()).await;
    assert_eq!((refused, fixture.n_held(other.0)), (Err(Refusal::Busy), 0), "no room, so it is not kept");
    // Registered, the first one is bounded by nothing but the disk, and leaves the room to others.
    fixture.execute(fixture.order(fixture.header, OWNER, 0)).await;
    fixture.send_slivers().await.unwrap();
    assert!(fixture.uploads.confirm(fixture.header, registration(OWNER, 0), Epoch(0)).await.unwrap().is_ok());
    let small = fixture.small(9).await;
    let waits = fixture.send_blob(&small, registration(STRANGER, 0), order).await;
    assert_eq!((waits, fixture.n_held(small.0)), (Err(Refusal::Busy), 14), "kept until it is registered");
}

#[tokio::test(start_paused = true)]
async fn a_blob_of_one_message_is_confirmed_on_the_order_for_it() {
    let fixture = Fixture::new().await;
    let small = fixture.small(1).await;
    let (began, id) = (Instant::now(), registration(OWNER, 0));
    let order = fixture.order(small.0, OWNER, 0);
    for _ in 0..2 {
        let signature = fixture.send_blob(&small, id, order.clone()).await.unwrap();
        fixture.check(small.0, id, &signature);
    }
    assert!(fixture.uploads.confirm(small.0, id, Epoch(0)).await.unwrap().is_ok());
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waited for a block");
    assert_eq!((fixture.ledger.view().height(), fixture.n_held(small.0)), (0, 14));

    // One order of each account at a time: the next is for the ledger to register first.
    let next = fixture.small(2).await;
    let order = fixture.order(next.0, OWNER, 0);
    assert_eq!(fixture.send_blob(&next, id, order).await, Err(Refusal::Busy));
}

#[tokio::test(start_paused = true)]
async fn an_order_that_the_ledger_would_not_execute_is_not_acted_on() {
    let fixture = Fixture::new().await;
    let (small, other) = (fixture.small(1).await, fixture.small(2).await);
    let mut forged = fixture.order(small.0, OWNER, 0);
    *forged.last_mut().unwrap() ^= 1;
    let to = AccountId([7; 32]);
    let orders = [
        ("of another blob", fixture.order(other.0, OWNER, 0), registration(OWNER, 0)),
        ("of another account", fixture.order(small.0, STRANGER, 0), registration(OWNER, 0)),
        ("of another nonce", fixture.order(small.0, OWNER, 1), registration(OWNER, 0)),
        ("that comes too early", fixture.order(small.0, OWNER, 1), registration(OWNER, 1)),
        ("not signed", forged, registration(OWNER, 0)),
        ("without cover", fixture.order(small.0, PAUPER, 0), registration(PAUPER, 0)),
        (
            "of something else",
            fixture.sign(OWNER, 0, Action::Transfer { to, amount: 1 }),
            registration(OWNER, 0),
        ),
        ("of nothing", vec![1; 100], registration(OWNER, 0)),
        ("left out", Vec::new(), registration(OWNER, 0)),
    ];
    for (which, order, id) in orders {
        let began = Instant::now();
        assert_eq!(fixture.send_blob(&small, id, order).await, Err(Refusal::Busy), "{which}");
        assert_eq!(began.elapsed(), Config::default().registration_wait, "{which}");
        assert!(!fixture.bench.store.has_order(small.0.blob_id()), "{which}");
    }
    // What was sent is kept meanwhile, and confirmed as soon as it is registered.
    let register = async {
        tokio::time::sleep(SECOND / 2).await;
        fixture.execute(fixture.order(small.0, OWNER, 0)).await;
    };
    let id = registration(OWNER, 0);
    let (signature, ()) = tokio::join!(fixture.send_blob(&small, id, Vec::new()), register);
    fixture.check(small.0, id, &signature.unwrap());
}

#[tokio::test(start_paused = true)]
async fn orders_are_bounded_in_bytes() {
    let config = Config { order_bytes: 20_000, ..Config::default() };
    let fixture = Fixture::with(config).await;
    let (first, second) = (fixture.small(1).await, fixture.small(2).await);
    let bytes = fixture.payload(&first).len();
    assert!((10_001..20_000).contains(&bytes), "{bytes}");
    let [a, b] = [registration(OWNER, 0), registration(STRANGER, 0)];
    fixture.send_blob(&first, a, fixture.order(first.0, OWNER, 0)).await.unwrap();
    let order = fixture.order(second.0, STRANGER, 0);
    assert_eq!(fixture.send_blob(&second, b, order.clone()).await, Err(Refusal::Busy));
    // Executed, the first one makes room.
    fixture.execute(fixture.order(first.0, OWNER, 0)).await;
    fixture.uploads.settle_orders().await.unwrap();
    let signature = fixture.send_blob(&second, b, order).await.unwrap();
    fixture.check(second.0, b, &signature);
}

#[tokio::test(start_paused = true)]
async fn an_order_is_kept_over_a_restart_and_its_blob_is_not_dropped() {
    let mut fixture = Fixture::empty(Config { pending_ttl: TTL, ..Config::default() }).await;
    let (ordered, unordered) = (fixture.small(1).await, fixture.small(2).await);
    let id = registration(OWNER, 0);
    fixture.send_blob(&ordered, id, fixture.order(ordered.0, OWNER, 0)).await.unwrap();
    let waits = fixture.send_blob(&unordered, registration(STRANGER, 0), Vec::new()).await;
    assert_eq!(waits, Err(Refusal::Busy));
    fixture.restart().await;
    tokio::time::sleep(TTL + SECOND).await;
    assert_eq!(fixture.uploads.drop_stale().await.unwrap(), 1, "the one that nobody ordered");
    assert_eq!((fixture.n_held(ordered.0), fixture.n_held(unordered.0)), (14, 0));
    // The node stands by its word.
    let signature = fixture.uploads.confirm(ordered.0, id, Epoch(0)).await.unwrap().unwrap();
    fixture.check(ordered.0, id, &signature);
    // And sees to it that the order is executed.
    fixture.run_stale_uploads();
    tokio::time::sleep(Config::default().order_patience * 2).await;
    assert!(fixture.ledger.view().state.registration(&ordered.0.blob_id(), &id.owner).unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_order_is_executed_by_the_node_if_its_owner_does_not() {
    let mut fixture = Fixture::new().await;
    fixture.run_stale_uploads();
    let small = fixture.small(1).await;
    let (blob_id, id) = (small.0.blob_id(), registration(OWNER, 0));
    fixture.send_blob(&small, id, fixture.order(small.0, OWNER, 0)).await.unwrap();
    let patience = Config::default().order_patience;
    tokio::time::sleep(patience - SECOND / 10).await;
    assert_eq!(fixture.ledger.view().height(), 0, "its owner has time to");
    tokio::time::sleep(patience).await;
    let made = fixture.ledger.view().state.registration(&blob_id, &id.owner).unwrap();
    assert_eq!(made.map(|registration| registration.nonce), Some(0));
    assert!(!fixture.bench.store.has_order(blob_id), "it is settled");
    tokio::time::sleep(2 * TTL).await;
    assert_eq!(fixture.n_held(small.0), 14, "the ledger has it");
    assert!(fixture.uploads.confirm(small.0, id, Epoch(0)).await.unwrap().is_ok());
    assert_eq!(fixture.ledger.view().height(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_for_an_order_that_its_owner_took_back_is_dropped() {
    let mut fixture = Fixture::new().await;
    fixture.run_stale_uploads();
    let small = fixture.small(1).await;
    let (blob_id, id) = (small.0.blob_id(), registration(OWNER, 0));
    fixture.send_blob(&small, id, fixture.order(small.0, OWNER, 0)).await.unwrap();
    let transfer = Action::Transfer { to: account(PAUPER).account(), amount: 1 };
    fixture.execute(fixture.sign(OWNER, 0, transfer)).await;
    tokio::time::sleep(SECOND).await;
    assert!(!fixture.bench.store.has_order(blob_id));
    let refused = fixture.uploads.confirm(small.0, id, Epoch(0)).await;
    assert_eq!(refused, Err(Refusal::NotRegistered));
    assert_eq!(fixture.n_held(small.0), 14, "it may be registered yet, under another nonce");
    tokio::time::sleep(2 * TTL).await;
    assert_eq!(fixture.n_held(small.0), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_is_never_dropped_for_being_old() {
    let mut fixture = Fixture::new().await;
    let small = fixture.small(1).await;
    fixture.execute(fixture.order(small.0, OWNER, 0)).await;
    fixture.send_blob(&small, registration(OWNER, 0), Vec::new()).await.unwrap();
    for _ in 0..2 {
        tokio::time::sleep(TTL + SECOND).await;
        // The large one, of which a commitment came, and nothing else.
        fixture.uploads.drop_stale().await.unwrap();
        assert_eq!(fixture.n_held(small.0), 14);
        fixture.restart().await;
    }
}
