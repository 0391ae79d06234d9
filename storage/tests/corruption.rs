//! Damage after the fact: flipped bytes, destroyed sectors, lost and foreign files.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::sync::Arc;

use harness::{Contents, Machine, apply, index::LaggingIndex, key, open};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use storage::{
    OpenError, ReadError, Rebuild, Store, Write,
    disk::{Disk, RealDisk, SimulatedDisk},
    index::{MemoryIndex, SledIndex},
};

/// A store of small records with overwrites, deletes, several logs and compaction, closed in order.
fn small_store(with_index: bool) -> (Machine, Contents) {
    let machine = Machine { disk: SimulatedDisk::new(1), index: with_index.then(|| LaggingIndex::new(1)) };
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut model = Contents::new();
    let config = storage::Config { log_bytes: 4 << 10, ..harness::CONFIG };
    let index: Box<dyn storage::index::Index> = match &machine.index {
        Some(index) => Box::new(index.clone()),
        None => Box::new(MemoryIndex::default()),
    };
    let (store, _) = Store::open(Arc::new(machine.disk.clone()), index, config).unwrap();
    for i in 0..60 {
        if i == 30 {
            assert!(store.compact(u64::MAX).unwrap().removed_logs > 0);
        }
        let payload = (0..rng.random_range(0..200)).map(|_| rng.random()).collect::<Vec<u8>>().into();
        // The first keys are written once and keep their log files alive.
        let key = key(if i < 8 { i } else { 3 + i % 5 });
        let change = if i % 4 == 3 { Write::Delete { key } } else { Write::Put { key, payload } };
        apply(&mut model, &change);
        store.write(vec![change]).unwrap();
    }
    assert!(store.stats().unwrap().n_logs > 3);
    drop(store);
    (machine, model)
}

/// Whether the store answers with what was stored or an error, and with an error for at most `n_errors_max` keys.
fn check_answers(store: &Store, model: &Contents, n_errors_max: usize) -> Result<(), String> {
    let mut n_errors = 0;
    for i in 0..8 {
        let key = key(i);
        match (store.read_all(&key), model.get(&key)) {
            (Ok(found), Some(stored)) if found == *stored => {}
            (Err(ReadError::NotFound), None) => {}
            (Err(ReadError::Corrupt { .. }), Some(_)) => n_errors += 1,
            (found, stored) => return Err(format!("{key:?}: {found:?} instead of {stored:?}")),
        }
    }
    if n_errors <= n_errors_max { Ok(()) } else { Err(format!("{n_errors} unreadable")) }
}

#[test]
fn a_flipped_byte_anywhere_is_never_an_answer_and_costs_one_record_at_most() {
    let mut n_flips = 0;
    for with_index in [false, true] {
        let (machine, model) = small_store(with_index);
        for name in machine.disk.list().unwrap() {
            let len = machine.disk.open(&name).unwrap().len().unwrap();
            for at in 0..len {
                let index = machine.index.as_ref().map(LaggingIndex::fork);
                let damaged = Machine { disk: machine.disk.fork(), index };
                assert!(damaged.disk.flip(&name, at, 1 << (at % 8)));
                let (store, _) = open(&damaged).unwrap_or_else(|error| panic!("{name} {at}: {error}"));
                check_answers(&store, &model, 1).unwrap_or_else(|error| panic!("{name} {at}: {error}"));
                n_flips += 1;
            }
        }
    }
    println!("{n_flips} flips");
    assert!(n_flips > 10_000);
}

#[test]
fn a_byte_flipped_under_an_open_store_is_never_an_answer() {
    let (machine, model) = small_store(false);
    let (store, _) = open(&machine).unwrap();
    for name in machine.disk.list().unwrap() {
        let len = machine.disk.open(&name).unwrap().len().unwrap();
        for at in 0..len {
            machine.disk.flip(&name, at, 0x10);
            check_answers(&store, &model, 1).unwrap_or_else(|error| panic!("{name} {at}: {error}"));
            machine.disk.flip(&name, at, 0x10);
        }
    }
}

