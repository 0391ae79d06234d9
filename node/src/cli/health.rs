//! `floe health`.

use std::path::Path;

use protocol::{NodeIndex, message::NodeHealth};
use serde::Serialize;

use super::{
    Connection, Exit, Failure, Output, network_file,
    output::{Bytes, Table},
};
use crate::client::MemberHealth;

/// What is printed of the network.
#[derive(Debug, Serialize)]
struct Document {
    nodes: Vec<Node>,
}

/// What is printed of one node. What it did not say itself is null.
#[derive(Debug, Serialize)]
struct Node {
    name: String,
    node: NodeIndex,
    reachable: bool,
    /// Why it is not reachable.
    error: Option<String>,
    /// Shards that the committee gives it.
    shards: u16,
    #[serde(flatten)]
    report: Report,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    blobs: Option<u64>,
    slivers_held: Option<u64>,
    slivers_missing: Option<u64>,
    repair_bytes_received: Option<u64>,
    repair_bytes_regained: Option<u64>,
    slivers_corrupt: Option<u64>,
    peers: Option<u16>,
    uptime_seconds: Option<u64>,
}

pub(super) async fn execute(network: Option<&Path>, output: Output) -> Result<(), Failure> {
    let connection = Connection::open(&network_file(network)?).await?;
    let members = connection.client().health().await;
    let quorum = connection.client().genesis().committee().quorum();
    connection.close().await;
    let reachable: u16 =
        members.iter().filter(|member| member.report.is_ok()).map(|member| member.shards).sum();
    output.data(&Document { nodes: members.iter().map(Node::new).collect() }, table(&members))?;
    if reachable < quorum {
        let what = format!("nodes with {reachable} shards answered, of the {quorum} needed to store");
        return Err(
            Failure::new(Exit::Unavailable, what).hint("is the network up, and client.toml the right one?")
        );
    }
    Ok(())
}

impl Node {
    fn new(MemberHealth { node, name, shards, report }: &MemberHealth) -> Self {
        Self {
            name: name.clone(),
            node: *node,
            reachable: report.is_ok(),
            error: report.as_ref().err().cloned(),
            shards: *shards,
            report: report.as_ref().map(Report::new).unwrap_or_default(),
        }
    }
}

impl Report {
    const fn new(health: &NodeHealth) -> Self {
        Self {
            blobs: Some(health.blobs),
            slivers_held: Some(health.slivers_held),
            slivers_missing: Some(health.slivers_missing),
            repair_bytes_received: Some(health.repair_bytes_received),
            repair_bytes_regained: Some(health.repair_bytes_regained),
            slivers_corrupt: Some(health.slivers_corrupt),
            peers: Some(health.peers),
            uptime_seconds: Some(health.uptime_seconds),
        }
    }
}

fn table(members: &[MemberHealth]) -> Table {
    let mut table = Table::new(&[
        "NODE",
        "SHARDS",
        "BLOBS",
        "HELD",
        "MISSING",
        "CORRUPT",
        "REPAIR IN",
        "REGAINED",
        "PEERS",
        "UPTIME",
    ]);
    for MemberHealth { name, shards, report, .. } in members {
        match report {
            Ok(health) => table.row([
                name.clone(),
                shards.to_string(),
                health.blobs.to_string(),
                health.slivers_held.to_string(),
                health.slivers_missing.to_string(),
                health.slivers_corrupt.to_string(),
                Bytes(health.repair_bytes_received).to_string(),
                Bytes(health.repair_bytes_regained).to_string(),
                health.peers.to_string(),
                format!("{}s", health.uptime_seconds),
            ]),
            Err(error) => table.row([name.clone(), shards.to_string(), error.clone()]),
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(report: Result<NodeHealth, String>) -> MemberHealth {
        MemberHealth { node: NodeIndex(3), name: "a".to_owned(), shards: 2, report }
    }

    #[test]
    fn the_document_has_the_keys_that_scripts_read() {
        let health = NodeHealth {
            name: "a".to_owned(),
            shards: 2,
            blobs: 1,
            slivers_held: 4,
            slivers_missing: 5,
            repair_bytes_received: 6,
            repair_bytes_regained: 7,
            slivers_corrupt: 8,
            peers: 9,
            uptime_seconds: 10,
            ledger_height: 11,
            ledger_root: protocol::hash::Hash::default(),
        };
        let json = serde_json::to_value(Node::new(&member(Ok(health)))).unwrap();
        let expected = serde_json::json!({
            "name": "a", "node": 3, "reachable": true, "error": null, "shards": 2, "blobs": 1, "slivers_held": 4,
            "slivers_missing": 5, "repair_bytes_received": 6, "repair_bytes_regained": 7, "slivers_corrupt": 8,
            "peers": 9, "uptime_seconds": 10,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_node_that_does_not_answer_is_listed_with_the_reason() {
        let members = [member(Err("gone".to_owned()))];
        let json = serde_json::to_value(Node::new(&members[0])).unwrap();
        assert_eq!(json["reachable"], false);
        assert_eq!(json["error"], "gone");
        assert_eq!(json["slivers_held"], serde_json::Value::Null);
        assert!(table(&members).to_string().contains("gone"));
    }
}
