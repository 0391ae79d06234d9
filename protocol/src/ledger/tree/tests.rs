use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::codec;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn tree(entries: impl IntoIterator<Item = (impl AsRef<[u8]>, impl AsRef<[u8]>)>) -> Tree {
    let mut tree = Tree::default();
    for (key, value) in entries {
        tree.insert(key.as_ref(), value.as_ref());
    }
    tree
}

/// The root by its definition, over sorted entries.
fn reference_root(entries: &[(&Vec<u8>, &Vec<u8>)]) -> Hash {
    match entries {
        [] => EMPTY_ROOT,
        [(key, value)] => node::leaf_hash(key, value),
        [first, .., last] => {
            let at = node::first_difference(first.0, last.0).unwrap();
            let split = entries.partition_point(|(key, _)| !node::bit(key, at));
            node::branch_hash(at, &reference_root(&entries[..split]), &reference_root(&entries[split..]))
        }
    }
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    // Few distinct bytes, so that keys collide, share prefixes and are prefixes of each other.
    proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0x80), Just(0xff)], 0..6)
}

#[derive(Clone, Debug)]
enum Change {
    Insert(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let insert = (keys(), proptest::collection::vec(any::<u8>(), 0..4));
    let change = prop_oneof![
        3 => insert.prop_map(|(key, value)| Change::Insert(key, value)),
        1 => keys().prop_map(Change::Remove),
    ];
    proptest::collection::vec(change, 0..60)
}

fn run(changes: &[Change]) -> (Tree, Model) {
    let (mut tree, mut model) = (Tree::default(), Model::new());
    for change in changes {
        match change {
            Change::Insert(key, value) => {
                tree.insert(key, value);
                model.insert(key.clone(), value.clone());
            }
            Change::Remove(key) => assert_eq!(tree.remove(key), model.remove(key).is_some()),
        }
    }
    (tree, model)
}

#[test]
fn bits_order_keys_as_bytes_do() {
    let keys: [&[u8]; 8] = [&[], &[0], &[0, 0], &[0, 1], &[1], &[0x7f, 0xff], &[0x80], &[0xff, 0xff]];
    for (i, left) in keys.iter().enumerate() {
        for (j, right) in keys.iter().enumerate() {
            match node::first_difference(left, right) {
                None => assert_eq!(i, j),
                Some(at) => {
                    assert!((0..at).all(|bit| node::bit(left, bit) == node::bit(right, bit)));
                    assert_eq!(node::bit(right, at), i < j, "{left:?} {right:?}");
                    assert_ne!(node::bit(left, at), node::bit(right, at));
                }
            }
        }
    }
}

#[test]
fn roots_of_small_trees_are_what_they_always_were() {
    let empty = Tree::default().root();
    let one = tree([(b"a", b"1")]).root();
    let three = tree([(&b"a"[..], &b"1"[..]), (b"b", b"2"), (b"ab", b"")]).root();
    let frozen = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "5afc786877867acf8de11176d7c211f833affbf30061f36c9fcb6691f5c6be19",
        "da429b55511b66e523bd6f8b0eccbec47bd7e45c9b0b67673290eb90ed92baf5",
    ];
    assert_eq!([empty, one, three].map(|root| format!("{root:?}")), frozen);
}

#[test]
fn clones_are_snapshots() {
    let mut tree = tree([([1], [1]), ([2], [2])]);
    let (before, root) = (tree.clone(), tree.root());
    tree.insert(&[3], &[3]);
    assert!(tree.remove(&[1]));
    assert_ne!(tree.root(), root);
    assert_eq!(before.root(), root);
    assert_eq!(before.get(&[1]), Some(&[1][..]));
    assert_eq!(before.get(&[3]), None);
}

