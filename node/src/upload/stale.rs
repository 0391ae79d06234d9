//! Drops, from time to time, what came for blobs that were never registered, and slivers that were never finished; settles
//! orders.

use tokio_util::sync::CancellationToken;

use super::{service::Uploads, sweep::StaleError};

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
