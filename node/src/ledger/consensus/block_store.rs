//! Where decided blocks are kept: record after record in the storage crate's log files, each with its certificate.

use std::{io, sync::Arc};

use bytes::Bytes;
use protocol::{
    codec,
    ledger::{
        block::{BLOCK_BYTES_MAX, Decided},
        commit::COMMIT_BYTES_MAX,
    },
};
use storage::{Key, ReadError, Store, Write, WriteError};

/// Begins the keys of blocks.
const PREFIX: u8 = b'b';
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

/// The chain on disk: the blocks of consecutive heights.
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
}

/// Blocks in a [`Store`].
#[derive(Debug)]
pub struct StoredBlocks {
    store: Arc<Store>,
    head: u64,
}

fn key(height: u64) -> Key {
    let mut bytes = vec![PREFIX];
    bytes.extend(height.to_be_bytes());
    Key::new(bytes).expect("nine bytes are a key")
}

impl StoredBlocks {
    /// Finds the chain in a store.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn new(store: Arc<Store>) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Read { height: 0, source };
        let first = store.scan(&[PREFIX], None, 1).map_err(failed)?;
        let first = first.first().and_then(|(key, _)| {
            let bytes = key.as_bytes().get(1..)?;
            Some(u64::from_be_bytes(bytes.try_into().ok()?))
        });
        let Some(first) = first else { return Ok(Self { store, head: 0 }) };
        let has = |height| store.contains(&key(height)).map_err(|source| StoreError::Read { height, source });
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
        Ok(Self { store, head })
    }
}

impl BlockStore for StoredBlocks {
    fn head(&self) -> Result<u64, StoreError> {
        Ok(self.head)
    }

    fn append(&mut self, decided: &Decided) -> Result<(), StoreError> {
        let height = decided.block.header().height;
        if self.head > 0 && height != self.head + 1 {
            return Err(StoreError::Gap { got: height, head: self.head });
        }
        let payload = Bytes::from(codec::encode(decided));
        let write = Write::Put { key: key(height), payload };
        self.store.write(vec![write]).map_err(|source| StoreError::Write { height, source })?;
        self.head = height;
        Ok(())
    }

    fn read(&self, height: u64) -> Result<Option<Decided>, StoreError> {
        let key = key(height);
        let failed = |source| StoreError::Read { height, source };
        if !self.store.contains(&key).map_err(failed)? {
            return Ok(None);
        }
        let bytes = self.store.read_all(&key).map_err(failed)?;
        let decided = codec::decode_exact::<Decided, DECODE_LIMIT>(&bytes)
            .map_err(|source| StoreError::NoBlock { height, source })?;
        Ok(Some(decided))
    }
}
