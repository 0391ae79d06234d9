//! What peers and clients send each other: frames, messages, announcements, addresses.

use std::str::FromStr;

use node::config::PeerAddress;
use protocol::{
    AccountId, BlobId, Epoch, PeerId, SegmentIndex, SliverPairIndex,
    bls::{ProofOfPossession, PublicKey, Signature},
    certificate::InvalidityAttestation,
    codec,
    encoding::Axis,
    hash::Hash,
    ledger::{
        answer,
        vote::{Proposal, SignedVote, Vote, VoteKind},
        wire::{self, Link, Message, PolkaCertificate, RoundCertificate, RoundReason},
    },
    message::{NodeHealth, REASON_BYTES_MAX, Refusal, Request, Response, SliverAt, SymbolAt},
};
use swarm::{Address, HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX};

use super::{
    Seed, Target,
    fixture::{WORLD, key, sign},
    is_canonical,
};

/// Bytes of requests that may be held at a time: less than the largest frame, so that the budget is met.
const REQUEST_BUDGET: usize = 64 << 10;
/// A header of a frame, and what its lists take in memory: the limit of the decoder, the value, and its form again.
const MESSAGE_MEMORY: usize = 256 << 10;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "request",
        bytes_max: HEADER_BYTES_MAX,
        memory_max: MESSAGE_MEMORY,
        run: |bytes| is_canonical(bytes, Request::from_bytes(bytes).ok().map(|it| it.to_bytes())),
        seeds: requests,
    },
    Target {
        name: "response",
        bytes_max: HEADER_BYTES_MAX,
        memory_max: MESSAGE_MEMORY,
        run: |bytes| is_canonical(bytes, Response::from_bytes(bytes).ok().map(|it| it.to_bytes())),
        seeds: responses,
    },
    Target {
        name: "request_frame",
        bytes_max: 8 << 10,
        // Room for the largest frame is made before its bytes come.
        memory_max: 2 * (HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX) + (64 << 10),
        run: |bytes| begins(bytes, swarm::fuzz::request_frame(bytes, REQUEST_BUDGET)),
        seeds: || request_frames(&[]),
    },
    Target {
        name: "answer_frame",
        bytes_max: 8 << 10,
        memory_max: 2 * (HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX) + (64 << 10),
        run: |bytes| begins(bytes, swarm::fuzz::answer_frame(bytes)),
        seeds: || {
            let mut seeds = request_frames(&[0]);
            seeds.extend([("refused", vec![1]), ("busy", vec![2])]);
            seeds
        },
    },
    Target {
        name: "announcement",
        bytes_max: 4 << 10,
        memory_max: 256 << 10,
        run: |bytes| is_canonical(bytes, node::fuzz::announcement(bytes)),
        seeds: || vec![("head", codec::encode(&WORLD.head())), ("change", codec::encode(&change()))],
    },
    Target {
        name: "ledger_message",
        bytes_max: 16 << 10,
        memory_max: 1 << 20,
        run: ledger_message,
        seeds: ledger_messages,
    },
    Target {
        name: "ledger_request",
        bytes_max: 256,
        memory_max: 16 << 10,
        run: |bytes| is_canonical(bytes, wire::Request::decode(bytes).ok().map(|it| it.encode())),
        seeds: ledger_requests,
    },
    Target {
        name: "ledger_response",
        bytes_max: 32 << 10,
        memory_max: 1 << 20,
        run: |bytes| is_canonical(bytes, wire::Response::decode(bytes).ok().map(|it| it.encode())),
        seeds: ledger_responses,
    },
    Target { name: "address", bytes_max: 400, memory_max: 64 << 10, run: address, seeds: addresses },
    Target {
        name: "multiaddress",
        bytes_max: 400,
        memory_max: 64 << 10,
        run: |bytes| swarm::fuzz::peer_address(bytes).is_some_and(|it| it.to_string().parse() == Ok(it)),
        seeds: multiaddresses,
    },
    Target { name: "ids", bytes_max: 256, memory_max: 16 << 10, run: ids, seeds: id_texts },
];

