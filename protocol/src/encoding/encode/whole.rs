//! Symbols that are leaves of their own: large blobs.
//!
//! ```text
//!            columns in tiles                          rows in tiles
//! data ----> extend, hash, build trees ----> primary ----> extend, hash, build trees
//!                |                             slivers           |
//!                +----> source columns                           +----> parity columns
//! ```
//!
//! What bounds this is memory more than arithmetic, so a tile's bytes are fetched once for everything that is done
//! with them, and results leave past the caches: the first pass fetches the data, makes the parity rows, hashes all
//! symbols of the source columns and writes these columns; the second fetches the rows, makes the parity columns, and
//! hashes and writes them.
//!
//! Leaves lie where both passes write them in order: those of source columns column by column, those of parity columns
//! row by row.

use super::{EncodedSegment, HASHED_SLIVERS, SegmentEncoder, SliverHashes, sliver_hashes};
use crate::{
    encoding::{
        Axis,
        code::{ShardIn, Tile},
        kernel::Kernel,
        leaves::{LineHasher, Part},
    },
    hash::{Digest, Hash, INPUT_BYTES_MAX, LANES},
    merkle,
};

/// Bytes to fetch ahead between two batches of hashing, of `next` bytes in all while `hashed` bytes are hashed.
pub(super) fn ahead_bytes(next: usize, hashed: usize) -> usize {
    (next / (hashed / (LANES * INPUT_BYTES_MAX)).max(1)).max(1)
}

/// Buffers, reused.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    lines: LineHasher,
    /// Leaves of the source columns, `[s][n]`.
    source: Vec<Digest>,
    /// Leaves of the parity columns, `[n][n - s]`.
    parity: Vec<Digest>,
    /// Leaves whose trees are being built.
    trees: Vec<Digest>,
}

impl SegmentEncoder {
    /// Fills a segment from the data of its whole grid; its buffers have their sizes.
    pub(super) fn encode_whole(&mut self, data: &[u8], segment: &mut EncodedSegment) {
        self.encode_columns(data, segment);
        self.encode_rows(segment);
        self.join_trees(segment);
    }

    /// From the source symbols: the primary slivers, the source columns among the secondary slivers, and their trees.
    fn encode_columns(&mut self, data: &[u8], segment: &mut EncodedSegment) {
        let shape = segment.shape;
        let (w, n, p) = (shape.symbol_bytes(), shape.n_slivers(), shape.n_source(Axis::Secondary));
        let (s, row_bytes) = (shape.n_source(Axis::Primary), shape.sliver_bytes(Axis::Primary));
        let kernel = self.workspace.kernel();
        let Scratch { lines, source: leaves, trees, .. } = &mut self.scratch.whole;
        leaves.resize(s * n, [0; 32]);
        let mut n_hashed = 0;
        let mut parts = Part::all(s, w, self.column_code.encode_tile_bytes(&self.workspace)).peekable();
        while let Some(part) = parts.next() {
            let range = part.range(w);
            let next = parts.peek().map_or(0..0, |next| next.range(w));
            let batch = ahead_bytes(next.len() * p, n * range.len());
            let mut ahead = Tile::within(data, row_bytes, next).pieces(p, batch);
            let source = Tile::within(data, row_bytes, range.clone());
            let load = |row, shard: ShardIn<'_>| shard.copy_from(source.shard(row));
            let parity = self.column_code.encode_tile(&mut self.workspace, range.len(), load).into_tile();
            let row = |row: usize| if row < p { source.shard(row) } else { parity.shard(row - p) };
            lines.add((w, part), (n, row), leaves, || fetch(&kernel, &mut ahead));
            let rows = segment.primary.chunks_exact_mut(row_bytes).enumerate();
            kernel.stream(rows.map(|(i, sliver)| (row(i), &mut sliver[range.clone()])));
            let columns = segment.secondary[part.first * p * w..][..part.count * p * w].chunks_exact_mut(w);
            kernel.stream(columns.enumerate().map(|(i, symbol)| {
                let (column, row) = (i / p, i % p);
                let symbol = &mut symbol[part.offset..][..part.len];
                (&source.shard(row)[column * part.len..][..part.len], symbol)
            }));
            let n_whole = part.first + if part.is_last(w) { part.count } else { 0 };
            if n_whole - n_hashed >= HASHED_SLIVERS || n_whole == s {
                let columns = &leaves[n_hashed * n..n_whole * n];
                sliver_hashes(columns, n, p, trees, &mut segment.secondary_hashes[n_hashed..n_whole]);
                n_hashed = n_whole;
            }
        }
    }

