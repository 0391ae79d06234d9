//! Byzantine fault tolerant agreement on the next block, without I/O: time and messages come in, messages and blocks go
//! out.
//!
//! ```text
//!   on_message, on_request, on_response, submit, on_tick            drain: Broadcast, Request, Reply,
//!        |                                                            ^    Committed, Evidence, Misbehaved
//!        v                                                            |
//!     Replica ---> engine (Malachite's core) ---> effects ---> Environment ---> Wal, BlockStore, Application
//!        \-- CatchUp: whom to ask, SnapshotSync: for what    mempool, timers --/
//! ```
//!
//! The engine knows rounds, votes and locks; this module owns what lasts: a vote is in the write-ahead log before it
//! leaves, a block is in the block store before it is executed. It is the only module that names the engine. Read
//! [`Replica`] first, then `environment.rs`, which carries out everything that the engine asks for.
//!
//! # Invariants
//!
//! - Nothing signed here leaves before the log that would reproduce it is durable, and the log of a height is dropped only
//!   after its block is durable. So no crash makes a node sign two different votes for one height, round and kind.
//! - A block is decided by a certificate, wherever it comes from: own votes and catching up end in the same function.
//! - An idle ledger is idle: without a transaction, a due stage or somebody else's vote there is no timer and no message.
//! - Everything that a peer can make grow has a bound beside it.

mod application;
mod block_store;
mod catch_up;
mod config;
mod context;
mod environment;
mod fatal;
mod future;
mod mempool;
mod output;
mod rates;
mod record;
mod replica;
mod snapshot_sync;
mod verify;
mod wal;

pub use application::{Application, InvalidPayload, Payload, PrepareError};
pub use block_store::{BlockStore, Change, StoreError, StoredBlocks};
pub use config::{Config, Now};
pub use fatal::Fatal;
pub use mempool::Refused;
pub use output::{Offence, Output, RequestId};
#[cfg(feature = "fuzz")]
pub(crate) use record::read_record;
pub use replica::{Activity, Parts, Replica};
pub use verify::Unproven;
pub use wal::{FileWal, Wal, WalError};
