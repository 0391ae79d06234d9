//! Leaves of slivers, and the roots over them, many at a time.
//!
//! A sliver's tree has two parts, source and parity symbols. In each part a leaf is
//!
//! - for symbols below 64 bytes: the hash of as many consecutive symbols as fit in 64 bytes;
//! - for symbols of up to 1024 bytes: the hash of one symbol;
//! - for longer ones: the Merkle root over the hashes of the symbol's pieces of 1024 bytes.
//!
//! Each input is padded with zeros to whole 64-byte blocks. Hashing 16 inputs side by side is 10 times as quick as one
//! by one, so leaves of many slivers are collected before any is hashed.

use super::SegmentShape;
use crate::{
    hash::{Digest, Hash, INPUT_BYTES_MAX, LANES, LEAF},
    merkle,
};

/// A BLAKE3 block: what leaves are padded to.
const BLOCK_BYTES: usize = 64;

/// Collects the leaves of equal parts of slivers. The buffers are reused.
#[derive(Debug, Default)]
pub(crate) struct LeafHasher {
    /// Groups of small symbols, padded, not hashed yet.
    blocks: Vec<[u8; BLOCK_BYTES]>,
    /// Leaves, part after part.
    leaves: Vec<Digest>,
    /// Hashes of the pieces of long symbols.
    pieces: Vec<Digest>,
    /// The last pieces of long symbols, side by side, and their hashes.
    tails: (Vec<u8>, Vec<Digest>),
}

impl LeafHasher {
    /// Forgets all leaves.
    pub(crate) fn clear(&mut self) {
        self.blocks.clear();
        self.leaves.clear();
    }

    /// Adds the leaves of a part, or of several parts side by side if symbols are not grouped.
    pub(crate) fn add(&mut self, shape: SegmentShape, symbols: &[u8]) {
        let leaf_bytes = shape.leaf_bytes();
        if shape.symbols_per_leaf() > 1 {
            self.blocks.extend(symbols.chunks(leaf_bytes).map(|group| {
                let mut block = [0; BLOCK_BYTES];
                block[..group.len()].copy_from_slice(group);
                block
            }));
        } else if leaf_bytes <= INPUT_BYTES_MAX {
            let start = self.leaves.len();
            self.leaves.resize(start + symbols.len() / leaf_bytes, [0; 32]);
            LEAF.hash_many(symbols, leaf_bytes, &mut self.leaves[start..]);
        } else {
            self.add_long(leaf_bytes, symbols);
        }
    }

    /// Adds the leaves of symbols of `w` bytes, longer than a piece.
    fn add_long(&mut self, w: usize, symbols: &[u8]) {
        let n_symbols = symbols.len() / w;
        let n_pieces = w.div_ceil(INPUT_BYTES_MAX);
        let tail_bytes = w - (n_pieces - 1) * INPUT_BYTES_MAX;
        self.pieces.resize(n_symbols * n_pieces, [0; 32]);
        if tail_bytes == INPUT_BYTES_MAX {
            LEAF.hash_many(symbols, INPUT_BYTES_MAX, &mut self.pieces);
        } else {
            // Whole pieces first, of all symbols, then what is left of each, and then every piece to its place.
            let n_whole = n_symbols * (n_pieces - 1);
            let whole = symbols.chunks_exact(w).flat_map(|symbol| symbol.as_chunks::<INPUT_BYTES_MAX>().0);
            LEAF.hash_each(whole, &mut self.pieces[..n_whole]);
            let (tails, hashes) = &mut self.tails;
            tails.clear();
            symbols.chunks_exact(w).for_each(|symbol| tails.extend_from_slice(&symbol[w - tail_bytes..]));
            hashes.resize(n_symbols, [0; 32]);
            LEAF.hash_many(tails, tail_bytes, hashes);
            for (symbol, tail) in hashes.iter().enumerate().rev() {
                let from = symbol * (n_pieces - 1);
                self.pieces.copy_within(from..from + n_pieces - 1, symbol * n_pieces);
                self.pieces[symbol * n_pieces + n_pieces - 1] = *tail;
            }
        }
        merkle::roots_in_place(&mut self.pieces, n_pieces);
        self.leaves.extend_from_slice(&self.pieces[..n_symbols]);
    }

