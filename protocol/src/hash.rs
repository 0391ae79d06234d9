//! BLAKE3 with one key per purpose, over one input or over many inputs side by side.
//!
//! Every hash is BLAKE3 in keyed mode, its key the BLAKE3 hash of a domain tag, so that no leaf is ever taken
//! for an inner node and no pair hash for a blob ID. Leaves are padded with zeros to whole 64-byte blocks: the
//! size of a symbol is fixed by the blob's header, so padding is unambiguous, and whole blocks can be hashed
//! 16 at a time, which is 10 times faster than one by one for inputs below a kilobyte.

use std::{fmt, sync::LazyLock};

use bincode::{Decode, Encode};
use blake3::{IncrementCounter, platform::Platform};

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

/// BLAKE3's block: the unit to which leaves are padded.
const BLOCK_BYTES: usize = 64;
/// Longest input that is hashed side by side with others: a BLAKE3 chunk.
pub const INPUT_BYTES_MAX: usize = 1024;
/// Inputs handed to the kernel at once: the widest kernel (AVX-512) has 16 lanes, narrower ones loop.
pub(crate) const LANES: usize = 16;

// Flags of BLAKE3's compression function. Source: BLAKE3 specification, section 2.2, table 3.
const CHUNK_START: u8 = 1 << 0;
const CHUNK_END: u8 = 1 << 1;
const ROOT: u8 = 1 << 3;
const KEYED_HASH: u8 = 1 << 4;

/// The bytes of a hash, where many of them lie side by side.
pub type Digest = [u8; HASH_BYTES];

/// A 32-byte BLAKE3 hash.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Hash(pub [u8; HASH_BYTES]);

impl Hash {
    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", hex::encode(self.0))
    }
}

impl From<blake3::Hash> for Hash {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

/// What a hash is for; each purpose has a key of its own.
#[derive(Debug)]
pub struct Domain {
    key: [u8; 32],
    key_words: [u32; 8],
}

impl Domain {
    /// Returns the domain whose key is the BLAKE3 hash of `tag`.
    #[must_use]
    pub fn new(tag: &str) -> Self {
        let key = *blake3::hash(tag.as_bytes()).as_bytes();
        Self { key, key_words: blake3::platform::words_from_le_bytes_32(&key) }
    }

    /// Hashes one input.
    #[must_use]
    pub fn hash(&self, input: &[u8]) -> Hash {
        blake3::keyed_hash(&self.key, input).into()
    }

    /// Hashes the concatenation of `parts`.
    #[must_use]
    pub fn hash_parts(&self, parts: &[&[u8]]) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    /// Hashes inputs of `N` bytes each, `N` a multiple of 64 and at most 1024, into the first places of `out`.
    pub(crate) fn hash_each<'a, const N: usize>(
        &self,
        inputs: impl IntoIterator<Item = &'a [u8; N]>,
        mut out: &mut [Digest],
    ) {
        let mut lanes = [&[0; N]; LANES];
        let mut inputs = inputs.into_iter();
        loop {
            let mut n_lanes = 0;
            for (lane, input) in lanes.iter_mut().zip(&mut inputs) {
                *lane = input;
                n_lanes += 1;
            }
            if n_lanes == 0 {
                return;
            }
            let (batch, rest) = std::mem::take(&mut out).split_at_mut(n_lanes);
            self.hash_lanes(&lanes[..n_lanes], batch);
            out = rest;
        }
    }

    /// Hashes up to [`LANES`] inputs of `N` bytes each.
    fn hash_lanes<const N: usize>(&self, inputs: &[&[u8; N]], out: &mut [Digest]) {
        Platform::detect().hash_many(
            inputs,
            &self.key_words,
            0,
            IncrementCounter::No,
            KEYED_HASH,
            CHUNK_START,
            CHUNK_END | ROOT,
            out.as_flattened_mut(),
        );
    }

    /// Hashes consecutive inputs of `input_bytes` each (the last may be shorter), each padded to `N` bytes.
    fn hash_padded<const N: usize>(&self, data: &[u8], input_bytes: usize, out: &mut [Digest]) {
        let mut padded = [[0_u8; N]; LANES];
        for (data, out) in data.chunks(LANES * input_bytes).zip(out.chunks_mut(LANES)) {
            for (lane, input) in padded.iter_mut().zip(data.chunks(input_bytes)) {
                lane[..input.len()].copy_from_slice(input);
                lane[input.len()..].fill(0);
            }
            self.hash_each(&padded[..out.len()], out);
        }
    }

    /// Hashes up to [`LANES`] inputs of the same length, each padded with zeros to whole 64-byte blocks.
    ///
    /// # Panics
    ///
    /// If there are more inputs, or they are empty or longer than [`INPUT_BYTES_MAX`].
    pub(crate) fn hash_side_by_side(&self, inputs: &[&[u8]], out: &mut [Digest]) {
        macro_rules! dispatch {
            ($($blocks:literal)*) => {
                match inputs.first().map_or(0, |input| input.len()).div_ceil(BLOCK_BYTES) {
                    $($blocks => self.hash_lanes_of::<{ $blocks * BLOCK_BYTES }>(inputs, out),)*
                    blocks => panic!("inputs of {blocks} blocks are not hashed at once"),
                }
            };
        }
        const { assert!(INPUT_BYTES_MAX == 16 * BLOCK_BYTES) };
        dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    }

