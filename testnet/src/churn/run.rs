//! Carries out what is planned, on real processes.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};

use node::{
    cli::{Committees, Connection, Exit, Failure, load_key, output::note},
    client::{Client, ClientConfig},
    keys::AccountKey,
};
use protocol::{
    PeerId,
    ledger::{
        parameters::{EPOCHS_AHEAD_MAX, Parameters},
        signature::SigningKey,
        state::entry::{NodeStatus, Stage},
    },
    message::NodeHealth,
};
use swarm::live::LiveNetwork;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    measure::{Deeds, Seen, Wiped},
    plan::{self, Deed, Due, Kind, NodeView, STAKE, STAKE_MIN, Terms, may_wipe},
    report::Report,
    timeline::Phase,
    watch::{SharedTimeline, Sight, follow},
    workload::{Moment, Workload},
};
use crate::{
    cluster::{self, Cluster, ClusterConfig, Fate, Observer, faucet_file},
    figures::Meter,
};

/// How long the network may take to find together, nodes to be whole at the end, and clients to finish what they do.
pub(super) const LIMIT: Duration = Duration::from_secs(120);
/// How long an epoch may take beyond three times what it should: longer, and the ledger has stopped.
const EPOCH_LIMIT: Duration = Duration::from_secs(60);
/// How often nodes are asked how they are, and what is due is looked at.
const STEP: Duration = Duration::from_millis(500);
/// How long to wait for a node's answer when asking how it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Clients that work at the same time. Each has an account of its own: those of one account wait for each other.
const WORKERS: u8 = 4;

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where all chance comes from.
    pub seed: u64,
    /// Epochs of change.
    pub epochs: u32,
    /// Nodes at the beginning.
    pub nodes: u16,
    /// Shards.
    pub shards: u16,
    /// How long an epoch takes.
    pub epoch: Duration,
    /// How long operations of all clients are apart, on average.
    pub pause: Duration,
    /// Kinds of change that are left out.
    pub without: Vec<Kind>,
}

/// A node that was not removed.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) peer: PeerId,
    pub(super) is_active: bool,
    /// Which of the wipes it has not recovered from yet.
    pub(super) wiped: Option<usize>,
    /// When it is to be started again.
    pub(super) restart: Option<Instant>,
    pub(super) health: Option<NodeHealth>,
    /// Bytes received since the next committee was selected.
    pub(super) copied_bytes: u64,
}

/// A run.
pub(super) struct Churn {
    pub(super) cluster: Cluster,
    pub(super) observer: Observer,
    pub(super) client: Client<LiveNetwork>,
    pub(super) terms: Terms,
    pub(super) faucet: AccountKey,
    pub(super) workload: Workload,
    pub(super) sights: watch::Receiver<Sight>,
    pub(super) timeline: SharedTimeline,
    pub(super) meter: Meter,
    pub(super) nodes: BTreeMap<usize, Running>,
    pub(super) deeds: BTreeMap<u32, Deeds>,
    pub(super) wipes: Vec<Wiped>,
    pub(super) skipped: Vec<String>,
    pub(super) failures: Vec<String>,
    pub(super) start: Instant,
}

/// What the run learns from its background tasks.
struct Followed {
    workload: Workload,
    sights: watch::Receiver<Sight>,
    timeline: SharedTimeline,
}

