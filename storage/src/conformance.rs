//! What every store must do, whichever disk and index it is built from.
//!
//! Call [`run`] with a way to open the same directory again and again.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Config, Key, OpenReport, ReadError, Store, Write, WriteError, disk::Disk, index::Index};

/// What a store is opened on. Earlier ones on the same directory have been dropped.
pub type Parts = (Arc<dyn Disk>, Box<dyn Index>);

/// Opens the directory of one test again.
pub type Reopen = Box<dyn FnMut() -> Parts>;

/// Runs the whole suite; `fresh` prepares a new, empty directory each time it is called.
///
/// # Panics
/// If the store does not do what it must.
pub fn run(mut fresh: impl FnMut() -> Reopen) {
    let tests: [(&str, Test); 8] = [
        ("reads back what was written", reads_back),
        ("ranges", ranges),
        ("scans in key order", scans),
        ("later records win", replaces),
        ("refuses what is too large", refuses),
        ("is the same after reopening", reopens),
        ("compacts", compacts),
        ("reads beside a writer", reads_beside_a_writer),
    ];
    for (name, test) in tests {
        tracing::info!(name, "conformance");
        test(&mut Bench { reopen: fresh() });
    }
}

/// One test of the suite.
type Test = fn(&mut Bench);

/// One directory and how to open it.
struct Bench {
    reopen: Reopen,
}

impl Bench {
    fn open(&mut self) -> (Store, OpenReport) {
        let (disk, index) = (self.reopen)();
        let config =
            Config { log_bytes: 1 << 20, reserve_bytes: 0, checkpoint_bytes: 1 << 20, ..Config::default() };
        Store::open(disk, index, config).expect("opens")
    }
}

fn key(name: &str) -> Key {
    Key::new(name.as_bytes().to_vec()).expect("short")
}

fn put(name: &str, payload: impl Into<Bytes>) -> Write {
    Write::Put { key: key(name), payload: payload.into() }
}

fn delete(name: &str) -> Write {
    Write::Delete { key: key(name) }
}

/// `len` bytes that differ from block to block.
fn pattern(len: usize) -> Bytes {
    (0..len).map(|i| u8::try_from(i.wrapping_mul(31).wrapping_add(i / 251) % 256).unwrap_or(0)).collect()
}

fn reads_back(bench: &mut Bench) {
    let (store, _) = bench.open();
    let sizes = [0, 1, 511, 65_535, 65_536, 65_537, 300_000];
    let batch = sizes.iter().map(|&size| put(&format!("{size}"), pattern(size))).collect();
    store.write(batch).expect("written");
    for size in sizes {
        let name = key(&format!("{size}"));
        assert_eq!(store.read_all(&name).expect("read"), pattern(size));
        assert!(store.verify(&name).is_ok());
        assert!(store.contains(&name).expect("index"));
    }
    assert!(matches!(store.read_all(&key("none")), Err(ReadError::NotFound)));
    assert_eq!(store.len(&key("none")).expect("index"), None);
    assert_eq!(store.len(&key("511")).expect("index"), Some(511));
    store.write(Vec::new()).expect("nothing to do");
}

fn ranges(bench: &mut Bench) {
    let (store, _) = bench.open();
    let payload = pattern(200_000);
    store.write(vec![put("k", payload.clone())]).expect("written");
    for (start, end) in
        [(0, 0), (0, 1), (65_535, 65_537), (65_536, 131_072), (70_000, 199_999), (200_000, 200_000)]
    {
        let got = store.read(&key("k"), start..end).expect("read");
        let as_usize = |at: u64| usize::try_from(at).expect("small");
        assert_eq!(got, payload.slice(as_usize(start)..as_usize(end)));
    }
    for (start, end) in [(0, 200_001), (200_001, 200_001), (u64::MAX, u64::MAX), (5, 4)] {
        let got = store.read(&key("k"), start..end);
        assert!(matches!(got, Err(ReadError::OutOfRange { len: 200_000 })), "{start}..{end}");
    }
}

fn scans(bench: &mut Bench) {
    let (store, _) = bench.open();
    let names = ["a", "b", "b/1", "b/2", "b/3", "b0", "c"];
    store.write(names.iter().rev().map(|name| put(name, vec![0; name.len()])).collect()).expect("written");
    store.write(vec![delete("b/2")]).expect("deleted");
    let scan = |prefix: &str, after: Option<&str>, limit| {
        let found = store.scan(prefix.as_bytes(), after.map(key).as_ref(), limit).expect("scan");
        found
            .into_iter()
            .map(|(key, len)| (String::from_utf8_lossy(key.as_bytes()).into_owned(), len))
            .collect()
    };
    let all: Vec<(String, u64)> = scan("", None, 100);
    assert_eq!(
        all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["a", "b", "b/1", "b/3", "b0", "c"]
    );
    let some: Vec<(String, u64)> = scan("b/", None, 100);
    assert_eq!(some, [("b/1".to_owned(), 3), ("b/3".to_owned(), 3)]);
    let some: Vec<(String, u64)> = scan("b", Some("b/1"), 1);
    assert_eq!(some, [("b/3".to_owned(), 3)]);
    let some: Vec<(String, u64)> = scan("b/", Some("a"), 1);
    assert_eq!(some, [("b/1".to_owned(), 3)]);
    let none: Vec<(String, u64)> = scan("b/", Some("c"), 1);
    assert!(none.is_empty());
}

