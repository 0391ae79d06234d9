//! The kernel for CPUs with AVX-512 and GFNI.
//!
//! Multiplying by a constant is linear over bits, so it is a 16 x 16 bit matrix, four 8 x 8 ones on low and high bytes.
//! `gf2p8affineqb` applies one 8 x 8 matrix to each byte of a 64-bit lane: with the low bytes of 32 elements in one
//! half of a register and their high bytes in the other, two of them and a swap of halves are a product of 32 elements.
//!
//! This is the one module of the crate with `unsafe`: loads and stores of whole blocks, and calls of functions that
//! need the features whose presence [`Gfni::detect`] found.

#![allow(unsafe_code, reason = "vector instructions; each block says why it is sound")]

use std::{
    arch::x86_64::{
        __m512i, _MM_HINT_T1, _mm_prefetch, _mm_sfence, _mm256_set1_epi64x, _mm512_broadcast_i64x4,
        _mm512_gf2p8affine_epi64_epi8, _mm512_inserti64x4, _mm512_loadu_si512, _mm512_permutexvar_epi8,
        _mm512_shuffle_i64x2, _mm512_storeu_si512, _mm512_stream_si512, _mm512_xor_si512,
    },
    sync::LazyLock,
};

use reed_solomon_simd::engine::{GF_MODULUS, GF_ORDER, GfElement, ShardsRefMut, tables};

use super::{BLOCK_BYTES, Block, Tile};

/// Four blocks of a shard amortise the loading of matrices; with up to 1024 work shards they are 256 KiB, which stays
/// in a second-level cache of 1 MiB beside what is copied in and out.
pub(super) const TILE: Tile = Tile { work_bytes: 512 << 10, narrowest: 256, widest: 16 << 10 };

/// Matrices of the product by each constant, by its logarithm: low to low, high to low, low to high, high to high
/// bytes. 2 MiB, of which a code of 1000 shards touches 32 KiB.
static MATRICES: LazyLock<Box<[[i64; 4]]>> = LazyLock::new(|| {
    let tables::ExpLog { exp, log } = tables::get_exp_log();
    let matrices = (0..=GF_MODULUS).map(|log_m| {
        let products: [GfElement; 16] = std::array::from_fn(|bit| tables::mul(1 << bit, log_m, exp, log));
        [(0, 0), (8, 0), (0, 8), (8, 8)].map(|(from, to)| matrix(&products, from, to))
    });
    matrices.collect()
});

/// Matrices of the transforms' constants, in the order in which the transforms use them, so that they are read one
/// after the other. There, the logarithm that no element has stands for zero.
static TWIDDLES: LazyLock<Box<[[i64; 4]]>> = LazyLock::new(|| {
    let matrix = |log_m: &GfElement| match *log_m {
        GF_MODULUS => [0; 4],
        log_m => MATRICES[usize::from(log_m)],
    };
    tables::get_skew().iter().map(matrix).collect()
});

/// The 8 x 8 matrix from input bits `from..from + 8` to output bits `to..to + 8`. Row `i` is byte `7 - i`, as the
/// instruction wants it.
fn matrix(products: &[GfElement; 16], from: usize, to: u32) -> i64 {
    // Byte `bit` holds the products' output bits: the columns of the matrix.
    let mut columns = [0; 8];
    for (column, product) in columns.iter_mut().zip(&products[from..from + 8]) {
        [*column, _] = (product >> to).to_le_bytes();
    }
    let mut x = u64::from_le_bytes(columns);
    // Transposed in three steps, swapping ever larger squares. Source: Hacker's Delight, section 7-3.
    for (shift, mask) in
        [(7, 0x00aa_00aa_00aa_00aa), (14, 0x0000_cccc_0000_cccc), (28, 0x0000_0000_f0f0_f0f0)]
    {
        let swap = (x ^ (x >> shift)) & mask;
        x ^= swap ^ (swap << shift);
    }
    i64::from_le_bytes(x.to_be_bytes())
}

/// Index of byte `i` of a block in the engine's layout, within a block of little-endian elements.
static SPLIT: Block = {
    let mut index = [0; BLOCK_BYTES];
    let (mut i, mut byte) = (0, 0);
    while i < 32 {
        index[i] = byte;
        index[i + 32] = byte + 1;
        i += 1;
        byte += 2;
    }
    index
};

