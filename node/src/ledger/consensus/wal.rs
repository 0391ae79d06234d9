//! The write-ahead log of the height being decided: what a node must remember so as not to contradict itself.
//!
//! One file. Records lie one after another from its beginning; those of a new height overwrite those of the last.
//!
//! ```text
//! record = magic u32 | length u32 | height u64 | durable u64 | check [16] | payload      (little-endian)
//! ```
//!
//! `check` is a hash of the place in the file and everything in the record, so bytes of an older height, of a torn write
//! or from elsewhere are never taken for a record. `durable` is where the synced part of the file ended when the record was
//! written: it proves that all before was synced, so if something there cannot be read, the disk lost it. Then the log is
//! refused, since a node that forgets its votes may contradict them. Behind what was synced last lies a mark, a record of
//! its own magic that says nothing else; the next record takes its place. It is not synced itself: if the power fails at
//! once, it may be gone, and a disk that loses what was synced just then cannot be told from a torn write.

use std::{
    io::{self, IoSlice},
    sync::{Arc, LazyLock},
};

use protocol::hash::Domain;
use storage::disk::{Disk, DiskFile};

/// The log.
const FILE: &str = "votes.wal";
/// Begins each record.
const MAGIC: u32 = 0x4c41_5746;
/// Begins the mark behind what was synced last.
const MARK: u32 = 0x4b52_414d;
/// Bytes before the payload.
const HEADER_BYTES: usize = 40;
/// Bytes before the check.
const FIELDS_BYTES: usize = 24;
/// Most bytes of a record: the body of a block and what is said about it.
const RECORD_BYTES_MAX: usize = 2 << 20;
/// Most bytes of the log: rounds without a decision, each with two bodies, for hours.
const LOG_BYTES_MAX: u64 = 1 << 30;

static CHECK: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/consensus-wal"));

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk failed.
    #[error("cannot {doing} the log of votes")]
    Io {
        /// `open`, `read` or `write`.
        doing: &'static str,
        /// What the disk says.
        #[source]
        source: io::Error,
    },
    /// Something that was durable cannot be read: the disk lost votes that others may have. Starting without them risks a
    /// contradiction, which costs the node its stake.
    #[error(
        "the log of votes of height {height} is damaged at byte {offset}: let this height pass before the node votes again"
    )]
    Damaged {
        /// Height of the log.
        height: u64,
        /// Where.
        offset: u64,
    },
    /// The log is of a later height than the blocks reach: they are from a backup. Starting would forget votes.
    #[error(
        "the log of votes is of height {got}, but the blocks end before height {required}: they are older than the log"
    )]
    Ahead {
        /// Height of the log.
        got: u64,
        /// Height to be decided next.
        required: u64,
    },
    /// A record is not what this program writes, although it is whole.
    #[error("the log of votes of height {height} holds a record that this program does not know")]
    Unknown {
        /// Height of the log.
        height: u64,
    },
    /// The log has outgrown every bound: no decision for a very long time.
    #[error("the log of votes has {got} bytes, at most {LOG_BYTES_MAX} allowed")]
    Full {
        /// Bytes it would have.
        got: u64,
    },
}

/// The log of one height.
pub trait Wal {
    /// Goes on with the log of a height after a start, and returns what it holds of it. What it holds of other heights is
    /// forgotten.
    ///
    /// # Errors
    ///
    /// If the disk fails or lost something, or the log is of a later height.
    fn open(&mut self, height: u64) -> Result<Vec<Vec<u8>>, WalError>;

    /// Starts the log of a height for which nothing was logged yet. Everything before is forgotten.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    fn reset(&mut self, height: u64) -> Result<(), WalError>;

    /// Adds a record. It is durable only after [`Wal::flush`].
    ///
    /// # Errors
    ///
    /// If there is no room for it.
    fn append(&mut self, record: &[u8]) -> Result<(), WalError>;

    /// Makes all records durable.
    ///
    /// # Errors
    ///
    /// If the disk fails; what is durable is then unknown.
    fn flush(&mut self) -> Result<(), WalError>;
}

/// The log as a file.
#[derive(Debug)]
pub struct FileWal {
    file: Arc<dyn DiskFile>,
    height: u64,
    /// Where the synced part ends.
    durable: u64,
    /// Records that are not written yet.
    pending: Vec<u8>,
}

fn io(doing: &'static str) -> impl FnOnce(io::Error) -> WalError {
    move |source| WalError::Io { doing, source }
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).expect("addresses are at most 64 bits")
}

