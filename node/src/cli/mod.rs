//! The `floe` command line: data on standard output, everything else on standard error.
//!
//! [`run`] is the whole program; `floe` is nothing but a call of it. Each command lives in a file of its own, and
//! fails with a [`Failure`], which is one line and an exit code.

mod blob_id;
mod blobs;
mod connection;
mod epochs;
pub mod failure;
mod genesis;
mod health;
mod info;
mod node;
pub mod output;
mod part_file;
mod progress;
mod read;
mod standing;
mod status;
mod store;
mod wallet;

use std::{
    ffi::OsString,
    future::Future,
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use protocol::BlobId;

pub use self::{
    connection::{Connection, network_file},
    epochs::{EpochArgs, duration, shown_seconds},
    failure::{Exit, Failure},
    node::{
        Outcome as RegisterOutcome, Registered, Wanted as WantedNode, init as init_node, register_node,
        wanted as wanted_node,
    },
    output::Output,
    standing::{Committees, due_ms, stage_text, time_text},
    wallet::{WALLET_VARIABLE, load_key, submit},
};
use crate::telemetry::{self, Role};

/// Names the network where `--network` does not.
pub const NETWORK_VARIABLE: &str = "FLOE_NETWORK";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "floe", version = crate::VERSION, about = "A permissionless blob store", after_help = Exit::HELP)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    /// The network: its client.toml, or the directory of one [default: $FLOE_NETWORK]
    #[arg(long, global = true, value_name = "FILE")]
    network: Option<PathBuf>,
    /// Print the result as one JSON document
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Store files and print their blob IDs
    Store(store::Args),
    /// List the blobs that you stored
    List(blobs::List),
    /// Have a blob that you stored be stored longer
    Extend(blobs::Extend),
    /// Delete a blob that you stored: nobody can read it any more, unless others stored it too
    Delete(blobs::Delete),
    /// Read a blob, to standard output or to a file
    #[command(allow_negative_numbers = true)]
    Read {
        /// The blob
        #[arg(value_name = "BLOB_ID", allow_hyphen_values = true)]
        blob_id: BlobId,
        /// Write to this file, which appears only once it is complete
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Read only these bytes: from START to the one before END, either of which can be left out
        #[arg(long, value_name = "START..END", value_parser = read::parse_range, default_value = "..")]
        range: Range<u64>,
    },
    /// Tell whether a blob is stored
    Status {
        /// The blob
        #[arg(value_name = "BLOB_ID", allow_hyphen_values = true)]
        blob_id: BlobId,
    },
    /// Compute the blob ID of a file, without storing it
    BlobId {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Shards of the network that it is for; without it, --network says
        #[arg(long, value_name = "N")]
        shards: Option<u16>,
    },
    /// Ask every storage node how it is
    Health,
    /// Tell where the network is: its epoch, its prices, its committee
    Info(info::Args),
    /// Make an account, look at its credits, send some
    Wallet {
        #[command(subcommand)]
        command: wallet::Command,
    },
    /// Put credits behind a storage node, which earn with it and are lost if it lies
    Stake(wallet::Stake),
    /// Take credits from behind a storage node; they stay locked for some epochs
    Unstake(wallet::Unstake),
    /// Set up and run a storage node
    Node {
        #[command(subcommand)]
        command: node::Command,
    },
    /// Write the genesis file of a new network
    Genesis(genesis::Args),
    /// Print completions for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// The program `floe`.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs a command line, whose first word is the name of the program.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Prints what clap has to say: help, or what is wrong with the command line.
#[must_use]
pub fn refuse(error: &clap::Error) -> ExitCode {
    // A closed pipe has no reader to be told.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(Exit::Usage.code()) } else { ExitCode::SUCCESS }
}

