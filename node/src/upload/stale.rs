//! Drops, from time to time, what came for blobs that were never registered, what has ended, and slivers that were never
//! finished; settles orders.

use tokio_util::sync::CancellationToken;

use super::{service::Uploads, sweep::StaleError};
use crate::ledger::View;

/// Looks for stale uploads, again and again.
#[derive(Debug)]
pub struct StaleUploads(Uploads);

impl StaleUploads {
    /// Returns the actor, not yet running.
    #[must_use]
    pub const fn new(uploads: Uploads) -> Self {
        Self(uploads)
    }

    /// Runs until `stop` is cancelled. A failure of the store is logged and tried again: whoever writes next notices it.
    pub async fn run(self, stop: CancellationToken) {
        let sweeping = async {
            while let Err(error) = self.0.find_pending().await {
                tracing::warn!(%error, "cannot list what was uploaded before the start");
                tokio::time::sleep(self.0.sweep_interval()).await;
            }
            loop {
                tokio::time::sleep(self.0.sweep_interval()).await;
                match self.0.drop_stale().await {
                    Ok(_) => {}
                    Err(StaleError::Read(error)) => tracing::warn!(%error, "cannot look for stale uploads"),
                    Err(StaleError::Write(error)) => tracing::warn!(%error, "cannot drop a stale upload"),
                }
            }
        };
        let idling = async {
            loop {
                tokio::time::sleep(self.0.idle_interval()).await;
                self.0.drop_idle();
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = sweeping => {}
            () = idling => {}
            () = self.settle() => {}
            () = self.execute() => {}
            () = self.expire() => {}
        }
    }

    /// Settles orders whenever the ledger moves.
    async fn settle(&self) {
        let mut view = self.0.watch_ledger();
        loop {
            if let Err(error) = self.0.settle_orders().await {
                tracing::warn!(%error, "cannot settle an order");
            }
            if view.changed().await.is_err() {
                return;
            }
        }
    }

    /// Lets go of what ended with an epoch. Each blob is named when its last registration ends, and dropped then; this finds what
    /// was not heard of because there was too much of it, or a snapshot came instead of the blocks.
    async fn expire(&self) {
        let mut view = self.0.watch_ledger();
        let epoch = |view: &View| view.state.committee().epoch();
        let mut seen = epoch(&view.get());
        while let Ok(now) = view.wait_for(|view| epoch(view) != seen).await.map(|view| epoch(&view)) {
            match self.0.drop_ended().await {
                Ok(0) => seen = now,
                Ok(n_dropped) => {
                    seen = now;
                    tracing::info!(%now, n_dropped, "dropped blobs that had ended unnoticed");
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot drop what has ended");
                    tokio::time::sleep(self.0.sweep_interval()).await;
                }
            }
        }
    }

    /// Has orders executed that wait for too long; one that was taken as its block came is settled first. Apart from
    /// [`Self::settle`], which must not wait until they are.
    async fn execute(&self) {
        loop {
            self.0.order_may_be_due().await;
            if let Err(error) = self.0.settle_orders().await {
                tracing::warn!(%error, "cannot settle an order");
            }
            self.0.execute_orders().await;
        }
    }
}
