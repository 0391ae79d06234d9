//! Blocks: what the committee orders, one at a time, each on the state that the one before left.
//!
//! ```text
//! Block = header | last_commit | transactions          BlockId = hash(header)
//!           |          ^               ^
//!           +-- hashes-+---------------+
//! ```
//!
//! The header commits to everything: to the block before, to the state after this block, to the committee that signs it
//! and, when it changes, to the one that signs the next. Whoever has a header and a certificate for it needs nothing else.
//!
//! Certificates differ from node to node. So that participation is the same fact for everyone, each block carries the
//! certificate of the block before it, `last_commit`, as its proposer has it.
//!
//! # Invariants
//!
//! A [`Block`] is what its header says, however it was made: building and decoding compare body and header, and keep the
//! bounds below. Whether it may follow a given block is a question for [`Tip::check`], and whether its transactions are
//! valid one for the ledger.

use std::sync::{Arc, LazyLock};

use bincode::{Decode, Encode, de::Decoder, enc::Encoder};

use super::commit::{CommitCertificate, CommitError};
use crate::{
    codec::{self, DecodeError},
    committee::Committee,
    hash::{Domain, Hash},
    ids::{BlockId, Epoch, NetworkId},
    merkle,
};

/// Version of the format of blocks, and of the rules by which they are executed. 2: an account names its last transaction.
pub const BLOCK_VERSION: u16 = 2;
/// Most bytes of a block. It travels in one message, to everyone, within a round's timeout; and as the answer to whoever
/// missed it, with the certificate of a thousand members (65 KiB), in one frame of the network, which carries 256 KiB.
/// Longer ones would have to be sent in parts; at ten blocks a second this is room for some ten thousand transfers.
pub const BLOCK_BYTES_MAX: usize = 160 << 10;
/// Most bytes of a transaction: twice what the ledger takes, and a block has room for several of the longest beside the
/// certificate that it carries.
pub const TRANSACTION_BYTES_MAX: usize = 16 << 10;
/// Most transactions of a block: bounds what small ones cost in memory beyond their bytes.
pub const TRANSACTIONS_MAX: usize = 8192;
/// Limit for decoding a block: its bytes, and what its lists take in memory beside them.
const DECODE_LIMIT: usize = 4 * BLOCK_BYTES_MAX;

static HEADER: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/ledger-header"));
static GENESIS: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/ledger-genesis"));
static TRANSACTION: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/ledger-transaction"));
static TRANSACTIONS: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/ledger-transactions"));
static COMMIT: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/ledger-commit"));
static COMMITTEE: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/ledger-committee"));

/// What a certificate proves.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// [`BLOCK_VERSION`].
    pub version: u16,
    /// The network it belongs to.
    pub network: NetworkId,
    /// Number of blocks before it, plus one: the first block has height 1.
    pub height: u64,
    /// Block time: milliseconds since 1970, later than that of the block before.
    pub time_ms: u64,
    /// The block before; of the first block, [`genesis_id`].
    pub parent: BlockId,
    /// [`transactions_hash`] of the block's transactions.
    pub transactions: Hash,
    /// Root of the ledger's state after this block.
    pub state_root: Hash,
    /// Epoch of the committee that signs this height.
    pub epoch: Epoch,
    /// [`committee_hash`] of the committee that signs this height.
    pub committee: Hash,
    /// [`committee_hash`] of the committee that signs from the next height on, if that is another.
    pub next_committee: Option<Hash>,
    /// [`commit_hash`] of the certificate of the block before.
    pub last_commit: Hash,
}

impl Header {
    /// The block's ID.
    #[must_use]
    pub fn id(&self) -> BlockId {
        BlockId(HEADER.hash(&codec::encode(self)).0)
    }
}

/// What the first block names as its parent.
#[must_use]
pub fn genesis_id(network: &NetworkId) -> BlockId {
    BlockId(GENESIS.hash(network.as_bytes()).0)
}

