//! A segment to its slivers and their hashes.

use std::ops::Range;

use super::{
    Axis, SegmentShape, Workspace,
    code::Code,
    leaves::{LeafHasher, root_of_part},
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
        match axis {
            Axis::Primary => self.primary_hashes[usize::from(index)],
            Axis::Secondary => self.secondary_hashes[usize::from(index)],
        }
    }

    /// What binds the slivers to the blob ID.
    #[must_use]
    pub fn commitment(&self) -> SegmentCommitment {
        let n = self.shape.n();
        let pairs = (0..n).map(SliverPairIndex).map(|pair| PairRoots {
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
    /// Parity symbols of the rows in hand: `[rows][n - s]` symbols.
    row_parity: Vec<u8>,
    /// Leaves of the whole grid, `[n][n]`, when a leaf is one symbol.
    grid: Vec<Digest>,
    /// Leaves of the source and of the parity parts of the slivers in hand.
    source: LeafHasher,
    parity: LeafHasher,
    /// One column of parity symbols, when symbols are grouped.
    column: Vec<u8>,
    /// Hashes on their way to the grid, or from it.
    hashes: Vec<Digest>,
}

impl Scratch {
    /// Roots of the slivers whose leaves were collected, into `hashes`.
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
const TREES: usize = 32;

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
        let n = shape.n_slivers();
        segment.shape = shape;
        segment.primary.resize(n * shape.sliver_bytes(Axis::Primary));
        segment.secondary.resize(n * shape.sliver_bytes(Axis::Secondary));
        segment.primary_hashes.resize(n, SliverHashes::default());
        segment.secondary_hashes.resize(n, SliverHashes::default());
        segment.primary[..data.len()].copy_from_slice(data);
        segment.primary[data.len()..shape.source_bytes()].fill(0);
        self.extend_columns(segment);
        self.extend_rows(segment);
        if shape.symbols_per_leaf() > 1 {
            self.hash_columns_in_groups(segment);
        } else {
            self.hash_rows_of_grid(segment);
            self.hash_columns_of_grid(segment);
        }
    }

    /// Parity rows: every row of source symbols is one shard, all its columns side by side.
    fn extend_columns(&mut self, segment: &mut EncodedSegment) {
        let row_bytes = segment.shape.sliver_bytes(Axis::Primary);
        let (source, parity) = segment.primary.split_at_mut(segment.shape.source_bytes());
        let tile_bytes = self.column_code.encode_tile_bytes(&self.workspace);
        for start in (0..row_bytes).step_by(tile_bytes) {
            let len = tile_bytes.min(row_bytes - start);
            self.column_code.encode_tile(
                &mut self.workspace,
                len,
                |row, shard| shard.copy_from(&source[row * row_bytes + start..][..len]),
                |row, shard| shard.copy_to(&mut parity[row * row_bytes + start..][..len]),
            );
        }
    }

    /// Parity columns, and the roots of every row: rows in batches that fill a tile.
    fn extend_rows(&mut self, segment: &mut EncodedSegment) {
        let shape = segment.shape;
        let (w, n, s) = (shape.symbol_bytes(), shape.n_slivers(), shape.n_source(Axis::Primary));
        let grouped = shape.symbols_per_leaf() > 1;
        let (source_bytes, parity_bytes) = (s * w, (n - s) * w);
        let batch = (self.row_code.encode_tile_bytes(&self.workspace) / w).max(1);
        // Grouped leaves of columns are made later, from the parity of all rows.
        self.scratch.row_parity.resize(if grouped { n } else { batch } * parity_bytes, 0);
        self.scratch.grid.resize(if grouped { 0 } else { n * n }, [0; 32]);
        let mut collected = 0;
        for first in (0..n).step_by(batch) {
            let rows = batch.min(n - first);
            let slot = if grouped { first } else { 0 };
            let row_parity = &mut self.scratch.row_parity[slot * parity_bytes..][..rows * parity_bytes];
            let sources = &segment.primary[first * source_bytes..][..rows * source_bytes];
            extend_slivers(&self.row_code, &mut self.workspace, w, sources, row_parity);
            scatter(shape, (first, 0), (sources, s), &mut segment.secondary);
            scatter(shape, (first, s), (row_parity, n - s), &mut segment.secondary);
            for (source, parity) in
                sources.chunks_exact(source_bytes).zip(row_parity.chunks_exact(parity_bytes))
            {
                self.scratch.source.add(shape, source);
                self.scratch.parity.add(shape, parity);
            }
            if first + rows - collected >= TREES || first + rows == n {
                let rows = collected..first + rows;
                collected = rows.end;
                if grouped {
                    self.scratch.roots(shape, Axis::Primary, &mut segment.primary_hashes[rows]);
                    continue;
                }
                let Scratch { grid, source, parity, .. } = &mut self.scratch;
                let leaves = source.leaves().chunks_exact(s).zip(parity.leaves().chunks_exact(n - s));
                for (row, (source, parity)) in grid[rows.start * n..].chunks_exact_mut(n).zip(leaves) {
                    row[..s].copy_from_slice(source);
                    row[s..].copy_from_slice(parity);
                }
                source.clear();
                parity.clear();
            }
        }
    }

    /// Roots of the rows from the leaves of the grid.
    fn hash_rows_of_grid(&mut self, segment: &mut EncodedSegment) {
        let (n, s) = (segment.shape.n_slivers(), segment.shape.n_source(Axis::Primary));
        let Scratch { grid, hashes, .. } = &mut self.scratch;
        let rows = grid.chunks(TREES * n).zip(segment.primary_hashes.chunks_mut(TREES));
        for (rows, roots) in rows {
            let mut part = |range: Range<usize>, take: &mut dyn FnMut(usize, Hash)| {
                hashes.clear();
                rows.chunks_exact(n).for_each(|row| hashes.extend_from_slice(&row[range.clone()]));
                merkle::roots_in_place(hashes, range.len());
                hashes[..rows.len() / n].iter().enumerate().for_each(|(row, root)| take(row, Hash(*root)));
            };
            part(0..s, &mut |row, root| roots[row].source = root);
            part(s..n, &mut |row, root| roots[row].parity = root);
        }
    }

    /// Roots of the columns from the leaves that the rows made: each leaf is computed once, for both trees.
    fn hash_columns_of_grid(&mut self, segment: &mut EncodedSegment) {
        let (n, p) = (segment.shape.n_slivers(), segment.shape.n_source(Axis::Secondary));
        let (source, parity) = self.scratch.grid.split_at_mut(p * n);
        merkle::column_roots_in_place(source, n);
        merkle::column_roots_in_place(parity, n);
        for ((hashes, source), parity) in segment.secondary_hashes.iter_mut().zip(source).zip(parity) {
            *hashes = SliverHashes { source: Hash(*source), parity: Hash(*parity) };
        }
    }

    /// Roots of the columns when small symbols share leaves: groups run down the columns.
    fn hash_columns_in_groups(&mut self, segment: &mut EncodedSegment) {
        let shape = segment.shape;
        let (w, n) = (shape.symbol_bytes(), shape.n_slivers());
        let (s, p) = (shape.n_source(Axis::Primary), shape.n_source(Axis::Secondary));
        for first in (0..n).step_by(TREES) {
            let columns = first..n.min(first + TREES);
            for column in columns.clone() {
                let Scratch { row_parity, column: parity, .. } = &mut self.scratch;
                parity.clear();
                for row in p..n {
                    let symbol = if column < s {
                        &segment.primary[(row * s + column) * w..][..w]
                    } else {
                        &row_parity[(row * (n - s) + column - s) * w..][..w]
                    };
                    parity.extend_from_slice(symbol);
                }
                self.scratch.source.add(shape, &segment.secondary[column * p * w..][..p * w]);
                self.scratch.parity.add(shape, &self.scratch.column);
            }
            self.scratch.roots(shape, Axis::Secondary, &mut segment.secondary_hashes[columns]);
        }
    }

    /// Returns the hashes of one sliver, extending it: what a node does with a sliver before it vouches for it.
    ///
    /// # Panics
    ///
    /// If `sliver` does not have the shape's size, or the shape is for another number of shards.
    pub fn hash_sliver(&mut self, shape: SegmentShape, axis: Axis, sliver: &[u8]) -> SliverHashes {
        let parity = self.extend_sliver(shape, axis, sliver);
        SliverHashes { source: root_of_part(shape, sliver), parity: root_of_part(shape, &parity) }
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
        let code = self.code(axis);
        extend_slivers(&code, &mut self.workspace, shape.symbol_bytes(), sliver, &mut parity);
        parity
    }
}

/// Extends as many slivers as `parity` has room for: `source` is `[slivers][k]`, `parity` `[slivers][n - k]`
/// symbols of `w` bytes.
fn extend_slivers(code: &Code, workspace: &mut Workspace, w: usize, source: &[u8], parity: &mut [u8]) {
    let (source_bytes, parity_bytes) = (code.k() * w, code.n_parity() * w);
    let n_slivers = parity.len() / parity_bytes;
    let tile_bytes = code.encode_tile_bytes(workspace);
    if n_slivers > 1 || w <= tile_bytes {
        // Whole symbols of several slivers share a tile.
        let per_tile = (tile_bytes / w).max(1);
        for first in (0..n_slivers).step_by(per_tile) {
            let slivers = per_tile.min(n_slivers - first);
            code.encode_tile(
                workspace,
                slivers * w,
                |i, shard| {
                    shard.fill_with(|tile| {
                        for (sliver, symbol) in tile.chunks_exact_mut(w).enumerate() {
                            symbol.copy_from_slice(&source[(first + sliver) * source_bytes + i * w..][..w]);
                        }
                    });
                },
                |j, shard| {
                    for (sliver, symbol) in shard.into_bytes().chunks_exact(w).enumerate() {
                        parity[(first + sliver) * parity_bytes + j * w..][..w].copy_from_slice(symbol);
                    }
                },
            );
        }
    } else {
        for start in (0..w).step_by(tile_bytes) {
            let len = tile_bytes.min(w - start);
            code.encode_tile(
                workspace,
                len,
                |i, shard| shard.copy_from(&source[i * w + start..][..len]),
                |j, shard| shard.copy_to(&mut parity[j * w + start..][..len]),
            );
        }
    }
}

/// Puts symbols of rows `first_row..`, `width` of each from column `first_column` on, into the columns, as far as these
/// are stored. The rows were just used, so that they are read from cache.
fn scatter(
    shape: SegmentShape,
    (first_row, first_column): (usize, usize),
    (rows, width): (&[u8], usize),
    secondary: &mut [u8],
) {
    let (w, p) = (shape.symbol_bytes(), shape.n_source(Axis::Secondary));
    for (symbols, row) in rows.chunks_exact(width * w).zip(first_row..p) {
        for (symbol, column) in symbols.chunks_exact(w).zip(first_column..) {
            secondary[(column * p + row) * w..][..w].copy_from_slice(symbol);
        }
    }
}

/// Root over the source symbols of a sliver: what a reader computes, without any coding.
#[must_use]
pub fn source_root(shape: SegmentShape, sliver: &[u8]) -> Hash {
    root_of_part(shape, sliver)
}

#[cfg(test)]
mod tests;
