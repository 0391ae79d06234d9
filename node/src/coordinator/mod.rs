//! Takes this node through the stages of an epoch.
//!
//! ```text
//!  blocks of the ledger, what repair reports
//!        |
//!        v
//!  actor: gathers Facts --> plan(Facts): what to do now --> carries it out
//!        |                                                      |
//!        |                                  look at everything: repair copies and rebuilds what this node gains
//!        |                                  check everything:   is each certified blob really here?
//!        |                                  say ready:          on the ledger
//!        |                                  drop a shard:       that has moved, and is nobody's to fetch any more
//!        v
//!  the network: who is a member now; what stage has begun
//! ```
//!
//! # Invariants
//!
//! - Nothing is remembered but on the ledger and in the sliver store: a node that was killed anywhere finds out again what is to
//!   be done, and doing it twice changes nothing.
//! - A node says that it is ready when it has looked, after the epoch began, and found every sliver on its disk.
//! - A shard is dropped while the next committee is fixed, and only if neither that nor the current one gives it to this node:
//!   those who gained it have had the handover and half an epoch to copy it.

mod actor;
mod plan;
mod state;
#[cfg(test)]
mod tests;

pub use self::actor::{Config, Coordinator};
