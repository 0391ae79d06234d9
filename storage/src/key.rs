//! The name of a record.

use std::fmt;

use bytes::Bytes;

/// The longest key, in bytes. A blob ID, a segment and a sliver pair fit twice; the key is held in every header
/// and in the index, where values must stay far below 1 KiB.
pub const MAX_KEY_BYTES: usize = 64;

/// An opaque name, ordered bytewise: a key sorts before every longer key it is a prefix of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(Bytes);

/// The key has more than [`MAX_KEY_BYTES`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key of {got} bytes exceeds {MAX_KEY_BYTES}")]
pub struct KeyTooLong {
    /// Length of the refused key.
    pub got: usize,
}

impl Key {
    /// Makes a key of these bytes.
    ///
    /// # Errors
    /// [`KeyTooLong`] above [`MAX_KEY_BYTES`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyTooLong> {
        let bytes = bytes.into();
        if bytes.len() > MAX_KEY_BYTES {
            return Err(KeyTooLong { got: bytes.len() });
        }
        Ok(Self(bytes))
    }

    /// The bytes of the key, at most [`MAX_KEY_BYTES`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
