//! The store: what callers see.
//!
//! ```text
//! write: checksums | lock the writer | append, sync | index | acknowledge | punch what died
//! read:  index | read and verify | if that failed, look whether the record moved meanwhile
//! ```
//!
//! # Invariants
//! - A record is in the index only after it is durable, so no reader sees what a crash could take back.
//! - After a failed write or sync of the disk or the index the store accepts no further write.
//! - Locks are taken in the order `compacting`, `writer`, `logs` or `usage`; the last two are never held over I/O.

mod batch;
mod compact;
mod fill;
mod logs;
mod open;
mod read;
mod usage;
mod write;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
};

use bytes::Bytes;

use self::{usage::Usage, write::Writer};
use crate::{
    disk::Disk,
    error::{OpenError, ReadError, WriteError},
    index::Index,
    key::Key,
    log::{LogFile, LogNumber},
    report::{OpenReport, Stats},
};

/// The most bytes one batch may take: a batch is written in one piece.
const MAX_BATCH_BYTES: u64 = 1 << 30;

/// How a store behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// A new log file is started before one would exceed this. Larger files are cheaper to open, smaller ones
    /// cheaper to compact.
    pub log_bytes: u64,
    /// Puts are refused when fewer bytes would stay free. Deletes and compaction may use the reserve, since they
    /// are what makes room; so do the index and everything else on the disk.
    pub reserve_bytes: u64,
    /// The index is flushed after this many bytes of records: what a restart has to read again at most.
    pub checkpoint_bytes: u64,
    /// Log files with less than this share of needed bytes are compacted, in percent.
    pub compact_below_percent: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_bytes: 256 << 20,
            reserve_bytes: 1 << 30,
            checkpoint_bytes: 64 << 20,
            compact_below_percent: 50,
        }
    }
}

/// One change to the store.
#[derive(Clone, Debug)]
pub enum Write {
    /// Stores the payload, in place of an earlier one of this key.
    Put {
        /// The name of the record.
        key: Key,
        /// At most [`MAX_PAYLOAD_BYTES`](crate::MAX_PAYLOAD_BYTES).
        payload: Bytes,
    },
    /// Removes the record of this key, if there is one.
    Delete {
        /// The name of the record.
        key: Key,
    },
}

/// A durable store of records. Share it by reference or `Arc`; dropping it flushes the index.
pub struct Store {
    disk: Arc<dyn Disk>,
    index: Box<dyn Index>,
    config: Config,
    /// Drawn when the store was created; its log files and its index name it.
    id: [u8; 16],
    /// The readable log files. INV: never empty; the last is the one written to.
    logs: RwLock<BTreeMap<LogNumber, Arc<LogFile>>>,
    usage: Mutex<Usage>,
    writer: Mutex<Writer>,
    compacting: Mutex<()>,
    /// What was being done when the store failed.
    failed: OnceLock<&'static str>,
}

impl Store {
    /// Opens the store in `disk`, creating it if the directory holds no log file, and brings the index up to date.
    ///
    /// # Errors
    /// [`OpenError`]; trying again, also after a crash in between, is harmless.
    pub fn open(
        disk: Arc<dyn Disk>,
        index: Box<dyn Index>,
        config: Config,
    ) -> Result<(Self, OpenReport), OpenError> {
        open::open(disk, index, config)
    }

    /// Makes the changes, in order, and returns once they are durable. Group changes: a batch costs one sync.
    ///
    /// After a crash before this returned, the first few records of the batch may be stored, each wholly or not at
    /// all; after an error other than [`WriteError::Failed`], none is.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write(&self, batch: Vec<Write>) -> Result<(), WriteError> {
        self.write_batch(batch)
    }

    /// Flushes the index, so that the next opening has little to read. Happens by itself every
    /// [`Config::checkpoint_bytes`] and on drop.
    ///
    /// # Errors
    /// [`WriteError::Full`] changes nothing; anything else closes the store for writing.
    pub fn checkpoint(&self) -> Result<(), WriteError> {
        let mut writer = self.lock_writer()?;
        self.mark(&mut writer)?;
        self.flush_index(&mut writer)
    }

    /// The settings that it was opened with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How full the store is.
    ///
    /// # Errors
    /// [`ReadError::Io`] if the disk does not tell its free space.
    pub fn stats(&self) -> Result<Stats, ReadError> {
        let free_bytes = self.disk.free_bytes()?;
        Ok(self.lock_usage().stats(free_bytes))
    }

    /// What was being done when the store failed and was closed for writing, if it was.
    pub fn failed(&self) -> Option<&'static str> {
        self.failed.get().copied()
    }

    /// Closes the store for writing.
    fn fail(
        &self,
        doing: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> WriteError {
        self.failed.get_or_init(|| doing);
        WriteError::Failed { doing, source: source.into() }
    }

    /// The writer's lock, unless the store has failed. A thread that panicked while it held the lock counts.
    fn lock_writer(&self) -> Result<std::sync::MutexGuard<'_, Writer>, WriteError> {
        let guard = self.writer.lock();
        let panicked = guard.is_err().then(|| *self.failed.get_or_init(|| "writing (panicked)"));
        match self.failed().or(panicked) {
            Some(doing) => Err(WriteError::Poisoned { doing }),
            None => Ok(guard.unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn lock_usage(&self) -> std::sync::MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log file of this number, if it is there and readable.
    fn log(&self, number: LogNumber) -> Option<Arc<LogFile>> {
        self.logs.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// The log file written to.
    ///
    /// # Panics
    /// Never: there is always one.
    fn active(&self) -> Arc<LogFile> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(logs.last_key_value().expect("a store has at least one log file").1)
    }

    /// The readable log files.
    fn log_numbers(&self) -> Vec<LogNumber> {
        self.logs.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("disk", &self.disk)
            .field("logs", &self.log_numbers())
            .field("failed", &self.failed())
            .finish_non_exhaustive()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.failed().is_none()
            && let Err(error) = self.checkpoint()
        {
            // Costs the next opening some reading, nothing else.
            tracing::debug!(error = %error, "store closed without a checkpoint");
        }
    }
}
