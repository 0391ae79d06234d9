//! A network of real processes in one directory, on loopback.
//!
//! Every command of `floe-testnet` is a few calls of [`Cluster`], and so is every integration test. What is true of
//! the processes is in `testnet.json`, not in this type: several programs may work on one testnet, one at a time.
//!
//! # Invariants
//!
//! - A process is signalled only if it is the one that was started: see [`process`].
//! - With [`Fate::WithParent`], no process outlives the one that started it, however that one ends.

mod founding;
mod health;
mod layout;
mod observer;
mod ports;
mod process;
mod wait;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use node::{
    cli::{Exit, Failure, init_node},
    config::{MemberFile, NodeConfig, PeerAddress, load_genesis},
};
use protocol::{
    committee::spread,
    genesis::{Genesis, GenesisAccount},
    ledger::parameters::Parameters,
    quorum::max_faulty,
};
pub use rustix::process::Signal;

pub(crate) use self::founding::{RESERVE_BYTES, SCRUB_BYTES_PER_SECOND, SCRUB_INTERVAL, check_counts, found};
use self::founding::{check_empty, node_config, with_ports};

pub use self::{
    layout::{
        DirLock, Manifest, NodeEntry, client_file, disk_bytes, faucet_file, genesis_file, targets_file,
        wallet_file,
    },
    observer::Observer,
    process::{Memory, ProcessId, ProcessState},
    wait::until,
};

/// Tells a node that it is one of a testnet, and which process it must not outlive: 0 for none.
const PARENT_VARIABLE: &str = "FLOE_TESTNET_PARENT";
/// `floe-testnet become PROGRAM ARGS...` is another program, with the fate of a node of a testnet.
pub(crate) const BECOME: &str = "become";
/// How long a node may take to stop when asked to; more than it gives its own parts.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Lines of a node's log that are shown when it ends unasked.
const LOG_LINES_SHOWN: usize = 3;

/// Credits of the faucet: more than anybody tries out, and far from the most that there can be.
pub const FAUCET_CREDITS: u64 = 1_000_000_000_000;

/// What a testnet is made with.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Number of nodes.
    pub n_nodes: u16,
    /// Number of shards.
    pub n_shards: u16,
    /// The first of consecutive ports; `None` for any free ones.
    pub base_port: Option<u16>,
}

/// What the genesis of a testnet says beside its nodes.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Accounts with credits from the beginning, beside the faucet and the wallet.
    pub accounts: Vec<GenesisAccount>,
    /// Rules and prices.
    pub parameters: Parameters,
    /// Credits of the faucet behind each node; 0 for no stake.
    pub node_stake: u64,
    /// Nodes tell each other the address of a relay, which somebody else is to run.
    pub is_relayed: bool,
    /// What is different in the configuration of nodes.
    pub adjust: Option<fn(&mut NodeConfig)>,
}

/// What becomes of nodes when the process that started them ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They run on.
    Detached,
    /// They are killed.
    WithParent,
}

/// A testnet in a directory.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    genesis: Arc<Genesis>,
    /// The program that runs nodes: `floe-testnet`.
    program: PathBuf,
    /// Nodes that another program runs: `floe`.
    programs: BTreeMap<usize, PathBuf>,
    fate: Fate,
    /// Those that this process started. Kept to be reaped.
    children: Vec<Child>,
}

impl Cluster {
    /// Makes a testnet in a directory that is empty or does not exist; starts nothing.
    ///
    /// # Errors
    ///
    /// If the directory holds something, the numbers do not fit, or something cannot be written.
    pub async fn create(dir: &Path, config: &ClusterConfig, fate: Fate) -> Result<Self, Failure> {
        Self::create_endowed(dir, config, fate, Vec::new()).await
    }

    /// The same, with accounts that have credits from the beginning, beside the faucet.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), and if an account is there twice or has nothing.
    pub async fn create_endowed(
        dir: &Path,
        config: &ClusterConfig,
        fate: Fate,
        accounts: Vec<GenesisAccount>,
    ) -> Result<Self, Failure> {
        Self::create_on_terms(dir, config, fate, Terms { accounts, ..Terms::default() }).await
    }

