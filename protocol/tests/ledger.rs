//! Blocks, certificates and the chain that a light client follows: what holds is accepted, what was tampered with is
//! refused for the reason that is true.

#![allow(clippy::unwrap_used, reason = "tests")]

mod ledger_support;

use std::{collections::BTreeMap, sync::Arc};

use ledger_support::{Chain, NETWORK, certificate, committee, key, precommit};
use proptest::prelude::*;
use protocol::{
    BlockId, Epoch, NetworkId, NodeIndex, PeerId, codec,
    codec::DecodeError,
    committee::Committee,
    hash::Hash,
    ledger::{
        answer::{ANSWER_BYTES_MAX, Answer, AnswerError},
        block::{
            BLOCK_BYTES_MAX, Block, BlockError, Decided, Draft, Header, InvalidBlock, TRANSACTION_BYTES_MAX,
            TRANSACTIONS_MAX, Tip, committee_hash, transactions_hash,
        },
        chain::{AdvanceError, TrustedChain},
        commit::{COMMIT_BYTES_MAX, CommitCertificate, CommitError, SIGNATURES_MAX},
        proposer::Rotation,
        signature::Signature,
        tree::{EMPTY_ROOT, KEY_BYTES_MAX, Restore, Tree, VALUE_BYTES_MAX},
        vote::{Proposal, SignedProposal, SignedVote, Vote, VoteKind, vote_bytes},
        wire::{
            BATCH_BYTES_MAX, BATCH_TRANSACTIONS_MAX, COMMITTEE_PART_BYTES, Link, Message, PolkaCertificate,
            REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, Request, Response, RoundCertificate, RoundReason,
            STATE_PAGE_BYTES_AIM,
        },
    },
};

const SEEDS: [u8; 4] = [1, 2, 3, 4];

fn block() -> (Chain, Block) {
    let chain = Chain::new(10, &SEEDS);
    let block = Block::build(chain.draft(&[b"a", b"b"], None)).unwrap();
    (chain, block)
}

#[test]
fn a_quorum_by_shards_certifies_and_less_does_not() {
    // Weights 3, 3, 2, 2 by seed; a quorum of 10 is 7.
    let (chain, block) = block();
    let committee = chain.tip.committee();
    for (seeds, weight) in [(&SEEDS[..], 10), (&[1, 2, 3], 8), (&[1, 3, 4], 7)] {
        assert_eq!(certificate(committee, seeds, &block).verify(&NETWORK, committee), Ok(weight));
    }
    for (seeds, got) in [(&[][..], 0), (&[1, 2], 6), (&[3, 4], 4)] {
        let error = CommitError::TooLittleWeight { got, required: 7 };
        assert_eq!(certificate(committee, seeds, &block).verify(&NETWORK, committee), Err(error));
    }
}

#[test]
fn a_certificate_with_any_part_changed_is_refused() {
    let (chain, block) = block();
    let committee = chain.tip.committee();
    let good = certificate(committee, &SEEDS, &block);
    let signatures = good.signatures().clone();
    let of = |height, round, id| CommitCertificate::new(height, round, id, signatures.clone()).unwrap();
    let changed = [of(2, 0, block.id()), of(1, 1, block.id()), of(1, 0, BlockId([9; 32]))];
    for certificate in changed {
        let error = certificate.verify(&NETWORK, committee).unwrap_err();
        assert!(matches!(error, CommitError::BadSignature { signer: NodeIndex(0), .. }), "{error}");
    }
    let elsewhere = good.verify(&NetworkId([4; 32]), committee).unwrap_err();
    assert!(matches!(elsewhere, CommitError::BadSignature { .. }));

    // A quorum is there already, but every signature named must hold.
    for signer in committee.nodes() {
        let mut bent = signatures.clone();
        bent.get_mut(&signer).unwrap().0[3] ^= 1;
        let bent = CommitCertificate::new(1, 0, block.id(), bent).unwrap();
        let error = bent.verify(&NETWORK, committee).unwrap_err();
        assert!(matches!(error, CommitError::BadSignature { signer: at, .. } if at == signer), "{error}");
    }

    let mut stranger = signatures.clone();
    stranger.insert(NodeIndex(4), Signature([0; 64]));
    let stranger = CommitCertificate::new(1, 0, block.id(), stranger).unwrap();
    let error = CommitError::UnknownSigner { signer: NodeIndex(4), n_members: 4 };
    assert_eq!(stranger.verify(&NETWORK, committee), Err(error));
}

