//! What nodes say to each other about the ledger, in canonical form and bounded.
//!
//! [`Message`]s go to everyone, [`Request`]s to one peer. All of it is a claim: what is signed is verified by whoever acts
//! on it. Enums are append-only: the position of a variant is its number on the wire.

use std::sync::Arc;

use bincode::{Decode, Encode};

use super::{
    block::{BLOCK_BYTES_MAX, Block, Decided},
    commit::{COMMIT_BYTES_MAX, SIGNATURES_MAX},
    signature::Signature,
    vote::{SignedProposal, SignedVote, VoteKind},
};
use crate::{
    codec::{self, DecodeError},
    ids::{BlockId, PeerId},
};

/// Most bytes of a message: a proposal with the longest block.
pub const MESSAGE_BYTES_MAX: usize = BLOCK_BYTES_MAX + 1024;
/// Most bytes of a request.
pub const REQUEST_BYTES_MAX: usize = 64;
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

/// What one peer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
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
        let message: Self = bounded::<_, MESSAGE_LIMIT>(bytes, MESSAGE_BYTES_MAX)?;
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
    /// If the bytes are not that of a request; whoever sent them is at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_exact::<Self, REQUEST_BYTES_MAX>(bytes)
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
        let response: Self = bounded::<_, RESPONSE_LIMIT>(bytes, RESPONSE_BYTES_MAX)?;
        match &response {
            Self::Blocks(blocks) if blocks.len() > usize::from(PAGE_BLOCKS_MAX) => {
                Err(too_many("blocks", blocks.len(), usize::from(PAGE_BLOCKS_MAX)))
            }
            _ => Ok(response),
        }
    }
}

fn bounded<T: Decode<()>, const LIMIT: usize>(bytes: &[u8], bytes_max: usize) -> Result<T, DecodeError> {
    if bytes.len() > bytes_max {
        return Err(DecodeError::TooLong { got: bytes.len(), limit: bytes_max });
    }
    codec::decode_exact::<T, LIMIT>(bytes)
}

fn too_many(what: &str, got: usize, limit: usize) -> DecodeError {
    DecodeError::Malformed { reason: format!("{got} {what}, at most {limit} allowed") }
}
