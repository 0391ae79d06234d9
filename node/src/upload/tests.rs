//! Uploads over a store that runs: what is given up gives its room back.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::{
    BlobId, PeerId, SegmentIndex, SliverPairIndex,
    bls::SecretKey,
    commitment::BlobHeader,
    encoding::{Axis, BlobShape, EncodedSegment, SegmentEncoder},
    hash::Hash,
    message::{RANGE_BYTES_MAX, Refusal, Request, SliverAt},
};
use swarm::Network as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Config, StaleUploads, Uploads};
use crate::{
    commitments::CommitmentCache,
    encoder::Encoder,
    exchange::{ExchangeError, ask},
    membership::tests::lone_member,
    node::{Settings, introduce_members},
    registry,
    repair::tests::Network,
    sliver_store::tests::Bench,
};

const N: u16 = 7;
const ALICE: PeerId = PeerId([2; 32]);
const BOB: PeerId = PeerId([3; 32]);
const TTL: Duration = Duration::from_secs(3600);

/// Uploads to a node that holds all shards, and a blob of one segment whose rows take three parts.
struct Fixture {
    uploads: Uploads,
    header: BlobHeader,
    segment: EncodedSegment,
    tasks: JoinSet<()>,
    bench: Bench,
}

async fn blob(encoder: &Encoder) -> (BlobHeader, EncodedSegment) {
    let shape = BlobShape::new(N, 1_500_000).unwrap();
    let segment_shape = shape.segment(SegmentIndex(0)).unwrap();
    let encode = move |encoder: &mut SegmentEncoder| encoder.encode(segment_shape, &vec![7; 1_500_000]);
    let segment = encoder.run(encode).await.unwrap();
    (BlobHeader::new(&shape, &[segment.commitment().root()]), segment)
}

impl Fixture {
    async fn new() -> Self {
        let bench = Bench::new(N, 0);
        let (membership, encoder) = (Arc::new(lone_member(N)), Encoder::inline(N));
        let shared = (Arc::clone(&membership), bench.store.clone(), encoder.clone());
        let (actor, registry) =
            registry::Actor::new(registry::Config::default(), shared.0, shared.1, shared.2).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(actor.run(CancellationToken::new()));
        let uploads = Uploads::new(
            Config { pending_ttl: TTL, ..Config::default() },
            (membership, SecretKey::from_seed(&[1; 32])),
            (bench.store.clone(), registry),
            CommitmentCache::new(bench.store.clone()),
            encoder.clone(),
        );
        let (header, segment) = blob(&encoder).await;
        let fixture = Self { uploads, header, segment, tasks, bench };
        fixture.send_commitment().await;
        fixture
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
        let sliver = self.segment.sliver_of_pair(at.axis, at.pair);
        assert_eq!(sliver.len().div_ceil(RANGE_BYTES_MAX), 3);
        let start = part * RANGE_BYTES_MAX;
        let end = sliver.len().min(start + RANGE_BYTES_MAX);
        let bytes = Bytes::copy_from_slice(&sliver[start..end]);
        self.uploads.part(from, at, u32::try_from(start).unwrap(), bytes).await
    }

    fn n_in_the_making(&self) -> usize {
        self.uploads.bytes_in_the_making()
            / self.segment.sliver_of_pair(Axis::Primary, SliverPairIndex(0)).len()
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
    let (header, segment) = blob(&Encoder::inline(N)).await;
    let sliver = segment.sliver_of_pair(Axis::Primary, SliverPairIndex(0));
    // Room for one sliver of each of two clients.
    let upload = Config { assembly_bytes: 2 * sliver.len(), ..Config::default() };
    let network = Network::start(Settings { upload, ..Settings::default() }).await;
    let membership = &network.nodes[0].handles.membership;
    let (blob_id, index, axis) = (header.blob_id(), SegmentIndex(0), Axis::Primary);
    let pair = membership.committee.pair_of(&blob_id, index, membership.shards()[0]);
    let to = membership.peer(membership.node).unwrap();
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
