//! The contents of one simulated file: what a crash would leave, and what is not yet safe from one.

use std::ops::Range;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::size::{to_u64, to_usize};

/// The unit a disk writes wholly or not at all.
const SECTOR_BYTES: usize = 512;

/// Something done to a file and not yet synced.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// These bytes at this offset.
    Write(usize, Vec<u8>),
    /// Cut or extended to this length.
    Truncate(usize),
    /// These bytes zeroed.
    Punch(Range<usize>),
}

impl Change {
    /// Carries the change out on an image of the file.
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => write(image, *offset, data),
            Self::Truncate(len) => image.resize(*len, 0),
            Self::Punch(range) => {
                let range = range.start.min(image.len())..range.end.min(image.len());
                image[range].fill(0);
            }
        }
    }

    /// Carries out whatever part of the change survives a crash.
    fn tear(&self, image: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
        let Self::Write(offset, data) = self else {
            if rng.random() {
                self.apply(image);
            }
            return;
        };
        let mode = rng.random_range(0..4);
        let n_sectors = data.len().div_ceil(SECTOR_BYTES) + 1;
        let cut = rng.random_range(0..=n_sectors);
        for (i, sector) in sectors(*offset, data.len()).enumerate() {
            let kept = match mode {
                0 => true,
                1 => false,
                2 => i < cut,
                _ => rng.random(),
            };
            if kept {
                write(image, offset + sector.start, &data[sector]);
            }
        }
        // A file's length can reach the disk before its contents do; the rest then reads as zeros.
        if rng.random() && image.len() < offset + data.len() {
            image.resize(offset + data.len(), 0);
        }
    }
}

/// Writes into an image, extending it as needed.
fn write(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(data);
}

/// The parts of `0..len` that fall into different sectors of the disk when written at `offset`.
fn sectors(offset: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start >= len {
            return None;
        }
        let end = (start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES).min(len);
        Some(std::mem::replace(&mut start, end)..end)
    })
}

/// One file.
#[derive(Clone, Default)]
pub(super) struct Inode {
    /// What a read sees.
    current: Vec<u8>,
    /// What a crash leaves for sure.
    durable: Vec<u8>,
    /// INV: `durable` with these applied is `current`, unless a sync failed.
    pending: Vec<Change>,
    /// Bytes given back by punching holes.
    punched: usize,
}

/// Lengths only: a test that fails prints its disk.
impl std::fmt::Debug for Inode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (current, durable) = (self.current.len(), self.durable.len());
        write!(f, "{current} bytes ({durable} durable), {} changes pending", self.pending.len())
    }
}

impl Inode {
    /// Changes what a read sees.
    pub(super) fn change(&mut self, change: Change) {
        if let Change::Punch(range) = &change {
            self.punched += range.end.min(self.current.len()).saturating_sub(range.start);
        }
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    /// Makes everything durable.
    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A failed sync: the system forgets that the pages are dirty, reads still see them, a crash loses them.
    pub(super) fn lose(&mut self) {
        self.pending.clear();
    }

    /// Loses power: each pending change survives wholly, in part or not at all.
    pub(super) fn crash(&mut self, rng: &mut ChaCha8Rng) {
        for change in std::mem::take(&mut self.pending) {
            change.tear(&mut self.durable, rng);
        }
        self.current.clone_from(&self.durable);
    }

    /// The contents as a read sees them.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let start = to_usize(offset)?;
        let end = start.checked_add(buffer.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let bytes = self.current.get(start..end).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    /// Length as a read sees it.
    pub(super) fn len(&self) -> u64 {
        to_u64(self.current.len())
    }

    /// Bytes taken on the disk.
    pub(super) fn allocated(&self) -> u64 {
        to_u64(self.current.len().saturating_sub(self.punched))
    }

    /// Changes a byte behind everybody's back. Returns whether there is such a byte.
    pub(super) fn flip(&mut self, offset: usize, mask: u8) -> bool {
        let mut found = false;
        for image in [&mut self.current, &mut self.durable] {
            if let Some(byte) = image.get_mut(offset) {
                *byte ^= mask;
                found = true;
            }
        }
        found
    }
}
