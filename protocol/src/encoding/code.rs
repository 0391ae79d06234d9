//! Reed-Solomon over tiles: `k` source shards extend to `n`, and any `k` of the `n` give the source back.
//!
//! The field arithmetic and its transforms are reed-solomon-simd's engines; the loop around them is ours, so
//! that one workspace serves every tile, an erasure locator is computed once for a pattern rather than once a
//! tile, and bytes are read in our order. The code is the crate's own: its transforms work on blocks of 64
//! bytes, 32 low bytes of elements and then their 32 high bytes; [`split`] and [`join`] convert at the border,
//! so that the format, little-endian elements at even offsets, does not depend on it.
//!
//! Source: the code of Lin, Al-Naffouri, Han and Chung ("Novel Polynomial Basis With Fast Fourier Transform and
//! Its Application to Reed-Solomon Erasure Codes", 2016), as implemented by the crate.

use std::cmp::Ordering;

use reed_solomon_simd::engine::{
    DefaultEngine, Engine, GF_MODULUS, GF_ORDER, GfElement, ShardsRefMut, tables,
};

/// One block of a shard in the engine's layout.
pub(crate) type Block = [u8; BLOCK_BYTES];
pub(crate) const BLOCK_BYTES: usize = 64;

/// Bytes of work space that a tile aims at: it should stay in a core's second-level cache, of which 1 MiB is
/// common, with room for what is copied in and out.
const WORK_BYTES_AIM: usize = 512 << 10;
/// Widest tile. The transforms gain nothing from more, and the copies leave the first-level cache.
const TILE_BYTES_MAX: usize = 4 << 10;
/// Narrowest tile: below it, the fixed cost of a call shows.
const TILE_BYTES_MIN: usize = 256;

/// A systematic code that extends `k` shards to `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    k: usize,
    n: usize,
    /// Which of the crate's two constructions: source shards sit above the parity ("high") or below it.
    high_rate: bool,
}

/// What coding needs besides its arguments: the engine and buffers, reused from call to call.
pub struct Workspace {
    engine: DefaultEngine,
    blocks: Vec<Block>,
    /// Erasure locator of the last pattern.
    locator: Option<(Code, Vec<bool>, Box<[GfElement]>)>,
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self { engine: DefaultEngine::new(), blocks: Vec::new(), locator: None }
    }
}

impl Workspace {
    /// The engine for element-wise arithmetic.
    pub(crate) const fn engine(&self) -> &DefaultEngine {
        &self.engine
    }

    /// Returns `n_shards` work shards of `n_blocks` each; their content is unspecified.
    fn shards(&mut self, n_shards: usize, n_blocks: usize) -> &mut [Block] {
        let len = n_shards * n_blocks;
        if self.blocks.len() < len {
            self.blocks.resize(len, [0; BLOCK_BYTES]);
        }
        &mut self.blocks[..len]
    }
}

