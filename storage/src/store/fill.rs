//! Bringing an index up to date with the logs, and checking the outcome.

use std::{collections::BTreeMap, io};

use super::{logs::Logs, usage::Usage};
use crate::{
    error::OpenError,
    index::{Entry, EntryKind, Index, IndexError, Position, Summary},
    key::Key,
    log::{Bounds, Header, Kind, LogNumber, RECORDS_START, replay},
    report::Damage,
    size::to_u64,
};

/// Changes applied to the index at once, and entries checked at once.
const PAGE: usize = 1024;

/// Why filling the index ended early.
#[derive(Debug)]
pub(super) enum FillError {
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
    pub(super) fn last(self) -> OpenError {
        match self {
            Self::Io(source) => OpenError::Io { doing: "recovering a log file", source },
            Self::Index(error) => OpenError::Index(error),
            Self::Disagrees => OpenError::Index(IndexError::Damaged),
        }
    }
}

/// An index that knows every record.
pub(super) struct Filled {
    pub(super) summary: Summary,
    pub(super) usage: Usage,
    /// Where the newest log file ends.
    pub(super) end: u64,
    pub(super) replayed: u64,
    pub(super) damage: Vec<Damage>,
    pub(super) torn_bytes: u64,
    /// Nothing may be appended to the newest log file.
    pub(super) is_sealed: bool,
}

impl Filled {
    /// Replays the logs into the index from the checkpoint of `known`, or from the start, and checks the outcome.
    pub(super) fn fill(index: &dyn Index, logs: &Logs, known: Option<Summary>) -> Result<Self, FillError> {
        let start = Position { log: LogNumber(0), offset: RECORDS_START };
        let unknown = Summary { store: logs.store, checkpoint: start, applied: start, n_entries: 0 };
        let mut filler =
            Filler { index, logs, summary: known.unwrap_or(unknown), changes: BTreeMap::new(), replayed: 0 };
        let known = filler.summary;
        let (mut damage, mut torn_bytes, mut end, mut is_sealed) = (Vec::new(), 0, RECORDS_START, false);
        for (&number, log) in logs.files.range(known.checkpoint.log..) {
            let at =
                |position: Position| if position.log == number { position.offset } else { RECORDS_START };
            let bounds = Bounds { from: at(known.checkpoint), proven: at(known.applied) };
            let found = replay(log, bounds, number == logs.newest(), |header| filler.take(number, header))?;
            damage.extend(found.damage.into_iter().map(|range| Damage { log: number, range }));
            torn_bytes += found.torn_bytes;
            (end, is_sealed) = (found.end, found.is_searched);
        }
        filler.apply()?;
        let usage = check(index, logs, filler.summary.n_entries)?;
        let mut summary = filler.summary;
        index.flush()?;
        summary.applied = Position { log: logs.newest(), offset: end };
        if !is_sealed {
            summary.checkpoint = summary.applied;
        }
        index.apply(&[], &summary)?;
        Ok(Self { summary, usage, end, replayed: filler.replayed, damage, torn_bytes, is_sealed })
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
