//! A lost sliver from the symbols at which its peers' slivers cross it.
//!
//! Target: sliver `i` along one axis. Helper: a peer with sliver `j` along the crossing axis. Their common symbol
//! is symbol `i` of the helper's sliver and symbol `j` of the target. `k` such symbols from different helpers
//! rebuild the target, so repair moves exactly the bytes that were lost.
//!
//! Source: RedStuff, Walrus paper (2025), section 3.3.

use std::collections::BTreeMap;

use reed_solomon_simd::engine::GfElement;

use super::{
    Axis, SegmentEncoder, SegmentShape, SliverHashes, Workspace,
    decode::decode_along,
    kernel::{BLOCK_BYTES, Block, Kernel},
};
use crate::hash::Hash;

/// Why a sliver was not recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// Too few symbols are at hand.
    #[error("got {got} of the {required} recovery symbols needed")]
    TooFewSymbols {
        /// Symbols from different helpers.
        got: usize,
        /// Symbols needed.
        required: usize,
    },
    /// The symbols give a sliver that does not match its commitment: a helper lied, or the writer encoded wrongly.
    #[error("the recovered sliver does not match its commitment")]
    Mismatch,
}

/// With which coefficients stored symbols add up to a symbol that is not stored; for one number of shards.
#[derive(Debug)]
pub struct RecoveryCoefficients {
    n: u16,
    /// `[n - s][s]`.
    primary: Vec<Vec<GfElement>>,
    /// `[n - p][p]`.
    secondary: Vec<Vec<GfElement>>,
}

impl RecoveryCoefficients {
    /// Computes the coefficients for `n` shards: `n (p + s)` field elements of two bytes at most.
    ///
    /// # Panics
    ///
    /// Unless `4 <= n <= 1000`.
    #[must_use]
    pub fn new(n: u16) -> Self {
        let encoder = SegmentEncoder::new(n);
        let mut workspace = Workspace::default();
        let mut generator = |axis| encoder.code(axis).generator(&mut workspace);
        Self { n, primary: generator(Axis::Primary), secondary: generator(Axis::Secondary) }
    }

    /// The stored symbols of a sliver along `axis` that make up its symbol `index`, with their coefficients: one
    /// symbol if it is itself stored, else all of them.
    ///
    /// # Panics
    ///
    /// If `index` is not below `n`, or the shape is for another number of shards.
    #[must_use]
    pub fn of_symbol(&self, shape: SegmentShape, axis: Axis, index: u16) -> Vec<(usize, GfElement)> {
        assert_eq!(shape.n(), self.n, "the coefficients are for this number of shards");
        assert!(index < self.n, "symbol {index} of {}", self.n);
        if shape.is_replicated() {
            return vec![(0, 1)];
        }
        let (k, parity) = match axis {
            Axis::Primary => (super::n_source_columns(self.n), &self.primary),
            Axis::Secondary => (super::n_source_rows(self.n), &self.secondary),
        };
        let index = usize::from(index);
        match index.checked_sub(k) {
            None => vec![(index, 1)],
            Some(parity_index) => parity[parity_index].iter().copied().enumerate().collect(),
        }
    }
}

/// Adds up stored symbols, or equal ranges of them, to a symbol that is not stored.
pub struct SymbolSum {
    len: usize,
    sum: Vec<Block>,
    /// The last blocks of a symbol that does not fill whole ones, and room for the portable kernel.
    scratch: [Vec<Block>; 2],
    kernel: Kernel,
}

impl std::fmt::Debug for SymbolSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SymbolSum").field("len", &self.len).finish_non_exhaustive()
    }
}

impl SymbolSum {
    /// Returns an empty sum over `len` bytes of symbols.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let sum = vec![[0; BLOCK_BYTES]; len.div_ceil(BLOCK_BYTES)];
        Self { len, sum, scratch: [Vec::new(), Vec::new()], kernel: Kernel::detect() }
    }

    /// Adds `coefficient * symbol`.
    ///
    /// # Panics
    ///
    /// If `symbol` does not have the sum's length.
    pub fn add(&mut self, coefficient: GfElement, symbol: &[u8]) {
        assert_eq!(symbol.len(), self.len, "equal ranges of each symbol");
        let (whole, rest) = symbol.as_chunks::<BLOCK_BYTES>();
        let (sum, last) = self.sum.split_at_mut(whole.len());
        let [padded, scratch] = &mut self.scratch;
        scratch.resize(whole.len().max(1), [0; BLOCK_BYTES]);
        self.kernel.multiply_add(coefficient, whole, &mut scratch[..whole.len()], sum);
        if !rest.is_empty() {
            padded.clear();
            padded.push([0; BLOCK_BYTES]);
            padded[0][..rest.len()].copy_from_slice(rest);
            self.kernel.multiply_add(coefficient, padded, &mut scratch[..1], last);
        }
    }

    /// The sum.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.kernel.join(&mut self.sum);
        let mut bytes = self.sum.into_flattened();
        bytes.truncate(self.len);
        bytes
    }
}

