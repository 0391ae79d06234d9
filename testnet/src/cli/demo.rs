//! `floe-testnet demo`: what Floe promises, shown on real processes, and checked.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use node::{
    cli::{
        Connection, Exit, Failure, Output, load_key,
        output::{Bytes, Table, note},
    },
    client::{BlobSource as _, FileSource, MemberHealth, Progress, StoreOptions},
};
use protocol::{BlobId, encoding::BlobShape};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use serde::Serialize;
use tokio::time::Instant;

use crate::cluster::{Cluster, ClusterConfig, Fate, disk_bytes, wallet_file};

/// How long the network may take to find together.
const UP_LIMIT: Duration = Duration::from_secs(120);
/// How long nodes may take to regain what they lost: a minute, and a second for every MiB, is slow beyond doubt.
const HEAL_LIMIT: Duration = Duration::from_secs(60);
const HEAL_LIMIT_PER_MIB: Duration = Duration::from_secs(1);
/// Most bytes of symbols that repair may receive for four bytes that it regains. Symbols add up to at most what was
/// lost; what comes on top is requests that were asked twice because a helper was slow.
const REPAIR_BYTES_MAX_PER_4: u64 = 5;
/// Most bytes that a node receives for the commitment of a segment, for each shard of the network. It needs one whatever
/// the size of the blob, so that it counts only for tiny ones.
const COMMITMENT_BYTES_MAX: u64 = 128;
/// Size of the generated file.
const SIZE_DEFAULT: u64 = 64 << 20;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file to store [default: random bytes]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Size of the generated file, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = SIZE_DEFAULT, conflicts_with = "file")]
    size: u64,
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 7)]
    nodes: u16,
    /// Number of shards, spread evenly over the nodes
    #[arg(long, value_name = "N", default_value_t = 13)]
    shards: u16,
    /// Keep the network's directory, with its logs
    #[arg(long)]
    keep: bool,
}

/// What is printed: every promise with what was measured.
#[derive(Clone, Debug, Serialize)]
struct Report {
    blob_id: String,
    size: u64,
    n_nodes: u16,
    n_shards: u16,
    /// Shards that may fail.
    max_faulty: u16,
    n_segments: u32,
    /// Bytes of all slivers, and of those per byte of the blob.
    stored_bytes: u64,
    overhead: f64,
    /// Bytes that the stores of all nodes take on the disk.
    disk_bytes: u64,
    seconds_to_certify: f64,
    /// From the certificate, made while a node was down, until that node has everything too.
    seconds_to_full_redundancy: f64,
    /// The nodes that were killed, and emptied.
    lost_nodes: Vec<usize>,
    lost_shards: u16,
    /// Bytes of slivers on them.
    lost_bytes: u64,
    repair_bytes_received: u64,
    repair_bytes_regained: u64,
    /// Bytes received for each byte regained.
    repair_ratio: f64,
    /// From the start of the emptied nodes until they have everything again.
    seconds_to_heal: f64,
    /// Reads, each compared byte for byte: while nodes are down, and after others are.
    read_while_down: bool,
    seconds_to_read_while_down: f64,
    read_back: bool,
    seconds_to_read_back: f64,
    seconds: f64,
}

pub(super) async fn execute(args: Args, output: Output) -> Result<(), Failure> {
    let dir = tempfile::Builder::new()
        .prefix("floe-demo-")
        .tempdir()
        .map_err(|error| Failure::io("cannot create a temporary directory", &error))?;
    let dir = Directory::new(dir, args.keep);
    let config = ClusterConfig { n_nodes: args.nodes, n_shards: args.shards, base_port: None };
    // Before anything runs: a typing error in the name is found at once.
    let path = match &args.file {
        Some(file) => file.clone(),
        None => generate(dir.path(), args.size)?,
    };
    let source = FileSource::open(&path)
        .map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))?;
    let cluster = Cluster::create(&dir.path().join("testnet"), &config, Fate::WithParent).await?;
    let mut demo = Demo::new(cluster, path, Arc::new(source))?;
    let result = demo.run().await;
    if result.is_ok() {
        demo.cluster.stop_all().await?;
    }
    // Whatever happened, no node outlives this line.
    drop(demo);
    let report = result?;
    output.data(&report, report.table())?;
    report.check()
}

