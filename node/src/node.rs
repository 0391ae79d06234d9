//! Wires the actors of one node, bottom up, and runs them.
//!
//! ```text
//!  start order                                stopped in reverse
//!  network event loop     (a real network only)
//!  sliver store           writes what it is given
//!  ledger                 orders transactions with the other members
//!  repair                 what is missing here
//!  stale uploads          drops what was never certified
//!  scrubber               finds more for repair to do
//!  epoch coordinator      takes the node through the stages of an epoch
//!  server                 answers peers
//!  monitor                shows metrics and health    (if switched on)
//! ```

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use protocol::{PeerId, bls, genesis::Genesis, ledger::signature::SigningKey};
use storage::{Store, disk::RealDisk, index::SledIndex};
use swarm::{
    Address, ConnectedPeers, InboundLoad, InboundReceiver, Network, PeerRole,
    live::{Live, LiveConfig, SecretKey},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    blobs::Blobs,
    commitments::CommitmentCache,
    config::{ConfigError, NodeConfig, PeerAddress},
    coordinator::{self, Coordinator},
    encoder::Encoder,
    keys::{KeyError, NodeKeys},
    ledger::{self, Clock, Ledger},
    load::Work,
    membership::Membership,
    monitor::{Monitor, Subject},
    repair::{self, Repair, ScrubConfig, Scrubber},
    server::{self, Attesting, Handler, Served},
    sliver_store::{self, Blocking, SliverStore},
    supervisor::{ActorFailure, Supervisor},
    upload::{self, StaleUploads, Uploads},
};

/// Threads that read and write the disk: enough to keep a few requests in the disk's own queue.
const DISK_THREADS: usize = 16;
/// How long each actor may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Settings of all actors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// The sliver store.
    pub sliver_store: sliver_store::Config,
    /// The ledger.
    pub ledger: ledger::Config,
    /// Uploads.
    pub upload: upload::Config,
    /// Repair.
    pub repair: repair::Config,
    /// The scrubber; `None` turns it off.
    pub scrub: Option<ScrubConfig>,
    /// The epoch coordinator.
    pub coordinator: coordinator::Config,
    /// The server.
    pub server: server::Config,
}

impl From<&NodeConfig> for Settings {
    fn from(config: &NodeConfig) -> Self {
        let request_timeout = config.network.request_timeout;
        Self {
            sliver_store: sliver_store::Config {
                compact: sliver_store::CompactConfig {
                    interval: config.storage.compact_interval,
                    bytes_per_second: config.storage.compact_bytes_per_second,
                },
                ..sliver_store::Config::default()
            },
            ledger: ledger::Config::default(),
            upload: upload::Config {
                assembly_bytes: usize::try_from(config.server.upload_bytes).unwrap_or(usize::MAX),
                pending_ttl: config.server.pending_ttl,
                ..upload::Config::default()
            },
            repair: repair::Config {
                segments_in_flight: config.repair.segments_in_flight.get(),
                retry_after: config.repair.retry_after,
                request_timeout,
                ..repair::Config::default()
            },
            scrub: (config.repair.scrub_bytes_per_second > 0).then_some(ScrubConfig {
                bytes_per_second: config.repair.scrub_bytes_per_second,
                interval: config.repair.scrub_interval,
            }),
            coordinator: coordinator::Config::default(),
            server: server::Config {
                requests_in_flight: config.server.requests_in_flight.get(),
                ..server::Config::default()
            },
        }
    }
}

/// What a node is made of, whatever network and disk it stands on.
pub struct Parts<N> {
    /// What its operator calls it.
    pub name: String,
    /// The genesis of its network.
    pub genesis: Arc<Genesis>,
    /// The key of its confirmations.
    pub key: bls::SecretKey,
    /// Its network, and what comes in over it.
    pub network: (N, InboundReceiver),
    /// Its store.
    pub store: Arc<Store>,
    /// What its ledger stands on.
    pub ledger: ledger::Parts,
    /// Where calls to the store run.
    pub blocking: Blocking,
    /// Where encoding, decoding and hashing run.
    pub encoder: Encoder,
    /// Peers by way of which to find the network, beside the members of the genesis.
    pub bootstrap: Vec<PeerAddress>,
    /// Settings of the actors.
    pub settings: Settings,
}

