//! What the network knows of a blob.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    BlobId, NodeIndex,
    message::{BlobStatus, Request, Response},
    planted::{Bug, is_planted},
};
use swarm::Network;
use tokio::time::Instant;

use super::{
    Client,
    exchange::{AskError, Exchange, Pulse},
    retry::Patience,
};

/// How long a certificate waits for one of invalidity to overrule it.
const GRACE: Duration = Duration::from_millis(200);

/// What the network knows of a blob, verified.
#[derive(Clone, Debug)]
pub struct StatusReport {
    /// The blob.
    pub blob_id: BlobId,
    /// Its verified status.
    pub status: BlobStatus,
    /// Weight in shards of the members that answered.
    pub answered: u16,
}

/// Why the status of a blob is not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StatusError {
    /// Too few members answered to say that the blob does not exist.
    #[error("members with {answered} of the {required} shards needed answered; {}", hint(*.answered))]
    TooFewAnswers {
        /// Weight in shards of the members that answered.
        answered: u16,
        /// Weight needed.
        required: u16,
    },
}

fn hint(answered: u16) -> &'static str {
    if answered == 0 {
        "is the network up, and client.toml the right one?"
    } else {
        "too many nodes are down"
    }
}

impl<N: Network> Client<N> {
    /// Finds the status of a blob: a valid certificate from anyone is proof, absence takes a quorum's word.
    ///
    /// A certificate of invalidity overrules one of availability; so the latter waits until a quorum has answered, or
    /// for a fifth of a second.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`StatusError::TooFewAnswers`].
    pub async fn status(&self, blob_id: BlobId) -> Result<StatusReport, StatusError> {
        self.exchange.use_now();
        let committee = self.exchange.committee();
        let required = committee.quorum();
        let mut tally = Tally::new(required);
        let mut answers: FuturesUnordered<_> = committee
            .nodes()
            .map(|node| async move { (node, status_of(&self.exchange, node, blob_id).await) })
            .collect();
        let mut grace = None;
        let known = loop {
            if let Some(known) = tally.verdict(grace.is_some_and(|end| Instant::now() >= end)) {
                break Some(known);
            }
            let end = grace.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                biased;
                answer = answers.next() => match answer {
                    // One proof of a kind is enough; checking it again for each member would only cost time.
                    Some((node, Ok(status))) if tally.needs(&status) && !self.verifies(blob_id, &status) => {
                        self.exchange.report_unverifiable(node);
                    }
                    Some((node, Ok(status))) => tally.answered(committee.weight(node), status),
                    Some((_, Err(_))) => {}
                    None => break tally.last_word(),
                },
                () = tokio::time::sleep_until(end), if grace.is_some() => {}
            }
            if grace.is_none() && tally.is_certified() {
                grace = Some(Instant::now() + GRACE);
            }
        };
        let answered = tally.answered;
        let status = known.ok_or(StatusError::TooFewAnswers { answered, required })?;
        Ok(StatusReport { blob_id, status, answered })
    }

    /// True if the status proves itself, or claims nothing.
    fn verifies(&self, blob_id: BlobId, status: &BlobStatus) -> bool {
        let (network, committee) = (self.exchange.network_id(), self.exchange.committee());
        match status {
            BlobStatus::Unknown => true,
            BlobStatus::Certified(record) => {
                record.certificate.statement().blob_id == blob_id
                    && record.header.n_shards == committee.n_shards()
                    && record.header.verify_for(blob_id).is_ok()
                    && record.certificate.verify(network, committee).is_ok()
            }
            BlobStatus::Invalid(certificate) => {
                certificate.statement().blob_id == blob_id && certificate.verify(network, committee).is_ok()
            }
        }
    }
}

/// Asks one member; what it says is not verified yet.
async fn status_of<N: Network>(
    exchange: &Exchange<N>,
    node: NodeIndex,
    blob_id: BlobId,
) -> Result<BlobStatus, AskError> {
    let request = Request::Status(blob_id);
    let (patience, pulse) = (Patience::control(exchange.request_timeout()), Pulse::new());
    match exchange.ask_patiently(node, (&request, Bytes::new()), patience, &pulse).await? {
        (Response::Status(status), _) => Ok(status),
        _ => Err(exchange.report_unexpected(node)),
    }
}

/// Answers, counted. Pure.
#[derive(Debug)]
struct Tally {
    required: u16,
    /// Weight of the members that answered.
    answered: u16,
    /// Weight of the members that know nothing.
    unknown: u16,
    /// The first certificate; one of invalidity takes its place.
    proof: Option<BlobStatus>,
}

impl Tally {
    const fn new(required: u16) -> Self {
        Self { required, answered: 0, unknown: 0, proof: None }
    }

    fn answered(&mut self, weight: u16, status: BlobStatus) {
        self.answered += weight;
        match status {
            BlobStatus::Unknown => self.unknown += weight,
            BlobStatus::Certified(_) => {
                self.proof.get_or_insert(status);
            }
            BlobStatus::Invalid(_) => self.proof = Some(status),
        }
    }

    /// True if a certificate of this kind is not known yet, so that it must be verified to count.
    const fn needs(&self, status: &BlobStatus) -> bool {
        match status {
            BlobStatus::Unknown => false,
            BlobStatus::Certified(_) => self.proof.is_none(),
            BlobStatus::Invalid(_) => !matches!(self.proof, Some(BlobStatus::Invalid(_))),
        }
    }

    const fn is_certified(&self) -> bool {
        matches!(self.proof, Some(BlobStatus::Certified(_)))
    }

    /// The status, once no further answer is worth waiting for.
    fn verdict(&self, grace_is_over: bool) -> Option<BlobStatus> {
        let has_quorum = self.answered >= self.required;
        match &self.proof {
            Some(BlobStatus::Invalid(_)) => self.proof.clone(),
            _ if self.unknown > 0 && is_planted(Bug::AbsenceFromOne) => Some(BlobStatus::Unknown),
            Some(_) if has_quorum || grace_is_over => self.proof.clone(),
            // What a quorum never heard of was not certified when it answered.
            None if self.unknown >= self.required => Some(BlobStatus::Unknown),
            _ => None,
        }
    }

    /// The status when no answer is to come.
    fn last_word(&self) -> Option<BlobStatus> {
        self.verdict(true)
    }
}
