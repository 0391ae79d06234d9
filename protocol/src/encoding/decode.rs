//! Slivers back to a segment.
//!
//! What every reader must get: all readers of a blob ID that succeed get the same bytes, whichever slivers they
//! used. So the bytes are bound to the roots of the `p` systematic primary slivers, always: a row that was
//! received was checked by its hash, a row that was rebuilt is extended and hashed again. A blob that was encoded
//! wrongly gives the same bytes or a refusal, never two answers.

use std::collections::BTreeMap;

use super::{Axis, SegmentEncoder, SegmentShape, encode::source_root};
use crate::{
    commitment::SegmentCommitment,
    hash::Hash,
    merkle,
    planted::{Bug, is_planted},
};

/// A sliver does not match the commitment; whoever sent it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliverError {
    /// The sliver has the wrong number of bytes.
    #[error("a {axis:?} sliver of this segment has {expected} bytes, got {got}")]
    Size {
        /// Direction of the sliver.
        axis: Axis,
        /// Bytes that a sliver of this segment has.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// There is no sliver with this index.
    #[error("there is no {axis:?} sliver {index}")]
    NoSuchSliver {
        /// Direction of the sliver.
        axis: Axis,
        /// The index given.
        index: u16,
    },
    /// The sliver hashes to another root.
    #[error("{axis:?} sliver {index} does not match its commitment")]
    Hash {
        /// Direction of the sliver.
        axis: Axis,
        /// Index of the sliver.
        index: u16,
    },
}

/// Why a segment could not be rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Too few slivers verified.
    #[error("got {got} of the {required} primary slivers needed")]
    TooFewSlivers {
        /// Primary slivers received and verified.
        got: usize,
        /// Primary slivers needed.
        required: usize,
    },
    /// The slivers verify and yet do not fit together: whoever wrote the blob encoded it wrongly.
    #[error("the blob was encoded wrongly: its slivers do not agree on row {row}")]
    Inconsistent {
        /// The systematic primary sliver whose rebuilt content does not match its commitment.
        row: u16,
    },
}

/// A sliver that was checked against its commitment. Only [`verify_sliver`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSliver<B> {
    axis: Axis,
    index: u16,
    bytes: B,
}

impl<B> VerifiedSliver<B> {
    /// The bytes of the sliver.
    pub const fn bytes(&self) -> &B {
        &self.bytes
    }

    /// The bytes of the sliver, alone.
    pub fn into_bytes(self) -> B {
        self.bytes
    }
}

/// Checks a sliver by hashing it, without any coding. `parity` is the root over its parity symbols, as told by
/// whoever sent the sliver.
///
/// # Errors
///
/// [`SliverError`]; the sender is at fault.
pub fn verify_sliver<B: AsRef<[u8]>>(
    shape: SegmentShape,
    commitment: &SegmentCommitment,
    (axis, index): (Axis, u16),
    sliver: B,
    parity: &Hash,
) -> Result<VerifiedSliver<B>, SliverError> {
    if index >= shape.n() {
        return Err(SliverError::NoSuchSliver { axis, index });
    }
    let (expected, bytes) = (shape.sliver_bytes(axis), sliver.as_ref());
    if bytes.len() != expected {
        return Err(SliverError::Size { axis, expected, got: bytes.len() });
    }
    let root = merkle::parent(&source_root(shape, bytes), parity);
    if root == commitment.sliver_root(axis, index) || is_planted(Bug::ReadUnchecked) {
        Ok(VerifiedSliver { axis, index, bytes: sliver })
    } else {
        Err(SliverError::Hash { axis, index })
    }
}

/// Collects verified slivers of one segment until they suffice.
#[derive(Debug)]
pub struct SegmentDecoder<'a, B> {
    shape: SegmentShape,
    commitment: &'a SegmentCommitment,
    primary: BTreeMap<u16, B>,
    secondary: BTreeMap<u16, B>,
}

impl<'a, B: AsRef<[u8]>> SegmentDecoder<'a, B> {
    /// Returns a decoder without slivers.
    #[must_use]
    pub const fn new(shape: SegmentShape, commitment: &'a SegmentCommitment) -> Self {
        Self { shape, commitment, primary: BTreeMap::new(), secondary: BTreeMap::new() }
    }

    /// Checks a sliver and keeps it. A sliver that is already there is kept once.
    ///
    /// # Errors
    ///
    /// [`SliverError`]; the sender is at fault.
    pub fn add(&mut self, axis: Axis, index: u16, sliver: B, parity: &Hash) -> Result<(), SliverError> {
        self.add_verified(verify_sliver(self.shape, self.commitment, (axis, index), sliver, parity)?);
        Ok(())
    }

    /// Keeps a sliver that was checked against this segment's commitment before.
    pub fn add_verified(&mut self, sliver: VerifiedSliver<B>) {
        let VerifiedSliver { axis, index, bytes } = sliver;
        match axis {
            Axis::Primary => self.primary.insert(index, bytes),
            Axis::Secondary => self.secondary.insert(index, bytes),
        };
    }