#[test]
fn prevotes_certify_nothing() {
    let (chain, block) = block();
    let committee = chain.tip.committee();
    let bytes = vote_bytes(&NETWORK, 1, 0, VoteKind::Prevote, Some(block.id()));
    let signatures =
        SEEDS.map(|seed| (committee.index_of(&key(seed).peer()).unwrap(), key(seed).sign(&bytes)));
    let prevotes = CommitCertificate::new(1, 0, block.id(), signatures).unwrap();
    assert!(matches!(prevotes.verify(&NETWORK, committee), Err(CommitError::BadSignature { .. })));
}

#[test]
fn nobody_signs_twice_in_a_certificate() {
    let (chain, block) = block();
    let one = precommit(chain.tip.committee(), 1, &block);
    let twice = CommitCertificate::new(1, 0, block.id(), [one, one]);
    assert_eq!(twice, Err(CommitError::Duplicate { signer: one.0 }));

    // The same on the wire: the pair repeated, and two pairs in the wrong order.
    let (first, second) = ((NodeIndex(0), Signature([1; 64])), (NodeIndex(1), Signature([2; 64])));
    for pairs in [vec![first, first], vec![second, first]] {
        let bytes = codec::encode(&(1_u64, 0_u32, BlockId([1; 32]), pairs));
        let error = CommitCertificate::decode(&bytes).unwrap_err();
        assert!(error.to_string().contains("twice or out of order"), "{error}");
    }
}

#[test]
fn the_largest_certificate_fits_its_bound() {
    let signatures = (0..SIGNATURES_MAX).map(|node| (NodeIndex(node), Signature([1; 64])));
    let largest = CommitCertificate::new(u64::MAX, u32::MAX, BlockId([1; 32]), signatures).unwrap();
    let bytes = codec::encode(&largest);
    assert_eq!(bytes.len(), COMMIT_BYTES_MAX);
    assert_eq!(CommitCertificate::decode(&bytes), Ok(largest));
    let one_more = (0..=SIGNATURES_MAX).map(|node| (NodeIndex(node), Signature([1; 64])));
    let error = CommitError::TooMany { got: 1001 };
    assert_eq!(CommitCertificate::new(1, 0, BlockId([1; 32]), one_more), Err(error));
}

#[test]
fn bounds_of_a_block_are_kept() {
    let chain = Chain::new(10, &SEEDS);
    let draft = |transactions: Vec<Vec<u8>>| Draft { transactions, ..chain.draft(&[], None) };
    let long = vec![vec![0; TRANSACTION_BYTES_MAX + 1]];
    let error = BlockError::TransactionTooLong { position: 0, got: TRANSACTION_BYTES_MAX + 1 };
    assert_eq!(Block::build(draft(long)), Err(error));
    let many = vec![vec![]; TRANSACTIONS_MAX + 1];
    let error = BlockError::TooManyTransactions { got: TRANSACTIONS_MAX + 1 };
    assert_eq!(Block::build(draft(many)), Err(error));
    let full = vec![vec![0; TRANSACTION_BYTES_MAX]; 10];
    assert!(matches!(Block::build(draft(full)), Err(BlockError::TooLong { .. })));

    let fits = vec![vec![7; TRANSACTION_BYTES_MAX - 100]; 10];
    let block = Block::build(draft(fits)).unwrap();
    assert_eq!(Block::decode(&codec::encode(&block)), Ok(block));
    let small = Block::build(draft(vec![vec![]; TRANSACTIONS_MAX])).unwrap();
    assert_eq!(Block::decode(&codec::encode(&small)), Ok(small));
    assert!(Block::decode(&vec![0; BLOCK_BYTES_MAX + 1]).is_err());
}

