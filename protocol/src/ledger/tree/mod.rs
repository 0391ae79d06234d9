//! The authenticated state: an ordered map whose root hash commits to its content.
//!
//! A binary Patricia trie. Each branch names the bit at which the keys below it first differ, so the trie has one branch
//! fewer than it has entries and one shape for its content, whatever the order in which that was written: two nodes
//! with the same entries have the same root.
//!
//! ```text
//!            branch at bit 2               leaf:   H(ledger-leaf, key length || key || value)
//!           /               \              branch: H(ledger-node, bit || left || right)
//!      leaf 00..       branch at bit 7     empty:  32 zero bytes
//!                      /            \
//!                 leaf 01100110  leaf 01100111
//! ```
//!
//! Nodes are immutable and shared: a clone costs nothing and is a snapshot, a change copies one path. A hash is computed
//! when a root or proof first asks for it, so a block of many changes hashes each changed node once.
//!
//! # Keys as bits
//!
//! Each byte of a key is nine bits, a one and then the byte with its most significant bit first; behind the last byte
//! come zeros. So no key is the beginning of another, the order of the bits is the order of the bytes, and any keys can
//! stand side by side, those that a peer sent included. Bits are counted from 0.
//!
//! # Invariants
//!
//! - Along a path bits ascend. Keys have at most [`KEY_BYTES_MAX`] bytes, so a path has at most `9 * KEY_BYTES_MAX`
//!   branches: whoever chooses keys on purpose makes paths that long, not longer, and pays for an entry per branch.
//! - A walk from the root that follows the bits of a key ends at that key if it is present. This is what a proof of
//!   absence rests on: it shows the walk, and that it ends elsewhere.

mod entries;
mod node;
mod page;
mod proof;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bincode::{Decode, Encode};

use self::node::{Leaf, Node};
pub use self::{
    entries::Entries,
    page::{PAGE_BYTES_AIM, PAGE_BYTES_MAX, Page, PageError, Restore},
    proof::{PROOF_BYTES_MAX, Proof, ProofError},
};
use crate::hash::{HASH_BYTES, Hash};

/// Most bytes of a key: the longest of the ledger's has 69 (an epoch and two identities). Longer ones make paths on
/// which a proof no longer fits its bound.
pub const KEY_BYTES_MAX: usize = 96;
/// Most bytes of a value: the largest of the ledger's, a member with every text at its longest and a thousand shards,
/// takes 6.5 KB.
pub const VALUE_BYTES_MAX: usize = 16 << 10;

/// Root of the tree without entries.
pub const EMPTY_ROOT: Hash = Hash([0; HASH_BYTES]);

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// At most [`KEY_BYTES_MAX`] bytes.
    pub key: Vec<u8>,
    /// At most [`VALUE_BYTES_MAX`] bytes.
    pub value: Vec<u8>,
}

impl Entry {
    const fn is_bounded(&self) -> bool {
        self.key.len() <= KEY_BYTES_MAX && self.value.len() <= VALUE_BYTES_MAX
    }
}

/// An ordered map from keys to values with a root hash. Cloning is free and gives a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    root: Option<Arc<Node>>,
}

impl Tree {
    /// True if there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let leaf = self.root.as_ref()?.walk(key);
        (*leaf.key == *key).then_some(&*leaf.value)
    }

    /// Sets the value of a key.
    ///
    /// # Panics
    ///
    /// If the key or the value is longer than its bound: check those that a peer sent first.
    pub fn insert(&mut self, key: &[u8], value: &[u8]) {
        assert!(key.len() <= KEY_BYTES_MAX, "a key of {} bytes", key.len());
        assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", value.len());
        let leaf = Leaf::new(key, value);
        self.root = Some(match &self.root {
            None => Arc::new(Node::Leaf(leaf)),
            Some(root) => {
                let at = node::first_difference(key, &root.walk(key).key);
                root.inserted(leaf, at)
            }
        });
    }

    /// Removes a key; false if it was not there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some(root) = self.root.as_ref().filter(|_| self.get(key).is_some()) else { return false };
        self.root = root.removed(key);
        true
    }

    /// The hash of everything in the tree; [`EMPTY_ROOT`] if there is nothing.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.root.as_ref().map_or(EMPTY_ROOT, |root| root.hash())
    }

    /// All entries, by ascending key.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries::all(self.root.as_deref())
    }

    /// The entries whose key is not below `start`, ascending.
    pub fn entries_from(&self, start: &[u8]) -> Entries<'_> {
        Entries::from(self.root.as_deref(), start)
    }

    /// The entries whose key begins with `prefix`, ascending.
    pub fn entries_with_prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.entries_from(prefix).take_while(move |(key, _)| key.starts_with(prefix))
    }
}
