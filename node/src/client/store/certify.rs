//! From signatures to the point of availability, and the tail after it.

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;
use protocol::{
    Epoch, NodeIndex,
    certificate::{CertificateOfAvailability, MemberSignature},
    ledger::{state::entry::Stage, transaction::Action},
};
use swarm::Network;
use tokio::time::Instant;

use super::{
    Deal, StoreError, Stored,
    terms::Facts,
    upload::{Event, Making, Phase, Upload},
};
use crate::client::{Client, Progress, SubmitError, ledger::Turn};

/// How long after a look that found a handover under way there is another: it takes a few blocks.
const EPOCH_LOOK: Duration = Duration::from_millis(250);
/// How often certifying is tried: once as planned, and again when an order was executed by somebody else meanwhile.
const ATTEMPTS: usize = 4;

impl<N: Network> Upload<N> {
    pub(super) fn signed(&mut self, node: NodeIndex, signature: &MemberSignature) {
        if signature.member != node || self.builder.add(signature).is_err() {
            let error = self.exchange.report_unverifiable(node);
            self.state.failed(node, error.to_string());
            return;
        }
        self.state.confirmed(node);
        if !self.builder.is_complete() || !matches!(self.phase, Phase::Confirming) {
            return;
        }
        // Signatures of colluding members can cancel each other out; another one mends that.
        let Ok(certificate) = self.builder.finish() else { return };
        self.phase = Phase::Certifying;
        self.timings.confirmed = self.started.elapsed();
        let (client, deal, epoch) = (self.client.clone(), Arc::clone(&self.deal), self.epoch());
        let (is_ordered, turn) = match &self.making {
            Making::Ordered { turn, .. } => (true, Some(Arc::clone(turn))),
            Making::Made | Making::Submitted => (false, None),
        };
        let certify = async move {
            // Either the turn in which the nonce was read, or one of its own.
            let turn = match turn {
                Some(turn) => turn,
                None => Arc::new(client.turn(deal.key.account()).await),
            };
            Event::Certified(certify(&client, &deal, (certificate, epoch), (is_ordered, &turn)).await)
        };
        self.events.push(certify.boxed());
    }

    /// The ledger has the certificate: the point of availability.
    pub(super) fn certified(&mut self) {
        let duration = self.started.elapsed();
        self.timings.certified = duration;
        let tail = self.client.config.tail.max(duration / 2);
        self.phase = Phase::Certified { duration, deadline: Instant::now() + tail };
        (self.progress)(Progress::Certified);
        // The turn is over for whoever waits for it.
        self.making = Making::Made;
    }

    /// Until when members that are still being sent something are worth waiting for: each for a tail after it last
    /// moved, all of them until the deadline.
    pub(super) fn tail_end(&self, deadline: Instant) -> Option<Instant> {
        let open = self.state.sending().into_iter();
        let ends = open.map(|node| self.lanes[node.as_usize()].last_progress() + self.client.config.tail);
        ends.max().map(|end| end.min(deadline))
    }

    pub(super) fn stored(&self) -> Option<Stored> {
        let Phase::Certified { duration, deadline } = self.phase else { return None };
        let is_over = self.tail_end(deadline).is_none_or(|end| end <= Instant::now());
        is_over.then(|| Stored {
            confirmed: self.builder.weight(),
            signers: self.builder.signers().collect(),
            epoch: self.epoch(),
            already_certified: false,
            duration,
            timings: self.timings,
            ..Stored::of(&self.deal.header)
        })
    }
}

/// Why a registration was not certified.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertifyError {
    /// The epoch of the certificate is over, and the ledger takes none of it for this registration any more.
    #[error("the certificate's epoch is over")]
    EpochOver,
    /// Something else.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Has the ledger certify a registration, or register and certify at once while the nonce of the registration is not used.
