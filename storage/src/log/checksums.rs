//! One crc32 for every block of a payload, so that reading a range verifies what it touches and no more.

use bytes::Bytes;
use protocol::planted::{Bug, is_planted};

/// Bytes a checksum covers. Smaller costs table, larger makes short reads read more than they return.
pub(crate) const BLOCK_BYTES: u32 = 64 << 10;

/// The checksums of a payload, in order, each little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checksums(Bytes);

impl Checksums {
    /// Those of `payload`.
    pub(crate) fn of(payload: &[u8]) -> Self {
        let block_bytes = usize::try_from(BLOCK_BYTES).expect("64 KiB fit the address space");
        Self(payload.chunks(block_bytes).flat_map(|block| crc32fast::hash(block).to_le_bytes()).collect())
    }

    /// Those stored as `table`, if it matches its own checksum.
    pub(crate) fn from_stored(table: Bytes, crc: u32) -> Option<Self> {
        (crc32fast::hash(&table) == crc).then_some(Self(table))
    }

    /// Bytes of the table for a payload of this length.
    pub(crate) const fn table_bytes(payload_len: u32) -> u32 {
        payload_len.div_ceil(BLOCK_BYTES) * 4
    }

    /// The table as it is stored.
    pub(crate) fn table(&self) -> &Bytes {
        &self.0
    }

    /// Checksum of the table.
    pub(crate) fn crc(&self) -> u32 {
        crc32fast::hash(&self.0)
    }

    /// Whether `blocks`, which begins with block `first`, is what was stored.
    pub(crate) fn match_blocks(&self, first: usize, blocks: &[u8]) -> bool {
        if is_planted(Bug::ServedCorrupt) {
            return true;
        }
        let table = self.0.chunks_exact(4).skip(first);
        let computed = Self::of(blocks);
        let mut computed = computed.0.chunks_exact(4);
        computed.len() <= table.len() && table.zip(&mut computed).all(|(stored, computed)| stored == computed)
    }
}
