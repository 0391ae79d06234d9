//! `floe-testnet bench flood`: what clients notice while one peer does its worst to a node.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes as Payload;
use clap::value_parser;
use node::{
    cli::{
        Connection, Exit, Failure, Output,
        output::{Bytes, Table, note},
    },
    client::{Client, StoreOptions, Stored},
    config::NodeConfig,
};
use protocol::{
    codec,
    committee::Committee,
    encoding::BlobShape,
    ids::SegmentIndex,
    ledger::signature::SigningKey,
    message::{RANGE_BYTES_MAX, Request, SliverAt},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use swarm::{
    Address, Network,
    address::Transport,
    live::hostile::{Assault, Attack, Counts, Deeds, Target},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    cluster::{Cluster, ClusterConfig, Fate, Observer, ProcessId, Terms},
    content::bytes_of,
    figures::{Latency, latency},
};

/// How long the network may take to find together, and an operation that is measured.
const LIMIT: Duration = Duration::from_secs(120);
/// How long a newcomer waits for its first answer; people give up before.
const JOIN_LIMIT: Duration = Duration::from_secs(20);
/// Pause between operations of the client that is measured.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of the blobs that it stores and reads.
const BLOB_BYTES: usize = 64 << 10;
/// Bytes of the blob whose slivers are asked for and not read: a sliver of it is longer than an answer.
const LONG_BLOB_BYTES: usize = 4 << 20;
/// Bytes that the attacked node may log a second: what attackers bring about at will must not fill its disk. This is 700 MB a day.
const LOGGED_MAX: u64 = 8 << 10;
/// Files that this process may need beside a connection each.
const FILES_SPARE: u64 = 1024;
/// A transport over which a node can be attacked. A hostile peer has an address of its own elsewhere, too; that of all others is
/// 127.0.0.1.
#[derive(Clone, Copy)]
struct Front {
    name: &'static str,
    transport: Transport,
    /// Where connections come from that come to no handshake.
    barring: IpAddr,
    /// Where those come from that do: those above keep out their neighbours, and would keep out these.
    speaking: IpAddr,
}

const FRONTS: [Front; 2] = [
    Front { name: "tcp", transport: Transport::Tcp, barring: source(66), speaking: source(67) },
    Front { name: "quic", transport: Transport::Quic, barring: source(68), speaking: source(69) },
];

const fn source(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, host))
}

/// Arguments of `bench flood`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Nodes of the network, with a shard each; the first of them is attacked
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u16).range(4..=31))]
    nodes: u16,
    /// Connections that are held without a handshake, or in the middle of one, over all attacks of this kind
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u16).range(4..=20_000))]
    connections: u16,
    /// Connections of each attack that begins with a handshake, over each transport, each with an identity of its own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u16).range(1..=20))]
    sessions: u16,
    /// What the hostile peer does
    #[arg(long, value_name = "ATTACK,...", value_delimiter = ',', value_parser = attack, default_values_t = Attack::ALL.map(Attack::name).map(str::to_owned), hide_default_value = true)]
    attacks: Vec<String>,
    /// Over what
    #[arg(long, value_name = "TRANSPORT,...", value_delimiter = ',', value_parser = FRONTS.map(|front| front.name), default_values = FRONTS.map(|front| front.name))]
    transports: Vec<String>,
    /// The floe program of the attacked node, if it is to be another one than this: to see what a version before bore
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// How long operations are measured before the attack, and in it, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// By how much the most memory that the attacked node ever had may grow in the attack, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    growth_max: u64,
}

/// Accepts the name of an attack.
fn attack(text: &str) -> Result<String, String> {
    let names = Attack::ALL.map(Attack::name);
    let is_known = names.contains(&text);
    is_known.then(|| text.to_owned()).ok_or_else(|| format!("expected one of {}", names.join(", ")))
}

