//! A network of real processes under permanent change: in every epoch a node joins, a member leaves, a member loses its
//! disk, and stake moves, while clients store and read.
//!
//! ```text
//!   watch: ledger --> epoch, stage, committees --+--> workload: clients store and read, and note what they did
//!                                                +--> run: plan --> deeds: processes, transactions
//!                                                |         meter <-- health of all nodes
//!                                                +--> timeline --> report
//! ```
//!
//! [`plan`] decides what happens, and [`run()`] has it carried out; [`workload`] is what users do meanwhile; [`timeline`] and
//! [`traffic`] measure, [`report`] judges. All decisions follow from the seed and from what the ledger says.

mod deeds;
mod end;
mod measure;
pub mod plan;
pub mod report;
mod run;
pub mod timeline;
pub mod traffic;
mod watch;
pub mod workload;

pub use self::run::{Settings, run};
