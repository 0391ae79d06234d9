//! Requests in both directions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::FutureExt as _;
use libp2p::request_response::{self, OutboundFailure, OutboundRequestId, ResponseChannel};
use protocol::PeerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    super::{
        codec::{self, Request, Response, Unread},
        keys,
    },
    EventLoop,
};
use crate::{
    frame::{Channel, Frame},
    inbound::{Answer, Inbound, Responder},
    limits::{Admission, Admitted, Limits},
    network::{Offence, PeerRole, RequestError},
    traffic::Dropped,
};

/// A request of this node.
pub(super) struct Outgoing {
    pub(super) to: PeerId,
    pub(super) reply: oneshot::Sender<Result<Frame, RequestError>>,
    /// Its stream failed before it was clear whether the peer belongs to this network.
    pub(super) undecided: bool,
}

/// A request of this node that waits for a connection.
pub(super) struct Waiting {
    pub(super) channel: Channel,
    pub(super) frame: Frame,
    pub(super) reply: oneshot::Sender<Result<Frame, RequestError>>,
    pub(super) abandoned: oneshot::Receiver<()>,
}

/// What a peer has used of its limits.
pub(super) struct Usage {
    pub(super) role: PeerRole,
    pub(super) admission: Admission,
    /// Requests that may still be taken up, by channel.
    pub(super) slots: BTreeMap<Channel, Arc<Semaphore>>,
}

impl Usage {
    fn new(role: PeerRole, limits: &Limits, now: Duration) -> Self {
        let rates = limits.of(role);
        let slots = Channel::ALL.map(|channel| (channel, Arc::new(Semaphore::new(rates.in_flight_max))));
        Self { role, admission: Admission::new(rates, now), slots: slots.into() }
    }
}

/// The node's answer to a request of a peer.
pub(super) struct Answered {
    pub(super) from: PeerId,
    pub(super) channel: Channel,
    pub(super) reply: ResponseChannel<Response>,
    pub(super) slot: OwnedSemaphorePermit,
    pub(super) answer: Answer,
}

impl EventLoop {
    pub(super) fn request(&mut self, to: PeerId, request: Waiting) {
        let peer = keys::to_libp2p(to);
        let connected = self.swarm.is_connected(&peer);
        let now = self.shared.now();
        let (unknown, refused) =
            self.shared.with_book(|book| (book.addresses(to).is_empty(), book.is_refused(to, now)));
        let error = if peer == *self.swarm.local_peer_id() || refused || (unknown && !connected) {
            Some(RequestError::Unreachable)
        } else if self.foreign.contains(&to) {
            Some(RequestError::Unsupported)
        } else if !connected && self.n_waiting >= self.limits.waiting_max {
            Some(RequestError::Busy)
        } else {
            None
        };
        if let Some(error) = error {
            // A caller that went away is not an error.
            let _ = request.reply.send(Err(error));
        } else if connected {
            self.send(to, request);
        } else {
            self.n_waiting += 1;
            self.waiting.entry(to).or_default().push(request);
            self.dials.want(to, now);
        }
    }

    pub(super) fn send(&mut self, to: PeerId, request: Waiting) {
        let Waiting { channel, frame, reply, abandoned } = request;
        if reply.is_closed() {
            return;
        }
        let n_outgoing = self.n_outgoing.entry((to, channel)).or_default();
        if *n_outgoing >= self.limits.outgoing_max {
            // A caller that went away is not an error.
            let _ = reply.send(Err(RequestError::Busy));
            return;
        }
        *n_outgoing += 1;
        let request = Request { frame: Ok(frame), abandoned: Some(abandoned), held: None };
        let exchange = self.swarm.behaviour_mut().exchange(channel);
        let id = exchange.send_request(&keys::to_libp2p(to), request);
        self.outgoing.insert((channel, id), Outgoing { to, reply, undecided: false });
    }

