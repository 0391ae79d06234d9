//! Committees: each rule is refused by its own name, and pairs of a blob are spread over all shards.

#![allow(clippy::unwrap_used, reason = "tests")]

mod committee_support;

use std::collections::{BTreeMap, BTreeSet};

use committee_support::{committee, key, member, members, peer};
use proptest::prelude::*;
use protocol::{
    BlobId, Epoch, NodeIndex, PeerId, SegmentIndex, ShardIndex, SliverPairIndex,
    bls::PublicKey,
    codec::{self, DecodeError},
    committee::{
        ADDRESS_BYTES_MAX, ADDRESSES_MAX, COMMITTEE_BYTES_MAX, Committee, CommitteeError, Member,
        NAME_CHARS_MAX, NameError, check_name, pair_of, shard_of, spread,
    },
    quorum::{N_SHARDS_MAX, N_SHARDS_MIN, max_faulty},
};

#[test]
fn members_are_found_by_index_peer_and_shard() {
    let committee = committee(5, 10, 4);
    assert_eq!((committee.epoch(), committee.n_shards(), committee.n_members()), (Epoch(5), 10, 4));
    assert!(committee.members().is_sorted_by_key(|member| member.peer));
    let mut weight = 0;
    for node in committee.nodes() {
        let member = committee.member(node).unwrap();
        assert_eq!(committee.index_of(&member.peer), Some(node));
        assert_eq!(committee.shards(node), member.shards);
        assert!(committee.shards(node).iter().all(|shard| committee.owner(*shard) == node));
        weight += committee.weight(node);
    }
    assert_eq!(weight, 10);
    assert_eq!(committee.weight_of(&committee.nodes().collect()), 10);
    assert_eq!((committee.quorum(), committee.validity()), (7, 4));
    assert!(committee.is_quorum(7) && !committee.is_quorum(6));
    assert!(committee.is_validity(4) && !committee.is_validity(3));
}

#[test]
fn strangers_have_no_weight() {
    let committee = committee(0, 10, 4);
    assert_eq!(committee.index_of(&PeerId([9; 32])), None);
    assert_eq!(committee.member(NodeIndex(4)), None);
    assert_eq!(committee.weight(NodeIndex(u16::MAX)), 0);
    assert_eq!(committee.shards(NodeIndex(4)), []);
    assert_eq!(
        committee.weight_of(&BTreeSet::from([NodeIndex(0), NodeIndex(4)])),
        committee.weight(NodeIndex(0))
    );
    assert!(committee.has_shard(ShardIndex(9)) && !committee.has_shard(ShardIndex(10)));
}

#[test]
fn the_order_in_which_members_are_named_does_not_matter() {
    let mut shuffled = members(10, 4);
    shuffled.rotate_left(1);
    shuffled.swap(0, 2);
    shuffled.iter_mut().for_each(|member| member.shards.reverse());
    assert_eq!(Committee::new(Epoch(0), 10, shuffled), Ok(committee(0, 10, 4)));
}

/// What `Committee::new` says of four members with ten shards after a change.
fn refused(change: impl FnOnce(&mut Vec<Member>)) -> CommitteeError {
    let mut members = members(10, 4);
    change(&mut members);
    Committee::new(Epoch(0), 10, members).unwrap_err()
}

#[test]
fn wrong_counts_are_refused() {
    for n_shards in [0, N_SHARDS_MIN - 1, N_SHARDS_MAX + 1, u16::MAX] {
        let error = Committee::new(Epoch(0), n_shards, members(10, 4)).unwrap_err();
        assert_eq!(error, CommitteeError::ShardCount { got: n_shards });
    }
    assert_eq!(refused(Vec::clear), CommitteeError::MemberCount { got: 0, n_shards: 10 });
    let error = Committee::new(Epoch(0), 4, members(10, 5)).unwrap_err();
    assert_eq!(error, CommitteeError::MemberCount { got: 5, n_shards: 4 });
}

#[test]
fn shared_identities_are_refused() {
    let (first, last) = ("node-0".to_owned(), "node-3".to_owned());
    let error = refused(|members| members[3].name.clone_from(&first));
    assert_eq!(error, CommitteeError::DuplicateName { member: first.clone() });
    let error = refused(|members| members[3].peer = peer(0));
    assert_eq!(error, CommitteeError::DuplicatePeer { member: last.clone(), other: first.clone() });
    let error = refused(|members| members[3].public_key = key(0).public_key());
    assert_eq!(error, CommitteeError::DuplicateKey { member: last, other: first });
}