impl Code {
    /// Returns the code that extends `k` shards to `n`.
    ///
    /// # Panics
    ///
    /// Unless `0 < k < n <= 1000`.
    #[must_use]
    pub fn new(k: usize, n: usize) -> Self {
        assert!(0 < k, "a code has source shards");
        assert!(k < n, "a code has parity shards");
        assert!(n <= 1000, "far within the field's 65536 positions");
        let m = n - k;
        let high_rate = match k.next_power_of_two().cmp(&m.next_power_of_two()) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => k <= m,
        };
        Self { k, n, high_rate }
    }

    /// Source shards, `k`.
    #[must_use]
    pub const fn k(&self) -> usize {
        self.k
    }

    /// Parity shards, `n - k`.
    #[must_use]
    pub const fn n_parity(&self) -> usize {
        self.n - self.k
    }

    /// Size of the transforms: the smaller side, rounded up to a power of two.
    const fn chunk(&self) -> usize {
        if self.high_rate { self.n_parity().next_power_of_two() } else { self.k.next_power_of_two() }
    }

    /// Work shards needed to encode.
    const fn encode_work(&self) -> usize {
        let larger = if self.high_rate { self.k } else { self.n_parity() };
        larger.next_multiple_of(self.chunk())
    }

    /// Work shards needed to decode: every position of the codeword and the gap between its two sides.
    const fn decode_work(&self) -> usize {
        let larger = if self.high_rate { self.k } else { self.n_parity() };
        (self.chunk() + larger).next_power_of_two()
    }

    /// Where shard `index` (`< k` source, else parity) sits among the work shards when decoding.
    const fn position(&self, index: usize) -> usize {
        match (self.high_rate, index < self.k) {
            (true, true) => self.chunk() + index,
            (true, false) => index - self.k,
            (false, true) => index,
            (false, false) => self.chunk() + index - self.k,
        }
    }

    /// Width in bytes of the tiles in which shards are best encoded.
    #[must_use]
    pub fn encode_tile_bytes(&self) -> usize {
        tile_bytes(self.encode_work())
    }

    /// Width in bytes of the tiles in which shards are best decoded.
    #[must_use]
    pub fn decode_tile_bytes(&self) -> usize {
        tile_bytes(self.decode_work())
    }

    /// Encodes one tile of `len` bytes: `load(i, tile)` fills source shard `i`, `store(j, tile)` takes parity
    /// shard `j`, in increasing order of `j`.
    ///
    /// # Panics
    ///
    /// If `len` is odd or zero.
    pub fn encode_tile(
        &self,
        workspace: &mut Workspace,
        len: usize,
        mut load: impl FnMut(usize, &mut [u8]),
        mut store: impl FnMut(usize, &[u8]),
    ) {
        assert!(len > 0, "a tile has elements");
        assert!(len.is_multiple_of(2), "elements have two bytes");
        let n_blocks = len.div_ceil(BLOCK_BYTES);
        let (k, m, chunk, n_work) = (self.k, self.n_parity(), self.chunk(), self.encode_work());
        workspace.shards(n_work, n_blocks);
        let Workspace { engine, blocks, .. } = workspace;
        let blocks = &mut blocks[..n_work * n_blocks];
        for (i, shard) in blocks.chunks_exact_mut(n_blocks).take(k).enumerate() {
            load_shard(shard, len, |tile| load(i, tile));
        }
        let mut work = ShardsRefMut::new(n_work, n_blocks, blocks);
        if self.high_rate {
            work.zero(k..);
            for start in (0..k).step_by(chunk) {
                engine.ifft(&mut work, start, chunk, chunk.min(k - start), start + chunk);
                if start > 0 {
                    xor_within(&mut work, 0, start, chunk);
                }
            }
            engine.fft(&mut work, 0, chunk, m, 0);
        } else {
            work.zero(k..chunk);
            engine.ifft(&mut work, 0, chunk, k, 0);
            for start in (chunk..m).step_by(chunk) {
                copy_within(&mut work, start, chunk);
            }
            for start in (0..m).step_by(chunk) {
                engine.fft(&mut work, start, chunk, chunk.min(m - start), start + chunk);
            }
        }
        for (j, shard) in blocks.chunks_exact_mut(n_blocks).take(m).enumerate() {
            join(shard);
            store(j, &shard.as_flattened()[..len]);
        }
    }

    /// Prepares to decode from the shards that `present` marks (`n` flags, source first).
    ///
    /// # Panics
    ///
    /// If `present` has not `n` entries, or fewer than `k` are set.
    pub fn set_present(&self, workspace: &mut Workspace, present: &[bool]) {
        assert_eq!(present.len(), self.n, "a flag for each shard");
        assert!(present.iter().filter(|present| **present).count() >= self.k, "enough shards to decode");
        if let Some((code, pattern, _)) = &workspace.locator
            && code == self
            && pattern == present
        {
            return;
        }
        let mut erasures = vec![0; GF_ORDER].into_boxed_slice();
        // Positions of no shard: the crate counts those beyond a low-rate codeword and within a high-rate one's
        // gap as erased, the others as received zeros.
        let (chunk, m) = (self.chunk(), self.n_parity());
        if self.high_rate {
            erasures[m..chunk].fill(1);
        } else {
            erasures[chunk + m..].fill(1);
        }
        for (index, present) in present.iter().enumerate() {
            erasures[self.position(index)] = GfElement::from(!present);
        }
        let all: &mut [GfElement; GF_ORDER] = (&mut *erasures).try_into().expect("made with this length");
        let truncated = if self.high_rate { chunk + self.k } else { GF_ORDER };
        DefaultEngine::eval_poly(all, truncated);
        let locator = Box::from(&erasures[..self.decode_work()]);
        workspace.locator = Some((*self, present.to_vec(), locator));
    }

    /// Decodes one tile of `len` bytes for the pattern of the last [`Self::set_present`]: `load(i, tile)` fills
    /// shard `i`, for each that is present; `store(i, tile)` takes each missing source shard `i`, in order.
    ///
    /// # Panics
    ///
    /// If `len` is odd or zero, or no pattern of this code was set.
    pub fn decode_tile(
        &self,
        workspace: &mut Workspace,
        len: usize,
        mut load: impl FnMut(usize, &mut [u8]),
        mut store: impl FnMut(usize, &[u8]),
    ) {
        assert!(len > 0, "a tile has elements");
        assert!(len.is_multiple_of(2), "elements have two bytes");
        let n_blocks = len.div_ceil(BLOCK_BYTES);
        let n_work = self.decode_work();
        workspace.shards(n_work, n_blocks);
        let Workspace { engine, blocks, locator } = workspace;
        let (code, present, locator) = locator.as_ref().expect("a pattern was set");
        assert_eq!(code, self, "the pattern is this code's");
        let blocks = &mut blocks[..n_work * n_blocks];
        blocks.fill([0; BLOCK_BYTES]);
        for (index, _) in present.iter().enumerate().filter(|(_, present)| **present) {
            let position = self.position(index);
            let shard = &mut blocks[position * n_blocks..][..n_blocks];
            load_shard(shard, len, |tile| load(index, tile));
            engine.mul(shard, locator[position]);
        }
        let end = self.chunk() + if self.high_rate { self.k } else { self.n_parity() };
        let mut work = ShardsRefMut::new(n_work, n_blocks, blocks);
        engine.ifft(&mut work, 0, n_work, end, 0);
        // The formal derivative, in the transform's basis.
        for i in 1..n_work {
            let width = 1 << i.trailing_zeros();
            xor_within(&mut work, i - width, i, width);
        }
        engine.fft(&mut work, 0, n_work, end, 0);
        for (index, _) in present.iter().take(self.k).enumerate().filter(|(_, present)| !**present) {
            let position = self.position(index);
            let shard = &mut blocks[position * n_blocks..][..n_blocks];
            engine.mul(shard, GF_MODULUS - locator[position]);
            join(shard);
            store(index, &shard.as_flattened()[..len]);
        }
    }

    /// Returns the coefficients with which the source shards add up to parity shard `j`, for every `j`:
    /// `[n - k][k]` field elements.
    #[must_use]
    pub fn generator(&self, workspace: &mut Workspace) -> Vec<Vec<GfElement>> {
        // The code applied to the identity matrix: element `i` of source shard `i` is one, the others zero.
        let mut rows = vec![vec![0; self.k]; self.n_parity()];
        let len = 2 * self.k;
        self.encode_tile(
            workspace,
            len,
            |i, tile| {
                tile.fill(0);
                tile[2 * i] = 1;
            },
            |j, tile| {
                for (coefficient, bytes) in rows[j].iter_mut().zip(tile.as_chunks::<2>().0) {
                    *coefficient = GfElement::from_le_bytes(*bytes);
                }
            },
        );
        rows
    }
}