    /// Takes the requests that wait for a connection with this peer.
    pub(super) fn take_waiting(&mut self, peer: PeerId) -> Vec<Waiting> {
        let waiting = self.waiting.remove(&peer).unwrap_or_default();
        self.n_waiting -= waiting.len();
        waiting
    }

    pub(super) fn fail_waiting(&mut self, peer: PeerId, error: RequestError) {
        for request in self.take_waiting(peer) {
            // A caller that went away is not an error.
            let _ = request.reply.send(Err(error));
        }
    }

    /// Ends a request of this node.
    pub(super) fn finish(
        &mut self,
        channel: Channel,
        id: OutboundRequestId,
        result: Result<Frame, RequestError>,
    ) {
        let Some(Outgoing { to, reply, .. }) = self.outgoing.remove(&(channel, id)) else { return };
        if let Some(n_outgoing) = self.n_outgoing.get_mut(&(to, channel)) {
            *n_outgoing -= 1;
            if *n_outgoing == 0 {
                self.n_outgoing.remove(&(to, channel));
            }
        }
        // A caller that went away is not an error.
        let _ = reply.send(result);
    }

    /// The requests of this node to a peer.
    pub(super) fn outgoing_to(
        &self,
        peer: PeerId,
    ) -> impl Iterator<Item = ((Channel, OutboundRequestId), &Outgoing)> {
        self.outgoing
            .iter()
            .filter(move |(_, outgoing)| outgoing.to == peer)
            .map(|(id, outgoing)| (*id, outgoing))
    }

    pub(super) fn finish_all(&mut self, ids: Vec<(Channel, OutboundRequestId)>, error: RequestError) {
        for (channel, id) in ids {
            self.finish(channel, id, Err(error));
        }
    }

    /// Ends the requests whose streams failed before it was clear whether the peer belongs to this network.
    pub(super) fn finish_undecided(&mut self, peer: PeerId) {
        let ids =
            self.outgoing_to(peer).filter(|(_, outgoing)| outgoing.undecided).map(|(id, _)| id).collect();
        self.finish_all(ids, RequestError::Closed);
    }

