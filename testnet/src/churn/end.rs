//! What is left to do when the epochs of change are over: wait, read everything back, sum up.

use futures::{StreamExt as _, stream};
use node::{
    cli::{Exit, Failure},
    client::Client,
};
use swarm::live::LiveNetwork;

use super::{
    measure::Seen,
    report::{Report, Setting},
    run::{Churn, LIMIT, Running, Settings},
    workload::{BlobRecord, Certified},
};
use crate::cluster::until;

/// Tries of a blob that is read back at the end.
const READ_TRIES: usize = 3;
/// Blobs that are read back at the same time.
const READS_IN_FLIGHT: usize = 4;

impl Churn {
    /// Waits until wiped nodes run and all have what they answer for. That they do not is a failure of the run's
    /// promises, not of the run.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        self.tell("waiting for all nodes to have what they answer for");
        let result = until("waiting for all nodes to be whole", LIMIT, async || {
            self.cluster.check_alive()?;
            self.look().await;
            self.restart_due().await?;
            let is_whole = |running: &Running| {
                let health = running.health.as_ref();
                running.wiped.is_none() && health.is_some_and(|health| health.slivers_missing == 0)
            };
            Ok(self.nodes.values().all(is_whole).then_some(()))
        })
        .await;
        match result {
            Err(failure) if failure.exit() == Exit::Unavailable => {
                self.failures.push(failure.to_string());
                Ok(())
            }
            result => result,
        }
    }

    /// Reads back what is to be there, and sums up.
    pub(super) async fn report(
        &self,
        settings: &Settings,
        client: &Client<LiveNetwork>,
    ) -> Result<Report, Failure> {
        self.tell("reading back every blob");
        let mut blobs = self.workload.blobs();
        let checks = blobs.iter().map(|blob| self.check_blob(client, blob));
        let checks: Vec<Check> = stream::iter(checks).buffered(READS_IN_FLIGHT).collect().await;
        let mut report = Report {
            setting: Setting {
                seed: settings.seed,
                epochs: settings.epochs,
                epoch_seconds: settings.epoch.as_secs_f64(),
                nodes: settings.nodes,
                n_shards: settings.shards,
                max_faulty: self.terms.max_faulty,
            },
            deeds_failed: self.failures.len(),
            skipped: self.skipped.clone(),
            failures: self.failures.clone(),
            ..Report::default()
        };
        for (blob, check) in blobs.iter_mut().zip(checks) {
            match check {
                Check::Expired => {}
                Check::Whole(certified) => {
                    report.blobs += 1;
                    // Also what no client saw certified may have had to move.
                    blob.certified.get_or_insert(certified);
                }
                Check::Lost(why) => {
                    report.blobs += 1;
                    report.lost_blobs += 1;
                    report.failures.push(why);
                }
            }
        }
        let timeline = self.timeline.lock();
        let seen = Seen {
            n_shards: self.terms.n_shards,
            timeline: &timeline,
            meter: &self.meter,
            deeds: &self.deeds,
            wipes: &self.wipes,
            blobs: &blobs,
        };
        (report.timeline, report.heals) = (seen.rows(), seen.heals());
        report.add_operations(&self.workload.operations(), &timeline);
        report.add_bytes();
        report.judge();
        Ok(report)
    }

    /// Whether a blob is what it should be.
    async fn check_blob(&self, client: &Client<LiveNetwork>, blob: &BlobRecord) -> Check {
        let mut why = String::new();
        for _ in 0..READ_TRIES {
            let epoch = self.epoch();
            let known = match client.ledger_blob(&blob.blob_id).await {
                Ok(proven) => proven.value,
                Err(error) => {
                    why = error.to_string();
                    continue;
                }
            };
            let promised = blob.certified.is_some_and(|certified| certified.end > epoch.saturating_add(1));
            let Some(available) = known.and_then(|known| known.available) else {
                if promised {
                    let id = blob.blob_id;
                    return Check::Lost(format!("{id} was certified, and the ledger does not have it so"));
                }
                // It expired, or never came as far as that.
                return Check::Expired;
            };
            let certified = Certified { epoch: available.epoch.0, at: self.start, end: available.end.0 };
            match self.workload.read(client, blob).await {
                Ok(()) => return Check::Whole(certified),
                Err(error) if available.end.0 <= self.epoch().saturating_add(1) => {
                    tracing::debug!(error, "a blob expired while it was read");
                    return Check::Expired;
                }
                Err(error) => why = error,
            }
        }
        Check::Lost(why)
    }
}

/// What was found of a blob in the end.
enum Check {
    /// Nobody promises it any more.
    Expired,
    /// It is what was stored.
    Whole(Certified),
    /// It is not, and why.
    Lost(String),
}
