//! Takes an input apart where a target needs more than one thing of it. Every input means something: what is missing is zero.

/// What is left of an input.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(super) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// At most `n` bytes.
    pub(super) fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Bytes behind their length, which takes two.
    pub(super) fn part(&mut self) -> &'a [u8] {
        let n = usize::from(self.u16());
        self.bytes(n)
    }

    /// All that is left.
    pub(super) const fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Whether these are among the inputs, one of `n`, on which something is tried that takes a hundred times as long as all else.
/// The same input is so each time.
pub(super) fn is_sampled(bytes: &[u8], n: u32) -> bool {
    let mix = |sum: u32, byte: &u8| sum.wrapping_mul(0x0100_0193) ^ u32::from(*byte);
    (bytes.iter().fold(0x811c_9dc5, mix) >> 8).is_multiple_of(n)
}

/// Bytes behind their length, as [`Input::part`] reads them.
///
/// # Panics
///
/// If they are longer than 64 KiB: seeds are small.
pub(super) fn part(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("a part of a seed is short");
    [&len.to_le_bytes()[..], bytes].concat()
}