fn replaces(bench: &mut Bench) {
    let (store, _) = bench.open();
    store.write(vec![put("k", "one"), put("k", "two"), delete("k"), put("k", "three")]).expect("written");
    assert_eq!(store.read_all(&key("k")).expect("read"), "three");
    store.write(vec![put("k", "four")]).expect("written");
    store.write(vec![delete("k"), delete("k"), delete("never")]).expect("deleted");
    assert!(matches!(store.read_all(&key("k")), Err(ReadError::NotFound)));
    assert_eq!(store.n_records(), 0);
    store.write(vec![put("k", "five")]).expect("written");
    drop(store);
    let (store, report) = bench.open();
    assert_eq!(report.records, 1);
    assert_eq!(store.read_all(&key("k")).expect("read"), "five");
}

fn refuses(bench: &mut Bench) {
    let (store, _) = bench.open();
    assert!(Key::new(vec![0; crate::MAX_KEY_BYTES]).is_ok());
    assert!(Key::new(vec![0; crate::MAX_KEY_BYTES + 1]).is_err());
    let max = usize::try_from(crate::MAX_PAYLOAD_BYTES).expect("fits");
    let too_large = Bytes::from(vec![0; max + 1]);
    let refused = store.write(vec![put("small", "x"), put("large", too_large)]);
    assert!(matches!(refused, Err(WriteError::TooLarge { .. })));
    assert!(!store.contains(&key("small")).expect("index"));
}

fn reopens(bench: &mut Bench) {
    let (store, report) = bench.open();
    assert_eq!((report.records, report.damage.len()), (0, 0));
    for i in 0..40 {
        store.write(vec![put(&format!("{i:02}"), pattern(50_000 + i))]).expect("written");
    }
    store.write((0..40).step_by(3).map(|i| delete(&format!("{i:02}"))).collect()).expect("deleted");
    let before = store.scan(b"", None, 100).expect("scan");
    let stats = store.stats().expect("stats");
    assert!(stats.n_logs > 1 && stats.live_bytes < stats.log_bytes);
    drop(store);
    let (store, report) = bench.open();
    assert_eq!((report.records, report.torn_bytes), (26, 0));
    assert_eq!(report.damage, []);
    assert_eq!(store.scan(b"", None, 100).expect("scan"), before);
    for i in 0..40 {
        let got = store.read_all(&key(&format!("{i:02}")));
        if i % 3 == 0 {
            assert!(matches!(got, Err(ReadError::NotFound)));
        } else {
            assert_eq!(got.expect("read"), pattern(50_000 + i));
        }
    }
}

fn compacts(bench: &mut Bench) {
    let (store, _) = bench.open();
    for i in 0..80 {
        store.write(vec![put(&format!("{i:02}"), pattern(60_000 + i))]).expect("written");
    }
    store
        .write((0..80).filter(|i| i % 4 != 0).map(|i| delete(&format!("{i:02}"))).collect())
        .expect("deleted");
    let before = store.stats().expect("stats");
    let mut n_removed = 0;
    for _ in 0..100 {
        n_removed += store.compact(100_000).expect("compacted").removed_logs;
    }
    let after = store.stats().expect("stats");
    assert!(n_removed >= 3 && after.log_bytes < before.log_bytes / 2, "{before:?} {after:?}");
    for _ in 0..2 {
        store.compact(u64::MAX).expect("compacted");
    }
    let check = |store: &Store| {
        for i in 0..80 {
            let got = store.read_all(&key(&format!("{i:02}")));
            assert_eq!(got.ok(), (i % 4 == 0).then(|| pattern(60_000 + i)), "{i}");
        }
    };
    check(&store);
    drop(store);
    check(&bench.open().0);
}

fn reads_beside_a_writer(bench: &mut Bench) {
    let (store, _) = bench.open();
    store.write(vec![put("steady", pattern(150_000)), put("busy", pattern(0))]).expect("written");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for _ in 0..200 {
                assert_eq!(store.read_all(&key("steady")).expect("read"), pattern(150_000));
                match store.read_all(&key("busy")) {
                    Ok(bytes) => assert_eq!(bytes, pattern(bytes.len())),
                    Err(ReadError::NotFound | ReadError::OutOfRange { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        for i in 0..60 {
            let change = if i % 5 == 4 { delete("busy") } else { put("busy", pattern(40_000 + i * 1_000)) };
            store.write(vec![change]).expect("written");
            if i % 20 == 19 {
                store.compact(u64::MAX).expect("compacted");
            }
        }
        reader.join().expect("the reader saw only what was written");
    });
}
