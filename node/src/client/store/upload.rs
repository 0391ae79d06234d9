//! The second pass over a blob: slivers to the members, signatures back, the certificate to the ledger.
//!
//! ```text
//! register (ledger) --------------------------------------------v
//! encode --Outgoing--> Lane, one a member --Sent--> State --complete--> Confirm --Signed--> builder
//!   ^                   |                                                |  quorum: certify (ledger) --> point
//!   |                   +--all in one message, with the order--Signed----+                           of availability
//!   +--------------------- everything again, if it lost some of it ------+
//! ```
//!
//! When the epoch ends meanwhile, it goes on under the next committee: see [`carry`](super::carry).
//!
//! All that is under way is in one set of futures that the call owns: dropping the call ends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use protocol::{
    Epoch, NodeIndex, PeerId, RegistrationId, SegmentIndex,
    certificate::{CertificateBuilder, MemberSignature, StorageConfirmation},
    commitment::VerifiedHeader,
    encoding::EncodedSegment,
    hash::Hash,
    ledger::transaction::{Action, Transaction},
    merkle,
    message::Refusal,
};
use swarm::{Network, RequestError};
use tokio::{sync::watch, time::Instant};

use super::{
    Deal, Job, StoreError, Stored, Timings,
    certify::CertifyError,
    holdings::Holdings,
    identify::{EncodeError, Identified, Segments},
    lane::{Lane, Outgoing},
    state::State,
};
use crate::client::{
    BlobStatus, Client, OnProgress, Progress,
    exchange::{AskError, Exchange},
    flow::Flow,
    ledger::{Trusted, Turn},
};

/// How long members may take to confirm on an order, before the registration is made apart: far longer than an honest one
/// needs that has room for the order.
pub(super) const ORDER_PATIENCE: Duration = Duration::from_secs(1);

/// Something that came to its end. A lane tells of which committee it was.
pub(super) enum Event<N> {
    Encoded(SegmentIndex, Result<Outgoing, StoreError>),
    /// Encoded once more, for members that lack it.
    EncodedAgain(SegmentIndex, Result<Outgoing, StoreError>),
    Sent(Arc<Lane<N>>, SegmentIndex, Option<Result<(), AskError>>),
    Signed(Arc<Lane<N>>, Result<MemberSignature, AskError>),
    /// It was looked whether another committee took over.
    Refreshed,
    Registered(Result<(), StoreError>),
    Certified(Result<(), CertifyError>),
}

/// How the registration comes about.
pub(super) enum Making {
    /// The ledger has it.
    Made,
    /// Its transaction is on its way.
    Submitted,
    /// Members confirm on the order for it; it is made together with the certificate.
    Ordered {
        /// The signed transaction.
        order: Bytes,
        /// Held until the nonce is used.
        turn: Arc<Turn>,
    },
}

/// How far the blob is.
pub(super) enum Phase {
    /// Slivers go out, signatures come back.
    Confirming,
    /// There is a certificate, on its way to the ledger.
    Certifying,
    /// The point of availability is behind; stragglers have until the deadline.
    Certified { duration: Duration, deadline: Instant },
}

/// One blob on its way to the members.
pub(super) struct Upload<N> {
    pub(super) client: Client<N>,
    /// To ask the members of the committee that is to confirm.
    pub(super) exchange: Exchange<N>,
    /// To notice that another one took over.
    committees: watch::Receiver<Arc<Trusted>>,
    segments: Segments,
    pub(super) identified: Identified,
    pub(super) progress: OnProgress,
    pub(super) deal: Arc<Deal>,
    pub(super) making: Making,
    /// When the registration is made apart, if members do not confirm on the order.
    pub(super) give_order_up_at: Option<Instant>,
    /// All that a member is sent fits into one message.
    pub(super) in_one: bool,
    /// Bounds the ranges in flight.
    pub(super) flow: Arc<Flow>,
    pub(super) started: Instant,
    pub(super) timings: Timings,
    pub(super) state: State,
    pub(super) phase: Phase,
    pub(super) builder: CertificateBuilder<StorageConfirmation>,
    pub(super) lanes: Vec<Arc<Lane<N>>>,
    /// Encoded segments that members still need.
    pub(super) held: BTreeMap<SegmentIndex, Arc<EncodedSegment>>,
    /// What members hold, of this committee and those before.
    pub(super) holdings: Holdings,
    /// The next segment to encode.
    pub(super) next: SegmentIndex,
    /// Segments to encode once more, and for whom.
    pub(super) again: BTreeMap<SegmentIndex, BTreeSet<NodeIndex>>,
    /// Segments being encoded.
    pub(super) encoding: BTreeSet<SegmentIndex>,
    /// Segments being encoded once more.
    pub(super) encoding_again: BTreeSet<SegmentIndex>,
    /// Another committee took over since this began.
    pub(super) has_moved: bool,
    /// Who says that a later epoch has begun.
    pub(super) hints: BTreeMap<PeerId, Epoch>,
    /// Somebody refused what it should take if this committee still answers.
    pub(super) is_doubtful: bool,
    /// It is being found out whether another committee took over.
    pub(super) is_refreshing: bool,
    /// A member says that the blob is invalid.
    is_suspect: bool,
    /// A member says that the registration has ended, or will never be.
    is_over: bool,
    pub(super) events: FuturesUnordered<BoxFuture<'static, Event<N>>>,
}