    /// The same, with other rules and with stake.
    ///
    /// # Errors
    ///
    /// As [`create_endowed`](Self::create_endowed), and if a parameter is out of bounds.
    pub async fn create_on_terms(
        dir: &Path,
        config: &ClusterConfig,
        fate: Fate,
        terms: Terms,
    ) -> Result<Self, Failure> {
        let Terms { is_relayed, adjust, .. } = terms;
        check_counts(config.n_nodes, config.n_shards)?;
        let dir = absolute(dir)?;
        fs::create_dir_all(&dir)
            .map_err(|error| Failure::io(format!("cannot create {}", dir.display()), &error))?;
        check_empty(&dir)?;
        let _lock = DirLock::take(&dir).await?;
        // Another program may have made one since.
        check_empty(&dir)?;
        let manifest = with_ports(config, is_relayed)?;
        let mut members = Vec::new();
        for (node, shards) in manifest.nodes.iter().zip(spread(config.n_shards, config.n_nodes)) {
            let mut config = node_config(node);
            adjust.into_iter().for_each(|adjust| adjust(&mut config));
            members.push(init_node(&dir.join(&node.name), &config)?.with_shards(shards));
        }
        let genesis = found(&dir, (config.n_shards, members), terms)?;
        // Last: a directory with a manifest is complete.
        manifest.save(&dir)?;
        Ok(Self {
            dir,
            genesis: Arc::new(genesis),
            program: program()?,
            programs: BTreeMap::new(),
            fate,
            children: Vec::new(),
        })
    }

    /// Opens the testnet in a directory.
    ///
    /// # Errors
    ///
    /// If there is none, or its files cannot be used.
    pub fn open(dir: &Path, fate: Fate) -> Result<Self, Failure> {
        let dir = absolute(dir)?;
        if Manifest::load(&dir)?.is_none() {
            return Err(Failure::new(Exit::Usage, format!("{} is not a testnet", dir.display()))
                .hint("make one with: floe-testnet up --dir DIR"));
        }
        let genesis = Arc::new(load_genesis(&genesis_file(&dir))?);
        Ok(Self { dir, genesis, program: program()?, programs: BTreeMap::new(), fate, children: Vec::new() })
    }

