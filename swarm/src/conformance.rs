//! One suite for both implementations: what a node may rely on, whatever network it runs over.
//!
//! A [`Factory`] makes nodes; each function of this module is one test, and panics if it fails.
//!
//! Nodes of the suite run a server whose behaviour a request chooses by the first byte of its header, see [`Ask`].

#![allow(clippy::missing_panics_doc, reason = "a test panics when it fails")]

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use protocol::{NetworkId, PeerId};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    Address, Channel, Frame, HEADER_BYTES_MAX, Inbound, InboundReceiver, Limits, Network, Offence,
    PAYLOAD_BYTES_MAX, PeerRole, PublishError, RequestError, Responder, Topic, limits::RateLimits,
};

/// Longer than anything that works takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The network of nearly all nodes.
const NETWORK: NetworkId = NetworkId([0xf1; 32]);

/// A node that a factory made.
pub struct Made<N> {
    /// Its handle.
    pub network: N,
    /// What reaches it.
    pub inbound: InboundReceiver,
    /// Where it listens.
    pub addresses: Vec<Address>,
    /// Ends it.
    pub stop: Box<dyn FnOnce() + Send>,
}

impl<N> std::fmt::Debug for Made<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Makes nodes of one implementation.
pub trait Factory {
    /// The implementation.
    type Network: Network;

    /// Makes a node that runs, with an identity of its own, knows nobody, and follows every topic.
    fn make(&mut self, network: NetworkId, limits: Limits) -> impl Future<Output = Made<Self::Network>>;

    /// An identity that no node has, and an address where none listens.
    fn nobody(&mut self) -> (PeerId, Address);
}

/// What a request wants of the suite's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// The request itself.
    Echo,
    /// As many bytes as the payload says.
    Bytes,
    /// A dropped responder.
    Drop,
    /// `Busy`.
    Busy,
    /// An answer that is too large.
    Oversized,
    /// No answer for as long as the server lives.
    Hold,
}

impl Ask {
    const ALL: [Self; 6] = [Self::Echo, Self::Bytes, Self::Drop, Self::Busy, Self::Oversized, Self::Hold];

    fn frame(self) -> Frame {
        let index = Self::ALL.iter().position(|ask| *ask == self).and_then(|index| u8::try_from(index).ok());
        Frame::new(vec![index.expect("there are six")], Bytes::new())
    }

    fn of(frame: &Frame) -> Self {
        let index = frame.header.first().copied().map_or(0, usize::from);
        Self::ALL.get(index).copied().unwrap_or(Self::Echo)
    }
}

/// A node of the suite: a handle, and a server that runs until the node stops.
struct Node<N> {
    network: N,
    peer: PeerId,
    addresses: Vec<Address>,
    stop: Option<Box<dyn FnOnce() + Send>>,
    /// Gossip that arrived, in order.
    gossip: mpsc::Receiver<(PeerId, Bytes)>,
    server: JoinSet<()>,
}

impl<N: Network> Node<N> {
    fn new(made: Made<N>) -> Self {
        let (heard, gossip) = mpsc::channel(1_024);
        let mut server = JoinSet::new();
        server.spawn(serve(made.inbound, heard));
        let peer = made.network.local_peer();
        Self { network: made.network, peer, addresses: made.addresses, stop: Some(made.stop), gossip, server }
    }

    async fn ask(&self, to: &Self, ask: Ask) -> Result<Frame, RequestError> {
        self.network.request(to.peer, Channel::Bulk, ask.frame(), PATIENCE).await
    }

    async fn hear(&mut self) -> (PeerId, Bytes) {
        timeout(PATIENCE, self.gossip.recv()).await.expect("gossip arrives").expect("the server runs")
    }

    async fn wait_for(&self, peer: PeerId, connected: bool) {
        let mut view = self.network.connected();
        let reached = view.wait_until(|peers| peers.contains(&peer) == connected);
        assert!(timeout(PATIENCE, reached).await.expect("the connection changes"), "the network runs");
    }
}

