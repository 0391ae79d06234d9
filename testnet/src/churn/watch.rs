//! Follows the ledger: which epoch and stage it is, and who answers for what.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use node::{cli::Committees, client::Client, ledger::Clock};
use protocol::ledger::state::entry::{Head, Stage};
use swarm::Network;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    timeline::{Phase, Timeline},
    workload::Moment,
};

/// How often the ledger is looked at: a handover ends up to this much later than it did.
const LOOK: Duration = Duration::from_millis(250);

/// What the ledger showed last.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    /// Epoch, stage, members.
    pub(super) committees: Arc<Committees>,
    /// When the epoch was first seen.
    pub(super) began: Instant,
}

impl Sight {
    pub(super) fn epoch(&self) -> u32 {
        self.committees.head.epoch.0
    }

    /// What people call the stage.
    pub(super) fn stage(&self) -> String {
        format!("{:?}", self.committees.head.stage)
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::of(self.committees.head.stage)
    }
}

/// Where the watcher writes.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedTimeline(Arc<Mutex<Timeline>>);

impl SharedTimeline {
    pub(super) fn lock(&self) -> MutexGuard<'_, Timeline> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True if there is more to know than the height.
fn is_news(old: &Head, new: &Head) -> bool {
    let kind = |stage| match stage {
        Stage::Steady => 0,
        Stage::Selected { .. } => 1,
        Stage::Handover { .. } => 2,
    };
    old.epoch != new.epoch || kind(old.stage) != kind(new.stage)
}

/// How long ago an epoch began, by the time of its first block. All processes are on one machine, and have one clock.
pub(super) fn since_beginning(head: &Head) -> Duration {
    Duration::from_millis(Clock::System.unix_ms().saturating_sub(head.epoch_started_ms))
}

/// Follows the ledger until stopped. What cannot be read is tried again: whoever waits for an epoch has a limit.
pub(super) async fn follow<N: Network>(
    client: Client<N>,
    timeline: SharedTimeline,
    (sights, moments): (watch::Sender<Sight>, watch::Sender<Moment>),
    stop: CancellationToken,
) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let known = sights.borrow().committees.head;
        let head = match client.ledger_head().await {
            Ok(proven) => proven.value,
            Err(error) => {
                tracing::debug!(%error, "the ledger's head is not known");
                continue;
            }
        };
        if !is_news(&known, &head) {
            continue;
        }
        let now = Instant::now();
        // Operations count for the stage as soon as it is known; who is a member may take a moment more.
        moments.send_replace(Moment::of(&head));
        match Committees::read(&client).await {
            Ok(committees) => {
                let head = committees.head;
                timeline.lock().saw(
                    (head.epoch.0, head.stage),
                    &committees.current,
                    (now, since_beginning(&head)),
                );
                let old = sights.borrow().clone();
                let began = if old.epoch() == head.epoch.0 { old.began } else { now };
                moments.send_replace(Moment::of(&head));
                sights.send_replace(Sight { committees: Arc::new(committees), began });
            }
            Err(error) => tracing::debug!(%error, "the committees are not known"),
        }
    }
}
