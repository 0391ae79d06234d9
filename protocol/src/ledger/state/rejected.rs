//! Why the ledger does not take a transaction or a block.

use super::store::Corrupt;
use crate::{
    bls,
    certificate::CertificateError,
    commitment::CommitmentError,
    committee::CommitteeError,
    ids::{AccountId, BlobId, Epoch, NetworkId, PeerId},
    ledger::{parameters::ParameterError, vote::EquivocationError},
};

/// Why a transaction was not applied. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The ledger's rules do not allow it now.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The state contradicts itself. Nobody's transaction is at fault.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Why the ledger's rules do not allow a transaction now. Its sender is at fault, or was overtaken by others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It was signed for another network.
    #[error("the transaction is for network {got}, this is {required}")]
    WrongNetwork {
        /// The network it was signed for.
        got: NetworkId,
        /// This network.
        required: NetworkId,
    },
    /// It is not the sender's next.
    #[error("nonce {got} of account {account}, whose next transaction has nonce {required}")]
    Nonce {
        /// The sender.
        account: AccountId,
        /// Its nonce.
        got: u64,
        /// The nonce of the sender's next transaction.
        required: u64,
    },
    /// The account has too few credits.
    #[error("account {account} has {has} credits and needs {needs}")]
    Overdraft {
        /// The account.
        account: AccountId,
        /// Its credits, after the fee.
        has: u64,
        /// Credits that the transaction takes from it.
        needs: u128,
    },
    /// Nothing is to be moved.
    #[error("an amount of zero credits")]
    NoAmount,
    /// There is no such node.
    #[error("there is no node {node}")]
    UnknownNode {
        /// The node.
        node: PeerId,
    },
    /// The node is registered already.
    #[error("node {node} is registered already; its operator can update it")]
    NodeExists {
        /// The node.
        node: PeerId,
    },
    /// The node equivocated before.
    #[error("node {node} was ejected for equivocation")]
    NodeEjected {
        /// The node.
        node: PeerId,
    },
    /// The node has asked to leave.
    #[error("node {node} is leaving")]
    NodeLeaving {
        /// The node.
        node: PeerId,
    },
    /// Another account decides for the node.
    #[error("node {node} is operated by {operator}, not by {sender}")]
    NotOperator {
        /// The node.
        node: PeerId,
        /// Who decides for it.
        operator: AccountId,
        /// Who sent the transaction.
        sender: AccountId,
    },
    /// The name belongs to another node.
    #[error("node {other} is called `{name}` already")]
    NameTaken {
        /// The name.
        name: String,
        /// The other node.
        other: PeerId,
    },
    /// The BLS key belongs to another node.
    #[error("node {other} has public key {key} already")]
    KeyTaken {
        /// The key.
        key: Box<bls::PublicKey>,
        /// The other node.
        other: PeerId,
    },
    /// What is said about the node cannot be used.
    #[error("the node's description cannot be used")]
    Description(#[source] Box<CommitteeError>),
    /// A number is out of bounds.
    #[error("a number is out of bounds")]
    Parameter(#[from] ParameterError),
    /// A stake so small that rounding would take a good part of it.
    #[error("a stake of {amount} credits on node {node} is too small: rounding would take a good part of it")]
    StakeTooSmall {
        /// The node.
        node: PeerId,
        /// The stake.
        amount: u64,
    },
    /// The account has too little stake behind the node.
    #[error("account {account} has {has} credits staked on node {node}, not {needs}")]
    TooLittleStake {
        /// The node.
        node: PeerId,
        /// The account.
        account: AccountId,
        /// Credits that its stake is worth.
        has: u64,
        /// Credits to be taken.
        needs: u64,
    },
    /// The header is not one of a blob that can be stored.
    #[error("the blob's header cannot be used")]
    Header(#[source] CommitmentError),
    /// The blob was encoded for another number of shards.
    #[error("the blob is encoded for {got} shards, the network has {required}")]
    Shards {
        /// Shards it was encoded for.
        got: u16,
        /// Shards of the network.
        required: u16,
    },
    /// The end epoch is over, or too far away.
    #[error("end epoch {got} is not within {min} to {max}")]
    EndEpoch {
        /// The end epoch asked for.
        got: Epoch,
        /// The earliest possible.
        min: Epoch,
        /// The latest possible.
        max: Epoch,
    },
    /// The network has no room.
    #[error("epoch {epoch} has room for {free} bytes of encoded size, the blob needs {needs}")]
    Capacity {
        /// The first epoch without room.
        epoch: Epoch,
        /// Bytes of encoded size that it has left.
        free: u64,
        /// Bytes of encoded size asked for.
        needs: u64,
    },
    /// The owner has registered the blob already.
    #[error("account {owner} has registered blob {blob_id} already, up to epoch {end}")]
    BlobExists {
        /// The blob.
        blob_id: BlobId,
        /// The owner.
        owner: AccountId,
        /// The end of that registration.
        end: Epoch,
    },
    /// The owner has not registered the blob, or no longer.
    #[error("account {owner} has no registration of blob {blob_id}: never made, expired or deleted")]
    NoRegistration {
        /// The blob.
        blob_id: BlobId,
        /// The account.
        owner: AccountId,
    },
    /// Nobody has registered the blob.
    #[error("blob {blob_id} is not registered")]
    UnknownBlob {
        /// The blob.
        blob_id: BlobId,
    },
    /// The blob was encoded wrongly.
    #[error("blob {blob_id} was found to be encoded wrongly at height {height}")]
    BlobInvalid {
        /// The blob.
        blob_id: BlobId,
        /// Where the ledger says so.
        height: u64,
    },
    /// The registration is certified already.
    #[error("the registration of blob {blob_id} by account {owner} was certified at height {height}")]
    AlreadyCertified {
        /// The blob.
        blob_id: BlobId,
        /// The owner.
        owner: AccountId,
        /// Where.
        height: u64,
    },
    /// The registration is not certified.
    #[error("the registration of blob {blob_id} by account {owner} is not certified")]
    NotCertified {
        /// The blob.
        blob_id: BlobId,
        /// The owner.
        owner: AccountId,
    },
    /// The blob was confirmed for another registration.
    #[error(
        "blob {blob_id} was confirmed for a registration with nonce {got}, its owner's has nonce {required}"
    )]
    OtherRegistration {
        /// The blob.
        blob_id: BlobId,
        /// Nonce of the registration for which it was confirmed.
        got: u64,
        /// Nonce of the owner's registration.
        required: u64,
    },
    /// The certificate is of a committee that does not answer for the blob.
    #[error("certificate of epoch {got}, but the ledger is in epoch {current}, for which it does not count")]
    CertificateEpoch {
        /// Epoch of the certificate.
        got: Epoch,
        /// The current epoch.
        current: Epoch,
    },
    /// The certificate proves nothing.
    #[error("the certificate does not verify")]
    Certificate(#[from] CertificateError),
    /// The blob can not be deleted.
    #[error("blob {blob_id} is permanent: it is stored up to epoch {end}")]
    Permanent {
        /// The blob.
        blob_id: BlobId,
        /// Its end epoch.
        end: Epoch,
    },
    /// The sender is no member of the committee.
    #[error("{sender} is no member of the committee of epoch {epoch}")]
    NotMember {
        /// The sender.
        sender: AccountId,
        /// The epoch.
        epoch: Epoch,
    },
    /// The statement is about another epoch.
    #[error("a statement about epoch {got}, the ledger is in epoch {current}")]
    WrongEpoch {
        /// The epoch of the statement.
        got: Epoch,
        /// The current epoch.
        current: Epoch,
    },
    /// The member has said so already.
    #[error("{sender} said already that its shards are ready in epoch {epoch}")]
    AlreadyReady {
        /// The sender.
        sender: AccountId,
        /// The epoch.
        epoch: Epoch,
    },
    /// The epoch begins with this very block: nobody can know that yet, let alone be ready.
    #[error("epoch {epoch} begins with this block; shards are ready in a later one")]
    ReadyTooEarly {
        /// The epoch.
        epoch: Epoch,
    },
    /// The votes prove nothing.
    #[error("the evidence proves nothing")]
    Evidence(#[from] EquivocationError),
}

/// Why a block cannot follow. Nothing changed; whoever proposed it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It is not the next.
    #[error("a block of height {got}, the next has height {required}")]
    Height {
        /// Its height.
        got: u64,
        /// The height of the next.
        required: u64,
    },
    /// Time would go back.
    #[error("a block of time {got} ms, the one before is of {min} ms")]
    Time {
        /// Its time.
        got: u64,
        /// Time of the block before.
        min: u64,
    },
    /// The next committee cannot take over: a bug, since it was selected from nodes that are known.
    #[error("the next committee cannot take over")]
    Advance(#[from] AdvanceError),
    /// The state contradicts itself.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Why a committee cannot take over. Nothing changed; whoever selected it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdvanceError {
    /// It is not of the next epoch.
    #[error("a committee of epoch {got}, the next epoch is {required}")]
    Epoch {
        /// Its epoch.
        got: Epoch,
        /// The next epoch.
        required: Epoch,
    },
    /// It divides another number of shards.
    #[error("a committee of {got} shards, the network has {required}")]
    Shards {
        /// Its shards.
        got: u16,
        /// Shards of the network.
        required: u16,
    },
    /// The current committee has not taken over yet.
    #[error("the handover to epoch {epoch} is not done: {ready} shards are ready")]
    HandoverRunning {
        /// The current epoch.
        epoch: Epoch,
        /// Shards of the members that are ready.
        ready: u16,
    },
    /// A member is no registered node, so nobody could be paid for it.
    #[error("member {node} is no registered node")]
    UnknownNode {
        /// The member.
        node: PeerId,
    },
    /// The state contradicts itself.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}
