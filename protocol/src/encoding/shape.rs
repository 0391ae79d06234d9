//! Sizes: how a blob is cut into segments, and a segment into symbols.

use super::{Axis, n_source_columns, n_source_rows};
use crate::{
    ids::SegmentIndex,
    quorum::{N_SHARDS_MAX, N_SHARDS_MIN},
};

/// Bytes that a full segment aims at: large enough that its fixed costs (hashes of `n^2` symbols, a commitment of
/// `64 n` bytes on every node) are small, small enough that the slivers being written stay in a shared cache of 32 MiB,
/// which makes encoding a sixth faster than at twice the size, and that one of 100 shards is fetched in one message.
const SEGMENT_BYTES_AIM: usize = 8 << 20;
/// Smallest symbol of a full segment: below it, hashing a symbol costs more than coding it.
const FULL_SYMBOL_BYTES_MIN: usize = 256;
/// Full symbols are multiples of the pieces that are hashed side by side if they are longer than one, and of BLAKE3's
/// block if not, so that leaves of full segments need no padding.
const FULL_SYMBOL_BYTES_UNITS: [usize; 2] = [1024, 64];
/// A blob of at most so many bytes for each shard is replicated: the roots of a coded segment, which every node keeps,
/// would weigh as much.
const REPLICATED_BYTES_PER_SHARD: u64 = 64;
/// Symbols smaller than this are grouped into leaves: a leaf of 2 bytes costs as much as one of 64.
const LEAF_BYTES_AIM: usize = 64;

/// Why a blob has no shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The number of shards is outside `4..=1000`.
    #[error("a network has {N_SHARDS_MIN} to {N_SHARDS_MAX} shards, not {0}")]
    Shards(u16),
    /// The blob is too long for 32-bit segment indices.
    #[error("a blob of {length} bytes is too long: at most {max} bytes on this network")]
    TooLong {
        /// Bytes of the blob.
        length: u64,
        /// Most bytes of a blob with this number of shards.
        max: u64,
    },
    /// The blob has no segment with this index.
    #[error("there is no segment {index}: the blob has {n_segments}")]
    NoSuchSegment {
        /// The index asked for.
        index: SegmentIndex,
        /// Number of segments of the blob.
        n_segments: u32,
    },
}

/// How a segment becomes slivers. It follows from the length of the blob and the number of shards, so that the same
/// bytes have the same blob ID, whoever stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// Two-dimensional erasure coding.
    RedStuff,
    /// Every node keeps the bytes whole, once however many shards it has: for blobs so small that the roots of `n`
    /// sliver pairs would weigh more. The segment is a single symbol, which is every sliver.
    Replicated,
}

/// How a blob of a given length is cut into segments for `n` shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobShape {
    n: u16,
    length: u64,
    full_segment_bytes: u64,
    n_segments: u32,
}

impl BlobShape {
    /// Returns the shape of a blob of `length` bytes on `n` shards.
    ///
    /// # Errors
    ///
    /// [`ShapeError::Shards`] and [`ShapeError::TooLong`].
    pub fn new(n: u16, length: u64) -> Result<Self, ShapeError> {
        if !(N_SHARDS_MIN..=N_SHARDS_MAX).contains(&n) {
            return Err(ShapeError::Shards(n));
        }
        let full = SegmentShape::full(n);
        let full_segment_bytes = widen(full.source_bytes());
        // The empty blob has one segment, all padding, so that it is stored and lost like any other.
        let n_segments = length.div_ceil(full_segment_bytes).max(1);
        let n_segments = u32::try_from(n_segments)
            .map_err(|_| ShapeError::TooLong { length, max: full_segment_bytes * u64::from(u32::MAX) })?;
        Ok(Self { n, length, full_segment_bytes, n_segments })
    }

    /// Number of shards, `n`.
    #[must_use]
    pub const fn n(&self) -> u16 {
        self.n
    }

