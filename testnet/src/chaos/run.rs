//! Carries out what is planned, beside clients, and finds out what came of it.

use std::{collections::VecDeque, fs, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use node::{
    cli::{
        Connection, Failure,
        output::{Bytes, note},
    },
    client::{Client, ClientConfig},
};
use protocol::{PeerId, genesis::Genesis, ledger::signature::SigningKey, message::NodeHealth};
use swarm::{Network, live::LiveNetwork};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    checker::{self, Broken, Standing, Times, standing},
    fault::{Fault, Kind},
    history::Span,
    peaks::Peaks,
    plan::{self, Terms},
    report::{FaultRow, Report, Sample, Setting},
    target::Target,
    workload::Workload,
};
use crate::{
    cluster::{Observer, until},
    figures::Meter,
};

/// How long the network may take to find together, and clients to finish what they do.
pub(super) const LIMIT: Duration = Duration::from_secs(120);
/// How long all nodes may take to be healthy after the last fault.
pub const HEALTHY_LIMIT: Duration = Duration::from_secs(120);
/// How often what is due is looked at.
const STEP: Duration = Duration::from_millis(200);
/// How often nodes are asked how they are.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait for a node's answer to that.
const HEALTH_TIMEOUT: Duration = Duration::from_millis(1500);
/// How often the ledger's epoch is looked at.
const EPOCH_LOOK: Duration = Duration::from_millis(500);
/// How long clients go on once everything is healthy: all that they do then has to be done.
const CALM: Duration = Duration::from_secs(10);
/// Blocks by which a node that is healthy may be behind others as it is asked.
const BEHIND_MAX: u64 = 20;
/// Clients that work at the same time. Each has an account of its own: those of one account wait for each other.
const WORKERS: u8 = 4;
/// Blobs that are read back at the same time.
const READS_IN_FLIGHT: usize = 4;
/// Tries of a blob that is read back at the end.
const READ_TRIES: usize = 3;

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where all chance comes from.
    pub seed: u64,
    /// When the last fault is over.
    pub duration: Duration,
    /// Kinds of faults.
    pub kinds: Vec<Kind>,
    /// How long operations of all clients are apart, on average.
    pub pause: Duration,
    /// How long an epoch takes: blobs are stored for more than the run.
    pub epoch: Duration,
}

/// Prints a plan: what the seed alone decides.
pub fn show(faults: &[Fault]) {
    for fault in faults {
        note(format_args!("  {:7.1} s  {fault}", fault.at.as_secs_f64()));
    }
}

/// A fault that is in force.
struct Active {
    fault: Fault,
    /// Where it is in the report.
    row: usize,
    /// When it had been done to all its nodes, after the beginning of the run.
    in_force: Duration,
    end: Instant,
}

/// How a node was when it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wellness {
    is_well: bool,
    /// It was well twice in a row: what it says that it misses it has looked at.
    is_surely: bool,
}

/// A run.
struct Run<'a, T> {
    target: &'a mut T,
    observer: Observer,
    peers: Vec<PeerId>,
    terms: Terms,
    start: Instant,
    wellness: Vec<Wellness>,
    active: Vec<Active>,
    /// When more was down than the model bears.
    outages: Vec<Span>,
    rows: Vec<FaultRow>,
    samples: Vec<Sample>,
    received: Meter,
    regained: Meter,
    /// Of the memory of nodes.
    peaks: Peaks,
    broken: Vec<Broken>,
    epoch: watch::Receiver<u32>,
}

/// Clients at work, and what they learn of the epoch.
struct Clients {
    connection: Connection,
    workload: Workload,
    workers: JoinSet<()>,
    watcher: JoinSet<()>,
    stop_work: CancellationToken,
    stop_watch: CancellationToken,
}

