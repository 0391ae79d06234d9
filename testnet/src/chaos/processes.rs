//! Processes on this machine, with relays between them and, where the system allows it, a small disk for each.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use node::{
    cli::{Exit, Failure},
    config::{NodeConfig, RepairConfig, StorageConfig},
};
use protocol::{PeerId, genesis::Genesis, ledger::parameters::Parameters};
use rand::{Rng as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use swarm::Address;

use super::{
    fault::{Fault, Kind},
    target::{DISK_MIB, NetworkSpec, Target},
};
use crate::{
    cluster::{
        Cluster, ClusterConfig, Fate, Memory, ProcessId, ProcessState, SCRUB_BYTES_PER_SECOND,
        SCRUB_INTERVAL, Signal, Terms,
    },
    filler,
    relay::{self, Behind, Relays, Sources},
};

/// See the [module](self).
#[derive(Debug)]
pub struct Processes {
    cluster: Cluster,
    relays: Relays,
    /// By which the relays tell nodes apart.
    sources: Arc<relay::Processes>,
    /// Why nodes have no disks of their own, if they have none.
    no_disks: Option<String>,
    mounted: Vec<PathBuf>,
    /// The process of each node, once it was started.
    processes: Vec<Option<ProcessId>>,
    /// Nodes whose processes are to run.
    up: BTreeSet<usize>,
    dice: ChaCha8Rng,
}

fn disk(dir: &Path) -> PathBuf {
    dir.join("disk")
}

fn adjust(config: &mut NodeConfig) {
    config.repair = RepairConfig {
        scrub_interval: SCRUB_INTERVAL,
        scrub_bytes_per_second: SCRUB_BYTES_PER_SECOND,
        ..config.repair.clone()
    };
    config.storage = StorageConfig { dir: PathBuf::from("disk/data"), ..config.storage.clone() };
}

impl Processes {
    /// Makes a network in a directory that is empty or does not exist, and starts it.
    ///
    /// # Errors
    ///
    /// If something cannot be written, mounted or started.
    pub async fn start(dir: &Path, spec: &NetworkSpec) -> Result<Self, Failure> {
        let parameters = Parameters {
            epoch_ms: u64::try_from(spec.epoch.as_millis()).unwrap_or(u64::MAX),
            ..Parameters::default()
        };
        let config = ClusterConfig { n_nodes: spec.nodes, n_shards: spec.shards, base_port: None };
        let terms = Terms {
            parameters,
            node_stake: spec.stake,
            is_relayed: true,
            adjust: Some(adjust),
            ..Terms::default()
        };
        let cluster = Cluster::create_on_terms(dir, &config, Fate::WithParent, terms).await?;
        let manifest = cluster.manifest()?;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let behind: Vec<Behind> = (0..)
            .zip(&manifest.nodes)
            .filter_map(|(node, entry)| {
                Some(Behind { node, relay: at(entry.relay_port?), address: at(entry.port) })
            })
            .collect();
        let sources = Arc::new(relay::Processes::default());
        let relays = Relays::start(&behind, Sources::Processes(Arc::clone(&sources)), spec.seed).await?;
        let mut processes = Self {
            cluster,
            relays,
            sources,
            no_disks: spec.no_disks.clone(),
            mounted: Vec::new(),
            processes: vec![None; manifest.nodes.len()],
            up: BTreeSet::new(),
            dice: ChaCha8Rng::seed_from_u64(spec.seed),
        };
        for node in 0..manifest.nodes.len() {
            processes.give_disk(node)?;
            processes.run(node, 0).await?;
        }
        Ok(processes)
    }

    fn give_disk(&mut self, node: usize) -> Result<(), Failure> {
        let disk = disk(&self.cluster.node_dir(node));
        let failed = |error: io::Error| Failure::io(format!("cannot make {}", disk.display()), &error);
        fs::create_dir(&disk).map_err(failed)?;
        if self.no_disks.is_none() {
            let size = std::ffi::CString::new(format!("size={DISK_MIB}m,mode=0700")).unwrap_or_default();
            let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
            mount("floe-disk", &disk, "tmpfs", flags, size.as_c_str())
                .map_err(|error| Failure::io("cannot mount a disk", &io::Error::from(error)))?;
            self.mounted.push(disk);
        }
        Ok(())
    }

    /// Starts the process of a node, with its clock this many seconds off.
    async fn run(&mut self, node: usize, skew: i64) -> Result<(), Failure> {
        let process = self.cluster.start_skewed(node, skew).await?;
        self.sources.set(node, Some(process.pid));
        if let Some(known) = self.processes.get_mut(node) {
            *known = Some(process);
        }
        self.up.insert(node);
        Ok(())
    }

    async fn halt(&mut self, node: usize, signal: Signal) -> Result<(), Failure> {
        self.up.remove(&node);
        self.sources.set(node, None);
        match self.cluster.state(node)? {
            // It fell a moment ago, which is looked at elsewhere.
            ProcessState::Dead => Ok(()),
            ProcessState::Running | ProcessState::Stopped => {
                self.cluster.signal(node, signal).await.map(|_| ())
            }
        }
    }

    /// Changes bytes anywhere in what a node has stored.
    fn corrupt(&mut self, node: usize, n_bytes: i64) -> Result<(), Failure> {
        let log = disk(&self.cluster.node_dir(node)).join("data/log");
        let failed =
            |error: io::Error| Failure::io(format!("cannot change bytes in {}", log.display()), &error);
        let mut files = Vec::new();
        for entry in fs::read_dir(&log).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                files.push(path);
            }
        }
        files.sort();
        for _ in 0..n_bytes {
            let Some(path) = files.choose(&mut self.dice) else { return Ok(()) };
            let file = match File::options().read(true).write(true).open(path) {
                Ok(file) => file,
                // It was compacted away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let len = file.metadata().map_err(failed)?.len();
            if len == 0 {
                continue;
            }
            let (at, mut byte) = (self.dice.random_range(0..len), [0]);
            file.read_exact_at(&mut byte, at).map_err(failed)?;
            byte[0] ^= 1 << self.dice.random_range(0..8);
            file.write_all_at(&byte, at).map_err(failed)?;
        }
        Ok(())
    }

    fn unmount_all(&mut self) {
        for disk in self.mounted.drain(..) {
            // What is still in use goes with its last user: the mount is nobody else's.
            if let Err(error) = unmount(&disk, UnmountFlags::DETACH) {
                tracing::warn!(disk = %disk.display(), %error, "a disk could not be unmounted");
            }
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.unmount_all();
    }
}

impl Target for Processes {
    fn name(&self) -> &'static str {
        "processes"
    }

    fn genesis(&self) -> &Arc<Genesis> {
        self.cluster.genesis()
    }

    fn peers(&self) -> Result<Vec<(PeerId, Vec<Address>)>, Failure> {
        let member = |node| self.cluster.member(node).map(|member| (member.peer, member.addresses));
        (0..self.cluster.n_nodes()).map(member).collect()
    }

    fn can(&self, kind: Kind) -> Result<(), String> {
        match (kind, &self.no_disks) {
            (Kind::Fill, Some(why)) => Err(why.clone()),
            _ => Ok(()),
        }
    }

    async fn begin(&mut self, fault: &Fault) -> Result<(), Failure> {
        let Fault { kind, nodes, strength, .. } = fault;
        self.relays.change(|weather| fault.begin_in(weather));
        for node in nodes.iter().copied() {
            match kind {
                Kind::Kill | Kind::Outage => self.halt(node, Signal::KILL).await?,
                Kind::Restart => self.halt(node, Signal::TERM).await?,
                Kind::Stop => {
                    self.cluster.signal(node, Signal::STOP).await?;
                }
                Kind::Wipe => {
                    self.halt(node, Signal::KILL).await?;
                    self.cluster.wipe(node).await?;
                }
                Kind::Corrupt => self.corrupt(node, *strength)?,
                Kind::Fill => filler::fill(&disk(&self.cluster.node_dir(node)))?,
                Kind::Skew => {
                    self.halt(node, Signal::TERM).await?;
                    self.run(node, *strength).await?;
                }
                Kind::Cut | Kind::Majority | Kind::Split | Kind::Delay | Kind::Lose => {}
            }
        }
        Ok(())
    }

    async fn end(&mut self, fault: &Fault) -> Result<(), Failure> {
        let Fault { kind, nodes, .. } = fault;
        self.relays.change(|weather| fault.end_in(weather));
        for node in nodes.iter().copied() {
            match kind {
                Kind::Kill | Kind::Restart | Kind::Wipe | Kind::Outage => self.run(node, 0).await?,
                Kind::Stop => {
                    self.cluster.signal(node, Signal::CONT).await?;
                }
                Kind::Fill => {
                    filler::empty(&disk(&self.cluster.node_dir(node)))?;
                    // Until now it was excused.
                    if self.cluster.state(node)? == ProcessState::Dead {
                        self.run(node, 0).await?;
                    }
                }
                Kind::Skew => {
                    self.halt(node, Signal::TERM).await?;
                    self.run(node, 0).await?;
                }
                Kind::Corrupt | Kind::Cut | Kind::Majority | Kind::Split | Kind::Delay | Kind::Lose => {}
            }
        }
        Ok(())
    }

    async fn fallen(&mut self, excused: &[usize]) -> Result<Vec<(usize, String)>, Failure> {
        let mut fallen = Vec::new();
        for node in self.up.clone() {
            if self.cluster.state(node)? != ProcessState::Dead {
                continue;
            }
            let why = self.cluster.last_words(node);
            if excused.contains(&node) {
                tracing::debug!(node, why, "ended for want of room");
            } else {
                fallen.push((node, why));
                self.run(node, 0).await?;
            }
        }
        Ok(fallen)
    }

    fn memory(&self) -> Vec<Option<Memory>> {
        let of = |process: &Option<ProcessId>| process.as_ref().and_then(|process| process.memory().ok());
        self.processes.iter().map(of).collect()
    }

    async fn logs(&mut self) -> Result<Vec<(usize, PathBuf)>, Failure> {
        Ok((0..self.cluster.n_nodes())
            .map(|node| (node, self.cluster.node_dir(node).join("node.log")))
            .collect())
    }

    async fn close(&mut self) -> Result<(), Failure> {
        let stopped = self.cluster.stop_all().await;
        self.unmount_all();
        let (_, killed) = stopped?;
        match &killed[..] {
            [] => Ok(()),
            [node, ..] => {
                Err(Failure::new(Exit::Broken, format!("node-{node} did not end when it was asked to")))
            }
        }
    }
}
