//! Reading, beside a writer.

use std::ops::Range;

use bytes::Bytes;

use super::Store;
use crate::{
    error::ReadError,
    index::{Entry, EntryKind},
    key::Key,
    log::Fault,
    size::to_u64,
};

/// Bytes verified at a step, so that a scrub needs little memory.
const VERIFY_BYTES: u64 = 1 << 20;

/// Index entries fetched at a step.
const PAGE: usize = 256;

impl Store {
    /// Reads a range of a record. Every 64 KiB block that the range touches is verified.
    ///
    /// # Errors
    /// [`ReadError::NotFound`], [`ReadError::OutOfRange`] unless `start <= end <= len`, [`ReadError::Corrupt`] if
    /// what is on the disk is not what was stored, or a failure of the disk or the index.
    pub fn read(&self, key: &Key, range: Range<u64>) -> Result<Bytes, ReadError> {
        let mut entry = self.put_entry(key)?.ok_or(ReadError::NotFound)?;
        loop {
            let len = u64::from(entry.payload_len);
            if range.start > range.end || range.end > len {
                return Err(ReadError::OutOfRange { len });
            }
            let fault = match self.log(entry.log) {
                Some(log) => match log.read(key, &entry, range.clone()) {
                    Ok(bytes) => return Ok(bytes),
                    Err(fault) => fault,
                },
                None => Fault::Corrupt("its log file is gone"),
            };
            // A writer may have deleted, replaced or moved it meanwhile. Each turn takes such a write.
            let now = self.put_entry(key)?.ok_or(ReadError::NotFound)?;
            if now == entry {
                return Err(match fault {
                    Fault::Io(source) => ReadError::Io(source),
                    Fault::Corrupt(what) => ReadError::Corrupt { log: entry.log, offset: entry.offset, what },
                });
            }
            entry = now;
        }
    }

    /// Reads a whole record.
    ///
    /// # Errors
    /// As [`Store::read`]; [`ReadError::OutOfRange`] only if it is replaced by a shorter one at the same moment.
    pub fn read_all(&self, key: &Key) -> Result<Bytes, ReadError> {
        let len = self.len(key)?.ok_or(ReadError::NotFound)?;
        self.read(key, 0..len)
    }

    /// Reads a whole record and forgets it, in little memory: for scrubbing. Returns its length.
    ///
    /// # Errors
    /// As [`Store::read_all`].
    pub fn verify(&self, key: &Key) -> Result<u64, ReadError> {
        let len = self.len(key)?.ok_or(ReadError::NotFound)?;
        let mut at = 0_u64;
        loop {
            let end = at.saturating_add(VERIFY_BYTES).min(len);
            self.read(key, at..end)?;
            if end == len {
                return Ok(len);
            }
            at = end;
        }
    }

    /// Length of a record's payload, `None` if there is no such record. Does not touch the logs.
    ///
    /// # Errors
    /// [`ReadError::Index`].
    pub fn len(&self, key: &Key) -> Result<Option<u64>, ReadError> {
        Ok(self.put_entry(key)?.map(|entry| u64::from(entry.payload_len)))
    }

    /// Whether there is a record of this key. Does not touch the logs.
    ///
    /// # Errors
    /// [`ReadError::Index`].
    pub fn contains(&self, key: &Key) -> Result<bool, ReadError> {
        Ok(self.put_entry(key)?.is_some())
    }

    /// Up to `limit` keys that start with `prefix` and are greater than `after`, in order, with the length of their
    /// payload. To go on, pass the last key as `after`; fewer than `limit` means that there are no more.
    ///
    /// # Errors
    /// [`ReadError::Index`].
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, u64)>, ReadError> {
        let mut found = Vec::new();
        let mut after = after.cloned();
        while found.len() < limit {
            let page = self.index.scan(prefix, after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let puts = page.into_iter().filter(|(_, entry)| entry.kind == EntryKind::Put);
            let room = limit - found.len();
            found.extend(puts.take(room).map(|(key, entry)| (key, u64::from(entry.payload_len))));
        }
        Ok(found)
    }

    /// Number of records, without a scan.
    #[must_use]
    pub fn n_records(&self) -> u64 {
        self.lock_usage().stats(to_u64(0)).records
    }

    /// Where the payload of `key` lies, if it has one.
    fn put_entry(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        Ok(self.index.get(key)?.filter(|entry| entry.kind == EntryKind::Put))
    }
}