/// Whether bytes begin with what was read of them: what follows on a stream is the next frame's.
fn begins(bytes: &[u8], form: Option<Vec<u8>>) -> bool {
    let Some(form) = form else { return false };
    assert!(bytes.starts_with(&form), "what is accepted has one form");
    true
}

fn ledger_message(bytes: &[u8]) -> bool {
    let Ok(message) = Message::decode(bytes) else { return false };
    match &message {
        Message::Proposal { proposal, block } => {
            let _ = (proposal.verify(&WORLD.network), block.id());
        }
        Message::Vote(vote) => {
            let _ = vote.verify(&WORLD.network);
        }
        Message::Polka(_) | Message::Round(_) | Message::Status { .. } | Message::Transactions(_) => {}
    }
    let _ = message.height();
    is_canonical(bytes, Some(message.encode()))
}

/// What a text says, it says again when it is written; where it is written in one way only, as it was.
fn address(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let address = text.parse::<Address>();
    if let Ok(address) = &address {
        assert_eq!(address.to_string().parse().as_ref(), Ok(address));
    }
    let peer = text.parse::<PeerAddress>();
    if let Ok(peer) = &peer {
        assert_eq!(peer.to_string().parse().as_ref(), Ok(peer));
    }
    for error in
        [address.as_ref().err().map(ToString::to_string), peer.as_ref().err().map(ToString::to_string)]
    {
        assert!(error.is_none_or(|error| error.len() < 2 << 10), "an error quotes little");
    }
    address.is_ok() || peer.is_ok()
}

/// A blob ID is written in one way; hexadecimal digits may be of either case.
fn ids(bytes: &[u8]) -> bool {
    fn again<T: FromStr + ToString>(text: &str) -> bool {
        text.parse::<T>().is_ok_and(|id| {
            assert_eq!(id.to_string(), text.to_ascii_lowercase());
            true
        })
    }
    let Ok(text) = str::from_utf8(bytes) else { return false };
    if let Ok(blob_id) = text.parse::<BlobId>() {
        assert_eq!(blob_id.to_string(), text);
        return true;
    }
    let is_id = again::<PeerId>(text) | again::<AccountId>(text);
    is_id | again::<PublicKey>(text) | again::<Signature>(text) | again::<ProofOfPossession>(text)
}

fn at() -> SliverAt {
    SliverAt {
        blob_id: WORLD.blob.header.blob_id(),
        segment: SegmentIndex(0),
        pair: SliverPairIndex(3),
        axis: Axis::Secondary,
    }
}

fn requests() -> Vec<Seed> {
    let (header, blob_id, segment) =
        (*WORLD.blob.header.header(), WORLD.blob.header.blob_id(), SegmentIndex(0));
    let registration = WORLD.availability().statement().registration;
    let symbol = SymbolAt { axis: Axis::Primary, index: 2, crossing: 5 };
    let epoch = Epoch(0);
    let keys = vec![protocol::ledger::state::key::head(), vec![7; answer::KEY_BYTES_MAX]];
    let requests = [
        ("store-commitment", Request::StoreCommitment { header, segment, path: vec![Hash([1; 32]); 3] }),
        ("store-sliver", Request::StoreSliver { at: at(), offset: 240 << 10 }),
        ("confirm", Request::Confirm { header, registration, epoch }),
        ("store-blob", Request::StoreBlob { header, registration, epoch, order_bytes: 300 }),
        ("fetch-commitment", Request::FetchCommitment { blob_id, segment }),
        ("fetch-sliver", Request::FetchSliver { at: at(), offset: 0, len: 240 << 10 }),
        (
            "fetch-symbols",
            Request::FetchSymbols { blob_id, segment, symbols: vec![symbol; 9], offset: 0, len: 64 },
        ),
        ("fetch-symbol-proof", Request::FetchSymbolProof { blob_id, segment, symbol }),
        ("attest", Request::Attest { blob_id, evidence_bytes: 4096 }),
        ("fetch-evidence", Request::FetchEvidence { blob_id, offset: 0, len: 4096 }),
        ("health", Request::Health),
        ("ledger", Request::Ledger(wire::Request::Blocks { from: 3, n_max: 64 })),
        ("entries", Request::Entries { keys: keys.clone() }),
        ("range", Request::Range { start: keys[1].clone() }),
        ("submit", Request::Submit { keys }),
    ];
    requests.into_iter().map(|(name, request)| (name, request.to_bytes())).collect()
}

