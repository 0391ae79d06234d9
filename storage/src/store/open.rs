//! Opening: find the log files, bring the index up to date, and check it against them.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, OnceLock, RwLock},
};

use super::{Config, Store, usage::Usage, write::Writer};
use crate::{
    disk::Disk,
    error::OpenError,
    index::{Entry, EntryKind, Index, IndexError, Position, Summary},
    key::Key,
    log::{Bounds, FORMAT_VERSION, HeadError, Header, Kind, LogFile, LogNumber, RECORDS_START, replay},
    report::{Damage, OpenReport, Rebuild},
    size::to_u64,
};

/// Changes applied to the index at once, and entries checked at once.
const PAGE: usize = 1024;

/// See [`Store::open`].
pub(super) fn open(
    disk: Arc<dyn Disk>,
    index: Box<dyn Index>,
    config: Config,
) -> Result<(Store, OpenReport), OpenError> {
    let logs = Logs::find(&*disk)?;
    let (summary, rebuilt) = match usable_summary(&*index, &logs) {
        Ok(summary) => (Some(summary), None),
        Err(reason) => (None, Some(reason)),
    };
    let first_try = match summary {
        Some(summary) => Filled::fill(&*index, &logs, Some(summary)),
        None => {
            empty(&*index)?;
            Filled::fill(&*index, &logs, None)
        }
    };
    let (filled, rebuilt) = match first_try {
        Ok(filled) => (filled, rebuilt),
        Err(FillError::Io(source)) => return Err(OpenError::Io { doing: "recovering a log file", source }),
        Err(_) if rebuilt.is_some_and(|reason| reason != Rebuild::Empty) => {
            return Err(OpenError::Index(IndexError::Damaged));
        }
        Err(error) => {
            let reason =
                if matches!(error, FillError::Disagrees) { Rebuild::Disagrees } else { Rebuild::Failed };
            index.reset()?;
            let filled = Filled::fill(&*index, &logs, None).map_err(FillError::last)?;
            (filled, Some(reason))
        }
    };
    let mut damage = logs.damage;
    damage.extend(filled.damage);
    let report = OpenReport {
        records: filled.usage.stats(0).records,
        n_logs: to_u64(logs.files.len()),
        replayed: filled.replayed,
        rebuilt,
        torn_bytes: filled.torn_bytes,
        damage,
    };
    let writer = Writer {
        end: filled.end,
        summary: filled.summary,
        unflushed: 0,
        unproven: filled.end > RECORDS_START,
    };
    let store = Store {
        disk,
        index,
        config,
        id: logs.store,
        logs: RwLock::new(logs.files),
        usage: Mutex::new(filled.usage),
        writer: Mutex::new(writer),
        compacting: Mutex::new(()),
        failed: OnceLock::new(),
    };
    Ok((store, report))
}

/// The log files of a directory.
struct Logs {
    store: [u8; 16],
    /// INV: not empty.
    files: BTreeMap<LogNumber, Arc<LogFile>>,
    /// Files that cannot be read at all.
    damage: Vec<Damage>,
}

impl Logs {
    /// Opens all log files, and sees to it that the newest can be written to.
    fn find(disk: &dyn Disk) -> Result<Self, OpenError> {
        let names = disk.list().map_err(OpenError::io("listing the directory"))?;
        let mut numbers: Vec<LogNumber> =
            names.iter().filter_map(|name| LogNumber::of_file_name(name)).collect();
        numbers.sort_unstable();
        let newest = numbers.last().copied();
        let (mut files, mut damage, mut unfinished) = (BTreeMap::new(), Vec::new(), None);
        for number in numbers {
            let file = disk.open(&number.file_name()).map_err(OpenError::io("opening a log file"))?;
            let len = file.len().map_err(OpenError::io("reading a log file"))?;
            match LogFile::open(Arc::clone(&file)) {
                Ok(log) if log.number() != number => return Err(OpenError::Foreign { log: number }),
                Err(HeadError::Io(source)) => {
                    return Err(OpenError::Io { doing: "reading a log file", source });
                }
                Err(HeadError::Version(got)) => {
                    return Err(OpenError::UnsupportedVersion {
                        log: number,
                        got,
                        supported: FORMAT_VERSION,
                    });
                }
                // Without records there is nothing to lose, and a crash may have left half a header.
                _ if Some(number) == newest && len <= RECORDS_START => unfinished = Some(file),
                Err(HeadError::Damaged) => damage.push(Damage { log: number, range: 0..len }),
                Ok(log) => {
                    files.insert(number, Arc::new(log));
                }
            }
        }
        let store = match files.values().next() {
            Some(log) => log.head.store,
            None => disk.random().map_err(OpenError::io("drawing random bytes"))?,
        };
        if let Some((&log, _)) = files.iter().find(|(_, log)| log.head.store != store) {
            return Err(OpenError::Foreign { log });
        }
        let mut logs = Self { store, files, damage };
        logs.provide_newest(disk, newest, unfinished).map_err(OpenError::io("starting a log file"))?;
        Ok(logs)
    }

