//! A network of containers, and what can be done to it: thin calls of the engine's own programs.
//!
//! ```text
//! DIR/containers.json      the project and its network
//! DIR/docker-compose.yml   what the engine is told
//! DIR/net/                 client.toml, genesis.toml, wallet.key, faucet.key: copied from the setup once the network is up
//! ```
//!
//! # Invariants
//!
//! - Only what carries the project's name is touched, and the name is this network's alone.
//! - Every call ends, within a time that it has of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use node::{
    cli::{Exit, Failure},
    config::create_new,
};
use serde::{Deserialize, Serialize};

use super::{
    docker::{Call, LIMIT, compose_program},
    file::{NETWORK, SETUP_SERVICE, STOP_SECONDS, compose_file},
    inside::{CLOCK_FILE, NET_VOLUME, NODE_DIR, SETUP_DIR, USER, VolumeFile},
    spec::{Spec, node_name},
    state::{Container, parse},
};
use crate::cluster::{client_file, until};

/// Version of `containers.json`.
const VERSION: u32 = 1;
/// The file that says which project the directory is of.
const MANIFEST: &str = "containers.json";
/// The compose file.
const COMPOSE_FILE: &str = "docker-compose.yml";
/// How long creating or removing all containers may take, and another such time for each.
const ALL_LIMIT: Duration = Duration::from_secs(120);
const EACH_LIMIT: Duration = Duration::from_secs(10);
/// The label by which compose names a project.
const PROJECT_LABEL: &str = "com.docker.compose.project";
/// The label of containers that look after a volume or end a process: compose knows nothing of them.
const HELPER_LABEL: &str = "floe.project";
/// Memory of a container that looks after a volume or ends a process, in MiB.
const HELPER_MIB: u32 = 256;
/// Lines of a log that are shown with a failure.
const LOG_LINES_SHOWN: u32 = 3;

/// `containers.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    project: String,
    image: String,
    spec: Spec,
}

/// A network of containers in a directory.
#[derive(Debug)]
pub struct Containers {
    dir: PathBuf,
    manifest: Manifest,
    compose: &'static [&'static str],
}

