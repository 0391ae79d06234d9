//! Long symbols of few shards: a stripe of every symbol of the grid fits in the core's own cache.
//!
//! So memory is touched once: the data is read, and slivers are written past the caches. In between, a stripe is
//! extended along both axes and hashed.

use super::{
    EncodedSegment, SegmentEncoder, sliver_hashes,
    whole::{ahead_bytes, fetch},
};
use crate::{
    encoding::{
        Axis, SegmentShape,
        code::{ShardIn, Tile},
        leaves::{LineHasher, Part},
        lines::Lines,
    },
    hash::{Digest, INPUT_BYTES_MAX},
};

/// Bytes of the grid's stripe: half of a second-level cache of 1 MiB, beside work space and what is fetched ahead.
const STRIPE_BYTES: usize = 512 << 10;
/// Narrowest stripe of a symbol that pays: below it, setting out for another place costs more than reading there.
const NARROWEST: usize = 2 << 10;

/// Buffers, reused.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The stripe: `[n][n]` parts of symbols.
    grid: Lines,
    lines: LineHasher,
    /// Leaves, `[n][n]`, and the same by columns.
    leaves: Vec<Digest>,
    columns: Vec<Digest>,
    trees: Vec<Digest>,
}

/// Bytes of a symbol in a stripe, if the shape is one to be encoded in stripes.
pub(super) fn stripe_bytes(shape: SegmentShape) -> Option<usize> {
    let n_symbols = shape.n_slivers() * shape.n_slivers();
    let bytes = STRIPE_BYTES / n_symbols / INPUT_BYTES_MAX * INPUT_BYTES_MAX;
    (bytes >= NARROWEST && shape.symbol_bytes() >= bytes).then_some(bytes)
}

impl SegmentEncoder {
    /// Fills a segment from the data of its whole grid, in stripes of `bytes`; its buffers have their sizes.
    pub(super) fn encode_striped(&mut self, bytes: usize, data: &[u8], segment: &mut EncodedSegment) {
        let shape = segment.shape;
        let (w, n) = (shape.symbol_bytes(), shape.n_slivers());
        let (s, p) = (shape.n_source(Axis::Primary), shape.n_source(Axis::Secondary));
        let mut scratch = std::mem::take(&mut self.scratch.striped);
        scratch.leaves.resize(n * n, [0; 32]);
        scratch.grid.resize(n * n * bytes);
        let kernel = self.workspace.kernel();
        let mut parts = Part::all(1, w, bytes).peekable();
        while let Some(part) = parts.next() {
            let range = part.range(w);
            let source = Tile::within(data, w, range.clone());
            self.extend_stripe(source, range.len(), (s, p), &mut scratch.grid);
            let grid = Tile::within(&scratch.grid, range.len(), 0..range.len());
            let symbol = |row: usize, column: usize| {
                if row < p && column < s {
                    source.shard(row * s + column)
                } else {
                    grid.shard(row * n + column)
                }
            };
            let next = parts.peek().map_or(0..0, |next| next.range(w));
            let batch = ahead_bytes(p * s * next.len(), n * n * range.len());
            let mut ahead = Tile::within(data, w, next).pieces(p * s, batch);
            let symbols = (n * n, |i| symbol(i / n, i % n));
            scratch.lines.add((w, part), symbols, &mut scratch.leaves, || fetch(&kernel, &mut ahead));
            let primary = segment.primary.chunks_exact_mut(w).enumerate();
            kernel.stream(primary.map(|(i, place)| (symbol(i / s, i % s), &mut place[range.clone()])));
            let secondary = segment.secondary.chunks_exact_mut(w).enumerate();
            kernel.stream(secondary.map(|(i, place)| (symbol(i % p, i / p), &mut place[range.clone()])));
        }
        let Scratch { leaves, columns, trees, .. } = &mut scratch;
        sliver_hashes(leaves, n, s, trees, &mut segment.primary_hashes);
        columns.clear();
        columns.extend((0..n * n).map(|i| leaves[i % n * n + i / n]));
        sliver_hashes(columns, n, p, trees, &mut segment.secondary_hashes);
        self.scratch.striped = scratch;
    }

    /// Extends a stripe of the source symbols, `len` bytes of each, to the whole grid; what is source stays where it is.
    fn extend_stripe(&mut self, source: Tile<'_>, len: usize, (s, p): (usize, usize), grid: &mut [u8]) {
        let n = usize::from(self.n);
        for column in 0..s {
            let load = |row, shard: ShardIn<'_>| shard.copy_from(source.shard(row * s + column));
            let parity = self.column_code.encode_tile(&mut self.workspace, len, load);
            for (row, shard) in (p..n).zip(parity.into_shards()) {
                shard.copy_to(&mut grid[(row * n + column) * len..][..len]);
            }
        }
        for row in 0..n {
            let (sources, parities) = grid[row * n * len..][..n * len].split_at_mut(s * len);
            let load = |column, shard: ShardIn<'_>| {
                shard.copy_from(if row < p {
                    source.shard(row * s + column)
                } else {
                    &sources[column * len..][..len]
                });
            };
            let parity = self.row_code.encode_tile(&mut self.workspace, len, load);
            for (shard, place) in parity.into_shards().zip(parities.chunks_exact_mut(len)) {
                shard.copy_to(place);
            }
        }
    }
}
