//! The ledger: transactions, blocks, certificates, committees, answers, entries, pages of its state.

use std::sync::{Arc, LazyLock};

use protocol::{
    certificate::{
        CERTIFICATE_BYTES_MAX, CertificateOfAvailability, InvalidityAttestation, InvalidityCertificate,
        StorageConfirmation,
    },
    codec,
    committee::{CertifiedCommittee, Committee},
    hash::Hash,
    ledger::{
        answer::{ANSWER_BYTES_MAX, Answer, Range},
        block::{BLOCK_BYTES_MAX, Block, Decided, Header, commit_hash, transactions_hash},
        chain::TrustedChain,
        commit::CommitCertificate,
        state::{State, key as entry_key},
        transaction::{Action, SignedTransaction, TRANSACTION_BYTES_MAX},
        tree::{Entry, KEY_BYTES_MAX, PAGE_BYTES_AIM, Page, Restore, Tree, VALUE_BYTES_MAX},
        wire::COMMITTEE_BYTES_MAX,
    },
};

use super::{
    Seed, Target,
    fixture::{SMALL_WORLD, WORLD, key, small_genesis},
    input::is_sampled,
    is_canonical,
};

/// Limits that nodes and clients decode with, for what is decoded without a function of its own.
const COMMITTEE_LIMIT: usize = 4 * COMMITTEE_BYTES_MAX;
const PARTS_LIMIT: usize = 4 * BLOCK_BYTES_MAX;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "transaction",
        bytes_max: TRANSACTION_BYTES_MAX + 16,
        memory_max: 128 << 10,
        run: transaction,
        seeds: || WORLD.transactions.iter().map(|(name, it)| (*name, it.to_bytes())).collect(),
    },
    Target { name: "block", bytes_max: 16 << 10, memory_max: 1 << 20, run: block, seeds: blocks },
    Target {
        name: "commit_certificate",
        bytes_max: 4 << 10,
        memory_max: 64 << 10,
        run: commit_certificate,
        seeds: || vec![("commit", codec::encode(&WORLD.blocks[1].certificate))],
    },
    Target {
        name: "certificate",
        bytes_max: CERTIFICATE_BYTES_MAX + 16,
        memory_max: 64 << 10,
        run: certificate,
        seeds: || {
            vec![
                ("availability", codec::encode(&WORLD.availability())),
                ("invalidity", codec::encode(&WORLD.invalidity())),
            ]
        },
    },
    Target {
        name: "committee",
        bytes_max: 1 << 10,
        memory_max: COMMITTEE_LIMIT + (512 << 10),
        run: committee,
        seeds: || {
            [("one", 1), ("two", 2)]
                .map(|(name, n)| (name, codec::encode(small_genesis(n).committee())))
                .to_vec()
        },
    },
    Target { name: "answer", bytes_max: 16 << 10, memory_max: 2 << 20, run: answer, seeds: answers },
    Target { name: "range", bytes_max: 16 << 10, memory_max: 2 << 20, run: range, seeds: ranges },
    Target { name: "page", bytes_max: 16 << 10, memory_max: 2 << 20, run: page, seeds: pages },
    Target { name: "state", bytes_max: 16 << 10, memory_max: 4 << 20, run: state, seeds: states },
];

fn transaction(bytes: &[u8]) -> bool {
    let Ok(signed) = SignedTransaction::from_bytes(bytes) else { return false };
    let form = signed.to_bytes();
    if let Ok(verified) = signed.verify(&WORLD.network) {
        // What the sender did sign is executed or rejected, whatever the state.
        for state in [&WORLD.before, &WORLD.state] {
            let _ = state.clone().apply(&verified);
        }
    }
    is_canonical(bytes, Some(form))
}

/// Blocks as they are, and with a header that is made to fit the rest.
fn block(bytes: &[u8]) -> bool {
    let is_block = is_canonical(bytes, Block::decode(bytes).ok().map(|block| codec::encode(&block)));
    let is_decided = codec::decode_exact::<Decided, PARTS_LIMIT>(bytes).is_ok();
    type Parts = (Header, Option<CommitCertificate>, Vec<Vec<u8>>);
    let Ok((header, last_commit, transactions)) = codec::decode_exact::<Parts, PARTS_LIMIT>(bytes) else {
        return is_block | is_decided;
    };
    let header = Header {
        transactions: transactions_hash(&transactions),
        last_commit: commit_hash(last_commit.as_ref()),
        ..header
    };
    let is_bounded = transactions.iter().all(|transaction| transaction.len() <= TRANSACTION_BYTES_MAX);
    let sealed = codec::encode(&(header, last_commit, transactions));
    let decoded = Block::decode(&sealed);
    assert_eq!(
        decoded.is_ok(),
        is_bounded,
        "a block whose header fits is taken, within its bounds: {decoded:?}"
    );
    is_canonical(&sealed, decoded.ok().map(|block| codec::encode(&block)))
}

