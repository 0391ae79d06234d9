//! One question to a peer and its answer, encoded, decoded and blamed; for nodes and clients alike.

use std::time::Duration;

use bytes::Bytes;
use protocol::{
    PeerId, codec,
    codec::DecodeError,
    ledger::{block::Header, commit::CommitCertificate},
    message::{Refusal, Request, Response},
};
use swarm::{Channel, Frame, Network, Offence, RequestError, Topic};

/// Why a peer gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The question did not get through, or no answer came.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The peer did not do what it was asked.
    #[error("{0}")]
    Refused(Refusal),
    /// The answer does not decode, or does not fit the question; the peer is at fault and was reported.
    #[error("the peer sent a malformed answer")]
    Malformed,
}

/// What is large goes over the bulk channel, so that it never holds up what is urgent.
#[must_use]
pub const fn channel_of(request: &Request) -> Channel {
    match request {
        Request::StoreSliver { .. }
        | Request::StoreBlob { .. }
        | Request::FetchSliver { .. }
        | Request::FetchSymbols { .. }
        | Request::FetchSymbolProof { .. }
        | Request::FetchEvidence { .. } => Channel::Bulk,
        Request::StoreCommitment { .. }
        | Request::Confirm { .. }
        | Request::FetchCommitment { .. }
        | Request::Attest { .. }
        | Request::Health
        | Request::Ledger(_)
        | Request::Entries { .. }
        | Request::Range { .. }
        | Request::Submit { .. } => Channel::Control,
    }
}

/// Asks `peer` and returns its answer and payload; a refusal is an error.
///
/// Cancel safe: the peer may have carried out the request.
///
/// # Errors
///
/// [`ExchangeError`].
pub async fn ask<N: Network>(
    network: &N,
    peer: PeerId,
    (request, payload): (&Request, Bytes),
    timeout: Duration,
) -> Result<(Response, Bytes), ExchangeError> {
    let frame = Frame::new(request.to_bytes(), payload);
    let answer = network.request(peer, channel_of(request), frame, timeout).await?;
    match Response::from_bytes(&answer.header) {
        Ok(Response::Refused(refusal)) => Err(ExchangeError::Refused(refusal)),
        Ok(response) => Ok((response, answer.payload)),
        Err(_) => Err(malformed(network, peer)),
    }
}

/// Limit for decoding an announcement: signatures of a committee take a little more than their bytes in memory.
const ANNOUNCEMENT_LIMIT: usize = 4 * Topic::Epoch.bytes_max();

/// Reads what members announce on [`Topic::Epoch`]: the block with which a stage of an epoch began. It is a claim.
///
/// # Errors
///
/// If the bytes are none; whoever announced them is at fault.
pub(crate) fn decode_announcement(bytes: &[u8]) -> Result<(Header, CommitCertificate), DecodeError> {
    codec::decode_exact::<_, ANNOUNCEMENT_LIMIT>(bytes)
}

/// Reports a peer whose answer does not fit the question.
pub fn malformed<N: Network>(network: &N, peer: PeerId) -> ExchangeError {
    network.report(peer, Offence::Malformed);
    ExchangeError::Malformed
}
