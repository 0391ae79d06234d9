//! `floe-testnet up`.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use node::cli::{Connection, EpochArgs, Exit, Failure, Output, interrupted, output::note};
use protocol::ledger::parameters::Parameters;
use serde::Serialize;
use tokio::time::sleep;

use crate::cluster::{Cluster, ClusterConfig, Fate, Manifest, ProcessState, Terms, client_file};

/// How long a network may take to find together. A machine that starts a hundred nodes at once is slow.
const UP_LIMIT: Duration = Duration::from_secs(120);
/// Stake of the faucet behind each node of a network with epochs, unless more is needed to be selected: others can have
/// more or less, and only a small part of what the faucet has.
const NODE_STAKE: u64 = 1_000_000;
/// How often the status line is renewed.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory: empty, or a testnet made before, whose nodes are started again
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Number of nodes [default: 7]
    #[arg(long, value_name = "N")]
    nodes: Option<u16>,
    /// Number of shards, spread evenly over the nodes [default: 13]
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// The first of consecutive TCP ports [default: any free ones]
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    #[command(flatten)]
    epochs: EpochArgs,
    /// Return once the network is up; it runs until `floe-testnet down`
    #[arg(long)]
    detach: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    dir: String,
    client: String,
    n_shards: u16,
    nodes: Vec<Node>,
}

#[derive(Debug, Serialize)]
struct Node {
    node: usize,
    name: String,
    port: u16,
    pid: Option<i32>,
}

pub(super) async fn execute(args: Args, output: Output) -> Result<(), Failure> {
    let detach = args.detach;
    let mut cluster = open(args).await?;
    let running = async {
        let observer = start(&mut cluster).await?;
        announce(&cluster, output)?;
        if !detach {
            watch(&mut cluster, &observer).await?;
        }
        observer.close().await;
        Ok(())
    };
    let interrupted = tokio::select! {
        biased;
        interrupted = interrupted() => Err(interrupted),
        result = running => result,
    };
    match interrupted {
        Ok(()) if detach => Ok(()),
        // Being told to stop is how a network in the foreground ends; before it is up, it is a failure.
        result => {
            note("stopping the nodes");
            cluster.stop_all().await?;
            match result {
                Err(failure) if matches!(failure.exit(), Exit::Signal(_)) && !detach => Ok(()),
                result => result,
            }
        }
    }
}

async fn open(args: Args) -> Result<Cluster, Failure> {
    let fate = if args.detach { Fate::Detached } else { Fate::WithParent };
    let Some(manifest) = Manifest::load(&args.dir)? else {
        let config = ClusterConfig {
            n_nodes: args.nodes.unwrap_or(7),
            n_shards: args.shards.unwrap_or(13),
            base_port: args.base_port,
        };
        let parameters = args.epochs.apply(Parameters::default());
        let node_stake = if parameters.epoch_ms > 0 { NODE_STAKE.max(parameters.min_stake) } else { 0 };
        let terms = Terms { parameters, node_stake, ..Terms::default() };
        return Cluster::create_on_terms(&args.dir, &config, fate, terms).await;
    };
    let n_nodes = manifest.nodes.len();
    let differs = args.nodes.is_some_and(|nodes| usize::from(nodes) != n_nodes)
        || args.shards.is_some_and(|shards| shards != manifest.n_shards)
        || args.base_port.is_some()
        || !args.epochs.is_empty();
    if differs {
        let what =
            format!("the testnet has {n_nodes} nodes and {} shards, on ports of its own", manifest.n_shards);
        return Err(Failure::new(Exit::Usage, what)
            .hint("leave out --nodes, --shards, --base-port and what is said of epochs, or choose another directory"));
    }
    Cluster::open(&args.dir, fate)
}

async fn start(cluster: &mut Cluster) -> Result<Connection, Failure> {
    let n_nodes = cluster.n_nodes();
    note(format_args!("starting {n_nodes} nodes in {}", cluster.dir().display()));
    cluster.start_all().await?;
    let observer = cluster.observe().await?;
    let mut last = 0;
    let progress = |healthy| {
        if healthy != last {
            note(format_args!("{healthy} of {n_nodes} nodes are healthy"));
            last = healthy;
        }
    };
    cluster.wait_healthy(&observer, UP_LIMIT, progress).await?;
    Ok(observer)
}

fn announce(cluster: &Cluster, output: Output) -> Result<(), Failure> {
    let manifest = cluster.manifest()?;
    let client = client_file(cluster.dir()).display().to_string();
    let nodes = manifest.nodes.into_iter().enumerate().map(|(node, entry)| Node {
        node,
        name: entry.name,
        port: entry.port,
        pid: entry.process.map(|process| process.pid),
    });
    let document = Document {
        dir: cluster.dir().display().to_string(),
        n_shards: manifest.n_shards,
        nodes: nodes.collect(),
        client,
    };
    let text = format!("the network is up; try: floe --network {} health", document.client);
    output.data(&document, text)
}

/// Shows how the network is until this future is dropped.
async fn watch(cluster: &mut Cluster, observer: &Connection) -> Result<(), Failure> {
    let in_place = std::io::stderr().is_terminal();
    let mut last = String::new();
    loop {
        let line = status_line(cluster, observer).await?;
        if in_place {
            // Back to the beginning of the line, and the rest of the old one away. Nobody listening is no error.
            let _ = write!(std::io::stderr().lock(), "\r{line}\x1b[K");
        } else if line != last {
            note(&line);
        }
        last = line;
        sleep(STATUS_INTERVAL).await;
    }
}

async fn status_line(cluster: &mut Cluster, observer: &Connection) -> Result<String, Failure> {
    let health = cluster.health(observer).await;
    let mut running = 0;
    for node in 0..cluster.n_nodes() {
        running += usize::from(cluster.state(node)? == ProcessState::Running);
    }
    let reports: Vec<_> = health.iter().filter_map(|member| member.report.as_ref().ok()).collect();
    let sum =
        |of: fn(&protocol::message::NodeHealth) -> u64| reports.iter().map(|report| of(report)).sum::<u64>();
    Ok(format!(
        "{running} running, {} answering, {} slivers held, {} missing",
        reports.len(),
        sum(|report| report.slivers_held),
        sum(|report| report.slivers_missing),
    ))
}