    /// Finishes the newest file if a crash left it without header; starts one if there is none to write to.
    fn provide_newest(
        &mut self,
        disk: &dyn Disk,
        newest: Option<LogNumber>,
        unfinished: Option<Arc<dyn crate::disk::DiskFile>>,
    ) -> io::Result<()> {
        let log = match (newest, unfinished) {
            (Some(number), Some(file)) => {
                let log = LogFile::begin(disk, file, number, self.store)?;
                disk.sync_dir()?;
                log
            }
            (Some(number), None) if self.files.contains_key(&number) => {
                // A crash may have come between the creation of its name and the sync of the directory.
                return disk.sync_dir();
            }
            (newest, _) => LogFile::create(disk, newest.map_or(LogNumber(1), LogNumber::next), self.store)?,
        };
        self.files.insert(log.number(), Arc::new(log));
        Ok(())
    }

    /// The newest file.
    fn newest(&self) -> LogNumber {
        self.files.last_key_value().map_or(LogNumber(1), |(number, _)| *number)
    }

    /// Length of a file, if it is there.
    fn len(&self, log: LogNumber) -> Option<u64> {
        self.files.get(&log).and_then(|log| log.file.len().ok())
    }
}

/// The index's summary, if the index can be taken on from there.
fn usable_summary(index: &dyn Index, logs: &Logs) -> Result<Summary, Rebuild> {
    let summary = index.summary().map_err(|_| Rebuild::Failed)?.ok_or(Rebuild::Empty)?;
    let newest = logs.newest();
    let is_ahead = |at: Position| at.log > newest || logs.len(at.log).is_some_and(|len| at.offset > len);
    if summary.store != logs.store {
        Err(Rebuild::Foreign)
    } else if is_ahead(summary.checkpoint) || is_ahead(summary.applied) {
        Err(Rebuild::Disagrees)
    } else {
        Ok(summary)
    }
}

/// Empties the index, unless it is.
fn empty(index: &dyn Index) -> Result<(), IndexError> {
    let is_empty =
        matches!(index.summary(), Ok(None)) && index.scan(b"", None, 1).is_ok_and(|page| page.is_empty());
    if is_empty { Ok(()) } else { index.reset() }
}

/// Why filling the index ended early.
#[derive(Debug)]
enum FillError {
    Io(io::Error),
    Index(IndexError),
    Disagrees,
}