fn commit_certificate(bytes: &[u8]) -> bool {
    let Ok(certificate) = CommitCertificate::decode(bytes) else { return false };
    let is_proven = certificate.verify(&WORLD.network, &WORLD.committee).is_ok();
    let known = &WORLD.blocks[1].certificate;
    // Nobody else's keys are here, so what verifies is of signatures that members made.
    assert!(
        !is_proven
            || WORLD.blocks.iter().any(|it| it.block.id() == certificate.block_id())
            || certificate == *known
    );
    is_canonical(bytes, Some(codec::encode(&certificate)))
}

/// What the certificates of the fixture say.
static CERTIFIED: LazyLock<(StorageConfirmation, InvalidityAttestation)> =
    LazyLock::new(|| (*WORLD.availability().statement(), *WORLD.invalidity().statement()));

fn certificate(bytes: &[u8]) -> bool {
    let availability = codec::decode_exact::<CertificateOfAvailability, CERTIFICATE_BYTES_MAX>(bytes).ok();
    if let Some(certificate) = &availability {
        let is_proven = certificate.verify(&WORLD.network, &WORLD.committee).is_ok();
        assert!(!is_proven || *certificate.statement() == CERTIFIED.0, "forged");
    }
    let invalidity = codec::decode_exact::<InvalidityCertificate, CERTIFICATE_BYTES_MAX>(bytes).ok();
    if let Some(certificate) = &invalidity {
        let is_proven = certificate.verify(&WORLD.network, &WORLD.committee).is_ok();
        assert!(!is_proven || *certificate.statement() == CERTIFIED.1, "forged");
    }
    let is_availability = is_canonical(bytes, availability.map(|it| codec::encode(&it)));
    is_canonical(bytes, invalidity.map(|it| codec::encode(&it))) | is_availability
}

fn committee(bytes: &[u8]) -> bool {
    let Ok(CertifiedCommittee(certified)) = codec::decode_exact::<_, COMMITTEE_LIMIT>(bytes) else {
        assert!(
            codec::decode_exact::<Committee, COMMITTEE_LIMIT>(bytes).is_err(),
            "less is checked of a certified one"
        );
        return false;
    };
    // A pairing a member.
    if is_sampled(bytes, 16)
        && let Ok(checked) = codec::decode_exact::<Committee, COMMITTEE_LIMIT>(bytes)
    {
        assert_eq!(checked, certified);
    }
    let weight: u16 = certified.nodes().map(|node| certified.weight(node)).sum();
    assert_eq!(weight, certified.n_shards(), "each shard has one owner");
    is_canonical(bytes, Some(codec::encode(&certified)))
}

static CHAIN: LazyLock<TrustedChain> =
    LazyLock::new(|| TrustedChain::from_genesis(WORLD.network, Arc::clone(&WORLD.committee)));

/// What is asked for: an entry that there always is, one that changes, one that there is not.
static KEYS: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    [entry_key::head(), entry_key::account(&key(4).account()), entry_key::account(&key(99).account())]
});

static ROOT: LazyLock<Hash> = LazyLock::new(|| WORLD.before.root());

/// What verifies is what the ledger says.
fn answer(bytes: &[u8]) -> bool {
    let Ok(answer) = Answer::from_bytes(bytes) else { return false };
    let _ = (answer.height(), answer.epoch());
    for n in 0..=KEYS.len() {
        let keys = &KEYS[..n];
        if let Ok(values) = answer.verify(&mut CHAIN.clone(), &ROOT, keys) {
            for (key, value) in keys.iter().zip(values) {
                assert_eq!(value.as_deref(), state_at(answer.height()).tree().get(key), "a forged value");
            }
        }
    }
    is_canonical(bytes, Some(answer.to_bytes()))
}

/// The state that an answer of this height speaks of.
fn state_at(height: u64) -> &'static State {
    let height = usize::try_from(height).unwrap_or(usize::MAX);
    WORLD.states.get(height).expect("nobody has signed a later block")
}

fn range(bytes: &[u8]) -> bool {
    let Ok(range) = Range::from_bytes(bytes) else { return false };
    let form = range.to_bytes();
    let _ = range.epoch();
    let height = range.head.as_ref().map_or(0, |(header, _)| header.height);
    if let Ok((entries, _)) = range.verify(&mut CHAIN.clone(), &ROOT, &KEYS[1]) {
        for Entry { key, value } in entries {
            assert_eq!(Some(&value[..]), state_at(height).tree().get(&key), "a forged entry");
        }
    }
    is_canonical(bytes, Some(form))
}

