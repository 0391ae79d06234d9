//! The control ledger: what all nodes agree on, as a state machine without I/O.
//!
//! ```text
//! SignedTransaction --verify--> VerifiedTransaction --State::apply--> Receipt (events) | Rejected (why)
//!                                                         |
//!                                                       Tree --root--> Hash, certified by the committee
//! ```
//!
//! Read [`state`] first. [`transaction`] says what can be asked of the ledger and by whom, [`tree`] how its entries are
//! hashed, proven and handed to a joiner, [`vote`] what a member signs in consensus. The rules, precise enough for a
//! second implementation, are in `docs/spec/ledger.md`.

pub mod parameters;
pub mod signature;
pub mod state;
pub mod transaction;
pub mod tree;
pub mod vote;
