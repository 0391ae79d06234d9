//! Runs the plan of each seed in a range and prints how it went.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, reason = "an example")]
fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|seed| seed.parse().ok()).collect();
    for seed in args[0]..args[1] {
        let t = std::time::Instant::now();
        let o = testnet::sim::run_seed(seed);
        println!(
            "{seed} n={}/{} {:?} whole {:?} ops {:?} faults {:?} {}",
            o.plan.n_nodes,
            o.plan.n_shards,
            t.elapsed(),
            o.whole_after,
            o.operations,
            o.faults,
            if o.violations.is_empty() { "ok" } else { "FAIL" }
        );
        for v in o.violations {
            println!("    {v}");
        }
    }
}