impl<N: Network> Upload<N> {
    /// `turn` is that of the nonce of a registration that is still to be made; `is_available` says that the committee answers
    /// for the blob, registered by whomever, so that members are first asked whether they hold it.
    pub(super) fn new(
        client: Client<N>,
        Job { segments, progress, started, timings }: Job,
        identified: Identified,
        (deal, turn, is_available): (Deal, Option<Turn>, bool),
    ) -> Self {
        let committees = client.ledger.watch();
        let exchange = client.exchange();
        let header = identified.header;
        let flow = Arc::new(Flow::new());
        let lanes = lanes_of(&exchange, header, &flow);
        let builder = builder_of(&exchange, &deal);
        let mut state = State::new(exchange.committee(), header.shape().n_segments(), client.config.tail);
        let order = Bytes::from(order(&deal, exchange.network_id()));
        let in_one = !is_available && lanes.iter().all(|lane| lane.fits_in_one(order.len()));
        let mut next = SegmentIndex(0);
        if is_available {
            state.assume_held();
            next = SegmentIndex(header.shape().n_segments());
        }
        let (making, to_register) = match turn.map(Arc::new) {
            Some(turn) if in_one => (Making::Ordered { order, turn }, None),
            Some(turn) => (Making::Submitted, Some(turn)),
            None => (Making::Made, None),
        };
        let is_ordered = matches!(making, Making::Ordered { .. });
        let upload = Self {
            client,
            exchange,
            committees,
            segments,
            identified,
            progress,
            deal: Arc::new(deal),
            making,
            give_order_up_at: is_ordered.then(|| Instant::now() + ORDER_PATIENCE),
            in_one,
            flow,
            started,
            timings,
            state,
            phase: Phase::Confirming,
            builder,
            lanes,
            held: BTreeMap::new(),
            holdings: Holdings::default(),
            next,
            again: BTreeMap::new(),
            encoding: BTreeSet::new(),
            encoding_again: BTreeSet::new(),
            has_moved: false,
            hints: BTreeMap::new(),
            is_doubtful: false,
            is_refreshing: false,
            is_suspect: false,
            is_over: false,
            events: FuturesUnordered::new(),
        };
        if let Some(turn) = to_register {
            upload.register(turn);
        }
        if is_available {
            upload.exchange.committee().nodes().for_each(|node| upload.confirm(node));
        }
        upload
    }

    /// Has the ledger make the registration.
    fn register(&self, turn: Arc<Turn>) {
        let (client, deal) = (self.client.clone(), Arc::clone(&self.deal));
        let register = async move {
            let nonce = deal.registration.nonce;
            let submitted = client.submit_at(nonce, registering(&deal), (&deal.key, &turn), &[]).await;
            Event::Registered(match submitted {
                Ok(_) => Ok(()),
                // Nodes that held the order for it may have had it made.
                Err(_) if client.is_registered(&deal).await => Ok(()),
                Err(error) => Err(StoreError::Submit(error)),
            })
        };
        self.events.push(register.boxed());
    }

    /// The order that members confirm on; empty if there is none.
    pub(super) fn order(&self) -> Bytes {
        match &self.making {
            Making::Ordered { order, .. } => order.clone(),
            Making::Made | Making::Submitted => Bytes::new(),
        }
    }

    pub(super) const fn is_ordered(&self) -> bool {
        matches!(self.making, Making::Ordered { .. })
    }

    /// Members do not confirm on the order: the registration is made first.
    pub(super) fn give_order_up(&mut self) {
        self.give_order_up_at = None;
        if let Making::Ordered { turn, .. } = &self.making {
            let turn = Arc::clone(turn);
            tracing::debug!("members do not confirm on the order; registering first");
            self.making = Making::Submitted;
            self.register(turn);
        }
    }

