//! The handle to the ledger.

use std::{sync::Arc, time::Duration};

use protocol::{
    PeerId,
    ledger::{
        answer::Answer,
        state::{Event, Receipt},
        transaction::Action,
        wire,
    },
};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::view::View;
use crate::latest;

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

/// Handle to the ledger; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// What peers say; apart from what users want, who may be many.
    peers: mpsc::Sender<Input>,
    users: mpsc::Sender<Input>,
    view: latest::Receiver<View>,
    executed: broadcast::Sender<Arc<Executed>>,
    submit_max: Duration,
}

impl Ledger {
    pub(super) fn new(
        (peers, users): (mpsc::Sender<Input>, mpsc::Sender<Input>),
        view: latest::Receiver<View>,
        executed: broadcast::Sender<Arc<Executed>>,
        submit_max: Duration,
    ) -> Self {
        Self { peers, users, view, executed, submit_max }
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
            mpsc::error::TrySendError::Full(_) => SubmitError::Busy,
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
        self.users.try_send(Input::Duty { action: Box::new(action) }).is_ok()
    }

    /// Passes on what a member said to everyone; false if there is no room.
    pub(crate) fn hear(&self, from: PeerId, message: wire::Message) -> bool {
        self.peers.try_send(Input::Message { from, message }).is_ok()
    }

    /// Says that a member can be reached.
    pub(crate) fn connected(&self, peer: PeerId) {
        if self.peers.try_send(Input::Connected { peer }).is_err() {
            tracing::debug!(%peer, "the ledger was not told of a connection");
        }
    }

    /// Answers a peer; `None` if there is no room or the ledger has stopped.
    pub(crate) async fn ask(&self, from: PeerId, request: wire::Request) -> Option<wire::Response> {
        let (reply, answer) = oneshot::channel();
        self.peers.try_send(Input::Request { from, request, reply }).ok()?;
        answer.await.ok()
    }
}
