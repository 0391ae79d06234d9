//! The handle to the ledger.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use protocol::{
    PeerId,
    ledger::{
        answer::Answer,
        state::{Event, Receipt},
        transaction::Action,
        wire,
    },
};
use swarm::QueueLoad;
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::Instant,
};

use super::{consensus::Activity, pulse::Pulse, view::View};
use crate::{latest, load::Work};

/// A block was executed.
#[derive(Clone, Debug)]
pub struct Executed {
    /// Its height.
    pub height: u64,
    /// Its time, in milliseconds since 1970.
    pub time_ms: u64,
    /// What its transactions changed, in order.
    pub receipts: Vec<Receipt>,
    /// What the stage of the epoch changed that began with it, before its transactions.
    pub events: Vec<Event>,
    /// True if the node was far behind and took the state after this block from others: then there are no receipts, and
    /// nothing was said of the blocks before. Look at the state.
    pub is_snapshot: bool,
}

/// Why a transaction is not executed, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The rules do not allow it; its sender is at fault, or was overtaken by others.
    #[error("{reason}")]
    Rejected {
        /// What the rules say.
        reason: String,
    },
    /// Too many transactions wait here; try again later.
    #[error("too many transactions are waiting")]
    Busy,
    /// It is not in a block yet; it may still get there.
    #[error("the transaction is not in a block yet")]
    NotOrdered,
    /// The ledger of this node has stopped.
    #[error("the ledger has stopped")]
    Stopped,
}

/// Where the height of a submitted transaction goes.
pub(super) type SubmitReply = oneshot::Sender<Result<u64, SubmitError>>;

/// What the ledger is told.
#[derive(Debug)]
pub(super) enum Input {
    /// A member said this to everyone. When the mailbox is full it is lost, as it may be on the way: whoever said it says it
    /// again while it matters.
    Message { from: PeerId, message: wire::Message },
    /// A peer asks. When the mailbox is full, it is told that the node is busy.
    Request { from: PeerId, request: wire::Request, reply: oneshot::Sender<wire::Response> },
    /// A peer answered, or failed to; from the actor itself.
    Response { from: PeerId, id: super::consensus::RequestId, response: Option<wire::Response> },
    /// A member can be reached. When the mailbox is full this is lost: whoever is behind learns of it by the next block.
    Connected { peer: PeerId },
    /// This node owes this to the ledger. When the mailbox is full, the caller is told.
    Duty { action: Box<Action> },
    /// Order this transaction. When the mailbox is full, the caller gets [`SubmitError::Busy`].
    Submit { transaction: Vec<u8>, reply: SubmitReply },
}

/// What the actor and its handles share, to be looked at.
#[derive(Debug)]
pub(super) struct Watched {
    /// What came from peers.
    pub(super) peers: Work,
    /// What came from users.
    pub(super) users: Work,
    start: Instant,
    pulse: Mutex<Pulse>,
}

impl Watched {
    pub(super) fn new(start: Instant) -> Self {
        Self { peers: Work::default(), users: Work::default(), start, pulse: Mutex::default() }
    }

    /// Takes note of what the actor took up; answers to its own questions come by no mailbox.
    pub(super) fn took(&self, inputs: &[Input]) {
        for input in inputs {
            match input {
                Input::Message { .. } | Input::Request { .. } | Input::Connected { .. } => self.peers.took(1),
                Input::Submit { .. } | Input::Duty { .. } => self.users.took(1),
                Input::Response { .. } => {}
            }
        }
    }

    /// Takes note of a step.
    pub(super) fn beat(&self, has_block: bool, activity: Activity) {
        let now = self.start.elapsed();
        // Nothing under this lock can panic.
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner).beat(now, has_block, activity);
    }

    fn pulse(&self) -> Pulse {
        *self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handle to the ledger; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// What peers say; apart from what users want, who may be many.
    peers: mpsc::Sender<Input>,
    users: mpsc::Sender<Input>,
    view: latest::Receiver<View>,
    executed: broadcast::Sender<Arc<Executed>>,
    submit_max: Duration,
    watched: Arc<Watched>,
}

