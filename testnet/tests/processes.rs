//! Real processes, and what people do to them by mistake.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use testnet::cluster::{Cluster, ClusterConfig, Fate, ProcessState, client_file, until};

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const UNAVAILABLE: i32 = 4;
const IO: i32 = 5;

const PROGRAM: &str = env!("CARGO_BIN_EXE_floe-testnet");
/// Far more than anything here takes, so that only what hangs is cut short.
const LIMIT: Duration = Duration::from_secs(120);

fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_remove("FLOE_NETWORK").env_remove("FLOE_LOG").env_remove("FLOE_WALLET").stdin(Stdio::null());
    command
}

/// Runs a command to its end; one that does not come to an end is killed, and is a failure.
#[track_caller]
fn run(args: &[&str]) -> Output {
    let (mut stdout, mut stderr) =
        (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let mut command = program();
    command.args(args);
    command.stdout(stdout.as_file_mut().try_clone().unwrap());
    command.stderr(stderr.as_file_mut().try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{args:?} does not end: {}", fs::read_to_string(stderr.path()).unwrap());
        }
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    };
    Output { status, stdout: fs::read(stdout.path()).unwrap(), stderr: fs::read(stderr.path()).unwrap() }
}

/// Runs what must fail: with this code, and a last line that is the error and holds these words.
#[track_caller]
fn refuse(args: &[&str], code: i32, words: &[&str]) {
    let output = run(args);
    let text = String::from_utf8(output.stderr).unwrap();
    let line = text.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(line.starts_with("error: "), "{text}");
    for word in words {
        assert!(line.contains(word), "`{word}` is not in: {line}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[track_caller]
fn succeed(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeed(args)).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Four nodes with a shard each, which die with this test.
struct Net {
    dir: tempfile::TempDir,
    cluster: Cluster,
}

impl Net {
    async fn create() -> Self {
        Self::sized(4, 4).await
    }

    async fn sized(n_nodes: u16, n_shards: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = ClusterConfig { n_nodes, n_shards, base_port: None };
        let cluster = Cluster::create(&dir.path().join("net"), &config, Fate::WithParent).await.unwrap();
        Self { dir, cluster: cluster.with_program(PROGRAM) }
    }

    async fn up() -> Self {
        let mut net = Self::create().await;
        net.start().await;
        net
    }

    async fn start(&mut self) {
        self.cluster.start_all().await.unwrap();
        let observer = self.cluster.observe().await.unwrap();
        self.cluster.wait_healthy(&observer, LIMIT, |_| {}).await.unwrap();
        observer.close().await;
    }

    fn node(&self, node: usize) -> String {
        text(&self.cluster.node_dir(node)).to_owned()
    }

    fn client(&self) -> String {
        text(&client_file(self.cluster.dir())).to_owned()
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn store(&self, path: &Path) -> String {
        succeed(&["floe", "--network", &self.client(), "store", text(path)]).trim().to_owned()
    }

    /// Reads a blob and compares it with the file it was stored from; returns what the command reports.
    fn read_and_compare(&self, id: &str, path: &Path) -> Value {
        let out = self.dir.path().join("read-back");
        let report = json(&["floe", "--network", &self.client(), "--json", "read", id, "--out", text(&out)]);
        assert!(fs::read(&out).unwrap() == fs::read(path).unwrap(), "{id} was read as other bytes");
        report
    }

    /// Most memory that any node has had resident, in MiB.
    fn peak_memory_mib(&self) -> u64 {
        let peak = |process: &testnet::cluster::ProcessId| {
            let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
        };
        let manifest = self.cluster.manifest().unwrap();
        manifest.nodes.iter().filter_map(|node| node.process.as_ref()).map(peak).max().unwrap()
    }

    /// Changes the configuration of a node.
    fn configure(&self, node: usize, from: &str, to: &str) {
        let path = self.cluster.node_dir(node).join("config.toml");
        let config = fs::read_to_string(&path).unwrap();
        let line = config.lines().find(|line| line.starts_with(from)).unwrap().to_owned();
        fs::write(&path, config.replace(&line, to)).unwrap();
    }
}

#[tokio::test]
async fn what_is_stored_is_read_back_while_a_node_is_down() {
    let mut net = Net::up().await;
    let client = net.client();
    let blob = net.file("blob", &[5; 300_000]);
    let (empty, out) = (net.file("empty", b""), net.dir.path().join("out"));
    let stored = json(&["floe", "--network", &client, "--json", "store", text(&blob)]);
    assert_eq!(stored["size"], 300_000);
    assert!(stored["encoded_size"].as_u64().unwrap() > 300_000);
    let several = json(&["floe", "--network", &client, "--json", "store", text(&blob), text(&empty)]);
    assert_eq!(several["blobs"][0]["blob_id"], stored["blob_id"]);
    assert_eq!(several["blobs"][0]["already_certified"], true);
    assert_eq!(several["blobs"][1]["size"], 0);
    net.cluster.kill(1).await.unwrap();
    let id = stored["blob_id"].as_str().unwrap();
    succeed(&["floe", "--network", &client, "read", id, "--out", text(&out)]);
    assert_eq!(fs::read(&out).unwrap(), fs::read(&blob).unwrap());
    let status = json(&["floe", "--network", &client, "--json", "status", id]);
    assert_eq!((status["status"].as_str(), status["size"].as_u64()), (Some("certified"), Some(300_000)));
    let health = json(&["floe", "--network", &client, "--json", "health"]);
    let reachable =
        health["nodes"].as_array().unwrap().iter().filter(|node| node["reachable"] == true).count();
    assert_eq!(reachable, 3);
}

/// Bytes without a period that a segment would hide.
fn bytes(len: usize) -> Vec<u8> {
    use rand::{RngCore as _, SeedableRng as _};
    let mut bytes = vec![0; len];
    rand_chacha::ChaCha8Rng::seed_from_u64(u64::try_from(len).unwrap()).fill_bytes(&mut bytes);
    bytes
}

#[tokio::test]
async fn files_of_every_size_come_back_and_nothing_is_decoded() {
    let mut net = Net::sized(7, 13).await;
    net.start().await;
    // Four segments and some more: one of 13 shards has a little less than 8 MiB.
    for len in [0, 1, 1 << 10, 1 << 20, (32 << 20) + 1] {
        let blob = net.file("blob", &bytes(len));
        let report = net.read_and_compare(&net.store(&blob), &blob);
        assert_eq!(report["segments_decoded"], 0, "{len} bytes");
    }
}

/// Slow: `cargo test --release -p testnet --test processes -- --ignored`.
#[tokio::test]
#[ignore = "a gigabyte, five times over on disk"]
async fn a_gigabyte_comes_back_in_half_a_gigabyte_of_memory() {
    let mut net = Net::sized(7, 13).await;
    net.start().await;
    for len in [100 << 20, 1 << 30] {
        let blob = net.file("blob", &bytes(len));
        let report = net.read_and_compare(&net.store(&blob), &blob);
        assert_eq!(report["segments_decoded"], 0, "{len} bytes");
        let peak = net.peak_memory_mib();
        assert!(peak < 512, "{len} bytes: a node had {peak} MiB resident");
    }
}

#[tokio::test]
async fn every_store_that_was_acknowledged_survives_kill_9() {
    const ROUNDS: usize = 20;
    let mut net = Net::sized(7, 13).await;
    net.start().await;
    let observer = net.cluster.observe().await.unwrap();
    let client = net.client();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let blob = net.file(&format!("blob-{round}"), &bytes(20_000 + round));
        // Killed at another moment of the store in each round: while it is sent, confirmed, recorded.
        let mut store = program();
        store.args(["floe", "--network", &client, "store", text(&blob)]);
        let mut store = store.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::park_timeout(Duration::from_millis(u64::try_from(round * 5).unwrap()));
        let victims = [round % 7, (round + 3) % 7];
        for node in victims {
            net.cluster.kill(node).await.unwrap();
        }
        // Two nodes have at most four of thirteen shards: the store may go through, and then it counts.
        if store.wait().unwrap().success() {
            let mut id = String::new();
            std::io::Read::read_to_string(&mut store.stdout.take().unwrap(), &mut id).unwrap();
            acknowledged.push((id.trim().to_owned(), blob));
        }
        for node in victims {
            net.cluster.start(node).await.unwrap();
        }
        net.cluster.wait_healthy(&observer, LIMIT, |_| {}).await.unwrap();
    }
    assert!(acknowledged.len() >= ROUNDS / 2, "only {} stores went through", acknowledged.len());
    for (id, blob) in &acknowledged {
        net.read_and_compare(id, blob);
    }
}

#[tokio::test]
async fn a_flipped_byte_never_reaches_a_reader_and_is_healed() {
    use std::os::unix::fs::FileExt as _;
    let mut net = Net::create().await;
    for node in 0..4 {
        net.configure(node, "scrub_interval", "scrub_interval = \"1s\"");
        net.configure(node, "scrub_bytes_per_second", "scrub_bytes_per_second = 1073741824");
    }
    net.start().await;
    let blob = net.file("blob", &bytes(2 << 20));
    let id = net.store(&blob);
    // One byte in the middle of each quarter of what node 0 stores: among them both of its slivers.
    let log = net.cluster.node_dir(0).join("data/log");
    let files = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let file = files.filter(|path| path.extension().is_some_and(|ext| ext == "log")).max().unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let len = file.metadata().unwrap().len();
    for eighth in [1, 3, 5, 7] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, len * eighth / 8).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], len * eighth / 8).unwrap();
    }
    net.read_and_compare(&id, &blob);
    let observer = net.cluster.observe().await.unwrap();
    let healed = |members: &[node::client::MemberHealth]| {
        let health = members[0].report.as_ref().ok()?;
        (health.slivers_corrupt > 0 && health.slivers_held == 2 && health.slivers_missing == 0).then_some(())
    };
    net.cluster.wait_health(&observer, "healing", LIMIT, healed).await.unwrap();
    for node in 1..3 {
        net.cluster.kill(node).await.unwrap();
        net.read_and_compare(&id, &blob);
        net.cluster.start(node).await.unwrap();
        net.cluster.wait_healthy(&observer, LIMIT, |_| {}).await.unwrap();
    }
}

