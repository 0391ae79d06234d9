//! A segment to its slivers and their hashes.
//!
//! Three ways to the same kind of result: [`striped`] for long symbols of few shards and [`whole`] for all others that
//! are leaves of their own are what large blobs go through; [`grouped`] is for symbols so small that several share a
//! leaf.

mod grouped;
mod striped;
mod whole;

use super::{
    Axis, SegmentShape, Workspace,
    code::Code,
    leaves::{LeafHasher, Part, root_of_part},
    lines::Lines,
};
use crate::{
    commitment::{PairRoots, SegmentCommitment},
    hash::{Digest, Hash},
    ids::SliverPairIndex,
    merkle,
};

/// The two halves of a sliver's tree. A holder keeps `parity` beside the sliver, so that a reader checks the
/// sliver by hashing what it received and joining this one hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliverHashes {
    /// Root over the leaves of the source symbols, those that are stored.
    pub source: Hash,
    /// Root over the leaves of the parity symbols, those that are computed.
    pub parity: Hash,
}

impl SliverHashes {
    /// The sliver root.
    #[must_use]
    pub fn root(&self) -> Hash {
        merkle::parent(&self.source, &self.parity)
    }
}

/// All slivers of one segment. The buffers are reused from segment to segment.
#[derive(Debug)]
pub struct EncodedSegment {
    shape: SegmentShape,
    /// `[n][s]` symbols: primary slivers one after the other.
    primary: Lines,
    /// `[n][p]` symbols: secondary slivers one after the other.
    secondary: Lines,
    primary_hashes: Vec<SliverHashes>,
    secondary_hashes: Vec<SliverHashes>,
}

impl EncodedSegment {
    /// The shape of the segment.
    #[must_use]
    pub const fn shape(&self) -> SegmentShape {
        self.shape
    }

    /// The sliver with this index along `axis`: `s` symbols for primary, `p` for secondary slivers.
    ///
    /// # Panics
    ///
    /// If the index is not below `n`.
    #[must_use]
    pub fn sliver(&self, axis: Axis, index: u16) -> &[u8] {
        assert!(index < self.shape.n(), "sliver {index}");
        if self.shape.is_replicated() {
            return &self.primary;
        }
        let bytes = self.shape.sliver_bytes(axis);
        let slivers = match axis {
            Axis::Primary => &self.primary,
            Axis::Secondary => &self.secondary,
        };
        &slivers[usize::from(index) * bytes..][..bytes]
    }

    /// The sliver of `pair` along `axis`.
    ///
    /// # Panics
    ///
    /// If the index is not below `n`.
    #[must_use]
    pub fn sliver_of_pair(&self, axis: Axis, pair: SliverPairIndex) -> &[u8] {
        self.sliver(axis, sliver_index(axis, pair, self.shape.n()))
    }

    /// The hashes of the sliver with this index along `axis`.
    ///
    /// # Panics
    ///
    /// If the index is not below `n`.
    #[must_use]
    pub fn hashes(&self, axis: Axis, index: u16) -> SliverHashes {
        if self.shape.is_replicated() {
            return self.primary_hashes[0];
        }
        match axis {
            Axis::Primary => self.primary_hashes[usize::from(index)],
            Axis::Secondary => self.secondary_hashes[usize::from(index)],
        }
    }

    /// What binds the slivers to the blob ID.
    #[must_use]
    pub fn commitment(&self) -> SegmentCommitment {
        let n = self.shape.n();
        let pairs = (0..n).take(self.shape.n_committed_pairs()).map(SliverPairIndex).map(|pair| PairRoots {
            primary: self.hashes(Axis::Primary, pair.primary()).root(),
            secondary: self.hashes(Axis::Secondary, pair.secondary(n)).root(),
        });
        SegmentCommitment::new(pairs.collect())
    }
}