    /// Runs nodes with another program than this one: for tests, whose own program is the test.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Runs a node with this `floe` program from its next start on, as long as this value lives.
    pub fn run_with(&mut self, node: usize, program: PathBuf) {
        self.programs.insert(node, program);
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The genesis of the network.
    #[must_use]
    pub const fn genesis(&self) -> &Arc<Genesis> {
        &self.genesis
    }

    /// The nodes as they are now.
    ///
    /// # Errors
    ///
    /// If `testnet.json` cannot be read.
    pub fn manifest(&self) -> Result<Manifest, Failure> {
        Manifest::load(&self.dir)?
            .ok_or_else(|| Failure::new(Exit::Io, format!("{} is gone", self.dir.display())))
    }

    /// The directory of a node.
    #[must_use]
    pub fn node_dir(&self, node: usize) -> PathBuf {
        self.dir.join(format!("node-{node}"))
    }

    /// Shards of a node.
    ///
    /// # Errors
    ///
    /// If there is no such node.
    pub fn shards(&self, node: usize) -> Result<u16, Failure> {
        let name = format!("node-{node}");
        let committee = self.genesis.committee();
        let index =
            committee.nodes().find(|i| committee.member(*i).is_some_and(|member| member.name == name));
        index.map(|index| committee.weight(index)).ok_or_else(|| no_such_node(node, self.n_nodes()))
    }

    /// Number of nodes that the genesis names. Those that joined later have the numbers from here on.
    #[must_use]
    pub fn n_nodes(&self) -> usize {
        self.genesis.committee().members().len()
    }

    /// Most shards that may fail at the same time.
    #[must_use]
    pub fn max_faulty(&self) -> u16 {
        max_faulty(self.genesis.n_shards())
    }

    /// How the process of a node is.
    ///
    /// # Errors
    ///
    /// If there is no such node.
    pub fn state(&mut self, node: usize) -> Result<ProcessState, Failure> {
        self.reap();
        Ok(self.process(node)?.map_or(ProcessState::Dead, |process| process.state()))
    }

    /// Makes the directory of a node that is not of the genesis, with the network's genesis file and a way in. It is not
    /// registered, and not started. Returns its number.
    ///
    /// # Errors
    ///
    /// If no port is free, or something cannot be written.
    pub async fn add_node(&mut self, bootstrap: Vec<PeerAddress>) -> Result<usize, Failure> {
        let _lock = DirLock::take(&self.dir).await?;
        let mut manifest = self.manifest()?;
        let node = manifest.nodes.len();
        let [port, metrics_port] = ports::free_ports(2, None)?[..] else {
            return Err(no_such_node(node, node));
        };
        let entry = NodeEntry::new(node, (port, metrics_port));
        let mut config = node_config(&entry);
        config.network.bootstrap = bootstrap;
        init_node(&self.node_dir(node), &config)?;
        manifest.nodes.push(entry);
        manifest.save(&self.dir)?;
        Ok(node)
    }

    /// Takes a node out of the testnet for good: asks its process to end, and removes its directory. Its number is not
    /// given again.
    ///
    /// # Errors
    ///
    /// If it does not end in time, or something cannot be removed.
    pub async fn remove_node(&mut self, node: usize) -> Result<(), Failure> {
        if self.state(node)? != ProcessState::Dead {
            self.signal(node, Signal::TERM).await?;
        }
        let _lock = DirLock::take(&self.dir).await?;
        let mut manifest = self.manifest()?;
        let entry = entry(&mut manifest, node)?;
        (entry.process, entry.is_removed) = (None, true);
        // Before its directory: what is half removed is not started again.
        manifest.save(&self.dir)?;
        let dir = self.node_dir(node);
        fs::remove_dir_all(&dir)
            .map_err(|error| Failure::io(format!("cannot remove {}", dir.display()), &error))
    }

    /// What a node says of itself in public: who it is, and where it listens.
    ///
    /// # Errors
    ///
    /// If there is no such node, or its file cannot be read.
    pub fn member(&self, node: usize) -> Result<MemberFile, Failure> {
        Ok(MemberFile::load(&self.node_dir(node).join(MemberFile::NAME))?)
    }

    /// Starts the nodes that do not run, but for those that were removed.
    ///
    /// # Errors
    ///
    /// If a process cannot be started.
    pub async fn start_all(&mut self) -> Result<(), Failure> {
        for (node, entry) in self.manifest()?.nodes.iter().enumerate() {
            if !entry.is_removed && self.state(node)? == ProcessState::Dead {
                self.start(node).await?;
            }
        }
        Ok(())
    }

    /// Starts a node; returns as soon as its process runs.
    ///
    /// # Errors
    ///
    /// If it runs already, or its process cannot be started.
    pub async fn start(&mut self, node: usize) -> Result<ProcessId, Failure> {
        self.start_skewed(node, 0).await
    }

    /// The same, with its clock this many seconds off.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_skewed(&mut self, node: usize, skew: i64) -> Result<ProcessId, Failure> {
        let _lock = DirLock::take(&self.dir).await?;
        let mut manifest = self.manifest()?;
        self.check_dead(node)?;
        if entry(&mut manifest, node)?.is_removed {
            return Err(Failure::new(Exit::Usage, format!("node-{node} has left for good"))
                .hint("see with `floe-testnet status` which nodes there are"));
        }
        let process = self.spawn(node, skew)?;
        entry(&mut manifest, node)?.process = Some(process.clone());
        manifest.save(&self.dir)?;
        Ok(process)
    }

