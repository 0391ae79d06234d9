//! The shell around the store's writes: takes what waits, writes it as one group, answers all.

use std::sync::Arc;

use protocol::planted::{Bug, is_planted};
use storage::{ReadError, Store, Write, WriteError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    blocking::Blocking,
    mailbox::{Counters, SliverStore, StoreWriteError},
};

/// Tuning of the sliver store.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Writes that may wait.
    pub mailbox_capacity: usize,
    /// Records written as one group, at most: a sync costs as much for one as for many.
    pub group_records: usize,
    /// Bytes written as one group, at most.
    pub group_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        // Groups of 8 MiB reach the disk's own rate (measured); more would only hold up those who wait.
        Self { mailbox_capacity: 64, group_records: 64, group_bytes: 8 << 20 }
    }
}

/// Records to write, and whom to tell.
pub(super) struct WriteRequest {
    pub(super) records: Vec<Write>,
    pub(super) reply: oneshot::Sender<Result<(), StoreWriteError>>,
}

impl WriteRequest {
    fn bytes(&self) -> usize {
        self.records
            .iter()
            .map(|record| match record {
                Write::Put { payload, .. } => payload.len(),
                Write::Delete { .. } => 0,
            })
            .sum()
    }
}

/// Writes records in groups; see the [module](super) for the invariants.
pub struct Actor {
    config: Config,
    records: Arc<Store>,
    blocking: Blocking,
    inbox: mpsc::Receiver<WriteRequest>,
    counters: Arc<Counters>,
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("sliver_store::Actor").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Actor {
    /// Returns the actor, not yet running, and a handle to it; counts what the store holds. `n_shards` is the
    /// network's.
    ///
    /// # Errors
    ///
    /// If the index of the store cannot be read.
    pub fn new(
        config: Config,
        records: Arc<Store>,
        blocking: Blocking,
        n_shards: u16,
    ) -> Result<(Self, SliverStore), ReadError> {
        let (sender, inbox) = mpsc::channel(config.mailbox_capacity);
        let counters = Arc::new(Counters::of(&records)?);
        let store =
            SliverStore::new(sender, Arc::clone(&records), blocking.clone(), n_shards, Arc::clone(&counters));
        Ok((Self { config, records, blocking, inbox, counters }, store))
    }

    /// Runs until `stop` is cancelled or every handle is dropped; what waits then is still written.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                request = self.inbox.recv() => request,
            };
            let Some(first) = first else { break };
            if !self.write_group(first).await {
                return;
            }
        }
        self.inbox.close();
        while let Ok(request) = self.inbox.try_recv() {
            if !self.write_group(request).await {
                return;
            }
        }
    }

    /// Writes `first` and what waits behind it. False if the store can no longer be written.
    async fn write_group(&mut self, first: WriteRequest) -> bool {
        let mut bytes = first.bytes();
        let mut group = vec![first];
        while group.len() < self.config.group_records && bytes < self.config.group_bytes {
            let Ok(next) = self.inbox.try_recv() else { break };
            bytes += next.bytes();
            group.push(next);
        }
        let (mut records, mut replies) = (Vec::new(), Vec::new());
        for request in group {
            records.extend(request.records);
            replies.push(request.reply);
        }
        if is_planted(Bug::AcknowledgedTooSoon) {
            for reply in replies.drain(..) {
                let _ = reply.send(Ok(()));
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        let store = Arc::clone(&self.records);
        let counters = Arc::clone(&self.counters);
        let write = move || {
            let plan = Counters::plan(&store, &records);
            store.write(records)?;
            // An index that cannot be read has failed the write already, or fails the next.
            counters.apply(plan.unwrap_or_default());
            Ok(())
        };
        let result: Result<Result<(), WriteError>, _> = self.blocking.run(write).await;
        let (answer, lives) = match result {
            Ok(Ok(())) => (Ok(()), true),
            Ok(Err(WriteError::Full { .. })) => (Err(StoreWriteError::Full), true),
            Ok(Err(error)) => {
                tracing::error!(%error, "the store cannot be written; the node stops, restart it");
                (Err(StoreWriteError::Failed), false)
            }
            Err(_) => (Err(StoreWriteError::Failed), false),
        };
        for reply in replies {
            // A caller that went away is not an error.
            let _ = reply.send(answer);
        }
        lives
    }
}
