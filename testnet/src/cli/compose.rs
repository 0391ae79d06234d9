//! `floe-testnet compose`, and what its containers run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Subcommand, value_parser};
use node::cli::{
    Failure, Output, block_on, duration,
    output::{Table, raw},
    runtime,
};
use serde::Serialize;

use crate::compose::{
    Container, Containers, IMAGE, Spec, SpecArgs, Subnet, compose_file,
    inside::{self, JoinArgs, NODE_DIR, Victim},
};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    make: Make,
}

/// What makes a network of containers.
#[derive(Debug, clap::Args)]
struct Make {
    #[command(flatten)]
    spec: SpecArgs,
    /// The image of the containers, as testnet/image builds it
    #[arg(long, value_name = "NAME", default_value = IMAGE)]
    image: String,
    /// Make a network in this directory, which is empty or not there yet; start it with `compose up`
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write the compose file here, for docker-compose [default: standard output]
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a network, and wait until all its nodes are healthy
    Up {
        #[command(flatten)]
        network: Network,
        /// How long that may take
        #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
        limit: Duration,
    },
    /// Remove a network with everything that it stored
    Down(Network),
    /// Show how the containers are
    Ps(Network),
    /// Show the end of a node's log
    Logs {
        #[command(flatten)]
        node: Node,
        /// How many lines
        #[arg(long, value_name = "N", default_value_t = 100)]
        lines: u32,
    },
    /// Kill a node, as a loss of power would; it stays down until it is started
    Kill(Node),
    /// Kill the process of a node, which the engine starts again
    Crash(Node),
    /// Give a node no more time: it looks slow, not gone
    Pause(Node),
    /// Give a paused node time again
    Unpause(Node),
    /// Ask a node to end
    Stop(Node),
    /// Start a node that does not run
    Start(Node),
    /// Ask a node to end, and start it again
    Restart(Node),
    /// Take a node off the network; its process runs on
    Disconnect(Node),
    /// Put a node back on the network, with its address
    Connect(Node),
    /// Empty the disk of a node that does not run; keys and configuration stay
    Wipe(Node),
    /// List the files of a node's volume
    Files(Node),
    /// Flip bits in a byte of a file of a node's volume, as a disk does that rots
    Corrupt {
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        change: Change,
    },
}

#[derive(Debug, clap::Args)]
struct Network {
    /// The directory of the network
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Node {
    /// The directory of the network
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The node's number
    #[arg(long, value_name = "I")]
    node: u16,
}

#[derive(Debug, clap::Args)]
pub(super) struct Change {
    /// The file, from the volume on
    #[arg(long, value_name = "PATH")]
    path: PathBuf,
    /// Which byte
    #[arg(long, value_name = "N")]
    offset: u64,
    /// The bits to flip
    #[arg(long, value_name = "BITS", default_value_t = 1, value_parser = value_parser!(u8).range(1..))]
    mask: u8,
}

#[derive(Debug, Serialize)]
struct Made {
    project: String,
    dir: String,
    subnet: String,
    nodes: u16,
    /// The `client.toml` by which clients on this machine use the network, once it is up.
    client: String,
}

#[derive(Debug, Serialize)]
struct Removed {
    project: String,
}

#[derive(Debug, Serialize)]
struct Done {
    node: u16,
    container: String,
    #[serde(flatten)]
    now: Container,
}

pub(super) async fn execute(args: Args, output: Output) -> Result<(), Failure> {
    let Args { command, make } = args;
    match command {
        None => make_network(make, output).await,
        Some(Command::Up { network, limit }) => up(&network.dir, limit, output).await,
        Some(Command::Down(network)) => {
            let containers = Containers::open(&network.dir).await?;
            containers.down().await?;
            let project = containers.project().to_owned();
            let text = format!("removed the containers, volumes and the network of {project}");
            output.data(&Removed { project }, text)
        }
        Some(Command::Ps(network)) => {
            let containers = Containers::open(&network.dir).await?.list().await?;
            output.data(&containers, table(&containers))
        }
        Some(Command::Logs { node, lines }) => {
            let log = Containers::open(&node.dir).await?.logs(node.node, lines).await?;
            output.data(&log, &log)
        }
        Some(Command::Files(node)) => {
            let files = Containers::open(&node.dir).await?.files(node.node).await?;
            let mut table = Table::new(&["FILE", "BYTES"]);
            for file in &files {
                table.row([file.path.display().to_string(), file.bytes.to_string()]);
            }
            output.data(&files, table)
        }
        Some(command) => act(command, output).await,
    }
}

/// Carries out what changes one node, and shows how it is then.
async fn act(command: Command, output: Output) -> Result<(), Failure> {
    let (Command::Kill(node)
    | Command::Crash(node)
    | Command::Pause(node)
    | Command::Unpause(node)
    | Command::Stop(node)
    | Command::Start(node)
    | Command::Restart(node)
    | Command::Disconnect(node)
    | Command::Connect(node)
    | Command::Wipe(node)
    | Command::Corrupt { node, .. }) = &command
    else {
        return Ok(());
    };
    let (containers, node) = (Containers::open(&node.dir).await?, node.node);
    match &command {
        Command::Kill(_) => containers.kill(node).await?,
        Command::Crash(_) => containers.crash(node).await?,
        Command::Pause(_) => containers.pause(node).await?,
        Command::Unpause(_) => containers.unpause(node).await?,
        Command::Stop(_) => containers.stop(node).await?,
        Command::Start(_) => containers.start(node).await?,
        Command::Restart(_) => containers.restart(node).await?,
        Command::Disconnect(_) => containers.disconnect(node).await?,
        Command::Connect(_) => containers.connect(node).await?,
        Command::Wipe(_) => containers.wipe(node).await?,
        Command::Corrupt { change: Change { path, offset, mask }, .. } => {
            containers.corrupt(node, path, (*offset, *mask)).await?;
        }
        _ => {}
    }
    let now = containers.container(node).await?;
    let text = format!("node-{node} is {}", now.text());
    output.data(&Done { node, container: now.id.clone(), now }, text)
}

async fn make_network(make: Make, output: Output) -> Result<(), Failure> {
    let Make { spec, image, dir, out } = make;
    let Some(dir) = dir else {
        let text = compose_file(&spec.spec(Subnet::usual)?, &image);
        return match out {
            None => raw(text.as_bytes()),
            Some(path) => fs::write(&path, text)
                .map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error)),
        };
    };
    let containers = Containers::create(&dir, spec.spec(Subnet::by_chance)?, &image).await?;
    let text = format!("made; start it with: floe-testnet compose up --dir {}", dir.display());
    output.data(&made(&containers, &dir), text)
}

