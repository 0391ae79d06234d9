//! What real nodes show of themselves, and the dashboard and alerts that are made of it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use testnet::cluster::{Cluster, ClusterConfig, Fate, client_file, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_floe-testnet");
/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

const DASHBOARD: &str = include_str!("../grafana/floe.json");
const ALERTS: &str = include_str!("../prometheus/alerts.yml");
const OPERATING: &str = include_str!("../../docs/OPERATING.md");

fn floe(args: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.env_remove("FLOE_NETWORK").env_remove("FLOE_LOG").env_remove("FLOE_WALLET");
    command.arg("floe").args(args).output().unwrap()
}

/// `floe node health`: its exit code, and its one line.
#[track_caller]
fn health(dir: &Path) -> (i32, String) {
    let Output { status, stdout, stderr } = floe(&["node", "health", "--dir", dir.to_str().unwrap()]);
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!((stdout + &stderr).lines().count(), 1, "{stderr}");
    let code = status.code().unwrap();
    (code, if code == 0 { String::new() } else { stderr })
}

/// The status and the body of what is at a path.
fn get(from: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(from).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: node\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Every number of a node, by its name with its labels.
fn scrape(from: SocketAddr) -> BTreeMap<String, f64> {
    let (status, text) = get(from, "/metrics");
    assert_eq!(status, 200, "{text}");
    numbers(&text)
}

fn numbers(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| line.rsplit_once(' ').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("floe_")).collect()
}

fn bare(name: &str) -> &str {
    name.split('{').next().unwrap()
}

/// What Prometheus would be asked is asked for by the names that nodes have, and nothing they have is left out.
fn check_files(text: &str) {
    let numbers = numbers(text);
    let shown: BTreeSet<&str> = numbers.keys().map(|name| bare(name)).collect();
    let helped: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "))
        .map(|line| line.split_once(' ').unwrap())
        .filter(|(_, help)| help.len() > 5)
        .map(|(name, _)| name)
        .collect();
    for name in &shown {
        let suffixes = ["", "_total", "_info", "_bucket", "_count", "_sum"];
        let bases = suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix));
        assert!(bases.into_iter().any(|base| helped.contains(base)), "{name} has no help");
    }
    for (file, text) in [("dashboard", DASHBOARD), ("alerts", ALERTS), ("manual", OPERATING)] {
        let unknown: Vec<_> = names(text).difference(&shown).copied().collect();
        assert!(unknown.is_empty(), "the {file} asks for what no node shows: {unknown:?}");
    }
    let on_dashboard = names(DASHBOARD);
    for base in helped {
        assert!(on_dashboard.iter().any(|name| name.starts_with(base)), "{base} is on no panel");
    }
}

