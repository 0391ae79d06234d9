//! The store's promises under concurrent writes, rot, a full disk and compaction.

use std::{sync::Arc, time::Duration};

use protocol::{BlobId, SegmentIndex, SliverPairIndex, encoding::Axis, hash::Hash, message::SliverAt};
use storage::{
    Store,
    disk::{Disk as _, SimulatedDisk},
    index::MemoryIndex,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Actor, Blocking, Config, SliverStore, StoreReadError, StoreWriteError};

/// A store that runs, over a disk that can be tampered with.
pub(crate) struct Bench {
    pub(crate) disk: SimulatedDisk,
    pub(crate) store: SliverStore,
    records: Arc<Store>,
    tasks: JoinSet<()>,
}

impl Bench {
    pub(crate) fn new(n_shards: u16, reserve_bytes: u64) -> Self {
        let config = storage::Config { reserve_bytes, ..storage::Config::default() };
        Self::over(SimulatedDisk::new(1), n_shards, config)
    }

    fn over(disk: SimulatedDisk, n_shards: u16, config: storage::Config) -> Self {
        let (records, _) =
            Store::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), config).unwrap();
        let records = Arc::new(records);
        let (actor, store) =
            Actor::new(Config::default(), Arc::clone(&records), Blocking::Inline, n_shards).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(actor.run(CancellationToken::new()));
        Self { disk, store, records, tasks }
    }

    fn log_bytes(&self) -> u64 {
        self.records.stats().unwrap().log_bytes
    }

    /// Damages everything on the disk behind its first bytes, which say what the files are.
    fn rot(&self) {
        for name in self.disk.list().unwrap() {
            let len = self.disk.open(&name).unwrap().len().unwrap();
            (200..len).for_each(|offset| assert!(self.disk.flip(&name, offset, 1)));
        }
    }
}

fn at(pair: u16) -> SliverAt {
    SliverAt {
        blob_id: BlobId([7; 32]),
        segment: SegmentIndex(0),
        pair: SliverPairIndex(pair),
        axis: Axis::Primary,
    }
}

const PARITY: Hash = Hash([3; 32]);

#[tokio::test]
async fn a_corrupt_sliver_is_dropped_and_one_written_in_its_place_is_not() {
    let bench = Bench::new(7, 0);
    let store = &bench.store;
    store.put_sliver(at(0), PARITY, &[1; 500]).await.unwrap();
    store.drop_corrupt_sliver(at(0)).await.unwrap();
    assert!(store.has_sliver(&at(0)), "it is not corrupt");
    bench.rot();
    assert_eq!(store.read_whole_sliver(at(0)).await, Err(StoreReadError::Corrupt));
    // Two readers met it, one of them is slow: by then it is repaired.
    store.drop_corrupt_sliver(at(0)).await.unwrap();
    assert!(!store.has_sliver(&at(0)));
    let (put, dropped) =
        tokio::join!(store.put_sliver(at(0), PARITY, &[1; 500]), store.drop_corrupt_sliver(at(0)));
    assert_eq!((put, dropped), (Ok(()), Ok(())));
    assert!(store.has_sliver(&at(0)));
    assert_eq!((store.counts().slivers, store.counts().sliver_bytes), (1, 500));
}

#[tokio::test]
async fn a_wrong_sliver_is_dropped_only_as_long_as_it_is_that_one() {
    let bench = Bench::new(7, 0);
    let store = &bench.store;
    store.put_sliver(at(0), PARITY, &[1; 500]).await.unwrap();
    store.drop_wrong_sliver(at(0), PARITY, &[2; 500]).await.unwrap();
    assert!(store.has_sliver(&at(0)));
    store.drop_wrong_sliver(at(0), PARITY, &[1; 500]).await.unwrap();
    assert!(!store.has_sliver(&at(0)));
    assert_eq!(store.counts().slivers, 0);
}

#[tokio::test]
async fn on_a_full_disk_what_makes_room_does_not_fail_for_what_needs_it() {
    let bench = Bench::new(7, 1 << 20);
    let store = &bench.store;
    store.put_sliver(at(0), PARITY, &[1; 5_000]).await.unwrap();
    // Within the reserve: deletions may use it, puts may not.
    bench.disk.set_capacity(Some(500_000));
    let (put, drop) =
        tokio::join!(store.put_sliver(at(1), PARITY, &[1; 500]), store.drop_blob(at(0).blob_id));
    assert_eq!((put, drop), (Err(StoreWriteError::Full), Ok(())));
    assert!(!store.has_sliver(&at(0)));
    assert_eq!(store.counts().slivers, 0);
    bench.disk.set_capacity(None);
    store.put_sliver(at(1), PARITY, &[1; 500]).await.unwrap();
}

