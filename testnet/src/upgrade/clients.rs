//! Clients of both versions: the programs themselves, one process for each operation.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use node::cli::{Exit, Failure};
use rand::Rng as _;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{CancellationToken, Used, Version};
use crate::{
    cluster::{Cluster, client_file},
    content::{bytes_of, rng},
    figures::latency,
};

/// Clients of each version that are at work at the same time.
const CLIENTS: u64 = 2;
/// How often an operation is tried, as a person would; with a pause.
const ATTEMPTS: usize = 3;
/// See above.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How often a program is looked at: latencies are no more exact than this.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes of what a program prints that are looked at; it prints a line.
const SAID_BYTES_MAX: u64 = 64 << 10;
/// Reads in the end that are under way at the same time.
const READS: usize = 4;

/// A blob that was stored.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    id: String,
    number: u64,
    size: usize,
}

/// A program that is a client of the network.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    version: Version,
    program: PathBuf,
    network: PathBuf,
}

impl Tool {
    /// Both programs as clients.
    pub(super) fn all(programs: &BTreeMap<Version, PathBuf>, cluster: &Cluster) -> Vec<Self> {
        let network = client_file(cluster.dir());
        programs
            .iter()
            .map(|(version, program)| Self {
                version: *version,
                program: program.clone(),
                network: network.clone(),
            })
            .collect()
    }

    async fn floe(&self, args: &[&OsStr]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.arg("--network").arg(&self.network).args(args);
        said(command).await
    }

    async fn store(&self, wallet: &Path, file: &Path) -> Result<String, String> {
        let args = [OsStr::new("store"), OsStr::new("--wallet"), wallet.as_os_str(), file.as_os_str()];
        Ok(self.floe(&args).await?.trim().to_owned())
    }

    async fn read(&self, blob: &Blob, seed: u64, out: &Path) -> Result<(), String> {
        // What an attempt before has left is no answer to this one.
        let _ = fs::remove_file(out);
        // The ID comes last: it may begin with a hyphen.
        let words = ["read", "--out"].map(OsStr::new);
        self.floe(&[words[0], words[1], out.as_os_str(), OsStr::new("--"), OsStr::new(&blob.id)]).await?;
        let read = fs::read(out).map_err(|error| format!("cannot read {}: {error}", out.display()))?;
        let is_it = read == bytes_of(seed, blob.number, blob.size);
        is_it.then_some(()).ok_or_else(|| format!("{} was read as other bytes than were stored", blob.id))
    }
}

/// A program that is running; killed if nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program; what it prints, or why it failed.
async fn said(mut command: Command) -> Result<String, String> {
    let run = async {
        // Files and not pipes: they never fill up.
        let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let mut running = Running(command.spawn()?);
        let status = loop {
            match running.0.try_wait()? {
                Some(status) => break status,
                None => sleep(LOOK).await,
            }
        };
        let text = |file: &mut File| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0))?;
            file.take(SAID_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok::<_, io::Error>((status, text(&mut stdout)?, text(&mut stderr)?))
    };
    match timeout(LIMIT, run).await {
        Ok(Ok((status, said, _))) if status.success() => Ok(said),
        Ok(Ok((status, _, error))) => Err(format!("{status}: {}", error.trim())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it took too long".to_owned()),
    }
}

/// What a program says that it is.
pub(super) async fn name(program: &Path) -> Result<String, Failure> {
    let mut command = Command::new(program);
    command.arg("--version");
    let name = said(command).await.map_err(|reason| {
        Failure::new(Exit::Usage, format!("{} does not say its version: {reason}", program.display()))
            .hint("give the path of a floe program")
    })?;
    Ok(name.trim().to_owned())
}

/// Whether a node's own program says that it is well.
pub(super) async fn is_well(program: &Path, node_dir: &Path) -> Result<bool, Failure> {
    let mut command = Command::new(program);
    command.args(["node", "health", "--dir"]).arg(node_dir);
    Ok(said(command).await.is_ok())
}

/// What the clients of a version have seen.
#[derive(Debug, Default)]
struct Seen {
    stores: Vec<Duration>,
    reads: Vec<Duration>,
    retried: usize,
    given_up: usize,
    first_failure: Option<String>,
}

/// What all clients share.
#[derive(Debug, Default)]
struct Shared {
    seed: u64,
    next: AtomicU64,
    finished: AtomicUsize,
    blobs: Mutex<Vec<Blob>>,
    seen: Mutex<BTreeMap<Version, Seen>>,
}

