//! Walking through the records of a log file, over damage if need be.

use std::{io, ops::Range};

use bytes::Bytes;

use super::{
    LogFile,
    record::{HEADER_BYTES, HEADER_LEN, Header, Role},
};
use crate::size::{to_u64, to_usize};

/// Bytes read at a step: a few small records at once, without reading the payloads of large ones.
const WINDOW_BYTES: u64 = 4 << 10;

/// Bytes read at a step while searching.
const SEARCH_BYTES: u64 = 1 << 20;

/// Something a log file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A record. Its payload has not been looked at.
    Record(Header),
    /// Bytes that are none.
    Damage(Range<u64>),
}

/// Yields everything a log file holds, in order and without gaps.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    log: &'a LogFile,
    /// The next byte to look at.
    at: u64,
    /// Length of the file.
    len: u64,
    /// Bytes of the file read ahead, and where they begin.
    window: (u64, Bytes),
    /// Where a record was searched for first.
    searched: Option<u64>,
}

impl<'a> Scanner<'a> {
    /// Starts at byte `from`, where a record begins.
    pub(crate) fn new(log: &'a LogFile, from: u64) -> io::Result<Self> {
        let len = log.file.len()?;
        Ok(Self { log, at: from, len, window: (from, Bytes::new()), searched: None })
    }

    /// Where a record was searched for first, if there was such a place. What follows was found because of how long the file is: in a
    /// longer one, a header further on could be taken for that of a record that ended behind the file's end before.
    pub(crate) const fn searched(&self) -> Option<u64> {
        self.searched
    }

    /// The next item; `None` at the end of the file.
    pub(crate) fn next(&mut self) -> io::Result<Option<Item>> {
        if self.at >= self.len {
            return Ok(None);
        }
        let start = self.at;
        let found = match self.header_at(start)? {
            Some((Role::Header, header)) if header.end() <= self.len => Some(header),
            _ => {
                self.searched.get_or_insert(start);
                self.search(start)?
            }
        };
        Ok(Some(match found {
            Some(header) if header.offset == start => {
                self.at = header.end();
                Item::Record(header)
            }
            found => {
                self.at = found.map_or(self.len, |header| header.offset);
                Item::Damage(start..self.at)
            }
        }))
    }

    /// What is at byte `at`, if it is a header or footer.
    fn header_at(&mut self, at: u64) -> io::Result<Option<(Role, Header)>> {
        let (start, bytes) = &self.window;
        let inside = at >= *start && at + HEADER_LEN <= start + to_u64(bytes.len());
        if !inside {
            self.window = (at, self.log.bytes(at, WINDOW_BYTES.min(self.len - at))?);
        }
        let (start, bytes) = &self.window;
        let bytes = bytes.get(to_usize(at - start)?..).unwrap_or_default();
        Ok(Header::decode(bytes, self.log.head.marker, at))
    }

    /// The next record that begins at `from` or later, found by the header or footer that comes first.
    fn search(&self, from: u64) -> io::Result<Option<Header>> {
        let marker = self.log.head.marker;
        let mut at = from;
        while at + HEADER_LEN <= self.len {
            let chunk = self.log.bytes(at, SEARCH_BYTES.min(self.len - at))?;
            // Candidates that the chunk holds wholly; the last few bytes are looked at again with the next chunk.
            let n_places = chunk.len() - (HEADER_BYTES - 1);
            for (place, bytes) in chunk.windows(HEADER_BYTES).enumerate() {
                if !bytes.starts_with(&marker) {
                    continue;
                }
                let record = Header::decode(bytes, marker, at + to_u64(place));
                if let Some((_, header)) = record.filter(|(_, it)| it.offset >= from && it.end() <= self.len)
                {
                    return Ok(Some(header));
                }
            }
            at += to_u64(n_places);
        }
        Ok(None)
    }
}
