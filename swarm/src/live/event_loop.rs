//! The actor that owns the swarm.
//!
//! # Invariants
//!
//! - Local work comes before remote work: stopping, then answers and verdicts of the node, then what callers ask, then
//!   what peers do.
//! - Everything it holds for a peer is bounded: requests in flight in both directions, requests that wait for a connection,
//!   messages to be judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, Swarm, gossipsub, identify, kad, ping,
    request_response::{self, OutboundFailure, OutboundRequestId, ResponseChannel},
    swarm::{ConnectionId, SwarmEvent, dial_opts::DialOpts},
};
use protocol::PeerId;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use super::{
    LiveConfig, address,
    behaviour::{Behaviour, BehaviourEvent, Names},
    codec::{self, Request, Response},
    dials::Dials,
    keys, limits,
    mailbox::{Command, Shared},
    score,
};
use crate::{
    address::{Address, Transport},
    frame::{Channel, Frame, Topic},
    inbound::{Answer, Inbound, InboundSender, Judgement, Responder, Verdict},
    limits::{Admission, Limits},
    network::{Offence, PeerRole, PublishError, RequestError},
};

/// A request of this node.
struct Outgoing {
    to: PeerId,
    reply: oneshot::Sender<Result<Frame, RequestError>>,
}

/// A request of this node that waits for a connection.
struct Waiting {
    channel: Channel,
    frame: Frame,
    reply: oneshot::Sender<Result<Frame, RequestError>>,
    abandoned: oneshot::Receiver<()>,
}

/// What a peer has used of its limits.
struct Usage {
    role: PeerRole,
    admission: Admission,
    /// Requests that may still be taken up, by channel.
    slots: BTreeMap<Channel, Arc<Semaphore>>,
}

impl Usage {
    fn new(role: PeerRole, limits: &Limits, now: Duration) -> Self {
        let rates = limits.of(role);
        let slots = Channel::ALL.map(|channel| (channel, Arc::new(Semaphore::new(rates.in_flight_max))));
        Self { role, admission: Admission::new(rates, now), slots: slots.into() }
    }
}

/// The node's answer to a request of a peer.
struct Answered {
    from: PeerId,
    channel: Channel,
    reply: ResponseChannel<Response>,
    slot: OwnedSemaphorePermit,
    answer: Answer,
}

/// The node's judgement of a message.
struct Judged {
    message: gossipsub::MessageId,
    propagated_by: libp2p::PeerId,
    judgement: Judgement,
}

/// Addresses to dial.
struct Resolved {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
}

/// The ends of the channels that the event loop holds.
pub(super) struct Ends {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) inbox: InboundSender,
    pub(super) view: watch::Sender<Arc<BTreeSet<PeerId>>>,
}

/// Runs a network over libp2p; see [`Self::run`].
pub struct EventLoop {
    limits: Limits,
    names: Names,
    topics: BTreeMap<gossipsub::TopicHash, Topic>,
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    ends: Ends,
    outgoing: BTreeMap<(Channel, OutboundRequestId), Outgoing>,
    /// Number of requests in `outgoing` by peer and channel.
    n_outgoing: BTreeMap<(PeerId, Channel), usize>,
    waiting: BTreeMap<PeerId, Vec<Waiting>>,
    n_waiting: usize,
    usage: BTreeMap<PeerId, Usage>,
    response_bytes: BTreeMap<bool, Arc<Semaphore>>,
    answers: FuturesUnordered<BoxFuture<'static, Answered>>,
    verdicts: FuturesUnordered<BoxFuture<'static, Judged>>,
    resolving: FuturesUnordered<BoxFuture<'static, Resolved>>,
    dials: Dials,
    /// Spreads dials in time. Seeded by the identity, so that no two nodes have the same.
    jitter: ChaCha8Rng,
    /// Peers that showed that they belong to this network.
    known: BTreeSet<PeerId>,
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop")
            .field("connected", &self.known.len())
            .field("outgoing", &self.outgoing.len())
            .field("waiting", &self.n_waiting)
            .field("dials", &self.dials)
            .finish_non_exhaustive()
    }
}

