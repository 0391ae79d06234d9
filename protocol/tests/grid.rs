//! The grid as a whole: any enough slivers decode, any lost sliver recovers, and a writer that encodes wrongly gets
//! a proof of it and never two answers.

#![allow(clippy::unwrap_used, clippy::as_conversions, reason = "a test may panic, and index by axis")]

use proptest::prelude::*;
use protocol::{
    SegmentIndex,
    commitment::{PairRoots, SegmentCommitment},
    encoding::{
        Axis, BlobShape, DecodeError, EncodedSegment, RecoverError, RecoveryCoefficients, SegmentDecoder,
        SegmentEncoder, SegmentShape, SliverHashes, SliverRecovery, recover::recovery_symbol, verify_sliver,
    },
    hash::Hash,
    inconsistency::{InconsistencyProof, ProofError, ProvenSymbol, SymbolError},
};
use rand::{RngCore as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

const AXES: [Axis; 2] = [Axis::Primary, Axis::Secondary];

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn shape(n: u16, len: usize) -> SegmentShape {
    BlobShape::new(n, len.try_into().unwrap()).unwrap().segment(SegmentIndex(0)).unwrap()
}

fn shuffled(n: u16, seed: u64) -> Vec<u16> {
    let mut order: Vec<u16> = (0..n).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}

fn required(shape: SegmentShape, axis: Axis) -> usize {
    shape.n_source(axis.crossing())
}

/// All slivers of a segment as a writer sends them, honest or not.
struct Written {
    shape: SegmentShape,
    slivers: [Vec<(Vec<u8>, SliverHashes)>; 2],
    commitment: SegmentCommitment,
}

impl Written {
    fn honest(encoder: &mut SegmentEncoder, shape: SegmentShape, data: &[u8]) -> Self {
        let segment: EncodedSegment = encoder.encode(shape, data);
        let slivers = AXES.map(|axis| {
            (0..shape.n()).map(|i| (segment.sliver(axis, i).to_vec(), segment.hashes(axis, i))).collect()
        });
        Self { shape, slivers, commitment: segment.commitment() }
    }

    /// Replaces a sliver by other bytes, and commits to them as if they were right.
    fn forge(&mut self, encoder: &mut SegmentEncoder, axis: Axis, index: u16, sliver: Vec<u8>) {
        let hashes = encoder.hash_sliver(self.shape, axis, &sliver);
        self.slivers[axis as usize][usize::from(index)] = (sliver, hashes);
        let n = self.shape.n();
        let pairs = (0..n).map(|pair| PairRoots {
            primary: self.slivers[0][usize::from(pair)].1.root(),
            secondary: self.slivers[1][usize::from(n - 1 - pair)].1.root(),
        });
        self.commitment = SegmentCommitment::new(pairs.collect());
    }

    fn sliver(&self, axis: Axis, index: u16) -> &[u8] {
        &self.slivers[axis as usize][usize::from(index)].0
    }

    fn parity(&self, axis: Axis, index: u16) -> &Hash {
        &self.slivers[axis as usize][usize::from(index)].1.parity
    }

    fn read(
        &self,
        encoder: &mut SegmentEncoder,
        axis: Axis,
        indices: &[u16],
    ) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = SegmentDecoder::new(self.shape, &self.commitment);
        for index in indices {
            decoder.add(axis, *index, self.sliver(axis, *index), self.parity(axis, *index)).unwrap();
        }
        decoder.decode(encoder)
    }

    fn proven(&self, encoder: &mut SegmentEncoder, axis: Axis, crossing: u16, index: u16) -> ProvenSymbol {
        ProvenSymbol::new(encoder, self.shape, (axis, crossing, self.sliver(axis, crossing)), index)
    }

    fn proof(
        &self,
        encoder: &mut SegmentEncoder,
        axis: Axis,
        index: u16,
        helpers: &[u16],
    ) -> InconsistencyProof {
        let mut helpers = helpers.to_vec();
        helpers.sort_unstable();
        let symbols = helpers.iter().map(|j| self.proven(encoder, axis.crossing(), *j, index)).collect();
        InconsistencyProof { segment: SegmentIndex(0), axis, index, symbols }
    }
}

