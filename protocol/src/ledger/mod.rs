//! The control ledger: what all nodes agree on, and how they come to agree on it, without I/O.
//!
//! ```text
//! SignedTransaction --verify--> VerifiedTransaction --State::apply--> Receipt (events) | Rejected (why)
//!        |                                                |
//!        v                                              Tree --root--+
//!      Block <-------------------------------------------------------+
//!        +--id--> votes of the committee --> CommitCertificate --> TrustedChain
//! ```
//!
//! Read [`state`] first. [`transaction`] says what can be asked of the ledger and by whom, [`tree`] how its entries are
//! hashed, proven and handed to a joiner; [`block`] what is agreed on, [`vote`] what members sign, [`commit`] what their
//! signatures add up to, [`chain`] how someone who knows nothing but the genesis follows the ledger, [`proposer`] whose
//! turn it is, and [`wire`] what nodes say to each other,
//! [`answer`] what they say to those who do not trust them. The rules are in `docs/spec/ledger.md`, agreement in
//! `docs/spec/consensus.md`, both precise enough for a second implementation.

pub mod answer;
pub mod block;
pub mod chain;
pub mod commit;
pub mod parameters;
pub mod proposer;
pub mod signature;
pub mod state;
pub mod transaction;
pub mod tree;
pub mod vote;
pub mod wire;
