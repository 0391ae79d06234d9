//! The control ledger on a node.
//!
//! ```text
//!  server: gossip, requests --> [mailbox] --> actor --one call at a time--> Core: Replica (consensus) --> App: State
//!          submissions ------> [mailbox] -->   |  <--what to send, blocks, answers--'        |
//!                                              |                                    WAL, blocks, snapshots
//!          answers <--- View (watch) <---------+---> swarm: gossip, requests
//!                       Executed (broadcast)
//! ```
//!
//! [`consensus`] decides, with the other members of the committee, which block is next; [`App`] executes it; [`Actor`]
//! carries between them, the network and the disk. Everyone else has a [`Ledger`]: submit a transaction, look at the
//! state, wait for changes.
//!
//! # Invariants
//!
//! - A block is durable before anyone hears of it here, so what was acknowledged survives a crash of all nodes.
//! - One call to the replica runs at a time, on a thread that may block; both mailboxes are bounded.
//! - An idle ledger sends nothing.

mod actor;
mod app;
mod clock;
pub mod consensus;
mod core;
mod mailbox;
mod pulse;
#[cfg(test)]
mod snapshot_tests;
mod snapshots;
#[cfg(test)]
pub(crate) mod tests;
mod view;

pub(crate) use self::actor::topic_of;
pub use self::{
    actor::{Actor, Config, Parts, StartError},
    app::{App, AppError, LoadError, Unfit},
    clock::Clock,
    core::Stopped,
    mailbox::{Executed, Ledger, SubmitError},
    pulse::Pulse,
    snapshots::{SnapshotError, Snapshots},
    view::View,
};