/// Index of byte `i` of a block of little-endian elements, within a block in the engine's layout.
static JOIN: Block = {
    let mut index = [0; BLOCK_BYTES];
    let (mut i, mut byte) = (0, 0);
    while i < BLOCK_BYTES {
        index[i] = byte;
        index[i + 1] = byte + 32;
        i += 2;
        byte += 1;
    }
    index
};

/// The kernel. Having one proves that this CPU has AVX-512 (F, BW, VBMI) and GFNI.
#[derive(Clone, Copy)]
pub(crate) struct Gfni {
    matrices: &'static [[i64; 4]],
    twiddles: &'static [[i64; 4]],
}

/// A constant to multiply by, in registers.
#[derive(Clone, Copy)]
struct Constant {
    /// Low to low bytes in the lower half, high to high in the upper.
    straight: __m512i,
    /// High to low bytes in the lower half, low to high in the upper.
    crossed: __m512i,
}

#[target_feature(enable = "avx512f")]
fn load(block: &Block) -> __m512i {
    // SAFETY: a block is 64 readable bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn store(block: &mut Block, value: __m512i) {
    // SAFETY: a block is 64 writable bytes, and the store needs no alignment.
    unsafe { _mm512_storeu_si512(block.as_mut_ptr().cast(), value) }
}

#[target_feature(enable = "avx512f,gfni")]
fn product(x: __m512i, by: Constant) -> __m512i {
    // 0x4e swaps the two halves.
    let swapped = _mm512_shuffle_i64x2::<0x4e>(x, x);
    let straight = _mm512_gf2p8affine_epi64_epi8::<0>(x, by.straight);
    _mm512_xor_si512(straight, _mm512_gf2p8affine_epi64_epi8::<0>(swapped, by.crossed))
}

impl Gfni {
    /// The kernel, if this CPU has what it takes.
    pub(super) fn detect() -> Option<Self> {
        let is_able = std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512vbmi")
            && std::is_x86_feature_detected!("gfni");
        is_able.then(|| {
            debug_assert_eq!(MATRICES.len(), GF_ORDER);
            Self { matrices: &MATRICES, twiddles: &TWIDDLES }
        })
    }

    #[target_feature(enable = "avx512f")]
    fn matrices(entry: &[i64; 4]) -> Constant {
        let [low_low, high_low, low_high, high_high] = entry.map(|lane| _mm256_set1_epi64x(lane));
        Constant {
            straight: _mm512_inserti64x4::<1>(_mm512_broadcast_i64x4(low_low), high_high),
            crossed: _mm512_inserti64x4::<1>(_mm512_broadcast_i64x4(high_low), low_high),
        }
    }

    /// The constant of this logarithm.
    #[target_feature(enable = "avx512f")]
    fn constant(self, log_m: GfElement) -> Constant {
        Self::matrices(&self.matrices[usize::from(log_m)])
    }

    /// A constant of a transform.
    #[target_feature(enable = "avx512f")]
    fn twiddle(self, index: usize) -> Constant {
        Self::matrices(&self.twiddles[index])
    }

    pub(super) fn split(self, blocks: &mut [Block]) {
        // SAFETY: `detect` found the features.
        unsafe { permute(blocks, &SPLIT) }
    }

    pub(super) fn join(self, blocks: &mut [Block]) {
        // SAFETY: `detect` found the features.
        unsafe { permute(blocks, &JOIN) }
    }

    pub(super) fn split_to(self, from: &[Block], to: &mut [Block]) {
        // SAFETY: `detect` found the features.
        unsafe { permute_to(from, to, &SPLIT) }
    }

    pub(super) fn join_to(self, from: &[Block], to: &mut [Block]) {
        // SAFETY: `detect` found the features.
        unsafe { permute_to(from, to, &JOIN) }
    }

    /// See [`super::Kernel::prefetch`].
    pub(super) fn prefetch(self, bytes: &[u8]) {
        for line in bytes.chunks(BLOCK_BYTES) {
            // SAFETY: every x86-64 CPU has this instruction, and it reads nothing that the program could see.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) }
        }
    }

