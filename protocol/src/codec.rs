//! The canonical binary form of every wire message, stored record and signed statement.
//!
//! This is the only module that chooses a bincode configuration: little-endian, fixed-width integers, a limit.
//!
//! - Fixed width, because bincode's variable-width integers are malleable: `[251, 5, 0]` and `[5]` are both five. With
//!   fixed width a value has one form, so a hash or a signature over the form is one over the value.
//! - A limit, because a length is read before what it counts: without one, nine bytes that claim `2^60` elements
//!   panic, and a claim that is merely larger than the memory aborts the process.
//! - Trailing bytes are refused, because bincode ignores them: a message would have any number of forms.
//!
//! # Invariants
//!
//! A type that is encoded here has no `HashMap` (order), no recursion (bincode bounds no depth) and no collection of
//! zero-sized elements (a limit does not bound their number). Enums are append-only: the variant's position is its
//! number. What is hashed is the received bytes where they are at hand, never a re-encoding.

use bincode::{
    Decode, Encode,
    config::{Configuration, Fixint, Limit, LittleEndian},
};

/// Largest length of a text kept from a decoding failure. Type names and messages are ours; this bounds them anyway.
const REASON_CHARS_MAX: usize = 200;

/// Why bytes are not the canonical form of a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There are more bytes than any legal value has. Nothing was decoded.
    #[error("{got} bytes, at most {limit} allowed")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes end inside the value.
    #[error("ends too early: {got} bytes, at least {missing} more needed")]
    Truncated {
        /// Bytes given.
        got: usize,
        /// Bytes that the next field still needs.
        missing: usize,
    },
    /// Bytes follow the value.
    #[error("{extra} bytes follow the value")]
    Trailing {
        /// Bytes that were not used.
        extra: usize,
    },
    /// A length inside the bytes claims more memory than any legal value takes.
    #[error("claims more than {limit} bytes of memory")]
    ClaimsTooMuch {
        /// Bytes of memory allowed.
        limit: usize,
    },
    /// A field holds what its type does not allow.
    #[error("malformed: {reason}")]
    Malformed {
        /// What was found where.
        reason: String,
    },
}

/// Little-endian and fixed-width, with at most `LIMIT` bytes read and claimed.
const fn config<const LIMIT: usize>() -> Configuration<LittleEndian, Fixint, Limit<LIMIT>> {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<LIMIT>()
}

/// Returns the canonical form of `value`.
///
/// # Panics
///
/// If the type cannot be encoded at all, which is a mistake of ours (a borrowed `RefCell`, a poisoned lock): the
/// plain structs, enums and collections of this crate always can.
#[must_use]
pub fn encode<T: Encode + ?Sized>(value: &T) -> Vec<u8> {
    // The limit governs decoding only; the encoder ignores it.
    bincode::encode_to_vec(value, config::<{ usize::MAX }>()).expect("plain data has a canonical form")
}

/// Decodes as [`decode_exact`] does, what travels in at most `bytes_max` bytes: `LIMIT` is then for the memory alone.
///
/// # Errors
///
/// As [`decode_exact`].
pub fn decode_within<T: Decode<()>, const LIMIT: usize>(
    bytes: &[u8],
    bytes_max: usize,
) -> Result<T, DecodeError> {
    if bytes.len() > bytes_max {
        return Err(DecodeError::TooLong { got: bytes.len(), limit: bytes_max });
    }
    decode_exact::<T, LIMIT>(bytes)
}

