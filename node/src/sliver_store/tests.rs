//! The store's promises under concurrent writes, rot and a full disk.

use std::sync::Arc;

use protocol::{
    BlobId, SegmentIndex, ShardIndex, SliverPairIndex, encoding::Axis, hash::Hash, message::SliverAt,
};
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
    _tasks: JoinSet<()>,
}

impl Bench {
    pub(crate) fn new(n_shards: u16, reserve_bytes: u64) -> Self {
        let disk = SimulatedDisk::new(1);
        let config = storage::Config { reserve_bytes, ..storage::Config::default() };
        let (records, _) =
            Store::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), config).unwrap();
        let (actor, store) =
            Actor::new(Config::default(), Arc::new(records), Blocking::Inline, n_shards).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(actor.run(CancellationToken::new()));
        Self { disk, store, _tasks: tasks }
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
    let shards: Vec<ShardIndex> = (0..7).map(ShardIndex).collect();
    let (put, drop) =
        tokio::join!(store.put_sliver(at(1), PARITY, &[1; 500]), store.drop_blob(at(0).blob_id, &shards));
    assert_eq!((put, drop), (Err(StoreWriteError::Full), Ok(())));
    assert!(!store.has_sliver(&at(0)));
    assert_eq!(store.counts().slivers, 0);
    bench.disk.set_capacity(None);
    store.put_sliver(at(1), PARITY, &[1; 500]).await.unwrap();
}
