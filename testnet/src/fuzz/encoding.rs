//! Slivers, symbols, commitments and proofs: what strangers say the bytes of a blob are.

use std::{
    collections::BTreeSet,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use node::membership::Seat;
use protocol::{
    PeerId, SegmentIndex, SliverPairIndex, codec,
    commitment::{BlobHeader, PairRoots, SegmentCommitment},
    encoding::{Axis, RecoverError, SegmentDecoder, SegmentEncoder, SliverRecovery},
    hash::Hash,
    inconsistency::{InconsistencyProof, ProvenSymbol},
    message::SliverAt,
};

use super::{
    Seed, Target,
    fixture::{EncodedBlob, N_SHARDS, WORLD, encode, key},
    input::{Input, part},
    is_canonical,
};

/// What lengths inside evidence may claim: twice the most that it has.
const EVIDENCE_LIMIT: usize = 32 << 20;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "commitment",
        bytes_max: 2 << 10,
        memory_max: 256 << 10,
        run: commitment,
        seeds: commitments,
    },
    Target { name: "symbol", bytes_max: 1 << 10, memory_max: 256 << 10, run: symbol, seeds: symbols },
    Target {
        name: "evidence",
        bytes_max: 4 << 10,
        memory_max: EVIDENCE_LIMIT + (1 << 20),
        run: evidence,
        seeds: all_evidence,
    },
    Target { name: "slivers", bytes_max: 512, memory_max: 1 << 20, run: slivers, seeds: sliver_choices },
    Target { name: "recovery", bytes_max: 512, memory_max: 1 << 20, run: recovery, seeds: recoveries },
    Target {
        name: "whole_blob",
        bytes_max: 4 << 10,
        memory_max: 256 << 10,
        run: whole_blob,
        seeds: whole_blobs,
    },
    Target { name: "assembly", bytes_max: 512, memory_max: 64 << 10, run: assembly, seeds: assemblies },
];

/// An encoder takes a while to make, and is the same afterwards.
static ENCODER: LazyLock<Mutex<SegmentEncoder>> = LazyLock::new(|| Mutex::new(SegmentEncoder::new(N_SHARDS)));

