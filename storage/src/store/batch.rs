//! The changes of one write, being put together.

use std::collections::BTreeMap;

use crate::{
    index::{Change, Entry, EntryKind, Index, IndexError},
    key::Key,
    log::{Content, Encoder, Kind, LogNumber, Prior},
};

/// Records laid out for the log, and what they mean for the index.
#[derive(Debug)]
pub(super) struct Batch {
    /// The file it is for.
    log: LogNumber,
    pub(super) encoder: Encoder,
    /// What the index will say.
    changes: BTreeMap<Key, Option<Entry>>,
    /// Entries that are new, and entries that are no more. An entry can be both.
    pub(super) added: Vec<Entry>,
    pub(super) dropped: Vec<Entry>,
}

impl Batch {
    /// An empty batch to be written to `log` by `encoder`.
    pub(super) const fn new(log: LogNumber, encoder: Encoder) -> Self {
        Self { log, encoder, changes: BTreeMap::new(), added: Vec::new(), dropped: Vec::new() }
    }

    /// The entry of `key` as it will be after what was added so far.
    pub(super) fn entry(&self, key: &Key, index: &dyn Index) -> Result<Option<Entry>, IndexError> {
        self.changes.get(key).map_or_else(|| index.get(key), |entry| Ok(*entry))
    }

    /// Adds a put in place of `old`.
    pub(super) fn put(&mut self, key: &Key, content: &Content, prior: Prior, old: Option<Entry>) {
        let offset = self.encoder.push(Kind::Put, key, prior, content);
        let payload_len = content.payload_len();
        let entry = Entry { kind: EntryKind::Put, log: self.log, offset, payload_len, prior };
        self.replace(key, entry, old);
    }

    /// Adds a tombstone in place of `old`.
    pub(super) fn tombstone(&mut self, key: &Key, prior: Prior, old: Option<Entry>) {
        let offset = self.encoder.push(Kind::Tombstone, key, prior, &Content::empty());
        let entry = Entry { kind: EntryKind::Tombstone, log: self.log, offset, payload_len: 0, prior };
        self.replace(key, entry, old);
    }

    fn replace(&mut self, key: &Key, entry: Entry, old: Option<Entry>) {
        self.changes.insert(key.clone(), Some(entry));
        self.added.push(entry);
        self.dropped.extend(old);
    }

    /// Removes the entry of `key`, which is `old`.
    pub(super) fn forget(&mut self, key: &Key, old: Entry) {
        self.changes.insert(key.clone(), None);
        self.dropped.push(old);
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Entries in an index that has `n_entries` now, once this is applied.
    pub(super) fn n_entries_after(&self, n_entries: u64) -> u64 {
        let (added, dropped) =
            (crate::size::to_u64(self.added.len()), crate::size::to_u64(self.dropped.len()));
        n_entries.saturating_add(added).saturating_sub(dropped)
    }

    /// What to apply to the index.
    pub(super) fn changes(&self) -> Vec<Change> {
        self.changes.iter().map(|(key, entry)| (key.clone(), *entry)).collect()
    }
}
