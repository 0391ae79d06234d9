//! Getting room back from log files that are mostly no longer needed.

use std::sync::PoisonError;

use super::{Store, usage::LogUsage};
use crate::{
    error::WriteError,
    index::{Entry, EntryKind, IndexError},
    key::Key,
    log::{Content, Fault, Header, Item, Kind, LogFile, LogNumber, RECORDS_START, Scanner},
    report::Compaction,
};

/// Bytes copied with one sync. A batch this large costs little per byte and delays a write by milliseconds.
const GROUP_BYTES: u64 = 4 << 20;

/// Fewer bytes than this, or than a 64th of a log file, are not worth copying one for. The head of a file and the mark of a
/// batch are not needed by anyone, and in a small file they are a good part: two files that do not fit into one would be
/// copied for ever, each into a new one.
const WORTH_BYTES: u64 = 2 << 10;

/// Tombstones looked at with one lock of the writer.
const PAGE: usize = 256;

/// A needed record of a log file under compaction.
struct Needed {
    key: Key,
    entry: Entry,
    content: Content,
}

impl Store {
    /// Copies the needed records out of log files that are mostly not needed, and removes the files. Stops after
    /// about `budget` bytes were copied; what remains is done by the next call. Reads and writes go on meanwhile.
    ///
    /// # Errors
    /// [`WriteError::Full`] if there is no room for the copies and no file could be removed without, and those of
    /// [`Store::write`].
    pub fn compact(&self, budget: u64) -> Result<Compaction, WriteError> {
        let _one_at_a_time = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = Compaction::default();
        let active = self.active().number();
        let percent = u64::from(self.config.compact_below_percent);
        let worth = WORTH_BYTES.max(self.config.log_bytes / 64);
        let is_worth_it = |usage: &LogUsage| {
            let is_mostly_dead = usage.live.saturating_mul(100) < usage.bytes.saturating_mul(percent);
            usage.live == 0 || (is_mostly_dead && usage.bytes.saturating_sub(usage.live) >= worth)
        };
        let candidates: Vec<LogNumber> = self
            .lock_usage()
            .logs()
            .filter(|(log, usage)| *log < active && is_worth_it(usage))
            .map(|(log, _)| log)
            .collect();
        let mut full = None;
        for number in candidates {
            if done.copied_bytes >= budget {
                break;
            }
            match self.compact_log(number, budget, &mut done) {
                // What a later one gives back, which may need no copies at all, is room for this one.
                Err(error @ WriteError::Full { .. }) => full = Some(error),
                result => result?,
            }
        }
        if done.removed_logs > 0 {
            self.forget_tombstones()?;
        }
        full.filter(|_| done.removed_logs == 0).map_or(Ok(done), Err)
    }

    /// Copies what is needed of one log file and, if that was all of it, removes the file.
    fn compact_log(&self, number: LogNumber, budget: u64, done: &mut Compaction) -> Result<(), WriteError> {
        let Some(log) = self.log(number) else { return Ok(()) };
        let failed = |error| self.fail("reading a log file for compaction", error);
        let mut scanner = Scanner::new(&log, RECORDS_START).map_err(failed)?;
        let (mut group, mut group_bytes) = (Vec::new(), 0);
        while self.lock_usage().log(number).live > 0 && done.copied_bytes + group_bytes < budget {
            let Some(item) = scanner.next().map_err(failed)? else { break };
            let Item::Record(header) = item else { continue };
            let Some(needed) = self.needed(&log, header)? else { continue };
            group_bytes += needed.entry.record_bytes();
            group.push(needed);
            if group_bytes >= GROUP_BYTES {
                self.relocate(std::mem::take(&mut group), number)?;
                done.copied_bytes += std::mem::take(&mut group_bytes);
            }
        }
        self.relocate(group, number)?;
        done.copied_bytes += group_bytes;
        let usage = self.lock_usage().log(number);
        if usage.live == 0 {
            self.remove_log(number)?;
            done.removed_bytes += usage.bytes;
            done.removed_logs += 1;
        } else if done.copied_bytes < budget {
            // Everything readable was copied: what is left must stay to be answered with an error, not forgotten.
            done.damaged_logs += 1;
        }
        Ok(())
    }

