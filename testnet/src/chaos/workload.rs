//! Clients that store, read, extend and delete at a steady rate, and remember what they were answered.
//!
//! What a blob holds follows from the seed and its number, so that nothing of it has to be kept to compare it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use node::{
    cli::{Exit, Failure},
    client::{BlobSource, Client, Progress, ReadError, StoreOptions},
};
use protocol::{
    BlobId, Epoch,
    certificate::Persistence,
    ledger::{signature::SigningKey, transaction::Action},
};
use rand::{Rng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use swarm::Network;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::history::{Kind, Operation, Outcome};
use crate::content::{bytes_of, rng};

/// Sizes beside 0 and 1 are from 2 to the power of the first to 2 to the power of the last, each power as likely as the others:
/// 16 bytes to 64 MiB.
const SIZE_BITS: std::ops::RangeInclusive<u32> = 4..=26;
/// One blob in this many has no bytes, and as many have one.
const TINY_ONE_IN: u32 = 20;
/// One blob in this many is stored for a few epochs only, so that blobs expire meanwhile.
const SHORT_LIVED_ONE_IN: u32 = 4;
/// One blob in this many is stored for good, as far as its owner goes.
const PERMANENT_ONE_IN: u32 = 3;
/// Operations out of a hundred, by kind; the others read.
const STORES: u32 = 30;
/// See above.
const RANGES: u32 = 15;
/// See above.
const DELETES: u32 = 8;
/// See above.
const EXTENDS: u32 = 7;
/// Most epochs by which a blob is extended at a time.
const EXTENSION_MAX: u32 = 3;
/// Bytes of all blobs that are there at a time: with more, clients delete rather than store.
const LIVE_BYTES_MAX: u64 = 256 << 20;

/// A blob that a client began to store.
#[derive(Clone, Debug)]
pub struct BlobRecord {
    /// Its number.
    pub number: u64,
    /// Its size in bytes.
    pub size: usize,
    /// Its name.
    pub blob_id: BlobId,
    /// Who stored it, by number: nobody else changes anything about it.
    owner: u64,
    is_deletable: bool,
    /// Somebody has begun to delete it.
    is_doomed: bool,
    /// The first epoch in which it is no longer stored, if it was acknowledged.
    end: Option<u32>,
}

#[derive(Debug, Default)]
struct Book {
    operations: Vec<Operation>,
    blobs: BTreeMap<u64, BlobRecord>,
    n_numbers: u64,
}

/// Everything that clients share.
#[derive(Clone, Debug)]
pub struct Workload {
    book: Arc<Mutex<Book>>,
    seed: u64,
    start: Instant,
    epoch: watch::Receiver<u32>,
    /// For how many epochs blobs are stored that are to outlast the run. INV: more than [`EXTENSION_MAX`].
    epochs: u32,
}

/// The size of a blob.
#[must_use]
pub fn size_of(seed: u64, number: u64) -> usize {
    let mut dice = rng(seed, number);
    match dice.random_range(0..TINY_ONE_IN) {
        0 => 0,
        1 => 1,
        _ => {
            let bits = dice.random_range(SIZE_BITS);
            let unit = 1_usize << bits;
            if bits == *SIZE_BITS.end() { unit } else { dice.random_range(unit..2 * unit) }
        }
    }
}

/// True if no other blob of the run is the same. Of a few bytes there are several, perhaps of one owner: who deletes one of them
/// proves nothing, and who extends one may ask for less than the other was extended by.
const fn is_unique(size: usize) -> bool {
    size >= 1 << *SIZE_BITS.start()
}

impl Workload {
    /// Nothing was done yet; `start` is the beginning of the run.
    #[must_use]
    pub fn new(seed: u64, start: Instant, epoch: watch::Receiver<u32>, epochs: u32) -> Self {
        Self { book: Arc::default(), seed, start, epoch, epochs: epochs.max(EXTENSION_MAX + 1) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing that can panic runs under this lock.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All operations so far.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.book().operations.clone()
    }

    /// All blobs so far, by number.
    #[must_use]
    pub fn blobs(&self) -> Vec<BlobRecord> {
        self.book().blobs.values().cloned().collect()
    }

    fn epoch(&self) -> u32 {
        *self.epoch.borrow()
    }

    /// Does an operation each `pause`, until stopped; what is under way then is finished. One that takes longer holds up the
    /// next one of the same worker, and nothing is made up for.
    pub async fn run<N: Network>(
        self,
        client: Client<N>,
        (worker, pause): (u64, Duration),
        key: SigningKey,
        stop: CancellationToken,
    ) {
        let mut dice = rng(!self.seed, worker);
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            self.act(&client, (worker, &key), &mut dice).await;
        }
    }

    /// One operation, drawn.
    async fn act<N: Network>(
        &self,
        client: &Client<N>,
        (worker, key): (u64, &SigningKey),
        dice: &mut ChaCha8Rng,
    ) {
        let draw = dice.random_range(0..100);
        let is_full = self.live_bytes() > LIVE_BYTES_MAX;
        let kind = match draw {
            draw if draw < STORES => {
                if is_full {
                    Kind::Delete
                } else {
                    Kind::Store
                }
            }
            draw if draw < STORES + RANGES => Kind::Range,
            draw if draw < STORES + RANGES + DELETES => Kind::Delete,
            draw if draw < STORES + RANGES + DELETES + EXTENDS => Kind::Extend,
            _ => Kind::Read,
        };
        let blob = match kind {
            Kind::Store => None,
            Kind::Read | Kind::Range => self.any(dice, |_| true),
            Kind::Extend => {
                // Nothing is stored for much longer than the run takes: the ledger has a limit.
                let last = self.epoch().saturating_add(self.epochs - EXTENSION_MAX);
                let may_grow =
                    |blob: &BlobRecord| is_unique(blob.size) && blob.end.is_some_and(|end| end <= last);
                self.any(dice, |blob| blob.owner == worker && !blob.is_doomed && may_grow(blob))
            }
            Kind::Delete => {
                let is_his = |blob: &BlobRecord| blob.owner == worker && blob.is_deletable;
                self.any(dice, |blob| is_his(blob) && !blob.is_doomed && blob.end.is_some())
            }
        };
        match (kind, blob) {
            (Kind::Read, Some(blob)) => self.read(client, &blob, None).await,
            (Kind::Range, Some(blob)) => {
                let size = u64::try_from(blob.size).unwrap_or(u64::MAX);
                let start = dice.random_range(0..=size);
                self.read(client, &blob, Some((start, dice.random_range(start..=size)))).await;
            }
            (Kind::Extend, Some(blob)) => {
                self.extend(client, &blob, key, dice.random_range(1..=EXTENSION_MAX)).await
            }
            (Kind::Delete, Some(blob)) => self.delete(client, &blob, key).await,
            // There is nothing to do it to yet.
            (_, None) if !is_full => self.store(client, (worker, key)).await,
            _ => {}
        }
    }

    /// Bytes of blobs that are there, as far as is known.
    fn live_bytes(&self) -> u64 {
        let epoch = self.epoch();
        let book = self.book();
        let live =
            book.blobs.values().filter(|blob| !blob.is_doomed && blob.end.is_none_or(|end| end > epoch));
        live.map(|blob| u64::try_from(blob.size).unwrap_or(u64::MAX)).sum()
    }

    fn any(&self, dice: &mut ChaCha8Rng, which: impl Fn(&BlobRecord) -> bool) -> Option<BlobRecord> {
        let book = self.book();
        let some: Vec<&BlobRecord> = book.blobs.values().filter(|blob| which(blob)).collect();
        some.choose(dice).copied().cloned()
    }

    fn note(&self, kind: Kind, (blob, size): (u64, usize), start: Instant, outcome: Outcome) {
        let operation = Operation {
            kind,
            blob,
            size: u64::try_from(size).unwrap_or(u64::MAX),
            start: start.saturating_duration_since(self.start),
            end: self.start.elapsed(),
            epoch: self.epoch(),
            outcome,
        };
        if operation.is_failed() {
            tracing::debug!(?operation, "an operation failed");
        }
        self.book().operations.push(operation);
    }

    async fn store<N: Network>(&self, client: &Client<N>, (owner, key): (u64, &SigningKey)) {
        let number = {
            let mut book = self.book();
            book.n_numbers += 1;
            book.n_numbers
        };
        let size = size_of(self.seed, number);
        let mut dice = rng(self.seed.wrapping_add(1), number);
        let is_deletable = is_unique(size) && !dice.random_ratio(1, PERMANENT_ONE_IN);
        let is_short = is_unique(size) && dice.random_ratio(1, SHORT_LIVED_ONE_IN);
        let epochs = if is_short { dice.random_range(2..5) } else { self.epochs };
        let persistence = if is_deletable { Persistence::Deletable } else { Persistence::Permanent };
        let source: Arc<dyn BlobSource> = Arc::new(bytes_of(self.seed, number, size));
        let identified = Arc::new(OnceLock::new());
        let seen = Arc::clone(&identified);
        let progress = Arc::new(move |progress| {
            if let Progress::Identified(blob_id) = progress {
                // A store that begins anew finds the same.
                let _ = seen.set(blob_id);
            }
        });
        let start = Instant::now();
        let result = client.store(source, key, StoreOptions { persistence, epochs }, progress).await;
        let end = result.as_ref().ok().map(|stored| stored.end.0);
        let known = identified.get().copied().or_else(|| result.as_ref().ok().map(|it| it.blob_id));
        let outcome = match result {
            Ok(_) => Outcome::Done { end },
            Err(error) => failed(&Failure::store(&format!("blob {number}"), &error)),
        };
        self.note(Kind::Store, (number, size), start, outcome);
        if let Some(blob_id) = known {
            let record = BlobRecord { number, size, blob_id, owner, is_deletable, is_doomed: false, end };
            self.book().blobs.insert(number, record);
        }
    }

    /// Reads all of a blob, or from one byte to the one before another, and compares it with what was stored.
    pub async fn read<N: Network>(&self, client: &Client<N>, blob: &BlobRecord, range: Option<(u64, u64)>) {
        let BlobRecord { number, size, blob_id, .. } = *blob;
        let start = Instant::now();
        let (from, to) = range.unwrap_or((0, u64::MAX));
        let result = client.read_range(blob_id, from..to, Vec::new(), Arc::new(|_| {})).await;
        let kind = if range.is_some() { Kind::Range } else { Kind::Read };
        let outcome = match result {
            Ok((_, bytes)) => {
                let at = |byte: u64| usize::try_from(byte).map_or(size, |byte| byte.min(size));
                let is_right = bytes_of(self.seed, number, size)[at(from)..at(to)] == bytes[..];
                if is_right { Outcome::Done { end: None } } else { Outcome::Wrong }
            }
            Err(ReadError::NotFound) => Outcome::Absent,
            Err(ReadError::Invalid | ReadError::Inconsistent) => Outcome::Condemned,
            Err(error) => failed(&Failure::read(&blob_id, error)),
        };
        self.note(kind, (number, size), start, outcome);
    }

    /// Reads all of a blob that is to be there, and compares it with what was stored; it is not noted.
    ///
    /// # Errors
    ///
    /// Why it could not be read, or that other bytes were.
    pub async fn read_whole<N: Network>(&self, client: &Client<N>, blob: &BlobRecord) -> Result<(), String> {
        let BlobRecord { number, size, blob_id, .. } = *blob;
        let result = client.read(blob_id, Vec::new(), Arc::new(|_| {})).await;
        let (_, bytes) = result.map_err(|error| Failure::read(&blob_id, error).to_string())?;
        if bytes == bytes_of(self.seed, number, size) {
            Ok(())
        } else {
            Err("OTHER bytes were read".to_owned())
        }
    }

    async fn extend<N: Network>(&self, client: &Client<N>, blob: &BlobRecord, key: &SigningKey, by: u32) {
        let BlobRecord { number, size, blob_id, .. } = *blob;
        let end = blob.end.unwrap_or(0).max(self.epoch()).saturating_add(by);
        let start = Instant::now();
        let action = Action::ExtendBlob { blob_id, end_epoch: Epoch(end) };
        let outcome = match client.submit(action, key).await {
            Ok(_) => {
                if let Some(known) = self.book().blobs.get_mut(&number) {
                    known.end = Some(end);
                }
                Outcome::Done { end: Some(end) }
            }
            Err(error) => failed(&Failure::submit(format!("cannot extend blob {number}"), &error)),
        };
        self.note(Kind::Extend, (number, size), start, self.unless_over(blob, outcome));
    }

    async fn delete<N: Network>(&self, client: &Client<N>, blob: &BlobRecord, key: &SigningKey) {
        let BlobRecord { number, size, blob_id, .. } = *blob;
        if let Some(known) = self.book().blobs.get_mut(&number) {
            known.is_doomed = true;
        }
        let start = Instant::now();
        let outcome = match client.submit(Action::DeleteBlob { blob_id }, key).await {
            Ok(_) => Outcome::Done { end: None },
            Err(error) => failed(&Failure::submit(format!("cannot delete blob {number}"), &error)),
        };
        self.note(Kind::Delete, (number, size), start, self.unless_over(blob, outcome));
    }

    /// What is refused because the blob has expired meanwhile was answered.
    fn unless_over(&self, blob: &BlobRecord, outcome: Outcome) -> Outcome {
        let may_be_over = blob.end.is_some_and(|end| end <= self.epoch().saturating_add(1));
        if may_be_over && matches!(outcome, Outcome::Failed { .. }) { Outcome::Absent } else { outcome }
    }
}

fn failed(failure: &Failure) -> Outcome {
    Outcome::Failed { why: failure.to_string(), is_refusal: failure.exit() == Exit::Unavailable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_from_nothing_to_64_mib_and_follow_from_the_number() {
        let sizes: Vec<usize> = (0..5000).map(|number| size_of(3, number)).collect();
        assert!(sizes.iter().all(|size| *size <= 64 << 20));
        assert!(sizes.contains(&0) && sizes.contains(&1) && sizes.contains(&(64 << 20)));
        let small = sizes.iter().filter(|size| **size < 64 << 10).count();
        assert!((2500..3500).contains(&small), "{small}");
        assert_eq!(size_of(3, 5), size_of(3, 5));
    }

    #[test]
    fn a_blob_that_expires_is_no_failure_of_whoever_wanted_to_change_it() {
        let (_, epoch) = watch::channel(4);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _guard = runtime.enter();
        let workload = Workload::new(1, Instant::now(), epoch, 50);
        let blob = |end| BlobRecord {
            number: 1,
            size: 1,
            blob_id: BlobId([0; 32]),
            owner: 0,
            is_deletable: true,
            is_doomed: false,
            end,
        };
        let failed = || Outcome::Failed { why: String::new(), is_refusal: false };
        assert_eq!(workload.unless_over(&blob(Some(5)), failed()), Outcome::Absent);
        assert_eq!(workload.unless_over(&blob(Some(6)), failed()), failed());
        assert_eq!(
            workload.unless_over(&blob(Some(5)), Outcome::Done { end: None }),
            Outcome::Done { end: None }
        );
    }
}