/// Runs a network in a directory that is empty or does not exist, and ends it.
///
/// # Errors
///
/// If the network cannot be set up, a node ends unasked, or the ledger stops. What clients and blobs suffered is in the
/// report.
pub async fn run(dir: &Path, settings: &Settings) -> Result<Report, Failure> {
    let start = Instant::now();
    let cluster = start_network(dir, settings, start).await?;
    let connect = || Connection::start(Arc::clone(cluster.genesis()), ClientConfig::default());
    let (operator, users) = (connect().await?, connect().await?);
    let first = Committees::read(operator.client()).await;
    let first = first.map_err(|error| Failure::ledger("the committee is not known", &error))?;
    let (timeline, began) = (SharedTimeline::default(), Instant::now());
    timeline.lock().saw((first.head.epoch.0, first.head.stage), &first.current, (began, Duration::ZERO));
    let (moments, moment) = watch::channel(Moment::of(&first.head));
    let (sight_sender, sights) = watch::channel(Sight { committees: Arc::new(first), began });
    let workload = Workload::new(settings.seed, settings.epochs, moment);
    let followed = Followed { workload: workload.clone(), sights, timeline: timeline.clone() };
    let mut churn = Churn::new(cluster, (settings, start), operator.client().clone(), followed).await?;

    let (stop_work, stop_watch) = (CancellationToken::new(), CancellationToken::new());
    let mut watcher = JoinSet::new();
    let client = operator.client().clone();
    watcher.spawn(follow(client, timeline, (sight_sender, moments), stop_watch.clone()));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let key = SigningKey::from_secret(&[worker.saturating_add(1); 32]);
        let (client, pause) = (users.client().clone(), settings.pause * u32::from(WORKERS));
        workers.spawn(workload.clone().run(client, (u64::from(worker), pause), key, stop_work.clone()));
    }
    let probes =
        workload.clone().probe(users.client().clone(), (settings.epoch, WORKERS + 1), stop_work.clone());
    workers.spawn(probes);
    churn.tell("all nodes are healthy, clients store and read");

    churn.live(settings.epochs).await?;
    stop_work.cancel();
    churn.tell("waiting for clients to finish");
    let finish = async { while workers.join_next().await.is_some() {} };
    if timeout(LIMIT, finish).await.is_err() {
        churn.failures.push("clients did not finish what they had begun".to_owned());
    }
    churn.settle().await?;
    let mut report = churn.report(settings, users.client()).await?;
    stop_watch.cancel();
    while watcher.join_next().await.is_some() {}
    churn.tell("stopping the nodes");
    let Churn { mut cluster, observer, .. } = churn;
    for connection in [users, operator] {
        connection.close().await;
    }
    observer.close().await;
    cluster.stop_all().await?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Makes a network with epochs, and starts it.
async fn start_network(dir: &Path, settings: &Settings, start: Instant) -> Result<Cluster, Failure> {
    let parameters = Parameters {
        epoch_ms: u64::try_from(settings.epoch.as_millis()).unwrap_or(u64::MAX),
        min_stake: STAKE_MIN,
        epochs_ahead_max: EPOCHS_AHEAD_MAX,
        ..Parameters::default()
    };
    let config = ClusterConfig { n_nodes: settings.nodes, n_shards: settings.shards, base_port: None };
    let terms = cluster::Terms { parameters, node_stake: STAKE, ..cluster::Terms::default() };
    let mut cluster = Cluster::create_on_terms(dir, &config, Fate::WithParent, terms).await?;
    let seconds = start.elapsed().as_secs_f64();
    note(format_args!("[{seconds:6.1} s] starting {} nodes with {} shards", settings.nodes, settings.shards));
    cluster.start_all().await?;
    let members = cluster.observe().await?;
    cluster.wait_healthy(&members, LIMIT, |_| {}).await?;
    members.close().await;
    Ok(cluster)
}

impl Churn {
    async fn new(
        cluster: Cluster,
        (settings, start): (&Settings, Instant),
        client: Client<LiveNetwork>,
        Followed { workload, sights, timeline }: Followed,
    ) -> Result<Self, Failure> {
        let terms = Terms {
            seed: settings.seed,
            n_shards: settings.shards,
            max_faulty: cluster.max_faulty(),
            epoch: settings.epoch,
            selection: settings.epoch / 2,
            without: settings.without.clone(),
        };
        let mut churn = Self {
            observer: Observer::start(cluster.genesis(), HEALTH_TIMEOUT).await?,
            faucet: load_key(&faucet_file(cluster.dir()))?,
            cluster,
            client,
            terms,
            workload,
            sights,
            timeline,
            meter: Meter::default(),
            nodes: BTreeMap::new(),
            deeds: BTreeMap::new(),
            wipes: Vec::new(),
            skipped: Vec::new(),
            failures: Vec::new(),
            start,
        };
        for node in 0..churn.cluster.n_nodes() {
            churn.introduce(node)?;
        }
        Ok(churn)
    }

