//! What a node says of the ledger to someone who does not trust it: entries with proofs against a certified root.
//!
//! ```text
//! keys --asked of a node--> Answer: header, certificate, proofs --Answer::verify--> values, or whose fault it is that not
//! ```
//!
//! An answer proves what was so at its height, not that the height is the newest: whoever needs that asks several nodes.

use bincode::{Decode, Encode};

use super::{
    block::Header,
    chain::{AdvanceError, TrustedChain},
    commit::CommitCertificate,
    tree::{Entry, PAGE_BYTES_AIM, Page, PageError, Proof, ProofError},
};
use crate::{
    codec::{self, DecodeError},
    hash::Hash,
    ids::Epoch,
};

/// Most keys asked for at once.
pub const KEYS_MAX: usize = 32;
/// Most bytes of a key.
pub const KEY_BYTES_MAX: usize = 128;
/// Most bytes of an answer: it travels as one payload.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Limit for decoding: lists take a few times their bytes in memory.
const ANSWER_LIMIT: usize = 4 * ANSWER_BYTES_MAX;

/// Entries of the ledger at one height, with what proves them: a claim until it is verified.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Answer {
    /// The last block's header with its certificate; none while there is no block and the genesis is the state.
    pub head: Option<(Header, CommitCertificate)>,
    /// A proof for each key that was asked for, in their order.
    pub proofs: Vec<Proof>,
}

/// Why an answer proves nothing; unless another is named, the node that gave it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is not an answer.
    #[error("the answer does not decode")]
    Decode(#[from] DecodeError),
    /// The head is not certified.
    #[error("the head of the ledger is not certified")]
    Head(#[from] AdvanceError),
    /// It is of an earlier height than one that was proven before: the node lags or hides something.
    #[error("the answer is of height {got}, and height {known} was seen before")]
    Old {
        /// Height of the answer.
        got: u64,
        /// Height known.
        known: u64,
    },
    /// It has not one proof for each key.
    #[error("{got} proofs for {required} keys")]
    Count {
        /// Proofs given.
        got: usize,
        /// Keys asked for.
        required: usize,
    },
    /// A proof does not hold.
    #[error("the proof of an entry does not hold")]
    Proof(#[from] ProofError),
    /// A page of entries does not hold.
    #[error("the page of entries does not hold")]
    Page(#[from] PageError),
}

/// Bytes of entries at which a page of a [`Range`] ends, so that it fits into an answer with a certificate of a thousand.
pub const RANGE_BYTES_AIM: usize = PAGE_BYTES_AIM / 2;

impl Answer {
    /// The canonical form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the canonical form.
    ///
    /// # Errors
    ///
    /// If the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AnswerError> {
        Ok(codec::decode_within::<Self, ANSWER_LIMIT>(bytes, ANSWER_BYTES_MAX)?)
    }

    /// Height of the answer: 0 before the first block.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.head.as_ref().map_or(0, |(header, _)| header.height)
    }

    /// The epoch of the committee that signs the height after the answer's head, as the head says.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        epoch_after(self.head.as_ref())
    }

    /// Checks the answer against a chain that is trusted, and returns the values of `keys`, `None` for those that have
    /// none. The chain's committee must be the one that signs the answer's head. The chain moves there, unless that head
    /// changes the committee: the new one is not part of an answer, and it may be long until there is another block.
    ///
    /// `genesis_root` is the root of the state that the genesis describes.
    ///
    /// # Errors
    ///
    /// [`AnswerError`].
    pub fn verify(
        &self,
        chain: &mut TrustedChain,
        genesis_root: &Hash,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, AnswerError> {
        if self.proofs.len() != keys.len() {
            return Err(AnswerError::Count { got: self.proofs.len(), required: keys.len() });
        }
        let root = follow(self.head.as_ref(), chain, genesis_root)?;
        let values = self.proofs.iter().zip(keys).map(|(proof, key)| {
            let value = proof.verify(&root, key)?;
            Ok(value.map(<[u8]>::to_vec))
        });
        values.collect()
    }
}

fn epoch_after(head: Option<&(Header, CommitCertificate)>) -> Option<Epoch> {
    head.map(|(header, _)| match header.next_committee {
        None => header.epoch,
        Some(_) => Epoch(header.epoch.0.saturating_add(1)),
    })
}

/// Moves the chain to a head, and returns the root of the state behind it.
fn follow(
    head: Option<&(Header, CommitCertificate)>,
    chain: &mut TrustedChain,
    genesis_root: &Hash,
) -> Result<Hash, AnswerError> {
    let (got, known) = (head.map_or(0, |(header, _)| header.height), chain.height());
    if got < known {
        return Err(AnswerError::Old { got, known });
    }
    match head {
        Some((header, certificate)) if got > known => {
            match header.next_committee {
                None => chain.advance(header, certificate, None)?,
                Some(_) => chain.verify(header, certificate)?,
            }
            Ok(header.state_root)
        }
        _ => Ok(chain.state_root().unwrap_or(*genesis_root)),
    }
}

/// Neighbouring entries of the ledger at one height, with what proves that none is left out: a claim until it is verified.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Range {
    /// As in an [`Answer`].
    pub head: Option<(Header, CommitCertificate)>,
    /// The entries.
    pub page: Page,
}

impl Range {
    /// The canonical form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the canonical form.
    ///
    /// # Errors
    ///
    /// If the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AnswerError> {
        Ok(codec::decode_within::<Self, ANSWER_LIMIT>(bytes, ANSWER_BYTES_MAX)?)
    }

    /// As [`Answer::epoch`].
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        epoch_after(self.head.as_ref())
    }

    /// Checks the entries against a chain that is trusted, as [`Answer::verify`] does, and returns those from `start` on and
    /// whether there are no more.
    ///
    /// # Errors
    ///
    /// [`AnswerError`].
    pub fn verify(
        self,
        chain: &mut TrustedChain,
        genesis_root: &Hash,
        start: &[u8],
    ) -> Result<(Vec<Entry>, bool), AnswerError> {
        let root = follow(self.head.as_ref(), chain, genesis_root)?;
        Ok(self.page.verify_range(&root, start)?)
    }
}
