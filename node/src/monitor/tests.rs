//! The monitor over real sockets on loopback, in front of nodes on a simulated network.

use std::{collections::BTreeMap, net::SocketAddr};

use hyper::Method;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{actor::answer, *};
use crate::{
    node::Settings,
    repair::tests::{Network, data, owner, store},
};

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// Node 0 of a network.
fn subject(network: &Network) -> Subject {
    let handles = network.nodes[0].handles.clone();
    Subject { name: "node-0".to_owned(), handles, network: None, start: Instant::now() }
}

/// Seven nodes that are connected with each other.
async fn start() -> Network {
    let network = Network::start(Settings::default()).await;
    for node in &network.nodes {
        assert!(node.handles.peers.clone().wait_until(|peers| peers.len() == network.nodes.len() - 1).await);
    }
    network
}

/// The first number of each metric in a text, by its name with its labels.
fn numbers(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn every_metric_has_help_a_unit_in_its_name_and_moves_with_the_node() {
    let network = start().await;
    let subject = subject(&network);
    let before = metrics(&subject).await.unwrap();
    store(&network.client(), &data(2_000_000), &owner()).await;
    network.settle().await;
    let after = metrics(&subject).await.unwrap();
    for text in [&before, &after] {
        assert!(text.ends_with("# EOF\n"), "{text}");
        let of = |kind: &str| -> Vec<&str> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(kind));
            lines.map(|line| line.split(' ').next().unwrap()).collect()
        };
        let (helped, typed, united) = (of("# HELP "), of("# TYPE "), of("# UNIT "));
        assert_eq!(helped, typed);
        let helps = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
        for (name, help) in helps {
            assert!(help.len() > 15, "{name}: {help}");
        }
        for name in &helped {
            assert!(name.starts_with("floe_"), "{name}");
            let has_unit = name.ends_with("_bytes") || name.ends_with("_seconds");
            assert_eq!(has_unit, united.contains(name), "{name}");
            assert_eq!(helped.iter().filter(|other| other == &name).count(), 1, "{name} is there twice");
        }
        for name in numbers(text).keys() {
            assert!(helped.iter().any(|helped| name.starts_with(helped)), "{name} has no help");
        }
    }
    let (before, after) = (numbers(&before), numbers(&after));
    for name in [
        "floe_ledger_height",
        "floe_slivers",
        "floe_sliver_bytes",
        "floe_ledger_certified_blobs",
        "floe_mailbox_handled_messages_total{actor=\"sliver_store\",mailbox=\"writes\"}",
        "floe_mailbox_handled_messages_total{actor=\"ledger\",mailbox=\"peers\"}",
        "floe_mailbox_handled_messages_total{actor=\"server\",mailbox=\"control\"}",
        "floe_mailbox_handled_messages_total{actor=\"encoder\",mailbox=\"jobs\"}",
        "floe_server_request_duration_seconds_count{kind=\"confirm\"}",
        "floe_ledger_last_block_timestamp_seconds",
    ] {
        assert!(before[name] < after[name], "{name}: {} and {}", before[name], after[name]);
    }
    assert_eq!(after["floe_healthy"], 1.0);
    assert_eq!(after["floe_epoch_stage{stage=\"steady\"}"], 1.0);
    assert_eq!(after["floe_slivers_missing"], 0.0);
}