/// What is printed.
#[derive(Clone, Debug, Serialize)]
struct Document {
    nodes: u16,
    connections: u16,
    sessions: u16,
    seconds: u64,
    /// Stores and reads of 64 KiB, and newcomers, before the attack.
    calm: Measured,
    /// The same in it.
    attacked: Measured,
    /// What was done in each way, by transport.
    attacks: BTreeMap<&'static str, BTreeMap<&'static str, Counts>>,
    /// Protocols that the node speaks, and is attacked on.
    protocols: Vec<String>,
    /// By how much the peak of memory may have grown.
    growth_max: u64,
    /// Memory of the attacked node once everything was over.
    memory_after: u64,
    /// All nodes were healthy when it was over.
    is_healthy: bool,
    /// Why the command fails; nothing if it does not.
    broken: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Measured {
    store: Latency,
    read: Latency,
    /// From the first packet of a client that the attacked node does not know, to that node's answer.
    join: Latency,
    failed: usize,
    /// What was said of the first that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
    /// Most memory that the attacked node has ever had, in bytes.
    memory_peak: u64,
    /// Most files and sockets that it was seen to have open.
    open_files: usize,
    /// Bytes that it logged meanwhile.
    logged: u64,
}

pub(super) async fn execute(args: Args, output: Output) -> Result<(), Failure> {
    allow_files(u64::from(args.connections) + FILES_SPARE)?;
    let dir = tempfile::Builder::new()
        .prefix("floe-flood-")
        .tempdir()
        .map_err(|error| Failure::io("cannot create a temporary directory", &error))?;
    let config = ClusterConfig { n_nodes: args.nodes, n_shards: args.nodes, base_port: None };
    let terms = Terms { adjust: Some(listen_on_both), ..Terms::default() };
    let dir = dir.path().join("testnet");
    let mut cluster = Cluster::create_on_terms(&dir, &config, Fate::WithParent, terms).await?;
    if let Some(program) = &args.program {
        cluster.run_with(0, program.clone());
    }
    cluster.start_all().await?;
    let observer = cluster.observe().await?;
    cluster.wait_healthy(&observer, LIMIT, |_| {}).await?;
    let connection = Connection::start(Arc::clone(cluster.genesis()), Default::default()).await?;
    let client = connection.client();
    let questions = questions(&cluster, client).await?;
    let seconds = Duration::from_secs(args.seconds);

    note("measuring before the attack");
    let calm = measure(client, &cluster, seconds, 0).await?;
    note(format_args!("{} attacks on node-0", args.attacks.len()));
    let assaults = begin(&cluster, &args, &questions).await?;
    let protocols = assaults.first().map(|(_, assault)| assault.protocols()).unwrap_or_default();
    let attacked = measure(client, &cluster, seconds, 1).await?;
    let mut deeds = Vec::new();
    for (transport, assault) in assaults {
        deeds.push((transport, assault.end().await));
    }
    note("waiting for all nodes to be healthy");
    let mut broken = broken(&deeds, (&calm, &attacked), (args.seconds, args.growth_max << 20));
    let is_healthy = match cluster.wait_healthy(&observer, LIMIT, |_| {}).await {
        Ok(()) => true,
        Err(failure) => {
            broken.push(failure.to_string());
            false
        }
    };
    let memory_after = if is_healthy { process(&cluster)?.memory()?.now } else { 0 };
    connection.close().await;
    observer.close().await;
    cluster.stop_all().await?;

    let Args { nodes, connections, sessions, seconds, growth_max, .. } = args;
    let mut attacks: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (transport, deeds) in &deeds {
        let counts = deeds.counts().into_iter().map(|(attack, counts)| (attack.name(), counts));
        attacks.entry(*transport).or_default().extend(counts);
    }
    let growth_max = growth_max << 20;
    let document = Document {
        nodes,
        connections,
        sessions,
        seconds,
        calm,
        attacked,
        attacks,
        protocols,
        growth_max,
        memory_after,
        is_healthy,
        broken,
    };
    output.data(&document, document.text())?;
    match &document.broken[..] {
        [] => Ok(()),
        broken => Err(Failure::new(Exit::Broken, broken.join("; "))),
    }
}

/// What was demanded and is not so.
fn broken(
    deeds: &[(&'static str, Deeds)],
    (calm, attacked): (&Measured, &Measured),
    (seconds, growth_max): (u64, u64),
) -> Vec<String> {
    // Whoever bore nothing has shown nothing.
    let mut broken: Vec<String> = deeds
        .iter()
        .flat_map(|(transport, deeds)| deeds.missing().into_iter().map(move |missing| (transport, missing)))
        .map(|(transport, missing)| format!("the attack over {transport} was none: {missing}"))
        .collect();
    for (when, measured) in [("before the attack", calm), ("in the attack", attacked)] {
        if let Some(first) = &measured.first_failure {
            broken.push(format!("{} operations failed {when}, the first: {first}", measured.failed));
        }
        for (what, latency) in
            [("store", measured.store), ("read", measured.read), ("newcomer", measured.join)]
        {
            if latency.operations == 0 {
                broken.push(format!("no {what} {when}"));
            }
        }
    }
    if attacked.logged > LOGGED_MAX.saturating_mul(seconds) {
        broken.push(format!("it logged {} in {seconds} s", Bytes(attacked.logged)));
    }
    let grown = attacked.memory_peak.saturating_sub(calm.memory_peak);
    if grown > growth_max {
        broken.push(format!("memory grew by {}, where {} may be", Bytes(grown), Bytes(growth_max)));
    }
    broken
}

/// Has a node of a testnet listen over QUIC, too.
fn listen_on_both(config: &mut NodeConfig) {
    let ports = config.network.listen.iter().map(Address::port).collect::<Vec<_>>();
    let over_quic = ports.iter().map(|port| Address::new(Ipv4Addr::LOCALHOST.into(), Transport::Quic, *port));
    config.network.listen.extend(over_quic);
}

/// Begins the attacks: over each transport first those with a handshake, then those that come to none and share the connections that
/// may be held.
async fn begin(
    cluster: &Cluster,
    args: &Args,
    questions: &[(String, Payload)],
) -> Result<Vec<(&'static str, Assault)>, Failure> {
    let port = cluster.manifest()?.nodes.first().map(|node| node.port);
    let port = port.ok_or_else(|| Failure::new(Exit::Broken, "the testnet has no node"))?;
    let node = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let wanted =
        Attack::ALL.into_iter().filter(|attack| args.attacks.iter().any(|name| name == attack.name()));
    let (barring, speaking): (Vec<Attack>, Vec<Attack>) = wanted.partition(|attack| attack.is_of_handshake());
    let is_wanted = |front: &Front| args.transports.iter().any(|name| name == front.name);
    let fronts: Vec<Front> = FRONTS.into_iter().filter(is_wanted).collect();
    let exist =
        fronts.iter().map(|front| barring.iter().filter(|attack| attack.is_over(front.transport)).count());
    let each = usize::from(args.connections).div_ceil(exist.sum::<usize>().max(1));
    let begin = async |Front { name, transport, .. }, source, attacks: &[Attack], n_workers| {
        let target = Target { node, transport, source, questions: questions.to_vec() };
        let attacks: Vec<_> = attacks.iter().map(|attack| (*attack, n_workers)).collect();
        let assault = Assault::begin(target, &attacks).await;
        assault
            .map(|assault| (name, assault))
            .map_err(|error| Failure::io(format!("cannot attack node-0 over {name}"), &error))
    };
    let mut assaults = Vec::new();
    for front in &fronts {
        assaults.push(begin(*front, front.speaking, &speaking, usize::from(args.sessions)).await?);
    }
    for front in &fronts {
        assaults.push(begin(*front, front.barring, &barring, each).await?);
    }
    Ok(assaults)
}

/// Questions that node-0 answers at length: a range of a sliver that it holds, and how it is.
async fn questions<N: Network>(
    cluster: &Cluster,
    client: &Client<N>,
) -> Result<Vec<(String, Payload)>, Failure> {
    let stored = store(client, bytes_of(0, 2, LONG_BLOB_BYTES)).await.map_err(|reason| {
        Failure::new(Exit::Unavailable, format!("cannot store what is to be asked for: {reason}"))
    })?;
    let sliver = a_sliver(cluster.genesis().committee(), cluster.member(0)?.peer, &stored);
    let at = sliver.ok_or_else(|| Failure::new(Exit::Broken, "node-0 holds no sliver of what was stored"))?;
    let len = u32::try_from(RANGE_BYTES_MAX).unwrap_or(u32::MAX);
    Ok([("bulk", Request::FetchSliver { at, offset: 0, len }), ("control", Request::Health)]
        .map(|(channel, request)| (channel.to_owned(), codec::encode(&request).into()))
        .into())
}

/// A sliver that a member holds of a blob.
fn a_sliver(committee: &Committee, member: protocol::PeerId, stored: &Stored) -> Option<SliverAt> {
    let (blob_id, segment) = (stored.blob_id, SegmentIndex(0));
    let shape = BlobShape::new(committee.n_shards(), stored.size).ok()?.segment(segment).ok()?;
    let node = committee.index_of(&member)?;
    let (pair, axis) = committee.slivers_of(node, (blob_id, segment), shape).next()?;
    Some(SliverAt { blob_id, segment, pair, axis })
}

async fn store<N: Network>(client: &Client<N>, bytes: Vec<u8>) -> Result<Stored, String> {
    let key = SigningKey::from_secret(&[0xF1; 32]);
    let store = client.store(Arc::new(bytes), &key, StoreOptions::default(), Arc::new(|_| {}));
    match timeout(LIMIT, store).await {
        Ok(stored) => stored.map_err(|error| Failure::of(Exit::Unavailable, &error).to_string()),
        Err(_) => Err("a store took too long".to_owned()),
    }
}

async fn read<N: Network>(client: &Client<N>, stored: &Stored, bytes: &[u8]) -> Result<(), String> {
    match timeout(LIMIT, client.read(stored.blob_id, Vec::new(), Arc::new(|_| {}))).await {
        Ok(Ok((_, read))) if read == bytes => Ok(()),
        Ok(Ok(_)) => Err("a read returned other bytes than were stored".to_owned()),
        Ok(Err(error)) => Err(Failure::of(Exit::Unavailable, &error).to_string()),
        Err(_) => Err("a read took too long".to_owned()),
    }
}

/// Asks node-0 how it is, as somebody whom it has never seen.
async fn join(cluster: &Cluster) -> Result<(), String> {
    let said = |failure: Failure| failure.to_string();
    let member = cluster.member(0).map_err(said)?;
    let observer = Observer::start(cluster.genesis(), JOIN_LIMIT).await.map_err(said)?;
    observer.introduce(member.peer, member.addresses);
    // One attempt may meet a moment in which too many arrive; a client makes more than one, too.
    let answered = async {
        while observer.health(member.peer).await.is_none() {
            sleep(PAUSE).await;
        }
    };
    let is_answered = timeout(JOIN_LIMIT, answered).await.is_ok();
    observer.close().await;
    if is_answered { Ok(()) } else { Err("node-0 did not answer a newcomer".to_owned()) }
}

/// Stores, reads and joins one after the other for a while.
async fn measure<N: Network>(
    client: &Client<N>,
    cluster: &Cluster,
    limit: Duration,
    phase: u64,
) -> Result<Measured, Failure> {
    let process = process(cluster)?;
    let log = cluster.node_dir(0).join("node.log");
    let log_bytes = || fs::metadata(&log).map_or(0, |log| log.len());
    let (mut stores, mut reads, mut joins, mut failures) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut open_files, logged, began) = (0, log_bytes(), Instant::now());
    for number in 0.. {
        if began.elapsed() >= limit {
            break;
        }
        open_files = open_files.max(process.open_files()?);
        let bytes = bytes_of(phase, number, BLOB_BYTES);
        let start = Instant::now();
        let stored = store(client, bytes.clone()).await;
        stores.push(start.elapsed());
        match stored {
            Ok(stored) => {
                let start = Instant::now();
                failures.extend(read(client, &stored, &bytes).await.err());
                reads.push(start.elapsed());
            }
            Err(failure) => failures.push(failure),
        }
        let start = Instant::now();
        failures.extend(join(cluster).await.err());
        joins.push(start.elapsed());
        sleep(PAUSE).await;
    }
    Ok(Measured {
        store: latency(stores.into_iter()),
        read: latency(reads.into_iter()),
        join: latency(joins.into_iter()),
        failed: failures.len(),
        first_failure: failures.into_iter().next(),
        memory_peak: process.memory()?.peak,
        open_files,
        logged: log_bytes().saturating_sub(logged),
    })
}

/// Lets this process have so many files open.
fn allow_files(wanted: u64) -> Result<(), Failure> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).map_err(|error| {
        Failure::io(format!("cannot have {wanted} files open"), &error.into())
            .hint("raise ulimit -n, or attack with fewer --connections")
    })
}

