//! Many Floe nodes on one machine: real processes and simulations, faults and reports.
//!
//! [`cluster`] runs nodes as processes and is what the commands of `floe-testnet` and the integration tests share;
//! [`compose`] runs them as containers with addresses of their own; [`churn`] changes a network without end, and [`chaos`] breaks it,
//! while clients use it and what they see is measured; [`upgrade`] replaces its programs; [`relay`] is a network between nodes that
//! can be broken; [`sim`] runs whole networks in one process, from a seed. Read [`cluster`] first.

pub mod chaos;
pub mod churn;
pub mod cli;
pub mod cluster;
pub mod compose;
mod content;
pub mod figures;
mod filler;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod power;
pub mod relay;
pub mod sim;
pub mod upgrade;