#[test]
fn keys_chosen_to_make_the_longest_path_are_borne() {
    // Each key differs from the next at a bit of its own: a path of as many branches as a key has bits.
    let mut tree = Tree::default();
    let mut expected = 0;
    for byte in 0..KEY_BYTES_MAX {
        for within in 0..8 {
            let mut key = vec![0; KEY_BYTES_MAX];
            key[byte] = 1 << within;
            tree.insert(&key, b"x");
            expected += 1;
        }
        tree.insert(&vec![0; byte], b"x");
        expected += 1;
    }
    tree.insert(&[0; KEY_BYTES_MAX], b"end");
    let proof = tree.prove(&[0; KEY_BYTES_MAX]);
    assert!(codec::encode(&proof).len() < PROOF_BYTES_MAX / 2);
    assert_eq!(proof.verify(&tree.root(), &[0; KEY_BYTES_MAX]), Ok(Some(&b"end"[..])));
    let mut restore = Restore::new(tree.root());
    while !restore.is_complete() {
        let page = tree.page(restore.last_key(), 1000).unwrap();
        let page: Page = codec::decode_exact::<_, PAGE_BYTES_MAX>(&codec::encode(&page)).unwrap();
        restore.accept(page).unwrap();
    }
    assert_eq!(restore.finish().unwrap().entries().count(), expected + 1);
}

#[test]
fn a_page_that_leaves_something_out_is_refused() {
    let entries: Vec<([u8; 1], [u8; 1])> = (0..40).map(|i| ([i], [i])).collect();
    let tree = tree(entries);
    let root = tree.root();
    let page = |after: Option<u8>| tree.page(after.map(|key| vec![key]).as_deref(), 1_300).unwrap();

    let mut restore = Restore::new(root);
    assert_eq!(restore.accept(page(Some(3))), Err(PageError::Gap));
    restore.accept(page(None)).unwrap();
    assert_eq!(restore.last_key(), Some(&[9][..]));
    for wrong in [page(None), page(Some(8)), page(Some(10))] {
        assert_eq!(restore.accept(wrong), Err(PageError::Gap));
    }
    assert_eq!(restore.last_key(), Some(&[9][..]), "nothing was kept");
    assert!(matches!(Restore::new(Hash([1; 32])).accept(page(None)), Err(PageError::Root { .. })));
    assert!(tree.page(Some(&[99]), 20).is_none());

    // The same tree with an entry in the middle, or a whole page, pruned away.
    let Some(items) = Some(codec::encode(&page(Some(9)))) else { unreachable!() };
    for at in 0..items.len() {
        let mut changed = items.clone();
        changed[at] ^= 1;
        if let Ok(page) = codec::decode_exact::<Page, PAGE_BYTES_MAX>(&changed) {
            assert!(page.verify(&root, Some(&[9])).is_err(), "byte {at}");
        }
    }
    assert_eq!(Restore::new(root).finish().unwrap_err(), PageError::Incomplete);
}

#[test]
fn a_proof_that_does_not_descend_is_named() {
    let proof = |steps: &[u16], end: Option<Entry>| {
        let steps: Vec<(u16, Hash)> = steps.iter().map(|bit| (*bit, Hash([1; 32]))).collect();
        codec::decode_exact::<Proof, PROOF_BYTES_MAX>(&codec::encode(&(steps, end))).unwrap()
    };
    let end = || Some(Entry { key: vec![1], value: vec![] });
    for (steps, end, step, bit) in
        [(&[3, 3][..], end(), 0, 3), (&[1, 5, 4], end(), 1, 5), (&[864], end(), 0, 864), (&[3], None, 0, 3)]
    {
        assert_eq!(proof(steps, end).verify(&EMPTY_ROOT, &[1]), Err(ProofError::Order { step, bit }));
    }
    let long = Entry { key: vec![1; KEY_BYTES_MAX + 1], value: vec![] };
    assert!(matches!(proof(&[], Some(long)).verify(&EMPTY_ROOT, &[1]), Err(ProofError::TooLong { .. })));
    assert!(matches!(proof(&[3], end()).verify(&EMPTY_ROOT, &[1]), Err(ProofError::Root { .. })));
    assert_eq!(proof(&[], None).verify(&EMPTY_ROOT, &[1]), Ok(None));
}

#[test]
fn a_page_of_the_smallest_entries_can_be_decoded() {
    let tree = tree((0..20_000_u16).map(|i| (i.to_be_bytes(), [])));
    let bytes = codec::encode(&tree.page(None, PAGE_BYTES_AIM).unwrap());
    let page = codec::decode_exact::<Page, PAGE_BYTES_MAX>(&bytes).unwrap();
    assert!(page.verify(&tree.root(), None).unwrap().0.len() > 1_000);
}