fn with_encoder<T>(work: impl FnOnce(&mut SegmentEncoder) -> T) -> T {
    work(&mut ENCODER.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A blob so short that it is kept whole.
static REPLICATED: LazyLock<EncodedBlob> = LazyLock::new(|| encode(100));

/// The evidence against a blob of which one sliver was committed to wrongly.
static WRONG: LazyLock<(BlobHeader, Vec<u8>)> = LazyLock::new(wrongly_encoded);

fn axis(byte: u8) -> Axis {
    if byte.is_multiple_of(2) { Axis::Primary } else { Axis::Secondary }
}

/// A header with a commitment and its path: what verifies has the root that the header says.
fn commitment(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let (header, index) = (input.part(), SegmentIndex(input.u32()));
    let (path, commitment) = (input.part(), input.rest());
    let Ok(header) = codec::decode_exact::<BlobHeader, 256>(header) else { return false };
    let path: Vec<Hash> = path.as_chunks().0.iter().map(|hash| Hash(*hash)).collect();
    let Ok(header) = header.verify() else { return false };
    let _ = (header.shape().encoded_bytes(), header.shape().range(index), header.shape().segment(index));
    let Ok(verified) = header.verify_segment(index, commitment, &path) else { return false };
    is_canonical(commitment, Some(verified.to_bytes()))
}

/// A symbol with its proof, of the fixture's blob: what verifies is the encoder's.
fn symbol(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let (axis, index) = (axis(input.u8()), input.u16());
    let Ok(proven) = codec::decode_exact::<ProvenSymbol, { 64 << 10 }>(input.rest()) else { return false };
    let EncodedBlob { shape, segment, commitment, .. } = &WORLD.blob;
    if let Ok(symbol) = proven.verify(*shape, commitment, axis, index) {
        let right = with_encoder(|encoder| {
            let sliver = segment.sliver(axis, proven.crossing);
            ProvenSymbol::new(encoder, *shape, (axis, proven.crossing, sliver), index)
        });
        let right = right.verify(*shape, commitment, axis, index);
        assert_eq!(right, Ok(symbol), "a forged symbol");
    }
    let blob = &*REPLICATED;
    assert!(proven.verify(blob.shape, &blob.commitment, axis, index).is_err(), "nothing to prove in a copy");
    true
}

/// Evidence against a blob that was encoded wrongly, and against one that was not.
fn evidence(bytes: &[u8]) -> bool {
    let (wrong, right) = (WRONG.0.blob_id(), WORLD.blob.header.blob_id());
    with_encoder(|encoder| {
        assert!(!node::fuzz::evidence(bytes, right, encoder), "a sound blob was condemned");
        node::fuzz::evidence(bytes, wrong, encoder)
    })
}

/// Slivers of the fixture's blob, some of which are changed: a decoder gives the blob or an error.
fn slivers(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let blob = if input.u8() == 1 { &*REPLICATED } else { &WORLD.blob };
    let EncodedBlob { data, shape, segment, commitment, .. } = blob;
    let mut decoder = SegmentDecoder::new(*shape, commitment);
    while !input.is_empty() {
        let (axis, index, change) = (axis(input.u8()), u16::from(input.u8()), input.u8());
        let (mut sliver, parity) = match index < N_SHARDS {
            true => (segment.sliver(axis, index).to_vec(), segment.hashes(axis, index).parity),
            false => (input.part().to_vec(), Hash(input.array())),
        };
        let is_changed = change > 0 && !sliver.is_empty();
        if is_changed {
            let at = usize::from(input.u16()) % sliver.len();
            sliver[at] ^= change;
        }
        let taken = decoder.add(axis, index, sliver, &parity).is_ok();
        assert_eq!(
            taken,
            index < N_SHARDS && !is_changed,
            "slivers are taken as they were encoded, and only so"
        );
    }
    let is_complete = decoder.is_complete();
    let decoded = with_encoder(|encoder| decoder.decode(encoder));
    assert_eq!(decoded.is_ok(), is_complete, "the blob was encoded rightly");
    decoded.is_ok_and(|grid| {
        assert_eq!(grid[..data.len()], data[..], "other bytes than were encoded");
        true
    })
}

/// Symbols of a sliver, some of which are changed: a recovery gives the sliver or an error.
fn recovery(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let blob = if input.u8() == 1 { &*REPLICATED } else { &WORLD.blob };
    let EncodedBlob { shape, segment, commitment, .. } = blob;
    let (axis, index) = (axis(input.u8()), u16::from(input.u8()) % N_SHARDS);
    let mut recovery = SliverRecovery::new(*shape, axis);
    let mut wrong = BTreeSet::new();
    while !input.is_empty() {
        let (crossing, change) = (u16::from(input.u8()) % N_SHARDS, input.u8());
        let mut symbol = right_symbol(blob, axis, crossing, index);
        wrong.remove(&crossing);
        if change > 0 {
            let at = usize::from(input.u16()) % symbol.len();
            symbol[at] ^= change;
            wrong.insert(crossing);
        }
        recovery.add(crossing, symbol);
    }
    let is_wrong = recovery.used().any(|(crossing, _)| wrong.contains(&crossing));
    let root = commitment.sliver_root(axis, index);
    match with_encoder(|encoder| recovery.recover(encoder, &root)) {
        Ok((sliver, _)) => {
            assert_eq!(sliver, segment.sliver(axis, index), "another sliver than was encoded");
            assert!(!is_wrong, "wrong symbols make no right sliver");
            true
        }
        Err(RecoverError::Mismatch) => {
            assert!(is_wrong, "right symbols make the sliver");
            false
        }
        Err(RecoverError::TooFewSymbols { got, required }) => {
            assert!(got < required);
            false
        }
    }
}

/// The symbol at which the sliver `crossing` across `axis` meets the sliver `index` along it.
fn right_symbol(blob: &EncodedBlob, axis: Axis, crossing: u16, index: u16) -> Vec<u8> {
    let EncodedBlob { shape, segment, .. } = blob;
    let sliver = segment.sliver(axis.crossing(), crossing);
    let range = 0..shape.symbol_bytes();
    COEFFICIENTS.with(|it| {
        protocol::encoding::recover::recovery_symbol(it, *shape, (axis.crossing(), sliver), index, range)
    })
}

thread_local! {
    static COEFFICIENTS: protocol::encoding::RecoveryCoefficients =
        protocol::encoding::RecoveryCoefficients::new(N_SHARDS);
}

/// The members' places.
static SEATS: LazyLock<[Seat; 4]> = LazyLock::new(|| {
    [0, 1, 2, 3].map(|number| Seat::of(&WORLD.committee, &key(number).peer()).expect("a member"))
});

/// A small blob in one message: its parts are as long as they have to be, and all of it is in them.
fn whole_blob(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let seat = &SEATS[usize::from(input.u8() % 4)];
    let header = input.part();
    let payload = Bytes::copy_from_slice(input.rest());
    let Ok(header) = codec::decode_exact::<BlobHeader, 256>(header) else { return false };
    let Some((commitment, parts)) = node::fuzz::split_whole_blob(seat, header, &payload) else {
        return false;
    };
    assert_eq!(commitment + parts.iter().sum::<usize>(), payload.len());
    true
}

/// Parts of slivers in any order: bounded, and never another sliver than was sent.
fn assembly(bytes: &[u8]) -> bool {
    const PART_BYTES: usize = 16;
    const LENGTHS: [usize; 4] = [1, PART_BYTES, PART_BYTES + 7, 3 * PART_BYTES];
    let mut input = Input::new(bytes);
    let mut pieces = Vec::new();
    while !input.is_empty() && pieces.len() < 24 {
        let (of, shape) = (input.u8(), input.u8());
        let length = LENGTHS[usize::from(shape % 4)];
        let offset = match shape / 4 % 4 {
            turn @ 0..3 => usize::from(turn) * PART_BYTES,
            _ => usize::try_from(input.u32()).unwrap_or(usize::MAX),
        };
        let len = match shape / 16 % 4 {
            0..3 => length.saturating_sub(offset).min(PART_BYTES),
            _ => usize::from(input.u8()),
        };
        let at = SliverAt {
            blob_id: WORLD.blob.header.blob_id(),
            segment: SegmentIndex(u32::from(of / 4 % 4)),
            pair: SliverPairIndex(0),
            axis: Axis::Primary,
        };
        pieces.push(node::fuzz::Piece {
            of: (PeerId([of % 4; 32]), at),
            len: length,
            offset,
            part: Bytes::from(vec![of; len]),
            at: Duration::from_secs(u64::from(of / 16) * 10),
        });
    }
    node::fuzz::assemble(8 * PART_BYTES, PART_BYTES, &pieces) > 0
}

fn commitments() -> Vec<Seed> {
    let seed = |blob: &EncodedBlob| {
        let header = part(&codec::encode(blob.header.header()));
        [&header[..], &[0; 4], &part(&[]), &blob.commitment.to_bytes()].concat()
    };
    vec![("coded", seed(&WORLD.blob)), ("replicated", seed(&REPLICATED))]
}

fn symbols() -> Vec<Seed> {
    let EncodedBlob { shape, segment, .. } = &WORLD.blob;
    let seed = |axis: Axis, crossing: u16, index: u16| {
        let of = (axis, crossing, segment.sliver(axis, crossing));
        let proven = with_encoder(|encoder| ProvenSymbol::new(encoder, *shape, of, index));
        let byte = u8::from(axis == Axis::Secondary);
        [&[byte][..], &index.to_le_bytes(), &codec::encode(&proven)].concat()
    };
    vec![
        ("source", seed(Axis::Primary, 1, 2)),
        ("parity", seed(Axis::Primary, 1, 6)),
        ("secondary", seed(Axis::Secondary, 5, 0)),
        ("secondary-parity", seed(Axis::Secondary, 6, 6)),
    ]
}

/// The fixture's blob with the root of another sliver where one of its own should be.
fn wrongly_encoded() -> (BlobHeader, Vec<u8>) {
    let EncodedBlob { shape, segment, commitment, header, .. } = &WORLD.blob;
    let wrong_pair = SliverPairIndex(2);
    let pairs = (0..N_SHARDS).map(SliverPairIndex).map(|pair| match commitment.pair(pair) {
        roots if pair == wrong_pair => PairRoots { primary: Hash([9; 32]), ..*roots },
        roots => *roots,
    });
    let wrong = SegmentCommitment::new(pairs.collect());
    let header = BlobHeader::new(header.shape(), &[wrong.root()]);
    let index = wrong_pair.primary();
    let n_symbols = u16::try_from(shape.n_source(Axis::Primary)).expect("fewer than shards");
    let symbols = (0..n_symbols).map(|crossing| {
        let of = (Axis::Secondary, crossing, segment.sliver(Axis::Secondary, crossing));
        with_encoder(|encoder| ProvenSymbol::new(encoder, *shape, of, index))
    });
    let proof = InconsistencyProof {
        segment: SegmentIndex(0),
        axis: Axis::Primary,
        index,
        symbols: symbols.collect(),
    };
    let evidence = node::repair::Evidence { header, commitment: wrong.to_bytes(), path: Vec::new(), proof };
    (header, codec::encode(&evidence))
}

fn all_evidence() -> Vec<Seed> {
    vec![("primary", WRONG.1.clone())]
}

fn sliver_choices() -> Vec<Seed> {
    let choose = |kind: u8, of: &[(u8, u8)]| {
        let choices = of.iter().flat_map(|(axis, index)| [*axis, *index, 0]);
        [kind].into_iter().chain(choices).collect::<Vec<u8>>()
    };
    vec![
        ("systematic", choose(0, &[(0, 0), (0, 1), (0, 2)])),
        ("parity-rows", choose(0, &[(0, 4), (0, 5), (0, 6)])),
        ("columns", choose(0, &[(1, 1), (1, 3), (1, 4), (1, 5), (1, 6)])),
        ("replicated", choose(1, &[(0, 0)])),
    ]
}

fn recoveries() -> Vec<Seed> {
    let choose = |kind: u8, axis: u8, index: u8, crossings: &[u8]| {
        let symbols = crossings.iter().flat_map(|crossing| [*crossing, 0]);
        [kind, axis, index].into_iter().chain(symbols).collect::<Vec<u8>>()
    };
    vec![
        ("primary", choose(0, 0, 6, &[0, 2, 3, 5, 6])),
        ("secondary", choose(0, 1, 0, &[3, 4, 6])),
        ("replicated", choose(1, 0, 3, &[1])),
    ]
}

fn whole_blobs() -> Vec<Seed> {
    let seed = |number: u8, blob: &EncodedBlob| {
        let header = part(&codec::encode(blob.header.header()));
        let slivers = SEATS[usize::from(number)].slivers(blob.header.blob_id(), SegmentIndex(0), blob.shape);
        let slivers: Vec<u8> =
            slivers.flat_map(|at| blob.segment.sliver_of_pair(at.axis, at.pair).to_vec()).collect();
        [&[number][..], &header, &blob.commitment.to_bytes(), &slivers].concat()
    };
    vec![("coded", seed(0, &WORLD.blob)), ("replicated", seed(1, &REPLICATED))]
}

fn assemblies() -> Vec<Seed> {
    vec![
        ("one-part", vec![0, 0]),
        ("three-parts", vec![0, 3, 0, 4 + 3, 0, 8 + 3]),
        ("two-peers", vec![0, 2, 1, 2, 0, 4 + 2, 1, 4 + 2]),
    ]
}
