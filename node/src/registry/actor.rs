//! The shell of the registry: verifies records, one of a blob at a time, and makes them durable.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    BlobId,
    message::{Announcement, RecordDigest},
    planted::{Bug, is_planted},
};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::mailbox::{Change, Message, RecordError, Registry, Take};
use crate::{
    encoder::Encoder,
    membership::Membership,
    sliver_store::{SliverStore, StoreReadError, StoreWriteError},
};

/// Tuning of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Records that may wait.
    pub mailbox_capacity: usize,
    /// Records verified and written at the same time.
    pub in_flight_max: usize,
    /// Changes that a subscriber may lag behind before it has to look at everything.
    pub changes_capacity: usize,
}

impl Default for Config {
    fn default() -> Self {
        // Records are a few hundred bytes; a thousand are less than one sliver.
        Self { mailbox_capacity: 1024, in_flight_max: 64, changes_capacity: 1024 }
    }
}

/// Blobs listed from the store at once.
const PAGE: usize = 1024;

type Reply = oneshot::Sender<Result<bool, RecordError>>;
type Outcome = (BlobId, Reply, Result<Option<News>, RecordError>);

/// A record that was taken, and what it took the place of.
#[derive(Clone, Copy)]
struct News {
    change: Change,
    was_certified: bool,
    /// It took the place of one that could not be read, of which nobody knows whether and how it was counted.
    was_corrupt: bool,
}

/// Keeps the records of blobs; see the [module](super) for the invariants.
pub struct Actor {
    config: Config,
    context: Context,
    inbox: mpsc::Receiver<Message>,
    digest: Arc<Mutex<RecordDigest>>,
    changes: broadcast::Sender<Change>,
    in_flight: FuturesUnordered<Pin<Box<dyn Future<Output = Outcome> + Send>>>,
    /// Records of a blob wait until the one before them is settled.
    waiting: BTreeMap<BlobId, VecDeque<Take>>,
    /// INV: the length of all queues together.
    n_waiting: usize,
    /// Records to drop once nothing is in flight.
    to_forget: BTreeSet<BlobId>,
    /// The summary is to be made anew once nothing is in flight.
    recount: bool,
}

#[derive(Clone)]
struct Context {
    membership: Arc<Membership>,
    store: SliverStore,
    encoder: Encoder,
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("registry::Actor").field("in_flight", &self.in_flight.len()).finish_non_exhaustive()
    }
}

impl Actor {
    /// Returns the actor, not yet running, and a handle to it. Reads the records in the store.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn new(
        config: Config,
        membership: Arc<Membership>,
        store: SliverStore,
        encoder: Encoder,
    ) -> Result<(Self, Registry), StoreReadError> {
        let digest = Arc::new(Mutex::new(read_digest(&store).await?));
        let (sender, inbox) = mpsc::channel(config.mailbox_capacity);
        let changes = broadcast::Sender::new(config.changes_capacity);
        let registry = Registry::new(sender, store.clone(), Arc::clone(&digest), changes.clone());
        let actor = Self {
            config,
            context: Context { membership, store, encoder },
            inbox,
            digest,
            changes,
            in_flight: FuturesUnordered::new(),
            waiting: BTreeMap::new(),
            n_waiting: 0,
            to_forget: BTreeSet::new(),
            recount: false,
        };
        Ok((actor, registry))
    }

    /// Runs until `stop` is cancelled or every handle is dropped.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let to_clean = self.recount || !self.to_forget.is_empty();
            if to_clean && self.in_flight.is_empty() {
                let clean = tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    clean = self.clean() => clean,
                };
                if !clean {
                    return;
                }
                continue;
            }
            let has_room = !to_clean && self.in_flight.len() + self.n_waiting < self.config.in_flight_max;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(outcome) = self.in_flight.next() => self.settle(outcome),
                Some(message) = self.inbox.recv(), if has_room => self.accept(message),
                else => break,
            }
        }
    }

    fn accept(&mut self, message: Message) {
        let take = match message {
            Message::Take(take) => *take,
            Message::Forget(blob_id) => {
                self.to_forget.insert(blob_id);
                return;
            }
        };
        let blob_id = blob_of(&take.record);
        match self.waiting.get_mut(&blob_id) {
            Some(queue) => {
                queue.push_back(take);
                self.n_waiting += 1;
            }
            None => {
                self.waiting.insert(blob_id, VecDeque::new());
                self.begin(blob_id, take);
            }
        }
    }

    /// Drops records that cannot be read; peers' summaries then differ from ours, and they are listed again. False if
    /// the store failed.
    async fn clean(&mut self) -> bool {
        let store = self.context.store.clone();
        while let Some(blob_id) = self.to_forget.pop_first() {
            if !matches!(store.record(blob_id).await, Err(StoreReadError::Corrupt)) {
                continue;
            }
            tracing::warn!(%blob_id, "the record of a blob was corrupt; asking peers for it");
            match store.delete_record(blob_id).await {
                Ok(()) => self.recount = true,
                // A disk without room for a tombstone keeps the record; whoever meets it next says so again.
                Err(StoreWriteError::Full) => {}
                Err(StoreWriteError::Failed) => return false,
            }
        }
        // All records are read for it, so only when one is gone.
        if !self.recount {
            return true;
        }
        self.recount = false;
        match read_digest(&store).await {
            Ok(digest) => *self.digest.lock().unwrap_or_else(PoisonError::into_inner) = digest,
            Err(_) => return false,
        }
        true
    }

    fn begin(&self, blob_id: BlobId, Take { record, reply }: Take) {
        let context = self.context.clone();
        self.in_flight.push(Box::pin(async move { (blob_id, reply, context.take(blob_id, record).await) }));
    }

    fn settle(&mut self, (blob_id, reply, result): Outcome) {
        if let Ok(Some(News { change, was_certified, was_corrupt })) = &result {
            self.recount |= *was_corrupt;
            let mut digest = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
            if *was_certified {
                digest.toggle(&blob_id, false, false);
            }
            digest.toggle(&blob_id, matches!(change, Change::Invalid(_)), true);
            drop(digest);
            // Nobody listening is not an error.
            let _ = self.changes.send(*change);
        }
        // A caller that went away is not an error.
        let _ = reply.send(result.map(|news| news.is_some()));
        match self.waiting.get_mut(&blob_id).and_then(VecDeque::pop_front) {
            Some(take) => {
                self.n_waiting -= 1;
                self.begin(blob_id, take);
            }
            None => {
                self.waiting.remove(&blob_id);
            }
        }
    }
}

