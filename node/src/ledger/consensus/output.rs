//! What a replica wants done, and what it holds against others.

use std::time::Duration;

use protocol::{
    BlockId, PeerId,
    ledger::{
        block::{Decided, InvalidBlock},
        chain::AdvanceError,
        commit::CommitError,
        signature::VerifyError,
        tree::PageError,
        vote::Equivocation,
        wire::{Message, Request, Response},
    },
};

use super::{application::InvalidPayload, verify::Unproven};

/// Pairs an answer with what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a replica wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send this to everyone.
    Broadcast(Message),
    /// Ask a peer, and hand the answer to [`Replica::on_response`](super::Replica::on_response).
    Request {
        /// Names the request; chosen by the replica.
        id: RequestId,
        /// Whom to ask.
        peer: PeerId,
        /// What to ask.
        request: Request,
    },
    /// Answer a peer.
    Reply {
        /// The request answered; chosen by whoever passed it on.
        id: RequestId,
        /// The answer.
        response: Response,
    },
    /// Tell a peer that it asks too much.
    Busy {
        /// The request refused; chosen by whoever passed it on.
        id: RequestId,
    },
    /// A block is decided, durable and executed.
    Committed(Decided),
    /// The state after this block was taken from others and is durable; the blocks before it were not executed.
    Installed(Decided),
    /// A member contradicted itself. Anyone can check it; it belongs on the ledger.
    Evidence(Equivocation),
    /// A peer sent what no honest node sends.
    Misbehaved {
        /// Who sent it.
        peer: PeerId,
        /// What it did.
        offence: Offence,
    },
    /// A block was proposed that is farther ahead of this node's clock than clocks may differ, so it was not voted for. Said once
    /// a height. It may be the proposer's clock, or this node's.
    ClockBehind {
        /// How far ahead.
        by: Duration,
    },
}

/// What a peer did that no honest node does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// A vote or proposal is not signed by whom it names.
    #[error("sent a consensus message with a wrong signature")]
    Signature(#[source] VerifyError),
    /// A certificate of a round proves nothing.
    #[error("sent a certificate that proves nothing")]
    Certificate(#[source] Unproven),
    /// A proposal is not of the member whose turn it is.
    #[error("passed on a proposal of {got}, but it is the turn of {required}")]
    NotItsTurn {
        /// Who proposed.
        got: PeerId,
        /// Whose turn it is.
        required: PeerId,
    },
    /// The block beside a proposal is another than the one proposed.
    #[error("sent a proposal of {required} with the block {got}")]
    OtherBlock {
        /// The block sent.
        got: BlockId,
        /// The block proposed.
        required: BlockId,
    },
    /// An honest member does not propose this block.
    #[error("proposed a block that does not follow the last one")]
    Block(#[source] InvalidBlock),
    /// An honest member does not propose this block.
    #[error("proposed a block that the ledger does not accept")]
    Payload(#[source] InvalidPayload),
    /// A block sent as decided is not proven to be.
    #[error("sent block {height} as decided, which it is not")]
    NotDecided {
        /// Height of the block.
        height: u64,
        /// What is wrong with its certificate; nothing, if it is of another block.
        #[source]
        source: Option<CommitError>,
    },
    /// It sent another block than was asked for.
    #[error("sent block {got}, asked for was {required}")]
    NotAsked {
        /// Height of the block sent.
        got: u64,
        /// Height asked for.
        required: u64,
    },
    /// A header on the way to a snapshot is not proven to be decided.
    #[error("sent a header on the way to a snapshot that is not proven")]
    Link(#[source] Box<AdvanceError>),
    /// A header on the way to a snapshot neither changes the committee nor is the snapshot's.
    #[error("sent header {height}, which leads to no snapshot")]
    NeedlessLink {
        /// Height of the header.
        height: u64,
    },
    /// A committee is not the one that the header puts in place.
    #[error("sent another committee than header {height} puts in place")]
    OtherCommittee {
        /// Height of the header.
        height: u64,
    },
    /// A page of a snapshot is not of the certified state.
    #[error("sent what is no page of the state of height {height}")]
    Page {
        /// Height of the snapshot.
        height: u64,
        /// What is wrong with it.
        #[source]
        source: PageError,
    },
    /// Nobody stands behind a transaction that it passed on.
    #[error("passed on a transaction that its sender did not sign")]
    Transaction,
    /// It answered another question than it was asked.
    #[error("answered another question than it was asked")]
    OtherAnswer,
}
