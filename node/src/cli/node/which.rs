//! Which node a command is about.

use std::path::{Path, PathBuf};

use protocol::{PeerId, ledger::signature::SigningKey};

use crate::{
    cli::{Connection, Exit, Failure, network_file},
    config::NodeConfig,
    keys::NodeKeys,
};

/// One node, by its directory or by its identity.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// The node's directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The node, by its identity, on the network of --network
    #[arg(long, value_name = "PEER")]
    node: Option<PeerId>,
}

/// A client of the network of a node.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) node: PeerId,
    /// The key of the node's own account, if its directory is at hand.
    pub(super) key: Option<SigningKey>,
}

impl Which {
    /// Joins the node's network as a client.
    pub(super) async fn open(&self, network: Option<&Path>) -> Result<Opened, Failure> {
        match (&self.dir, self.node) {
            (Some(dir), _) => {
                let (config, keys) = (NodeConfig::load(dir)?, NodeKeys::load(dir)?);
                let key = SigningKey::from_secret(keys.peer_key().secret_bytes());
                let connection = Connection::of_node(&config).await?;
                Ok(Opened { connection, node: keys.peer(), key: Some(key) })
            }
            (None, Some(node)) => {
                let connection = Connection::open(&network_file(network)?).await?;
                Ok(Opened { connection, node, key: None })
            }
            (None, None) => Err(Failure::new(Exit::Usage, "no node is named")),
        }
    }
}
