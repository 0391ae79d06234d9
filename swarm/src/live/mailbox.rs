//! The handle to a running network: one method per request, a bounded queue, and the peer table beside it.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use protocol::PeerId;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::{
    address::Address,
    frame::{Channel, Frame, Topic},
    limits::REQUEST_TIMEOUT_MAX,
    network::{ConnectedPeers, Network, Offence, PeerRole, PublishError, RequestError, check_gossip},
    peers::PeerBook,
    traffic::{QueueLoad, Traffic},
    view::View,
};

/// Requests and publications that may wait for the event loop, which takes some 10 µs for each: more means that it is
/// behind by tens of milliseconds, and callers had better wait themselves.
const COMMANDS_MAX: usize = 1_024;

/// What callers ask of the event loop. When the mailbox is full, the caller gets `Busy`.
#[derive(Debug)]
pub(super) enum Command {
    /// Send a request.
    Request {
        to: PeerId,
        channel: Channel,
        frame: Frame,
        reply: oneshot::Sender<Result<Frame, RequestError>>,
        /// Ready once the caller stopped waiting.
        abandoned: oneshot::Receiver<()>,
    },
    /// Publish a message.
    Publish { topic: Topic, data: Bytes, reply: oneshot::Sender<Result<(), PublishError>> },
}

/// What the handles, the event loop and the gate share: the peer table, so that a change to it is never lost.
pub(super) struct Shared {
    started: Instant,
    book: Mutex<PeerBook>,
    /// Peers whose entry changed and that the event loop has yet to look at.
    changed: Mutex<BTreeSet<PeerId>>,
    wake: Notify,
    pub(super) traffic: Traffic,
    /// Commands that the event loop took.
    pub(super) taken: AtomicU64,
    /// Commands for which there was no room.
    refused: AtomicU64,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            book: Mutex::new(PeerBook::default()),
            changed: Mutex::new(BTreeSet::new()),
            wake: Notify::new(),
            traffic: Traffic::default(),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Time since the start.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The instant that [`Self::now`] calls by this name.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.started + at
    }

    pub(super) fn with_book<T>(&self, step: impl FnOnce(&mut PeerBook) -> T) -> T {
        // The table is valid after each of its methods, so a panic elsewhere does not spoil it.
        step(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has the event loop look at a peer again.
    fn mark(&self, peer: PeerId) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
        self.wake.notify_one();
    }

    /// Waits until the entries of some peers changed, and returns them.
    ///
    /// Cancel safe: yes.
    pub(super) async fn changed(&self) -> BTreeSet<PeerId> {
        self.wake.notified().await;
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes an offence off a peer's score, and has it disconnected if that was too much.
    pub(super) fn report(&self, peer: PeerId, offence: Offence) {
        self.traffic.offences.count(offence);
        let now = self.now();
        if self.with_book(|book| book.report(peer, offence, now)) {
            tracing::info!(%peer, ?offence, "peer is refused for a while");
            self.mark(peer);
        }
    }
}

/// Handle to a network over libp2p. Cheap to clone; answers `Stopped` once the event loop ended.
#[derive(Clone)]
pub struct LiveNetwork {
    peer: PeerId,
    listening: Arc<[Address]>,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    connected: View<BTreeSet<PeerId>>,
}

impl LiveNetwork {
    pub(super) fn new(
        peer: PeerId,
        listening: Vec<Address>,
        shared: Arc<Shared>,
        connected: View<BTreeSet<PeerId>>,
    ) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        (Self { peer, listening: listening.into(), commands, shared, connected }, receiver)
    }

    /// The addresses on which this node listens, with the ports that the system chose.
    #[must_use]
    pub fn listen_addresses(&self) -> &[Address] {
        &self.listening
    }

    /// What went over this network, and what its limits kept out.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic.clone()
    }

    /// How full the event loop's mailbox is.
    #[must_use]
    pub fn load(&self) -> QueueLoad {
        QueueLoad {
            waiting: self.commands.max_capacity() - self.commands.capacity(),
            capacity: self.commands.max_capacity(),
            taken: self.shared.taken.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
        }
    }

    fn refused(&self) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for LiveNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveNetwork")
            .field("peer", &self.peer)
            .field("listening", &self.listening)
            .finish_non_exhaustive()
    }
}

impl Network for LiveNetwork {
    fn local_peer(&self) -> PeerId {
        self.peer
    }

    async fn request(
        &self,
        to: PeerId,
        channel: Channel,
        request: Frame,
        limit: Duration,
    ) -> Result<Frame, RequestError> {
        request.check().map_err(RequestError::TooLarge)?;
        let (reply, answer) = oneshot::channel();
        // Dropped when this future ends, in whatever way; the stream is then given up on the spot.
        let (_alive, abandoned) = oneshot::channel();
        let command = Command::Request { to, channel, frame: request, reply, abandoned };
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                self.refused();
                RequestError::Busy
            }
            mpsc::error::TrySendError::Closed(_) => RequestError::Stopped,
        })?;
        match timeout(limit.min(REQUEST_TIMEOUT_MAX), answer).await {
            Ok(answer) => answer.unwrap_or(Err(RequestError::Stopped)),
            Err(_) => Err(RequestError::Timeout),
        }
    }

    async fn publish(&self, topic: Topic, data: Bytes) -> Result<(), PublishError> {
        check_gossip(topic, data.len())?;
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(Command::Publish { topic, data, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                self.refused();
                PublishError::Busy
            }
            mpsc::error::TrySendError::Closed(_) => PublishError::Stopped,
        })?;
        answer.await.unwrap_or(Err(PublishError::Stopped))
    }

    fn add_peer(&self, peer: PeerId, addresses: Vec<Address>, role: PeerRole) {
        if peer != self.peer {
            self.shared.with_book(|book| book.add(peer, addresses, role));
            self.shared.mark(peer);
        }
    }

    fn report(&self, peer: PeerId, offence: Offence) {
        self.shared.report(peer, offence);
    }

    fn connected(&self) -> ConnectedPeers {
        ConnectedPeers::new(self.connected.clone())
    }
}