#[test]
fn shards_with_no_owner_or_two_are_refused() {
    let name = |seed: u8| format!("node-{seed}");
    // Node 3 owns shards 8 and 9.
    let error = refused(|members| members[3].shards = vec![ShardIndex(8)]);
    assert_eq!(error, CommitteeError::UnownedShard { shard: ShardIndex(9) });
    let error = refused(|members| members[3].shards.clear());
    assert_eq!(error, CommitteeError::NoShard { member: name(3) });
    let error = refused(|members| members[3].shards.push(ShardIndex(10)));
    assert_eq!(error, CommitteeError::UnknownShard { member: name(3), shard: ShardIndex(10), n_shards: 10 });
    // Members are sorted by peer ID, which descends with the seed.
    let error = refused(|members| members[3].shards.push(ShardIndex(0)));
    assert_eq!(error, CommitteeError::SharedShard { member: name(0), other: name(3), shard: ShardIndex(0) });
    let error = refused(|members| members[3].shards.push(ShardIndex(8)));
    assert_eq!(error, CommitteeError::SharedShard { member: name(3), other: name(3), shard: ShardIndex(8) });
}

#[test]
fn a_key_without_its_proof_is_refused() {
    // A copied key with the proof of its owner, a rogue key with any proof: both are someone else's proof.
    let other = member(9, vec![ShardIndex(0)]);
    for change in [
        |member: &mut Member, other: &Member| member.public_key = other.public_key,
        |member: &mut Member, other: &Member| member.proof_of_possession = other.proof_of_possession,
        |member: &mut Member, other: &Member| member.peer = other.peer,
        |member: &mut Member, other: &Member| {
            member.public_key = other.public_key;
            member.proof_of_possession = other.proof_of_possession;
        },
        |member: &mut Member, other: &Member| {
            member.public_key = PublicKey::aggregate([&member.public_key, &other.public_key]).unwrap();
        },
    ] {
        let error = refused(|members| change(&mut members[2], &other));
        assert!(matches!(error, CommitteeError::Possession { .. }), "{error}");
        assert_eq!(error.member(), Some("node-2"));
    }
}

#[test]
fn texts_are_bounded() {
    let error = refused(|members| members[1].addresses = vec!["/ip4/10.0.0.1".to_owned(); ADDRESSES_MAX + 1]);
    assert_eq!(
        error,
        CommitteeError::TooManyAddresses { member: "node-1".to_owned(), got: ADDRESSES_MAX + 1 }
    );
    for address in ["", "/ip4 /tcp", "/dns/é", "/dns/\u{7}", &"x".repeat(ADDRESS_BYTES_MAX + 1)] {
        let error = refused(|members| members[1].addresses[1] = address.to_owned());
        assert_eq!(error, CommitteeError::Address { member: "node-1".to_owned(), position: 1 });
    }
    let error = refused(|members| members[1].name.clear());
    assert_eq!(error, CommitteeError::Name { peer: peer(1), source: NameError::Empty });
}

#[test]
fn names_are_printable() {
    for name in ["a", "Zürich 1", "узел-7", "東京", "node_1 (spare)", &"x".repeat(NAME_CHARS_MAX)] {
        assert_eq!(check_name(name), Ok(()), "{name}");
    }
    assert_eq!(check_name(""), Err(NameError::Empty));
    assert_eq!(check_name(&"é".repeat(65)), Err(NameError::TooLong { got: 65 }));
    for (name, character) in [
        ("a\nb", '\n'),
        ("a\0", '\0'),
        (" a", ' '),
        ("a ", ' '),
        (" ", ' '),
        ("a\u{202e}b", '\u{202e}'),
        ("a\u{200b}", '\u{200b}'),
        ("\u{1b}[31m", '\u{1b}'),
    ] {
        assert_eq!(check_name(name), Err(NameError::Character { character }), "{name:?}");
    }
}

#[test]
fn a_committee_survives_its_one_form() {
    let committee = committee(3, 10, 4);
    let bytes = codec::encode(&committee);
    assert_eq!(codec::decode_exact::<Committee, COMMITTEE_BYTES_MAX>(&bytes), Ok(committee.clone()));

    let mut members = committee.members().to_vec();
    members.swap(0, 1);
    let out_of_order = codec::encode(&(Epoch(3), 10_u16, &members));
    let error = codec::decode_exact::<Committee, COMMITTEE_BYTES_MAX>(&out_of_order).unwrap_err();
    assert_eq!(error, DecodeError::Malformed { reason: "committee out of order".to_owned() });

    let unverified = codec::encode(&(Epoch(3), 10_u16, &committee.members()[1..]));
    let error = codec::decode_exact::<Committee, COMMITTEE_BYTES_MAX>(&unverified).unwrap_err();
    assert!(error.to_string().contains("has no owner"), "{error}");

    // More members than shards are refused before any is read.
    let crowd = codec::encode(&(Epoch(3), 10_u16, u64::MAX));
    let error = codec::decode_exact::<Committee, COMMITTEE_BYTES_MAX>(&crowd).unwrap_err();
    assert!(error.to_string().contains("members for 10 shards"), "{error}");
}

