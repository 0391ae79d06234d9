//! What a testnet's directory holds.
//!
//! ```text
//! DIR/testnet.json     the nodes, their ports and processes    DIR/genesis.toml    DIR/client.toml
//! DIR/testnet.lock     held by whoever changes testnet.json
//! DIR/prometheus.json  where the nodes show metrics, for Prometheus
//! DIR/faucet.key       the account that has credits from the beginning
//! DIR/node-I/          keys/ config.toml member.toml data/ node.log
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use node::cli::{Exit, Failure};
use serde::{Deserialize, Serialize};

use super::{process::ProcessId, wait::until};

/// Version of `testnet.json`.
const VERSION: u32 = 1;
/// Name of the lock.
pub(super) const LOCK_FILE: &str = "testnet.lock";
/// How long to wait for another `floe-testnet` that works on the same directory. What it does while it holds the lock
/// takes seconds at most.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

/// `testnet.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    /// The version of the program that made it.
    pub program_version: String,
    /// Shards of the network.
    pub n_shards: u16,
    /// The nodes, in the order of their numbers.
    pub nodes: Vec<NodeEntry>,
}

/// One node of a testnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    /// Its name, and that of its directory.
    pub name: String,
    /// The TCP port on 127.0.0.1 that it listens on.
    pub port: u16,
    /// The TCP port on 127.0.0.1 of the relay in front of it, if others reach it that way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_port: Option<u16>,
    /// The TCP port on 127.0.0.1 where it shows metrics and health, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_port: Option<u16>,
    /// The process that was last started for it, unless it was stopped.
    pub process: Option<ProcessId>,
    /// It has left the network for good: its directory is gone, and its number stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_removed: bool,
}

impl NodeEntry {
    /// A node that was not started yet.
    #[must_use]
    pub fn new(node: usize, (port, metrics_port): (u16, u16)) -> Self {
        let metrics_port = Some(metrics_port);
        Self {
            name: format!("node-{node}"),
            port,
            metrics_port,
            relay_port: None,
            process: None,
            is_removed: false,
        }
    }

    /// Where it shows metrics and health, if it does.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics_port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

impl Manifest {
    /// A testnet of nodes on these ports, each with one for metrics, none of them started.
    #[must_use]
    pub fn new(n_shards: u16, ports: &[(u16, u16)]) -> Self {
        Self {
            version: VERSION,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            n_shards,
            nodes: ports.iter().enumerate().map(|(node, port)| NodeEntry::new(node, *port)).collect(),
        }
    }

    /// Reads the manifest of a testnet; `None` if the directory holds none.
    ///
    /// # Errors
    ///
    /// If it cannot be read or understood.
    pub fn load(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = manifest(dir);
        let what = || format!("cannot read {}", path.display());
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::io(what(), &error)),
        };
        let manifest: Self =
            serde_json::from_str(&text).map_err(|error| Failure::because(Exit::Usage, what(), &error))?;
        if manifest.version != VERSION {
            let version = manifest.version;
            let what = format!("{} is of version {version}, this program knows {VERSION}", path.display());
            return Err(Failure::new(Exit::Usage, what));
        }
        Ok(Some(manifest))
    }

    /// Writes the manifest; a reader sees the old or the new one. To be called with the [lock](DirLock) held.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Failure> {
        replace(&targets_file(dir), &self.targets())?;
        replace(&manifest(dir), self)
    }

    /// The nodes that show metrics, as Prometheus reads them from a file.
    fn targets(&self) -> Vec<Target> {
        let nodes = self.nodes.iter().filter(|node| !node.is_removed);
        let target = |node: &NodeEntry| {
            let labels = BTreeMap::from([("instance", node.name.clone())]);
            Some(Target { targets: [node.metrics()?], labels })
        };
        nodes.filter_map(target).collect()
    }
}

/// One entry of a file from which Prometheus reads whom to scrape.
#[derive(Debug, Serialize)]
struct Target {
    targets: [SocketAddr; 1],
    labels: BTreeMap<&'static str, String>,
}