/// The process of node-0.
fn process(cluster: &Cluster) -> Result<ProcessId, Failure> {
    let node = cluster.manifest()?.nodes.into_iter().next();
    node.and_then(|node| node.process).ok_or_else(|| Failure::new(Exit::Broken, "node-0 is not running"))
}

impl Document {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            "64 KIB", "STORES", "P50 MS", "P99 MS", "READS", "P50 MS", "P99 MS", "JOINS", "P50 MS", "P99 MS",
            "FAILED", "MEMORY", "FILES", "LOGGED",
        ]);
        for (name, measured) in [("calm", &self.calm), ("attacked", &self.attacked)] {
            let latencies = [measured.store, measured.read, measured.join].into_iter().flat_map(|latency| {
                let Latency { operations, p50_ms, p99_ms } = latency;
                [operations.to_string(), format!("{p50_ms:.0}"), format!("{p99_ms:.0}")]
            });
            let rest = [
                measured.failed.to_string(),
                Bytes(measured.memory_peak).to_string(),
                measured.open_files.to_string(),
                Bytes(measured.logged).to_string(),
            ];
            table.row(std::iter::once(name.to_owned()).chain(latencies).chain(rest));
        }
        let mut done = Table::new(&["ATTACK", "OVER", "CONNECTIONS", "STREAMS", "SENT", "MESSAGES"]);
        let attacks =
            self.attacks.iter().flat_map(|(over, attacks)| attacks.iter().map(move |it| (over, it)));
        for (over, (attack, counts)) in attacks {
            let Counts { connections, streams, bytes, messages } = counts;
            let messages: Vec<String> = messages.iter().map(|(label, n)| format!("{label} {n}")).collect();
            let cells = [connections.to_string(), streams.to_string(), Bytes(*bytes).to_string()];
            let names = [*attack, *over].map(str::to_owned).into_iter();
            done.row(names.chain(cells).chain([messages.join(", ")]));
        }
        format!(
            "{table}\n{done}\nnode-0 has {} now; {}",
            Bytes(self.memory_after),
            if self.is_healthy { "all nodes are healthy" } else { "NOT all nodes are healthy" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(memory_peak: u64) -> Measured {
        let took = latency(std::iter::once(Duration::from_millis(1)));
        Measured {
            store: took,
            read: took,
            join: took,
            failed: 0,
            first_failure: None,
            memory_peak,
            open_files: 1,
            logged: 0,
        }
    }

    #[test]
    fn what_is_not_as_demanded_is_named() {
        let none = [("tcp", Deeds::of([]))];
        assert_eq!(broken(&none, (&measured(10), &measured(20)), (1, 10)), [""; 0]);
        assert_eq!(broken(&none, (&measured(10), &measured(21)), (1, 10)).len(), 1);
        assert_eq!(broken(&none, (&measured(10), &measured(9)), (1, 10)), [""; 0]);
        let talking = Measured { logged: 3 * LOGGED_MAX, ..measured(10) };
        assert_eq!(broken(&none, (&measured(10), &talking), (3, 10)), [""; 0]);
        assert_eq!(broken(&none, (&measured(10), &talking), (2, 10)).len(), 1);
        let failed = Measured {
            failed: 1,
            first_failure: Some("late".to_owned()),
            join: Latency::default(),
            ..measured(1)
        };
        assert_eq!(
            broken(&none, (&measured(1), &failed), (1, 10)),
            ["1 operations failed in the attack, the first: late", "no newcomer in the attack"]
        );
        assert!(
            !broken(&[("tcp", Deeds::of([Attack::Silent]))], (&measured(1), &measured(1)), (1, 10))
                .is_empty()
        );
    }

    #[test]
    fn attacks_go_by_their_names() {
        assert!(attack("loris").is_ok());
        assert!(attack("lorises").unwrap_err().contains("loris, "));
    }

    #[test]
    fn the_attacked_node_is_reached_over_both_transports() {
        let mut config = NodeConfig::default();
        config.network.listen.truncate(1);
        listen_on_both(&mut config);
        let [tcp, quic] = &config.network.listen[..] else { panic!("{:?}", config.network.listen) };
        assert_eq!((tcp.transport(), quic.transport()), (Transport::Tcp, Transport::Quic));
        assert_eq!(tcp.port(), quic.port());
    }
}
