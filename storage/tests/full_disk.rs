//! A disk that runs full: writes are refused, nothing is lost, and room makes writes work again.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::sync::Arc;

use harness::{CONFIG, Contents, Machine, apply, check, key, open};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use storage::{Config, Key, Store, Write, WriteError, disk::SimulatedDisk, index::MemoryIndex};

fn put(i: usize, len: usize) -> Write {
    Write::Put { key: key(i), payload: vec![u8::try_from(i % 251).unwrap(); len].into() }
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    for seed in 0..100 {
        let machine = Machine::new(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut store, _) = open(&machine).unwrap();
        let mut model = Contents::new();
        machine.disk.set_capacity(Some(400_000));
        let (mut n_refused, mut n_after) = (0, 0);
        for _ in 0..150 {
            let batch: Vec<Write> =
                (0..rng.random_range(1..4)).map(|_| harness::write(&mut rng, 40)).collect();
            if rng.random_range(0..10) == 0 {
                machine.disk.fill_during_next_write(true);
            }
            match store.write(batch.clone()) {
                Ok(()) => {
                    batch.iter().for_each(|change| apply(&mut model, change));
                    n_after += usize::from(n_refused > 0);
                }
                Err(WriteError::Full { .. }) => {
                    n_refused += 1;
                    if rng.random() {
                        let name = key(rng.random_range(0..40));
                        if store.write(vec![Write::Delete { key: name.clone() }]).is_ok() {
                            model.remove(&name);
                        }
                        store.compact(u64::MAX).ok();
                    }
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
            machine.disk.fill_during_next_write(false);
            if rng.random_range(0..30) == 0 {
                drop(store);
                store = open(&machine).unwrap().0;
            }
        }
        check(&store, &model).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(n_refused > 0 && n_after > 0, "seed {seed}: {n_refused} {n_after}");
        machine.disk.set_capacity(None);
        store.write(vec![put(0, 100_000)]).unwrap();
        apply(&mut model, &put(0, 100_000));
        drop(store);
        let machine = machine.crash();
        check(&open(&machine).unwrap().0, &model).unwrap();
    }
}

#[test]
fn the_reserve_is_for_deletes_and_compaction() {
    let disk = SimulatedDisk::new(0);
    disk.set_capacity(Some(300_000));
    let config = Config { reserve_bytes: 100_000, ..CONFIG };
    let index = Box::new(MemoryIndex::default());
    let (store, _) = Store::open(Arc::new(disk), index, config).unwrap();
    let mut n = 0;
    while store.write(vec![put(n, 10_000)]).is_ok() {
        n += 1;
    }
    assert!((15..20).contains(&n), "{n}");
    assert!(store.stats().unwrap().free_bytes >= 100_000);
    for i in 0..n - 2 {
        store.write(vec![Write::Delete { key: key(i) }]).unwrap();
    }
    let mixed = vec![Write::Delete { key: key(n - 1) }, put(n, 10_000)];
    assert!(matches!(store.write(mixed.clone()), Err(WriteError::Full { .. })));
    assert!(store.contains(&key(n - 1)).unwrap());
    assert!(store.compact(u64::MAX).unwrap().removed_logs > 0);
    store.write(mixed).unwrap();
    assert!(!store.contains(&key(n - 1)).unwrap());
}

#[test]
fn what_is_not_needed_at_all_makes_room_for_copies_of_the_rest() {
    let disk = SimulatedDisk::new(0);
    let (store, _) = Store::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), CONFIG).unwrap();
    for i in 0..57 {
        store.write(vec![put(i, 5_000)]).unwrap();
    }
    assert!(store.stats().unwrap().n_logs >= 3);
    // Of the first log file some is needed, of the second nothing.
    for i in (8..40).chain([0]) {
        store.write(vec![Write::Delete { key: key(i) }]).unwrap();
    }
    disk.set_capacity(Some(store.stats().unwrap().log_bytes + 20_000));
    let done = store.compact(u64::MAX).unwrap();
    assert_eq!((done.removed_logs, done.copied_bytes), (1, 0));
    let done = store.compact(u64::MAX).unwrap();
    assert_eq!(done.removed_logs, 1);
    assert!(done.copied_bytes >= 7 * 5_000);
    for i in 0..57 {
        assert_eq!(store.verify(&key(i)).is_ok(), (1..8).contains(&i) || i >= 40, "{i}");
    }
}

#[test]
fn deleting_large_payloads_makes_room_without_compaction() {
    let disk = SimulatedDisk::new(0);
    disk.set_capacity(Some(1_000_000));
    let index = Box::new(MemoryIndex::default());
    let (store, _) =
        Store::open(Arc::new(disk), index, Config { reserve_bytes: 0, ..Config::default() }).unwrap();
    for i in 0..50 {
        store.write(vec![put(i, 400_000)]).unwrap();
        if i > 0 {
            store.write(vec![Write::Delete { key: key(i - 1) }]).unwrap();
        }
    }
    assert_eq!(store.n_records(), 1);
    store.verify(&key(49)).unwrap();
}

#[test]
fn compaction_comes_to_an_end() {
    // Two files, each of more than half of what a file may have, do not fit into one.
    let config =
        Config { log_bytes: 16 << 10, reserve_bytes: 0, compact_below_percent: 95, ..Config::default() };
    let (store, _) =
        Store::open(Arc::new(SimulatedDisk::new(1)), Box::new(MemoryIndex::default()), config).unwrap();
    for i in 0..4_u8 {
        let put = |byte: u8, len: usize| Write::Put {
            key: Key::new(vec![byte, i]).unwrap(),
            payload: vec![byte; len].into(),
        };
        store.write(vec![put(1, 8_000)]).unwrap();
        store.write(vec![put(2, 6_000)]).unwrap();
        store.write(vec![Write::Delete { key: Key::new(vec![2, i]).unwrap() }]).unwrap();
    }
    let mut rounds = 0;
    while store.compact(u64::MAX).unwrap().copied_bytes > 0 {
        rounds += 1;
        assert!(rounds < 20, "it goes on for ever");
    }
    assert!(rounds > 0);
}