#[tokio::test]
async fn with_too_many_nodes_down_every_command_says_so_and_leaves_nothing() {
    let mut net = Net::up().await;
    let client = net.client();
    let config = "genesis = \"genesis.toml\"\nwallet = \"wallet.key\"\nrequest_timeout = \"1s\"\nconnect_timeout = \"1s\"\n";
    fs::write(&client, config).unwrap();
    let (blob, out) = (net.file("blob", &[5; 300_000]), net.dir.path().join("out"));
    let id = succeed(&["floe", "--network", &client, "store", text(&blob)]);
    for node in 0..3 {
        net.cluster.kill(node).await.unwrap();
    }
    refuse(
        &["floe", "--network", &client, "store", text(&net.file("b", b"b"))],
        UNAVAILABLE,
        &["shards needed"],
    );
    refuse(&["floe", "--network", &client, "read", id.trim(), "--out", text(&out)], UNAVAILABLE, &["down"]);
    refuse(&["floe", "--network", &client, "health"], UNAVAILABLE, &["1 shards", "3 needed"]);
    let mut names: Vec<_> =
        fs::read_dir(net.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["b", "blob", "net"]);
}

#[tokio::test]
async fn what_is_stored_is_listed_extended_and_deleted() {
    const REJECTED: i32 = 1;
    let net = Net::up().await;
    let client = net.client();
    let floe = |args: &[&str]| json(&[&["floe", "--network", &client, "--json"], args].concat());
    // One message a node, and many.
    let (small, large) = (net.file("small", &[7; 1_000]), net.file("large", &[8; 2_000_000]));
    let mut ids = [net.store(&small), net.store(&large)];
    ids.sort();
    let listed = floe(&["list"]);
    let blobs = listed["blobs"].as_array().unwrap();
    let listed: Vec<&str> = blobs.iter().map(|blob| blob["blob_id"].as_str().unwrap()).collect();
    // In the order of the IDs' bytes, which is not that of their letters.
    assert!(listed.len() == 2 && ids.iter().all(|id| listed.contains(&id.as_str())), "{listed:?}");
    assert!(blobs.iter().all(|blob| blob["end_epoch"] == 10 && blob["certified_at"].is_u64()), "{blobs:?}");

    let [id, other] = ids;
    floe(&["extend", &id, "--epochs", "20"]);
    assert_eq!(floe(&["status", &id])["end_epoch"], 20);
    floe(&["delete", &id]);
    refuse(&["floe", "--network", &client, "read", &id], NOT_FOUND, &["no blob"]);
    for command in [&["delete", &id][..], &["extend", &id, "--epochs", "30"]] {
        let args = [&["floe", "--network", &client], command].concat();
        refuse(&args, REJECTED, &["has no registration"]);
    }
    floe(&["delete", &other]);
    assert_eq!(floe(&["list"])["blobs"].as_array().unwrap().len(), 0);
    // Nobody keeps what nobody pays for.
    let observer = net.cluster.observe().await.unwrap();
    let is_let_go = async || {
        let health = net.cluster.health(&observer).await;
        let none = |member: &node::client::MemberHealth| {
            member.report.as_ref().is_ok_and(|report| report.slivers_held == 0)
        };
        Ok(health.iter().all(none).then_some(()))
    };
    until("slivers are still held", LIMIT, is_let_go).await.unwrap();
    observer.close().await;

    let kept = net.file("kept", b"kept");
    let stored = floe(&["store", "--permanent", "--epochs", "2", text(&kept)]);
    let id = stored["blob_id"].as_str().unwrap();
    refuse(&["floe", "--network", &client, "delete", id], REJECTED, &["permanent", "epoch 2"]);
    let long = ["floe", "--network", &client, "store", "--epochs", "1000", text(&small)];
    refuse(&long, REJECTED, &["end epoch 1000 is not within"]);
}