fn responses() -> Vec<Seed> {
    let member = WORLD.committee.index_of(&key(2).peer()).expect("a member");
    let statement = InvalidityAttestation { epoch: Epoch(0), blob_id: WORLD.blob.header.blob_id() };
    let signed = sign(&WORLD.network, &statement, 2, member);
    let health = NodeHealth {
        name: "node-2".to_owned(),
        shards: 2,
        blobs: 10,
        slivers_held: 40,
        slivers_missing: 1,
        repair_bytes_received: 1 << 20,
        repair_bytes_regained: 1 << 19,
        slivers_corrupt: 0,
        peers: 6,
        uptime_seconds: 86_400,
        ledger_height: 12,
        ledger_root: WORLD.state.root(),
    };
    let path = vec![Hash([2; 32]); 3];
    let responses = [
        ("done", Response::Done),
        ("confirmed", Response::Confirmed(signed)),
        ("missing", Response::Missing { slivers: 3 }),
        ("commitment", Response::Commitment { header: *WORLD.blob.header.header(), path: path.clone() }),
        ("sliver", Response::Sliver { parity: Hash([3; 32]) }),
        ("symbols", Response::Symbols),
        ("symbol-proof", Response::SymbolProof { path, other_part: Hash([4; 32]) }),
        ("attested", Response::Attested(signed)),
        ("evidence", Response::Evidence),
        ("health", Response::Health(health)),
        ("refused", Response::Refused(Refusal::NotMine)),
        ("rejected", Response::Refused(Refusal::Rejected("x".repeat(REASON_BYTES_MAX)))),
        ("wrong-epoch", Response::Refused(Refusal::WrongEpoch { current: Epoch(7) })),
        ("ledger", Response::Ledger),
        ("submitted", Response::Submitted { height: 12 }),
    ];
    responses.into_iter().map(|(name, response)| (name, response.to_bytes())).collect()
}

/// Frames behind their outcome, if there is one.
fn request_frames(outcome: &[u8]) -> Vec<Seed> {
    let frame = |header: &[u8], payload: &[u8]| {
        let length = |part: &[u8]| u32::try_from(part.len()).expect("a part is short").to_le_bytes();
        [outcome, &length(header), &length(payload), header, payload].concat()
    };
    let request = Request::StoreSliver { at: at(), offset: 0 }.to_bytes();
    vec![
        ("empty", frame(&[], &[])),
        ("header", frame(&request, &[])),
        ("payload", frame(&request, &[7; 600])),
        ("steps", frame(&request, &[8; 7 << 10])),
    ]
}

/// The last block of the fixture, which changes the committee.
fn change() -> (protocol::ledger::block::Header, protocol::ledger::commit::CommitCertificate) {
    let last = WORLD.blocks.last().expect("there are blocks");
    (last.block.header().clone(), last.certificate.clone())
}

fn vote(kind: VoteKind, number: u8) -> SignedVote {
    let block = Some(WORLD.blocks[1].block.id());
    Vote { height: 2, round: 0, kind, block, voter: key(number).peer() }.sign(&WORLD.network, &key(number))
}

pub(super) fn votes() -> Vec<SignedVote> {
    (0..3).map(|number| vote(VoteKind::Prevote, number)).collect()
}

pub(super) fn proposal() -> protocol::ledger::vote::SignedProposal {
    let block = WORLD.blocks[1].block.id();
    Proposal { height: 2, round: 1, lock_round: Some(0), block, proposer: key(1).peer() }
        .sign(&WORLD.network, &key(1))
}

pub(super) fn polka() -> PolkaCertificate {
    let signatures = votes().iter().map(|vote| (vote.vote.voter, vote.signature)).collect();
    PolkaCertificate { height: 2, round: 0, block: WORLD.blocks[1].block.id(), signatures }
}

