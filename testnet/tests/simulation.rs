//! Whole nodes under faults, seed by seed: every promise is held, the same seed gives the same run, and the bugs that
//! are planted on purpose are found.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic and say why")]

use std::collections::BTreeMap;

use protocol::planted::{Bug, plant};
use testnet::sim::{Outcome, Plan, run, run_many, run_seed};

/// Seeds in the test command. `floe-testnet sim --seeds N` runs as many as one likes.
const SEEDS: u64 = 160;

#[test]
fn promises_hold_under_faults() {
    let outcomes = run_many(1..SEEDS + 1, run_seed, |_| {});
    let mut broken = Vec::new();
    let (mut faults, mut operations): (BTreeMap<_, u64>, BTreeMap<_, u64>) = Default::default();
    for outcome in &outcomes {
        let seed = outcome.plan.seed;
        broken.extend(outcome.violations.iter().map(|violation| {
            format!("{violation}\n  again with: floe-testnet sim --seed {seed}\n  {:?}", outcome.plan)
        }));
        outcome.faults.iter().for_each(|(fault, n)| *faults.entry(*fault).or_default() += n);
        outcome.operations.iter().for_each(|(operation, n)| *operations.entry(*operation).or_default() += n);
    }
    assert!(broken.is_empty(), "{} promises broken:\n{}", broken.len(), broken.join("\n"));
    // A fault or an operation that never happens tests nothing.
    let all_faults = [
        "bad link",
        "bit flip",
        "black-out",
        "denier",
        "double proposal",
        "double vote",
        "double voter",
        "equivocator",
        "forged answer",
        "forged message",
        "forger",
        "full disk",
        "kill",
        "liar",
        "mute",
        "partition",
        "power cut",
        "wipe",
        "withheld",
        "withholder",
    ];
    for fault in all_faults {
        assert!(faults.get(fault).copied().unwrap_or(0) >= 10, "{fault}: {faults:?}");
    }
    let n_long = operations.get("stored in segments").copied().unwrap_or(0);
    assert!(n_long >= 3, "blobs of several segments: {n_long}");
    let all_operations = [
        "compacted",
        "ejected",
        "proved wrong",
        "read",
        "store refused",
        "stored",
        "stored wrongly",
        "transferred",
    ];
    for operation in all_operations {
        assert!(operations.get(operation).copied().unwrap_or(0) >= 10, "{operation}: {operations:?}");
    }
    eprintln!("{SEEDS} seeds; faults {faults:?}; operations {operations:?}");
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    let trace = |outcome: &Outcome| (outcome.trace, outcome.events, outcome.operations.clone());
    for seed in [3, 17, 40, 71] {
        let (first, second) = (run_seed(seed), run_seed(seed));
        assert_eq!(trace(&first), trace(&second), "seed {seed}");
    }
    assert_ne!(run_seed(3).trace, run_seed(17).trace);
}

/// A plan in which everything that could bring a bug to light is likely.
fn hostile(seed: u64) -> Plan {
    Plan {
        crashes: true,
        byzantine: true,
        wrong_writer: true,
        stores_per_client: 4,
        epochs: None,
        ..Plan::new(seed)
    }
}

#[test]
fn planted_bugs_are_found() {
    let find = |index| {
        let bug = Bug::ALL[usize::try_from(index).unwrap()];
        plant(Some(bug));
        let seed = (1000..1060).find_map(|seed| {
            let mut plan = hostile(seed);
            // Rot excuses what a node lacks, so it is on only where it is what is looked for.
            plan.flips = bug == Bug::ServedCorrupt;
            plan.wipes = bug == Bug::RepairUnchecked || plan.wipes;
            // Who lies in consensus answers clients truly, and there are few who lie at all.
            plan.lies = plan.lies && bug != Bug::AbsenceUnproven;
            if bug == Bug::ReadyBlindly {
                plan = Plan { flips: false, ..Plan::new(seed) };
            }
            let violations = run(plan).violations;
            violations.first().map(|violation| (seed, violation.clone()))
        });
        plant(None);
        (bug, seed)
    };
    let found = run_many(0..u64::try_from(Bug::ALL.len()).unwrap(), find, |_| {});
    for (bug, seed) in &found {
        eprintln!("{bug:?}: {seed:?}");
    }
    let missed: Vec<_> = found.iter().filter(|(_, seed)| seed.is_none()).map(|(bug, _)| bug).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
