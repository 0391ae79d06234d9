//! A crash at every single disk operation of many workloads.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use harness::{Contents, Machine, Step, crash_at, open, recover, run, workload};
use storage::{Write, WriteError};

/// Crashes at every operation of one workload. Returns how many there are.
fn crash_everywhere(seed: u64, steps: &[Step]) -> u64 {
    let mut point = 0;
    while crash_at(seed, steps, point, false)
        .unwrap_or_else(|error| panic!("seed {seed}, point {point}: {error}"))
    {
        point += 1;
    }
    point
}

#[test]
fn nothing_acknowledged_is_lost_by_a_crash_at_any_operation() {
    let n_points: u64 = (0..60).map(|seed| crash_everywhere(seed, &workload(seed, 40))).sum();
    println!("{n_points} crash points");
    assert!(n_points > 5_000, "only {n_points} crash points");
}

#[test]
fn workloads_reach_rotation_compaction_and_removal() {
    let (mut n_logs_max, mut removed) = (0, 0);
    for seed in 0..24 {
        let machine = Machine::new(seed);
        let (mut store, _) = open(&machine).unwrap();
        for step in workload(seed, 40) {
            match step {
                Step::Write(batch) | Step::WriteOnFullDisk(batch) => store.write(batch).unwrap(),
                Step::Compact(budget) => removed += store.compact(budget).unwrap().removed_logs,
                Step::Checkpoint => store.checkpoint().unwrap(),
                Step::Reopen => {
                    drop(store);
                    store = open(&machine).unwrap().0;
                }
            }
            n_logs_max = n_logs_max.max(store.stats().unwrap().n_logs);
        }
    }
    println!("up to {n_logs_max} log files, {removed} removed");
    assert!(n_logs_max >= 4 && removed >= 10, "{n_logs_max} {removed}");
}

#[test]
fn a_sync_that_lies_is_caught() {
    let n_caught = (0..24)
        .filter(|&seed| {
            let steps = workload(seed, 40);
            (0..60).any(|point| crash_at(seed, &steps, point, true).is_err())
        })
        .count();
    assert!(n_caught >= 20, "the crash test sees only {n_caught} of 24 lying disks");
}

#[test]
fn a_failed_sync_closes_the_store_until_it_is_reopened() {
    for seed in 0..50 {
        let mut machine = Machine::new(seed);
        let mut model = Contents::new();
        run(&machine, &workload(seed, 10), &mut model).unwrap();
        let (store, _) = open(&machine).unwrap();
        let put = |i| vec![Write::Put { key: harness::key(i), payload: vec![7; 3_000].into() }];
        machine.disk.fail_next_sync();
        assert!(matches!(store.write(put(0)), Err(WriteError::Failed { .. })));
        assert!(matches!(store.write(put(1)), Err(WriteError::Poisoned { .. })));
        assert!(matches!(store.compact(u64::MAX), Err(WriteError::Poisoned { .. }) | Ok(_)));
        assert!(matches!(store.checkpoint(), Err(WriteError::Poisoned { .. })));
        harness::check(&store, &model).unwrap();
        drop(store);
        // The system still shows the bytes that it failed to save. If recovery shows them too, it must save them.
        machine = machine.kill();
        drop(recover(&machine, &mut model, &put(0)).unwrap());
        machine = machine.crash();
        drop(recover(&machine, &mut model, &[]).unwrap());
    }
}
