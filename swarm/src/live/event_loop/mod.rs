//! The actor that owns the swarm.
//!
//! # Invariants
//!
//! - Local work comes before remote work: stopping, then answers and verdicts of the node, then what callers ask, then
//!   what peers do.
//! - Everything it holds for a peer is bounded: requests in flight in both directions, requests that wait for a connection,
//!   messages to be judged.

mod complaint;
mod exchange;
mod gossip;
mod peers;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, atomic::Ordering},
};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Swarm, gossipsub, identify, kad, ping,
    request_response::OutboundRequestId,
    swarm::{ConnectionId, SwarmEvent},
};
use protocol::PeerId;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    complaint::Complaint,
    exchange::{Answered, Outgoing, Usage, Waiting},
    gossip::Judged,
    peers::Resolved,
};
use super::{
    LiveConfig,
    behaviour::{Behaviour, BehaviourEvent, Names},
    dials::Dials,
    keys, limits,
    mailbox::{Command, Shared},
};
use crate::{
    frame::{Channel, Topic},
    inbound::InboundSender,
    limits::Limits,
    view::ViewSender,
};

/// The ends of the channels that the event loop holds.
pub(super) struct Ends {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) inbox: InboundSender,
    pub(super) view: ViewSender<BTreeSet<PeerId>>,
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
    /// Peers that are still connected but showed that they belong to another network.
    foreign: BTreeSet<PeerId>,
    /// Connections that this node dialled.
    dialed: BTreeSet<ConnectionId>,
    /// Of connections that could not be accepted.
    unaccepted: Complaint,
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
            foreign: BTreeSet::new(),
            dialed: BTreeSet::new(),
            unaccepted: Complaint::default(),
        }
    }

    /// Runs until `stop` is cancelled or every handle is dropped. Ending closes all connections, answers every caller
    /// with [`RequestError::Stopped`](crate::RequestError::Stopped), and ends the receiver once it is read empty.
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
        self.hang_up().await;
    }

    /// Closes all connections, so that peers need not find out by themselves.
    async fn hang_up(mut self) {
        // Dropping the callers' half answers `Stopped`.
        self.outgoing.clear();
        self.waiting.clear();
        self.ends.view.send_replace(Arc::default());
        self.ends.commands.close();
        while self.ends.commands.try_recv().is_ok() {}
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // Gone meanwhile is fine.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        // A peer that does not take the last bytes is left to notice.
        let _ = timeout(limits::HANG_UP_TIMEOUT, closed).await;
    }

    fn command(&mut self, command: Command) {
        self.shared.taken.fetch_add(1, Ordering::Relaxed);
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
                connection_id,
                info,
            })) => self.identified(&peer_id, connection_id, info),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, connection, result })) => {
                self.pinged(&peer, connection, result);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kademlia(kad::Event::RoutingUpdated {
                peer,
                addresses,
                ..
            })) => self.found(&peer, &addresses.into_vec()),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                if endpoint.is_dialer() {
                    self.dialed.insert(connection_id);
                }
                self.connected(&peer_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, num_established, "connection closed");
                self.dialed.remove(&connection_id);
                if num_established == 0 {
                    self.disconnected(&peer_id);
                }
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
            // Each packet that is none does this over QUIC, and so does a lack of open files, which is ours to mend.
            SwarmEvent::ListenerError { error, .. } => {
                if let Some(times) = self.unaccepted.occasion(Instant::now()) {
                    tracing::warn!(%error, times, "connections could not be accepted, of which this is the last");
                }
            }
            _ => {}
        }
    }
}
