//! Many Floe nodes on one machine: real processes and simulations, faults and reports.

pub mod sim;