#[test]
fn a_range_shows_all_entries_from_a_key_on() {
    let keys: Vec<[u8; 2]> = (0..60_u8).map(|i| [i / 8 * 3, i % 8 * 5]).collect();
    let tree = tree(keys.iter().map(|key| (*key, [1])));
    let root = tree.root();
    for high in 0..30_u8 {
        for start in [vec![high], vec![high, 7], vec![high, 35], vec![high, 35, 0]] {
            let expected: Vec<&[u8; 2]> =
                keys.iter().filter(|key| key.as_slice() >= start.as_slice()).collect();
            let page = tree.range_page(&start, 700);
            let (entries, is_last) = page.clone().verify_range(&root, &start).unwrap();
            assert!(is_last || !entries.is_empty());
            assert!(
                entries
                    .iter()
                    .map(|entry| &entry.key[..])
                    .eq(expected.iter().map(|key| &key[..]).take(entries.len()))
            );
            assert_eq!(is_last, entries.len() == expected.len(), "{start:?}");
            // It shows nothing of what lies before it.
            let first = page.verify(&root, None);
            if start > keys[1].to_vec() {
                assert_eq!(first.unwrap_err(), PageError::Gap);
            }
        }
    }
    // A page that begins too late leaves something out.
    let late = tree.range_page(&keys[20], usize::MAX);
    assert_eq!(late.verify_range(&root, &keys[10]), Err(PageError::Gap));
    let empty = Tree::default();
    let none = empty.range_page(&[1], 100).verify_range(&empty.root(), &[1]);
    assert_eq!(none, Ok((Vec::new(), true)));
}

#[test]
fn pruned_neighbours_are_no_page() {
    let tree = tree((0..4_u8).map(|i| ([i], [i])));
    let root = tree.root();
    let page = tree.page(None, usize::MAX).unwrap();
    let (entries, is_last) = page.clone().verify(&root, None).unwrap();
    assert_eq!((entries.len(), is_last), (4, true));
    // A page with a hash in place of any one entry has the right root, and is still refused or ends there.
    let bytes = codec::encode(&page);
    for i in 0..4_u8 {
        let hash = node::leaf_hash(&[i], &[i]);
        let entry: Vec<u8> =
            [2_u32.to_le_bytes().to_vec(), codec::encode(&Entry { key: vec![i], value: vec![i] })].concat();
        let pruned: Vec<u8> = [1_u32.to_le_bytes().to_vec(), codec::encode(&hash)].concat();
        let at = bytes.windows(entry.len()).position(|window| window == entry).unwrap();
        let changed = [&bytes[..at], &pruned, &bytes[at + entry.len()..]].concat();
        let changed: Page = codec::decode_exact::<_, PAGE_BYTES_MAX>(&changed).unwrap();
        match (i, changed.verify(&root, None)) {
            (0, Err(PageError::Gap)) | (1 | 2, Err(PageError::Malformed { .. })) => {}
            (3, Ok((entries, false))) => assert_eq!(entries.len(), 3),
            (i, other) => panic!("{i}: {other:?}"),
        }
    }
}

#[test]
fn a_page_without_a_new_entry_is_refused() {
    let tree = tree([([0], []), ([1], [])]);
    let root = tree.root();
    let page = |items: &[Vec<u8>]| {
        let len = u64::try_from(items.len()).unwrap().to_le_bytes();
        codec::decode_exact::<Page, PAGE_BYTES_MAX>(&[&len[..], &items.concat()].concat()).unwrap()
    };
    let branch = codec::encode(&(0_u32, node::first_difference(&[0], &[1]).unwrap()));
    let pruned = |hash: Hash| codec::encode(&(1_u32, hash));
    let entry = codec::encode(&(2_u32, Entry { key: vec![0], value: vec![] }));
    let only_the_old = [branch, entry, pruned(node::leaf_hash(&[1], &[]))];
    assert_eq!(page(&only_the_old).verify(&root, Some(&[0])), Err(PageError::NoProgress));
    assert_eq!(page(&[pruned(root)]).verify(&root, None), Err(PageError::NoProgress));
    assert_eq!(page(&[pruned(root)]).verify(&root, Some(&[0])), Err(PageError::Gap));
    assert_eq!(page(&only_the_old[..2]).verify(&root, None), Err(PageError::Malformed { item: 2 }));
    let extra = [&only_the_old[..], &[pruned(root)]].concat();
    assert_eq!(page(&extra).verify(&root, None), Err(PageError::Malformed { item: 3 }));
}

