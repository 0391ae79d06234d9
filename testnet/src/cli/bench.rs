//! `floe-testnet bench`: what the ledger costs and gives, measured on real processes.

use std::{fs, sync::Arc, time::Duration};

use clap::value_parser;
use node::{
    cli::{
        Connection, Exit, Failure, Output,
        output::{Table, note},
    },
    client::Client,
};
use protocol::{
    genesis::GenesisAccount,
    ledger::{signature::SigningKey, transaction::Action},
    quorum::N_SHARDS_MIN,
};
use serde::Serialize;
use swarm::Network;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::flood;
use crate::cluster::{Cluster, ClusterConfig, Fate, ProcessId};

/// How long the network may take to find together, and how long its ledgers may take to come to one height.
const LIMIT: Duration = Duration::from_secs(120);
/// Credits of each account: more than it can spend.
const CREDITS: u64 = 1_000_000;

/// What to measure.
#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The ledger: idle, transfers one by one and from many at once, and with as many nodes killed as may fail
    Ledger(Args),
    /// A node that a hostile peer attacks on every protocol, and what clients of the network notice
    Flood(flood::Args),
}

/// Arguments of `bench ledger`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Sizes of the networks, one after the other; each node has one shard
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [4, 7],
        value_parser = value_parser!(u16).range(i64::from(N_SHARDS_MIN)..=100))]
    nodes: Vec<u16>,
    /// How long each of the four measurements takes, in seconds
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Accounts that make transfers at the same time, each its next one once the last is proven
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = value_parser!(u16).range(1..=4096))]
    accounts: u16,
}

/// What is printed.
#[derive(Clone, Debug, Serialize)]
struct Document {
    /// Cores of this machine, which all nodes and the client share.
    cores: usize,
    /// How long each measurement took.
    seconds: u64,
    networks: Vec<Measured>,
}

/// One network.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    n_nodes: u16,
    /// Nodes that may fail.
    n_faulty: usize,
    idle: Idle,
    /// Transfers one after the other.
    single: Latency,
    /// Transfers of many accounts at once.
    load: Load,
    /// Transfers one after the other, with as many nodes killed as may fail.
    degraded: Latency,
}

/// Nothing happens.
#[derive(Clone, Debug, Serialize)]
struct Idle {
    /// Processor time of a node, in percent of one core: the mean of all nodes.
    cpu_percent_per_node: f64,
    /// Bytes a second on the loopback interface, with all headers, acknowledgements and other programs' traffic.
    loopback_bytes_per_second: f64,
}

/// From the call of the client to the proof that the transfer is executed: the nonce is read with proofs of more than `f`
/// nodes, the transfer is sent, and the answer proves that the nonce has moved.
#[derive(Clone, Debug, Serialize)]
struct Latency {
    transfers: usize,
    /// Transfers that the client did not see executed.
    failed: usize,
    /// What it said of the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Load {
    accounts: u16,
    transfers_per_second: f64,
    latency: Latency,
    /// Processor time of all nodes together for each transfer.
    nodes_cpu_ms_per_transfer: f64,
    /// Processor time of the client for each transfer: signing, and checking certificates and proofs.
    client_cpu_ms_per_transfer: f64,
}