impl Clients {
    /// Clients that are connected, and do nothing yet.
    async fn connect(
        genesis: &Arc<Genesis>,
        settings: &Settings,
        start: Instant,
    ) -> Result<(Self, watch::Receiver<u32>), Failure> {
        let connection = Connection::start(Arc::clone(genesis), ClientConfig::default()).await?;
        let (epochs, epoch) = watch::channel(0);
        let (stop_work, stop_watch) = (CancellationToken::new(), CancellationToken::new());
        let mut watcher = JoinSet::new();
        watcher.spawn(follow(connection.client().clone(), epochs, stop_watch.clone()));
        // As many as the run takes at most.
        let longest = (settings.duration + 2 * LIMIT + HEALTHY_LIMIT).div_duration_f64(settings.epoch).ceil();
        let outlasting = (10..500).find(|epochs| f64::from(*epochs) >= longest).unwrap_or(500_u32);
        let workload = Workload::new(settings.seed, start, epoch.clone(), outlasting);
        let workers = JoinSet::new();
        Ok((Self { connection, workload, workers, watcher, stop_work, stop_watch }, epoch))
    }

    fn client(&self) -> &Client<LiveNetwork> {
        self.connection.client()
    }

    fn begin(&mut self, pause: Duration) {
        for worker in 0..WORKERS {
            let key = SigningKey::from_secret(&[worker.saturating_add(1); 32]);
            let (client, pause) = (self.client().clone(), pause * u32::from(WORKERS));
            let work =
                self.workload.clone().run(client, (u64::from(worker), pause), key, self.stop_work.clone());
            self.workers.spawn(work);
        }
    }

    /// Has them finish what they have begun; false if they do not.
    async fn finish(&mut self) -> bool {
        self.stop_work.cancel();
        let finish = async { while self.workers.join_next().await.is_some() {} };
        timeout(LIMIT, finish).await.is_ok()
    }

    async fn close(mut self) {
        self.stop_watch.cancel();
        while self.watcher.join_next().await.is_some() {}
        self.connection.close().await;
    }
}

/// What is planned for a target: the kinds of faults that can be done to it, and what is left out.
fn terms_of<T: Target>(target: &T, settings: &Settings) -> Result<(Terms, Vec<String>), Failure> {
    let genesis = target.genesis();
    let committee = genesis.committee();
    let weight = |peer| committee.index_of(peer).map_or(0, |node| committee.weight(node));
    let (mut kinds, mut skipped) = (Vec::new(), Vec::new());
    for kind in &settings.kinds {
        match target.can(*kind) {
            Ok(()) => kinds.push(*kind),
            Err(why) => skipped.push(format!("{kind}: {why}")),
        }
    }
    let terms = Terms {
        seed: settings.seed,
        duration: settings.duration,
        kinds,
        weights: target.peers()?.iter().map(|(peer, _)| weight(peer)).collect(),
        max_faulty: protocol::quorum::max_faulty(genesis.n_shards()),
    };
    Ok((terms, skipped))
}

/// Breaks a network that runs, and tells what came of it. The network is left running.
///
/// # Errors
///
/// If the network does not come up, or a fault cannot be done. What clients and blobs suffered is in the report.
pub async fn run<T: Target>(target: &mut T, settings: &Settings) -> Result<Report, Failure> {
    let start = Instant::now();
    let genesis = Arc::clone(target.genesis());
    let (terms, mut skipped) = terms_of(target, settings)?;
    skipped.iter().for_each(|what| note(format_args!("left out: {what}")));
    let faults = plan::plan(&terms);
    note(format_args!("seed {} plans {} faults:", settings.seed, faults.len()));
    show(&faults);
    let setting = Setting {
        target: target.name().to_owned(),
        seed: settings.seed,
        duration_seconds: settings.duration.as_secs_f64(),
        nodes: terms.weights.len(),
        n_shards: genesis.n_shards(),
        max_faulty: terms.max_faulty,
    };

    let (mut clients, epoch) = Clients::connect(&genesis, settings, start).await?;
    let mut run = Run::new(target, terms, (start, epoch)).await?;
    until("waiting for all nodes to be healthy", LIMIT, async || {
        run.look().await;
        Ok(run.is_healthy().then_some(()))
    })
    .await?;
    run.tell("all nodes are healthy, clients begin");
    clients.begin(settings.pause);

    let began = start.elapsed();
    run.live(faults).await?;
    let (seconds_to_healthy, healthy) = run.recover().await?;
    run.idle(CALM).await?;
    let first = run.rows.first().map_or(healthy, |first| Duration::from_secs_f64(first.began_seconds));
    let calm = [Span { start: began, end: first }, Span { start: healthy, end: start.elapsed() }];
    run.tell("waiting for clients to finish");
    if !clients.finish().await {
        run.found("L1", "clients did not finish what they had begun".to_owned());
    }
    let operations = clients.workload.operations();
    run.tell("reading back every blob");
    let blobs = run.read_back(clients.client(), &clients.workload).await;
    clients.close().await;
    let panics = run.panics().await?;
    let Run { observer, rows, samples, outages, peaks, mut broken, .. } = run;
    observer.close().await;

    // What is not healthy in time is broken, and calms nothing.
    let calm = if seconds_to_healthy.is_some() { &calm[..] } else { &calm[..1] };
    broken.extend(checker::check(&operations, &Times { calm: calm.to_vec(), outages }));
    if peaks.most().is_none() {
        skipped.push("X3: the system does not tell how much memory the nodes hold".to_owned());
    }
    let mut report = Report {
        setting,
        seconds: start.elapsed().as_secs_f64(),
        seconds_to_healthy,
        blobs: blobs.read,
        lost_blobs: blobs.lost.len(),
        panics: panics.len(),
        memory_peak_bytes: peaks.most().unwrap_or(0),
        faults: rows.len(),
        skipped,
        timeline: rows,
        samples,
        ..Report::default()
    };
    let now = start.elapsed();
    broken.extend(blobs.lost.into_iter().map(|what| Broken { promise: "D1", at: now, what }));
    broken.extend(panics.into_iter().map(|what| Broken { promise: "X1", at: now, what }));
    report.add_operations(&operations);
    report.judge(broken);
    Ok(report)
}

