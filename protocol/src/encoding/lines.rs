//! Large buffers that begin on a cache line.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest vector: what begins on a multiple of it is moved without crossing lines.
const LINE_BYTES: usize = 64;

/// Bytes that begin on a cache line. An allocator promises less for bytes: a load or store of 64 bytes that crosses
/// lines costs two, and streaming past the cache needs whole lines.
#[derive(Default)]
pub(crate) struct Lines {
    /// The bytes, with up to a line before them.
    buffer: Vec<u8>,
    /// INV: `buffer[start..]` begins on a line, unless it is empty.
    start: usize,
}

impl Lines {
    /// Makes room for exactly `len` bytes. Their content is unspecified.
    pub(crate) fn resize(&mut self, len: usize) {
        let needed = len + LINE_BYTES - 1;
        if self.buffer.capacity() < needed {
            // What was there need not be kept, so it need not be copied.
            self.buffer = Vec::with_capacity(needed);
        }
        self.start = self.buffer.as_ptr().align_offset(LINE_BYTES);
        self.buffer.resize(self.start + len, 0);
    }
}

impl Deref for Lines {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..]
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_begins_on_a_line() {
        let mut lines = Lines::default();
        assert!(lines.is_empty());
        for len in [1, 63, 64, 65, 1000, 10, 100_000, 0, 7] {
            lines.resize(len);
            assert_eq!(lines.len(), len);
            assert_eq!(lines.as_ptr().align_offset(LINE_BYTES), 0, "{len} bytes");
            lines.fill(1);
        }
    }
}