impl Context {
    /// Verifies a record and makes it durable; `None` if it says nothing new.
    async fn take(&self, blob_id: BlobId, record: Announcement) -> Result<Option<News>, RecordError> {
        let known = match self.store.record(blob_id).await {
            Ok(record) => Some(record),
            // A record that rotted is a record that is missing.
            Err(StoreReadError::NotFound | StoreReadError::Corrupt | StoreReadError::OutOfRange) => None,
            Err(error) => return Err(error.into()),
        };
        let was_corrupt = known.is_none() && self.store.has_record(blob_id);
        let change = match (&known, &record) {
            (Some(Announcement::Certified(_)), Announcement::Certified(_))
            | (Some(Announcement::Invalid(_)), Announcement::Invalid(_)) => return Ok(None),
            (Some(Announcement::Invalid(_)), Announcement::Certified(_)) => return Err(RecordError::Invalid),
            (_, Announcement::Invalid(_)) if is_planted(Bug::InvalidIgnored) => return Ok(None),
            (_, Announcement::Certified(_)) => Change::Certified(blob_id),
            (_, Announcement::Invalid(_)) => Change::Invalid(blob_id),
        };
        let (membership, to_verify) = (Arc::clone(&self.membership), record.clone());
        // A pairing costs a millisecond: not on a task that others wait for.
        self.encoder
            .run(move |_| verify(&membership, &to_verify))
            .await
            .map_err(|_| RecordError::Stopped)??;
        self.store.put_record(blob_id, &record).await?;
        let was_certified = matches!(known, Some(Announcement::Certified(_)));
        Ok(Some(News { change, was_certified, was_corrupt }))
    }
}

/// The blob that a record is about.
pub(super) fn blob_of(record: &Announcement) -> BlobId {
    match record {
        Announcement::Certified(record) => record.certificate.statement().blob_id,
        Announcement::Invalid(certificate) => certificate.statement().blob_id,
    }
}

/// Checks everything that a record claims.
fn verify(membership: &Membership, record: &Announcement) -> Result<(), RecordError> {
    let Membership { network, committee, .. } = membership;
    match record {
        Announcement::Certified(record) => {
            let header = record.header.verify_for(record.certificate.statement().blob_id)?;
            if header.shape().n() != membership.n_shards() {
                return Err(RecordError::OtherNetwork);
            }
            record.certificate.verify(network, committee)?;
        }
        Announcement::Invalid(certificate) => {
            certificate.verify(network, committee)?;
        }
    }
    Ok(())
}

async fn read_digest(store: &SliverStore) -> Result<RecordDigest, StoreReadError> {
    let mut digest = RecordDigest::default();
    let mut after = None;
    loop {
        let page = store.recorded(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(digest) };
        after = Some(*last);
        for blob_id in page {
            match store.record(blob_id).await {
                Ok(record) => digest.toggle(&blob_id, matches!(record, Announcement::Invalid(_)), true),
                // Peers have it: the digests differ, and it is fetched again.
                Err(StoreReadError::Corrupt) => tracing::warn!(%blob_id, "the record of a blob is corrupt"),
                Err(error) => return Err(error),
            }
        }
    }
}