/// A temporary directory that is removed at the end unless it is to be kept.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    _removed: Option<tempfile::TempDir>,
}

impl Directory {
    fn new(dir: tempfile::TempDir, keep: bool) -> Self {
        let path = dir.path().to_owned();
        if keep {
            note(format_args!("everything stays in {}", dir.keep().display()));
            return Self { path, _removed: None };
        }
        Self { path, _removed: Some(dir) }
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes a file of random bytes, the same each time.
fn generate(dir: &Path, size: u64) -> Result<PathBuf, Failure> {
    let path = dir.join("blob");
    let write = || {
        let mut file = BufWriter::new(File::create(&path)?);
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let mut buffer = vec![0; 1 << 20];
        let mut left = size;
        while left > 0 {
            random.fill_bytes(&mut buffer);
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            file.write_all(&buffer[..len])?;
            left -= u64::try_from(len).unwrap_or(left);
        }
        file.flush()
    };
    write().map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))?;
    Ok(path)
}

/// The nodes that play a part, each group within the tolerance.
#[derive(Debug, PartialEq, Eq)]
struct Cast {
    /// Down while the blob is stored.
    absent: usize,
    /// Killed and emptied.
    lost: Vec<usize>,
    /// Killed at the end: others than `lost`, so that reading depends on what was regained.
    last: Vec<usize>,
}

impl Cast {
    fn new(shards: &[u16], max_faulty: u16) -> Option<Self> {
        let group = |nodes: &mut dyn Iterator<Item = usize>| {
            let mut weight = 0;
            let mut group = Vec::new();
            for node in nodes {
                if weight + shards[node] <= max_faulty {
                    weight += shards[node];
                    group.push(node);
                }
            }
            group
        };
        let lost = group(&mut (0..shards.len()));
        let last = group(&mut (0..shards.len()).filter(|node| !lost.contains(node)));
        let absent = *last.first()?;
        (!lost.is_empty()).then_some(Self { absent, lost, last })
    }
}

/// A demonstration under way.
#[derive(Debug)]
struct Demo {
    cluster: Cluster,
    path: PathBuf,
    source: Arc<FileSource>,
    shape: BlobShape,
    cast: Cast,
    start: Instant,
}

impl Demo {
    fn new(cluster: Cluster, path: PathBuf, source: Arc<FileSource>) -> Result<Self, Failure> {
        let shape = BlobShape::new(cluster.genesis().n_shards(), source.len())
            .map_err(|error| Failure::of(Exit::Usage, &error))?;
        let shards =
            (0..cluster.n_nodes()).map(|node| cluster.shards(node)).collect::<Result<Vec<_>, _>>()?;
        let cast = Cast::new(&shards, cluster.max_faulty()).ok_or_else(|| {
            let what = format!("no two nodes of {} may each fail with their shards", shards.len());
            Failure::new(Exit::Usage, what).hint("choose more nodes, as with --nodes 7 --shards 13")
        })?;
        Ok(Self { cluster, path, source, shape, cast, start: Instant::now() })
    }

    /// Tells the user what happens, and when.
    fn tell(&self, text: impl std::fmt::Display) {
        note(format_args!("[{:6.1} s] {text}", self.start.elapsed().as_secs_f64()));
    }

    async fn run(&mut self) -> Result<Report, Failure> {
        let mut report = self.blank_report()?;
        self.tell(format_args!("starting {} nodes with {} shards", report.n_nodes, report.n_shards));
        self.cluster.start_all().await?;
        let observer = self.cluster.observe().await?;
        self.cluster.wait_healthy(&observer, UP_LIMIT, |_| {}).await?;
        self.tell("all nodes are healthy");
        self.store_with_a_node_down(&observer, &mut report).await?;
        self.lose_and_heal(&observer, &mut report).await?;
        self.read_after_others_are_down(&mut report).await?;
        observer.close().await;
        report.seconds = self.start.elapsed().as_secs_f64();
        Ok(report)
    }