impl From<io::Error> for FillError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<IndexError> for FillError {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

impl FillError {
    /// What to tell when there is nothing left to try.
    fn last(self) -> OpenError {
        match self {
            Self::Io(source) => OpenError::Io { doing: "recovering a log file", source },
            Self::Index(error) => OpenError::Index(error),
            Self::Disagrees => OpenError::Index(IndexError::Damaged),
        }
    }
}

/// An index that knows every record.
struct Filled {
    summary: Summary,
    usage: Usage,
    /// Where the newest log file ends.
    end: u64,
    replayed: u64,
    damage: Vec<Damage>,
    torn_bytes: u64,
}

impl Filled {
    /// Replays the logs into the index from the checkpoint of `known`, or from the start, and checks the outcome.
    fn fill(index: &dyn Index, logs: &Logs, known: Option<Summary>) -> Result<Self, FillError> {
        let start = Position { log: LogNumber(0), offset: RECORDS_START };
        let unknown = Summary { store: logs.store, checkpoint: start, applied: start, n_entries: 0 };
        let mut filler =
            Filler { index, logs, summary: known.unwrap_or(unknown), changes: BTreeMap::new(), replayed: 0 };
        let known = filler.summary;
        let (mut damage, mut torn_bytes, mut end) = (Vec::new(), 0, RECORDS_START);
        for (&number, log) in logs.files.range(known.checkpoint.log..) {
            let at =
                |position: Position| if position.log == number { position.offset } else { RECORDS_START };
            let bounds = Bounds { from: at(known.checkpoint), proven: at(known.applied) };
            let found = replay(log, bounds, number == logs.newest(), |header| filler.take(number, header))?;
            damage.extend(found.damage.into_iter().map(|range| Damage { log: number, range }));
            torn_bytes += found.torn_bytes;
            end = found.end;
        }
        filler.apply()?;
        let usage = check(index, logs, filler.summary.n_entries)?;
        let mut summary = filler.summary;
        index.flush()?;
        summary.applied = Position { log: logs.newest(), offset: end };
        summary.checkpoint = summary.applied;
        index.apply(&[], &summary)?;
        Ok(Self { summary, usage, end, replayed: filler.replayed, damage, torn_bytes })
    }
}

/// Takes records in the order of the log.
struct Filler<'a> {
    index: &'a dyn Index,
    logs: &'a Logs,
    summary: Summary,
    /// Not yet applied.
    changes: BTreeMap<Key, Option<Entry>>,
    replayed: u64,
}

impl Filler<'_> {
    /// Notes what a record means for the index.
    fn take(&mut self, log: LogNumber, header: Header) -> Result<(), FillError> {
        let Header { kind, key, payload_len, offset, prior, .. } = header;
        let prior = prior.within(self.logs.files.keys().copied());
        let kind = match kind {
            Kind::Put => EntryKind::Put,
            Kind::Tombstone => EntryKind::Tombstone,
            Kind::Mark => return Ok(()),
        };
        let is_needed = kind == EntryKind::Put || !prior.is_none();
        let entry = is_needed.then_some(Entry { kind, log, offset, payload_len, prior });
        let before = match self.changes.get(&key) {
            Some(entry) => entry.is_some(),
            None => self.index.get(&key)?.is_some(),
        };
        self.replayed += 1;
        self.summary.n_entries = self.summary.n_entries.saturating_add(u64::from(entry.is_some()));
        self.summary.n_entries = self.summary.n_entries.saturating_sub(u64::from(before));
        self.changes.insert(key, entry);
        if self.changes.len() >= PAGE { self.apply() } else { Ok(()) }
    }

    /// Applies what was noted. The checkpoint stays, so that a crash during recovery only repeats it.
    fn apply(&mut self) -> Result<(), FillError> {
        let changes: Vec<_> = std::mem::take(&mut self.changes).into_iter().collect();
        Ok(self.index.apply(&changes, &self.summary)?)
    }
}

/// Checks that every entry lies within a log file and that none is missing, and adds up what is needed of each.
fn check(index: &dyn Index, logs: &Logs, n_entries: u64) -> Result<Usage, FillError> {
    let mut usage = Usage::default();
    for (&number, log) in &logs.files {
        usage.set_bytes(number, log.file.len()?);
    }
    let (mut n_found, mut after) = (0, None::<Key>);
    loop {
        let page = index.scan(b"", after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (_, entry) in &page {
            let end = entry.offset.checked_add(entry.record_bytes());
            if end.is_none_or(|end| end > usage.log(entry.log).bytes) {
                return Err(FillError::Disagrees);
            }
            usage.add(entry);
        }
        n_found += to_u64(page.len());
    }
    if n_found == n_entries { Ok(usage) } else { Err(FillError::Disagrees) }
}
