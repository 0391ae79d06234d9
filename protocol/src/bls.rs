//! Signatures of storage nodes: BLS12-381, keys in G1 (48 bytes), signatures in G2 (96 bytes).
//!
//! Signatures of many members over one message add up to one signature, checked against the sum of their keys; that
//! is what makes a certificate small. A sum of keys is also what a rogue key attacks: whoever publishes
//! `own - victim` as its key can sign alone what then looks signed by both. So a key counts only together with a
//! [`ProofOfPossession`], and [`Committee`](crate::committee::Committee) checks it for each member.
//!
//! Source: draft-irtf-cfrg-bls-signature-05, the proof-of-possession ciphersuite (section 3.3).
//!
//! # Invariants
//!
//! A [`PublicKey`], a [`Signature`] and a [`ProofOfPossession`] is a point of the prime-order subgroup and not
//! infinity, however it was made: parsing checks, and so does decoding, from any format. Verification relies on it
//! and does not check again. A point has one binary form, the compressed one.
//!
//! Everything here runs on the caller's thread; `blst`'s own verification would hop to a thread pool.

use std::fmt;

use bincode::{
    Decode, Encode,
    de::Decoder,
    enc::Encoder,
    error::{DecodeError, EncodeError},
};
use blst::{BLST_ERROR, Pairing, blst_p1_affine, blst_p2_affine, min_pk};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, Zeroizing};

use crate::ids::PeerId;

/// Bytes of a secret key.
pub const SECRET_KEY_BYTES: usize = 32;
/// Bytes of a public key: a compressed point of G1.
pub const PUBLIC_KEY_BYTES: usize = 48;
/// Bytes of a signature or a proof of possession: a compressed point of G2.
pub const SIGNATURE_BYTES: usize = 96;

/// Separates signatures from every other use of the curve. Source: draft-irtf-cfrg-bls-signature-05, section 4.2.3.
const SIGNATURE_DST: &[u8] = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";
/// Separates proofs of possession from signatures, so that neither is ever the other. Source: as above.
const POSSESSION_DST: &[u8] = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";
/// Begins the message of a proof of possession.
const POSSESSION_DOMAIN: &[u8] = b"floe/v1/proof-of-possession";

/// Why bytes or text are not a key or a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text is too short or too long.
    #[error("expected {expected} hexadecimal digits, got {got}")]
    Length {
        /// Digits that the value has.
        expected: usize,
        /// Bytes of the text given.
        got: usize,
    },
    /// The text is not hexadecimal.
    #[error("not hexadecimal")]
    Hex,
    /// The bytes are not the compressed form of a point on the curve.
    #[error("not a compressed point of the curve")]
    Encoding,
    /// The point is infinity, which is nobody's key and signs everything.
    #[error("the point at infinity")]
    Infinity,
    /// The point is on the curve but outside the subgroup in which the scheme is secure.
    #[error("a point outside the subgroup")]
    Subgroup,
    /// The scalar is zero or not below the order of the group.
    #[error("not a secret key: zero, or not below the group order")]
    Scalar,
}

impl ParseError {
    const fn from_blst(error: BLST_ERROR) -> Self {
        match error {
            BLST_ERROR::BLST_PK_IS_INFINITY => Self::Infinity,
            BLST_ERROR::BLST_POINT_NOT_IN_GROUP => Self::Subgroup,
            _ => Self::Encoding,
        }
    }
}

/// Why points could not be added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    /// There is nothing to add.
    #[error("nothing to aggregate")]
    Empty,
    /// The points cancel out. Their owners colluded: each proved possession, so nobody did it to them.
    #[error("the aggregated points cancel out")]
    Infinity,
}

/// Why a signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The keys have no sum to verify under.
    #[error("no key to verify under")]
    Keys(#[from] AggregateError),
    /// It is not the signature of this message under this key.
    #[error("signature does not match the message and the key")]
    Mismatch,
}

/// A member's signing key. Wiped from memory when dropped; never printed.
#[derive(Clone)]
pub struct SecretKey(min_pk::SecretKey);

