//! What becomes of what nobody came back for: orders are settled or executed, blobs that the ledger does not know are dropped.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use protocol::{
    BlobId, RegistrationId,
    ledger::transaction::{SignedTransaction, Transaction},
};

use super::{orders::Order, service::Uploads};
use crate::{
    blobs::{BlobStatus, Standing},
    ledger::SubmitError,
    sliver_store::{StoreReadError, StoreWriteError},
};

/// Orders that this node has executed at the same time.
const SUBMISSIONS_MAX: usize = 64;
/// Blobs listed from the store at once.
const PAGE: usize = 256;
/// Pause between pages where nobody waits for the end.
const PAGE_PAUSE: Duration = Duration::from_millis(20);

/// Why stale uploads were not dropped.
#[derive(Debug, thiserror::Error)]
pub(super) enum StaleError {
    #[error(transparent)]
    Read(#[from] StoreReadError),
    #[error(transparent)]
    Write(#[from] StoreWriteError),
}

impl Uploads {
    /// Lets go of orders that are settled.
    pub(super) async fn settle_orders(&self) -> Result<(), StaleError> {
        let inner = &self.0;
        let all: Vec<_> = self.orders().all().collect();
        for (blob_id, registration) in all {
            match inner.blobs.standing(blob_id, registration) {
                Ok(Standing::ToCome) => {}
                Ok(standing @ (Standing::Made | Standing::Over)) => {
                    inner.store.delete_order(blob_id).await?;
                    self.orders().settle(&blob_id);
                    if standing == Standing::Over {
                        // Nobody pays for it; as if it had just come.
                        self.pending().found(inner.start.elapsed(), blob_id);
                    }
                }
                Err(error) => tracing::error!(%error, "the ledger's state cannot be read"),
            }
        }
        Ok(())
    }

    /// Has those orders executed that their owners do not.
    pub(super) async fn execute_orders(&self) {
        let inner = &self.0;
        let due = self.orders().due(inner.start.elapsed(), inner.config.order_patience);
        let submit = |transaction: Bytes| async move {
            match inner.blobs.ledger().submit(transaction.to_vec()).await {
                Ok(_) => {}
                Err(error @ SubmitError::Stopped) => tracing::debug!(%error, "an order was not submitted"),
                Err(error) => tracing::info!(%error, "an order that this node acted on was not executed"),
            }
        };
        stream::iter(due).for_each_concurrent(SUBMISSIONS_MAX, submit).await;
    }

    /// Waits until an order may be due: while there is none, until there is one.
    pub(super) async fn order_may_be_due(&self) {
        while self.orders().is_empty() {
            self.0.ordered.notified().await;
        }
        tokio::time::sleep(self.0.config.order_patience / 4).await;
    }

    /// Waits for the ledger to move.
    pub(super) fn watch_ledger(&self) -> crate::latest::Receiver<crate::ledger::View> {
        self.0.blobs.ledger().watch()
    }

    /// Finds orders that this node acted on before it was started.
    pub(crate) async fn find_orders(&self) -> Result<(), StoreReadError> {
        let mut after = None;
        loop {
            let page = self.0.store.ordered(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(*last);
            for blob_id in page {
                let transaction = match self.0.store.order(blob_id).await {
                    Ok(transaction) => transaction,
                    Err(StoreReadError::Failed) => return Err(StoreReadError::Failed),
                    Err(error) => {
                        tracing::warn!(%blob_id, %error, "an order rotted; the slivers are kept for a while");
                        continue;
                    }
                };
                let Ok(signed) = SignedTransaction::from_bytes(&transaction) else { continue };
                let Transaction { sender: owner, nonce, .. } = *signed.transaction();
                let registration = RegistrationId { owner, nonce };
                let since = self.0.start.elapsed();
                // Only the bytes of new ones are bounded.
                let order = Order { registration, transaction, sliver_bytes: 0, since, submitted: None };
                self.orders().restore(blob_id, order);
            }
        }
    }

    /// Finds what came before the node was started.
    pub(super) async fn find_pending(&self) -> Result<(), StoreReadError> {
        let mut after = None;
        loop {
            let page = self.0.store.committed(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(*last);
            for blob_id in page {
                match self.0.blobs.status(blob_id) {
                    Ok(BlobStatus::Unknown) => self.pending().found(self.0.start.elapsed(), blob_id),
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "the ledger's state cannot be read"),
                }
            }
        }
    }

    /// Drops what came for blobs that the ledger still does not know; says how many of them.
    pub(super) async fn drop_stale(&self) -> Result<u32, StaleError> {
        let (ttl, now) = (self.0.config.pending_ttl, self.0.start.elapsed());
        let stale = self.pending().stale(now, ttl);
        let mut dropped = 0;
        for blob_id in stale {
            // Something may have come for it meanwhile.
            if !self.pending().is_stale(self.0.start.elapsed(), ttl, &blob_id) {
                continue;
            }
            match self.drop_unknown(blob_id).await {
                Ok(true) => {
                    dropped += 1;
                    tracing::info!(%blob_id, "dropped a blob that was not registered in time");
                }
                // Another time.
                Err(StoreWriteError::Full) => self.pending().found(self.0.start.elapsed(), blob_id),
                Ok(false) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(dropped)
    }

    /// Drops what is here of blobs that the ledger does not know and for which nothing came since the start: they were known.
    /// Says how many of them. Users come first: there is a pause between pages.
    pub(super) async fn drop_ended(&self) -> Result<u32, StaleError> {
        let (mut after, mut dropped) = (None, 0);
        loop {
            let page = self.0.store.committed(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(dropped) };
            after = Some(*last);
            for blob_id in page {
                let is_unknown = matches!(self.0.blobs.status(blob_id), Ok(BlobStatus::Unknown));
                if is_unknown && self.pending().touched(&blob_id).is_none() {
                    dropped += u32::from(self.drop_unknown(blob_id).await?);
                }
            }
            tokio::time::sleep(PAGE_PAUSE).await;
        }
    }

    /// Drops all that this node holds of a blob that the ledger does not know, or no longer; false if it does know it, or the
    /// blob is kept for an order. Nothing is taken for it meanwhile, and nothing vouched for.
    pub(crate) async fn drop_unknown(&self, blob_id: BlobId) -> Result<bool, StoreWriteError> {
        let inner = &self.0;
        if !self.pending().begin_drop(blob_id) {
            return Ok(false);
        }
        // Looked at now, when nobody vouches for it any more.
        let is_unknown = matches!(inner.blobs.status(blob_id), Ok(BlobStatus::Unknown));
        let dropped = if is_unknown && !self.orders().keeps(&blob_id) {
            let dropped = inner.store.drop_blob(blob_id).await;
            inner.commitments.forget(blob_id);
            self.forget(blob_id);
            dropped.map(|()| true)
        } else {
            Ok(false)
        };
        self.pending().settle(blob_id);
        dropped
    }
}
