//! The shell of the ledger: carries between the replica, the network and those who wait.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::{
    PeerId,
    genesis::Genesis,
    ledger::{
        signature::SigningKey,
        wire::{BATCH_BYTES_MAX, Message, RESPONSE_BYTES_MAX, Request, Response},
    },
    message,
};
use storage::{Store, disk::Disk};
use swarm::{Network, Offence, PAYLOAD_BYTES_MAX, Topic};
use tokio::{
    sync::{broadcast, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    app::{App, LoadError},
    clock::Clock,
    consensus::{self, Fatal, FileWal, Now, Output, Replica, RequestId, StoreError, StoredBlocks, WalError},
    core::{Core, Step, Stopped},
    mailbox::{Executed, Input, Ledger, Watched},
    snapshots::Snapshots,
    view::View,
};
use crate::{
    exchange::{ask, malformed},
    latest,
    sliver_store::Blocking,
};

const _: () = assert!(RESPONSE_BYTES_MAX <= PAYLOAD_BYTES_MAX, "an answer fits into a frame");
const _: () =
    assert!(BATCH_BYTES_MAX + (12 << 10) <= Topic::Transactions.bytes_max(), "a batch can be published");

/// Inputs of each kind taken in one call to the replica: a disk that is slow is waited for once for all of them.
const INPUTS_MAX: usize = 64;
/// Requests to peers at the same time; one more counts as not answered. The replica asks for blocks one peer at a time, and
/// every peer at most once in a while how far it is.
const REQUESTS_MAX: usize = 64;

/// Tuning of the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Consensus.
    pub consensus: consensus::Config,
    /// Messages of peers that may wait; each has at most 165 KiB, nearly all are votes of 200 bytes.
    pub peers_capacity: usize,
    /// Submissions that may wait to be looked at.
    pub users_capacity: usize,
    /// How long a submission may take before its sender is told that it is not in a block yet.
    pub submit_max: Duration,
    /// Blocks from one snapshot of the state to the next. Each takes time and room as the state does; a start executes as many
    /// blocks as there are since the last.
    pub snapshot_blocks: u64,
    /// Blocks that a subscriber to what was executed may lag behind.
    pub executed_capacity: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            consensus: consensus::Config::default(),
            peers_capacity: 256,
            users_capacity: 256,
            // Shorter than clients wait for an answer, so that they learn the reason.
            submit_max: Duration::from_secs(8),
            snapshot_blocks: 1024,
            executed_capacity: 256,
        }
    }
}

