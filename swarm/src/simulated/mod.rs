//! A network within one process, reproducible from a seed.
//!
//! ```text
//!  SimulatedNetwork --request, publish--> World: events by (instant, sequence) --InboundReceiver--> node
//!  Simulation ------cut, crash, links----^  |  pump task: sleeps until the next event
//! ```
//!
//! Meant for a `current_thread` runtime with a paused clock, where it is deterministic: the same seed and the same
//! calls give the same deliveries at the same instants, and [`Simulation::trace`] says so in one number.
//!
//! # What it models, and what it leaves out
//!
//! - A request and its answer are each delayed on their own, so exchanges overtake each other, as streams do. A lost
//!   half is never retried: the caller gets `Timeout`, as on a link too bad for TCP.
//! - Gossip goes from neighbour to neighbour, each copy delayed and lost on its own, and on only after it was accepted.
//!   A lost copy is tried again each second for five seconds, as libp2p's message cache does. After that it is lost
//!   to those who could not be reached. A neighbour that has a copy under way is not sent another one unless the plan
//!   duplicates.
//! - Connections follow [`Network::add_peer`]: kept peers are dialled with a growing pause, others when there is
//!   something to ask. Any address stands for reachable: what it says is not looked at.
//! - A crash ends connections at once on both sides; a cut is noticed only after [`Plan::detection`].
//! - Limits, queues and refusals are those of the live network, except that there is no cost of connections.
//!
//! # Invariants
//!
//! - The world's lock is never held while a message is dropped: dropping answers, and answering takes the lock.

mod exchange;
mod gossip;
mod links;
mod world;

use std::{collections::BTreeSet, fmt, future::Future, ops::RangeInclusive, sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::{NetworkId, PeerId};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};

use self::world::{Shared, World};
use crate::{
    address::Address,
    frame::{Channel, Frame, Topic},
    inbound::InboundReceiver,
    limits::{Limits, REQUEST_TIMEOUT_MAX},
    network::{ConnectedPeers, Network, Offence, PeerRole, PublishError, RequestError, check_gossip},
    view::View,
};

/// How one direction between two nodes behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// How long one message takes; drawn evenly for each.
    pub latency: RangeInclusive<Duration>,
    /// The share of messages that never arrive.
    pub loss: f64,
    /// Bytes a second that fit through; messages queue behind each other.
    pub bytes_per_second: Option<u64>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1)..=Duration::from_millis(20),
            loss: 0.0,
            bytes_per_second: None,
        }
    }
}

/// What a simulation starts with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// Every link that is not set otherwise.
    pub link: Link,
    /// The share of gossip deliveries that happen twice, as they do once libp2p has forgotten a message.
    pub duplicate: f64,
    /// How long it takes to notice that a link is cut.
    pub detection: Duration,
    /// The limits of every node that has none of its own.
    pub limits: Limits,
}

impl Plan {
    /// A calm network: a few milliseconds of latency, no loss.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Detection as in the live network, where a ping goes unanswered.
        let detection = Duration::from_secs(30);
        Self { seed, link: Link::default(), duplicate: 0.0, detection, limits: Limits::default() }
    }
}

/// What was delivered so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Deliveries and losses.
    pub events: u64,
    /// A hash over all of them with their instants; equal for equal runs.
    pub hash: [u8; 32],
}

/// The simulated network as a whole: who is there, and what goes wrong. Cheap to clone.
#[derive(Clone)]
pub struct Simulation {
    shared: Arc<Shared>,
    // Aborts the pump when the last handle is gone.
    _pump: Arc<JoinSet<()>>,
}

