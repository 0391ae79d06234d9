//! What a run showed: figures, and which promises were broken.

use std::collections::BTreeMap;

use node::cli::{
    Exit, Failure,
    output::{Bytes, Table},
};
use serde::Serialize;

use super::{
    timeline::{Phase, Timeline},
    workload::{Burst, Kind, Operation},
};
use crate::figures::{Latency, latency};

/// Most that the 99th percentile of operations in handovers may be of that in steady stages.
pub const P99_RATIO_MAX: f64 = 1.5;
/// Most bytes that may move for each byte that has to.
pub const MOVED_RATIO_MAX: f64 = 1.1;
/// Failures that are printed; the rest is counted.
const SHOWN_MAX: usize = 20;

/// What happened in an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EpochRow {
    /// Its number.
    pub epoch: u32,
    /// How long it lasted; null for the last one.
    pub seconds: Option<f64>,
    /// From its beginning until its handover was done; null if there was none.
    pub handover_seconds: Option<f64>,
    /// Members of its committee.
    pub members: usize,
    /// Shards that changed hands with its beginning.
    pub shards_moved: usize,
    /// Names of the nodes that joined, began to leave, were wiped, and whose processes ended.
    pub joined: Vec<String>,
    /// See above.
    pub left: Vec<String>,
    /// See above.
    pub wiped: Vec<String>,
    /// See above.
    pub stopped: Vec<String>,
    /// Credits of stake that moved.
    pub stake_moved: u64,
    /// Bytes that nodes received from each other for repair and for shards that they gained.
    pub moved_bytes: u64,
    /// Bytes of slivers of shards that moved to the next committee, and of disks that were wiped.
    pub needed_bytes: u64,
    /// Operations that began in it, and those of them that failed.
    pub operations: usize,
    /// See above.
    pub failed: usize,
}

/// A disk that was wiped.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HealRow {
    /// The node.
    pub node: String,
    /// The epoch in which it was wiped.
    pub epoch: u32,
    /// Bytes of slivers that were on it.
    pub bytes: u64,
    /// From its start with an empty disk until it had everything again; null if that was not seen.
    pub seconds: Option<f64>,
}

/// What was run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Setting {
    /// Where all chance came from.
    pub seed: u64,
    /// Epochs that were asked for.
    pub epochs: u32,
    /// How long each was to take.
    pub epoch_seconds: f64,
    /// Nodes at the beginning.
    pub nodes: u16,
    /// Shards.
    pub n_shards: u16,
    /// Shards that may be faulty.
    pub max_faulty: u16,
}

/// All that is printed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What was run.
    #[serde(flatten)]
    pub setting: Setting,
    /// How long it took, start and end included.
    pub seconds: f64,
    /// Operations of clients.
    pub operations: usize,
    /// Those that the client library did not do when it was asked once.
    pub failed: usize,
    /// Those that were tried again.
    pub retried: usize,
    /// Those that were not done however often they were tried.
    pub given_up: usize,
    /// Blobs that were certified and not expired at the end.
    pub blobs: usize,
    /// Those that could not be read back as what was stored.
    pub lost_blobs: usize,
    /// 99th percentile of operations of bursts that were under way in a handover, against that of the same bursts in
    /// steady stages; null if there were none of either.
    pub p99_handover_over_steady: Option<f64>,
    /// Bytes moved for each byte that had to; null if none had to.
    pub moved_over_needed: Option<f64>,
    /// Bytes that nodes received from each other.
    pub moved_bytes: u64,
    /// Bytes that had to be moved.
    pub needed_bytes: u64,
    /// Operations that were under way in no handover.
    pub steady: Latency,
    /// Operations that were under way at any moment of a handover.
    pub handover: Latency,
    /// Operations of bursts a quarter of an epoch before a takeover, for the ratio.
    pub probes_steady: Latency,
    /// Operations of the same bursts at a takeover, for the ratio.
    pub probes_handover: Latency,
    /// The same by kind: `store_steady` and so on.
    pub by_kind: BTreeMap<String, Latency>,
    /// Epoch by epoch.
    pub timeline: Vec<EpochRow>,
    /// Wiped disks.
    pub heals: Vec<HealRow>,
    /// Changes of the network that failed, each with its reason among the failures.
    pub deeds_failed: usize,
    /// Changes that were planned and not made, and why.
    pub skipped: Vec<String>,
    /// Why operations failed and blobs were lost: the first of them.
    pub failures: Vec<String>,
    /// Promises that were broken.
    pub broken: Vec<String>,
}

