//! Readers, a writer and compaction at the same time.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use harness::{CONFIG, Contents, apply, check, key};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use storage::{
    ReadError, Store, Write,
    disk::{Disk, RealDisk, SimulatedDisk},
    index::{Index, MemoryIndex, SledIndex},
};

/// Keys that the writer changes all the time.
const N_KEYS: usize = 10;

/// A payload that says whose it is: one byte, repeated.
fn payload(rng: &mut ChaCha8Rng, i: usize) -> bytes::Bytes {
    vec![u8::try_from(i).unwrap(); rng.random_range(1..50_000)].into()
}

/// Stops the other threads, also when the writer's assertions fail.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn exercise(disk: Arc<dyn Disk>, index: Box<dyn Index>, n_writes: usize) {
    let (store, _) = Store::open(disk, index, CONFIG).unwrap();
    let stopped = AtomicBool::new(false);
    let mut model = Contents::new();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut n_read, mut i) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                i = (i + 1) % N_KEYS;
                match store.read_all(&key(i)) {
                    Ok(bytes) => assert!(bytes.iter().all(|byte| usize::from(*byte) == i)),
                    Err(ReadError::NotFound | ReadError::OutOfRange { .. }) => continue,
                    Err(error) => panic!("{error}"),
                }
                n_read += 1;
            }
            n_read
        });
        let compactor = scope.spawn(|| {
            let mut n_removed = 0;
            while !stopped.load(Ordering::Relaxed) {
                n_removed += store.compact(u64::MAX).unwrap().removed_logs;
            }
            n_removed
        });
        let stop = StopOnDrop(&stopped);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for n in 0..n_writes {
            let i = if n < N_KEYS { n } else { rng.random_range(0..N_KEYS) };
            let change = if rng.random_range(0..4) == 0 {
                Write::Delete { key: key(i) }
            } else {
                Write::Put { key: key(i), payload: payload(&mut rng, i) }
            };
            apply(&mut model, &change);
            store.write(vec![change]).unwrap();
            // Compaction must not bring back what a write has just replaced.
            let expected =
                model.iter().map(|(key, bytes)| (key.clone(), u64::try_from(bytes.len()).unwrap()));
            assert!(store.scan(b"", None, N_KEYS).unwrap().into_iter().eq(expected));
        }
        drop(stop);
        let (n_read, n_removed) = (reader.join().unwrap(), compactor.join().unwrap());
        assert!(n_read > 100 && n_removed > 10, "{n_read} read, {n_removed} log files removed");
    });
    check(&store, &model).unwrap();
}

#[test]
fn in_memory() {
    exercise(Arc::new(SimulatedDisk::new(0)), Box::new(MemoryIndex::default()), 10_000);
}

#[test]
fn on_a_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(directory.path()).unwrap();
    let index = SledIndex::open(directory.path().join("index")).unwrap();
    exercise(Arc::new(disk), Box::new(index), 1_000);
}