/// Index along `axis` of the sliver that belongs to `pair`.
#[must_use]
pub const fn sliver_index(axis: Axis, pair: SliverPairIndex, n: u16) -> u16 {
    match axis {
        Axis::Primary => pair.primary(),
        Axis::Secondary => pair.secondary(n),
    }
}

/// Encodes segments, one at a time, and extends single slivers.
#[derive(Debug)]
pub struct SegmentEncoder {
    n: u16,
    /// Extends a row: `s` of `n`.
    row_code: Code,
    /// Extends a column: `p` of `n`.
    column_code: Code,
    workspace: Workspace,
    scratch: Scratch,
}

/// Buffers of the encoder, reused.
#[derive(Debug, Default)]
struct Scratch {
    grouped: grouped::Scratch,
    whole: whole::Scratch,
    striped: striped::Scratch,
    /// The data with zeros after it, if it does not fill the grid.
    padded: Lines,
    hashed: SliverHasher,
    /// Parity symbols of the slivers in hand.
    parity: Lines,
}

/// Leaves of the source and of the parity parts of several slivers.
#[derive(Debug, Default)]
struct SliverHasher {
    source: LeafHasher,
    parity: LeafHasher,
}

impl SliverHasher {
    /// Roots of the slivers whose leaves were added, into `hashes`.
    fn roots(&mut self, shape: SegmentShape, axis: Axis, hashes: &mut [SliverHashes]) {
        let sources = self.source.roots(shape, shape.n_source(axis));
        let parities = self.parity.roots(shape, shape.n_parity(axis));
        for ((hashes, source), parity) in hashes.iter_mut().zip(sources).zip(parities) {
            *hashes = SliverHashes { source: Hash(*source), parity: Hash(*parity) };
        }
        self.source.clear();
        self.parity.clear();
    }
}

/// Slivers whose trees are built side by side: enough to fill every lane, few enough that their leaves stay in cache.
const HASHED_SLIVERS: usize = 32;
/// Bytes of parity that are hashed together: they should stay in cache.
const HASHED_BYTES: usize = 256 << 10;

impl SegmentEncoder {
    /// Returns an encoder for `n` shards.
    ///
    /// # Panics
    ///
    /// Unless `4 <= n <= 1000`.
    #[must_use]
    pub fn new(n: u16) -> Self {
        assert!((crate::quorum::N_SHARDS_MIN..=crate::quorum::N_SHARDS_MAX).contains(&n), "n={n}");
        let slivers = usize::from(n);
        Self {
            n,
            row_code: Code::new(super::n_source_columns(n), slivers),
            column_code: Code::new(super::n_source_rows(n), slivers),
            workspace: Workspace::default(),
            scratch: Scratch::default(),
        }
    }

    /// Like [`Self::new`], with the field arithmetic that every CPU has: to compare with.
    ///
    /// # Panics
    ///
    /// As [`Self::new`].
    #[must_use]
    pub fn portable(n: u16) -> Self {
        Self { workspace: Workspace::portable(), ..Self::new(n) }
    }