fn made(containers: &Containers, dir: &Path) -> Made {
    let spec: &Spec = containers.spec();
    Made {
        project: containers.project().to_owned(),
        dir: dir.display().to_string(),
        subnet: spec.subnet().to_string(),
        nodes: spec.n_all(),
        client: containers.client_file().display().to_string(),
    }
}

async fn up(dir: &Path, limit: Duration, output: Output) -> Result<(), Failure> {
    let containers = Containers::open(dir).await?;
    containers.up(limit).await?;
    let made = made(&containers, dir);
    let text = format!("the network is up; try: floe --network {} health", made.client);
    output.data(&made, text)
}

fn table(containers: &BTreeMap<String, Container>) -> Table {
    let mut table = Table::new(&["SERVICE", "CONTAINER", "ADDRESS", "RESTARTS", "STATE"]);
    for container in containers.values() {
        table.row([
            container.service.clone(),
            container.id.chars().take(12).collect(),
            container.ip.map_or_else(|| "-".to_owned(), |ip| ip.to_string()),
            container.restarts.to_string(),
            container.text(),
        ]);
    }
    table
}

/// What containers run beside nodes.
#[derive(Debug, Subcommand)]
pub(super) enum Inside {
    /// Make the network in the volumes, once
    Setup(SpecArgs),
    /// Register the node, stake on it, and become it
    Join(JoinArgs),
    /// Become the node, whose clock is off if the volume says so
    Run,
    /// Stand between the nodes of a network
    Relay(SpecArgs),
    /// Hold volumes
    Keep,
    /// Remove what the node has stored
    Wipe,
    /// Take what is left of the disk, but for a little
    Fill,
    /// Give back what was taken of the disk
    Empty,
    /// List the files of the volume
    Files,
    /// Write standard input to a file of the volume
    Put {
        /// The file, from the volume on
        #[arg(long, value_name = "PATH")]
        path: PathBuf,
    },
    /// Flip bits in a byte of a file of the volume
    Corrupt(Change),
    /// Kill a process of another container
    Crash(Victim),
}

pub(super) fn execute_inside(command: Inside) -> Result<(), Failure> {
    let dir = Path::new(NODE_DIR);
    match command {
        Inside::Setup(args) => inside::setup(&args.spec(Subnet::usual)?),
        Inside::Join(args) => block_on(inside::join(&args)),
        Inside::Run => inside::run(dir),
        // Both listen for what asks them to end, and end well.
        Inside::Relay(args) => runtime()?.block_on(inside::relay(&args.spec(Subnet::usual)?)),
        Inside::Keep => {
            runtime()?.block_on(inside::keep());
            Ok(())
        }
        Inside::Wipe => inside::wipe(dir),
        Inside::Fill => inside::fill(dir),
        Inside::Empty => inside::empty(dir),
        Inside::Files => Output { json: true }.data(&inside::files(dir)?, ""),
        Inside::Put { path } => inside::put(dir, &path, std::io::stdin().lock()),
        Inside::Corrupt(Change { path, offset, mask }) => inside::corrupt(dir, &path, (offset, mask)),
        Inside::Crash(victim) => inside::crash(&victim),
    }
}