#[tokio::test]
async fn credits_come_from_the_faucet_are_sent_and_staked_and_are_proven() {
    use std::os::unix::fs::PermissionsExt as _;
    const REJECTED: i32 = 1;
    let mut net = Net::up().await;
    let (client, dir) = (net.client(), text(net.cluster.dir()).to_owned());
    let faucet = fs::metadata(testnet::cluster::faucet_file(net.cluster.dir())).unwrap();
    assert_eq!(faucet.permissions().mode() & 0o777, 0o600);
    let wallet = |name: &str| {
        let file = text(&net.dir.path().join(name)).to_owned();
        let account = succeed(&["floe", "wallet", "new", "--out", &file]).trim().to_owned();
        (file, account)
    };
    let ((mine, me), (_, other)) = (wallet("a.key"), wallet("b.key"));
    let balance = |account: &str| {
        json(&["floe", "--network", &client, "--json", "wallet", "balance", "--account", account])["balance"]
            .as_u64()
            .unwrap()
    };
    let send = |amount| {
        [
            "floe",
            "--network",
            &client,
            "wallet",
            "send",
            "--wallet",
            &mine,
            "--to",
            &other,
            "--amount",
            amount,
        ]
    };
    assert_eq!(balance(&me), 0);
    refuse(&send("1"), REJECTED, &["does not allow it", "has 0 credits and needs 1"]);
    let given = json(&["--json", "faucet", "--dir", &dir, "--to", &me, "--amount", "500"]);
    assert_eq!((given["nonce"].as_u64(), given["transaction"].as_str().unwrap().len()), (Some(0), 64));
    assert_eq!(balance(&me), 500);
    // Any one node may be gone: another takes it, and others prove it.
    for node in 0..4 {
        net.cluster.kill(node).await.unwrap();
        succeed(&send("10"));
        net.cluster.start(node).await.unwrap();
        let observer = net.cluster.observe().await.unwrap();
        net.cluster.wait_healthy(&observer, LIMIT, |_| {}).await.unwrap();
        observer.close().await;
    }
    assert_eq!((balance(&me), balance(&other)), (460, 40));
    refuse(&send("461"), REJECTED, &["has 460 credits and needs 461"]);
    let info = json(&["floe", "--network", &client, "--json", "info", "--committee", "--ledger"]);
    assert!(info["height"].as_u64().unwrap() >= 5, "{info}");
    assert_eq!((info["ledger"]["stage"].as_str(), info["epoch"].as_u64()), (Some("steady"), Some(0)));
    let members = info["committee"].as_array().unwrap();
    assert_eq!(members.len(), 4);
    let node = members[1]["peer"].as_str().unwrap().to_owned();
    let stake = ["floe", "--network", &client, "stake", "--wallet", &mine, "--node", &node, "--amount", "60"];
    succeed(&stake);
    let info = json(&["floe", "--network", &client, "--json", "info", "--committee"]);
    assert_eq!(info["committee"][1]["stake"].as_u64(), Some(60));
    assert_eq!(balance(&me), 400);
    succeed(&["floe", "--network", &client, "unstake", "--wallet", &mine, "--node", &node]);
    let info = json(&["floe", "--network", &client, "--json", "info", "--committee"]);
    assert_eq!(info["committee"][1]["stake"].as_u64(), Some(0));
    assert_eq!(balance(&me), 400, "what was staked is locked for some epochs");
}