    async fn store_with_a_node_down(
        &mut self,
        observer: &Connection,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let absent = self.cast.absent;
        self.cluster.kill(absent).await?;
        self.tell(format_args!("node-{absent} is down; storing {}", Bytes(report.size)));
        let connection = self.cluster.connect().await?;
        let source = Arc::clone(&self.source);
        let certified = Arc::new(std::sync::OnceLock::new());
        let at = Arc::clone(&certified);
        let progress = Arc::new(move |progress| {
            if progress == Progress::Certified {
                let _ = at.set(Instant::now());
            }
        });
        let wallet = load_key(&wallet_file(self.cluster.dir()))?;
        let options = StoreOptions::default();
        let stored = connection.client().store(source, wallet.signing(), options, progress).await;
        let stored = stored.map_err(|error| Failure::store(&self.path.display().to_string(), &error))?;
        connection.close().await;
        let certified = certified.get().copied().unwrap_or_else(Instant::now);
        report.blob_id = stored.blob_id.to_string();
        report.seconds_to_certify = stored.duration.as_secs_f64();
        self.tell(format_args!("certified as {} by {} shards", stored.blob_id, stored.confirmed));

        self.cluster.start(absent).await?;
        self.tell(format_args!("node-{absent} is back, and repairs what it missed"));
        self.wait_whole(observer, report.size).await?;
        report.seconds_to_full_redundancy = certified.elapsed().as_secs_f64();
        report.disk_bytes = (0..self.cluster.n_nodes())
            .map(|node| disk_bytes(&self.cluster.node_dir(node).join("data")))
            .sum();
        self.tell("every shard has its slivers");
        Ok(())
    }

    async fn lose_and_heal(&mut self, observer: &Connection, report: &mut Report) -> Result<(), Failure> {
        let lost = self.cast.lost.clone();
        for node in &lost {
            self.cluster.kill(*node).await?;
        }
        self.tell(format_args!("killed {}, with {} shards; reading", names(&lost), report.lost_shards));
        (report.read_while_down, report.seconds_to_read_while_down) = self.read(&report.blob_id).await?;

        let start = Instant::now();
        for node in &lost {
            self.cluster.wipe(*node).await?;
            self.cluster.start(*node).await?;
        }
        self.tell(format_args!("started {} with empty disks", names(&lost)));
        let members = self.wait_whole(observer, report.size).await?;
        report.seconds_to_heal = start.elapsed().as_secs_f64();
        for health in lost.iter().filter_map(|node| members[*node].report.as_ref().ok()) {
            report.repair_bytes_received += health.repair_bytes_received;
            report.repair_bytes_regained += health.repair_bytes_regained;
        }
        report.repair_ratio = ratio(report.repair_bytes_received, report.repair_bytes_regained);
        self.tell("every shard has its slivers again");
        Ok(())
    }

    async fn read_after_others_are_down(&mut self, report: &mut Report) -> Result<(), Failure> {
        let last = self.cast.last.clone();
        for node in &last {
            self.cluster.kill(*node).await?;
        }
        self.tell(format_args!("killed {}; reading from the rest", names(&last)));
        (report.read_back, report.seconds_to_read_back) = self.read(&report.blob_id).await?;
        self.tell("done");
        Ok(())
    }

    /// Waits until every node holds what its shards owe.
    async fn wait_whole(&mut self, observer: &Connection, size: u64) -> Result<Vec<MemberHealth>, Failure> {
        let per_shard = 2 * u64::from(self.shape.n_segments());
        let mebibytes = u32::try_from(size >> 20).unwrap_or(u32::MAX);
        let limit = HEAL_LIMIT + HEAL_LIMIT_PER_MIB.saturating_mul(mebibytes);
        let start = self.start;
        let mut last = u64::MAX;
        self.cluster
            .wait_health(observer, "waiting for every shard to have its slivers", limit, |members| {
                let missing = members.iter().map(|member| owed(member, per_shard)).sum();
                if missing != last {
                    note(format_args!("[{:6.1} s]   {missing} slivers to go", start.elapsed().as_secs_f64()));
                    last = missing;
                }
                (missing == 0).then(|| members.to_vec())
            })
            .await
    }

