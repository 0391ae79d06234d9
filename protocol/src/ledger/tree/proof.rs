//! Proofs that a key has a value, or none.

use bincode::{Decode, Encode};

use super::{
    EMPTY_ROOT, Entry, Tree,
    node::{N_BITS_MAX, Node, bit, branch_hash, leaf_hash},
};
use crate::hash::Hash;

/// Limit for decoding a proof. The largest has 864 steps of 34 bytes, a key and a value of 16 KiB.
pub const PROOF_BYTES_MAX: usize = 128 << 10;

/// Why a proof proves nothing. Whoever sent it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A key or a value is longer than any in the tree.
    #[error(
        "the proof ends at a key of {key_bytes} and a value of {value_bytes} bytes, more than any entry has"
    )]
    TooLong {
        /// Bytes of the key.
        key_bytes: usize,
        /// Bytes of the value.
        value_bytes: usize,
    },
    /// The steps do not descend, or lead nowhere.
    #[error("step {step} of the proof is at bit {bit}, which leads nowhere")]
    Order {
        /// The step, from 0.
        step: usize,
        /// Its bit.
        bit: u16,
    },
    /// The proof is of another tree, or of another key.
    #[error("the proof leads to root {got:?}, not to {required:?}")]
    Root {
        /// Root computed.
        got: Hash,
        /// Root to be proven.
        required: Hash,
    },
}

/// A branch passed on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct Step {
    /// The bit it looks at.
    bit: u16,
    /// The child not taken.
    sibling: Hash,
}

/// The walk from the root that follows the bits of a key: it ends at the key, or shows that the key is absent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proof {
    /// From the root.
    steps: Vec<Step>,
    /// Where the walk ends; `None` only in the empty tree.
    end: Option<Entry>,
}

impl Tree {
    /// Proves the value of a key, or that it has none.
    #[must_use]
    pub fn prove(&self, key: &[u8]) -> Proof {
        let mut steps = Vec::new();
        let Some(mut node) = self.root.as_deref() else { return Proof { steps, end: None } };
        loop {
            match node {
                Node::Branch(branch) => {
                    let (child, other) = branch.children(key);
                    steps.push(Step { bit: branch.bit, sibling: other.hash() });
                    node = child;
                }
                Node::Leaf(leaf) => {
                    let end = Entry { key: leaf.key.to_vec(), value: leaf.value.to_vec() };
                    return Proof { steps, end: Some(end) };
                }
            }
        }
    }
}

impl Proof {
    /// Returns the value that `key` has in the tree with this root, `None` if it has none.
    ///
    /// `root` is that of a well-formed tree, as a committee certifies it.
    ///
    /// # Errors
    ///
    /// If the proof is malformed, of another root or of another key.
    pub fn verify(&self, root: &Hash, key: &[u8]) -> Result<Option<&[u8]>, ProofError> {
        let got = match (&self.end, self.steps.first()) {
            (Some(end), _) => self.root_above(end, key)?,
            (None, None) => EMPTY_ROOT,
            (None, Some(step)) => return Err(ProofError::Order { step: 0, bit: step.bit }),
        };
        if got != *root {
            return Err(ProofError::Root { got, required: *root });
        }
        Ok(self.end.as_ref().filter(|end| end.key == key).map(|end| &*end.value))
    }

    fn root_above(&self, end: &Entry, key: &[u8]) -> Result<Hash, ProofError> {
        if !end.is_bounded() {
            return Err(ProofError::TooLong { key_bytes: end.key.len(), value_bytes: end.value.len() });
        }
        let mut below = N_BITS_MAX;
        let mut hash = leaf_hash(&end.key, &end.value);
        for (step, &Step { bit: at, sibling }) in self.steps.iter().enumerate().rev() {
            if at >= below {
                return Err(ProofError::Order { step, bit: at });
            }
            below = at;
            hash = if bit(key, at) {
                branch_hash(at, &sibling, &hash)
            } else {
                branch_hash(at, &hash, &sibling)
            };
        }
        Ok(hash)
    }
}