#[test]
fn a_body_that_is_not_the_header_s_is_no_block() {
    let (mut chain, first) = block();
    let (_, commit, _) = chain.decide(&[b"a", b"b"], None);
    let header = first.header().clone();
    let swapped = codec::encode(&(&header, None::<CommitCertificate>, vec![b"b".to_vec(), b"a".to_vec()]));
    assert!(Block::decode(&swapped).unwrap_err().to_string().contains("transactions are not those"));
    let with_commit = codec::encode(&(&header, Some(commit), vec![b"a".to_vec(), b"b".to_vec()]));
    assert!(Block::decode(&with_commit).unwrap_err().to_string().contains("last commit"));
}

#[test]
fn transactions_hash_tells_every_list_apart() {
    let lists: [&[&[u8]]; 6] = [&[], &[b""], &[b"", b""], &[b"a", b"b"], &[b"b", b"a"], &[b"ab"]];
    let hashes = lists.map(|list| transactions_hash(&list.iter().map(|it| it.to_vec()).collect::<Vec<_>>()));
    for (i, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..i].contains(hash));
    }
}

/// The block with one field of its header changed, and what of it is wrong as a successor.
fn tampered(header: &Header) -> Vec<(Header, &'static str)> {
    let base = || header.clone();
    vec![
        (Header { version: 1, ..base() }, "version 1"),
        (Header { network: NetworkId([9; 32]), ..base() }, "network"),
        (Header { height: header.height + 1, ..base() }, "height"),
        (Header { height: header.height - 1, ..base() }, "height"),
        (Header { time_ms: 1_000, ..base() }, "not after"),
        (Header { parent: BlockId([9; 32]), ..base() }, "follows"),
        (Header { epoch: Epoch(1), ..base() }, "epoch 1"),
        (Header { committee: Hash([9; 32]), ..base() }, "committee"),
    ]
}

#[test]
fn a_tip_refuses_what_does_not_follow() {
    let mut chain = Chain::new(10, &SEEDS);
    chain.decide(&[b"1"], None);
    let before = chain.tip.clone();
    let next = Block::build(chain.draft(&[b"2"], None)).unwrap();
    assert_eq!(before.check(&next), Ok(()));
    for (header, reason) in tampered(next.header()) {
        let bytes = codec::encode(&(&header, next.last_commit(), next.transactions()));
        let block = Block::decode(&bytes).unwrap();
        let error = before.check(&block).unwrap_err();
        assert!(error.to_string().contains(reason), "{error} for {reason}");
    }

    // Everything else equal, another certificate of the block before.
    let with = |last_commit| Block::build(Draft { last_commit, ..chain.draft(&[b"2"], None) }).unwrap();
    assert_eq!(before.check(&with(None)), Err(InvalidBlock::LastCommit));
    let (id, committee) = (before.id, &before.signed_by);
    let other = CommitCertificate::new(1, 0, BlockId([1; 32]), []).unwrap();
    assert_eq!(before.check(&with(Some(other))), Err(InvalidBlock::LastCommit));
    let light = CommitCertificate::new(1, 0, id, []).unwrap();
    let error = CommitError::TooLittleWeight { got: 0, required: committee.quorum() };
    assert_eq!(before.check(&with(Some(light))), Err(InvalidBlock::LastCommitProof(error)));
    let genesis = Tip::genesis(NETWORK, before.signed_by.clone());
    let early = Draft { tip: genesis.clone(), ..chain.draft(&[], None) };
    assert_eq!(genesis.check(&Block::build(early).unwrap()), Err(InvalidBlock::LastCommit));
}

