//! The `floe-testnet` command line.

mod bench;
mod chaos;
mod churn;
mod commands;
mod compose;
mod demo;
mod flood;
mod power;
mod sim;
mod up;
mod upgrade;

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{self, ExitCode},
};

use clap::{Parser, Subcommand, ValueEnum, value_parser};
use node::{
    cli::{Exit, Failure, Output, block_on, refuse, runtime},
    telemetry::LOG_VARIABLE,
};
use protocol::AccountId;

use crate::cluster::{BECOME, FAUCET_CREDITS, Signal, become_node};

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "floe-testnet", version = node::VERSION, about = "Floe networks on one machine, to try and to break")]
#[command(after_help = Exit::HELP, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    /// Print the result as one JSON document
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what Floe does: store, lose nodes, heal, read back
    Demo(demo::Args),
    /// Start a network in a directory, and stop it on Ctrl-C
    Up(up::Args),
    /// Stop all nodes
    Down {
        /// The testnet
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Show how the nodes are
    Status {
        /// The testnet
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Signal a node: kill it, stop it, continue it, or ask it to end
    Kill {
        /// The testnet
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The node's number
        #[arg(long, value_name = "I")]
        node: usize,
        /// The signal
        #[arg(long, value_enum, ignore_case = true, default_value = "KILL")]
        signal: SignalName,
    },
    /// Start a node that does not run
    Start {
        /// The testnet
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The node's number
        #[arg(long, value_name = "I")]
        node: usize,
        /// With an empty disk; keys and configuration stay
        #[arg(long)]
        wipe: bool,
    },
    /// Give credits to an account, from the one that has them from the beginning
    Faucet {
        /// The testnet
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Who gets them
        #[arg(long, value_name = "ACCOUNT")]
        to: AccountId,
        /// How many
        #[arg(long, value_name = "CREDITS", value_parser = value_parser!(u64).range(1..=FAUCET_CREDITS))]
        amount: u64,
    },
    /// Measure a network of this machine's own processes
    #[command(subcommand)]
    Bench(bench::Command),
    /// Store, read and delete while everything breaks: a plan of faults from a seed, a report, and a verdict
    Chaos(chaos::Args),
    /// Store and read while nodes join, leave, lose their disks and stake moves, epoch after epoch
    Churn(churn::Args),
    /// Replace the program of one node after the other while clients of both versions store and read
    Upgrade(upgrade::Args),
    /// Write to a store, and look what is left of it: the halves of testnet/power-loss/run
    #[command(subcommand)]
    PowerLoss(power::Command),
    /// Run a network of containers, each node with an address of its own; without a command, write its compose file
    Compose(Box<compose::Args>),
    /// What containers run: not for people
    #[command(subcommand, hide = true)]
    Container(compose::Inside),
    /// Simulate networks in this process, from a seed
    Sim(sim::Args),
}

/// The signals of `kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum SignalName {
    /// The process ends at once, as at a loss of power
    Kill,
    /// The process stops until CONT: it looks slow, not gone
    Stop,
    /// A stopped process continues
    Cont,
    /// The process is asked to end
    Term,
}

impl SignalName {
    const fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Stop => Signal::STOP,
            Self::Cont => Signal::CONT,
            Self::Term => Signal::TERM,
        }
    }
}

