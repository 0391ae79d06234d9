//! Answers peers and clients.
//!
//! ```text
//!  swarm --Inbound--> actor: decodes, bounds --> handler: one task a request --> uploads, ledger, repair, store
//! ```
//!
//! # Invariants
//!
//! - Requests worked on at the same time are bounded; what does not fit is answered `Busy` at once.
//! - A peer that sends what does not decode or does not verify is reported, and blamed for nothing else.
//! - Bytes that the disk damaged are never served: the sliver is removed, repaired, and meanwhile not there.

mod actor;
mod attesting;
mod handler;
mod served;

pub use self::{
    actor::{Actor, Config},
    served::Served,
};
pub(crate) use self::{attesting::Attesting, handler::Handler};