#[test]
fn a_block_is_never_earlier_than_the_one_before() {
    let mut chain = Chain::new(10, &SEEDS);
    chain.decide(&[], None);
    let block = Block::build(Draft { time_ms: 5, ..chain.draft(&[], None) }).unwrap();
    assert_eq!(block.header().time_ms, 1_001);
}

/// Three committees: heights 1 and 2 by the first, 3 and 4 by the second, 5 by the third.
fn changing_chain() -> Vec<(Block, CommitCertificate, Option<protocol::committee::Committee>)> {
    let mut chain = Chain::new(10, &SEEDS);
    vec![
        chain.decide(&[b"1"], None),
        chain.decide(&[b"2"], Some((1, &[3, 4, 5, 6]))),
        chain.decide(&[b"3"], None),
        chain.decide(&[b"4"], Some((2, &[5, 6, 7, 8, 9]))),
        chain.decide(&[b"5"], None),
    ]
}

#[test]
fn a_light_client_goes_from_genesis_to_head_by_the_changes_alone() {
    let blocks = changing_chain();
    let genesis = || TrustedChain::from_genesis(NETWORK, committee(0, 10, &SEEDS));
    for path in [vec![0, 1, 2, 3, 4], vec![1, 3, 4], vec![1, 3]] {
        let mut chain = genesis();
        for i in &path {
            let (block, certificate, next) = &blocks[*i];
            chain.advance(block.header(), certificate, next.as_ref()).unwrap();
        }
        let head = &blocks[*path.last().unwrap()].0;
        assert_eq!((chain.height(), chain.head()), (head.header().height, head.id()));
        assert_eq!(chain.state_root(), Some(head.header().state_root));
        assert_eq!(chain.committee().epoch(), Epoch(2));
    }
    // Without the first change, nothing later is believed.
    for skipped in [2, 3, 4] {
        let mut chain = genesis();
        let (block, certificate, next) = &blocks[skipped];
        let error = chain.advance(block.header(), certificate, next.as_ref()).unwrap_err();
        assert!(matches!(error, AdvanceError::Gap { .. }), "{error}");
        assert_eq!(chain.height(), 0);
    }
}

#[test]
fn a_light_client_refuses_what_is_not_proven() {
    let blocks = changing_chain();
    let (block, certificate, next) = &blocks[1];
    let mut chain = TrustedChain::from_genesis(NETWORK, committee(0, 10, &SEEDS));
    let (first, first_certificate, _) = &blocks[0];
    chain.advance(first.header(), first_certificate, None).unwrap();

    let mut refused = |header: &Header, certificate: &CommitCertificate, next: Option<_>| {
        let error = chain.advance(header, certificate, next).unwrap_err();
        assert_eq!((chain.height(), chain.head()), (1, first.id()), "changed by a refused header");
        error
    };
    let error = refused(first.header(), first_certificate, None);
    assert_eq!(error, AdvanceError::NotAfter { got: 1, head: 1 });
    assert!(matches!(refused(block.header(), certificate, None), AdvanceError::CommitteeMissing { .. }));
    let other = committee(1, 10, &[4, 5, 6, 7]);
    let error = refused(block.header(), certificate, Some(&other));
    assert!(matches!(error, AdvanceError::CommitteeMismatch { .. }));
    let light = ledger_support::certificate(&committee(0, 10, &SEEDS), &[3, 4], block);
    let error = refused(block.header(), &light, next.as_ref());
    let source = CommitError::TooLittleWeight { got: 4, required: 7 };
    assert_eq!(error, AdvanceError::Certificate { epoch: Epoch(0), source });
    assert!(matches!(
        refused(block.header(), first_certificate, next.as_ref()),
        AdvanceError::OtherBlock { .. }
    ));

    // Each field of the header: refused by itself, or by the certificate, which is over its hash.
    for (header, _) in tampered(block.header()) {
        refused(&header, certificate, next.as_ref());
    }
    let base = block.header();
    let by_hash = [
        Header { transactions: Hash([9; 32]), ..base.clone() },
        Header { state_root: Hash([9; 32]), ..base.clone() },
        Header { last_commit: Hash([9; 32]), ..base.clone() },
        Header { next_committee: None, ..base.clone() },
        Header { time_ms: base.time_ms + 1, ..base.clone() },
    ];
    for header in by_hash {
        assert!(matches!(refused(&header, certificate, next.as_ref()), AdvanceError::OtherBlock { .. }));
    }
    // A forger who adapts the certificate lacks the signatures.
    let forged = Header { state_root: Hash([9; 32]), ..base.clone() };
    let forged_certificate =
        CommitCertificate::new(2, 0, forged.id(), certificate.signatures().clone()).unwrap();
    let error = refused(&forged, &forged_certificate, next.as_ref());
    assert!(matches!(error, AdvanceError::Certificate { .. }), "{error}");
}

