//! Where decided blocks are kept: record after record in the storage crate's log files, each with its certificate.
//!
//! ```text
//! b height   block and certificate                    of consecutive heights, up to the head
//! c height   header and certificate                   where the committee changes; kept for ever
//! d height   the committee put in place               beside it
//! s          where the chain was begun anew, and which blocks before are left over
//! ```
//!
//! # Invariants
//!
//! - Blocks are deleted from below and in order, so that what is there has no gap whenever the power fails.
//! - A chain that is begun anew counts from the moment that its first block is durable; until then the old one does.

use std::{io, ops::Range, sync::Arc};

use bincode::{Decode, Encode};
use bytes::Bytes;
use protocol::{
    codec,
    ledger::{
        block::{BLOCK_BYTES_MAX, Decided, Header},
        commit::{COMMIT_BYTES_MAX, CommitCertificate},
        wire::COMMITTEE_PART_BYTES,
    },
};
use storage::{Key, ReadError, Store, Write, WriteError};

/// Begins the keys of blocks.
const PREFIX: u8 = b'b';
/// Begins the keys of headers at which the committee changes.
const CHANGE: u8 = b'c';
/// Begins the keys of the committees that they put in place.
const COMMITTEE: u8 = b'd';
/// The key of a [`Start`].
const START: u8 = b's';
/// Blocks deleted at once: what a call to the replica may wait for.
const PRUNED_MAX: usize = 1024;
/// Bytes copied at once to get room back: nearly always none, since what is deleted is older than what is kept.
const COMPACTED_BYTES: u64 = 4 << 20;
/// Limit for decoding a block with its certificate.
const DECODE_LIMIT: usize = 4 * (BLOCK_BYTES_MAX + COMMIT_BYTES_MAX);

/// Why blocks cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk failed, or damaged a block.
    #[error("cannot read block {height}")]
    Read {
        /// Height of the block.
        height: u64,
        /// What the store says.
        #[source]
        source: ReadError,
    },
    /// The block could not be made durable.
    #[error("cannot write block {height}")]
    Write {
        /// Height of the block.
        height: u64,
        /// What the store says.
        #[source]
        source: WriteError,
    },
    /// What is stored under this height is no block: a mistake of ours, or another program's file.
    #[error("what is stored as block {height} is none")]
    NoBlock {
        /// The height.
        height: u64,
        /// What is wrong with it.
        #[source]
        source: codec::DecodeError,
    },
    /// The heights that are stored are no chain's: a mistake of ours, or another program's file.
    #[error("what is stored from block {first} on is no chain")]
    NoChain {
        /// The first height.
        first: u64,
    },
    /// Blocks are stored in order and without gaps.
    #[error("block {got} does not follow block {head}")]
    Gap {
        /// Height of the block.
        got: u64,
        /// Height of the last one stored.
        head: u64,
    },
    /// Any other way to fail.
    #[error("the block store failed")]
    Other(#[source] io::Error),
}

/// A header at which the committee changes, and what is needed to follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The header, with a next committee.
    pub header: Header,
    /// The proof that it was decided.
    pub certificate: CommitCertificate,
    /// The committee that it puts in place, in canonical form.
    pub committee: Vec<u8>,
}

/// The chain on disk: the blocks of consecutive heights, and what proves who signed those that are gone.
pub trait BlockStore {
    /// Height of the last block; 0 if there is none.
    ///
    /// # Errors
    ///
    /// If the store fails.
    fn head(&self) -> Result<u64, StoreError>;

    /// Adds a block and returns once it is durable. The first block may have any height: a node that starts from a
    /// snapshot has none before it.
    ///
    /// # Errors
    ///
    /// If it does not follow the last one, or is not durable; what is durable is then unknown.
    fn append(&mut self, decided: &Decided) -> Result<(), StoreError>;

    /// The block of this height, if it is there.
    ///
    /// # Errors
    ///
    /// If the store fails.
    fn read(&self, height: u64) -> Result<Option<Decided>, StoreError>;

    /// Height of the first block; 0 if there is none.
    ///
    /// # Errors
    ///
    /// If the store fails.
    fn first(&self) -> Result<u64, StoreError>;

