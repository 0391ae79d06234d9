//! The first bytes of a log file: what it is, and the marker that all its records carry.
//!
//! ```text
//! magic 8 | format version u32 | number u64 | store 16 | marker 8 | crc32 of all before
//! ```

use std::io::{self, IoSlice};

use crate::{
    disk::DiskFile,
    fields::{Fields, checked},
    log::LogNumber,
};

/// The format this crate reads and writes.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Distance of the two copies: one sector, the unit in which disks go bad and tear.
const COPY_BYTES: u16 = 512;

/// Where the records begin.
pub(crate) const RECORDS_START: u64 = 1024;

const MAGIC: [u8; 8] = *b"FLOE.LOG";
const HEAD_BYTES: usize = 8 + 4 + 8 + 16 + 8 + 4;

/// What a log file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// Its number, which its name repeats.
    pub(crate) number: LogNumber,
    /// The store it belongs to.
    pub(crate) store: [u8; 16],
    /// What its headers and footers begin with.
    pub(crate) marker: [u8; 8],
}

/// Why a log file cannot be read.
#[derive(Debug)]
pub(crate) enum HeadError {
    /// The disk failed.
    Io(io::Error),
    /// Neither copy of the header is whole.
    Damaged,
    /// The format is not ours.
    Version(u32),
}

impl FileHeader {
    /// Writes both copies.
    pub(crate) fn write(&self, file: &dyn DiskFile) -> io::Result<()> {
        let mut copy = self.encode();
        copy.resize(usize::from(COPY_BYTES), 0);
        file.write_at(0, &[IoSlice::new(&copy), IoSlice::new(&copy)])
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        bytes.extend(self.number.0.to_le_bytes());
        bytes.extend(self.store);
        bytes.extend(self.marker);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads whichever copy is whole.
    pub(crate) fn read(file: &dyn DiskFile) -> Result<Self, HeadError> {
        for offset in [0, u64::from(COPY_BYTES)] {
            let mut bytes = [0; HEAD_BYTES];
            match file.read_at(offset, &mut bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(HeadError::Io(error)),
            }
            match Self::decode(&bytes) {
                Some((FORMAT_VERSION, head)) => return Ok(head),
                Some((version, _)) => return Err(HeadError::Version(version)),
                None => {}
            }
        }
        Err(HeadError::Damaged)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<(u32, Self)> {
        let mut fields = Fields::new(checked(bytes)?);
        if fields.array()? != MAGIC {
            return None;
        }
        let version = fields.u32()?;
        let number = LogNumber(fields.u64()?);
        Some((version, Self { number, store: fields.array()?, marker: fields.array()? }))
    }
}
