//! Why an operation of the store failed: one enum per operation.

use std::io;

use crate::{index::IndexError, log::LogNumber};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it could not be read or written.
    #[error("while {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// A log file is of a newer format; opening it could only destroy it.
    #[error("log file {log} has format version {got}, this program reads version {supported}")]
    UnsupportedVersion {
        /// The log file.
        log: LogNumber,
        /// The version its header names.
        got: u32,
        /// The version this program writes.
        supported: u32,
    },
    /// A log file is intact, but was written by another store or under another name.
    #[error("log file {log} was written by another store or renamed: move it away or restore the right one")]
    Foreign {
        /// The log file.
        log: LogNumber,
    },
    /// The index failed even when it was built from nothing.
    #[error("while rebuilding the index")]
    Index(#[from] IndexError),
}

impl OpenError {
    /// For `map_err`: an I/O error and what was being done.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// Why a write was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No room. Nothing was stored, everything stored before is kept, and writes work again once there is room.
    #[error("disk full: {needed} bytes needed, {free} free beyond the reserve")]
    Full {
        /// Bytes the batch takes in the log.
        needed: u64,
        /// Bytes free beyond the reserve when last looked.
        free: u64,
    },
    /// A payload or the whole batch is too large. Nothing was stored.
    #[error("{got} bytes exceed the limit of {max}")]
    TooLarge {
        /// Bytes offered.
        got: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// The disk or the index failed, so what is durable is no longer known. The store accepts no further write:
    /// restart the process, and recovery will decide.
    #[error("storage failed while {doing}: restart the node")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An earlier failure closed the store for writing.
    #[error("storage is closed for writing since it failed while {doing}: restart the node")]
    Poisoned {
        /// What was being done when it failed.
        doing: &'static str,
    },
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no record of this key.
    #[error("no such record")]
    NotFound,
    /// The range does not lie within the record.
    #[error("range exceeds the record of {len} bytes")]
    OutOfRange {
        /// Length of the payload.
        len: u64,
    },
    /// The record is there, but the disk gave back other bytes than were stored. Delete it and fetch it elsewhere.
    #[error("record at byte {offset} of log file {log} is damaged: {what}")]
    Corrupt {
        /// The log file.
        log: LogNumber,
        /// Where the record begins in it.
        offset: u64,
        /// Which part does not match its checksum.
        what: &'static str,
    },
    /// The disk failed.
    #[error("while reading a log file")]
    Io(#[from] io::Error),
    /// The index failed. What it would have answered is unknown, which is not the same as absent.
    #[error("while reading the index")]
    Index(#[from] IndexError),
}