impl Ledger {
    pub(super) fn new(
        (peers, users): (mpsc::Sender<Input>, mpsc::Sender<Input>),
        view: latest::Receiver<View>,
        executed: broadcast::Sender<Arc<Executed>>,
        submit_max: Duration,
        watched: Arc<Watched>,
    ) -> Self {
        Self { peers, users, view, executed, submit_max, watched }
    }

    /// The round of the height that is being decided, if one is, and how long a block has been waited for.
    #[must_use]
    pub fn pulse(&self) -> (Option<u32>, Duration) {
        let pulse = self.watched.pulse();
        (pulse.round, pulse.waiting(self.watched.start.elapsed()))
    }

    /// How full the mailboxes are: that of peers, that of users.
    #[must_use]
    pub fn load(&self) -> [QueueLoad; 2] {
        [self.watched.peers.load(&self.peers), self.watched.users.load(&self.users)]
    }

    /// Hands over what comes from a peer; false if there is no room.
    fn offer(&self, input: Input) -> bool {
        let is_taken = self.peers.try_send(input).is_ok();
        if !is_taken {
            self.watched.peers.refused();
        }
        is_taken
    }

    /// Has a transaction ordered and waits until it is executed; returns the height of its block. Submitting a transaction
    /// again is harmless: it is executed once, and while it is remembered, answered with the same height.
    ///
    /// Cancel safe: the transaction may still be executed.
    ///
    /// # Errors
    ///
    /// [`SubmitError`].
    pub async fn submit(&self, transaction: Vec<u8>) -> Result<u64, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.users.try_send(Input::Submit { transaction, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                self.watched.users.refused();
                SubmitError::Busy
            }
            mpsc::error::TrySendError::Closed(_) => SubmitError::Stopped,
        })?;
        match tokio::time::timeout(self.submit_max, answer).await {
            Ok(answer) => answer.unwrap_or(Err(SubmitError::Stopped)),
            Err(_) => Err(SubmitError::NotOrdered),
        }
    }

    /// The values of these keys as of the last block, with what proves them.
    #[must_use]
    pub fn answer(&self, keys: &[Vec<u8>]) -> Answer {
        self.view().answer(keys)
    }

    /// The ledger after the last block executed here.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.get()
    }

    /// The same, to wait on: the latest wins.
    #[must_use]
    pub fn watch(&self) -> latest::Receiver<View> {
        self.view.clone()
    }

    /// Every block executed from now on. A receiver that lags misses some, is told so, and should look at the state.
    #[must_use]
    pub fn executed(&self) -> broadcast::Receiver<Arc<Executed>> {
        self.executed.subscribe()
    }

    /// Has this node say something on the ledger as soon as it can, as what it owes: signed with its own key, free of charge,
    /// and only if the rules allow it. False if there is no room; whoever found what is owed should come back with it.
    pub fn owe(&self, action: Action) -> bool {
        let is_taken = self.users.try_send(Input::Duty { action: Box::new(action) }).is_ok();
        if !is_taken {
            self.watched.users.refused();
        }
        is_taken
    }

    /// Passes on what a member said to everyone; false if there is no room.
    pub(crate) fn hear(&self, from: PeerId, message: wire::Message) -> bool {
        self.offer(Input::Message { from, message })
    }

    /// Says that a member can be reached.
    pub(crate) fn connected(&self, peer: PeerId) {
        if !self.offer(Input::Connected { peer }) {
            tracing::debug!(%peer, "the ledger was not told of a connection");
        }
    }

    /// Answers a peer; `None` if there is no room or the ledger has stopped.
    pub(crate) async fn ask(&self, from: PeerId, request: wire::Request) -> Option<wire::Response> {
        let (reply, answer) = oneshot::channel();
        if !self.offer(Input::Request { from, request, reply }) {
            return None;
        }
        answer.await.ok()
    }
}
