//! One open log file and the reading of its records.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;

use super::{
    BLOCK_BYTES, Checksums, LogNumber,
    file_header::{FileHeader, HeadError},
    record::{Content, HEADER_BYTES, HEADER_LEN, Header, Kind, Role},
};
use crate::{
    disk::{Disk, DiskFile},
    index::Entry,
    key::Key,
    size::{to_u64, to_usize},
};

/// An open log file.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    pub(crate) head: FileHeader,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// Why a record cannot be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The disk failed.
    Io(io::Error),
    /// This part of it does not match its checksum.
    Corrupt(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Corrupt("file ends before it"),
            _ => Self::Io(error),
        }
    }
}

impl LogFile {
    /// Creates the file and makes it and its name durable. Whatever lay in the newest file before must be durable.
    pub(crate) fn create(disk: &dyn Disk, number: LogNumber, store: [u8; 16]) -> io::Result<Self> {
        let file = disk.create(&number.file_name())?;
        let log = Self::begin(disk, file, number, store)?;
        disk.sync_dir()?;
        Ok(log)
    }

    /// Makes `file`, which holds no record yet, a log file.
    pub(crate) fn begin(
        disk: &dyn Disk,
        file: Arc<dyn DiskFile>,
        number: LogNumber,
        store: [u8; 16],
    ) -> io::Result<Self> {
        let [m0, m1, m2, m3, m4, m5, m6, m7, ..] = disk.random()?;
        let head = FileHeader { number, store, marker: [m0, m1, m2, m3, m4, m5, m6, m7] };
        head.write(&*file)?;
        file.sync()?;
        Ok(Self { head, file })
    }

    /// Reads the header of an existing file.
    pub(crate) fn open(file: Arc<dyn DiskFile>) -> Result<Self, HeadError> {
        let head = FileHeader::read(&*file)?;
        Ok(Self { head, file })
    }

    /// Its number.
    pub(crate) const fn number(&self) -> LogNumber {
        self.head.number
    }

    /// Reads `n` bytes.
    pub(crate) fn bytes(&self, offset: u64, n: u64) -> io::Result<Bytes> {
        let mut buffer = vec![0; to_usize(n)?];
        self.file.read_at(offset, &mut buffer)?;
        Ok(buffer.into())
    }

    /// Reads `range` of the payload of `key`, verifying each block it touches.
    ///
    /// INV: `range` lies within the payload.
    pub(crate) fn read(&self, key: &Key, entry: &Entry, range: Range<u64>) -> Result<Bytes, Fault> {
        let len = u64::from(entry.payload_len);
        let table_bytes = u64::from(Checksums::table_bytes(entry.payload_len));
        let block = u64::from(BLOCK_BYTES);
        // A payload of one block comes along with its header.
        let first_read = HEADER_LEN + table_bytes + if len <= block { len } else { 0 };
        let front = self.bytes(entry.offset, first_read)?;
        let header = self.header_of(key, entry, &front)?;
        let table = front.slice(HEADER_BYTES..HEADER_BYTES + to_usize(table_bytes)?);
        let checksums =
            Checksums::from_stored(table, header.table_crc).ok_or(Fault::Corrupt("table of checksums"))?;
        let (first, last) = (range.start / block, range.end.div_ceil(block));
        let touched = first * block..(last * block).min(len);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let blocks = if len <= block {
            front.slice(HEADER_BYTES + to_usize(table_bytes)?..)
        } else {
            self.bytes(header.payload_start() + touched.start, touched.end - touched.start)?
        };
        if !checksums.match_blocks(to_usize(first)?, &blocks) {
            return Err(Fault::Corrupt("payload"));
        }
        let start = to_usize(range.start - touched.start)?;
        Ok(blocks.slice(start..start + to_usize(range.end - range.start)?))
    }

    /// The header of `key`'s record, from `front` or, if that is damaged, from the footer.
    fn header_of(&self, key: &Key, entry: &Entry, front: &[u8]) -> Result<Header, Fault> {
        let is_it = |header: &Header| {
            header.kind == Kind::Put && header.key == *key && header.payload_len == entry.payload_len
        };
        if let Some((Role::Header, header)) = Header::decode(front, self.head.marker, entry.offset)
            && is_it(&header)
        {
            return Ok(header);
        }
        let at = entry.offset + entry.record_bytes() - HEADER_LEN;
        let footer = Header::decode(&self.bytes(at, HEADER_LEN)?, self.head.marker, at);
        let footer = footer.filter(|(role, header)| *role == Role::Footer && is_it(header));
        footer.map(|(_, header)| header).ok_or(Fault::Corrupt("header and footer"))
    }

    /// Reads the whole record, verifying all of it but the header itself.
    pub(crate) fn content(&self, header: &Header) -> Result<Content, Fault> {
        let table_bytes = u64::from(Checksums::table_bytes(header.payload_len));
        let table = self.bytes(header.offset + HEADER_LEN, table_bytes)?;
        let checksums =
            Checksums::from_stored(table, header.table_crc).ok_or(Fault::Corrupt("table of checksums"))?;
        let payload = self.bytes(header.payload_start(), u64::from(header.payload_len))?;
        if !checksums.match_blocks(0, &payload) {
            return Err(Fault::Corrupt("payload"));
        }
        Ok(Content { payload, checksums })
    }

    /// Whether every byte of the record is as it was written.
    pub(crate) fn is_whole(&self, header: &Header) -> io::Result<bool> {
        for (role, at) in [(Role::Header, header.offset), (Role::Footer, header.footer_start())] {
            match self.bytes(at, to_u64(HEADER_BYTES)) {
                Ok(bytes) if Header::decode(&bytes, self.head.marker, at) == Some((role, header.clone())) => {
                }
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        match self.content(header) {
            Ok(_) => Ok(true),
            Err(Fault::Corrupt(_)) => Ok(false),
            Err(Fault::Io(error)) => Err(error),
        }
    }
}
