//! The state of a simulated network, and the queue of what will happen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use protocol::{NetworkId, PeerId};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    Link, Plan, Trace,
    exchange::{Request, Serving},
    gossip::Message,
};
use crate::{
    frame::{Channel, Topic},
    inbound::{Answer, Inbound, InboundReceiver, InboundSender, queue},
    limits::{Admission, Limits},
    peers::PeerBook,
    view::{View, ViewSender},
};

/// Two nodes, the smaller identity first.
pub(super) type Pair = (PeerId, PeerId);

pub(super) fn pair(a: PeerId, b: PeerId) -> Pair {
    (a.min(b), a.max(b))
}

/// Something that will happen.
pub(super) enum Event {
    /// A request reaches its peer.
    RequestArrives { id: u64, session: u64, from: PeerId, to: PeerId, channel: Channel, frame: crate::Frame },
    /// The answer to a request left the buffers of the peer that sent it, and reaches the caller unless it was lost.
    AnswerArrives { id: u64, session: u64, from: PeerId, to: PeerId, answer: Option<Answer>, bytes: usize },
    /// A copy of a message reaches a node.
    GossipArrives { message: u64, by: PeerId, to: PeerId, incarnation: u64 },
    /// A node tries again to hand a message to those that lack it.
    GossipRetry { message: u64, node: PeerId, incarnation: u64, tries: u32 },
    /// A message is forgotten.
    GossipForget { message: u64 },
    /// A dial comes to its end.
    DialEnds { from: PeerId, to: PeerId, incarnation: u64 },
    /// A pause before the next dial is over.
    Redial { from: PeerId, to: PeerId, incarnation: u64 },
    /// A cut has lasted long enough to be noticed.
    CutNoticed { pair: Pair, session: u64 },
}

/// One node that is up.
pub(super) struct Node {
    pub(super) incarnation: u64,
    pub(super) network: NetworkId,
    pub(super) limits: Limits,
    pub(super) topics: BTreeSet<Topic>,
    pub(super) inbox: InboundSender,
    pub(super) book: PeerBook,
    pub(super) connected: ViewSender<BTreeSet<PeerId>>,
    /// Dials that failed since the last connection.
    pub(super) failures: BTreeMap<PeerId, u32>,
    /// Peers for which a pause before the next dial runs.
    pub(super) pausing: BTreeSet<PeerId>,
    pub(super) admissions: BTreeMap<PeerId, Admission>,
    /// Requests being worked on.
    pub(super) in_flight: BTreeMap<(PeerId, Channel), usize>,
    /// Bytes of answers being sent to members and to others.
    pub(super) response_bytes: [usize; 2],
    /// Messages on topics that the node has yet to judge.
    pub(super) verdicts: usize,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: ChaCha8Rng,
    pub(super) started: Instant,
    /// Numbers sessions, incarnations, requests, messages and events.
    pub(super) next: u64,
    pub(super) nodes: BTreeMap<PeerId, Node>,
    pub(super) cuts: BTreeSet<(PeerId, PeerId)>,
    pub(super) links: BTreeMap<(PeerId, PeerId), Link>,
    /// When the last byte under way on a link of limited rate will have left.
    pub(super) busy_until: BTreeMap<(PeerId, PeerId), Instant>,
    /// The session of each connected pair.
    pub(super) sessions: BTreeMap<Pair, u64>,
    pub(super) dialing: BTreeSet<Pair>,
    pub(super) requests: BTreeMap<u64, Request>,
    pub(super) serving: BTreeMap<u64, Serving>,
    pub(super) messages: BTreeMap<u64, Message>,
    events: BTreeMap<(Instant, u64), Event>,
    /// Refused messages, dropped once the lock is free.
    pub(super) refused: Vec<Inbound>,
    /// Hands callbacks a way back.
    pub(super) handle: Weak<Shared>,
    traced: u64,
    hasher: blake3::Hasher,
}

/// The world and its lock.
pub(super) struct Shared {
    world: Mutex<World>,
    wake: Arc<Notify>,
}

impl Shared {
    pub(super) fn new(world: World) -> Self {
        Self { world: Mutex::new(world), wake: Arc::new(Notify::new()) }
    }

    pub(super) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// Runs `step` on the world, then wakes the pump if the next event changed, then drops what was refused.
    pub(super) fn with<T>(self: &Arc<Self>, step: impl FnOnce(&mut World) -> T) -> T {
        let (result, refused) = {
            // A panic in a step fails the test that runs it; others may still read the trace.
            let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
            if world.handle.strong_count() == 0 {
                world.handle = Arc::downgrade(self);
            }
            let before = world.next_event();
            let result = step(&mut world);
            if world.next_event() != before {
                self.wake.notify_one();
            }
            (result, std::mem::take(&mut world.refused))
        };
        drop(refused);
        result
    }
}

