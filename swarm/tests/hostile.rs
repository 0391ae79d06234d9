//! A hostile peer on every protocol that a real node speaks: nothing panics, and everybody else is served.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use protocol::NetworkId;
use swarm::{
    Address, Channel, Frame, Inbound, Network as _, PeerRole,
    address::Transport,
    live::{
        Live, LiveConfig, LiveNetwork, SecretKey,
        hostile::{Assault, Attack, Target},
    },
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const NETWORK: NetworkId = NetworkId([0xf1; 32]);
/// How long an honest peer may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long each attack goes on at least.
const ATTACKED_FOR: Duration = Duration::from_secs(3);
/// How long it may take until each attack has done something.
const LIMIT: Duration = Duration::from_secs(60);
/// Where attackers come from: not from where everybody else does, and those that come to no handshake not from where the
/// others do, whom they would keep out.
const BARRING: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));
/// See above.
const SPEAKING: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 67));

/// A node that echoes; with `listen` empty, a client. One that listened would dial from the port on which it does, which
/// the attacker may be using for its own address of this machine.
async fn start(seed: u8, listen: Vec<Address>, tasks: &mut JoinSet<()>) -> LiveNetwork {
    let kademlia = !listen.is_empty();
    let config = LiveConfig { listen, kademlia, ..LiveConfig::new(SecretKey::new([seed; 32]), NETWORK) };
    let (network, mut inbound, event_loop) = Live::start(config).await.unwrap();
    tasks.spawn(event_loop.run(CancellationToken::new()));
    tasks.spawn(async move {
        while let Some(inbound) = inbound.recv().await {
            if let Inbound::Request { frame, reply, .. } = inbound {
                reply.send(frame).unwrap();
            }
        }
    });
    network
}

async fn ask(network: &LiveNetwork, node: &LiveNetwork, channel: Channel, bytes: usize) {
    let frame = Frame::new(vec![1], vec![2; bytes]);
    let answer = network.request(node.local_peer(), channel, frame.clone(), PATIENCE).await;
    let answer = answer.map(|answer| answer == frame);
    assert_eq!(answer, Ok(true), "{channel:?}; dropped by the node: {:?}", node.traffic().dropped.counts());
}

fn knows(network: &LiveNetwork, node: &LiveNetwork) {
    network.add_peer(node.local_peer(), node.listen_addresses().to_vec(), PeerRole::Other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_attacks_every_protocol_over_tcp_harms_nobody() {
    attack(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_attacks_every_protocol_over_quic_harms_nobody() {
    attack(Transport::Quic).await;
}

async fn attack(transport: Transport) {
    // Tasks of libp2p that panic take nobody with them: they are seen here only.
    let panics = Arc::new(AtomicUsize::new(0));
    let (counter, shown) = (Arc::clone(&panics), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        counter.fetch_add(1, Ordering::Relaxed);
        shown(info);
    }));
    let mut tasks = JoinSet::new();
    let any = Address::new(Ipv4Addr::LOCALHOST.into(), transport, 0);
    let node = start(1, vec![any], &mut tasks).await;
    let honest = start(2, Vec::new(), &mut tasks).await;
    knows(&honest, &node);
    ask(&honest, &node, Channel::Control, 1).await;

    let port = node.listen_addresses()[0].port();
    // The node echoes: a long question is answered at length.
    let questions: Vec<_> =
        ["control", "bulk"].map(|channel| (channel.to_owned(), vec![7; 16_000].into())).into();
    let node_address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let begin = async |source, n_workers, is_meant: fn(&Attack) -> bool| {
        let target = Target { node: node_address, transport, source, questions: questions.clone() };
        let attacks: Vec<_> =
            Attack::ALL.into_iter().filter(is_meant).map(|attack| (attack, n_workers)).collect();
        Assault::begin(target, &attacks).await.unwrap()
    };
    let speaking = begin(SPEAKING, 1, |attack| !attack.is_of_handshake()).await;
    let barring = begin(BARRING, 50, |attack| attack.is_of_handshake()).await;
    let missing = || [speaking.deeds().missing(), barring.deeds().missing()].concat();
    let protocols = speaking.protocols();
    for expected in ["bulk", "control", "kad", "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"] {
        assert!(protocols.contains(&expected.to_owned()), "{expected} is not among {protocols:?}");
    }
    assert!(protocols.iter().any(|protocol| protocol.starts_with("/meshsub/")), "{protocols:?}");

    let (began, mut seed) = (Instant::now(), 3);
    while began.elapsed() < ATTACKED_FOR || !missing().is_empty() {
        assert!(began.elapsed() < LIMIT, "the attacks did not begin: {:?}", missing());
        ask(&honest, &node, Channel::Control, 1_000).await;
        ask(&honest, &node, Channel::Bulk, 200_000).await;
        // Whoever comes now is let in, too.
        let mut task = JoinSet::new();
        let newcomer = start(seed, Vec::new(), &mut task).await;
        knows(&newcomer, &node);
        timeout(PATIENCE, ask(&newcomer, &node, Channel::Bulk, 1_000)).await.unwrap();
        seed = seed.checked_add(1).unwrap_or(3);
        sleep(Duration::from_millis(50)).await;
    }
    for deeds in [speaking.end().await, barring.end().await] {
        println!("{:#?}", deeds.counts());
        assert_eq!(deeds.missing(), [""; 0]);
    }
    ask(&honest, &node, Channel::Bulk, 1_000).await;
    assert!(tasks.try_join_next().is_none(), "nothing has ended");
    assert_eq!(panics.load(Ordering::Relaxed), 0);
}