/// What the ledger of a node stands on.
pub struct Parts {
    /// The node's identity, which signs its votes.
    pub key: SigningKey,
    /// Where the log of votes and snapshots of the state are.
    pub disk: Arc<dyn Disk>,
    /// Where blocks are.
    pub blocks: Arc<Store>,
    /// What block time is made of.
    pub clock: Clock,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ledger::Parts")
            .field("key", &self.key)
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

/// Why the ledger of a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The key is not that of the node's connections: a bug.
    #[error("the key that signs votes is that of {got}, the node is {required}")]
    OtherKey {
        /// Who signs.
        got: PeerId,
        /// Who the node is.
        required: PeerId,
    },
    /// The log of votes cannot be opened.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The blocks cannot be read.
    #[error(transparent)]
    Blocks(#[from] StoreError),
    /// The state cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What is on the disk does not fit together.
    #[error("the ledger cannot go on from what is on the disk")]
    Replica(#[from] Fatal),
    /// The state does not follow from the blocks, or the node is going down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Carries between the replica, the network and those who wait; see the [module](super) for the invariants.
pub struct Actor<N> {
    config: Config,
    /// `None` only while a call runs.
    core: Option<Box<Core>>,
    blocking: Blocking,
    network: N,
    clock: Clock,
    start: Instant,
    /// When to call the replica even if nothing comes.
    deadline: Option<Duration>,
    peers: mpsc::Receiver<Input>,
    users: mpsc::Receiver<Input>,
    /// Requests to peers.
    requests: JoinSet<Input>,
    view: latest::Sender<View>,
    executed: broadcast::Sender<Arc<Executed>>,
    watched: Arc<Watched>,
}

impl<N> fmt::Debug for Actor<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ledger::Actor").field("core", &self.core).finish_non_exhaustive()
    }
}

/// Loads what is on the disk and executes the blocks after the last snapshot.
pub(super) fn load(
    config: &Config,
    parts: Parts,
    genesis: &Genesis,
    now: Now,
) -> Result<(Core, View), StartError> {
    let Parts { key, disk, blocks, .. } = parts;
    let blocks = StoredBlocks::new(blocks)?;
    let (app, mut view) =
        App::load(genesis, Snapshots::new(Arc::clone(&disk)), &blocks, config.snapshot_blocks)?;
    let wal = FileWal::new(&*disk)?;
    let network = genesis.network_id();
    let committee = Arc::clone(view.state.committee());
    let signed_by = Arc::clone(view.signed_by());
    let parts = consensus::Parts {
        network,
        key: key.clone(),
        signed_by,
        committee,
        app,
        wal: Box::new(wal),
        blocks: Box::new(blocks),
    };
    let mut replica = Replica::new(config.consensus, parts, now)?;
    if let Some(error) = replica.app_mut().take_failed() {
        return Err(Stopped::from(error).into());
    }
    if replica.is_muted() {
        tracing::error!("the log of votes is damaged: this node does not vote until the next block is there");
    }
    let mut core = Core::new(replica, network, key);
    if let Some(last) = core.catch_up() {
        view = last;
    }
    Ok((core, view))
}

impl<N: Network> Actor<N> {
    /// Returns the actor, not yet running, and a handle to it. Executes the blocks that no snapshot holds.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn new(
        config: Config,
        parts: Parts,
        genesis: Arc<Genesis>,
        network: N,
        blocking: Blocking,
    ) -> Result<(Self, Ledger), StartError> {
        let (got, required) = (parts.key.peer(), network.local_peer());
        if got != required {
            return Err(StartError::OtherKey { got, required });
        }
        let (clock, start) = (parts.clock, Instant::now());
        let now = Now { uptime: Duration::ZERO, unix_ms: clock.unix_ms() };
        let loaded = blocking.run(move || load(&config, parts, &genesis, now)).await;
        let (core, first) = loaded.map_err(|_| Stopped::Gone)??;
        let (peers_sender, peers) = mpsc::channel(config.peers_capacity);
        let (users_sender, users) = mpsc::channel(config.users_capacity);
        let (view, views) = latest::channel(first);
        let (executed, _) = broadcast::channel(config.executed_capacity);
        let watched = Arc::new(Watched::new(start));
        let senders = (peers_sender, users_sender);
        let ledger = Ledger::new(senders, views, executed.clone(), config.submit_max, Arc::clone(&watched));
        let actor = Self {
            config,
            core: Some(Box::new(core)),
            blocking,
            network,
            clock,
            start,
            // What the log of votes left to be done is done at once.
            deadline: Some(Duration::ZERO),
            peers,
            users,
            requests: JoinSet::new(),
            view,
            executed,
            watched,
        };
        Ok((actor, ledger))
    }

    /// Runs until `stop` is cancelled or the ledger cannot go on, and leaves a snapshot behind.
    pub async fn run(mut self, stop: CancellationToken) {
        if let Err(error) = self.work(&stop).await {
            tracing::error!(?error, "the ledger of this node cannot go on: {error}");
            return;
        }
        let Some(mut core) = self.core.take() else { return };
        if self.blocking.run(move || core.snapshot()).await.is_err() {
            tracing::warn!("no snapshot was written; the next start executes more blocks");
        }
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), Stopped> {
        loop {
            let mut inputs = Vec::new();
            let wake_at = self.deadline.map_or(self.start, |deadline| self.start + deadline);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(ended) = self.requests.join_next() => inputs.push(ended.map_err(|_| Stopped::Gone)?),
                input = self.peers.recv() => match input {
                    Some(input) => inputs.push(input),
                    None => return Ok(()),
                },
                input = self.users.recv() => match input {
                    Some(input) => inputs.push(input),
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(wake_at), if self.deadline.is_some() => {}
            }
            // However much peers say, users have a turn in each call.
            for inbox in [&mut self.peers, &mut self.users] {
                let more = std::iter::from_fn(|| inbox.try_recv().ok());
                inputs.extend(more.take(INPUTS_MAX));
            }
            self.watched.took(&inputs);
            let step = self.call(inputs).await?;
            self.carry_out(step).await;
        }
    }