    /// The leaves collected, part after part.
    pub(crate) fn leaves(&mut self) -> &mut [Digest] {
        if !self.blocks.is_empty() {
            let start = self.leaves.len();
            self.leaves.resize(start + self.blocks.len(), [0; 32]);
            LEAF.hash_each(&self.blocks, &mut self.leaves[start..]);
            self.blocks.clear();
        }
        &mut self.leaves
    }

    /// The roots over the leaves collected, of parts of `n_symbols` each. The leaves are used up.
    pub(crate) fn roots(&mut self, shape: SegmentShape, n_symbols: usize) -> &[Digest] {
        let n_leaves = n_symbols.div_ceil(shape.symbols_per_leaf());
        let leaves = self.leaves();
        merkle::roots_in_place(leaves, n_leaves);
        let n_parts = leaves.len() / n_leaves;
        &leaves[..n_parts]
    }
}

/// Leaves of the symbols at equal places in many lines, where a leaf is a symbol: lines are extended side by side,
/// some symbols of each at a time.
#[derive(Debug, Default)]
pub(crate) struct LineHasher {
    /// Hashes of the pieces of long symbols: `[symbols][pieces][lines]`.
    pieces: Vec<Digest>,
}

/// Some whole symbols of a line, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The first symbol.
    pub(crate) first: usize,
    /// Symbols: one, if it is not whole.
    pub(crate) count: usize,
    /// Where the part begins within the symbol.
    pub(crate) offset: usize,
    /// Bytes of the part of each symbol.
    pub(crate) len: usize,
}

impl Part {
    /// Cuts `n_symbols` symbols of `w` bytes into parts of at most `bytes`, or of 1024 bytes if that is more.
    pub(crate) fn all(n_symbols: usize, w: usize, bytes: usize) -> impl Iterator<Item = Self> {
        let count = (bytes / w).max(1);
        let len = if count > 1 { w } else { w.min((bytes / INPUT_BYTES_MAX).max(1) * INPUT_BYTES_MAX) };
        (0..n_symbols).step_by(count).flat_map(move |first| {
            (0..w).step_by(len).map(move |offset| Self {
                first,
                count: count.min(n_symbols - first),
                offset,
                len: len.min(w - offset),
            })
        })
    }

    /// Where the part lies in a line of symbols of `w` bytes.
    pub(crate) const fn range(&self, w: usize) -> std::ops::Range<usize> {
        let start = self.first * w + self.offset;
        start..start + self.count * self.len
    }

    /// Whether its symbols of `w` bytes are whole.
    pub(crate) const fn is_whole(&self, w: usize) -> bool {
        self.len == w
    }

    /// Whether its symbols of `w` bytes end with it.
    pub(crate) const fn is_last(&self, w: usize) -> bool {
        self.offset + self.len == w
    }
}

impl LineHasher {
    /// Hashes a part of each of `n_lines` lines, symbols of `w` bytes; `line` gives its bytes. The leaves go to
    /// `out`, `[symbols][n_lines]`, once their symbols are whole: the parts of a symbol follow each other. `between` is
    /// called after every 16 hashes or so.
    pub(crate) fn add<'a>(
        &mut self,
        (w, part): (usize, Part),
        (n_lines, line): (usize, impl Fn(usize) -> &'a [u8]),
        out: &mut [Digest],
        mut between: impl FnMut(),
    ) {
        let out = &mut out[part.first * n_lines..][..part.count * n_lines];
        if w <= INPUT_BYTES_MAX {
            let inputs = (0..part.count).flat_map(|i| (0..n_lines).map(move |l| (i, l)));
            hash_in_order(inputs.map(|(i, l)| &line(l)[i * w..][..w]), out, &mut between);
            return;
        }
        let n_pieces = w.div_ceil(INPUT_BYTES_MAX);
        self.pieces.resize(self.pieces.len().max(part.count * n_pieces * n_lines), [0; 32]);
        let first_piece = part.offset / INPUT_BYTES_MAX;
        let n_whole = part.len / INPUT_BYTES_MAX;
        let is_last = part.is_last(w);
        for (i, leaves) in out.chunks_exact_mut(n_lines).enumerate() {
            let pieces = &mut self.pieces[i * n_pieces * n_lines..][..n_pieces * n_lines];
            let mut part_of = |range: std::ops::Range<usize>, len: usize| {
                let out = &mut pieces[(first_piece + range.start) * n_lines..][..range.len() * n_lines];
                let inputs = range.flat_map(|piece| (0..n_lines).map(move |l| (piece, l)));
                let at = |piece: usize| i * part.len + piece * INPUT_BYTES_MAX;
                hash_in_order(inputs.map(|(piece, l)| &line(l)[at(piece)..][..len]), out, &mut between);
            };
            part_of(0..n_whole, INPUT_BYTES_MAX);
            let tail_bytes = part.len % INPUT_BYTES_MAX;
            if tail_bytes > 0 {
                part_of(n_whole..n_whole + 1, tail_bytes);
            }
            if is_last {
                merkle::column_roots_in_place(pieces, n_lines);
                leaves.copy_from_slice(&pieces[..n_lines]);
            }
        }
    }
}

