//! `floe node`: set up and run a storage node, have it join a network and leave it.

mod health;
mod leave;
mod register;
mod status;
mod which;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use protocol::{PeerId, committee, ledger::parameters::Parameters};
use serde::Serialize;
use swarm::Address;

pub use self::register::{Outcome, Registered, Wanted, register_node, wanted};
use super::{Exit, Failure, Output, block_on, output::note, runtime, shown};
use crate::{
    config::{CONFIG_FILE, ConfigError, MemberFile, NodeConfig, PeerAddress, create_new},
    keys::NodeKeys,
    ledger::Clock,
    node::RunError,
    telemetry::{self, Format, Role},
};

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the directory of a node: keys, config.toml, and member.toml for the founder of a network
    Init {
        /// The directory; it must not hold a node yet
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// What people call the node
        #[arg(long, value_name = "NAME", default_value = "node")]
        name: String,
        /// An address to listen on, like /ip4/0.0.0.0/tcp/4100; may be given several times
        #[arg(long, value_name = "ADDR", num_args = 1..)]
        listen: Vec<Address>,
        /// An address under which others reach the node, like /dns/example.org/tcp/4100
        #[arg(long, value_name = "ADDR", num_args = 1..)]
        external: Vec<Address>,
        /// The genesis file; it may be made later [default: genesis.toml in the directory]
        #[arg(long, value_name = "FILE")]
        genesis: Option<PathBuf>,
        /// A node to begin with, like /dns/example.org/tcp/4100/p2p/PEER; may be given several times
        #[arg(long, value_name = "ADDR", num_args = 1..)]
        bootstrap: Vec<PeerAddress>,
        /// Where to show metrics and health, like 127.0.0.1:9464 [default: nowhere]
        #[arg(long, value_name = "IP:PORT")]
        metrics: Option<SocketAddr>,
    },
    /// Run the node of a directory until SIGINT or SIGTERM
    Run {
        /// The directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Where to find the network, beside what config.toml says: an address and the node's identity, like
        /// /dns/example.org/tcp/4100/p2p/<64 hexadecimal digits>; may be given several times
        #[arg(long, value_name = "ADDR", num_args = 1..)]
        bootstrap: Vec<PeerAddress>,
        /// Log one JSON object a line
        #[arg(long)]
        log_json: bool,
        /// Have a clock that is this many seconds ahead, or behind if negative: to try out what that does
        #[arg(long, value_name = "SECONDS", hide = true, allow_negative_numbers = true)]
        clock_off_by: Option<i64>,
    },
    /// Register the node of a directory with the network, or change what is said about it
    Register(register::Args),
    /// Have a node leave: it is not selected any more, and others take over its shards
    Leave(leave::Args),
    /// Tell where a node stands: its registration, its stake, its shards
    Status(status::Args),
    /// Ask the running node of a directory whether it is well: exit code 0 if so, else 1
    Health(health::Args),
}

#[derive(Debug, Serialize)]
struct Document {
    name: String,
    peer: String,
    dir: String,
    member_file: String,
}

pub(super) fn execute(network: Option<&Path>, command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Init { dir, name, listen, external, genesis, bootstrap, metrics } => {
            let mut config = NodeConfig { name, ..NodeConfig::default() };
            if !listen.is_empty() {
                config.network.listen = listen;
            }
            config.network.external = external;
            config.network.bootstrap = bootstrap;
            config.metrics.listen = metrics;
            if let Some(genesis) = genesis {
                config.genesis = std::path::absolute(&genesis)
                    .map_err(|error| Failure::io(format!("cannot use {}", shown(&genesis)), &error))?;
            }
            let member = init(&dir, &config)?;
            let document = Document {
                name: member.name,
                peer: member.peer.to_string(),
                dir: shown(&dir),
                member_file: shown(&dir.join(MemberFile::NAME)),
            };
            output.data(&document, &document.member_file)
        }
        Command::Run { dir, bootstrap, log_json, clock_off_by } => {
            let clock = clock_off_by.map_or(Clock::System, |seconds| Clock::OffBy { seconds });
            run(&dir, (bootstrap, clock), log_json, output)
        }
        Command::Register(args) => client_command(register::execute(network, args, output)),
        Command::Leave(args) => client_command(leave::execute(network, args, output)),
        Command::Status(args) => client_command(status::execute(network, args, output)),
        Command::Health(args) => client_command(health::execute(args, output)),
    }
}

