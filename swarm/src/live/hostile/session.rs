//! A connection after the real handshake, and its streams, on which anything can be sent.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures::io::AsyncReadExt as _;
use libp2p::{
    core::{
        StreamMuxer as _,
        muxing::{StreamMuxerBox, SubstreamBox},
        upgrade::OutboundConnectionUpgrade as _,
    },
    identity, noise, tcp, yamux,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

use super::{PATIENCE, Target, datagrams, wire};
use crate::address::Transport;

/// Streams that this side may have; the most that its own window allows (1 GiB, 256 KiB each).
const STREAMS_MAX: usize = 4_096;
/// Streams of the node that wait to be looked at.
const INBOUND_MAX: usize = 64;

/// Connects, and sends nothing.
pub(super) async fn connect(target: &Target) -> io::Result<TcpStream> {
    let socket = if target.node.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(target.source, 0))?;
    let stream = socket.connect(target.node).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that has streams.
#[derive(Debug)]
pub(super) struct Session {
    open: mpsc::Sender<oneshot::Sender<SubstreamBox>>,
    inbound: Mutex<mpsc::Receiver<SubstreamBox>>,
}

impl Session {
    /// Connects with an identity that nobody has seen before. The future that comes with it carries the connection, and
    /// ends with it.
    pub(super) async fn connect(
        target: &Target,
    ) -> io::Result<(Self, impl Future<Output = io::Error> + Send)> {
        let handshake = async {
            match target.transport {
                Transport::Tcp => handshake(target).await,
                Transport::Quic => datagrams::connect(target).await,
            }
        };
        let muxer = timeout(PATIENCE, handshake).await.map_err(io::Error::other)??;
        let (open, wanted) = mpsc::channel(1);
        let (arrived, inbound) = mpsc::channel(INBOUND_MAX);
        Ok((Self { open, inbound: Mutex::new(inbound) }, drive(muxer, wanted, arrived)))
    }

    /// Opens a stream; nothing is sent on it, so that the node does not know of it yet.
    pub(super) async fn open(&self) -> io::Result<SubstreamBox> {
        let (reply, stream) = oneshot::channel();
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        self.open.send(reply).await.map_err(|_| gone())?;
        stream.await.map_err(|_| gone())
    }

    /// Opens a stream, and agrees with the node on a protocol.
    pub(super) async fn open_protocol(&self, protocol: &str) -> io::Result<SubstreamBox> {
        let mut stream = self.open().await?;
        timeout(PATIENCE, wire::agree(&mut stream, protocol)).await.map_err(io::Error::other)??;
        Ok(stream)
    }

    /// The next stream that the node opens.
    pub(super) async fn accept(&self) -> io::Result<SubstreamBox> {
        self.inbound.lock().await.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// The handshake of a node over TCP, with a new identity.
async fn handshake(target: &Target) -> io::Result<StreamMuxerBox> {
    let keypair = identity::Keypair::generate_ed25519();
    let mut stream = tcp::tokio::TcpStream(connect(target).await?);
    wire::agree(&mut stream, wire::NOISE).await?;
    let noise = noise::Config::new(&keypair).map_err(io::Error::other)?;
    let (_, mut stream) = noise.upgrade_outbound(stream, wire::NOISE).await.map_err(io::Error::other)?;
    wire::agree(&mut stream, wire::YAMUX).await?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS_MAX);
    Ok(StreamMuxerBox::new(yamux.upgrade_outbound(stream, wire::YAMUX).await?))
}

/// Carries a connection until it ends; returns why.
async fn drive(
    mut muxer: StreamMuxerBox,
    mut wanted: mpsc::Receiver<oneshot::Sender<SubstreamBox>>,
    arrived: mpsc::Sender<SubstreamBox>,
) -> io::Error {
    let mut waiting = VecDeque::new();
    poll_fn(|context| {
        while let Poll::Ready(Some(reply)) = wanted.poll_recv(context) {
            waiting.push_back(reply);
        }
        match step(&mut muxer, &mut waiting, &arrived, context) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    })
    .await
}

fn step(
    muxer: &mut StreamMuxerBox,
    waiting: &mut VecDeque<oneshot::Sender<SubstreamBox>>,
    arrived: &mpsc::Sender<SubstreamBox>,
    context: &mut Context<'_>,
) -> io::Result<()> {
    let mut muxer = Pin::new(muxer);
    while !waiting.is_empty() {
        let Poll::Ready(stream) = muxer.as_mut().poll_outbound(context) else { break };
        let (stream, reply) = (stream?, waiting.pop_front());
        // Whoever wanted it may have gone.
        reply.map(|reply| reply.send(stream));
    }
    while let Poll::Ready(stream) = muxer.as_mut().poll_inbound(context) {
        // One more than fits is closed, as any peer may do.
        let _ = arrived.try_send(stream?);
    }
    while let Poll::Ready(event) = muxer.as_mut().poll(context) {
        event?;
    }
    Ok(())
}

/// Reads whatever comes until the other side is done.
pub(super) async fn drain(stream: &mut SubstreamBox) -> io::Result<()> {
    let mut buffer = [0; 4_096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}