    /// Deletes blocks below a height, the lowest first and at most some at a time. The last block stays.
    ///
    /// # Errors
    ///
    /// If the store fails; blocks that are left have no gap.
    fn prune(&mut self, below: u64) -> Result<(), StoreError>;

    /// Begins the chain anew with this block, which is above the last, and returns once that is durable. Blocks before it
    /// are deleted by and by.
    ///
    /// # Errors
    ///
    /// If it is not durable; after a start the chain is the old one or the new one.
    fn restart(&mut self, decided: &Decided) -> Result<(), StoreError>;

    /// Keeps a change of the committee for good, unless it is there already, and returns once it is durable.
    ///
    /// # Errors
    ///
    /// If it is not.
    fn keep_change(&mut self, change: &Change) -> Result<(), StoreError>;

    /// The first header above a height at which the committee changes, if there is one.
    ///
    /// # Errors
    ///
    /// If the store fails.
    fn change_after(&self, height: u64) -> Result<Option<(Header, CommitCertificate)>, StoreError>;

    /// Up to [`COMMITTEE_PART_BYTES`] bytes, from `offset` on, of the committee that the block of this height put in place;
    /// none if it is not there, or ends before.
    ///
    /// # Errors
    ///
    /// If the store fails.
    fn committee(&self, height: u64, offset: u32) -> Result<Vec<u8>, StoreError>;
}

/// Where a chain was begun anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct Start {
    /// Height of its first block.
    first: u64,
    /// Heights from which and up to which, exclusive, blocks of the chain before may be left.
    stale_from: u64,
    stale_end: u64,
}

/// Blocks in a [`Store`].
#[derive(Debug)]
pub struct StoredBlocks {
    store: Arc<Store>,
    /// INV: 0 if and only if `head` is.
    first: u64,
    head: u64,
    /// Blocks of a chain before this one that are still to be deleted.
    stale: Range<u64>,
}

fn key_of(prefix: u8, height: u64) -> Key {
    let mut bytes = vec![prefix];
    bytes.extend(height.to_be_bytes());
    Key::new(bytes).expect("nine bytes are a key")
}

fn key(height: u64) -> Key {
    key_of(PREFIX, height)
}

fn start_key() -> Key {
    Key::new(vec![START]).expect("one byte is a key")
}

fn height_of(key: &Key) -> Option<u64> {
    Some(u64::from_be_bytes(key.as_bytes().get(1..)?.try_into().ok()?))
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).expect("addresses are at most 64 bits")
}

const fn read_error(height: u64) -> impl Fn(ReadError) -> StoreError {
    move |source| StoreError::Read { height, source }
}

impl StoredBlocks {
    /// Finds the chain in a store.
    ///
    /// # Errors
    ///
    /// If the store fails, or holds heights that no chain has.
    pub fn new(store: Arc<Store>) -> Result<Self, StoreError> {
        let start = read_start(&store)?;
        let (first, stale) = match start {
            Some(start) if store.contains(&key(start.first)).map_err(read_error(start.first))? => {
                (start.first, start.stale_from..start.stale_end)
            }
            start => {
                if start.is_some() {
                    // The power failed before its block was there, or that block was deleted since. Should another of
                    // that height come, blocks before it would be taken for left over.
                    let write = Write::Delete { key: start_key() };
                    store.write(vec![write]).map_err(|source| StoreError::Write { height: 0, source })?;
                }
                let first = store.scan(&[PREFIX], None, 1).map_err(read_error(0))?;
                let Some(first) = first.first().and_then(|(key, _)| height_of(key)) else {
                    return Ok(Self { store, first: 0, head: 0, stale: 0..0 });
                };
                (first, 0..0)
            }
        };
        let has = |height| store.contains(&key(height)).map_err(read_error(height));
        // Blocks are there without gaps: double the distance until one is missing, then halve the gap.
        let (mut head, mut step) = (first, 1_u64);
        while let Some(next) = head.checked_add(step)
            && has(next)?
        {
            head = next;
            step = step.saturating_mul(2);
        }
        while step > 0 {
            if let Some(next) = head.checked_add(step)
                && has(next)?
            {
                head = next;
            }
            step /= 2;
        }
        // Heights begin at 1, and each has a next one.
        if first == 0 || head == u64::MAX {
            return Err(StoreError::NoChain { first });
        }
        Ok(Self { store, first, head, stale })
    }