    /// Names the field arithmetic in use.
    #[must_use]
    pub fn kernel_name(&self) -> &'static str {
        self.workspace.kernel_name()
    }

    /// The number of shards that this encoder is for.
    #[must_use]
    pub const fn n(&self) -> u16 {
        self.n
    }

    /// The code along which slivers of `axis` are extended.
    pub(crate) const fn code(&self, axis: Axis) -> Code {
        match axis {
            Axis::Primary => self.row_code,
            Axis::Secondary => self.column_code,
        }
    }

    pub(crate) const fn workspace(&mut self) -> &mut Workspace {
        &mut self.workspace
    }

    /// Encodes one segment: `data` fills its source grid, zeros the rest.
    ///
    /// # Panics
    ///
    /// If `data` is longer than the shape's source grid, or the shape is for another number of shards.
    pub fn encode(&mut self, shape: SegmentShape, data: &[u8]) -> EncodedSegment {
        let mut segment = EncodedSegment {
            shape,
            primary: Lines::default(),
            secondary: Lines::default(),
            primary_hashes: Vec::new(),
            secondary_hashes: Vec::new(),
        };
        self.encode_into(shape, data, &mut segment);
        segment
    }

    /// Like [`Self::encode`], into the buffers of a segment that is no longer needed.
    ///
    /// # Panics
    ///
    /// As [`Self::encode`].
    pub fn encode_into(&mut self, shape: SegmentShape, data: &[u8], segment: &mut EncodedSegment) {
        assert_eq!(shape.n(), self.n, "the encoder is for this number of shards");
        assert!(data.len() <= shape.source_bytes(), "the data fits the grid");
        segment.shape = shape;
        if shape.is_replicated() {
            return replicate(data, segment);
        }
        let n = shape.n_slivers();
        segment.primary.resize(n * shape.sliver_bytes(Axis::Primary));
        segment.secondary.resize(n * shape.sliver_bytes(Axis::Secondary));
        segment.primary_hashes.resize(n, SliverHashes::default());
        segment.secondary_hashes.resize(n, SliverHashes::default());
        if shape.symbols_per_leaf() > 1 {
            return self.encode_grouped(data, segment);
        }
        if data.len() == shape.source_bytes() {
            return self.encode_leaves(data, segment);
        }
        let mut padded = std::mem::take(&mut self.scratch.padded);
        padded.resize(shape.source_bytes());
        padded[..data.len()].copy_from_slice(data);
        padded[data.len()..].fill(0);
        self.encode_leaves(&padded, segment);
        self.scratch.padded = padded;
    }

    /// Fills a segment whose symbols are leaves, from the data of its whole grid.
    fn encode_leaves(&mut self, data: &[u8], segment: &mut EncodedSegment) {
        match striped::stripe_bytes(segment.shape) {
            Some(bytes) => self.encode_striped(bytes, data, segment),
            None => self.encode_whole(data, segment),
        }
    }

    /// Returns the hashes of one sliver, extending it: what a node does with a sliver before it vouches for it.
    ///
    /// # Panics
    ///
    /// If `sliver` does not have the shape's size, or the shape is for another number of shards.
    pub fn hash_sliver(&mut self, shape: SegmentShape, axis: Axis, sliver: &[u8]) -> SliverHashes {
        let [hashes] = self.hash_slivers(shape, axis, &[sliver])[..] else {
            unreachable!("one sliver was given")
        };
        hashes
    }

    /// Returns the hashes of several slivers along one axis: quicker than one by one when symbols are short.
    ///
    /// # Panics
    ///
    /// As [`Self::hash_sliver`].
    pub fn hash_slivers(&mut self, shape: SegmentShape, axis: Axis, slivers: &[&[u8]]) -> Vec<SliverHashes> {
        assert_eq!(shape.n(), self.n, "the encoder is for this number of shards");
        for sliver in slivers {
            assert_eq!(sliver.len(), shape.sliver_bytes(axis), "whole slivers");
        }
        if shape.is_replicated() {
            return slivers.iter().map(|sliver| hashes_of_copy(shape, sliver)).collect();
        }
        let (w, code) = (shape.symbol_bytes(), self.code(axis));
        let parity_bytes = shape.n_parity(axis) * w;
        let batch = (HASHED_BYTES / parity_bytes).clamp(1, HASHED_SLIVERS);
        let mut all = vec![SliverHashes::default(); slivers.len()];
        let Self { workspace, scratch: Scratch { hashed, parity, .. }, .. } = self;
        for (slivers, hashes) in slivers.chunks(batch).zip(all.chunks_mut(batch)) {
            parity.resize(slivers.len() * parity_bytes);
            extend_slivers(&code, workspace, w, |i| slivers[i], parity);
            slivers.iter().for_each(|sliver| hashed.source.add(shape, sliver));
            parity.chunks_exact(parity_bytes).for_each(|parity| hashed.parity.add(shape, parity));
            hashed.roots(shape, axis, hashes);
        }
        all
    }

    /// Returns the parity symbols of one sliver.
    ///
    /// # Panics
    ///
    /// As [`Self::hash_sliver`].
    pub fn extend_sliver(&mut self, shape: SegmentShape, axis: Axis, sliver: &[u8]) -> Vec<u8> {
        assert_eq!(shape.n(), self.n, "the encoder is for this number of shards");
        assert_eq!(sliver.len(), shape.sliver_bytes(axis), "a whole sliver");
        let mut parity = vec![0; shape.n_parity(axis) * shape.symbol_bytes()];
        if shape.is_replicated() {
            return parity;
        }
        let code = self.code(axis);
        extend_slivers(&code, &mut self.workspace, shape.symbol_bytes(), |_| sliver, &mut parity);
        parity
    }
}

