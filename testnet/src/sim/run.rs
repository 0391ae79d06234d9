//! One run, from beginning to end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use node::{client::ReadError, exchange::ExchangeError, membership::Seat};
use protocol::{
    BlobId, NodeIndex,
    message::{Refusal, Response},
    quorum::max_faulty,
};
use rand::{Rng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{
    conviction,
    faults::Faults,
    ledger::{self, Spender},
    model::Violation,
    operators::{self, Operators},
    oracle,
    plan::Plan,
    workload::{User, silent},
    world::World,
    writer::WrongWriter,
};

/// Time within which every node is whole again after everything was healed. Source: `docs/TESTING.md`, D3.
pub(super) const WHOLE_MAX: Duration = Duration::from_secs(60);
/// Time within which operations end after everything was healed.
pub(super) const PENDING_MAX: Duration = Duration::from_secs(120);
/// Time within which a store succeeds once every node is up and can be reached.
const PROGRESS_MAX: Duration = Duration::from_secs(30);
/// Acknowledgements that may wait to be looked at.
pub(super) const ACKNOWLEDGEMENTS: usize = 64;

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The options of the run.
    pub plan: Plan,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Operations by kind and outcome.
    pub operations: BTreeMap<&'static str, u64>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// A hash over every delivery of the network with its instant.
    pub trace: [u8; 32],
    /// Deliveries of the network.
    pub events: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Time from healing to every node being whole.
    pub whole_after: Option<Duration>,
}

/// Runs the plan of a seed.
#[must_use]
pub fn run_seed(seed: u64) -> Outcome {
    run(Plan::new(seed))
}

/// Runs many things that follow from a seed, one simulation a thread on every core, and returns their results in the
/// order of the seeds. `done` is told of each as it ends, in any order.
///
/// # Panics
///
/// If a run does.
pub fn run_many<T: Send>(
    seeds: std::ops::Range<u64>,
    run: impl Fn(u64) -> T + Sync,
    done: impl Fn(&T) + Sync,
) -> Vec<T> {
    let next = AtomicU64::new(seeds.start);
    let results = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let result = run(seed);
                    done(&result);
                    results.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, result);
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// Runs a plan.
///
/// # Panics
///
/// If no runtime can be made, or a node does not start on what its disk holds.
#[must_use]
pub fn run(plan: Plan) -> Outcome {
    simulate(Box::pin(drive(plan)))
}

/// Runs something on one thread under a paused clock.
pub(super) fn simulate<T>(simulation: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system");
    runtime.block_on(simulation)
}

async fn drive(plan: Plan) -> Outcome {
    let start = Instant::now();
    let mut world = World::start(plan.clone()).await;
    Box::pin(operators::open(&mut world)).await;
    let (users, spenders, ever_faulty) = Box::pin(chaos(&mut world)).await;
    let whole_after = Box::pin(finish(&mut world, users)).await;
    if let Some(mut spender) = spenders.into_iter().next() {
        Box::pin(ledger::comes_together(&world, &mut spender, WHOLE_MAX)).await;
        Box::pin(conviction::contradictors_are_ejected(&world, &mut spender, PENDING_MAX)).await;
    }
    Box::pin(operators::epochs_go_on(&world)).await;
    conviction::no_honest_node_was_ejected(&world);
    oracle::no_honest_node_was_blamed(&world, &ever_faulty);
    garbage_is_refused(&mut world).await;
    if plan.wrong_writer {
        Box::pin(wrong_writer_is_caught(&mut world)).await;
    }
    oracle::count_compacted(&world);
    let trace = world.simulation.trace();
    let mut model = world.model();
    Outcome {
        plan,
        violations: std::mem::take(&mut model.violations),
        operations: std::mem::take(&mut model.operations),
        faults: std::mem::take(&mut model.faults),
        trace: trace.hash,
        events: trace.events,
        simulated: start.elapsed(),
        whole_after,
    }
}