    /// See [`super::Kernel::stream`].
    pub(super) fn stream<'a>(self, moves: impl Iterator<Item = (&'a [u8], &'a mut [u8])>) {
        /// Makes what was streamed visible as if it had been stored: also when the iterator panics.
        struct Fence;
        impl Drop for Fence {
            fn drop(&mut self) {
                // SAFETY: every x86-64 CPU has this instruction.
                unsafe { _mm_sfence() }
            }
        }
        let _fence = Fence;
        for (from, to) in moves {
            let (blocks, []) = from.as_chunks() else {
                to.copy_from_slice(from);
                continue;
            };
            assert_eq!(from.len(), to.len(), "room for all");
            if to.as_ptr().align_offset(BLOCK_BYTES) == 0 {
                // SAFETY: `detect` found the features, and `to` is as long as `from` and aligned to whole blocks. The
                // places are borrowed until this function returns, and by then the fence was passed: nobody reads
                // them before.
                unsafe { stream_blocks(blocks, to.as_chunks_mut().0) }
            } else {
                to.copy_from_slice(from);
            }
        }
    }

    pub(super) fn xor(self, to: &mut [Block], from: &[Block]) {
        #[target_feature(enable = "avx512f")]
        fn xor(to: &mut [Block], from: &[Block]) {
            for (to, from) in to.iter_mut().zip(from) {
                store(to, _mm512_xor_si512(load(to), load(from)));
            }
        }
        // SAFETY: `detect` found the features.
        unsafe { xor(to, from) }
    }

    pub(super) fn mul(self, blocks: &mut [Block], log_m: GfElement) {
        #[target_feature(enable = "avx512f,gfni")]
        fn mul(blocks: &mut [Block], by: Constant) {
            for block in blocks {
                store(block, product(load(block), by));
            }
        }
        // SAFETY: `detect` found the features.
        unsafe { mul(blocks, self.constant(log_m)) }
    }

    pub(super) fn multiply_add(self, log_m: GfElement, source: &[Block], sum: &mut [Block]) {
        #[target_feature(enable = "avx512f,avx512vbmi,gfni")]
        fn multiply_add(by: Constant, source: &[Block], sum: &mut [Block]) {
            let split = load(&SPLIT);
            for (source, sum) in source.iter().zip(sum) {
                let elements = _mm512_permutexvar_epi8(split, load(source));
                store(sum, _mm512_xor_si512(load(sum), product(elements, by)));
            }
        }
        // SAFETY: `detect` found the features.
        unsafe { multiply_add(self.constant(log_m), source, sum) }
    }

    /// See [`reed_solomon_simd::engine::Engine::fft`]; `sizes` are its size and its truncated size.
    pub(super) fn fft(
        self,
        data: &mut ShardsRefMut<'_>,
        pos: usize,
        sizes: (usize, usize),
        skew_delta: usize,
    ) {
        // SAFETY: `detect` found the features.
        unsafe { self.fft_layers(data, pos, sizes, skew_delta) }
    }

    /// See [`reed_solomon_simd::engine::Engine::ifft`]; `sizes` are its size and its truncated size.
    pub(super) fn ifft(
        self,
        data: &mut ShardsRefMut<'_>,
        pos: usize,
        sizes: (usize, usize),
        skew_delta: usize,
    ) {
        // SAFETY: `detect` found the features.
        unsafe { self.ifft_layers(data, pos, sizes, skew_delta) }
    }

    /// Two layers of the transform at a time, so that each block is loaded and stored half as often.
    #[target_feature(enable = "avx512f,gfni")]
    fn fft_layers(
        self,
        data: &mut ShardsRefMut<'_>,
        pos: usize,
        (size, truncated_size): (usize, usize),
        skew_delta: usize,
    ) {
        let (mut dist4, mut dist) = (size, size >> 2);
        while dist != 0 {
            for r in (0..truncated_size).step_by(dist4) {
                let base = r + dist + skew_delta - 1;
                let (c01, c02, c23) =
                    (self.twiddle(base), self.twiddle(base + dist), self.twiddle(base + dist * 2));
                for i in r..r + dist {
                    let (s0, s1, s2, s3) = data.dist4_mut(pos + i, dist);
                    for (((b0, b1), b2), b3) in s0.iter_mut().zip(s1).zip(s2).zip(s3) {
                        let (mut x0, mut x1, mut x2, mut x3) = (load(b0), load(b1), load(b2), load(b3));
                        x0 = _mm512_xor_si512(x0, product(x2, c02));
                        x1 = _mm512_xor_si512(x1, product(x3, c02));
                        x2 = _mm512_xor_si512(x2, x0);
                        x3 = _mm512_xor_si512(x3, x1);
                        x0 = _mm512_xor_si512(x0, product(x1, c01));
                        x2 = _mm512_xor_si512(x2, product(x3, c23));
                        x1 = _mm512_xor_si512(x1, x0);
                        x3 = _mm512_xor_si512(x3, x2);
                        store(b0, x0);
                        store(b1, x1);
                        store(b2, x2);
                        store(b3, x3);
                    }
                }
            }
            dist4 = dist;
            dist >>= 2;
        }
        if dist4 == 2 {
            for r in (0..truncated_size).step_by(2) {
                let by = self.twiddle(r + skew_delta);
                let (s0, s1) = data.dist2_mut(pos + r, 1);
                for (b0, b1) in s0.iter_mut().zip(s1) {
                    let (x0, x1) = (load(b0), load(b1));
                    let x0 = _mm512_xor_si512(x0, product(x1, by));
                    store(b0, x0);
                    store(b1, _mm512_xor_si512(x1, x0));
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,gfni")]
    fn ifft_layers(
        self,
        data: &mut ShardsRefMut<'_>,
        pos: usize,
        (size, truncated_size): (usize, usize),
        skew_delta: usize,
    ) {
        let (mut dist, mut dist4) = (1, 4);
        while dist4 <= size {
            for r in (0..truncated_size).step_by(dist4) {
                let base = r + dist + skew_delta - 1;
                let (c01, c02, c23) =
                    (self.twiddle(base), self.twiddle(base + dist), self.twiddle(base + dist * 2));
                for i in r..r + dist {
                    let (s0, s1, s2, s3) = data.dist4_mut(pos + i, dist);
                    for (((b0, b1), b2), b3) in s0.iter_mut().zip(s1).zip(s2).zip(s3) {
                        let (mut x0, mut x1, mut x2, mut x3) = (load(b0), load(b1), load(b2), load(b3));
                        x1 = _mm512_xor_si512(x1, x0);
                        x3 = _mm512_xor_si512(x3, x2);
                        x0 = _mm512_xor_si512(x0, product(x1, c01));
                        x2 = _mm512_xor_si512(x2, product(x3, c23));
                        x2 = _mm512_xor_si512(x2, x0);
                        x3 = _mm512_xor_si512(x3, x1);
                        x0 = _mm512_xor_si512(x0, product(x2, c02));
                        x1 = _mm512_xor_si512(x1, product(x3, c02));
                        store(b0, x0);
                        store(b1, x1);
                        store(b2, x2);
                        store(b3, x3);
                    }
                }
            }
            dist = dist4;
            dist4 <<= 2;
        }
        if dist < size {
            let by = self.twiddle(dist + skew_delta - 1);
            for i in 0..dist {
                let (s0, s1) = data.dist2_mut(pos + i, dist);
                for (b0, b1) in s0.iter_mut().zip(s1) {
                    let x0 = load(b0);
                    let x1 = _mm512_xor_si512(load(b1), x0);
                    store(b0, _mm512_xor_si512(x0, product(x1, by)));
                    store(b1, x1);
                }
            }
        }
    }
}

/// Moves the bytes of each block to where `index` says they come from.
#[target_feature(enable = "avx512f,avx512vbmi")]
fn permute(blocks: &mut [Block], index: &Block) {
    let index = load(index);
    for block in blocks {
        store(block, _mm512_permutexvar_epi8(index, load(block)));
    }
}

/// Like [`permute`], from some blocks to others.
#[target_feature(enable = "avx512f,avx512vbmi")]
fn permute_to(from: &[Block], to: &mut [Block], index: &Block) {
    let index = load(index);
    for (from, to) in from.iter().zip(to) {
        store(to, _mm512_permutexvar_epi8(index, load(from)));
    }
}

/// Copies blocks past the caches.
///
/// # Safety
///
/// `to` begins on a multiple of 64 bytes, and nobody reads it before a store fence.
#[target_feature(enable = "avx512f")]
unsafe fn stream_blocks(from: &[Block], to: &mut [Block]) {
    for (from, to) in from.iter().zip(to) {
        // SAFETY: a block is 64 writable bytes, and the caller says that it is aligned.
        unsafe { _mm512_stream_si512(to.as_mut_ptr().cast(), load(from)) }
    }
}
