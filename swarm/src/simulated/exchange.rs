//! Requests and answers.

use protocol::PeerId;
use tokio::sync::oneshot;

use super::world::{Event, Pair, World, pair};
use crate::{
    frame::{Channel, Frame},
    inbound::{Answer, Inbound, Responder},
    limits::{Admission, Admitted},
    network::{Offence, PeerRole, RequestError},
};

/// A request whose caller waits.
pub(super) struct Request {
    pub(super) from: PeerId,
    to: PeerId,
    channel: Channel,
    state: RequestState,
    reply: oneshot::Sender<Result<Frame, RequestError>>,
}

enum RequestState {
    /// Waits for a connection.
    Waiting(Frame),
    /// Sent on a connection.
    Sent { session: u64 },
}

/// A request that a node works on.
pub(super) struct Serving {
    pub(super) server: PeerId,
    caller: PeerId,
    channel: Channel,
    session: u64,
}

impl World {
    pub(super) fn request(
        &mut self,
        (from, to): (PeerId, PeerId),
        channel: Channel,
        frame: Frame,
        reply: oneshot::Sender<Result<Frame, RequestError>>,
    ) -> Result<u64, RequestError> {
        let now = self.now();
        let node = self.nodes.get(&from).ok_or(RequestError::Stopped)?;
        let connected = self.sessions.contains_key(&pair(from, to));
        let unknown = !connected && node.book.addresses(to).is_empty();
        if from == to || unknown || node.book.is_refused(to, now) {
            return Err(RequestError::Unreachable);
        }
        let same = |other: &&Request| other.from == from && other.to == to && other.channel == channel;
        let waits = |other: &&Request| other.from == from && matches!(other.state, RequestState::Waiting(_));
        let outgoing = self.requests.values().filter(same).count();
        let waiting = self.requests.values().filter(waits).count();
        let limits = &node.limits;
        if outgoing >= limits.outgoing_max || (!connected && waiting >= limits.waiting_max) {
            return Err(RequestError::Busy);
        }
        let id = self.number();
        self.requests.insert(id, Request { from, to, channel, state: RequestState::Waiting(frame), reply });
        if connected {
            self.send(id);
        } else {
            self.dial(from, to);
        }
        Ok(id)
    }

    pub(super) fn abandon(&mut self, id: u64) {
        self.requests.remove(&id);
    }