#[test]
fn a_faucet_needs_a_testnet() {
    let dir = tempfile::tempdir().unwrap();
    let to = "ab".repeat(32);
    refuse(
        &["faucet", "--dir", text(dir.path()), "--to", &to, "--amount", "1"],
        USAGE,
        &["is not a testnet"],
    );
    let output = run(&["faucet", "--dir", text(dir.path()), "--to", "x", "--amount", "1"]);
    assert_eq!(output.status.code(), Some(USAGE));
}

#[tokio::test]
async fn a_faucet_that_an_older_version_did_not_make_is_missed() {
    let net = Net::create().await;
    fs::remove_file(testnet::cluster::faucet_file(net.cluster.dir())).unwrap();
    let (dir, to) = (text(net.cluster.dir()).to_owned(), "ab".repeat(32));
    refuse(&["faucet", "--dir", &dir, "--to", &to, "--amount", "1"], NOT_FOUND, &["no faucet"]);
}

#[tokio::test]
async fn an_unknown_blob_is_not_found() {
    let net = Net::up().await;
    let (client, id, out) = (net.client(), "A".repeat(43), net.dir.path().join("out"));
    refuse(&["floe", "--network", &client, "read", &id, "--out", text(&out)], NOT_FOUND, &["no blob"]);
    refuse(&["floe", "--network", &client, "status", &id], NOT_FOUND, &["no blob"]);
    let output = run(&["floe", "--network", &client, "--json", "status", &id]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["status"], "unknown");
    assert_eq!(fs::read_dir(net.dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_second_node_on_the_same_directory_is_refused_and_the_first_runs_on() {
    let mut net = Net::up().await;
    refuse(&["floe", "node", "run", "--dir", &net.node(0)], IO, &["in use by another process"]);
    assert_eq!(net.cluster.state(0).unwrap(), ProcessState::Running);
    net.cluster.check_alive().unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let net = Net::create().await;
    let port = net.cluster.manifest().unwrap().nodes[0].port;
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    refuse(&["floe", "node", "run", "--dir", &net.node(0)], IO, &[&address, "in use"]);
}

#[tokio::test]
async fn a_node_that_cannot_start_fails_the_network_with_its_own_words() {
    let mut net = Net::create().await;
    net.configure(2, "threads", "treads = 2");
    net.cluster.start_all().await.unwrap();
    let observer = net.cluster.observe().await.unwrap();
    let failure = net.cluster.wait_healthy(&observer, LIMIT, |_| {}).await.unwrap_err().to_string();
    assert!(failure.contains("node-2 ended") && failure.contains("unknown field `treads`"), "{failure}");
    refuse(
        &["floe", "node", "run", "--dir", &net.node(2)],
        USAGE,
        &["config.toml:", "unknown field `treads`"],
    );
}

#[tokio::test]
async fn a_client_with_another_genesis_reaches_nobody() {
    let net = Net::up().await;
    let genesis = net.cluster.dir().join("genesis.toml");
    let other = fs::read_to_string(&genesis).unwrap().replace("name = \"testnet\"", "name = \"other\"");
    let other = net.file("other.toml", other.as_bytes());
    let wallet = testnet::cluster::wallet_file(net.cluster.dir());
    let config = format!(
        "genesis = {:?}\nwallet = {:?}\nrequest_timeout = \"1s\"\nconnect_timeout = \"1s\"\n",
        text(&other),
        text(&wallet)
    );
    let client = net.file("client.toml", config.as_bytes());
    refuse(&["floe", "--network", text(&client), "health"], UNAVAILABLE, &["client.toml the right one"]);
    refuse(&["floe", "--network", text(&client), "store", text(&genesis)], UNAVAILABLE, &["cannot store"]);
    let none = ["with 0 of the 2 shards needed"];
    refuse(&["floe", "--network", text(&client), "info"], UNAVAILABLE, &none);
    let account = "ab".repeat(32);
    refuse(
        &["floe", "--network", text(&client), "wallet", "balance", "--account", &account],
        UNAVAILABLE,
        &none,
    );
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_the_node_lives() {
    let mut net = Net::create().await;
    for node in 0..4 {
        // More than any disk has: nothing may be stored.
        net.configure(node, "reserve_bytes", "reserve_bytes = 4611686018427387904");
    }
    net.start().await;
    let blob = net.file("blob", &[5; 300_000]);
    refuse(&["floe", "--network", &net.client(), "store", text(&blob)], UNAVAILABLE, &["full"]);
    net.cluster.check_alive().unwrap();
}

#[tokio::test]
async fn a_wiped_node_regains_what_it_lost_and_a_stopped_one_is_only_slow() {
    let mut net = Net::up().await;
    let blob = net.file("blob", &[5; 300_000]);
    succeed(&["floe", "--network", &net.client(), "store", text(&blob)]);
    net.cluster.kill(0).await.unwrap();
    net.cluster.wipe(0).await.unwrap();
    net.cluster.start(0).await.unwrap();
    let observer = net.cluster.observe().await.unwrap();
    let whole = |members: &[node::client::MemberHealth]| {
        let holds = |member: &node::client::MemberHealth| {
            member.report.as_ref().is_ok_and(|health| health.slivers_held == 2 && health.slivers_missing == 0)
        };
        members.iter().all(holds).then_some(())
    };
    net.cluster.wait_health(&observer, "healing", LIMIT, whole).await.unwrap();
    net.cluster.signal(1, testnet::cluster::Signal::STOP).await.unwrap();
    // A signal is sent before it is obeyed.
    let start = Instant::now();
    while net.cluster.state(1).unwrap() != ProcessState::Stopped {
        assert!(start.elapsed() < LIMIT, "the node does not stop");
        std::thread::yield_now();
    }
    net.cluster.signal(1, testnet::cluster::Signal::CONT).await.unwrap();
    net.cluster.wait_health(&observer, "continuing", LIMIT, whole).await.unwrap();
    assert!(net.cluster.wipe(1).await.unwrap_err().to_string().contains("is running"));
    let (stopped, killed) = net.cluster.stop_all().await.unwrap();
    assert_eq!((stopped, killed), (vec![0, 1, 2, 3], vec![]));
}

#[test]
fn a_detached_network_outlives_its_command_and_is_taken_down_by_another() {
    let dir = tempfile::tempdir().unwrap();
    let net = dir.path().join("net");
    let net = text(&net);
    let up = json(&["--json", "up", "--dir", net, "--nodes", "4", "--shards", "7", "--detach"]);
    assert_eq!((up["n_shards"].as_u64(), up["nodes"].as_array().unwrap().len()), (Some(7), 4));
    let killed = json(&["--json", "kill", "--dir", net, "--node", "2"]);
    assert_eq!(killed["pid"], up["nodes"][2]["pid"]);
    refuse(&["kill", "--dir", net, "--node", "2"], NOT_FOUND, &["not running"]);
    refuse(&["kill", "--dir", net, "--node", "9"], USAGE, &["no node 9"]);
    refuse(&["start", "--dir", net, "--node", "1", "--wipe"], USAGE, &["is running"]);
    refuse(&["up", "--dir", net, "--nodes", "5"], USAGE, &["4 nodes"]);
    let status = json(&["--json", "status", "--dir", net]);
    assert_eq!(
        (&status["nodes"][2]["process"], &status["nodes"][2]["reachable"]),
        (&"dead".into(), &false.into())
    );
    assert_eq!(
        (&status["nodes"][1]["process"], &status["nodes"][1]["reachable"]),
        (&"running".into(), &true.into())
    );
    succeed(&["start", "--dir", net, "--node", "2", "--wipe"]);
    let down = json(&["--json", "down", "--dir", net]);
    assert_eq!(down, serde_json::json!({"stopped": [0, 1, 2, 3], "killed": []}));
    assert_eq!(json(&["--json", "down", "--dir", net]), serde_json::json!({"stopped": [], "killed": []}));
}

#[test]
fn directories_that_are_no_testnet_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("precious"), "x").unwrap();
    refuse(&["up", "--dir", text(dir.path())], USAGE, &["neither empty nor a testnet"]);
    for command in ["down", "status"] {
        refuse(&[command, "--dir", text(dir.path())], USAGE, &["is not a testnet"]);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_demonstration_keeps_its_promises() {
    let report = json(&["--json", "demo", "--size", "3000000", "--nodes", "4", "--shards", "7"]);
    for key in [
        "blob_id",
        "size",
        "stored_bytes",
        "lost_bytes",
        "repair_bytes_received",
        "repair_bytes_regained",
        "repair_ratio",
        "seconds_to_full_redundancy",
        "read_back",
    ] {
        assert!(!report[key].is_null(), "{key}");
    }
    assert_eq!(report["read_back"], true);
    assert_eq!(report["repair_bytes_regained"], report["lost_bytes"]);
    refuse(&["demo", "--nodes", "1"], USAGE, &["choose more nodes"]);
    refuse(&["demo", "/nonexistent/file"], IO, &["/nonexistent/file"]);
}