    /// Runs to the end of the tail after the point of availability.
    ///
    /// Cancel safe: yes; the blob may have been stored.
    pub(super) async fn run(mut self) -> Result<Stored, StoreError> {
        self.report_uploaded(0);
        loop {
            self.keep_up();
            self.refresh();
            self.release();
            while self.has_next() && self.has_room() {
                self.encode_next();
            }
            self.encode_again();
            if self.state.is_hopeless() && matches!(self.phase, Phase::Confirming) && !self.may_move() {
                return Err(self.into_failure().await);
            }
            if let Some(stored) = self.stored() {
                return Ok(stored);
            }
            if self.give_order_up_at.is_some_and(|at| at <= Instant::now()) {
                self.give_order_up_at = None;
                if matches!(self.phase, Phase::Confirming) {
                    self.give_order_up();
                }
            }
            let wake = self.wake_at();
            tokio::select! {
                biased;
                Some(event) = self.events.next() => self.on(event)?,
                Ok(()) = self.committees.changed(), if !self.events.is_empty() => {}
                () = tokio::time::sleep_until(wake.unwrap_or(self.started)), if wake.is_some() => {}
                else => return Err(StoreError::Stopped),
            }
        }
    }

    fn on(&mut self, event: Event<N>) -> Result<(), StoreError> {
        match event {
            Event::Encoded(index, outgoing) => {
                self.encoding.remove(&index);
                self.offer(outgoing?);
            }
            Event::EncodedAgain(index, outgoing) => self.offer_again(index, outgoing)?,
            Event::Sent(_, _, None) => {}
            Event::Sent(lane, segment, Some(Ok(()))) => {
                self.holdings.add(lane.committee(), lane.node(), segment);
                let is_complete = self.is_current(&lane) && self.holds(lane.node(), segment);
                if is_complete && matches!(self.phase, Phase::Confirming) {
                    self.confirm(lane.node());
                }
            }
            Event::Signed(lane, Ok(signature)) => {
                let node = lane.node();
                self.holdings.add_all(lane.committee(), node, self.segments.shape().n_segments());
                if self.is_current(&lane) {
                    if self.in_one {
                        self.holds(node, SegmentIndex(0));
                    }
                    self.signed(node, &signature);
                }
            }
            // It was asked as a member of a committee whose word is no longer wanted.
            Event::Sent(lane, ..) | Event::Signed(lane, _) if !self.is_current(&lane) => {}
            Event::Signed(lane, Err(AskError::Lost(_))) if self.state.lost(lane.node()) => {
                self.resend(lane.node());
            }
            Event::Sent(lane, _, Some(Err(error))) | Event::Signed(lane, Err(error)) => {
                self.failed(lane.node(), &error)?;
            }
            Event::Refreshed => self.is_refreshing = false,
            Event::Registered(Ok(())) => self.timings.registered = Some(self.started.elapsed()),
            Event::Registered(Err(error)) if matches!(self.phase, Phase::Confirming) => return Err(error),
            // Nodes had it made, or certifying says more.
            Event::Registered(Err(_)) => {}
            Event::Certified(Ok(())) => self.certified(),
            Event::Certified(Err(CertifyError::EpochOver)) => self.begin_anew()?,
            Event::Certified(Err(CertifyError::Store(error))) => return Err(error),
        }
        Ok(())
    }

    /// True if a lane leads to a member of the committee that is to confirm.
    fn is_current(&self, lane: &Arc<Lane<N>>) -> bool {
        self.lanes.get(lane.node().as_usize()).is_some_and(|current| Arc::ptr_eq(current, lane))
    }

    fn n_encoding(&self) -> usize {
        self.encoding.len() + self.encoding_again.len()
    }

    pub(super) fn has_next(&self) -> bool {
        self.next.0 < self.segments.shape().n_segments()
    }

    pub(super) fn has_room(&self) -> bool {
        self.state.in_hand() + self.n_encoding() < self.client.config.segments_in_flight.max(1)
    }

    /// True if a segment waits for one in hand to be let go. What a member lost is no reason to leave others behind that
    /// are still served after the point of availability.
    fn wants_memory(&self) -> bool {
        let is_certified = matches!(self.phase, Phase::Certified { .. });
        let waits = self.has_next() || (!self.again.is_empty() && !is_certified);
        waits && self.n_encoding() == 0 && !self.has_room()
    }

