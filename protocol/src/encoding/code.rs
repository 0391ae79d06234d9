//! Reed-Solomon over tiles: `k` source shards extend to `n`, and any `k` of the `n` give the source back.
//!
//! The field arithmetic and its transforms are reed-solomon-simd's engines; the loop around them is ours, so
//! that one workspace serves every tile, an erasure locator is computed once for a pattern rather than once a
//! tile, and bytes are read in our order. The code is the crate's own: its transforms work on blocks of 64
//! bytes, 32 low bytes of elements and then their 32 high bytes; the kernel converts at the border,
//! so that the format, little-endian elements at even offsets, does not depend on it.
//!
//! Source: the code of Lin, Al-Naffouri, Han and Chung ("Novel Polynomial Basis With Fast Fourier Transform and
//! Its Application to Reed-Solomon Erasure Codes", 2016), as implemented by the crate.

use std::cmp::Ordering;

use reed_solomon_simd::engine::{Engine, GF_MODULUS, GF_ORDER, GfElement, ShardsRefMut};

use super::kernel::{BLOCK_BYTES, Block, Kernel};

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
    kernel: Kernel,
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
        Self::with(Kernel::detect())
    }
}

impl Workspace {
    const fn with(kernel: Kernel) -> Self {
        Self { kernel, blocks: Vec::new(), locator: None }
    }

    /// A workspace with the kernel that every CPU has, to compare with.
    #[must_use]
    pub fn portable() -> Self {
        Self::with(Kernel::portable())
    }

    /// Names the kernel.
    #[must_use]
    pub fn kernel_name(&self) -> &'static str {
        self.kernel.name()
    }

    /// Width in bytes of the tiles in which `n_work` work shards are best coded.
    fn tile_bytes(&self, n_work: usize) -> usize {
        let tile = self.kernel.tile();
        let aim = tile.work_bytes / n_work / BLOCK_BYTES * BLOCK_BYTES;
        aim.clamp(tile.narrowest, tile.widest)
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

/// A shard that is to be filled with a tile.
#[derive(Debug)]
pub struct ShardIn<'a> {
    kernel: &'a Kernel,
    blocks: &'a mut [Block],
    len: usize,
}

impl ShardIn<'_> {
    /// Fills it with the bytes of a tile.
    ///
    /// # Panics
    ///
    /// If there are not as many as the tile is wide.
    pub fn copy_from(self, tile: &[u8]) {
        assert_eq!(tile.len(), self.len, "a whole tile");
        let (whole, rest) = tile.as_chunks::<BLOCK_BYTES>();
        let (blocks, last) = self.blocks.split_at_mut(whole.len());
        self.kernel.split_to(whole, blocks);
        if let [last] = last {
            last[..rest.len()].copy_from_slice(rest);
            last[rest.len()..].fill(0);
            self.kernel.split(std::slice::from_mut(last));
        }
    }

    /// Has it filled piece by piece.
    pub fn fill_with(self, fill: impl FnOnce(&mut [u8])) {
        let (tile, padding) = self.blocks.as_flattened_mut().split_at_mut(self.len);
        fill(tile);
        padding.fill(0);
        self.kernel.split(self.blocks);
    }
}

/// A shard that was computed.
#[derive(Debug)]
pub struct ShardOut<'a> {
    kernel: &'a Kernel,
    blocks: &'a mut [Block],
    len: usize,
}

