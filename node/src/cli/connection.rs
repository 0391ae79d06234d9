//! From a `client.toml` to a client on the network.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::genesis::Genesis;
use swarm::{
    Inbound, InboundReceiver, Topic,
    live::{Live, LiveConfig, LiveNetwork},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure, NETWORK_VARIABLE};
use crate::{
    client::{Client, ClientConfig},
    config::{ClientFile, NodeConfig},
    encoder::Encoder,
    keys::PeerKey,
};

/// Name of the file that describes a network to a client.
const CLIENT_FILE: &str = "client.toml";

/// A client, and the task that carries its messages.
#[derive(Debug)]
pub struct Connection {
    client: Client<LiveNetwork>,
    stop: CancellationToken,
    /// What carries and hears its messages; ends with this value.
    tasks: JoinSet<()>,
}

impl Connection {
    /// Joins the network that a `client.toml` describes, under an identity made for this one time. Nodes are connected
    /// to in the background.
    ///
    /// # Errors
    ///
    /// If the file, or the genesis file it names, cannot be used, or the system refuses threads or random numbers.
    pub async fn open(network: &Path) -> Result<Self, Failure> {
        let file = ClientFile::load(network).map_err(|error| {
            Failure::from(error).hint("--network takes the client.toml of a network, or its directory")
        })?;
        Self::start(Arc::new(file.load_genesis()?), file.config()).await
    }

    /// Joins the network of a node, as a client of its own.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn of_node(config: &NodeConfig) -> Result<Self, Failure> {
        let genesis = config.load_genesis().map_err(|error| {
            Failure::from(error)
                .hint("put the network's genesis file there, or say in config.toml where it is")
        })?;
        Self::start(Arc::new(genesis), ClientConfig::default()).await
    }

    /// Joins the network of a genesis: see [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// If the system refuses threads, sockets or random numbers.
    pub async fn start(genesis: Arc<Genesis>, settings: ClientConfig) -> Result<Self, Failure> {
        let threads = std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN);
        let encoder = Encoder::start(genesis.n_shards(), threads)
            .map_err(|error| Failure::io("cannot start the encoder threads", &error))?;
        let mut config = LiveConfig::new(PeerKey::generate()?.for_network(), genesis.network_id());
        // So that a client that runs for long learns of a change of the committee before it asks somebody who is on it no more.
        config.topics = vec![Topic::Epoch];
        let (network, inbound, event_loop) =
            Live::start(config).await.map_err(|error| Failure::of(Exit::Other, &error))?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(event_loop.run(stop.clone()));
        let client = Client::new(network, genesis, encoder, settings);
        tasks.spawn(listen(client.clone(), inbound, stop.clone()));
        Ok(Self { client, stop, tasks })
    }

    /// The client.
    #[must_use]
    pub const fn client(&self) -> &Client<LiveNetwork> {
        &self.client
    }

    /// Hangs up.
    pub async fn close(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Has a client hear what is announced; nobody has anything to ask of it.
async fn listen(client: Client<LiveNetwork>, mut inbound: InboundReceiver, stop: CancellationToken) {
    loop {
        let heard = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            heard = inbound.recv() => heard,
        };
        match heard {
            Some(Inbound::Gossip { from, topic: Topic::Epoch, data, verdict, .. }) => {
                if client.hear(from, &data).await {
                    verdict.accept();
                } else {
                    verdict.ignore();
                }
            }
            Some(_) => {}
            None => return,
        }
    }
}

/// Finds the `client.toml` that `--network` or the environment names.
///
/// # Errors
///
/// If neither names one.
pub fn network_file(option: Option<&Path>) -> Result<PathBuf, Failure> {
    let variable = || std::env::var_os(NETWORK_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = option.map(Path::to_owned).or_else(variable).ok_or_else(|| {
        Failure::new(Exit::Usage, "no network is named")
            .hint(format!("give --network FILE or set {NETWORK_VARIABLE}, to the client.toml of a network"))
    })?;
    Ok(if path.is_dir() { path.join(CLIENT_FILE) } else { path })
}
