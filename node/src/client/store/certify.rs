//! From signatures to the point of availability, and the tail after it.

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;
use protocol::{
    NodeIndex,
    certificate::{MemberSignature, Persistence},
    message::{BlobRecord, BlobStatus},
};
use swarm::{Network, RequestError};
use tokio::time::Instant;

use super::{
    StoreError, Stored,
    upload::{Event, Phase, Upload},
};
use crate::client::{Progress, StatusReport, exchange::AskError};

impl<N: Network> Upload<N> {
    /// The network knew the blob before.
    pub(super) fn known(&self, report: Option<StatusReport>) -> Result<Option<Stored>, StoreError> {
        if !matches!(self.phase, Phase::Confirming) {
            return Ok(None);
        }
        match report.map(|report| report.status) {
            Some(BlobStatus::Invalid(_)) => Err(StoreError::Invalid),
            Some(BlobStatus::Certified(record)) => {
                let certified = record.certificate.statement().persistence;
                // A blob that may be deleted is not what one who wants it kept asked for.
                let is_enough = certified == self.persistence || certified == Persistence::Permanent;
                let confirmed = self.client.exchange.committee().weight_of(record.certificate.signers());
                Ok(is_enough.then(|| self.result(confirmed, true, self.started.elapsed())))
            }
            _ => Ok(None),
        }
    }

    fn result(&self, confirmed: u16, already_certified: bool, duration: Duration) -> Stored {
        let header = &self.identified.header;
        Stored {
            blob_id: header.blob_id(),
            size: header.shape().length(),
            encoded_size: header.shape().encoded_bytes(),
            confirmed,
            already_certified,
            duration,
        }
    }

    pub(super) fn signed(&mut self, node: NodeIndex, signature: &MemberSignature) {
        if signature.member != node || self.builder.add(signature).is_err() {
            let error = self.client.exchange.report_unverifiable(node);
            self.state.failed(node, error.to_string());
            return;
        }
        self.state.confirmed(node);
        if !self.builder.is_complete() || !matches!(self.phase, Phase::Confirming) {
            return;
        }
        // Signatures of colluding members can cancel each other out; another one mends that.
        let Ok(certificate) = self.builder.finish() else { return };
        let record = BlobRecord { header: *self.identified.header.header(), certificate };
        self.phase = Phase::Recording { recorded: 0 };
        for (node, lane) in self.client.exchange.committee().nodes().zip(&self.lanes) {
            let (lane, record) = (Arc::clone(lane), record.clone());
            self.recording.insert(node);
            self.events.push(async move { Event::Recorded(node, lane.certify(record).await) }.boxed());
        }
    }

    pub(super) fn recorded(
        &mut self,
        node: NodeIndex,
        result: Result<(), AskError>,
    ) -> Result<(), StoreError> {
        self.recording.remove(&node);
        let Phase::Recording { recorded } = &mut self.phase else { return Ok(()) };
        let committee = self.client.exchange.committee();
        match result {
            Ok(()) => *recorded += committee.weight(node),
            Err(AskError::Network(RequestError::Stopped)) => return Err(StoreError::Stopped),
            Err(_) => {}
        }
        let (got, required) = (*recorded, committee.quorum());
        if got >= required {
            let duration = self.started.elapsed();
            let tail = self.client.config.tail.max(duration / 2);
            self.phase = Phase::Certified { duration, deadline: Instant::now() + tail };
            (self.progress)(Progress::Certified);
        } else if got + committee.weight_of(&self.recording) < required {
            return Err(StoreError::TooFewRecords { got, required });
        }
        Ok(())
    }

    /// Until when members that are still being sent something are worth waiting for: each for a tail after it last
    /// moved, all of them until the deadline.
    pub(super) fn tail_end(&self, deadline: Instant) -> Option<Instant> {
        let reachable = |node: &NodeIndex| self.state.is_reachable(*node);
        let recording = self.recording.iter().copied().filter(reachable);
        let open = self.state.sending().into_iter().chain(recording);
        let ends = open.map(|node| self.lanes[node.as_usize()].last_progress() + self.client.config.tail);
        ends.max().map(|end| end.min(deadline))
    }

    pub(super) fn stored(&self) -> Option<Stored> {
        let Phase::Certified { duration, deadline } = self.phase else { return None };
        let is_over = self.tail_end(deadline).is_none_or(|end| end <= Instant::now());
        is_over.then(|| self.result(self.builder.weight(), false, duration))
    }
}
