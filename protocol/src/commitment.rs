//! What binds slivers to a blob ID.
//!
//! ```text
//!  symbols -> leaves -> sliver root -+
//!                                    +-> pair hash -> segment root -> blob root -> blob ID
//!  symbols -> leaves -> sliver root -+   (one a shard)  (Merkle)       (Merkle)
//! ```
//!
//! A node keeps the [`BlobHeader`] and, for every segment, the [`SegmentCommitment`]: the roots of all `n`
//! sliver pairs, 64 `n` bytes, with a path to the blob root. From these it checks its own slivers and serves
//! proofs, and it can repair any pair after its holder is gone. The pairs of a replicated segment are alike, and their
//! roots are kept once.

use bincode::{Decode, Encode};

use crate::{
    encoding::{Axis, BlobShape, ShapeError, encode::sliver_index},
    hash::{BLOB, Hash, PAIR},
    ids::{BlobId, SegmentIndex, SliverPairIndex},
    merkle,
};

/// The version of the encoding, part of every blob ID.
pub const FORMAT_VERSION: u8 = 1;

/// Roots of the two slivers of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PairRoots {
    /// Root of the primary sliver.
    pub primary: Hash,
    /// Root of the secondary sliver.
    pub secondary: Hash,
}

/// Bytes of [`PairRoots`] in a commitment.
pub const PAIR_ROOTS_BYTES: usize = 64;

impl PairRoots {
    /// The pair hash, a leaf of the segment's tree.
    #[must_use]
    pub fn hash(&self) -> Hash {
        PAIR.hash_parts(&[&self.primary.0, &self.secondary.0])
    }

    /// The root along `axis`.
    #[must_use]
    pub const fn root(&self, axis: Axis) -> Hash {
        match axis {
            Axis::Primary => self.primary,
            Axis::Secondary => self.secondary,
        }
    }
}

/// Roots of all sliver pairs of a segment, in the order of their indices; one entry if all are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentCommitment {
    /// INV: one entry a shard, or one for all.
    pairs: Vec<PairRoots>,
}

impl SegmentCommitment {
    /// Returns the commitment of these pairs; one stands for all.
    ///
    /// # Panics
    ///
    /// If there are none.
    #[must_use]
    pub fn new(pairs: Vec<PairRoots>) -> Self {
        assert!(!pairs.is_empty(), "a segment has sliver pairs");
        Self { pairs }
    }

    /// The segment root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let leaves: Vec<Hash> = self.pairs.iter().map(PairRoots::hash).collect();
        merkle::root(&leaves)
    }

    /// Roots of a pair.
    ///
    /// # Panics
    ///
    /// If there is no such pair.
    #[must_use]
    pub fn pair(&self, pair: SliverPairIndex) -> &PairRoots {
        match &self.pairs[..] {
            [all] => all,
            pairs => &pairs[pair.as_usize()],
        }
    }

    /// Root of the sliver with this index along `axis`.
    ///
    /// # Panics
    ///
    /// If there is no such sliver.
    #[must_use]
    pub fn sliver_root(&self, axis: Axis, index: u16) -> Hash {
        if let [all] = &self.pairs[..] {
            return all.root(axis);
        }
        let n = u16::try_from(self.pairs.len()).expect("at most 1000 shards");
        // The pairing reverses indices, so it is its own inverse.
        let pair = SliverPairIndex(sliver_index(axis, SliverPairIndex(index), n));
        self.pair(pair).root(axis)
    }

    /// The commitment as bytes: 64 an entry.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.pairs.iter().flat_map(|pair| [pair.primary.0, pair.secondary.0]).flatten().collect()
    }

    /// Reads a commitment of `n_pairs` entries; `None` if the bytes have another length.
    #[must_use]
    pub fn from_bytes(n_pairs: usize, bytes: &[u8]) -> Option<Self> {
        let (pairs, rest) = bytes.as_chunks::<PAIR_ROOTS_BYTES>();
        if pairs.len() != n_pairs || pairs.is_empty() || !rest.is_empty() {
            return None;
        }
        let pairs = pairs.iter().map(|pair| {
            let mut roots = PairRoots::default();
            roots.primary.0.copy_from_slice(&pair[..32]);
            roots.secondary.0.copy_from_slice(&pair[32..]);
            roots
        });
        Some(Self { pairs: pairs.collect() })
    }
}

