//! The append-only log files, which hold the truth.
//!
//! ```text
//! 0000000001.log
//!   0     512    1024
//!   | head | head | record | record | ...            the file header twice, each in a sector of its own
//!
//! record = header | checksums | payload | footer     the footer is the header again
//!   header    120 bytes: see `record.rs`
//!   checksums a crc32 for each 64 KiB block of the payload
//! ```
//!
//! All integers are little-endian. A batch of records is appended with one write and one sync; the records of later
//! batches win over earlier ones, later files over earlier ones.
//!
//! **Marker.** Every file draws 8 random bytes, and each header and footer begins with them. A payload cannot know
//! them, so nothing that a stranger stores can be mistaken for a record when damage makes the reader search.
//!
//! **Damage or torn write.** A header also says where its batch began. Since a batch is only written once the one
//! before is synced, it proves that everything before that place was durable. The *proven end* of a file is the
//! greatest such place (and all of it, if there is a newer file; and what the index was told was durable).
//! - Before the proven end, bytes that are no record are damage: they are skipped by searching for the next marker,
//!   and reported. Header and footer say the same, so one damaged byte never costs the key, the length or the
//!   position of a record; it can only cost the payload, and reading that answers with an error.
//! - After the proven end lies at most one batch. Its records are read in full, and the file is cut at the first
//!   that is not whole: nobody was told that it was stored. What is kept is written again in place and synced, since
//!   a failed sync may have left pages that look clean and are not on the disk.
//! - Closing a store appends a mark, which proves everything before it.
//! - To a file in which a record had to be searched for, nothing is appended: where a header claims more than the file
//!   has, its footer is believed, and that must not change once the file is long enough. Writes go to a new file.
//!
//! So a damaged byte can be taken for a torn write only in the very last batch, before any later write or orderly
//! end, and only if the index did not outlive the crash.
//!
//! **Tombstones.** A record names the range of files that may hold older puts of its key ([`Prior`]). A tombstone is
//! carried along by compaction as long as one of those files exists, so that a rebuild never brings back what was
//! deleted. A tombstone always lies after the puts it covers, because compaction copies newest records only.

mod checksums;
mod file;
mod file_header;
mod prior;
mod record;
mod recovery;
mod scan;

use std::fmt;

pub(crate) use checksums::{BLOCK_BYTES, Checksums};
pub(crate) use file::{Fault, LogFile};
#[cfg(feature = "fuzz")]
pub(crate) use file_header::FileHeader;
pub(crate) use file_header::{FORMAT_VERSION, HeadError, RECORDS_START};
pub use prior::Prior;
pub(crate) use record::{Content, Encoder, HEADER_LEN, Header, Kind, record_bytes};
pub(crate) use recovery::{Bounds, replay};
pub(crate) use scan::{Item, Scanner};

/// The longest payload, in bytes. Slivers stay below 16 MiB; a ledger snapshot may be larger. A record is written
/// and copied in one piece, so this also bounds the memory of compaction.
pub const MAX_PAYLOAD_BYTES: u32 = 256 << 20;

/// Number of a log file, from 1, ascending with age and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogNumber(pub u64);

impl LogNumber {
    /// The number of the next file.
    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The name of the file.
    pub(crate) fn file_name(self) -> String {
        format!("{:010}.log", self.0)
    }

    /// The number in the name of a log file, if it is exactly such a name.
    pub(crate) fn of_file_name(name: &str) -> Option<Self> {
        let number = Self(name.strip_suffix(".log")?.parse().ok()?);
        (number.file_name() == name && number.0 > 0).then_some(number)
    }
}

impl fmt::Display for LogNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
