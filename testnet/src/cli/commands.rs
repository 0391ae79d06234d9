//! The commands that look at a testnet, or change one node of it.

use std::{path::Path, time::Duration};

use node::cli::{
    Exit, Failure, Output, load_key,
    output::{Bytes, Table},
    submit,
};
use protocol::{AccountId, ledger::transaction::Action, message::NodeHealth};
use serde::Serialize;

use super::SignalName;
use crate::cluster::{Cluster, Fate, NodeEntry, ProcessState, faucet_file};

/// How long a node may take from its start to its first answer, with a store of a few gigabytes to open.
const START_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize)]
struct Stopped {
    stopped: Vec<usize>,
    killed: Vec<usize>,
}

pub(super) async fn down(dir: &Path, output: Output) -> Result<(), Failure> {
    let mut cluster = Cluster::open(dir, Fate::Detached)?;
    let (stopped, killed) = cluster.stop_all().await?;
    let text = format!("stopped {} nodes, killed {}", stopped.len(), killed.len());
    output.data(&Stopped { stopped, killed }, text)
}

#[derive(Debug, Serialize)]
struct Process {
    node: usize,
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<&'static str>,
}

pub(super) async fn kill(dir: &Path, node: usize, signal: SignalName, output: Output) -> Result<(), Failure> {
    let mut cluster = Cluster::open(dir, Fate::Detached)?;
    let process = cluster.signal(node, signal.signal()).await?;
    let name = match signal {
        SignalName::Kill => "KILL",
        SignalName::Stop => "STOP",
        SignalName::Cont => "CONT",
        SignalName::Term => "TERM",
    };
    let text = format!("sent {name} to node-{node}, process {}", process.pid);
    output.data(&Process { node, pid: process.pid, signal: Some(name) }, text)
}

pub(super) async fn start(dir: &Path, node: usize, wipe: bool, output: Output) -> Result<(), Failure> {
    let mut cluster = Cluster::open(dir, Fate::Detached)?;
    if wipe {
        cluster.wipe(node).await?;
    }
    let process = cluster.start(node).await?;
    let observer = cluster.observe().await?;
    cluster.wait_reachable(&observer, node, START_LIMIT).await?;
    observer.close().await;
    let text = format!("node-{node} runs as process {}", process.pid);
    output.data(&Process { node, pid: process.pid, signal: None }, text)
}

pub(super) async fn faucet(
    dir: &Path,
    (to, amount): (AccountId, u64),
    output: Output,
) -> Result<(), Failure> {
    let cluster = Cluster::open(dir, Fate::Detached)?;
    let path = faucet_file(cluster.dir());
    if !path.exists() {
        let what = format!("{} has no faucet: it was made by an earlier version", cluster.dir().display());
        return Err(Failure::new(Exit::NotFound, what).hint("make another with: floe-testnet up --dir DIR"));
    }
    let key = load_key(&path)?;
    let connection = cluster.connect().await?;
    let what = format!("cannot give {amount} credits to {to}");
    let result = submit(&connection, &key, (&what, Action::Transfer { to, amount }), output).await;
    connection.close().await;
    result
}

#[derive(Debug, Serialize)]
struct Status {
    dir: String,
    n_shards: u16,
    nodes: Vec<NodeStatus>,
}

#[derive(Debug, Serialize)]
struct NodeStatus {
    node: usize,
    name: String,
    port: u16,
    pid: Option<i32>,
    process: ProcessState,
    reachable: bool,
    /// Shards that it says it answers for.
    shards: Option<u16>,
    slivers_held: Option<u64>,
    slivers_missing: Option<u64>,
    repair_bytes_received: Option<u64>,
    repair_bytes_regained: Option<u64>,
}

pub(super) async fn status(dir: &Path, output: Output) -> Result<(), Failure> {
    let mut cluster = Cluster::open(dir, Fate::Detached)?;
    let manifest = cluster.manifest()?;
    let health = cluster.health_of_all().await?;
    let mut nodes = Vec::new();
    for (node, entry) in manifest.nodes.iter().enumerate().filter(|(_, entry)| !entry.is_removed) {
        nodes.push(node_status(node, entry, cluster.state(node)?, health.get(&node)));
    }
    let table = table(&nodes);
    output
        .data(&Status { dir: cluster.dir().display().to_string(), n_shards: manifest.n_shards, nodes }, table)
}

fn node_status(
    node: usize,
    entry: &NodeEntry,
    process: ProcessState,
    report: Option<&NodeHealth>,
) -> NodeStatus {
    NodeStatus {
        node,
        name: entry.name.clone(),
        port: entry.port,
        pid: entry.process.as_ref().map(|process| process.pid).filter(|_| process != ProcessState::Dead),
        process,
        reachable: report.is_some(),
        shards: report.map(|health| health.shards),
        slivers_held: report.map(|health| health.slivers_held),
        slivers_missing: report.map(|health| health.slivers_missing),
        repair_bytes_received: report.map(|health| health.repair_bytes_received),
        repair_bytes_regained: report.map(|health| health.repair_bytes_regained),
    }
}

fn table(nodes: &[NodeStatus]) -> Table {
    let mut table = Table::new(&[
        "NODE",
        "PORT",
        "PID",
        "PROCESS",
        "ANSWERS",
        "SHARDS",
        "HELD",
        "MISSING",
        "REPAIR IN",
        "REGAINED",
    ]);
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let number = |value: Option<u64>| text(value.map(|value| value.to_string()));
    let bytes = |value: Option<u64>| text(value.map(|value| Bytes(value).to_string()));
    for node in nodes {
        table.row([
            node.name.clone(),
            node.port.to_string(),
            text(node.pid.map(|pid| pid.to_string())),
            match node.process {
                ProcessState::Running => "running",
                ProcessState::Stopped => "stopped",
                ProcessState::Dead => "dead",
            }
            .to_owned(),
            if node.reachable { "yes" } else { "no" }.to_owned(),
            number(node.shards.map(u64::from)),
            number(node.slivers_held),
            number(node.slivers_missing),
            bytes(node.repair_bytes_received),
            bytes(node.repair_bytes_regained),
        ]);
    }
    table
}