/// What was found of the blobs that are to be there.
struct ReadBack {
    read: usize,
    lost: Vec<String>,
}

impl<'a, T: Target> Run<'a, T> {
    async fn new(
        target: &'a mut T,
        terms: Terms,
        (start, epoch): (Instant, watch::Receiver<u32>),
    ) -> Result<Self, Failure> {
        let observer = Observer::start(target.genesis(), HEALTH_TIMEOUT).await?;
        let mut peers = Vec::new();
        for (peer, addresses) in target.peers()? {
            observer.introduce(peer, addresses);
            peers.push(peer);
        }
        Ok(Self {
            wellness: vec![Wellness::default(); peers.len()],
            peaks: Peaks::default(),
            target,
            observer,
            peers,
            terms,
            start,
            active: Vec::new(),
            outages: Vec::new(),
            rows: Vec::new(),
            samples: Vec::new(),
            received: Meter::default(),
            regained: Meter::default(),
            broken: Vec::new(),
            epoch,
        })
    }

    fn tell(&self, text: impl std::fmt::Display) {
        note(format_args!("[{:6.1} s] {text}", self.start.elapsed().as_secs_f64()));
    }

    fn found(&mut self, promise: &'static str, what: String) {
        self.tell(format_args!("{promise} is broken: {what}"));
        self.broken.push(Broken { promise, at: self.start.elapsed(), what });
    }

    /// Asks all nodes how they are.
    async fn look(&mut self) {
        let answers = self.observer.health_of(&self.peers).await;
        let height = answers.iter().flatten().map(|health| health.ledger_height).max().unwrap_or(0);
        let others = self.peers.len().saturating_sub(1);
        let is_well = |health: &NodeHealth| {
            let is_near = health.ledger_height > 0 && health.ledger_height + BEHIND_MAX >= height;
            is_near && health.slivers_missing == 0 && usize::from(health.peers) >= others
        };
        for (node, health) in answers.iter().enumerate() {
            if let (Some(health), Some(peer)) = (health, self.peers.get(node)) {
                self.received.saw(*peer, health.repair_bytes_received, 0);
                self.regained.saw(*peer, health.repair_bytes_regained, 0);
            }
            let Some(known) = self.wellness.get_mut(node) else { continue };
            let is_well = health.as_ref().is_some_and(is_well);
            *known = Wellness { is_well, is_surely: is_well && known.is_well };
        }
        let memory_bytes = self.look_at_memory();
        self.samples.push(Sample {
            at_seconds: self.start.elapsed().as_secs_f64(),
            epoch: *self.epoch.borrow(),
            height,
            well: self.wellness.iter().filter(|known| known.is_well).count(),
            reachable: answers.iter().flatten().count(),
            slivers_missing: answers.iter().flatten().map(|health| health.slivers_missing).sum(),
            memory_bytes,
            repair_bytes_received: self.received.total(),
            repair_bytes_regained: self.regained.total(),
        });
    }