impl SecretKey {
    /// Derives a key from 32 bytes of entropy (`KeyGen` of the draft, section 2.3).
    ///
    /// The same seed gives the same key; the caller wipes the seed.
    ///
    /// # Panics
    ///
    /// Never: a seed of 32 bytes is always long enough.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(min_pk::SecretKey::key_gen(seed, &[]).expect("32 bytes are enough entropy"))
    }

    /// Reads a key from the form that [`to_bytes`](Self::to_bytes) writes.
    ///
    /// # Errors
    ///
    /// If the number is zero or not below the group order.
    pub fn from_bytes(bytes: &[u8; SECRET_KEY_BYTES]) -> Result<Self, ParseError> {
        min_pk::SecretKey::from_bytes(bytes).map(Self).map_err(|_| ParseError::Scalar)
    }

    /// The key as a big-endian number, for a key file and for nothing else.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; SECRET_KEY_BYTES]> {
        let mut bytes = self.0.to_bytes();
        let wiped_on_drop = Zeroizing::new(bytes);
        bytes.zeroize();
        wiped_on_drop
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.sk_to_pk())
    }

    /// Signs a message, which names its own purpose: see [`crate::certificate`].
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message, SIGNATURE_DST, &[]))
    }

    /// Proves that whoever goes by `peer` holds this key. The proof is good on every network.
    #[must_use]
    pub fn prove_possession(&self, peer: &PeerId) -> ProofOfPossession {
        let message = possession_message(&self.public_key(), peer);
        ProofOfPossession(Signature(self.0.sign(&message, POSSESSION_DST, &[])))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// A verified public key: a point of the subgroup, not infinity.
///
/// It is verified wherever it comes from, decoding included: that costs some 40 microseconds (60 for a signature),
/// against 800 for verifying a signature with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(min_pk::PublicKey);

impl PublicKey {
    /// Reads and checks a compressed key.
    ///
    /// # Errors
    ///
    /// If the bytes are no point, infinity, or outside the subgroup.
    pub fn from_bytes(bytes: &[u8; PUBLIC_KEY_BYTES]) -> Result<Self, ParseError> {
        let key = min_pk::PublicKey::uncompress(bytes).map_err(ParseError::from_blst)?;
        key.validate().map_err(ParseError::from_blst)?;
        Ok(Self(key))
    }

    /// The compressed form.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; PUBLIC_KEY_BYTES] {
        self.0.compress()
    }

    /// Adds up keys. Sound only for keys whose possession was proven.
    ///
    /// # Errors
    ///
    /// If there is no key or the sum is infinity.
    pub fn aggregate<'a>(keys: impl IntoIterator<Item = &'a Self>) -> Result<Self, AggregateError> {
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(AggregateError::Empty)?;
        let mut sum = min_pk::AggregatePublicKey::from_public_key(&first.0);
        for key in keys {
            sum.add_public_key(&key.0, false).map_err(|_| AggregateError::Infinity)?;
        }
        let sum = sum.to_public_key();
        // Terms are in the subgroup and so is their sum: all that this can find is infinity.
        sum.validate().map_err(|_| AggregateError::Infinity)?;
        Ok(Self(sum))
    }
}

/// A signature, or a sum of signatures: a point of the subgroup, not infinity. What it signs is not yet known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(min_pk::Signature);

impl Signature {
    /// Reads and checks a compressed signature.
    ///
    /// # Errors
    ///
    /// If the bytes are no point, infinity, or outside the subgroup.
    pub fn from_bytes(bytes: &[u8; SIGNATURE_BYTES]) -> Result<Self, ParseError> {
        let signature = min_pk::Signature::uncompress(bytes).map_err(ParseError::from_blst)?;
        signature.validate(true).map_err(ParseError::from_blst)?;
        Ok(Self(signature))
    }

