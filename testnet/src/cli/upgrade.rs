//! `floe-testnet upgrade`.

use std::path::PathBuf;

use node::cli::{Failure, Output};

use crate::upgrade::{Settings, run};

/// Arguments of the command.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The floe program that all nodes run first
    #[arg(long, value_name = "PATH")]
    old: PathBuf,
    /// The floe program that takes its place
    #[arg(long, value_name = "PATH")]
    new: PathBuf,
    /// The directory of the run, empty or not there yet; it is left as it is in the end [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Decides the order of the nodes, and which of them goes back
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 7)]
    nodes: u16,
    /// Number of shards
    #[arg(long, value_name = "N", default_value_t = 13)]
    shards: u16,
}

pub(super) async fn execute(args: Args, output: Output) -> Result<(), Failure> {
    let Args { old, new, dir, seed, nodes, shards } = args;
    // Removed when this function ends, after the network in it.
    let temporary;
    let dir = match dir {
        Some(dir) => dir,
        None => {
            temporary = tempfile::Builder::new()
                .prefix("floe-upgrade-")
                .tempdir()
                .map_err(|error| Failure::io("cannot create a temporary directory", &error))?;
            temporary.path().to_owned()
        }
    };
    let report = Box::pin(run(&dir, &Settings { old, new, seed, nodes, shards })).await?;
    output.data(&report, report.text())?;
    report.check()
}