impl<'a> ShardOut<'a> {
    /// Writes the bytes of the tile.
    ///
    /// # Panics
    ///
    /// If there is not room for as many as the tile is wide.
    pub fn copy_to(self, tile: &mut [u8]) {
        assert_eq!(tile.len(), self.len, "room for a whole tile");
        let (whole, rest) = tile.as_chunks_mut::<BLOCK_BYTES>();
        let (blocks, last) = self.blocks.split_at_mut(whole.len());
        self.kernel.join_to(blocks, whole);
        if let [last] = last {
            self.kernel.join(std::slice::from_mut(last));
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }

    /// The bytes of the tile.
    #[must_use]
    pub fn into_bytes(self) -> &'a [u8] {
        self.kernel.join(self.blocks);
        &self.blocks.as_flattened()[..self.len]
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
    pub fn encode_tile_bytes(&self, workspace: &Workspace) -> usize {
        workspace.tile_bytes(self.encode_work())
    }

    /// Width in bytes of the tiles in which shards are best decoded.
    #[must_use]
    pub fn decode_tile_bytes(&self, workspace: &Workspace) -> usize {
        workspace.tile_bytes(self.decode_work())
    }

    /// Encodes one tile of `len` bytes: `load(i, shard)` fills source shard `i`, `store(j, shard)` takes parity
    /// shard `j`, in increasing order of `j`.
    ///
    /// # Panics
    ///
    /// If `len` is odd or zero.
    pub fn encode_tile(
        &self,
        workspace: &mut Workspace,
        len: usize,
        mut load: impl FnMut(usize, ShardIn<'_>),
        mut store: impl FnMut(usize, ShardOut<'_>),
    ) {
        assert!(len > 0, "a tile has elements");
        assert!(len.is_multiple_of(2), "elements have two bytes");
        let n_blocks = len.div_ceil(BLOCK_BYTES);
        let (k, m, chunk, n_work) = (self.k, self.n_parity(), self.chunk(), self.encode_work());
        workspace.shards(n_work, n_blocks);
        let Workspace { kernel, blocks, .. } = workspace;
        let blocks = &mut blocks[..n_work * n_blocks];
        for (i, shard) in blocks.chunks_exact_mut(n_blocks).take(k).enumerate() {
            load(i, ShardIn { kernel, blocks: shard, len });
        }
        let mut work = ShardsRefMut::new(n_work, n_blocks, blocks);
        if self.high_rate {
            work.zero(k..);
            for start in (0..k).step_by(chunk) {
                kernel.ifft(&mut work, start, chunk, chunk.min(k - start), start + chunk);
                if start > 0 {
                    xor_within(kernel, &mut work, 0, start, chunk);
                }
            }
            kernel.fft(&mut work, 0, chunk, m, 0);
        } else {
            work.zero(k..chunk);
            kernel.ifft(&mut work, 0, chunk, k, 0);
            for start in (chunk..m).step_by(chunk) {
                copy_within(&mut work, start, chunk);
            }
            for start in (0..m).step_by(chunk) {
                kernel.fft(&mut work, start, chunk, chunk.min(m - start), start + chunk);
            }
        }
        for (j, shard) in blocks.chunks_exact_mut(n_blocks).take(m).enumerate() {
            store(j, ShardOut { kernel, blocks: shard, len });
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
        Kernel::eval_poly(all, truncated);
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
        mut load: impl FnMut(usize, ShardIn<'_>),
        mut store: impl FnMut(usize, ShardOut<'_>),
    ) {
        assert!(len > 0, "a tile has elements");
        assert!(len.is_multiple_of(2), "elements have two bytes");
        let n_blocks = len.div_ceil(BLOCK_BYTES);
        let n_work = self.decode_work();
        workspace.shards(n_work, n_blocks);
        let Workspace { kernel, blocks, locator } = workspace;
        let (code, present, locator) = locator.as_ref().expect("a pattern was set");
        assert_eq!(code, self, "the pattern is this code's");
        let blocks = &mut blocks[..n_work * n_blocks];
        // Positions that no shard fills are zero.
        let mut filled = vec![false; n_work];
        for (index, _) in present.iter().enumerate().filter(|(_, present)| **present) {
            let position = self.position(index);
            filled[position] = true;
            let shard = &mut blocks[position * n_blocks..][..n_blocks];
            load(index, ShardIn { kernel, blocks: &mut *shard, len });
            kernel.mul(shard, locator[position]);
        }
        for (shard, _) in blocks.chunks_exact_mut(n_blocks).zip(&filled).filter(|(_, filled)| !**filled) {
            shard.fill([0; BLOCK_BYTES]);
        }
        let end = self.chunk() + if self.high_rate { self.k } else { self.n_parity() };
        let mut work = ShardsRefMut::new(n_work, n_blocks, blocks);
        kernel.ifft(&mut work, 0, n_work, end, 0);
        // The formal derivative, in the transform's basis.
        for i in 1..n_work {
            let width = 1 << i.trailing_zeros();
            xor_within(kernel, &mut work, i - width, i, width);
        }
        kernel.fft(&mut work, 0, n_work, end, 0);
        for (index, _) in present.iter().take(self.k).enumerate().filter(|(_, present)| !**present) {
            let position = self.position(index);
            let shard = &mut blocks[position * n_blocks..][..n_blocks];
            kernel.mul(shard, GF_MODULUS - locator[position]);
            store(index, ShardOut { kernel, blocks: shard, len });
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
            |i, shard| {
                shard.fill_with(|tile| {
                    tile.fill(0);
                    tile[2 * i] = 1;
                });
            },
            |j, shard| {
                for (coefficient, bytes) in rows[j].iter_mut().zip(shard.into_bytes().as_chunks::<2>().0) {
                    *coefficient = GfElement::from_le_bytes(*bytes);
                }
            },
        );
        rows
    }
}

/// `work[to..to + count] ^= work[from..from + count]`; the ranges do not overlap.
fn xor_within(kernel: &Kernel, work: &mut ShardsRefMut<'_>, to: usize, from: usize, count: usize) {
    for i in 0..count {
        let (low, high) = (to.min(from) + i, to.max(from) + i);
        let (low, high) = work.dist2_mut(low, high - low);
        let (to, from) = if to < from { (low, high) } else { (high, low) };
        kernel.xor(to, from);
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
    use reed_solomon_simd::{ReedSolomonEncoder, engine::tables};

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
            |i, shard| shard.copy_from(&source[i]),
            |_, shard| parity.push(shard.into_bytes().to_vec()),
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

    /// Product of two field elements.
    fn product(a: GfElement, b: GfElement) -> GfElement {
        let tables::ExpLog { exp, log } = tables::get_exp_log();
        if a == 0 || b == 0 { 0 } else { tables::mul(a, log[usize::from(b)], exp, log) }
    }

    fn inverse(a: GfElement) -> GfElement {
        let tables::ExpLog { exp, log } = tables::get_exp_log();
        tables::mul(1, GF_MODULUS - log[usize::from(a)], exp, log)
    }

    /// The value at `x` of the polynomial of least degree through the points, which are pairs of position and value.
    fn interpolate(points: &[(GfElement, GfElement)], x: GfElement) -> GfElement {
        points.iter().fold(0, |sum, (xi, yi)| {
            let others = points.iter().filter(|(xj, _)| xj != xi);
            sum ^ others.fold(*yi, |term, (xj, _)| product(product(term, x ^ xj), inverse(xi ^ xj)))
        })
    }

    /// The field as `docs/spec/encoding.md` defines it: polynomials over bits modulo 0x1002d, written in another basis.
    #[test]
    fn the_field_is_the_documented_one() {
        use reed_solomon_simd::engine::{CANTOR_BASIS, GF_POLYNOMIAL};
        assert_eq!(GF_POLYNOMIAL, 0x1002d);
        let to_polynomial = |a: GfElement| {
            let bits = CANTOR_BASIS.iter().enumerate().filter(|(bit, _)| a >> bit & 1 == 1);
            bits.fold(0_u32, |sum, (_, basis)| sum ^ u32::from(*basis))
        };
        let multiply = |a: u32, b: u32| {
            let mut sum = (0..16).filter(|bit| b >> bit & 1 == 1).fold(0_u32, |sum, bit| sum ^ a << bit);
            for bit in (16..32).rev() {
                if sum >> bit & 1 == 1 {
                    sum ^= 0x1002d << (bit - 16);
                }
            }
            sum
        };
        for (a, b) in [(1, 1), (1, 77), (2, 3), (255, 256), (0x1234, 0xfedc), (65535, 65535), (0, 9)] {
            let expected = multiply(to_polynomial(a), to_polynomial(b));
            assert_eq!(to_polynomial(product(a, b)), expected, "{a} * {b}");
        }
    }

    /// The code as `docs/spec/encoding.md` defines it: values of a polynomial.
    #[test]
    fn parity_is_the_values_of_a_polynomial() {
        let narrow = |index: usize| GfElement::try_from(index).unwrap();
        for (k, n) in [
            (2, 4),
            (3, 4),
            (3, 7),
            (5, 7),
            (4, 10),
            (7, 10),
            (5, 13),
            (9, 13),
            (11, 31),
            (21, 31),
            (34, 100),
        ] {
            let code = Code::new(k, n);
            let source = shards(k, 2, 42);
            let parity = extend(&code, &source);
            let element = |shard: &[u8]| GfElement::from_le_bytes([shard[0], shard[1]]);
            let value = |i: usize| source.get(i).map_or(0, |shard| element(shard));
            let chunk = code.chunk();
            let (points, first): (Vec<_>, usize) = if code.high_rate {
                // Source values from `chunk` on, zeros to the next power of two; parity from 0 on.
                let end = (chunk + k).next_power_of_two();
                ((chunk..end).map(|at| (narrow(at), value(at - chunk))).collect(), 0)
            } else {
                // Source values from 0 on, zeros to `chunk`; parity from there on.
                ((0..chunk).map(|at| (narrow(at), value(at))).collect(), chunk)
            };
            for (j, parity) in parity.iter().enumerate() {
                let expected = interpolate(&points, narrow(first + j));
                assert_eq!(
                    element(parity),
                    expected,
                    "parity {j} of {k} of {n}, high rate: {}",
                    code.high_rate
                );
            }
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
                |i, shard| shard.copy_from(&all[i]),
                |i, shard| {
                    assert_eq!(shard.into_bytes(), all[i]);
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
                let mut sum = crate::encoding::recover::SymbolSum::new(130);
                for (coefficient, source) in coefficients.iter().zip(&source) {
                    sum.add(*coefficient, source);
                }
                prop_assert_eq!(&sum.finish(), parity);
            }
        }
    }
}