    pub(super) fn exchange(&mut self, channel: Channel, event: request_response::Event<Request, Response>) {
        use request_response::{Event, Message};
        match event {
            Event::Message { peer, message: Message::Request { request, channel: reply, .. }, .. } => {
                if let Some(from) = keys::from_libp2p(&peer) {
                    self.requested(from, channel, request, reply);
                }
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                let result = match response.answer {
                    Answer::Frame(frame) => Ok(frame),
                    Answer::Refused => Err(RequestError::Refused),
                    Answer::Busy => Err(RequestError::Busy),
                };
                self.finish(channel, request_id, result);
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                if let Some(peer) = keys::from_libp2p(&peer).filter(|_| is_malformed(&error)) {
                    self.shared.report(peer, Offence::Malformed);
                }
                self.outgoing_failed(channel, request_id, &error);
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "request of a peer failed");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    pub(super) fn outgoing_failed(
        &mut self,
        channel: Channel,
        id: OutboundRequestId,
        failure: &OutboundFailure,
    ) {
        let error = outbound_error(failure);
        let Some(outgoing) = self.outgoing.get_mut(&(channel, id)) else { return };
        // A peer of another network resets the stream, often before its refusal of the protocol is read. Its
        // identification is under way and tells the two apart.
        let unclear = error == RequestError::Closed && !matches!(failure, OutboundFailure::ConnectionClosed);
        if unclear && !self.known.contains(&outgoing.to) {
            outgoing.undecided = true;
        } else {
            self.finish(channel, id, Err(error));
        }
    }

    /// Takes up a request of a peer, or refuses it.
    pub(super) fn requested(
        &mut self,
        from: PeerId,
        channel: Channel,
        request: Request,
        reply: ResponseChannel<Response>,
    ) {
        self.belongs(from);
        let Request { frame, held, .. } = request;
        if frame == Err(Unread::Malformed) {
            self.shared.traffic.dropped.count(Dropped::Malformed);
            // Dropping the channel closes the stream.
            return self.shared.report(from, Offence::Malformed);
        }
        let now = self.shared.now();
        let role = self.shared.with_book(|book| book.role(from));
        let usage = self.usage.entry(from).or_insert_with(|| Usage::new(role, &self.limits, now));
        if usage.role != role {
            *usage = Usage::new(role, &self.limits, now);
        }
        let bytes = frame.as_ref().map_or(0, Frame::bytes);
        let admitted = usage.admission.admit(self.limits.of(role), bytes, now);
        let slot = usage.slots.get(&channel).map(|slots| Arc::clone(slots).try_acquire_owned());
        if admitted == Admitted::Flooding {
            self.shared.report(from, Offence::Flooding);
        }
        let limit = match (admitted, &frame) {
            (Admitted::No | Admitted::Flooding, _) => Dropped::Rate,
            (Admitted::Yes, Err(_)) => Dropped::RequestBytes,
            (Admitted::Yes, Ok(_)) => Dropped::InFlight,
        };
        let (Admitted::Yes, Some(Ok(slot)), Ok(frame)) = (admitted, slot, frame) else {
            self.shared.traffic.dropped.count(limit);
            let response = Response { answer: Answer::Busy, held: Vec::new() };
            // A peer that went away is not an error.
            let _ = self.swarm.behaviour_mut().exchange(channel).send_response(reply, response);
            return;
        };
        let (answer, answered) = oneshot::channel();
        let responder = Responder::new(move |outcome| {
            // The event loop may have stopped.
            let _ = answer.send(outcome);
        });
        let inbound = Inbound::Request { from, channel, frame, reply: responder };
        if let Err(Inbound::Request { reply, .. }) = self.ends.inbox.push(inbound) {
            reply.busy();
        }
        drop(held);
        self.answers.push(
            async move {
                let answer = answered.await.unwrap_or(Answer::Refused);
                Answered { from, channel, reply, slot, answer }
            }
            .boxed(),
        );
    }

    /// Sends the node's answer, if the budget for answers allows.
    pub(super) fn answer(&mut self, answered: Answered) {
        let Answered { from, channel, reply, slot, answer } = answered;
        let mut response = Response { answer, held: vec![slot] };
        if let Answer::Frame(frame) = &response.answer {
            let bytes = frame.bytes();
            let member = self.shared.with_book(|book| book.role(from)) == PeerRole::Member;
            let budget = self.response_bytes.get(&member).map(Arc::clone);
            let share = u32::try_from(bytes).ok().zip(budget);
            match share.and_then(|(bytes, budget)| budget.try_acquire_many_owned(bytes).ok()) {
                Some(share) => {
                    response.held.push(share);
                    if let Some(usage) = self.usage.get_mut(&from) {
                        usage.admission.charge(bytes);
                    }
                }
                None => {
                    self.shared.traffic.dropped.count(Dropped::AnswerBytes);
                    response.answer = Answer::Busy;
                }
            }
        }
        // A peer that went away is not an error.
        let _ = self.swarm.behaviour_mut().exchange(channel).send_response(reply, response);
    }
}

/// Whether an answer broke the form or the limits of a frame.
fn is_malformed(error: &OutboundFailure) -> bool {
    matches!(error, OutboundFailure::Io(error) if error.kind() == std::io::ErrorKind::InvalidData)
}

fn outbound_error(error: &OutboundFailure) -> RequestError {
    match error {
        OutboundFailure::DialFailure => RequestError::Unreachable,
        OutboundFailure::Timeout => RequestError::Timeout,
        OutboundFailure::ConnectionClosed => RequestError::Closed,
        OutboundFailure::UnsupportedProtocols => RequestError::Unsupported,
        OutboundFailure::Io(error) if codec::is_unsupported(error) => RequestError::Unsupported,
        OutboundFailure::Io(_) => RequestError::Closed,
    }
}
