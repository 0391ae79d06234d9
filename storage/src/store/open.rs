//! Opening: find the log files, decide whether the index can be believed, and bring it up to date.

use std::sync::{Arc, Mutex, OnceLock, RwLock};

use super::{
    Config, Store,
    fill::{FillError, Filled},
    logs::Logs,
    write::Writer,
};
use crate::{
    disk::Disk,
    error::OpenError,
    index::{Index, IndexError, Position, Summary},
    log::RECORDS_START,
    report::{OpenReport, Rebuild},
    size::to_u64,
};

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
        is_sealed: filled.is_sealed,
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