async fn serve(mut inbound: InboundReceiver, heard: mpsc::Sender<(PeerId, Bytes)>) {
    let mut held: Vec<Responder> = Vec::new();
    while let Some(inbound) = inbound.recv().await {
        match inbound {
            Inbound::Request { frame, reply, .. } => match Ask::of(&frame) {
                Ask::Echo => reply.send(frame).expect("it arrived"),
                Ask::Bytes => {
                    let length = usize::from_le_bytes(frame.payload[..8].try_into().expect("eight bytes"));
                    reply.send(Frame::new(Bytes::new(), vec![7; length])).expect("within the limit");
                }
                Ask::Drop => drop(reply),
                Ask::Busy => reply.busy(),
                Ask::Oversized => {
                    let large = Frame::new(Bytes::new(), vec![0; PAYLOAD_BYTES_MAX + 1]);
                    assert_eq!(reply.send(large).expect_err("too large").part, "payload");
                }
                Ask::Hold => held.push(reply),
            },
            Inbound::Gossip { from, data, verdict, .. } => {
                if data.starts_with(b"bad") {
                    verdict.reject()
                } else {
                    verdict.accept()
                }
                heard.try_send((from, data)).expect("the test reads");
            }
            Inbound::Connected(_) | Inbound::Disconnected(_) => {}
        }
    }
}

async fn nodes<F: Factory>(factory: &mut F, n: usize) -> Vec<Node<F::Network>> {
    let mut nodes = Vec::new();
    for _ in 0..n {
        nodes.push(Node::new(factory.make(NETWORK, Limits::default()).await));
    }
    nodes
}

/// Connects two nodes that are members to each other.
async fn connect<N: Network>(a: &Node<N>, b: &Node<N>) {
    b.network.add_peer(a.peer, Vec::new(), PeerRole::Member);
    a.network.add_peer(b.peer, b.addresses.clone(), PeerRole::Member);
    a.wait_for(b.peer, true).await;
    b.wait_for(a.peer, true).await;
}

async fn pair<F: Factory>(factory: &mut F) -> (Node<F::Network>, Node<F::Network>) {
    let mut nodes = nodes(factory, 2).await;
    let (b, a) = (nodes.remove(1), nodes.remove(0));
    connect(&a, &b).await;
    (a, b)
}

/// The smallest and the largest frame travel both ways on both channels.
pub async fn frames_of_every_size_travel(factory: &mut impl Factory) {
    let (a, b) = pair(factory).await;
    for channel in Channel::ALL {
        for frame in [
            Frame::default(),
            Frame::new(Bytes::new(), vec![1; 1]),
            Frame::new(vec![0; HEADER_BYTES_MAX], vec![2; PAYLOAD_BYTES_MAX]),
        ] {
            for (from, to) in [(&a, &b), (&b, &a)] {
                let answer = from.network.request(to.peer, channel, frame.clone(), PATIENCE).await;
                assert!(
                    answer.as_ref() == Ok(&frame),
                    "{channel:?}: {:?}",
                    answer.map(|frame| frame.bytes())
                );
            }
        }
    }
}

/// A full window of long answers arrives, and of long requests.
pub async fn many_requests_are_in_flight(factory: &mut impl Factory) {
    const N: usize = 128;
    const BYTES: usize = 240 * 1024;
    let (a, b) = pair(factory).await;
    let fetch = Frame::new(Ask::Bytes.frame().header, BYTES.to_le_bytes().to_vec());
    let fetches = (0..N).map(|_| a.network.request(b.peer, Channel::Bulk, fetch.clone(), PATIENCE));
    for answer in join_all(fetches).await {
        assert_eq!(answer.map(|frame| frame.payload.len()), Ok(BYTES));
    }
    let send = Frame::new(Ask::Echo.frame().header, vec![3; BYTES]);
    let sends = (0..N).map(|_| a.network.request(b.peer, Channel::Bulk, send.clone(), PATIENCE));
    for answer in join_all(sends).await {
        assert!(answer.as_ref() == Ok(&send), "{:?}", answer.map(|frame| frame.bytes()));
    }
}

/// What is too large is refused where it comes from, and nothing breaks.
pub async fn oversized_frames_are_refused(factory: &mut impl Factory) {
    let (a, b) = pair(factory).await;
    for frame in [
        Frame::new(vec![0; HEADER_BYTES_MAX + 1], Bytes::new()),
        Frame::new(Bytes::new(), vec![0; PAYLOAD_BYTES_MAX + 1]),
    ] {
        let answer = a.network.request(b.peer, Channel::Bulk, frame, PATIENCE).await;
        assert!(matches!(answer, Err(RequestError::TooLarge(_))), "{answer:?}");
    }
    assert_eq!(a.ask(&b, Ask::Oversized).await, Err(RequestError::Refused));
    for topic in Topic::ALL {
        let published = a.network.publish(topic, Bytes::from(vec![0; topic.bytes_max() + 1])).await;
        assert!(matches!(published, Err(PublishError::TooLarge(_))), "{published:?}");
    }
    assert!(a.ask(&b, Ask::Echo).await.is_ok());
}

