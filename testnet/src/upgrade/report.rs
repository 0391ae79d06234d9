//! What came of it, and whether that is what is promised. Pure.

use std::collections::BTreeMap;

use node::cli::{Exit, Failure, output::Table};
use serde::Serialize;

use super::plan::Version;
use crate::figures::Latency;

/// A step that was taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Done {
    /// The node.
    pub node: usize,
    /// Which program it has now.
    pub to: Version,
    /// From its stop until all nodes were well and nothing was missing.
    pub seconds: f64,
    /// Operations of clients that were done meanwhile.
    pub finished: usize,
}

/// What clients of one version did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Used {
    /// Stores.
    pub store: Latency,
    /// Reads.
    pub read: Latency,
    /// Operations that failed at first, and were tried again.
    pub retried: usize,
    /// Operations that never succeeded.
    pub given_up: usize,
    /// What was said of the first that failed, whatever came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<String>,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What the programs say that they are.
    pub programs: BTreeMap<Version, String>,
    /// The steps, in order.
    pub steps: Vec<Done>,
    /// Clients, by version.
    pub used: BTreeMap<Version, Used>,
    /// Blobs that were stored.
    pub blobs: usize,
    /// Those that were not read back in the end, with which version, and why.
    pub lost: Vec<String>,
}

impl Report {
    /// What was promised and is not so.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut demand = |holds: bool, what: String| {
            if !holds {
                broken.push(what);
            }
        };
        for version in Version::ALL {
            let used = self.used.get(&version).cloned().unwrap_or_default();
            let name = version.name();
            let first = used.first_failure.unwrap_or_default();
            demand(
                used.given_up == 0,
                format!("{} operations of {name} clients failed: {first}", used.given_up),
            );
            demand(used.store.operations > 0, format!("no {name} client stored"));
            demand(used.read.operations > 0, format!("no {name} client read"));
        }
        for step in &self.steps {
            // Whoever used nothing noticed nothing.
            demand(step.finished > 0, format!("no operation was done while node-{} was replaced", step.node));
        }
        demand(self.blobs > 0, "no blob was stored".to_owned());
        let first = self.lost.first().cloned().unwrap_or_default();
        demand(self.lost.is_empty(), format!("{} blobs were not read back: {first}", self.lost.len()));
        broken
    }

    /// Whether all that is promised is so.
    ///
    /// # Errors
    ///
    /// If something was promised and is not so.
    pub fn check(&self) -> Result<(), Failure> {
        match &self.broken()[..] {
            [] => Ok(()),
            broken => Err(Failure::new(Exit::Broken, broken.join("; "))
                .hint(format!("the same order again: --seed {}", self.seed))),
        }
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut steps = Table::new(&["STEP", "PROGRAM", "SECONDS", "OPERATIONS"]);
        for Done { node, to, seconds, finished } in &self.steps {
            steps.row([
                format!("node-{node}"),
                to.name().to_owned(),
                format!("{seconds:.1}"),
                finished.to_string(),
            ]);
        }
        let mut used = Table::new(&[
            "CLIENTS", "STORES", "P50 MS", "P99 MS", "READS", "P50 MS", "P99 MS", "RETRIED", "FAILED",
        ]);
        for (version, it) in &self.used {
            let latencies = [it.store, it.read].into_iter().flat_map(|latency| {
                let Latency { operations, p50_ms, p99_ms } = latency;
                [operations.to_string(), format!("{p50_ms:.0}"), format!("{p99_ms:.0}")]
            });
            let rest = [it.retried.to_string(), it.given_up.to_string()];
            used.row(std::iter::once(version.name().to_owned()).chain(latencies).chain(rest));
        }
        let named = |version| self.programs.get(&version).map_or("", String::as_str);
        format!(
            "old: {}\nnew: {}\n\n{steps}\n{used}\n{} blobs stored, {} not read back",
            named(Version::Old),
            named(Version::New),
            self.blobs,
            self.lost.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::figures::latency;

    fn used() -> Used {
        let took = latency(std::iter::once(Duration::from_millis(1)));
        Used { store: took, read: took, ..Used::default() }
    }

    fn report() -> Report {
        Report {
            seed: 1,
            programs: BTreeMap::new(),
            steps: vec![Done { node: 3, to: Version::New, seconds: 1.0, finished: 5 }],
            used: Version::ALL.map(|version| (version, used())).into(),
            blobs: 2,
            lost: Vec::new(),
        }
    }

    #[test]
    fn each_promise_is_looked_at() {
        let report = report();
        assert_eq!(report.broken(), [""; 0]);
        report.check().unwrap();
        let with = |change: fn(&mut Report)| {
            let mut report = report.clone();
            change(&mut report);
            assert_eq!(report.check().unwrap_err().exit(), Exit::Broken);
            report.broken().join("; ")
        };
        let retried = with(|report| report.used.get_mut(&Version::Old).unwrap().given_up = 1);
        assert!(retried.starts_with("1 operations of old clients failed"), "{retried}");
        assert_eq!(
            with(|report| drop(report.used.remove(&Version::New))),
            "no new client stored; no new client read"
        );
        assert_eq!(
            with(|report| report.steps[0].finished = 0),
            "no operation was done while node-3 was replaced"
        );
        assert_eq!(with(|report| report.lost.push("why".to_owned())), "1 blobs were not read back: why");
        assert_eq!(with(|report| report.blobs = 0), "no blob was stored");
    }

    #[test]
    fn what_was_tried_again_breaks_nothing() {
        let mut report = report();
        report.used.get_mut(&Version::New).unwrap().retried = 3;
        assert_eq!(report.broken(), [""; 0]);
        assert!(report.text().contains("2 blobs stored, 0 not read back"));
    }
}