    /// Calls the replica where it may wait for the disk.
    async fn call(&mut self, inputs: Vec<Input>) -> Result<Step, Stopped> {
        let mut core = self.core.take().ok_or(Stopped::Gone)?;
        let now = Now { uptime: self.start.elapsed(), unix_ms: self.clock.unix_ms() };
        let call = move || {
            let step = core.step(now, inputs);
            (core, step)
        };
        let (core, step) = self.blocking.run(call).await.map_err(|_| Stopped::Gone)?;
        self.core = Some(core);
        step
    }

    async fn carry_out(&mut self, step: Step) {
        let Step { outputs, done, deadline, activity } = step;
        self.deadline = deadline;
        self.watched.beat(!done.is_empty(), activity);
        for done in done {
            let (view, executed) = done.into_news();
            let (height, n_transactions) = (executed.height, executed.receipts.len());
            tracing::debug!(height, n_transactions, "a block was executed");
            self.view.send(view);
            // Nobody listening is no error.
            let _ = self.executed.send(Arc::new(executed));
        }
        for output in outputs {
            match output {
                Output::Broadcast(message) => publish(&self.network, &message).await,
                Output::Request { id, peer, request } => self.request(id, peer, request),
                Output::Misbehaved { peer, offence } => {
                    tracing::warn!(%peer, %offence, "a peer broke the rules of consensus");
                    self.network.report(peer, Offence::Unverifiable);
                }
                Output::ClockBehind { by } => {
                    tracing::warn!(
                        ?by,
                        "a block is ahead of this node's clock; if that happens often, set the clock"
                    );
                }
                // Taken care of before: see `core.rs`.
                Output::Reply { .. }
                | Output::Busy { .. }
                | Output::Committed(_)
                | Output::Installed(_)
                | Output::Evidence(_) => {}
            }
        }
    }

    fn request(&mut self, id: RequestId, peer: PeerId, request: Request) {
        let is_full = self.requests.len() >= REQUESTS_MAX;
        let (network, timeout) = (self.network.clone(), self.config.consensus.answer_max);
        self.requests.spawn(async move {
            let response = if is_full { None } else { fetch(&network, peer, request, timeout).await };
            Input::Response { from: peer, id, response }
        });
    }
}

/// The topic that a message belongs on.
pub(crate) const fn topic_of(message: &Message) -> Topic {
    match message {
        Message::Transactions(_) => Topic::Transactions,
        Message::Proposal { .. }
        | Message::Vote(_)
        | Message::Polka(_)
        | Message::Round(_)
        | Message::Status { .. } => Topic::Ledger,
    }
}

async fn publish<N: Network>(network: &N, message: &Message) {
    if let Err(error) = network.publish(topic_of(message), message.encode().into()).await {
        tracing::debug!(%error, "a message of the ledger was not sent; it is repeated while it matters");
    }
}

/// Asks a peer; `None` if it does not answer, or not what was asked.
async fn fetch<N: Network>(
    network: &N,
    peer: PeerId,
    request: Request,
    timeout: Duration,
) -> Option<Response> {
    let request = message::Request::Ledger(request);
    let (header, payload) = ask(network, peer, (&request, Bytes::new()), timeout).await.ok()?;
    let response = match header {
        message::Response::Ledger => Response::decode(&payload).ok(),
        _ => None,
    };
    if response.is_none() {
        malformed(network, peer);
    }
    response
}
