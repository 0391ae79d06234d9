//! `floe-testnet sim`.

use std::collections::BTreeMap;

use node::cli::{
    Exit, Failure, Output,
    output::{Table, note},
};
use serde::Serialize;

use crate::sim::{Outcome, run_seed};

/// Arguments of the command.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// How many seeds to run, counting up from the first
    #[arg(long, value_name = "N", default_value_t = 1)]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Serialize)]
struct Document {
    runs: Vec<Run>,
    violations: usize,
}

#[derive(Debug, Serialize)]
struct Run {
    seed: u64,
    nodes: u16,
    shards: u16,
    simulated_seconds: f64,
    seconds_until_whole: Option<f64>,
    events: u64,
    operations: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
    violations: Vec<String>,
}

pub(super) fn execute(args: &Args, output: Output) -> Result<(), Failure> {
    let mut runs = Vec::new();
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        let run = Run::new(seed, &run_seed(seed));
        for violation in &run.violations {
            note(format_args!("seed {seed}: {violation}"));
        }
        runs.push(run);
    }
    let violations = runs.iter().map(|run| run.violations.len()).sum();
    let failed = runs.iter().find(|run| !run.violations.is_empty()).map(|run| run.seed);
    let n_runs = runs.len();
    let table = table(&runs);
    output.data(&Document { runs, violations }, table)?;
    match failed {
        None => Ok(()),
        Some(seed) => {
            Err(Failure::new(Exit::Broken, format!("{violations} promises broken in {n_runs} runs"))
                .hint(format!("repeat the first with: floe-testnet sim --seed {seed}")))
        }
    }
}

impl Run {
    fn new(seed: u64, outcome: &Outcome) -> Self {
        Self {
            seed,
            nodes: outcome.plan.n_nodes,
            shards: outcome.plan.n_shards,
            simulated_seconds: outcome.simulated.as_secs_f64(),
            seconds_until_whole: outcome.whole_after.map(|duration| duration.as_secs_f64()),
            events: outcome.events,
            operations: outcome.operations.clone(),
            faults: outcome.faults.clone(),
            violations: outcome.violations.iter().map(ToString::to_string).collect(),
        }
    }
}

fn table(runs: &[Run]) -> Table {
    let mut table =
        Table::new(&["SEED", "NODES", "SHARDS", "SIMULATED", "WHOLE AFTER", "EVENTS", "FAULTS", "BROKEN"]);
    for run in runs {
        table.row([
            run.seed.to_string(),
            run.nodes.to_string(),
            run.shards.to_string(),
            format!("{:.1} s", run.simulated_seconds),
            run.seconds_until_whole.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s")),
            run.events.to_string(),
            run.faults.values().sum::<u64>().to_string(),
            run.violations.len().to_string(),
        ]);
    }
    table
}
