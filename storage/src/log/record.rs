//! The header of a record, which is also its footer.
//!
//! ```text
//! marker 8 | role u8 | kind u8 | key length u8 | 0 u8 | payload length u32 | offset u64 | batch start u64
//! | prior first u64, last u64 | crc32 of the checksums | key, zero-padded to 64 | crc32 of all before
//! ```

use bytes::Bytes;

use super::{Checksums, MAX_PAYLOAD_BYTES, Prior};
use crate::{
    fields::{Fields, checked},
    key::{Key, MAX_KEY_BYTES},
    size::to_u64,
};

/// Bytes of a header, and of a footer.
pub(crate) const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 16 + 4 + MAX_KEY_BYTES + 4;

/// The same, as a length in a file.
pub(crate) const HEADER_LEN: u64 = 120;
const _: () = assert!(HEADER_BYTES == 120);

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The key has this payload.
    Put,
    /// The key was deleted.
    Tombstone,
    /// Nothing; it proves that what lies before it was durable.
    Mark,
}

/// Which of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Header,
    Footer,
}

/// Everything about a record but its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    /// INV: 0 unless `kind` is `Put`, and at most [`MAX_PAYLOAD_BYTES`].
    pub(crate) payload_len: u32,
    /// Where the record begins in its file.
    pub(crate) offset: u64,
    /// Where its batch begins. Everything before was durable when this was written. INV: `<= offset`.
    pub(crate) batch_start: u64,
    /// The log files that may hold older puts of the key.
    pub(crate) prior: Prior,
    /// Checksum of the checksums.
    pub(crate) table_crc: u32,
}

/// Bytes a record takes in its file.
pub(crate) fn record_bytes(payload_len: u32) -> u64 {
    2 * HEADER_LEN + u64::from(Checksums::table_bytes(payload_len)) + u64::from(payload_len)
}

impl Header {
    /// Where the payload begins in the file.
    pub(crate) fn payload_start(&self) -> u64 {
        self.offset + HEADER_LEN + u64::from(Checksums::table_bytes(self.payload_len))
    }

    /// Where the footer begins in the file.
    pub(crate) fn footer_start(&self) -> u64 {
        self.end() - HEADER_LEN
    }

    /// Where the next record begins in the file.
    pub(crate) fn end(&self) -> u64 {
        self.offset + record_bytes(self.payload_len)
    }

    pub(crate) fn encode(&self, role: Role, marker: [u8; 8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(marker);
        bytes.push(match role {
            Role::Header => 1,
            Role::Footer => 2,
        });
        bytes.push(match self.kind {
            Kind::Put => 1,
            Kind::Tombstone => 2,
            Kind::Mark => 3,
        });
        let key = self.key.as_bytes();
        bytes.push(u8::try_from(key.len()).expect("a key has at most 64 bytes"));
        bytes.push(0);
        bytes.extend(self.payload_len.to_le_bytes());
        bytes.extend(self.offset.to_le_bytes());
        bytes.extend(self.batch_start.to_le_bytes());
        bytes.extend(self.prior.encode());
        bytes.extend(self.table_crc.to_le_bytes());
        bytes.extend(key);
        bytes.resize(HEADER_BYTES - 4, 0);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Decodes the header or footer that lies at byte `at` of its file, if one does.
    pub(crate) fn decode(bytes: &[u8], marker: [u8; 8], at: u64) -> Option<(Role, Self)> {
        if bytes.get(..8)? != marker {
            return None;
        }
        let mut fields = Fields::new(checked(bytes.get(..HEADER_BYTES)?)?);
        fields.bytes(8)?;
        let role = match fields.u8()? {
            1 => Role::Header,
            2 => Role::Footer,
            _ => return None,
        };
        let kind = match fields.u8()? {
            1 => Kind::Put,
            2 => Kind::Tombstone,
            3 => Kind::Mark,
            _ => return None,
        };
        let key_len = usize::from(fields.u8()?);
        let reserved = fields.u8()?;
        let (payload_len, offset, batch_start) = (fields.u32()?, fields.u64()?, fields.u64()?);
        let prior = Prior::decode(fields.array()?)?;
        let table_crc = fields.u32()?;
        let (key, padding) = fields.bytes(MAX_KEY_BYTES)?.split_at_checked(key_len)?;
        let key = Key::new(key.to_vec()).ok()?;
        let header = Self { kind, key, payload_len, offset, batch_start, prior, table_crc };
        let sound = reserved == 0
            && padding.iter().all(|&byte| byte == 0)
            && payload_len <= MAX_PAYLOAD_BYTES
            && (kind == Kind::Put || payload_len == 0)
            && batch_start <= offset
            // The place must be the one named, which also keeps every sum of `offset` in range.
            && match role {
                Role::Header => offset == at,
                Role::Footer => offset.checked_add(record_bytes(payload_len) - HEADER_LEN) == Some(at),
            };
        sound.then_some((role, header))
    }
}

/// Lays the records of one batch out behind each other.
#[derive(Debug)]
pub(crate) struct Encoder {
    marker: [u8; 8],
    batch_start: u64,
    end: u64,
    parts: Vec<Bytes>,
}

impl Encoder {
    /// A batch that begins at byte `batch_start` of the file with this marker.
    pub(crate) const fn new(marker: [u8; 8], batch_start: u64) -> Self {
        Self { marker, batch_start, end: batch_start, parts: Vec::new() }
    }

    /// Adds a record and returns where it begins.
    ///
    /// # Panics
    /// If the payload exceeds [`MAX_PAYLOAD_BYTES`].
    pub(crate) fn push(&mut self, kind: Kind, key: &Key, prior: Prior, content: &Content) -> u64 {
        let payload_len = content.payload_len();
        assert!(payload_len <= MAX_PAYLOAD_BYTES);
        let header = Header {
            kind,
            key: key.clone(),
            payload_len,
            offset: self.end,
            batch_start: self.batch_start,
            prior,
            table_crc: content.checksums.crc(),
        };
        self.end = header.end();
        self.parts.push(header.encode(Role::Header, self.marker).into());
        self.parts.push(content.checksums.table().clone());
        self.parts.push(content.payload.clone());
        self.parts.push(header.encode(Role::Footer, self.marker).into());
        header.offset
    }

    /// Where the batch ends in the file.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// What to write at the batch's beginning.
    pub(crate) fn parts(&self) -> &[Bytes] {
        &self.parts
    }
}

/// A payload and its checksums.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) payload: Bytes,
    pub(crate) checksums: Checksums,
}

impl Content {
    /// Computes the checksums of `payload`.
    pub(crate) fn new(payload: Bytes) -> Self {
        let checksums = Checksums::of(&payload);
        Self { payload, checksums }
    }

    /// What tombstones and marks have.
    pub(crate) fn empty() -> Self {
        Self::new(Bytes::new())
    }

    /// Length of the payload.
    ///
    /// # Panics
    /// If it does not fit 32 bits: payloads are bounded before they come here.
    pub(crate) fn payload_len(&self) -> u32 {
        u32::try_from(self.payload.len()).expect("the caller bounds payloads")
    }

    /// Bytes a record with this content takes in its file.
    pub(crate) fn record_bytes(&self) -> u64 {
        2 * HEADER_LEN + to_u64(self.checksums.table().len()) + to_u64(self.payload.len())
    }
}
