//! A sliver in the form in which it is stored.

use bytes::Bytes;
use protocol::hash::{HASH_BYTES, Hash};

/// A sliver with room in front for the root over its parity symbols, which is stored before it. What was put together here
/// goes to the disk from here: a copy for the disk would take as much memory again while it waits there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliverRecord(Vec<u8>);

impl SliverRecord {
    /// A sliver of `len` zeros.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self(vec![0; HASH_BYTES + len])
    }

    /// The sliver.
    #[must_use]
    pub fn sliver(&self) -> &[u8] {
        &self.0[HASH_BYTES..]
    }

    /// The sliver, to be filled.
    pub fn sliver_mut(&mut self) -> &mut [u8] {
        &mut self.0[HASH_BYTES..]
    }

    /// The record of the sliver; `parity` is the root over its parity symbols.
    pub(super) fn seal(mut self, parity: Hash) -> Bytes {
        self.0[..HASH_BYTES].copy_from_slice(&parity.0);
        self.0.into()
    }
}

impl From<&[u8]> for SliverRecord {
    fn from(sliver: &[u8]) -> Self {
        let mut record = Self::zeroed(sliver.len());
        record.sliver_mut().copy_from_slice(sliver);
        record
    }
}
