//! The sliver store's files, and the names and records that a node keeps in it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use protocol::{codec, hash::Hash};
use storage::{
    Config, Key, Store, Write,
    disk::{Disk, SimulatedDisk},
    index::MemoryIndex,
};

use super::{
    Seed, Target,
    fixture::WORLD,
    input::{Input, part},
    is_canonical,
};

/// The log file that is fuzzed.
const FILE: &str = "0000000001.log";
const CONFIG: Config =
    Config { log_bytes: 96 << 10, reserve_bytes: 0, checkpoint_bytes: 64 << 10, compact_below_percent: 60 };

pub(super) const TARGETS: &[Target] = &[
    Target { name: "log_file", bytes_max: 8 << 10, memory_max: 8 << 20, run: log_file, seeds: log_files },
    Target { name: "log_headers", bytes_max: 256, memory_max: 16 << 10, run: log_headers, seeds: headers },
    Target { name: "index", bytes_max: 256, memory_max: 16 << 10, run: index, seeds: entries },
    Target { name: "record_name", bytes_max: 64, memory_max: 16 << 10, run: record_name, seeds: names },
    Target {
        name: "commitment_record",
        bytes_max: 16 << 10,
        memory_max: 256 << 10,
        run: |bytes| is_canonical(bytes, node::fuzz::commitment_record(bytes)),
        seeds: records,
    },
];

/// What a store holds, as far as it can be read.
fn contents(store: &Store) -> BTreeMap<Key, Option<Bytes>> {
    let listed = store.scan(b"", None, usize::MAX).expect("an index in memory tells");
    listed.into_iter().map(|(key, _)| (key.clone(), store.read_all(&key).ok())).collect()
}

/// A log file of which the checksums are right and all else is anything: a store opens and says the same each time, or says
/// why not.
fn log_file(bytes: &[u8]) -> bool {
    let mut image = bytes.to_vec();
    storage::fuzz::seal_log(&mut image);
    let disk = Arc::new(SimulatedDisk::new(1));
    storage::fuzz::put_file(&*disk, FILE, &image).expect("a simulated disk takes what is written");
    let open = || Store::open(disk.clone(), Box::new(MemoryIndex::default()), CONFIG);
    let Ok((store, report)) = open() else { return false };
    let before = contents(&store);
    assert!(u64::try_from(before.len()).is_ok_and(|n| n <= report.records));
    let (key, payload) = (Key::new("fuzz").expect("a short key"), Bytes::from_static(b"written after"));
    store.write(vec![Write::Put { key: key.clone(), payload: payload.clone() }]).expect("there is room");
    drop(store);
    let (store, _) = open().expect("what was opened opens again");
    let mut after = contents(&store);
    assert_eq!(after.remove(&key), Some(Some(payload)), "what was written is read");
    let expected: BTreeMap<Key, Option<Bytes>> = before.into_iter().filter(|(it, _)| *it != key).collect();
    assert_eq!(after, expected, "a store says the same when it is opened again");
    report.damage.is_empty() && report.records > 0
}

/// Headers of files and of records, with checksums that are right.
fn log_headers(bytes: &[u8]) -> bool {
    let mut file = bytes.to_vec();
    file.truncate(48);
    storage::fuzz::seal(&[], &mut file);
    let is_file = is_canonical(&file, storage::fuzz::file_header(&file));
    let mut input = Input::new(bytes);
    let at = u64::from_le_bytes(input.array());
    let mut record = input.bytes(120).to_vec();
    storage::fuzz::seal(&[], &mut record);
    let marker = record.first_chunk().copied().unwrap_or_default();
    is_canonical(&record, storage::fuzz::record_header(&record, marker, at)) | is_file
}

