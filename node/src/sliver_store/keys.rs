//! Names of the records.
//!
//! Slivers are ordered by shard first, so that a shard can be listed, moved and dropped as one range.

use protocol::{BlobId, SegmentIndex, ShardIndex, encoding::Axis};
use storage::Key;

/// Slivers: shard, blob, segment, axis.
pub(super) const SLIVER: u8 = b'S';
/// Commitments with their headers and paths: blob, segment.
pub(super) const COMMITMENT: u8 = b'C';
/// Orders on which the node vouched for a blob: blob.
pub(super) const ORDER: u8 = b'O';

fn key(parts: &[&[u8]]) -> Key {
    Key::new(parts.concat()).expect("the longest key here has 40 bytes")
}

pub(super) fn sliver(shard: ShardIndex, blob_id: &BlobId, segment: SegmentIndex, axis: Axis) -> Key {
    let axis = match axis {
        Axis::Primary => [0],
        Axis::Secondary => [1],
    };
    key(&[&[SLIVER], &shard.0.to_be_bytes(), blob_id.as_bytes(), &segment.0.to_be_bytes(), &axis])
}

/// Prefix of the slivers of one shard.
pub(super) fn slivers_in(shard: ShardIndex) -> Vec<u8> {
    [&[SLIVER][..], &shard.0.to_be_bytes()].concat()
}

/// Prefix of the slivers of one blob in one shard.
pub(super) fn slivers_of(shard: ShardIndex, blob_id: &BlobId) -> Vec<u8> {
    [&[SLIVER][..], &shard.0.to_be_bytes(), blob_id.as_bytes()].concat()
}

/// Reads the name of a sliver.
pub(super) fn parse_sliver(key: &Key) -> Option<(ShardIndex, BlobId, SegmentIndex, Axis)> {
    let (tag, rest) = key.as_bytes().split_first()?;
    let (shard, rest) = rest.split_first_chunk::<2>()?;
    let (blob_id, rest) = rest.split_first_chunk::<32>()?;
    let (segment, axis) = rest.split_first_chunk::<4>()?;
    let axis = match axis {
        [0] => Axis::Primary,
        [1] => Axis::Secondary,
        _ => return None,
    };
    (*tag == SLIVER).then_some((
        ShardIndex(u16::from_be_bytes(*shard)),
        BlobId(*blob_id),
        SegmentIndex(u32::from_be_bytes(*segment)),
        axis,
    ))
}

pub(super) fn commitment(blob_id: &BlobId, segment: SegmentIndex) -> Key {
    key(&[&[COMMITMENT], blob_id.as_bytes(), &segment.0.to_be_bytes()])
}

/// Reads the name of a commitment.
pub(super) fn parse_commitment(key: &Key) -> Option<(BlobId, SegmentIndex)> {
    let (tag, rest) = key.as_bytes().split_first()?;
    let (blob_id, segment) = rest.split_first_chunk::<32>()?;
    let segment = u32::from_be_bytes(segment.try_into().ok()?);
    (*tag == COMMITMENT).then_some((BlobId(*blob_id), SegmentIndex(segment)))
}

/// Prefix of the commitments of one blob.
pub(super) fn commitments_of(blob_id: &BlobId) -> Vec<u8> {
    [&[COMMITMENT][..], blob_id.as_bytes()].concat()
}

pub(super) fn order(blob_id: &BlobId) -> Key {
    key(&[&[ORDER], blob_id.as_bytes()])
}

/// The blob of a commitment's or an order's name.
pub(super) fn parse_blob(key: &Key) -> Option<BlobId> {
    let (_, rest) = key.as_bytes().split_first()?;
    rest.first_chunk::<32>().copied().map(BlobId)
}

/// For [`crate::fuzz`]: reads the name of a sliver, a commitment or an order and makes it again.
#[cfg(feature = "fuzz")]
pub(crate) fn read_name(name: &Key) -> Option<Key> {
    if let Some((shard, blob_id, segment, axis)) = parse_sliver(name) {
        return Some(sliver(shard, &blob_id, segment, axis));
    }
    if let Some((blob_id, segment)) = parse_commitment(name) {
        return Some(commitment(&blob_id, segment));
    }
    let blob_id = parse_blob(name)?;
    Some(order(&blob_id)).filter(|order| order == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slivers_name_says_what_it_is() {
        let (shard, blob_id, segment) = (ShardIndex(700), BlobId([7; 32]), SegmentIndex(9));
        for axis in [Axis::Primary, Axis::Secondary] {
            let key = sliver(shard, &blob_id, segment, axis);
            assert_eq!(parse_sliver(&key), Some((shard, blob_id, segment, axis)));
            assert!(key.as_bytes().starts_with(&slivers_of(shard, &blob_id)));
        }
        assert_eq!(parse_sliver(&commitment(&blob_id, segment)), None);
        assert_eq!(parse_blob(&order(&blob_id)), Some(blob_id));
    }
}
