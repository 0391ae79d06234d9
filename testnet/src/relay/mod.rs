//! The network between nodes, as far as it can be broken from outside them.
//!
//! ```text
//! node i --connect--> relay port of j --who is it? may it? how late?--> port of j
//!                          ^
//!                       weather: in this process, or told by another one through control
//! ```
//!
//! Each node tells the others the address of a relay in front of it. What comes in there is passed on in order, later if the
//! weather says so, and not at all between nodes that are cut off from each other: it is held, as a network holds what it
//! sends again and again, until they are not, or until one of them hangs up. Lost segments cost what they cost on TCP: the
//! time until they are sent again. This needs no rights, and no help of the system's.
//!
//! # Invariants
//!
//! - Memory is bounded: of each direction of each connection at most [`IN_FLIGHT_MAX`] parts of [`PART_BYTES`] are held.
//! - The order of bytes never changes.

pub mod control;
mod pump;
mod source;
mod weather;

use std::{io, net::SocketAddr};

use node::cli::Failure;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use self::pump::pump;
pub use self::{
    source::{Processes, Sources},
    weather::Weather,
};

/// Bytes that are passed on at a time.
const PART_BYTES: usize = 64 << 10;
/// Parts that are on their way at a time.
const IN_FLIGHT_MAX: usize = 32;
/// Connections that a relay carries at a time; more are refused.
const CONNECTIONS_MAX: usize = 1024;

/// A node behind a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Its number.
    pub node: usize,
    /// Where the relay listens.
    pub relay: SocketAddr,
    /// Where the node does.
    pub address: SocketAddr,
}

/// The relays of a network; they end with this value.
#[derive(Debug)]
pub struct Relays {
    weather: watch::Sender<Weather>,
    sources: Sources,
    _tasks: JoinSet<()>,
}

impl Relays {
    /// Begins to relay in fair weather. `seed` decides which segments are lost.
    ///
    /// # Errors
    ///
    /// If a port is taken.
    pub async fn start(nodes: &[Behind], sources: Sources, seed: u64) -> Result<Self, Failure> {
        let (weather, watched) = watch::channel(Weather::default());
        let mut tasks = JoinSet::new();
        for behind in nodes {
            let listener = listen(behind.relay).await?;
            tasks.spawn(relay(*behind, listener, watched.clone(), sources.clone(), seed));
        }
        Ok(Self { weather, sources, _tasks: tasks })
    }

    /// Changes the weather.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| Failure::io(format!("cannot listen on {address}"), &error))
}

/// Accepts what is for one node.
async fn relay(
    Behind { node, relay, address }: Behind,
    listener: TcpListener,
    weather: watch::Receiver<Weather>,
    sources: Sources,
    seed: u64,
) {
    let mut carried = JoinSet::new();
    let mut number: u64 = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            Some(_) = carried.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) if carried.len() < CONNECTIONS_MAX => {
                number += 1;
                // Another stream of chance for each connection of each node.
                let stream_number = number << 16 | u64::try_from(node).unwrap_or(0);
                let source = sources.of(from, relay);
                carried.spawn(carry(
                    (stream, address),
                    (source, node),
                    weather.clone(),
                    (seed, stream_number),
                ));
            }
            Ok(_) => tracing::info!(node, "too many connections for the relay; refused one"),
            Err(error) => tracing::info!(node, %error, "the relay could not accept a connection"),
        }
    }
}

/// Carries one connection, until both sides have ended it or one of them broke it.
async fn carry(
    (near, address): (TcpStream, SocketAddr),
    (from, to): (Option<usize>, usize),
    mut weather: watch::Receiver<Weather>,
    (seed, number): (u64, u64),
) {
    // What cannot get through is not known to be refused either.
    if weather.wait_for(|weather| !weather.is_cut(from, Some(to))).await.is_err() {
        return;
    }
    let far = match TcpStream::connect(address).await {
        Ok(far) => far,
        Err(error) => {
            tracing::trace!(to, %error, "nobody behind the relay");
            return;
        }
    };
    if let Err(error) = pass_on((near, far), (from, Some(to)), &weather, (seed, number)).await {
        tracing::trace!(?from, to, %error, "a relayed connection broke");
    }
}