    /// Finds nodes that hold more memory than they may; returns what the one that holds most holds now.
    fn look_at_memory(&mut self) -> u64 {
        let memory = self.target.memory();
        for (node, peak) in self.peaks.saw(&memory) {
            self.found("X3", format!("node-{node} held {} of memory", Bytes(peak)));
        }
        memory.iter().flatten().map(|memory| memory.now).max().unwrap_or(0)
    }

    fn is_healthy(&self) -> bool {
        self.wellness.iter().all(|known| known.is_surely)
    }

    /// True if a fault may begin: with all that is not as it should be, its nodes weigh no more than may be faulty. One that is
    /// outside the model begins when everything is well.
    fn may_begin(&self, fault: &Fault) -> bool {
        if !fault.kind.is_within_model() {
            return self.is_healthy() && self.active.is_empty();
        }
        if fault.kind.is_weather() {
            return self.active.iter().all(|active| active.fault.kind != fault.kind);
        }
        let is_hit = |node: &usize| {
            fault.nodes.contains(node) || self.active.iter().any(|active| active.fault.nodes.contains(node))
        };
        let is_free = |node: &usize| self.active.iter().all(|active| !active.fault.nodes.contains(node));
        let is_unwell = |node: &usize| self.wellness.get(*node).is_none_or(|known| !known.is_surely);
        let faulty: Vec<usize> =
            (0..self.peers.len()).filter(|node| is_hit(node) || is_unwell(node)).collect();
        fault.nodes.iter().all(is_free) && plan::weight(&self.terms, &faulty) <= self.terms.max_faulty
    }