async fn certify<N: Network>(
    client: &Client<N>,
    deal: &Deal,
    (certificate, epoch): (CertificateOfAvailability, Epoch),
    (is_ordered, turn): (bool, &Turn),
) -> Result<(), CertifyError> {
    let registering = deal.registration.nonce;
    let certificate = Box::new(certificate);
    let mut failure = StoreError::Superseded;
    // Whoever registers by order knows the nonce, and so does who has just registered; others look first.
    let mut next =
        if is_ordered { Some(registering) } else { turn.next().filter(|next| *next > registering) };
    for _ in 0..ATTEMPTS {
        let nonce = match next.take() {
            Some(nonce) => nonce,
            None => {
                let facts = client.facts_of(deal).await?;
                match look(&facts, deal)? {
                    Found::Certified => return Ok(()),
                    _ if is_over(&facts, epoch) => return Err(CertifyError::EpochOver),
                    Found::Registered => facts.account.nonce,
                    // One before it is on its way: it is this one's turn once that is executed.
                    Found::Ordered => registering,
                }
            }
        };
        let certificate = certificate.clone();
        let action = if nonce == registering {
            Action::StoreBlob {
                header: *deal.header.header(),
                persistence: deal.persistence,
                end_epoch: deal.end,
                certificate,
            }
        } else {
            Action::CertifyBlob { certificate }
        };
        let keys = deal.keys();
        let submitted = tokio::select! {
            biased;
            submitted = client.submit_at(nonce, action, (&deal.key, turn), &keys) => submitted,
            // What was sent never will be executed.
            () = client.epoch_over(deal, epoch) => return Err(CertifyError::EpochOver),
        };
        match submitted {
            // That its own transaction was executed is one thing, that the blob is certified another.
            Ok((_, values)) => {
                if let Some(facts) = values.and_then(|values| Facts::read(&values).ok())
                    && let Ok(Found::Certified) = look(&facts, deal)
                {
                    return Ok(());
                }
            }
            // Somebody may have been faster: a node that executes the order, or another try of this client.
            Err(error) => failure = StoreError::Submit(error),
        }
    }
    // As the last try ended, the epoch may have.
    match client.facts_of(deal).await {
        Ok(facts) if matches!(look(&facts, deal), Ok(Found::Certified)) => Ok(()),
        Ok(facts) if is_over(&facts, epoch) => Err(CertifyError::EpochOver),
        _ => Err(failure.into()),
    }
}

/// True if the ledger takes no certificate of this epoch any more: the epoch is over, and the handover after it is.
fn is_over(facts: &Facts, epoch: Epoch) -> bool {
    let current = facts.head.epoch;
    let is_handover = matches!(facts.head.stage, Stage::Handover { .. });
    epoch != current && !(is_handover && epoch.0.checked_add(1) == Some(current.0))
}

impl<N: Network> Client<N> {
    async fn facts_of(&self, deal: &Deal) -> Result<Facts, StoreError> {
        self.facts(&deal.header.blob_id(), &deal.registration.owner).await
    }

    /// Returns once the ledger takes no certificate of this epoch any more; never, as long as it is not seen to.
    async fn epoch_over(&self, deal: &Deal, epoch: Epoch) {
        let mut committees = self.ledger.watch();
        // The client that sends lives as long as this one.
        if committees.wait_for(|trusted| trusted.epoch() > epoch).await.is_err() {
            return std::future::pending().await;
        }
        loop {
            match self.facts_of(deal).await {
                Ok(facts)
                    if is_over(&facts, epoch) && !matches!(look(&facts, deal), Ok(Found::Certified)) =>
                {
                    return;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "it is not known whether the epoch is over"),
            }
            tokio::time::sleep(EPOCH_LOOK).await;
        }
    }

    /// True if the ledger has the registration.
    pub(super) async fn is_registered(&self, deal: &Deal) -> bool {
        let facts = self.facts_of(deal).await;
        facts.is_ok_and(|facts| matches!(look(&facts, deal), Ok(Found::Registered | Found::Certified)))
    }

    /// True if a registration has ended, or will never be.
    pub(super) async fn is_over(&self, deal: &Deal) -> bool {
        let facts = self.facts_of(deal).await;
        facts.is_ok_and(|facts| matches!(look(&facts, deal), Err(StoreError::Superseded)))
    }
}

/// How far the ledger is with a registration.
enum Found {
    /// The transaction that makes it may still be executed.
    Ordered,
    Registered,
    Certified,
}

fn look(facts: &Facts, deal: &Deal) -> Result<Found, StoreError> {
    let nonce = deal.registration.nonce;
    if facts.blob.is_some_and(|blob| blob.invalid.is_some()) {
        return Err(StoreError::Invalid);
    }
    match facts.registration {
        Some(registration) if registration.nonce == nonce => Ok(match registration.certified {
            Some(_) => Found::Certified,
            None => Found::Registered,
        }),
        _ if facts.account.nonce <= nonce => Ok(Found::Ordered),
        _ => Err(StoreError::Superseded),
    }
}

/// True if the same may go well with another nonce.
pub(super) const fn is_superseded(error: &StoreError) -> bool {
    matches!(error, StoreError::Superseded | StoreError::Submit(SubmitError::Superseded { .. }))
}