#[tokio::test(start_paused = true)]
async fn only_what_there_is_is_answered() {
    let network = start().await;
    let subject = subject(&network);
    for (method, path, status) in [
        (Method::GET, "/metrics", 200),
        (Method::HEAD, "/health", 200),
        (Method::GET, "/", 404),
        (Method::GET, "/metrics/", 404),
        (Method::POST, "/metrics", 405),
        (Method::DELETE, "/health", 405),
    ] {
        assert_eq!(answer(&subject, &method, path).await.status(), status, "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_reaches_nobody_says_so() {
    let network = start().await;
    let subject = subject(&network);
    assert!(subject.health().is_well);
    let peers: Vec<PeerId> = network.nodes.iter().map(|node| node.signing.peer()).collect();
    network.simulation.partition(&[&peers[..1], &peers[1..]]);
    let mut peers = subject.handles.peers.clone();
    assert!(peers.wait_until(|peers| peers.is_empty()).await);
    let health = subject.health();
    assert!(!health.is_well);
    assert!(health.reason.as_deref().unwrap().contains("are needed"), "{health:?}");
    assert_eq!(answer(&subject, &Method::GET, "/health").await.status(), 503);
}

/// A monitor in front of node 0, on a free port.
async fn serve(tasks: &mut JoinSet<()>, network: &Network) -> SocketAddr {
    let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = held.local_addr().unwrap();
    drop(held);
    tasks.spawn(Monitor::new(listen, subject(network)).run(CancellationToken::new()));
    let listening = async {
        while TcpStream::connect(listen).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, listening).await.unwrap();
    listen
}

/// What comes back for these bytes until the connection ends.
async fn exchange(listen: SocketAddr, request: &[u8]) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(listen).await.unwrap();
        // It may be closed before all of it is taken.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::time::timeout(LIMIT, exchange).await.unwrap()
}

#[tokio::test]
async fn health_is_asked_over_loopback_and_what_is_no_request_is_refused() {
    let (network, mut tasks) = (start().await, JoinSet::new());
    let listen = serve(&mut tasks, &network).await;
    let health = ask_health(listen, LIMIT).await.unwrap();
    assert_eq!((health.name.as_str(), health.is_well), ("node-0", true), "{health:?}");
    assert_eq!(health, Health { uptime_seconds: health.uptime_seconds, ..subject(&network).health() });

    let scraped = exchange(listen, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(scraped.starts_with("HTTP/1.1 200 OK\r\n"), "{scraped}");
    assert!(scraped.contains("content-type: application/openmetrics-text; version=1.0.0"), "{scraped}");
    assert!(scraped.ends_with("# EOF\n"), "{scraped}");

    let long = [b"GET /health HTTP/1.1\r\nx: ".to_vec(), vec![b'a'; 64 << 10], b"\r\n\r\n".to_vec()].concat();
    let many = [b"GET /health HTTP/1.1\r\n".to_vec(), b"x: y\r\n".repeat(100), b"\r\n".to_vec()].concat();
    for request in [&long[..], &many, b"\0\xff\x16\x03\r\n\r\n"] {
        let answer = exchange(listen, request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert!(ask_health(listen, LIMIT).await.unwrap().is_well, "it goes on");
}

#[tokio::test]
async fn connections_that_say_nothing_end_and_leave_room() {
    let (network, mut tasks) = (start().await, JoinSet::new());
    let listen = serve(&mut tasks, &network).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(listen).await.unwrap());
    }
    // Those beyond the limit are closed at once, without a word; the others when their time is over.
    let ended = async {
        for stream in &mut silent {
            let mut word = Vec::new();
            let _ = stream.read_to_end(&mut word).await;
            assert!(word.is_empty(), "{}", String::from_utf8_lossy(&word));
        }
    };
    tokio::time::timeout(LIMIT, ended).await.unwrap();
    assert!(ask_health(listen, LIMIT).await.unwrap().is_well);
}

#[tokio::test]
async fn who_does_not_answer_like_a_node_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap();
    // It listens, and takes nothing up.
    let silent = ask_health(listen, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(silent, AskHealthError::Timeout { .. }), "{silent}");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"220 mail ready\r\n").await;
        }
    });
    let other = ask_health(listen, LIMIT).await.unwrap_err();
    assert!(matches!(other, AskHealthError::NotHealth { .. }), "{other}");
    tasks.shutdown().await;
    let nobody = ask_health(listen, LIMIT).await.unwrap_err();
    assert!(nobody.to_string().contains("is the node running?"), "{nobody}");
}
