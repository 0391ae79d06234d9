//! What is counted of clients and of nodes, whatever is done to them.

use std::{collections::BTreeMap, time::Duration};

use protocol::PeerId;
use serde::Serialize;

/// How long operations took. Those that failed count with the time until they did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Operations.
    pub operations: usize,
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

/// The value below which a part of the values lies, by nearest rank; zero of none.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// How long operations took.
#[must_use]
pub fn latency(took: impl Iterator<Item = Duration>) -> Latency {
    let mut took: Vec<Duration> = took.collect();
    took.sort_unstable();
    let ms = |percent| 1e3 * percentile(&took, percent).as_secs_f64();
    Latency { operations: took.len(), p50_ms: ms(50), p99_ms: ms(99) }
}

/// Counters of nodes that begin anew with each process, summed up over processes.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// What each process showed last.
    last: BTreeMap<PeerId, u64>,
    /// The sum by epoch in which it was seen.
    by_epoch: BTreeMap<u32, u64>,
}

impl Meter {
    /// A node shows this; returns by how much that is more than what was seen before.
    pub fn saw(&mut self, node: PeerId, bytes: u64, epoch: u32) -> u64 {
        let last = self.last.insert(node, bytes).unwrap_or(0);
        // A process that shows less is another one, which began at zero.
        let more = bytes.checked_sub(last).unwrap_or(bytes);
        *self.by_epoch.entry(epoch).or_default() += more;
        more
    }

    /// The process of a node has ended: the next one begins at zero, also if it is soon beyond what this one showed.
    pub fn ended(&mut self, node: &PeerId) {
        self.last.remove(node);
    }

    /// What was seen in an epoch.
    #[must_use]
    pub fn in_epoch(&self, epoch: u32) -> u64 {
        self.by_epoch.get(&epoch).copied().unwrap_or(0)
    }

    /// All that was seen.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_epoch.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn node(index: u8) -> PeerId {
        PeerId([index; 32])
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let values: Vec<Duration> = (1..=200).map(|ms| ms * MS).collect();
        for (percent, expected) in [(0, 1), (1, 2), (50, 100), (99, 198), (100, 200)] {
            assert_eq!(percentile(&values, percent), expected * MS, "{percent}");
        }
        assert_eq!(percentile(&values[..1], 99), MS);
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn counters_of_several_processes_add_up() {
        let mut meter = Meter::default();
        assert_eq!(meter.saw(node(1), 100, 0), 100);
        assert_eq!(meter.saw(node(1), 130, 0), 30);
        assert_eq!(meter.saw(node(1), 40, 1), 40, "it was started again");
        meter.ended(&node(1));
        assert_eq!(meter.saw(node(1), 90, 1), 90, "and again");
        assert_eq!(meter.saw(node(2), 7, 1), 7);
        assert_eq!((meter.in_epoch(0), meter.in_epoch(1), meter.in_epoch(2)), (130, 137, 0));
        assert_eq!(meter.total(), 267);
    }
}