    /// How its segments become slivers.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        if self.length <= REPLICATED_BYTES_PER_SHARD * u64::from(self.n) {
            Encoding::Replicated
        } else {
            Encoding::RedStuff
        }
    }

    /// Bytes of the blob.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Number of segments; at least one.
    #[must_use]
    pub const fn n_segments(&self) -> u32 {
        self.n_segments
    }

    /// All segment indices, in order.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = SegmentIndex> + use<> {
        (0..self.n_segments).map(SegmentIndex)
    }

    /// The bytes of the blob that a segment holds, as a range of offsets.
    ///
    /// # Errors
    ///
    /// [`ShapeError::NoSuchSegment`].
    pub fn range(&self, index: SegmentIndex) -> Result<std::ops::Range<u64>, ShapeError> {
        if index.0 >= self.n_segments {
            return Err(ShapeError::NoSuchSegment { index, n_segments: self.n_segments });
        }
        let start = u64::from(index.0) * self.full_segment_bytes;
        Ok(start..self.length.min(start + self.full_segment_bytes))
    }

    /// The segment that holds the byte at `offset`, or the last one if the blob ends before it.
    #[must_use]
    pub fn segment_at(&self, offset: u64) -> SegmentIndex {
        let index = u32::try_from(offset / self.full_segment_bytes).unwrap_or(u32::MAX);
        SegmentIndex(index.min(self.n_segments - 1))
    }

    /// The shape of a segment: full ones are alike, the last takes the smallest symbol that fits.
    ///
    /// # Errors
    ///
    /// [`ShapeError::NoSuchSegment`].
    pub fn segment(&self, index: SegmentIndex) -> Result<SegmentShape, ShapeError> {
        let range = self.range(index)?;
        let len = narrow(range.end - range.start);
        Ok(self.shape_of(len))
    }

    fn shape_of(&self, len: usize) -> SegmentShape {
        if self.encoding() == Encoding::Replicated {
            let symbol_bytes = len.max(1).next_multiple_of(2);
            return SegmentShape { n: self.n, symbol_bytes, encoding: Encoding::Replicated };
        }
        let full = SegmentShape::full(self.n);
        if len == full.source_bytes() { full } else { SegmentShape::fitting(self.n, len) }
    }

    /// Bytes of all slivers of the blob, over all shards. A node with several shards keeps a replicated blob once, so
    /// for such a blob this is the most that it can be.
    #[must_use]
    pub fn encoded_bytes(&self) -> u64 {
        let bytes = |shape: SegmentShape| u64::from(self.n) * widen(shape.pair_bytes());
        let last_len = self.length - u64::from(self.n_segments - 1) * self.full_segment_bytes;
        let last = self.shape_of(narrow(last_len));
        u64::from(self.n_segments - 1) * bytes(SegmentShape::full(self.n)) + bytes(last)
    }
}

/// Sizes within one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentShape {
    n: u16,
    symbol_bytes: usize,
    encoding: Encoding,
}

impl SegmentShape {
    /// The shape of a full segment on `n` shards.
    fn full(n: u16) -> Self {
        let n_symbols = n_source_rows(n) * n_source_columns(n);
        let aim = (SEGMENT_BYTES_AIM / n_symbols).max(FULL_SYMBOL_BYTES_MIN);
        let [large, small] = FULL_SYMBOL_BYTES_UNITS;
        let unit = if aim >= large { large } else { small };
        Self { n, symbol_bytes: aim / unit * unit, encoding: Encoding::RedStuff }
    }

    /// A shape with symbols of this size.
    #[cfg(test)]
    pub(crate) const fn with_symbol_bytes(n: u16, symbol_bytes: usize) -> Self {
        Self { n, symbol_bytes, encoding: Encoding::RedStuff }
    }

    /// The shape of a segment of `len` bytes: the smallest even symbol that fits.
    fn fitting(n: u16, len: usize) -> Self {
        let n_symbols = n_source_rows(n) * n_source_columns(n);
        let symbol_bytes = len.div_ceil(n_symbols).max(1).next_multiple_of(2);
        Self { n, symbol_bytes, encoding: Encoding::RedStuff }
    }

    /// Number of shards, `n`.
    #[must_use]
    pub const fn n(&self) -> u16 {
        self.n
    }

    /// How the segment becomes slivers.
    #[must_use]
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// True if every sliver is the segment itself.
    #[must_use]
    pub const fn is_replicated(&self) -> bool {
        matches!(self.encoding, Encoding::Replicated)
    }

    /// Sliver pairs whose roots the commitment names: all `n`, or one where all are alike.
    #[must_use]
    pub fn n_committed_pairs(&self) -> usize {
        if self.is_replicated() { 1 } else { self.n_slivers() }
    }

    /// Number of slivers along each axis: `n`.
    #[must_use]
    pub fn n_slivers(&self) -> usize {
        usize::from(self.n)
    }

    /// Bytes of a symbol; even.
    #[must_use]
    pub const fn symbol_bytes(&self) -> usize {
        self.symbol_bytes
    }

    /// Source symbols of a sliver along `axis`: what a node stores. `s` for primary, `p` for secondary slivers.
    #[must_use]
    pub fn n_source(&self, axis: Axis) -> usize {
        match (self.encoding, axis) {
            (Encoding::Replicated, _) => 1,
            (Encoding::RedStuff, Axis::Primary) => n_source_columns(self.n),
            (Encoding::RedStuff, Axis::Secondary) => n_source_rows(self.n),
        }
    }

    /// Parity symbols of a sliver along `axis`: computed from the source symbols, never stored. A copy has none.
    #[must_use]
    pub fn n_parity(&self, axis: Axis) -> usize {
        if self.is_replicated() { 0 } else { self.n_slivers() - self.n_source(axis) }
    }

