//! The log of votes and the chain on a disk that dies, forgets and flips bits.

use std::sync::Arc;

use node::ledger::consensus::{BlockStore as _, FileWal, StoreError, StoredBlocks, Wal as _, WalError};
use protocol::{
    hash::Hash,
    ledger::{
        block::{Block, Decided, Draft, Tip},
        commit::CommitCertificate,
    },
};
use storage::{Store, disk::SimulatedDisk, index::MemoryIndex};

use super::{toy::committees_of, world::NETWORK};

/// What is logged, batch by batch, for two heights.
const BATCHES: [(u64, &[&[u8]]); 5] = [
    (1, &[b"first"]),
    (1, &[b"second", b"third, which is longer"]),
    (1, &[b""]),
    (2, &[b"fourth"]),
    (2, &[b"fifth", b"sixth"]),
];

/// Logs batch after batch until the disk dies. Returns how many were flushed, and whether all went well.
fn log(disk: &SimulatedDisk) -> (usize, bool) {
    let mut n_flushed = 0;
    let mut all = || -> Result<(), WalError> {
        let mut wal = FileWal::new(disk)?;
        assert!(wal.open(1)?.is_empty());
        let mut height = 1;
        for (of, records) in BATCHES {
            if of != height {
                wal.reset(of)?;
                height = of;
            }
            for record in records {
                wal.append(record)?;
            }
            wal.flush()?;
            n_flushed += 1;
        }
        Ok(())
    };
    let went_well = all().is_ok();
    (n_flushed, went_well)
}

fn records_of(height: u64, n_batches: usize) -> Vec<Vec<u8>> {
    let of_height = BATCHES[..n_batches].iter().filter(|(of, _)| *of == height);
    of_height.flat_map(|(_, records)| records.iter().map(|it| it.to_vec())).collect()
}

#[test]
fn whatever_dies_when_flushed_records_are_there_and_nothing_else() {
    for seed in 0..200 {
        for n in 0.. {
            let disk = SimulatedDisk::new(seed);
            disk.fail_after(n);
            let (n_flushed, went_well) = log(&disk);
            let disk = disk.crash();
            // The height that the node is at after the restart. Once the second is begun, the first has been decided.
            let height = if n_flushed < 3 { 1 } else { 2 };
            let (least, most) = (records_of(height, n_flushed), records_of(height, BATCHES.len()));
            for height in [height, 3] {
                let disk = disk.fork();
                let mut wal = FileWal::new(&disk).unwrap();
                let found = wal.open(height).unwrap();
                let is_it = found.starts_with(&least) && most.starts_with(&found);
                assert!(
                    if height == 3 { found.is_empty() } else { is_it },
                    "seed {seed}, {n} operations: {found:?}"
                );
                // What comes next is found behind what was there.
                wal.append(b"next").unwrap();
                wal.flush().unwrap();
                let mut again = FileWal::new(&disk).unwrap().open(height).unwrap();
                assert_eq!(again.pop().as_deref(), Some(&b"next"[..]));
                assert_eq!(again, found);
            }
            if went_well {
                break;
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_what_was_synced_is_damage() {
    let disk = SimulatedDisk::new(1);
    let mut wal = FileWal::new(&disk).unwrap();
    wal.open(7).unwrap();
    for record in [b"one", b"two"] {
        wal.append(record).unwrap();
        wal.flush().unwrap();
    }
    let (record_bytes, mark_bytes) = (43, 40);
    for offset in 0..2 * record_bytes + mark_bytes {
        let disk = disk.fork();
        assert!(disk.flip("votes.wal", offset, 4));
        let found = FileWal::new(&disk).unwrap().open(7);
        if offset < 2 * record_bytes {
            // The second record proves that the first was there, and the mark that the second was.
            let start = offset / record_bytes * record_bytes;
            let is_damaged = matches!(found, Err(WalError::Damaged { height: 7, offset }) if offset == start);
            assert!(is_damaged, "{offset}: {found:?}");
        } else {
            assert_eq!(found.unwrap(), [b"one", b"two"], "{offset}");
        }
    }
    assert!(!disk.flip("votes.wal", 2 * record_bytes + mark_bytes, 1), "the file is longer than it seems");
    // A start renews the mark.
    let disk = disk.kill();
    assert_eq!(FileWal::new(&disk).unwrap().open(7).unwrap(), [b"one", b"two"]);
    assert!(disk.flip("votes.wal", 2 * record_bytes - 1, 4));
    let found = FileWal::new(&disk).unwrap().open(7);
    assert!(matches!(found, Err(WalError::Damaged { height: 7, .. })), "{found:?}");
}

#[test]
fn a_log_that_is_ahead_of_the_blocks_is_not_forgotten() {
    let disk = SimulatedDisk::new(1);
    let mut wal = FileWal::new(&disk).unwrap();
    wal.reset(9).unwrap();
    wal.append(b"vote").unwrap();
    wal.flush().unwrap();
    for height in [1, 8] {
        let error = FileWal::new(&disk).unwrap().open(height).unwrap_err();
        assert!(matches!(error, WalError::Ahead { got: 9, .. }), "{error}");
    }
    assert_eq!(FileWal::new(&disk).unwrap().open(9).unwrap(), [b"vote"]);
    assert!(FileWal::new(&disk).unwrap().open(10).unwrap().is_empty());
}

fn block(height: u64) -> Decided {
    let committee = Arc::clone(&committees_of(4)[0]);
    let mut tip = Tip::genesis(NETWORK, committee);
    tip.height = height - 1;
    let draft = Draft {
        tip,
        time_ms: height,
        last_commit: None,
        transactions: vec![height.to_le_bytes().to_vec()],
        state_root: Hash::default(),
        next_committee: None,
    };
    let block = Arc::new(Block::build(draft).unwrap());
    let certificate = CommitCertificate::new(height, 0, block.id(), []).unwrap();
    Decided { block, certificate }
}

fn open(disk: &SimulatedDisk) -> StoredBlocks {
    let config = storage::Config { reserve_bytes: 0, ..storage::Config::default() };
    let (store, _) = Store::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), config).unwrap();
    StoredBlocks::new(Arc::new(store)).unwrap()
}

#[test]
fn the_head_is_found_again_at_any_length() {
    for first in [1, 1_000] {
        let mut disk = SimulatedDisk::new(2);
        assert_eq!(open(&disk).head().unwrap(), 0);
        for height in first..first + 40 {
            open(&disk).append(&block(height)).unwrap();
            disk = disk.crash();
            let blocks = open(&disk);
            assert_eq!(blocks.head().unwrap(), height);
            assert_eq!(blocks.read(first).unwrap(), Some(block(first)));
            assert_eq!(blocks.read(height).unwrap(), Some(block(height)));
            assert_eq!(blocks.read(height + 1).unwrap(), None);
            disk = disk.kill();
        }
    }
}

#[test]
fn blocks_leave_no_gap() {
    let mut blocks = open(&SimulatedDisk::new(3));
    blocks.append(&block(5)).unwrap();
    for got in [4, 5, 7] {
        assert!(matches!(blocks.append(&block(got)), Err(StoreError::Gap { head: 5, .. })));
    }
    blocks.append(&block(6)).unwrap();
}
