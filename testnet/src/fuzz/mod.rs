//! What fuzzing feeds: a function for each decoder of bytes from peers, disks and people.
//!
//! ```text
//! testnet/fuzz (libFuzzer) ──> Target::run(bytes) ──> decode, decode again what it encodes, use it
//! testnet/tests/fuzz.rs    ──┘     seeds and former crashes, in the tests that land a change
//! ```
//!
//! A function returns whether its bytes were accepted, and panics if a promise does not hold: of a canonical form, that it
//! is the only one; of a log or a disk, that it never gives other bytes than were stored; of slivers, that whoever puts a
//! blob together gets the blob or an error. Hashes, checksums and signatures stop random bytes at once, so where that would
//! hide what lies behind them, a function makes them right first.
//!
//! Decoders that are no part of a crate's interface are reached through the hidden module `fuzz` of that crate, behind a
//! feature of that name: what only fuzzing calls does not widen what others see.

mod configuration;
mod consensus;
mod disk;
mod encoding;
mod fixture;
mod input;
mod ledger;
mod wire;

/// A decoder that is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called: the name of its binary and of its folders of seeds and crashes.
    pub name: &'static str,
    /// Longest input, in bytes: what shows all that the decoder does, rather than the most that it takes.
    pub bytes_max: usize,
    /// Bytes of memory that it may hold at a time beyond what it held before, at most: the limit of the decoder where there
    /// is one, and what the check around it takes.
    pub memory_max: usize,
    /// Decodes, and says whether the bytes were accepted.
    ///
    /// # Panics
    ///
    /// If a promise does not hold.
    pub run: fn(&[u8]) -> bool,
    /// Examples that are accepted, by their names. The same each time.
    pub seeds: fn() -> Vec<Seed>,
}

/// An example and its name.
pub type Seed = (&'static str, Vec<u8>);

/// All targets, by name.
pub const TARGETS: &[&[Target]] = &[
    configuration::TARGETS,
    consensus::TARGETS,
    disk::TARGETS,
    encoding::TARGETS,
    ledger::TARGETS,
    wire::TARGETS,
];

/// All targets.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    TARGETS.iter().copied().flatten()
}

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    targets().find(|target| target.name == name)
}

/// Whether a value that was decoded from `bytes` is written in the same way: canonical bytes have one form.
///
/// # Panics
///
/// If it is not.
fn is_canonical(bytes: &[u8], form: Option<Vec<u8>>) -> bool {
    let Some(form) = form else { return false };
    assert_eq!(form, bytes, "what is accepted has one form");
    true
}
