//! The file that tells a client which network to use.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::genesis::Genesis;
use serde::{Deserialize, Serialize};

use super::{ConfigError, PeerAddress, file, load_genesis, rules};
use crate::client::ClientConfig;

/// `client.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientFile {
    /// The genesis file of the network. Relative paths start from the directory of this file.
    pub genesis: PathBuf,
    /// The wallet that stores, if it is not the user's own. Relative paths start from the directory of this file.
    pub wallet: Option<PathBuf>,
    /// How long to wait for the answer to one request.
    #[serde(serialize_with = "humantime_serde::serialize", deserialize_with = "rules::request_timeout")]
    pub request_timeout: Duration,
    /// How long to wait for nodes to become reachable, at the start.
    #[serde(serialize_with = "humantime_serde::serialize", deserialize_with = "rules::pause")]
    pub connect_timeout: Duration,
    /// Segments in hand at the same time; each takes about six times its size in memory.
    pub segments_in_flight: NonZeroUsize,
    /// How long, at least, uploads to slower nodes go on once a quorum has confirmed.
    #[serde(serialize_with = "humantime_serde::serialize", deserialize_with = "rules::pause")]
    pub tail: Duration,
    /// Nodes to ask for the way to the newest committee when members of the one that is known do not answer. They are not
    /// trusted.
    #[serde(deserialize_with = "rules::bootstrap")]
    pub bootstrap: Vec<PeerAddress>,
}

impl Default for ClientFile {
    fn default() -> Self {
        let ClientConfig { request_timeout, connect_timeout, segments_in_flight, tail, bootstrap } =
            ClientConfig::default();
        Self {
            genesis: PathBuf::from("genesis.toml"),
            wallet: None,
            request_timeout,
            connect_timeout,
            segments_in_flight: NonZeroUsize::new(segments_in_flight).unwrap_or(NonZeroUsize::MIN),
            tail,
            bootstrap,
        }
    }
}

impl ClientFile {
    /// A documented file that says what is true without it; a test keeps it so.
    pub const EXAMPLE: &str = include_str!("../../client.example.toml");

    /// Reads the file at `path`. The paths in it then no longer depend on where it came from.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut client: Self = file::parse(path, &file::read(path)?)?;
        let dir = path.parent().unwrap_or_else(|| Path::new(""));
        client.genesis = dir.join(&client.genesis);
        client.wallet = client.wallet.map(|wallet| dir.join(wallet));
        Ok(client)
    }

    /// Reads and verifies the genesis file that a loaded file names.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn load_genesis(&self) -> Result<Genesis, ConfigError> {
        load_genesis(&self.genesis)
    }

    /// What the client library wants to know.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        ClientConfig {
            request_timeout: self.request_timeout,
            connect_timeout: self.connect_timeout,
            segments_in_flight: self.segments_in_flight.get(),
            tail: self.tail,
            bootstrap: self.bootstrap.clone(),
        }
    }
}
