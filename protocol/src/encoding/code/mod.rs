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

use super::{
    kernel::{BLOCK_BYTES, Block, Kernel},
    lines::Lines,
};

/// A systematic code that extends `k` shards to `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    k: usize,
    n: usize,
    /// Which of the crate's two constructions: source shards sit above the parity ("high") or below it.
    high_rate: bool,
}

/// Most patterns of which the locators are kept. To compute one takes some 300 microseconds however few shards there are, far
/// more than to decode a few symbols with it; and the pattern follows from who answers, so it may be another for each
/// sliver. Those of 1000 shards, the largest, take 640 KiB together.
const LOCATORS_MAX: usize = 128;

/// With which factors the shards that are present, and those that are not, are multiplied when decoding.
struct Locator {
    code: Code,
    present: Vec<bool>,
    factors: Box<[GfElement]>,
}

/// What coding needs besides its arguments: the engine and buffers, reused from call to call.
pub struct Workspace {
    kernel: Kernel,
    /// Work shards, in whole blocks.
    blocks: Lines,
    /// Erasure locators of the last patterns; the one that is set comes last.
    locators: Vec<Locator>,
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace").field("blocks", &self.blocks).finish_non_exhaustive()
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::with(Kernel::detect())
    }
}

impl Workspace {
    fn with(kernel: Kernel) -> Self {
        Self { kernel, blocks: Lines::default(), locators: Vec::new() }
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

    /// The kernel, to move bytes with.
    pub(crate) fn kernel(&self) -> Kernel {
        self.kernel.clone()
    }

    /// Width in bytes of the tiles in which `n_work` work shards are best coded.
    fn tile_bytes(&self, n_work: usize) -> usize {
        let tile = self.kernel.tile();
        let aim = tile.work_bytes / n_work / BLOCK_BYTES * BLOCK_BYTES;
        aim.clamp(tile.narrowest, tile.widest)
    }

    /// Makes room for `n_blocks` blocks of work shards; their content is unspecified.
    fn reserve(&mut self, n_blocks: usize) {
        if self.blocks.len() < n_blocks * BLOCK_BYTES {
            self.blocks.resize(n_blocks * BLOCK_BYTES);
        }
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

    /// Fills it with pieces of `piece_bytes` each, one after the other.
    ///
    /// # Panics
    ///
    /// If they are not as long as the tile together.
    pub fn copy_from_each<'p>(self, piece_bytes: usize, pieces: impl Iterator<Item = &'p [u8]>) {
        if !piece_bytes.is_multiple_of(BLOCK_BYTES) {
            return self.fill_with(|tile| {
                for (target, piece) in tile.chunks_exact_mut(piece_bytes).zip(pieces) {
                    target.copy_from_slice(piece);
                }
            });
        }
        let targets = self.blocks.chunks_exact_mut(piece_bytes / BLOCK_BYTES);
        assert_eq!(targets.len() * piece_bytes, self.len, "whole pieces");
        for (target, piece) in targets.zip(pieces) {
            self.kernel.split_to(piece.as_chunks().0, target);
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

/// The parity shards of a tile, computed and still in the work space.
#[derive(Debug)]
pub struct ParityTile<'a> {
    kernel: &'a Kernel,
    blocks: &'a mut [Block],
    /// Blocks of a shard.
    n_blocks: usize,
    len: usize,
}

impl<'a> ParityTile<'a> {
    /// The shards, one after the other.
    pub fn into_shards(self) -> impl Iterator<Item = ShardOut<'a>> {
        let Self { kernel, len, .. } = self;
        self.blocks.chunks_exact_mut(self.n_blocks).map(move |blocks| ShardOut { kernel, blocks, len })
    }

    /// All shards at once, as bytes.
    pub(crate) fn into_tile(self) -> Tile<'a> {
        self.kernel.join(self.blocks);
        Tile { bytes: self.blocks.as_flattened(), stride: self.n_blocks * BLOCK_BYTES, len: self.len }
    }
}

/// Equal parts of several shards, as bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile<'a> {
    bytes: &'a [u8],
    /// From the start of one shard to the start of the next.
    stride: usize,
    /// Bytes of a shard.
    len: usize,
}

impl<'a> Tile<'a> {
    /// The bytes `start..start + len` of each of several shards of `stride` bytes.
    pub(crate) fn within(shards: &'a [u8], stride: usize, range: std::ops::Range<usize>) -> Self {
        Self { bytes: &shards[range.start..], stride, len: range.len() }
    }

