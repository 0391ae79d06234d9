//! What nodes say to each other about the ledger, in canonical form and bounded.
//!
//! [`Message`]s go to everyone, [`Request`]s to one peer. All of it is a claim: what is signed is verified by whoever acts
//! on it. Enums are append-only: the position of a variant is its number on the wire.

use std::sync::Arc;

use bincode::{Decode, Encode};

use super::{
    block::{BLOCK_BYTES_MAX, Block, Decided, Header},
    commit::{COMMIT_BYTES_MAX, CommitCertificate, SIGNATURES_MAX},
    signature::Signature,
    tree::{KEY_BYTES_MAX, Page, VALUE_BYTES_MAX},
    vote::{SignedProposal, SignedVote, VoteKind},
};
use crate::{
    codec::{self, DecodeError},
    ids::{BlockId, PeerId},
};

/// Most bytes of a message: a proposal with the longest block.
pub const MESSAGE_BYTES_MAX: usize = BLOCK_BYTES_MAX + 1024;
/// Most bytes of a request: one for a page of the state names a key.
pub const REQUEST_BYTES_MAX: usize = 128;
/// Most bytes of the blocks of a response, unless it holds only one: what fits into one frame of the network.
pub const PAGE_BYTES_MAX: usize = 240 << 10;
/// Most blocks of a response: verifying a page must not hold up everything else for long.
pub const PAGE_BLOCKS_MAX: u16 = 64;
/// Most bytes of a response: what fits into one frame of the network, so one block of any length, or a page.
pub const RESPONSE_BYTES_MAX: usize = 256 << 10;
/// Most bytes of the transactions of one message: gossip about transactions carries 64 KiB, and each takes its length
/// beside its bytes.
pub const BATCH_BYTES_MAX: usize = 48 << 10;
/// Most transactions of one message.
pub const BATCH_TRANSACTIONS_MAX: usize = 1024;
/// Bytes of entries, as [`Tree::page`](super::tree::Tree::page) counts them, at which a page of the state ends. It may have
/// one entry more, and at both its borders a branch and a hash for each bit of the longest key: all of it fits into a frame.
pub const STATE_PAGE_BYTES_AIM: usize = 160 << 10;
/// Bytes that a branch and a hash take in a page.
const BORDER_BYTES: usize = 6 + 36;
const _: () = assert!(
    STATE_PAGE_BYTES_AIM + KEY_BYTES_MAX + VALUE_BYTES_MAX + 2 * 9 * KEY_BYTES_MAX * BORDER_BYTES + 1024
        <= RESPONSE_BYTES_MAX,
    "a page of the state fits into a frame"
);
/// Bytes of a committee that travel at once; fewer are the end of it.
pub const COMMITTEE_PART_BYTES: usize = 192 << 10;
/// Most bytes of a committee: a thousand members with every text at its longest take 6.5 MB.
pub const COMMITTEE_BYTES_MAX: usize = 8 << 20;
const _: () =
    assert!(BLOCK_BYTES_MAX + COMMIT_BYTES_MAX + 1024 <= RESPONSE_BYTES_MAX, "a block fits into a frame");
const _: () = assert!(PAGE_BYTES_MAX + 1024 <= RESPONSE_BYTES_MAX, "a page fits into a frame");
/// Limits for decoding: lists take a few times their bytes in memory.
const MESSAGE_LIMIT: usize = 4 * MESSAGE_BYTES_MAX;
const RESPONSE_LIMIT: usize = 4 * RESPONSE_BYTES_MAX;

/// Prevotes for one block in one round, which free members to prevote for it again later.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PolkaCertificate {
    /// Height.
    pub height: u64,
    /// Round of the prevotes.
    pub round: u32,
    /// The block.
    pub block: BlockId,
    /// Signatures of prevotes by their voters, at most [`SIGNATURES_MAX`].
    pub signatures: Vec<(PeerId, Signature)>,
}

/// What a [`RoundCertificate`] justifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RoundReason {
    /// Votes of its round with an honest shard among them: others are there already.
    Skip,
    /// Precommits of a quorum in its round, without a decision: the next round may begin.
    Precommits,
}

/// Votes that justify moving on to a later round.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RoundCertificate {
    /// Height.
    pub height: u64,
    /// Round of the votes.
    pub round: u32,
    /// What they justify.
    pub reason: RoundReason,
    /// Kind, block, voter and signature of each vote, at most [`SIGNATURES_MAX`].
    pub votes: Vec<(VoteKind, Option<BlockId>, PeerId, Signature)>,
}

/// What goes to everyone.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// A proposal, with the block that it is for.
    Proposal {
        /// The proposal.
        proposal: SignedProposal,
        /// The block.
        block: Arc<Block>,
    },
    /// A vote.
    Vote(SignedVote),
    /// Prevotes of a quorum.
    Polka(PolkaCertificate),
    /// Votes that justify a round.
    Round(RoundCertificate),
    /// How far the sender's ledger reaches.
    Status {
        /// Height of its last block.
        height: u64,
    },
    /// Transactions to be ordered, at most [`BATCH_TRANSACTIONS_MAX`] with at most [`BATCH_BYTES_MAX`] bytes.
    Transactions(Vec<Vec<u8>>),
}