fn of(operations: &mut dyn Iterator<Item = &Operation>) -> Latency {
    latency(operations.map(|operation| operation.took))
}

/// A part of a whole; `None` of nothing.
#[must_use]
pub fn ratio(part: u64, whole: u64) -> Option<f64> {
    // Ten-thousandths are exact enough for people, and fit in what converts without loss.
    let parts = (u128::from(part) * 10_000).checked_div(u128::from(whole))?;
    Some(f64::from(u32::try_from(parts).unwrap_or(u32::MAX)) / 10_000.0)
}

impl Report {
    /// Fills in what follows from the operations.
    pub fn add_operations(&mut self, operations: &[Operation], timeline: &Timeline) {
        let phase_of =
            |operation: &Operation| timeline.phase(operation.start, operation.start + operation.took);
        let in_phase = |phase| operations.iter().filter(move |operation| phase_of(operation) == phase);
        self.operations = operations.len();
        self.failed = operations.iter().filter(|operation| operation.error.is_some()).count();
        self.retried = operations.iter().filter(|operation| operation.retries > 0).count();
        self.given_up = operations.iter().filter(|operation| !operation.is_done).count();
        (self.steady, self.handover) = (of(&mut in_phase(Phase::Steady)), of(&mut in_phase(Phase::Handover)));
        let probes =
            |burst| of(&mut operations.iter().filter(move |operation| operation.burst == Some(burst)));
        (self.probes_steady, self.probes_handover) = (probes(Burst::Steady), probes(Burst::Handover));
        let (steady, handover) = (self.probes_steady, self.probes_handover);
        let are_both = handover.operations > 0 && steady.p99_ms > 0.0;
        self.p99_handover_over_steady = are_both.then(|| handover.p99_ms / steady.p99_ms);
        for (kind, name) in [(Kind::Store, "store"), (Kind::Read, "read")] {
            for (phase, when) in [(Phase::Steady, "steady"), (Phase::Handover, "handover")] {
                let of_kind = of(&mut in_phase(phase).filter(|operation| operation.kind == kind));
                self.by_kind.insert(format!("{name}_{when}"), of_kind);
            }
        }
        for row in &mut self.timeline {
            let of_epoch = || operations.iter().filter(|operation| operation.epoch == row.epoch);
            (row.operations, row.failed) =
                (of_epoch().count(), of_epoch().filter(|operation| operation.error.is_some()).count());
        }
        let failed = operations.iter().filter_map(|operation| {
            let Operation { kind, epoch, phase, error, retries, is_done, .. } = operation;
            let end = if *is_done { format!("done at try {}", retries + 1) } else { "given up".to_owned() };
            let error = error.as_ref()?;
            Some(format!("{kind:?} in epoch {epoch}, {phase:?}: {error}; {end}").to_lowercase())
        });
        self.failures.extend(failed.take(SHOWN_MAX));
    }

    /// Fills in the bytes, which are those of the epochs.
    pub fn add_bytes(&mut self) {
        self.moved_bytes = self.timeline.iter().map(|row| row.moved_bytes).sum();
        self.needed_bytes = self.timeline.iter().map(|row| row.needed_bytes).sum();
        self.moved_over_needed = ratio(self.moved_bytes, self.needed_bytes);
    }

