//! Which blobs exist: the boundary at which a control ledger stands.
//!
//! The record that a blob exists is its certificate of availability; the record that it must not be read is an
//! invalidity certificate. Both prove themselves, so a node takes them from anyone: from the client that made them,
//! from gossip, from a peer's list. Everyone who asks what exists asks here, and only here.
//!
//! ```text
//!  certify, invalidate --> [bounded mailbox] --> actor: verifies, makes durable, then tells
//!  status, list -------------------------------> the sliver store
//!                          changes <------------ every new record, once
//! ```
//!
//! # Invariants
//!
//! - A record is durable before it is acknowledged, announced or counted in the digest.
//! - A blob that is invalid stays invalid: no certificate of availability replaces that record.

mod actor;
mod mailbox;
mod sync;
#[cfg(test)]
mod tests;

pub use self::{
    actor::{Actor, Config},
    mailbox::{Change, RecordError, Registry},
    sync::{Sync, SyncConfig},
};