/// Faults and work side by side; only safety counts.
async fn chaos(world: &mut World) -> (Vec<User>, Vec<Spender>, BTreeSet<protocol::PeerId>) {
    let (acknowledgements, mut acknowledged) = mpsc::channel(ACKNOWLEDGEMENTS);
    let mut faults = Faults::new(world.rng(1));
    if world.plan.byzantine {
        faults.corrupt_some(world);
    }
    if world.plan.lies {
        conviction::corrupt_some(world);
    }
    let peers = world.all().into_iter().map(|node| world.peer(node));
    let ever_faulty: BTreeSet<_> = peers.filter(|peer| world.peers.is_faulty(*peer)).collect();
    let mut spenders = JoinSet::new();
    for index in 0..world.plan.n_clients {
        let spender = Spender::new(world, index);
        spenders.spawn(spender.work(world.plan.clone()));
    }
    let mut users = JoinSet::new();
    for index in 0..u64::from(world.plan.n_clients) {
        let user = User {
            client: world.client(),
            key: world.wallet(100 + index),
            rng: world.rng(100 + index),
            model: world.shared_model(),
            acknowledgements: acknowledgements.clone(),
        };
        users.spawn(user.work(world.plan.clone()));
    }
    drop(acknowledgements);
    let end = Instant::now() + world.plan.chaos;
    let mut at_work = JoinSet::new();
    if world.plan.epochs.is_some() {
        at_work.spawn(Operators::new(world).work(end));
    }
    let mut rng = world.rng(2);
    while Instant::now() < end {
        let pause = Duration::from_millis(rng.random_range(300..3_000));
        let next = (Instant::now() + pause).min(end);
        look_at_acknowledged(world, &mut acknowledged, next).await;
        ledger::look(world);
        operators::look(world);
        faults.step(world).await;
        ledger::look(world);
        operators::look(world);
        regained(world);
    }
    faults.heal(world).await;
    drop(at_work);
    for node in world.all() {
        oracle::nothing_acknowledged_was_lost(world, node);
    }
    // From here on operations must end.
    let end = Instant::now() + PENDING_MAX;
    let mut finished = Vec::new();
    while !users.is_empty() {
        tokio::select! {
            biased;
            Some(user) = users.join_next() => match user {
                Ok(user) => finished.push(user),
                Err(error) => world.model().violation("L1", format!("a client failed: {error}")),
            },
            Some(blob_id) = acknowledged.recv() => oracle::certificate_is_backed(world, blob_id),
            () = tokio::time::sleep_until(end) => {
                world.model().violation("L1", format!("{} clients are still waiting", users.len()));
                break;
            }
        }
    }
    let mut spent = Vec::new();
    while let Ok(Some(ended)) = tokio::time::timeout_at(end, spenders.join_next()).await {
        match ended {
            Ok(spender) => spent.push(spender),
            Err(error) => world.model().violation("L2", format!("a spender failed: {error}")),
        }
    }
    let n_waiting = spenders.len();
    world.model().check("L2", n_waiting == 0, || format!("{n_waiting} transfers are not executed"));
    (finished, spent, ever_faulty)
}

async fn look_at_acknowledged(world: &World, acknowledged: &mut mpsc::Receiver<BlobId>, until: Instant) {
    loop {
        tokio::select! {
            biased;
            Some(blob_id) = acknowledged.recv() => oracle::certificate_is_backed(world, blob_id),
            () = tokio::time::sleep_until(until) => return,
        }
    }
}

/// Nodes that had lost their disks and are whole again count as honest again.
fn regained(world: &mut World) {
    let healing: Vec<NodeIndex> = world.running().into_iter().filter(|node| world.is_faulty(*node)).collect();
    for node in healing {
        if oracle::is_whole(world, node) && !world.may_contradict_itself(node) {
            world.set_whole(node);
        }
    }
}

/// Everything is healed: liveness counts too, and every promise is looked at.
async fn finish(world: &mut World, mut users: Vec<User>) -> Option<Duration> {
    let whole_after = oracle::becomes_whole(world, WHOLE_MAX).await;
    let Some(mut user) = users.pop() else { return whole_after };
    // L1: with everything up, a store succeeds; H3: storing it again gives the same ID.
    let data = user.blob(1_000);
    for _ in 0..2 {
        // Dials into the silence of a moment ago may still be waiting for it to end.
        let end = Instant::now() + PROGRESS_MAX;
        while let Err(error) = user.store(&data).await {
            if Instant::now() > end {
                world.model().violation("L1", format!("every node is up, and a store fails: {error}"));
                break;
            }
        }
    }
    oracle::what_is_listed_is_readable(world, &user).await;
    oracle::all_read_with_f_down(world, &user).await;
    nothing_is_stored_below_a_quorum(world, &mut user).await;
    oracle::becomes_whole(world, WHOLE_MAX).await;
    // Whatever the disks lost is found by the scrubber within one round of it, and comes back.
    if world.plan.flips {
        tokio::time::sleep(Duration::from_secs(40)).await;
        oracle::becomes_whole(world, WHOLE_MAX).await;
    }
    oracle::slivers_are_the_encoders(world);
    whole_after
}

