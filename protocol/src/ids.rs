//! Identities and indices, each a type of its own so that a shard is never taken for a sliver pair.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text has the wrong number of characters.
    #[error("expected {expected} characters, got {got}")]
    Length {
        /// Characters that the text form of this identity has.
        expected: usize,
        /// Characters given.
        got: usize,
    },
    /// The text contains a character outside the alphabet, or bits that no identity has.
    #[error("not valid {alphabet}")]
    Alphabet {
        /// Name of the alphabet.
        alphabet: &'static str,
    },
}

/// Declares a 32-byte identity with its text form.
macro_rules! identity {
    ($(#[$meta:meta])* $name:ident, $encode:expr, $decode:expr, $length:expr, $alphabet:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&$encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let got = text.chars().count();
                if got != $length {
                    return Err(ParseIdError::Length { expected: $length, got });
                }
                $decode(text)
                    .and_then(|bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).ok())
                    .map(Self)
                    .ok_or(ParseIdError::Alphabet { alphabet: $alphabet })
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
    };
}

identity!(
    /// Names a blob: a hash over the encoding, the number of shards, the length and the blob root.
    ///
    /// Its text form is 43 characters of URL-safe base64 without padding.
    BlobId,
    |bytes: &[u8; 32]| URL_SAFE_NO_PAD.encode(bytes),
    |text: &str| URL_SAFE_NO_PAD.decode(text).ok(),
    43,
    "URL-safe base64"
);

identity!(
    /// Names a network: a hash of its genesis. Every signature and every protocol name carries it.
    ///
    /// Its text form is 64 hexadecimal digits.
    NetworkId,
    |bytes: &[u8; 32]| hex::encode(bytes),
    |text: &str| hex::decode(text).ok(),
    64,
    "hexadecimal"
);

identity!(
    /// Names a party on the network: its ed25519 public key.
    ///
    /// Its text form is 64 hexadecimal digits.
    PeerId,
    |bytes: &[u8; 32]| hex::encode(bytes),
    |text: &str| hex::decode(text).ok(),
    64,
    "hexadecimal"
);

identity!(
    /// Names an account of the ledger: an ed25519 public key, whose secret half signs its transactions.
    ///
    /// Its text form is 64 hexadecimal digits.
    AccountId,
    |bytes: &[u8; 32]| hex::encode(bytes),
    |text: &str| hex::decode(text).ok(),
    64,
    "hexadecimal"
);

identity!(
    /// Names a block of the control ledger: a hash of its header.
    ///
    /// Its text form is 64 hexadecimal digits.
    BlockId,
    |bytes: &[u8; 32]| hex::encode(bytes),
    |text: &str| hex::decode(text).ok(),
    64,
    "hexadecimal"
);

/// A peer's key is also an account's: what it signs is told apart by its text.
/// Names a registration of a blob for good: a nonce is good once, so none that is made later has the same name.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
pub struct RegistrationId {
    /// Who registered the blob.
    pub owner: AccountId,
    /// Nonce of the owner's transaction that did.
    pub nonce: u64,
}

impl From<PeerId> for AccountId {
    fn from(peer: PeerId) -> Self {
        Self(peer.0)
    }
}

/// Declares an index with its own type.
macro_rules! index {
    ($(#[$meta:meta])* $name:ident, $inner:ty) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The index, for use with a slice.
            #[must_use]
            pub fn as_usize(self) -> usize {
                usize::try_from(self.0).expect("indices are at most 32 bits, and so are addresses")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

index!(
    /// Index of a shard, `0 <= index < n`: the slot that holds one sliver pair of every segment.
    ShardIndex,
    u16
);
index!(
    /// Index of a sliver pair within a segment, `0 <= index < n`: primary `index` and secondary `n - 1 - index`.
    SliverPairIndex,
    u16
);
index!(
    /// Index of a storage node in the committee of its epoch.
    NodeIndex,
    u16
);
index!(
    /// Index of a segment within a blob; segments are encoded independently of each other.
    SegmentIndex,
    u32
);
index!(
    /// A period in which one committee answers for the shards. The genesis committee serves epoch 0.
    Epoch,
    u32
);

impl SliverPairIndex {
    /// Index of the primary sliver (row) of this pair.
    #[must_use]
    pub const fn primary(self) -> u16 {
        self.0
    }

    /// Index of the secondary sliver (column) of this pair in a committee of `n` shards.
    ///
    /// # Panics
    ///
    /// If the index is not below `n`.
    #[must_use]
    pub const fn secondary(self, n: u16) -> u16 {
        n - 1 - self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_id_survives_its_text_form() {
        let id = BlobId(std::array::from_fn(|i| u8::try_from(i * 7).unwrap()));
        let text = id.to_string();
        assert_eq!(text.len(), 43);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(serde_json_like(&id), text);
    }

    fn serde_json_like(id: &BlobId) -> String {
        toml::Value::try_from(id).unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn malformed_text_is_refused_with_its_reason() {
        assert_eq!("abc".parse::<BlobId>(), Err(ParseIdError::Length { expected: 43, got: 3 }));
        let alphabet = ParseIdError::Alphabet { alphabet: "URL-safe base64" };
        assert_eq!("+".repeat(43).parse::<BlobId>(), Err(alphabet.clone()));
        // The last of 43 characters carries four bits; the two spare ones must be zero, or one ID had two texts.
        assert_eq!(format!("{}B", "A".repeat(42)).parse::<BlobId>(), Err(alphabet));
        assert!("é".repeat(43).parse::<BlobId>().is_err());
    }

    #[test]
    fn sliver_pairs_reverse_the_secondary_index() {
        assert_eq!(SliverPairIndex(0).secondary(7), 6);
        assert_eq!(SliverPairIndex(6).secondary(7), 0);
    }
}
