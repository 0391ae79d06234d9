//! What blobs of testnets hold: it follows from a seed and a number, so that nothing of it has to be kept to compare it.

use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// The bytes of a blob.
pub(crate) fn bytes_of(seed: u64, number: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    // Another stream than that of the size.
    rng(!seed, number).fill_bytes(&mut bytes);
    bytes
}

/// Chance that follows from a seed and a number: another stream for each number.
pub(crate) fn rng(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}
