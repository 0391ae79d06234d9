//! What can be asked of the ledger, signed by whoever asks.
//!
//! ```text
//! Transaction --sign--> SignedTransaction (a claim, on the wire) --verify--> VerifiedTransaction --> State::apply
//! ```
//!
//! # What is signed
//!
//! `"floe/v1/transaction" || 0 || network ID || transaction in canonical form`. So a transaction of one network means
//! nothing on another, and its nonce makes it good once.
//!
//! # Invariants
//!
//! Actions are append-only: the position of a variant is its number on the wire, and a number without a variant is refused
//! when it is decoded.

use bincode::{Decode, Encode};

use super::{
    parameters::Ballot,
    signature::{Signature, SigningKey, VerifyError, signed_text},
    vote::Equivocation,
};
use crate::{
    bls,
    certificate::{CertificateOfAvailability, InvalidityCertificate, Persistence},
    codec::{self, DecodeError},
    commitment::BlobHeader,
    committee::Member,
    hash::{Hash, TRANSACTION},
    ids::{AccountId, BlobId, Epoch, NetworkId, PeerId, ShardIndex},
};

/// Most bytes of a signed transaction. The largest, a node with every text at its longest, has 4.4 KB.
pub const TRANSACTION_BYTES_MAX: usize = 8 << 10;

/// Sets transactions apart from everything else that is signed.
const NAME: &str = "transaction";

/// What a node says about itself. Nothing here is verified until the ledger has taken it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeDescription {
    /// What people call it. Unique among nodes.
    pub name: String,
    /// Key of its confirmations. Unique among nodes.
    pub public_key: bls::PublicKey,
    /// Proof that the node holds the secret half of `public_key`.
    pub proof_of_possession: bls::ProofOfPossession,
    /// Where to reach it, preferred first.
    pub addresses: Vec<String>,
    /// The account that decides for the node and is paid for it: one whose key need not lie on the node.
    pub operator: AccountId,
    /// Basis points of the node's rewards that go to the operator before the rest is shared by stake.
    pub commission_bp: u16,
    /// Bytes of encoded size that it stores; 0 if it does not say.
    pub capacity_bytes: u64,
}

impl NodeDescription {
    /// The node as a member of a committee, with these shards.
    #[must_use]
    pub fn to_member(&self, peer: PeerId, shards: Vec<ShardIndex>) -> Member {
        Member {
            name: self.name.clone(),
            peer,
            public_key: self.public_key,
            proof_of_possession: self.proof_of_possession,
            addresses: self.addresses.clone(),
            shards,
        }
    }
}

/// What a transaction does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Action {
    /// Gives credits to another account.
    Transfer {
        /// Who gets them.
        to: AccountId,
        /// How many.
        amount: u64,
    },
    /// Makes the sender, by its key as a peer, a node that can be staked on and selected.
    RegisterNode {
        /// The node.
        description: Box<NodeDescription>,
    },
    /// Changes what is said about a node, from the next committee on. By its operator.
    UpdateNode {
        /// The node.
        node: PeerId,
        /// All that is said about it from now on.
        description: Box<NodeDescription>,
    },
    /// Takes a node out of the next selection. By its operator.
    LeaveNode {
        /// The node.
        node: PeerId,
    },
    /// Puts credits behind a node. By anyone.
    Stake {
        /// The node.
        node: PeerId,
        /// How many.
        amount: u64,
    },
    /// Takes credits from behind a node; they are released when their time of liability is over.
    Unstake {
        /// The node.
        node: PeerId,
        /// How many; `None` is all.
        amount: Option<u64>,
    },
    /// Pays for storing a blob up to an epoch.
    RegisterBlob {
        /// What its ID is a hash of, so that nobody pays for less than is stored.
        header: BlobHeader,
        /// Whether it can be deleted.
        persistence: Persistence,
        /// The first epoch in which it is no longer stored.
        end_epoch: Epoch,
    },
    /// Shows that a quorum stores a registered blob. By anyone.
    CertifyBlob {
        /// The registration, and who stores the blob.
        certificate: Box<CertificateOfAvailability>,
    },
    /// Pays for storing the sender's blob longer.
    ExtendBlob {
        /// The blob.
        blob_id: BlobId,
        /// The first epoch in which it is no longer stored; later than before.
        end_epoch: Epoch,
    },
    /// Ends the sender's registration of a deletable blob.
    DeleteBlob {
        /// The blob.
        blob_id: BlobId,
    },
    /// Shows that a registered blob was encoded wrongly. By anyone, free of charge: it can be shown once.
    InvalidateBlob {
        /// The blob, and who found out.
        certificate: Box<InvalidityCertificate>,
    },
    /// Says that the sender, a member, holds every blob certified so far on all its shards. Free of charge: each member
    /// says it once in an epoch.
    ShardsReady {
        /// The epoch, which is the current one.
        epoch: Epoch,
    },
    /// Says what a node asks for storage and offers of it, from the next epoch on. By its operator.
    Vote {
        /// The node.
        node: PeerId,
        /// What it votes for.
        ballot: Ballot,
    },
    /// Shows that a node signed two votes that exclude each other. By anyone, free of charge: it can be shown once.
    Evidence {
        /// The votes.
        equivocation: Box<Equivocation>,
    },
    /// [Registers](Self::RegisterBlob) a blob and [certifies](Self::CertifyBlob) that at once: a quorum confirmed it on the
    /// sender's word, signed, that it would be registered by the transaction with this nonce.
    StoreBlob {
        /// What the blob's ID is a hash of.
        header: BlobHeader,
        /// Whether it can be deleted.
        persistence: Persistence,
        /// The first epoch in which it is no longer stored.
        end_epoch: Epoch,
        /// Who stores it, for the sender's registration with this transaction's nonce.
        certificate: Box<CertificateOfAvailability>,
    },
}