    /// Sends a request that waits, on the connection there is.
    fn send(&mut self, id: u64) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let (from, to, channel) = (request.from, request.to, request.channel);
        let Some(session) = self.sessions.get(&pair(from, to)).copied() else { return };
        let RequestState::Waiting(frame) =
            std::mem::replace(&mut request.state, RequestState::Sent { session })
        else {
            return;
        };
        if let Some(at) = self.transmit(from, to, frame.bytes()) {
            self.schedule(at, Event::RequestArrives { id, session, from, to, channel, frame });
        }
    }

    fn waiting(&self, pair_: Pair) -> Vec<u64> {
        let waits = |request: &Request| {
            matches!(request.state, RequestState::Waiting(_)) && pair(request.from, request.to) == pair_
        };
        self.requests.iter().filter(|(_, request)| waits(request)).map(|(id, _)| *id).collect()
    }

    pub(super) fn send_waiting(&mut self, pair: Pair) {
        for id in self.waiting(pair) {
            self.send(id);
        }
    }

    pub(super) fn fail_waiting(&mut self, pair: Pair, error: RequestError) {
        for id in self.waiting(pair) {
            self.finish(id, Err(error));
        }
    }

    /// Ends the requests on a connection that is gone.
    pub(super) fn close_requests(&mut self, session: u64) {
        let on_session =
            |request: &Request| matches!(request.state, RequestState::Sent { session: on } if on == session);
        let ids: Vec<u64> =
            self.requests.iter().filter(|(_, request)| on_session(request)).map(|(id, _)| *id).collect();
        for id in ids {
            self.finish(id, Err(RequestError::Closed));
        }
    }

    fn finish(&mut self, id: u64, result: Result<Frame, RequestError>) {
        if let Some(request) = self.requests.remove(&id) {
            // A caller that went away is not an error.
            let _ = request.reply.send(result);
        }
    }

    pub(super) fn request_arrives(
        &mut self,
        (id, session): (u64, u64),
        (from, to): Pair,
        channel: Channel,
        frame: Frame,
    ) {
        if self.sessions.get(&pair(from, to)) != Some(&session) {
            return;
        }
        self.record("request", from, to, frame.bytes());
        let now = self.now();
        let Some(node) = self.nodes.get_mut(&to) else { return };
        let rates = node.limits.of(node.book.role(from));
        let admission = node.admissions.entry(from).or_insert_with(|| Admission::new(rates, now));
        let admitted = admission.admit(rates, frame.bytes(), now);
        let in_flight = node.in_flight.entry((from, channel)).or_default();
        let has_room = *in_flight < rates.in_flight_max;
        *in_flight += 1;
        self.serving.insert(id, Serving { server: to, caller: from, channel, session });
        if admitted == Admitted::Flooding {
            self.report(to, from, Offence::Flooding);
        }
        if admitted != Admitted::Yes || !has_room {
            return self.answer(id, Answer::Busy);
        }
        let handle = self.handle.clone();
        let reply = Responder::new(move |answer| {
            if let Some(shared) = handle.upgrade() {
                shared.with(|world| world.answer(id, answer));
            }
        });
        let Some(node) = self.nodes.get(&to) else { return };
        if let Err(inbound) = node.inbox.push(Inbound::Request { from, channel, frame, reply }) {
            // Dropping it answers too, but only the first answer counts.
            self.refused.push(inbound);
            self.answer(id, Answer::Busy);
        }
    }

    /// Sends the answer to a request, the first time it is called for it.
    pub(super) fn answer(&mut self, id: u64, answer: Answer) {
        let Some(serving) = self.serving.remove(&id) else { return };
        let Serving { server, caller, channel, session } = serving;
        let Some(node) = self.nodes.get_mut(&server) else { return };
        let limits = node.limits;
        if let Some(in_flight) = node.in_flight.get_mut(&(caller, channel)) {
            *in_flight -= 1;
            if *in_flight == 0 {
                node.in_flight.remove(&(caller, channel));
            }
        }
        if self.sessions.get(&pair(server, caller)) != Some(&session) {
            return;
        }
        let (share, bytes_max) = match node.book.role(caller) {
            PeerRole::Member => (0, limits.member_response_bytes),
            PeerRole::Bootstrap | PeerRole::Other => (1, limits.stranger_response_bytes),
        };
        let wanted = if let Answer::Frame(frame) = &answer { frame.bytes() } else { 0 };
        let fits = node.response_bytes[share] + wanted <= bytes_max;
        let (answer, bytes) = if fits { (answer, wanted) } else { (Answer::Busy, 0) };
        node.response_bytes[share] += bytes;
        if let Some(admission) = node.admissions.get_mut(&caller) {
            admission.charge(bytes);
        }
        let arrives = self.transmit(server, caller, bytes);
        // A lost answer leaves the buffers as well, only nobody hears of it.
        let at = arrives.unwrap_or_else(tokio::time::Instant::now);
        let answer = arrives.map(|_| answer);
        self.schedule(at, Event::AnswerArrives { id, session, from: server, to: caller, answer, bytes });
    }

    pub(super) fn answer_arrives(
        &mut self,
        (id, session): (u64, u64),
        (server, caller): Pair,
        answer: Option<Answer>,
        bytes: usize,
    ) {
        if let Some(node) = self.nodes.get_mut(&server) {
            let share = usize::from(node.book.role(caller) != PeerRole::Member);
            // Saturating, since the role may have changed and the node may be a later one.
            node.response_bytes[share] = node.response_bytes[share].saturating_sub(bytes);
        }
        let Some(answer) = answer else { return };
        if self.sessions.get(&pair(server, caller)) != Some(&session) {
            return;
        }
        self.record("answer", server, caller, bytes);
        let result = match answer {
            Answer::Frame(frame) => Ok(frame),
            Answer::Refused => Err(RequestError::Refused),
            Answer::Busy => Err(RequestError::Busy),
        };
        self.finish(id, result);
    }
}
