//! `floe-testnet churn`.

use std::{path::PathBuf, time::Duration};

use clap::value_parser;
use node::cli::{Failure, Output, duration};

use crate::churn::{Settings, plan::Kind, run};

/// Arguments of the command.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The directory of the network, empty or not there yet; it is left as it is in the end [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Epochs of change
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = value_parser!(u32).range(1..=300))]
    epochs: u32,
    /// Decides what happens
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Number of nodes at the beginning
    #[arg(long, value_name = "N", default_value_t = 7)]
    nodes: u16,
    /// Number of shards
    #[arg(long, value_name = "N", default_value_t = 13)]
    shards: u16,
    /// How long an epoch takes
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    epoch: Duration,
    /// Operations of clients a minute, if the network keeps up
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = value_parser!(u32).range(1..=60_000))]
    rate: u32,
    /// Kinds of change to leave out: what breaks without them is not their fault
    #[arg(long, value_enum, value_name = "KIND,...", value_delimiter = ',')]
    without: Vec<Kind>,
}

pub(super) async fn execute(args: Args, output: Output) -> Result<(), Failure> {
    let Args { dir, epochs, seed, nodes, shards, epoch, rate, without } = args;
    let pause = Duration::from_secs(60) / rate;
    let settings = Settings { seed, epochs, nodes, shards, epoch, pause, without };
    // Removed when this function ends, after the network in it.
    let temporary;
    let dir = match dir {
        Some(dir) => dir,
        None => {
            temporary = tempfile::Builder::new()
                .prefix("floe-churn-")
                .tempdir()
                .map_err(|error| Failure::io("cannot create a temporary directory", &error))?;
            temporary.path().join("testnet")
        }
    };
    let report = Box::pin(run(&dir, &settings)).await?;
    output.data(&report, report.text())?;
    report.check()
}
