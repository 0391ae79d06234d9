//! Nodes that nobody has invited: how they come, stand and go, on real processes.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use protocol::ledger::parameters::Parameters;
use serde_json::Value;
use testnet::cluster::{Cluster, ClusterConfig, Fate, Terms, client_file, faucet_file, genesis_file, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_floe-testnet");
/// Far more than anything here takes, so that only what hangs is cut short.
const LIMIT: Duration = Duration::from_secs(120);
/// Longer than any test: what these tests look at is the first epoch.
const EPOCH_MS: u64 = 24 * 60 * 60 * 1000;
const STAKE_MIN: u64 = 5_000;

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.env_remove("FLOE_NETWORK").env_remove("FLOE_LOG").env_remove("FLOE_WALLET").stdin(Stdio::null());
    // Every command has limits of its own.
    command.args(args).output().unwrap()
}

#[track_caller]
fn succeed(args: &[&str]) -> (String, String) {
    let output = run(args);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{args:?}: {stderr}");
    (stdout, stderr)
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeed(&[&["floe", "--json"], args].concat()).0).unwrap()
}

/// Runs what must fail: with this code, and a last line that is the error and holds these words.
#[track_caller]
fn refuse(args: &[&str], code: i32, words: &[&str]) {
    let output = run(&[&["floe"], args].concat());
    let text = String::from_utf8(output.stderr).unwrap();
    let line = text.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(line.starts_with("error: ") && line.contains(word), "`{word}` is not in: {line}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Four nodes with a shard and some stake each, and wallets of strangers, which die with this test.
struct Net {
    dir: tempfile::TempDir,
    cluster: Cluster,
}

impl Net {
    async fn up(parameters: Parameters) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = ClusterConfig { n_nodes: 4, n_shards: 4, base_port: None };
        let terms = Terms { parameters, node_stake: 2 * STAKE_MIN, ..Terms::default() };
        let at = dir.path().join("net");
        let cluster = Cluster::create_on_terms(&at, &config, Fate::WithParent, terms).await.unwrap();
        let mut cluster = cluster.with_program(PROGRAM);
        cluster.start_all().await.unwrap();
        let observer = cluster.observe().await.unwrap();
        cluster.wait_healthy(&observer, LIMIT, |_| {}).await.unwrap();
        observer.close().await;
        Self { dir, cluster }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn client(&self) -> String {
        text(&client_file(self.cluster.dir())).to_owned()
    }

    /// A wallet with some credits.
    fn wallet(&self, name: &str) -> (String, String) {
        let path = self.path(name);
        let made = json(&["wallet", "new", "--out", text(&path)]);
        let account = made["account"].as_str().unwrap().to_owned();
        let faucet = faucet_file(self.cluster.dir());
        json(&[
            "--network",
            &self.client(),
            "wallet",
            "send",
            "--wallet",
            text(&faucet),
            "--to",
            &account,
            "--amount",
            "100000",
        ]);
        (text(&path).to_owned(), account)
    }

    /// The directory of a node that knows nothing but the genesis file.
    fn init(&self, dir: &str, name: &str, port: u16) -> String {
        let dir = self.path(dir);
        let listen = format!("/ip4/127.0.0.1/tcp/{port}");
        let genesis = genesis_file(self.cluster.dir());
        json(&[
            "node",
            "init",
            "--dir",
            text(&dir),
            "--name",
            name,
            "--listen",
            &listen,
            "--genesis",
            text(&genesis),
        ]);
        text(&dir).to_owned()
    }
}

fn parameters() -> Parameters {
    Parameters { epoch_ms: EPOCH_MS, min_stake: STAKE_MIN, ..Parameters::default() }
}

#[tokio::test]
async fn a_stranger_comes_in_step_by_step_and_each_step_can_be_repeated() {
    // A fee, which the account of a new node's key cannot pay.
    let net = Net::up(Parameters { transaction_fee: 3, ..parameters() }).await;
    let (wallet, account) = net.wallet("me.key");
    let dir = net.init("stranger", "stranger", 4100);
    let status = || json(&["node", "status", "--dir", &dir]);
    assert_eq!((&status()["status"], &status()["may_stop"]), (&"unregistered".into(), &false.into()));

    let register = ["node", "register", "--dir", &dir, "--wallet", &wallet];
    let (_, said) = succeed(&[&["floe"], &register[..]].concat());
    assert!(said.contains("warning: with 0 of the 5000 credits"), "{said}");
    let again = json(&register);
    assert_eq!((&again["outcome"], &again["height"]), (&"unchanged".into(), &Value::Null));
    let now = status();
    assert_eq!(now["status"], "active");
    assert_eq!((&now["operator"], &now["name"]), (&account.as_str().into(), &"stranger".into()));
    assert_eq!(
        (&now["stake"], &now["shards"], &now["shards_next"]),
        (&0.into(), &serde_json::json!([]), &Value::Null)
    );

    let node = now["node"].as_str().unwrap().to_owned();
    let client = net.client();
    json(&["--network", &client, "stake", "--wallet", &wallet, "--node", &node, "--amount", "6000"]);
    assert_eq!(json(&["--network", &client, "node", "status", "--node", &node])["stake"], 6000);

    let more = json(&[&register[..], &["--commission-bp", "250"]].concat());
    assert_eq!(more["outcome"], "updated");
    assert_eq!(json(&register)["outcome"], "unchanged", "what is not said stays");

    let left = json(&["node", "leave", "--dir", &dir, "--wallet", &wallet]);
    assert_eq!((&left["shards"], &left["released_epoch"]), (&serde_json::json!([]), &1.into()));
    assert_eq!(status()["status"], "leaving");
    refuse(&["node", "leave", "--dir", &dir, "--wallet", &wallet], USAGE, &["leaving already"]);
    assert_eq!(json(&register)["outcome"], "registered", "it may come back");
}

#[tokio::test]
async fn what_belongs_to_others_is_refused_with_whose_it_is() {
    let net = Net::up(parameters()).await;
    let (mine, account) = net.wallet("mine.key");
    let (other, _) = net.wallet("other.key");
    let client = net.client();
    let taken = net.init("taken", "node-2", 4101);
    refuse(
        &["node", "register", "--dir", &taken, "--wallet", &mine],
        USAGE,
        &["has this name", "config.toml"],
    );

    let dir = net.init("a", "a", 4102);
    json(&["node", "register", "--dir", &dir, "--wallet", &mine]);
    let name = format!("its operator is {account}");
    refuse(&["node", "register", "--dir", &dir, "--wallet", &other], USAGE, &[&name, "--wallet"]);
    refuse(&["node", "leave", "--dir", &dir, "--wallet", &other], USAGE, &[&name]);

    // Another directory with the same BLS key, and a key of its own as a peer.
    let twin = net.init("b", "b", 4103);
    fs::remove_file(net.path("b/keys/bls.key")).unwrap();
    fs::copy(net.path("a/keys/bls.key"), net.path("b/keys/bls.key")).unwrap();
    refuse(&["node", "register", "--dir", &twin, "--wallet", &mine], USAGE, &["has its BLS key"]);

    let nobody = "0b".repeat(32);
    let leave = ["--network", &client, "node", "leave", "--node", &nobody, "--wallet", &mine];
    refuse(&leave, NOT_FOUND, &["no such node is registered"]);
    refuse(&["node", "leave", "--wallet", &mine], USAGE, &[]);
    let unreachable = net.path("c");
    succeed(&[
        "floe",
        "node",
        "init",
        "--dir",
        text(&unreachable),
        "--name",
        "c",
        "--genesis",
        text(&genesis_file(net.cluster.dir())),
    ]);
    refuse(
        &["node", "register", "--dir", text(&unreachable), "--wallet", &mine],
        USAGE,
        &["no address is known", "network.external"],
    );

    // A node of the genesis decides for itself, with the key in its directory.
    let left = json(&["node", "leave", "--dir", text(&net.cluster.node_dir(1)), "--wallet", &mine]);
    assert_eq!(left["shards"].as_array().unwrap().len(), 1);
    let node = left["node"].as_str().unwrap();
    let (said, _) = succeed(&["floe", "--network", &client, "node", "status", "--node", node]);
    assert!(said.contains("leaving") && said.contains("let it run until it may stop"), "{said}");
}

#[tokio::test]
async fn a_stranger_runs_follows_the_ledger_and_is_taken_away_again() {
    let mut net = Net::up(parameters()).await;
    let member = net.cluster.member(0).unwrap();
    let bootstrap = node::config::PeerAddress { peer: member.peer, address: member.addresses[0].clone() };
    let node = net.cluster.add_node(vec![bootstrap]).await.unwrap();
    assert_eq!(node, 4);
    let faucet = faucet_file(net.cluster.dir());
    let dir = net.cluster.node_dir(node);
    json(&["node", "register", "--dir", text(&dir), "--wallet", text(&faucet)]);
    net.cluster.start(node).await.unwrap();
    let cluster = &mut net.cluster;
    let height = until("the stranger follows", LIMIT, async || {
        cluster.check_alive()?;
        let health = cluster.health_of_all().await?;
        let of = |node| health.get(&node).map(|health| health.ledger_height);
        Ok(of(4).filter(|height| *height > 0 && of(0) == Some(*height)))
    })
    .await
    .unwrap();
    assert!(height >= 1);
    cluster.remove_node(node).await.unwrap();
    assert!(!dir.exists());
    assert!(cluster.start(node).await.unwrap_err().to_string().contains("has left for good"));
    cluster.start_all().await.unwrap();
    assert_eq!(cluster.health_of_all().await.unwrap().len(), 4);
}

/// The command, in a small form; the long one is in `docs/TESTING.md`.
#[test]
#[ignore = "takes minutes"]
fn certified_blobs_survive_nodes_that_come_go_and_lose_their_disks() {
    let args = ["--json", "churn", "--epochs", "4", "--epoch", "30s", "--seed", "1"];
    let output = run(&args);
    let text = String::from_utf8(output.stderr).unwrap();
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((&report["failed"], &report["lost_blobs"]), (&0.into(), &0.into()), "{text}");
    assert!(report["operations"].as_u64().unwrap() > 0);
    assert!(output.status.success(), "{text}");
}