    fn release(&mut self) {
        // Members that were asked first may be about to say that they lack some of what is in hand.
        let is_kept = self.has_moved && self.state.is_asking() && matches!(self.phase, Phase::Confirming);
        if is_kept && !self.wants_memory() {
            return;
        }
        let release = self.state.release(self.started.elapsed(), self.wants_memory());
        for node in release.behind {
            tracing::info!(member = self.exchange.name(node), "left behind");
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
        self.encoding.insert(index);
        // Either all segments were kept, or none.
        if let Some(segment) = self.identified.kept.pop_front() {
            let outgoing = outgoing(index, segment, &self.identified.roots);
            self.events.push(async move { Event::Encoded(index, outgoing) }.boxed());
            return;
        }
        let encoded = self.encode(index);
        self.events.push(encoded.map(move |outgoing| Event::Encoded(index, outgoing)).boxed());
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
        let (index, outgoing) = (outgoing.index, Arc::new(outgoing));
        self.held.insert(index, Arc::clone(&outgoing.segment));
        self.state.offer(index, self.started.elapsed());
        for node in self.state.sending() {
            self.send(node, &outgoing);
        }
    }

    /// Sends a member what it is not known to hold of a segment.
    pub(super) fn send(&self, node: NodeIndex, outgoing: &Arc<Outgoing>) {
        let (lane, outgoing) = (Arc::clone(&self.lanes[node.as_usize()]), Arc::clone(outgoing));
        let index = outgoing.index;
        let lacking = self.lacking(node, index);
        if self.in_one && lacking.len() == lane.n_slivers(&outgoing) {
            let (order, registration) = (self.order(), self.deal.registration);
            let send = async move {
                let signed = lane.send_all(&outgoing, registration, order).await;
                Event::Signed(lane, signed)
            };
            self.events.push(send.boxed());
            return;
        }
        let send = async move {
            let sent = lane.send(outgoing, lacking).await;
            Event::Sent(lane, index, sent)
        };
        self.events.push(send.boxed());
    }

    /// A member holds a segment; true if it holds all of them now.
    fn holds(&mut self, node: NodeIndex, segment: SegmentIndex) -> bool {
        let before = self.state.uploaded();
        let is_complete = self.state.holds(node, segment, self.started.elapsed());
        self.report_uploaded(before);
        is_complete
    }

    /// Asks a member to vouch for what it holds.
    pub(super) fn confirm(&self, node: NodeIndex) {
        let (lane, registration) = (Arc::clone(&self.lanes[node.as_usize()]), self.deal.registration);
        let confirm = async move {
            let signed = lane.confirm(registration).await;
            Event::Signed(lane, signed)
        };
        self.events.push(confirm.boxed());
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
        tracing::info!(member = self.exchange.name(node), %error, "cannot take the blob");
        self.is_suspect |= matches!(error, AskError::Refused(Refusal::Invalid));
        self.is_over |= matches!(error, AskError::Refused(Refusal::NotRegistered));
        self.note_hint(node, error);
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
        let (client, deal, is_suspect, is_over) =
            (self.client.clone(), Arc::clone(&self.deal), self.is_suspect, self.is_over);
        // Memory is let go before anyone is asked.
        drop(self);
        if is_suspect {
            let status = client.status(deal.header.blob_id()).await;
            if status.is_ok_and(|report| matches!(report.status, BlobStatus::Invalid { .. })) {
                return StoreError::Invalid;
            }
        }
        if is_over && client.is_over(&deal).await {
            return StoreError::Superseded;
        }
        failure
    }

    fn wake_at(&self) -> Option<Instant> {
        let due = match self.phase {
            Phase::Certified { deadline, .. } => self.tail_end(deadline),
            _ if self.wants_memory() => self.state.next_due().map(|due| self.started + due),
            _ => None,
        };
        due.into_iter().chain(self.give_order_up_at).min()
    }
}

/// The ways to the members of a committee.
pub(super) fn lanes_of<N: Network>(
    exchange: &Exchange<N>,
    header: VerifiedHeader,
    flow: &Arc<Flow>,
) -> Vec<Arc<Lane<N>>> {
    let lane = |node| Arc::new(Lane::new(exchange.clone(), header, node, Arc::clone(flow)));
    exchange.committee().nodes().map(lane).collect()
}

/// What adds up the confirmations of a committee.
pub(super) fn builder_of<N: Network>(
    exchange: &Exchange<N>,
    deal: &Deal,
) -> CertificateBuilder<StorageConfirmation> {
    let committee = Arc::clone(exchange.committee());
    let statement = StorageConfirmation {
        epoch: committee.epoch(),
        blob_id: deal.header.blob_id(),
        registration: deal.registration,
    };
    CertificateBuilder::new(statement, exchange.network_id(), committee)
        .expect("the statement is of the committee's epoch")
}

/// What makes the registration of a deal.
fn registering(deal: &Deal) -> Action {
    Action::RegisterBlob { header: *deal.header.header(), persistence: deal.persistence, end_epoch: deal.end }
}

/// The transaction that makes it, signed.
fn order(deal: &Deal, network: &protocol::NetworkId) -> Vec<u8> {
    let RegistrationId { owner: sender, nonce } = deal.registration;
    Transaction { sender, nonce, action: registering(deal) }.sign(network, &deal.key).to_bytes()
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
