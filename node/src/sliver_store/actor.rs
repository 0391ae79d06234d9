//! The shell around the store's writes: takes what waits, writes it as one group, answers all. Has log files compacted
//! when [`Schedule`] says so.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use protocol::planted::{Bug, is_planted};
use storage::{Compaction, ReadError, Store, Write, WriteError};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    blocking::{Blocking, Gone},
    mailbox::{Counters, SliverStore, StoreWriteError},
    schedule::{STEP_BYTES, Schedule},
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
    /// How room is got back from log files.
    pub compact: CompactConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mailbox_capacity: 64,
            // Groups of 8 MiB reach the disk's own rate (measured); more would only hold up those who wait.
            group_records: 64,
            group_bytes: 8 << 20,
            compact: CompactConfig::default(),
        }
    }
}

/// Tuning of compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactConfig {
    /// How often to look for log files that are mostly no longer needed, if nothing was deleted.
    pub interval: Duration,
    /// Bytes a second that are copied out of such files; 0 turns compaction off.
    pub bytes_per_second: u64,
}

impl Default for CompactConfig {
    fn default() -> Self {
        Self {
            // Looking costs a sum over the files; what was deleted is looked at sooner.
            interval: Duration::from_secs(10 * 60),
            // A fifth of what a plain disk writes: users keep most of it, and a terabyte is gone over in half a day.
            bytes_per_second: 32 << 20,
        }
    }
}

/// Says whether a request is still to be carried out, when its turn has come.
pub(super) type OnlyIf = Box<dyn FnOnce(&Store) -> bool + Send>;

/// Records to write, and whom to tell.
pub(super) struct WriteRequest {
    pub(super) records: Vec<Write>,
    /// Nothing is written if this says so; such a request is a group of its own.
    pub(super) only_if: Option<OnlyIf>,
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
    /// Taken from the inbox, and not of the same group as what was before it.
    next: Option<WriteRequest>,
    counters: Arc<Counters>,
    start: Instant,
    schedule: Schedule,
    /// The step of compaction that is under way; writes go on beside it.
    compacting: Option<Compacting>,
}

type Compacting = Pin<Box<dyn Future<Output = Result<Result<Compaction, WriteError>, Gone>> + Send>>;