    /// Reads the blob and compares it with the file: whether it is the same, and how long it took.
    async fn read(&self, blob_id: &str) -> Result<(bool, f64), Failure> {
        let blob_id: BlobId = blob_id.parse().map_err(|error| Failure::of(Exit::Other, &error))?;
        let file = File::open(&self.path)
            .map_err(|error| Failure::io(format!("cannot read {}", self.path.display()), &error))?;
        let connection = self.cluster.connect().await?;
        let start = Instant::now();
        let compare = Compare { file, offset: 0, same: true };
        let result = connection.client().read(blob_id, compare, Arc::new(|_| {})).await;
        let seconds = start.elapsed().as_secs_f64();
        connection.close().await;
        let (_, compared) = result.map_err(|error| Failure::read(&blob_id, error))?;
        let same = compared.is_same()?;
        self.tell(if same { "read the same bytes" } else { "read OTHER bytes" });
        Ok((same, seconds))
    }

    fn blank_report(&self) -> Result<Report, Failure> {
        let lost_shards: u16 =
            self.cast.lost.iter().map(|node| self.cluster.shards(*node)).sum::<Result<_, _>>()?;
        let pairs = |index| self.shape.segment(index).map(|shape| shape.pair_bytes());
        let pair_bytes: usize = self
            .shape
            .segments()
            .map(pairs)
            .sum::<Result<_, _>>()
            .map_err(|error| Failure::of(Exit::Other, &error))?;
        let lost_bytes = u64::try_from(pair_bytes).unwrap_or(u64::MAX).saturating_mul(lost_shards.into());
        Ok(Report {
            blob_id: String::new(),
            size: self.shape.length(),
            n_nodes: self.cluster.genesis().committee().n_members(),
            n_shards: self.shape.n(),
            max_faulty: self.cluster.max_faulty(),
            n_segments: self.shape.n_segments(),
            stored_bytes: self.shape.encoded_bytes(),
            overhead: ratio(self.shape.encoded_bytes(), self.shape.length()),
            disk_bytes: 0,
            seconds_to_certify: 0.0,
            seconds_to_full_redundancy: 0.0,
            lost_nodes: self.cast.lost.clone(),
            lost_shards,
            lost_bytes,
            repair_bytes_received: 0,
            repair_bytes_regained: 0,
            repair_ratio: 0.0,
            seconds_to_heal: 0.0,
            read_while_down: false,
            seconds_to_read_while_down: 0.0,
            read_back: false,
            seconds_to_read_back: 0.0,
            seconds: 0.0,
        })
    }
}

/// Slivers that a node owes, or does not say that it holds.
fn owed(member: &MemberHealth, per_shard: u64) -> u64 {
    let due = per_shard * u64::from(member.shards);
    member
        .report
        .as_ref()
        .map_or(due, |health| due.saturating_sub(health.slivers_held).max(health.slivers_missing))
}

fn names(nodes: &[usize]) -> String {
    nodes.iter().map(|node| format!("node-{node}")).collect::<Vec<_>>().join(", ")
}

/// `part` for each unit of `whole`, which counts as one if there is none.
fn ratio(part: u64, whole: u64) -> f64 {
    // Thousandths are exact enough for people, and fit in what converts without loss.
    let thousandths = u128::from(part) * 1000 / u128::from(whole).max(1);
    f64::from(u32::try_from(thousandths).unwrap_or(u32::MAX)) / 1000.0
}

/// Compares what is written to it with a file.
#[derive(Debug)]
struct Compare {
    file: File,
    offset: u64,
    same: bool,
}

impl Compare {
    /// True if all of the file was written, and nothing else.
    fn is_same(&self) -> Result<bool, Failure> {
        let len = self.file.metadata().map_err(|error| Failure::io("cannot compare", &error))?.len();
        Ok(self.same && self.offset == len)
    }
}