    /// Empties the disk of a node that does not run; it keeps its keys and its configuration.
    ///
    /// # Errors
    ///
    /// If it runs, or something cannot be removed.
    pub async fn wipe(&mut self, node: usize) -> Result<(), Failure> {
        let _lock = DirLock::take(&self.dir).await?;
        self.check_dead(node)?;
        let data = NodeConfig::load(&self.node_dir(node))?.storage.dir;
        let inside = data.strip_prefix(self.node_dir(node)).unwrap_or_else(|_| Path::new(""));
        let is_inside = inside.components().all(|part| matches!(part, Component::Normal(_)));
        if !is_inside || inside.as_os_str().is_empty() {
            let what = format!("will not empty {}: it is not in the node's directory", data.display());
            return Err(Failure::new(Exit::Usage, what));
        }
        match fs::remove_dir_all(&data) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::io(format!("cannot remove {}", data.display()), &error))
            }
            _ => Ok(()),
        }
    }

    /// Signals a node. Waits until it is gone if that is what the signal means.
    ///
    /// # Errors
    ///
    /// If it does not run, or does not end in time.
    pub async fn signal(&mut self, node: usize, signal: Signal) -> Result<ProcessId, Failure> {
        let _lock = DirLock::take(&self.dir).await?;
        let mut manifest = self.manifest()?;
        self.reap();
        let not_running = || Failure::new(Exit::NotFound, format!("node-{node} is not running"));
        let process = entry(&mut manifest, node)?.process.clone().ok_or_else(not_running)?;
        if process.state() == ProcessState::Dead {
            return Err(not_running());
        }
        process.signal(signal)?;
        let limit = match signal {
            Signal::KILL => KILL_LIMIT,
            Signal::TERM | Signal::INT => STOP_LIMIT,
            _ => return Ok(process),
        };
        self.wait_dead(&process, limit).await?;
        entry(&mut manifest, node)?.process = None;
        manifest.save(&self.dir)?;
        Ok(process)
    }

    /// Kills a node, as a loss of power would.
    ///
    /// # Errors
    ///
    /// As [`signal`](Self::signal).
    pub async fn kill(&mut self, node: usize) -> Result<ProcessId, Failure> {
        self.signal(node, Signal::KILL).await
    }

    /// Stops all nodes: asks them to, and kills those that do not. Returns the nodes stopped, and those killed.
    ///
    /// # Errors
    ///
    /// If a process does not even end when killed.
    pub async fn stop_all(&mut self) -> Result<(Vec<usize>, Vec<usize>), Failure> {
        let _lock = DirLock::take(&self.dir).await?;
        let mut manifest = self.manifest()?;
        self.reap();
        let (mut stopped, mut killed) = (Vec::new(), Vec::new());
        let mut gone = Vec::new();
        for (node, entry) in manifest.nodes.iter().enumerate() {
            let Some(process) = &entry.process else { continue };
            if process.signal(Signal::TERM).is_err() {
                gone.push(node);
            }
            // A stopped process must run to hear of it; if it is gone by now, so much the better.
            let _ = process.signal(Signal::CONT);
        }
        let deadline = tokio::time::Instant::now() + STOP_LIMIT;
        for (node, entry) in manifest.nodes.iter_mut().enumerate() {
            let Some(process) = entry.process.take() else { continue };
            if gone.contains(&node) {
                continue;
            }
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if self.wait_dead(&process, left).await.is_ok() {
                stopped.push(node);
            } else {
                let _ = process.signal(Signal::KILL);
                self.wait_dead(&process, KILL_LIMIT).await?;
                killed.push(node);
            }
        }
        manifest.save(&self.dir)?;
        Ok((stopped, killed))
    }

    /// Fails if a node that was started and not stopped has ended; the end of its log says why.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn check_alive(&mut self) -> Result<(), Failure> {
        self.reap();
        for (node, entry) in self.manifest()?.nodes.iter().enumerate() {
            if entry.process.as_ref().is_some_and(|process| process.state() == ProcessState::Dead) {
                let end = self.last_words(node);
                return Err(Failure::new(Exit::Unavailable, format!("{} ended: {end}", entry.name))
                    .hint(format!("see {}", self.node_dir(node).join("node.log").display())));
            }
        }
        Ok(())
    }

    /// What a node logged last.
    #[must_use]
    pub fn last_words(&self, node: usize) -> String {
        log_end(&self.node_dir(node).join("node.log"))
    }

    fn process(&self, node: usize) -> Result<Option<ProcessId>, Failure> {
        Ok(entry(&mut self.manifest()?, node)?.process.clone())
    }

    fn check_dead(&mut self, node: usize) -> Result<(), Failure> {
        match self.state(node)? {
            ProcessState::Dead => Ok(()),
            _ => Err(Failure::new(Exit::Usage, format!("node-{node} is running"))
                .hint("stop it first with: floe-testnet kill")),
        }
    }

    /// Starts the process of a node. With [`Fate::WithParent`], the node watches the calling thread.
    fn spawn(&mut self, node: usize, skew: i64) -> Result<ProcessId, Failure> {
        let dir = self.node_dir(node);
        let failed = |error: io::Error| Failure::io(format!("cannot start node-{node}"), &error);
        let log = File::options().create(true).append(true).open(dir.join("node.log")).map_err(failed)?;
        let mut command = Command::new(&self.program);
        match self.programs.get(&node) {
            Some(program) => command.arg(BECOME).arg(program),
            None => command.arg("floe"),
        };
        command.args(["node", "run", "--dir"]).arg(&dir).stdin(Stdio::null());
        if skew != 0 {
            command.arg(format!("--clock-off-by={skew}"));
        }
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        let parent = match self.fate {
            Fate::Detached => 0,
            Fate::WithParent => std::process::id(),
        };
        command.env(PARENT_VARIABLE, parent.to_string());
        let child = command.spawn().map_err(failed)?;
        let pid = child.id();
        self.children.push(child);
        ProcessId::of(i32::try_from(pid).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?)
    }

    async fn wait_dead(&mut self, process: &ProcessId, limit: Duration) -> Result<(), Failure> {
        until(&format!("waiting for process {} to end", process.pid), limit, async || {
            self.reap();
            Ok((process.state() == ProcessState::Dead).then_some(()))
        })
        .await
    }

    /// Collects the exit codes of processes that ended, so that they do not stay in the system's table.
    fn reap(&mut self) {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.fate == Fate::Detached {
            return;
        }
        for child in &mut self.children {
            // An error means that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn entry(manifest: &mut Manifest, node: usize) -> Result<&mut NodeEntry, Failure> {
    let n_nodes = manifest.nodes.len();
    manifest.nodes.get_mut(node).ok_or_else(|| no_such_node(node, n_nodes))
}

fn no_such_node(node: usize, n_nodes: usize) -> Failure {
    Failure::new(
        Exit::Usage,
        format!("there is no node {node}: nodes are 0 to {}", n_nodes.saturating_sub(1)),
    )
}

/// The last lines of a log, in one line.
fn log_end(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines.iter().rfind(|line| line.starts_with("error: ")) {
        Some(error) => error.trim_start_matches("error: ").to_owned(),
        None => lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join(" / "),
    }
}

fn absolute(dir: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(dir).map_err(|error| Failure::io(format!("cannot use {}", dir.display()), &error))
}

fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::io("cannot find this program", &error))
}

/// If a testnet started this process as a node: leaves the terminal's session, and ends with the parent if that is its
/// fate.
///
/// # Errors
///
/// If the parent is gone already.
pub fn become_node() -> Result<(), Failure> {
    let Ok(parent) = std::env::var(PARENT_VARIABLE) else { return Ok(()) };
    // A process that already leads a group stays in its session: then there is no terminal to leave.
    let _ = rustix::process::setsid();
    if parent == "0" {
        return Ok(());
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::io("cannot watch the parent process", &io::Error::from(error)))?;
    let is_parent =
        rustix::process::getppid().is_some_and(|pid| pid.as_raw_nonzero().get().to_string() == parent);
    if is_parent { Ok(()) } else { Err(Failure::new(Exit::Other, "the parent process is gone")) }
}