    pub(super) fn tell(&self, text: impl std::fmt::Display) {
        note(format_args!("[{:6.1} s] {text}", self.start.elapsed().as_secs_f64()));
    }

    pub(super) fn sight(&self) -> Sight {
        self.sights.borrow().clone()
    }

    pub(super) fn epoch(&self) -> u32 {
        self.sights.borrow().epoch()
    }

    /// Makes a node known to the observer.
    pub(super) fn introduce(&mut self, node: usize) -> Result<(), Failure> {
        let member = self.cluster.member(node)?;
        self.observer.introduce(member.peer, member.addresses);
        let running = Running {
            peer: member.peer,
            is_active: true,
            wiped: None,
            restart: None,
            health: None,
            copied_bytes: 0,
        };
        self.nodes.insert(node, running);
        Ok(())
    }

    /// Lives through epochs of change, until the first one after them is steady.
    async fn live(&mut self, epochs: u32) -> Result<(), Failure> {
        let first = self.epoch();
        let last = first.saturating_add(epochs);
        let mut planned = None;
        let mut due = VecDeque::new();
        let mut ticks = interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.cluster.check_alive()?;
            self.look().await;
            let sight = self.sight();
            let epoch = sight.epoch();
            if epoch >= last && sight.phase() == Phase::Steady {
                return Ok(());
            }
            if planned != Some(epoch) {
                for (_, deed) in due.drain(..) {
                    self.skipped
                        .push(format!("epoch {}: {deed:?}: not possible in time", planned.unwrap_or(0)));
                }
                planned = Some(epoch);
                self.tell_epoch(&sight, (last - first, epoch - first));
                if epoch < last {
                    due.extend(plan::plan(&self.terms, epoch, &self.views().await?));
                }
            }
            let took = sight.began.elapsed();
            if took > 3 * self.terms.epoch + EPOCH_LIMIT {
                let stage = sight.stage();
                let what =
                    format!("epoch {epoch} does not end: {:.0} s in stage {stage}", took.as_secs_f64());
                return Err(
                    Failure::new(Exit::Broken, what).hint("see the logs of the nodes, with --dir DIR")
                );
            }
            self.do_due(&mut due, took).await?;
            self.restart_due().await?;
            self.stop_leavers(&sight).await?;
        }
    }

    fn tell_epoch(&self, sight: &Sight, (of, epoch): (u32, u32)) {
        let Committees { head, current, .. } = &*sight.committees;
        let (number, n_members) = (head.epoch.0, current.len());
        let (operations, n_blobs) = (self.workload.operations(), self.workload.blobs().len());
        let n_failed = operations.iter().filter(|operation| operation.error.is_some()).count();
        let n_operations = operations.len();
        self.tell(format_args!(
            "epoch {number} ({epoch} of {of}): {n_members} members; so far {n_operations} operations, {n_failed} failed, \
             {n_blobs} blobs"
        ));
    }

    /// Asks all nodes how they are.
    pub(super) async fn look(&mut self) {
        let sight = self.sight();
        let asked: Vec<(usize, PeerId)> = self
            .nodes
            .iter()
            .filter(|(_, running)| running.restart.is_none())
            .map(|(node, running)| (*node, running.peer))
            .collect();
        let peers: Vec<PeerId> = asked.iter().map(|(_, peer)| *peer).collect();
        let answers = self.observer.health_of(&peers).await;
        for ((node, _), health) in asked.into_iter().zip(answers) {
            self.saw(node, health, &sight);
        }
    }

    pub(super) fn saw(&mut self, node: usize, health: Option<NodeHealth>, sight: &Sight) {
        let Some(running) = self.nodes.get_mut(&node) else { return };
        if let Some(health) = &health {
            let more = self.meter.saw(running.peer, health.repair_bytes_received, sight.epoch());
            let is_selected = matches!(sight.committees.head.stage, Stage::Selected { .. });
            running.copied_bytes = if is_selected { running.copied_bytes + more } else { 0 };
        }
        running.health = health;
        let Some(index) = running.wiped else { return };
        let (Some(health), Some(wiped)) = (&running.health, self.wipes.get(index)) else { return };
        let Some(started) = wiped.started else { return };
        let blobs = self.workload.blobs();
        let timeline = self.timeline.lock();
        let (meter, deeds, wipes) = (&self.meter, &self.deeds, &self.wipes[..]);
        let n_shards = self.terms.n_shards;
        let seen = Seen { n_shards, timeline: &timeline, meter, deeds, wipes, blobs: &blobs };
        let due = seen.slivers_due(health.shards, (sight.epoch(), started));
        // Before it has the ledger, a node does not know what it misses.
        let is_whole = health.slivers_missing == 0
            && health.ledger_height > 0
            && health.slivers_held >= due
            && started.elapsed() > STEP;
        drop(timeline);
        if !is_whole {
            return;
        }
        let took = started.elapsed();
        running.wiped = None;
        if let Some(wiped) = self.wipes.get_mut(index) {
            wiped.healed = Some(took);
        }
        self.tell(format_args!("node-{node} has everything again, after {:.1} s", took.as_secs_f64()));
    }

    /// The nodes as the plan sees them.
    async fn views(&self) -> Result<Vec<NodeView>, Failure> {
        let sight = self.sight();
        let committees = &sight.committees;
        let before = {
            let timeline = self.timeline.lock();
            let before = sight.epoch().checked_sub(1).filter(|_| sight.phase() == Phase::Handover);
            before.and_then(|before| timeline.epochs().get(&before)).map(|seen| seen.shards.clone())
        };
        let mut views = Vec::new();
        for (node, running) in &self.nodes {
            let known = self.client.ledger_node(&running.peer).await;
            let what = format!("the stake of node-{node} is not known");
            let known = known.map_err(|error| Failure::ledger(what, &error))?.value;
            let count = |n_shards: usize| u16::try_from(n_shards).unwrap_or(u16::MAX);
            let shards = count(committees.shards_now(&running.peer).len());
            let next = committees.shards_next(&running.peer).map_or(0, |shards| count(shards.len()));
            let before = before.as_ref().and_then(|before| before.get(&running.peer));
            let before = before.map_or(0, |shards| count(shards.len()));
            let is_whole = running.wiped.is_none()
                && running.restart.is_none()
                && running.health.as_ref().is_some_and(|health| health.slivers_missing == 0);
            views.push(NodeView {
                node: *node,
                shards,
                weight: shards.max(next).max(before),
                stake: known.as_ref().map_or(0, |known| known.stake.credits),
                is_active: running.is_active
                    && known.as_ref().is_some_and(|known| known.status == NodeStatus::Active),
                is_whole,
            });
        }
        Ok(views)
    }

    /// Does what is due. What may not be done yet is waited for; what fails is noted.
    async fn do_due(&mut self, due: &mut VecDeque<Due>, took: Duration) -> Result<(), Failure> {
        let mut later = VecDeque::new();
        while let Some((at, deed)) = due.pop_front() {
            if at > took {
                later.push_back((at, deed));
                continue;
            }
            if let Deed::Wipe { node, .. } = deed
                && !may_wipe(&self.terms, &self.views().await?, node)
            {
                later.push_back((at, deed));
                continue;
            }
            if let Err(failure) = self.carry_out(deed).await {
                let what = format!("epoch {}: {deed:?}: {failure}", self.epoch());
                self.tell(&what);
                self.failures.push(what);
            }
        }
        *due = later;
        Ok(())
    }
}
