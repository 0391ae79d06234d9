//! Clients that store and read at a steady rate, and remember what they did.
//!
//! What a blob holds follows from the seed and its number, so that nothing of it has to be kept to compare it.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use node::{
    cli::Failure,
    client::{BlobSource, Client, Progress, StoreOptions, Stored},
    ledger::Clock,
};
use protocol::{
    BlobId,
    certificate::Persistence,
    ledger::{
        signature::SigningKey,
        state::entry::{Head, Stage},
    },
};
use rand::{Rng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use swarm::Network;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::timeline::Phase;
use crate::content::{bytes_of, rng};

/// Sizes are from 2 to the power of the first to 2 to the power of the last, each power as likely as the others: 1 KiB to
/// 4 MiB, half of them below 64 KiB.
const SIZE_BITS: std::ops::Range<f64> = 10.0..22.0;
/// One operation in this many stores; the others read, if there is something to read.
const STORES_ONE_IN: u32 = 4;
/// One blob in this many is stored for a few epochs only, so that blobs expire while shards move.
const SHORT_LIVED_ONE_IN: u32 = 4;
/// Operations of a burst, how far apart they begin, and how long before a committee takes over the first of them does. A
/// handover takes a few blocks, a few tenths of a second: clients at a steady rate would hardly meet one.
const PROBES: u32 = 24;
/// See above.
const PROBES_APART: Duration = Duration::from_millis(25);
/// See above.
const PROBES_EARLY: Duration = Duration::from_millis(200);
/// Bytes of the smallest blob that a burst stores; each further one has four times as many, up to a mebibyte.
const PROBE_BYTES_MIN: usize = 1 << 10;
/// How often an operation is tried that fails.
const TRIES: u32 = 3;
/// How long after a failure: whoever does it by hand is not faster.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A blob was stored.
    Store,
    /// A blob was read, and compared with what was stored.
    Read,
}

/// When a burst of operations came. Both have the same operations: what differs is what else goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Burst {
    /// A quarter of an epoch before the next committee took over.
    Steady,
    /// As it took over.
    Handover,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// What was done.
    pub kind: Kind,
    /// When it began, and the epoch and the phase in which that was.
    pub start: Instant,
    /// The epoch in which it began.
    pub epoch: u32,
    /// The phase in which it began.
    pub phase: Phase,
    /// How long the first try took.
    pub took: Duration,
    /// Why the first try failed, if it did: the client library said so, or the bytes were others.
    pub error: Option<String>,
    /// How often it was tried again.
    pub retries: u32,
    /// True if it was done in the end.
    pub is_done: bool,
    /// Bytes of the blob.
    pub size: u64,
    /// The burst that it was one of.
    pub burst: Option<Burst>,
}

/// An operation under way.
#[derive(Debug)]
struct Tries(Operation);

impl Tries {
    fn begin((kind, size): (Kind, usize), Moment { epoch, phase, .. }: Moment) -> Self {
        Self(Operation {
            kind,
            start: Instant::now(),
            epoch,
            phase,
            took: Duration::ZERO,
            error: None,
            retries: 0,
            is_done: false,
            size: u64::try_from(size).unwrap_or(u64::MAX),
            burst: None,
        })
    }

    fn of(mut self, burst: Option<Burst>) -> Self {
        self.0.burst = burst;
        self
    }

    /// A try has ended; false if there is to be another.
    fn ended(&mut self, result: Result<(), String>) -> bool {
        let operation = &mut self.0;
        let is_first = operation.error.is_none();
        if is_first {
            operation.took = operation.start.elapsed();
        } else {
            operation.retries += 1;
        }
        operation.is_done = result.is_ok();
        if let Err(error) = result {
            operation.error.get_or_insert(error);
        }
        operation.is_done || operation.retries + 1 >= TRIES
    }
}

/// A blob that a client began to store.
#[derive(Clone, Debug)]
pub struct BlobRecord {
    /// Its number, from which its bytes follow.
    pub number: u64,
    /// Its size.
    pub size: usize,
    /// Its ID.
    pub blob_id: BlobId,
    /// Since when it has been certified, as far as this client knows.
    pub certified: Option<Certified>,
}

/// When a blob was certified, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Certified {
    /// The epoch whose committee confirmed it, and to whose members it was sent.
    pub epoch: u32,
    /// When the client knew.
    pub at: Instant,
    /// The first epoch in which it is no longer stored.
    pub end: u32,
}

