//! What fuzzing calls that is not public otherwise: decoders of what lies on a disk. Hidden, and no part of the interface.
//!
//! Each decoder returns the form that its value is written in: whatever was accepted must be that form. Bytes that a random
//! change no longer fits a checksum to are refused at once, so the checksums can be made right again.

use std::io;

use crate::{
    index::{Entry, Summary},
    key::Key,
    log::{FORMAT_VERSION, FileHeader, HEADER_LEN, Header, RECORDS_START},
};

/// Bytes of a file header with its checksum.
const FILE_HEADER_BYTES: usize = 48;

/// Reads a file header of this version.
#[must_use]
pub fn file_header(bytes: &[u8]) -> Option<Vec<u8>> {
    let (version, header) = FileHeader::decode(bytes)?;
    (version == FORMAT_VERSION).then(|| header.encode())
}

/// Reads the header or footer of a record that lies at byte `at` of a file with this marker.
#[must_use]
pub fn record_header(bytes: &[u8], marker: [u8; 8], at: u64) -> Option<Vec<u8>> {
    let (role, header) = Header::decode(bytes, marker, at)?;
    // What a reader computes of it must not overflow.
    assert!(header.offset <= header.payload_start() && header.payload_start() <= header.footer_start());
    Some(header.encode(role, marker))
}

/// Reads the index entry of a key.
#[must_use]
pub fn index_entry(key: &Key, bytes: &[u8]) -> Option<Vec<u8>> {
    Some(Entry::decode(key, bytes)?.encode(key))
}

/// Reads what the index knows of itself.
#[must_use]
pub fn index_summary(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(Summary::decode(bytes)?.encode())
}

/// Makes the last four bytes the checksum of `before` and of all before them.
pub fn seal(before: &[u8], bytes: &mut [u8]) {
    if let Some((body, checksum)) = bytes.split_last_chunk_mut::<4>() {
        let mut crc = crc32fast::Hasher::new();
        crc.update(before);
        crc.update(body);
        *checksum = crc.finalize().to_le_bytes();
    }
}

/// Makes the checksums of both file headers and of everything in a log file that begins like a record right.
pub fn seal_log(image: &mut [u8]) {
    let header_bytes = usize::try_from(HEADER_LEN).unwrap_or(usize::MAX);
    for copy in [0, 512] {
        if let Some(header) = image.get_mut(copy..copy + FILE_HEADER_BYTES) {
            seal(&[], header);
        }
    }
    let Some(marker) = image.get(36..44).and_then(|marker| <[u8; 8]>::try_from(marker).ok()) else { return };
    let mut at = usize::try_from(RECORDS_START).unwrap_or(usize::MAX);
    while let Some(record) = image.get_mut(at..at.saturating_add(header_bytes)) {
        if record.starts_with(&marker) {
            seal(&[], record);
        }
        at += 1;
    }
}

/// Writes a file of a disk anew.
///
/// # Errors
///
/// The disk's.
pub fn put_file(disk: &dyn crate::disk::Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let file = disk.create(name)?;
    file.write_at(0, &[io::IoSlice::new(bytes)])?;
    file.sync()?;
    disk.sync_dir()
}
