//! The scrubber: reads everything on disk, slowly, and verifies it, so that rot is found while there is still enough
//! elsewhere to repair it.

use std::{sync::Arc, time::Duration};

use protocol::{
    BlobId, SegmentIndex,
    encoding::{encode::sliver_index, verify_sliver},
    message::SliverAt,
};
use tokio_util::sync::CancellationToken;

use super::mailbox::Repair;
use crate::{
    blobs::{BlobStatus, Blobs},
    commitments::{CommitmentCache, CommitmentReadError},
    encoder::Encoder,
    sliver_store::{HeldSliver, SliverStore, StoreReadError, StoreWriteError},
};

/// Slivers listed at once.
const PAGE: usize = 256;

/// Tuning of the scrubber.
#[derive(Clone, Copy, Debug)]
pub struct ScrubConfig {
    /// Bytes read a second: the share of the disk that looking after data may take.
    pub bytes_per_second: u64,
    /// Pause between one scrub of everything and the next.
    pub interval: Duration,
}

impl Default for ScrubConfig {
    fn default() -> Self {
        // 32 MiB/s reads 2.7 TiB a day: a disk of some terabytes well within the week that the field is used to.
        Self { bytes_per_second: 32 << 20, interval: Duration::from_secs(24 * 60 * 60) }
    }
}

/// Reads and verifies the whole store, again and again.
#[derive(Debug)]
pub struct Scrubber {
    config: ScrubConfig,
    store: SliverStore,
    blobs: Blobs,
    commitments: CommitmentCache,
    encoder: Encoder,
    repair: Repair,
}

/// What the look at one sliver found.
enum Finding {
    Sound,
    /// The sliver, or what it is checked against, must be fetched again.
    Damaged,
}

impl Scrubber {
    /// Returns a scrubber, not yet running.
    #[must_use]
    pub fn new(
        config: ScrubConfig,
        (store, blobs): (SliverStore, Blobs),
        commitments: CommitmentCache,
        encoder: Encoder,
        repair: Repair,
    ) -> Self {
        Self { config, store, blobs, commitments, encoder, repair }
    }

    /// Runs until `stop` is cancelled. What cuts one scrub short is met again by the next.
    pub async fn run(self, stop: CancellationToken) {
        let scrubber = Arc::new(self);
        let scrubbing = async {
            loop {
                if let Err(error) = scrubber.scrub().await {
                    tracing::error!(%error, "a scrub was cut short: the store cannot be read");
                }
                tokio::time::sleep(scrubber.config.interval).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = scrubbing => {}
        }
    }

    /// Reads and verifies everything once.
    async fn scrub(&self) -> Result<(), StoreReadError> {
        self.scrub_commitments().await?;
        self.scrub_slivers().await
    }

    async fn scrub_commitments(&self) -> Result<(), StoreReadError> {
        let mut after = None;
        loop {
            let page = self.store.commitments(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(*last);
            for (blob_id, segment) in page {
                let bytes = match self.store.commitment(blob_id, segment).await {
                    Ok((header, path, commitment)) => {
                        let verified = header.verify_for(blob_id);
                        let is_sound = verified
                            .is_ok_and(|header| header.verify_segment(segment, &commitment, &path).is_ok());
                        if is_sound { Some(commitment.len()) } else { None }
                    }
                    Err(StoreReadError::Failed) => return Err(StoreReadError::Failed),
                    Err(StoreReadError::NotFound) => Some(0),
                    Err(StoreReadError::Corrupt | StoreReadError::OutOfRange) => None,
                };
                match bytes {
                    Some(bytes) => tokio::time::sleep(self.pace(u64::try_from(bytes).unwrap_or(0))).await,
                    None => self.remove_commitment(blob_id, segment).await,
                }
            }
        }
    }

    async fn remove_commitment(&self, blob_id: BlobId, segment: SegmentIndex) {
        tracing::warn!(%blob_id, %segment, "the scrubber found a corrupt commitment");
        if let Err(error) = self.store.drop_corrupt_commitment(blob_id, segment).await {
            tracing::warn!(%error, "a corrupt commitment could not be removed");
        }
        self.commitments.forget(blob_id);
        self.repair.found_corrupt(blob_id);
    }

    async fn scrub_slivers(&self) -> Result<(), StoreReadError> {
        let mut after = None;
        loop {
            let page = self.store.slivers(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.at);
            for HeldSliver { at, bytes } in page {
                if let Finding::Damaged = self.look_at(at).await? {
                    self.repair.found_corrupt(at.blob_id);
                }
                tokio::time::sleep(self.pace(bytes)).await;
            }
        }
    }

    fn pace(&self, bytes: u64) -> Duration {
        let nanos = bytes.saturating_mul(1_000_000_000) / self.config.bytes_per_second.max(1);
        Duration::from_nanos(nanos)
    }

    async fn look_at(&self, at: SliverAt) -> Result<Finding, StoreReadError> {
        let (parity, sliver) = match self.store.read_whole_sliver(at).await {
            Ok(read) => read,
            Err(StoreReadError::NotFound) => return Ok(Finding::Sound),
            Err(StoreReadError::Corrupt | StoreReadError::OutOfRange) => {
                return Ok(removed(at, self.store.drop_corrupt_sliver(at).await));
            }
            Err(StoreReadError::Failed) => return Err(StoreReadError::Failed),
        };
        let (header, commitment) = match self.commitments.get(at.blob_id, at.segment).await {
            Ok(entry) => entry,
            // Repair fetches it again; of a blob that is not certified, its client sends it again.
            Err(CommitmentReadError::NotFound) => {
                let is_certified = self.is_certified(at.blob_id);
                return Ok(if is_certified { Finding::Damaged } else { Finding::Sound });
            }
            Err(CommitmentReadError::Failed) => return Err(StoreReadError::Failed),
        };
        let is_sound = match header.shape().segment(at.segment) {
            Ok(shape) => {
                let (index, sliver) = (sliver_index(at.axis, at.pair, shape.n()), sliver.clone());
                let of = (at.axis, index);
                let verify = move |_: &mut _| verify_sliver(shape, &commitment, of, &sliver, &parity).is_ok();
                self.encoder.run(verify).await.map_err(|_| StoreReadError::Failed)?
            }
            Err(_) => false,
        };
        if is_sound {
            return Ok(Finding::Sound);
        }
        Ok(removed(at, self.store.drop_wrong_sliver(at, parity, &sliver).await))
    }

    fn is_certified(&self, blob_id: BlobId) -> bool {
        matches!(self.blobs.status(blob_id), Ok(BlobStatus::Certified { .. }))
    }
}

fn removed(at: SliverAt, result: Result<(), StoreWriteError>) -> Finding {
    tracing::warn!(blob_id = %at.blob_id, segment = %at.segment, pair = %at.pair, axis = ?at.axis, "the scrubber found a corrupt sliver");
    // A disk without room for a tombstone keeps the sliver; it is never served, and the next scrub tries again.
    if let Err(error) = result {
        tracing::warn!(%error, "a corrupt sliver could not be removed");
    }
    Finding::Damaged
}