fn ledger_messages() -> Vec<Seed> {
    let votes = votes().into_iter().map(|it| (it.vote.kind, it.vote.block, it.vote.voter, it.signature));
    let round =
        RoundCertificate { height: 2, round: 0, reason: RoundReason::Precommits, votes: votes.collect() };
    let transactions = WORLD.transactions.iter().map(|(_, transaction)| transaction.to_bytes()).collect();
    let messages = [
        ("proposal", Message::Proposal { proposal: proposal(), block: WORLD.blocks[1].block.clone() }),
        ("vote", Message::Vote(vote(VoteKind::Precommit, 2))),
        ("polka", Message::Polka(polka())),
        ("round", Message::Round(round)),
        ("status", Message::Status { height: 3 }),
        ("transactions", Message::Transactions(transactions)),
    ];
    messages.into_iter().map(|(name, message)| (name, message.encode())).collect()
}

fn ledger_requests() -> Vec<Seed> {
    let requests = [
        ("status", wire::Request::Status { height: 3 }),
        ("blocks", wire::Request::Blocks { from: 1, n_max: 64 }),
        ("link", wire::Request::Link { after: 0 }),
        ("committee", wire::Request::Committee { height: 3, offset: 0 }),
        ("first-page", wire::Request::Page { height: 2, after: None }),
        ("page", wire::Request::Page { height: 2, after: Some(protocol::ledger::state::key::parameters()) }),
        ("change", wire::Request::Change { after: 0 }),
    ];
    requests.into_iter().map(|(name, request)| (name, request.encode())).collect()
}

fn ledger_responses() -> Vec<Seed> {
    let (header, certificate) = change();
    let link = Link { header: header.clone(), certificate: certificate.clone(), has_state: true };
    let page = WORLD.state.tree().page(None, 1_000);
    let responses = [
        ("status", wire::Response::Status { height: 3 }),
        ("blocks", wire::Response::Blocks(WORLD.blocks.clone())),
        ("no-link", wire::Response::Link(None)),
        ("link", wire::Response::Link(Some(Box::new(link)))),
        ("committee", wire::Response::Committee(codec::encode(&WORLD.next))),
        ("page", wire::Response::Page(page)),
        ("change", wire::Response::Change(Some(Box::new((header, certificate))))),
    ];
    responses.into_iter().map(|(name, response)| (name, response.encode())).collect()
}

fn addresses() -> Vec<Seed> {
    let peer = format!("/dns/alpha.example/tcp/4100/p2p/{}", key(0).peer());
    let texts = [
        ("ip4", "/ip4/192.0.2.1/tcp/4001"),
        ("ip6", "/ip6/2001:db8::1/udp/4001/quic-v1"),
        ("dns", "/dns/node-1.example.org/tcp/65535"),
        ("dns4", "/dns4/localhost/udp/0/quic-v1"),
        ("dns6", "/dns6/localhost/tcp/1"),
        ("peer", &peer),
    ];
    texts.into_iter().map(|(name, text)| (name, text.as_bytes().to_vec())).collect()
}

/// Source: multiformats, multiaddr protocol table.
fn multiaddresses() -> Vec<Seed> {
    let tcp = [4, 192, 0, 2, 1, 6, 0x0f, 0xa1];
    let quic = [4, 192, 0, 2, 1, 0x91, 0x02, 0x0f, 0xa1, 0xcd, 0x03];
    vec![("tcp", tcp.to_vec()), ("quic", quic.to_vec())]
}

fn id_texts() -> Vec<Seed> {
    let member = &WORLD.committee.members()[0];
    let signature = sign(
        &WORLD.network,
        &InvalidityAttestation { epoch: Epoch(0), blob_id: BlobId([1; 32]) },
        0,
        protocol::NodeIndex(0),
    );
    let texts = [
        ("blob", WORLD.blob.header.blob_id().to_string()),
        ("peer", member.peer.to_string()),
        ("key", member.public_key.to_string()),
        ("signature", signature.signature.to_string()),
        ("possession", member.proof_of_possession.to_string()),
    ];
    texts.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
}
