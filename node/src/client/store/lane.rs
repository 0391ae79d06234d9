//! The way to one member: its slivers of every segment, in order, a bounded number of ranges at a time.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    NodeIndex, RegistrationId, SegmentIndex, SliverPairIndex,
    certificate::MemberSignature,
    commitment::{PAIR_ROOTS_BYTES, VerifiedHeader},
    committee::Committee,
    encoding::{Axis, EncodedSegment},
    hash::Hash,
    message::{RANGE_BYTES_MAX, Refusal, Request, Response, SliverAt},
};
use swarm::Network;
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

use super::holdings::Slivers;
use crate::client::{
    exchange::{AskError, Exchange, Pulse},
    flow::{Flow, Gate, Pass},
    retry::Patience,
};

/// Most ranges in flight to one member: 4 MB, which fills a link of 20 ms at a gigabit and more.
const RANGES_IN_FLIGHT: usize = 16;
/// How often a member may forget a commitment that it was sent before its slivers.
const REMINDERS_MAX: u32 = 2;

/// The pause before a member is asked again that does not know yet that the epoch has begun: members execute a block within
/// a few times as long as a vote takes to them.
const BEHIND_PAUSE: Duration = Duration::from_millis(100);

/// An encoded segment on its way to the members.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) index: SegmentIndex,
    pub(super) segment: Arc<EncodedSegment>,
    /// What the segment is bound by, as it is sent.
    pub(super) commitment: Bytes,
    /// Path from the segment root to the blob root.
    pub(super) path: Vec<Hash>,
}

/// A sliver, borrowed from its segment without copying.
struct Sliver {
    segment: Arc<EncodedSegment>,
    axis: Axis,
    pair: SliverPairIndex,
}

impl AsRef<[u8]> for Sliver {
    fn as_ref(&self) -> &[u8] {
        self.segment.sliver_of_pair(self.axis, self.pair)
    }
}

/// The way to one member.
pub(super) struct Lane<N> {
    exchange: Exchange<N>,
    header: VerifiedHeader,
    node: NodeIndex,
    /// Bounds the ranges in flight to all members.
    flow: Arc<Flow>,
    gate: Gate,
    /// Held while the ranges of a segment are being issued, so that segments go out one after the other.
    turn: Mutex<()>,
    pulse: Pulse,
    stop: CancellationToken,
}

impl<N: Network> Lane<N> {
    pub(super) fn new(
        exchange: Exchange<N>,
        header: VerifiedHeader,
        node: NodeIndex,
        flow: Arc<Flow>,
    ) -> Self {
        Self {
            exchange,
            header,
            node,
            flow,
            gate: Gate::new(RANGES_IN_FLIGHT),
            turn: Mutex::new(()),
            pulse: Pulse::new(),
            stop: CancellationToken::new(),
        }
    }

    /// To whom it leads.
    pub(super) const fn node(&self) -> NodeIndex {
        self.node
    }

    /// The committee of which that is a member.
    pub(super) const fn committee(&self) -> &Arc<Committee> {
        self.exchange.committee()
    }

    /// Ends what is being sent to the member, and lets go of the memory behind it.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// When the member last answered, or was first asked.
    pub(super) fn last_progress(&self) -> Instant {
        self.pulse.last()
    }

    /// Sends the member slivers of a segment; `None` if the lane was stopped.
    pub(super) async fn send(
        &self,
        outgoing: Arc<Outgoing>,
        slivers: Slivers,
    ) -> Option<Result<(), AskError>> {
        self.stop.run_until_cancelled(self.send_segment(&outgoing, slivers)).await
    }

    async fn send_segment(&self, outgoing: &Outgoing, slivers: Slivers) -> Result<(), AskError> {
        self.send_commitment(outgoing).await?;
        let turn = self.turn.lock().await;
        let mut in_flight = FuturesUnordered::new();
        for (at, sliver, range) in self.ranges(outgoing, slivers) {
            let mut pass = loop {
                tokio::select! {
                    biased;
                    Some(sent) = in_flight.next() => sent?,
                    pass = self.gate.enter() => break pass,
                }
            };
            in_flight.push(async move {
                self.send_range(outgoing, &mut pass, at, (range.start, sliver.slice(range))).await
            });
        }
        drop(turn);
        while let Some(sent) = in_flight.next().await {
            sent?;
        }
        Ok(())
    }