/// Hash over a committee: its epoch and all that its members are.
#[must_use]
pub fn committee_hash(committee: &Committee) -> Hash {
    committee_form_hash(&codec::encode(committee))
}

/// [`committee_hash`] of the committee of which these bytes are the canonical form. Decoding a committee costs a pairing a
/// member, so bytes from elsewhere are compared first.
#[must_use]
pub fn committee_form_hash(form: &[u8]) -> Hash {
    COMMITTEE.hash(form)
}

/// The name of a transaction: a hash of its bytes.
#[must_use]
pub fn transaction_id(transaction: &[u8]) -> Hash {
    TRANSACTION.hash(transaction)
}

/// Hash over transactions: their number and the Merkle root over their IDs, so that one can be proven to be among them.
#[must_use]
pub fn transactions_hash(transactions: &[Vec<u8>]) -> Hash {
    let ids: Vec<Hash> = transactions.iter().map(|transaction| transaction_id(transaction)).collect();
    let n = codec::encode(&ids.len());
    let root = if ids.is_empty() { Hash::default() } else { merkle::root(&ids) };
    TRANSACTIONS.hash_parts(&[&n, root.as_bytes()])
}

/// Hash over the certificate of the block before; the first block has none.
#[must_use]
pub fn commit_hash(last_commit: Option<&CommitCertificate>) -> Hash {
    COMMIT.hash(&codec::encode(&last_commit))
}

/// What a block is made of, before it has a header.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The block it follows.
    pub tip: Tip,
    /// Block time; made later than that of the block before if it is not.
    pub time_ms: u64,
    /// Certificate of the block before; none for the first block.
    pub last_commit: Option<CommitCertificate>,
    /// The transactions, in order.
    pub transactions: Vec<Vec<u8>>,
    /// Root of the state that they lead to.
    pub state_root: Hash,
    /// Hash of the committee that they lead to, if it is another.
    pub next_committee: Option<Hash>,
}

/// Why something is not a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It is too long.
    #[error("block of {got} bytes, at most {BLOCK_BYTES_MAX} allowed")]
    TooLong {
        /// Bytes it takes.
        got: usize,
    },
    /// It has too many transactions.
    #[error("{got} transactions, at most {TRANSACTIONS_MAX} allowed")]
    TooManyTransactions {
        /// Transactions it has.
        got: usize,
    },
    /// A transaction is too long.
    #[error("transaction {position} has {got} bytes, at most {TRANSACTION_BYTES_MAX} allowed")]
    TransactionTooLong {
        /// Its position in the block.
        position: usize,
        /// Bytes it has.
        got: usize,
    },
    /// The transactions are not those that the header commits to.
    #[error("the transactions are not those of the header")]
    Transactions,
    /// The certificate of the block before is not the one that the header commits to.
    #[error("the last commit is not that of the header")]
    LastCommit,
}

/// A block: what its header says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    header: Header,
    /// Certificate of the block before; none in the first block.
    last_commit: Option<CommitCertificate>,
    transactions: Vec<Vec<u8>>,
}

impl Block {
    /// Makes the block that follows the draft's tip.
    ///
    /// # Errors
    ///
    /// If a bound is exceeded: whoever chose the transactions is at fault.
    pub fn build(draft: Draft) -> Result<Self, BlockError> {
        let Draft { tip, time_ms, last_commit, transactions, state_root, next_committee } = draft;
        let header = Header {
            version: BLOCK_VERSION,
            network: tip.network,
            height: tip.height + 1,
            time_ms: time_ms.max(tip.time_ms + 1),
            parent: tip.id,
            transactions: transactions_hash(&transactions),
            state_root,
            epoch: tip.committee.epoch(),
            committee: tip.committee_hash,
            next_committee,
            last_commit: commit_hash(last_commit.as_ref()),
        };
        Self::new(header, last_commit, transactions)
    }