/// An action, by whom, and its place in the order of the sender's transactions.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Transaction {
    /// Who asks, and pays.
    pub sender: AccountId,
    /// Number of the sender's transactions before this one.
    pub nonce: u64,
    /// What for.
    pub action: Action,
}

/// Names a transaction: a hash of its canonical form without the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct TransactionId(pub Hash);

/// Why bytes are not a transaction that anyone stands behind. Whoever sent them is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The bytes are not a transaction's.
    #[error("not a transaction")]
    Decode(#[from] DecodeError),
    /// The transaction is larger than any need be.
    #[error("a transaction of {got} bytes, at most {TRANSACTION_BYTES_MAX} allowed")]
    TooLong {
        /// Bytes of the signed transaction.
        got: usize,
    },
    /// The sender did not sign it, or not for this network.
    #[error("the transaction is not signed by its sender for this network")]
    Signature(#[from] VerifyError),
}

/// A transaction with what claims to be its sender's signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedTransaction {
    transaction: Transaction,
    signature: Signature,
}

/// A transaction's place among those of its sender: what can be asked again after every block without looking at the
/// transaction itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose transaction it is.
    pub sender: AccountId,
    /// How many of its sender's were executed before it.
    pub nonce: u64,
    /// False for duties of nodes, each of which can be done once: nobody is to be without credits for them.
    pub pays_fee: bool,
}

impl Transaction {
    /// Its place among those of its sender.
    #[must_use]
    pub const fn place(&self) -> Place {
        let is_duty = matches!(
            self.action,
            Action::ShardsReady { .. } | Action::InvalidateBlob { .. } | Action::Evidence { .. }
        );
        Place { sender: self.sender, nonce: self.nonce, pays_fee: !is_duty }
    }

    /// Signs it for a network. The key is the sender's, or nobody will take it.
    #[must_use]
    pub fn sign(self, network: &NetworkId, key: &SigningKey) -> SignedTransaction {
        let signature = key.sign(&signed_text(NAME, network, &codec::encode(&self)));
        SignedTransaction { transaction: self, signature }
    }
}

impl SignedTransaction {
    /// Reads the form that [`to_bytes`](Self::to_bytes) writes.
    ///
    /// # Errors
    ///
    /// If the bytes are too many or not of that form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TransactionError> {
        if bytes.len() > TRANSACTION_BYTES_MAX {
            return Err(TransactionError::TooLong { got: bytes.len() });
        }
        Ok(codec::decode_exact::<Self, TRANSACTION_BYTES_MAX>(bytes)?)
    }

    /// The canonical form: that of the transaction, and the signature.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// What is claimed to be signed.
    #[must_use]
    pub const fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Checks that the sender signed it for `network`. Takes about 50 microseconds, and reads no state.
    ///
    /// # Errors
    ///
    /// If it is too long, or the signature is not the sender's for this network.
    pub fn verify(self, network: &NetworkId) -> Result<VerifiedTransaction, TransactionError> {
        let fields = codec::encode(&self.transaction);
        let got = fields.len() + self.signature.0.len();
        if got > TRANSACTION_BYTES_MAX {
            return Err(TransactionError::TooLong { got });
        }
        self.signature.verify(self.transaction.sender, &signed_text(NAME, network, &fields))?;
        let id = TransactionId(TRANSACTION.hash(&fields));
        Ok(VerifiedTransaction { signed: self, network: *network, id })
    }
}

/// A transaction that its sender signed for a network. Whether the ledger takes it depends on the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedTransaction {
    signed: SignedTransaction,
    network: NetworkId,
    id: TransactionId,
}

impl VerifiedTransaction {
    /// What was signed.
    #[must_use]
    pub const fn transaction(&self) -> &Transaction {
        &self.signed.transaction
    }

    /// With its signature, as it travels.
    #[must_use]
    pub const fn signed(&self) -> &SignedTransaction {
        &self.signed
    }

    /// The network it was signed for.
    #[must_use]
    pub const fn network(&self) -> &NetworkId {
        &self.network
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> TransactionId {
        self.id
    }
}
