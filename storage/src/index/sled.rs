//! An index on disk, in sled.
//!
//! Measured on sled 0.34.7: its flush does not reach the disk on its own (hence the sync of its `db` file here), a
//! value of many kilobytes goes to files that are never synced (hence only values far below 256 bytes), and after a
//! power cut it may open as an older database, fail, or panic (hence every call is caught, and nothing depends on
//! it but speed).

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::RwLock,
};

use super::{Change, Entry, Index, IndexError, Summary};
use crate::key::Key;

/// Where the summary lies. Keys of entries have a 1 in front.
const SUMMARY: &[u8] = &[0];

/// The default of 1 GiB would be most of a small node's memory.
const CACHE_BYTES: u64 = 64 << 20;

/// A sled database in a directory of its own.
#[derive(Debug)]
pub struct SledIndex {
    directory: PathBuf,
    /// `None` after a failed reset.
    database: RwLock<Option<sled::Db>>,
}

impl SledIndex {
    /// Opens the database in `directory`. One that cannot be opened is moved aside to `<directory>.broken` and
    /// replaced by an empty one, which the store then fills from its logs. Take the store's directory first (see
    /// [`RealDisk`](crate::disk::RealDisk)): a database in use by another process looks broken, too.
    ///
    /// # Errors
    /// [`IndexError`] if an empty one cannot be created either.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, IndexError> {
        let directory = directory.into();
        let database = match open(&directory) {
            Ok(database) => database,
            Err(_) => {
                move_aside(&directory)?;
                open(&directory)?
            }
        };
        Ok(Self { directory, database: RwLock::new(Some(database)) })
    }

    /// Runs `call` on the database; a panic inside becomes an error.
    fn with<T>(&self, call: impl FnOnce(&sled::Db) -> Result<T, IndexError>) -> Result<T, IndexError> {
        let guard = self.database.read().map_err(|_| IndexError::Panicked)?;
        let database = guard.as_ref().ok_or(IndexError::Panicked)?;
        guarded(|| call(database))
    }
}

/// Turns a panic into an error.
fn guarded<T>(call: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(IndexError::Panicked))
}

/// Opens a database.
fn open(directory: &Path) -> Result<sled::Db, IndexError> {
    guarded(|| {
        sled::Config::new()
            .path(directory)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(Some(500))
            .open()
            .map_err(IndexError::failed)
    })
}

/// Renames the directory, replacing what was moved aside before.
fn move_aside(directory: &Path) -> Result<(), IndexError> {
    let mut aside = directory.as_os_str().to_owned();
    aside.push(".broken");
    let aside = PathBuf::from(aside);
    for stale in [std::fs::remove_dir_all(&aside), std::fs::remove_file(&aside)] {
        // Usually there is none; if it is in the way, the rename says so.
        stale.ok();
    }
    match std::fs::rename(directory, aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(IndexError::failed(error)),
        _ => Ok(()),
    }
}

fn stored(key: &[u8]) -> Vec<u8> {
    [&[1], key].concat()
}

/// What the database holds under `key`, which still has its 1 in front.
fn decode(key: &[u8], value: &[u8]) -> Result<(Key, Entry), IndexError> {
    let key = key.strip_prefix(&[1]).ok_or(IndexError::Damaged)?;
    let key = Key::new(key.to_vec()).map_err(|_| IndexError::Damaged)?;
    let entry = Entry::decode(&key, value).ok_or(IndexError::Damaged)?;
    Ok((key, entry))
}

impl Index for SledIndex {
    fn get(&self, key: &Key) -> Result<Option<Entry>, IndexError> {
        self.with(|database| {
            let value = database.get(stored(key.as_bytes())).map_err(IndexError::failed)?;
            value.map(|value| Entry::decode(key, &value).ok_or(IndexError::Damaged)).transpose()
        })
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Entry)>, IndexError> {
        let mut start = stored(prefix);
        let after = after.map(|after| stored(after.as_bytes()));
        if let Some(after) = after.as_ref().filter(|after| **after > start) {
            start.clone_from(after);
        }
        self.with(|database| {
            let mut entries = Vec::new();
            for item in database.range(start..) {
                let (key, value) = item.map_err(IndexError::failed)?;
                if entries.len() >= limit || !key.starts_with(&stored(prefix)) {
                    break;
                }
                if after.as_deref() != Some(key.as_ref()) {
                    entries.push(decode(&key, &value)?);
                }
            }
            Ok(entries)
        })
    }

    fn apply(&self, changes: &[Change], summary: &Summary) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        for (key, entry) in changes {
            match entry {
                Some(entry) => batch.insert(stored(key.as_bytes()), entry.encode(key)),
                None => batch.remove(stored(key.as_bytes())),
            }
        }
        batch.insert(SUMMARY, summary.encode());
        self.with(|database| database.apply_batch(batch).map_err(IndexError::failed))
    }

    fn summary(&self) -> Result<Option<Summary>, IndexError> {
        self.with(|database| {
            let value = database.get(SUMMARY).map_err(IndexError::failed)?;
            value.map(|value| Summary::decode(&value).ok_or(IndexError::Damaged)).transpose()
        })
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.with(|database| {
            database.flush().map_err(IndexError::failed)?;
            let file = File::open(self.directory.join("db")).map_err(IndexError::failed)?;
            file.sync_data().map_err(IndexError::failed)
        })
    }

    fn reset(&self) -> Result<(), IndexError> {
        let mut guard = self.database.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let old = guard.take();
        guarded(|| {
            drop(old);
            Ok(())
        })
        .ok();
        self.database.clear_poison();
        move_aside(&self.directory)?;
        *guard = Some(open(&self.directory)?);
        Ok(())
    }
}