    fn new(
        header: Header,
        last_commit: Option<CommitCertificate>,
        transactions: Vec<Vec<u8>>,
    ) -> Result<Self, BlockError> {
        let got = transactions.len();
        if got > TRANSACTIONS_MAX {
            return Err(BlockError::TooManyTransactions { got });
        }
        let too_long = transactions.iter().position(|it| it.len() > TRANSACTION_BYTES_MAX);
        if let Some(position) = too_long {
            return Err(BlockError::TransactionTooLong { position, got: transactions[position].len() });
        }
        if transactions_hash(&transactions) != header.transactions {
            return Err(BlockError::Transactions);
        }
        if commit_hash(last_commit.as_ref()) != header.last_commit {
            return Err(BlockError::LastCommit);
        }
        let block = Self { header, last_commit, transactions };
        let got = codec::encode(&block).len();
        if got > BLOCK_BYTES_MAX { Err(BlockError::TooLong { got }) } else { Ok(block) }
    }

    /// Decodes the canonical form.
    ///
    /// # Errors
    ///
    /// If the bytes are not the canonical form of a block within its bounds; whoever sent them is at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > BLOCK_BYTES_MAX {
            return Err(DecodeError::TooLong { got: bytes.len(), limit: BLOCK_BYTES_MAX });
        }
        codec::decode_exact::<Self, DECODE_LIMIT>(bytes)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.header.id()
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The certificate of the block before; none in the first block.
    #[must_use]
    pub const fn last_commit(&self) -> Option<&CommitCertificate> {
        self.last_commit.as_ref()
    }

    /// The transactions, in order.
    #[must_use]
    pub fn transactions(&self) -> &[Vec<u8>] {
        &self.transactions
    }
}

impl Encode for Block {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.header.encode(encoder)?;
        self.last_commit.encode(encoder)?;
        self.transactions.encode(encoder)
    }
}

/// Decoding checks the body against the header, and bounds before it reads what they bound.
impl<C> Decode<C> for Block {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, bincode::error::DecodeError> {
        let refuse =
            |error: BlockError| bincode::error::DecodeError::OtherString(format!("not a block: {error}"));
        let header = Header::decode(decoder)?;
        let last_commit = Option::<CommitCertificate>::decode(decoder)?;
        let n = u64::decode(decoder)?;
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        if n > TRANSACTIONS_MAX {
            return Err(refuse(BlockError::TooManyTransactions { got: n }));
        }
        decoder.claim_container_read::<Vec<u8>>(n)?;
        let transactions = (0..n).map(|_| Vec::<u8>::decode(decoder)).collect::<Result<Vec<_>, _>>()?;
        Self::new(header, last_commit, transactions).map_err(refuse)
    }
}

bincode::impl_borrow_decode!(Block);

/// A block and the proof that it was decided.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Decided {
    /// The block.
    pub block: Arc<Block>,
    /// The proof; a claim until it is verified.
    pub certificate: CommitCertificate,
}

/// Why a block may not follow another. Whoever proposed it is at fault, unless a quorum signed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBlock {
    /// It is of another version of the format.
    #[error("block of version {got}, required is {BLOCK_VERSION}")]
    Version {
        /// Version it has.
        got: u16,
    },
    /// It belongs to another network.
    #[error("block of network {got}")]
    Network {
        /// Network it names.
        got: NetworkId,
    },
    /// It is not of the next height.
    #[error("block of height {got}, required is {required}")]
    Height {
        /// Height it has.
        got: u64,
        /// The next height.
        required: u64,
    },
    /// It follows another block.
    #[error("block follows {got}, required is {required}")]
    Parent {
        /// The parent it names.
        got: BlockId,
        /// The last block.
        required: BlockId,
    },
    /// Its time is not after that of the block before.
    #[error("block time {got_ms} ms is not after {last_ms} ms")]
    Time {
        /// Its time.
        got_ms: u64,
        /// Time of the block before.
        last_ms: u64,
    },
    /// It names another committee than the one that signs this height.
    #[error("block of epoch {got} names another committee than the one of epoch {required} that signs it")]
    Committee {
        /// Epoch it names.
        got: Epoch,
        /// Epoch of the committee that signs this height.
        required: Epoch,
    },
    /// Its certificate of the block before is missing, or of another block.
    #[error("the last commit is not of the block before")]
    LastCommit,
    /// Its certificate of the block before does not hold.
    #[error("the last commit proves nothing")]
    LastCommitProof(#[source] CommitError),
}

