//! `floe-testnet sim`.

use std::collections::BTreeMap;

use node::cli::{
    Exit, Failure, Output,
    output::{Table, note},
};
use serde::Serialize;

use crate::sim::{Outcome, run_many, run_seed};

/// Arguments of the command.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// How many seeds to run, counting up from the first; one if only --seed is given, else 100
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

/// What is printed: totals, and everything about the runs that broke a promise.
#[derive(Debug, Serialize)]
struct Document {
    /// Runs.
    seeds: u64,
    /// The first seed.
    first_seed: u64,
    /// Runs that broke a promise.
    failed: u64,
    /// Faults caused, by kind, over all runs.
    faults: BTreeMap<&'static str, u64>,
    /// Operations of clients, by kind and outcome, over all runs.
    operations: BTreeMap<&'static str, u64>,
    /// Messages delivered by the simulated network.
    events: u64,
    /// Simulated time.
    simulated_seconds: f64,
    /// Longest time from healing to every node holding all that it owes.
    slowest_whole_seconds: f64,
    /// The broken promises.
    broken: Vec<Broken>,
}

#[derive(Debug, Serialize)]
struct Broken {
    seed: u64,
    promises: Vec<String>,
    plan: String,
    replay: String,
}

pub(super) fn execute(args: &Args, output: Output) -> Result<(), Failure> {
    let first_seed = args.seed.unwrap_or(1);
    let seeds = args.seeds.unwrap_or_else(|| if args.seed.is_some() { 1 } else { 100 });
    // Drawn only if standard error is a terminal.
    let bar = indicatif::ProgressBar::new(seeds);
    let outcomes = run_many(first_seed..first_seed.saturating_add(seeds), run_seed, |outcome| {
        for violation in &outcome.violations {
            note(format_args!("seed {}: {violation}", outcome.plan.seed));
        }
        bar.inc(1);
    });
    bar.finish_and_clear();
    let document = Document::new(first_seed, &outcomes);
    let (failed, first) = (document.failed, document.broken.first().map(|broken| broken.replay.clone()));
    let table = document.table();
    output.data(&document, table)?;
    first.map_or(Ok(()), |replay| {
        let what = format!("{failed} of {seeds} runs broke a promise");
        Err(Failure::new(Exit::Broken, what).hint(format!("repeat the first with: {replay}")))
    })
}

impl Document {
    fn new(first_seed: u64, outcomes: &[Outcome]) -> Self {
        let mut document = Self {
            seeds: 0,
            first_seed,
            failed: 0,
            faults: BTreeMap::new(),
            operations: BTreeMap::new(),
            events: 0,
            simulated_seconds: 0.0,
            slowest_whole_seconds: 0.0,
            broken: Vec::new(),
        };
        for outcome in outcomes {
            document.add(outcome);
        }
        document
    }

    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.simulated_seconds += outcome.simulated.as_secs_f64();
        let whole = outcome.whole_after.map_or(0.0, |whole| whole.as_secs_f64());
        self.slowest_whole_seconds = self.slowest_whole_seconds.max(whole);
        for (kind, count) in &outcome.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (kind, count) in &outcome.operations {
            *self.operations.entry(kind).or_default() += count;
        }
        if !outcome.violations.is_empty() {
            self.failed += 1;
            let seed = outcome.plan.seed;
            self.broken.push(Broken {
                seed,
                promises: outcome.violations.iter().map(ToString::to_string).collect(),
                plan: format!("{:?}", outcome.plan),
                replay: format!("floe-testnet sim --seed {seed}"),
            });
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["WHAT", "COUNT"]);
        table.row(["runs".to_owned(), self.seeds.to_string()]);
        table.row(["runs that broke a promise".to_owned(), self.failed.to_string()]);
        table.row(["messages delivered".to_owned(), self.events.to_string()]);
        table.row(["simulated time".to_owned(), format!("{:.0} s", self.simulated_seconds)]);
        let slowest = format!("{:.1} s", self.slowest_whole_seconds);
        table.row(["slowest return to full redundancy".to_owned(), slowest]);
        for (kind, count) in &self.operations {
            table.row([format!("operation: {kind}"), count.to_string()]);
        }
        for (kind, count) in &self.faults {
            table.row([format!("fault: {kind}"), count.to_string()]);
        }
        table
    }
}
