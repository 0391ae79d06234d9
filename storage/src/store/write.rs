//! Appending batches, one writer at a time.

use std::{
    io::{self, IoSlice},
    sync::{Arc, PoisonError},
};

use super::{MAX_BATCH_BYTES, Store, Write, batch::Batch};
use crate::{
    error::WriteError,
    index::{Entry, EntryKind, IndexError, Summary},
    key::Key,
    log::{Content, Encoder, Kind, LogFile, MAX_PAYLOAD_BYTES, Prior, RECORDS_START, record_bytes},
    size::to_u64,
};

/// Payloads of at least this many bytes are given back to the file system when they are no longer needed. Below,
/// the blocks that a hole frees are too few for the extents it costs.
const PUNCH_BYTES: u32 = 32 << 10;

/// What only the writer knows.
#[derive(Debug)]
pub(super) struct Writer {
    /// Where the active log file ends.
    pub(super) end: u64,
    /// What the index was last told of itself.
    pub(super) summary: Summary,
    /// Bytes written since the index was flushed.
    pub(super) unflushed: u64,
    /// Whether the last batch is not yet proven to be durable by a later one.
    pub(super) unproven: bool,
    /// Whether nothing may be appended to the active log file. Until there is another one the checkpoint stays where it is, so
    /// that whoever opens the store next finds that out, too.
    pub(super) is_sealed: bool,
}

