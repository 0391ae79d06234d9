//! The search for missed records, among peers who do not make it easy.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    BlobId, NodeIndex, PeerId,
    bls::SecretKey,
    certificate::{CertificateBuilder, Persistence, Statement as _, StorageConfirmation},
    commitment::{BlobHeader, FORMAT_VERSION},
    committee::{Member, spread},
    genesis::Genesis,
    hash::Hash,
    message::{Announcement, BlobRecord, BlobStatus, RecordDigest, Request, Response, encode_page},
};
use swarm::{
    Frame, Inbound, InboundReceiver, Network as _,
    simulated::{Plan, Simulation},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Actor, Config, Registry, Sync, SyncConfig, actor::blob_of};
use crate::{encoder::Encoder, membership::Membership, node::introduce_members, sliver_store::tests::Bench};

const N: u16 = 4;
/// How long the slow peer takes for a page of one record.
const PAGE_DELAY: Duration = Duration::from_secs(1);
const N_SLOW: u8 = 60;

fn key(i: u16) -> SecretKey {
    SecretKey::from_seed(&[u8::try_from(i).unwrap(); 32])
}

fn peer(i: u16) -> PeerId {
    PeerId([u8::try_from(i + 1).unwrap(); 32])
}

fn genesis(simulation: &Simulation) -> Genesis {
    let members = (0..).zip(spread(N, N)).map(|(i, shards)| Member {
        name: format!("node-{i}"),
        peer: peer(i),
        public_key: key(i).public_key(),
        proof_of_possession: key(i).prove_possession(&peer(i)),
        addresses: vec![simulation.address(peer(i)).to_string()],
        shards,
    });
    Genesis::new("test".to_owned(), N, members.collect()).unwrap()
}

/// A record that everybody vouched for.
fn record(genesis: &Genesis, number: u8) -> Announcement {
    let header = BlobHeader { version: FORMAT_VERSION, n_shards: N, length: 1, root: Hash([number; 32]) };
    let committee = Arc::new(genesis.committee().clone());
    let (blob_id, persistence) = (header.blob_id(), Persistence::Permanent);
    let statement = StorageConfirmation { epoch: committee.epoch(), blob_id, persistence };
    let network = genesis.network_id();
    let mut builder = CertificateBuilder::new(statement, &network, Arc::clone(&committee)).unwrap();
    for node in (0..3).map(NodeIndex) {
        builder.add(&statement.sign(&network, node, &key(node.0))).unwrap();
    }
    Announcement::Certified(BlobRecord { header, certificate: builder.finish().unwrap() })
}

/// A peer that lists its records one by one, each after `delay`; writes down from where it was asked to.
async fn list_one_by_one(
    mut inbound: InboundReceiver,
    mut records: Vec<Announcement>,
    delay: Duration,
    asked: Arc<Mutex<Vec<Option<BlobId>>>>,
) {
    records.sort_by_key(blob_of);
    let mut digest = RecordDigest::default();
    records.iter().for_each(|record| digest.toggle(&blob_of(record), false, true));
    while let Some(inbound) = inbound.recv().await {
        let Inbound::Request { frame, reply, .. } = inbound else { continue };
        let answer = match Request::from_bytes(&frame.header).unwrap() {
            Request::Digest => Frame::new(Response::Digest(digest).to_bytes(), Bytes::new()),
            Request::ListRecords { after } => {
                asked.lock().unwrap().push(after);
                tokio::time::sleep(delay).await;
                let next = records.iter().find(|record| after.is_none_or(|after| blob_of(record) > after));
                let page = encode_page(next.cloned().as_slice());
                Frame::new(Response::Records.to_bytes(), page)
            }
            other => panic!("{other:?}"),
        };
        reply.send(answer).unwrap();
    }
}

/// Waits until a record is known, and says for how long.
async fn wait_for(registry: &Registry, record: &Announcement) -> Duration {
    let mut changes = registry.changes();
    let start = tokio::time::Instant::now();
    while matches!(registry.status(blob_of(record)).await, Ok(BlobStatus::Unknown)) {
        changes.recv().await.unwrap();
    }
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_lists_one_by_one_keeps_nobody_from_the_others() {
    let simulation = Simulation::new(Plan::new(1));
    let genesis = genesis(&simulation);
    let slow: Vec<Announcement> = (0..N_SLOW).map(|number| record(&genesis, number)).collect();
    let other = record(&genesis, N_SLOW);
    let (asked, mut tasks) = (Arc::default(), JoinSet::new());
    // The slow one comes first in the order of the peers.
    for (i, records, delay) in [(1, slow.clone(), PAGE_DELAY), (2, vec![other.clone()], Duration::ZERO)] {
        let (network, inbound) = simulation.join(peer(i), genesis.network_id());
        introduce_members(&network, &genesis);
        let asked = if i == 1 { Arc::clone(&asked) } else { Arc::default() };
        tasks.spawn(list_one_by_one(inbound, records, delay, asked));
    }
    let (network, _inbound) = simulation.join(peer(0), genesis.network_id());
    introduce_members(&network, &genesis);
    network.connected().wait_until(|peers| peers.len() == 2).await;
    let membership = Arc::new(Membership::of(peer(0), &genesis).unwrap());
    let bench = Bench::new(N, 0);
    let shared = (Arc::clone(&membership), bench.store.clone(), Encoder::inline(N));
    let (actor, registry) = Actor::new(Config::default(), shared.0, shared.1, shared.2).await.unwrap();
    tasks.spawn(actor.run(CancellationToken::new()));
    let config = SyncConfig::default();
    tasks.spawn(Sync::new(config, membership, network, registry.clone()).run(CancellationToken::new()));

    let waited = wait_for(&registry, &other).await;
    assert!(waited <= config.turn_max + 2 * PAGE_DELAY, "{waited:?}");
    for record in &slow {
        wait_for(&registry, record).await;
    }
    // Each of its records was asked for once: its list is gone on with, not begun again.
    let asked = asked.lock().unwrap();
    assert!(asked.is_sorted_by(|before, after| before < after), "{asked:?}");
    assert!(asked.len() <= usize::from(N_SLOW) + 1, "{}", asked.len());
}
