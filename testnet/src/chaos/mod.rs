//! A network that is broken in every way it should bear, while clients use it, and afterwards a verdict.
//!
//! ```text
//! seed -> plan -> faults --run--> target: processes, or containers
//!                                   ^
//! clients: workload ----------------+---> history -> checker -> report: JSON, one page of HTML
//! ```
//!
//! [`plan`] decides what happens and when, [`checker`] what may be answered; both are pure. [`target`] is what can be done to a
//! network, [`processes`] does it to processes of one machine, [`containers`] to those of an engine; both have a
//! [`relay`](crate::relay) between nodes.

pub mod checker;
pub mod containers;
pub mod fault;
pub mod history;
pub mod page;
mod peaks;
pub mod plan;
pub mod processes;
pub mod report;
pub mod run;
pub mod target;
pub mod workload;
