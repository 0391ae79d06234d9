//! A Floe storage node, its client library and the `floe` command line.
//!
//! ```text
//!   cli -> client ---------------------------+
//!            server (what peers ask)         |
//!               |        \                   v
//!            repair       upload          [swarm]
//!           /   |   \        |               ^
//!  blobs  encoder  sliver_store <------------+-- node (wires them, bottom up)
//!    |
//!  ledger                                    monitor looks at all of them
//! ```
//!
//! Each actor is a folder: a pure state that decides, a thin shell that carries out, a mailbox. Calls go down, news
//! goes up. Read [`node`] first: it wires the actors, and says in which order they start and stop.

pub mod blobs;
pub mod cli;
pub mod client;
pub mod commitments;
pub mod config;
pub mod coordinator;
pub mod encoder;
pub mod exchange;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
pub mod keys;
pub mod latest;
pub mod ledger;
mod load;
pub mod membership;
pub mod monitor;
pub mod node;
pub mod repair;
pub mod server;
pub mod sliver_store;
pub mod supervisor;
pub mod telemetry;
pub mod upload;

/// What this program is: its version, and the commit that it was built from, as far as that was known. What was changed since
/// the commit is not seen.
pub const VERSION: &str = env!("FLOE_VERSION");
