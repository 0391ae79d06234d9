//! Tells relays that run elsewhere what the weather is.
//!
//! A connection for each change: the weather as JSON and an end, then `ok`, or what was wrong. Whoever tells keeps the weather, and
//! always tells all of it.

use std::{io, net::SocketAddr, time::Duration};

use node::cli::{Exit, Failure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Relays, Weather, listen};

/// How long telling may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);
/// Most bytes of what is told, and of an answer: more than is said of a thousand nodes.
const BYTES_MAX: u64 = 64 << 10;
/// The answer to what was understood.
const DONE: &str = "ok";

/// Does to relays as it is told, one after the other, for ever. Nodes are told apart by the relays, and not listened to.
///
/// # Errors
///
/// If the port is taken.
pub async fn obey(address: SocketAddr, relays: &Relays) -> Result<(), Failure> {
    let listener = listen(address).await?;
    loop {
        let heard = match listener.accept().await {
            Ok((stream, from)) => timeout(LIMIT, hear(stream, from, relays)).await,
            Err(error) => Ok(Err(error)),
        };
        match heard {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(%error, "the weather was not told"),
            Err(_) => tracing::info!("the weather was not told in time"),
        }
    }
}

async fn hear(mut stream: TcpStream, from: SocketAddr, relays: &Relays) -> io::Result<()> {
    if let Some(node) = relays.sources.of(from, stream.local_addr()?) {
        return stream.write_all(format!("node {node} makes no weather").as_bytes()).await;
    }
    let mut told = Vec::new();
    (&mut stream).take(BYTES_MAX).read_to_end(&mut told).await?;
    let answer = match serde_json::from_slice::<Weather>(&told) {
        Ok(weather) => {
            relays.change(|now| *now = weather);
            DONE.to_owned()
        }
        Err(error) => error.to_string(),
    };
    stream.write_all(answer.as_bytes()).await
}

/// Has the relays that are told at this address make this weather; returns once they do.
///
/// # Errors
///
/// If they are not reached within ten seconds, or refuse.
pub async fn tell(address: SocketAddr, weather: &Weather) -> Result<(), Failure> {
    let what = || format!("cannot tell the relay at {address} what the weather is");
    let failed = |error: io::Error| Failure::io(what(), &error);
    let told = serde_json::to_vec(weather).map_err(|error| failed(error.into()))?;
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&told).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.take(BYTES_MAX).read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(LIMIT, exchange).await.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
    match answer.map_err(failed)?.as_str() {
        DONE => Ok(()),
        refused => Err(Failure::new(Exit::Unavailable, format!("{}: {refused:?}", what()))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::net::TcpListener;

    use super::{super::Sources, *};

    /// Relays in front of nobody that are told at an address; this machine is the node of `node`, if there is one.
    async fn told(node: Option<usize>) -> (SocketAddr, std::sync::Arc<Relays>, tokio::task::JoinSet<()>) {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let sources = Sources::Addresses(node.map(|node| (here, node)).into_iter().collect());
        let relays = std::sync::Arc::new(Relays::start(&[], sources, 1).await.unwrap());
        let free = TcpListener::bind((here, 0)).await.unwrap().local_addr().unwrap();
        let (mut tasks, served) = (tokio::task::JoinSet::new(), std::sync::Arc::clone(&relays));
        tasks.spawn(async move { obey(free, &served).await.unwrap() });
        while TcpStream::connect(free).await.is_err() {
            tokio::task::yield_now().await;
        }
        (free, relays, tasks)
    }

    fn slow() -> Weather {
        let mut weather = Weather::default();
        weather.delay_ms = 80;
        weather
    }

    #[tokio::test]
    async fn the_weather_is_as_it_was_told() {
        let (address, relays, _tasks) = told(None).await;
        let mut weather = slow();
        weather.loss_percent = 5;
        weather.split(&[1, 4]);
        tell(address, &weather).await.unwrap();
        assert_eq!(*relays.weather.borrow(), weather);
        tell(address, &Weather::default()).await.unwrap();
        assert_eq!(*relays.weather.borrow(), Weather::default());
    }

    #[tokio::test]
    async fn what_is_no_weather_changes_nothing() {
        let (address, relays, _tasks) = told(None).await;
        let weather = slow();
        tell(address, &weather).await.unwrap();
        for words in [&b""[..], b"{", b"{\"delay_ms\": -1}", b"{\"wind\": 3}"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(words).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(!answer.is_empty() && answer != DONE, "{answer}");
        }
        assert_eq!(*relays.weather.borrow(), weather);
    }

    #[tokio::test]
    async fn nodes_are_not_listened_to() {
        let (address, relays, _tasks) = told(Some(3)).await;
        let told = tell(address, &slow()).await;
        // What it said is thrown away unread, which may break the connection before the answer is had.
        assert!(told.is_err());
        assert_eq!(*relays.weather.borrow(), Weather::default());
    }
}
