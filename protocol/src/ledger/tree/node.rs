//! Nodes of the trie: immutable, shared, each with its hash once someone asked for it.

use std::{
    cmp::Ordering,
    sync::{Arc, OnceLock},
};

use super::KEY_BYTES_MAX;
use crate::hash::{HASH_BYTES, Hash, LEDGER_LEAF, LEDGER_NODE};

/// Bits of a byte of a key: one that says that there is a byte, and the byte's own.
const BITS_PER_BYTE: u16 = 9;
/// Bits of the longest key. Branches are at bits below it.
pub(super) const N_BITS_MAX: u16 = 9 * 96;
const _: () = assert!(KEY_BYTES_MAX == 96, "the number of bits follows the number of bytes");

/// The bit of a key at this position; zero behind its end.
pub(super) fn bit(key: &[u8], position: u16) -> bool {
    let byte = key.get(usize::from(position / BITS_PER_BYTE));
    byte.is_some_and(|byte| match position % BITS_PER_BYTE {
        0 => true,
        within => byte >> (BITS_PER_BYTE - 1 - within) & 1 == 1,
    })
}

/// The first bit at which two keys of at most [`KEY_BYTES_MAX`] bytes differ.
pub(super) fn first_difference(left: &[u8], right: &[u8]) -> Option<u16> {
    let narrow = |index: usize| u16::try_from(index).expect("keys have at most KEY_BYTES_MAX bytes");
    let differing = left.iter().zip(right).enumerate().find(|(_, (left, right))| left != right);
    if let Some((index, (left, right))) = differing {
        let within = u16::try_from((left ^ right).leading_zeros()).expect("a byte has eight bits");
        return Some(narrow(index) * BITS_PER_BYTE + 1 + within);
    }
    match left.len().cmp(&right.len()) {
        Ordering::Equal => None,
        Ordering::Less | Ordering::Greater => Some(narrow(left.len().min(right.len())) * BITS_PER_BYTE),
    }
}

/// The hash of an entry.
pub(super) fn leaf_hash(key: &[u8], value: &[u8]) -> Hash {
    let len = u16::try_from(key.len()).expect("keys have at most KEY_BYTES_MAX bytes");
    LEDGER_LEAF.hash_parts(&[&len.to_le_bytes(), key, value])
}

/// The hash of a branch.
pub(super) fn branch_hash(bit: u16, left: &Hash, right: &Hash) -> Hash {
    let mut input = [0; 2 + 2 * HASH_BYTES];
    input[..2].copy_from_slice(&bit.to_le_bytes());
    input[2..2 + HASH_BYTES].copy_from_slice(&left.0);
    input[2 + HASH_BYTES..].copy_from_slice(&right.0);
    LEDGER_NODE.hash(&input)
}

#[derive(Debug)]
pub(super) enum Node {
    Leaf(Leaf),
    Branch(Branch),
}

#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) key: Box<[u8]>,
    pub(super) value: Box<[u8]>,
    hash: OnceLock<Hash>,
}

#[derive(Debug)]
pub(super) struct Branch {
    /// INV: below [`N_BITS_MAX`], and below the bits of all branches under it.
    pub(super) bit: u16,
    /// INV: keys under `left` have a zero at `bit`, those under `right` a one; they agree on all bits before.
    pub(super) left: Arc<Node>,
    pub(super) right: Arc<Node>,
    hash: OnceLock<Hash>,
}

impl Leaf {
    pub(super) fn new(key: &[u8], value: &[u8]) -> Self {
        Self { key: key.into(), value: value.into(), hash: OnceLock::new() }
    }
}

impl Branch {
    const fn new(bit: u16, left: Arc<Node>, right: Arc<Node>) -> Self {
        Self { bit, left, right, hash: OnceLock::new() }
    }

    /// The child in which `key` would be, and the other one.
    pub(super) fn children(&self, key: &[u8]) -> (&Arc<Node>, &Arc<Node>) {
        if bit(key, self.bit) { (&self.right, &self.left) } else { (&self.left, &self.right) }
    }

    /// This branch with the child in which `key` would be replaced.
    fn with_child(&self, key: &[u8], child: Arc<Node>) -> Self {
        if bit(key, self.bit) {
            Self::new(self.bit, Arc::clone(&self.left), child)
        } else {
            Self::new(self.bit, child, Arc::clone(&self.right))
        }
    }
}

impl Node {
    pub(super) fn hash(&self) -> Hash {
        match self {
            Self::Leaf(leaf) => *leaf.hash.get_or_init(|| leaf_hash(&leaf.key, &leaf.value)),
            Self::Branch(branch) => {
                if let Some(hash) = branch.hash.get() {
                    return *hash;
                }
                let (left, right) = (branch.left.hash(), branch.right.hash());
                *branch.hash.get_or_init(|| branch_hash(branch.bit, &left, &right))
            }
        }
    }

    /// The leaf at which a walk by the bits of `key` ends: the key's own if it is present.
    pub(super) fn walk(&self, key: &[u8]) -> &Leaf {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(leaf) => return leaf,
                Self::Branch(branch) => node = branch.children(key).0,
            }
        }
    }

    /// This node with `leaf` in it, whose key first differs from those here at bit `at`, or is here if there is none.
    pub(super) fn inserted(self: &Arc<Self>, leaf: Leaf, at: Option<u16>) -> Arc<Self> {
        if let Self::Branch(branch) = &**self
            && at.is_none_or(|at| branch.bit < at)
        {
            // The leaf moves into the child, so the key is looked at before it.
            let goes_right = bit(&leaf.key, branch.bit);
            let (left, right) = (&branch.left, &branch.right);
            return Arc::new(Self::Branch(if goes_right {
                Branch::new(branch.bit, Arc::clone(left), right.inserted(leaf, at))
            } else {
                Branch::new(branch.bit, left.inserted(leaf, at), Arc::clone(right))
            }));
        }
        let Some(at) = at else { return Arc::new(Self::Leaf(leaf)) };
        let goes_right = bit(&leaf.key, at);
        let (new, old) = (Arc::new(Self::Leaf(leaf)), Arc::clone(self));
        let (left, right) = if goes_right { (old, new) } else { (new, old) };
        Arc::new(Self::Branch(Branch::new(at, left, right)))
    }

    /// This node without `key`, which is in it; `None` if nothing is left.
    pub(super) fn removed(&self, key: &[u8]) -> Option<Arc<Self>> {
        match self {
            Self::Leaf(_) => None,
            Self::Branch(branch) => {
                let (child, other) = branch.children(key);
                Some(child.removed(key).map_or_else(
                    || Arc::clone(other),
                    |child| Arc::new(Self::Branch(branch.with_child(key, child))),
                ))
            }
        }
    }
}