/// Adds `coefficient * source` to `sum`, over `len` bytes of elements. `scratch` and `sum` are in the engine's
/// layout and hold at least `len` bytes.
pub(crate) fn multiply_add(
    engine: &impl Engine,
    coefficient: GfElement,
    source: &[u8],
    scratch: &mut [Block],
    sum: &mut [Block],
) {
    if coefficient == 0 {
        return;
    }
    let n_blocks = source.len().div_ceil(BLOCK_BYTES);
    let (scratch, sum) = (&mut scratch[..n_blocks], &mut sum[..n_blocks]);
    load_shard(scratch, source.len(), |tile| tile.copy_from_slice(source));
    engine.mul(scratch, tables::get_exp_log().log[usize::from(coefficient)]);
    for (sum, product) in sum.as_flattened_mut().iter_mut().zip(scratch.as_flattened()) {
        *sum ^= product;
    }
}

/// Fills the first `len` bytes of a shard by `load`, the rest with zeros, and splits it.
fn load_shard(shard: &mut [Block], len: usize, load: impl FnOnce(&mut [u8])) {
    let (tile, padding) = shard.as_flattened_mut().split_at_mut(len);
    load(tile);
    padding.fill(0);
    split(shard);
}

/// Names the field kernel that this CPU runs.
#[must_use]
pub fn engine_name() -> &'static str {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        if std::is_x86_feature_detected!("avx2") {
            return "avx2";
        }
        if std::is_x86_feature_detected!("ssse3") {
            return "ssse3";
        }
    }
    if cfg!(target_arch = "aarch64") { "neon" } else { "portable" }
}

