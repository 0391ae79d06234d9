//! The control ledger on a node: [`consensus`] decides, with the other members of the committee, which block is next.

pub mod consensus;
