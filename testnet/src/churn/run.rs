//! Carries out what is planned, on real processes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use node::{
    cli::{Committees, Connection, Exit, Failure, load_key, output::note, register_node, wanted_node},
    client::{Client, ClientConfig},
    config::{NodeConfig, PeerAddress},
    keys::{AccountKey, NodeKeys},
};
use protocol::{
    PeerId,
    ledger::{
        parameters::Parameters,
        signature::SigningKey,
        state::entry::{NodeStatus, Stage},
        transaction::Action,
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
    report::{Report, Setting},
    timeline::Phase,
    traffic::Meter,
    watch::{SharedTimeline, Sight, follow},
    workload::{BlobRecord, Certified, Moment, Workload},
};
use crate::cluster::{self, Cluster, ClusterConfig, Fate, Observer, faucet_file, until};

/// How long the network may take to find together, nodes to be whole at the end, and clients to finish what they do.
const LIMIT: Duration = Duration::from_secs(120);
/// How long an epoch may take beyond three times what it should: longer, and the ledger has stopped.
const EPOCH_LIMIT: Duration = Duration::from_secs(60);
/// How often nodes are asked how they are, and what is due is looked at.
const STEP: Duration = Duration::from_millis(500);
/// How long to wait for a node's answer when asking how it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Clients that work at the same time. Each has an account of its own: those of one account wait for each other.
const WORKERS: u8 = 4;
/// Ways in that a new node is given.
const BOOTSTRAP: usize = 3;
/// Tries of a blob that is read back at the end.
const READ_TRIES: usize = 3;
/// Blobs that are read back at the same time.
const READS_IN_FLIGHT: usize = 4;

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
struct Running {
    peer: PeerId,
    is_active: bool,
    /// Which of the wipes it has not recovered from yet.
    wiped: Option<usize>,
    /// When it is to be started again.
    restart: Option<Instant>,
    health: Option<NodeHealth>,
    /// Bytes received since the next committee was selected.
    copied_bytes: u64,
}

/// A run.
struct Churn {
    cluster: Cluster,
    observer: Observer,
    client: Client<LiveNetwork>,
    terms: Terms,
    faucet: AccountKey,
    workload: Workload,
    sights: watch::Receiver<Sight>,
    timeline: SharedTimeline,
    meter: Meter,
    nodes: BTreeMap<usize, Running>,
    deeds: BTreeMap<u32, Deeds>,
    wipes: Vec<Wiped>,
    skipped: Vec<String>,
    failures: Vec<String>,
    start: Instant,
}

/// Runs a network in a directory that is empty or does not exist, and ends it.
///
/// # Errors
///
/// If the network cannot be set up, a node ends unasked, or the ledger stops. What clients and blobs suffered is in the
/// report.
pub async fn run(dir: &Path, settings: &Settings) -> Result<Report, Failure> {
    let start = Instant::now();
    let selection = settings.epoch / 2;
    let parameters = Parameters {
        epoch_ms: u64::try_from(settings.epoch.as_millis()).unwrap_or(u64::MAX),
        min_stake: STAKE_MIN,
        epochs_ahead_max: protocol::ledger::parameters::EPOCHS_AHEAD_MAX,
        ..Parameters::default()
    };
    let config = ClusterConfig { n_nodes: settings.nodes, n_shards: settings.shards, base_port: None };
    let terms = cluster::Terms { accounts: Vec::new(), parameters, node_stake: STAKE };
    let mut cluster = Cluster::create_on_terms(dir, &config, Fate::WithParent, terms).await?;
    let tell = |text: &str| note(format_args!("[{:6.1} s] {text}", start.elapsed().as_secs_f64()));
    tell(&format!("starting {} nodes with {} shards", settings.nodes, settings.shards));
    cluster.start_all().await?;
    let members = cluster.observe().await?;
    cluster.wait_healthy(&members, LIMIT, |_| {}).await?;
    members.close().await;

    let observer = Observer::start(cluster.genesis(), HEALTH_TIMEOUT).await?;
    let operator = Connection::start(Arc::clone(cluster.genesis()), ClientConfig::default()).await?;
    let users = Connection::start(Arc::clone(cluster.genesis()), ClientConfig::default()).await?;
    let first = Committees::read(operator.client()).await;
    let first = first.map_err(|error| Failure::ledger("the committee is not known", &error))?;
    let timeline = SharedTimeline::default();
    let began = Instant::now();
    timeline.lock().saw((first.head.epoch.0, first.head.stage), &first.current, (began, Duration::ZERO));
    let moment = Moment { epoch: first.head.epoch.0, phase: Phase::of(first.head.stage) };
    let (moments, moment) = watch::channel(moment);
    let (sight_sender, sights) = watch::channel(Sight { committees: Arc::new(first), began });
    let workload = Workload::new(settings.seed, settings.epochs, moment);
    let terms = Terms {
        seed: settings.seed,
        n_shards: settings.shards,
        max_faulty: cluster.max_faulty(),
        epoch: settings.epoch,
        selection,
        without: settings.without.clone(),
    };
    let faucet = load_key(&faucet_file(cluster.dir()))?;
    let mut churn = Churn {
        observer,
        client: operator.client().clone(),
        terms,
        faucet,
        workload: workload.clone(),
        sights,
        timeline: timeline.clone(),
        meter: Meter::default(),
        nodes: BTreeMap::new(),
        deeds: BTreeMap::new(),
        wipes: Vec::new(),
        skipped: Vec::new(),
        failures: Vec::new(),
        start,
        cluster,
    };
    for node in 0..churn.cluster.n_nodes() {
        churn.introduce(node)?;
    }
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
    churn.tell("all nodes are healthy, clients store and read");

    churn.epochs(settings.epochs).await?;
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
    let Churn { mut cluster, observer, start, .. } = churn;
    observer.close().await;
    users.close().await;
    operator.close().await;
    cluster.stop_all().await?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

impl Churn {
    fn tell(&self, text: impl std::fmt::Display) {
        note(format_args!("[{:6.1} s] {text}", self.start.elapsed().as_secs_f64()));
    }

    fn sight(&self) -> Sight {
        self.sights.borrow().clone()
    }

    fn epoch(&self) -> u32 {
        self.sights.borrow().epoch()
    }

    fn deeds(&mut self) -> &mut Deeds {
        let epoch = self.epoch();
        self.deeds.entry(epoch).or_default()
    }

    /// Makes a node known to the observer.
    fn introduce(&mut self, node: usize) -> Result<(), Failure> {
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
    async fn epochs(&mut self, epochs: u32) -> Result<(), Failure> {
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
                self.begin_epoch(&sight, (last - first, epoch - first)).await?;
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

    async fn begin_epoch(&mut self, sight: &Sight, (of, epoch): (u32, u32)) -> Result<(), Failure> {
        let Committees { head, current, .. } = &*sight.committees;
        let members = current.len();
        let operations = self.workload.operations();
        let n_failed = operations.iter().filter(|operation| operation.error.is_some()).count();
        self.tell(format_args!(
            "epoch {} ({epoch} of {of}): {members} members; so far {} operations, {n_failed} failed, {} blobs",
            head.epoch.0,
            operations.len(),
            self.workload.blobs().len()
        ));
        Ok(())
    }

    /// Asks all nodes how they are.
    async fn look(&mut self) {
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

    fn saw(&mut self, node: usize, health: Option<NodeHealth>, sight: &Sight) {
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
            let done = match deed {
                Deed::Join { stake } => self.join(stake).await,
                Deed::Leave { node } => self.leave(node).await,
                Deed::Wipe { node, away } => self.wipe(node, away).await,
                Deed::Shift { from, to, amount } => self.shift((from, to), amount).await,
            };
            if let Err(failure) = done {
                let what = format!("epoch {}: {deed:?}: {failure}", self.epoch());
                self.tell(&what);
                self.failures.push(what);
            }
        }
        *due = later;
        Ok(())
    }

    async fn join(&mut self, stake: u64) -> Result<(), Failure> {
        let mut bootstrap = Vec::new();
        for node in self.nodes.keys().rev().take(BOOTSTRAP) {
            let member = self.cluster.member(*node)?;
            let peer = member.peer;
            bootstrap.extend(member.addresses.into_iter().map(|address| PeerAddress { peer, address }));
        }
        let node = self.cluster.add_node(bootstrap).await?;
        let dir = self.cluster.node_dir(node);
        let (config, keys) = (NodeConfig::load(&dir)?, NodeKeys::load(&dir)?);
        let wanted = wanted_node(&config, &keys, self.faucet.account());
        register_node(&self.client, &wanted, (&keys, &self.faucet)).await?;
        self.submit(Action::Stake { node: keys.peer(), amount: stake }, self.faucet.signing()).await?;
        self.cluster.start(node).await?;
        self.introduce(node)?;
        self.tell(format_args!("node-{node} joins, with {stake} credits of stake"));
        self.deeds().joined.push(format!("node-{node}"));
        Ok(())
    }

    async fn leave(&mut self, node: usize) -> Result<(), Failure> {
        let peer = self.peer(node)?;
        // Nodes of the genesis are operated by the account of their own key.
        let own = NodeKeys::load(&self.cluster.node_dir(node))?;
        let own = SigningKey::from_secret(own.peer_key().secret_bytes());
        let key = if node < self.cluster.n_nodes() { &own } else { self.faucet.signing() };
        self.submit(Action::LeaveNode { node: peer }, key).await?;
        if let Some(running) = self.nodes.get_mut(&node) {
            running.is_active = false;
        }
        self.tell(format_args!("node-{node} leaves"));
        self.deeds().left.push(format!("node-{node}"));
        Ok(())
    }

    async fn wipe(&mut self, node: usize, away: Duration) -> Result<(), Failure> {
        let (peer, sight) = (self.peer(node)?, self.sight());
        // What it has received so far is not known any more once it is gone.
        let health = self.observer.health(peer).await;
        self.saw(node, health, &sight);
        self.cluster.kill(node).await?;
        self.cluster.wipe(node).await?;
        self.meter.ended(&peer);
        let epoch = sight.epoch();
        let index = self.wipes.len();
        if let Some(running) = self.nodes.get_mut(&node) {
            self.wipes.push(Wiped {
                node,
                epoch,
                shards: sight.committees.shards_now(&peer).into_iter().collect::<BTreeSet<u16>>(),
                copied_bytes: running.copied_bytes,
                started: None,
                healed: None,
            });
            running.health = None;
            running.copied_bytes = 0;
            running.wiped = Some(index);
            running.restart = Some(Instant::now() + away);
        }
        self.tell(format_args!("killed node-{node} and wiped its disk"));
        self.deeds().wiped.push(format!("node-{node}"));
        Ok(())
    }

    async fn shift(&mut self, (from, to): (usize, usize), amount: u64) -> Result<(), Failure> {
        let (giver, taker) = (self.peer(from)?, self.peer(to)?);
        let faucet = self.faucet.signing();
        self.submit(Action::Unstake { node: giver, amount: Some(amount) }, faucet).await?;
        self.submit(Action::Stake { node: taker, amount }, faucet).await?;
        self.tell(format_args!("{amount} credits of stake move from node-{from} to node-{to}"));
        self.deeds().stake_moved += amount;
        Ok(())
    }

    async fn submit(&self, action: Action, key: &SigningKey) -> Result<(), Failure> {
        let result = self.client.submit(action, key).await;
        result.map(|_| ()).map_err(|error| Failure::submit("a transaction was not executed", &error))
    }

    fn peer(&self, node: usize) -> Result<PeerId, Failure> {
        let gone = || Failure::new(Exit::Other, format!("node-{node} is gone"));
        self.nodes.get(&node).map(|running| running.peer).ok_or_else(gone)
    }

    /// Starts wiped nodes whose time has come.
    async fn restart_due(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let is_due = |running: &Running| running.restart.is_some_and(|at| at <= now);
        let due: Vec<usize> =
            self.nodes.iter().filter(|(_, running)| is_due(running)).map(|(node, _)| *node).collect();
        for node in due {
            self.cluster.start(node).await?;
            let Some(running) = self.nodes.get_mut(&node) else { continue };
            running.restart = None;
            let wiped = running.wiped.and_then(|index| self.wipes.get_mut(index));
            if let Some(wiped) = wiped {
                wiped.started = Some(Instant::now());
            }
            self.tell(format_args!("node-{node} starts with an empty disk"));
        }
        Ok(())
    }

    /// Ends the processes of nodes that nobody needs any more.
    async fn stop_leavers(&mut self, sight: &Sight) -> Result<(), Failure> {
        let may_stop = |running: &Running| !running.is_active && sight.committees.may_stop(&running.peer);
        let gone: Vec<usize> =
            self.nodes.iter().filter(|(_, running)| may_stop(running)).map(|(node, _)| *node).collect();
        for node in gone {
            self.cluster.remove_node(node).await?;
            if let Some(running) = self.nodes.remove(&node) {
                self.meter.ended(&running.peer);
            }
            self.tell(format_args!("node-{node} has handed over its shards, and ends"));
            self.deeds().stopped.push(format!("node-{node}"));
        }
        Ok(())
    }

    /// Waits until wiped nodes run and all have what they answer for. That they do not is a failure of the run's
    /// promises, not of the run.
    async fn settle(&mut self) -> Result<(), Failure> {
        self.tell("waiting for all nodes to have what they answer for");
        let result = until("waiting for all nodes to be whole", LIMIT, async || {
            self.cluster.check_alive()?;
            self.look().await;
            self.restart_due().await?;
            let is_whole = |running: &Running| {
                let health = running.health.as_ref();
                running.wiped.is_none() && health.is_some_and(|health| health.slivers_missing == 0)
            };
            Ok(self.nodes.values().all(is_whole).then_some(()))
        })
        .await;
        match result {
            Err(failure) if failure.exit() == Exit::Unavailable => {
                self.failures.push(failure.to_string());
                Ok(())
            }
            result => result,
        }
    }

    /// Reads back what is to be there, and sums up.
    async fn report(&self, settings: &Settings, client: &Client<LiveNetwork>) -> Result<Report, Failure> {
        self.tell("reading back every blob");
        let mut blobs = self.workload.blobs();
        let checks = blobs.iter().map(|blob| self.check_blob(client, blob));
        let checks: Vec<Check> = stream::iter(checks).buffered(READS_IN_FLIGHT).collect().await;
        let mut report = Report {
            setting: Setting {
                seed: settings.seed,
                epochs: settings.epochs,
                epoch_seconds: settings.epoch.as_secs_f64(),
                nodes: settings.nodes,
                n_shards: settings.shards,
                max_faulty: self.terms.max_faulty,
            },
            deeds_failed: self.failures.len(),
            skipped: self.skipped.clone(),
            failures: self.failures.clone(),
            ..Report::default()
        };
        for (blob, check) in blobs.iter_mut().zip(checks) {
            match check {
                Check::Expired => {}
                Check::Whole(certified) => {
                    report.blobs += 1;
                    // Also what no client saw certified may have had to move.
                    blob.certified.get_or_insert(certified);
                }
                Check::Lost(why) => {
                    report.blobs += 1;
                    report.lost_blobs += 1;
                    report.failures.push(why);
                }
            }
        }
        let timeline = self.timeline.lock();
        let seen = Seen {
            n_shards: self.terms.n_shards,
            timeline: &timeline,
            meter: &self.meter,
            deeds: &self.deeds,
            wipes: &self.wipes,
            blobs: &blobs,
        };
        (report.timeline, report.heals) = (seen.rows(), seen.heals());
        report.add_operations(&self.workload.operations(), &timeline);
        report.add_bytes();
        report.judge();
        Ok(report)
    }

    /// Whether a blob is what it should be.
    async fn check_blob(&self, client: &Client<LiveNetwork>, blob: &BlobRecord) -> Check {
        let mut why = String::new();
        for _ in 0..READ_TRIES {
            let epoch = self.epoch();
            let known = match client.ledger_blob(&blob.blob_id).await {
                Ok(proven) => proven.value,
                Err(error) => {
                    why = error.to_string();
                    continue;
                }
            };
            let promised = blob.certified.is_some_and(|certified| certified.end > epoch.saturating_add(1));
            let Some(available) = known.and_then(|known| known.available) else {
                if promised {
                    let id = blob.blob_id;
                    return Check::Lost(format!("{id} was certified, and the ledger does not have it so"));
                }
                // It expired, or never came as far as that.
                return Check::Expired;
            };
            let certified = Certified { epoch: available.epoch.0, at: self.start, end: available.end.0 };
            match self.workload.read(client, blob).await {
                Ok(()) => return Check::Whole(certified),
                Err(error) if available.end.0 <= self.epoch().saturating_add(1) => {
                    tracing::debug!(error, "a blob expired while it was read");
                    return Check::Expired;
                }
                Err(error) => why = error,
            }
        }
        Check::Lost(why)
    }
}

/// What was found of a blob in the end.
enum Check {
    /// Nobody promises it any more.
    Expired,
    /// It is what was stored.
    Whole(Certified),
    /// It is not, and why.
    Lost(String),
}