    fn write(&self, height: u64, batch: Vec<Write>) -> Result<(), StoreError> {
        self.store.write(batch).map_err(|source| StoreError::Write { height, source })
    }
}

fn read_start(store: &Store) -> Result<Option<Start>, StoreError> {
    if !store.contains(&start_key()).map_err(read_error(0))? {
        return Ok(None);
    }
    let bytes = store.read_all(&start_key()).map_err(read_error(0))?;
    let start = codec::decode_exact::<Start, 64>(&bytes);
    let start = start.map_err(|source| StoreError::NoBlock { height: 0, source })?;
    // What is left over lies before the chain.
    if start.stale_from > start.stale_end || start.stale_end > start.first {
        return Err(StoreError::NoChain { first: start.first });
    }
    Ok(Some(start))
}

impl BlockStore for StoredBlocks {
    fn head(&self) -> Result<u64, StoreError> {
        Ok(self.head)
    }

    fn first(&self) -> Result<u64, StoreError> {
        Ok(self.first)
    }

    fn append(&mut self, decided: &Decided) -> Result<(), StoreError> {
        let height = decided.block.header().height;
        if self.head > 0 && height != self.head + 1 {
            return Err(StoreError::Gap { got: height, head: self.head });
        }
        let payload = Bytes::from(codec::encode(decided));
        self.write(height, vec![Write::Put { key: key(height), payload }])?;
        if self.head == 0 {
            self.first = height;
        }
        self.head = height;
        Ok(())
    }

    fn read(&self, height: u64) -> Result<Option<Decided>, StoreError> {
        // What is left of a chain before is not of this one.
        if !(self.first..=self.head).contains(&height) {
            return Ok(None);
        }
        let key = key(height);
        let failed = read_error(height);
        if !self.store.contains(&key).map_err(&failed)? {
            return Ok(None);
        }
        let bytes = self.store.read_all(&key).map_err(failed)?;
        let decided = codec::decode_exact::<Decided, DECODE_LIMIT>(&bytes)
            .map_err(|source| StoreError::NoBlock { height, source })?;
        Ok(Some(decided))
    }

    fn prune(&mut self, below: u64) -> Result<(), StoreError> {
        let stale = self.stale.clone();
        let gone: Vec<u64> = stale.chain(self.first..below.min(self.head)).take(PRUNED_MAX).collect();
        let Some(last) = gone.last().copied() else { return Ok(()) };
        let batch = gone.iter().map(|height| Write::Delete { key: key(*height) }).collect();
        self.write(last, batch)?;
        self.stale.start = self.stale.end.min(self.stale.start + to_u64(gone.len()));
        if last >= self.first {
            self.first = last + 1;
        }
        match self.store.compact(COMPACTED_BYTES) {
            // Without room for copies, deleting has given back what it could.
            Ok(_) | Err(WriteError::Full { .. }) => Ok(()),
            Err(source) => Err(StoreError::Write { height: last, source }),
        }
    }

    fn restart(&mut self, decided: &Decided) -> Result<(), StoreError> {
        let height = decided.block.header().height;
        if height <= self.head {
            return Err(StoreError::Gap { got: height, head: self.head });
        }
        let stale_from = if self.stale.is_empty() { self.first } else { self.stale.start };
        let stale_end = if self.head == 0 { stale_from } else { self.head + 1 };
        let start = Start { first: height, stale_from, stale_end };
        // In this order, and the first of them alone changes nothing.
        let batch = vec![
            Write::Put { key: start_key(), payload: Bytes::from(codec::encode(&start)) },
            Write::Put { key: key(height), payload: Bytes::from(codec::encode(decided)) },
        ];
        self.write(height, batch)?;
        (self.first, self.head, self.stale) = (height, height, stale_from..stale_end);
        Ok(())
    }

