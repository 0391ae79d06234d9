//! Commitments of segments, read from the store, verified once, and kept at hand.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use protocol::{
    BlobId, SegmentIndex,
    commitment::{SegmentCommitment, VerifiedHeader},
};

use crate::sliver_store::{SliverStore, StoreReadError};

/// Commitments kept at hand: at 1000 shards, 256 of them take 16 MiB.
const KEPT_MAX: usize = 256;

/// Why a commitment is not at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitmentReadError {
    /// The store has none, or one that rotted: it can be fetched from any peer.
    #[error("the commitment is not in the store")]
    NotFound,
    /// The store failed.
    #[error("the store cannot be read")]
    Failed,
}

type Entry = (VerifiedHeader, Arc<SegmentCommitment>);

/// A bounded cache of verified commitments; cheap to clone.
#[derive(Clone, Debug)]
pub struct CommitmentCache {
    store: SliverStore,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: BTreeMap<(BlobId, SegmentIndex), (u64, Entry)>,
    /// Keys by when they were last used.
    order: BTreeMap<u64, (BlobId, SegmentIndex)>,
    clock: u64,
}

impl Kept {
    fn get(&mut self, key: (BlobId, SegmentIndex)) -> Option<Entry> {
        self.clock += 1;
        let (used, entry) = self.entries.get_mut(&key)?;
        self.order.remove(used);
        *used = self.clock;
        self.order.insert(self.clock, key);
        Some(entry.clone())
    }

    fn insert(&mut self, key: (BlobId, SegmentIndex), entry: Entry) {
        self.clock += 1;
        if let Some((used, _)) = self.entries.insert(key, (self.clock, entry)) {
            self.order.remove(&used);
        }
        self.order.insert(self.clock, key);
        while self.entries.len() > KEPT_MAX {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.entries.remove(&oldest);
        }
    }
}

impl CommitmentCache {
    /// Returns an empty cache over a store.
    #[must_use]
    pub fn new(store: SliverStore) -> Self {
        Self { store, kept: Arc::default() }
    }

    /// The verified header and commitment of a segment.
    ///
    /// # Errors
    ///
    /// [`CommitmentReadError`].
    pub async fn get(&self, blob_id: BlobId, segment: SegmentIndex) -> Result<Entry, CommitmentReadError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get((blob_id, segment));
        if let Some(entry) = kept {
            return Ok(entry);
        }
        let (header, path, bytes) =
            self.store.commitment(blob_id, segment).await.map_err(|error| match error {
                StoreReadError::Failed => CommitmentReadError::Failed,
                StoreReadError::NotFound | StoreReadError::Corrupt | StoreReadError::OutOfRange => {
                    CommitmentReadError::NotFound
                }
            })?;
        // What the disk gave back is checked like what a peer sends.
        let header = header.verify_for(blob_id).map_err(|_| CommitmentReadError::NotFound)?;
        let commitment =
            header.verify_segment(segment, &bytes, &path).map_err(|_| CommitmentReadError::NotFound)?;
        Ok(self.insert(header, segment, commitment))
    }

    /// Keeps a commitment that was verified and stored.
    pub fn insert(
        &self,
        header: VerifiedHeader,
        segment: SegmentIndex,
        commitment: SegmentCommitment,
    ) -> Entry {
        let entry = (header, Arc::new(commitment));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert((header.blob_id(), segment), entry.clone());
        entry
    }

    /// Forgets a blob whose commitments were dropped from the store.
    pub fn forget(&self, blob_id: BlobId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let range = (blob_id, SegmentIndex(0))..=(blob_id, SegmentIndex(u32::MAX));
        let keys: Vec<_> = kept.entries.range(range).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some((used, _)) = kept.entries.remove(&key) {
                kept.order.remove(&used);
            }
        }
    }
}
