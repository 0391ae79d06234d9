//! Keys of the entries that a client asks proofs of: its own account, a node, a blob, the committee, prices.
//!
//! The value that such a proof shows is the canonical form of the type in [`entry`](super::entry).

use super::slot::{
    AccountSlot, BlobSlot, BlsKey, BucketSlot, HeadSlot, KeySlot, MemberSlot, NameSlot, NodeSlot,
    ParametersSlot, ReadySlot, RegistrationSlot, Slot as _, prefix,
};
use crate::{
    bls,
    hash::NODE_NAME,
    ids::{AccountId, BlobId, Epoch, NodeIndex, PeerId},
};

/// Beginning of the keys of an owner's registrations; the blob ID follows.
#[must_use]
pub fn registrations(owner: &AccountId) -> Vec<u8> {
    prefix::<RegistrationSlot>(&[owner])
}

/// The blob of the key of an owner's registration.
#[must_use]
pub fn registered_blob(key: &[u8]) -> Option<BlobId> {
    RegistrationSlot::parse(key).map(|slot| slot.blob_id)
}

/// Key of the [`Head`](super::entry::Head).
#[must_use]
pub fn head() -> Vec<u8> {
    HeadSlot {}.key()
}

/// Key of the [`Parameters`](crate::ledger::parameters::Parameters).
#[must_use]
pub fn parameters() -> Vec<u8> {
    ParametersSlot {}.key()
}

/// Key of a [`Member`](crate::committee::Member) of the committee of an epoch, by its index in it.
#[must_use]
pub fn member(epoch: Epoch, member: NodeIndex) -> Vec<u8> {
    MemberSlot { epoch, member }.key()
}

/// Key of the [`Bucket`](super::entry::Bucket) of an epoch.
#[must_use]
pub fn bucket(epoch: Epoch) -> Vec<u8> {
    BucketSlot { epoch }.key()
}

/// Key of an [`Account`](super::entry::Account).
#[must_use]
pub fn account(account: &AccountId) -> Vec<u8> {
    AccountSlot { account: *account }.key()
}

/// Key of a [`Node`](super::entry::Node).
#[must_use]
pub fn node(node: &PeerId) -> Vec<u8> {
    NodeSlot { node: *node }.key()
}

/// Key of a [`Blob`](super::entry::Blob).
#[must_use]
pub fn blob(blob_id: &BlobId) -> Vec<u8> {
    BlobSlot { blob_id: *blob_id }.key()
}

/// Key of a [`Registration`](super::entry::Registration).
#[must_use]
pub fn registration(blob_id: &BlobId, owner: &AccountId) -> Vec<u8> {
    RegistrationSlot { blob_id: *blob_id, owner: *owner }.key()
}

/// Key of the [`PeerId`] of the node that has a name.
#[must_use]
pub fn node_named(name: &str) -> Vec<u8> {
    NameSlot { name: NODE_NAME.hash(name.as_bytes()) }.key()
}

/// Key of the [`PeerId`] of the node that has a BLS key.
#[must_use]
pub fn node_with_key(public_key: &bls::PublicKey) -> Vec<u8> {
    KeySlot { key: BlsKey(public_key.to_bytes()) }.key()
}

/// Key of nothing, which is there once a member of an epoch, by its index in the committee, is ready.
#[must_use]
pub fn ready(epoch: Epoch, member: NodeIndex) -> Vec<u8> {
    ReadySlot { epoch, member }.key()
}
