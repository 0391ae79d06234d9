//! Asks a running node how it is, over its own HTTP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::Health;

/// Bytes of an answer, at most: it has a few hundred.
const ANSWER_BYTES_MAX: usize = 64 << 10;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no word of a node's health.
#[derive(Debug, thiserror::Error)]
pub enum AskHealthError {
    /// Nobody listens there, or nobody may connect.
    #[error("cannot connect to {address}; is the node running?")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("{address} did not answer within {} s", .after.as_secs())]
    Timeout {
        /// The address.
        address: SocketAddr,
        /// How long it was given.
        after: Duration,
    },
    /// Something else listens there.
    #[error("what {address} answers is not the health of a node; does something else listen there?")]
    NotHealth {
        /// The address.
        address: SocketAddr,
        /// What is wrong with it.
        #[source]
        source: BoxError,
    },
}

/// Asks the node that serves its health on this address, by way of loopback if it listens everywhere.
///
/// Cancel safe: yes.
///
/// # Errors
///
/// [`AskHealthError`]. That the node is not well is none.
pub async fn ask_health(listen: SocketAddr, after: Duration) -> Result<Health, AskHealthError> {
    let address = reachable(listen);
    let asked = timeout(after, ask(address)).await;
    asked.unwrap_or(Err(AskHealthError::Timeout { address, after }))
}

async fn ask(address: SocketAddr) -> Result<Health, AskHealthError> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|source| AskHealthError::Connect { address, source })?;
    get(address, stream).await.map_err(|source| AskHealthError::NotHealth { address, source })
}

async fn get(address: SocketAddr, stream: TcpStream) -> Result<Health, BoxError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/health").header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok::<Health, BoxError>(serde_json::from_slice(&body)?)
    };
    tokio::pin!(exchange);
    // The connection carries the bytes of the exchange, and may end before the last of them is looked at.
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => {
            ended?;
            exchange.await
        }
    }
}

/// Where to reach what listens on this address from the same machine.
const fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_reached_on_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:7", "127.0.0.1:7"),
            ("[::]:7", "[::1]:7"),
            ("127.0.0.1:7", "127.0.0.1:7"),
            ("192.0.2.1:7", "192.0.2.1:7"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