    /// Every range of these slivers.
    fn ranges<'a>(
        &'a self,
        outgoing: &'a Outgoing,
        slivers: Slivers,
    ) -> impl Iterator<Item = (SliverAt, Bytes, Range<usize>)> + Send + use<'a, N> {
        let (blob_id, segment) = (self.header.blob_id(), outgoing.index);
        slivers.into_iter().flat_map(move |(pair, axis)| {
            let sliver = Bytes::from_owner(Sliver { segment: Arc::clone(&outgoing.segment), axis, pair });
            let at = SliverAt { blob_id, segment, pair, axis };
            let len = sliver.len();
            let starts = (0..len).step_by(RANGE_BYTES_MAX);
            starts.map(move |start| (at, sliver.clone(), start..len.min(start + RANGE_BYTES_MAX)))
        })
    }

    async fn send_commitment(&self, outgoing: &Outgoing) -> Result<(), AskError> {
        let request = Request::StoreCommitment {
            header: *self.header.header(),
            segment: outgoing.index,
            path: outgoing.path.clone(),
        };
        self.done(&request, outgoing.commitment.clone()).await
    }

    async fn send_range(
        &self,
        outgoing: &Outgoing,
        pass: &mut Pass<'_>,
        at: SliverAt,
        (offset, bytes): (usize, Bytes),
    ) -> Result<(), AskError> {
        let offset = u32::try_from(offset).expect("a sliver is far shorter than 4 GiB");
        let request = Request::StoreSliver { at, offset };
        for _ in 0..REMINDERS_MAX {
            match self.flow.carry(pass, self.done(&request, bytes.clone())).await {
                // A member that started anew, or was short of room, may have forgotten what the sliver belongs to.
                Err(AskError::Refused(Refusal::NotFound)) => self.send_commitment(outgoing).await?,
                result => return result,
            }
        }
        self.flow.carry(pass, self.done(&request, bytes)).await
    }

    /// Asks the member for its signature; the caller verifies it.
    pub(super) async fn confirm(&self, registration: RegistrationId) -> Result<MemberSignature, AskError> {
        let request = Request::Confirm {
            header: *self.header.header(),
            registration,
            epoch: self.exchange.committee().epoch(),
        };
        self.signature(&request, Bytes::new()).await
    }

    /// True if all that the member is sent of the blob fits into one message, with an order of this length.
    pub(super) fn fits_in_one(&self, order_bytes: usize) -> bool {
        let (shape, segment) = (self.header.shape(), SegmentIndex(0));
        let Ok(segment_shape) = shape.segment(segment) else { return false };
        let slivers =
            self.exchange.committee().slivers_of(self.node, (self.header.blob_id(), segment), segment_shape);
        let sliver_bytes: usize = slivers.map(|(_, axis)| segment_shape.sliver_bytes(axis)).sum();
        let bytes = order_bytes + PAIR_ROOTS_BYTES * segment_shape.n_committed_pairs() + sliver_bytes;
        shape.n_segments() == 1 && bytes <= RANGE_BYTES_MAX
    }

    /// Slivers that the member is to hold of a segment.
    pub(super) fn n_slivers(&self, outgoing: &Outgoing) -> usize {
        let of = (self.header.blob_id(), outgoing.index);
        self.committee().slivers_of(self.node, of, outgoing.segment.shape()).count()
    }

    /// Sends the member all of a blob of one segment, and asks it for its signature; the caller verifies that.
    pub(super) async fn send_all(
        &self,
        outgoing: &Outgoing,
        registration: RegistrationId,
        order: Bytes,
    ) -> Result<MemberSignature, AskError> {
        let order_bytes = u16::try_from(order.len()).unwrap_or(0);
        let shape = outgoing.segment.shape();
        let of = (self.header.blob_id(), outgoing.index);
        let mut payload = BytesMut::from(&order[..usize::from(order_bytes)]);
        payload.extend_from_slice(&outgoing.commitment);
        for (pair, axis) in self.exchange.committee().slivers_of(self.node, of, shape) {
            payload.extend_from_slice(outgoing.segment.sliver_of_pair(axis, pair));
        }
        let (header, epoch) = (*self.header.header(), self.exchange.committee().epoch());
        let request = Request::StoreBlob { header, registration, epoch, order_bytes };
        self.signature(&request, payload.freeze()).await
    }

    async fn signature(&self, request: &Request, payload: Bytes) -> Result<MemberSignature, AskError> {
        let started = Instant::now();
        let response = loop {
            match self.ask(request, payload.clone()).await {
                // It has yet to execute the block that began the epoch.
                Err(AskError::Refused(Refusal::WrongEpoch { current }))
                    if current < self.committee().epoch()
                        && started.elapsed() + BEHIND_PAUSE < self.exchange.request_timeout() =>
                {
                    tokio::time::sleep(BEHIND_PAUSE).await;
                }
                result => break result?,
            }
        };
        match response {
            Response::Confirmed(signature) => Ok(signature),
            Response::Missing { slivers } => Err(AskError::Lost(slivers)),
            _ => Err(self.exchange.report_unexpected(self.node)),
        }
    }

    async fn done(&self, request: &Request, payload: Bytes) -> Result<(), AskError> {
        match self.ask(request, payload).await? {
            Response::Done => Ok(()),
            _ => Err(self.exchange.report_unexpected(self.node)),
        }
    }

    async fn ask(&self, request: &Request, payload: Bytes) -> Result<Response, AskError> {
        let timeout = self.exchange.request_timeout();
        let is_range = matches!(request, Request::StoreSliver { .. });
        let patience = if is_range { Patience::bulk(timeout) } else { Patience::control(timeout) };
        let (response, _) =
            self.exchange.ask_patiently(self.node, (request, payload), patience, &self.pulse).await?;
        Ok(response)
    }
}