fn tile_bytes(n_work: usize) -> usize {
    let aim = WORK_BYTES_AIM / n_work / BLOCK_BYTES * BLOCK_BYTES;
    aim.clamp(TILE_BYTES_MIN, TILE_BYTES_MAX)
}

/// Converts blocks of little-endian elements to the engine's layout: low bytes, then high bytes.
fn split(blocks: &mut [Block]) {
    for block in blocks {
        let elements = *block;
        let (low, high) = block.split_at_mut(32);
        for ((low, high), element) in low.iter_mut().zip(high).zip(elements.as_chunks::<2>().0) {
            [*low, *high] = *element;
        }
    }
}

/// Converts blocks of the engine's layout to little-endian elements: the inverse of [`split`].
pub(crate) fn join(blocks: &mut [Block]) {
    for block in blocks {
        let planes = *block;
        let (low, high) = planes.split_at(32);
        for ((low, high), element) in low.iter().zip(high).zip(block.as_chunks_mut::<2>().0) {
            *element = [*low, *high];
        }
    }
}

/// `work[to..to + count] ^= work[from..from + count]`; the ranges do not overlap.
fn xor_within(work: &mut ShardsRefMut<'_>, to: usize, from: usize, count: usize) {
    for i in 0..count {
        let (low, high) = (to.min(from) + i, to.max(from) + i);
        let (low, high) = work.dist2_mut(low, high - low);
        let (to, from) = if to < from { (low, high) } else { (high, low) };
        for (to, from) in to.as_flattened_mut().iter_mut().zip(from.as_flattened()) {
            *to ^= from;
        }
    }
}