pub(super) async fn execute(command: Command, output: Output) -> Result<(), Failure> {
    let args = match command {
        Command::Flood(args) => return Box::pin(flood::execute(args, output)).await,
        Command::Ledger(args) => args,
    };
    let mut networks = Vec::new();
    for n_nodes in &args.nodes {
        networks.push(measure(*n_nodes, &args).await?);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let document = Document { cores, seconds: args.seconds, networks };
    output.data(&document, document.table())
}

/// The key of an account; the network lives in a temporary directory and no longer than the measurement.
fn key(index: u16) -> SigningKey {
    let [high, low] = index.to_be_bytes();
    let mut secret = [0xB5; 32];
    (secret[0], secret[1]) = (high, low);
    SigningKey::from_secret(&secret)
}

async fn measure(n_nodes: u16, args: &Args) -> Result<Measured, Failure> {
    let dir = tempfile::Builder::new()
        .prefix("floe-bench-")
        .tempdir()
        .map_err(|error| Failure::io("cannot create a temporary directory", &error))?;
    let config = ClusterConfig { n_nodes, n_shards: n_nodes, base_port: None };
    let account = |index| GenesisAccount { account: key(index).account(), balance: CREDITS };
    let accounts = (0..args.accounts).map(account).collect();
    let dir = dir.path().join("testnet");
    let cluster = Cluster::create_endowed(&dir, &config, Fate::WithParent, accounts).await?;
    // Whatever happens, no node outlives this value.
    let mut bench = Bench { cluster, seconds: Duration::from_secs(args.seconds) };
    note(format_args!("{n_nodes} nodes: starting"));
    bench.cluster.start_all().await?;
    let observer = bench.cluster.observe().await?;
    bench.cluster.wait_healthy(&observer, LIMIT, |_| {}).await?;
    let connection = Connection::start(Arc::clone(bench.cluster.genesis()), Default::default()).await?;
    let client = connection.client();
    note(format_args!("{n_nodes} nodes: transfers one by one"));
    let single = bench.one_by_one(client).await?;
    note(format_args!("{n_nodes} nodes: transfers of {} accounts at once", args.accounts));
    let load = bench.all_at_once(client, args.accounts).await?;
    note(format_args!("{n_nodes} nodes: idle"));
    bench.wait_equal(&observer).await?;
    let idle = bench.idle().await?;
    let n_faulty = usize::from(bench.cluster.max_faulty());
    note(format_args!("{n_nodes} nodes: transfers one by one, {n_faulty} killed"));
    for node in 0..n_faulty {
        bench.cluster.kill(node).await?;
    }
    let degraded = bench.one_by_one(client).await?;
    connection.close().await;
    observer.close().await;
    bench.cluster.stop_all().await?;
    Ok(Measured { n_nodes, n_faulty, idle, single, load, degraded })
}

struct Bench {
    cluster: Cluster,
    seconds: Duration,
}

impl Bench {
    /// Waits until all ledgers are equal.
    async fn wait_equal(&mut self, observer: &Connection) -> Result<(), Failure> {
        let what = "waiting for the ledgers to be equal";
        self.cluster
            .wait_health(observer, what, LIMIT, |members| {
                let mut heads = members.iter().map(|member| {
                    member.report.as_ref().ok().map(|health| (health.ledger_height, health.ledger_root))
                });
                let first = heads.next().flatten()?;
                heads.all(|head| head == Some(first)).then_some(())
            })
            .await
    }

    /// Processor time of all nodes.
    fn cpu_time(&self) -> Result<Duration, Failure> {
        let manifest = self.cluster.manifest()?;
        let processes = manifest.nodes.iter().filter_map(|node| node.process.as_ref());
        processes.map(ProcessId::cpu_time).sum()
    }

    async fn idle(&self) -> Result<Idle, Failure> {
        let (start, cpu, bytes) = (Instant::now(), self.cpu_time()?, loopback_bytes()?);
        sleep(self.seconds).await;
        let seconds = start.elapsed().as_secs_f64();
        let (cpu, bytes) = (self.cpu_time()?.saturating_sub(cpu), loopback_bytes()?.saturating_sub(bytes));
        let cpu_percent = 100.0 * cpu.as_secs_f64() / seconds;
        Ok(Idle {
            cpu_percent_per_node: cpu_percent / float(self.cluster.n_nodes()),
            loopback_bytes_per_second: float(usize::try_from(bytes).unwrap_or(usize::MAX)) / seconds,
        })
    }

    /// Transfers of one account.
    async fn one_by_one<N: Network>(&self, client: &Client<N>) -> Result<Latency, Failure> {
        spend(client, &key(0), Instant::now() + self.seconds).await.latency()
    }

    /// Transfers of all accounts.
    async fn all_at_once<N: Network>(&self, client: &Client<N>, n: u16) -> Result<Load, Failure> {
        let client_process = ProcessId::of_this_process()?;
        let (start, nodes_cpu, client_cpu) = (Instant::now(), self.cpu_time()?, client_process.cpu_time()?);
        let mut tasks = JoinSet::new();
        for index in 0..n {
            let client = client.clone();
            let end = start + self.seconds;
            tasks.spawn(async move { spend(&client, &key(index), end).await });
        }
        let mut spent = Spent::default();
        while let Some(task) = tasks.join_next().await {
            let task = task.map_err(|error| Failure::of(Exit::Other, &error))?;
            spent.took.extend(task.took);
            spent.failures.extend(task.failures);
        }
        // What was under way at the end is counted, and so is the time that it took.
        let seconds = start.elapsed().as_secs_f64();
        let n_transfers = float(spent.took.len());
        let per_transfer = |cpu: Duration| 1000.0 * cpu.as_secs_f64() / n_transfers;
        Ok(Load {
            accounts: n,
            transfers_per_second: n_transfers / seconds,
            nodes_cpu_ms_per_transfer: per_transfer(self.cpu_time()?.saturating_sub(nodes_cpu)),
            client_cpu_ms_per_transfer: per_transfer(client_process.cpu_time()?.saturating_sub(client_cpu)),
            latency: spent.latency()?,
        })
    }
}

/// How long transfers took, and what was said of those that failed.
#[derive(Debug, Default)]
struct Spent {
    took: Vec<Duration>,
    failures: Vec<String>,
}

/// Makes transfers of one account until `end`.
async fn spend<N: Network>(client: &Client<N>, key: &SigningKey, end: Instant) -> Spent {
    let to = self::key(u16::MAX).account();
    let mut spent = Spent::default();
    while Instant::now() < end {
        let start = Instant::now();
        match client.submit(Action::Transfer { to, amount: 1 }, key).await {
            Ok(_) => spent.took.push(start.elapsed()),
            Err(error) => spent.failures.push(Failure::of(Exit::Unavailable, &error).to_string()),
        }
    }
    spent
}

impl Spent {
    fn latency(mut self) -> Result<Latency, Failure> {
        if self.took.is_empty() {
            let why = self.failures.first().map_or("nobody said why", String::as_str);
            let what = format!("cannot measure: no transfer was executed: {why}");
            return Err(Failure::new(Exit::Unavailable, what));
        }
        self.took.sort_unstable();
        let ms = |percent| percentile(&self.took, percent).as_secs_f64() * 1000.0;
        let (transfers, failed) = (self.took.len(), self.failures.len());
        let (p50_ms, p99_ms) = (ms(50), ms(99));
        let first_failure = self.failures.into_iter().next();
        if let Some(failure) = &first_failure {
            note(format_args!("{failed} transfers failed, the first because: {failure}"));
        }
        Ok(Latency { transfers, failed, first_failure, p50_ms, p99_ms })
    }
}

/// The least of sorted values that so many percent of them do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn float(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Bytes sent on the loopback interface so far. Source: `proc_net_dev(5)`: of the numbers behind the name, the ninth.
fn loopback_bytes() -> Result<u64, Failure> {
    let failed = |error| Failure::io("cannot tell the traffic of the loopback interface", &error);
    let text = fs::read_to_string("/proc/net/dev").map_err(failed)?;
    parse_loopback(&text).ok_or_else(|| failed(std::io::ErrorKind::InvalidData.into()))
}

fn parse_loopback(text: &str) -> Option<u64> {
    let numbers = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
    numbers.split_whitespace().nth(8)?.parse().ok()
}

/// One line of the table.
type Row = (&'static str, fn(&Measured) -> String);

/// The lines of the table.
const ROWS: [Row; 12] = [
    ("idle: processor time of a node", |it| format!("{:.2} %", it.idle.cpu_percent_per_node)),
    ("idle: on the loopback interface", |it| format!("{:.0} B/s", it.idle.loopback_bytes_per_second)),
    ("one by one: transfers", |it| counted(&it.single)),
    ("one by one: p50", |it| format!("{:.0} ms", it.single.p50_ms)),
    ("one by one: p99", |it| format!("{:.0} ms", it.single.p99_ms)),
    ("at once: transfers", |it| format!("{} of {} accounts", counted(&it.load.latency), it.load.accounts)),
    ("at once: transfers a second", |it| format!("{:.0}", it.load.transfers_per_second)),
    ("at once: p50, p99", |it| format!("{:.0}, {:.0} ms", it.load.latency.p50_ms, it.load.latency.p99_ms)),
    ("at once: processor time of all nodes for each", |it| {
        format!("{:.2} ms", it.load.nodes_cpu_ms_per_transfer)
    }),
    ("at once: processor time of the client for each", |it| {
        format!("{:.2} ms", it.load.client_cpu_ms_per_transfer)
    }),
    ("one by one, f killed: transfers", |it| format!("{}, f = {}", counted(&it.degraded), it.n_faulty)),
    ("one by one, f killed: p50, p99", |it| {
        format!("{:.0}, {:.0} ms", it.degraded.p50_ms, it.degraded.p99_ms)
    }),
];

fn counted(latency: &Latency) -> String {
    match latency.failed {
        0 => latency.transfers.to_string(),
        failed => format!("{} and {failed} failed", latency.transfers),
    }
}

impl Document {
    fn table(&self) -> Table {
        let sizes: Vec<String> = self.networks.iter().map(|it| format!("{} NODES", it.n_nodes)).collect();
        let first = format!("{} CORES, {} S EACH", self.cores, self.seconds);
        let headings: Vec<&str> =
            std::iter::once(first.as_str()).chain(sizes.iter().map(String::as_str)).collect();
        let mut table = Table::new(&headings);
        for (name, cell) in ROWS {
            table.row(std::iter::once(name.to_owned()).chain(self.networks.iter().map(cell)));
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_among_the_values() {
        let ms: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&ms, 50), Duration::from_millis(100));
        assert_eq!(percentile(&ms, 99), Duration::from_millis(198));
        assert_eq!(percentile(&ms[..1], 50), ms[0]);
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn bytes_sent_on_loopback_are_found() {
        let text = "Inter-|  Receive  | Transmit\n face |bytes\n  eth0: 9 9 9 9 9 9 9 9 9 9\n    lo: 1 2 3 4 5 6 7 8 4711 10 11\n";
        assert_eq!(parse_loopback(text), Some(4711));
        assert_eq!(parse_loopback("lo: 1 2"), None);
    }
}
