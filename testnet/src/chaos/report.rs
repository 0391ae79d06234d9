//! What a run showed: figures, and which promises were broken.

use std::{collections::BTreeMap, time::Duration};

use node::cli::{
    Exit, Failure,
    output::{Bytes, Table},
};
use serde::Serialize;

use super::{
    checker::Broken,
    fault::{Fault, Kind},
    history::{Kind as Deed, Operation, Outcome, Span},
};
use crate::figures::{Latency, latency};

/// How long operations are summed up for a point of a plot.
const BUCKET_SECONDS: u32 = 5;
/// How long after a fault operations still count as disturbed.
const AFTERMATH: Duration = Duration::from_secs(2);
/// Broken promises and errors that are printed; the rest is counted.
const SHOWN_MAX: usize = 20;

/// What was run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Setting {
    /// On what.
    pub target: String,
    /// Where all chance came from.
    pub seed: u64,
    /// For how long faults were to come.
    pub duration_seconds: f64,
    /// Nodes.
    pub nodes: usize,
    /// Shards.
    pub n_shards: u16,
    /// Shards that may be faulty.
    pub max_faulty: u16,
}

/// A fault that was done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultRow {
    /// Its kind.
    pub kind: Kind,
    /// All of it, as it is printed.
    pub what: String,
    /// When it was to begin, in seconds after the beginning of the faults.
    pub planned_seconds: f64,
    /// When it began, in seconds after the beginning of the run.
    pub began_seconds: f64,
    /// When it ended.
    pub ended_seconds: Option<f64>,
}

impl FaultRow {
    /// A fault that begins.
    #[must_use]
    pub fn new(fault: &Fault, began: Duration) -> Self {
        Self {
            kind: fault.kind,
            what: fault.to_string(),
            planned_seconds: fault.at.as_secs_f64(),
            began_seconds: began.as_secs_f64(),
            ended_seconds: None,
        }
    }

    /// When it was in force, and a little longer.
    fn span(&self) -> Span {
        let end = self.ended_seconds.map_or(Duration::MAX, |end| Duration::from_secs_f64(end) + AFTERMATH);
        Span { start: Duration::from_secs_f64(self.began_seconds), end }
    }
}

/// How the network was at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// When.
    pub at_seconds: f64,
    /// The epoch.
    pub epoch: u32,
    /// The highest ledger of all nodes.
    pub height: u64,
    /// Nodes that are connected to all others, follow the ledger and miss nothing.
    pub well: usize,
    /// Nodes that answer.
    pub reachable: usize,
    /// Slivers that nodes miss, as far as they say.
    pub slivers_missing: u64,
    /// Bytes of memory of the node that holds most.
    pub memory_bytes: u64,
    /// Bytes that repair received since the beginning.
    pub repair_bytes_received: u64,
    /// Bytes of slivers that repair regained since the beginning.
    pub repair_bytes_regained: u64,
}

/// Operations of a few seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Bucket {
    /// When it begins.
    pub at_seconds: f64,
    /// Operations that ended in it.
    pub operations: usize,
    /// Those of them that failed.
    pub failed: usize,
    /// Median, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

/// How operations of a kind went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct DeedRow {
    /// Those during which nothing was broken.
    pub undisturbed: Latency,
    /// The others.
    pub disturbed: Latency,
    /// Those that failed, of either.
    pub failed: usize,
}

/// All that is printed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What was run.
    #[serde(flatten)]
    pub setting: Setting,
    /// True if every promise was kept.
    pub passed: bool,
    /// How long it took.
    pub seconds: f64,
    /// Operations of clients.
    pub operations: usize,
    /// Those that were not done, or not known to be.
    pub failed: usize,
    /// Those of them that were refused since too few nodes were there.
    pub refused: usize,
    /// Blobs that were to be there at the end.
    pub blobs: usize,
    /// Those that were not, or not as what was stored.
    pub lost_blobs: usize,
    /// Reads that returned other bytes than were stored.
    pub wrong_reads: usize,
    /// Panics in the logs of nodes.
    pub panics: usize,
    /// Faults that were done.
    pub faults: usize,
    /// From the end of the last fault until all nodes were healthy; null if they were not in time.
    pub seconds_to_healthy: Option<f64>,
    /// The most memory that any node held at a time, in bytes; 0 if that is not known.
    pub memory_peak_bytes: u64,
    /// Bytes that repair received.
    pub repair_bytes_received: u64,
    /// Bytes of slivers that repair regained.
    pub repair_bytes_regained: u64,
    /// By kind of operation.
    pub by_kind: BTreeMap<&'static str, DeedRow>,
    /// The first promise that was broken.
    pub first_broken: Option<&'static str>,
    /// All of them.
    pub broken: Vec<Broken>,
    /// Kinds of faults that could not be done, and why.
    pub skipped: Vec<String>,
    /// Why operations failed, and how many for each reason.
    pub reasons: BTreeMap<String, usize>,
    /// The faults.
    pub timeline: Vec<FaultRow>,
    /// Operations over time.
    pub buckets: Vec<Bucket>,
    /// Nodes over time.
    pub samples: Vec<Sample>,
}

