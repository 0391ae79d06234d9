//! The programs of a network are replaced, node by node, while clients of both versions use it.
//!
//! ```text
//!  run: plan says which node next --> stopped (SIGTERM), program replaced, started, waited for as docs/OPERATING.md says
//!       clients (floe, old and new) store and read all the time --> report: judged in the end
//! ```
//!
//! Nodes and clients are programs that are given by path; this program only starts them, and asks nodes how they are.

mod clients;
mod plan;
mod report;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use node::cli::{Exit, Failure, output::note};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::clients::{Clients, Tool};
pub use self::{
    plan::{Step, Version, steps},
    report::{Done, Report, Used},
};
use crate::cluster::{Cluster, ClusterConfig, Fate, Signal, until};

/// How long a node may take to be healthy after its start, and the network to find together.
const LIMIT: Duration = Duration::from_secs(120);
/// How long clients go on before the first step, between steps, and after the last one: so that each state is used.
const BETWEEN: Duration = Duration::from_secs(3);

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program that runs first.
    pub old: PathBuf,
    /// The program that takes its place.
    pub new: PathBuf,
    /// Decides in which order, and which node goes back.
    pub seed: u64,
    /// Number of nodes.
    pub nodes: u16,
    /// Number of shards.
    pub shards: u16,
}

/// Runs a network in an empty directory, and replaces its programs.
///
/// Cancel safe: yes, its processes end.
///
/// # Errors
///
/// If the programs cannot be used or are the same, a node ends unasked or does not become healthy, or something cannot be
/// written. What clients were told is no error: see [`Report::broken`].
pub async fn run(dir: &Path, settings: &Settings) -> Result<Report, Failure> {
    let programs: BTreeMap<Version, PathBuf> =
        [(Version::Old, settings.old.clone()), (Version::New, settings.new.clone())].into();
    check_differ(settings)?;
    let config = ClusterConfig { n_nodes: settings.nodes, n_shards: settings.shards, base_port: None };
    let cluster = Cluster::create(&dir.join("testnet"), &config, Fate::WithParent).await?;
    let mut network = Network { cluster, programs, places: dir.join("programs") };
    fs::create_dir_all(&network.places)
        .map_err(|error| Failure::io("cannot make room for programs", &error))?;
    let names = network.names().await?;
    note(format_args!("old: {}; new: {}", names[&Version::Old], names[&Version::New]));
    for node in 0..usize::from(settings.nodes) {
        network.put(node, Version::Old)?;
        network.cluster.start(node).await?;
    }
    network.wait_healthy().await?;

    let clients_dir = dir.join("clients");
    let tools = Tool::all(&network.programs, &network.cluster);
    let clients = Clients::start(&tools, &clients_dir, settings.seed).await?;
    let steps = steps(settings.seed, usize::from(settings.nodes));
    let mut done = Vec::new();
    let changed = async {
        network.cluster_is_alive_for(BETWEEN).await?;
        for step in steps {
            let before = clients.finished();
            let seconds = network.take(step).await?;
            let finished = clients.finished().saturating_sub(before);
            note(format_args!(
                "node-{}: {} program, healthy after {seconds:.1} s",
                step.node,
                step.to.name()
            ));
            done.push(Done { node: step.node, to: step.to, seconds, finished });
            network.cluster_is_alive_for(BETWEEN).await?;
        }
        Ok::<(), Failure>(())
    }
    .await;
    let (used, blobs) = clients.end().await;
    changed?;
    note(format_args!("reading {} blobs with both programs", blobs.len()));
    let lost = clients::read_all(&tools, (&clients_dir, settings.seed), &blobs).await;
    network.cluster.check_alive()?;
    network.cluster.stop_all().await?;
    Ok(Report { seed: settings.seed, programs: names, steps: done, used, blobs: blobs.len(), lost })
}

/// A run with one program in both places would show nothing.
fn check_differ(settings: &Settings) -> Result<(), Failure> {
    let read = |path: &Path| {
        fs::read(path).map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))
    };
    if read(&settings.old)? == read(&settings.new)? {
        return Err(Failure::new(Exit::Usage, "--old and --new are the same program")
            .hint("build one of them from another commit"));
    }
    Ok(())
}

struct Network {
    cluster: Cluster,
    programs: BTreeMap<Version, PathBuf>,
    /// Where nodes have their programs, each its own.
    places: PathBuf,
}

impl Network {
    /// What the programs say that they are.
    async fn names(&self) -> Result<BTreeMap<Version, String>, Failure> {
        let mut names = BTreeMap::new();
        for (version, program) in &self.programs {
            names.insert(*version, clients::name(program).await?);
        }
        Ok(names)
    }

    fn place(&self, node: usize) -> PathBuf {
        self.places.join(format!("floe-{node}"))
    }

    /// Puts a program in place of a node's: beside it first, so that there is always one or the other.
    fn put(&mut self, node: usize, version: Version) -> Result<(), Failure> {
        let place = self.place(node);
        let beside = place.with_extension("next");
        let failed = |error| Failure::io(format!("cannot put a program at {}", place.display()), &error);
        fs::copy(&self.programs[&version], &beside).map_err(failed)?;
        fs::rename(&beside, &place).map_err(failed)?;
        self.cluster.run_with(node, place);
        Ok(())
    }

    /// Replaces the program of a node, as docs/OPERATING.md says. Returns the seconds from its stop until all is well.
    async fn take(&mut self, step: Step) -> Result<f64, Failure> {
        let began = Instant::now();
        self.cluster.signal(step.node, Signal::TERM).await?;
        self.put(step.node, step.to)?;
        self.cluster.start(step.node).await?;
        let (place, dir) = (self.place(step.node), self.cluster.node_dir(step.node));
        until(&format!("waiting for node-{} to be well", step.node), LIMIT, async || {
            self.cluster.check_alive()?;
            Ok(clients::is_well(&place, &dir).await?.then_some(()))
        })
        .await?;
        self.wait_healthy().await?;
        self.check_program(step.node)?;
        Ok(began.elapsed().as_secs_f64())
    }

    async fn wait_healthy(&mut self) -> Result<(), Failure> {
        // Anew each time: what it knew of a node that was stopped is of no use.
        let observer = self.cluster.observe().await?;
        let healthy = self.cluster.wait_healthy(&observer, LIMIT, |_| {}).await;
        observer.close().await;
        healthy
    }

    /// That the process of a node runs the program that was put in its place.
    fn check_program(&self, node: usize) -> Result<(), Failure> {
        let manifest = self.cluster.manifest()?;
        let process = manifest.nodes.get(node).and_then(|node| node.process.as_ref());
        let runs = process.map(|process| process.program()).transpose()?;
        let place = fs::canonicalize(self.place(node))
            .map_err(|error| Failure::io("cannot find a program", &error))?;
        if runs.as_ref() == Some(&place) {
            return Ok(());
        }
        let what = format!("node-{node} runs {runs:?}, and not what was put at {}", place.display());
        Err(Failure::new(Exit::Broken, what))
    }

    /// Lets clients go on for a while; fails at once if a node ends.
    async fn cluster_is_alive_for(&mut self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        until("letting clients go on", 2 * time, async || {
            self.cluster.check_alive()?;
            Ok((Instant::now() >= end).then_some(()))
        })
        .await
    }
}