    /// Cuts its first `n_shards` shards into pieces of at most `bytes`.
    pub(crate) fn pieces(self, n_shards: usize, bytes: usize) -> impl Iterator<Item = &'a [u8]> {
        (0..n_shards).flat_map(move |index| self.shard(index).chunks(bytes))
    }

    /// The bytes of one shard.
    pub(crate) fn shard(&self, index: usize) -> &'a [u8] {
        &self.bytes[index * self.stride..][..self.len]
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

    /// Encodes one tile of `len` bytes: `load(i, shard)` fills source shard `i`. Returns the parity shards.
    ///
    /// # Panics
    ///
    /// If `len` is odd or zero.
    pub fn encode_tile<'a>(
        &self,
        workspace: &'a mut Workspace,
        len: usize,
        mut load: impl FnMut(usize, ShardIn<'_>),
    ) -> ParityTile<'a> {
        assert!(len > 0, "a tile has elements");
        assert!(len.is_multiple_of(2), "elements have two bytes");
        let n_blocks = len.div_ceil(BLOCK_BYTES);
        let (k, m, chunk, n_work) = (self.k, self.n_parity(), self.chunk(), self.encode_work());
        workspace.reserve(n_work * n_blocks);
        let Workspace { kernel, blocks, .. } = workspace;
        let blocks = &mut blocks.as_chunks_mut().0[..n_work * n_blocks];
        for (i, shard) in blocks.chunks_exact_mut(n_blocks).take(k).enumerate() {
            load(i, ShardIn { kernel, blocks: shard, len });
        }
        if self.high_rate {
            blocks[k * n_blocks..].fill([0; BLOCK_BYTES]);
            for start in (0..k).step_by(chunk) {
                kernel.ifft(&mut shards(blocks, n_blocks), start, chunk, chunk.min(k - start), start + chunk);
                if start > 0 {
                    let (sum, term) = blocks.split_at_mut(start * n_blocks);
                    kernel.xor(&mut sum[..chunk * n_blocks], term);
                }
            }
            kernel.fft(&mut shards(blocks, n_blocks), 0, chunk, m, 0);
        } else {
            blocks[k * n_blocks..chunk * n_blocks].fill([0; BLOCK_BYTES]);
            kernel.ifft(&mut shards(blocks, n_blocks), 0, chunk, k, 0);
            for start in (chunk..m).step_by(chunk) {
                blocks.copy_within(..chunk * n_blocks, start * n_blocks);
            }
            for start in (0..m).step_by(chunk) {
                kernel.fft(&mut shards(blocks, n_blocks), start, chunk, chunk.min(m - start), start + chunk);
            }
        }
        ParityTile { kernel, blocks: &mut blocks[..m * n_blocks], n_blocks, len }
    }

    /// Prepares to decode from the shards that `present` marks (`n` flags, source first).
    ///
    /// # Panics
    ///
    /// If `present` has not `n` entries, or fewer than `k` are set.
    pub fn set_present(&self, workspace: &mut Workspace, present: &[bool]) {
        assert_eq!(present.len(), self.n, "a flag for each shard");
        assert!(present.iter().filter(|present| **present).count() >= self.k, "enough shards to decode");
        let locators = &mut workspace.locators;
        if let Some(at) = locators.iter().rposition(|it| it.code == *self && it.present == present) {
            locators[at..].rotate_left(1);
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
        let factors = Box::from(&erasures[..self.decode_work()]);
        if locators.len() == LOCATORS_MAX {
            locators.remove(0);
        }
        locators.push(Locator { code: *self, present: present.to_vec(), factors });
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
        workspace.reserve(n_work * n_blocks);
        let Workspace { kernel, blocks, locators } = workspace;
        let Locator { code, present, factors } = locators.last().expect("a pattern was set");
        assert_eq!(code, self, "the pattern is this code's");
        let blocks = &mut blocks.as_chunks_mut().0[..n_work * n_blocks];
        // Positions that no shard fills are zero.
        let mut filled = vec![false; n_work];
        for (index, _) in present.iter().enumerate().filter(|(_, present)| **present) {
            let position = self.position(index);
            filled[position] = true;
            let shard = &mut blocks[position * n_blocks..][..n_blocks];
            load(index, ShardIn { kernel, blocks: &mut *shard, len });
            kernel.mul(shard, factors[position]);
        }
        for (shard, _) in blocks.chunks_exact_mut(n_blocks).zip(&filled).filter(|(_, filled)| !**filled) {
            shard.fill([0; BLOCK_BYTES]);
        }
        let end = self.chunk() + if self.high_rate { self.k } else { self.n_parity() };
        kernel.ifft(&mut shards(blocks, n_blocks), 0, n_work, end, 0);
        // The formal derivative, in the transform's basis.
        for i in 1..n_work {
            let width = 1 << i.trailing_zeros();
            let (sum, term) = blocks.split_at_mut(i * n_blocks);
            kernel.xor(&mut sum[(i - width) * n_blocks..], term);
        }
        // Only source shards are wanted: in a low-rate code they come first, and the rest need not be computed.
        let wanted = if self.high_rate { end } else { self.k };
        kernel.fft(&mut shards(blocks, n_blocks), 0, n_work, wanted, 0);
        for (index, _) in present.iter().take(self.k).enumerate().filter(|(_, present)| !**present) {
            let position = self.position(index);
            let shard = &mut blocks[position * n_blocks..][..n_blocks];
            kernel.mul(shard, GF_MODULUS - factors[position]);
            store(index, ShardOut { kernel, blocks: shard, len });
        }
    }

    /// Returns the coefficients with which the source shards add up to parity shard `j`, for every `j`:
    /// `[n - k][k]` field elements.
    #[must_use]
    pub fn generator(&self, workspace: &mut Workspace) -> Vec<Vec<GfElement>> {
        // The code applied to the identity matrix: element `i` of source shard `i` is one, the others zero.
        let mut rows = vec![vec![0; self.k]; self.n_parity()];
        let parity = self.encode_tile(workspace, 2 * self.k, |i, shard| {
            shard.fill_with(|tile| {
                tile.fill(0);
                tile[2 * i] = 1;
            });
        });
        for (row, shard) in rows.iter_mut().zip(parity.into_shards()) {
            for (coefficient, bytes) in row.iter_mut().zip(shard.into_bytes().as_chunks::<2>().0) {
                *coefficient = GfElement::from_le_bytes(*bytes);
            }
        }
        rows
    }
}

/// Blocks as shards of `n_blocks` each.
fn shards(blocks: &mut [Block], n_blocks: usize) -> ShardsRefMut<'_> {
    ShardsRefMut::new(blocks.len() / n_blocks, n_blocks, blocks)
}

#[cfg(test)]
mod tests;
