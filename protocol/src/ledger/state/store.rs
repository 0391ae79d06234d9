//! The tree with typed entries.

use bincode::{Decode, Encode};

use super::slot::{PutField, Slot, prefix};
use crate::{
    codec::{self, DecodeError},
    hash::Hash,
    ledger::tree::{Tree, VALUE_BYTES_MAX},
};

/// The state contradicts itself: a bug here or damage on disk, never the doing of a transaction. Whoever meets it stops
/// and rebuilds the state from a snapshot and blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// An entry's key is not one of its kind.
    #[error("ledger entry {} has a malformed key", hex::encode(.key))]
    Key {
        /// Its key.
        key: Vec<u8>,
    },
    /// An entry's value is not one of its kind.
    #[error("ledger entry {} cannot be read", hex::encode(.key))]
    Value {
        /// Its key.
        key: Vec<u8>,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// An entry that others rely on is not there.
    #[error("ledger entry {} is missing", hex::encode(.key))]
    Missing {
        /// Its key.
        key: Vec<u8>,
    },
    /// Credits, shares or counts that must fit do not.
    #[error("{what} of the ledger do not add up")]
    Sum {
        /// What was counted.
        what: &'static str,
    },
    /// The members of an epoch are not a committee.
    #[error("the ledger's members of an epoch are no committee")]
    Committee(#[from] crate::committee::CommitteeError),
}

/// Adds what the conservation of credits keeps within 64 bits.
pub(super) fn add(what: &'static str, left: u64, right: u64) -> Result<u64, Corrupt> {
    left.checked_add(right).ok_or(Corrupt::Sum { what })
}

/// Subtracts what was added before.
pub(super) fn sub(what: &'static str, left: u64, right: u64) -> Result<u64, Corrupt> {
    left.checked_sub(right).ok_or(Corrupt::Sum { what })
}

#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    tree: Tree,
}

impl Store {
    pub(super) const fn new(tree: Tree) -> Self {
        Self { tree }
    }

    pub(super) const fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(super) fn root(&self) -> Hash {
        self.tree.root()
    }

    pub(super) fn get<S: Slot>(&self, slot: &S) -> Result<Option<S::Value>, Corrupt> {
        let key = slot.key();
        self.tree.get(&key).map(|value| decode(&key, value)).transpose()
    }

    /// An entry that must be there.
    pub(super) fn require<S: Slot>(&self, slot: &S) -> Result<S::Value, Corrupt> {
        self.get(slot)?.ok_or_else(|| Corrupt::Missing { key: slot.key() })
    }

    pub(super) fn set<S: Slot>(&mut self, slot: &S, value: &S::Value) {
        self.tree.insert(&slot.key(), &encode(value));
    }

    pub(super) fn has<S: Slot>(&self, slot: &S) -> bool {
        self.tree.get(&slot.key()).is_some()
    }

    pub(super) fn remove<S: Slot>(&mut self, slot: &S) -> Result<(), Corrupt> {
        let key = slot.key();
        if self.tree.remove(&key) { Ok(()) } else { Err(Corrupt::Missing { key }) }
    }

    /// The entries of a kind whose keys begin with these fields, ascending.
    pub(super) fn scan<S: Slot>(
        &self,
        fields: &[&dyn PutField],
    ) -> impl Iterator<Item = Result<(S, S::Value), Corrupt>> {
        self.scan_from::<S>(prefix::<S>(fields), prefix::<S>(fields))
    }

    /// The entries of a kind whose keys begin with `prefix` and are not below `start`, ascending.
    pub(super) fn scan_from<S: Slot>(
        &self,
        prefix: Vec<u8>,
        start: Vec<u8>,
    ) -> impl Iterator<Item = Result<(S, S::Value), Corrupt>> {
        let entries = self.tree.entries_from(&start).take_while(move |(key, _)| key.starts_with(&prefix));
        entries.map(|(key, value)| {
            let slot = S::parse(key).ok_or_else(|| Corrupt::Key { key: key.to_vec() })?;
            Ok((slot, decode(key, value)?))
        })
    }
}

fn encode<T: Encode>(value: &T) -> Vec<u8> {
    codec::encode(value)
}

fn decode<T: Decode<()>>(key: &[u8], value: &[u8]) -> Result<T, Corrupt> {
    codec::decode_exact::<T, VALUE_BYTES_MAX>(value)
        .map_err(|source| Corrupt::Value { key: key.to_vec(), source })
}
