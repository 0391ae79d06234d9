//! `floe-testnet bench flood`: what clients notice while one peer does its worst to a node.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use clap::value_parser;
use node::{
    cli::{
        Connection, Exit, Failure, Output,
        output::{Bytes, Table, note},
    },
    client::{Client, StoreOptions},
    keys::PeerKey,
};
use protocol::ledger::signature::SigningKey;
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use swarm::{
    Channel, Frame, Network, PeerRole,
    live::{Live, LiveConfig},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Cluster, ClusterConfig, Fate},
    figures::{Latency, latency},
};

/// How long the network may take to find together, and an operation that is measured.
const LIMIT: Duration = Duration::from_secs(120);
/// Pause between operations of the client that is measured.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of the blobs that it stores and reads.
const BLOB_BYTES: usize = 64 << 10;
/// How often a slow connection sends a byte.
const SLOW: Duration = Duration::from_secs(1);
/// Bytes of garbage that a connection sends before it begins anew.
const GARBAGE_BYTES: usize = 4 << 10;
/// Malformed requests that the hostile peer has under way at a time.
const REQUESTS_IN_FLIGHT: u64 = 64;
/// Files that this process may need beside a connection each.
const FILES_SPARE: u64 = 512;

/// Arguments of `bench flood`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Nodes of the network, with a shard each; the first of them is flooded
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u16).range(4..=31))]
    nodes: u16,
    /// Connections that are held open, a third of them silent, a third slow, a third full of garbage
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u64).range(3..=20_000))]
    connections: u64,
    /// How long operations are measured before the flood, and in it, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

/// What is printed.
#[derive(Clone, Debug, Serialize)]
struct Document {
    nodes: u16,
    connections: u64,
    seconds: u64,
    /// Stores and reads of 64 KiB before the flood.
    before: Measured,
    /// The same in it.
    flooded: Measured,
    /// Connections that were made, also those that took the place of others.
    connected: usize,
    /// Malformed requests that were sent.
    malformed: usize,
    /// Most memory of the flooded node before the flood, in bytes, and in it.
    memory_before: u64,
    /// See above.
    memory_flooded: u64,
    /// All nodes were healthy when it was over.
    is_healthy: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Measured {
    store: Latency,
    read: Latency,
    failed: usize,
}

pub(super) async fn execute(args: Args, output: Output) -> Result<(), Failure> {
    allow_files(args.connections + FILES_SPARE)?;
    let dir = tempfile::Builder::new()
        .prefix("floe-flood-")
        .tempdir()
        .map_err(|error| Failure::io("cannot create a temporary directory", &error))?;
    let config = ClusterConfig { n_nodes: args.nodes, n_shards: args.nodes, base_port: None };
    let mut cluster = Cluster::create(&dir.path().join("testnet"), &config, Fate::WithParent).await?;
    cluster.start_all().await?;
    let observer = cluster.observe().await?;
    cluster.wait_healthy(&observer, LIMIT, |_| {}).await?;
    let connection = Connection::start(Arc::clone(cluster.genesis()), Default::default()).await?;
    let seconds = Duration::from_secs(args.seconds);

    note("measuring without a flood");
    let before = measure(connection.client(), seconds, 0).await;
    let memory_before = peak_memory(&cluster)?;
    note(format_args!("{} connections and malformed requests to node-0", args.connections));
    let flood = Flood::start(&cluster, args.connections).await?;
    let flooded = measure(connection.client(), seconds, 1).await;
    let memory_flooded = peak_memory(&cluster)?;
    let (connected, malformed) = flood.stop().await;
    note("waiting for all nodes to be healthy");
    let is_healthy = cluster.wait_healthy(&observer, LIMIT, |_| {}).await.is_ok();
    connection.close().await;
    observer.close().await;
    cluster.stop_all().await?;

    let Args { nodes, connections, seconds } = args;
    let document = Document {
        nodes,
        connections,
        seconds,
        before,
        flooded,
        connected,
        malformed,
        memory_before,
        memory_flooded,
        is_healthy,
    };
    output.data(&document, document.text())
}

/// Stores and reads one after the other for a while.
async fn measure<N: Network>(client: &Client<N>, seconds: Duration, phase: u64) -> Measured {
    let key = SigningKey::from_secret(&[0xF1; 32]);
    let mut dice = ChaCha8Rng::seed_from_u64(phase);
    let (mut stores, mut reads, mut failed) = (Vec::new(), Vec::new(), 0);
    let began = Instant::now();
    while began.elapsed() < seconds {
        let mut bytes = vec![0; BLOB_BYTES];
        dice.fill_bytes(&mut bytes);
        let start = Instant::now();
        let options = StoreOptions::default();
        let store = client.store(Arc::new(bytes.clone()), &key, options, Arc::new(|_| {}));
        let stored = timeout(LIMIT, store).await;
        stores.push(start.elapsed());
        let Ok(Ok(stored)) = stored else {
            failed += 1;
            continue;
        };
        let start = Instant::now();
        let read = timeout(LIMIT, client.read(stored.blob_id, Vec::new(), Arc::new(|_| {}))).await;
        reads.push(start.elapsed());
        failed += usize::from(!read.is_ok_and(|read| read.is_ok_and(|(_, read)| read == bytes)));
        sleep(PAUSE).await;
    }
    Measured { store: latency(stores.into_iter()), read: latency(reads.into_iter()), failed }
}

/// One that does its worst.
struct Flood {
    stop: CancellationToken,
    connections: JoinSet<usize>,
    requests: JoinSet<usize>,
    event_loop: JoinSet<()>,
}

impl Flood {
    async fn start(cluster: &Cluster, n_connections: u64) -> Result<Self, Failure> {
        let port = cluster.manifest()?.nodes.first().map(|node| node.port);
        let port = port.ok_or_else(|| Failure::new(Exit::Broken, "the testnet has no node"))?;
        let member = cluster.member(0)?;
        let stop = CancellationToken::new();
        let mut connections = JoinSet::new();
        for number in 0..n_connections {
            let stop = stop.clone();
            connections.spawn(async move {
                let mut made = 0;
                let assault = assault(port, number, &mut made);
                stop.run_until_cancelled(assault).await;
                made
            });
        }
        let mut config = LiveConfig::new(PeerKey::generate()?.for_network(), cluster.genesis().network_id());
        config.topics.clear();
        let (network, _inbound, live) =
            Live::start(config).await.map_err(|error| Failure::of(Exit::Other, &error))?;
        let mut event_loop = JoinSet::new();
        event_loop.spawn(live.run(stop.clone()));
        network.add_peer(member.peer, member.addresses, PeerRole::Other);
        let mut requests = JoinSet::new();
        for number in 0..REQUESTS_IN_FLIGHT {
            let (network, stop, peer) = (network.clone(), stop.clone(), member.peer);
            requests.spawn(async move {
                let mut dice = ChaCha8Rng::seed_from_u64(number);
                let mut sent = 0;
                while !stop.is_cancelled() {
                    let mut garbage = vec![0; 1024];
                    dice.fill_bytes(&mut garbage);
                    let channel = if number.is_multiple_of(2) { Channel::Control } else { Channel::Bulk };
                    let frame = Frame::new(garbage.clone(), garbage);
                    let answer = network.request(peer, channel, frame, Duration::from_secs(5)).await;
                    sent += 1;
                    if answer.is_err() {
                        // It is refused now; whoever does not even pause is refused for longer.
                        sleep(PAUSE).await;
                    }
                }
                sent
            });
        }
        Ok(Self { stop, connections, requests, event_loop })
    }

