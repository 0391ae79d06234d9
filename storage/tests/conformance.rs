//! The conformance suite on every combination of disk and index that is in use.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use storage::{
    conformance::{Parts, Reopen, run},
    disk::{Disk, LockError, RealDisk, SimulatedDisk},
    index::{MemoryIndex, SledIndex},
};

fn reopen(open: impl FnMut() -> Parts + 'static) -> Reopen {
    Box::new(open)
}

#[test]
fn real_disk_with_sled() {
    run(|| {
        let directory = tempfile::tempdir().unwrap();
        reopen(move || {
            let disk = Arc::new(RealDisk::open(directory.path().join("node")).unwrap());
            let index = SledIndex::open(directory.path().join("node/index")).unwrap();
            (disk, Box::new(index))
        })
    });
}

#[test]
fn real_disk_with_memory() {
    run(|| {
        let directory = tempfile::tempdir().unwrap();
        reopen(move || {
            (Arc::new(RealDisk::open(directory.path()).unwrap()), Box::new(MemoryIndex::default()))
        })
    });
}

#[test]
fn simulated_disk_with_memory() {
    let mut seed = 0;
    run(|| {
        seed += 1;
        let disk = SimulatedDisk::new(seed);
        reopen(move || (Arc::new(disk.kill()), Box::new(MemoryIndex::default())))
    });
}

#[test]
fn a_directory_has_one_user_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let disk = RealDisk::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let second = RealDisk::open(&path).unwrap_err();
    assert!(matches!(second, LockError::InUse { .. }));
    assert!(second.to_string().contains(path.to_str().unwrap()), "{second}");
    drop(disk);
    assert!(RealDisk::open(&path).unwrap().free_bytes().unwrap() > 0);
}