#[test]
fn only_the_damaged_block_of_a_large_record_is_lost() {
    let disk = SimulatedDisk::new(3);
    let (store, _) =
        Store::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), storage::Config::default())
            .unwrap();
    let payload: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
    store.write(vec![Write::Put { key: key(0), payload: payload.clone().into() }]).unwrap();
    assert!(disk.flip("0000000001.log", 1024 + 300_000, 1));
    let block = |n: u64| store.read(&key(0), n * 65_536..(n + 1) * 65_536);
    for n in 0..24 {
        let start = usize::try_from(n).unwrap() * 65_536;
        match block(n) {
            Ok(bytes) => assert_eq!(bytes, payload[start..start + 65_536]),
            Err(error) => assert!(matches!(error, ReadError::Corrupt { .. }) && n == 4, "{n}: {error}"),
        }
    }
    assert!(block(4).is_err());
    assert!(matches!(store.verify(&key(0)), Err(ReadError::Corrupt { .. })));
    // Repaired from elsewhere, it is whole again.
    store.write(vec![Write::Put { key: key(0), payload: payload.into() }]).unwrap();
    store.verify(&key(0)).unwrap();
}

#[test]
fn destroyed_sectors_cost_only_the_records_in_them_and_are_reported() {
    let (machine, model) = small_store(false);
    let name = machine.disk.list().unwrap().remove(0);
    let file = machine.disk.open(&name).unwrap();
    file.write_at(1200, &[std::io::IoSlice::new(&[0xee; 1024])]).unwrap();
    let (store, report) = open(&machine).unwrap();
    assert_eq!(report.damage.len(), 1);
    assert!(report.damage[0].range.start < 2224 && report.damage[0].range.end > 1200, "{report:?}");
    let n_lost = (0..8).filter(|&i| store.read_all(&key(i)).ok().as_ref() != model.get(&key(i))).count();
    assert!((1..=4).contains(&n_lost), "{n_lost}");
    // The damage stays where it is; the store goes on.
    let change = Write::Put { key: key(0), payload: "again".into() };
    store.write(vec![change]).unwrap();
    assert_eq!(store.read_all(&key(0)).unwrap(), "again");
}

#[test]
fn what_a_record_claims_beyond_the_end_of_its_file_is_not_believed_once_the_file_would_be_longer() {
    let mut machine = Machine { disk: SimulatedDisk::new(5), index: None };
    let mut model = Contents::new();
    let mut put = |store: &Store, i: usize| {
        let change = Write::Put { key: key(i), payload: vec![u8::try_from(i).unwrap(); 900].into() };
        apply(&mut model, &change);
        store.write(vec![change]).unwrap();
        model.clone()
    };
    let (store, _) = open(&machine).unwrap();
    let mut written = Contents::new();
    for i in 0..4 {
        written = put(&store, i);
    }
    drop(store);
    // The header of the first record has a checksum that is right, and claims a payload as long as the file.
    let file = machine.disk.open("0000000001.log").unwrap();
    let mut header = [0; 120];
    file.read_at(1024, &mut header).unwrap();
    header[12..16].copy_from_slice(&u32::try_from(file.len().unwrap()).unwrap().to_le_bytes());
    let checksum = crc32fast::hash(&header[..116]).to_le_bytes();
    header[116..].copy_from_slice(&checksum);
    file.write_at(1024, &[std::io::IoSlice::new(&header)]).unwrap();

    // Whoever only looks leaves that to be found out by whoever writes.
    machine.index = Some(LaggingIndex::new(5));
    for _ in 0..2 {
        let (store, report) = open(&machine).unwrap();
        assert_eq!((harness::contents(&store).unwrap(), report.damage), (written.clone(), Vec::new()));
    }
    for i in 4..10 {
        let (store, _) = open(&machine).unwrap();
        assert_eq!(harness::contents(&store).unwrap(), written);
        written = put(&store, i);
    }
    assert_eq!(machine.disk.list().unwrap(), ["0000000001.log", "0000000002.log"]);
    machine.index = None;
    assert_eq!(harness::contents(&open(&machine).unwrap().0).unwrap(), written);
}

#[test]
fn compaction_keeps_a_log_file_that_holds_a_damaged_record() {
    let disk = SimulatedDisk::new(4);
    let machine = Machine { disk, index: None };
    let (store, _) = open(&machine).unwrap();
    for i in 0..12 {
        store.write(vec![Write::Put { key: key(i), payload: vec![1; 20_000].into() }]).unwrap();
    }
    store.write((1..4).map(|i| Write::Delete { key: key(i) }).collect()).unwrap();
    assert!(machine.disk.flip("0000000001.log", 1024 + 5_000, 1));
    assert!(matches!(store.read_all(&key(0)), Err(ReadError::Corrupt { .. })));
    let done = store.compact(u64::MAX).unwrap();
    assert_eq!((done.removed_logs, done.damaged_logs), (0, 1));
    assert!(matches!(store.read_all(&key(0)), Err(ReadError::Corrupt { .. })), "not silently gone");
    store.write(vec![Write::Put { key: key(0), payload: "repaired".into() }]).unwrap();
    assert_eq!(store.compact(u64::MAX).unwrap().removed_logs, 1);
    assert_eq!(store.read_all(&key(0)).unwrap(), "repaired");
}

