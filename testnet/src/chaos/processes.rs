//! Processes on this machine, with relays between them and, where the system allows it, a small disk for each.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
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
use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use swarm::Address;

use super::{
    fault::{Fault, Kind},
    relay::{Behind, Relays, Weather},
    target::{NetworkSpec, Target},
};
use crate::cluster::{
    Cluster, ClusterConfig, Fate, ProcessState, SCRUB_BYTES_PER_SECOND, SCRUB_INTERVAL, Signal, Terms,
};

/// Bytes of the disk of each node, where it has one of its own.
const DISK_BYTES: u64 = 1 << 30;
/// What another program leaves of a full disk: less than a node leaves, so that it takes nothing more.
const LEFT_BYTES: u64 = 4 << 20;

/// See the [module](self).
#[derive(Debug)]
pub struct Processes {
    cluster: Cluster,
    relays: Relays,
    /// Why nodes have no disks of their own, if they have none.
    no_disks: Option<String>,
    mounted: Vec<PathBuf>,
    /// Nodes whose processes are to run.
    up: BTreeSet<usize>,
    dice: ChaCha8Rng,
}

fn disk(dir: &Path) -> PathBuf {
    dir.join("disk")
}

fn filler(dir: &Path) -> PathBuf {
    disk(dir).join("filler")
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
        let behind: Vec<Behind> = (0..)
            .zip(&manifest.nodes)
            .filter_map(|(node, entry)| {
                Some(Behind { node, relay_port: entry.relay_port?, port: entry.port })
            })
            .collect();
        let relays = Relays::start(&behind, spec.seed).await?;
        let mut processes = Self {
            cluster,
            relays,
            no_disks: spec.no_disks.clone(),
            mounted: Vec::new(),
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
            let size = std::ffi::CString::new(format!("size={DISK_BYTES},mode=0700")).unwrap_or_default();
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
        self.relays.set_process(node, Some(process.pid));
        self.up.insert(node);
        Ok(())
    }

    async fn halt(&mut self, node: usize, signal: Signal) -> Result<(), Failure> {
        self.up.remove(&node);
        self.relays.set_process(node, None);
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

    /// Another program takes nearly all that is free on a node's disk.
    fn fill(&self, node: usize) -> Result<(), Failure> {
        let dir = self.cluster.node_dir(node);
        let failed = |error: io::Error| Failure::io(format!("cannot fill {}", disk(&dir).display()), &error);
        let file = File::create(filler(&dir)).map_err(failed)?;
        let stat = statvfs(disk(&dir)).map_err(|error| failed(error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        match free.saturating_sub(LEFT_BYTES) {
            0 => Ok(()),
            len => match fallocate(&file, FallocateFlags::empty(), 0, len) {
                // The node was faster.
                Ok(()) | Err(Errno::NOSPC) => Ok(()),
                Err(error) => Err(failed(error.into())),
            },
        }
    }

    fn empty(&self, node: usize) -> Result<(), Failure> {
        let filler = filler(&self.cluster.node_dir(node));
        fs::remove_file(&filler)
            .map_err(|error| Failure::io(format!("cannot remove {}", filler.display()), &error))
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
        let strength = *strength;
        match kind {
            Kind::Cut | Kind::Majority => self.relays.change(|weather| weather.cut_off(nodes)),
            Kind::Split => self.relays.change(|weather| weather.split(nodes)),
            Kind::Delay => {
                self.relays.change(|weather| weather.delay_ms = u64::try_from(strength).unwrap_or(0));
            }
            Kind::Lose => {
                self.relays.change(|weather| weather.loss_percent = u32::try_from(strength).unwrap_or(0));
            }
            _ => {}
        }
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
                Kind::Corrupt => self.corrupt(node, strength)?,
                Kind::Fill => self.fill(node)?,
                Kind::Skew => {
                    self.halt(node, Signal::TERM).await?;
                    self.run(node, strength).await?;
                }
                Kind::Cut | Kind::Majority | Kind::Split | Kind::Delay | Kind::Lose => {}
            }
        }
        Ok(())
    }

    async fn end(&mut self, fault: &Fault) -> Result<(), Failure> {
        let Fault { kind, nodes, .. } = fault;
        match kind {
            Kind::Cut | Kind::Majority | Kind::Split => {
                self.relays.change(|weather| weather.bring_back(nodes));
            }
            Kind::Delay => self.relays.change(|weather| weather.delay_ms = Weather::default().delay_ms),
            Kind::Lose => {
                self.relays.change(|weather| weather.loss_percent = Weather::default().loss_percent);
            }
            _ => {}
        }
        for node in nodes.iter().copied() {
            match kind {
                Kind::Kill | Kind::Restart | Kind::Wipe | Kind::Outage => self.run(node, 0).await?,
                Kind::Stop => {
                    self.cluster.signal(node, Signal::CONT).await?;
                }
                Kind::Fill => self.empty(node)?,
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
