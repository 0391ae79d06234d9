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

#[cfg(test)]
mod tests {
    use protocol::{
        commitment::{BlobHeader, PairRoots},
        encoding::BlobShape,
        hash::Hash,
    };

    use super::*;
    use crate::sliver_store::tests::Bench;

    const N: u16 = 7;
    const SEGMENT: SegmentIndex = SegmentIndex(0);

    /// The header and the commitment of a blob of one segment; another one for each number.
    fn blob(number: usize) -> (VerifiedHeader, SegmentCommitment) {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        let pair = PairRoots { primary: Hash(hash), secondary: Hash([1; 32]) };
        let commitment = SegmentCommitment::new(vec![pair; usize::from(N)]);
        let header = BlobHeader::new(&BlobShape::new(N, 1_000).unwrap(), &[commitment.root()]);
        (header.verify().unwrap(), commitment)
    }

    fn cache() -> (CommitmentCache, Bench) {
        let bench = Bench::new(N, 0);
        (CommitmentCache::new(bench.store.clone()), bench)
    }

    fn keep(cache: &CommitmentCache, number: usize) -> BlobId {
        let (header, commitment) = blob(number);
        cache.insert(header, SEGMENT, commitment);
        header.blob_id()
    }

    fn n_kept(cache: &CommitmentCache) -> usize {
        let kept = cache.kept.lock().unwrap();
        assert_eq!(kept.entries.len(), kept.order.len());
        assert!(kept.entries.iter().all(|(key, (used, _))| kept.order.get(used) == Some(key)));
        kept.entries.len()
    }

    #[tokio::test]
    async fn it_is_bounded_and_lets_go_of_what_was_not_used_for_longest() {
        let (cache, _bench) = cache();
        let ids: Vec<BlobId> = (0..KEPT_MAX).map(|number| keep(&cache, number)).collect();
        assert_eq!(n_kept(&cache), KEPT_MAX);
        // A look is a use, and so is keeping it once more.
        cache.get(ids[0], SEGMENT).await.unwrap();
        keep(&cache, 1);
        assert_eq!(n_kept(&cache), KEPT_MAX);
        for number in KEPT_MAX..KEPT_MAX + 3 {
            keep(&cache, number);
            assert_eq!(n_kept(&cache), KEPT_MAX);
        }
        // What was let go is not in the store either, so that asking for it tells.
        for (number, is_kept) in [(0, true), (1, true), (2, false), (3, false), (4, false), (5, true)] {
            assert_eq!(cache.get(ids[number], SEGMENT).await.is_ok(), is_kept, "{number}");
        }
    }

    #[tokio::test]
    async fn what_the_store_has_is_verified_once_and_kept() {
        let (cache, bench) = cache();
        let (header, commitment) = blob(1);
        let blob_id = header.blob_id();
        assert_eq!(cache.get(blob_id, SEGMENT).await.unwrap_err(), CommitmentReadError::NotFound);
        bench.store.put_commitment(*header.header(), SEGMENT, &[], &commitment.to_bytes()).await.unwrap();
        assert_eq!(n_kept(&cache), 0, "that it was missing is not remembered");
        assert_eq!(*cache.get(blob_id, SEGMENT).await.unwrap().1, commitment);
        assert_eq!(n_kept(&cache), 1);
        bench.store.drop_blob(blob_id).await.unwrap();
        assert!(cache.get(blob_id, SEGMENT).await.is_ok(), "it is not read again");
        cache.forget(blob_id);
        assert_eq!(cache.get(blob_id, SEGMENT).await.unwrap_err(), CommitmentReadError::NotFound);
    }

    #[tokio::test]
    async fn what_does_not_verify_is_never_kept() {
        let (cache, bench) = cache();
        let (header, commitment) = blob(1);
        let (right, wrong) = (commitment.to_bytes(), blob(2).1.to_bytes());
        let beyond = SegmentIndex(1);
        for (segment, path, bytes) in [
            (SEGMENT, vec![], &wrong[..]),
            (SEGMENT, vec![], &right[1..]),
            (SEGMENT, vec![], &[]),
            (SEGMENT, vec![Hash([0; 32])], &right),
            (beyond, vec![], &right),
        ] {
            bench.store.put_commitment(*header.header(), segment, &path, bytes).await.unwrap();
            let got = cache.get(header.blob_id(), segment).await;
            assert_eq!(got.unwrap_err(), CommitmentReadError::NotFound, "{segment} {path:?}");
            assert_eq!(n_kept(&cache), 0);
        }
        // Nor does a wrong one stand in the way of the right one.
        bench.store.put_commitment(*header.header(), SEGMENT, &[], &right).await.unwrap();
        assert_eq!(*cache.get(header.blob_id(), SEGMENT).await.unwrap().1, commitment);
    }

    #[tokio::test]
    async fn a_blob_is_forgotten_with_all_its_segments_and_no_other_is() {
        let (cache, _bench) = cache();
        let (header, commitment) = blob(1);
        let other = keep(&cache, 2);
        for segment in [0, 1, u32::MAX] {
            cache.insert(header, SegmentIndex(segment), commitment.clone());
        }
        cache.forget(header.blob_id());
        assert_eq!(n_kept(&cache), 1);
        assert!(cache.get(other, SEGMENT).await.is_ok());
    }
}
