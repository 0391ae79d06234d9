//! What clients send: commitments and slivers, put together, checked in full, and made durable.
//!
//! A sliver is kept once it was checked against a commitment that leads to its blob ID, and a node vouches for what it finds on
//! its disk, once the ledger has a registration of the blob, or on an order for one. What came for a blob that is not
//! registered in time is dropped, and its room is bounded.
//!
//! # Invariants
//!
//! - Slivers in the making are bounded in bytes, over all peers and for each of them. One that nobody will finish, or
//!   needs to, gives its room back at once: its peer has gone, it is on the disk, its blob is dropped or invalid.
//! - What this node vouched for is dropped when its own ledger says that the registration has ended, and not before: a
//!   certificate may still be made of its word.
//! - A sliver is written at most once while it is whole; a part that comes twice changes nothing.

mod assembly;
mod missing;
mod orders;
mod pending;
mod service;
mod stale;
mod sweep;
#[cfg(test)]
mod tests;
mod whole;

#[cfg(feature = "fuzz")]
pub use self::{
    assembly::{Piece, assemble},
    whole::split_whole_blob,
};
pub(crate) use self::{
    missing::{missing_in_segment, missing_of_blob},
    service::check_sliver,
};
pub use self::{
    service::{Config, Uploads},
    stale::StaleUploads,
};
