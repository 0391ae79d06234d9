//! The field arithmetic that this CPU does best.
//!
//! A kernel is an [`Engine`] of reed-solomon-simd with what the code around the transforms needs besides: the change
//! between our order of bytes and the engine's, sums, and products that are added up. Two kernels give the same bytes:
//! the portable one, which is the crate's own choice among AVX2, SSSE3, Neon and plain Rust, and one for CPUs with
//! AVX-512 and GFNI, which multiplies 32 elements by a constant with two instructions.

#[cfg(target_arch = "x86_64")]
mod gfni;

use reed_solomon_simd::engine::{DefaultEngine, Engine, GF_ORDER, GfElement, ShardsRefMut, tables};

/// One block of a shard in the engine's layout: the low bytes of 32 elements, then their high bytes.
pub(crate) type Block = [u8; BLOCK_BYTES];
pub(crate) const BLOCK_BYTES: usize = 64;

/// A choice of field arithmetic.
#[derive(Clone)]
pub(crate) enum Kernel {
    /// The crate's own choice.
    Portable(std::sync::Arc<DefaultEngine>),
    /// AVX-512 and GFNI.
    #[cfg(target_arch = "x86_64")]
    Gfni(gfni::Gfni),
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Kernel {
    /// The best kernel for this CPU.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(gfni) = gfni::Gfni::detect() {
            return Self::Gfni(gfni);
        }
        Self::portable()
    }

    /// The kernel that every CPU has.
    pub(crate) fn portable() -> Self {
        Self::Portable(std::sync::Arc::new(DefaultEngine::new()))
    }

    /// What this kernel is called.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(_) => "avx512+gfni",
            Self::Portable(_) => portable_name(),
        }
    }

    /// Bytes of work space that a tile aims at, and the bounds of its width.
    pub(crate) const fn tile(&self) -> Tile {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(_) => gfni::TILE,
            // The transforms gain nothing from wider tiles, and narrower ones show the cost of a call.
            Self::Portable(_) => Tile { work_bytes: 512 << 10, narrowest: 256, widest: 4 << 10 },
        }
    }

    /// Evaluates the erasure locator polynomial.
    pub(crate) fn eval_poly(erasures: &mut [GfElement; GF_ORDER], truncated_size: usize) {
        DefaultEngine::eval_poly(erasures, truncated_size);
    }

    /// Converts blocks of little-endian elements to the engine's layout.
    pub(crate) fn split(&self, blocks: &mut [Block]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(gfni) => gfni.split(blocks),
            Self::Portable(_) => split(blocks),
        }
    }

    /// Converts blocks of the engine's layout to little-endian elements: the inverse of [`Self::split`].
    pub(crate) fn join(&self, blocks: &mut [Block]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(gfni) => gfni.join(blocks),
            Self::Portable(_) => join(blocks),
        }
    }

    /// Converts blocks of little-endian elements into blocks of the engine's layout, as many.
    pub(crate) fn split_to(&self, from: &[Block], to: &mut [Block]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(gfni) => gfni.split_to(from, to),
            Self::Portable(_) => {
                to.copy_from_slice(from);
                split(to);
            }
        }
    }

    /// Converts blocks of the engine's layout into blocks of little-endian elements, as many.
    pub(crate) fn join_to(&self, from: &[Block], to: &mut [Block]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(gfni) => gfni.join_to(from, to),
            Self::Portable(_) => {
                to.copy_from_slice(from);
                join(to);
            }
        }
    }

    /// Tells the CPU that these bytes will be read soon.
    pub(crate) fn prefetch(&self, bytes: &[u8]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(gfni) => gfni.prefetch(bytes),
            Self::Portable(_) => {}
        }
    }

    /// Copies each piece to its place, past the caches where this CPU can: for results that are not read again
    /// soon, so that they need not be fetched before they are overwritten, and push nothing out.
    ///
    /// # Panics
    ///
    /// If a piece and its place differ in length.
    pub(crate) fn stream<'a>(&self, moves: impl Iterator<Item = (&'a [u8], &'a mut [u8])>) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(gfni) => gfni.stream(moves),
            Self::Portable(_) => moves.for_each(|(from, to)| to.copy_from_slice(from)),
        }
    }

    /// `to ^= from`, over the shorter of the two.
    pub(crate) fn xor(&self, to: &mut [Block], from: &[Block]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(gfni) => gfni.xor(to, from),
            Self::Portable(_) => {
                for (to, from) in to.as_flattened_mut().iter_mut().zip(from.as_flattened()) {
                    *to ^= from;
                }
            }
        }
    }

    /// Adds `coefficient * source` to `sum`: blocks of little-endian elements to blocks of the engine's layout.
    /// `scratch` has the length of `source`.
    pub(crate) fn multiply_add(
        &self,
        coefficient: GfElement,
        source: &[Block],
        scratch: &mut [Block],
        sum: &mut [Block],
    ) {
        if coefficient == 0 {
            return;
        }
        let log = tables::get_exp_log().log[usize::from(coefficient)];
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(gfni) => gfni.multiply_add(log, source, sum),
            Self::Portable(engine) => {
                scratch.copy_from_slice(source);
                split(scratch);
                engine.mul(scratch, log);
                self.xor(sum, scratch);
            }
        }
    }
}