#[test]
fn the_largest_committee_fits_its_limit() {
    let mut largest = member(0, vec![ShardIndex(0)]);
    largest.name = "東".repeat(NAME_CHARS_MAX);
    largest.addresses = vec!["x".repeat(ADDRESS_BYTES_MAX); ADDRESSES_MAX];
    let members = vec![largest; usize::from(N_SHARDS_MAX)];
    assert!(codec::encode(&(Epoch(0), N_SHARDS_MAX, members)).len() < COMMITTEE_BYTES_MAX);
}

/// A blob ID that is this number.
fn blob_id(number: u64) -> BlobId {
    let mut bytes = [0; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    BlobId(bytes)
}

#[test]
fn placement_follows_its_formula() {
    // n = 10, f = 3, p = 4.
    let shard =
        |blob, segment, pair| shard_of(10, &blob_id(blob), SegmentIndex(segment), SliverPairIndex(pair)).0;
    assert_eq!(shard(0, 0, 0), 0);
    assert_eq!(shard(0, 0, 9), 9);
    assert_eq!(shard(7, 0, 5), 2);
    assert_eq!(shard(0, 1, 0), 4);
    assert_eq!(shard(12, 3, 1), (1 + 12 + 3 * 4) % 10);
    assert_eq!(shard(0, u32::MAX, 0), 0); // (2^32 - 1) * 4 = 17179869180
    // 2^256 - 1 ends in 5.
    assert_eq!(shard_of(10, &BlobId([255; 32]), SegmentIndex(0), SliverPairIndex(0)).0, 5);
}

#[test]
fn systematic_rows_of_consecutive_segments_fall_on_different_shards() {
    for n in [4, 10, 100, 301, N_SHARDS_MAX] {
        let p = n - 2 * max_faulty(n);
        let systematic = |segment| {
            (0..p).map(move |pair| {
                shard_of(n, &BlobId([0xa7; 32]), SegmentIndex(segment), SliverPairIndex(pair))
            })
        };
        let mut reads = BTreeMap::<ShardIndex, u32>::new();
        for segment in 0..u32::from(n) {
            let (here, next): (BTreeSet<_>, BTreeSet<_>) =
                (systematic(segment).collect(), systematic(segment + 1).collect());
            assert_eq!(here.len(), usize::from(p));
            let shared = here.intersection(&next).count();
            assert_eq!(shared, usize::from((2 * p).saturating_sub(n)), "n={n}: as few as there can be");
            here.into_iter().for_each(|shard| *reads.entry(shard).or_default() += 1);
        }
        // After n segments every shard was read exactly p times.
        assert_eq!(reads.len(), usize::from(n));
        assert!(reads.values().all(|count| *count == u32::from(p)), "n={n}");
    }
}

#[test]
fn shards_are_spread_evenly() {
    assert_eq!(spread(10, 4).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2, 2]);
    assert_eq!(spread(2, 4).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 0, 0]);
    for n_shards in [4, 7, 100, 1000] {
        for n_members in 1..=n_shards {
            let spread = spread(n_shards, n_members);
            assert_eq!(spread.len(), usize::from(n_members));
            assert!(spread[0].len() - spread[spread.len() - 1].len() <= 1);
            assert!(spread.into_iter().flatten().eq((0..n_shards).map(ShardIndex)));
        }
    }
}

proptest! {
    #[test]
    fn each_shard_holds_one_pair_of_a_segment(
        n in N_SHARDS_MIN..=N_SHARDS_MAX,
        blob: [u8; 32],
        segment: u32,
    ) {
        let (blob, segment) = (BlobId(blob), SegmentIndex(segment));
        let mut seen = BTreeSet::new();
        for pair in (0..n).map(SliverPairIndex) {
            let shard = shard_of(n, &blob, segment, pair);
            prop_assert!(shard.0 < n);
            prop_assert!(seen.insert(shard));
            prop_assert_eq!(pair_of(n, &blob, segment, shard), pair);
        }
    }

    #[test]
    fn hostile_bytes_are_no_committee_and_no_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
        n_shards in 0_u16..20,
        n_members in 0_u64..20,
        plausible: bool,
    ) {
        if plausible {
            let header = codec::encode(&(Epoch(0), n_shards, n_members));
            bytes.splice(0..0, header);
        }
        prop_assert!(codec::decode_exact::<Committee, COMMITTEE_BYTES_MAX>(&bytes).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_changed_byte_is_another_committee_or_none(position in 0_usize..1400, flip in 1_u8..=255) {
        let committee = committee(3, 4, 4);
        let mut bytes = codec::encode(&committee);
        let position = position % bytes.len();
        bytes[position] ^= flip;
        if let Ok(changed) = codec::decode_exact::<Committee, COMMITTEE_BYTES_MAX>(&bytes) {
            prop_assert_ne!(&changed, &committee);
            prop_assert_eq!(codec::encode(&changed), bytes);
        }
    }
}