impl Simulation {
    /// Starts an empty network.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let shared = Arc::new(Shared::new(World::new(plan)));
        let mut tasks = JoinSet::new();
        tasks.spawn(world::pump(Arc::downgrade(&shared), shared.wake()));
        Self { shared, _pump: Arc::new(tasks) }
    }

    /// Brings up a node that follows every topic. One that is up already crashes first.
    #[must_use]
    pub fn join(&self, peer: PeerId, network: NetworkId) -> (SimulatedNetwork, InboundReceiver) {
        self.join_with_topics(peer, network, &Topic::ALL)
    }

    /// Brings up a node that follows the given topics. One that is up already crashes first.
    #[must_use]
    pub fn join_with_topics(
        &self,
        peer: PeerId,
        network: NetworkId,
        topics: &[Topic],
    ) -> (SimulatedNetwork, InboundReceiver) {
        self.crash(peer);
        let (incarnation, view, receiver) = self.shared.with(|world| world.join(peer, network, topics));
        let shared = Arc::clone(&self.shared);
        (SimulatedNetwork { shared, _pump: Arc::clone(&self._pump), peer, incarnation, view }, receiver)
    }

    /// Gives a node that is up limits of its own; those of its queues apply to what arrives from now on.
    pub fn set_limits(&self, peer: PeerId, limits: Limits) {
        self.shared.with(|world| world.set_limits(peer, limits));
    }

    /// Takes a node down. Its requests end as `Stopped`, those to it as `Closed`, and its receiver ends.
    pub fn crash(&self, peer: PeerId) {
        if let Some(inbox) = self.shared.with(|world| world.crash(peer)) {
            inbox.discard();
        }
    }

    /// Loses everything from one node to another from now on; the other direction is untouched.
    pub fn cut(&self, from: PeerId, to: PeerId) {
        self.shared.with(|world| world.cut(from, to));
    }

    /// Lets messages from one node to another through again.
    pub fn mend(&self, from: PeerId, to: PeerId) {
        self.shared.with(|world| world.mend(from, to));
    }

    /// Cuts every pair of nodes that are in different groups, both ways. Nodes in no group are untouched.
    pub fn partition(&self, groups: &[&[PeerId]]) {
        self.shared.with(|world| {
            for (index, group) in groups.iter().enumerate() {
                let others = groups.iter().enumerate().filter(|(other, _)| *other != index);
                for (from, to) in others.flat_map(|(_, other)| pairs(group, other)) {
                    world.cut(from, to);
                }
            }
        });
    }

    /// Mends every cut.
    pub fn heal(&self) {
        self.shared.with(World::heal);
    }

    /// Changes every link that has no setting of its own.
    pub fn set_default_link(&self, link: Link) {
        self.shared.with(|world| world.plan.link = link);
    }

    /// Gives one direction between two nodes a setting of its own.
    pub fn set_link(&self, from: PeerId, to: PeerId, link: Link) {
        self.shared.with(|world| world.links.insert((from, to), link));
    }

    /// Removes the settings of single links.
    pub fn reset_links(&self) {
        self.shared.with(|world| world.links.clear());
    }

    /// An address that stands for this node.
    #[must_use]
    pub fn address(&self, peer: PeerId) -> Address {
        let [a, b, c, ..] = peer.0;
        let ip = std::net::Ipv4Addr::new(10, a, b, c);
        Address::new(ip.into(), crate::address::Transport::Tcp, 4001)
    }

    /// What was delivered so far.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.shared.with(|world| world.trace())
    }
}

fn pairs<'a>(left: &'a [PeerId], right: &'a [PeerId]) -> impl Iterator<Item = (PeerId, PeerId)> + 'a {
    left.iter().flat_map(move |from| right.iter().map(move |to| (*from, *to)))
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("trace", &self.trace()).finish_non_exhaustive()
    }
}

/// One node's handle to a simulated network. Once the node crashed, it answers `Stopped`, also after a new start.
#[derive(Clone)]
pub struct SimulatedNetwork {
    shared: Arc<Shared>,
    _pump: Arc<JoinSet<()>>,
    peer: PeerId,
    incarnation: u64,
    view: View<BTreeSet<PeerId>>,
}

impl fmt::Debug for SimulatedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedNetwork").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Forgets a request when its caller stops waiting.
struct Abandon<'a> {
    shared: &'a Arc<Shared>,
    id: u64,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.shared.with(|world| world.abandon(self.id));
    }
}

impl SimulatedNetwork {
    /// Publishes as a faulty node does that says one thing to some and another to others: hands a message to these
    /// neighbours only. They pass it on like any other.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn publish_to(
        &self,
        audience: BTreeSet<PeerId>,
        topic: Topic,
        data: Bytes,
    ) -> Result<(), PublishError> {
        self.say(topic, data, Some(audience))
    }

    fn say(&self, topic: Topic, data: Bytes, audience: Option<BTreeSet<PeerId>>) -> Result<(), PublishError> {
        check_gossip(topic, data.len())?;
        self.shared.with(|world| {
            world.check_up(self.peer, self.incarnation).ok_or(PublishError::Stopped)?;
            world.publish(self.peer, topic, data, audience);
            Ok(())
        })
    }
}

impl Network for SimulatedNetwork {
    fn local_peer(&self) -> PeerId {
        self.peer
    }

    async fn request(
        &self,
        to: PeerId,
        channel: Channel,
        request: Frame,
        limit: Duration,
    ) -> Result<Frame, RequestError> {
        request.check().map_err(RequestError::TooLarge)?;
        let (reply, answer) = oneshot::channel();
        let id = self.shared.with(|world| {
            world.check_up(self.peer, self.incarnation).ok_or(RequestError::Stopped)?;
            world.request((self.peer, to), channel, request, reply)
        })?;
        let _abandon = Abandon { shared: &self.shared, id };
        match timeout(limit.min(REQUEST_TIMEOUT_MAX), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RequestError::Stopped),
            Err(_) => Err(RequestError::Timeout),
        }
    }

    fn publish(&self, topic: Topic, data: Bytes) -> impl Future<Output = Result<(), PublishError>> + Send {
        std::future::ready(self.say(topic, data, None))
    }

    fn add_peer(&self, peer: PeerId, addresses: Vec<Address>, role: PeerRole) {
        self.shared.with(|world| {
            if world.check_up(self.peer, self.incarnation).is_some() {
                world.add_peer(self.peer, peer, addresses, role);
            }
        });
    }

    fn report(&self, peer: PeerId, offence: Offence) {
        self.shared.with(|world| {
            if world.check_up(self.peer, self.incarnation).is_some() {
                world.report(self.peer, peer, offence);
            }
        });
    }

    fn connected(&self) -> ConnectedPeers {
        ConnectedPeers::new(self.view.clone())
    }
}