/// A dropped responder and a busy node are told apart.
pub async fn refusals_reach_the_caller(factory: &mut impl Factory) {
    let (a, b) = pair(factory).await;
    assert_eq!(a.ask(&b, Ask::Drop).await, Err(RequestError::Refused));
    assert_eq!(a.ask(&b, Ask::Busy).await, Err(RequestError::Busy));
    assert!(a.ask(&b, Ask::Echo).await.is_ok());
}

/// Peers without an address, and addresses without a peer, cannot be reached; and nobody reaches himself.
pub async fn nobody_is_unreachable(factory: &mut impl Factory) {
    let node = nodes(factory, 1).await.remove(0);
    let (nobody, nowhere) = factory.nobody();
    let ask = |to| node.network.request(to, Channel::Control, Frame::default(), PATIENCE);
    assert_eq!(ask(nobody).await, Err(RequestError::Unreachable));
    node.network.add_peer(nobody, vec![nowhere], PeerRole::Other);
    assert_eq!(ask(nobody).await, Err(RequestError::Unreachable));
    assert_eq!(ask(node.peer).await, Err(RequestError::Unreachable));
    node.network.add_peer(node.peer, node.addresses.clone(), PeerRole::Member);
    assert_eq!(ask(node.peer).await, Err(RequestError::Unreachable));
}

/// A request to a stranger with a known address dials first.
pub async fn a_request_dials(factory: &mut impl Factory) {
    let nodes = nodes(factory, 2).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    assert_eq!(b.ask(a, Ask::Echo).await, Err(RequestError::Unreachable));
    a.network.add_peer(b.peer, b.addresses.clone(), PeerRole::Other);
    assert!(!a.network.connected().contains(b.peer));
    let asks = join_all((0..10).map(|_| a.ask(b, Ask::Echo))).await;
    assert!(asks.iter().all(Result::is_ok), "{asks:?}");
    a.wait_for(b.peer, true).await;
    b.wait_for(a.peer, true).await;
    assert!(b.ask(a, Ask::Echo).await.is_ok(), "the connection serves both");
}

/// A peer that stops ends the requests to it, and its own.
pub async fn a_stopped_node_closes(factory: &mut impl Factory) {
    let (a, mut b) = pair(factory).await;
    let view = a.network.connected();
    let stop = b.stop.take().expect("it runs");
    let asks = a.ask(&b, Ask::Hold);
    let own = b.ask(&a, Ask::Hold);
    let stops = async {
        // Both requests are on their way once another one came back.
        assert!(a.ask(&b, Ask::Echo).await.is_ok() && b.ask(&a, Ask::Echo).await.is_ok());
        stop();
    };
    let (asked, owned, ()) = futures::join!(asks, own, stops);
    assert_eq!(asked, Err(RequestError::Closed));
    assert_eq!(owned, Err(RequestError::Stopped));
    a.wait_for(b.peer, false).await;
    assert!(!view.contains(b.peer));
    timeout(PATIENCE, b.server.join_next()).await.expect("its receiver ends");
    assert_eq!(b.ask(&a, Ask::Echo).await, Err(RequestError::Stopped));
    assert!(b.network.connected().peers().is_empty());
    let published = b.network.publish(Topic::Epoch, Bytes::new()).await;
    assert_eq!(published, Err(PublishError::Stopped));
    assert_eq!(a.ask(&b, Ask::Echo).await, Err(RequestError::Unreachable));
}