fn index(bytes: &[u8]) -> bool {
    let mut summary = bytes.to_vec();
    storage::fuzz::seal(&[], &mut summary);
    let has_summary =
        is_canonical(&summary, storage::fuzz::index_summary(&summary).filter(|it| it.len() == bytes.len()));
    let mut input = Input::new(bytes);
    let key_bytes = usize::from(input.u8() % 65);
    let key = Key::new(input.bytes(key_bytes).to_vec()).expect("a key of at most 64 bytes");
    let mut entry = input.rest().to_vec();
    storage::fuzz::seal(key.as_bytes(), &mut entry);
    is_canonical(&entry, storage::fuzz::index_entry(&key, &entry)) | has_summary
}

fn record_name(bytes: &[u8]) -> bool {
    let Ok(name) = Key::new(bytes.to_vec()) else { return false };
    node::fuzz::record_name(&name).is_some_and(|again| {
        assert_eq!(again, name, "a name means one thing");
        true
    })
}

/// The file of a store with a few records of each kind.
fn log_image(n: u8) -> Vec<u8> {
    let disk = Arc::new(SimulatedDisk::new(1));
    let (store, _) =
        Store::open(disk.clone(), Box::new(MemoryIndex::default()), CONFIG).expect("an empty disk");
    let key = |i: u8| Key::new(vec![b'k', i]).expect("a short key");
    for i in 0..n {
        let payload = Bytes::from(vec![i; usize::from(i) * 90]);
        let mut batch = vec![Write::Put { key: key(i), payload }];
        if i % 3 == 2 {
            batch.push(Write::Delete { key: key(i - 1) });
        }
        store.write(batch).expect("there is room");
    }
    drop(store);
    let file = disk.open(FILE).expect("it is there");
    let len = file.len().ok().and_then(|len| usize::try_from(len).ok()).expect("a short file");
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes).expect("it is whole");
    bytes
}

fn log_files() -> Vec<Seed> {
    vec![("one", log_image(1)), ("few", log_image(4)), ("more", log_image(8))]
}

fn headers() -> Vec<Seed> {
    let image = log_image(4);
    let record = |at: usize| {
        let place = u64::try_from(at).expect("a short file").to_le_bytes();
        [&place[..], &image[at..at + 120]].concat()
    };
    // The second record lies behind the first, which has no payload.
    vec![("file", image[..48].to_vec()), ("header", record(1024)), ("footer", record(1024 + 120))]
}

/// Entries and a summary as the index keeps them; checksums are made right before they are read.
fn entries() -> Vec<Seed> {
    // kind | log u64 | offset u64 | payload length u32 | prior first u64, last u64 | checksum
    let entry = |kind: u8, prior: u64| {
        let fields = [&1_u64.to_le_bytes()[..], &1024_u64.to_le_bytes(), &90_u32.to_le_bytes()].concat();
        [&[3][..], b"key", &[kind], &fields, &prior.to_le_bytes(), &prior.to_le_bytes(), &[0; 4]].concat()
    };
    // store 16 | checkpoint log u64, offset u64 | applied log u64, offset u64 | entries u64 | checksum
    let summary = [&[7; 16][..], &[1, 0, 0, 0, 0, 0, 0, 0].repeat(5), &[0; 4]].concat();
    vec![("put", entry(1, 0)), ("tombstone", entry(2, 1)), ("summary", summary)]
}

fn names() -> Vec<Seed> {
    let blob = WORLD.blob.header.blob_id();
    let id = blob.as_bytes();
    vec![
        ("sliver", [&b"S"[..], &[0, 3], id, &[0; 4], &[1]].concat()),
        ("commitment", [&b"C"[..], id, &[0; 4]].concat()),
        ("order", [&b"O"[..], id].concat()),
    ]
}

fn records() -> Vec<Seed> {
    let record = |path: Vec<Hash>| {
        let head = codec::encode(&(*WORLD.blob.header.header(), path));
        [part(&head), WORLD.blob.commitment.to_bytes()].concat()
    };
    vec![("one-segment", record(Vec::new())), ("many", record(vec![Hash([5; 32]); 12]))]
}
