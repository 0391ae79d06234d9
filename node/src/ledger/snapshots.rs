//! The state on disk, now and then: where a node starts from, so as not to execute every block again.
//!
//! ```text
//! state-<height>.snapshot = magic [8] | page | page | ... | 0 u32      page = length u32 | entries      (little-endian)
//! ```
//!
//! Nothing in a file is believed: its entries make a tree, and the root of that tree must be the one that the block of its
//! height commits to. So a torn write, a flipped bit and somebody else's file are one case: the next older file is taken, or
//! the genesis.
//!
//! # Invariants
//!
//! - A file is removed only after a newer one is durable, names included.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use protocol::{
    codec,
    hash::Hash,
    ledger::tree::{Entry, KEY_BYTES_MAX, Tree, VALUE_BYTES_MAX},
};
use storage::disk::{Disk, DiskFile};

const PREFIX: &str = "state-";
const SUFFIX: &str = ".snapshot";
const MAGIC: &[u8; 8] = b"FLOESNP1";
/// Bytes of entries at which a page ends: what is written or read at once.
const PAGE_BYTES_AIM: usize = 1 << 20;
/// Most bytes of a page: the aim, one entry more, and the lengths of the smallest entries.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// Limit for decoding a page: small entries take a few times their bytes in memory.
const PAGE_LIMIT: usize = 4 * PAGE_BYTES_MAX;
/// Files kept: one more than is needed, in case the newest rots.
const FILES_MAX: usize = 2;

/// Why a snapshot is of no use. The disk is at fault, or whoever put the file there.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk failed, or the file ends too early.
    #[error("the snapshot of height {height} cannot be read")]
    Io {
        /// Its height.
        height: u64,
        /// What the disk says.
        #[source]
        source: io::Error,
    },
    /// The file is not a snapshot.
    #[error("the snapshot of height {height} is malformed at byte {offset}")]
    Malformed {
        /// Its height.
        height: u64,
        /// Where.
        offset: u64,
    },
    /// It is of another state.
    #[error("the snapshot of height {height} has root {got:?}, its block says {required:?}")]
    Root {
        /// Its height.
        height: u64,
        /// Root of its entries.
        got: Hash,
        /// Root that the block commits to.
        required: Hash,
    },
}

/// The snapshots in a directory, beside other files.
#[derive(Clone, Debug)]
pub struct Snapshots {
    disk: Arc<dyn Disk>,
}

fn name(height: u64) -> String {
    format!("{PREFIX}{height:020}{SUFFIX}")
}

fn height_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let height = digits.parse().ok()?;
    // One name for each height, so that a file that is removed by its height is the one that was found.
    (self::name(height) == name).then_some(height)
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).expect("addresses are at most 64 bits")
}

impl Snapshots {
    /// The snapshots in this directory.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk }
    }

    /// Heights of all files, newest first.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn heights(&self) -> io::Result<Vec<u64>> {
        let mut heights: Vec<u64> = self.disk.list()?.iter().filter_map(|name| height_of(name)).collect();
        heights.sort_unstable();
        heights.reverse();
        Ok(heights)
    }

    /// Writes the state of a height, and returns once it is durable. Older ones are then removed.
    ///
    /// # Errors
    ///
    /// The disk's. After one other than for want of room, what is durable is unknown; after one for want of room the file
    /// is gone again, and older ones are still there.
    pub fn write(&self, height: u64, tree: &Tree) -> io::Result<()> {
        let name = name(height);
        let file = match self.disk.create(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // From before a crash, whole or not. Written over in place it would be neither for a while.
                self.disk.remove(&name)?;
                self.disk.create(&name)?
            }
            file => file?,
        };
        if let Err(error) = fill(&*file, tree) {
            // It is not durable, and never taken for whole: this only gives its room back.
            let _ = self.disk.remove(&name);
            return Err(error);
        }
        self.disk.sync_dir()?;
        for height in self.heights()?.into_iter().filter(|other| *other <= height).skip(FILES_MAX) {
            self.disk.remove(&self::name(height))?;
        }
        Ok(())
    }

    /// Reads the state of a height, if its root is the one required.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`].
    pub fn read(&self, height: u64, required: Hash) -> Result<Tree, SnapshotError> {
        let io = |source| SnapshotError::Io { height, source };
        let file = self.disk.open(&name(height)).map_err(io)?;
        let mut offset = 0;
        let mut take = |len: usize| {
            let mut bytes = vec![0; len];
            file.read_at(offset, &mut bytes).map_err(io)?;
            offset += to_u64(len);
            Ok((bytes, offset))
        };
        let (magic, at) = take(MAGIC.len())?;
        if magic != MAGIC {
            return Err(SnapshotError::Malformed { height, offset: at });
        }
        let mut tree = Tree::default();
        loop {
            let (len, at) = take(4)?;
            let malformed = || SnapshotError::Malformed { height, offset: at };
            let len = <[u8; 4]>::try_from(len).map_err(|_| malformed())?;
            let len = usize::try_from(u32::from_le_bytes(len)).map_err(|_| malformed())?;
            if len == 0 {
                break;
            }
            if len > PAGE_BYTES_MAX {
                return Err(malformed());
            }
            let (page, _) = take(len)?;
            let page = codec::decode_exact::<Vec<Entry>, PAGE_LIMIT>(&page).map_err(|_| malformed())?;
            for Entry { key, value } in page {
                if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
                    return Err(malformed());
                }
                tree.insert(&key, &value);
            }
        }
        let got = tree.root();
        if got == required { Ok(tree) } else { Err(SnapshotError::Root { height, got, required }) }
    }
}