/// Pages against the root of the fixture's state: what is taken is part of it.
fn page(bytes: &[u8]) -> bool {
    let Ok(page) = codec::decode_exact::<Page, { 4 * PAGE_BYTES_AIM }>(bytes) else { return false };
    let form = codec::encode(&page);
    let mut restore = Restore::new(WORLD.state.root());
    if restore.accept(page.clone()).is_ok() {
        let last = restore.last_key().map(<[u8]>::to_vec);
        assert!(last.is_none_or(|last| WORLD.state.tree().get(&last).is_some()), "a forged entry");
        if restore.accept(page.clone()).is_err() && restore.is_complete() {
            assert_eq!(restore.finish().map(|tree| tree.root()), Ok(WORLD.state.root()));
        }
    }
    let _ = page.verify_range(&Hash::default(), &[]);
    is_canonical(bytes, Some(form))
}

/// Entries make a tree, and the tree a state, or the reason why not. A state answers whatever it is asked, and takes blocks.
fn state(bytes: &[u8]) -> bool {
    let Ok(entries) = codec::decode_exact::<Vec<Entry>, { 4 << 20 }>(bytes) else { return false };
    let mut tree = Tree::default();
    for Entry { key, value } in entries {
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return false;
        }
        tree.insert(&key, &value);
    }
    let Ok(mut state) = State::open(tree) else { return false };
    let _ =
        (state.head(), state.parameters(), state.due_ms(), state.total(), state.new_committee().is_some());
    let _ = state.nodes().take(100).filter(Result::is_err).count();
    let _ = state.blobs_from(&SMALL_WORLD.blob.header.blob_id()).take(100).filter(Result::is_err).count();
    let head = state.head().ok();
    if let Some(head) = head {
        for later_ms in [1, 60_000, 120_000, u64::MAX / 2] {
            let mut next = state.clone();
            let _ = next.begin_block(head.height.saturating_add(1), head.time_ms.saturating_add(later_ms));
        }
    }
    let with_pairings = is_sampled(bytes, 16);
    for verified in &SMALL_WORLD.verified {
        let takes_a_pairing = matches!(
            verified.transaction().action,
            Action::CertifyBlob { .. } | Action::StoreBlob { .. } | Action::RegisterNode { .. }
        );
        if with_pairings || !takes_a_pairing {
            let _ = state.apply(verified);
        }
    }
    let _ = state.end_block();
    true
}

fn blocks() -> Vec<Seed> {
    let decided = &WORLD.blocks;
    vec![
        ("first", codec::encode(&*decided[0].block)),
        ("second", codec::encode(&*decided[1].block)),
        ("change", codec::encode(&*decided[2].block)),
        ("decided", codec::encode(&decided[1])),
    ]
}

fn answers() -> Vec<Seed> {
    let prove = |state: &State, keys: &[Vec<u8>]| keys.iter().map(|key| state.tree().prove(key)).collect();
    let change = WORLD.blocks.last().map(|it| (it.block.header().clone(), it.certificate.clone()));
    let answers = [
        ("genesis", Answer { head: None, proofs: prove(&WORLD.before, &*KEYS) }),
        ("head", Answer { head: change, proofs: prove(&WORLD.state, &*KEYS) }),
        ("nothing", Answer { head: Some(WORLD.head()), proofs: Vec::new() }),
    ];
    answers.into_iter().map(|(name, answer)| (name, answer.to_bytes())).collect()
}

fn ranges() -> Vec<Seed> {
    let start = &KEYS[1];
    let change = WORLD.blocks.last().map(|it| (it.block.header().clone(), it.certificate.clone()));
    let ranges = [
        ("genesis", Range { head: None, page: WORLD.before.tree().range_page(start, 600) }),
        ("head", Range { head: change, page: WORLD.state.tree().range_page(start, 600) }),
    ];
    ranges.into_iter().map(|(name, range)| (name, range.to_bytes())).collect()
}

fn pages() -> Vec<Seed> {
    let tree = WORLD.state.tree();
    let page = |after: Option<&[u8]>, aim| codec::encode(&tree.page(after, aim));
    // A page is encoded within an option, as it is found; what follows the first byte is the page.
    let bare = |bytes: Vec<u8>| bytes.get(1..).map(<[u8]>::to_vec).unwrap_or_default();
    vec![
        ("whole", bare(page(None, usize::MAX))),
        ("first", bare(page(None, 500))),
        ("later", bare(page(Some(&entry_key::parameters()), 500))),
    ]
}

fn states() -> Vec<Seed> {
    let form = |state: &State| {
        let entries = state.tree().entries();
        let entries: Vec<Entry> =
            entries.map(|(key, value)| Entry { key: key.to_vec(), value: value.to_vec() }).collect();
        codec::encode(&entries)
    };
    let mut handover = SMALL_WORLD.state.clone();
    handover.advance_epoch(Arc::new(SMALL_WORLD.next.clone())).expect("the next committee takes over");
    vec![
        ("genesis", form(&SMALL_WORLD.before)),
        ("blocks", form(&SMALL_WORLD.state)),
        ("handover", form(&handover)),
    ]
}

const _: () = assert!(
    ANSWER_BYTES_MAX >= 16 << 10,
    "answers as long as they are fuzzed are not refused for their length"
);