impl EventLoop {
    pub(super) fn new(config: &LiveConfig, swarm: Swarm<Behaviour>, shared: Arc<Shared>, ends: Ends) -> Self {
        let names = Names::new(config.network);
        let budget = |bytes: usize| Arc::new(Semaphore::new(bytes));
        Self {
            limits: config.limits,
            topics: Topic::ALL.map(|topic| (names.topic(topic).hash(), topic)).into(),
            names,
            swarm,
            shared,
            ends,
            outgoing: BTreeMap::new(),
            n_outgoing: BTreeMap::new(),
            waiting: BTreeMap::new(),
            n_waiting: 0,
            usage: BTreeMap::new(),
            response_bytes: BTreeMap::from([
                (true, budget(config.limits.member_response_bytes)),
                (false, budget(config.limits.stranger_response_bytes)),
            ]),
            answers: FuturesUnordered::new(),
            verdicts: FuturesUnordered::new(),
            resolving: FuturesUnordered::new(),
            dials: Dials::default(),
            jitter: ChaCha8Rng::from_seed(config.secret.peer().0),
            known: BTreeSet::new(),
        }
    }

    /// Runs until `stop` is cancelled or every handle is dropped. Ending closes all connections, answers every caller
    /// with [`RequestError::Stopped`], and ends the receiver once it is read empty.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let due = self.dials.next_due().map(|due| self.shared.instant(due));
            let due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(answered) = self.answers.next() => self.answer(answered),
                Some(judged) = self.verdicts.next() => self.judge(&judged),
                peers = self.shared.changed() => self.peers_changed(peers),
                command = self.ends.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                Some(resolved) = self.resolving.next() => self.dial(resolved),
                () = due => self.start_dials(),
                event = self.swarm.select_next_some() => self.event(event),
            }
        }
        tracing::debug!(abandoned = self.outgoing.len(), "network stopped");
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Request { to, channel, frame, reply, abandoned } => {
                self.request(to, Waiting { channel, frame, reply, abandoned });
            }
            Command::Publish { topic, data, reply } => {
                // A caller that went away is not an error.
                let _ = reply.send(self.publish(topic, data));
            }
        }
    }

    fn publish(&mut self, topic: Topic, data: Bytes) -> Result<(), PublishError> {
        let topic = self.names.topic(topic);
        match self.swarm.behaviour_mut().gossip.publish(topic, data) {
            Ok(_) | Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => Ok(()),
            Err(gossipsub::PublishError::AllQueuesFull(_)) => Err(PublishError::Busy),
            Err(error) => {
                // Sizes were checked, keys can sign, and every message has a number of its own.
                tracing::error!(%error, "gossip refused a message");
                Err(PublishError::Busy)
            }
        }
    }

    fn request(&mut self, to: PeerId, request: Waiting) {
        let peer = keys::to_libp2p(to);
        let connected = self.swarm.is_connected(&peer);
        let now = self.shared.now();
        let (unknown, refused) =
            self.shared.with_book(|book| (book.addresses(to).is_empty(), book.is_refused(to, now)));
        let error = if peer == *self.swarm.local_peer_id() || refused || (unknown && !connected) {
            Some(RequestError::Unreachable)
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

    fn send(&mut self, to: PeerId, request: Waiting) {
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
        let request = Request { frame: Some(frame), abandoned: Some(abandoned), held: None };
        let exchange = self.swarm.behaviour_mut().exchange(channel);
        let id = exchange.send_request(&keys::to_libp2p(to), request);
        self.outgoing.insert((channel, id), Outgoing { to, reply });
    }

    /// Takes the requests that wait for a connection with this peer.
    fn take_waiting(&mut self, peer: PeerId) -> Vec<Waiting> {
        let waiting = self.waiting.remove(&peer).unwrap_or_default();
        self.n_waiting -= waiting.len();
        waiting
    }

    fn fail_waiting(&mut self, peer: PeerId, error: RequestError) {
        for request in self.take_waiting(peer) {
            // A caller that went away is not an error.
            let _ = request.reply.send(Err(error));
        }
    }

    /// Ends a request of this node.
    fn finish(&mut self, channel: Channel, id: OutboundRequestId, result: Result<Frame, RequestError>) {
        let Some(Outgoing { to, reply }) = self.outgoing.remove(&(channel, id)) else { return };
        if let Some(n_outgoing) = self.n_outgoing.get_mut(&(to, channel)) {
            *n_outgoing -= 1;
            if *n_outgoing == 0 {
                self.n_outgoing.remove(&(to, channel));
            }
        }
        // A caller that went away is not an error.
        let _ = reply.send(result);
    }

    /// Looks again at peers whose entry in the table changed.
    fn peers_changed(&mut self, peers: BTreeSet<PeerId>) {
        let now = self.shared.now();
        for peer in peers {
            let (kept, role, refused_until) = self
                .shared
                .with_book(|book| (book.is_kept(peer), book.role(peer), book.refused_until(peer, now)));
            self.dials.keep(peer, kept, refused_until.unwrap_or(now));
            self.set_gossip_score(peer, role);
            if refused_until.is_some() {
                self.fail_waiting(peer, RequestError::Unreachable);
                // Not connected is fine.
                let _ = self.swarm.disconnect_peer_id(keys::to_libp2p(peer));
            }
        }
    }

    fn set_gossip_score(&mut self, peer: PeerId, role: PeerRole) {
        let points = if role == PeerRole::Member { score::MEMBER_SCORE } else { 0.0 };
        self.swarm.behaviour_mut().gossip.set_application_score(&keys::to_libp2p(peer), points);
    }

    fn start_dials(&mut self) {
        while let Some((peer, failures)) = self.dials.start(self.shared.now()) {
            let addresses = self.shared.with_book(|book| book.addresses(peer).to_vec());
            let addresses = preferred(addresses, failures);
            self.resolving
                .push(async move { Resolved { peer, addresses: address::resolve(addresses).await } }.boxed());
        }
    }

    fn dial(&mut self, resolved: Resolved) {
        let Resolved { peer, addresses } = resolved;
        if !self.dials.is_dialing(peer) {
            return; // it connected to us meanwhile
        }
        let options = DialOpts::peer_id(keys::to_libp2p(peer)).addresses(addresses).build();
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(%peer, %error, "dial not started");
            self.dial_failed(peer);
        }
    }

    fn dial_failed(&mut self, peer: PeerId) {
        if self.dials.is_dialing(peer) {
            self.dials.failed(peer, self.shared.now(), self.jitter.random());
            self.fail_waiting(peer, RequestError::Unreachable);
        }
    }

    fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Control(event)) => self.exchange(Channel::Control, event),
            SwarmEvent::Behaviour(BehaviourEvent::Bulk(event)) => self.exchange(Channel::Bulk, event),
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            })) => self.gossip(propagation_source, message_id, message),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => self.identified(&peer_id, info),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, connection, result })) => {
                self.pinged(&peer, connection, result);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kademlia(kad::Event::RoutingUpdated {
                peer,
                addresses,
                ..
            })) => self.found(&peer, &addresses.into_vec()),
            SwarmEvent::ConnectionEstablished { peer_id, .. } => self.connected(&peer_id),
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "last connection closed");
                self.disconnected(&peer_id);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(%peer, %error, "dial failed");
                if let Some(peer) = keys::from_libp2p(&peer) {
                    self.dial_failed(peer);
                }
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "incoming connection failed");
            }
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                tracing::error!(?addresses, %error, "listener closed; peers cannot reach this node there");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener failed once"),
            _ => {}
        }
    }

    fn connected(&mut self, peer: &libp2p::PeerId) {
        let Some(peer) = keys::from_libp2p(peer) else { return };
        self.dials.connected(peer);
        let role = self.shared.with_book(|book| book.role(peer));
        self.set_gossip_score(peer, role);
        for request in self.take_waiting(peer) {
            self.send(peer, request);
        }
    }

    fn disconnected(&mut self, peer: &libp2p::PeerId) {
        let Some(peer) = keys::from_libp2p(peer) else { return };
        let now = self.shared.now();
        self.dials.disconnected(peer, now, self.jitter.random());
        if let Some(until) = self.shared.with_book(|book| book.refused_until(peer, now)) {
            let kept = self.shared.with_book(|book| book.is_kept(peer));
            self.dials.keep(peer, false, now);
            self.dials.keep(peer, kept, until);
        }
        if self.known.remove(&peer) {
            self.ends.view.send_modify(|peers| {
                Arc::make_mut(peers).remove(&peer);
            });
            // Notices are never refused.
            let _ = self.ends.inbox.push(Inbound::Disconnected(peer));
        }
        if self.usage.len() > limits::RATES_REMEMBERED {
            let known = &self.known;
            self.usage.retain(|peer, _| known.contains(peer));
        }
    }

    /// A peer showed that it belongs to this network.
    fn belongs(&mut self, peer: PeerId) {
        if self.swarm.is_connected(&keys::to_libp2p(peer)) && self.known.insert(peer) {
            self.ends.view.send_modify(|peers| {
                Arc::make_mut(peers).insert(peer);
            });
            // Notices are never refused.
            let _ = self.ends.inbox.push(Inbound::Connected(peer));
        }
    }

    fn identified(&mut self, from: &libp2p::PeerId, info: identify::Info) {
        let Some(peer) = keys::from_libp2p(from) else { return };
        if info.protocol_version == self.names.identify() {
            self.belongs(peer);
            if let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() {
                for address in info.listen_addrs.into_iter().take(limits::FOUND_ADDRESSES_MAX) {
                    kademlia.add_address(from, address);
                }
            }
        } else {
            tracing::debug!(%peer, version = ?info.protocol_version, "peer of another network");
            // Requests under way on this connection end by themselves, as unsupported or closed.
            self.foreign(peer);
        }
    }

    /// Ends the connections with a peer that does not belong to this network.
    fn foreign(&mut self, peer: PeerId) {
        let ids: Vec<_> =
            self.outgoing.iter().filter(|(_, outgoing)| outgoing.to == peer).map(|(id, _)| *id).collect();
        for (channel, id) in ids {
            self.finish(channel, id, Err(RequestError::Unsupported));
        }
        // Not connected any more is fine.
        let _ = self.swarm.disconnect_peer_id(keys::to_libp2p(peer));
    }

    fn pinged(&mut self, peer: &libp2p::PeerId, id: ConnectionId, result: Result<Duration, ping::Failure>) {
        if let Err(ping::Failure::Timeout) = result {
            tracing::debug!(%peer, "ping not answered");
            self.swarm.close_connection(id);
        }
    }

    /// The hash table found a stranger.
    fn found(&self, peer: &libp2p::PeerId, addresses: &[Multiaddr]) {
        let Some(peer) = keys::from_libp2p(peer) else { return };
        let addresses: Vec<Address> =
            addresses.iter().filter_map(address::from_libp2p).take(limits::FOUND_ADDRESSES_MAX).collect();
        self.shared.with_book(|book| {
            // What a stranger says never touches what the ledger says.
            if book.role(peer) == PeerRole::Other {
                book.add(peer, addresses, PeerRole::Other);
            }
        });
    }

    fn exchange(&mut self, channel: Channel, event: request_response::Event<Request, Response>) {
        use request_response::{Event, InboundFailure, Message};
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
                self.report_if_malformed(&peer, outbound_io(&error));
                self.finish(channel, request_id, Err(outbound_error(&error)));
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "request of a peer failed");
                let io = if let InboundFailure::Io(io) = &error { Some(io) } else { None };
                self.report_if_malformed(&peer, io);
            }
            Event::ResponseSent { .. } => {}
        }
    }

    fn report_if_malformed(&self, peer: &libp2p::PeerId, error: Option<&std::io::Error>) {
        let malformed = error.is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData);
        if let Some(peer) = keys::from_libp2p(peer).filter(|_| malformed) {
            self.shared.report(peer, Offence::Malformed);
        }
    }

    /// Takes up a request of a peer, or refuses it.
    fn requested(
        &mut self,
        from: PeerId,
        channel: Channel,
        mut request: Request,
        reply: ResponseChannel<Response>,
    ) {
        self.belongs(from);
        let now = self.shared.now();
        let role = self.shared.with_book(|book| book.role(from));
        let usage = self.usage.entry(from).or_insert_with(|| Usage::new(role, &self.limits, now));
        if usage.role != role {
            *usage = Usage::new(role, &self.limits, now);
        }
        let bytes = request.frame.as_ref().map_or(0, Frame::bytes);
        let admitted = usage.admission.admit(self.limits.of(role), bytes, now);
        let slot = usage.slots.get(&channel).map(|slots| Arc::clone(slots).try_acquire_owned());
        if !admitted {
            self.shared.report(from, Offence::Flooding);
        }
        let (true, Some(Ok(slot)), Some(frame)) = (admitted, slot, request.frame.take()) else {
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
        drop(request.held);
        self.answers.push(
            async move {
                let answer = answered.await.unwrap_or(Answer::Refused);
                Answered { from, channel, reply, slot, answer }
            }
            .boxed(),
        );
    }

    /// Sends the node's answer, if the budget for answers allows.
    fn answer(&mut self, answered: Answered) {
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
                None => response.answer = Answer::Busy,
            }
        }
        // A peer that went away is not an error.
        let _ = self.swarm.behaviour_mut().exchange(channel).send_response(reply, response);
    }

    /// Hands a message on a topic to the node.
    fn gossip(
        &mut self,
        propagated_by: libp2p::PeerId,
        message: gossipsub::MessageId,
        content: gossipsub::Message,
    ) {
        let author = content.source.as_ref().and_then(keys::from_libp2p);
        let (Some(from), Some(neighbour), Some(topic)) =
            (author, keys::from_libp2p(&propagated_by), self.topics.get(&content.topic).copied())
        else {
            return self.judge(&Judged { message, propagated_by, judgement: Judgement::Reject });
        };
        if self.verdicts.len() >= self.limits.verdicts_max {
            return self.judge(&Judged { message, propagated_by, judgement: Judgement::Ignore });
        }
        let (verdict, judged) = oneshot::channel();
        let verdict = Verdict::new(move |judgement| {
            // The event loop may have stopped.
            let _ = verdict.send(judgement);
        });
        let data = Bytes::from(content.data);
        let inbound = Inbound::Gossip { from, propagated_by: neighbour, topic, data, verdict };
        // Dropping what the queue does not take ignores it.
        drop(self.ends.inbox.push(inbound));
        self.verdicts.push(
            async move {
                let judgement = judged.await.unwrap_or(Judgement::Ignore);
                Judged { message, propagated_by, judgement }
            }
            .boxed(),
        );
    }

    fn judge(&mut self, judged: &Judged) {
        let acceptance = match judged.judgement {
            Judgement::Accept => gossipsub::MessageAcceptance::Accept,
            Judgement::Ignore => gossipsub::MessageAcceptance::Ignore,
            Judgement::Reject => gossipsub::MessageAcceptance::Reject,
        };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        // A message judged too late is not in the cache any more, and travels no further.
        gossip.report_message_validation_result(&judged.message, &judged.propagated_by, acceptance);
    }
}

/// TCP addresses alone on every other attempt: QUIC takes three times the CPU (measured), but may be all that works.
fn preferred(addresses: Vec<Address>, failures: u32) -> Vec<Address> {
    let is_tcp = |address: &Address| address.transport() == Transport::Tcp;
    if failures.is_multiple_of(2) && addresses.iter().any(is_tcp) {
        addresses.into_iter().filter(is_tcp).collect()
    } else {
        addresses
    }
}

const fn outbound_io(error: &OutboundFailure) -> Option<&std::io::Error> {
    match error {
        OutboundFailure::Io(error) => Some(error),
        _ => None,
    }
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
