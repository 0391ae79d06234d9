//! One directory of files, as little of a file system as the store needs.
//!
//! [`RealDisk`] is the operating system's, `SimulatedDisk` (feature `simulated`) an in-memory one that crashes, tears writes, runs full
//! and flips bits on demand.
//!
//! # Invariants
//! - Nothing is durable before [`DiskFile::sync`] (contents and length) and [`Disk::sync_dir`] (names). Until then
//!   a crash may keep any part of it, in any order.
//! - After a failed sync the state of the file is unknown; the caller must not try again but stop.

mod real;
#[cfg(feature = "simulated")]
mod simulated;

use std::{
    fmt::Debug,
    io::{self, IoSlice},
    ops::Range,
    sync::Arc,
};

pub use real::{LockError, RealDisk};
#[cfg(feature = "simulated")]
pub use simulated::SimulatedDisk;

/// One directory.
pub trait Disk: Debug + Send + Sync {
    /// Creates an empty file that did not exist.
    ///
    /// # Errors
    /// The operating system's; `AlreadyExists` if it does.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// The operating system's; `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// The names of all files, in no particular order.
    ///
    /// # Errors
    /// The operating system's.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Removes a file; open handles go on working.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations and removals durable.
    ///
    /// # Errors
    /// The operating system's. Fatal: what is durable is unknown from here on.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes that may still be written.
    ///
    /// # Errors
    /// The operating system's.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Unpredictable bytes, from the seed in a simulation.
    ///
    /// # Errors
    /// The operating system's.
    fn random(&self) -> io::Result<[u8; 16]>;
}

/// One open file. Every method may be called from several threads at once.
pub trait DiskFile: Debug + Send + Sync {
    /// Writes the parts one after another at `offset`, extending the file as needed.
    ///
    /// # Errors
    /// The operating system's; `StorageFull` or `QuotaExceeded` when there is no room. Part may have been written.
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// The operating system's; `UnexpectedEof` if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Makes contents and length durable.
    ///
    /// # Errors
    /// The operating system's. Fatal: what is durable is unknown, and a second sync could falsely succeed.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    ///
    /// # Errors
    /// As [`DiskFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Gives the bytes back to the file system; they read as zeros afterwards and the length stays.
    ///
    /// # Errors
    /// The operating system's; `Unsupported` where the file system cannot. The contents are then unchanged.
    fn punch_hole(&self, range: Range<u64>) -> io::Result<()>;
}
