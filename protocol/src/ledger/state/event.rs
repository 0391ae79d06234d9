//! What the ledger tells the parts of a node.

use crate::{
    certificate::Persistence,
    ids::{AccountId, BlobId, Epoch, NodeIndex, PeerId},
    ledger::transaction::TransactionId,
    selection::SelectionError,
};

/// A transaction that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The transaction.
    pub id: TransactionId,
    /// Credits that it cost besides those that its action names.
    pub fee: u64,
    /// What it changed, in order.
    pub events: Vec<Event>,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Credits went from one account to another.
    Transferred {
        /// Who gave.
        from: AccountId,
        /// Who got.
        to: AccountId,
        /// How many.
        amount: u64,
    },
    /// A node can be staked on and selected.
    NodeRegistered {
        /// The node.
        node: PeerId,
    },
    /// A node says something else about itself.
    NodeUpdated {
        /// The node.
        node: PeerId,
    },
    /// A node will not be selected again unless it registers again.
    NodeLeaving {
        /// The node.
        node: PeerId,
    },
    /// A node lost stake and will never be selected again.
    NodeEjected {
        /// The node.
        node: PeerId,
        /// Credits that those behind it lost.
        slashed: u64,
    },
    /// There is more stake behind a node.
    Staked {
        /// The node.
        node: PeerId,
        /// Whose.
        account: AccountId,
        /// How much.
        amount: u64,
    },
    /// There is less stake behind a node.
    Unstaked {
        /// The node.
        node: PeerId,
        /// Whose.
        account: AccountId,
        /// How much.
        amount: u64,
        /// When the epoch begins, it is released.
        release: Epoch,
    },
    /// Withdrawn stake is back in its account.
    Released {
        /// The node behind which it was.
        node: PeerId,
        /// Whose.
        account: AccountId,
        /// How much.
        amount: u64,
    },
    /// Somebody paid for a blob: nodes take its slivers.
    BlobRegistered {
        /// The blob.
        blob_id: BlobId,
        /// Who paid.
        owner: AccountId,
        /// Its bytes.
        length: u64,
        /// Whether it can be deleted.
        persistence: Persistence,
        /// The first epoch in which it is no longer paid for.
        end: Epoch,
    },
    /// A registration was certified: the committee answers for the blob until it ends.
    BlobCertified {
        /// The blob.
        blob_id: BlobId,
        /// Whose registration.
        owner: AccountId,
        /// The first epoch in which it holds no longer.
        end: Epoch,
        /// True if the committee did not answer for the blob before: this is its point of availability.
        is_first: bool,
    },
    /// A registration holds longer.
    BlobExtended {
        /// The blob.
        blob_id: BlobId,
        /// Whose registration.
        owner: AccountId,
        /// The first epoch in which it holds no longer.
        end: Epoch,
    },
    /// A registration was deleted.
    BlobDeleted {
        /// The blob.
        blob_id: BlobId,
        /// Whose registration.
        owner: AccountId,
        /// Credits given back to the owner.
        refund: u64,
        /// What this means for the blob.
        left: Left,
    },
    /// A registration ended with its epoch.
    BlobExpired {
        /// The blob.
        blob_id: BlobId,
        /// Whose registration.
        owner: AccountId,
        /// What this means for the blob.
        left: Left,
    },
    /// A blob was found to be encoded wrongly: nodes drop its slivers, reads of it fail.
    BlobInvalidated {
        /// The blob.
        blob_id: BlobId,
    },
    /// A member holds what it answers for.
    ShardsReady {
        /// The epoch.
        epoch: Epoch,
        /// The member.
        member: NodeIndex,
    },
    /// Members worth a quorum hold what they answer for: the committee before is relieved.
    HandoverDone {
        /// The epoch.
        epoch: Epoch,
    },
    /// A node voted on prices and capacity.
    Voted {
        /// The node.
        node: PeerId,
    },
    /// Credits were paid for a member's part in the epoch that ended.
    Rewarded {
        /// The node.
        node: PeerId,
        /// Credits to its operator.
        operator: u64,
        /// Credits to those who stake on it.
        stakers: u64,
    },
    /// The next committee is fixed.
    NextSelected {
        /// The epoch for which it is.
        epoch: Epoch,
        /// Block time at which it takes over, in milliseconds since 1970.
        ends_ms: u64,
        /// Why no committee could be formed: then the members of this one go on.
        kept: Option<SelectionError>,
    },
    /// Another committee answers for the shards.
    EpochChanged {
        /// The epoch that begins.
        epoch: Epoch,
    },
}

/// What is left of a blob when a registration ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A certified registration: the committee still answers for it.
    Certified,
    /// A registration that is not certified: its slivers are still kept for it.
    Registered,
    /// Nothing: nodes drop its slivers.
    Nothing,
}
