//! The second pass over a blob: slivers to the members, signatures back, the certificate to the members.
//!
//! ```text
//! encode --Outgoing--> Lane, one a member --Sent--> State --complete--> Confirm --Signed--> builder
//!   ^                                                                    |       quorum: Certify --Recorded--> point
//!   +--------------------- everything again, if it lost some of it ------+       of availability
//! ```
//!
//! All that is under way is in one set of futures that the call owns: dropping the call ends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use protocol::{
    NodeIndex, SegmentIndex,
    certificate::{CertificateBuilder, MemberSignature, Persistence, StorageConfirmation},
    encoding::EncodedSegment,
    hash::Hash,
    merkle,
    message::{BlobStatus, Refusal},
};
use swarm::{Network, RequestError};
use tokio::time::Instant;

use super::{
    StoreError, StoreOptions, Stored,
    identify::{EncodeError, Identified, Segments},
    lane::{Lane, Outgoing},
    state::State,
};
use crate::client::{Client, OnProgress, Progress, StatusReport, exchange::AskError, flow::Flow};

/// Something that came to its end.
pub(super) enum Event {
    Encoded(Result<Outgoing, StoreError>),
    /// Encoded once more, for these members.
    EncodedAgain(BTreeSet<NodeIndex>, Result<Outgoing, StoreError>),
    Sent(NodeIndex, SegmentIndex, Option<Result<(), AskError>>),
    Signed(NodeIndex, Result<MemberSignature, AskError>),
    Recorded(NodeIndex, Result<(), AskError>),
    Known(Option<StatusReport>),
}

/// How far the blob is.
pub(super) enum Phase {
    /// Slivers go out, signatures come back.
    Confirming,
    /// There is a certificate, recorded by members of this weight.
    Recording { recorded: u16 },
    /// The point of availability is behind; stragglers have until the deadline.
    Certified { duration: Duration, deadline: Instant },
}

/// One blob on its way to the members.
pub(super) struct Upload<N> {
    pub(super) client: Client<N>,
    segments: Segments,
    pub(super) identified: Identified,
    pub(super) progress: OnProgress,
    pub(super) persistence: Persistence,
    pub(super) started: Instant,
    pub(super) state: State,
    pub(super) phase: Phase,
    pub(super) builder: CertificateBuilder<StorageConfirmation>,
    pub(super) lanes: Vec<Arc<Lane<N>>>,
    /// Encoded segments that members still need.
    pub(super) held: BTreeMap<SegmentIndex, Arc<EncodedSegment>>,
    /// The next segment to encode.
    next: SegmentIndex,
    /// Segments to encode once more, and for whom.
    pub(super) again: BTreeMap<SegmentIndex, BTreeSet<NodeIndex>>,
    /// Segments being encoded.
    pub(super) n_encoding: usize,
    /// Members that were asked to record the certificate and have yet to answer.
    pub(super) recording: BTreeSet<NodeIndex>,
    /// A member says that the blob is invalid.
    is_suspect: bool,
    pub(super) events: FuturesUnordered<BoxFuture<'static, Event>>,
}

impl<N: Network> Upload<N> {
    pub(super) fn new(
        client: Client<N>,
        segments: Segments,
        identified: Identified,
        (options, progress, started): (StoreOptions, OnProgress, Instant),
    ) -> Self {
        let exchange = &client.exchange;
        let committee = Arc::new(exchange.committee().clone());
        let header = identified.header;
        let flow = Arc::new(Flow::new());
        let lane = |node| Arc::new(Lane::new(exchange.clone(), header, node, Arc::clone(&flow)));
        let lanes = committee.nodes().map(lane).collect();
        let state = State::new(&committee, header.shape().n_segments(), client.config.tail);
        let statement = StorageConfirmation {
            epoch: committee.epoch(),
            blob_id: header.blob_id(),
            persistence: options.persistence,
        };
        let builder = CertificateBuilder::new(statement, exchange.network_id(), committee)
            .expect("the statement is of the committee's epoch");
        Self {
            client,
            segments,
            identified,
            progress,
            persistence: options.persistence,
            started,
            state,
            phase: Phase::Confirming,
            builder,
            lanes,
            held: BTreeMap::new(),
            next: SegmentIndex(0),
            again: BTreeMap::new(),
            n_encoding: 0,
            recording: BTreeSet::new(),
            is_suspect: false,
            events: FuturesUnordered::new(),
        }
    }