proptest! {
    #[test]
    fn the_tree_is_a_map(changes in changes(), start in keys()) {
        let (tree, model) = run(&changes);
        prop_assert!(tree.entries().eq(model.iter().map(|(key, value)| (&**key, &**value))));
        let from = model.range(start.clone()..).map(|(key, value)| (&**key, &**value));
        prop_assert!(tree.entries_from(&start).eq(from));
        let with_prefix = model.iter().filter(|(key, _)| key.starts_with(&start));
        prop_assert!(tree.entries_with_prefix(&start).map(|(key, _)| key).eq(with_prefix.map(|(key, _)| &**key)));
        prop_assert_eq!(tree.get(&start), model.get(&start).map(|value| &**value));
        prop_assert_eq!(tree.is_empty(), model.is_empty());
    }

    #[test]
    fn the_root_depends_on_content_alone(changes in changes(), seed in any::<u64>()) {
        let (changed, model) = run(&changes);
        let sorted: Vec<_> = model.iter().collect();
        prop_assert_eq!(changed.root(), reference_root(&sorted));
        let mut shuffled = sorted.clone();
        let mut seed = seed;
        shuffled.sort_by_cached_key(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 32
        });
        prop_assert_eq!(tree(shuffled).root(), changed.root());
    }

    #[test]
    fn roots_of_different_content_differ(left in changes(), right in changes()) {
        let ((left, left_model), (right, right_model)) = (run(&left), run(&right));
        prop_assert_eq!(left.root() == right.root(), left_model == right_model);
    }

    #[test]
    fn proofs_say_what_the_map_says(changes in changes(), key in keys(), other in keys()) {
        let (tree, model) = run(&changes);
        let (root, proof) = (tree.root(), tree.prove(&key));
        let expected = model.get(&key).map(|value| &**value);
        prop_assert_eq!(proof.verify(&root, &key), Ok(expected));
        let bytes = codec::encode(&proof);
        prop_assert_eq!(codec::decode_exact::<Proof, PROOF_BYTES_MAX>(&bytes), Ok(proof.clone()));
        // Asked for another key, the same proof never says anything false.
        if let Ok(value) = proof.verify(&root, &other) {
            prop_assert_eq!(value, model.get(&other).map(|value| &**value));
        }
    }

    #[test]
    fn a_changed_proof_never_says_anything_false(
        changes in changes(),
        key in keys(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let (tree, model) = run(&changes);
        let mut bytes = codec::encode(&tree.prove(&key));
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(proof) = codec::decode_exact::<Proof, PROOF_BYTES_MAX>(&bytes)
            && let Ok(value) = proof.verify(&tree.root(), &key)
        {
            prop_assert_eq!(value, model.get(&key).map(|value| &**value));
        }
    }

    #[test]
    fn pages_rebuild_the_tree(changes in changes(), bytes_aim in 0_usize..1_000) {
        let (tree, model) = run(&changes);
        let mut restore = Restore::new(tree.root());
        let mut n_pages = 0;
        while !restore.is_complete() {
            restore.accept(tree.page(restore.last_key(), bytes_aim).unwrap()).unwrap();
            n_pages += 1;
            prop_assert!(n_pages <= model.len().max(1));
        }
        let rebuilt = restore.finish().unwrap();
        prop_assert!(rebuilt.entries().eq(tree.entries()));
    }

    #[test]
    fn hostile_pages_and_proofs_are_refused_quietly(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let root = tree([(b"a", b"1"), (b"b", b"2")]).root();
        if let Ok(page) = codec::decode_exact::<Page, PAGE_BYTES_MAX>(&bytes) {
            prop_assert!(page.verify(&root, None).is_err());
        }
        if let Ok(proof) = codec::decode_exact::<Proof, PROOF_BYTES_MAX>(&bytes) {
            prop_assert!(proof.verify(&root, b"a").is_err());
        }
    }
}
