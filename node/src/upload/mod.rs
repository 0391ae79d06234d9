//! What clients send: commitments and slivers, put together, checked in full, and made durable.
//!
//! Nothing here vouches for anything: a sliver is kept once it was checked against a commitment that leads to its
//! blob ID, and a node signs only what it finds on its disk. Slivers of blobs that are never certified are dropped
//! after a while.
//!
//! # Invariants
//!
//! - Slivers in the making are bounded in bytes, over all peers and for each of them.
//! - A sliver is written at most once while it is whole; a part that comes twice changes nothing.

mod assembly;
mod service;

pub(crate) use self::service::missing_slivers;
pub use self::service::{Config, Uploads};