    /// True once the slivers suffice: any `p` primary or any `s` secondary ones.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.primary.len() >= self.required(Axis::Primary)
            || self.secondary.len() >= self.required(Axis::Secondary)
    }

    /// Slivers along `axis` that rebuild the segment.
    fn required(&self, axis: Axis) -> usize {
        self.shape.n_source(axis.crossing())
    }

    /// Rebuilds the source grid: `p * s` symbols, row-major, padding included.
    ///
    /// When the systematic primary slivers are at hand this is concatenation.
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    ///
    /// # Panics
    ///
    /// If the encoder is for another number of shards.
    pub fn decode(&self, encoder: &mut SegmentEncoder) -> Result<Vec<u8>, DecodeError> {
        let mut grid = Vec::new();
        self.decode_into(encoder, &mut grid)?;
        Ok(grid)
    }

    /// Like [`Self::decode`], into a buffer that is used again: fresh memory costs more than decoding. What it holds
    /// after an error is unspecified.
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    ///
    /// # Panics
    ///
    /// If the encoder is for another number of shards.
    pub fn decode_into(&self, encoder: &mut SegmentEncoder, grid: &mut Vec<u8>) -> Result<(), DecodeError> {
        if self.shape.is_replicated()
            && let Some(copy) = self.primary.values().chain(self.secondary.values()).next()
        {
            grid.clear();
            grid.extend_from_slice(copy.as_ref());
            return Ok(());
        }
        grid.resize(self.shape.source_bytes(), 0);
        let required = self.required(Axis::Primary);
        if self.primary.len() >= required {
            self.decode_rows(encoder, grid);
        } else if self.secondary.len() >= self.required(Axis::Secondary) {
            self.decode_columns(encoder, grid);
        } else {
            return Err(DecodeError::TooFewSlivers { got: self.primary.len(), required });
        }
        // Bind what was rebuilt to the roots of the systematic rows; received rows were checked already.
        let row_bytes = self.shape.sliver_bytes(Axis::Primary);
        let rows = (0_u16..).zip(grid.chunks_exact(row_bytes));
        let (rebuilt, slivers): (Vec<u16>, Vec<&[u8]>) =
            rows.filter(|(row, _)| !self.primary.contains_key(row)).unzip();
        let hashes = encoder.hash_slivers(self.shape, Axis::Primary, &slivers);
        for (row, hashes) in rebuilt.into_iter().zip(hashes) {
            if hashes.root() != self.commitment.sliver_root(Axis::Primary, row) {
                return Err(DecodeError::Inconsistent { row });
            }
        }
        Ok(())
    }

    fn decode_rows(&self, encoder: &mut SegmentEncoder, grid: &mut [u8]) {
        let row_bytes = self.shape.sliver_bytes(Axis::Primary);
        let mut systematic = 0;
        for (row, target) in (0_u16..).zip(grid.chunks_exact_mut(row_bytes)) {
            if let Some(sliver) = self.primary.get(&row) {
                target.copy_from_slice(sliver.as_ref());
                systematic += 1;
            }
        }
        if systematic < self.required(Axis::Primary) {
            decode_along(encoder, Axis::Secondary, &self.primary, row_bytes, |row, start, tile| {
                grid[row * row_bytes + start..][..tile.len()].copy_from_slice(tile);
            });
        }
    }

    fn decode_columns(&self, encoder: &mut SegmentEncoder, grid: &mut [u8]) {
        let (w, s) = (self.shape.symbol_bytes(), self.shape.n_source(Axis::Primary));
        let column_bytes = self.shape.sliver_bytes(Axis::Secondary);
        let mut columns = vec![0; s * column_bytes];
        for (column, target) in (0_u16..).zip(columns.chunks_exact_mut(column_bytes)) {
            if let Some(sliver) = self.secondary.get(&column) {
                target.copy_from_slice(sliver.as_ref());
            }
        }
        decode_along(encoder, Axis::Primary, &self.secondary, column_bytes, |column, start, tile| {
            columns[column * column_bytes + start..][..tile.len()].copy_from_slice(tile);
        });
        for (column, symbols) in columns.chunks_exact(column_bytes).enumerate() {
            for (row, symbol) in symbols.chunks_exact(w).enumerate() {
                grid[(row * s + column) * w..][..w].copy_from_slice(symbol);
            }
        }
    }
}

/// Decodes the missing source shards of the code that runs along `axis`; `store(index, start, tile)` takes them.
pub(crate) fn decode_along<B: AsRef<[u8]>>(
    encoder: &mut SegmentEncoder,
    axis: Axis,
    shards: &BTreeMap<u16, B>,
    shard_bytes: usize,
    mut store: impl FnMut(usize, usize, &[u8]),
) {
    let code = encoder.code(axis);
    let mut present = vec![false; usize::from(encoder.n())];
    // Source shards first: each one at hand is one less to compute. More than `k` would only cost time.
    for index in shards.keys().take(code.k()) {
        present[usize::from(*index)] = true;
    }
    if present[..code.k()].iter().all(|present| *present) {
        return;
    }
    code.set_present(encoder.workspace(), &present);
    let shards: Vec<Option<&[u8]>> =
        (0..encoder.n()).map(|index| shards.get(&index).map(AsRef::as_ref)).collect();
    let tile_bytes = code.decode_tile_bytes(encoder.workspace());
    for start in (0..shard_bytes).step_by(tile_bytes) {
        let len = tile_bytes.min(shard_bytes - start);
        code.decode_tile(
            encoder.workspace(),
            len,
            |index, shard| shard.copy_from(&shards[index].expect("marked as present")[start..][..len]),
            |index, shard| store(index, start, shard.into_bytes()),
        );
    }
}