    /// The compressed form.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SIGNATURE_BYTES] {
        self.0.compress()
    }

    /// Checks that this is `key`'s signature of `message`.
    ///
    /// # Errors
    ///
    /// If it is not.
    pub fn verify(&self, message: &[u8], key: &PublicKey) -> Result<(), VerifyError> {
        verify_pairing(self, message, SIGNATURE_DST, key)
    }

    /// Checks that this is the sum of the signatures of one message under all of `keys`.
    ///
    /// Sound only for keys whose possession was proven (`FastAggregateVerify`, section 3.3.4 of the draft).
    ///
    /// # Errors
    ///
    /// If it is not, or there is no key, or the keys cancel out.
    pub fn verify_aggregate<'a>(
        &self,
        message: &[u8],
        keys: impl IntoIterator<Item = &'a PublicKey>,
    ) -> Result<(), VerifyError> {
        self.verify(message, &PublicKey::aggregate(keys)?)
    }

    /// Adds up signatures.
    ///
    /// # Errors
    ///
    /// If there is no signature or the sum is infinity.
    pub fn aggregate<'a>(signatures: impl IntoIterator<Item = &'a Self>) -> Result<Self, AggregateError> {
        let mut signatures = signatures.into_iter();
        let first = signatures.next().ok_or(AggregateError::Empty)?;
        let mut sum = min_pk::AggregateSignature::from_signature(&first.0);
        for signature in signatures {
            sum.add_signature(&signature.0, false).map_err(|_| AggregateError::Infinity)?;
        }
        let sum = sum.to_signature();
        sum.validate(true).map_err(|_| AggregateError::Infinity)?;
        Ok(Self(sum))
    }
}

/// A proof that whoever published a key also holds its secret half, bound to one peer.
///
/// It signs `domain || public key || peer ID` under a tag of its own, so no signature can be passed off as a proof,
/// and nobody can put another's key and proof under their own name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProofOfPossession(Signature);

impl ProofOfPossession {
    /// Reads and checks the compressed form of the proof; what it proves is left to [`verify`](Self::verify).
    ///
    /// # Errors
    ///
    /// If the bytes are no point, infinity, or outside the subgroup.
    pub fn from_bytes(bytes: &[u8; SIGNATURE_BYTES]) -> Result<Self, ParseError> {
        Signature::from_bytes(bytes).map(Self)
    }

    /// The compressed form.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SIGNATURE_BYTES] {
        self.0.to_bytes()
    }

    /// Checks that `peer` holds the secret half of `key`.
    ///
    /// # Errors
    ///
    /// If the proof is for another key or another peer, or no proof at all.
    pub fn verify(&self, key: &PublicKey, peer: &PeerId) -> Result<(), VerifyError> {
        verify_pairing(&self.0, &possession_message(key, peer), POSSESSION_DST, key)
    }
}

fn possession_message(key: &PublicKey, peer: &PeerId) -> Vec<u8> {
    [POSSESSION_DOMAIN, &key.to_bytes(), peer.as_bytes()].concat()
}

/// Checks `e(g1, signature) == e(key, H(message))`.
fn verify_pairing(
    signature: &Signature,
    message: &[u8],
    dst: &[u8],
    key: &PublicKey,
) -> Result<(), VerifyError> {
    let key: &blst_p1_affine = (&key.0).into();
    let signature: &blst_p2_affine = (&signature.0).into();
    let mut pairing = Pairing::new(true, dst);
    // Neither group is checked again: the types say that they were.
    if pairing.aggregate(key, false, signature, false, message, &[]) != BLST_ERROR::BLST_SUCCESS {
        return Err(VerifyError::Mismatch);
    }
    pairing.commit();
    if pairing.finalverify(None) { Ok(()) } else { Err(VerifyError::Mismatch) }
}

/// Gives a type its hexadecimal text and its binary form, both through its checked compressed bytes.
macro_rules! compressed_forms {
    ($name:ident, $length:expr) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&hex::encode(self.to_bytes()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                if text.len() != 2 * $length {
                    return Err(ParseError::Length { expected: 2 * $length, got: text.len() });
                }
                let mut bytes = [0; $length];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseError::Hex)?;
                Self::from_bytes(&bytes)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Encode for $name {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                self.to_bytes().encode(encoder)
            }
        }

        impl<C> Decode<C> for $name {
            fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                let bytes = <[u8; $length]>::decode(decoder)?;
                Self::from_bytes(&bytes)
                    .map_err(|error| DecodeError::OtherString(format!("{} is {error}", stringify!($name))))
            }
        }

        bincode::impl_borrow_decode!($name);
    };
}

compressed_forms!(PublicKey, PUBLIC_KEY_BYTES);
compressed_forms!(Signature, SIGNATURE_BYTES);
compressed_forms!(ProofOfPossession, SIGNATURE_BYTES);