    /// From the primary slivers: the parity columns among the secondary slivers, and the parity parts of the rows' trees.
    fn encode_rows(&mut self, segment: &mut EncodedSegment) {
        let shape = segment.shape;
        let (w, n, p) = (shape.symbol_bytes(), shape.n_slivers(), shape.n_source(Axis::Secondary));
        let (s, row_bytes) = (shape.n_source(Axis::Primary), shape.sliver_bytes(Axis::Primary));
        let n_parity = n - s;
        let kernel = self.workspace.kernel();
        let Scratch { lines, parity: leaves, trees, .. } = &mut self.scratch.whole;
        leaves.resize(n * n_parity, [0; 32]);
        let mut n_hashed = 0;
        let mut parts = Part::all(n, w, self.row_code.encode_tile_bytes(&self.workspace)).peekable();
        while let Some(part) = parts.next() {
            let next = parts.peek().copied().unwrap_or(part);
            let next_rows = &segment.primary[next.first * row_bytes..];
            let batch = ahead_bytes(next.count * next.len * s, part.count * part.len * n_parity);
            let (whole, split);
            let ahead: &mut dyn Iterator<Item = &[u8]> = if next.is_whole(w) {
                whole = Tile::within(next_rows, 0, 0..next.count * row_bytes);
                &mut whole.pieces(1, batch)
            } else {
                split = Tile::within(next_rows, w, next.offset..next.offset + next.len);
                &mut split.pieces(s, batch)
            };
            let rows = &segment.primary[part.first * row_bytes..][..part.count * row_bytes];
            let tile_bytes = part.count * part.len;
            let tile = self.row_code.encode_tile(&mut self.workspace, tile_bytes, |column, shard| {
                let at = column * w + part.offset;
                shard
                    .copy_from_each(part.len, rows.chunks_exact(row_bytes).map(|row| &row[at..][..part.len]));
            });
            let tile = tile.into_tile();
            let column = |column| tile.shard(column);
            lines.add((w, part), (n_parity, column), leaves, || fetch(&kernel, &mut *ahead));
            // Of the parity columns, only the symbols of source rows are stored.
            let n_stored = part.count.min(p.saturating_sub(part.first));
            let columns = segment.secondary[s * p * w..].chunks_exact_mut(p * w).enumerate();
            kernel.stream(columns.take(if n_stored > 0 { n_parity } else { 0 }).map(|(column, sliver)| {
                let place = part.first * w + part.offset;
                let len = n_stored * part.len;
                (&tile.shard(column)[..len], &mut sliver[place..][..len])
            }));
            let n_whole = part.first + if part.is_last(w) { part.count } else { 0 };
            if n_whole - n_hashed >= HASHED_SLIVERS || n_whole == n {
                trees.clear();
                trees.extend_from_slice(&leaves[n_hashed * n_parity..n_whole * n_parity]);
                merkle::roots_in_place(trees, n_parity);
                for (hashes, root) in segment.primary_hashes[n_hashed..n_whole].iter_mut().zip(&*trees) {
                    hashes.parity = Hash(*root);
                }
                n_hashed = n_whole;
            }
        }
    }

    /// The trees that run across both passes' order: source parts of the rows, and the parity columns.
    fn join_trees(&mut self, segment: &mut EncodedSegment) {
        let shape = segment.shape;
        let (n, s, p) = (shape.n_slivers(), shape.n_source(Axis::Primary), shape.n_source(Axis::Secondary));
        let Scratch { source, parity, .. } = &mut self.scratch.whole;
        merkle::column_roots_in_place(source, n);
        for (hashes, root) in segment.primary_hashes.iter_mut().zip(source) {
            hashes.source = Hash(*root);
        }
        let (source, parity) = parity.split_at_mut(p * (n - s));
        merkle::column_roots_in_place(source, n - s);
        merkle::column_roots_in_place(parity, n - s);
        for ((hashes, source), parity) in segment.secondary_hashes[s..].iter_mut().zip(source).zip(parity) {
            *hashes = SliverHashes { source: Hash(*source), parity: Hash(*parity) };
        }
    }
}

/// Fetches the next piece of what will be read soon.
pub(super) fn fetch<'a>(kernel: &Kernel, ahead: &mut (impl Iterator<Item = &'a [u8]> + ?Sized)) {
    if let Some(piece) = ahead.next() {
        kernel.prefetch(piece);
    }
}