/// What a blob ID is a hash of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobHeader {
    /// Version of the encoding; [`FORMAT_VERSION`].
    pub version: u8,
    /// Number of shards the blob was encoded for.
    pub n_shards: u16,
    /// Bytes of the blob.
    pub length: u64,
    /// Merkle root over the segment roots.
    pub root: Hash,
}

/// Why a header or a commitment does not belong to a blob ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitmentError {
    /// The header is of an encoding that this version does not know.
    #[error("encoding version {0} is unknown to this version of Floe")]
    Version(u8),
    /// The header describes a blob that cannot exist.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The header hashes to another blob ID.
    #[error("the header belongs to blob {got}")]
    OtherBlob {
        /// The blob ID that the header hashes to.
        got: BlobId,
    },
    /// The commitment has the wrong number of bytes for this number of shards.
    #[error("a commitment of {n_pairs} sliver pairs has {} bytes, not {got}", .n_pairs * PAIR_ROOTS_BYTES)]
    Size {
        /// Pairs whose roots it names.
        n_pairs: usize,
        /// Bytes given.
        got: usize,
    },
    /// The commitment does not lead to the blob root.
    #[error("the commitment of segment {0} does not lead to the blob ID")]
    Path(SegmentIndex),
}

/// A header whose version and shape were checked, with the blob ID that it hashes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedHeader {
    header: BlobHeader,
    shape: BlobShape,
    blob_id: BlobId,
}

impl BlobHeader {
    /// Returns the header of a blob with these segment roots.
    ///
    /// # Panics
    ///
    /// If there are no segments.
    #[must_use]
    pub fn new(shape: &BlobShape, segment_roots: &[Hash]) -> Self {
        Self {
            version: FORMAT_VERSION,
            n_shards: shape.n(),
            length: shape.length(),
            root: merkle::root(segment_roots),
        }
    }

    /// The blob ID: a hash of version, number of shards, length and root, integers in little-endian.
    #[must_use]
    pub fn blob_id(&self) -> BlobId {
        let hash = BLOB.hash_parts(&[
            &[self.version],
            &self.n_shards.to_le_bytes(),
            &self.length.to_le_bytes(),
            &self.root.0,
        ]);
        BlobId(hash.0)
    }

    /// Checks that this version of Floe can read the blob.
    ///
    /// # Errors
    ///
    /// [`CommitmentError::Version`] and [`CommitmentError::Shape`].
    pub fn verify(self) -> Result<VerifiedHeader, CommitmentError> {
        if self.version != FORMAT_VERSION {
            return Err(CommitmentError::Version(self.version));
        }
        let shape = BlobShape::new(self.n_shards, self.length)?;
        Ok(VerifiedHeader { header: self, shape, blob_id: self.blob_id() })
    }

    /// Checks that this is the header of `blob_id` and that this version of Floe can read the blob.
    ///
    /// # Errors
    ///
    /// [`CommitmentError::OtherBlob`] and those of [`Self::verify`].
    pub fn verify_for(self, blob_id: BlobId) -> Result<VerifiedHeader, CommitmentError> {
        let header = self.verify()?;
        if header.blob_id == blob_id {
            Ok(header)
        } else {
            Err(CommitmentError::OtherBlob { got: header.blob_id })
        }
    }
}

impl VerifiedHeader {
    /// The header.
    #[must_use]
    pub const fn header(&self) -> &BlobHeader {
        &self.header
    }

