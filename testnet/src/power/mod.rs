//! A store that is written while somebody looks at what its disk holds: for `testnet/power-loss/run`.
//!
//! ```text
//! write: batch n ──> storage::Store on a real disk ──> "n" on standard output, once n is acknowledged
//! check: a copy of that disk, how far the numbers had come before it was made, and after ──> what is lost
//! ```
//!
//! Batches follow from a seed and their number, so what has to be on the disk need not be kept anywhere else. [`plan`] says
//! what a batch holds, [`mod@judge`] whether what was found is what a store may be left with; both are pure.

pub mod judge;
pub mod plan;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io::{self, IoSlice, Write as _},
    ops::Range,
    path::Path,
    sync::Arc,
};

use serde::Serialize;
use storage::{
    Config, OpenError, Store, WriteError,
    disk::{Disk, DiskFile, LockError, RealDisk},
    index::{IndexError, SledIndex},
};

use self::{
    judge::{Found, Verdict, judge},
    plan::Plan,
};

/// Small log files, so that a run fills many, and compaction and the index have something to do all the time.
const CONFIG: Config = Config {
    log_bytes: 2 << 20,
    reserve_bytes: 8 << 20,
    checkpoint_bytes: 1 << 20,
    compact_below_percent: 60,
};
/// Batches between two steps of compaction.
const COMPACT_EVERY: u64 = 64;
/// Bytes of a step.
const COMPACT_BYTES: u64 = 4 << 20;

/// Why a store could not be written or looked at.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// The directory cannot be used.
    #[error("cannot use the directory of the store")]
    Lock(#[from] LockError),
    /// The index cannot be used.
    #[error("cannot open the index")]
    Index(#[from] IndexError),
    /// The store does not open.
    #[error("the store does not open")]
    Open(#[from] OpenError),
    /// The store takes no more.
    #[error("batch {batch} cannot be written")]
    Write {
        /// Number of the batch.
        batch: u64,
        /// What the store says.
        #[source]
        source: WriteError,
    },
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[from] storage::ReadError),
    /// Nobody reads what is acknowledged.
    #[error("cannot say what is acknowledged")]
    Acknowledge(#[source] io::Error),
}

/// A disk of which syncs do nothing: the control, without which a test that finds no loss shows nothing.
#[derive(Debug)]
struct Unsynced(RealDisk);

#[derive(Debug)]
struct UnsyncedFile(Arc<dyn DiskFile>);

impl Disk for Unsynced {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnsyncedFile(self.0.create(name)?)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnsyncedFile(self.0.open(name)?)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.0.random()
    }
}

impl DiskFile for UnsyncedFile {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.write_at(offset, parts)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<()> {
        self.0.punch_hole(range)
    }
}

fn open(dir: &Path, disk: Arc<dyn Disk>) -> Result<(Store, storage::OpenReport), PowerError> {
    let index = SledIndex::open(dir.join("index"))?;
    Ok(Store::open(disk, Box::new(index), CONFIG)?)
}

/// Writes batch after batch to a store in `dir`, which must be there and empty, and says the number of each once it is
/// acknowledged, until the process is ended or nobody reads the numbers. Without `sync` nothing is ever synced.
///
/// # Errors
///
/// [`PowerError`]; it does not return otherwise.
pub fn write(dir: &Path, seed: u64, sync: bool) -> Result<std::convert::Infallible, PowerError> {
    let real = RealDisk::open(dir)?;
    let disk: Arc<dyn Disk> = if sync { Arc::new(real) } else { Arc::new(Unsynced(real)) };
    let (store, _) = open(dir, disk)?;
    let plan = Plan::new(seed);
    let mut said = io::stdout().lock();
    let mut number = 1;
    loop {
        let failed = |source| PowerError::Write { batch: number, source };
        store.write(plan.batch(number)).map_err(failed)?;
        writeln!(said, "{number}").and_then(|()| said.flush()).map_err(PowerError::Acknowledge)?;
        if number.is_multiple_of(COMPACT_EVERY) {
            store.compact(COMPACT_BYTES).map_err(failed)?;
        }
        number += 1;
    }
}

/// What was found on a copy of the disk.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Batches acknowledged before the copy was begun.
    pub acknowledged: u64,
    /// Records that the store has.
    pub records: u64,
    /// Bytes of a write that was under way.
    pub torn_bytes: u64,
    /// Parts of log files that were durable once and cannot be read.
    pub damaged: usize,
    /// Whether the index had to be built anew.
    pub rebuilt: bool,
    /// Keys of which what was acknowledged is gone, or older.
    pub lost: usize,
    /// Keys that have other bytes than were ever written to them, or that cannot be read.
    pub wrong: usize,
    /// The store is as it was after some write, and not as it never was.
    pub is_prefix: bool,
}

impl Report {
    /// Promises that do not hold.
    #[must_use]
    pub fn violations(&self) -> usize {
        let torn = usize::from(!self.is_prefix && self.lost == 0 && self.wrong == 0);
        self.lost + self.wrong + self.damaged + torn
    }
}

/// Opens the store in `dir`, the copy of one that [`write()`] wrote with this seed, and compares it with what was written:
/// batches up to `acknowledged` must be there, those up to `issued` may be. Opens it a second time, which must not change
/// anything.
///
/// # Errors
///
/// [`PowerError`]: that a store does not open is a loss, too.
pub fn check(dir: &Path, seed: u64, acknowledged: u64, issued: u64) -> Result<Report, PowerError> {
    let plan = Plan::new(seed);
    let look = || -> Result<_, PowerError> {
        let (store, report) = open(dir, Arc::new(RealDisk::open(dir)?))?;
        Ok((found(&store, &plan)?, report))
    };
    let (first, report) = look()?;
    let (again, second) = look()?;
    let Verdict { lost, wrong, is_prefix } = judge(&plan, acknowledged, issued, &first);
    Ok(Report {
        acknowledged,
        records: report.records,
        torn_bytes: report.torn_bytes,
        damaged: report.damage.len() + second.damage.len(),
        rebuilt: report.rebuilt.is_some_and(|reason| reason != storage::Rebuild::Empty),
        lost,
        wrong: wrong + usize::from(again != first),
        is_prefix,
    })
}

/// Everything in a store, told apart by who wrote it.
fn found(store: &Store, plan: &Plan) -> Result<BTreeMap<u16, Found>, PowerError> {
    let listed = store.scan(b"", None, usize::MAX)?;
    let look = |(key, _)| {
        let found = store.read_all(&key).map_or(Found::Unreadable, |payload| plan.recognise(&key, &payload));
        (plan::key_number(&key), found)
    };
    Ok(listed.into_iter().map(look).collect())
}
