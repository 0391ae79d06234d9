//! What the index knows of a key, and of itself.

use crate::{
    fields::{Fields, checked},
    key::Key,
    log::{LogNumber, Prior, record_bytes},
};

/// What the newest record of a key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The key has a payload.
    Put,
    /// The key was deleted. The entry stays as long as the tombstone is needed: while a log file may hold an older
    /// put of the key.
    Tombstone,
}

/// Where the newest record of a key lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub kind: EntryKind,
    /// The log file.
    pub log: LogNumber,
    /// Where the record begins in it.
    pub offset: u64,
    /// Length of the payload in bytes.
    pub payload_len: u32,
    /// The log files that may hold older puts of the key.
    pub prior: Prior,
}

/// Bytes of an encoded entry, at most 256 (see [`SledIndex`](super::SledIndex)).
const ENTRY_BYTES: usize = 1 + 8 + 8 + 4 + 16 + 4;

impl Entry {
    /// Bytes the record takes in its log file.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        record_bytes(self.payload_len)
    }

    /// Encodes the entry of `key`. The checksum covers the key, so that a swapped value is noticed.
    pub(crate) fn encode(&self, key: &Key) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENTRY_BYTES);
        bytes.push(match self.kind {
            EntryKind::Put => 1,
            EntryKind::Tombstone => 2,
        });
        bytes.extend(self.log.0.to_le_bytes());
        bytes.extend(self.offset.to_le_bytes());
        bytes.extend(self.payload_len.to_le_bytes());
        bytes.extend(self.prior.encode());
        bytes.extend(checksum(key, &bytes).to_le_bytes());
        bytes
    }

    /// Decodes the entry of `key`, if that is what the bytes are.
    pub(crate) fn decode(key: &Key, bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if bytes.len() != ENTRY_BYTES || checksum(key, body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut fields = Fields::new(body);
        let kind = match fields.u8()? {
            1 => EntryKind::Put,
            2 => EntryKind::Tombstone,
            _ => return None,
        };
        Some(Self {
            kind,
            log: LogNumber(fields.u64()?),
            offset: fields.u64()?,
            payload_len: fields.u32()?,
            prior: Prior::decode(fields.array()?)?,
        })
    }
}

fn checksum(key: &Key, value: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key.as_bytes());
    crc.update(value);
    crc.finalize()
}

/// A place between two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The log file.
    pub log: LogNumber,
    /// The byte in it.
    pub offset: u64,
}

/// What the index knows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The store it belongs to.
    pub store: [u8; 16],
    /// Every record before this is in a part of the index that was flushed; replay starts here.
    pub checkpoint: Position,
    /// Every record before this was durable when the index learned of it.
    pub applied: Position,
    /// Entries in the index.
    pub n_entries: u64,
}

impl Summary {
    /// Encodes it, with a checksum.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.store.to_vec();
        for position in [self.checkpoint, self.applied] {
            bytes.extend(position.log.0.to_le_bytes());
            bytes.extend(position.offset.to_le_bytes());
        }
        bytes.extend(self.n_entries.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Decodes it, if that is what the bytes are.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(checked(bytes)?);
        let store = fields.array()?;
        let mut position = || Some(Position { log: LogNumber(fields.u64()?), offset: fields.u64()? });
        let (checkpoint, applied) = (position()?, position()?);
        Some(Self { store, checkpoint, applied, n_entries: fields.u64()? })
    }
}
