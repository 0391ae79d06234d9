//! The HTTP server.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Subject, metrics};

/// Connections at the same time; one more is closed at once. A Prometheus or two and a health check have one each.
const CONNECTIONS_MAX: usize = 16;
/// How long the head of a request may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last in all: it is for one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the head of a request, at most; also the least that the library takes.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Headers of a request, at most.
const HEADERS_MAX: usize = 64;
/// Pause before a port that could not be had is tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(30);
/// Pause after a connection could not be taken: the process has no file to spare just now.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OPEN_METRICS: HeaderValue = HeaderValue::from_static(metrics::CONTENT_TYPE);

/// Serves `/metrics` and `/health`; see the [module](super) for the invariants.
#[derive(Debug)]
pub struct Monitor {
    listen: SocketAddr,
    subject: Arc<Subject>,
}

impl Monitor {
    /// Returns the actor, not yet running.
    #[must_use]
    pub fn new(listen: SocketAddr, subject: Subject) -> Self {
        Self { listen, subject: Arc::new(subject) }
    }

    /// Runs until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let serving = async {
            loop {
                match TcpListener::bind(self.listen).await {
                    Ok(listener) => self.serve(&listener).await,
                    Err(error) => {
                        let listen = self.listen;
                        tracing::warn!(%listen, %error, "metrics and health cannot be served there; trying again");
                    }
                }
                sleep(LISTEN_PAUSE).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = serving => {}
        }
    }

    /// Takes connections for ever.
    async fn serve(&self, listener: &TcpListener) {
        tracing::info!(listen = %self.listen, "metrics and health are served");
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(ended) = connections.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "serving metrics failed; this is a bug");
                },
                accepted = listener.accept() => match accepted {
                    // Dropping the stream closes it.
                    Ok((stream, _)) => if connections.len() < CONNECTIONS_MAX {
                        connections.spawn(connection(stream, Arc::clone(&self.subject)));
                    },
                    Err(error) => {
                        tracing::debug!(%error, "a connection for metrics was not taken");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

/// Answers one request.
async fn connection(stream: TcpStream, subject: Arc<Subject>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let subject = Arc::clone(&subject);
        async move { Ok::<_, Infallible>(answer(&subject, request.method(), request.uri().path()).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a request for metrics failed"),
        Err(_) => tracing::debug!("a request for metrics took too long"),
    }
}

pub(super) async fn answer(subject: &Subject, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, TEXT, "there is only GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => match metrics::metrics(subject).await {
            Ok(text) => plain(StatusCode::OK, OPEN_METRICS, text),
            Err(error) => {
                tracing::error!(%error, "metrics could not be written; this is a bug");
                plain(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "metrics could not be written\n")
            }
        },
        "/health" => {
            let health = subject.health();
            let status = if health.is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            match serde_json::to_string(&health) {
                Ok(json) => plain(status, JSON, format!("{json}\n")),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
            }
        }
        _ => plain(StatusCode::NOT_FOUND, TEXT, "there are /metrics and /health\n"),
    }
}

fn plain(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
