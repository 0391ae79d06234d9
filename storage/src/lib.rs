//! The durable record store of a Floe node: append-only log files hold the truth, an index finds it.
//!
//! A record is an opaque [`Key`] and a payload. What [`Store::write`] acknowledged survives the end of the process
//! at any instruction and the loss of power; what a disk damaged afterwards is answered with an error, never with
//! other bytes. The index is a convenience: it may be lost, stale or garbage, and is then built again.
//!
//! ```text
//!            Store            one writer at a time, any number of readers
//!           /     \
//!       Index     log         where is the newest record of a key | records, checksums, recovery
//!      /    \        \
//!   memory  sled     Disk     one directory of files
//!                   /    \
//!                real  simulated (crashes, torn writes, full disk, bit flips)
//! ```
//!
//! Read [`log`] first: its description of the format and of recovery is what everything else leans on. Then
//! [`Store`], and the two traits [`disk::Disk`] and [`index::Index`].
//!
//! The crate is synchronous and every method takes `&self`; call it from a thread that may block.

#[cfg(feature = "simulated")]
pub mod conformance;
pub mod disk;
mod error;
mod fields;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
pub mod index;
mod key;
pub mod log;
mod report;
mod size;
mod store;

pub use error::{OpenError, ReadError, WriteError};
pub use key::{Key, KeyTooLong, MAX_KEY_BYTES};
pub use log::{LogNumber, MAX_PAYLOAD_BYTES};
pub use report::{Compaction, Damage, OpenReport, Rebuild, Stats};
pub use store::{Config, Store, Write};
