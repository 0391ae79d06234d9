//! Single stories on simulated networks: one thing goes wrong, in the way in which it is worst, and every promise is
//! looked at in the end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use node::blobs::BlobStatus;
use protocol::{Epoch, NodeIndex, SegmentIndex};
use swarm::{Offence, simulated::Link};
use testnet::sim::{Behaviour, Epochs, PartialUpload, Plan, Story, World, WrongWriter, run_many, tell};
use tokio::time::{Instant, sleep};

/// Seeds of each story.
const SEEDS: std::ops::Range<u64> = 1..9;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Tells a story with several seeds, on as many networks of seven nodes with `n_shards`.
fn told(n_shards: u16, story: impl AsyncFn(&mut Story) + Sync) {
    told_on(|seed| Plan::calm(seed, 7, n_shards), story);
}

/// The same on other networks.
fn told_on(plan: impl Fn(u64) -> Plan + Sync, story: impl AsyncFn(&mut Story) + Sync) {
    let violations = run_many(SEEDS, |seed| tell(plan(seed), &story), |_| {});
    for (seed, violations) in SEEDS.zip(violations) {
        assert!(violations.is_empty(), "seed {seed}: {violations:?}");
    }
}

/// A node that differs from seed to seed, and the one after it.
fn two(story: &Story) -> (NodeIndex, NodeIndex) {
    let n = u64::from(story.world.plan.n_nodes);
    let at = |seed: u64| NodeIndex(u16::try_from(seed % n).unwrap());
    (at(story.world.plan.seed), at(story.world.plan.seed + 1))
}

fn is_invalid_at(story: &Story, node: NodeIndex, writer: &WrongWriter) -> bool {
    let handles = story.world.handles(node).unwrap();
    handles.blobs.status(writer.blob_id()) == Ok(BlobStatus::Invalid)
}

#[test]
fn repair_gets_around_a_helper_that_lies_and_names_it() {
    told(7, async |story| {
        let (victim, liar) = two(story);
        for _ in 0..4 {
            story.store(20_000).await.unwrap();
        }
        story.becomes_whole(seconds(30)).await;
        story.corrupt(liar, Behaviour::Liar);
        story.replace_disk(victim).await;
        story.becomes_whole(seconds(60)).await;
        let named = (story.world.peer(victim), story.world.peer(liar), Offence::Unverifiable);
        assert!(story.world.peers.tampered() > 0);
        assert!(story.world.peers.blamed().contains(&named), "{:?}", story.world.peers.blamed());
    });
}

#[test]
fn a_node_that_was_down_learns_that_a_blob_is_invalid() {
    told(7, async |story| {
        let (victim, down) = two(story);
        story.store(1_000).await.unwrap();
        story.world.crash(down).await;
        let data = story.bytes(700);
        let writer = WrongWriter::new(Arc::clone(&story.world.genesis), &data, victim);
        let network = story.world.stranger();
        writer.store(&network).await.unwrap();
        story.becomes_invalid(writer.blob_id()).await;
        story.world.restart(down).await;
        assert!(!is_invalid_at(story, down, &writer));
        story.becomes_invalid(writer.blob_id()).await;
    });
}

#[test]
fn a_node_that_vouched_for_a_wrong_blob_and_was_down_lets_go_of_it() {
    told(7, async |story| {
        let (victim, down) = two(story);
        let data = story.bytes(700);
        let writer = WrongWriter::new(Arc::clone(&story.world.genesis), &data, victim);
        let network = story.world.stranger();
        // Until the blob is certified, its victim cannot tell what is wrong with it.
        story.world.simulation.set_link(
            story.world.peer(victim),
            story.world.peer(down),
            Link { loss: 1.0, ..Link::default() },
        );
        writer.store(&network).await.unwrap();
        story.world.crash(down).await;
        story.world.simulation.reset_links();
        story.becomes_invalid(writer.blob_id()).await;
        story.world.restart(down).await;
        let held =
            story.world.handles(down).unwrap().store.commitments_of(writer.blob_id(), 1).await.unwrap();
        assert!(!held.is_empty(), "it comes back with what it had");
        assert!(!is_invalid_at(story, down, &writer));
        story.becomes_invalid(writer.blob_id()).await;
    });
}