/// Where the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The epoch.
    pub epoch: u32,
    /// Its phase.
    pub phase: Phase,
    /// Once the next committee is selected, the time at which it takes over, in milliseconds since 1970.
    pub takeover_ms: Option<u64>,
}

impl Moment {
    /// Where the ledger is.
    #[must_use]
    pub const fn of(head: &Head) -> Self {
        let takeover_ms = match head.stage {
            Stage::Selected { ends_ms } => Some(ends_ms),
            Stage::Steady | Stage::Handover { .. } => None,
        };
        Self { epoch: head.epoch.0, phase: Phase::of(head.stage), takeover_ms }
    }
}

/// What all clients did.
#[derive(Debug, Default)]
pub struct Book {
    operations: Vec<Operation>,
    blobs: Vec<BlobRecord>,
    /// Blobs that were begun.
    n_numbers: u64,
}

/// Everything that clients share.
#[derive(Clone, Debug)]
pub struct Workload {
    book: Arc<Mutex<Book>>,
    seed: u64,
    /// Epochs of the run, for which most blobs are stored.
    epochs: u32,
    moment: watch::Receiver<Moment>,
}

/// The size of a blob.
#[must_use]
pub fn size_of(seed: u64, number: u64) -> usize {
    let bits: f64 = rng(seed, number).random_range(SIZE_BITS);
    // Powers of two as steps, and a part of the way to the next.
    let (whole, part) = (bits.floor(), bits.fract());
    let floor = (10..22).find(|bits| f64::from(*bits) >= whole).unwrap_or(10_u32);
    let unit = 1_usize << floor;
    let sixteenths = (0..16).rfind(|n| f64::from(*n) / 16.0 <= part).unwrap_or(0_u16);
    unit + unit / 16 * usize::from(sixteenths)
}

impl Workload {
    /// Nothing was done yet.
    #[must_use]
    pub fn new(seed: u64, epochs: u32, moment: watch::Receiver<Moment>) -> Self {
        Self { book: Arc::default(), seed, epochs, moment }
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

    /// All blobs so far.
    #[must_use]
    pub fn blobs(&self) -> Vec<BlobRecord> {
        self.book().blobs.clone()
    }

    /// Where the network is.
    #[must_use]
    pub fn moment(&self) -> Moment {
        *self.moment.borrow()
    }

    /// Stores and reads, an operation each `pause`, until stopped; what is under way then is finished. An operation that
    /// takes longer holds up the next one, and nothing is made up for.
    pub async fn run<N: Network>(
        self,
        client: Client<N>,
        (worker, pause): (u64, Duration),
        key: SigningKey,
        stop: CancellationToken,
    ) {
        let mut dice = rng(self.seed.wrapping_add(1), worker);
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let blob = if dice.random_ratio(1, STORES_ONE_IN) { None } else { self.readable(&mut dice) };
            match blob {
                Some(blob) => self.read_and_note(&client, &blob, None).await,
                None => self.store_and_note(&client, &key, None).await,
            }
        }
    }

