//! Keys and signatures: what is accepted, and everything that is not.

#![allow(clippy::unwrap_used, reason = "tests")]

use blst::min_pk;
use proptest::prelude::*;
use protocol::{
    PeerId,
    bls::{
        AggregateError, PUBLIC_KEY_BYTES, ParseError, ProofOfPossession, PublicKey, SIGNATURE_BYTES,
        SecretKey, Signature, VerifyError,
    },
    codec,
};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

const PEER: PeerId = PeerId([7; 32]);

/// From the consensus specification tests of Ethereum, which uses the same ciphersuite: sign, zero message.
#[test]
fn a_signature_matches_the_published_vector() {
    let secret = "263dbd792f5b1be47ed85f8938c0f29586af0d3ac7b977f21c278fe1462040e3";
    let secret = SecretKey::from_bytes(&hex::decode(secret).unwrap().try_into().unwrap()).unwrap();
    assert_eq!(
        secret.public_key().to_string(),
        "a491d1b0ecd9bb917989f0e74f0dea0422eac4a873e5e2644f368dffb9a6e20fd6e10c1b77654d067c0618f6e5a7f79a"
    );
    assert_eq!(
        secret.sign(&[0; 32]).to_string(),
        "b6ed936746e01f8ecf281f020953fbf1f01debd5657c4a383940b020b26507f6076334f91e2366c96e9ab279fb515809\
         0352ea1c5b0c9274504f4f0e7053af24802e51e4568d164fe986834f41e55c8e850ce1f98458c0cfc9ab380b55285a55"
    );
}

#[test]
fn a_signature_holds_for_its_message_and_key_only() {
    let signature = key(1).sign(b"message");
    assert_eq!(signature.verify(b"message", &key(1).public_key()), Ok(()));
    assert_eq!(signature.verify(b"massage", &key(1).public_key()), Err(VerifyError::Mismatch));
    assert_eq!(signature.verify(b"", &key(1).public_key()), Err(VerifyError::Mismatch));
    assert_eq!(signature.verify(b"message", &key(2).public_key()), Err(VerifyError::Mismatch));
}

#[test]
fn signatures_of_one_message_add_up() {
    let keys: Vec<_> = (0..5).map(|seed| key(seed).public_key()).collect();
    let signatures: Vec<_> = (0..5).map(|seed| key(seed).sign(b"message")).collect();
    let sum = Signature::aggregate(&signatures).unwrap();
    assert_eq!(sum.verify_aggregate(b"message", &keys), Ok(()));
    assert_eq!(sum.verify_aggregate(b"message", keys.iter().rev()), Ok(()));
    assert_eq!(sum.verify(b"message", &PublicKey::aggregate(&keys).unwrap()), Ok(()));
    // One key more, one fewer, one twice, another message.
    assert_eq!(sum.verify_aggregate(b"message", &keys[1..]), Err(VerifyError::Mismatch));
    assert!(sum.verify_aggregate(b"message", keys.iter().chain([&key(9).public_key()])).is_err());
    assert!(sum.verify_aggregate(b"message", keys.iter().chain([&keys[0]])).is_err());
    assert!(sum.verify_aggregate(b"other", &keys).is_err());
    // A signature counted twice is the same point doubled.
    let twice = Signature::aggregate([&signatures[0], &signatures[0]]).unwrap();
    assert_eq!(twice.verify_aggregate(b"message", [&keys[0], &keys[0]]), Ok(()));
}

#[test]
fn nothing_adds_up_to_nothing() {
    assert_eq!(Signature::aggregate([]), Err(AggregateError::Empty));
    assert_eq!(PublicKey::aggregate([]), Err(AggregateError::Empty));
    let keyless = key(1).sign(b"message").verify_aggregate(b"message", []);
    assert_eq!(keyless, Err(VerifyError::Keys(AggregateError::Empty)));
}

/// `-key`, which its owner can make and prove, to cancel out with `key`.
fn negated(key: &SecretKey) -> SecretKey {
    const ORDER: [u8; 32] = [
        0x73, 0xed, 0xa7, 0x53, 0x29, 0x9d, 0x7d, 0x48, 0x33, 0x39, 0xd8, 0x08, 0x09, 0xa1, 0xd8, 0x05, 0x53,
        0xbd, 0xa4, 0x02, 0xff, 0xfe, 0x5b, 0xfe, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x01,
    ];
    let bytes = key.to_bytes();
    let mut difference = [0; 32];
    let mut borrow = 0;
    for i in (0..32).rev() {
        let digit = 256 + i32::from(ORDER[i]) - i32::from(bytes[i]) - borrow;
        difference[i] = u8::try_from(digit % 256).unwrap();
        borrow = i32::from(digit < 256);
    }
    SecretKey::from_bytes(&difference).unwrap()
}