#[test]
fn foreign_and_future_log_files_are_refused() {
    let (ours, _) = small_store(false);
    let theirs = Machine::new(77);
    drop(open(&theirs).unwrap());
    let bytes = |disk: &SimulatedDisk, name: &str| {
        let file = disk.open(name).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    };
    let mut stranger = bytes(&theirs.disk, "0000000001.log");
    let name = ours.disk.list().unwrap().remove(0);
    let place = |disk: &SimulatedDisk, bytes: &[u8], name: &str| {
        disk.create(name).unwrap().write_at(0, &[std::io::IoSlice::new(bytes)]).unwrap();
    };
    let error = |disk: &SimulatedDisk| {
        Store::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), harness::CONFIG).unwrap_err()
    };
    let renamed = ours.disk.fork();
    place(&renamed, &bytes(&ours.disk, &name), "0000009999.log");
    assert!(matches!(error(&renamed), OpenError::Foreign { .. }));
    let mixed = ours.disk.fork();
    mixed.remove(&name).unwrap();
    stranger.extend([0; 100]);
    place(&mixed, &stranger, "0000000001.log");
    assert!(matches!(error(&mixed), OpenError::Foreign { .. }));
    let future = ours.disk.fork();
    let mut head = bytes(&future, &name);
    for copy in [0, 512] {
        head[copy + 8] = 2;
        let crc = crc32fast::hash(&head[copy..copy + 44]).to_le_bytes();
        head[copy + 44..copy + 48].copy_from_slice(&crc);
    }
    future.remove(&name).unwrap();
    place(&future, &head, &name);
    assert!(matches!(error(&future), OpenError::UnsupportedVersion { got: 2, .. }));
}

#[test]
fn an_index_that_lost_an_entry_is_rebuilt() {
    for i in 0..8 {
        let (machine, model) = small_store(true);
        machine.index.as_ref().unwrap().lose_entry(&key(i));
        let (store, report) = open(&machine).unwrap();
        // A deleted key may have an entry, too: of its tombstone.
        let expected = model.contains_key(&key(i)).then_some(Rebuild::Disagrees);
        assert!(report.rebuilt == expected || expected.is_none(), "{i}: {report:?}");
        harness::check(&store, &model).unwrap();
    }
}

/// Bytes that begin like log files, or like nothing.
fn hostile_file() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..5_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_log_files_do_not_panic(files in proptest::collection::vec(hostile_file(), 1..4)) {
        let machine = Machine::new(5);
        for (i, bytes) in files.iter().enumerate() {
            let file = machine.disk.create(&format!("{:010}.log", i + 1)).unwrap();
            file.write_at(0, &[std::io::IoSlice::new(bytes)]).unwrap();
        }
        let (store, report) = open(&machine).unwrap();
        prop_assert_eq!(report.records, 0);
        store.write(vec![Write::Put { key: key(0), payload: "x".into() }]).unwrap();
        prop_assert_eq!(store.read_all(&key(0)).unwrap(), "x");
    }

    /// Any number of changed, cut or repeated bytes: other bytes than some that were once stored are never returned.
    #[test]
    fn mutated_log_files_give_errors_or_what_was_stored(
        changes in proptest::collection::vec((any::<u64>(), 1_u8..), 1..60),
        cut in proptest::option::of(any::<u64>()),
        noise in proptest::option::of((any::<u64>(), hostile_file())),
    ) {
        let (machine, _) = small_store(false);
        let names = machine.disk.list().unwrap();
        let len = |name: &String| machine.disk.open(name).unwrap().len().unwrap();
        for (place, mask) in changes {
            let name = &names[usize::try_from(place % 97).unwrap() % names.len()];
            machine.disk.flip(name, place % len(name), mask);
        }
        if let Some(cut) = cut {
            let name = &names[usize::try_from(cut % 89).unwrap() % names.len()];
            machine.disk.open(name).unwrap().truncate(cut % len(name)).unwrap();
        }
        if let Some((place, noise)) = noise {
            let name = &names[usize::try_from(place % 83).unwrap() % names.len()];
            let at = place % (len(name) + 1);
            machine.disk.open(name).unwrap().write_at(at, &[std::io::IoSlice::new(&noise)]).unwrap();
        }
        let Ok((store, _)) = open(&machine) else { return Ok(()) };
        for i in 0..8 {
            let found = store.read_all(&key(i));
            let allowed = matches!(found, Ok(_) | Err(ReadError::NotFound | ReadError::Corrupt { .. }));
            prop_assert!(allowed);
        }
        store.compact(u64::MAX).unwrap();
        store.write(vec![Write::Put { key: key(0), payload: "x".into() }]).unwrap();
        drop(store);
        prop_assert_eq!(open(&machine).unwrap().0.read_all(&key(0)).unwrap(), "x");
    }
}