/// The end of the chain: what the next block must fit to.
#[derive(Clone, Debug)]
pub struct Tip {
    /// The network.
    pub network: NetworkId,
    /// Height of the last block; 0 before the first.
    pub height: u64,
    /// The last block.
    pub id: BlockId,
    /// Its time.
    pub time_ms: u64,
    /// The committee that signed it; before the first block, the genesis committee.
    pub signed_by: Arc<Committee>,
    /// The committee that signs the next height.
    committee: Arc<Committee>,
    /// INV: [`committee_hash`] of `committee`.
    committee_hash: Hash,
}

impl Tip {
    /// The end of an empty chain.
    #[must_use]
    pub fn genesis(network: NetworkId, committee: Arc<Committee>) -> Self {
        let committee_hash = committee_hash(&committee);
        let signed_by = Arc::clone(&committee);
        Self {
            network,
            height: 0,
            id: genesis_id(&network),
            time_ms: 0,
            signed_by,
            committee,
            committee_hash,
        }
    }

    /// The end of a chain whose last block has this header: signed by one committee, and the next height by another or
    /// the same.
    #[must_use]
    pub fn of(header: &Header, signed_by: Arc<Committee>, committee: Arc<Committee>) -> Self {
        let committee_hash = committee_hash(&committee);
        let &Header { network, height, time_ms, .. } = header;
        Self { network, height, id: header.id(), time_ms, signed_by, committee, committee_hash }
    }

    /// The committee that signs the next height.
    #[must_use]
    pub const fn committee(&self) -> &Arc<Committee> {
        &self.committee
    }

    /// [`committee_hash`] of the committee that signs the next height.
    #[must_use]
    pub const fn committee_hash(&self) -> Hash {
        self.committee_hash
    }

    /// Moves on to a block that follows; `next` is the committee that it puts in place, if it does.
    #[must_use]
    pub fn advanced(&self, header: &Header, next: Option<Arc<Committee>>) -> Self {
        let signed_by = Arc::clone(&self.committee);
        match next {
            Some(next) => Self::of(header, signed_by, next),
            None => {
                let &Header { height, time_ms, .. } = header;
                Self { height, time_ms, id: header.id(), signed_by, ..self.clone() }
            }
        }
    }

    /// Checks that a block may follow, as far as that can be told without executing it. Costs the signatures of its last
    /// commit.
    ///
    /// # Errors
    ///
    /// If it may not; whoever proposed it is at fault.
    pub fn check(&self, block: &Block) -> Result<(), InvalidBlock> {
        let header = block.header();
        let required = self.height + 1;
        if header.version != BLOCK_VERSION {
            return Err(InvalidBlock::Version { got: header.version });
        }
        if header.network != self.network {
            return Err(InvalidBlock::Network { got: header.network });
        }
        if header.height != required {
            return Err(InvalidBlock::Height { got: header.height, required });
        }
        if header.parent != self.id {
            return Err(InvalidBlock::Parent { got: header.parent, required: self.id });
        }
        if header.time_ms <= self.time_ms {
            return Err(InvalidBlock::Time { got_ms: header.time_ms, last_ms: self.time_ms });
        }
        let required = self.committee.epoch();
        if header.committee != self.committee_hash || header.epoch != required {
            return Err(InvalidBlock::Committee { got: header.epoch, required });
        }
        match block.last_commit() {
            None if self.height == 0 => Ok(()),
            Some(commit)
                if self.height > 0 && commit.block_id() == self.id && commit.height() == self.height =>
            {
                let verified = commit.verify(&self.network, &self.signed_by);
                verified.map(drop).map_err(InvalidBlock::LastCommitProof)
            }
            _ => Err(InvalidBlock::LastCommit),
        }
    }
}
