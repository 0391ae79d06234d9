//! Bytes that moved between nodes, against bytes that had to.

use std::collections::BTreeSet;

use protocol::encoding::BlobShape;

use super::timeline::Shards;

/// Bytes of slivers that a node which holds `had` needs to hold `has`, of one blob.
#[must_use]
pub fn bytes_to_gain(shape: &BlobShape, had: &BTreeSet<u16>, has: &BTreeSet<u16>) -> u64 {
    let gained = u64::try_from(has.difference(had).count()).unwrap_or(u64::MAX);
    let segments = shape.segments().filter_map(|index| shape.segment(index).ok());
    let bytes = segments.map(|segment| {
        let bytes = u64::try_from(segment.pair_bytes()).unwrap_or(u64::MAX);
        // A blob that is not coded is held once, however many shards a node has.
        let n = if segment.is_replicated() { u64::from(had.is_empty() && gained > 0) } else { gained };
        bytes.saturating_mul(n)
    });
    bytes.sum()
}

/// Bytes of slivers of one blob that change hands from one committee to the next.
#[must_use]
pub fn bytes_to_move(shape: &BlobShape, before: &Shards, after: &Shards) -> u64 {
    let none = BTreeSet::new();
    after.iter().map(|(node, has)| bytes_to_gain(shape, before.get(node).unwrap_or(&none), has)).sum()
}

/// Shards that change hands from one committee to the next.
#[must_use]
pub fn shards_to_move(before: &Shards, after: &Shards) -> usize {
    let none = BTreeSet::new();
    after.iter().map(|(node, has)| has.difference(before.get(node).unwrap_or(&none)).count()).sum()
}

#[cfg(test)]
mod tests {
    use protocol::PeerId;

    use super::*;

    const N: u16 = 7;

    fn node(index: u8) -> PeerId {
        PeerId([index; 32])
    }

    fn shards(of: &[(u8, &[u16])]) -> Shards {
        of.iter().map(|(index, shards)| (node(*index), shards.iter().copied().collect())).collect()
    }

    #[test]
    fn a_shard_that_moves_takes_its_pair_of_every_segment_along() {
        let shape = BlobShape::new(N, 1 << 20).unwrap();
        let pair: u64 = shape
            .segments()
            .map(|index| u64::try_from(shape.segment(index).unwrap().pair_bytes()).unwrap())
            .sum();
        let before = shards(&[(1, &[0, 1, 2]), (2, &[3, 4]), (3, &[5, 6])]);
        let after = shards(&[(1, &[0, 1]), (2, &[3, 4, 2]), (4, &[5, 6])]);
        assert_eq!(shards_to_move(&before, &after), 3);
        assert_eq!(bytes_to_move(&shape, &before, &after), 3 * pair);
        assert_eq!(bytes_to_move(&shape, &before, &before), 0);
        // All pairs together are the blob's slivers.
        assert_eq!(bytes_to_move(&shape, &Shards::new(), &before), shape.encoded_bytes());
    }

    #[test]
    fn a_blob_that_is_not_coded_moves_once_to_whoever_has_no_shard_yet() {
        let shape = BlobShape::new(N, 10).unwrap();
        let one = bytes_to_gain(&shape, &BTreeSet::new(), &BTreeSet::from([1]));
        assert!(one >= 10);
        assert_eq!(bytes_to_gain(&shape, &BTreeSet::new(), &BTreeSet::from([1, 2, 3])), one);
        assert_eq!(bytes_to_gain(&shape, &BTreeSet::from([1]), &BTreeSet::from([1, 2])), 0);
        assert_eq!(bytes_to_gain(&shape, &BTreeSet::from([1]), &BTreeSet::new()), 0);
    }
}