/// The program `floe-testnet`.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(args) = floe_args(&args) {
        return floe(args);
    }
    if let Some([program, args @ ..]) = become_args(&args) {
        return become_program(program, args).report();
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let output = Output { json: cli.json };
    let result = match cli.command {
        // Under faults nodes warn all the time: only whoever asks is told.
        Command::Sim(args) => std::env::var_os(LOG_VARIABLE)
            .map_or(Ok(()), |_| client_telemetry())
            .and_then(|()| sim::execute(&args, output)),
        command => client_telemetry().and_then(|()| execute(command, output)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn client_telemetry() -> Result<(), Failure> {
    Ok(node::telemetry::init(node::telemetry::Role::Client, node::telemetry::Format::Text)?)
}

fn execute(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => block_on(demo::execute(args, output)),
        Command::Bench(bench) => block_on(bench::execute(bench, output)),
        Command::Churn(args) => block_on(churn::execute(args, output)),
        Command::Upgrade(args) => block_on(upgrade::execute(args, output)),
        Command::Chaos(args) => {
            let no_disks = chaos::own_mounts(&args);
            // It ends its network when it is interrupted, which takes time.
            runtime()?.block_on(Box::pin(chaos::execute(args, no_disks, output)))
        }
        Command::Compose(args) => block_on(compose::execute(*args, output)),
        Command::Container(command) => compose::execute_inside(command),
        // It stops its nodes gently when it is interrupted, which takes time.
        Command::Up(args) => runtime()?.block_on(Box::pin(up::execute(args, output))),
        Command::Down { dir } => block_on(commands::down(&dir, output)),
        Command::Status { dir } => block_on(commands::status(&dir, output)),
        Command::Kill { dir, node, signal } => block_on(commands::kill(&dir, node, signal, output)),
        Command::Start { dir, node, wipe } => block_on(commands::start(&dir, node, wipe, output)),
        Command::Faucet { dir, to, amount } => block_on(commands::faucet(&dir, (to, amount), output)),
        Command::PowerLoss(command) => power::execute(&command, output),
        Command::Sim(_) => Ok(()),
    }
}

/// `floe-testnet floe ARGS...` is `floe ARGS...`: not for people, so not in the help, and taken as it is.
fn floe_args(args: &[OsString]) -> Option<&[OsString]> {
    args.get(1..).filter(|args| args.first().is_some_and(|first| first == "floe"))
}

/// What follows `floe-testnet become`: not for people, either.
fn become_args(args: &[OsString]) -> Option<&[OsString]> {
    args.get(2..).filter(|_| args.get(1).is_some_and(|first| first == BECOME))
}

/// Runs another program as this process: the nodes of a testnet may be of another version. Returns only if it cannot.
fn become_program(program: &OsString, args: &[OsString]) -> Failure {
    let failed = |error| Failure::io(format!("cannot run {}", program.display()), &error);
    // What the process was told to end with, it ends with under the other program, too.
    become_node()
        .map_or_else(|failure| failure, |()| failed(process::Command::new(program).args(args).exec()))
}

/// Runs `floe` in this process: the nodes of a testnet are the same code as any node.
fn floe(args: &[OsString]) -> ExitCode {
    match become_node() {
        Ok(()) => node::cli::run(args.iter().cloned()),
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_network_of_containers_is_made_or_acted_on_but_not_both() {
        for (line, is_sound) in [
            ("compose", true),
            ("compose --nodes 10 --dir d", true),
            ("compose up --dir d", true),
            ("compose corrupt --dir d --node 1 --path f --offset 3", true),
            ("compose corrupt --dir d --node 1 --path f --offset 3 --mask 0", false),
            ("compose --nodes 10 up --dir d", false),
            ("compose --dir d --out f", false),
            ("compose kill --dir d", false),
        ] {
            let words = std::iter::once("floe-testnet").chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(words).is_ok(), is_sound, "{line}");
        }
    }

    #[test]
    fn signals_go_by_their_names() {
        for (text, signal) in [("KILL", Signal::KILL), ("stop", Signal::STOP), ("Cont", Signal::CONT)] {
            let line = ["floe-testnet", "kill", "--dir", "d", "--node", "1", "--signal", text];
            let Command::Kill { signal: parsed, .. } = Cli::try_parse_from(line).unwrap().command else {
                panic!("not a kill");
            };
            assert_eq!(parsed.signal(), signal);
        }
    }

    #[test]
    fn floe_takes_its_arguments_as_they_are() {
        let line = ["floe-testnet", "floe", "--json", "node", "run", "--help"].map(OsString::from);
        assert_eq!(floe_args(&line), Some(&line[1..]));
        assert_eq!(floe_args(&line[..1]), None);
        assert_eq!(floe_args(&["floe-testnet", "up", "floe"].map(OsString::from)), None);
        let line = ["floe-testnet", "become", "/bin/floe", "--json"].map(OsString::from);
        assert_eq!((floe_args(&line), become_args(&line)), (None, Some(&line[2..])));
        assert_eq!(become_args(&line[..1]), None);
    }
}