    /// The blob ID.
    #[must_use]
    pub const fn blob_id(&self) -> BlobId {
        self.blob_id
    }

    /// The shape of the blob.
    #[must_use]
    pub const fn shape(&self) -> &BlobShape {
        &self.shape
    }

    /// Reads the commitment of a segment and checks that it leads to the blob ID.
    ///
    /// # Errors
    ///
    /// [`CommitmentError::Size`], [`CommitmentError::Path`] and, for an index past the end,
    /// [`CommitmentError::Shape`].
    pub fn verify_segment(
        &self,
        index: SegmentIndex,
        bytes: &[u8],
        path: &[Hash],
    ) -> Result<SegmentCommitment, CommitmentError> {
        let n_pairs = self.shape.segment(index)?.n_committed_pairs();
        let commitment = SegmentCommitment::from_bytes(n_pairs, bytes)
            .ok_or(CommitmentError::Size { n_pairs, got: bytes.len() })?;
        let n_segments = SegmentIndex(self.shape.n_segments()).as_usize();
        let root = merkle::root_of_path(&commitment.root(), index.as_usize(), n_segments, path);
        if root == Some(self.header.root) { Ok(commitment) } else { Err(CommitmentError::Path(index)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::SegmentEncoder;

    fn blob(n: u16, data: &[u8]) -> (VerifiedHeader, Vec<SegmentCommitment>, Vec<Hash>) {
        let shape = BlobShape::new(n, u64::try_from(data.len()).unwrap()).unwrap();
        let mut encoder = SegmentEncoder::new(n);
        let commitments: Vec<_> = shape
            .segments()
            .map(|index| {
                let range = shape.range(index).unwrap();
                let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                encoder.encode(shape.segment(index).unwrap(), &data[range]).commitment()
            })
            .collect();
        let roots: Vec<_> = commitments.iter().map(SegmentCommitment::root).collect();
        let header = BlobHeader::new(&shape, &roots);
        (header.verify_for(header.blob_id()).unwrap(), commitments, roots)
    }

    #[test]
    fn every_segment_leads_to_the_blob_id() {
        let data = vec![7; 40 << 20];
        let (header, commitments, roots) = blob(4, &data);
        assert!(commitments.len() > 2);
        for (i, commitment) in commitments.iter().enumerate() {
            let index = SegmentIndex(u32::try_from(i).unwrap());
            let path = merkle::path(&roots, i);
            let bytes = commitment.to_bytes();
            assert_eq!(header.verify_segment(index, &bytes, &path), Ok(commitment.clone()));
            let mut forged = bytes.clone();
            forged[65] ^= 1;
            assert_eq!(header.verify_segment(index, &forged, &path), Err(CommitmentError::Path(index)));
            assert!(header.verify_segment(index, &bytes[1..], &path).is_err());
            assert!(header.verify_segment(index, &bytes, &path[1..]).is_err());
        }
    }

    #[test]
    fn a_blob_id_depends_on_all_that_it_names() {
        let (header, ..) = blob(7, b"hello");
        let header = *header.header();
        let others = [
            BlobHeader { version: 2, ..header },
            BlobHeader { n_shards: 10, ..header },
            BlobHeader { length: 6, ..header },
            BlobHeader { root: Hash([1; 32]), ..header },
        ];
        for other in others {
            assert_ne!(other.blob_id(), header.blob_id());
            assert!(other.verify_for(header.blob_id()).is_err());
        }
        assert_eq!(BlobHeader { version: 9, ..header }.verify(), Err(CommitmentError::Version(9)));
    }

    #[test]
    fn trailing_zeros_are_part_of_a_blob() {
        let ids = [&b""[..], &[0], &[0, 0], &[0; 3]].map(|data| blob(7, data).0.blob_id());
        for (i, id) in ids.iter().enumerate() {
            assert!(!ids[..i].contains(id));
        }
    }
}