/// A caller waits no longer than it said, and a late answer harms nobody.
pub async fn a_timeout_is_kept(factory: &mut impl Factory) {
    let (a, b) = pair(factory).await;
    let limit = Duration::from_millis(300);
    let asked = Instant::now();
    let answer = a.network.request(b.peer, Channel::Control, Ask::Hold.frame(), limit).await;
    assert_eq!(answer, Err(RequestError::Timeout));
    assert!(asked.elapsed() >= limit && asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
    assert!(a.ask(&b, Ask::Echo).await.is_ok());
}

/// What one node publishes, all others get, once, and it does not.
pub async fn gossip_reaches_all_once(factory: &mut impl Factory) {
    let mut nodes = nodes(factory, 5).await;
    for i in 1..nodes.len() {
        connect(&nodes[i - 1], &nodes[i]).await;
    }
    let alone = nodes.remove(0);
    let author = alone.peer;
    // Until every node follows: repeated, since what is published before is lost to those who do not follow yet.
    let mut round = 0_u32;
    for node in &mut nodes {
        loop {
            round += 1;
            alone
                .network
                .publish(Topic::Ledger, Bytes::from(format!("probe {round}")))
                .await
                .expect("published");
            match timeout(Duration::from_millis(200), node.gossip.recv()).await {
                Ok(Some(_)) => break,
                Ok(None) => panic!("the server ended"),
                Err(_) => assert!(round < 200, "gossip never arrives"),
            }
        }
    }
    let large = Bytes::from([b"large".to_vec(), vec![1; Topic::Ledger.bytes_max() - 5]].concat());
    for data in [Bytes::from_static(b"one"), large.clone(), Bytes::from_static(b"last")] {
        alone.network.publish(Topic::Ledger, data).await.expect("published");
    }
    for node in &mut nodes {
        let mut got = Vec::new();
        loop {
            let (from, data) = node.hear().await;
            assert_eq!(from, author);
            got.push(data);
            let done = |data: &Bytes| got.contains(data);
            if done(&Bytes::from_static(b"last")) && done(&Bytes::from_static(b"one")) && done(&large) {
                break;
            }
        }
        let mut others: Vec<_> = got.into_iter().filter(|data| !data.starts_with(b"probe")).collect();
        others.sort();
        let mut expected = vec![Bytes::from_static(b"one"), large.clone(), Bytes::from_static(b"last")];
        expected.sort();
        assert!(others == expected, "delivered once each");
    }
    let mut alone = alone;
    assert!(alone.gossip.try_recv().is_err(), "not to its author");
}

/// What the node in the middle rejects does not reach the far end.
pub async fn rejected_gossip_stays(factory: &mut impl Factory) {
    let mut nodes = nodes(factory, 3).await;
    connect(&nodes[0], &nodes[1]).await;
    connect(&nodes[1], &nodes[2]).await;
    let mut far = nodes.remove(2);
    let mut round = 0_u32;
    let mut publish_until_heard = async |prefix: &str| loop {
        round += 1;
        assert!(round < 200, "gossip never arrives");
        let data = Bytes::from(format!("{prefix} {round}"));
        nodes[0].network.publish(Topic::Epoch, data.clone()).await.expect("published");
        match timeout(Duration::from_millis(200), far.gossip.recv()).await {
            Ok(Some((_, heard))) => {
                assert!(!heard.starts_with(b"bad"), "passed on although rejected");
                if heard.starts_with(prefix.as_bytes()) {
                    return;
                }
            }
            Ok(None) => panic!("the server ended"),
            Err(_) => {}
        }
    };
    publish_until_heard("probe").await;
    nodes[0].network.publish(Topic::Epoch, Bytes::from_static(b"bad")).await.expect("published");
    let heard =
        async { while !nodes[1].gossip.recv().await.expect("the server runs").1.starts_with(b"bad") {} };
    timeout(PATIENCE, heard).await.expect("the middle gets it");
    // What is published later overtakes nothing here: had the bad one been passed on, it would come first.
    nodes[0].network.publish(Topic::Epoch, Bytes::from_static(b"good")).await.expect("published");
    loop {
        let (_, data) = far.hear().await;
        assert!(!data.starts_with(b"bad"), "passed on although rejected");
        if data.starts_with(b"good") {
            break;
        }
    }
}

/// Nodes of different networks cannot talk.
pub async fn another_network_is_not_talked_to(factory: &mut impl Factory) {
    let a = nodes(factory, 1).await.remove(0);
    let b = Node::new(factory.make(NetworkId([0xf2; 32]), Limits::default()).await);
    a.network.add_peer(b.peer, b.addresses.clone(), PeerRole::Other);
    for frame in [Frame::default(), Frame::new(Bytes::new(), vec![0; PAYLOAD_BYTES_MAX])] {
        let answer = a.network.request(b.peer, Channel::Bulk, frame, PATIENCE).await;
        assert_eq!(answer, Err(RequestError::Unsupported));
    }
    assert!(a.network.connected().peers().is_empty());
    assert!(b.network.connected().peers().is_empty());
}

/// A node that does not read refuses what its queues do not hold, and nobody waits for nothing.
pub async fn a_stuck_node_refuses(factory: &mut impl Factory) {
    let mut limits = Limits::default();
    limits.bulk_queue.messages_max = 4;
    let a = nodes(factory, 1).await.remove(0);
    let Made { network: stuck, mut inbound, addresses, stop } = factory.make(NETWORK, limits).await;
    a.network.add_peer(stuck.local_peer(), addresses, PeerRole::Member);
    a.wait_for(stuck.local_peer(), true).await;
    let to = stuck.local_peer();
    let asks = (0..10).map(|_| a.network.request(to, Channel::Bulk, Frame::default(), PATIENCE));
    let reads = async {
        // The queue is read only once six of ten were refused.
        let mut answered = 0;
        while answered < 4 {
            if inbound.waiting()[2] == 4 || answered > 0 {
                match inbound.recv().await {
                    Some(Inbound::Request { reply, frame, .. }) => {
                        reply.send(frame).expect("small");
                        answered += 1;
                    }
                    Some(_) => {}
                    None => panic!("the network stopped"),
                }
            } else {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        // The rest was refused, or comes now that there is room.
        let more = async {
            while let Some(inbound) = inbound.recv().await {
                if let Inbound::Request { reply, frame, .. } = inbound {
                    reply.send(frame).expect("small");
                }
            }
        };
        more.await;
    };
    let asked = async {
        let answers = join_all(asks).await;
        stop();
        answers
    };
    let (answers, ()) = futures::join!(asked, reads);
    let busy = answers.iter().filter(|answer| **answer == Err(RequestError::Busy)).count();
    let served = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(busy + served, 10, "{answers:?}");
    assert!(served >= 4, "{answers:?}");
}

/// One peer cannot have more worked on than its share; another peer is served meanwhile.
pub async fn one_peer_does_not_take_all(factory: &mut impl Factory) {
    let mut limits = Limits::default();
    limits.member = RateLimits { in_flight_max: 2, ..limits.member };
    let nodes = nodes(factory, 2).await;
    let server = Node::new(factory.make(NETWORK, limits).await);
    connect(&nodes[0], &server).await;
    connect(&nodes[1], &server).await;
    let short = Duration::from_secs(2);
    let holds =
        (0..5).map(|_| nodes[0].network.request(server.peer, Channel::Bulk, Ask::Hold.frame(), short));
    let other = async {
        let answer = nodes[1].ask(&server, Ask::Echo).await;
        assert!(answer.is_ok(), "{answer:?}");
    };
    let (mut answers, ()) = futures::join!(join_all(holds), other);
    answers.sort_by_key(|answer| *answer == Err(RequestError::Timeout));
    let (busy, timeout) = (Err(RequestError::Busy), Err(RequestError::Timeout));
    assert_eq!(answers, [busy.clone(), busy.clone(), busy, timeout.clone(), timeout]);
}

/// A peer that breaks rules is disconnected and refused.
pub async fn a_reported_peer_is_refused(factory: &mut impl Factory) {
    let nodes = nodes(factory, 2).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    a.network.add_peer(b.peer, b.addresses.clone(), PeerRole::Other);
    b.network.add_peer(a.peer, a.addresses.clone(), PeerRole::Other);
    assert!(a.ask(b, Ask::Echo).await.is_ok());
    b.wait_for(a.peer, true).await;
    for _ in 0..2 {
        b.network.report(a.peer, Offence::Unverifiable);
    }
    a.wait_for(b.peer, false).await;
    b.wait_for(a.peer, false).await;
    assert_eq!(b.ask(a, Ask::Echo).await, Err(RequestError::Unreachable));
    let answer = a.ask(b, Ask::Echo).await;
    // A connection may come about before the other side ends it.
    assert!(matches!(answer, Err(RequestError::Unreachable | RequestError::Closed)), "{answer:?}");
}
