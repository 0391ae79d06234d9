//! `floe-testnet power-loss`: the two halves of `testnet/power-loss/run`, which makes the file systems around them.

use std::path::PathBuf;

use clap::Subcommand;
use node::cli::{Exit, Failure, Output};

use crate::power;

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Write to a store without end, and print the number of each batch once it is acknowledged
    Write {
        /// An empty directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Decides what is written
        #[arg(long, value_name = "S", default_value_t = 1)]
        seed: u64,
        /// Sync nothing: the control, which must be seen to lose what it acknowledged
        #[arg(long)]
        no_sync: bool,
    },
    /// Compare a copy of such a store with what was acknowledged
    Check {
        /// The directory in the copy, which is changed as any store is when it is opened
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// What decided what was written
        #[arg(long, value_name = "S", default_value_t = 1)]
        seed: u64,
        /// The last batch acknowledged before the copy was begun
        #[arg(long, value_name = "N")]
        acknowledged: u64,
        /// The last batch that may have been begun before the copy was made
        #[arg(long, value_name = "N")]
        issued: u64,
    },
}

pub(super) fn execute(command: &Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Write { dir, seed, no_sync } => {
            let Err(error) = power::write(dir, *seed, !no_sync);
            Err(Failure::of(Exit::Other, &error))
        }
        Command::Check { dir, seed, acknowledged, issued } => {
            let report = power::check(dir, *seed, *acknowledged, *issued)
                .map_err(|error| Failure::of(Exit::Broken, &error))?;
            let violations = report.violations();
            let text = format!(
                "{} acknowledged, {} records, {violations} violations",
                report.acknowledged, report.records
            );
            output.data(&report, text)?;
            if violations == 0 {
                Ok(())
            } else {
                Err(Failure::new(Exit::Broken, format!("{violations} violations")))
            }
        }
    }
}