/// How wide tiles are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    /// Bytes of work space to aim at: it should stay in a cache that is the core's own.
    pub(crate) work_bytes: usize,
    /// Narrowest tile, in bytes of a shard.
    pub(crate) narrowest: usize,
    /// Widest tile, in bytes of a shard.
    pub(crate) widest: usize,
}

impl Engine for Kernel {
    fn fft(
        &self,
        data: &mut ShardsRefMut<'_>,
        pos: usize,
        size: usize,
        truncated_size: usize,
        skew_delta: usize,
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(gfni) => gfni.fft(data, pos, (size, truncated_size), skew_delta),
            Self::Portable(engine) => engine.fft(data, pos, size, truncated_size, skew_delta),
        }
    }

    fn ifft(
        &self,
        data: &mut ShardsRefMut<'_>,
        pos: usize,
        size: usize,
        truncated_size: usize,
        skew_delta: usize,
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(gfni) => gfni.ifft(data, pos, (size, truncated_size), skew_delta),
            Self::Portable(engine) => engine.ifft(data, pos, size, truncated_size, skew_delta),
        }
    }

    fn mul(&self, x: &mut [Block], log_m: GfElement) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(gfni) => gfni.mul(x, log_m),
            Self::Portable(engine) => engine.mul(x, log_m),
        }
    }
}

fn portable_name() -> &'static str {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        if std::is_x86_feature_detected!("avx2") {
            return "avx2";
        }
        if std::is_x86_feature_detected!("ssse3") {
            return "ssse3";
        }
    }
    if cfg!(target_arch = "aarch64") { "neon" } else { "plain" }
}

fn split(blocks: &mut [Block]) {
    for block in blocks {
        let elements = *block;
        let (low, high) = block.split_at_mut(32);
        for ((low, high), element) in low.iter_mut().zip(high).zip(elements.as_chunks::<2>().0) {
            [*low, *high] = *element;
        }
    }
}