    /// Reads a record of `log`, if the index refers to it and it can be read.
    fn needed(&self, log: &LogFile, header: Header) -> Result<Option<Needed>, WriteError> {
        if header.kind == Kind::Mark {
            return Ok(None);
        }
        let entry = self.index.get(&header.key).map_err(|error| self.unreadable(error))?;
        let here = |entry: &Entry| entry.log == log.number() && entry.offset == header.offset;
        let Some(entry) = entry.filter(here) else { return Ok(None) };
        match log.content(&header) {
            Ok(content) => Ok(Some(Needed { key: header.key, entry, content })),
            Err(Fault::Corrupt(_)) => Ok(None),
            Err(Fault::Io(error)) => Err(self.fail("reading a log file for compaction", error)),
        }
    }

    /// Copies records from `source` to the active log file, unless the index has stopped referring to them.
    fn relocate(&self, group: Vec<Needed>, source: LogNumber) -> Result<(), WriteError> {
        if group.is_empty() {
            return Ok(());
        }
        let mut writer = self.lock_writer()?;
        let bytes = group.iter().map(|needed| needed.entry.record_bytes()).sum();
        let mut batch = self.begin(&mut writer, bytes, 0)?;
        let logs = self.log_numbers();
        for Needed { key, entry, content } in group {
            let now = self.index.get(&key).map_err(|error| self.unreadable(error))?;
            if now != Some(entry) {
                continue;
            }
            match entry.kind {
                EntryKind::Put => {
                    // Until the source is gone it holds an older put of this key: the very same.
                    let prior = entry.prior.with(source).within(logs.iter().copied());
                    batch.put(&key, &content, prior, now);
                }
                EntryKind::Tombstone => {
                    // What it covers in the source goes together with it.
                    let prior = entry.prior.within(logs.iter().copied().filter(|log| *log != source));
                    if prior.is_none() {
                        batch.forget(&key, entry);
                    } else {
                        let prior = entry.prior.within(logs.iter().copied());
                        batch.tombstone(&key, prior, now);
                    }
                }
            }
        }
        self.commit(&mut writer, batch)
    }

    /// Removes a log file to which the index refers no more, for good.
    fn remove_log(&self, number: LogNumber) -> Result<(), WriteError> {
        let _writer = self.lock_writer()?;
        self.disk.remove(&number.file_name()).map_err(|error| self.fail("removing a log file", error))?;
        self.disk.sync_dir().map_err(|error| self.fail("syncing the directory", error))?;
        self.logs.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        self.lock_usage().remove(number);
        Ok(())
    }

    /// Drops index entries of tombstones that cover nothing any more, so that their log files become compactable.
    fn forget_tombstones(&self) -> Result<(), WriteError> {
        let mut after = None;
        loop {
            let page = self.index.scan(b"", after.as_ref(), PAGE).map_err(|error| self.unreadable(error))?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            let logs = self.log_numbers();
            let is_idle = |entry: &Entry| {
                entry.kind == EntryKind::Tombstone && entry.prior.within(logs.iter().copied()).is_none()
            };
            let idle: Vec<(Key, Entry)> = page.into_iter().filter(|(_, entry)| is_idle(entry)).collect();
            if idle.is_empty() {
                continue;
            }
            let mut writer = self.lock_writer()?;
            let mut batch = self.begin(&mut writer, 0, 0)?;
            for (key, entry) in idle {
                let now = self.index.get(&key).map_err(|error| self.unreadable(error))?;
                if now == Some(entry) {
                    batch.forget(&key, entry);
                }
            }
            self.commit(&mut writer, batch)?;
        }
    }

    fn unreadable(&self, error: IndexError) -> WriteError {
        self.fail("reading the index", error)
    }
}