/// Runs what only asks others.
fn client_command(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    telemetry::init(Role::Client, Format::Text)?;
    block_on(command)
}

/// What keeps a registered node from being selected, and what to do about it; `None` if nothing does.
fn stake_warning(node: &PeerId, stake: u64, parameters: &Parameters) -> Option<String> {
    let min = parameters.min_stake;
    let missing = min.checked_sub(stake).filter(|missing| *missing > 0)?;
    Some(format!(
        "with {stake} of the {min} credits of stake needed, it is not selected; put {missing} more behind it with: floe stake \
         --node {node} --amount {missing}"
    ))
}

/// Makes the directory of a node: its keys, then the files that describe it.
///
/// # Errors
///
/// If the name cannot be used, the directory holds a node already, or something cannot be written.
pub fn init(dir: &Path, config: &NodeConfig) -> Result<MemberFile, Failure> {
    let refuse = |error: &(dyn std::error::Error + 'static)| {
        Failure::because(Exit::Usage, format!("cannot use the name {:?}", config.name), error)
    };
    committee::check_name(&config.name).map_err(|error| refuse(&error))?;
    let path = dir.join(CONFIG_FILE);
    NodeConfig::parse(&path, &config.to_toml()).map_err(|error| match error {
        ConfigError::Syntax { message, .. } => Failure::new(Exit::Usage, message),
        error => error.into(),
    })?;
    if path.exists() {
        return Err(Failure::new(Exit::Usage, format!("{} holds a node already", shown(dir)))
            .hint("choose another directory"));
    }
    fs::create_dir_all(dir).map_err(|error| Failure::io(format!("cannot create {}", shown(dir)), &error))?;
    let keys = NodeKeys::create(dir)?;
    let member = MemberFile::new(config.name.clone(), &keys, config.network.announced());
    if member.addresses.is_empty() {
        note("warning: no address is known under which others can reach this node; give --external");
    }
    create_new(&dir.join(MemberFile::NAME), &member.to_toml())?;
    // Last: a directory with a configuration is complete.
    create_new(&path, &config.to_toml())?;
    Ok(member)
}

fn run(
    dir: &Path,
    (bootstrap, clock): (Vec<PeerAddress>, Clock),
    log_json: bool,
    output: Output,
) -> Result<(), Failure> {
    telemetry::init(Role::Node, if log_json { Format::Json } else { Format::Text })?;
    if output.json {
        let member = MemberFile::load(&dir.join(MemberFile::NAME))?;
        let document = Document {
            name: member.name,
            peer: member.peer.to_string(),
            dir: shown(dir),
            member_file: shown(&dir.join(MemberFile::NAME)),
        };
        output.data(&document, "")?;
    }
    runtime()?
        .block_on(Box::pin(crate::node::run(dir, bootstrap, clock)))
        .map_err(|error| failure(dir, error))
}

fn failure(dir: &Path, error: RunError) -> Failure {
    let missing = |source: &io::Error| source.kind() == io::ErrorKind::NotFound;
    match error {
        RunError::Config(ConfigError::Read { path, source }) if missing(&source) => {
            let hint = if path.ends_with(CONFIG_FILE) {
                format!("set up a node with: floe node init --dir {}", shown(dir))
            } else {
                "put the network's genesis file there, or say in config.toml where it is".to_owned()
            };
            Failure::from(ConfigError::Read { path, source }).hint(hint)
        }
        RunError::Config(error) => error.into(),
        RunError::Keys(error) => error.into(),
        error => {
            let exit = match &error {
                RunError::Start(_) => Exit::Usage,
                RunError::Lock(_)
                | RunError::Index { .. }
                | RunError::Open { .. }
                | RunError::Network(_)
                | RunError::System { .. } => Exit::Io,
                _ => Exit::Other,
            };
            Failure::of(exit, &error)
        }
    }
}