#[test]
fn a_black_out_in_the_middle_of_stores_loses_nothing_acknowledged() {
    let [n_before, n_after, n_failed] = [const { AtomicUsize::new(0) }; 3];
    told(7, async |story| {
        let users: Vec<_> = (0..3).map(|_| story.store_aside(4, 15_000)).collect();
        // From before the first is certified until after the last.
        sleep(Duration::from_millis(30 + 130 * (story.world.plan.seed - 1))).await;
        let before = story.world.model().acknowledged.len();
        n_before.fetch_add(before, Ordering::Relaxed);
        // Shorter than clients have patience, or longer.
        let pause = if story.world.plan.seed.is_multiple_of(2) { 2 } else { 60 };
        story.black_out(seconds(pause)).await;
        let mut acknowledged = 0;
        for user in users {
            acknowledged += story.join(user).await;
        }
        n_after.fetch_add(acknowledged - before, Ordering::Relaxed);
        n_failed.fetch_add(12 - acknowledged, Ordering::Relaxed);
        story.store(15_000).await.unwrap();
    });
    let counts = [n_before, n_after, n_failed].map(AtomicUsize::into_inner);
    assert!(counts.iter().all(|count| *count >= 8), "acknowledged before and after, and failed: {counts:?}");
}

#[test]
fn a_disk_that_runs_full_during_repair_is_repaired_when_there_is_room() {
    told(7, async |story| {
        let (victim, _) = two(story);
        for _ in 0..6 {
            story.store(20_000).await.unwrap();
        }
        story.becomes_whole(seconds(30)).await;
        story.replace_disk(victim).await;
        // Room for some of what it owes.
        story.world.disk(victim).set_capacity(Some(30_000));
        sleep(seconds(20)).await;
        assert!(story.world.running().contains(&victim), "a full disk is no reason to stop");
        assert!(!story.is_whole(victim));
        assert!(story.world.handles(victim).unwrap().store.counts().slivers > 0);
        // The others go on without it.
        story.store(20_000).await.unwrap();
        story.world.disk(victim).set_capacity(None);
        story.becomes_whole(seconds(60)).await;
    });
}

#[test]
fn a_client_that_keeps_touching_a_blob_does_not_keep_it_from_being_whole() {
    told(7, async |story| {
        let (victim, _) = two(story);
        let data = story.bytes(5_000);
        story.store_this(&data).await.unwrap();
        story.becomes_whole(seconds(30)).await;
        let touched = PartialUpload::new(Arc::clone(&story.world.genesis), &data);
        let network = story.world.stranger();
        node::node::introduce_members(&network, &story.world.genesis);
        // The client is there before the node hears of what it lacks.
        let peers = story.world.all().into_iter().map(|node| story.world.peer(node));
        let (alone, others): (Vec<_>, Vec<_>) = peers.partition(|peer| *peer == story.world.peer(victim));
        story.world.simulation.partition(&[&alone, &others]);
        story.replace_disk(victim).await;
        let mut tasks = tokio::task::JoinSet::new();
        let n_touches = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&n_touches);
        tasks.spawn(async move {
            loop {
                let sent = touched.send(&network, victim).await;
                counter.fetch_add(usize::from(sent.is_ok()), Ordering::Relaxed);
                sleep(Duration::from_millis(300)).await;
            }
        });
        sleep(seconds(10)).await;
        story.world.simulation.heal();
        let before = n_touches.load(Ordering::Relaxed);
        let took = story.becomes_whole(seconds(40)).await;
        let after = n_touches.load(Ordering::Relaxed);
        assert!(before > 10 && after > before + 10, "touched {before} times, then {}", after - before);
        assert!(took > seconds(5), "its touches held repair up: {took:?}");
    });
}

#[test]
fn a_client_that_comes_back_while_its_blob_is_dropped_stores_it_all_the_same() {
    let n_dropped = AtomicUsize::new(0);
    told(7, async |story| {
        let ttl = testnet::sim::PENDING_TTL;
        let network = story.world.stranger();
        node::node::introduce_members(&network, &story.world.genesis);
        for round in 0..6_u64 {
            let data = story.bytes(5_000);
            let part = PartialUpload::new(Arc::clone(&story.world.genesis), &data);
            // Touched again and again, it is kept beyond its time.
            let begin = Instant::now();
            while begin.elapsed() < 2 * ttl {
                for node in story.world.all() {
                    part.send(&network, node).await.unwrap();
                }
                sleep(ttl / 3).await;
            }
            let held = async |story: &Story, node: NodeIndex| {
                let store = &story.world.handles(node).unwrap().store;
                !store.commitments_of(part.blob_id(), 1).await.unwrap().is_empty()
            };
            for node in story.world.all() {
                assert!(held(story, node).await, "node {node}");
            }
            // Nobody knows the moment at which each of them drops it. Somewhere around it, the client stores the blob.
            sleep(ttl * 2 / 3 + ttl * u32::try_from(round).unwrap() / 16).await;
            for node in story.world.all() {
                n_dropped.fetch_add(usize::from(!held(story, node).await), Ordering::Relaxed);
            }
            story.store_this(&data).await.unwrap();
        }
    });
    let n_dropped = n_dropped.into_inner();
    assert!(n_dropped > 0 && n_dropped < 8 * 6 * 7, "{n_dropped}");
}