/// Writes a file; a reader sees the old or the new one.
fn replace(path: &Path, document: &impl Serialize) -> Result<(), Failure> {
    let write = || {
        let dir = path.parent().unwrap_or_else(|| Path::new("."));
        // Prometheus may be another user.
        let readable = fs::Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(dir)?;
        serde_json::to_writer_pretty(&mut file, document)?;
        file.write_all(b"\n")?;
        file.persist(path)?;
        io::Result::Ok(())
    };
    write().map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))
}

/// The file that tells Prometheus where the nodes show metrics.
#[must_use]
pub fn targets_file(dir: &Path) -> PathBuf {
    dir.join("prometheus.json")
}

fn manifest(dir: &Path) -> PathBuf {
    dir.join("testnet.json")
}

/// The file that describes the network to clients.
#[must_use]
pub fn client_file(dir: &Path) -> PathBuf {
    dir.join("client.toml")
}

/// The key of the account that has credits from the beginning.
#[must_use]
pub fn faucet_file(dir: &Path) -> PathBuf {
    dir.join("faucet.key")
}

/// The key of the account that stores, unless a command names another; it has credits too.
#[must_use]
pub fn wallet_file(dir: &Path) -> PathBuf {
    dir.join("wallet.key")
}

/// The genesis file.
#[must_use]
pub fn genesis_file(dir: &Path) -> PathBuf {
    dir.join("genesis.toml")
}

/// Held while `testnet.json` and the processes it names are changed, against a second `floe-testnet`. Ends with the
/// process, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock, waiting for another holder for a bounded time.
    ///
    /// # Errors
    ///
    /// If another process keeps it, or the file cannot be created.
    pub async fn take(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(LOCK_FILE);
        let failed = |error: io::Error| Failure::io(format!("cannot lock {}", path.display()), &error);
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        let what = format!("another floe-testnet is working on {}", dir.display());
        until(&what, LOCK_LIMIT, async || match file.try_lock() {
            Ok(()) => Ok(Some(())),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        })
        .await?;
        Ok(Self { _file: file })
    }
}

/// Bytes that the files below a directory take on the disk.
#[must_use]
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            // Source: stat(2): blocks are of 512 bytes, whatever the file system's own.
            Ok(metadata) => 512 * metadata.blocks(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), None);
        let mut manifest = Manifest::new(7, &[(5, 7), (6, 8)]);
        manifest.nodes[1].process = Some(ProcessId::of_this_process().unwrap());
        manifest.save(dir.path()).unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), Some(manifest));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn prometheus_is_told_of_the_nodes_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::new(7, &[(5, 7), (6, 8), (9, 10)]);
        manifest.nodes[1].is_removed = true;
        // As in a testnet that an older program made.
        manifest.nodes[2].metrics_port = None;
        manifest.save(dir.path()).unwrap();
        let text = fs::read_to_string(targets_file(dir.path())).unwrap();
        let targets: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected =
            serde_json::json!([{ "targets": ["127.0.0.1:7"], "labels": { "instance": "node-0" } }]);
        assert_eq!(targets, expected);
        assert_eq!(Manifest::load(dir.path()).unwrap(), Some(manifest));
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::new(7, &[]);
        manifest.version = 9;
        manifest.save(dir.path()).unwrap();
        assert!(Manifest::load(dir.path()).unwrap_err().to_string().contains("of version 9"));
        fs::write(super::manifest(dir.path()), "{}").unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap_err().exit(), Exit::Usage);
    }

    #[tokio::test]
    async fn one_at_a_time_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirLock::take(dir.path()).await.unwrap();
        let second = DirLock::take(dir.path());
        tokio::pin!(second);
        assert!(futures_poll_is_pending(second.as_mut()).await);
        drop(held);
        second.await.unwrap();
    }

    async fn futures_poll_is_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
        std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending()))
            .await
    }
}