/// Hashes inputs of equal length, as many as there are places.
fn hash_in_order<'a>(
    mut inputs: impl Iterator<Item = &'a [u8]>,
    out: &mut [Digest],
    between: &mut impl FnMut(),
) {
    for out in out.chunks_mut(LANES) {
        let mut lanes: [&[u8]; LANES] = [&[]; LANES];
        lanes.iter_mut().zip(inputs.by_ref().take(out.len())).for_each(|(lane, input)| *lane = input);
        LEAF.hash_side_by_side(&lanes[..out.len()], out);
        between();
    }
}

/// The leaves of one part.
pub(crate) fn leaves_of_part(shape: SegmentShape, symbols: &[u8]) -> Vec<Hash> {
    let mut hasher = LeafHasher::default();
    hasher.add(shape, symbols);
    hasher.leaves().iter().copied().map(Hash).collect()
}

/// The root over one part.
pub(crate) fn root_of_part(shape: SegmentShape, symbols: &[u8]) -> Hash {
    let mut hasher = LeafHasher::default();
    hasher.add(shape, symbols);
    merkle::root_in_place(hasher.leaves())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, one leaf at a time.
    fn reference(shape: SegmentShape, part: &[u8]) -> Vec<Hash> {
        let pad = |input: &[u8], len: usize| {
            let mut padded = input.to_vec();
            padded.resize(len.next_multiple_of(BLOCK_BYTES), 0);
            LEAF.hash(&padded)
        };
        let leaf_bytes = shape.leaf_bytes();
        part.chunks(leaf_bytes)
            .map(|leaf| {
                if leaf_bytes <= INPUT_BYTES_MAX {
                    return pad(leaf, leaf_bytes);
                }
                let pieces: Vec<_> =
                    leaf.chunks(INPUT_BYTES_MAX).map(|piece| pad(piece, piece.len())).collect();
                merkle::root(&pieces)
            })
            .collect()
    }

    #[test]
    fn leaves_are_what_their_definition_says() {
        for w in [2, 4, 6, 30, 32, 34, 62, 64, 66, 128, 200, 1022, 1024, 1026, 2048, 3000, 7168, 16384, 20000]
        {
            let shape = SegmentShape::with_symbol_bytes(10, w);
            for n_symbols in [1, 2, 4, 7, 20, 33] {
                let part: Vec<u8> = (0..n_symbols * w).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
                let expected = reference(shape, &part);
                assert_eq!(leaves_of_part(shape, &part), expected, "{n_symbols} symbols of {w}");
                assert_eq!(root_of_part(shape, &part), merkle::root(&expected));
                let mut hasher = LeafHasher::default();
                hasher.add(shape, &vec![9; n_symbols * w]);
                hasher.clear();
                hasher.add(shape, &part);
                hasher.add(shape, &part);
                let root = merkle::root(&expected).0;
                assert_eq!(hasher.roots(shape, n_symbols), [root, root]);
            }
        }
    }
}
