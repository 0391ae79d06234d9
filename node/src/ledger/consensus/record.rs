//! What the write-ahead log holds: the engine's inputs in the protocol's terms, and the blocks that they speak of.

use std::sync::Arc;

use arc_malachitebft_core_consensus::{Input, ProposedValue};
use arc_malachitebft_core_types::{Round, Timeout, TimeoutKind, Validity, ValueOrigin};
use bincode::{Decode, Encode};
use protocol::{
    BlockId, PeerId, codec,
    ledger::{
        block::{BLOCK_BYTES_MAX, Block},
        vote::{SignedProposal, SignedVote},
        wire::PolkaCertificate,
    },
};

use super::context::{
    Address, Height, Ledger, Value, polka_of, signed_proposal_of, signed_vote_of, to_polka,
    to_signed_proposal, to_signed_vote,
};

/// Limit for decoding a record: a block, with what its lists take in memory.
const DECODE_LIMIT: usize = 5 * BLOCK_BYTES_MAX;

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Wait {
    Propose,
    Prevote,
    Precommit,
}

/// One input of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Record {
    /// A vote, somebody's or our own.
    Vote(SignedVote),
    /// A proposal, somebody's or our own.
    Proposal(SignedProposal),
    /// A block that was looked at.
    Value {
        round: u32,
        lock_round: Option<u32>,
        proposer: PeerId,
        block: BlockId,
        is_valid: bool,
        /// The block itself, the first time that it is spoken of: a node must be able to commit what it voted for.
        body: Option<Arc<Block>>,
    },
    /// Prevotes of a quorum.
    Polka(PolkaCertificate),
    /// A timeout.
    Elapsed { wait: Wait, round: u32 },
}

impl Record {
    /// The record of an input; none if it is not of those that are logged. `body` is asked for a block's body once.
    pub(super) fn of(
        input: &Input<Ledger>,
        body: impl FnOnce(BlockId) -> Option<Arc<Block>>,
    ) -> Option<Self> {
        Some(match input {
            Input::Vote(vote) => Self::Vote(signed_vote_of(vote)),
            Input::Proposal(proposal) => Self::Proposal(signed_proposal_of(proposal)),
            Input::PolkaCertificate(polka) => Self::Polka(polka_of(polka)),
            Input::ProposedValue(value, _) => Self::Value {
                round: value.round.as_u32()?,
                lock_round: value.valid_round.as_u32(),
                proposer: value.proposer.0,
                block: value.value.0,
                is_valid: value.validity.is_valid(),
                body: body(value.value.0),
            },
            Input::TimeoutElapsed(timeout) => {
                let wait = match timeout.kind {
                    TimeoutKind::Propose => Wait::Propose,
                    TimeoutKind::Prevote => Wait::Prevote,
                    TimeoutKind::Precommit => Wait::Precommit,
                    TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => return None,
                };
                Self::Elapsed { wait, round: timeout.round.as_u32()? }
            }
            _ => return None,
        })
    }

    /// The input of this height that the record is of.
    pub(super) fn input(&self, height: u64) -> Input<Ledger> {
        match self {
            Self::Vote(vote) => Input::Vote(to_signed_vote(vote)),
            Self::Proposal(proposal) => Input::Proposal(to_signed_proposal(proposal)),
            Self::Polka(polka) => Input::PolkaCertificate(to_polka(polka)),
            &Self::Value { round, lock_round, proposer, block, is_valid, .. } => {
                let value = ProposedValue {
                    height: Height(height),
                    round: Round::new(round),
                    valid_round: Round::from(lock_round),
                    proposer: Address(proposer),
                    value: Value(block),
                    validity: Validity::from_bool(is_valid),
                };
                Input::ProposedValue(value, ValueOrigin::Consensus)
            }
            &Self::Elapsed { wait, round } => {
                let kind = match wait {
                    Wait::Propose => TimeoutKind::Propose,
                    Wait::Prevote => TimeoutKind::Prevote,
                    Wait::Precommit => TimeoutKind::Precommit,
                };
                Input::TimeoutElapsed(Timeout::new(Round::new(round), kind))
            }
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        codec::decode_exact::<Self, DECODE_LIMIT>(bytes).ok()
    }
}

/// For [`crate::fuzz`]: reads a record, makes of it what the engine takes at this height, and returns its form.
#[cfg(feature = "fuzz")]
pub(crate) fn read_record(bytes: &[u8], height: u64) -> Option<Vec<u8>> {
    let record = Record::decode(bytes)?;
    let input = record.input(height);
    let body = match &record {
        Record::Value { body, .. } => body.clone(),
        _ => None,
    };
    assert_eq!(Record::of(&input, |_| body).as_ref(), Some(&record), "the record of an input is one of it");
    Some(record.encode())
}
