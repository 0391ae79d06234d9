//! How many bytes of each log file are still needed.

use std::collections::BTreeMap;

use crate::{
    index::{Entry, EntryKind},
    log::LogNumber,
    report::Stats,
};

/// One log file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogUsage {
    /// Length of the file.
    pub(super) bytes: u64,
    /// Bytes of the records the index refers to.
    pub(super) live: u64,
}

/// All log files.
#[derive(Debug, Default)]
pub(super) struct Usage {
    logs: BTreeMap<LogNumber, LogUsage>,
    /// Entries that are puts.
    records: u64,
}

impl Usage {
    /// Sets the length of a file, which becomes known if it was not.
    pub(super) fn set_bytes(&mut self, log: LogNumber, bytes: u64) {
        self.logs.entry(log).or_default().bytes = bytes;
    }

    /// The index refers to this record now.
    pub(super) fn add(&mut self, entry: &Entry) {
        let log = self.logs.entry(entry.log).or_default();
        log.live = log.live.saturating_add(entry.record_bytes());
        self.records += u64::from(entry.kind == EntryKind::Put);
    }

    /// The index no longer refers to this record.
    pub(super) fn subtract(&mut self, entry: &Entry) {
        if let Some(log) = self.logs.get_mut(&entry.log) {
            log.live = log.live.saturating_sub(entry.record_bytes());
        }
        self.records = self.records.saturating_sub(u64::from(entry.kind == EntryKind::Put));
    }

    /// The file is gone.
    pub(super) fn remove(&mut self, log: LogNumber) {
        self.logs.remove(&log);
    }

    /// One file.
    pub(super) fn log(&self, log: LogNumber) -> LogUsage {
        self.logs.get(&log).copied().unwrap_or_default()
    }

    /// All files with their usage, oldest first.
    pub(super) fn logs(&self) -> impl Iterator<Item = (LogNumber, LogUsage)> {
        self.logs.iter().map(|(log, usage)| (*log, *usage))
    }

    /// The sums.
    pub(super) fn stats(&self, free_bytes: u64) -> Stats {
        Stats {
            records: self.records,
            live_bytes: self.logs.values().map(|log| log.live).sum(),
            log_bytes: self.logs.values().map(|log| log.bytes).sum(),
            n_logs: crate::size::to_u64(self.logs.len()),
            free_bytes,
        }
    }
}