/// Whether an error says that there is no room.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Store {
    /// See [`Store::write`].
    pub(super) fn write_batch(&self, batch: Vec<Write>) -> Result<(), WriteError> {
        let (changes, bytes) = prepare(batch)?;
        let only_deletes = changes.iter().all(|(_, content)| content.is_none());
        let reserve = if only_deletes { 0 } else { self.config.reserve_bytes };
        let mut writer = self.lock_writer()?;
        let mut batch = self.begin(&mut writer, bytes, reserve)?;
        let logs = self.log_numbers();
        for (key, content) in changes {
            let old = batch.entry(&key, &*self.index).map_err(|error| self.index_failed(error))?;
            let prior = match old {
                Some(Entry { kind: EntryKind::Put, prior, log, .. }) => prior.with(log),
                Some(Entry { kind: EntryKind::Tombstone, prior, .. }) => prior,
                None => Prior::NONE,
            };
            let prior = prior.within(logs.iter().copied());
            match (content, old) {
                (Some(content), old) => batch.put(&key, &content, prior, old),
                (None, Some(Entry { kind: EntryKind::Put, .. })) => {
                    batch.tombstone(&key, prior, old);
                }
                // Already absent, and if older puts exist, a tombstone covers them.
                (None, _) => {}
            }
        }
        self.commit(&mut writer, batch)
    }

    /// Makes room for a batch of up to `bytes`, in a new log file if need be, leaving `reserve` bytes free.
    pub(super) fn begin(&self, writer: &mut Writer, bytes: u64, reserve: u64) -> Result<Batch, WriteError> {
        let needed = bytes.saturating_add(RECORDS_START);
        let free = self.disk.free_bytes().map_err(|error| self.fail("asking for free space", error))?;
        let free = free.saturating_sub(reserve);
        if free < needed {
            return Err(WriteError::Full { needed, free });
        }
        let is_long = writer.end > RECORDS_START && writer.end.saturating_add(bytes) > self.config.log_bytes;
        if is_long || writer.is_sealed {
            self.rotate(writer)?;
        }
        let active = self.active();
        Ok(Batch::new(active.number(), Encoder::new(active.head.marker, writer.end)))
    }

    /// Starts a new log file.
    fn rotate(&self, writer: &mut Writer) -> Result<(), WriteError> {
        let number = self.active().number().next();
        match LogFile::create(&*self.disk, number, self.id) {
            Ok(log) => {
                self.logs.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(log));
                self.lock_usage().set_bytes(number, RECORDS_START);
                writer.end = RECORDS_START;
                writer.is_sealed = false;
                Ok(())
            }
            Err(error) if is_full(&error) => {
                // The name must be gone for good: while it exists, everything in the older files counts as durable.
                let name = number.file_name();
                let removed = self.disk.remove(&name).and_then(|()| self.disk.sync_dir());
                removed.map_err(|error| self.fail("removing an unfinished log file", error))?;
                Err(WriteError::Full { needed: RECORDS_START, free: 0 })
            }
            Err(error) => Err(self.fail("starting a log file", error)),
        }
    }

    /// Writes the batch, makes it durable and visible, then frees what it replaced.
    pub(super) fn commit(&self, writer: &mut Writer, batch: Batch) -> Result<(), WriteError> {
        if batch.is_empty() {
            return Ok(());
        }
        let active = self.active();
        let batch_start = writer.end;
        self.append(writer, &active, &batch.encoder)?;
        writer.summary.n_entries = batch.n_entries_after(writer.summary.n_entries);
        self.index
            .apply(&batch.changes(), &writer.summary)
            .map_err(|error| self.fail("updating the index", error))?;
        {
            let mut usage = self.lock_usage();
            batch.added.iter().for_each(|entry| usage.add(entry));
            batch.dropped.iter().for_each(|entry| usage.subtract(entry));
        }
        for entry in &batch.dropped {
            // What is in the last batch must stay whole: recovery would take the hole for a torn write.
            if entry.log != active.number() || entry.offset < batch_start {
                self.punch(entry);
            }
        }
        if writer.unflushed >= self.config.checkpoint_bytes { self.flush_index(writer) } else { Ok(()) }
    }

    /// Appends to the active log file and syncs it.
    fn append(&self, writer: &mut Writer, active: &LogFile, encoder: &Encoder) -> Result<(), WriteError> {
        let parts: Vec<IoSlice<'_>> = encoder.parts().iter().map(|part| IoSlice::new(part)).collect();
        if parts.is_empty() {
            return Ok(());
        }
        let (start, end) = (writer.end, encoder.end());
        match active.file.write_at(start, &parts) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                // Durably, or the remains could turn up behind the next, shorter batch.
                let cut = active.file.truncate(start).and_then(|()| active.file.sync());
                cut.map_err(|error| self.fail("taking back a batch on a full disk", error))?;
                return Err(WriteError::Full {
                    needed: end - start,
                    free: self.disk.free_bytes().unwrap_or(0),
                });
            }
            Err(error) => return Err(self.fail("writing to a log file", error)),
        }
        active.file.sync().map_err(|error| self.fail("syncing a log file", error))?;
        writer.end = end;
        writer.unproven = true;
        writer.unflushed = writer.unflushed.saturating_add(end - start);
        writer.summary.applied = crate::index::Position { log: active.number(), offset: end };
        self.lock_usage().set_bytes(active.number(), end);
        Ok(())
    }

    /// Proves the last batch durable.
    pub(super) fn mark(&self, writer: &mut Writer) -> Result<(), WriteError> {
        if writer.unproven && !writer.is_sealed {
            let active = self.active();
            let mut encoder = Encoder::new(active.head.marker, writer.end);
            encoder.push(Kind::Mark, &Key::default(), Prior::NONE, &Content::empty());
            self.append(writer, &active, &encoder)?;
            writer.unproven = false;
        }
        Ok(())
    }

    /// Makes the index durable as it is, then notes in it that replay need not start before here.
    pub(super) fn flush_index(&self, writer: &mut Writer) -> Result<(), WriteError> {
        self.index.flush().map_err(|error| self.fail("flushing the index", error))?;
        writer.unflushed = 0;
        if !writer.is_sealed {
            writer.summary.checkpoint = writer.summary.applied;
        }
        self.index.apply(&[], &writer.summary).map_err(|error| self.fail("updating the index", error))
    }

    /// Gives the payload of a record that is no longer needed back to the file system.
    fn punch(&self, entry: &Entry) {
        let Some(log) = self.log(entry.log).filter(|_| entry.payload_len >= PUNCH_BYTES) else { return };
        let end = entry.offset + entry.record_bytes() - crate::log::HEADER_LEN;
        if let Err(error) = log.file.punch_hole(end - u64::from(entry.payload_len)..end) {
            // The space comes back with compaction then.
            tracing::debug!(log = %entry.log, error = %error, "no hole punched");
        }
    }

    fn index_failed(&self, error: IndexError) -> WriteError {
        self.fail("reading the index", error)
    }
}

/// Each key with its new content, or `None` to delete it.
type Prepared = Vec<(Key, Option<Content>)>;

/// Bounds the batch and computes its checksums. Returns the bytes it takes at most.
fn prepare(batch: Vec<Write>) -> Result<(Prepared, u64), WriteError> {
    let mut bytes = 0_u64;
    let mut prepared = Vec::with_capacity(batch.len());
    for write in batch {
        let (key, content) = match write {
            Write::Put { key, payload } => {
                let (got, max) = (to_u64(payload.len()), u64::from(MAX_PAYLOAD_BYTES));
                if got > max {
                    return Err(WriteError::TooLarge { got, max });
                }
                (key, Some(Content::new(payload)))
            }
            Write::Delete { key } => (key, None),
        };
        bytes = bytes.saturating_add(content.as_ref().map_or_else(|| record_bytes(0), Content::record_bytes));
        prepared.push((key, content));
    }
    if bytes > MAX_BATCH_BYTES {
        return Err(WriteError::TooLarge { got: bytes, max: MAX_BATCH_BYTES });
    }
    Ok((prepared, bytes))
}
