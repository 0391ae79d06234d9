//! Keys of the entries that a client asks proofs of: its own account, a node, a blob.
//!
//! The value that such a proof shows is the canonical form of the type in [`entry`](super::entry).

use super::slot::{AccountSlot, BlobSlot, HeadSlot, NodeSlot, RegistrationSlot, Slot as _};
use crate::ids::{AccountId, BlobId, PeerId};

/// Key of the [`Head`](super::entry::Head).
#[must_use]
pub fn head() -> Vec<u8> {
    HeadSlot {}.key()
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