impl Write for Compare {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut expected = vec![0; bytes.len()];
        let got = self.file.read_at(&mut expected, self.offset)?;
        if got == 0 {
            // More than the file has.
            self.same &= bytes.is_empty();
            return Ok(bytes.len());
        }
        self.same &= bytes[..got] == expected[..got];
        self.offset += u64::try_from(got).map_err(io::Error::other)?;
        Ok(got)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Report {
    fn table(&self) -> Table {
        let mut table = Table::new(&["", ""]);
        let yes = |value| if value { "yes" } else { "NO" };
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        row("blob", self.blob_id.clone());
        row("size", Bytes(self.size).to_string());
        row(
            "network",
            format!("{} nodes, {} shards, {} may fail", self.n_nodes, self.n_shards, self.max_faulty),
        );
        row("stored", format!("{} ({:.2} times the size)", Bytes(self.stored_bytes), self.overhead));
        row("on disk", Bytes(self.disk_bytes).to_string());
        row("certified after", format!("{:.2} s", self.seconds_to_certify));
        row("full redundancy after", format!("{:.2} s more, a node down", self.seconds_to_full_redundancy));
        row("lost", format!("{} of {} shards: {}", self.lost_shards, self.n_shards, Bytes(self.lost_bytes)));
        row(
            "read while they are down",
            format!("{}, {:.2} s", yes(self.read_while_down), self.seconds_to_read_while_down),
        );
        row("regained by repair", Bytes(self.repair_bytes_regained).to_string());
        row(
            "moved by repair",
            format!("{} ({:.3} times that)", Bytes(self.repair_bytes_received), self.repair_ratio),
        );
        row("healed after", format!("{:.2} s", self.seconds_to_heal));
        row("read back, others down", format!("{}, {:.2} s", yes(self.read_back), self.seconds_to_read_back));
        row("total", format!("{:.1} s", self.seconds));
        table
    }

    /// Fails if anything is not as promised.
    fn check(&self) -> Result<(), Failure> {
        let broken = |what: String| Err(Failure::new(Exit::Broken, what));
        if !self.read_while_down || !self.read_back {
            return broken("other bytes were read than were stored".to_owned());
        }
        if self.repair_bytes_regained != self.lost_bytes {
            let Self { repair_bytes_regained, lost_bytes, .. } = self;
            return broken(format!("repair regained {repair_bytes_regained} of {lost_bytes} bytes"));
        }
        let received_max = self.repair_bytes_max();
        if self.repair_bytes_received > received_max {
            let Self { repair_bytes_received, lost_bytes, .. } = self;
            return broken(format!(
                "repair received {repair_bytes_received} bytes for {lost_bytes} lost, promised are {received_max}"
            ));
        }
        Ok(())
    }

    /// Most bytes that regaining what was lost may take.
    fn repair_bytes_max(&self) -> u64 {
        let nodes = u64::try_from(self.lost_nodes.len()).unwrap_or(u64::MAX);
        let commitment = COMMITMENT_BYTES_MAX * u64::from(self.n_shards);
        let commitments = nodes.saturating_mul(u64::from(self.n_segments)).saturating_mul(commitment);
        (self.lost_bytes / 4).saturating_mul(REPAIR_BYTES_MAX_PER_4).saturating_add(commitments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cast_stays_within_the_tolerance_and_plays_different_parts() {
        let cast = Cast::new(&[2, 2, 2, 2, 2, 2, 1], 4).unwrap();
        assert_eq!(cast, Cast { absent: 2, lost: vec![0, 1], last: vec![2, 3] });
        assert_eq!(Cast::new(&[1, 1, 1, 1], 1).unwrap(), Cast { absent: 1, lost: vec![0], last: vec![1] });
        assert_eq!(Cast::new(&[4], 1), None);
        assert_eq!(Cast::new(&[3, 1], 1), None);
    }

    #[test]
    fn other_bytes_are_noticed() {
        let compare = |written: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"abcdef").unwrap();
            let mut compare = Compare { file, offset: 0, same: true };
            for part in written.chunks(4) {
                compare.write_all(part).unwrap();
            }
            compare.is_same().unwrap()
        };
        assert!(compare(b"abcdef"));
        for other in [&b""[..], b"abcde", b"abcdefg", b"abXdef", b"abcdeX"] {
            assert!(!compare(other));
        }
    }

    #[test]
    fn the_generated_file_has_its_size() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 1, (1 << 20) + 1] {
            let path = generate(dir.path(), size).unwrap();
            assert_eq!(path.metadata().unwrap().len(), size);
        }
    }

    #[test]
    fn ratios_are_rounded_down_and_defined_for_nothing() {
        assert!((ratio(9, 2) - 4.5).abs() < 1e-9);
        assert!((ratio(5, 0) - 5.0).abs() < 1e-9);
        assert!(ratio(0, 5).abs() < 1e-9);
    }
}