#[test]
fn a_checkpoint_starts_only_with_the_committee_that_it_puts_in_place() {
    let blocks = changing_chain();
    let (second, third) = (blocks[1].0.header(), &blocks[2]);
    let error = TrustedChain::from_checkpoint(second, committee(0, 10, &SEEDS)).unwrap_err();
    assert!(matches!(error, AdvanceError::CommitteeMismatch { .. }));
    let mut chain = TrustedChain::from_checkpoint(second, blocks[1].2.clone().unwrap()).unwrap();
    chain.advance(third.0.header(), &third.1, None).unwrap();
    assert_eq!(chain.height(), 3);
}

#[test]
fn an_answer_holds_at_a_block_that_changes_the_committee() {
    let chain = Chain::new(10, &SEEDS);
    let mut tree = Tree::default();
    tree.insert(b"key", b"value");
    let next = committee(1, 10, &SEEDS);
    let block = Block::build(Draft { state_root: tree.root(), ..chain.draft(&[], Some(&next)) }).unwrap();
    let answer = |seeds: &[u8]| Answer {
        head: Some((block.header().clone(), certificate(chain.tip.committee(), seeds, &block))),
        proofs: vec![tree.prove(b"key")],
    };
    let mut trusted = TrustedChain::from_genesis(NETWORK, Committee::clone(chain.tip.committee()));
    let keys = [b"key".to_vec()];
    let values = answer(&SEEDS).verify(&mut trusted, &EMPTY_ROOT, &keys);
    assert_eq!(values, Ok(vec![Some(b"value".to_vec())]));
    assert_eq!(trusted.height(), 0, "who signs the next block is not known");
    let unproven = answer(&SEEDS[..1]).verify(&mut trusted, &EMPTY_ROOT, &keys);
    assert!(matches!(unproven, Err(AnswerError::Head(AdvanceError::Certificate { .. }))), "{unproven:?}");
}

#[test]
fn an_answer_keeps_its_bound() {
    let error = Answer::from_bytes(&vec![0; ANSWER_BYTES_MAX + 1]);
    let too_long = DecodeError::TooLong { got: ANSWER_BYTES_MAX + 1, limit: ANSWER_BYTES_MAX };
    assert_eq!(error, Err(AnswerError::Decode(too_long)));
}

#[test]
fn the_hash_of_a_committee_covers_its_epoch() {
    assert_ne!(committee_hash(&committee(0, 10, &SEEDS)), committee_hash(&committee(1, 10, &SEEDS)));
}