#[test]
fn colluders_whose_keys_cancel_out_are_an_error_and_no_panic() {
    let (one, other) = (key(1), negated(&key(1)));
    assert_eq!(PublicKey::aggregate([&one.public_key(), &other.public_key()]), Err(AggregateError::Infinity));
    assert_eq!(Signature::aggregate([&one.sign(b"m"), &other.sign(b"m")]), Err(AggregateError::Infinity));
    let verdict = one.sign(b"m").verify_aggregate(b"m", [&one.public_key(), &other.public_key()]);
    assert_eq!(verdict, Err(VerifyError::Keys(AggregateError::Infinity)));
}

#[test]
fn possession_is_proven_for_one_key_and_one_peer() {
    let proof = key(1).prove_possession(&PEER);
    assert_eq!(proof.verify(&key(1).public_key(), &PEER), Ok(()));
    assert_eq!(proof.verify(&key(2).public_key(), &PEER), Err(VerifyError::Mismatch));
    assert_eq!(proof.verify(&key(1).public_key(), &PeerId([8; 32])), Err(VerifyError::Mismatch));
}

#[test]
fn a_signature_is_never_a_proof_of_possession() {
    let public_key = key(1).public_key();
    let message = [&b"floe/v1/proof-of-possession"[..], &public_key.to_bytes(), PEER.as_bytes()].concat();
    let signature = key(1).sign(&message);
    let passed_off = ProofOfPossession::from_bytes(&signature.to_bytes()).unwrap();
    assert_eq!(passed_off.verify(&public_key, &PEER), Err(VerifyError::Mismatch));
    let proof = key(1).prove_possession(&PEER);
    let passed_off = Signature::from_bytes(&proof.to_bytes()).unwrap();
    assert_eq!(passed_off.verify(&message, &public_key), Err(VerifyError::Mismatch));
}

#[test]
fn a_rogue_key_signs_for_its_victim_but_cannot_prove_possession() {
    let (victim, attacker) = (key(1).public_key(), key(2));
    let point = |key: &PublicKey| min_pk::PublicKey::from_bytes(&key.to_bytes()).unwrap();
    let mut rogue = min_pk::AggregatePublicKey::from_public_key(&point(&attacker.public_key()));
    rogue.sub_aggregate(&min_pk::AggregatePublicKey::from_public_key(&point(&victim)));
    let rogue = PublicKey::from_bytes(&rogue.to_public_key().to_bytes()).unwrap();

    // The attack is real: the attacker alone signs what looks signed by both.
    let forged = attacker.sign(b"the victim said so");
    assert_eq!(forged.verify_aggregate(b"the victim said so", [&victim, &rogue]), Ok(()));

    // But neither proof at hand is one for the rogue key, nor is any sum of them.
    let proofs = [attacker.prove_possession(&PEER), key(1).prove_possession(&PEER)];
    let sum =
        Signature::aggregate(&proofs.map(|proof| Signature::from_bytes(&proof.to_bytes()).unwrap())).unwrap();
    let sum = ProofOfPossession::from_bytes(&sum.to_bytes()).unwrap();
    for proof in proofs.iter().chain([&sum]) {
        assert_eq!(proof.verify(&rogue, &PEER), Err(VerifyError::Mismatch));
    }
}

#[test]
fn a_secret_key_survives_its_bytes_and_is_not_printed() {
    let secret = key(3);
    let bytes = secret.to_bytes();
    assert_eq!(SecretKey::from_bytes(&bytes).unwrap().public_key(), secret.public_key());
    assert_eq!(format!("{secret:?}"), "SecretKey(..)");
    assert_eq!(SecretKey::from_bytes(&[0; 32]).unwrap_err(), ParseError::Scalar);
    assert_eq!(SecretKey::from_bytes(&[255; 32]).unwrap_err(), ParseError::Scalar);
}

fn with_first<const N: usize>(first: u8) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[0] = first;
    bytes
}

