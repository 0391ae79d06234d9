//! Configuration: one TOML file per node, one per client, and the file by which a node applies for a committee.
//!
//! Every key has a default, unknown keys are refused, and an error names the file and the line. The sections of
//! [`NodeConfig`] are the settings of one part of the node each; `config.example.toml` documents all of them, and
//! is what `floe node init` writes.

mod bootstrap;
mod client;
mod file;
mod member;
mod rules;
mod template;

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::genesis::Genesis;
use serde::{Deserialize, Serialize};
use swarm::Address;

pub use self::{
    bootstrap::{ParsePeerAddressError, PeerAddress},
    client::ClientFile,
    file::{ConfigError, create_new, load_endowment, load_genesis, sync_dir},
    member::MemberFile,
};

/// Name of the configuration file in a node's directory.
pub const CONFIG_FILE: &str = "config.toml";

/// The configuration of one storage node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// What people call the node.
    #[serde(deserialize_with = "rules::name")]
    pub name: String,
    /// The genesis file of the network. Relative paths start from the directory of the configuration.
    pub genesis: PathBuf,
    /// Where the node is reached.
    pub network: NetworkConfig,
    /// Where slivers are kept.
    pub storage: StorageConfig,
    /// The threads for encoding, decoding and hashing.
    pub encoder: EncoderConfig,
    /// How missing slivers are found and regained.
    pub repair: RepairConfig,
    /// What peers and clients may ask for at once.
    pub server: ServerConfig,
    /// What the node shows of itself.
    pub metrics: MetricsConfig,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: "node".to_owned(),
            genesis: PathBuf::from("genesis.toml"),
            network: NetworkConfig::default(),
            storage: StorageConfig::default(),
            encoder: EncoderConfig::default(),
            repair: RepairConfig::default(),
            server: ServerConfig::default(),
            metrics: MetricsConfig::default(),
        }
    }
}

/// Section `[network]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Addresses to listen on: IP addresses, over TCP or QUIC.
    #[serde(deserialize_with = "rules::listen")]
    pub listen: Vec<Address>,
    /// Addresses under which others reach this node, if they differ: a public name, a forwarded port.
    pub external: Vec<Address>,
    /// Nodes to begin with, beside those of the genesis file: how a node finds a network whose founders have gone.
    #[serde(deserialize_with = "rules::bootstrap")]
    pub bootstrap: Vec<PeerAddress>,
    /// How long to wait for the answer of a peer.
    #[serde(serialize_with = "humantime_serde::serialize", deserialize_with = "rules::request_timeout")]
    pub request_timeout: Duration,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        let any = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        Self {
            listen: vec![
                Address::new(any, swarm::address::Transport::Tcp, 4100),
                Address::new(any, swarm::address::Transport::Quic, 4100),
            ],
            external: Vec::new(),
            bootstrap: Vec::new(),
            request_timeout: Duration::from_secs(20),
        }
    }
}

impl NetworkConfig {
    /// What to tell others: the external addresses, else those listened on that name a machine and a port.
    #[must_use]
    pub fn announced(&self) -> Vec<Address> {
        if !self.external.is_empty() {
            return self.external.clone();
        }
        let usable = |a: &&Address| a.port() != 0 && a.ip().is_some_and(|ip| !ip.is_unspecified());
        self.listen.iter().filter(usable).cloned().collect()
    }
}

/// Section `[storage]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Directory of the store. Relative paths start from the directory of the configuration.
    pub dir: PathBuf,
    /// Bytes of the disk to leave free: nothing is stored that would take them.
    pub reserve_bytes: u64,
    /// A log file is closed and a new one begun at this size.
    #[serde(deserialize_with = "rules::log_file_bytes")]
    pub log_file_bytes: u64,
    /// How often to look for log files that are mostly no longer needed, if nothing was deleted.
    #[serde(serialize_with = "humantime_serde::serialize", deserialize_with = "rules::pause")]
    pub compact_interval: Duration,
    /// Bytes a second that are copied out of such files to get room back; 0 turns this off.
    pub compact_bytes_per_second: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("data"),
            reserve_bytes: 1 << 30,
            log_file_bytes: 256 << 20,
            compact_interval: Duration::from_secs(10 * 60),
            compact_bytes_per_second: 32 << 20,
        }
    }
}

/// Section `[encoder]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncoderConfig {
    /// Threads; 0 for one per core.
    #[serde(deserialize_with = "rules::threads")]
    pub threads: usize,
}

impl EncoderConfig {
    /// The number of threads to start.
    #[must_use]
    pub fn thread_count(&self) -> NonZeroUsize {
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        NonZeroUsize::new(self.threads).unwrap_or_else(cores)
    }
}

/// Section `[repair]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepairConfig {
    /// Segments being repaired at the same time.
    pub segments_in_flight: NonZeroUsize,
    /// How long to wait before a repair that failed is tried again.
    #[serde(serialize_with = "humantime_serde::serialize", deserialize_with = "rules::pause")]
    pub retry_after: Duration,
    /// Bytes a second that are read back from the disk and checked; 0 turns scrubbing off.
    pub scrub_bytes_per_second: u64,
    /// How often to begin checking everything that is stored.
    #[serde(serialize_with = "humantime_serde::serialize", deserialize_with = "rules::pause")]
    pub scrub_interval: Duration,
}

impl Default for RepairConfig {
    fn default() -> Self {
        Self {
            segments_in_flight: NonZeroUsize::new(4).unwrap_or(NonZeroUsize::MIN),
            retry_after: Duration::from_secs(5),
            scrub_bytes_per_second: 8 << 20,
            scrub_interval: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Section `[server]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Requests being worked on at the same time; more are answered "busy".
    pub requests_in_flight: NonZeroUsize,
    /// Memory for slivers that are still arriving; uploads that do not fit are answered "busy".
    #[serde(deserialize_with = "rules::upload_bytes")]
    pub upload_bytes: u64,
    /// How long what came for a blob that the ledger does not know is kept after the last of it came.
    #[serde(serialize_with = "humantime_serde::serialize", deserialize_with = "rules::pause")]
    pub pending_ttl: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            requests_in_flight: NonZeroUsize::new(256).unwrap_or(NonZeroUsize::MIN),
            upload_bytes: rules::UPLOAD_BYTES_MIN * 4,
            pending_ttl: Duration::from_secs(60 * 60),
        }
    }
}

/// Section `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Where metrics and health are served over HTTP; nowhere if not set.
    #[serde(deserialize_with = "rules::metrics_listen", skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

impl NodeConfig {
    /// Reads the text of a configuration; `path` is only for the error.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Syntax`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        file::parse(path, text)
    }

    /// Reads the configuration of the node in `dir`. The paths in it then no longer depend on where it came from.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(CONFIG_FILE);
        let mut config = Self::parse(&path, &file::read(&path)?)?;
        config.genesis = dir.join(&config.genesis);
        config.storage.dir = dir.join(&config.storage.dir);
        Ok(config)
    }

    /// The text of a configuration file that parses to this, with every key explained.
    #[must_use]
    pub fn to_toml(&self) -> String {
        template::render(self)
    }

    /// Reads and verifies the genesis file that a loaded configuration names.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn load_genesis(&self) -> Result<Genesis, ConfigError> {
        load_genesis(&self.genesis)
    }
}

/// For [`crate::fuzz`]: reads the text of any file of the configuration.
#[cfg(feature = "fuzz")]
pub(crate) fn parse_text<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    file::parse(Path::new("fuzz.toml"), text).ok()
}

#[cfg(test)]
mod tests;