#[test]
fn turns_are_dealt_by_shards_and_spread() {
    for (n_shards, seeds) in [(10, &SEEDS[..]), (100, &[1, 2, 3, 4, 5, 6, 7]), (5, &[1, 2, 3])] {
        let committee = committee(0, n_shards, seeds);
        let rotation = Rotation::new(&committee);
        for start in [0_u64, 3, u64::MAX / 2] {
            let mut turns = BTreeMap::<NodeIndex, u16>::new();
            for height in start..start + u64::from(n_shards) {
                *turns.entry(rotation.proposer(height, 0)).or_default() += 1;
                assert_ne!(rotation.proposer(height, 0), rotation.proposer(height, 1), "turns in a row");
            }
            assert!(turns.iter().all(|(node, n)| committee.weight(*node) == *n), "{turns:?}");
        }
        assert_eq!(rotation.proposer(u64::MAX, u32::MAX), rotation.proposer(u64::MAX, u32::MAX));
    }
}

fn any_commit() -> impl Strategy<Value = CommitCertificate> {
    let signatures = proptest::collection::btree_map(0..SIGNATURES_MAX, any::<u8>(), 0..6);
    (any::<u64>(), any::<u32>(), any::<[u8; 32]>(), signatures).prop_map(|(height, round, id, signatures)| {
        let signatures = signatures.into_iter().map(|(node, byte)| (NodeIndex(node), Signature([byte; 64])));
        CommitCertificate::new(height, round, BlockId(id), signatures).unwrap()
    })
}

fn any_block() -> impl Strategy<Value = Block> {
    let transactions = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5);
    (transactions, proptest::option::of(any_commit()), any::<u32>()).prop_map(
        |(transactions, last_commit, time)| {
            let draft = Chain::new(4, &SEEDS).draft(&[], None);
            Block::build(Draft { transactions, last_commit, time_ms: u64::from(time), ..draft }).unwrap()
        },
    )
}

fn any_signature() -> impl Strategy<Value = Signature> {
    any::<[u8; 32]>().prop_map(|half| Signature(std::array::from_fn(|i| half[i % 32])))
}

fn any_vote() -> impl Strategy<Value = SignedVote> {
    let fields = (any::<u64>(), any::<u32>(), any::<bool>(), any::<Option<[u8; 32]>>(), any::<[u8; 32]>());
    (fields, any_signature()).prop_map(|((height, round, prevote, block, voter), signature)| {
        let kind = if prevote { VoteKind::Prevote } else { VoteKind::Precommit };
        let vote = Vote { height, round, kind, block: block.map(BlockId), voter: PeerId(voter) };
        SignedVote { vote, signature }
    })
}

fn any_message() -> impl Strategy<Value = Message> {
    let votes = || proptest::collection::vec(any_vote(), 0..4);
    let proposal = (any_block(), any_vote(), any::<Option<u32>>()).prop_map(|(block, signed, lock_round)| {
        let Vote { height, round, voter: proposer, .. } = signed.vote;
        let proposal = Proposal { height, round, lock_round, block: block.id(), proposer };
        let proposal = SignedProposal { proposal, signature: signed.signature };
        Message::Proposal { proposal, block: Arc::new(block) }
    });
    let polka = (any_vote(), votes()).prop_map(|(of, votes)| {
        let signatures = votes.into_iter().map(|it| (it.vote.voter, it.signature)).collect();
        let Vote { height, round, block, .. } = of.vote;
        Message::Polka(PolkaCertificate {
            height,
            round,
            block: block.unwrap_or(BlockId([0; 32])),
            signatures,
        })
    });
    let round = (any_vote(), votes()).prop_map(|(of, votes)| {
        let votes = votes.into_iter().map(|it| (it.vote.kind, it.vote.block, it.vote.voter, it.signature));
        let Vote { height, round, .. } = of.vote;
        Message::Round(RoundCertificate { height, round, reason: RoundReason::Skip, votes: votes.collect() })
    });
    let transactions = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..5);
    prop_oneof![
        proposal,
        any_vote().prop_map(Message::Vote),
        polka,
        round,
        any::<u64>().prop_map(|height| Message::Status { height }),
        transactions.prop_map(Message::Transactions),
    ]
}