/// L1, the other way round: with more than `f` shards silent, nothing is acknowledged.
async fn nothing_is_stored_below_a_quorum(world: &mut World, user: &mut User) {
    let f = max_faulty(world.n_shards());
    let (mut down, mut weight) = (Vec::new(), 0);
    for node in world.all() {
        if weight <= f {
            weight += world.seat(node).map_or(0, |seat| world.committee().weight(seat.node));
            world.kill(node).await;
            down.push(node);
        }
    }
    let data = user.blob(500);
    let source = std::sync::Arc::new([&data[..], b"below a quorum"].concat());
    let result = user.client.store(source, &user.key, node::client::StoreOptions::default(), silent()).await;
    world.model().check("L1", result.is_err(), || format!("stored with {weight} shards down"));
    for node in down {
        world.restart(node).await;
    }
}

/// The seat of a node that is not faulty: only of those is anything promised, and some lie to the end.
fn an_honest_seat(world: &World, rng: &mut ChaCha8Rng) -> Option<Seat> {
    let honest = world.all().into_iter().filter(|node| !world.is_faulty(*node));
    let seats: Vec<Seat> = honest.filter_map(|node| world.seat(node)).collect();
    seats.choose(rng).cloned()
}

fn wrong_writer(world: &World, data: &[u8], seat: Seat) -> WrongWriter {
    WrongWriter::of(std::sync::Arc::clone(&world.genesis), seat.committee, data, seat.node)
}

/// D6: a sliver that does not match its commitment is refused, whoever sends it. D2: nor is it vouched for.
async fn garbage_is_refused(world: &mut World) {
    let Some(seat) = an_honest_seat(world, &mut world.rng(6)) else { return };
    let (epoch, writer) = (world.epoch(), wrong_writer(world, b"garbage", seat));
    let network = world.stranger();
    let answer = writer.send_garbage(&network).await;
    let refused = matches!(&answer, Ok(Err(ExchangeError::Refused(Refusal::Unverifiable))));
    world.model().check("D6", refused, || format!("a sliver with a bit flipped is answered with {answer:?}"));
    let answer = writer.ask_to_confirm(&network).await;
    if world.epoch() != epoch {
        // It was asked for an epoch that is over.
        return;
    }
    let lacking = matches!(answer, Ok(Response::Missing { slivers }) if slivers > 0);
    world
        .model()
        .check("D2", lacking, || format!("asked to vouch for what it lacks, a node says {answer:?}"));
}

/// H5: a blob that was encoded wrongly ends as invalid, for everyone and for the same reason.
async fn wrong_writer_is_caught(world: &mut World) {
    let mut rng = world.rng(5);
    let (client, network) = (world.client(), world.stranger());
    let mut stored = None;
    // It does not carry over to the next epoch what it began in one.
    for _ in 0..3 {
        let Some(seat) = an_honest_seat(world, &mut rng) else { return };
        let data: Vec<u8> = (0..rng.random_range(1..2_000)).map(|_| rng.random()).collect();
        let (epoch, writer) = (world.epoch(), wrong_writer(world, &data, seat));
        match writer.store(&network).await {
            Ok(()) => {
                stored = Some(writer.blob_id());
                break;
            }
            Err(_) if world.epoch() != epoch => {}
            Err(error) => {
                world.model().violation("H5", format!("the wrong writer is not certified: {error}"));
                return;
            }
        }
    }
    let Some(blob_id) = stored else { return };
    world.model().operation("stored wrongly");
    if !oracle::becomes_invalid(world, blob_id, WHOLE_MAX).await {
        return;
    }
    let read = client.read(blob_id, Vec::new(), silent()).await;
    world.model().check("H5", matches!(read, Err(ReadError::Invalid)), || {
        format!("reading the invalid {blob_id} gives {:?}", read.map(|(summary, _)| summary))
    });
    world.model().operation("proved wrong");
}