impl FileWal {
    /// Opens the log in a directory of its own, creating it if there is none.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn new(disk: &dyn Disk) -> Result<Self, WalError> {
        let file = match disk.open(FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = disk.create(FILE).map_err(io("open"))?;
                file.sync().and_then(|()| disk.sync_dir()).map_err(io("open"))?;
                file
            }
            Err(source) => return Err(WalError::Io { doing: "open", source }),
        };
        Ok(Self { file, height: 0, durable: 0, pending: Vec::new() })
    }

    /// Reads the record at `offset`, if there is one of this height.
    fn record_at(&self, height: u64, offset: u64, len: u64) -> io::Result<Option<Record>> {
        let mut header = [0; HEADER_BYTES];
        if offset + to_u64(HEADER_BYTES) > len {
            return Ok(None);
        }
        self.file.read_at(offset, &mut header)?;
        let Some(fields) = Fields::parse(&header).filter(|fields| fields.height == height) else {
            return Ok(None);
        };
        let Some(payload_len) = usize::try_from(fields.length).ok().filter(|it| *it <= RECORD_BYTES_MAX)
        else {
            return Ok(None);
        };
        let end = offset + to_u64(HEADER_BYTES) + to_u64(payload_len);
        if end > len {
            return Ok(None);
        }
        let mut payload = vec![0; payload_len];
        self.file.read_at(offset + to_u64(HEADER_BYTES), &mut payload)?;
        let is_whole = header[FIELDS_BYTES..] == check(offset, &header[..FIELDS_BYTES], &payload);
        Ok(is_whole.then_some(Record { is_mark: fields.is_mark, durable: fields.durable, payload, end }))
    }

    /// Says that all so far was synced.
    fn mark(&self) -> Result<(), WalError> {
        let mark = encode(MARK, self.height, self.durable, self.durable, &[]);
        self.file.write_at(self.durable, &[IoSlice::new(&mark)]).map_err(io("write"))
    }

    /// The height of the first record.
    fn height_of_log(&self, len: u64) -> io::Result<Option<u64>> {
        if len < to_u64(HEADER_BYTES) {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        self.file.read_at(0, &mut header)?;
        let Some(Fields { height, .. }) = Fields::parse(&header) else { return Ok(None) };
        Ok(self.record_at(height, 0, len)?.map(|_| height))
    }

    /// Whether a record after `offset` proves that what lies there had been synced.
    fn proves_damage(&self, height: u64, offset: u64, len: u64) -> io::Result<bool> {
        let mut rest = vec![0; usize::try_from(len - offset).map_err(|_| io::ErrorKind::OutOfMemory)?];
        self.file.read_at(offset, &mut rest)?;
        let (magic, mark) = (MAGIC.to_le_bytes(), MARK.to_le_bytes());
        let begins = |bytes: &[u8]| *bytes == magic || *bytes == mark;
        for (place, _) in rest.windows(magic.len()).enumerate().filter(|(_, bytes)| begins(bytes)) {
            let record = self.record_at(height, offset + to_u64(place), len)?;
            if record.is_some_and(|record| record.durable > offset) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What is read of a record.
struct Record {
    is_mark: bool,
    durable: u64,
    payload: Vec<u8>,
    end: u64,
}

/// The numbers at the beginning of a record.
struct Fields {
    is_mark: bool,
    length: u32,
    height: u64,
    durable: u64,
}

impl Fields {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (height, rest) = rest.split_first_chunk()?;
        let (durable, _) = rest.split_first_chunk()?;
        let magic = u32::from_le_bytes(*magic);
        matches!(magic, MAGIC | MARK).then(|| Self {
            is_mark: magic == MARK,
            length: u32::from_le_bytes(*length),
            height: u64::from_le_bytes(*height),
            durable: u64::from_le_bytes(*durable),
        })
    }
}

fn check(offset: u64, fields: &[u8], payload: &[u8]) -> [u8; HEADER_BYTES - FIELDS_BYTES] {
    let hash = CHECK.hash_parts(&[&offset.to_le_bytes(), fields, payload]);
    std::array::from_fn(|i| hash.0[i])
}

/// The form of a record that lies at `offset`.
///
/// # Panics
///
/// If the payload is longer than any record's: that is checked before.
fn encode(magic: u32, height: u64, durable: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a record is at most 2 MiB");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend(magic.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(height.to_le_bytes());
    bytes.extend(durable.to_le_bytes());
    bytes.extend(check(offset, &bytes, payload));
    bytes.extend(payload);
    bytes
}

impl Wal for FileWal {
    fn open(&mut self, height: u64) -> Result<Vec<Vec<u8>>, WalError> {
        let len = self.file.len().map_err(io("read"))?;
        if let Some(got) = self.height_of_log(len).map_err(io("read"))?
            && got > height
        {
            return Err(WalError::Ahead { got, required: height });
        }
        let mut records = Vec::new();
        let mut end = 0;
        while let Some(record) = self.record_at(height, end, len).map_err(io("read"))?
            && !record.is_mark
        {
            end = record.end;
            records.push(record.payload);
        }
        if end < len {
            if self.proves_damage(height, end, len).map_err(io("read"))? {
                return Err(WalError::Damaged { height, offset: end });
            }
            // What follows is of an older height, or a torn write that nobody was told of. It must not follow the
            // records that come next.
            self.file.truncate(end).map_err(io("write"))?;
        }
        if end > 0 {
            // After a failed sync the system may hold in memory only what it just showed: make it durable again.
            self.file.sync().map_err(io("write"))?;
        }
        (self.height, self.durable) = (height, end);
        self.pending.clear();
        if end > 0 {
            self.mark()?;
        }
        Ok(records)
    }

    fn reset(&mut self, height: u64) -> Result<(), WalError> {
        // Not synced: if the old records come back after a crash, they are of another height. The next flush syncs both.
        self.file.truncate(0).map_err(io("write"))?;
        (self.height, self.durable) = (height, 0);
        self.pending.clear();
        Ok(())
    }

    fn append(&mut self, record: &[u8]) -> Result<(), WalError> {
        let offset = self.durable + to_u64(self.pending.len());
        let got = offset + to_u64(HEADER_BYTES) + to_u64(record.len());
        if got > LOG_BYTES_MAX || record.len() > RECORD_BYTES_MAX {
            return Err(WalError::Full { got });
        }
        self.pending.extend(encode(MAGIC, self.height, self.durable, offset, record));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WalError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.file.write_at(self.durable, &[IoSlice::new(&self.pending)]).map_err(io("write"))?;
        self.file.sync().map_err(io("write"))?;
        self.durable += to_u64(self.pending.len());
        self.pending.clear();
        self.mark()
    }
}