/// A store on the real disk with a sled index, closed in order.
struct SledStore {
    directory: tempfile::TempDir,
    model: Contents,
}

impl SledStore {
    fn new() -> Self {
        let mut it = Self { directory: tempfile::tempdir().unwrap(), model: Contents::new() };
        it.change(0);
        it
    }

    fn index(&self) -> std::path::PathBuf {
        self.directory.path().join("index")
    }

    fn open(&self) -> (Store, storage::OpenReport) {
        let disk = RealDisk::open(self.directory.path()).unwrap();
        let index = SledIndex::open(self.index()).unwrap();
        Store::open(Arc::new(disk), Box::new(index), harness::CONFIG).unwrap()
    }

    /// Some writes, deletes and a compaction.
    fn change(&mut self, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (store, _) = self.open();
        for _ in 0..40 {
            let batch: Vec<Write> = (0..3).map(|_| harness::write(&mut rng, 20)).collect();
            batch.iter().for_each(|change| apply(&mut self.model, change));
            store.write(batch).unwrap();
        }
        store.compact(u64::MAX).unwrap();
    }

    fn check(&self) -> storage::OpenReport {
        let (store, report) = self.open();
        harness::check(&store, &self.model).unwrap();
        report
    }
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_deleted_sled_index_is_rebuilt() {
    let store = SledStore::new();
    assert_eq!(store.check().rebuilt, None);
    std::fs::remove_dir_all(store.index()).unwrap();
    assert!(store.check().rebuilt.is_some());
    assert_eq!(store.check().rebuilt, None);
}

#[test]
fn a_garbage_sled_index_is_rebuilt() {
    let store = SledStore::new();
    for (file, garbage) in [("db", vec![0xa5; 700_000]), ("db", Vec::new())] {
        std::fs::write(store.index().join(file), garbage).unwrap();
        assert!(store.check().rebuilt.is_some(), "{file}");
        assert_eq!(store.check().rebuilt, None);
    }
    std::fs::remove_dir_all(store.index()).unwrap();
    std::fs::write(store.index(), "a file where a directory was").unwrap();
    assert!(store.check().rebuilt.is_some());
}

#[test]
fn a_stale_sled_index_is_brought_up_to_date_or_rebuilt() {
    let mut store = SledStore::new();
    let copy = tempfile::tempdir().unwrap();
    copy_directory(&store.index(), copy.path());
    for seed in 1..4 {
        store.change(seed);
        std::fs::remove_dir_all(store.index()).unwrap();
        copy_directory(copy.path(), &store.index());
        let report = store.check();
        assert!(report.replayed > 0, "{report:?}");
        assert_eq!(store.check().rebuilt, None);
    }
}

#[test]
fn the_index_of_another_store_is_not_believed() {
    let (store, other) = (SledStore::new(), SledStore::new());
    std::fs::remove_dir_all(store.index()).unwrap();
    copy_directory(&other.index(), &store.index());
    assert_eq!(store.check().rebuilt, Some(storage::Rebuild::Foreign));
}

#[test]
fn a_flipped_byte_in_sled_is_never_an_answer() {
    let store = SledStore::new();
    let copy = tempfile::tempdir().unwrap();
    copy_directory(&store.index(), copy.path());
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut n_rebuilt = 0;
    for _ in 0..40 {
        std::fs::remove_dir_all(store.index()).unwrap();
        copy_directory(copy.path(), &store.index());
        let path = store.index().join("db");
        let mut bytes = std::fs::read(&path).unwrap();
        let used = bytes.iter().rposition(|&byte| byte != 0).unwrap();
        let at = rng.random_range(0..=used);
        bytes[at] ^= 1 << rng.random_range(0..8);
        std::fs::write(&path, bytes).unwrap();
        n_rebuilt += usize::from(store.check().rebuilt.is_some());
    }
    // Without any error, sled opens as an older database: the checks against the logs are what notices.
    assert!(n_rebuilt > 20, "{n_rebuilt} of 40 rebuilt");
}
