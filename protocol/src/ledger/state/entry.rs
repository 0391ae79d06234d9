//! What the entries of the state hold.

use bincode::{Decode, Encode};

pub use super::pool::Pool;
use crate::{
    certificate::Persistence,
    commitment::BlobHeader,
    ids::{Epoch, NetworkId},
    ledger::{
        parameters::Ballot,
        transaction::{NodeDescription, TransactionId},
    },
};

/// How far an epoch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Stage {
    /// Members worth a quorum hold what they answer for.
    Steady,
    /// So they do, and the next committee is fixed: its members copy what they gain.
    Selected {
        /// Block time at which it takes over, in milliseconds since 1970.
        ends_ms: u64,
    },
    /// Members are still taking over from the committee before.
    Handover {
        /// Shards of the members that are ready.
        ready_shards: u16,
    },
}

/// Where the ledger is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    /// The network.
    pub network: NetworkId,
    /// Number of shards.
    pub n_shards: u16,
    /// Height of the last block; 0 is the genesis.
    pub height: u64,
    /// Time of that block, in milliseconds since 1970.
    pub time_ms: u64,
    /// The epoch whose committee answers for the shards.
    pub epoch: Epoch,
    /// Time of the block with which it began; of the first epoch, that of the first block, and 0 before.
    pub epoch_started_ms: u64,
    /// How far it has come.
    pub stage: Stage,
    /// Blobs that the committee answers for.
    pub n_available: u64,
}

/// An account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Account {
    /// Its credits.
    pub balance: u64,
    /// Number of its transactions: the nonce of the next one.
    pub nonce: u64,
    /// The last of them; `None` if there is none. Two transactions may have been signed with one nonce: with this, it is
    /// proven which of them was executed.
    pub last: Option<TransactionId>,
}

/// Whether a node can be staked on and selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NodeStatus {
    /// It can.
    Active,
    /// It asked not to be selected; it may register again.
    Leaving,
    /// It equivocated, and will never be selected again.
    Ejected,
}

/// A storage node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Node {
    /// What it says about itself. A committee keeps what was said when it was selected.
    pub description: NodeDescription,
    /// Whether it can be staked on and selected.
    pub status: NodeStatus,
    /// The stake behind it.
    pub stake: Pool,
    /// Its last vote.
    pub ballot: Option<Ballot>,
    /// Basis points of its rewards that go to the operator: what the description said when the last committee that it is
    /// a member of took over. Otherwise an operator could raise it when an epoch is served, and take what stakes earned.
    pub commission_bp: u16,
}

/// For how long the committee answers for a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Availability {
    /// Height of the block that certified it: its point of availability.
    pub height: u64,
    /// Epoch of the committee that vouched for it: the current one, or the one before during the handover.
    pub epoch: Epoch,
    /// The first epoch in which it no longer does, as things are: the latest end of a certified registration.
    pub end: Epoch,
}

/// A blob that was registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Blob {
    /// What its ID is a hash of: whoever knows it can check commitments and slivers.
    pub header: BlobHeader,
    /// Bytes of its slivers over all shards.
    pub encoded_bytes: u64,
    /// Number of its registrations. With none, only that it is invalid is remembered.
    pub n_registrations: u64,
    /// Since when the committee has answered for it, without a break; `None` if it does not.
    pub available: Option<Availability>,
    /// Height at which it was found to be encoded wrongly.
    pub invalid: Option<u64>,
}

/// An owner's claim that a blob is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Registration {
    /// Whether the owner may delete it.
    pub persistence: Persistence,
    /// Nonce of the transaction that made it.
    pub nonce: u64,
    /// The epoch in which it was registered.
    pub registered: Epoch,
    /// The first epoch in which it holds no longer.
    pub end: Epoch,
    /// Credits paid for each epoch to come, at least: what is given back for each if it is deleted.
    pub rate: u64,
    /// Height at which it was certified.
    pub certified: Option<u64>,
}

/// What was sold of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Bucket {
    /// Credits to be paid to the nodes when the epoch is over.
    pub credits: u64,
    /// Bytes of encoded size to be stored in it.
    pub reserved_bytes: u128,
}