fn join(blocks: &mut [Block]) {
    for block in blocks {
        let planes = *block;
        let (low, high) = planes.split_at(32);
        for ((low, high), element) in low.iter().zip(high).zip(block.as_chunks_mut::<2>().0) {
            *element = [*low, *high];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngCore as _, SeedableRng as _};

    use super::*;

    fn blocks(len: usize, seed: u64) -> Vec<Block> {
        let mut blocks = vec![[0; BLOCK_BYTES]; len];
        rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(blocks.as_flattened_mut());
        blocks
    }

    /// Runs an operation on both kernels, over the same data.
    fn on_both(data: &[Block], operation: impl Fn(&Kernel, &mut [Block])) -> [Vec<Block>; 2] {
        [Kernel::detect(), Kernel::portable()].map(|kernel| {
            let mut data = data.to_vec();
            operation(&kernel, &mut data);
            data
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn kernels_agree_on_blocks(len in 0_usize..40, seed: u64, coefficient: u16) {
            let data = blocks(len, seed);
            let other = blocks(len, seed ^ 1);
            let [ours, theirs] = on_both(&data, |kernel, data| kernel.split(data));
            prop_assert_eq!(&ours, &theirs);
            let [back, _] = on_both(&ours, |kernel, data| kernel.join(data));
            prop_assert_eq!(&back, &data);
            let copies = on_both(&other, |kernel, copy| kernel.split_to(&data, copy));
            prop_assert_eq!(&copies, &[ours.clone(), ours.clone()]);
            let copies = on_both(&other, |kernel, copy| kernel.join_to(&ours, copy));
            prop_assert_eq!(&copies, &[data.clone(), data.clone()]);
            let [ours, theirs] = on_both(&data, |kernel, data| kernel.join(data));
            prop_assert_eq!(ours, theirs);
            let [ours, theirs] = on_both(&data, |kernel, data| kernel.xor(data, &other));
            prop_assert_eq!(ours, theirs);
            let [ours, theirs] = on_both(&data, |kernel, data| kernel.mul(data, coefficient));
            prop_assert_eq!(ours, theirs);
            let [ours, theirs] = on_both(&data, |kernel, data| {
                kernel.multiply_add(coefficient, &other, &mut vec![[0; BLOCK_BYTES]; len], data);
            });
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn streaming_copies_whatever_the_alignment(
            pieces in prop::collection::vec(0_usize..300, 0..10),
            skew in 0_usize..64,
            whole: bool,
        ) {
            let pieces: Vec<Vec<u8>> = (1..).zip(&pieces)
                .map(|(byte, len)| vec![byte; if whole { len * BLOCK_BYTES } else { *len }])
                .collect();
            let expected = pieces.concat();
            for kernel in [Kernel::detect(), Kernel::portable()] {
                let mut buffer = vec![0; skew + expected.len()];
                let mut rest = &mut buffer[skew..];
                kernel.stream(pieces.iter().map(|piece| {
                    let (place, after) = std::mem::take(&mut rest).split_at_mut(piece.len());
                    rest = after;
                    (&piece[..], place)
                }));
                prop_assert_eq!(&buffer[skew..], &expected[..]);
            }
        }

        #[test]
        fn kernels_agree_on_transforms(
            log_size in 0_u32..9,
            len in 1_usize..5,
            cut: usize,
            skew: usize,
            seed: u64,
        ) {
            let size = 1_usize << log_size;
            let truncated = 1 + cut % size;
            // A transform of this size starts at a multiple of it.
            let skew_delta = skew % 8 * size;
            let data = blocks((size + 3) * len, seed);
            for inverse in [false, true] {
                let mut input = data.clone();
                if inverse {
                    input[(2 + truncated) * len..].fill([0; BLOCK_BYTES]);
                }
                let [ours, theirs] = on_both(&input, |kernel, data| {
                    let mut shards = ShardsRefMut::new(size + 3, len, data);
                    if inverse {
                        kernel.ifft(&mut shards, 2, size, truncated, skew_delta);
                    } else {
                        kernel.fft(&mut shards, 2, size, truncated, skew_delta);
                    }
                });
                // Beyond the truncation a result is unspecified, and nobody reads it.
                let end = (2 + truncated) * len;
                prop_assert_eq!(&ours[..end], &theirs[..end]);
                prop_assert_eq!(&ours[(2 + size) * len..], &input[(2 + size) * len..]);
            }
        }
    }
}
