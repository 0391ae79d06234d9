//! Whole nodes in one process: simulated network, disks and clock, everything from one seed.
//!
//! ```text
//!  Plan(seed) --> World: nodes over swarm::simulated and storage's SimulatedDisk, one thread, a paused clock
//!                   ^            ^
//!                faults       workload: clients store and read, and remember what they were told
//!                                |
//!                             oracles: durable images and acknowledged answers against what was promised
//! ```
//!
//! A run has a chaos phase, in which only safety counts, then everything is healed and liveness counts too. The same
//! seed gives the same run, delivery by delivery; a failure prints the command that repeats it.
//!
//! Read [`mod@run`] first: it is one run from beginning to end. [`tell`] is for single stories, written out step by step.

mod byzantine;
mod conviction;
mod faults;
mod ledger;
mod lies;
mod model;
mod operators;
mod oracle;
mod plan;
mod run;
mod story;
mod workload;
mod world;
mod writer;

pub use self::{
    byzantine::{Behaviour, Peers, Watched},
    model::{Model, Violation},
    plan::{Epochs, Plan},
    run::{Outcome, run, run_many, run_seed},
    story::{PartialUpload, Story, tell},
    world::{PENDING_TTL, SimClient, World},
    writer::WrongWriter,
};