    /// Lives through the faults. One that may not begin yet is waited for, and those after it with it.
    async fn live(&mut self, faults: Vec<Fault>) -> Result<(), Failure> {
        let mut due = VecDeque::from(faults);
        let mut ticks = interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = Instant::now();
        let beginning = Instant::now();
        while !(due.is_empty() && self.active.is_empty()) {
            ticks.tick().await;
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.look().await;
                self.pick_up_fallen().await?;
            }
            self.end_due().await?;
            while let Some(fault) = due.front() {
                if beginning.elapsed() > self.terms.duration {
                    let late = due.drain(..).map(|fault| fault.to_string()).collect::<Vec<_>>();
                    self.tell(format_args!("there was no time for: {}", late.join(", ")));
                    break;
                }
                if beginning.elapsed() < fault.at || !self.may_begin(fault) {
                    break;
                }
                if let Some(fault) = due.pop_front() {
                    self.begin(fault).await?;
                }
            }
        }
        Ok(())
    }

    async fn begin(&mut self, fault: Fault) -> Result<(), Failure> {
        self.tell(&fault);
        let began = self.start.elapsed();
        self.target.begin(&fault).await?;
        for node in &fault.nodes {
            // What it says next may be another process's.
            if let (Kind::Kill | Kind::Restart | Kind::Wipe | Kind::Skew | Kind::Outage, Some(peer)) =
                (fault.kind, self.peers.get(*node))
            {
                self.received.ended(peer);
                self.regained.ended(peer);
            }
        }
        self.forget(&fault);
        let row = self.rows.len();
        self.rows.push(FaultRow::new(&fault, began));
        let in_force = self.start.elapsed();
        self.active.push(Active { end: Instant::now() + fault.lasts, fault, row, in_force });
        Ok(())
    }

    /// How the nodes of a fault were says nothing any more.
    fn forget(&mut self, fault: &Fault) {
        for node in &fault.nodes {
            if let Some(known) = self.wellness.get_mut(*node) {
                *known = Wellness::default();
            }
        }
    }

    async fn end_due(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let (over, active): (Vec<Active>, Vec<Active>) =
            std::mem::take(&mut self.active).into_iter().partition(|active| active.end <= now);
        self.active = active;
        for Active { fault, row, in_force, .. } in over {
            if !fault.kind.is_within_model() {
                self.outages.push(Span { start: in_force, end: self.start.elapsed() });
            }
            self.target.end(&fault).await?;
            self.forget(&fault);
            let at = self.start.elapsed().as_secs_f64();
            if let Some(row) = self.rows.get_mut(row) {
                row.ended_seconds = Some(at);
            }
            self.tell(format_args!("over: {}", fault.kind));
        }
        Ok(())
    }

    /// Looks for nodes that ended by themselves.
    async fn pick_up_fallen(&mut self) -> Result<(), Failure> {
        let full = self.active.iter().filter(|active| active.fault.kind == Kind::Fill);
        let excused: Vec<usize> = full.flat_map(|active| active.fault.nodes.clone()).collect();
        for (node, why) in self.target.fallen(&excused).await? {
            self.found("X1", format!("node-{node} ended by itself: {why}"));
        }
        Ok(())
    }

    /// Waits until all nodes are healthy; returns how many seconds that took, and when it was.
    async fn recover(&mut self) -> Result<(Option<f64>, Duration), Failure> {
        self.tell("the last fault is over; waiting for all nodes to be healthy");
        let began = Instant::now();
        while began.elapsed() < HEALTHY_LIMIT {
            self.look().await;
            self.pick_up_fallen().await?;
            if self.is_healthy() {
                let took = began.elapsed().as_secs_f64();
                self.tell(format_args!("all nodes are healthy after {took:.1} s"));
                return Ok((Some(took), self.start.elapsed()));
            }
            tokio::time::sleep(STEP).await;
        }
        let unwell: Vec<String> = (0..self.peers.len())
            .filter(|node| self.wellness.get(*node).is_none_or(|known| !known.is_well))
            .map(|node| format!("node-{node}"))
            .collect();
        let what =
            format!("not healthy {} s after the last fault: {}", HEALTHY_LIMIT.as_secs(), unwell.join(", "));
        self.found("D3", what);
        Ok((None, self.start.elapsed()))
    }

    /// Goes on looking for a while.
    async fn idle(&mut self, lasts: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < lasts {
            self.pick_up_fallen().await?;
            self.look().await;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Reads what is to be there, and what is not to be.
    async fn read_back<N: Network>(&self, client: &Client<N>, workload: &Workload) -> ReadBack {
        let operations = workload.operations();
        let changes = checker::changes(&operations);
        let now = self.start.elapsed();
        let epoch = *self.epoch.borrow();
        let mut stored = Vec::new();
        for blob in workload.blobs() {
            let of_blob = changes.get(&blob.number).into_iter().flatten().copied();
            if standing(of_blob, (now, now), epoch) == Standing::Stored {
                stored.push(blob);
            }
        }
        let read = stored.len();
        let lost = stream::iter(stored.iter().map(|blob| async move {
            let mut why = String::new();
            for _ in 0..READ_TRIES {
                match workload.read_whole(client, blob).await {
                    Ok(()) => return None,
                    Err(error) => why = error,
                }
            }
            Some(format!("blob {} of {} bytes, {}, is lost: {why}", blob.number, blob.size, blob.blob_id))
        }));
        ReadBack { read, lost: lost.buffered(READS_IN_FLIGHT).filter_map(std::future::ready).collect().await }
    }

    /// Lines of logs that tell of a panic.
    async fn panics(&mut self) -> Result<Vec<String>, Failure> {
        let mut panics = Vec::new();
        for (node, log) in self.target.logs().await? {
            let bytes = fs::read(&log)
                .map_err(|error| Failure::io(format!("cannot read {}", log.display()), &error))?;
            let text = String::from_utf8_lossy(&bytes);
            let lines = text.lines().filter(|line| line.contains("panicked at"));
            panics.extend(lines.map(|line| format!("node-{node}: {line}")));
        }
        Ok(panics)
    }
}

/// Follows the epoch until stopped. What cannot be read is tried again.
async fn follow(client: Client<LiveNetwork>, epochs: watch::Sender<u32>, stop: CancellationToken) {
    let mut ticks = interval(EPOCH_LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        match client.ledger_head().await {
            Ok(proven) => {
                epochs.send_if_modified(|epoch| std::mem::replace(epoch, proven.value.epoch.0) != *epoch);
            }
            Err(error) => tracing::debug!(%error, "the ledger's head is not known"),
        }
    }
}