fn any_response() -> impl Strategy<Value = Response> {
    let decided = (any_block(), any_commit())
        .prop_map(|(block, certificate)| Decided { block: Arc::new(block), certificate });
    prop_oneof![
        any::<u64>().prop_map(|height| Response::Status { height }),
        proptest::collection::vec(decided, 0..4).prop_map(Response::Blocks),
        proptest::option::of(any_link()).prop_map(|link| Response::Link(link.map(Box::new))),
        proptest::collection::vec(any::<u8>(), 0..100).prop_map(Response::Committee),
        (any_tree(), any::<prop::sample::Index>(), 0..2_000_usize).prop_map(|(tree, after, bytes_aim)| {
            let keys: Vec<&[u8]> = tree.entries().map(|(key, _)| key).collect();
            let after = keys.get(after.index(keys.len() + 1));
            Response::Page(tree.page(after.copied(), bytes_aim))
        }),
    ]
}

fn any_link() -> impl Strategy<Value = Link> {
    (any_block(), any_commit(), any::<bool>()).prop_map(|(block, certificate, has_state)| Link {
        header: block.header().clone(),
        certificate,
        has_state,
    })
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
    proptest::collection::btree_map(bytes(8), bytes(300), 0..12).prop_map(|entries| {
        let mut tree = Tree::default();
        for (key, value) in entries {
            tree.insert(&key, &value);
        }
        tree
    })
}