    /// Runs to the end of the tail after the point of availability.
    ///
    /// Cancel safe: yes; the blob may have been stored.
    pub(super) async fn run(mut self) -> Result<Stored, StoreError> {
        self.ask_status();
        self.report_uploaded(0);
        loop {
            self.release();
            while self.has_next() && self.has_room() {
                self.encode_next();
            }
            self.encode_again();
            if self.state.is_hopeless() && matches!(self.phase, Phase::Confirming) {
                return Err(self.into_failure().await);
            }
            if let Some(stored) = self.stored() {
                return Ok(stored);
            }
            let wake = self.wake_at();
            tokio::select! {
                biased;
                Some(event) = self.events.next() => if let Some(stored) = self.on(event)? {
                    return Ok(stored);
                },
                () = tokio::time::sleep_until(wake.unwrap_or(self.started)), if wake.is_some() => {}
                else => return Err(StoreError::Stopped),
            }
        }
    }

    fn on(&mut self, event: Event) -> Result<Option<Stored>, StoreError> {
        match event {
            Event::Encoded(outgoing) => self.offer(outgoing?),
            Event::EncodedAgain(nodes, outgoing) => self.offer_again(nodes, outgoing)?,
            Event::Sent(_, _, None) => {}
            Event::Sent(node, segment, Some(Ok(()))) => self.holds(node, segment),
            Event::Signed(node, Ok(signature)) => self.signed(node, &signature),
            Event::Signed(node, Err(AskError::Lost(_))) if self.state.lost(node) => self.resend(node),
            Event::Sent(node, _, Some(Err(error))) | Event::Signed(node, Err(error)) => {
                self.failed(node, &error)?;
            }
            Event::Recorded(node, result) => self.recorded(node, result)?,
            Event::Known(report) => return self.known(report),
        }
        Ok(None)
    }

    fn ask_status(&self) {
        let (client, blob_id) = (self.client.clone(), self.identified.header.blob_id());
        self.events.push(async move { Event::Known(client.status(blob_id).await.ok()) }.boxed());
    }

    pub(super) fn has_next(&self) -> bool {
        self.next.0 < self.segments.shape().n_segments()
    }

    pub(super) fn has_room(&self) -> bool {
        self.state.in_hand() + self.n_encoding < self.client.config.segments_in_flight.max(1)
    }

    /// True if a segment waits for one in hand to be let go. What a member lost is no reason to leave others behind that
    /// are still served after the point of availability.
    fn wants_memory(&self) -> bool {
        let is_certified = matches!(self.phase, Phase::Certified { .. });
        let waits = self.has_next() || (!self.again.is_empty() && !is_certified);
        waits && self.n_encoding == 0 && !self.has_room()
    }

    fn release(&mut self) {
        let release = self.state.release(self.started.elapsed(), self.wants_memory());
        for node in release.behind {
            tracing::info!(member = self.client.exchange.name(node), "left behind");
            self.lanes[node.as_usize()].stop();
        }
        for index in release.segments {
            // What is still on its way out is freed when it is out.
            if let Some(segment) = self.held.remove(&index).and_then(Arc::into_inner) {
                self.segments.recycle(segment);
            }
        }
    }

    fn encode_next(&mut self) {
        let index = self.next;
        self.next.0 += 1;
        self.n_encoding += 1;
        // Either all segments were kept, or none.
        if let Some(segment) = self.identified.kept.pop_front() {
            let outgoing = outgoing(index, segment, &self.identified.roots);
            self.events.push(async move { Event::Encoded(outgoing) }.boxed());
            return;
        }
        self.events.push(self.encode(index).map(Event::Encoded).boxed());
    }

