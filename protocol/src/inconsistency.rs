//! Proof that a blob was encoded wrongly.
//!
//! A [`ProvenSymbol`] carries the Merkle path by which a helper's commitment vouches for it, so a helper that lied
//! is named. If enough symbols all prove and the sliver that they rebuild still does not match its committed root,
//! then the fault is the writer's, and the symbols together are an [`InconsistencyProof`] that anyone can check.
//!
//! Source: RedStuff, Walrus paper (2025), section 4.4.

use bincode::{Decode, Encode};

use crate::{
    commitment::SegmentCommitment,
    encoding::{
        Axis, SegmentEncoder, SegmentShape,
        leaves::{leaves_of_part, root_of_part},
        recover::{RecoverError, SliverRecovery},
    },
    hash::Hash,
    ids::SegmentIndex,
    merkle,
};

/// A symbol of a helper's sliver, with the proof that it is what the helper's commitment says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProvenSymbol {
    /// Index of the helper's sliver, along the axis that crosses the target.
    pub crossing: u16,
    /// The leaf that holds the symbol: the symbol itself, or a group of small ones.
    pub leaf: Vec<u8>,
    /// Path of the leaf within its part of the sliver, source or parity symbols.
    pub path: Vec<Hash>,
    /// Root of the other part.
    pub other_part: Hash,
}

/// Why a symbol does not prove; the helper is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// There is no such sliver or symbol.
    #[error("symbol {index} of sliver {crossing} does not exist")]
    NoSuchSymbol {
        /// Index of the helper's sliver.
        crossing: u16,
        /// Index of the symbol in it.
        index: u16,
    },
    /// The leaf has the wrong number of bytes.
    #[error("a leaf of {expected} bytes was expected, got {got}")]
    Size {
        /// Bytes that this leaf has.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The path does not lead to the sliver's committed root.
    #[error("symbol {index} of sliver {crossing} does not match its commitment")]
    Path {
        /// Index of the helper's sliver.
        crossing: u16,
        /// Index of the symbol in it.
        index: u16,
    },
}

/// Where symbol `index` of a sliver along `axis` sits in the sliver's tree.
struct LeafPosition {
    in_parity: bool,
    /// Symbols of the part.
    part_symbols: usize,
    /// Leaf within the part.
    leaf: usize,
    /// Byte range of the leaf within the part.
    range: std::ops::Range<usize>,
    /// Byte offset of the symbol within the leaf.
    offset: usize,
}

impl LeafPosition {
    fn new(shape: SegmentShape, axis: Axis, index: u16) -> Self {
        let (index, k, group) = (usize::from(index), shape.n_source(axis), shape.symbols_per_leaf());
        let in_parity = index >= k;
        let part_symbols = if in_parity { shape.n_parity(axis) } else { k };
        let at = if in_parity { index - k } else { index };
        let first = at / group * group;
        let w = shape.symbol_bytes();
        Self {
            in_parity,
            part_symbols,
            leaf: at / group,
            range: first * w..part_symbols.min(first + group) * w,
            offset: (at - first) * w,
        }
    }

    fn n_leaves(&self, shape: SegmentShape) -> usize {
        self.part_symbols.div_ceil(shape.symbols_per_leaf())
    }
}

impl ProvenSymbol {
    /// Proves symbol `index` of the helper's own sliver, number `crossing` along `axis`; extends the sliver.
    ///
    /// # Panics
    ///
    /// If the sliver is not of this shape, the shape is replicated, or `index` not below `n`.
    #[must_use]
    pub fn new(
        encoder: &mut SegmentEncoder,
        shape: SegmentShape,
        (axis, crossing, sliver): (Axis, u16, &[u8]),
        index: u16,
    ) -> Self {
        assert!(!shape.is_replicated(), "copies are checked by their hash");
        assert!(index < shape.n(), "symbol {index}");
        let parity = encoder.extend_sliver(shape, axis, sliver);
        let position = LeafPosition::new(shape, axis, index);
        let (part, other) = if position.in_parity { (&parity[..], sliver) } else { (sliver, &parity[..]) };
        let path = merkle::path(&leaves_of_part(shape, part), position.leaf);
        Self { crossing, leaf: part[position.range].to_vec(), path, other_part: root_of_part(shape, other) }
    }

