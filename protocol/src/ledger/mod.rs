//! The control ledger: blocks that the committee of an epoch orders, and what proves them to everyone else.
//!
//! ```text
//! transactions -> Block --id--> votes of the committee -> CommitCertificate -> TrustedChain
//!                   |                  |
//!                 block             vote: the bytes that are signed
//! ```
//!
//! Read [`block`] first. [`vote`] has the bytes that members sign, [`commit`] what their signatures add up to, [`chain`]
//! how someone who knows nothing but the genesis follows the ledger, [`proposer`] whose turn it is, and [`wire`] what
//! nodes say to each other. Transactions are opaque here.

pub mod block;
pub mod chain;
pub mod commit;
pub mod proposer;
pub mod signature;
pub mod vote;
pub mod wire;
