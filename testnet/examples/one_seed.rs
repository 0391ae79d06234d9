//! Runs the plan of each seed given and prints how it went.
#![allow(clippy::print_stdout, reason = "an example")]
fn main() {
    for seed in std::env::args().skip(1).filter_map(|seed| seed.parse().ok()) {
        let outcome = testnet::sim::run_seed(seed);
        println!("{outcome:#?}");
    }
}