    /// Bytes of a sliver along `axis`, as stored.
    #[must_use]
    pub fn sliver_bytes(&self, axis: Axis) -> usize {
        self.n_source(axis) * self.symbol_bytes
    }

    /// Bytes of a sliver pair as stored: of a replicated segment the secondary sliver is not.
    #[must_use]
    pub fn pair_bytes(&self) -> usize {
        if self.is_replicated() {
            return self.symbol_bytes;
        }
        self.sliver_bytes(Axis::Primary) + self.sliver_bytes(Axis::Secondary)
    }

    /// Bytes of the source grid, padding included.
    #[must_use]
    pub fn source_bytes(&self) -> usize {
        self.n_source(Axis::Primary) * self.n_source(Axis::Secondary) * self.symbol_bytes
    }

    /// Symbols that share a leaf: as many as fit in 64 bytes, at least one.
    #[must_use]
    pub fn symbols_per_leaf(&self) -> usize {
        if self.is_replicated() { 1 } else { (LEAF_BYTES_AIM / self.symbol_bytes).max(1) }
    }

    /// Bytes of a leaf; the last leaf of a sliver's source or parity part may be shorter.
    #[must_use]
    pub fn leaf_bytes(&self) -> usize {
        self.symbols_per_leaf() * self.symbol_bytes
    }
}

fn widen(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("addresses have at most 64 bits")
}

fn narrow(segment_bytes: u64) -> usize {
    usize::try_from(segment_bytes).expect("a segment fits in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_the_blob_without_gap_or_overlap() {
        for n in [4, 5, 6, 7, 10, 13, 31, 100, 334, 1000] {
            let full = BlobShape::new(n, 0).unwrap().full_segment_bytes;
            for length in [0, 1, 2, full - 1, full, full + 1, 2 * full, 5 * full + 17] {
                let shape = BlobShape::new(n, length).unwrap();
                let mut end = 0;
                for index in shape.segments() {
                    let range = shape.range(index).unwrap();
                    assert_eq!(range.start, end);
                    end = range.end;
                    let segment = shape.segment(index).unwrap();
                    let len = usize::try_from(range.end - range.start).unwrap();
                    assert!(segment.source_bytes() >= len);
                    assert_eq!(segment.symbol_bytes() % 2, 0);
                    assert!(segment.symbol_bytes() <= SegmentShape::full(n).symbol_bytes());
                    if range.start < range.end {
                        assert_eq!(shape.segment_at(range.start), index);
                        assert_eq!(shape.segment_at(range.end - 1), index);
                    }
                }
                assert_eq!(end, length);
                let past = SegmentIndex(shape.n_segments());
                assert!(matches!(shape.segment(past), Err(ShapeError::NoSuchSegment { .. })));
            }
        }
    }

    #[test]
    fn overhead_of_full_segments_is_at_most_four_and_a_half() {
        for n in N_SHARDS_MIN..=N_SHARDS_MAX {
            let full = SegmentShape::full(n);
            let encoded = full.n_slivers() * full.pair_bytes();
            // n(p+s)/(ps), at most 4.5, in integers.
            assert!(2 * encoded <= 9 * full.source_bytes(), "n={n}");
        }
    }

    #[test]
    fn small_blobs_are_replicated_where_their_roots_would_weigh_more() {
        for n in [4, 7, 10, 31, 100, 1000] {
            let shape = |length| BlobShape::new(n, length).unwrap();
            let most = 64 * u64::from(n);
            for length in [0, 1, 2, most - 1, most] {
                assert_eq!(shape(length).encoding(), Encoding::Replicated);
                let segment = shape(length).segment(SegmentIndex(0)).unwrap();
                assert_eq!(shape(length).n_segments(), 1);
                assert_eq!(segment.source_bytes(), segment.pair_bytes());
                assert!((length..length + 3).contains(&widen(segment.source_bytes())));
                assert_eq!((segment.n_committed_pairs(), segment.n_parity(Axis::Primary)), (1, 0));
            }
            assert_eq!(shape(most + 1).encoding(), Encoding::RedStuff);
            let segment = shape(most + 1).segment(SegmentIndex(0)).unwrap();
            assert_eq!(segment.n_committed_pairs(), usize::from(n));
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        for n in [0, 3, 1001, u16::MAX] {
            assert_eq!(BlobShape::new(n, 1), Err(ShapeError::Shards(n)));
        }
        assert!(matches!(BlobShape::new(4, u64::MAX), Err(ShapeError::TooLong { .. })));
        let longest = BlobShape::new(1000, 0).unwrap().full_segment_bytes * u64::from(u32::MAX);
        assert!(BlobShape::new(1000, longest).is_ok());
        assert!(BlobShape::new(1000, longest + 1).is_err());
    }
}