/// Fills a segment that is its only sliver.
fn replicate(data: &[u8], segment: &mut EncodedSegment) {
    segment.primary.resize(segment.shape.source_bytes());
    segment.primary[..data.len()].copy_from_slice(data);
    segment.primary[data.len()..].fill(0);
    segment.secondary.resize(0);
    segment.secondary_hashes.clear();
    segment.primary_hashes.clear();
    segment.primary_hashes.push(hashes_of_copy(segment.shape, &segment.primary));
}

/// The hashes of a sliver that is the segment itself: it has no parity, in whose place stand zeros.
fn hashes_of_copy(shape: SegmentShape, sliver: &[u8]) -> SliverHashes {
    SliverHashes { source: root_of_part(shape, sliver), parity: Hash::default() }
}

/// Extends as many slivers as `parity` has room for: `sliver(i)` is `[k]` symbols of `w` bytes, `parity` is
/// `[slivers][n - k]`.
fn extend_slivers<'a>(
    code: &Code,
    workspace: &mut Workspace,
    w: usize,
    sliver: impl Fn(usize) -> &'a [u8],
    parity: &mut [u8],
) {
    let parity_bytes = code.n_parity() * w;
    for part in Part::all(parity.len() / parity_bytes, w, code.encode_tile_bytes(workspace)) {
        let tile = code.encode_tile(workspace, part.count * part.len, |i, shard| {
            let symbol = |at| &sliver(part.first + at)[i * w + part.offset..][..part.len];
            shard.copy_from_each(part.len, (0..part.count).map(symbol));
        });
        for (j, shard) in tile.into_shards().enumerate() {
            let symbols = shard.into_bytes().chunks_exact(part.len);
            let parities = parity[part.first * parity_bytes..].chunks_exact_mut(parity_bytes);
            for (symbol, parity) in symbols.zip(parities) {
                parity[j * w + part.offset..][..part.len].copy_from_slice(symbol);
            }
        }
    }
}

/// The hashes of slivers whose `n` leaves each lie one after the other, the first `k` those of source symbols.
fn sliver_hashes(
    leaves: &[Digest],
    n: usize,
    k: usize,
    trees: &mut Vec<Digest>,
    hashes: &mut [SliverHashes],
) {
    let mut roots = |range: std::ops::Range<usize>, take: fn(&mut SliverHashes) -> &mut Hash| {
        trees.clear();
        leaves.chunks_exact(n).for_each(|sliver| trees.extend_from_slice(&sliver[range.clone()]));
        merkle::roots_in_place(trees, range.len());
        hashes.iter_mut().zip(&*trees).for_each(|(hashes, root)| *take(hashes) = Hash(*root));
    };
    roots(0..k, |hashes| &mut hashes.source);
    roots(k..n, |hashes| &mut hashes.parity);
}

/// Root over the source symbols of a sliver: what a reader computes, without any coding.
#[must_use]
pub fn source_root(shape: SegmentShape, sliver: &[u8]) -> Hash {
    root_of_part(shape, sliver)
}

#[cfg(test)]
mod tests;