    fn keep_change(&mut self, change: &Change) -> Result<(), StoreError> {
        let height = change.header.height;
        let header = key_of(CHANGE, height);
        if self.store.contains(&header).map_err(read_error(height))? {
            return Ok(());
        }
        let payload = Bytes::from(codec::encode(&(&change.header, &change.certificate)));
        // The header last: where it is, the committee is.
        let batch = vec![
            Write::Put { key: key_of(COMMITTEE, height), payload: change.committee.clone().into() },
            Write::Put { key: header, payload },
        ];
        self.write(height, batch)
    }

    fn change_after(&self, height: u64) -> Result<Option<(Header, CommitCertificate)>, StoreError> {
        let found =
            self.store.scan(&[CHANGE], Some(&key_of(CHANGE, height)), 1).map_err(read_error(height))?;
        let Some((key, _)) = found.first() else { return Ok(None) };
        let bytes = self.store.read_all(key).map_err(read_error(height))?;
        let change = codec::decode_exact::<(Header, CommitCertificate), DECODE_LIMIT>(&bytes);
        change.map(Some).map_err(|source| StoreError::NoBlock { height, source })
    }

    fn committee(&self, height: u64, offset: u32) -> Result<Vec<u8>, StoreError> {
        let (key, offset) = (key_of(COMMITTEE, height), u64::from(offset));
        let Some(len) = self.store.len(&key).map_err(read_error(height))? else { return Ok(Vec::new()) };
        let end = len.min(offset + to_u64(COMMITTEE_PART_BYTES));
        if offset >= end {
            return Ok(Vec::new());
        }
        Ok(self.store.read(&key, offset..end).map_err(read_error(height))?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use storage::{Config, disk::SimulatedDisk, index::MemoryIndex};

    use super::*;

    /// What is found in a store of these blocks, or only of their names, with this start.
    fn opened(start: Option<(u64, u64, u64)>, heights: &[u64]) -> Result<(u64, u64), StoreError> {
        let config = Config { reserve_bytes: 0, ..Config::default() };
        let disk = Arc::new(SimulatedDisk::new(1));
        let (store, _) = Store::open(disk, Box::new(MemoryIndex::default()), config).unwrap();
        let put = |key, payload: Vec<u8>| Write::Put { key, payload: payload.into() };
        let mut batch: Vec<Write> = heights.iter().map(|height| put(key(*height), Vec::new())).collect();
        batch.extend(start.map(|start| put(start_key(), codec::encode(&start))));
        store.write(batch).unwrap();
        let mut blocks = StoredBlocks::new(Arc::new(store))?;
        let found = (blocks.first()?, blocks.head()?);
        blocks.prune(u64::MAX)?;
        Ok(found)
    }

    #[test]
    fn heights_that_no_chain_has_are_refused() {
        /// First height, and those that are left over; heights of blocks; first and last of the chain.
        type Case<'a> = (Option<(u64, u64, u64)>, &'a [u64], Option<(u64, u64)>);
        let cases: &[Case<'_>] = &[
            (None, &[], Some((0, 0))),
            (None, &[4, 5, 6], Some((4, 6))),
            (Some((9, 4, 7)), &[4, 5, 6, 9, 10], Some((9, 10))),
            (Some((9, 4, 9)), &[9], Some((9, 9))),
            (Some((9, 0, 0)), &[9], Some((9, 9))),
            (Some((9, 7, 4)), &[9], None),
            (Some((9, 4, 10)), &[9], None),
            (Some((2, u64::MAX, u64::MAX)), &[2], None),
            (Some((2, u64::MAX - 1, 2)), &[2], None),
            (None, &[0, 1], None),
            (None, &[u64::MAX - 1], Some((u64::MAX - 1, u64::MAX - 1))),
            (None, &[u64::MAX - 1, u64::MAX], None),
            (None, &[u64::MAX], None),
        ];
        for (start, heights, expected) in cases {
            match (opened(*start, heights), expected) {
                (Ok(found), Some(expected)) => assert_eq!(found, *expected, "{start:?} {heights:?}"),
                (Err(StoreError::NoChain { .. }), None) => {}
                (other, expected) => panic!("{start:?} {heights:?}: {other:?}, expected {expected:?}"),
            }
        }
    }
}
