//! What is true in Floe without I/O: identities, committees, quorums, encoding, commitments, certificates and
//! wire messages.
//!
//! Nothing here reads a clock, a file, a socket or a random number generator: every function is a pure function
//! of its arguments, so every decision can be tested without a runtime and replayed from a seed.
//!
//! Read [`encoding`] first: it turns a blob into slivers and back. [`commitment`] binds slivers to a blob ID,
//! [`committee`] and [`quorum`] say who answers for which shard and how many of them are enough, and
//! [`certificate`] turns their signatures into the record that a blob exists. [`ledger`] holds what everyone agrees
//! on: accounts, nodes, stake, blobs and epochs.

pub mod bls;
pub mod certificate;
pub mod codec;
pub mod commitment;
pub mod committee;
pub mod encoding;
pub mod genesis;
pub mod hash;
pub mod ids;
pub mod inconsistency;
pub mod ledger;
pub mod merkle;
pub mod message;
pub mod planted;
pub mod quorum;
pub mod selection;

pub use ids::{
    AccountId, BlobId, BlockId, Epoch, NetworkId, NodeIndex, PeerId, RegistrationId, SegmentIndex,
    ShardIndex, SliverPairIndex,
};