/// Log files of a few dozen slivers.
const SMALL: storage::Config = storage::Config {
    log_bytes: 64 << 10,
    reserve_bytes: 0,
    checkpoint_bytes: 64 << 20,
    compact_below_percent: 50,
};

const SLIVER: usize = 2_000;

fn of_blob(blob: u8, pair: u16) -> SliverAt {
    SliverAt { blob_id: BlobId([blob; 32]), ..at(pair) }
}

fn sliver(blob: u8, pair: u16) -> Vec<u8> {
    vec![blob ^ u8::try_from(pair).unwrap(); SLIVER]
}

/// Writes the slivers of twenty blobs, and drops all but every fifth of them; returns those that stay and those that do
/// not.
async fn write_and_drop(store: &SliverStore) -> (Vec<u8>, Vec<u8>) {
    for blob in 0..20 {
        for pair in 0..7 {
            store.put_sliver(of_blob(blob, pair), PARITY, &sliver(blob, pair)).await.unwrap();
        }
    }
    let (stay, go): (Vec<u8>, Vec<u8>) = (0..20).partition(|blob| blob % 5 == 0);
    for blob in &go {
        store.drop_blob(BlobId([*blob; 32])).await.unwrap();
    }
    (stay, go)
}

async fn check(store: &SliverStore, (stay, go): &(Vec<u8>, Vec<u8>)) {
    for pair in 0..7 {
        for blob in stay {
            let read = store.read_whole_sliver(of_blob(*blob, pair)).await;
            assert!(read == Ok((PARITY, sliver(*blob, pair).into())), "blob {blob} pair {pair}: {read:?}");
        }
        for blob in go {
            assert!(!store.has_sliver(&of_blob(*blob, pair)), "blob {blob} pair {pair} is back");
        }
    }
    assert_eq!(store.counts().slivers, 7 * u64::try_from(stay.len()).unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_gives_its_room_back_to_the_disk() {
    let bench = Bench::over(SimulatedDisk::new(1), 7, SMALL);
    let blobs = write_and_drop(&bench.store).await;
    let before = bench.log_bytes();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let after = bench.log_bytes();
    assert!(before > 280_000 && after < before / 2, "{before} bytes, then {after}");
    check(&bench.store, &blobs).await;
    // And it is there to be written again.
    bench.disk.set_capacity(Some(before));
    for segment in (0..60).map(SegmentIndex) {
        let at = SliverAt { segment, ..of_blob(99, 0) };
        bench.store.put_sliver(at, PARITY, &sliver(99, 0)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_refused_room_looks_for_it_at_once() {
    let bench = Bench::over(SimulatedDisk::new(1), 7, SMALL);
    // The first look is over, and the next one far away.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let blobs = write_and_drop(&bench.store).await;
    bench.disk.set_capacity(Some(bench.log_bytes() + 20_000));
    let big = vec![1; 100_000];
    assert_eq!(bench.store.put_sliver(at(0), PARITY, &big).await, Err(StoreWriteError::Full));
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.store.put_sliver(at(0), PARITY, &big).await.unwrap();
    bench.store.drop_blob(at(0).blob_id).await.unwrap();
    // The blob with that ID was among those dropped before.
    check(&bench.store, &blobs).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_moment_of_compaction_loses_nothing() {
    let mut n_points = 0;
    loop {
        let mut bench = Bench::over(SimulatedDisk::new(n_points), 7, SMALL);
        let blobs = write_and_drop(&bench.store).await;
        let before = bench.log_bytes();
        bench.disk.fail_after(n_points);
        tokio::time::sleep(Duration::from_secs(30)).await;
        let has_crashed = bench.disk.is_dead();
        assert_eq!(has_crashed, bench.tasks.try_join_next().is_some(), "a store that failed has stopped");
        let disk = if n_points.is_multiple_of(5) { bench.disk.kill() } else { bench.disk.crash() };
        drop(bench);
        let again = Bench::over(disk, 7, SMALL);
        check(&again.store, &blobs).await;
        // What the crash cut short is done after it.
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(again.log_bytes() < before / 2, "{n_points}: {before} bytes, then {}", again.log_bytes());
        check(&again.store, &blobs).await;
        if !has_crashed {
            break;
        }
        n_points += 1;
    }
    assert!(n_points > 10, "{n_points} moments");
}