/// A decided block's header on the way from a height to a snapshot: one that changes the committee, or the snapshot's own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Link {
    /// The header.
    pub header: Header,
    /// The proof that it was decided; a claim until it is verified.
    pub certificate: CommitCertificate,
    /// Whether the sender has the state after this block, and gives its pages.
    pub has_state: bool,
}

/// What one peer is asked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// How far does your ledger reach? Mine reaches this far. Answered by [`Response::Status`].
    Status {
        /// Height of the asker's last block.
        height: u64,
    },
    /// Decided blocks from this height on. Answered by [`Response::Blocks`].
    Blocks {
        /// The first height.
        from: u64,
        /// The most blocks wanted; [`PAGE_BLOCKS_MAX`] and [`PAGE_BYTES_MAX`] hold beside it.
        n_max: u16,
    },
    /// The next step from this height to your newest snapshot: the first header above it that changes the committee, or the
    /// snapshot's. Answered by [`Response::Link`].
    Link {
        /// The height from which the asker knows the committee.
        after: u64,
    },
    /// The committee that the block of this height put in place, in canonical form. Answered by [`Response::Committee`].
    Committee {
        /// Height of the block.
        height: u64,
        /// Where in the form to begin.
        offset: u32,
    },
    /// A page of the state after the block of this height. Answered by [`Response::Page`].
    Page {
        /// Height of the snapshot.
        height: u64,
        /// Key of the last entry of the page before, at most [`KEY_BYTES_MAX`] bytes; none for the first page.
        after: Option<Vec<u8>>,
    },
    /// The first block above this height that changed the committee. Answered by [`Response::Change`].
    Change {
        /// The height from which the asker knows the committee.
        after: u64,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Response {
    /// How far the ledger reaches.
    Status {
        /// Height of the last block.
        height: u64,
    },
    /// Decided blocks in the order of their heights; none if there are none.
    Blocks(Vec<Decided>),
    /// A step to the newest snapshot; none if there is no snapshot above that height.
    Link(Option<Box<Link>>),
    /// At most [`COMMITTEE_PART_BYTES`] bytes of a committee; none if it is not there, or ends before.
    Committee(Vec<u8>),
    /// A page of the state; none if there is no such snapshot, or no such key in it.
    Page(Option<Page>),
    /// A block that changed the committee; none if there is none above that height.
    Change(Option<Box<(Header, CommitCertificate)>>),
}

impl Message {
    /// The canonical form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes the canonical form.
    ///
    /// # Errors
    ///
    /// If the bytes are not that of a message within its bounds; whoever sent them is at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: Self = codec::decode_within::<_, MESSAGE_LIMIT>(bytes, MESSAGE_BYTES_MAX)?;
        let (what, got, limit) = match &message {
            Self::Polka(polka) => ("signatures", polka.signatures.len(), usize::from(SIGNATURES_MAX)),
            Self::Round(round) => ("votes", round.votes.len(), usize::from(SIGNATURES_MAX)),
            Self::Transactions(batch) => {
                let bytes: usize = batch.iter().map(Vec::len).sum();
                if bytes > BATCH_BYTES_MAX {
                    return Err(too_many("bytes of transactions", bytes, BATCH_BYTES_MAX));
                }
                ("transactions", batch.len(), BATCH_TRANSACTIONS_MAX)
            }
            Self::Proposal { .. } | Self::Vote(_) | Self::Status { .. } => return Ok(message),
        };
        if got > limit { Err(too_many(what, got, limit)) } else { Ok(message) }
    }

    /// The height that it is about, if it is part of deciding on one.
    #[must_use]
    pub fn height(&self) -> Option<u64> {
        match self {
            Self::Proposal { proposal, .. } => Some(proposal.proposal.height),
            Self::Vote(vote) => Some(vote.vote.height),
            Self::Polka(polka) => Some(polka.height),
            Self::Round(round) => Some(round.height),
            Self::Status { .. } | Self::Transactions(_) => None,
        }
    }
}

impl Request {
    /// The canonical form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes the canonical form.
    ///
    /// # Errors
    ///
    /// If the bytes are not that of a request within its bounds; whoever sent them is at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let request = codec::decode_exact::<Self, REQUEST_BYTES_MAX>(bytes)?;
        match &request {
            Self::Page { after: Some(key), .. } if key.len() > KEY_BYTES_MAX => {
                Err(too_many("bytes of a key", key.len(), KEY_BYTES_MAX))
            }
            _ => Ok(request),
        }
    }
}

impl Response {
    /// The canonical form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes the canonical form.
    ///
    /// # Errors
    ///
    /// If the bytes are not that of a response within its bounds; whoever sent them is at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let response: Self = codec::decode_within::<_, RESPONSE_LIMIT>(bytes, RESPONSE_BYTES_MAX)?;
        match &response {
            Self::Blocks(blocks) if blocks.len() > usize::from(PAGE_BLOCKS_MAX) => {
                Err(too_many("blocks", blocks.len(), usize::from(PAGE_BLOCKS_MAX)))
            }
            Self::Committee(part) if part.len() > COMMITTEE_PART_BYTES => {
                Err(too_many("bytes of a committee", part.len(), COMMITTEE_PART_BYTES))
            }
            _ => Ok(response),
        }
    }
}

fn too_many(what: &str, got: usize, limit: usize) -> DecodeError {
    DecodeError::Malformed { reason: format!("{got} {what}, at most {limit} allowed") }
}
