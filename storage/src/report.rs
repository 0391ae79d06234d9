//! What the store tells about itself.

use std::ops::Range;

use crate::log::LogNumber;

/// What opening a store found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Records that can be read.
    pub records: u64,
    /// Log files.
    pub n_logs: u64,
    /// Records read from the logs because the index did not know them yet.
    pub replayed: u64,
    /// Why the index was built anew from all logs, if it was. An empty store reports [`Rebuild::Empty`].
    pub rebuilt: Option<Rebuild>,
    /// Bytes of unacknowledged writes cut off the newest log file.
    pub torn_bytes: u64,
    /// Parts of log files that hold no readable record although they were once durable. Records in them are gone
    /// and must be fetched elsewhere. Payloads are not read at open, so a damaged payload is found by
    /// [`crate::Store::verify`].
    pub damage: Vec<Damage>,
}

/// Why an index was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuild {
    /// It holds nothing: new, lost, moved aside as unreadable, or kept in memory only.
    Empty,
    /// It belongs to another store.
    Foreign,
    /// It speaks of log files or records that do not exist.
    Disagrees,
    /// It failed or panicked while it was read.
    Failed,
}

/// Bytes of a log file that hold no readable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The log file.
    pub log: LogNumber,
    /// The bytes in it.
    pub range: Range<u64>,
}

/// How full the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records that can be read.
    pub records: u64,
    /// Bytes the needed records take in the logs, headers and tombstones included.
    pub live_bytes: u64,
    /// Total length of the log files, punched holes included.
    pub log_bytes: u64,
    /// Log files.
    pub n_logs: u64,
    /// Bytes free on the disk, the reserve included.
    pub free_bytes: u64,
}

/// What one call of [`crate::Store::compact`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Bytes of records copied to the newest log file.
    pub copied_bytes: u64,
    /// Total length of the log files removed.
    pub removed_bytes: u64,
    /// Log files removed.
    pub removed_logs: u64,
    /// Log files that could not be removed because a needed record in them is damaged.
    pub damaged_logs: u64,
}