#[test]
fn zeros_infinity_and_uncompressed_points_are_refused() {
    for first in [0, 0x20, 0x40, 0x60, 0xe0] {
        assert_eq!(PublicKey::from_bytes(&with_first(first)), Err(ParseError::Encoding), "{first:#x}");
        assert_eq!(Signature::from_bytes(&with_first(first)), Err(ParseError::Encoding), "{first:#x}");
    }
    assert_eq!(PublicKey::from_bytes(&with_first(0xc0)), Err(ParseError::Infinity));
    assert_eq!(Signature::from_bytes(&with_first(0xc0)), Err(ParseError::Infinity));
    assert_eq!(ProofOfPossession::from_bytes(&with_first(0xc0)), Err(ParseError::Infinity));
    assert_eq!(PublicKey::from_bytes(&[255; PUBLIC_KEY_BYTES]), Err(ParseError::Encoding));
    assert_eq!(Signature::from_bytes(&[255; SIGNATURE_BYTES]), Err(ParseError::Encoding));
}

#[test]
fn points_outside_the_subgroup_are_refused() {
    let mut outside = (0, 0);
    for x in 0..64 {
        let mut bytes = with_first::<PUBLIC_KEY_BYTES>(0x80);
        bytes[PUBLIC_KEY_BYTES - 1] = x;
        let refused = PublicKey::from_bytes(&bytes).unwrap_err();
        outside.0 += i32::from(refused == ParseError::Subgroup);

        let mut bytes = with_first::<SIGNATURE_BYTES>(0x80);
        bytes[SIGNATURE_BYTES - 1] = x;
        let refused = Signature::from_bytes(&bytes).unwrap_err();
        outside.1 += i32::from(refused == ParseError::Subgroup);
    }
    // Half of the numbers are a coordinate of some point, and hardly any such point is in the subgroup.
    assert!(outside.0 > 16, "{outside:?}");
    assert!(outside.1 > 16, "{outside:?}");
}

#[test]
fn text_is_hexadecimal_of_the_right_length() {
    let public_key = key(1).public_key();
    assert_eq!(public_key.to_string().parse(), Ok(public_key));
    let signature = key(1).sign(b"message");
    assert_eq!(signature.to_string().parse(), Ok(signature));
    assert_eq!("abc".parse::<PublicKey>(), Err(ParseError::Length { expected: 96, got: 3 }));
    assert_eq!("g".repeat(96).parse::<PublicKey>(), Err(ParseError::Hex));
    assert_eq!("é".repeat(48).parse::<PublicKey>(), Err(ParseError::Hex));
}

#[test]
fn binary_forms_are_bare_compressed_points() {
    let (public_key, signature) = (key(1).public_key(), key(1).sign(b"message"));
    assert_eq!(codec::encode(&public_key), public_key.to_bytes());
    assert_eq!(codec::encode(&signature), signature.to_bytes());
    let refused = codec::decode_exact::<PublicKey, 64>(&with_first::<PUBLIC_KEY_BYTES>(0xc0)).unwrap_err();
    assert_eq!(refused.to_string(), "malformed: PublicKey is the point at infinity");
}

proptest! {
    #[test]
    fn keys_and_signatures_survive_their_forms(seed: [u8; 32], message: Vec<u8>) {
        let secret = SecretKey::from_seed(&seed);
        let (public_key, signature) = (secret.public_key(), secret.sign(&message));
        let proof = secret.prove_possession(&PEER);
        prop_assert_eq!(codec::decode_exact::<_, 64>(&codec::encode(&public_key)), Ok(public_key));
        prop_assert_eq!(codec::decode_exact::<_, 128>(&codec::encode(&signature)), Ok(signature));
        prop_assert_eq!(codec::decode_exact::<_, 128>(&codec::encode(&proof)), Ok(proof));
        prop_assert_eq!(signature.verify(&message, &public_key), Ok(()));
    }

    #[test]
    fn random_bytes_are_refused_quietly(
        mut public_key: [u8; PUBLIC_KEY_BYTES],
        mut signature: [u8; SIGNATURE_BYTES],
        secret: [u8; 32],
        compressed: bool,
    ) {
        if compressed {
            // Small enough a coordinate to reach the curve's own checks.
            public_key[0] = 0x80 | public_key[0] & 0x0f;
            signature[0] = 0x80 | signature[0] & 0x0f;
        }
        prop_assert!(PublicKey::from_bytes(&public_key).is_err());
        prop_assert!(Signature::from_bytes(&signature).is_err());
        prop_assert!(codec::decode_exact::<ProofOfPossession, 128>(&signature).is_err());
        let _ = SecretKey::from_bytes(&secret);
    }

    #[test]
    fn a_flipped_bit_is_another_key_or_none(bit in 0..8 * PUBLIC_KEY_BYTES) {
        let public_key = key(1).public_key();
        let mut bytes = public_key.to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_ne!(PublicKey::from_bytes(&bytes), Ok(public_key));
    }
}