/// Seven members of one shard each and one node that is none, in epochs of twenty seconds.
fn with_epochs(seed: u64) -> Plan {
    let epochs = Some(Epochs { length: seconds(20), n_more: 1 });
    Plan { epochs, ..Plan::calm(seed, 7, 7) }
}

#[test]
fn a_node_that_dies_at_any_write_of_a_handover_goes_on_where_it_was() {
    let n_deaths = AtomicUsize::new(0);
    told_on(with_epochs, async |story| {
        let seed = story.world.plan.seed;
        let (mut leaver, mut gainer) = (NodeIndex(3), NodeIndex(7));
        // Whoever has no seat stays out, until it takes the other's.
        let is_seated = |world: &World, node| world.seat(node).is_some();
        if is_seated(&story.world, gainer) {
            (leaver, gainer) = (gainer, leaver);
        }
        for round in 0..5 {
            for _ in 0..6 {
                story.store(9_000).await.unwrap();
            }
            // A different write in each seed, and two in turn: most of them are syncs and writes of slivers.
            let nth = 2 * (seed - SEEDS.start) + round % 2;
            story.set_active(leaver, false).await.unwrap();
            if round > 0 {
                story.set_active(gainer, true).await.unwrap();
            }
            let peer = story.world.peer(gainer);
            let epoch = story.world.epoch();
            let is_selected = |world: &World| {
                let handles = world.handles(NodeIndex(0)).unwrap();
                let next = handles.membership.now().unwrap().next;
                next.is_some_and(|next| next.index_of(&peer).is_some())
            };
            story.until(seconds(60), "selected", is_selected).await;
            story.world.disk(gainer).fail_after(nth);
            let n_ended = story.until(seconds(90), "ready", |world| {
                let Some(handles) = world.handles(gainer) else { return false };
                let state = handles.ledger.view().state;
                let seat = handles.membership.now().unwrap().seat();
                seat.is_some_and(|seat| {
                    seat.committee.epoch() > epoch
                        && state.is_ready(seat.committee.epoch(), seat.node).unwrap()
                })
            });
            n_deaths.fetch_add(n_ended.await, Ordering::Relaxed);
            (leaver, gainer) = (gainer, leaver);
        }
    });
    let n_deaths = n_deaths.into_inner();
    assert!(n_deaths >= 20, "{n_deaths} deaths of 40");
}

#[test]
fn a_node_that_was_away_for_epochs_comes_back_by_itself() {
    told_on(with_epochs, async |story| {
        let seed = story.world.plan.seed;
        story.store(9_000).await.unwrap();
        let away = NodeIndex(u16::try_from(seed % 7).unwrap());
        // With what it had, or with a new disk.
        let has_disk = seed % 2 == 0;
        story.world.crash(away).await;
        if !has_disk {
            story.world.wipe(away);
        }
        for epoch in 1..4 {
            let is_there = |world: &World| world.epoch() == Epoch(epoch);
            story.until(seconds(90), "the next epoch", is_there).await;
            story.store(9_000).await.unwrap();
        }
        story.world.restart(away).await;
        story.becomes_whole(seconds(60)).await;
    });
}

#[test]
fn what_expires_is_let_go_of_at_once_and_by_who_was_away() {
    told_on(with_epochs, async |story| {
        let seed = story.world.plan.seed;
        let blob_id = story.store_for(6_000, 1).await.unwrap();
        let lasting = story.store_for(6_000, 20).await.unwrap();
        story.becomes_whole(seconds(30)).await;
        let holders = |world: &World, blob_id| {
            let nodes = world.running().into_iter();
            let holds = |node: &NodeIndex| {
                let handles = world.handles(*node).unwrap();
                handles.store.has_commitment(blob_id, SegmentIndex(0))
            };
            nodes.filter(holds).count()
        };
        assert!(holders(&story.world, blob_id) >= 5);
        // It is not there when the blob ends.
        let away = NodeIndex(u16::try_from(seed % 7).unwrap());
        story.world.crash(away).await;
        story.until(seconds(60), "the next epoch", |world: &World| world.epoch() == Epoch(1)).await;
        story.until(seconds(5), "dropped", |world: &World| holders(world, blob_id) == 0).await;
        story.world.restart(away).await;
        let limit = seconds(10) + 2 * testnet::sim::PENDING_TTL;
        story
            .until(limit, "dropped by who was away", |world: &World| {
                holders(world, blob_id) == 0 && world.running().contains(&away)
            })
            .await;
        assert!(holders(&story.world, lasting) >= 5);
    });
}