    fn hash_lanes_of<const N: usize>(&self, inputs: &[&[u8]], out: &mut [Digest]) {
        let mut lanes = [&[0; N]; LANES];
        let mut padded;
        if inputs[0].len() == N {
            for (lane, input) in lanes.iter_mut().zip(inputs) {
                *lane = input.first_chunk().expect("as long as the first");
            }
        } else {
            padded = [[0; N]; LANES];
            for ((lane, padded), input) in lanes.iter_mut().zip(&mut padded).zip(inputs) {
                padded[..input.len()].copy_from_slice(input);
                *lane = padded;
            }
        }
        self.hash_lanes(&lanes[..inputs.len()], out);
    }

    fn hash_blocks<const N: usize>(&self, data: &[u8], input_bytes: usize, out: &mut [Digest]) {
        let (whole, rest) = data.as_chunks::<N>();
        if input_bytes == N && rest.is_empty() {
            self.hash_each(whole, out);
        } else {
            self.hash_padded::<N>(data, input_bytes, out);
        }
    }

    /// Hashes consecutive inputs of `input_bytes` each (the last may be shorter), each padded with zeros to
    /// `input_bytes` rounded up to whole 64-byte blocks, into `out`.
    ///
    /// # Panics
    ///
    /// If `input_bytes` is zero or more than [`INPUT_BYTES_MAX`], or `out` does not have one place for each input.
    pub fn hash_many(&self, data: &[u8], input_bytes: usize, out: &mut [Digest]) {
        assert!(input_bytes > 0, "inputs have bytes");
        assert_eq!(out.len(), data.len().div_ceil(input_bytes), "one hash an input");
        macro_rules! dispatch {
            ($($blocks:literal)*) => {
                match input_bytes.div_ceil(BLOCK_BYTES) {
                    $($blocks => self.hash_blocks::<{ $blocks * BLOCK_BYTES }>(data, input_bytes, out),)*
                    _ => panic!("inputs of {input_bytes} bytes are hashed in pieces"),
                }
            };
        }
        const { assert!(INPUT_BYTES_MAX == 16 * BLOCK_BYTES) };
        dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    }
}

/// Leaves: one symbol, or a group of small ones.
pub static LEAF: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/leaf"));
/// Inner nodes of every tree: two hashes.
pub static NODE: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/node"));
/// Sliver pairs: the roots of the primary and of the secondary sliver.
pub static PAIR: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/pair"));
/// Blob IDs: the header of a blob.
pub static BLOB: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/blob"));
/// Leaves of the ledger's tree: a key and its value.
pub static LEDGER_LEAF: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/ledger-leaf"));
/// Branches of the ledger's tree: a bit position and two hashes.
pub static LEDGER_NODE: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/ledger-node"));
/// Transactions: the canonical form without the signature.
pub static TRANSACTION: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/transaction"));
/// Names of nodes, where the ledger looks for one that is taken.
pub static NODE_NAME: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/node-name"));

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: each input padded to whole blocks, hashed by itself.
    fn reference(domain: &Domain, data: &[u8], input_bytes: usize) -> Vec<Digest> {
        data.chunks(input_bytes)
            .map(|input| {
                let mut padded = input.to_vec();
                padded.resize(input_bytes.next_multiple_of(BLOCK_BYTES), 0);
                domain.hash(&padded).0
            })
            .collect()
    }

    #[test]
    fn many_inputs_hash_as_each_by_itself() {
        let data: Vec<u8> = (0..100_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let sizes = (1..=130).chain([191, 192, 193, 512, 960, 1000, 1023, 1024]);
        for input_bytes in sizes {
            for n in [1, 2, 15, 16, 17, 33] {
                for short in [0, 1, input_bytes - 1] {
                    let len = (n * input_bytes - short.min(input_bytes - 1)).min(data.len());
                    let data = &data[..len];
                    let mut out = vec![Digest::default(); len.div_ceil(input_bytes)];
                    LEAF.hash_many(data, input_bytes, &mut out);
                    assert_eq!(
                        out,
                        reference(&LEAF, data, input_bytes),
                        "{n} of {input_bytes}, less {short}"
                    );
                }
            }
        }
    }

    #[test]
    fn domains_are_apart() {
        let domains = [&LEAF, &NODE, &PAIR, &BLOB, &LEDGER_LEAF, &LEDGER_NODE, &TRANSACTION, &NODE_NAME];
        let hashes = domains.map(|domain| domain.hash(b"same"));
        for (i, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..i].contains(hash));
        }
        assert_eq!(NODE.hash(b"ab"), NODE.hash_parts(&[b"a", b"b"]));
    }
}
