//! Symbols so small that several share a leaf: rows and columns are grouped differently, so leaves of the grid cannot be
//! shared between them, and the parity of all rows is kept until the columns are hashed.

use super::{EncodedSegment, HASHED_SLIVERS, SegmentEncoder, SliverHasher, extend_slivers};
use crate::encoding::{Axis, SegmentShape, code::ShardIn};

/// Buffers, reused.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Parity symbols of the rows: `[n][n - s]`.
    row_parity: Vec<u8>,
    /// Parity symbols of one column.
    column: Vec<u8>,
    hasher: SliverHasher,
}

impl SegmentEncoder {
    /// Fills a segment whose symbols share leaves; its buffers have their sizes.
    pub(super) fn encode_grouped(&mut self, data: &[u8], segment: &mut EncodedSegment) {
        segment.primary[..data.len()].copy_from_slice(data);
        segment.primary[data.len()..segment.shape.source_bytes()].fill(0);
        self.extend_columns(segment);
        self.extend_rows(segment);
        self.hash_columns_in_groups(segment);
    }

    /// Parity rows: every row of source symbols is one shard, all its columns side by side.
    fn extend_columns(&mut self, segment: &mut EncodedSegment) {
        let row_bytes = segment.shape.sliver_bytes(Axis::Primary);
        let (source, parity) = segment.primary.split_at_mut(segment.shape.source_bytes());
        let tile_bytes = self.column_code.encode_tile_bytes(&self.workspace);
        for start in (0..row_bytes).step_by(tile_bytes) {
            let len = tile_bytes.min(row_bytes - start);
            let load = |row, shard: ShardIn<'_>| shard.copy_from(&source[row * row_bytes + start..][..len]);
            let tile = self.column_code.encode_tile(&mut self.workspace, len, load);
            for (row, shard) in tile.into_shards().enumerate() {
                shard.copy_to(&mut parity[row * row_bytes + start..][..len]);
            }
        }
    }

    /// Parity columns, and the roots of every row: rows in batches that fill a tile.
    fn extend_rows(&mut self, segment: &mut EncodedSegment) {
        let shape = segment.shape;
        let (w, n, s) = (shape.symbol_bytes(), shape.n_slivers(), shape.n_source(Axis::Primary));
        let (source_bytes, parity_bytes) = (s * w, (n - s) * w);
        let batch = (self.row_code.encode_tile_bytes(&self.workspace) / w).max(1);
        let scratch = &mut self.scratch.grouped;
        scratch.row_parity.resize(n * parity_bytes, 0);
        let mut collected = 0;
        for first in (0..n).step_by(batch) {
            let rows = batch.min(n - first);
            let row_parity = &mut scratch.row_parity[first * parity_bytes..][..rows * parity_bytes];
            let sources = &segment.primary[first * source_bytes..][..rows * source_bytes];
            let sliver = |row: usize| &sources[row * source_bytes..][..source_bytes];
            extend_slivers(&self.row_code, &mut self.workspace, w, sliver, row_parity);
            scatter(shape, (first, 0), (sources, s), &mut segment.secondary);
            scatter(shape, (first, s), (row_parity, n - s), &mut segment.secondary);
            let slivers = sources.chunks_exact(source_bytes).zip(row_parity.chunks_exact(parity_bytes));
            for (source, parity) in slivers {
                scratch.hasher.source.add(shape, source);
                scratch.hasher.parity.add(shape, parity);
            }
            if first + rows - collected >= HASHED_SLIVERS || first + rows == n {
                let rows = collected..first + rows;
                collected = rows.end;
                scratch.hasher.roots(shape, Axis::Primary, &mut segment.primary_hashes[rows]);
            }
        }
    }

    /// Roots of the columns: groups run down the columns.
    fn hash_columns_in_groups(&mut self, segment: &mut EncodedSegment) {
        let shape = segment.shape;
        let (w, n) = (shape.symbol_bytes(), shape.n_slivers());
        let (s, p) = (shape.n_source(Axis::Primary), shape.n_source(Axis::Secondary));
        let scratch = &mut self.scratch.grouped;
        for first in (0..n).step_by(HASHED_SLIVERS) {
            let columns = first..n.min(first + HASHED_SLIVERS);
            for column in columns.clone() {
                scratch.column.clear();
                for row in p..n {
                    let symbol = if column < s {
                        &segment.primary[(row * s + column) * w..][..w]
                    } else {
                        &scratch.row_parity[(row * (n - s) + column - s) * w..][..w]
                    };
                    scratch.column.extend_from_slice(symbol);
                }
                scratch.hasher.source.add(shape, &segment.secondary[column * p * w..][..p * w]);
                scratch.hasher.parity.add(shape, &scratch.column);
            }
            scratch.hasher.roots(shape, Axis::Secondary, &mut segment.secondary_hashes[columns]);
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