impl<N> std::fmt::Debug for Parts<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Handles to the actors of a running node: what tests look at.
#[derive(Clone, Debug)]
pub struct Handles {
    /// What is on disk.
    pub store: SliverStore,
    /// Which blobs exist.
    pub blobs: Blobs,
    /// The ledger.
    pub ledger: Ledger,
    /// What is missing.
    pub repair: Repair,
    /// Who answers for what.
    pub membership: Membership,
    /// Encodes, decodes and hashes.
    pub encoder: Encoder,
    /// What the server did.
    pub served: Served,
    /// What waits for the server.
    pub inbound: InboundLoad,
    /// Who is connected.
    pub peers: ConnectedPeers,
    /// Peers by way of which the node finds the network.
    pub bootstrap: Arc<BTreeSet<PeerId>>,
    /// What the epoch coordinator did.
    pub(crate) turns: Work,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger does not start.
    #[error("cannot start the ledger")]
    Ledger(#[source] Box<ledger::StartError>),
    /// The store could not be read.
    #[error("cannot read the store")]
    Store(#[from] storage::ReadError),
    /// The orders in the store could not be read.
    #[error("cannot read the orders in the store")]
    Orders(#[from] sliver_store::StoreReadError),
}

/// Tells the network who the members are and where to find them.
pub fn introduce_members<N: Network>(network: &N, genesis: &Genesis) {
    for member in genesis.committee().members() {
        let addresses = member.addresses.iter().filter_map(|text| text.parse::<Address>().ok()).collect();
        network.add_peer(member.peer, addresses, PeerRole::Member);
    }
}

/// Tells the network by way of whom to find the others: the members of the genesis, who say who is on later committees, and these
/// peers. Returns both.
fn find_way_in<N: Network>(
    network: &N,
    genesis: &Genesis,
    bootstrap: Vec<PeerAddress>,
) -> (BTreeSet<PeerId>, BTreeSet<PeerId>) {
    introduce_members(network, genesis);
    let members: BTreeSet<PeerId> = genesis.committee().members().iter().map(|member| member.peer).collect();
    let mut peers = BTreeSet::new();
    for PeerAddress { peer, address } in bootstrap {
        // A member of the genesis may have moved.
        let role = if members.contains(&peer) { PeerRole::Member } else { PeerRole::Bootstrap };
        network.add_peer(peer, vec![address], role);
        peers.insert(peer);
    }
    (members, peers)
}

/// Wires the actors of a node and starts them under `supervisor`, those that are called before those that call.
///
/// # Errors
///
/// [`StartError`].
pub async fn start<N: Network>(parts: Parts<N>, supervisor: &mut Supervisor) -> Result<Handles, StartError> {
    let Parts { name, genesis, key, network: (network, inbound), store, ledger, .. } = parts;
    let Parts { blocking, encoder, bootstrap, settings, .. } = parts;
    let (introduced, bootstrap) = find_way_in(&network, &genesis, bootstrap);

    let (actor, store) =
        sliver_store::Actor::new(settings.sliver_store, store, blocking.clone(), genesis.n_shards())?;
    supervisor.start("sliver store", |stop| actor.run(stop));

    // A vote must not wait behind the reads of slivers. One thread: the ledger makes one call at a time.
    let blocking = blocking.apart(1);
    let starting = ledger::Actor::new(settings.ledger, ledger, genesis, network.clone(), blocking);
    let (actor, ledger) = starting.await.map_err(|error| StartError::Ledger(Box::new(error)))?;
    supervisor.start("ledger", |stop| actor.run(stop));

    let membership = Membership::new(network.local_peer(), ledger.watch());
    let blobs = Blobs::new(ledger.clone());
    let commitments = CommitmentCache::new(store.clone());
    let uploads = Uploads::new(
        settings.upload,
        (membership.clone(), key.clone()),
        (store.clone(), blobs.clone()),
        commitments.clone(),
        encoder.clone(),
    );
    // Before anything is dropped: what this node vouched for on an order is kept.
    uploads.find_orders().await?;
    let (actor, repair, coefficients, evidence) = repair::Actor::new(
        settings.repair,
        (membership.clone(), key.clone()),
        network.clone(),
        (store.clone(), blobs.clone()),
        commitments.clone(),
        encoder.clone(),
        uploads.clone(),
    );
    supervisor.start("repair", |stop| actor.run(stop));

    let stale = StaleUploads::new(uploads.clone());
    supervisor.start("stale uploads", |stop| stale.run(stop));

    let scrubbing = settings.scrub.map(|config| {
        let of = (store.clone(), blobs.clone());
        Scrubber::new(config, of, commitments.clone(), encoder.clone(), repair.clone())
    });
    if let Some(scrubber) = scrubbing {
        supervisor.start("scrubber", |stop| scrubber.run(stop));
    }
    let coordinator = Coordinator::new(
        settings.coordinator,
        (membership.clone(), network.clone()),
        (store.clone(), blobs.clone()),
        repair.clone(),
        (introduced, bootstrap.clone()),
    );
    let turns = coordinator.turns();
    supervisor.start("epoch coordinator", |stop| coordinator.run(stop));
    let handler = Handler {
        name,
        membership,
        bootstrap,
        key,
        network,
        store,
        blobs,
        ledger,
        commitments,
        encoder,
        uploads,
        repair,
        coefficients,
        evidence,
        attesting: Attesting::default(),
        start: Instant::now(),
        served: Served::default(),
    };
    let handles = handles_of(&handler, &inbound, turns);
    let actor = server::Actor::new(settings.server, handler, inbound);
    supervisor.start("server", |stop| actor.run(stop));
    Ok(handles)
}

fn handles_of<N: Network>(handler: &Handler<N>, inbound: &InboundReceiver, turns: Work) -> Handles {
    Handles {
        store: handler.store.clone(),
        blobs: handler.blobs.clone(),
        ledger: handler.ledger.clone(),
        repair: handler.repair.clone(),
        membership: handler.membership.clone(),
        encoder: handler.encoder.clone(),
        served: handler.served.clone(),
        inbound: inbound.load(),
        peers: handler.network.connected(),
        bootstrap: Arc::new(handler.bootstrap.clone()),
        turns,
    }
}

/// Why a node did not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration or the genesis file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The store's directory cannot be taken.
    #[error(transparent)]
    Lock(#[from] storage::disk::LockError),
    /// The index of the store cannot be opened.
    #[error("cannot open the index in {}; remove that directory, it is rebuilt from the log files", .path.display())]
    Index {
        /// The directory of the index.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: storage::index::IndexError,
    },
    /// The store cannot be opened.
    #[error("cannot open the store in {}", .path.display())]
    Open {
        /// The directory of the store.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: storage::OpenError,
    },
    /// The network did not start.
    #[error(transparent)]
    Network(#[from] swarm::live::StartError),
    /// The genesis file knows another key for this node.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The key that this node's connections use is not the one in its keys: a bug.
    #[error("the identity of the network ({got}) is not that of the keys ({expected})")]
    Identity {
        /// The network's.
        got: PeerId,
        /// That of the keys.
        expected: PeerId,
    },
    /// The system refused something.
    #[error("cannot {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// An actor failed.
    #[error(transparent)]
    Actor(#[from] ActorFailure),
}

fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> RunError {
    move |source| RunError::System { doing, source }
}

/// Runs the storage node of a directory until it is told to stop (SIGINT or SIGTERM) or fails. It finds the network by way of
/// the members of the genesis, the peers that its configuration names, and those in `bootstrap`; `clock` is [`Clock::System`] but
/// for trials.
///
/// # Errors
///
/// [`RunError`]: if the directory, its configuration, its keys or its store cannot be used, a port is taken, or an
/// actor fails.
pub async fn run(dir: &Path, bootstrap: Vec<PeerAddress>, clock: Clock) -> Result<(), RunError> {
    let config = NodeConfig::load(dir)?;
    let bootstrap = bootstrap.into_iter().chain(config.network.bootstrap.iter().cloned()).collect();
    let keys = NodeKeys::load(dir)?;
    let genesis = Arc::new(config.load_genesis()?);
    let store = open_store(&config, ("log", "index"), config.storage.reserve_bytes)?;
    // What uploads must leave free is there for the ledger: without room for a block the node stops.
    let blocks = open_store(&config, ("ledger/blocks", "ledger/index"), 0)?;
    let ledger = ledger::Parts {
        key: SigningKey::from_secret(keys.peer_key().secret_bytes()),
        disk: Arc::new(RealDisk::open(config.storage.dir.join("ledger"))?),
        blocks: Arc::clone(&blocks),
        clock,
    };
    let encoder = Encoder::start(genesis.n_shards(), config.encoder.thread_count())
        .map_err(system("start the encoder threads"))?;
    let mut live = LiveConfig::new(SecretKey::new(**keys.peer_key().secret_bytes()), genesis.network_id());
    live.listen.clone_from(&config.network.listen);
    live.external.clone_from(&config.network.external);
    let (network, inbound, event_loop) = Live::start(live).await?;
    if network.local_peer() != keys.peer() {
        return Err(RunError::Identity { got: network.local_peer(), expected: keys.peer() });
    }
    let stop = stop_on_signal()?;
    let mut supervisor = Supervisor::new(STOP_GRACE);
    supervisor.start("network", |stop| event_loop.run(stop));
    let settings = Settings::from(&config);
    let name = config.name.clone();
    let live = network.clone();
    let parts = Parts {
        name: config.name,
        genesis,
        key: keys.bls().clone(),
        network: (network, inbound),
        store: Arc::clone(&store),
        ledger,
        blocking: Blocking::threads(DISK_THREADS),
        encoder,
        bootstrap,
        settings,
    };
    let handles = start(parts, &mut supervisor).await?;
    if let Some(listen) = config.metrics.listen {
        let subject = Subject { name, handles, network: Some(live), start: Instant::now() };
        supervisor.start("monitor", |stop| Monitor::new(listen, subject).run(stop));
    }
    tracing::info!("the node is running");
    let result = supervisor.run(stop).await;
    for store in [store, blocks] {
        if let Err(error) = store.checkpoint() {
            tracing::warn!(%error, "the index was not flushed; the next start reads more of the log");
        }
    }
    tracing::info!("the node has stopped");
    Ok(result?)
}

fn open_store(
    config: &NodeConfig,
    (log, index): (&str, &str),
    reserve_bytes: u64,
) -> Result<Arc<Store>, RunError> {
    let path = config.storage.dir.join(log);
    let disk = RealDisk::open(&path)?;
    let index_path = config.storage.dir.join(index);
    let index =
        SledIndex::open(&index_path).map_err(|source| RunError::Index { path: index_path, source })?;
    let settings = storage::Config {
        log_bytes: config.storage.log_file_bytes,
        reserve_bytes,
        ..storage::Config::default()
    };
    let opened = Store::open(Arc::new(disk), Box::new(index), settings);
    let (store, report) = opened.map_err(|source| RunError::Open { path, source })?;
    tracing::info!(log, ?report, "a store is open");
    Ok(Arc::new(store))
}

/// A token that the first SIGINT or SIGTERM cancels.
fn stop_on_signal() -> Result<CancellationToken, RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listen for signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("listen for signals"))?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    // Lives as long as the process: there is no one to hand it to who would outlive the node.
    #[allow(clippy::disallowed_methods, reason = "the signal listener ends with the process")]
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        token.cancel();
    });
    Ok(stop)
}