/// What to do next.
enum Next {
    Stop,
    Write(WriteRequest),
    Compact,
    Compacted(Result<Result<Compaction, WriteError>, Gone>),
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
        let actor = Self {
            config,
            records,
            blocking,
            inbox,
            next: None,
            counters,
            start: Instant::now(),
            schedule: Schedule::new(config.compact),
            compacting: None,
        };
        Ok((actor, store))
    }

    /// Runs until `stop` is cancelled or every handle is dropped; what waits then is still written.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let lives = match self.next(&stop).await {
                Next::Stop => break,
                Next::Write(first) => self.write_group(first).await,
                Next::Compact => {
                    self.compact();
                    true
                }
                Next::Compacted(result) => self.compacted(result),
            };
            if !lives {
                return;
            }
        }
        self.inbox.close();
        while let Some(request) = self.next.take().or_else(|| self.inbox.try_recv().ok()) {
            if !self.write_group(request).await {
                return;
            }
        }
    }

    async fn next(&mut self, stop: &CancellationToken) -> Next {
        if let Some(next) = self.next.take() {
            return Next::Write(next);
        }
        let due = self.schedule.due().filter(|_| self.compacting.is_none());
        if due.is_some() && self.schedule.is_overdue(self.start.elapsed()) && !stop.is_cancelled() {
            return Next::Compact;
        }
        let due_at = due.map_or(self.start, |due| self.start + due);
        tokio::select! {
            biased;
            () = stop.cancelled() => Next::Stop,
            result = compacted(&mut self.compacting), if self.compacting.is_some() => {
                self.compacting = None;
                Next::Compacted(result)
            }
            request = self.inbox.recv() => request.map_or(Next::Stop, Next::Write),
            () = tokio::time::sleep_until(due_at), if due.is_some() => Next::Compact,
        }
    }

    /// Begins a step of compaction.
    fn compact(&mut self) {
        let (store, blocking) = (Arc::clone(&self.records), self.blocking.clone());
        let step = move || store.compact(STEP_BYTES);
        self.compacting = Some(Box::pin(async move { blocking.run(step).await }));
    }

    /// Books a step of compaction. False if the store can no longer be written.
    fn compacted(&mut self, result: Result<Result<Compaction, WriteError>, Gone>) -> bool {
        let now = self.start.elapsed();
        match result {
            Ok(Ok(step)) => {
                if step.removed_logs > 0 {
                    let Compaction { copied_bytes, removed_bytes, removed_logs, .. } = step;
                    tracing::info!(copied_bytes, removed_bytes, removed_logs, "log files were compacted");
                }
                self.schedule.done(now, Some(step));
            }
            Ok(Err(error @ WriteError::Full { .. })) => {
                tracing::warn!(%error, "no room to compact log files");
                self.schedule.done(now, None);
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the store cannot be compacted; the node stops, restart it");
                return false;
            }
            Err(Gone) => return false,
        }
        true
    }

    /// Takes what may be written together with `first`.
    fn group(&mut self, first: WriteRequest) -> Vec<WriteRequest> {
        let (mut bytes, mut is_alone) = (first.bytes(), first.only_if.is_some());
        let mut group = vec![first];
        while !is_alone && group.len() < self.config.group_records && bytes < self.config.group_bytes {
            let Ok(next) = self.inbox.try_recv() else { break };
            if next.only_if.is_some() {
                self.next = Some(next);
                is_alone = true;
            } else {
                bytes += next.bytes();
                group.push(next);
            }
        }
        group
    }

    /// Writes `first` and what waits behind it. False if the store can no longer be written.
    async fn write_group(&mut self, first: WriteRequest) -> bool {
        let (mut requests, mut replies, mut only_if) = (Vec::new(), Vec::new(), None);
        for request in self.group(first) {
            requests.push(request.records);
            replies.push(request.reply);
            only_if = request.only_if;
        }
        if is_planted(Bug::AcknowledgedTooSoon) {
            for reply in replies.drain(..) {
                let _ = reply.send(Ok(()));
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        let store = Arc::clone(&self.records);
        let counters = Arc::clone(&self.counters);
        let n_requests = requests.len();
        counters.writes.took(n_requests);
        let deletes = requests.iter().flatten().any(|record| matches!(record, Write::Delete { .. }));
        let write = move || {
            if only_if.is_some_and(|only_if| !only_if(&store)) {
                return Ok(vec![Ok(()); n_requests]);
            }
            write_requests(&store, &counters, requests)
        };
        let (answers, lives) = match self.blocking.run(write).await {
            Ok(Ok(answers)) => (answers, true),
            Ok(Err(error)) => {
                tracing::error!(%error, "the store cannot be written; the node stops, restart it");
                (vec![Err(StoreWriteError::Failed); n_requests], false)
            }
            Err(_) => (vec![Err(StoreWriteError::Failed); n_requests], false),
        };
        let now = self.start.elapsed();
        if deletes {
            self.schedule.deleted(now);
        }
        if answers.contains(&Err(StoreWriteError::Full)) {
            self.schedule.refused(now);
        }
        for (reply, answer) in replies.into_iter().zip(answers) {
            // A caller that went away is not an error.
            let _ = reply.send(answer);
        }
        lives
    }
}

async fn compacted(compacting: &mut Option<Compacting>) -> Result<Result<Compaction, WriteError>, Gone> {
    match compacting {
        Some(compacting) => compacting.await,
        None => std::future::pending().await,
    }
}

/// Writes all requests with one sync or, if there is no room for that, one by one: a deletion, which may use the
/// reserve and makes room, must not fail for the puts that it happened to wait with.
fn write_requests(
    store: &Store,
    counters: &Counters,
    requests: Vec<Vec<Write>>,
) -> Result<Vec<Result<(), StoreWriteError>>, WriteError> {
    let n_requests = requests.len();
    match write_counted(store, counters, requests.concat()) {
        Ok(()) => return Ok(vec![Ok(()); n_requests]),
        Err(WriteError::Full { .. }) if n_requests == 1 => return Ok(vec![Err(StoreWriteError::Full)]),
        // Nothing was stored.
        Err(WriteError::Full { .. }) => {}
        Err(error) => return Err(error),
    }
    let one_by_one = requests.into_iter().map(|records| match write_counted(store, counters, records) {
        Ok(()) => Ok(Ok(())),
        Err(WriteError::Full { .. }) => Ok(Err(StoreWriteError::Full)),
        Err(error) => Err(error),
    });
    one_by_one.collect()
}

fn write_counted(store: &Store, counters: &Counters, records: Vec<Write>) -> Result<(), WriteError> {
    let plan = Counters::plan(store, &records);
    store.write(records)?;
    // An index that cannot be read has failed the write already, or fails the next.
    counters.apply(plan.unwrap_or_default());
    Ok(())
}
