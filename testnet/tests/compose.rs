//! Networks of containers: the compose file that is checked in, as a person uses it, and one of another size with all that
//! can be done to a container. They need a Docker engine and minutes:
//!
//! ```sh
//! cargo test -p testnet --test compose -- --ignored --nocapture --test-threads 1
//! ```
//!
//! They build the image first; with `FLOE_IMAGE_AS_IT_IS=1` they take the one that is there.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use clap::Parser as _;
use serde_json::Value;
use testnet::{
    cluster::until,
    compose::{Containers, IMAGE, MEMORY_MIB, Spec, SpecArgs, Status, Subnet, VolumeFile, check_engine},
    relay::{Weather, control},
};
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_floe-testnet");
/// Far more than anything here takes, so that only what hangs is cut short.
const LIMIT: Duration = Duration::from_secs(300);

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    spec: SpecArgs,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs a program to its end. Each has limits of its own.
fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    for variable in ["FLOE_NETWORK", "FLOE_LOG", "FLOE_WALLET", "COMPOSE_PROJECT_NAME", "COMPOSE_FILE"] {
        command.env_remove(variable);
    }
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn succeed(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// True if there is an engine to test with. The image is built once, from this checkout, unless `FLOE_IMAGE_AS_IT_IS` is set.
async fn has_engine() -> bool {
    static BUILT: OnceLock<()> = OnceLock::new();
    if let Err(failure) = check_engine().await {
        eprintln!("skipped: {failure}");
        return false;
    }
    if std::env::var_os("FLOE_IMAGE_AS_IT_IS").is_none() {
        BUILT.get_or_init(build_image);
    }
    true
}

/// As from a shell: what cargo tells a test about the test would have it build everything anew.
fn build_image() {
    let mut command = Command::new(repository().join("testnet/image"));
    for (name, _) in std::env::vars_os() {
        let is_kept = ["CARGO_HOME", "CARGO_TARGET_DIR"].iter().any(|kept| name == *kept);
        if name.to_string_lossy().starts_with("CARGO") && !is_kept {
            command.env_remove(name);
        }
    }
    let output = command.arg(IMAGE).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What a client on this machine does with a network.
struct Client {
    network: String,
}

impl Client {
    fn floe(&self, args: &[&str]) -> Output {
        run(PROGRAM, &[&["floe", "--json", "--network", &self.network], args].concat())
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let output = self.floe(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    fn store(&self, file: &Path) -> String {
        let stored = self.json(&["store", "--epochs", "50", text(file)]);
        stored["blob_id"].as_str().unwrap_or_else(|| panic!("{stored}")).to_owned()
    }

    #[track_caller]
    fn check(&self, (blob_id, file): &(String, PathBuf)) {
        let out = tempfile::tempdir().unwrap();
        let copy = out.path().join("copy");
        self.json(&["read", blob_id, "--out", text(&copy)]);
        assert!(fs::read(copy).unwrap() == fs::read(file).unwrap(), "other bytes than were stored");
    }

    /// What members say of themselves, by name; those that do not answer say nothing.
    fn health(&self) -> BTreeMap<String, Value> {
        let output = self.floe(&["health"]);
        let Ok(health) = serde_json::from_slice::<Value>(&output.stdout) else { return BTreeMap::new() };
        let nodes = health["nodes"].as_array().cloned().unwrap_or_default().into_iter();
        nodes.map(|node| (node["name"].as_str().unwrap().to_owned(), node)).collect()
    }

    /// Waits until members are so many at least, all answer, hold something, and miss nothing.
    async fn wait_whole(&self, n_members: usize) -> Duration {
        let start = Instant::now();
        let mut last = BTreeMap::new();
        let whole = until("waiting for nodes to be whole", LIMIT, async || {
            last = self.health();
            let is_whole = |node: &Value| {
                node["slivers_missing"].as_u64() == Some(0) && node["slivers_held"].as_u64() > Some(0)
            };
            Ok((last.len() >= n_members && last.values().all(is_whole)).then_some(()))
        });
        whole.await.unwrap_or_else(|failure| panic!("{failure}: {last:?}"));
        start.elapsed()
    }
}

/// A file that no two tests store.
fn file(dir: &Path, bytes: usize) -> PathBuf {
    let path = dir.join(format!("file-{bytes}"));
    let mut content = vec![0; bytes];
    getrandom::fill(&mut content).unwrap();
    fs::write(&path, content).unwrap();
    path
}

/// The file that is checked in, under a project of its own, which ends with this value.
struct CheckedIn {
    project: String,
    file: String,
    program: Vec<&'static str>,
}

impl CheckedIn {
    fn new() -> Self {
        let two = run("docker", &["compose", "version"]).status.success();
        Self {
            project: format!("floe-test-{}", std::process::id()),
            file: text(&repository().join("testnet/docker-compose.yml")).to_owned(),
            program: if two { vec!["docker", "compose"] } else { vec!["docker-compose"] },
        }
    }

    #[track_caller]
    fn compose(&self, args: &[&str]) -> String {
        let common = ["--project-name", &self.project, "--file", &self.file];
        succeed(self.program[0], &[&self.program[1..], &common, args].concat())
    }

    /// Waits until so many containers are healthy.
    async fn wait_healthy(&self, count: usize) {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let args = ["ps", "--quiet", "--filter", &project, "--filter", "health=healthy"];
        let healthy = until("waiting for containers to be healthy", LIMIT, async || {
            Ok((succeed("docker", &args).lines().count() == count).then_some(()))
        });
        if let Err(failure) = healthy.await {
            panic!("{failure}: {} {}", self.compose(&["ps"]), self.compose(&["logs", "--tail", "5"]));
        }
    }

    fn left_behind(&self) -> String {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let kinds: [&[&str]; 3] = [&["ps", "--all"], &["volume", "ls"], &["network", "ls"]];
        kinds.map(|kind| succeed("docker", &[kind, &["--quiet", "--filter", &project]].concat())).concat()
    }
}

impl Drop for CheckedIn {
    fn drop(&mut self) {
        let common = ["--project-name", &self.project, "--file", &self.file, "down", "--volumes"];
        run(self.program[0], &[&self.program[1..], &common].concat());
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine, and takes minutes"]
async fn the_file_that_is_checked_in_runs_as_its_page_says() {
    if !has_engine().await {
        return;
    }
    let (start, dir) = (Instant::now(), tempfile::tempdir().unwrap());
    let net = CheckedIn::new();
    net.compose(&["config", "--quiet"]);
    net.compose(&["up", "-d"]);
    net.wait_healthy(8).await;
    eprintln!("8 containers are healthy after {:?}", start.elapsed());

    let setup = net.compose(&["ps", "-aq", "setup"]);
    succeed("docker", &["cp", &format!("{}:/testnet/net", setup.trim()), text(dir.path())]);
    let client = Client { network: text(&dir.path().join("net/client.toml")).to_owned() };
    let path = file(dir.path(), 3 << 20);
    let stored = (client.store(&path), path);
    client.check(&stored);

    // What was set up stays as it is.
    let genesis = fs::read(dir.path().join("net/genesis.toml")).unwrap();
    net.compose(&["kill", "node-1", "node-4"]);
    client.check(&stored);
    let path = file(dir.path(), 2 << 20);
    let missed = (client.store(&path), path);
    net.compose(&["up", "-d"]);
    net.wait_healthy(8).await;
    let healed = client.wait_whole(7).await;
    eprintln!("two that were killed are whole {healed:?} after they were healthy");
    let health = client.health();
    for name in ["node-1", "node-4"] {
        assert!(health[name]["repair_bytes_received"].as_u64() > Some(0), "{health:?}");
    }
    client.check(&stored);
    client.check(&missed);
    let setup = net.compose(&["ps", "-aq", "setup"]);
    succeed("docker", &["cp", &format!("{}:/testnet/net", setup.trim()), text(&dir.path().join("again"))]);
    assert_eq!(fs::read(dir.path().join("again/genesis.toml")).unwrap(), genesis);

    // Nobody in a container is root, may write outside its volume, or takes all there is.
    let node = net.compose(&["ps", "-q", "node-0"]);
    let inspected: Value = serde_json::from_str(&succeed("docker", &["inspect", node.trim()])).unwrap();
    let (host, config) = (&inspected[0]["HostConfig"], &inspected[0]["Config"]);
    assert_eq!(config["User"], "65532:65532");
    assert_eq!((&host["ReadonlyRootfs"], &host["CapDrop"][0]), (&true.into(), &"ALL".into()));
    assert_eq!(host["SecurityOpt"][0], "no-new-privileges:true");
    assert_eq!((&host["Memory"], &host["PidsLimit"]), (&(u64::from(MEMORY_MIB) << 20).into(), &256.into()));
    assert_eq!(host["NanoCpus"], 1_000_000_000u64);
    assert_eq!(host["RestartPolicy"]["Name"], "unless-stopped");

    net.compose(&["down", "-v"]);
    assert_eq!(net.left_behind(), "");
}

/// A network that ends with this value, also if a test fails.
struct Net {
    dir: tempfile::TempDir,
    containers: Containers,
}

impl Net {
    async fn create(line: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let args = Line::parse_from(std::iter::once("x").chain(line.split(' '))).spec;
        let spec: Spec = args.spec(Subnet::by_chance).unwrap();
        let containers = Containers::create(&dir.path().join("net"), spec, IMAGE).await.unwrap();
        Self { dir, containers }
    }

    fn client(&self) -> Client {
        Client { network: text(&self.containers.client_file()).to_owned() }
    }

    fn dir(&self) -> PathBuf {
        self.dir.path().join("net")
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        run(PROGRAM, &["compose", "down", "--dir", text(&self.dir())]);
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine, and takes minutes"]
async fn ten_nodes_and_a_stranger_bear_what_is_done_to_them() {
    if !has_engine().await {
        return;
    }
    let start = Instant::now();
    let net = Net::create("--nodes 10 --operators 1 --epoch 30s").await;
    let (containers, dir) = (&net.containers, net.dir.path());
    containers.up(LIMIT).await.unwrap();
    eprintln!("11 containers are healthy after {:?}", start.elapsed());
    let client = net.client();
    let stored = |bytes| {
        let path = file(dir, bytes);
        (client.store(&path), path)
    };
    let first = stored(3 << 20);
    client.check(&first);
    for node in 0..11 {
        assert_eq!(containers.container(node).await.unwrap().ip, Some(containers.spec().ip(node)));
    }

    crashes(&net, &client, &first).await;
    slow_and_cut_off(&net, &stored).await;
    lost_and_rotten(&net, &client, &first).await;

    // The stranger has been staked on all the while.
    let joined = until("waiting for the operator to have shards", LIMIT, async || {
        let health = client.health();
        Ok(health.get("node-10").filter(|node| node["shards"].as_u64() > Some(0)).cloned())
    });
    let joined = joined.await.unwrap();
    eprintln!("the operator has {} shards after {:?}", joined["shards"], start.elapsed());
    client.wait_whole(8).await;
    client.check(&first);
    assert!(containers.logs(10, 1000).await.unwrap().contains("registered and staked on"));
    // It has joined once; from now on it is a node like any other.
    containers.restart(10).await.unwrap();
    containers.wait_healthy(&[10], LIMIT).await.unwrap();

    containers.down().await.unwrap();
    assert!(containers.left_behind().await.unwrap().is_empty());
    assert!(containers.container(0).await.unwrap_err().to_string().contains("node-0 has no container"));
    eprintln!("all is gone after {:?}", start.elapsed());
}

/// Two nodes crash: the engine brings them back, and they heal. One is killed, and stays down until it is started.
async fn crashes(net: &Net, client: &Client, first: &(String, PathBuf)) {
    let containers = &net.containers;
    let before = containers.list().await.unwrap();
    for node in [2, 5] {
        containers.crash(node).await.unwrap();
    }
    client.check(first);
    containers.wait_healthy(&[2, 5], LIMIT).await.unwrap();
    let healed = client.wait_whole(10).await;
    eprintln!("two that crashed are whole {healed:?} after they were healthy");
    client.check(first);
    for node in ["node-2", "node-5"] {
        let after = containers.list().await.unwrap();
        assert_eq!((after[node].restarts, &after[node].id), (before[node].restarts + 1, &before[node].id));
    }
    containers.kill(7).await.unwrap();
    let killed = containers.container(7).await.unwrap();
    assert_eq!((killed.status, killed.exit_code, killed.pid), (Status::Exited, 137, None));
    let again = containers.kill(7).await.unwrap_err().to_string();
    assert!(again.contains("docker kill") && again.contains("is not running"), "{again}");
    let again = containers.crash(7).await.unwrap_err().to_string();
    assert!(again.contains("node-7 is not running"), "{again}");
    containers.start(7).await.unwrap();
    containers.stop(8).await.unwrap();
    assert_eq!(containers.container(8).await.unwrap().exit_code, 0, "it ends when it is asked to");
    containers.start(8).await.unwrap();
    containers.wait_healthy(&[7, 8], LIMIT).await.unwrap();
}

/// Stores go on while a node is slow and another one is off the network; both regain what they missed.
async fn slow_and_cut_off(net: &Net, stored: &impl Fn(usize) -> (String, PathBuf)) {
    let (containers, client) = (&net.containers, net.client());
    containers.pause(1).await.unwrap();
    assert_eq!(containers.container(1).await.unwrap().status, Status::Paused);
    containers.disconnect(3).await.unwrap();
    assert_eq!(containers.container(3).await.unwrap().ip, None);
    let meanwhile = stored(2 << 20);
    client.check(&meanwhile);
    containers.unpause(1).await.unwrap();
    containers.connect(3).await.unwrap();
    assert_eq!(containers.container(3).await.unwrap().ip, Some(containers.spec().ip(3)));
    containers.wait_healthy(&[1, 3], LIMIT).await.unwrap();
    client.wait_whole(10).await;
    client.check(&meanwhile);
    let again = containers.connect(3).await.unwrap_err().to_string();
    assert!(again.contains("network connect") && again.contains("already"), "{again}");
}

/// A disk is lost, another one rots.
async fn lost_and_rotten(net: &Net, client: &Client, first: &(String, PathBuf)) {
    let containers = &net.containers;
    let running = containers.wipe(4).await.unwrap_err().to_string();
    assert!(running.contains("node-4 is running"), "{running}");
    containers.kill(4).await.unwrap();
    let data = |files: &[VolumeFile]| {
        files.iter().filter(|file| file.path.starts_with("data")).map(|file| file.bytes).sum::<u64>()
    };
    assert!(data(&containers.files(4).await.unwrap()) > 100_000);
    containers.wipe(4).await.unwrap();
    let files = containers.files(4).await.unwrap();
    assert_eq!(data(&files), 0);
    assert!(files.iter().any(|file| file.path == Path::new("keys/peer.key")), "{files:?}");
    containers.start(4).await.unwrap();
    containers.wait_healthy(&[4], LIMIT).await.unwrap();
    let healed = client.wait_whole(10).await;
    eprintln!("the one that lost its disk is whole {healed:?} after it was healthy");
    let regained = client.health()["node-4"]["repair_bytes_received"].as_u64();
    assert!(regained > Some(500_000), "{regained:?}");

    let files = containers.files(6).await.unwrap();
    let logs = files.iter().filter(|file| file.path.starts_with("data/log"));
    let largest = logs.max_by_key(|file| file.bytes).unwrap();
    containers.corrupt(6, &largest.path, (largest.bytes / 2, 0x10)).await.unwrap();
    containers.put(6, Path::new("note"), b"what a person left").await.unwrap();
    let files = containers.files(6).await.unwrap();
    assert!(files.iter().any(|file| file.path == Path::new("note") && file.bytes == 18), "{files:?}");
    let beyond = containers.corrupt(6, &largest.path, (u64::MAX / 2, 1)).await.unwrap_err().to_string();
    assert!(beyond.contains("cannot corrupt byte"), "{beyond}");
    let outside = containers.put(6, Path::new("../x"), b"").await.unwrap_err().to_string();
    assert!(outside.contains("is not a path in the volume"), "{outside}");
    client.check(first);
}

/// What a network has that is made for chaos: each of its faults does what it is called.
#[tokio::test]
#[ignore = "needs a Docker engine, and takes minutes"]
async fn behind_a_relay_nodes_are_slow_and_split_and_their_disks_and_clocks_are_their_own() {
    if !has_engine().await {
        return;
    }
    let line = "--nodes 4 --shards 4 --operators 0 --relay-seed 1 --disk-mib 256";
    let (start, net) = (Instant::now(), Net::create(line).await);
    net.containers.up(LIMIT).await.unwrap();
    eprintln!("4 containers are healthy behind a relay after {:?}", start.elapsed());
    let client = net.client();
    let path = file(net.dir.path(), 3 << 20);
    let stored = (client.store(&path), path);
    client.check(&stored);
    slowed_and_split(&net, &client).await;
    client.wait_whole(4).await;
    full_and_wrong_about_the_time(&net).await;
    client.wait_whole(4).await;
    client.check(&stored);
    net.containers.down().await.unwrap();
    assert!(net.containers.left_behind().await.unwrap().is_empty());
}

async fn slowed_and_split(net: &Net, client: &Client) {
    let relay = net.containers.spec().control();
    let ask = || {
        let start = Instant::now();
        assert_eq!(client.health().len(), 4);
        start.elapsed()
    };
    let fair = (0..5).map(|_| ask()).min().unwrap();
    let mut weather = Weather::default();
    weather.delay_ms = 400;
    control::tell(relay, &weather).await.unwrap();
    let late = ask();
    eprintln!("asked for their health, nodes answer after {fair:?}; behind a slow relay, after {late:?}");
    // A handshake and a question: there and back several times, each way at least half of what is said.
    assert!(late > fair + Duration::from_millis(600), "{late:?} {fair:?}");

    // How many others each node is connected with, the client included.
    let peers =
        || -> Vec<u64> { client.health().values().filter_map(|node| node["peers"].as_u64()).collect() };
    let mut weather = Weather::default();
    control::tell(relay, &weather).await.unwrap();
    // Clients that asked before are gone once the nodes have heard so.
    let whole = until("waiting for all to be one", LIMIT, async || Ok((peers() == [4; 4]).then_some(())));
    whole.await.unwrap();
    weather.split(&[2, 3]);
    control::tell(relay, &weather).await.unwrap();
    // No other way leads around the relay, and whoever is no node is heard by all.
    let split = until("waiting for two halves", LIMIT, async || Ok((peers() == [2; 4]).then_some(())));
    split.await.unwrap();
    control::tell(relay, &Weather::default()).await.unwrap();
    let joined =
        until("waiting for the halves to be one", LIMIT, async || Ok((peers() == [4; 4]).then_some(())));
    joined.await.unwrap();
}

async fn full_and_wrong_about_the_time(net: &Net) {
    let containers = &net.containers;
    let bytes = |files: Vec<VolumeFile>| files.iter().map(|file| file.bytes).sum::<u64>();
    let before = bytes(containers.files(1).await.unwrap());
    containers.fill(1).await.unwrap();
    let (full, disk) = (bytes(containers.files(1).await.unwrap()), 256 << 20);
    assert!(full + (8 << 20) > disk && full < disk, "{full}");
    containers.empty(1).await.unwrap();
    assert!(bytes(containers.files(1).await.unwrap()) < before + (32 << 20));

    // A disk in memory is there as long as the network is.
    containers.kill(1).await.unwrap();
    assert!(bytes(containers.files(1).await.unwrap()) > 1 << 20);
    containers.start(1).await.unwrap();

    let program = async |node| {
        let id = containers.container(node).await.unwrap().id;
        succeed("docker", &["top", &id, "-o", "pid,args"])
    };
    containers.skew(2, -300).await.unwrap();
    let skewed = program(2).await;
    assert!(skewed.contains("node run") && skewed.contains("--clock-off-by=-300"), "{skewed}");
    containers.wait_healthy(&[1, 2], LIMIT).await.unwrap();
    containers.skew(2, 0).await.unwrap();
    assert!(!program(2).await.contains("--clock-off-by"));
    containers.wait_healthy(&[2], LIMIT).await.unwrap();
}