/// What a reason says without its particulars, so that like ones are counted together.
fn reason(why: &str) -> String {
    let is_particular = |word: &&str| word.chars().any(|c| c.is_ascii_digit()) || word.len() > 30;
    why.split_whitespace()
        .map(|word| if is_particular(&word) { "…" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

impl Report {
    /// Adds what clients did. To be called once, after the timeline is there.
    pub fn add_operations(&mut self, operations: &[Operation]) {
        self.operations = operations.len();
        let spans: Vec<Span> = self.timeline.iter().map(FaultRow::span).collect();
        for deed in Deed::ALL {
            let of_kind = || operations.iter().filter(|operation| operation.kind == deed);
            let is_disturbed = |operation: &&Operation| spans.iter().any(|span| span.meets(operation));
            let row = DeedRow {
                undisturbed: latency(of_kind().filter(|it| !is_disturbed(it)).map(Operation::took)),
                disturbed: latency(of_kind().filter(is_disturbed).map(Operation::took)),
                failed: of_kind().filter(|operation| operation.is_failed()).count(),
            };
            self.by_kind.insert(deed.name(), row);
        }
        for operation in operations {
            match &operation.outcome {
                Outcome::Failed { why, is_refusal } => {
                    self.failed += 1;
                    self.refused += usize::from(*is_refusal);
                    *self.reasons.entry(reason(why)).or_default() += 1;
                }
                Outcome::Wrong => self.wrong_reads += 1,
                Outcome::Done { .. } | Outcome::Absent | Outcome::Condemned => {}
            }
        }
        let last = operations.iter().map(|operation| operation.end.as_secs()).max().unwrap_or(0);
        let step = u64::from(BUCKET_SECONDS);
        for number in
            (0..).take_while(|number| number * BUCKET_SECONDS <= u32::try_from(last).unwrap_or(u32::MAX))
        {
            let ended = |operation: &&Operation| operation.end.as_secs() / step == u64::from(number);
            let Latency { operations: n, p50_ms, p99_ms } =
                latency(operations.iter().filter(ended).map(Operation::took));
            let failed = operations.iter().filter(ended).filter(|operation| operation.is_failed()).count();
            let at_seconds = f64::from(number * BUCKET_SECONDS);
            self.buckets.push(Bucket { at_seconds, operations: n, failed, p50_ms, p99_ms });
        }
        if let Some(last) = self.samples.last() {
            self.repair_bytes_received = last.repair_bytes_received;
            self.repair_bytes_regained = last.repair_bytes_regained;
        }
    }

    /// Decides.
    pub fn judge(&mut self, mut broken: Vec<Broken>) {
        broken.sort_by_key(|broken| broken.at);
        self.passed = broken.is_empty();
        self.first_broken = broken.first().map(|broken| broken.promise);
        self.broken = broken;
    }

    /// The failure of a run whose promises were not kept: the first of them.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn check(&self) -> Result<(), Failure> {
        match self.broken.first() {
            None => Ok(()),
            Some(Broken { promise, what, .. }) => {
                Err(Failure::new(Exit::Broken, format!("{promise}: {what}")))
            }
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut table =
            Table::new(&["OPERATION", "N", "FAILED", "P50 MS", "P99 MS", "IN FAULTS", "P50 MS", "P99 MS"]);
        for (name, DeedRow { undisturbed, disturbed, failed }) in &self.by_kind {
            table.row([
                (*name).to_owned(),
                undisturbed.operations.to_string(),
                failed.to_string(),
                format!("{:.0}", undisturbed.p50_ms),
                format!("{:.0}", undisturbed.p99_ms),
                disturbed.operations.to_string(),
                format!("{:.0}", disturbed.p50_ms),
                format!("{:.0}", disturbed.p99_ms),
            ]);
        }
        let mut lines = vec![table.to_string().trim_end().to_owned()];
        lines.push(format!(
            "{} faults in {:.0} s on {} ({} nodes, {} shards, {} may be faulty), seed {}",
            self.faults,
            self.seconds,
            self.setting.target,
            self.setting.nodes,
            self.setting.n_shards,
            self.setting.max_faulty,
            self.setting.seed
        ));
        lines.push(format!(
            "{} operations, {} failed ({} refused for want of nodes); {} blobs to be there, {} lost; {} wrong reads; {} panics",
            self.operations, self.failed, self.refused, self.blobs, self.lost_blobs, self.wrong_reads, self.panics
        ));
        lines.push(format!(
            "repair received {} and regained {}; no node held more than {} of memory; {}",
            Bytes(self.repair_bytes_received),
            Bytes(self.repair_bytes_regained),
            Bytes(self.memory_peak_bytes),
            self.seconds_to_healthy.map_or_else(
                || "not all nodes were healthy in time".to_owned(),
                |seconds| format!("all nodes were healthy {seconds:.1} s after the last fault")
            )
        ));
        for (why, n) in self.reasons.iter().take(SHOWN_MAX) {
            lines.push(format!("  {n} failed: {why}"));
        }
        lines.extend(self.skipped.iter().map(|what| format!("left out: {what}")));
        for Broken { promise, at, what } in self.broken.iter().take(SHOWN_MAX) {
            lines.push(format!("{promise} is broken, {:.1} s: {what}", at.as_secs_f64()));
        }
        if self.broken.len() > SHOWN_MAX {
            lines.push(format!("... and {} more", self.broken.len() - SHOWN_MAX));
        }
        lines.push(if self.passed { "every promise was kept".to_owned() } else { "FAILED".to_owned() });
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(start: u64, end: u64, outcome: Outcome) -> Operation {
        let at = Duration::from_secs;
        Operation { kind: Deed::Read, blob: 1, size: 1, start: at(start), end: at(end), epoch: 0, outcome }
    }

    #[test]
    fn operations_are_counted_by_what_went_on_meanwhile() {
        let fault = Fault {
            kind: Kind::Kill,
            nodes: vec![1],
            at: Duration::from_secs(9),
            lasts: Duration::from_secs(5),
            strength: 0,
        };
        let row = FaultRow { ended_seconds: Some(15.0), ..FaultRow::new(&fault, Duration::from_secs(10)) };
        let mut report = Report { timeline: vec![row], ..Report::default() };
        let failed = |why: &str, is_refusal| Outcome::Failed { why: why.to_owned(), is_refusal };
        let done = || Outcome::Done { end: None };
        report.add_operations(&[
            operation(1, 2, done()),
            operation(8, 11, done()),
            operation(16, 16, failed("got 3 of 5", true)),
            operation(18, 19, failed("got 4 of 5", false)),
            operation(18, 20, Outcome::Wrong),
        ]);
        assert_eq!((report.operations, report.failed, report.refused, report.wrong_reads), (5, 2, 1, 1));
        let row = report.by_kind["read"];
        assert_eq!((row.undisturbed.operations, row.disturbed.operations, row.failed), (3, 2, 2));
        assert_eq!(report.reasons, BTreeMap::from([("got … of …".to_owned(), 2)]));
        let counted: Vec<(usize, usize)> =
            report.buckets.iter().map(|it| (it.operations, it.failed)).collect();
        assert_eq!(counted, [(1, 0), (0, 0), (1, 0), (2, 2), (1, 0)]);
    }

    #[test]
    fn the_first_broken_promise_decides() {
        let broken =
            |promise, seconds| Broken { promise, at: Duration::from_secs(seconds), what: "x".to_owned() };
        let mut report = Report::default();
        report.judge(vec![broken("X1", 9), broken("D1", 4)]);
        assert_eq!((report.passed, report.first_broken), (false, Some("D1")));
        assert!(report.text().contains("D1 is broken, 4.0 s: x") && report.text().ends_with("FAILED"));
        report.judge(Vec::new());
        assert!(report.passed && report.text().ends_with("every promise was kept"));
    }
}