    /// Ends it; returns how many connections were made, and how many requests sent.
    async fn stop(mut self) -> (usize, usize) {
        self.stop.cancel();
        let (mut connected, mut sent) = (0, 0);
        while let Some(made) = self.connections.join_next().await {
            connected += made.unwrap_or(0);
        }
        while let Some(more) = self.requests.join_next().await {
            sent += more.unwrap_or(0);
        }
        while self.event_loop.join_next().await.is_some() {}
        (connected, sent)
    }
}

/// A connection, and another one whenever it ends.
async fn assault(port: u16, number: u64, made: &mut usize) {
    let mut dice = ChaCha8Rng::seed_from_u64(number);
    loop {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
            sleep(SLOW).await;
            continue;
        };
        *made += 1;
        let ended = match number % 3 {
            // Nothing is sent, until the node hangs up.
            0 => stream.readable().await,
            1 => loop {
                if let Err(error) = stream.write_all(&[0]).await {
                    break Err(error);
                }
                sleep(SLOW).await;
            },
            _ => {
                let mut garbage = vec![0; GARBAGE_BYTES];
                dice.fill_bytes(&mut garbage);
                stream.write_all(&garbage).await
            }
        };
        tracing::trace!(number, ?ended, "a connection of the flood ended");
        sleep(PAUSE).await;
    }
}

/// Lets this process have so many files open.
fn allow_files(wanted: u64) -> Result<(), Failure> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).map_err(|error| {
        Failure::io(format!("cannot have {wanted} files open"), &error.into())
            .hint("raise ulimit -n, or flood with fewer --connections")
    })
}

/// The most memory that node-0 has had.
fn peak_memory(cluster: &Cluster) -> Result<u64, Failure> {
    let manifest = cluster.manifest()?;
    let process = manifest.nodes.first().and_then(|node| node.process.as_ref());
    process.ok_or_else(|| Failure::new(Exit::Broken, "node-0 is not running"))?.peak_memory()
}

impl Document {
    fn text(&self) -> String {
        let mut table =
            Table::new(&["64 KIB", "STORES", "P50 MS", "P99 MS", "READS", "P50 MS", "P99 MS", "FAILED"]);
        for (name, Measured { store, read, failed }) in [("before", &self.before), ("flooded", &self.flooded)]
        {
            table.row([
                name.to_owned(),
                store.operations.to_string(),
                format!("{:.0}", store.p50_ms),
                format!("{:.0}", store.p99_ms),
                read.operations.to_string(),
                format!("{:.0}", read.p50_ms),
                format!("{:.0}", read.p99_ms),
                failed.to_string(),
            ]);
        }
        format!(
            "{table}\n{} connections held, {} made, {} malformed requests in {} s; node-0 had at most {} before and {} in the flood; {}",
            self.connections,
            self.connected,
            self.malformed,
            self.seconds,
            Bytes(self.memory_before),
            Bytes(self.memory_flooded),
            if self.is_healthy { "all nodes are healthy" } else { "NOT all nodes are healthy" }
        )
    }
}