impl Containers {
    /// Describes a network in a directory that is empty or does not exist, under a project name of its own; starts nothing.
    ///
    /// # Errors
    ///
    /// If the directory holds something, something cannot be written, or there is no program for compose files.
    pub async fn create(dir: &Path, spec: Spec, image: &str) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::io(format!("cannot create {}", dir.display()), &error);
        fs::create_dir_all(dir).map_err(failed)?;
        if fs::read_dir(dir).map_err(failed)?.next().is_some() {
            return Err(Failure::new(Exit::Usage, format!("{} is not empty", dir.display()))
                .hint("choose another directory"));
        }
        let project = format!("floe-{}", random_name()?);
        create_new(&dir.join(COMPOSE_FILE), &compose_file(&spec, image))?;
        let manifest = Manifest { version: VERSION, project, image: image.to_owned(), spec };
        let text = serde_json::to_string_pretty(&manifest).map_err(io::Error::from).map_err(failed)?;
        create_new(&dir.join(MANIFEST), &text)?;
        Self::open(dir).await
    }

    /// Opens the network of a directory.
    ///
    /// # Errors
    ///
    /// If there is none, or there is no program for compose files.
    pub async fn open(dir: &Path) -> Result<Self, Failure> {
        let dir = std::path::absolute(dir)
            .map_err(|error| Failure::io(format!("cannot use {}", dir.display()), &error))?;
        let path = dir.join(MANIFEST);
        let what = || format!("cannot read {}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| {
            Failure::io(what(), &error).hint("make a network with: floe-testnet compose --dir DIR")
        })?;
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|error| Failure::because(Exit::Usage, what(), &error))?;
        if manifest.version != VERSION {
            let version = manifest.version;
            let what = format!("{} is of version {version}, this program knows {VERSION}", path.display());
            return Err(Failure::new(Exit::Usage, what));
        }
        Ok(Self { dir, manifest, compose: compose_program().await? })
    }

    /// What the network is made of.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.manifest.spec
    }

    /// The name under which the engine keeps it.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.manifest.project
    }

    /// The `client.toml` by which clients on this machine use the network, once it is up.
    #[must_use]
    pub fn client_file(&self) -> PathBuf {
        client_file(&self.net_dir())
    }

    /// The directory of what clients need.
    #[must_use]
    pub fn net_dir(&self) -> PathBuf {
        self.dir.join(NET_VOLUME)
    }

    /// Creates and starts what is not there or does not run, waits until all nodes are healthy, and copies what clients need.
    ///
    /// # Errors
    ///
    /// If the engine refuses, or a node is not healthy within `limit`; the end of its log says why.
    pub async fn up(&self, limit: Duration) -> Result<(), Failure> {
        if let Err(failure) = self.compose(["up", "--detach"]).run().await {
            let setup = self.log_end(SETUP_SERVICE).await;
            return Err(Failure::new(failure.exit(), format!("{failure}{setup}")).hint(
                "if the subnet is taken, name another with --subnet; if there is no image, run testnet/image",
            ));
        }
        let nodes: Vec<u16> = (0..self.spec().n_all()).collect();
        self.wait_healthy(&nodes, limit).await?;
        self.copy_net().await
    }

    /// Removes everything: containers, volumes, networks.
    ///
    /// # Errors
    ///
    /// If something is left.
    pub async fn down(&self) -> Result<(), Failure> {
        for helper in self.helpers().await? {
            // It may have ended by itself.
            let _ = Call::docker(["rm", "--force", &helper]).run().await;
        }
        self.compose(["down", "--volumes", "--remove-orphans", "--timeout", "10"]).run().await?;
        let left = self.left_behind().await?;
        if left.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Unavailable,
            format!("left behind by {}: {}", self.project(), left.join(", ")),
        )
        .hint("remove them with: docker container, volume, network rm"))
    }

    /// What the engine still has of this network: nothing after [`down`](Self::down).
    ///
    /// # Errors
    ///
    /// If the engine does not say.
    pub async fn left_behind(&self) -> Result<Vec<String>, Failure> {
        let filter = format!("label={PROJECT_LABEL}={}", self.project());
        let mut left = self.helpers().await?;
        for kind in [&["ps", "--all"][..], &["volume", "ls"], &["network", "ls"]] {
            let call = Call::docker(kind.iter().chain(&["--quiet", "--filter", &filter]));
            left.extend(call.run().await?.lines().map(|id| format!("{} {id}", kind[0])));
        }
        Ok(left)
    }

    /// All containers of the network, by service.
    ///
    /// # Errors
    ///
    /// If the engine does not say.
    pub async fn list(&self) -> Result<BTreeMap<String, Container>, Failure> {
        let filter = format!("label={PROJECT_LABEL}={}", self.project());
        let ids = Call::docker(["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]).run().await?;
        if ids.trim().is_empty() {
            return Ok(BTreeMap::new());
        }
        let inspected =
            Call::docker(["inspect", "--type", "container"]).args(ids.split_whitespace()).run().await?;
        parse(&inspected, &self.network())
    }

    /// The container of a node.
    ///
    /// # Errors
    ///
    /// If there is no such node, or it has no container.
    pub async fn container(&self, node: u16) -> Result<Container, Failure> {
        let n_all = self.spec().n_all();
        if node >= n_all {
            let what = format!("there is no node {node}: nodes are 0 to {}", n_all.saturating_sub(1));
            return Err(Failure::new(Exit::Usage, what));
        }
        let name = node_name(node);
        self.list().await?.remove(&name).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("{name} has no container")).hint("is the network up?")
        })
    }

    /// Waits until some nodes are healthy.
    ///
    /// # Errors
    ///
    /// If one is not within `limit`; the end of its log says why.
    pub async fn wait_healthy(&self, nodes: &[u16], limit: Duration) -> Result<(), Failure> {
        let mut waiting = None;
        let waited = until("waiting for nodes to be healthy", limit, async || {
            let containers = self.list().await?;
            waiting = nodes.iter().copied().map(node_name).find_map(|name| {
                let container = containers.get(&name);
                let is_healthy = container.is_some_and(Container::is_healthy);
                let text = container.map_or_else(|| "not created".to_owned(), Container::text);
                (!is_healthy).then_some((name, text))
            });
            Ok(waiting.is_none().then_some(()))
        })
        .await;
        match (waited, waiting) {
            (Err(failure), Some((name, text))) => {
                let end = self.log_end(&name).await;
                Err(Failure::new(failure.exit(), format!("{failure}: {name} is {text}{end}")))
            }
            (waited, _) => waited,
        }
    }

    /// Kills a node, as a loss of power would. It stays down until it is started.
    ///
    /// # Errors
    ///
    /// If it does not run, or the engine refuses.
    pub async fn kill(&self, node: u16) -> Result<(), Failure> {
        let id = self.container(node).await?.id;
        Call::docker(["kill", "--signal", "KILL", &id]).run().await?;
        self.wait(node, "to be dead", |container| !container.status.is_alive()).await
    }

    /// Kills the process of a node behind the engine's back, which starts it again by itself.
    ///
    /// # Errors
    ///
    /// If it does not run, or the engine refuses.
    pub async fn crash(&self, node: u16) -> Result<(), Failure> {
        let Container { id, pid, .. } = self.container(node).await?;
        let pid = pid.ok_or_else(|| Failure::new(Exit::NotFound, format!("node-{node} is not running")))?;
        let call = self.helper(HELPER_MIB)?.args(["--pid", "host", self.image(), "container", "crash"]);
        call.args(["--pid", &pid.to_string(), "--container", &id]).run().await?;
        self.wait(node, "to have crashed", |container| container.pid != Some(pid)).await
    }

    /// Gives a node no more time: it looks slow, not gone.
    ///
    /// # Errors
    ///
    /// If it does not run, or the engine refuses.
    pub async fn pause(&self, node: u16) -> Result<(), Failure> {
        self.act(node, &["pause"]).await
    }

    /// Gives a paused node time again.
    ///
    /// # Errors
    ///
    /// If it is not paused, or the engine refuses.
    pub async fn unpause(&self, node: u16) -> Result<(), Failure> {
        self.act(node, &["unpause"]).await
    }

    /// Asks a node to end, and waits until it has.
    ///
    /// # Errors
    ///
    /// If the engine refuses.
    pub async fn stop(&self, node: u16) -> Result<(), Failure> {
        self.act(node, &["stop", "--time", &STOP_SECONDS.to_string()]).await
    }

    /// Starts a node that does not run; returns as soon as its process runs.
    ///
    /// # Errors
    ///
    /// If the engine refuses.
    pub async fn start(&self, node: u16) -> Result<(), Failure> {
        self.act(node, &["start"]).await
    }

    /// Asks a node to end, and starts it again.
    ///
    /// # Errors
    ///
    /// If the engine refuses.
    pub async fn restart(&self, node: u16) -> Result<(), Failure> {
        self.act(node, &["restart", "--time", &STOP_SECONDS.to_string()]).await
    }

    /// Takes a node off the network; its process runs on.
    ///
    /// # Errors
    ///
    /// If it is off it already, or the engine refuses.
    pub async fn disconnect(&self, node: u16) -> Result<(), Failure> {
        let id = self.container(node).await?.id;
        Call::docker(["network", "disconnect", &self.network(), &id]).run().await?;
        Ok(())
    }

    /// Puts a node back on the network, with the address that it had.
    ///
    /// # Errors
    ///
    /// If it is on it already, or the engine refuses.
    pub async fn connect(&self, node: u16) -> Result<(), Failure> {
        let (id, ip) = (self.container(node).await?.id, self.spec().ip(node).to_string());
        let call = Call::docker(["network", "connect", "--ip", &ip, "--alias", &node_name(node)]);
        call.args([&self.network(), &id]).run().await?;
        Ok(())
    }

    /// Empties the disk of a node that does not run; it keeps its keys and its configuration.
    ///
    /// # Errors
    ///
    /// If it runs, or the engine refuses.
    pub async fn wipe(&self, node: u16) -> Result<(), Failure> {
        if self.container(node).await?.status.is_alive() {
            return Err(
                Failure::new(Exit::Usage, format!("node-{node} is running")).hint("stop or kill it first")
            );
        }
        self.in_volume(node, &["wipe"], Stdio::null()).await.map(|_| ())
    }

    /// The files of a node's volume: its directory.
    ///
    /// # Errors
    ///
    /// If the engine refuses.
    pub async fn files(&self, node: u16) -> Result<Vec<VolumeFile>, Failure> {
        let json = self.in_volume(node, &["files"], Stdio::null()).await?;
        serde_json::from_str(&json).map_err(|error| {
            Failure::because(Exit::Other, format!("cannot list the files of node-{node}"), &error)
        })
    }

    /// Writes a file into a node's volume, in place of what was there.
    ///
    /// # Errors
    ///
    /// If the path leads out of the volume, or the engine refuses.
    pub async fn put(&self, node: u16, path: &Path, content: &[u8]) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::io("cannot make a temporary file", &error);
        let mut input = tempfile::NamedTempFile::new().map_err(failed)?;
        input.write_all(content).map_err(failed)?;
        let input = File::open(input.path()).map_err(failed)?;
        self.in_volume(node, &["put", "--path", text(path)?], input).await.map(|_| ())
    }

    /// Flips the bits of `mask` in one byte of a file of a node's volume: what a disk does when it rots.
    ///
    /// # Errors
    ///
    /// If there is no such byte, or the engine refuses.
    pub async fn corrupt(&self, node: u16, path: &Path, (offset, mask): (u64, u8)) -> Result<(), Failure> {
        let (offset, mask) = (offset.to_string(), mask.to_string());
        let args = ["corrupt", "--path", text(path)?, "--offset", &offset, "--mask", &mask];
        self.in_volume(node, &args, Stdio::null()).await.map(|_| ())
    }

    /// Another program takes what is left of a node's disk, but for 4 MiB, until it [is emptied](Self::empty).
    ///
    /// # Errors
    ///
    /// If the node has no disk of its own, or the engine refuses.
    pub async fn fill(&self, node: u16) -> Result<(), Failure> {
        if self.spec().disk_mib().is_none() {
            let what = format!("node-{node} shares the disk of this machine, which is not to be full");
            return Err(Failure::new(Exit::Usage, what));
        }
        self.in_volume(node, &["fill"], Stdio::null()).await.map(|_| ())
    }

    /// The other program gives back what it took of a node's disk.
    ///
    /// # Errors
    ///
    /// If it took nothing, or the engine refuses.
    pub async fn empty(&self, node: u16) -> Result<(), Failure> {
        self.in_volume(node, &["empty"], Stdio::null()).await.map(|_| ())
    }

    /// Asks a node to end, and starts it again with a clock that is this many seconds off.
    ///
    /// # Errors
    ///
    /// If the network has no relay, and so is not made for this; or the engine refuses.
    pub async fn skew(&self, node: u16, seconds: i64) -> Result<(), Failure> {
        if self.spec().relay_seed().is_none() {
            let what = format!("node-{node} has the clock of this machine, whatever it is told");
            return Err(Failure::new(Exit::Usage, what));
        }
        self.stop(node).await?;
        self.put(node, Path::new(CLOCK_FILE), seconds.to_string().as_bytes()).await?;
        self.start(node).await
    }

    /// The last lines of what a node has logged.
    ///
    /// # Errors
    ///
    /// If the engine does not say.
    pub async fn logs(&self, node: u16, lines: u32) -> Result<String, Failure> {
        let id = self.container(node).await?.id;
        logs(&id, lines).await
    }

    fn network(&self) -> String {
        format!("{}_{NETWORK}", self.project())
    }

    fn image(&self) -> &str {
        &self.manifest.image
    }

    fn compose<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Call {
        let limit = ALL_LIMIT.saturating_add(EACH_LIMIT.saturating_mul(u32::from(self.spec().n_all())));
        Call::of(self.compose, ["--project-name", self.project(), "--file"])
            .args([self.dir.join(COMPOSE_FILE)])
            .args(args)
            .within(limit)
    }

    async fn act(&self, node: u16, args: &[&str]) -> Result<(), Failure> {
        let id = self.container(node).await?.id;
        Call::docker(args).args([&id]).run().await?;
        Ok(())
    }

    async fn wait(
        &self,
        node: u16,
        what: &str,
        mut condition: impl FnMut(&Container) -> bool,
    ) -> Result<(), Failure> {
        until(&format!("waiting for node-{node} {what}"), LIMIT, async || {
            Ok(condition(&self.container(node).await?).then_some(()))
        })
        .await
    }

    /// The beginning of a call that runs this network's image once, beside its containers.
    fn helper(&self, memory_mib: u32) -> Result<Call, Failure> {
        let name = format!("{}-helper-{}", self.project(), random_name()?);
        let (label, user) = (format!("{HELPER_LABEL}={}", self.project()), format!("{USER}:{USER}"));
        Ok(Call::docker([
            "run",
            "--rm",
            "--interactive",
            "--pull",
            "never",
            "--name",
            &name,
            "--label",
            &label,
        ])
        .args(["--network", "none", "--read-only", "--cap-drop", "ALL", "--user", &user])
        .args(["--security-opt", "no-new-privileges", "--pids-limit", "64"])
        .args(["--memory", &format!("{memory_mib}m")]))
    }

    async fn helpers(&self) -> Result<Vec<String>, Failure> {
        let filter = format!("label={HELPER_LABEL}={}", self.project());
        let ids = Call::docker(["ps", "--all", "--quiet", "--filter", &filter]).run().await?;
        Ok(ids.lines().map(str::to_owned).collect())
    }

    /// Runs a command of [`inside`](super::inside) on a node's volume.
    async fn in_volume(&self, node: u16, args: &[&str], input: impl Into<Stdio>) -> Result<String, Failure> {
        let volume = format!("{}_{}", self.project(), node_name(node));
        // Running a container would make a volume that is not there.
        Call::docker(["volume", "inspect", &volume]).run().await?;
        let mount = format!("{volume}:{NODE_DIR}");
        // What it writes to a disk that is in memory counts as its own.
        let memory_mib = HELPER_MIB.saturating_add(self.spec().disk_mib().unwrap_or(0));
        let call = self.helper(memory_mib)?.args(["--volume", &mount, self.image(), "container"]).args(args);
        call.run_with(input).await.map(|(output, _)| output)
    }

    /// Copies what clients need out of the setup's container, which has ended.
    async fn copy_net(&self) -> Result<(), Failure> {
        let missing =
            || Failure::new(Exit::NotFound, "the setup has no container").hint("is the network up?");
        let setup = self.list().await?.remove(SETUP_SERVICE).ok_or_else(missing)?;
        let from = format!("{}:{SETUP_DIR}/{NET_VOLUME}/.", setup.id);
        let net = self.net_dir();
        fs::create_dir_all(&net)
            .map_err(|error| Failure::io(format!("cannot create {}", net.display()), &error))?;
        Call::docker(["cp", &from]).args([net]).run().await?;
        Ok(())
    }

    /// The end of a service's log, to be appended to what went wrong; nothing if there is none.
    async fn log_end(&self, service: &str) -> String {
        let Ok(mut containers) = self.list().await else { return String::new() };
        let Some(container) = containers.remove(service) else { return String::new() };
        let log = logs(&container.id, LOG_LINES_SHOWN).await.unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() { String::new() } else { format!("; its log ends: {}", lines.join(" / ")) }
    }
}

async fn logs(id: &str, lines: u32) -> Result<String, Failure> {
    let (output, said) =
        Call::docker(["logs", "--tail", &lines.to_string(), id]).run_with(Stdio::null()).await?;
    // Nodes log on standard error, and print nothing else.
    Ok(output + &said)
}

fn text(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| Failure::new(Exit::Usage, format!("{} is not text", path.display())))
}

/// Eight letters that nobody else has.
fn random_name() -> Result<String, Failure> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::because(Exit::Io, "no random numbers from the system", &error))?;
    Ok(format!("{:08x}", u32::from_le_bytes(random)))
}
