//! What only libp2p can get wrong: hostile streams, ports, restarts.

use std::{
    io::Write as _,
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder, identity, noise, request_response, swarm::SwarmEvent, tcp, yamux,
};
use protocol::NetworkId;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{behaviour::Names, *};
use crate::{Channel, Frame, Inbound, Network as _, PeerRole, RequestError};

const NETWORK: NetworkId = NetworkId([0xf1; 32]);
const PATIENCE: Duration = Duration::from_secs(30);

/// A node that echoes.
struct Node {
    network: LiveNetwork,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Node {
    async fn start(seed: u8, listen: Address) -> Self {
        let config =
            LiveConfig { listen: vec![listen], ..LiveConfig::new(SecretKey::new([seed; 32]), NETWORK) };
        let (network, mut inbound, event_loop) = Live::start(config).await.unwrap();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(event_loop.run(stop.clone()));
        tasks.spawn(async move {
            while let Some(inbound) = inbound.recv().await {
                if let Inbound::Request { frame, reply, .. } = inbound {
                    reply.send(frame).unwrap();
                }
            }
        });
        Self { network, stop, tasks }
    }

    async fn ask(&self, to: &Self) -> Result<Frame, RequestError> {
        let frame = Frame::new(vec![1], vec![2; 1_000]);
        self.network.request(to.network.local_peer(), Channel::Bulk, frame, PATIENCE).await
    }

    fn knows(&self, other: &Self, role: PeerRole) {
        self.network.add_peer(other.network.local_peer(), other.network.listen_addresses().to_vec(), role);
    }

    async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn any(transport: Transport) -> Address {
    Address::new(Ipv4Addr::LOCALHOST.into(), transport, 0)
}

/// What a hostile peer does with a stream.
#[derive(Clone, Debug)]
struct Hostile {
    /// Sent at once.
    bytes: Vec<u8>,
    /// Whether it then leaves the stream open without another byte.
    stalls: bool,
}

impl request_response::Codec for Hostile {
    type Protocol = StreamProtocol;
    type Request = ();
    type Response = ();

    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        std::future::pending().await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.map(drop)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&self.bytes).await?;
        io.flush().await?;
        if self.stalls {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Ok(())
    }
}

/// A connected peer that does `hostile` on each of its streams.
async fn hostile(
    hostile: Hostile,
    victim: &Node,
) -> (Swarm<request_response::Behaviour<Hostile>>, libp2p::PeerId) {
    let protocol = StreamProtocol::try_from_owned(Names::new(NETWORK).channel(Channel::Bulk)).unwrap();
    let protocols = [(protocol, request_response::ProtocolSupport::Outbound)];
    let config = request_response::Config::default().with_max_concurrent_streams(1_000);
    let mut swarm = SwarmBuilder::with_existing_identity(identity::Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| request_response::Behaviour::with_codec(hostile, protocols, config))
        .unwrap()
        .build();
    let address = &victim.network.listen_addresses()[0];
    swarm.dial(address::to_libp2p(address.ip().unwrap(), address.transport(), address.port())).unwrap();
    let peer = keys::to_libp2p(victim.network.local_peer());
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    (swarm, peer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_the_stream_and_in_the_end_the_peer() {
    let victim = Node::start(1, any(Transport::Tcp)).await;
    let honest = Node::start(2, any(Transport::Tcp)).await;
    honest.knows(&victim, PeerRole::Other);
    for bytes in [vec![0xff; 64], vec![], vec![1, 0, 0], vec![0, 0, 0, 0, 1, 0, 4, 0]] {
        let (mut swarm, peer) = hostile(Hostile { bytes, stalls: false }, &victim).await;
        swarm.behaviour_mut().send_request(&peer, ());
        // This codec takes anything for an answer, also the end of the stream.
        let ends = async { while !matches!(swarm.select_next_some().await, SwarmEvent::Behaviour(_)) {} };
        timeout(PATIENCE, ends).await.expect("the stream ends");
        assert!(honest.ask(&victim).await.is_ok());
    }
    let (mut swarm, peer) = hostile(Hostile { bytes: vec![0xff; 64], stalls: false }, &victim).await;
    let refused = async {
        loop {
            swarm.behaviour_mut().send_request(&peer, ());
            if let SwarmEvent::ConnectionClosed { .. } = swarm.select_next_some().await {
                break;
            }
        }
    };
    timeout(PATIENCE, refused).await.expect("scored down and disconnected");
    assert!(honest.ask(&victim).await.is_ok());
    victim.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_handshake_do_no_harm() {
    let victim = Node::start(1, any(Transport::Tcp)).await;
    let honest = Node::start(2, any(Transport::Tcp)).await;
    honest.knows(&victim, PeerRole::Other);
    let port = victim.network.listen_addresses()[0].port();
    let mut open = Vec::new();
    for i in 0..50_u8 {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(&vec![i; 300]).unwrap();
        open.push(stream);
    }
    assert!(honest.ask(&victim).await.is_ok());
    victim.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stalls_holds_no_one_else_up() {
    let victim = Node::start(1, any(Transport::Tcp)).await;
    let honest = Node::start(2, any(Transport::Tcp)).await;
    honest.knows(&victim, PeerRole::Other);
    // Each stream announces the longest payload and sends one byte of it.
    let stall = Hostile { bytes: vec![0, 0, 0, 0, 0, 0, 4, 0, 7], stalls: true };
    let (mut swarm, peer) = hostile(stall, &victim).await;
    for _ in 0..500 {
        swarm.behaviour_mut().send_request(&peer, ());
    }
    let drive = async {
        loop {
            swarm.select_next_some().await;
        }
    };
    let asks = async {
        let asked = Instant::now();
        for _ in 0..200 {
            assert!(honest.ask(&victim).await.is_ok());
        }
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    };
    tokio::select! {
        () = asks => {}
        () = drive => {}
    }
    victim.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_named() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let node = Node::start(1, any(transport)).await;
        let taken = node.network.listen_addresses()[0].clone();
        let config =
            LiveConfig { listen: vec![taken.clone()], ..LiveConfig::new(SecretKey::new([2; 32]), NETWORK) };
        let error = Live::start(config).await.expect_err("taken");
        assert_eq!(
            error.to_string(),
            format!("address {taken} is already in use; stop the other process or choose another port")
        );
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_restarts_is_found_again() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = Node::start(1, any(transport)).await;
        let b = Node::start(2, any(transport)).await;
        let address = b.network.listen_addresses()[0].clone();
        let peer = b.network.local_peer();
        a.knows(&b, PeerRole::Member);
        let mut view = a.network.connected();
        timeout(PATIENCE, view.wait_until(|peers| peers.contains(&peer))).await.unwrap();
        b.end().await;
        timeout(PATIENCE, view.wait_until(|peers| !peers.contains(&peer))).await.unwrap();
        // The tasks of a stopped network let go of a QUIC socket a moment later.
        while check_free((Ipv4Addr::LOCALHOST, address.port()).into(), transport).is_err() {
            tokio::task::yield_now().await;
        }
        let b = Node::start(2, address).await;
        timeout(PATIENCE, view.wait_until(|peers| peers.contains(&peer))).await.unwrap();
        assert!(a.ask(&b).await.is_ok());
        b.end().await;
        a.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_of_members_dials_itself_complete() {
    const N: u8 = 12;
    let mut nodes = Vec::new();
    for seed in 0..N {
        nodes.push(Node::start(seed + 1, any(Transport::Tcp)).await);
    }
    for a in &nodes {
        for b in &nodes {
            a.knows(b, PeerRole::Member);
        }
    }
    for node in &nodes {
        let mut view = node.network.connected();
        let complete = view.wait_until(|peers| peers.len() == usize::from(N) - 1);
        assert!(timeout(PATIENCE, complete).await.unwrap());
    }
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kademlia_finds_strangers_through_a_bootstrap_peer() {
    let mut nodes = Vec::new();
    let mut tasks = JoinSet::new();
    for seed in 1..=3 {
        let config = LiveConfig {
            listen: vec![any(Transport::Tcp)],
            kademlia: true,
            ..LiveConfig::new(SecretKey::new([seed; 32]), NETWORK)
        };
        let (network, inbound, event_loop) = Live::start(config).await.unwrap();
        tasks.spawn(event_loop.run(CancellationToken::new()));
        nodes.push((network, inbound));
    }
    let (bootstrap, stranger) = (nodes[0].0.clone(), nodes[2].0.local_peer());
    for (network, _) in &nodes[1..] {
        network.add_peer(bootstrap.local_peer(), bootstrap.listen_addresses().to_vec(), PeerRole::Bootstrap);
    }
    let knows = async {
        let mut attempts = 0;
        while let Err(error) = nodes[1]
            .0
            .request(
                stranger,
                Channel::Control,
                Frame::new(Bytes::new(), Bytes::new()),
                Duration::from_millis(100),
            )
            .await
        {
            // Once found it is asked, and does not answer: nobody reads its receiver.
            if error == RequestError::Timeout {
                return;
            }
            attempts += 1;
            assert!(attempts < 1_000, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, knows).await.expect("the stranger is found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_ranges_over_loopback() {
    const RANGES: usize = 4_000;
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = Node::start(1, any(transport)).await;
        let b = Node::start(2, any(transport)).await;
        a.knows(&b, PeerRole::Member);
        b.knows(&a, PeerRole::Member);
        let payload = Bytes::from(vec![7; 240 * 1024]);
        let to = b.network.local_peer();
        let ask = |payload: Bytes| {
            let network = a.network.clone();
            async move { network.request(to, Channel::Bulk, Frame::new(vec![1; 64], payload), PATIENCE).await }
        };
        for bytes in [payload.len(), 256] {
            let payload = payload.slice(..bytes);
            let started = Instant::now();
            let asks = futures::stream::iter((0..RANGES).map(|_| ask(payload.clone())));
            let answers: Vec<_> = asks.buffer_unordered(32).collect().await;
            assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
            let seconds = started.elapsed().as_secs_f64();
            let requests = f64::from(u32::try_from(RANGES).unwrap()) / seconds;
            let mib = requests * f64::from(u32::try_from(bytes).unwrap()) / 1_048_576.0;
            println!(
                "{transport:?}, 32 in flight, {bytes} B echoed: {requests:.0} requests/s, {mib:.0} MiB/s each way"
            );
        }
        a.end().await;
        b.end().await;
    }
}