async fn pass_on(
    (near, far): (TcpStream, TcpStream),
    (from, to): (Option<usize>, Option<usize>),
    weather: &watch::Receiver<Weather>,
    (seed, number): (u64, u64),
) -> io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let there = pump((near_in, far_out), (from, to), weather.clone(), (seed, 2 * number));
    let back = pump((far_in, near_out), (to, from), weather.clone(), (seed, 2 * number + 1));
    tokio::try_join!(there, back)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc, time::Duration};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpSocket,
        time::{Instant, timeout},
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    async fn free_port() -> u16 {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
    }

    /// A relay in front of a listener that is node 1.
    async fn relayed_from(sources: Sources) -> (Relays, TcpListener, u16) {
        let behind = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().await));
        let node = Behind { node: 1, relay, address: behind.local_addr().unwrap() };
        (Relays::start(&[node], sources, 7).await.unwrap(), behind, relay.port())
    }

    /// The same, with this process as node 0.
    async fn relayed() -> (Relays, TcpListener, u16) {
        let processes = Processes::default();
        processes.set(0, Some(rustix::process::getpid().as_raw_nonzero().get()));
        relayed_from(Sources::Processes(Arc::new(processes))).await
    }

    #[tokio::test]
    async fn bytes_pass_in_order_both_ways_and_ends_are_seen() {
        let (relays, behind, port) = relayed().await;
        relays.change(|weather| weather.loss_percent = 20);
        relays.change(|weather| weather.delay_ms = 3);
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (mut far, _) = timeout(LIMIT, behind.accept()).await.unwrap().unwrap();
        let sent: Vec<u8> = (0..500_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        let expected = sent.clone();
        let send = async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let echo = async {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            far.write_all(&got).await.unwrap();
            far.shutdown().await.unwrap();
        };
        let (answer, ()) = timeout(LIMIT, futures::future::join(send, echo)).await.unwrap();
        assert!(answer == expected);
    }

    #[tokio::test]
    async fn what_is_cut_is_held_until_it_is_not_and_strangers_pass() {
        let (relays, behind, port) = relayed().await;
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (mut far, _) = timeout(LIMIT, behind.accept()).await.unwrap().unwrap();
        near.write_all(b"a").await.unwrap();
        assert_eq!(timeout(LIMIT, far.read_u8()).await.unwrap().unwrap(), b'a');
        relays.change(|weather| weather.cut_off(&[1]));
        near.write_all(b"b").await.unwrap();
        timeout(Duration::from_millis(300), far.read_u8()).await.unwrap_err();
        let mut late = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        late.write_all(b"c").await.unwrap();
        timeout(Duration::from_millis(300), behind.accept()).await.unwrap_err();
        relays.change(Weather::join);
        assert_eq!(timeout(LIMIT, far.read_u8()).await.unwrap().unwrap(), b'b');
        let (mut far, _) = timeout(LIMIT, behind.accept()).await.unwrap().unwrap();
        assert_eq!(timeout(LIMIT, far.read_u8()).await.unwrap().unwrap(), b'c');
        // A client is no node, and is cut off from none.
        let Sources::Processes(processes) = &relays.sources else { panic!("{:?}", relays.sources) };
        processes.set(0, None);
        relays.change(|weather| weather.cut_off(&[1]));
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        client.write_all(b"d").await.unwrap();
        let (mut far, _) = timeout(LIMIT, behind.accept()).await.unwrap().unwrap();
        assert_eq!(timeout(LIMIT, far.read_u8()).await.unwrap().unwrap(), b'd');
    }

    #[tokio::test]
    async fn nodes_with_addresses_of_their_own_are_told_apart() {
        let (here, there) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
        let nodes = [(there.into(), 0), (here.into(), 1)];
        let (relays, behind, port) = relayed_from(Sources::Addresses(nodes.into())).await;
        relays.change(|weather| weather.split(&[1]));
        let from = async |ip: Ipv4Addr| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((ip, 0).into()).unwrap();
            socket.connect((here, port).into()).await.unwrap()
        };
        let _node_0 = from(there).await;
        timeout(Duration::from_millis(300), behind.accept()).await.unwrap_err();
        let _node_1 = from(here).await;
        timeout(LIMIT, behind.accept()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_late_is_at_least_that_late() {
        let (relays, behind, port) = relayed().await;
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (mut far, _) = timeout(LIMIT, behind.accept()).await.unwrap().unwrap();
        relays.change(|weather| weather.delay_ms = 200);
        let began = Instant::now();
        near.write_all(b"a").await.unwrap();
        assert_eq!(timeout(LIMIT, far.read_u8()).await.unwrap().unwrap(), b'a');
        assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_node_that_is_gone_hangs_up() {
        let (_relays, behind, port) = relayed().await;
        drop(behind);
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let mut bytes = Vec::new();
        // An end or a reset, as the system likes.
        let read = timeout(LIMIT, near.read_to_end(&mut bytes)).await.unwrap();
        assert!(read.is_err() || bytes.is_empty());
    }
}
