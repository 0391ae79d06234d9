//! The handle to the registry.

use std::sync::{Arc, Mutex, PoisonError};

use protocol::{
    BlobId,
    certificate::{CertificateError, InvalidityCertificate},
    commitment::{CommitmentError, VerifiedHeader},
    message::{Announcement, BlobRecord, BlobStatus, RecordDigest},
};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::sliver_store::{SliverStore, StoreReadError, StoreWriteError};

/// Something that became known of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The blob was certified.
    Certified(BlobId),
    /// The blob was proved to be encoded wrongly.
    Invalid(BlobId),
}

/// Why a record was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The certificate does not hold; whoever sent it is at fault.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The header does not belong to the certified blob; whoever sent it is at fault.
    #[error(transparent)]
    Header(#[from] CommitmentError),
    /// The blob was encoded for another number of shards; whoever sent it is at fault.
    #[error("the blob was encoded for another network")]
    OtherNetwork,
    /// The blob is known to be invalid.
    #[error("the blob was encoded wrongly by its writer")]
    Invalid,
    /// The record could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreWriteError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] StoreReadError),
    /// Too many records wait; try again later.
    #[error("too many records wait to be written")]
    Busy,
    /// The registry has stopped.
    #[error("the registry has stopped")]
    Stopped,
}

impl RecordError {
    /// True if whoever sent the record should have known better.
    #[must_use]
    pub const fn is_senders_fault(&self) -> bool {
        matches!(self, Self::Certificate(_) | Self::Header(_) | Self::OtherNetwork)
    }
}

/// What callers may ask of the registry.
pub(super) enum Message {
    /// Take a record. When the mailbox is full, the caller gets [`RecordError::Busy`].
    Take(Box<Take>),
    /// Drop a record that cannot be read, so that it is missing rather than wrong. When the mailbox is full this is
    /// lost; whoever meets the record next says it again.
    Forget(BlobId),
}

/// A record to take, and whom to tell.
pub(super) struct Take {
    pub(super) record: Announcement,
    pub(super) reply: oneshot::Sender<Result<bool, RecordError>>,
}

/// Handle to the registry; cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    sender: mpsc::Sender<Message>,
    store: SliverStore,
    digest: Arc<Mutex<RecordDigest>>,
    changes: broadcast::Sender<Change>,
}

impl Registry {
    pub(super) const fn new(
        sender: mpsc::Sender<Message>,
        store: SliverStore,
        digest: Arc<Mutex<RecordDigest>>,
        changes: broadcast::Sender<Change>,
    ) -> Self {
        Self { sender, store, digest, changes }
    }

    /// Takes a record and returns once it is durable: `true` if it was news.
    ///
    /// Cancel safe: the record may or may not be taken.
    ///
    /// # Errors
    ///
    /// [`RecordError`].
    pub async fn record(&self, record: Announcement) -> Result<bool, RecordError> {
        let (reply, answer) = oneshot::channel();
        self.sender.try_send(Message::Take(Box::new(Take { record, reply }))).map_err(
            |error| match error {
                mpsc::error::TrySendError::Full(_) => RecordError::Busy,
                mpsc::error::TrySendError::Closed(_) => RecordError::Stopped,
            },
        )?;
        answer.await.unwrap_or(Err(RecordError::Stopped))
    }

    /// Takes the record that a blob is certified; see [`Self::record`].
    ///
    /// # Errors
    ///
    /// [`RecordError`].
    pub async fn certify(&self, record: BlobRecord) -> Result<bool, RecordError> {
        self.record(Announcement::Certified(record)).await
    }

    /// Takes the record that a blob is invalid; see [`Self::record`].
    ///
    /// # Errors
    ///
    /// [`RecordError`].
    pub async fn invalidate(&self, certificate: InvalidityCertificate) -> Result<bool, RecordError> {
        self.record(Announcement::Invalid(certificate)).await
    }

    /// What is known of a blob. A record that the disk damaged is dropped, and found again at a peer.
    ///
    /// # Errors
    ///
    /// [`StoreReadError::Corrupt`] or [`StoreReadError::Failed`].
    pub async fn status(&self, blob_id: BlobId) -> Result<BlobStatus, StoreReadError> {
        match self.store.record(blob_id).await {
            Ok(Announcement::Certified(record)) => Ok(BlobStatus::Certified(record)),
            Ok(Announcement::Invalid(certificate)) => Ok(BlobStatus::Invalid(certificate)),
            Err(StoreReadError::NotFound) => Ok(BlobStatus::Unknown),
            Err(error) => {
                if error == StoreReadError::Corrupt && self.sender.try_send(Message::Forget(blob_id)).is_err()
                {
                    tracing::debug!(%blob_id, "a corrupt record waits to be forgotten");
                }
                Err(error)
            }
        }
    }

    /// The verified header of a blob, if it is certified.
    ///
    /// # Errors
    ///
    /// [`StoreReadError::NotFound`] if it is not certified; else as [`Self::status`].
    pub async fn certified(&self, blob_id: BlobId) -> Result<VerifiedHeader, StoreReadError> {
        match self.status(blob_id).await? {
            BlobStatus::Certified(record) => {
                record.header.verify_for(blob_id).map_err(|_| StoreReadError::Corrupt)
            }
            BlobStatus::Unknown | BlobStatus::Invalid(_) => Err(StoreReadError::NotFound),
        }
    }

    /// A page of the blobs known, certified or invalid, in the order of their IDs, from after `after` on.
    ///
    /// # Errors
    ///
    /// [`StoreReadError::Failed`].
    pub async fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobId>, StoreReadError> {
        self.store.recorded(after, limit).await
    }

    /// A summary of all records.
    #[must_use]
    pub fn digest(&self) -> RecordDigest {
        *self.digest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every change from now on. A receiver that lags misses changes, is told so, and should look at everything.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}