    /// Reads and encodes a segment, and binds it to the blob.
    pub(super) fn encode(
        &self,
        index: SegmentIndex,
    ) -> impl Future<Output = Result<Outgoing, StoreError>> + Send + use<N> {
        let (segments, roots) = (self.segments.clone(), Arc::clone(&self.identified.roots));
        async move {
            match segments.encode(index, move |segment| outgoing(index, segment, &roots)).await {
                Ok(outgoing) => outgoing,
                Err(EncodeError::Source(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    Err(StoreError::Changed)
                }
                Err(error) => Err(error.into()),
            }
        }
    }

    fn offer(&mut self, outgoing: Outgoing) {
        self.n_encoding -= 1;
        let (index, outgoing) = (outgoing.index, Arc::new(outgoing));
        self.held.insert(index, Arc::clone(&outgoing.segment));
        self.state.offer(index, self.started.elapsed());
        for node in self.state.sending() {
            self.send(node, &outgoing);
        }
    }

    pub(super) fn send(&self, node: NodeIndex, outgoing: &Arc<Outgoing>) {
        let (lane, outgoing) = (Arc::clone(&self.lanes[node.as_usize()]), Arc::clone(outgoing));
        let index = outgoing.index;
        self.events.push(async move { Event::Sent(node, index, lane.send(outgoing).await) }.boxed());
    }

    fn holds(&mut self, node: NodeIndex, segment: SegmentIndex) {
        let before = self.state.uploaded();
        let is_complete = self.state.holds(node, segment, self.started.elapsed());
        self.report_uploaded(before);
        if is_complete && matches!(self.phase, Phase::Confirming) {
            let (lane, persistence) = (Arc::clone(&self.lanes[node.as_usize()]), self.persistence);
            self.events.push(async move { Event::Signed(node, lane.confirm(persistence).await) }.boxed());
        }
    }

    fn report_uploaded(&self, before: u32) {
        let uploaded = self.state.uploaded();
        let total = self.segments.shape().length();
        let last = uploaded.checked_sub(1).map(SegmentIndex);
        let done = last.and_then(|last| self.segments.shape().range(last).ok()).map_or(0, |range| range.end);
        if uploaded > before || uploaded == 0 {
            (self.progress)(Progress::Uploading { done, total });
        }
    }

    fn failed(&mut self, node: NodeIndex, error: &AskError) -> Result<(), StoreError> {
        if matches!(error, AskError::Network(RequestError::Stopped)) {
            return Err(StoreError::Stopped);
        }
        tracing::info!(member = self.client.exchange.name(node), %error, "cannot take the blob");
        self.is_suspect |= matches!(error, AskError::Refused(Refusal::Invalid));
        self.give_up(node, error.to_string());
        Ok(())
    }

    pub(super) fn give_up(&mut self, node: NodeIndex, reason: String) {
        self.state.failed(node, reason);
        self.lanes[node.as_usize()].stop();
    }

    /// The error that too few members can take the blob, or what the network knows better.
    async fn into_failure(self) -> StoreError {
        let failure = StoreError::TooFewConfirmations {
            got: self.state.reachable(),
            required: self.builder.required(),
            reasons: self.state.reasons(),
        };
        let (client, blob_id, is_suspect) =
            (self.client.clone(), self.identified.header.blob_id(), self.is_suspect);
        // Memory is let go before anyone is asked.
        drop(self);
        if is_suspect {
            let status = client.status(blob_id).await;
            if status.is_ok_and(|report| matches!(report.status, BlobStatus::Invalid(_))) {
                return StoreError::Invalid;
            }
        }
        failure
    }

    fn wake_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Certified { deadline, .. } => self.tail_end(deadline),
            _ if self.wants_memory() => self.state.next_due().map(|due| self.started + due),
            _ => None,
        }
    }
}

/// Binds a segment to the blob, if it is still what the first pass saw.
pub(super) fn outgoing(
    index: SegmentIndex,
    segment: impl Into<Arc<EncodedSegment>>,
    roots: &[Hash],
) -> Result<Outgoing, StoreError> {
    let segment = segment.into();
    let commitment = segment.commitment();
    if commitment.root() != roots[index.as_usize()] {
        return Err(StoreError::Changed);
    }
    let path = merkle::path(roots, index.as_usize());
    let commitment = commitment.to_bytes().into();
    Ok(Outgoing { index, segment, commitment, path })
}
