//! What clients send: commitments and slivers, put together, checked in full, and made durable.
//!
//! Nothing here vouches for anything: a sliver is kept once it was checked against a commitment that leads to its
//! blob ID, and a node signs only what it finds on its disk. What came in part for a blob that is not
//! certified in time is dropped.
//!
//! # Invariants
//!
//! - Slivers in the making are bounded in bytes, over all peers and for each of them. One that nobody will finish, or
//!   needs to, gives its room back at once: its peer has gone, it is on the disk, its blob is dropped or invalid.
//! - What this node may have vouched for is never dropped: a certificate may still be made of its word.
//! - A sliver is written at most once while it is whole; a part that comes twice changes nothing.

mod assembly;
mod missing;
mod pending;
mod service;
mod stale;
#[cfg(test)]
mod tests;

pub(crate) use self::missing::{missing_in_segment, missing_of_blob};
pub use self::{
    service::{Config, Uploads},
    stale::StaleUploads,
};
