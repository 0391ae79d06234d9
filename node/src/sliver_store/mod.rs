//! The sliver store: what this node keeps on disk, and the one actor that writes it.
//!
//! ```text
//!  put --> [bounded mailbox] --> actor: takes what waits, writes it as one group, syncs, answers all
//!                                       | when nothing waits: compacts log files, a step at a time
//!  read, scan ------------------> a blocking pool, beside the writes
//! ```
//!
//! # Invariants
//!
//! - A write is answered only when it is durable.
//! - A sliver is written only after it was checked in full against its commitment; the parity root kept beside it was
//!   computed here, not told.
//! - A write or sync that fails (other than for want of room) ends the actor and so the node: what the disk holds is
//!   then known only after it is read again.

mod actor;
mod blocking;
mod keys;
mod mailbox;
mod record;
mod schedule;
#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    actor::{Actor, CompactConfig, Config},
    blocking::Blocking,
    mailbox::{Counts, HeldSliver, SliverStore, StoreReadError, StoreWriteError, sliver_in_image},
    record::SliverRecord,
};
#[cfg(feature = "fuzz")]
pub(crate) use self::{keys::read_name, mailbox::read_commitment};