/// Writes a whole file and syncs it.
fn fill(file: &dyn DiskFile, tree: &Tree) -> io::Result<()> {
    let mut offset = 0;
    let mut put = |bytes: &[u8]| {
        file.write_at(offset, &[IoSlice::new(bytes)])?;
        offset += to_u64(bytes.len());
        io::Result::Ok(())
    };
    put(MAGIC)?;
    let (mut page, mut page_bytes): (Vec<Entry>, usize) = (Vec::new(), 0);
    let mut end = |page: &mut Vec<Entry>| {
        let bytes = codec::encode(&std::mem::take(page));
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        put(&[&len.to_le_bytes()[..], &bytes].concat())
    };
    for (key, value) in tree.entries() {
        page_bytes += key.len() + value.len();
        page.push(Entry { key: key.to_vec(), value: value.to_vec() });
        if page_bytes >= PAGE_BYTES_AIM {
            end(&mut page)?;
            page_bytes = 0;
        }
    }
    if !page.is_empty() {
        end(&mut page)?;
    }
    put(&0_u32.to_le_bytes())?;
    file.sync()
}

#[cfg(test)]
mod tests {
    use storage::disk::SimulatedDisk;

    use super::*;

    fn tree(n: u32) -> Tree {
        let mut tree = Tree::default();
        for i in 0..n {
            tree.insert(&i.to_be_bytes(), &vec![7; usize::try_from(i).unwrap()]);
        }
        tree
    }

    fn snapshots(disk: &SimulatedDisk) -> Snapshots {
        Snapshots::new(Arc::new(disk.clone()))
    }

    #[test]
    fn what_is_written_is_read_and_the_two_newest_are_kept() {
        let disk = SimulatedDisk::new(1);
        let it = snapshots(&disk);
        disk.create("votes.wal").unwrap();
        // The largest has several pages.
        for (height, n) in [(3, 0), (7, 10), (9, 2_000), (12, 5)] {
            it.write(height, &tree(n)).unwrap();
            assert_eq!(it.read(height, tree(n).root()).unwrap().root(), tree(n).root());
        }
        assert_eq!(it.heights().unwrap(), [12, 9]);
        it.write(12, &tree(6)).unwrap();
        assert_eq!(it.read(12, tree(6).root()).unwrap().root(), tree(6).root());
        assert!(matches!(it.read(12, tree(5).root()), Err(SnapshotError::Root { .. })));
        assert!(matches!(it.read(7, tree(10).root()), Err(SnapshotError::Io { .. })));
        assert!(disk.list().unwrap().contains(&"votes.wal".to_owned()));
    }

    #[test]
    fn a_crash_at_any_write_leaves_a_sound_snapshot() {
        for seed in 0..8 {
            for n in 0.. {
                let disk = SimulatedDisk::new(seed);
                snapshots(&disk).write(1, &tree(20)).unwrap();
                snapshots(&disk).write(2, &tree(30)).unwrap();
                disk.fail_after(n);
                let written = snapshots(&disk).write(3, &tree(40));
                let it = snapshots(&disk.crash());
                let sizes = [(1, 20), (2, 30), (3, 40)];
                let sound: Vec<u64> = sizes
                    .into_iter()
                    .filter(|(height, n)| it.read(*height, tree(*n).root()).is_ok())
                    .map(|(height, _)| height)
                    .collect();
                assert!(sound.contains(&2), "seed {seed}, operation {n}: {sound:?}");
                if written.is_ok() {
                    assert!(sound.contains(&3), "seed {seed}, operation {n}: {sound:?}");
                    break;
                }
            }
        }
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let disk = SimulatedDisk::new(1);
        let it = snapshots(&disk);
        it.write(5, &tree(6)).unwrap();
        let len = disk.open(&name(5)).unwrap().len().unwrap();
        for offset in 0..len {
            assert!(disk.flip(&name(5), offset, 1 << (offset % 8)));
            assert!(it.read(5, tree(6).root()).is_err(), "byte {offset}");
            assert!(disk.flip(&name(5), offset, 1 << (offset % 8)));
        }
        assert!(it.read(5, tree(6).root()).is_ok());
    }
}