/// Decodes the one value that `bytes` are the form of.
///
/// `LIMIT` bounds the bytes, before any is decoded, and the memory that lengths inside them may claim, which counts
/// a collection by the size of its elements in memory. So it is set per kind of message, to two to four times the
/// largest legal wire size.
///
/// # Errors
///
/// If the bytes are too many, too few, followed by others, claim too much memory or hold an illegal value.
pub fn decode_exact<T: Decode<()>, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let got = bytes.len();
    if got > LIMIT {
        return Err(DecodeError::TooLong { got, limit: LIMIT });
    }
    let (value, used) =
        bincode::decode_from_slice(bytes, config::<LIMIT>()).map_err(|error| match error {
            bincode::error::DecodeError::UnexpectedEnd { additional } => {
                DecodeError::Truncated { got, missing: additional }
            }
            bincode::error::DecodeError::LimitExceeded => DecodeError::ClaimsTooMuch { limit: LIMIT },
            bincode::error::DecodeError::Other(reason) => DecodeError::Malformed { reason: shorten(reason) },
            bincode::error::DecodeError::OtherString(reason) => {
                DecodeError::Malformed { reason: shorten(&reason) }
            }
            other => DecodeError::Malformed { reason: shorten(&other.to_string()) },
        })?;
    if used != got {
        return Err(DecodeError::Trailing { extra: got - used });
    }
    Ok(value)
}

fn shorten(reason: &str) -> String {
    reason.chars().take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Encode, Decode)]
    enum Sample {
        Unit,
        Fields { id: [u8; 4], flag: bool, texts: Vec<String>, option: Option<u64> },
    }

    fn sample() -> impl Strategy<Value = Sample> {
        let fields = (
            any::<[u8; 4]>(),
            any::<bool>(),
            proptest::collection::vec(".{0,8}", 0..4),
            any::<Option<u64>>(),
        );
        prop_oneof![
            Just(Sample::Unit),
            fields.prop_map(|(id, flag, texts, option)| Sample::Fields { id, flag, texts, option }),
        ]
    }

    #[test]
    fn the_form_is_little_endian_and_fixed_width() {
        assert_eq!(encode(&5_u16), [5, 0]);
        assert_eq!(encode(&0x0102_0304_u32), [4, 3, 2, 1]);
        assert_eq!(encode(&Sample::Unit), [0, 0, 0, 0]);
        assert_eq!(encode(&vec![7_u8]), [1, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(encode(&[7_u8; 3]), [7, 7, 7]);
    }

    #[test]
    fn each_way_to_be_wrong_is_named() {
        assert_eq!(decode_exact::<u32, 16>(&[1, 2]), Err(DecodeError::Truncated { got: 2, missing: 2 }));
        assert_eq!(decode_exact::<u16, 16>(&[1, 2, 3]), Err(DecodeError::Trailing { extra: 1 }));
        assert_eq!(decode_exact::<u16, 2>(&[1, 2, 3]), Err(DecodeError::TooLong { got: 3, limit: 2 }));
        assert!(matches!(decode_exact::<bool, 2>(&[2]), Err(DecodeError::Malformed { .. })));
        assert!(matches!(decode_exact::<Sample, 64>(&[9, 0, 0, 0]), Err(DecodeError::Malformed { .. })));
    }

    #[test]
    fn a_length_that_no_memory_holds_is_refused_before_it_is_reserved() {
        for len in [1_u64 << 20, 1 << 40, 1 << 60, u64::MAX] {
            let claim = encode(&len);
            assert!(decode_exact::<Vec<u8>, 1000>(&claim).is_err());
            assert!(decode_exact::<Vec<[u64; 9]>, 1000>(&claim).is_err());
            assert!(decode_exact::<String, 1000>(&claim).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_value_survives_its_form(value in sample()) {
            prop_assert_eq!(decode_exact::<Sample, 4096>(&encode(&value)), Ok(value));
        }

        #[test]
        fn a_form_that_is_accepted_is_the_only_one(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = decode_exact::<Sample, 4096>(&bytes) {
                prop_assert_eq!(encode(&value), bytes);
            }
        }

        #[test]
        fn no_proper_prefix_and_no_extension_is_accepted(value in sample(), extra in any::<u8>()) {
            let mut bytes = encode(&value);
            for len in 0..bytes.len() {
                prop_assert!(decode_exact::<Sample, 4096>(&bytes[..len]).is_err());
            }
            bytes.push(extra);
            prop_assert_eq!(decode_exact::<Sample, 4096>(&bytes), Err(DecodeError::Trailing { extra: 1 }));
        }
    }
}
