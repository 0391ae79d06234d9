//! What of a blob a node should hold and does not.

use protocol::{SegmentIndex, commitment::VerifiedHeader};

use crate::{
    membership::Seats,
    sliver_store::{SliverStore, StoreReadError},
};

/// Slivers of a segment that are to be held for these places and are not here. Without the commitment nothing of the segment
/// can be checked or served, so it is as if a sliver were missing.
pub(crate) fn missing_in_segment(
    seats: &Seats,
    store: &SliverStore,
    header: &VerifiedHeader,
    segment: SegmentIndex,
) -> u32 {
    let blob_id = header.blob_id();
    let Ok(shape) = header.shape().segment(segment) else { return 0 };
    let slivers = seats.slivers(blob_id, segment, shape);
    if slivers.is_empty() {
        return 0;
    }
    let missing: u32 = slivers.iter().map(|at| u32::from(!store.has_sliver(at))).sum();
    missing.max(u32::from(!store.has_commitment(blob_id, segment)))
}

/// What is to be held of a blob for these places and is not here, counted until it is more than `limit`.
///
/// A header that nobody vouched for may claim billions of segments: a limit keeps the work within what is really held.
///
/// # Errors
///
/// [`StoreReadError::Failed`] if the store has stopped.
pub(crate) async fn missing_of_blob(
    seats: Seats,
    store: &SliverStore,
    header: &VerifiedHeader,
    limit: u32,
) -> Result<u32, StoreReadError> {
    if seats.is_empty() {
        return Ok(0);
    }
    let header = *header;
    let count = move |store: &SliverStore| {
        let mut missing = 0_u32;
        for segment in header.shape().segments() {
            missing = missing.saturating_add(missing_in_segment(&seats, store, &header, segment));
            if missing > limit {
                break;
            }
        }
        missing
    };
    // A terabyte has a million entries in the index: not on a task that others wait for.
    store.look(count).await
}

#[cfg(test)]
mod tests {
    use protocol::{
        commitment::{BlobHeader, FORMAT_VERSION},
        encoding::BlobShape,
        hash::Hash,
    };

    use super::*;
    use crate::{membership::tests::lone_member, sliver_store::tests::Bench};

    #[tokio::test]
    async fn a_blob_of_billions_of_segments_is_no_work() {
        let bench = Bench::new(7, 0);
        let seats = lone_member(7).now().unwrap().owed();
        let full = BlobShape::new(7, u64::from(u32::MAX)).unwrap().range(SegmentIndex(0)).unwrap();
        let length = full.end * u64::from(u32::MAX);
        let header = BlobHeader { version: FORMAT_VERSION, n_shards: 7, length, root: Hash([1; 32]) };
        let header = header.verify().unwrap();
        assert_eq!(header.shape().n_segments(), u32::MAX);
        let missing = missing_of_blob(seats, &bench.store, &header, 100).await.unwrap();
        // Seven pairs of two slivers a segment, until there are more than a hundred.
        assert_eq!(missing, 8 * 14);
    }
}
