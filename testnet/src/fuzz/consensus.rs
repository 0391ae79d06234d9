//! What a node remembers of consensus, on a disk that gives back anything.

use std::{io::IoSlice, sync::Arc};

use bytes::Bytes;
use node::ledger::{
    SnapshotError, Snapshots,
    consensus::{BlockStore, FileWal, StoredBlocks, Wal, WalError},
};
use protocol::{
    codec,
    hash::Hash,
    ledger::{
        state::{State, key as entry_key},
        vote::VoteKind,
        wire::COMMITTEE_PART_BYTES,
    },
};
use storage::{
    Config, Key, Store, Write,
    disk::{Disk, SimulatedDisk},
    index::MemoryIndex,
};

use super::{
    Seed, Target,
    fixture::{SMALL_WORLD, WORLD, key},
    input::{Input, part},
    is_canonical, wire,
};

/// What lengths inside a page of a snapshot may claim: four times its bytes.
const SNAPSHOT_PAGE_LIMIT: usize = 64 << 20;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "wal_record",
        bytes_max: 16 << 10,
        memory_max: 1 << 20,
        run: wal_record,
        seeds: wal_records,
    },
    Target { name: "wal", bytes_max: 2 << 10, memory_max: 4 << 20, run: wal, seeds: wals },
    Target {
        name: "stored_blocks",
        bytes_max: 16 << 10,
        memory_max: 2 << 20,
        run: stored_blocks,
        seeds: chains,
    },
    Target {
        name: "snapshot",
        bytes_max: 16 << 10,
        memory_max: SNAPSHOT_PAGE_LIMIT + (8 << 20),
        run: snapshot,
        seeds: snapshots,
    },
];

/// Behind a height that the record is read for.
fn wal_record(bytes: &[u8]) -> bool {
    is_canonical(bytes, node::fuzz::wal_record(bytes, 2))
}

/// A log of votes to which records are added, on a disk that changes bytes and loses some: what is read back is what was
/// written, as far as it goes, or an error.
fn wal(bytes: &[u8]) -> bool {
    const FILE: &str = "votes.wal";
    let mut input = Input::new(bytes);
    let disk = SimulatedDisk::new(1);
    let Ok(mut log) = FileWal::new(&disk) else { return false };
    let (mut height, mut written, mut pending) = (1, Vec::<Vec<u8>>::new(), Vec::new());
    if log.open(height).is_err() {
        return false;
    }
    let mut is_damaged = false;
    while !input.is_empty() {
        match input.u8() % 6 {
            0 => {
                let record = input.part().to_vec();
                if log.append(&record).is_ok() {
                    pending.push(record);
                }
            }
            1 => {
                log.flush().expect("a simulated disk takes what is written");
                written.append(&mut pending);
            }
            2 => {
                let (at, changed) = (u64::from(input.u16()), input.part());
                // What lies behind the log is nobody's.
                let file = disk.open(FILE).expect("the log is there");
                file.write_at(at, &[IoSlice::new(changed)]).expect("a simulated disk takes what is written");
                is_damaged |= !changed.is_empty();
            }
            3 => {
                let file = disk.open(FILE).expect("the log is there");
                let len = file.len().expect("a simulated disk tells") * u64::from(input.u8()) / 256;
                file.truncate(len).expect("a simulated disk takes what is written");
                is_damaged = true;
            }
            4 => {
                height += u64::from(input.u8() % 2);
                log.reset(height).expect("a simulated disk takes what is written");
                written.clear();
                pending.clear();
                is_damaged = false;
            }
            _ => {
                pending.clear();
                log = FileWal::new(&disk).expect("the log is there");
                match log.open(height) {
                    Ok(read) => {
                        assert!(
                            written.starts_with(&read),
                            "records that nobody wrote: {read:?} of {written:?}"
                        );
                        assert!(is_damaged || read == written, "records are gone that were durable");
                        written = read;
                    }
                    Err(WalError::Damaged { .. }) => {
                        assert!(is_damaged, "damage where there is none");
                        return true;
                    }
                    Err(error) => panic!("the disk does not fail: {error}"),
                }
            }
        }
    }
    !written.is_empty()
}

/// A store of records that are whole and say anything, as blocks.
fn stored_blocks(bytes: &[u8]) -> bool {
    let config = Config { reserve_bytes: 0, ..Config::default() };
    let disk = Arc::new(SimulatedDisk::new(1));
    let (store, _) =
        Store::open(disk, Box::new(MemoryIndex::default()), config).expect("an empty disk is a store");
    let store = Arc::new(store);
    let mut input = Input::new(bytes);
    let mut batch = Vec::new();
    while !input.is_empty() && batch.len() < 32 {
        let name_bytes = usize::from(input.u8() % 12);
        let name = Key::new(input.bytes(name_bytes).to_vec()).expect("a short name");
        batch.push(Write::Put { key: name, payload: Bytes::copy_from_slice(input.part()) });
    }
    store.write(batch).expect("a simulated disk takes what is written");
    let Ok(mut blocks) = StoredBlocks::new(store) else { return false };
    let (Ok(first), Ok(head)) = (blocks.first(), blocks.head()) else { return false };
    let mut n_read = 0;
    for height in [0, first, first.saturating_add(1), head, head.saturating_add(1), u64::MAX] {
        n_read += u32::from(blocks.read(height).is_ok_and(|block| block.is_some()));
        let _ = blocks.change_after(height);
        for offset in [0, 1, u32::MAX] {
            let part = blocks.committee(height, offset).unwrap_or_default();
            assert!(part.len() <= COMMITTEE_PART_BYTES);
        }
    }
    let _ = blocks.prune(head);
    for decided in &WORLD.blocks {
        let _ = blocks.append(decided);
    }
    let _ = blocks.restart(&WORLD.blocks[2]);
    n_read > 0
}