fn execute(cli: Cli) -> Result<(), Failure> {
    let output = Output { json: cli.json };
    let network = cli.network.as_deref();
    match cli.command {
        Command::Node { command } => return node::execute(network, command, output),
        Command::Genesis(args) => return genesis::execute(&args, output),
        Command::Completion { shell } => return completion(shell),
        Command::Wallet { command } => {
            if let Some(done) = wallet::execute_offline(network, &command, output) {
                return done;
            }
            telemetry::init(Role::Client, telemetry::Format::Text)?;
            return block_on(wallet::execute(network, command, output));
        }
        _ => telemetry::init(Role::Client, telemetry::Format::Text)?,
    }
    match cli.command {
        Command::Store(args) => block_on(store::execute(network, args, output)),
        Command::List(args) => block_on(blobs::list(network, args, output)),
        Command::Extend(args) => block_on(blobs::extend(network, args, output)),
        Command::Delete(args) => block_on(blobs::delete(network, args, output)),
        Command::Read { blob_id, out, range } => {
            block_on(read::execute(network, (blob_id, range), out.as_deref(), output))
        }
        Command::Status { blob_id } => block_on(status::execute(network, blob_id, output)),
        Command::BlobId { file, shards } => block_on(blob_id::execute(network, &file, shards, output)),
        Command::Health => block_on(health::execute(network, output)),
        Command::Info(args) => block_on(info::execute(network, args, output)),
        Command::Stake(args) => block_on(wallet::stake(network, args, output)),
        Command::Unstake(args) => block_on(wallet::unstake(network, args, output)),
        Command::Node { .. } | Command::Genesis(_) | Command::Completion { .. } | Command::Wallet { .. } => {
            Ok(())
        }
    }
}

fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "floe", &mut script);
    output::raw(&script)
}

/// Runs a command to its end, or to the first SIGINT, SIGTERM or SIGHUP: then it is dropped, which cleans up after it.
///
/// # Errors
///
/// The command's, or that it was interrupted.
pub fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut command = Box::pin(command);
        tokio::select! {
            biased;
            result = &mut command => result,
            interrupted = interrupted() => Err(interrupted),
        }
    });
    // Reads of a file may still be under way; nobody waits for them.
    runtime.shutdown_background();
    result
}

/// A runtime with a thread per core.
///
/// # Errors
///
/// If the system refuses threads.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("cannot start", &error))
}

/// Waits for a signal that means "stop".
pub async fn interrupted() -> Failure {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals = Vec::new();
    for kind in kinds {
        match signal(kind) {
            Ok(signal) => signals.push((kind, signal)),
            Err(error) => return Failure::io("cannot listen for signals", &error),
        }
    }
    let waits = signals.iter_mut().map(|(kind, signal)| {
        Box::pin(async move {
            signal.recv().await;
            *kind
        })
    });
    let (kind, ..) = futures::future::select_all(waits).await;
    Failure::interrupted(kind.as_raw_value())
}

/// How a file is called in messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_go_anywhere() {
        for line in ["floe --json --network n health", "floe health --network n --json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.json);
            assert_eq!(cli.network.as_deref(), Some(Path::new("n")));
        }
    }

    #[test]
    fn a_blob_id_may_begin_with_a_hyphen() {
        let id = format!("-{}", "A".repeat(42));
        for command in ["read", "status"] {
            assert!(Cli::try_parse_from(["floe", command, &id]).is_ok(), "{command}");
        }
        assert!(Cli::try_parse_from(["floe", "read", &id, "--out", "f"]).is_ok());
        assert!(Cli::try_parse_from(["floe", "read", "--out", "f", &id]).is_ok());
    }

    #[test]
    fn a_malformed_blob_id_is_a_usage_error_that_says_why() {
        for id in ["", "abc", &"A".repeat(44), &"*".repeat(43)] {
            let error = Cli::try_parse_from(["floe", "read", id]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
        }
        let error = Cli::try_parse_from(["floe", "status", "abc"]).unwrap_err().to_string();
        assert!(error.contains("expected 43 characters, got 3"), "{error}");
    }
}
