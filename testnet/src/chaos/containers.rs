//! Containers with addresses of their own, through the engine that runs them, and through the relay that stands between them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use node::{
    cli::{Exit, Failure, interrupted},
    config::load_genesis,
};
use protocol::{PeerId, genesis::Genesis};
use rand::{Rng as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use swarm::Address;

use super::{
    fault::{Fault, Kind},
    run::LIMIT,
    target::{DISK_MIB, NetworkSpec, Target},
};
use crate::{
    cluster::{Memory, genesis_file},
    compose::{Containers, SpecArgs, Status, Subnet, spec::node_name},
    relay::{Weather, control},
};

/// Lines of a log that are looked at: all that a run writes, and no more than fits in memory.
const LOG_LINES: u32 = 1_000_000;

/// See the [module](self).
#[derive(Debug)]
pub struct Engine {
    containers: Containers,
    genesis: Arc<Genesis>,
    /// What the relay was told last.
    weather: Weather,
    /// Why nodes have no disks of their own, if they have none.
    no_disks: Option<String>,
    /// Where logs are copied to.
    logs: PathBuf,
    /// How often the engine has started each node again by itself.
    restarts: Vec<u32>,
    /// The process of each node, when it was last looked for.
    pids: Vec<Option<i32>>,
    /// Nodes that are to run.
    up: Vec<bool>,
    dice: ChaCha8Rng,
}

impl Engine {
    /// Makes a network in a directory that is empty or does not exist, and starts it.
    ///
    /// # Errors
    ///
    /// If there is no engine or no image, or the engine refuses.
    pub async fn start(dir: &Path, spec: &NetworkSpec, image: &str) -> Result<Self, Failure> {
        let disk_mib = spec.no_disks.is_none().then_some(DISK_MIB);
        let args = SpecArgs::of((spec.nodes, spec.shards), spec.epoch).for_chaos(spec.seed, disk_mib);
        let containers = Containers::create(dir, args.spec(Subnet::by_chance)?, image).await?;
        let prepared = tokio::select! {
            prepared = prepare(&containers, dir) => prepared,
            interrupted = interrupted() => Err(interrupted),
        };
        let (genesis, logs) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => {
                // The first failure says more than one of cleaning up after it.
                if let Err(error) = containers.down().await {
                    tracing::warn!(%error, "the containers could not be removed");
                }
                return Err(failure);
            }
        };
        let n_nodes = usize::from(spec.nodes);
        Ok(Self {
            containers,
            genesis: Arc::new(genesis),
            weather: Weather::default(),
            no_disks: spec.no_disks.clone(),
            logs,
            restarts: vec![0; n_nodes],
            pids: vec![None; n_nodes],
            up: vec![true; n_nodes],
            dice: ChaCha8Rng::seed_from_u64(spec.seed),
        })
    }

    /// Has the relay make other weather.
    async fn change(&mut self, change: impl FnOnce(&mut Weather)) -> Result<(), Failure> {
        change(&mut self.weather);
        control::tell(self.containers.spec().control(), &self.weather).await
    }

    /// How often the engine has started a node again until now counts for nothing.
    async fn forgive(&mut self, node: usize) -> Result<(), Failure> {
        let container = self.containers.container(number(node)?).await?;
        if let Some(known) = self.restarts.get_mut(node) {
            *known = container.restarts;
        }
        Ok(())
    }

    async fn skew(&mut self, node: usize, seconds: i64) -> Result<(), Failure> {
        self.set_up(node, false);
        self.containers.skew(number(node)?, seconds).await?;
        self.set_up(node, true);
        Ok(())
    }

    fn set_up(&mut self, node: usize, is_up: bool) {
        if let Some(up) = self.up.get_mut(node) {
            *up = is_up;
        }
    }

    async fn corrupt(&mut self, node: u16, n_bytes: i64) -> Result<(), Failure> {
        let mut files = self.containers.files(node).await?;
        files.retain(|file| {
            let is_log = file.path.extension().is_some_and(|extension| extension == "log");
            is_log && file.path.components().any(|part| part.as_os_str() == "log") && file.bytes > 0
        });
        files.sort_by(|a, b| a.path.cmp(&b.path));
        for _ in 0..n_bytes {
            let Some(file) = files.choose(&mut self.dice) else { return Ok(()) };
            let (at, mask) = (self.dice.random_range(0..file.bytes), 1 << self.dice.random_range(0..8));
            if let Err(error) = self.containers.corrupt(node, &file.path, (at, mask)).await {
                // It was compacted away meanwhile.
                tracing::info!(%error, "a byte was not changed");
            }
        }
        Ok(())
    }
}

/// Starts a network; returns its genesis, and where its logs are to go.
async fn prepare(containers: &Containers, dir: &Path) -> Result<(Genesis, PathBuf), Failure> {
    containers.up(LIMIT).await?;
    // A relay that is out of reach is better known now than at the first fault.
    control::tell(containers.spec().control(), &Weather::default()).await?;
    let genesis = load_genesis(&genesis_file(&containers.net_dir()))?;
    let logs = dir.join("logs");
    fs::create_dir_all(&logs)
        .map_err(|error| Failure::io(format!("cannot create {}", logs.display()), &error))?;
    Ok((genesis, logs))
}

