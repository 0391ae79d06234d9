//! The store against an ordered map, through orderly ends, kills and power cuts.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use harness::{Contents, Machine, apply, check, open};
use proptest::prelude::*;
use storage::{Key, Write};

#[derive(Clone, Debug)]
enum Action {
    Write(Vec<(u8, Option<usize>)>),
    Read(u8, usize, usize),
    Scan(Vec<u8>, Option<u8>, usize),
    Compact(u64),
    Checkpoint,
    Close,
    Kill,
    Crash,
}

fn action() -> impl Strategy<Value = Action> {
    let len = prop_oneof![4 => 0..300_usize, 2 => 300..9_000_usize, 1 => 30_000..140_000_usize];
    let change = (0..16_u8, prop_oneof![1 => Just(None), 3 => len.prop_map(Some)]);
    prop_oneof![
        8 => proptest::collection::vec(change, 1..5).prop_map(Action::Write),
        3 => (0..16_u8, 0..150_000_usize, 0..150_000_usize).prop_map(|(k, a, b)| Action::Read(k, a, b)),
        2 => (proptest::collection::vec(0..3_u8, 0..3), proptest::option::of(0..16_u8), 0..9_usize)
            .prop_map(|(prefix, after, limit)| Action::Scan(prefix, after, limit)),
        1 => (0..200_000_u64).prop_map(Action::Compact),
        1 => Just(Action::Compact(u64::MAX)),
        1 => Just(Action::Checkpoint),
        1 => Just(Action::Close),
        1 => Just(Action::Kill),
        1 => Just(Action::Crash),
    ]
}

/// Keys that are prefixes of each other, the empty one among them.
fn key(i: u8) -> Key {
    let bytes: Vec<u8> = (0..i % 4).map(|at| (i >> at) & 1).chain((i >= 8).then_some(2)).collect();
    Key::new(bytes).unwrap()
}

fn payload(len: usize, n: usize) -> bytes::Bytes {
    (0..len).map(|i| u8::try_from((i * 7 + i / 255 + n) % 256).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_map(seed in any::<u64>(), actions in proptest::collection::vec(action(), 1..60)) {
        let mut machine = Machine::new(seed);
        let mut model = Contents::new();
        let mut store = open(&machine).unwrap().0;
        for (n, action) in actions.into_iter().enumerate() {
            match action {
                Action::Write(changes) => {
                    let batch: Vec<Write> = changes.into_iter().map(|(i, len)| match len {
                        Some(len) => Write::Put { key: key(i), payload: payload(len, n) },
                        None => Write::Delete { key: key(i) },
                    }).collect();
                    batch.iter().for_each(|change| apply(&mut model, change));
                    store.write(batch).unwrap();
                }
                Action::Read(i, a, b) => {
                    let (start, end) = (a.min(b), a.max(b));
                    let range = u64::try_from(start).unwrap()..u64::try_from(end).unwrap();
                    let expected = model.get(&key(i)).filter(|bytes| end <= bytes.len());
                    let expected = expected.map(|bytes| bytes.slice(start..end));
                    prop_assert_eq!(store.read(&key(i), range).ok(), expected);
                }
                Action::Scan(prefix, after, limit) => {
                    let after = after.map(key);
                    let expected: Vec<(Key, u64)> = model
                        .iter()
                        .filter(|(key, _)| key.as_bytes().starts_with(&prefix))
                        .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
                        .take(limit)
                        .map(|(key, bytes)| (key.clone(), u64::try_from(bytes.len()).unwrap()))
                        .collect();
                    prop_assert_eq!(store.scan(&prefix, after.as_ref(), limit).unwrap(), expected);
                }
                Action::Compact(budget) => {
                    store.compact(budget).unwrap();
                }
                Action::Checkpoint => store.checkpoint().unwrap(),
                Action::Close => {
                    drop(store);
                    store = open(&machine).unwrap().0;
                }
                Action::Kill | Action::Crash => {
                    machine = if matches!(action, Action::Kill) { machine.kill() } else { machine.crash() };
                    let (reopened, report) = open(&machine).unwrap();
                    prop_assert_eq!(report.damage, Vec::new());
                    store = reopened;
                }
            }
            prop_assert_eq!(store.n_records(), u64::try_from(model.len()).unwrap());
        }
        check(&store, &model).unwrap();
        let stats = store.stats().unwrap();
        prop_assert!(stats.live_bytes <= stats.log_bytes);
    }
}