/// Clients at work.
#[derive(Debug)]
pub(super) struct Clients {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Clients {
    /// Starts them, each with a wallet of its own.
    pub(super) async fn start(tools: &[Tool], dir: &Path, seed: u64) -> Result<Self, Failure> {
        fs::create_dir_all(dir).map_err(|error| Failure::io("cannot make room for clients", &error))?;
        let shared = Arc::new(Shared { seed, ..Shared::default() });
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        for tool in tools {
            for number in 0..CLIENTS {
                let name = format!("{}-{number}", tool.version.name());
                let wallet = dir.join(format!("{name}.key"));
                let new = [OsStr::new("wallet"), OsStr::new("new"), OsStr::new("--out"), wallet.as_os_str()];
                tool.floe(&new).await.map_err(|reason| {
                    Failure::new(
                        Exit::Other,
                        format!("the {} program makes no wallet: {reason}", tool.version.name()),
                    )
                })?;
                let client =
                    Client { tool: tool.clone(), wallet, file: dir.join(name), shared: Arc::clone(&shared) };
                let stop = stop.clone();
                tasks.spawn(async move {
                    // An operation that has begun is brought to its end: whether it succeeded is what counts.
                    while !stop.is_cancelled() {
                        client.store_and_read().await;
                    }
                });
            }
        }
        Ok(Self { shared, stop, tasks })
    }

    /// Operations that were done so far.
    pub(super) fn finished(&self) -> usize {
        self.shared.finished.load(Ordering::Relaxed)
    }

    /// Waits until all operations that were begun are done; returns what was seen, and what was stored.
    pub(super) async fn end(mut self) -> (BTreeMap<Version, Used>, Vec<Blob>) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let seen = std::mem::take(&mut *lock(&self.shared.seen));
        let used = seen.into_iter().map(|(version, seen)| {
            let Seen { stores, reads, retried, given_up, first_failure } = seen;
            let (store, read) = (latency(stores.into_iter()), latency(reads.into_iter()));
            (version, Used { store, read, retried, given_up, first_failure })
        });
        (used.collect(), std::mem::take(&mut *lock(&self.shared.blobs)))
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Valid after each statement.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Client {
    tool: Tool,
    wallet: PathBuf,
    /// What it stores; what it reads has another ending.
    file: PathBuf,
    shared: Arc<Shared>,
}

/// What a client does.
enum Operation {
    Store { number: u64, size: usize },
    Read(Blob),
}

impl Client {
    /// Stores a blob, and reads any, of whichever version stored it.
    async fn store_and_read(&self) {
        let shared = &self.shared;
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let mut dice = rng(shared.seed ^ 1, number);
        let size = 1 << dice.random_range(10..=20);
        if let Some((id, took)) = self.attempt(&Operation::Store { number, size }).await {
            lock(&shared.blobs).push(Blob { id, number, size });
            self.saw(|seen| seen.stores.push(took));
        }
        let blob = {
            let blobs = lock(&shared.blobs);
            let any = dice.random_range(0..blobs.len().max(1));
            blobs.get(any).cloned()
        };
        let Some(blob) = blob else { return };
        if let Some((_, took)) = self.attempt(&Operation::Read(blob)).await {
            self.saw(|seen| seen.reads.push(took));
        }
    }

    fn saw(&self, step: impl FnOnce(&mut Seen)) {
        step(lock(&self.shared.seen).entry(self.tool.version).or_default());
    }

    /// Does it once; returns the ID of the blob.
    async fn perform(&self, operation: &Operation) -> Result<String, String> {
        match operation {
            Operation::Store { number, size } => {
                fs::write(&self.file, bytes_of(self.shared.seed, *number, *size))
                    .map_err(|error| error.to_string())?;
                self.tool.store(&self.wallet, &self.file).await
            }
            Operation::Read(blob) => {
                self.tool.read(blob, self.shared.seed, &self.file.with_extension("out")).await?;
                Ok(blob.id.clone())
            }
        }
    }

    /// Tries an operation a few times; the ID of the blob, and how long it took in all.
    async fn attempt(&self, operation: &Operation) -> Option<(String, Duration)> {
        let began = Instant::now();
        for attempt in 0..ATTEMPTS {
            match self.perform(operation).await {
                Ok(id) => {
                    self.shared.finished.fetch_add(1, Ordering::Relaxed);
                    return Some((id, began.elapsed()));
                }
                Err(reason) => {
                    let is_last = attempt + 1 == ATTEMPTS;
                    self.saw(|seen| {
                        seen.retried += usize::from(attempt == 0);
                        seen.given_up += usize::from(is_last);
                        seen.first_failure.get_or_insert(reason);
                    });
                    if !is_last {
                        sleep(PAUSE).await;
                    }
                }
            }
        }
        None
    }
}

/// Reads every blob with every program; says which were not read.
pub(super) async fn read_all(tools: &[Tool], (dir, seed): (&Path, u64), blobs: &[Blob]) -> Vec<String> {
    let jobs = blobs.iter().flat_map(|blob| tools.iter().map(move |tool| (blob, tool)));
    let reads = jobs.enumerate().map(|(number, (blob, tool))| async move {
        let out = dir.join(format!("{number}.back"));
        let read = tool.read(blob, seed, &out).await;
        // It was compared.
        let _ = fs::remove_file(&out);
        read.err().map(|reason| format!("{} program: {reason}", tool.version.name()))
    });
    stream::iter(reads).buffer_unordered(READS).filter_map(async |lost| lost).collect().await
}