/// A file that says it is a snapshot. Its root is taken for the one that is required, and its entries for a state.
fn snapshot(bytes: &[u8]) -> bool {
    const HEIGHT: u64 = 3;
    let disk = SimulatedDisk::new(1);
    let put = storage::fuzz::put_file(&disk, &format!("state-{HEIGHT:020}.snapshot"), bytes);
    put.expect("a simulated disk takes what is written");
    let snapshots = Snapshots::new(Arc::new(disk));
    assert_eq!(snapshots.heights().expect("a simulated disk tells"), [HEIGHT]);
    let root = match snapshots.read(HEIGHT, Hash::default()) {
        Ok(tree) => tree.root(),
        Err(SnapshotError::Root { got, .. }) => got,
        Err(SnapshotError::Io { .. } | SnapshotError::Malformed { .. }) => return false,
    };
    let tree = snapshots.read(HEIGHT, root).expect("read once, a file is read again");
    let _ = tree.get(&entry_key::head());
    let _ = State::open(tree);
    true
}

fn wal_records() -> Vec<Seed> {
    // The kinds of record and their numbers are those of `Record`, of which the order does not change.
    let record = |kind: u32, fields: Vec<u8>| [&kind.to_le_bytes()[..], &fields].concat();
    let (block, proposer) = (&WORLD.blocks[1].block, key(1).peer());
    let value = |body| codec::encode(&(1_u32, Some(0_u32), proposer, block.id(), true, body));
    vec![
        ("vote", record(0, codec::encode(&wire::votes()[0]))),
        ("proposal", record(1, codec::encode(&wire::proposal()))),
        ("value", record(2, value(Some(Arc::clone(block))))),
        ("value-again", record(2, value(None))),
        ("polka", record(3, codec::encode(&wire::polka()))),
        ("elapsed", record(4, codec::encode(&(1_u32, 3_u32)))),
    ]
}

fn wals() -> Vec<Seed> {
    let append = |record: &[u8]| [&[0][..], &part(record)].concat();
    let change = |at: u16, bytes: &[u8]| [&[2][..], &at.to_le_bytes(), &part(bytes)].concat();
    let vote = codec::encode(&(VoteKind::Prevote, 7_u64));
    let two = [append(&vote), append(b"second"), vec![1], append(b"third"), vec![1]].concat();
    vec![
        ("reopened", [two.clone(), vec![5]].concat()),
        ("torn", [two.clone(), vec![3, 200, 5]].concat()),
        ("damaged", [two.clone(), change(50, &[0xff]), vec![5]].concat()),
        ("next-height", [two, vec![4, 1], append(b"of the next"), vec![1, 5]].concat()),
    ]
}

fn chains() -> Vec<Seed> {
    let name = |kind: u8, height: u64| [&[9, kind][..], &height.to_be_bytes()].concat();
    let block = |at: usize| {
        let decided = &WORLD.blocks[at];
        [name(b'b', decided.block.header().height), part(&codec::encode(decided))].concat()
    };
    let change = &WORLD.blocks[2];
    let header = codec::encode(&(change.block.header(), &change.certificate));
    let changes = [name(b'c', 3), part(&header), name(b'd', 3), part(&codec::encode(&WORLD.next))].concat();
    let start = [vec![1, b's'], part(&codec::encode(&(2_u64, 1_u64, 2_u64)))].concat();
    vec![
        ("blocks", [block(0), block(1), block(2)].concat()),
        ("change", [block(2), changes].concat()),
        ("started-anew", [start, block(1), block(2)].concat()),
    ]
}

fn snapshots() -> Vec<Seed> {
    let file = |state: &State| {
        let disk = SimulatedDisk::new(1);
        let written = Snapshots::new(Arc::new(disk.clone())).write(3, state.tree());
        written.expect("a simulated disk takes what is written");
        let file = disk.open("state-00000000000000000003.snapshot").expect("it is there");
        let len = file.len().ok().and_then(|len| usize::try_from(len).ok()).expect("a short file");
        let mut bytes = vec![0; len];
        file.read_at(0, &mut bytes).expect("it is whole");
        bytes
    };
    vec![("genesis", file(&SMALL_WORLD.before)), ("blocks", file(&SMALL_WORLD.state))]
}
