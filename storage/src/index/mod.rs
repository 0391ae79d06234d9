//! Where the newest record of each key lies.
//!
//! An index is never the only copy of anything: [`crate::Store`] compares it with the logs when it opens, and on any
//! failure, panic or disagreement calls [`Index::reset`] and fills it again from the logs.
//!
//! # Invariants
//! - Changes are applied after the records they speak of are durable, in the order of the log.
//! - One call of [`Index::apply`] is atomic: [`Summary::n_entries`] counts the entries of the same moment.

mod entry;
mod memory;
mod sled;

use std::fmt::Debug;

pub use entry::{Entry, EntryKind, Position, Summary};
pub use memory::MemoryIndex;

pub use self::sled::SledIndex;
use crate::key::Key;

/// Why an index could not answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database or the disk below it failed.
    #[error("the index failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database panicked; it is not used again before it was reset.
    #[error("the index panicked")]
    Panicked,
    /// Something in it is not what this crate stored.
    #[error("the index holds a damaged entry")]
    Damaged,
}

impl IndexError {
    /// For `map_err`: any error of the implementation.
    pub(crate) fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }
}

/// One change to the index: the new entry of a key, or none.
pub type Change = (Key, Option<Entry>);

/// An ordered map from keys to entries, with a summary beside it.
pub trait Index: Debug + Send + Sync {
    /// The entry of a key.
    ///
    /// # Errors
    /// [`IndexError`] if it cannot be told.
    fn get(&self, key: &Key) -> Result<Option<Entry>, IndexError>;

    /// Up to `limit` entries whose key starts with `prefix` and is greater than `after`, in key order.
    ///
    /// # Errors
    /// [`IndexError`] if they cannot be told.
    fn scan(&self, prefix: &[u8], after: Option<&Key>, limit: usize)
    -> Result<Vec<(Key, Entry)>, IndexError>;

    /// Applies the changes and replaces the summary, atomically. Not durable before [`Index::flush`].
    ///
    /// # Errors
    /// [`IndexError`] if it may not have been applied.
    fn apply(&self, changes: &[Change], summary: &Summary) -> Result<(), IndexError>;

    /// The summary last applied, `None` in an empty index.
    ///
    /// # Errors
    /// [`IndexError`] if it cannot be told.
    fn summary(&self) -> Result<Option<Summary>, IndexError>;

    /// Makes everything applied durable.
    ///
    /// # Errors
    /// [`IndexError`] if it may not be.
    fn flush(&self) -> Result<(), IndexError>;

    /// Empties the index, keeping what was in it aside for a look if it is on a disk.
    ///
    /// # Errors
    /// [`IndexError`] if that failed.
    fn reset(&self) -> Result<(), IndexError>;
}