/// Carries out events when they are due, until the network is dropped.
pub(super) async fn pump(shared: Weak<Shared>, wake: Arc<Notify>) {
    loop {
        let next = match shared.upgrade() {
            Some(shared) => shared.with(World::run_due),
            None => return,
        };
        match next {
            None => wake.notified().await,
            Some(next) => tokio::select! {
                biased;
                () = wake.notified() => {}
                () = sleep_until(next) => {}
            },
        }
    }
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(plan.seed),
            plan,
            started: Instant::now(),
            next: 0,
            nodes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            links: BTreeMap::new(),
            busy_until: BTreeMap::new(),
            sessions: BTreeMap::new(),
            dialing: BTreeSet::new(),
            requests: BTreeMap::new(),
            serving: BTreeMap::new(),
            messages: BTreeMap::new(),
            events: BTreeMap::new(),
            refused: Vec::new(),
            handle: Weak::new(),
            traced: 0,
            hasher: blake3::Hasher::new(),
        }
    }

    /// Time since the simulation started.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn schedule(&mut self, at: Instant, event: Event) {
        let sequence = self.number();
        self.events.insert((at, sequence), event);
    }

    pub(super) fn schedule_in(&mut self, pause: Duration, event: Event) {
        self.schedule(Instant::now() + pause, event);
    }

    fn next_event(&self) -> Option<Instant> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    /// Carries out what is due and returns when the next event is.
    fn run_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let event = entry.remove();
            self.run(event);
        }
        self.next_event()
    }

    fn run(&mut self, event: Event) {
        match event {
            Event::RequestArrives { id, session, from, to, channel, frame } => {
                self.request_arrives((id, session), (from, to), channel, frame);
            }
            Event::AnswerArrives { id, session, from, to, answer, bytes } => {
                self.answer_arrives((id, session), (from, to), answer, bytes);
            }
            Event::GossipArrives { message, by, to, incarnation } => {
                self.gossip_arrives(message, by, to, incarnation);
            }
            Event::GossipRetry { message, node, incarnation, tries } => {
                if self.check_up(node, incarnation).is_some() {
                    self.forward(message, node, tries);
                }
            }
            Event::GossipForget { message } => {
                self.messages.remove(&message);
            }
            Event::DialEnds { from, to, incarnation } => self.dial_ends(from, to, incarnation),
            Event::Redial { from, to, incarnation } => {
                if self.check_up(from, incarnation).is_some() {
                    self.pause_over(from, to);
                }
            }
            Event::CutNoticed { pair, session } => self.cut_noticed(pair, session),
        }
    }

    /// Brings a node up.
    pub(super) fn join(
        &mut self,
        peer: PeerId,
        network: NetworkId,
        topics: &[Topic],
    ) -> (u64, View<BTreeSet<PeerId>>, InboundReceiver) {
        let limits = &self.plan.limits;
        let (inbox, receiver) = queue(limits.control_queue, limits.gossip_queue, limits.bulk_queue);
        let (connected, view) = crate::view::view(Arc::default());
        let incarnation = self.number();
        let node = Node {
            incarnation,
            network,
            limits: self.plan.limits,
            topics: topics.iter().copied().collect(),
            inbox,
            book: PeerBook::default(),
            connected,
            failures: BTreeMap::new(),
            pausing: BTreeSet::new(),
            admissions: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            response_bytes: [0; 2],
            verdicts: 0,
        };
        self.nodes.insert(peer, node);
        self.record("join", peer, peer, 0);
        (incarnation, view, receiver)
    }

    pub(super) fn set_limits(&mut self, peer: PeerId, limits: Limits) {
        if let Some(node) = self.nodes.get_mut(&peer) {
            node.inbox.set_limits(limits.control_queue, limits.gossip_queue, limits.bulk_queue);
            node.limits = limits;
        }
    }

    /// Takes a node down and returns its inbox, to be discarded once the lock is free.
    pub(super) fn crash(&mut self, peer: PeerId) -> Option<InboundSender> {
        let node = self.nodes.remove(&peer)?;
        node.connected.send_replace(Arc::default());
        self.record("crash", peer, peer, 0);
        // Dropping the callers' half answers `Stopped`.
        self.requests.retain(|_, request| request.from != peer);
        self.serving.retain(|_, serving| serving.server != peer);
        let sessions: Vec<Pair> =
            self.sessions.keys().copied().filter(|pair| pair.0 == peer || pair.1 == peer).collect();
        for pair in sessions {
            self.disconnect(pair);
        }
        Some(node.inbox)
    }

    /// `Some` if this incarnation of the node is up.
    pub(super) fn check_up(&self, peer: PeerId, incarnation: u64) -> Option<&Node> {
        self.nodes.get(&peer).filter(|node| node.incarnation == incarnation)
    }

    /// Draws when a message sent now will arrive; `None` if it never does.
    pub(super) fn transmit(&mut self, from: PeerId, to: PeerId, bytes: usize) -> Option<Instant> {
        let link = self.links.get(&(from, to)).unwrap_or(&self.plan.link).clone();
        // Drawn in any case, so that a cut does not shift the chances of everything after it.
        let lost = self.rng.random_bool(link.loss.clamp(0.0, 1.0));
        let latency = self.rng.random_range(link.latency);
        let mut sent = Instant::now();
        if let Some(rate) = link.bytes_per_second {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            let takes = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1));
            let busy = self.busy_until.get(&(from, to)).copied().unwrap_or(sent);
            sent = sent.max(busy) + takes;
            self.busy_until.insert((from, to), sent);
        }
        if lost || self.cuts.contains(&(from, to)) {
            self.record("lost", from, to, bytes);
            return None;
        }
        Some(sent + latency)
    }

    /// Adds a line to the trace.
    pub(super) fn record(&mut self, what: &'static str, from: PeerId, to: PeerId, bytes: usize) {
        self.traced += 1;
        self.hasher.update(&self.now().as_nanos().to_le_bytes());
        self.hasher.update(what.as_bytes());
        self.hasher.update(&from.0);
        self.hasher.update(&to.0);
        self.hasher.update(&bytes.to_le_bytes());
    }

    pub(super) fn trace(&self) -> Trace {
        Trace { events: self.traced, hash: *self.hasher.finalize().as_bytes() }
    }
}
