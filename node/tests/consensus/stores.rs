//! The log of votes and the chain on a disk that dies, forgets and flips bits.

use std::sync::Arc;

use node::ledger::consensus::{
    BlockStore as _, Change, FileWal, StoreError, StoredBlocks, Wal as _, WalError,
};
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

#[test]
fn blocks_are_deleted_from_below_whatever_dies() {
    for seed in 0..4 {
        for n in 0.. {
            let mut disk = SimulatedDisk::new(seed);
            let mut blocks = open(&disk);
            for height in 3..30 {
                blocks.append(&block(height)).unwrap();
            }
            drop(blocks);
            disk = disk.crash();
            let mut blocks = open(&disk);
            disk.fail_after(n);
            let pruned = blocks.prune(20);
            let is_over = pruned.is_ok() && !disk.is_dead();
            drop(blocks);
            let mut blocks = open(&disk.crash());
            let first = blocks.first().unwrap();
            assert!((3..=20).contains(&first) && (!is_over || first == 20), "{first}");
            assert_eq!(blocks.head().unwrap(), 29);
            for height in 1..=30 {
                let is_there = (first..30).contains(&height);
                assert_eq!(blocks.read(height).unwrap(), is_there.then(|| block(height)));
            }
            blocks.append(&block(30)).unwrap();
            blocks.prune(1_000).unwrap();
            assert_eq!((blocks.first().unwrap(), blocks.head().unwrap()), (30, 30), "the last one stays");
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn a_chain_is_begun_anew_or_not_whatever_dies() {
    for seed in 0..4 {
        for first in [0, 7] {
            for n in 0.. {
                let mut disk = SimulatedDisk::new(seed);
                let mut blocks = open(&disk);
                for height in (first..first + 8).filter(|_| first > 0) {
                    blocks.append(&block(height)).unwrap();
                }
                drop(blocks);
                disk = disk.crash();
                let mut blocks = open(&disk);
                let old = (blocks.first().unwrap(), blocks.head().unwrap());
                disk.fail_after(n);
                let begun = blocks.restart(&block(100));
                let is_over = begun.is_ok() && !disk.is_dead();
                drop(blocks);
                disk = disk.crash();
                let mut blocks = open(&disk);
                let now = (blocks.first().unwrap(), blocks.head().unwrap());
                assert!(now == (100, 100) || (now == old && !is_over), "seed {seed}, operation {n}: {now:?}");
                // Goes on from either; a chain that was begun in vain does not count later.
                let (from, to) = if now.1 == 100 { (101, 110) } else { (now.1 + 1, 110) };
                for height in if now.1 == 0 { 95 } else { from }..to {
                    blocks.append(&block(height)).unwrap();
                }
                drop(blocks);
                disk = disk.crash();
                let mut blocks = open(&disk);
                let lowest = if now.1 == 0 { 95 } else { now.0 };
                assert_eq!((blocks.first().unwrap(), blocks.head().unwrap()), (lowest, 109));
                blocks.prune(104).unwrap();
                drop(blocks);
                let blocks = open(&disk);
                assert_eq!((blocks.first().unwrap(), blocks.head().unwrap()), (104, 109));
                if is_over {
                    break;
                }
            }
        }
    }
}

#[test]
fn changes_of_the_committee_outlive_blocks() {
    let mut blocks = open(&SimulatedDisk::new(4));
    assert_eq!(blocks.change_after(0).unwrap(), None);
    let change = |height| {
        let Decided { block, certificate } = block(height);
        Change { header: block.header().clone(), certificate, committee: vec![9; 200 << 10] }
    };
    for height in [3, 5] {
        blocks.keep_change(&change(height)).unwrap();
        blocks.keep_change(&change(height)).unwrap();
    }
    blocks.restart(&block(50)).unwrap();
    blocks.prune(1_000).unwrap();
    let heights: Vec<u64> = [0, 3, 4, 5]
        .iter()
        .filter_map(|after| blocks.change_after(*after).unwrap())
        .map(|(header, _)| header.height)
        .collect();
    assert_eq!(heights, [3, 5, 5]);
    let parts: Vec<usize> = [0, 192 << 10, 200 << 10, u32::MAX]
        .iter()
        .map(|at| blocks.committee(5, *at).unwrap().len())
        .collect();
    assert_eq!(parts, [192 << 10, 8 << 10, 0, 0]);
    assert!(blocks.committee(4, 0).unwrap().is_empty());
}
