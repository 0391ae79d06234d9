//! Where each kind of entry lies in the tree: its key, and the type of its value.
//!
//! A key is the byte of its kind and then its fields, each of a fixed width, most significant byte first: so entries of a
//! kind lie side by side, in the order of their fields.

use crate::{
    committee::Member,
    hash::Hash,
    ids::{AccountId, BlobId, Epoch, NodeIndex, PeerId},
    ledger::{
        parameters::Parameters,
        state::{
            entry::{Account, Blob, Bucket, Head, Node, Registration},
            pool::Pool,
        },
    },
};

/// A field of a key.
pub(super) trait Field: Sized {
    fn put(&self, key: &mut Vec<u8>);
    /// Takes it off the front of a key.
    fn take(key: &mut &[u8]) -> Option<Self>;
}

/// The place of an entry.
pub(super) trait Slot: Sized {
    /// First byte of its key.
    const KIND: u8;
    type Value: bincode::Encode + bincode::Decode<()>;

    fn key(&self) -> Vec<u8>;
    /// Reads a whole key.
    fn parse(key: &[u8]) -> Option<Self>;
}

/// The beginning of the keys of `S` whose first fields are these.
pub(super) fn prefix<S: Slot>(fields: &[&dyn PutField]) -> Vec<u8> {
    let mut key = vec![S::KIND];
    for field in fields {
        field.put_field(&mut key);
    }
    key
}

/// [`Field::put`] for a list of fields of different types.
pub(super) trait PutField {
    fn put_field(&self, key: &mut Vec<u8>);
}

impl<F: Field> PutField for F {
    fn put_field(&self, key: &mut Vec<u8>) {
        self.put(key);
    }
}

macro_rules! bytes_field {
    ($($name:ident)*) => {$(
        impl Field for $name {
            fn put(&self, key: &mut Vec<u8>) {
                key.extend_from_slice(self.as_bytes());
            }

            fn take(key: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = key.split_first_chunk()?;
                *key = rest;
                Some(Self(*bytes))
            }
        }
    )*};
}

bytes_field!(AccountId BlobId Hash PeerId);

macro_rules! number_field {
    ($($name:ident: $number:ty)*) => {$(
        impl Field for $name {
            fn put(&self, key: &mut Vec<u8>) {
                key.extend_from_slice(&self.0.to_be_bytes());
            }

            fn take(key: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = key.split_first_chunk()?;
                *key = rest;
                Some(Self(<$number>::from_be_bytes(*bytes)))
            }
        }
    )*};
}

number_field!(Epoch: u32 NodeIndex: u16 Latest: u32);

/// An epoch as a field of which the latest comes first: all its bits are flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Latest(u32);

impl Latest {
    pub(super) const fn new(epoch: Epoch) -> Self {
        Self(!epoch.0)
    }

    pub(super) const fn epoch(self) -> Epoch {
        Epoch(!self.0)
    }
}

/// A BLS key as a field: its compressed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlsKey(pub(super) [u8; 48]);

impl BlsKey {
    const fn as_bytes(&self) -> &[u8; 48] {
        &self.0
    }
}

bytes_field!(BlsKey);

macro_rules! slots {
    ($($(#[$meta:meta])* $name:ident = $kind:literal, ($($field:ident: $type:ty),*) -> $value:ty;)*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub(super) struct $name {
                $(pub(super) $field: $type,)*
            }

            impl Slot for $name {
                const KIND: u8 = $kind;
                type Value = $value;

                fn key(&self) -> Vec<u8> {
                    prefix::<Self>(&[$(&self.$field),*])
                }

                fn parse(key: &[u8]) -> Option<Self> {
                    let (kind, rest) = key.split_first()?;
                    // A slot without fields changes nothing.
                    #[allow(unused_mut, reason = "a slot without fields takes none")]
                    let mut rest = rest;
                    let slot = Self { $($field: Field::take(&mut rest)?,)* };
                    (*kind == $kind && rest.is_empty()).then_some(slot)
                }
            }
        )*

        #[cfg(test)]
        pub(super) const KINDS: &[u8] = &[$($kind),*];
    };
}

slots! {
    /// Where the ledger is.
    HeadSlot = 0, () -> Head;
    /// Rules and current prices.
    ParametersSlot = 1, () -> Parameters;
    /// An account.
    AccountSlot = 2, (account: AccountId) -> Account;
    /// A node.
    NodeSlot = 3, (node: PeerId) -> Node;
    /// Whose a name is.
    NameSlot = 4, (name: Hash) -> PeerId;
    /// Whose a BLS key is.
    KeySlot = 5, (key: BlsKey) -> PeerId;
    /// An account's shares of the stake behind a node.
    DelegationSlot = 6, (node: PeerId, account: AccountId) -> u64;
    /// What was withdrawn from behind a node, to be released when an epoch begins.
    UnbondingSlot = 7, (release: Epoch, node: PeerId) -> Pool;
    /// An account's shares of that.
    UnbondingShareSlot = 8, (release: Epoch, node: PeerId, account: AccountId) -> u64;
    /// A member of the committee of an epoch, by its index.
    MemberSlot = 9, (epoch: Epoch, member: NodeIndex) -> Member;
    /// A member that said that its shards are ready.
    ReadySlot = 10, (epoch: Epoch, member: NodeIndex) -> ();
    /// A blob.
    BlobSlot = 11, (blob_id: BlobId) -> Blob;
    /// An owner's registration of a blob; those of an owner lie side by side.
    RegistrationSlot = 12, (owner: AccountId, blob_id: BlobId) -> Registration;
    /// How many certified registrations of a blob end with an epoch.
    LifetimeSlot = 13, (blob_id: BlobId, end: Latest) -> u64;
    /// A registration that ends when an epoch begins.
    ExpirySlot = 14, (end: Epoch, blob_id: BlobId, owner: AccountId) -> ();
    /// What was paid for an epoch, and how much is stored in it.
    BucketSlot = 15, (epoch: Epoch) -> Bucket;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_apart() {
        for (i, kind) in KINDS.iter().enumerate() {
            assert!(!KINDS[..i].contains(kind), "kind {kind}");
        }
    }

    #[test]
    fn keys_are_in_the_order_of_their_fields_and_survive_their_form() {
        let slot = |end: u32, blob: u8, owner: u8| ExpirySlot {
            end: Epoch(end),
            blob_id: BlobId([blob; 32]),
            owner: AccountId([owner; 32]),
        };
        let slots = [slot(1, 9, 9), slot(2, 0, 9), slot(2, 1, 0), slot(255, 0, 0), slot(256, 0, 0)];
        assert!(slots.is_sorted_by_key(Slot::key));
        for slot in slots {
            assert_eq!(ExpirySlot::parse(&slot.key()), Some(slot));
            assert_eq!(ExpirySlot::parse(&slot.key()[1..]), None);
            assert_eq!(ExpirySlot::parse(&[slot.key(), vec![0]].concat()), None);
            assert_eq!(RegistrationSlot::parse(&slot.key()), None);
        }
        let latest = |epoch| LifetimeSlot { blob_id: BlobId([1; 32]), end: Latest::new(Epoch(epoch)) };
        assert!([900, 256, 255, 1, 0].map(latest).is_sorted_by_key(Slot::key));
        assert_eq!(LifetimeSlot::parse(&latest(7).key()).unwrap().end.epoch(), Epoch(7));
    }
}