    /// Checks the proof of symbol `index` of the helper's sliver along `axis`, and returns the symbol.
    ///
    /// # Errors
    ///
    /// [`SymbolError`]; the helper is at fault.
    pub fn verify(
        &self,
        shape: SegmentShape,
        commitment: &SegmentCommitment,
        axis: Axis,
        index: u16,
    ) -> Result<&[u8], SymbolError> {
        let crossing = self.crossing;
        if crossing >= shape.n() || index >= shape.n() || shape.is_replicated() {
            return Err(SymbolError::NoSuchSymbol { crossing, index });
        }
        let position = LeafPosition::new(shape, axis, index);
        let expected = position.range.len();
        if self.leaf.len() != expected {
            return Err(SymbolError::Size { expected, got: self.leaf.len() });
        }
        let leaf = root_of_part(shape, &self.leaf);
        let part = merkle::root_of_path(&leaf, position.leaf, position.n_leaves(shape), &self.path);
        let root = part.map(|part| {
            let (source, parity) =
                if position.in_parity { (&self.other_part, &part) } else { (&part, &self.other_part) };
            merkle::parent(source, parity)
        });
        if root == Some(commitment.sliver_root(axis, crossing)) {
            Ok(&self.leaf[position.offset..][..shape.symbol_bytes()])
        } else {
            Err(SymbolError::Path { crossing, index })
        }
    }
}

/// Symbols that all prove, and rebuild a sliver other than the committed one: the writer encoded wrongly.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InconsistencyProof {
    /// The segment that is inconsistent.
    pub segment: SegmentIndex,
    /// Direction of the sliver that does not match.
    pub axis: Axis,
    /// Index of the sliver that does not match.
    pub index: u16,
    /// Its symbols: exactly as many as rebuild it, by increasing `crossing`.
    pub symbols: Vec<ProvenSymbol>,
}

/// Why something is not a proof of inconsistency; whoever sent it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// There is no such sliver.
    #[error("there is no sliver {0}")]
    NoSuchSliver(u16),
    /// The proof has the wrong number of symbols, or they are not in increasing order.
    #[error("the proof has {got} symbols in order, {required} are needed")]
    Symbols {
        /// Symbols in increasing order of their sliver.
        got: usize,
        /// Symbols that rebuild the sliver.
        required: usize,
    },
    /// A symbol does not prove.
    #[error(transparent)]
    Symbol(#[from] SymbolError),
    /// Nothing was encoded: a copy that does not match its hash is its holder's fault.
    #[error("a replicated segment cannot be encoded wrongly")]
    Replicated,
    /// The symbols rebuild the committed sliver: nothing is wrong with it.
    #[error("the symbols rebuild the committed sliver")]
    Consistent,
}

impl InconsistencyProof {
    /// Checks the proof against the commitment of its segment.
    ///
    /// # Errors
    ///
    /// [`ProofError`]; whoever sent the proof is at fault.
    ///
    /// # Panics
    ///
    /// If the encoder or the commitment is for another number of shards than the shape.
    pub fn verify(
        &self,
        encoder: &mut SegmentEncoder,
        shape: SegmentShape,
        commitment: &SegmentCommitment,
    ) -> Result<(), ProofError> {
        if self.index >= shape.n() {
            return Err(ProofError::NoSuchSliver(self.index));
        }
        if shape.is_replicated() {
            return Err(ProofError::Replicated);
        }
        let mut recovery = SliverRecovery::new(shape, self.axis);
        let required = recovery.required();
        let ordered = self.symbols.is_sorted_by(|a, b| a.crossing < b.crossing);
        if !ordered || self.symbols.len() != required {
            return Err(ProofError::Symbols { got: self.symbols.len(), required });
        }
        for proven in &self.symbols {
            let symbol = proven.verify(shape, commitment, self.axis.crossing(), self.index)?;
            recovery.add(proven.crossing, symbol.to_vec());
        }
        match recovery.recover(encoder, &commitment.sliver_root(self.axis, self.index)) {
            Ok(_) => Err(ProofError::Consistent),
            Err(RecoverError::Mismatch) => Ok(()),
            Err(RecoverError::TooFewSymbols { got, required }) => Err(ProofError::Symbols { got, required }),
        }
    }
}