#[test]
fn bounds_of_what_snapshots_travel_in_are_kept() {
    let request = |len| Request::Page { height: u64::MAX, after: Some(vec![1; len]) };
    let longest = request(KEY_BYTES_MAX).encode();
    assert!(longest.len() <= REQUEST_BYTES_MAX);
    assert_eq!(Request::decode(&longest), Ok(request(KEY_BYTES_MAX)));
    assert!(Request::decode(&request(KEY_BYTES_MAX + 1).encode()).is_err());
    for request in [Request::Link { after: 7 }, Request::Committee { height: 7, offset: u32::MAX }] {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    let part = |len| Response::Committee(vec![1; len]);
    assert_eq!(Response::decode(&part(COMMITTEE_PART_BYTES).encode()), Ok(part(COMMITTEE_PART_BYTES)));
    assert!(Response::decode(&part(COMMITTEE_PART_BYTES + 1).encode()).is_err());
}

#[test]
fn the_worst_pages_fit_into_a_frame() {
    // The longest path there can be, with keys that share all their bits but one: a branch and a hash for each at both borders.
    let mut tree = Tree::default();
    for bit in 0..8 * KEY_BYTES_MAX {
        for (first, fill) in [(0_u8, 0_u8), (0xff, 0xff)] {
            let mut key = vec![fill; KEY_BYTES_MAX];
            key[bit / 8] ^= 0x80 >> (bit % 8);
            key[0] = if bit < 8 { key[0] } else { first };
            tree.insert(&key, &[7; 3]);
        }
    }
    // And entries of the largest kind in the middle, and of the smallest.
    for i in 0..3_000_u16 {
        let len = if i < 40 { VALUE_BYTES_MAX } else { 0 };
        tree.insert(&[&[0x7f][..], &i.to_be_bytes()].concat(), &vec![1; len]);
    }
    let mut restore = Restore::new(tree.root());
    let mut n_pages = 0;
    while !restore.is_complete() {
        let after = restore.last_key().map(<[u8]>::to_vec);
        let page = Response::Page(tree.page(after.as_deref(), STATE_PAGE_BYTES_AIM));
        let bytes = page.encode();
        assert!(bytes.len() <= RESPONSE_BYTES_MAX, "a page of {} bytes", bytes.len());
        let Ok(Response::Page(Some(page))) = Response::decode(&bytes) else { panic!("a page is read") };
        restore.accept(page).unwrap();
        n_pages += 1;
    }
    assert!(n_pages > 5);
    assert_eq!(restore.finish().unwrap().root(), tree.root());
}

#[test]
fn bounds_of_messages_are_kept() {
    let vote = (VoteKind::Prevote, None, PeerId([1; 32]), Signature([1; 64]));
    let round = |n: u16| {
        let votes = vec![vote; usize::from(n)];
        let round = RoundCertificate { height: 1, round: 0, reason: RoundReason::Skip, votes };
        Message::decode(&Message::Round(round).encode())
    };
    assert!(round(SIGNATURES_MAX).is_ok());
    assert!(round(SIGNATURES_MAX + 1).unwrap_err().to_string().contains("1001 votes"));
    let batch =
        |n: usize, len: usize| Message::decode(&Message::Transactions(vec![vec![0; len]; n]).encode());
    assert!(batch(BATCH_TRANSACTIONS_MAX, 1).is_ok());
    assert!(batch(BATCH_TRANSACTIONS_MAX + 1, 1).is_err());
    assert!(batch(4, BATCH_BYTES_MAX / 4).is_ok());
    assert!(batch(4, BATCH_BYTES_MAX / 4 + 1).is_err());

    // The longest block, as a proposal and as an answer.
    let chain = Chain::new(10, &SEEDS);
    let transactions = vec![vec![0; TRANSACTION_BYTES_MAX - 100]; 10];
    let block = Arc::new(Block::build(Draft { transactions, ..chain.draft(&[], None) }).unwrap());
    let proposal =
        Proposal { height: 1, round: 0, lock_round: Some(0), block: block.id(), proposer: key(1).peer() };
    let message = Message::Proposal { proposal: proposal.sign(&NETWORK, &key(1)), block: Arc::clone(&block) };
    assert_eq!(Message::decode(&message.encode()), Ok(message));
    let certificate = certificate(chain.tip.committee(), &SEEDS, &block);
    let response = Response::Blocks(vec![Decided { block, certificate }]);
    assert_eq!(Response::decode(&response.encode()), Ok(response));
    let empty = Response::Blocks(Vec::new());
    assert_eq!(Response::decode(&empty.encode()), Ok(empty));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_survive_their_form_and_have_one(
        message in any_message(),
        response in any_response(),
        at in any::<prop::sample::Index>(),
        mask in 1..=255_u8,
    ) {
        let mut bytes = message.encode();
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
        let place = at.index(bytes.len());
        bytes[place] ^= mask;
        if let Ok(other) = Message::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
        let mut bytes = response.encode();
        prop_assert_eq!(Response::decode(&bytes), Ok(response));
        let place = at.index(bytes.len());
        bytes[place] ^= mask;
        if let Ok(other) = Response::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn blocks_and_certificates_survive_their_form(block in any_block(), commit in any_commit()) {
        prop_assert_eq!(Block::decode(&codec::encode(&block)), Ok(block));
        prop_assert_eq!(CommitCertificate::decode(&codec::encode(&commit)), Ok(commit));
    }

    #[test]
    fn no_byte_of_a_block_can_be_changed_unnoticed(block in any_block(), at in any::<prop::sample::Index>(), mask in 1..=255_u8) {
        let mut bytes = codec::encode(&block);
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        if let Ok(other) = Block::decode(&bytes) {
            prop_assert_ne!(other.id(), block.id());
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), tag in 0..8_u8) {
        let mut tagged = vec![tag, 0, 0, 0];
        tagged.extend(&bytes);
        for bytes in [&bytes, &tagged] {
            let _ = Block::decode(bytes);
            if let Ok(commit) = CommitCertificate::decode(bytes) {
                prop_assert_eq!(&codec::encode(&commit), bytes);
            }
            if let Ok(message) = Message::decode(bytes) {
                prop_assert_eq!(&message.encode(), bytes);
            }
            if let Ok(request) = Request::decode(bytes) {
                prop_assert_eq!(&request.encode(), bytes);
            }
            if let Ok(response) = Response::decode(bytes) {
                prop_assert_eq!(&response.encode(), bytes);
            }
        }
    }
}
