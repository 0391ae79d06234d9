//! Finds the slivers that this node should hold and does not, and rebuilds them from its peers.
//!
//! ```text
//!  blocks, a timer, a new committee, the scrubber, a failed read
//!        |
//!        v
//!  actor: State says which blob to look at next        [scrubber: reads everything, slowly, and verifies it]
//!        |
//!        v
//!  blob: for each segment with something missing
//!        |
//!        v
//!  segment: what moved here is copied from who has it; then
//!           secondary slivers first (p helpers suffice), then primary ones (own columns help)
//!        |      Gather says whom to ask for which symbols
//!        v
//!  a sliver that does not match: symbols again with proofs -> a liar is named, or the writer is
//! ```
//!
//! # Invariants
//!
//! - Repair takes no input but a hint: it looks at what is on disk and what the ledger says. A lost hint costs
//!   delay, not data.
//! - It moves the bytes that were lost: symbols without proofs first, proofs only on a mismatch.
//! - Segments in hand, requests in flight and blobs in the queue are bounded.

mod actor;
mod blob;
mod copy;
mod dispute;
mod gather;
mod helpers;
mod mailbox;
mod scrub;
mod segment;
mod state;
#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    actor::{Actor, Config},
    dispute::Evidence,
    mailbox::{Repair, Report},
    scrub::{ScrubConfig, Scrubber},
};
pub(crate) use self::{
    blob::Coefficients,
    dispute::{EvidenceShelf, evidence_bytes_max, fetch_evidence},
};