/// True if it is done to what lies between nodes. A node that is cut off from all is taken off the network by the engine itself.
const fn is_of_the_relay(kind: Kind) -> bool {
    matches!(kind, Kind::Split | Kind::Delay | Kind::Lose)
}

fn number(node: usize) -> Result<u16, Failure> {
    u16::try_from(node).map_err(|_| Failure::new(Exit::Usage, format!("there is no node {node}")))
}

impl Target for Engine {
    fn name(&self) -> &'static str {
        "compose"
    }

    fn genesis(&self) -> &Arc<Genesis> {
        &self.genesis
    }

    fn peers(&self) -> Result<Vec<(PeerId, Vec<Address>)>, Failure> {
        let members = self.genesis.committee().members();
        let of = |node: usize| {
            let name = node_name(number(node)?);
            let member = members.iter().find(|member| member.name == name);
            let addresses = |member: &protocol::committee::Member| {
                member.addresses.iter().filter_map(|address| address.parse().ok()).collect()
            };
            let unknown = || Failure::new(Exit::Broken, format!("{name} is not in the genesis"));
            member.map(|member| (member.peer, addresses(member))).ok_or_else(unknown)
        };
        (0..self.up.len()).map(of).collect()
    }

    fn can(&self, kind: Kind) -> Result<(), String> {
        match (kind, &self.no_disks) {
            (Kind::Fill, Some(why)) => Err(why.clone()),
            _ => Ok(()),
        }
    }

    async fn begin(&mut self, fault: &Fault) -> Result<(), Failure> {
        if is_of_the_relay(fault.kind) {
            return self.change(|weather| fault.begin_in(weather)).await;
        }
        for node in fault.nodes.iter().copied() {
            let index = number(node)?;
            match fault.kind {
                Kind::Kill | Kind::Outage => {
                    self.set_up(node, false);
                    self.containers.kill(index).await?;
                }
                Kind::Restart => {
                    self.set_up(node, false);
                    self.containers.stop(index).await?;
                }
                Kind::Wipe => {
                    self.set_up(node, false);
                    self.containers.kill(index).await?;
                    self.containers.wipe(index).await?;
                }
                Kind::Stop => self.containers.pause(index).await?,
                Kind::Corrupt => self.corrupt(index, fault.strength).await?,
                Kind::Fill => self.containers.fill(index).await?,
                Kind::Cut | Kind::Majority => self.containers.disconnect(index).await?,
                Kind::Skew => self.skew(node, fault.strength).await?,
                Kind::Split | Kind::Delay | Kind::Lose => {}
            }
        }
        Ok(())
    }

    async fn end(&mut self, fault: &Fault) -> Result<(), Failure> {
        if is_of_the_relay(fault.kind) {
            return self.change(|weather| fault.end_in(weather)).await;
        }
        for node in fault.nodes.iter().copied() {
            let index = number(node)?;
            match fault.kind {
                Kind::Kill | Kind::Restart | Kind::Wipe | Kind::Outage => {
                    self.containers.start(index).await?;
                    self.set_up(node, true);
                }
                Kind::Stop => self.containers.unpause(index).await?,
                Kind::Cut | Kind::Majority => self.containers.connect(index).await?,
                Kind::Fill => {
                    self.containers.empty(index).await?;
                    // Until now it was excused.
                    self.forgive(node).await?;
                }
                Kind::Skew => self.skew(node, 0).await?,
                Kind::Corrupt | Kind::Split | Kind::Delay | Kind::Lose => {}
            }
        }
        Ok(())
    }

    /// The engine starts nodes again that end by themselves: its count of that tells.
    async fn fallen(&mut self, excused: &[usize]) -> Result<Vec<(usize, String)>, Failure> {
        let mut fallen = Vec::new();
        let list = self.containers.list().await?;
        for node in 0..self.up.len() {
            let index = number(node)?;
            let Some(container) = list.get(&node_name(index)) else { continue };
            if let Some(pid) = self.pids.get_mut(node) {
                *pid = container.pid;
            }
            let is_down = self.up.get(node) == Some(&true) && container.status == Status::Exited;
            let Some(known) = self.restarts.get_mut(node) else { continue };
            let before = std::mem::replace(known, container.restarts);
            if *known <= before && !is_down {
                continue;
            }
            let log = self.containers.logs(index, 3).await?;
            let why = log.split_whitespace().collect::<Vec<_>>().join(" ");
            if excused.contains(&node) {
                tracing::debug!(node, why, "ended for want of room");
            } else {
                fallen.push((node, why));
            }
            if is_down {
                self.containers.start(index).await?;
            }
        }
        Ok(fallen)
    }

    /// Of processes of another machine nothing is known.
    fn memory(&self) -> Vec<Option<Memory>> {
        self.pids.iter().map(|pid| pid.and_then(|pid| Memory::of(pid).ok())).collect()
    }

    async fn logs(&mut self) -> Result<Vec<(usize, PathBuf)>, Failure> {
        let mut logs = Vec::new();
        for node in 0..self.up.len() {
            let path = self.logs.join(format!("node-{node}.log"));
            let text = self.containers.logs(number(node)?, LOG_LINES).await?;
            fs::write(&path, text)
                .map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))?;
            logs.push((node, path));
        }
        Ok(logs)
    }

    async fn close(&mut self) -> Result<(), Failure> {
        self.containers.down().await
    }
}