    /// Says which promises were broken.
    pub fn judge(&mut self) {
        let mut broken = Vec::new();
        if self.failed > 0 {
            broken.push(format!("{} of {} operations failed", self.failed, self.operations));
        }
        if self.lost_blobs > 0 {
            broken.push(format!("{} of {} blobs were lost", self.lost_blobs, self.blobs));
        }
        if self.deeds_failed > 0 {
            broken.push(format!("{} changes of the network failed", self.deeds_failed));
        }
        if let Some(ratio) = self.p99_handover_over_steady.filter(|ratio| *ratio > P99_RATIO_MAX) {
            broken.push(format!(
                "the 99th percentile in handovers is {ratio:.2} times that in steady stages, promised are {P99_RATIO_MAX}"
            ));
        }
        if let Some(ratio) = self.moved_over_needed.filter(|ratio| *ratio > MOVED_RATIO_MAX) {
            broken
                .push(format!("{ratio:.2} bytes moved for each that had to, promised are {MOVED_RATIO_MAX}"));
        }
        self.broken = broken;
    }

    /// Fails if a promise was broken.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn check(&self) -> Result<(), Failure> {
        if self.broken.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Exit::Broken, self.broken.join("; "))
            .hint(format!("run it again with --seed {}", self.setting.seed)))
    }

    /// The report as people read it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut epochs = Table::new(&[
            "EPOCH",
            "SECONDS",
            "HANDOVER",
            "MEMBERS",
            "SHARDS",
            "MOVED",
            "NEEDED",
            "OPERATIONS",
            "FAILED",
        ]);
        let seconds = |of: Option<f64>| of.map_or_else(|| "-".to_owned(), |of| format!("{of:.1}"));
        for row in &self.timeline {
            epochs.row([
                row.epoch.to_string(),
                seconds(row.seconds),
                seconds(row.handover_seconds),
                row.members.to_string(),
                row.shards_moved.to_string(),
                Bytes(row.moved_bytes).to_string(),
                Bytes(row.needed_bytes).to_string(),
                row.operations.to_string(),
                row.failed.to_string(),
            ]);
        }
        let times = |of: Option<f64>| of.map_or_else(|| "-".to_owned(), |of| format!("{of:.3}"));
        let shown = |of: &Latency| {
            format!("{} operations, p50 {:.0} ms, p99 {:.0} ms", of.operations, of.p50_ms, of.p99_ms)
        };
        let mut totals = Table::new(&["", ""]);
        for (name, value) in [
            ("operations", self.operations.to_string()),
            ("failed", format!("{}, of which {} were given up", self.failed, self.given_up)),
            ("steady", shown(&self.steady)),
            ("handover", shown(&self.handover)),
            ("bursts, steady", shown(&self.probes_steady)),
            ("bursts, handover", shown(&self.probes_handover)),
            ("p99, handover over steady", times(self.p99_handover_over_steady)),
            ("moved", Bytes(self.moved_bytes).to_string()),
            ("needed", Bytes(self.needed_bytes).to_string()),
            ("moved over needed", times(self.moved_over_needed)),
            ("blobs read back", self.blobs.to_string()),
            ("lost", self.lost_blobs.to_string()),
            ("seconds", format!("{:.0}", self.seconds)),
        ] {
            totals.row([name.to_owned(), value]);
        }
        let mut text = format!("{epochs}{totals}");
        for (name, lines) in [("skipped", &self.skipped), ("failure", &self.failures)] {
            for line in lines {
                text.push_str(&format!("{name}: {line}\n"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn operation(start: Instant, ms: u32, error: Option<&str>) -> Operation {
        Operation {
            kind: Kind::Read,
            start,
            epoch: 1,
            phase: Phase::Steady,
            took: ms * MS,
            error: error.map(str::to_owned),
            retries: u32::from(error.is_some()),
            is_done: error != Some("never"),
            size: 1,
            burst: (error != Some("never")).then_some(if ms == 120 {
                Burst::Handover
            } else {
                Burst::Steady
            }),
        }
    }

    #[test]
    fn ratios_are_exact_enough_and_undefined_for_nothing() {
        assert_eq!(ratio(11, 10), Some(1.1));
        assert_eq!(ratio(5, 0), None);
        assert_eq!(ratio(u64::MAX, 1), Some(f64::from(u32::MAX) / 10_000.0));
    }

    #[tokio::test(start_paused = true)]
    async fn operations_count_for_a_handover_if_they_were_under_way_in_it() {
        use protocol::ledger::state::entry::Stage;
        let (start, none) = (Instant::now(), Duration::ZERO);
        let mut timeline = Timeline::default();
        timeline.saw((0, Stage::Steady), &[], (start, none));
        timeline.saw((1, Stage::Handover { ready_shards: 0 }), &[], (start + 1000 * MS, none));
        timeline.saw((1, Stage::Steady), &[], (start + 2000 * MS, none));
        let mut report =
            Report { timeline: vec![EpochRow { epoch: 1, ..EpochRow::default() }], ..Report::default() };
        let operations = [
            operation(start, 100, None),
            operation(start + 2500 * MS, 50, None),
            operation(start + 900 * MS, 120, Some("gone")),
            operation(start + 1500 * MS, 20, Some("never")),
        ];
        report.add_operations(&operations, &timeline);
        assert_eq!((report.operations, report.failed, report.retried, report.given_up), (4, 2, 2, 1));
        assert_eq!((report.steady.p50_ms, report.steady.p99_ms), (50.0, 100.0));
        assert_eq!((report.probes_steady.operations, report.probes_handover.operations), (2, 1));
        assert_eq!(report.p99_handover_over_steady, Some(1.2));
        assert_eq!((report.timeline[0].operations, report.timeline[0].failed), (4, 2));
        assert_eq!(report.by_kind["read_handover"].operations, 2);
        assert_eq!(report.by_kind["store_handover"].operations, 0);
        assert_eq!(report.failures[0], "read in epoch 1, steady: gone; done at try 2");
    }

    #[test]
    fn a_broken_promise_is_named() {
        let good = Report {
            operations: 9,
            p99_handover_over_steady: Some(1.5),
            moved_over_needed: Some(1.1),
            ..Report::default()
        };
        let verdict = |report: &Report| {
            let mut report = report.clone();
            report.judge();
            report.check().err().map(|failure| failure.to_string()).unwrap_or_default()
        };
        assert_eq!(verdict(&good), "");
        let unknown = Report { p99_handover_over_steady: None, moved_over_needed: None, ..good.clone() };
        assert_eq!(verdict(&unknown), "");
        for (report, words) in [
            (Report { failed: 1, ..good.clone() }, "1 of 9 operations failed"),
            (Report { lost_blobs: 2, blobs: 5, ..good.clone() }, "2 of 5 blobs were lost"),
            (Report { p99_handover_over_steady: Some(1.51), ..good.clone() }, "1.51 times"),
            (Report { moved_over_needed: Some(1.2), ..good }, "1.20 bytes moved"),
        ] {
            let verdict = verdict(&report);
            assert!(verdict.contains(words) && verdict.contains("--seed 0"), "{verdict}");
        }
    }

    #[test]
    fn bytes_add_up_over_epochs() {
        let row = |moved_bytes, needed_bytes| EpochRow { moved_bytes, needed_bytes, ..EpochRow::default() };
        let mut report = Report { timeline: vec![row(10, 9), row(1, 1)], ..Report::default() };
        report.add_bytes();
        assert_eq!((report.moved_bytes, report.needed_bytes, report.moved_over_needed), (11, 10, Some(1.1)));
    }

    #[test]
    fn the_document_has_the_keys_that_scripts_read() {
        let json = serde_json::to_value(Report::default()).unwrap();
        for key in
            ["operations", "failed", "lost_blobs", "p99_handover_over_steady", "moved_over_needed", "seed"]
        {
            assert!(json.get(key).is_some(), "{key}");
        }
    }
}