    /// In each epoch, has a burst of operations under way while the next committee takes over, and the same a quarter of
    /// an epoch before, to compare with.
    pub async fn probe<N: Network>(
        self,
        client: Client<N>,
        (epoch, account): (Duration, u8),
        stop: CancellationToken,
    ) {
        let mut moments = self.moment.clone();
        let mut dice = rng(self.seed.wrapping_add(1), u64::MAX);
        let mut done = None;
        loop {
            let is_next = |moment: &Moment| moment.takeover_ms.is_some() && Some(moment.epoch) != done;
            let moment = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                moment = moments.wait_for(is_next) => match moment {
                    Ok(moment) => *moment,
                    Err(_) => return,
                },
            };
            done = Some(moment.epoch);
            // The same blobs are read in both.
            let blobs: Vec<Option<BlobRecord>> = (0..PROBES).map(|_| self.readable(&mut dice)).collect();
            for (burst, early) in [(Burst::Steady, epoch / 4), (Burst::Handover, PROBES_EARLY)] {
                let left = moment.takeover_ms.unwrap_or(0).saturating_sub(Clock::System.unix_ms());
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = sleep(Duration::from_millis(left).saturating_sub(early)) => {}
                }
                self.burst(&client, account, (burst, &blobs)).await;
            }
        }
    }

    /// Operations that begin shortly one after the other, stores each for an account of its own.
    async fn burst<N: Network>(
        &self,
        client: &Client<N>,
        account: u8,
        (burst, blobs): (Burst, &[Option<BlobRecord>]),
    ) {
        let probes = (0..PROBES).zip(blobs).map(|(index, blob)| {
            let stores = index.is_multiple_of(STORES_ONE_IN);
            let size = PROBE_BYTES_MIN << (2 * (index / STORES_ONE_IN));
            let account = account.saturating_add(u8::try_from(index / STORES_ONE_IN).unwrap_or(u8::MAX));
            let key = SigningKey::from_secret(&[account; 32]);
            async move {
                sleep(PROBES_APART * index).await;
                match blob {
                    _ if stores => self.store_and_note(client, &key, Some((burst, size))).await,
                    Some(blob) => self.read_and_note(client, blob, Some(burst)).await,
                    None => {}
                }
            }
        });
        join_all(probes.collect::<Vec<_>>()).await;
    }

    /// A blob that is certified, and is not about to expire.
    fn readable(&self, dice: &mut ChaCha8Rng) -> Option<BlobRecord> {
        let epoch = self.moment().epoch;
        let book = self.book();
        let lasts = |blob: &&BlobRecord| {
            blob.certified.is_some_and(|certified| certified.end > epoch.saturating_add(1))
        };
        let readable: Vec<&BlobRecord> = book.blobs.iter().filter(lasts).collect();
        readable.choose(dice).copied().cloned()
    }

    async fn read_and_note<N: Network>(&self, client: &Client<N>, blob: &BlobRecord, burst: Option<Burst>) {
        let mut tries = Tries::begin((Kind::Read, blob.size), self.moment()).of(burst);
        while !tries.ended(self.read(client, blob).await) {
            sleep(RETRY_AFTER).await;
        }
        self.book().operations.push(tries.0);
    }

    /// Reads a blob and compares it with what was stored.
    ///
    /// # Errors
    ///
    /// Why it could not be read, or that other bytes were.
    pub async fn read<N: Network>(&self, client: &Client<N>, blob: &BlobRecord) -> Result<(), String> {
        let BlobRecord { number, size, blob_id, .. } = *blob;
        let result = client.read(blob_id, Vec::with_capacity(size), Arc::new(|_| {})).await;
        let (_, bytes) = result.map_err(|error| Failure::read(&blob_id, error).to_string())?;
        if bytes == bytes_of(self.seed, number, size) {
            return Ok(());
        }
        Err(format!("{blob_id} was read as OTHER bytes than were stored"))
    }

    async fn store_and_note<N: Network>(
        &self,
        client: &Client<N>,
        key: &SigningKey,
        burst: Option<(Burst, usize)>,
    ) {
        let number = {
            let mut book = self.book();
            book.n_numbers += 1;
            book.n_numbers
        };
        let size = burst.map_or_else(|| size_of(self.seed, number), |(_, size)| size);
        let source: Arc<dyn BlobSource> = Arc::new(bytes_of(self.seed, number, size));
        let mut tries = Tries::begin((Kind::Store, size), self.moment()).of(burst.map(|(burst, _)| burst));
        while !tries.ended(self.store(client, (number, &source), key).await) {
            sleep(RETRY_AFTER).await;
        }
        self.book().operations.push(tries.0);
    }

    /// Stores a blob; it is remembered as soon as its ID is known, since it may be certified whatever this client sees.
    async fn store<N: Network>(
        &self,
        client: &Client<N>,
        (number, source): (u64, &Arc<dyn BlobSource>),
        key: &SigningKey,
    ) -> Result<(), String> {
        let identified = Arc::new(OnceLock::new());
        let seen = Arc::clone(&identified);
        let progress = Arc::new(move |progress| {
            if let Progress::Identified(blob_id) = progress {
                let _ = seen.set(blob_id);
            }
        });
        let epochs = self.epochs_of(number);
        let options = StoreOptions { persistence: Persistence::Permanent, epochs };
        let result = client.store(Arc::clone(source), key, options, progress).await;
        if let Ok(Stored { timings, duration, epoch, .. }) = &result {
            tracing::debug!(number, %epoch, ?duration, ?timings, "stored");
        }
        let certified = result.as_ref().ok().map(|stored| Certified {
            // If it was certified by a try of which nobody heard, in this epoch or in the one before.
            epoch: if stored.already_certified { self.moment().epoch } else { stored.epoch.0 },
            at: Instant::now(),
            end: stored.end.0,
        });
        let size = usize::try_from(source.len()).unwrap_or(usize::MAX);
        if let Some(blob_id) = identified.get().copied().or_else(|| result.as_ref().ok().map(|it| it.blob_id))
        {
            self.found(BlobRecord { number, size, blob_id, certified });
        }
        let named = format!("blob {number}, {size} bytes");
        result.map(|_| ()).map_err(|error| Failure::store(&named, &error).to_string())
    }

    fn found(&self, blob: BlobRecord) {
        let mut book = self.book();
        match book.blobs.iter_mut().find(|known| known.number == blob.number) {
            Some(known) => known.certified = known.certified.or(blob.certified),
            None => book.blobs.push(blob),
        }
    }

    /// For how many epochs a blob is stored: most for longer than the run, so that they can be read at its end.
    fn epochs_of(&self, number: u64) -> u32 {
        let mut dice = rng(self.seed.wrapping_add(2), number);
        let longer = self.epochs.saturating_mul(3).saturating_add(10);
        if dice.random_ratio(1, SHORT_LIVED_ONE_IN) { dice.random_range(2..6) } else { longer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_mixed_and_within_bounds_and_bytes_follow_from_the_number() {
        let sizes: Vec<usize> = (0..1000).map(|number| size_of(3, number)).collect();
        assert!(sizes.iter().all(|size| (1 << 10..=4 << 20).contains(size)));
        let small = sizes.iter().filter(|size| **size < 64 << 10).count();
        assert!((400..600).contains(&small), "{small}");
        assert!(sizes.iter().any(|size| *size < 2 << 10) && sizes.iter().any(|size| *size > 2 << 20));
        assert_eq!(size_of(3, 5), size_of(3, 5));
        assert_eq!(bytes_of(3, 5, 100), bytes_of(3, 5, 100));
        assert_ne!(bytes_of(3, 5, 100), bytes_of(3, 6, 100));
        assert_ne!(bytes_of(3, 5, 100), bytes_of(4, 5, 100));
    }

    fn workload() -> Workload {
        let (_, moment) = watch::channel(Moment { epoch: 4, phase: Phase::Handover, takeover_ms: None });
        Workload::new(1, 20, moment)
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_that_fails_is_tried_again_and_has_failed() {
        let mut tries =
            Tries::begin((Kind::Read, 5), Moment { epoch: 4, phase: Phase::Handover, takeover_ms: None });
        sleep(RETRY_AFTER).await;
        assert!(!tries.ended(Err("gone".to_owned())));
        sleep(RETRY_AFTER).await;
        assert!(tries.ended(Ok(())));
        let Operation { took, error, retries, is_done, epoch, phase, .. } = tries.0;
        assert_eq!((took, error.as_deref(), retries, is_done), (RETRY_AFTER, Some("gone"), 1, true));
        assert_eq!((epoch, phase), (4, Phase::Handover));

        let mut tries =
            Tries::begin((Kind::Read, 5), Moment { epoch: 4, phase: Phase::Steady, takeover_ms: None });
        let ends: Vec<bool> = (0..TRIES).map(|_| tries.ended(Err("never".to_owned()))).collect();
        assert_eq!(ends, [false, false, true]);
        assert_eq!((tries.0.retries, tries.0.is_done), (2, false));

        let mut tries =
            Tries::begin((Kind::Store, 5), Moment { epoch: 4, phase: Phase::Steady, takeover_ms: None });
        assert!(tries.ended(Ok(())));
        assert_eq!((tries.0.retries, tries.0.error), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_certified_and_lasts_is_read() {
        let workload = workload();
        let mut dice = rng(1, 1);
        assert!(workload.readable(&mut dice).is_none());
        let certified = |end| Some(Certified { epoch: 1, at: Instant::now(), end });
        let blob = |number, certified| BlobRecord { number, size: 1, blob_id: BlobId([0; 32]), certified };
        workload.found(blob(1, None));
        workload.found(blob(2, certified(5)));
        assert!(workload.readable(&mut dice).is_none());
        workload.found(blob(1, certified(6)));
        assert_eq!(workload.readable(&mut dice).unwrap().number, 1);
        assert_eq!(workload.blobs().len(), 2);
        let epochs: Vec<u32> = (0..100).map(|number| workload.epochs_of(number)).collect();
        assert!(epochs.iter().all(|epochs| (2..6).contains(epochs) || *epochs == 70));
        assert!(epochs.contains(&70) && epochs.iter().any(|epochs| *epochs < 6));
    }
}