/// `work[to..to + count] = work[..count]`; the ranges do not overlap.
fn copy_within(work: &mut ShardsRefMut<'_>, to: usize, count: usize) {
    for i in 0..count {
        let (source, target) = work.dist2_mut(i, to);
        target.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reed_solomon_simd::{ReedSolomonEncoder, engine::NoSimd};

    use super::*;

    fn shards(count: usize, len: usize, seed: u64) -> Vec<Vec<u8>> {
        use rand::{RngCore as _, SeedableRng as _};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        (0..count)
            .map(|_| {
                let mut shard = vec![0; len];
                rng.fill_bytes(&mut shard);
                shard
            })
            .collect()
    }

    fn extend(code: &Code, source: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut parity = Vec::new();
        code.encode_tile(
            &mut Workspace::default(),
            source[0].len(),
            |i, tile| tile.copy_from_slice(&source[i]),
            |_, tile| parity.push(tile.to_vec()),
        );
        parity
    }

    /// Elements in the order in which the crate wants them: low bytes, then high bytes.
    fn planes(shard: &[u8]) -> Vec<u8> {
        let pairs = || shard.as_chunks::<2>().0.iter();
        pairs().map(|pair| pair[0]).chain(pairs().map(|pair| pair[1])).collect()
    }

    #[test]
    fn the_code_is_the_crates_own() {
        for n in (4..=64).chain([100, 101, 127, 128, 129, 255, 334, 500, 667, 1000]) {
            for k in [crate::encoding::n_source_rows(n), crate::encoding::n_source_columns(n)] {
                let n = usize::from(n);
                let code = Code::new(k, n);
                // 32 elements, so that a shard is one block of the crate's layout.
                let source = shards(k, 64, 7);
                let parity = extend(&code, &source);
                let mut theirs = ReedSolomonEncoder::new(k, n - k, 64).unwrap();
                for shard in &source {
                    theirs.add_original_shard(planes(shard)).unwrap();
                }
                let theirs = theirs.encode().unwrap();
                for (ours, theirs) in parity.iter().zip(theirs.recovery_iter()) {
                    assert_eq!(planes(ours), theirs, "{k} of {n}");
                }
            }
        }
    }

    #[test]
    fn the_portable_engine_gives_the_same_products() {
        let source = &shards(1, 1024, 3)[0];
        for coefficient in [0, 1, 2, 255, 256, 12345, 65535] {
            let mut sums = [[[0; BLOCK_BYTES]; 16]; 2];
            let mut scratch = [[0; BLOCK_BYTES]; 16];
            multiply_add(&DefaultEngine::new(), coefficient, source, &mut scratch, &mut sums[0]);
            multiply_add(&NoSimd::new(), coefficient, source, &mut scratch, &mut sums[1]);
            assert_eq!(sums[0], sums[1]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_k_of_n_give_the_source_back(n in 4_u16..=120, column: bool, elements in 1_usize..200, seed: u64) {
            use rand::{SeedableRng as _, seq::SliceRandom as _};
            let k = if column { crate::encoding::n_source_rows(n) } else { crate::encoding::n_source_columns(n) };
            let n = usize::from(n);
            let code = Code::new(k, n);
            let mut all = shards(k, 2 * elements, seed);
            all.extend(extend(&code, &all));
            let mut order: Vec<usize> = (0..n).collect();
            order.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed ^ 1));
            let mut present = vec![false; n];
            for index in &order[..k] {
                present[*index] = true;
            }
            let mut workspace = Workspace::default();
            code.set_present(&mut workspace, &present);
            let mut missing: Vec<usize> = (0..k).filter(|i| !present[*i]).collect();
            code.decode_tile(
                &mut workspace,
                2 * elements,
                |i, tile| tile.copy_from_slice(&all[i]),
                |i, tile| {
                    assert_eq!(tile, all[i]);
                    missing.retain(|m| *m != i);
                },
            );
            prop_assert!(missing.is_empty());
        }

        #[test]
        fn tiles_and_whole_shards_give_the_same_bytes(n in 4_u16..=40, elements in 2_usize..300, cut in 1_usize..300) {
            let code = Code::new(crate::encoding::n_source_rows(n), usize::from(n));
            let source = shards(code.k(), 2 * elements, 11);
            let whole = extend(&code, &source);
            let cut = 2 * (1 + cut % (elements - 1));
            let parts: Vec<_> = [0..cut, cut..2 * elements]
                .map(|range| extend(&code, &source.iter().map(|s| s[range.clone()].to_vec()).collect::<Vec<_>>()))
                .to_vec();
            for (j, whole) in whole.iter().enumerate() {
                prop_assert_eq!(&[&parts[0][j][..], &parts[1][j][..]].concat(), whole);
            }
        }

        #[test]
        fn the_generator_gives_each_parity_symbol(n in 4_u16..=100, row: bool, seed: u64) {
            let k = if row { crate::encoding::n_source_columns(n) } else { crate::encoding::n_source_rows(n) };
            let code = Code::new(k, usize::from(n));
            let source = shards(k, 130, seed);
            let parity = extend(&code, &source);
            let mut workspace = Workspace::default();
            let generator = code.generator(&mut workspace);
            for (coefficients, parity) in generator.iter().zip(&parity) {
                let mut sum = vec![[0; BLOCK_BYTES]; 3];
                let mut scratch = sum.clone();
                for (coefficient, source) in coefficients.iter().zip(&source) {
                    multiply_add(workspace.engine(), *coefficient, source, &mut scratch, &mut sum);
                }
                join(&mut sum);
                prop_assert_eq!(&sum.as_flattened()[..130], &parity[..]);
            }
        }
    }
}