/// Any `n`, and a length at which the blob is coded: of copies, none can be wrong and verify.
fn any_n_and_coded_len() -> impl Strategy<Value = (u16, usize)> {
    (4_u16..=16, 1_usize..3_000).prop_map(|(n, len)| (n, 64 * usize::from(n) + len))
}

/// Any `n`, and lengths on both sides of the sizes at which blobs are replicated and symbols share a leaf.
fn any_n_and_len() -> impl Strategy<Value = (u16, usize)> {
    (4_u16..=40, prop_oneof![0_usize..200, 200_usize..5_000, 5_000_usize..60_000])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_enough_slivers_give_the_segment_back((n, len) in any_n_and_len(), seed: u64) {
        let mut encoder = SegmentEncoder::new(n);
        let data = bytes(len, seed);
        let written = Written::honest(&mut encoder, shape(n, len), &data);
        for axis in AXES {
            let order = shuffled(n, seed ^ 1);
            let enough = required(written.shape, axis);
            let read = written.read(&mut encoder, axis, &order[..enough]).unwrap();
            prop_assert_eq!(&read[..len], &data[..]);
            prop_assert!(read[len..].iter().all(|byte| *byte == 0));
            let too_few = written.read(&mut encoder, axis, &order[..enough - 1]);
            let too_few_slivers = matches!(too_few, Err(DecodeError::TooFewSlivers { .. }));
            prop_assert!(too_few_slivers);
        }
    }

    #[test]
    fn any_lost_sliver_recovers_from_any_enough_helpers((n, len) in any_n_and_len(), seed: u64, lost: u16) {
        let mut encoder = SegmentEncoder::new(n);
        let written = Written::honest(&mut encoder, shape(n, len), &bytes(len, seed));
        let coefficients = RecoveryCoefficients::new(n);
        let index = lost % n;
        for axis in AXES {
            let mut recovery = SliverRecovery::new(written.shape, axis);
            for helper in shuffled(n, seed ^ 2) {
                if recovery.got() == recovery.required() {
                    break;
                }
                let sliver = (axis.crossing(), written.sliver(axis.crossing(), helper));
                let w = written.shape.symbol_bytes();
                let symbol = recovery_symbol(&coefficients, written.shape, sliver, index, 0..w);
                // The symbol in two ranges is the symbol, and so is the one that proves itself.
                let cut = w / 4 * 2;
                let parts = [0..cut, cut..w].map(|range| {
                    recovery_symbol(&coefficients, written.shape, sliver, index, range)
                });
                prop_assert_eq!(&parts.concat(), &symbol);
                if !written.shape.is_replicated() {
                    let proven = written.proven(&mut encoder, axis.crossing(), helper, index);
                    let verified = proven.verify(written.shape, &written.commitment, axis.crossing(), index);
                    prop_assert_eq!(verified, Ok(&symbol[..]));
                }
                recovery.add(helper, symbol);
            }
            let root = written.commitment.sliver_root(axis, index);
            let (sliver, hashes) = recovery.recover(&mut encoder, &root).unwrap();
            prop_assert_eq!(&sliver[..], written.sliver(axis, index));
            prop_assert_eq!(&hashes.parity, written.parity(axis, index));
        }
    }

    #[test]
    fn a_changed_sliver_is_refused((n, len) in any_n_and_len(), seed: u64, index: u16, at: usize, bit in 0_u8..8) {
        let mut encoder = SegmentEncoder::new(n);
        let written = Written::honest(&mut encoder, shape(n, len), &bytes(len, seed));
        let index = index % n;
        for axis in AXES {
            let mut sliver = written.sliver(axis, index).to_vec();
            let at = at % sliver.len();
            sliver[at] ^= 1_u8 << bit;
            let parity = written.parity(axis, index);
            let verify = |sliver: &[u8], index, parity: &Hash| {
                verify_sliver(written.shape, &written.commitment, (axis, index), sliver, parity).map(drop)
            };
            prop_assert!(verify(written.sliver(axis, index), index, parity).is_ok());
            prop_assert!(verify(&sliver, index, parity).is_err());
            prop_assert!(verify(&sliver[1..], index, parity).is_err());
            prop_assert!(verify(&sliver, n, parity).is_err());
            prop_assert!(verify(written.sliver(axis, index), index, &Hash([7; 32])).is_err());
        }
    }

    /// A writer replaces slivers at will and commits to what it made. Whatever slivers readers use, those that
    /// succeed agree.
    #[test]
    fn two_readers_never_get_two_answers(
        (n, len) in any_n_and_coded_len(),
        seed: u64,
        forged in proptest::collection::vec((any::<bool>(), any::<u16>(), 0_u8..3), 1..6),
        readers in proptest::collection::vec((any::<bool>(), any::<u64>()), 2..8),
    ) {
        let mut encoder = SegmentEncoder::new(n);
        let shape = shape(n, len);
        let mut written = Written::honest(&mut encoder, shape, &bytes(len, seed));
        let other = Written::honest(&mut encoder, shape, &bytes(len, seed ^ 3));
        for (axis, index, kind) in forged {
            let axis = AXES[usize::from(axis)];
            let index = index % n;
            let sliver = match kind {
                0 => bytes(shape.sliver_bytes(axis), seed ^ u64::from(index)),
                1 => other.sliver(axis, index).to_vec(),
                _ => {
                    let mut sliver = written.sliver(axis, index).to_vec();
                    sliver[0] ^= 1;
                    sliver
                }
            };
            written.forge(&mut encoder, axis, index, sliver);
        }
        let mut answers = Vec::new();
        for (axis, seed) in readers {
            let axis = AXES[usize::from(axis)];
            let order = shuffled(n, seed);
            let mut indices = order[..required(shape, axis)].to_vec();
            if seed % 3 == 0 {
                // The reader that decodes nothing, where there is one.
                indices = (0..u16::try_from(required(shape, axis)).unwrap()).collect();
            }
            match written.read(&mut encoder, axis, &indices) {
                Ok(data) => answers.push(data),
                Err(DecodeError::Inconsistent { .. }) => {}
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
        answers.dedup();
        prop_assert!(answers.len() <= 1, "{} answers", answers.len());
    }

    #[test]
    fn a_wrong_encoding_ends_in_a_proof((n, len) in any_n_and_coded_len(), seed: u64, index: u16) {
        let mut encoder = SegmentEncoder::new(n);
        let shape = shape(n, len);
        let index = index % n;
        for axis in AXES {
            let mut written = Written::honest(&mut encoder, shape, &bytes(len, seed));
            let k = shape.n_source(axis);
            let helpers = &shuffled(n, seed ^ 4)[..k];
            // Nothing is wrong yet: no set of symbols proves otherwise.
            let innocent = written.proof(&mut encoder, axis, index, helpers);
            let verdict = innocent.verify(&mut encoder, shape, &written.commitment);
            prop_assert_eq!(verdict, Err(ProofError::Consistent));

            let mut sliver = written.sliver(axis, index).to_vec();
            let at = usize::from(index) % sliver.len();
            sliver[at] ^= 0x40;
            written.forge(&mut encoder, axis, index, sliver);
            let proof = written.proof(&mut encoder, axis, index, helpers);
            prop_assert_eq!(proof.verify(&mut encoder, shape, &written.commitment), Ok(()));

            // Not one byte of the proof can be changed, nor a symbol left out or doubled.
            let mut forged = proof.clone();
            forged.symbols[k / 2].leaf[0] ^= 1;
            let verdict = forged.verify(&mut encoder, shape, &written.commitment);
            let refused = matches!(verdict, Err(ProofError::Symbol(SymbolError::Path { .. })));
            prop_assert!(refused);
            let mut short = proof.clone();
            short.symbols.pop();
            let verdict = short.verify(&mut encoder, shape, &written.commitment);
            let refused = matches!(verdict, Err(ProofError::Symbols { .. }));
            prop_assert!(refused);
            let mut doubled = proof.clone();
            doubled.symbols[1] = doubled.symbols[0].clone();
            prop_assert!(doubled.verify(&mut encoder, shape, &written.commitment).is_err());
            let elsewhere = InconsistencyProof { index: n, ..proof };
            let verdict = elsewhere.verify(&mut encoder, shape, &written.commitment);
            prop_assert_eq!(verdict, Err(ProofError::NoSuchSliver(n)));
        }
    }
}

#[test]
fn a_lying_helper_is_found_by_its_proof() {
    let (n, len) = (7, 500);
    let shape = shape(n, len);
    let mut encoder = SegmentEncoder::new(n);
    let written = Written::honest(&mut encoder, shape, &bytes(len, 1));
    let coefficients = RecoveryCoefficients::new(n);
    let mut recovery = SliverRecovery::new(shape, Axis::Primary);
    for helper in 0..5 {
        let sliver = (Axis::Secondary, written.sliver(Axis::Secondary, helper));
        let mut symbol = recovery_symbol(&coefficients, shape, sliver, 6, 0..shape.symbol_bytes());
        if helper == 3 {
            symbol[0] ^= 1;
        }
        recovery.add(helper, symbol);
    }
    let root = written.commitment.sliver_root(Axis::Primary, 6);
    assert_eq!(recovery.recover(&mut encoder, &root).unwrap_err(), RecoverError::Mismatch);
    let mut proven = written.proven(&mut encoder, Axis::Secondary, 3, 6);
    assert!(proven.verify(shape, &written.commitment, Axis::Secondary, 6).is_ok());
    proven.leaf[0] ^= 1;
    assert!(proven.verify(shape, &written.commitment, Axis::Secondary, 6).is_err());
}

#[test]
fn large_committees_decode_and_recover() {
    for (n, len) in [(100, 70_000), (334, 200_000), (1000, 500_000)] {
        let mut encoder = SegmentEncoder::new(n);
        let shape = shape(n, len);
        let data = bytes(len, 5);
        let written = Written::honest(&mut encoder, shape, &data);
        for axis in AXES {
            let order = shuffled(n, 6);
            let read = written.read(&mut encoder, axis, &order[..required(shape, axis)]).unwrap();
            assert_eq!(read[..len], data);
        }
        let coefficients = RecoveryCoefficients::new(n);
        for axis in AXES {
            let mut recovery = SliverRecovery::new(shape, axis);
            for helper in &shuffled(n, 7)[..recovery.required()] {
                let sliver = (axis.crossing(), written.sliver(axis.crossing(), *helper));
                let symbol = recovery_symbol(&coefficients, shape, sliver, n - 1, 0..shape.symbol_bytes());
                recovery.add(*helper, symbol);
            }
            let root = written.commitment.sliver_root(axis, n - 1);
            let (sliver, _) = recovery.recover(&mut encoder, &root).unwrap();
            assert_eq!(sliver, written.sliver(axis, n - 1));
        }
    }
}

#[test]
fn nobody_is_accused_over_copies() {
    let (n, len) = (7, 100);
    let mut encoder = SegmentEncoder::new(n);
    let written = Written::honest(&mut encoder, shape(n, len), &bytes(len, 1));
    let forged = bytes(len, 2);
    for axis in AXES {
        let leaf =
            ProvenSymbol { crossing: 0, leaf: forged.clone(), path: Vec::new(), other_part: Hash::default() };
        assert!(leaf.verify(written.shape, &written.commitment, axis, 0).is_err());
        let proof = InconsistencyProof { segment: SegmentIndex(0), axis, index: 0, symbols: vec![leaf] };
        let verdict = proof.verify(&mut encoder, written.shape, &written.commitment);
        assert_eq!(verdict, Err(ProofError::Replicated));
    }
}
