//! Conversions between the lengths of memory (`usize`) and of files (`u64`).

use std::io;

/// A length in memory as a length in a file; the two have the same width wherever Floe runs.
pub(crate) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A length in a file as a length in memory.
pub(crate) fn to_usize(length: u64) -> io::Result<usize> {
    usize::try_from(length)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "length exceeds the address space"))
}