/// Returns the bytes `range` of symbol `index` of a whole sliver along `axis`.
///
/// # Panics
///
/// If the sliver, the index or the range is out of the shape, or the range is not of whole elements.
#[must_use]
pub fn recovery_symbol(
    coefficients: &RecoveryCoefficients,
    shape: SegmentShape,
    (axis, sliver): (Axis, &[u8]),
    index: u16,
    range: std::ops::Range<usize>,
) -> Vec<u8> {
    assert_eq!(sliver.len(), shape.sliver_bytes(axis), "a whole sliver");
    let w = shape.symbol_bytes();
    let mut sum = SymbolSum::new(range.len());
    for (source, coefficient) in coefficients.of_symbol(shape, axis, index) {
        sum.add(coefficient, &sliver[source * w..][range.clone()]);
    }
    sum.finish()
}

/// Collects the symbols of one lost sliver.
#[derive(Clone, Debug)]
pub struct SliverRecovery {
    shape: SegmentShape,
    axis: Axis,
    symbols: BTreeMap<u16, Vec<u8>>,
}

impl SliverRecovery {
    /// Returns the recovery of a sliver along `axis`, without symbols.
    #[must_use]
    pub const fn new(shape: SegmentShape, axis: Axis) -> Self {
        Self { shape, axis, symbols: BTreeMap::new() }
    }

    /// Symbols needed: `s` for primary, `p` for secondary slivers.
    #[must_use]
    pub fn required(&self) -> usize {
        self.shape.n_source(self.axis)
    }

    /// Symbols at hand.
    #[must_use]
    pub fn got(&self) -> usize {
        self.symbols.len()
    }

    /// Keeps the symbol at which the crossing sliver `crossing` meets the target. A later one replaces it.
    ///
    /// # Panics
    ///
    /// If the symbol does not have the shape's size or the index is not below `n`.
    pub fn add(&mut self, crossing: u16, symbol: Vec<u8>) {
        assert_eq!(symbol.len(), self.shape.symbol_bytes(), "a whole symbol");
        assert!(crossing < self.shape.n(), "symbol {crossing}");
        self.symbols.insert(crossing, symbol);
    }

    /// Takes out the symbol of a crossing sliver, for one because it turned out to be wrong.
    pub fn remove(&mut self, crossing: u16) {
        self.symbols.remove(&crossing);
    }

    /// The symbols at hand that a recovery uses: the first of them by index, as many as are needed.
    pub fn used(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.symbols.iter().take(self.required()).map(|(crossing, symbol)| (*crossing, &symbol[..]))
    }

    /// Rebuilds the sliver, without checking it.
    ///
    /// # Errors
    ///
    /// [`RecoverError::TooFewSymbols`].
    ///
    /// # Panics
    ///
    /// If the encoder is for another number of shards.
    pub fn decode(&self, encoder: &mut SegmentEncoder) -> Result<Vec<u8>, RecoverError> {
        let (got, required) = (self.got(), self.required());
        if got < required {
            return Err(RecoverError::TooFewSymbols { got, required });
        }
        if let Some((_, symbol)) = self.used().next().filter(|_| self.shape.is_replicated()) {
            return Ok(symbol.to_vec());
        }
        let w = self.shape.symbol_bytes();
        let mut sliver = vec![0; self.shape.sliver_bytes(self.axis)];
        for (index, target) in (0_u16..).zip(sliver.chunks_exact_mut(w)) {
            if let Some(symbol) = self.symbols.get(&index) {
                target.copy_from_slice(symbol);
            }
        }
        decode_along(encoder, self.axis, &self.symbols, w, |index, start, tile| {
            sliver[index * w + start..][..tile.len()].copy_from_slice(tile);
        });
        Ok(sliver)
    }

    /// Rebuilds the sliver and checks it against its committed root, extending it in full.
    ///
    /// # Errors
    ///
    /// [`RecoverError`].
    ///
    /// # Panics
    ///
    /// If the encoder is for another number of shards.
    pub fn recover(
        &self,
        encoder: &mut SegmentEncoder,
        root: &Hash,
    ) -> Result<(Vec<u8>, SliverHashes), RecoverError> {
        let sliver = self.decode(encoder)?;
        let hashes = encoder.hash_sliver(self.shape, self.axis, &sliver);
        if hashes.root() == *root { Ok((sliver, hashes)) } else { Err(RecoverError::Mismatch) }
    }
}