#[tokio::test]
async fn real_nodes_show_numbers_that_move_and_the_files_ask_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let config = ClusterConfig { n_nodes: 4, n_shards: 4, base_port: None };
    let cluster = Cluster::create(&dir.path().join("net"), &config, Fate::WithParent).await.unwrap();
    let mut cluster = cluster.with_program(PROGRAM);
    let metrics = cluster.manifest().unwrap().nodes[0].metrics().unwrap();
    let (code, line) = health(&cluster.node_dir(0));
    assert_eq!(code, 1, "{line}");
    assert!(line.contains("is the node running?"), "{line}");

    // Alone, it is up and not well.
    cluster.start(0).await.unwrap();
    until("metrics", LIMIT, async || Ok(TcpStream::connect(metrics).ok().map(drop))).await.unwrap();
    let (status, body) = get(metrics, "/health");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["is_well"], &body["connected_shards"]), (503, &Value::Bool(false), &1.into()));
    assert_eq!(scrape(metrics)["floe_healthy"], 0.0);
    let (code, line) = health(&cluster.node_dir(0));
    assert_eq!(code, 1);
    assert!(
        line.starts_with("error: node-0 is not well: connected to members with 1 shards, 3 are needed"),
        "{line}"
    );

    cluster.start_all().await.unwrap();
    let observer = cluster.observe().await.unwrap();
    cluster.wait_healthy(&observer, LIMIT, |_| {}).await.unwrap();
    observer.close().await;
    until("health", LIMIT, async || Ok((get(metrics, "/health").0 == 200).then_some(()))).await.unwrap();
    assert_eq!(health(&cluster.node_dir(0)), (0, String::new()));

    let before = scrape(metrics);
    let blob = dir.path().join("blob");
    fs::write(&blob, vec![7; 300_000]).unwrap();
    let client = client_file(cluster.dir());
    let stored = floe(&["--network", client.to_str().unwrap(), "store", blob.to_str().unwrap()]);
    assert!(stored.status.success(), "{}", String::from_utf8_lossy(&stored.stderr));
    // The client may be done before the last node has executed the block.
    let name = "floe_ledger_certified_blobs";
    until("the block", LIMIT, async || Ok((scrape(metrics)[name] > before[name]).then_some(())))
        .await
        .unwrap();
    let (_, text) = get(metrics, "/metrics");
    let after = numbers(&text);
    for name in [
        "floe_ledger_height",
        "floe_ledger_last_block_timestamp_seconds",
        "floe_slivers",
        "floe_sliver_bytes",
        "floe_uptime_seconds",
        "floe_store_log_bytes",
        "floe_mailbox_handled_messages_total{actor=\"sliver_store\",mailbox=\"writes\"}",
        "floe_mailbox_handled_messages_total{actor=\"encoder\",mailbox=\"jobs\"}",
        "floe_mailbox_handled_messages_total{actor=\"ledger\",mailbox=\"peers\"}",
        "floe_mailbox_handled_messages_total{actor=\"network\",mailbox=\"commands\"}",
        "floe_mailbox_handled_messages_total{actor=\"server\",mailbox=\"bulk\"}",
        "floe_server_request_duration_seconds_count{kind=\"store_sliver\"}",
        "floe_network_gossip_messages_total{topic=\"ledger\",outcome=\"accepted\"}",
    ] {
        assert!(before[name] < after[name], "{name}: {} and {}", before[name], after[name]);
    }
    assert_eq!(after["floe_network_peers{role=\"member\"}"], 3.0);
    assert_eq!(after["floe_network_connected_shards"], 4.0);
    assert!(after["floe_process_resident_memory_bytes"] > 1e6);
    check_files(&text);
}

#[test]
fn a_node_without_metrics_says_how_to_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("node");
    let init = floe(&["node", "init", "--dir", dir.to_str().unwrap(), "--listen", "/ip4/127.0.0.1/tcp/4100"]);
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let (code, line) = health(&dir);
    assert_eq!(code, 1);
    assert!(line.contains("metrics are off") && line.contains("under [metrics]"), "{line}");
    let config = dir.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("# listen = ", "listen = \"x\" # ")).unwrap();
    let (code, line) = health(&dir);
    assert_eq!(code, 1);
    assert!(line.contains("config.toml:"), "{line}");
}

#[test]
fn the_dashboard_has_what_grafana_needs() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36, "that of Grafana 9 and later");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let of_kind =
        |name: &str| variables.iter().find(|variable| variable["name"] == name).unwrap()["type"].clone();
    assert_eq!((of_kind("datasource"), of_kind("instance")), ("datasource".into(), "query".into()));
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}");
        assert!(panel["type"] == "table" || panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert!(target["expr"].as_str().unwrap().contains("instance=~\"$instance\""), "{title}");
        }
    }
}

#[test]
fn every_alert_says_what_it_is_and_the_manual_what_to_do() {
    let alerts: Vec<&str> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 9);
    for key in ["expr: ", "severity: ", "summary: ", "description: "] {
        assert_eq!(ALERTS.matches(key).count(), alerts.len(), "{key}");
    }
    for alert in alerts {
        assert!(OPERATING.contains(&format!("| `{alert}` |")), "{alert} is not in docs/OPERATING.md");
    }
}
