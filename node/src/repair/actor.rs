//! The shell of repair: carries out what [`State`] decides.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    BlobId, PeerId,
    bls::SecretKey,
    planted::{Bug, is_planted},
};
use swarm::Network;
use tokio::{
    sync::{Notify, Semaphore, broadcast, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    blob::{Coefficients, Context},
    dispute::EvidenceShelf,
    mailbox::{Counters, Repair, Report},
    state::{Outcome, Pauses, State, Turn},
};
use crate::{
    blobs::{Blobs, concerned},
    commitments::CommitmentCache,
    encoder::Encoder,
    ledger::Executed,
    membership::Membership,
    sliver_store::SliverStore,
    upload::Uploads,
};

/// Blobs listed from the ledger at once.
const PAGE: usize = 256;

/// Tuning of repair.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Hints that may wait.
    pub mailbox_capacity: usize,
    /// Blobs that may wait to be looked at.
    pub queue_capacity: usize,
    /// Blobs looked at at the same time.
    pub blobs_in_flight: usize,
    /// Segments rebuilt at the same time.
    pub segments_in_flight: usize,
    /// Memory for what is gathered of each of them: slivers that do not fit are rebuilt after the others. One sliver is
    /// rebuilt in any case.
    pub segment_bytes: usize,
    /// How long to wait for a peer's answer.
    pub request_timeout: Duration,
    /// Pause after a blob could not be repaired; doubles up to `retry_max`.
    pub retry_after: Duration,
    /// Longest such pause.
    pub retry_max: Duration,
    /// Pause between passes over all blobs.
    pub pass_interval: Duration,
    /// How long a blob counts as still being sent by a client after something last came for it.
    pub being_sent_for: Duration,
    /// How long repair of a certified blob waits for a client that goes on sending it.
    pub being_sent_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mailbox_capacity: 256,
            queue_capacity: 4096,
            blobs_in_flight: 8,
            segments_in_flight: 4,
            // What a node with a third of the shards of a small network lost of a segment fits, so that helpers are asked
            // once; with four of them in flight, it is what a small machine can spare.
            segment_bytes: 16 << 20,
            request_timeout: Duration::from_secs(10),
            retry_after: Duration::from_secs(1),
            retry_max: Duration::from_secs(60),
            pass_interval: Duration::from_secs(600),
            being_sent_for: Duration::from_secs(2),
            // A client goes on for half a second and more after the blob is certified; whoever goes on for longer, by
            // intent or over a slow line, must not keep the blob from being whole.
            being_sent_max: Duration::from_secs(15),
        }
    }
}

type Looking = Pin<Box<dyn Future<Output = (BlobId, Outcome)> + Send>>;

/// Finds and rebuilds missing slivers; see the [module](super) for the invariants.
pub struct Actor<N> {
    context: Arc<Context<N>>,
    start: Instant,
    state: State,
    hints: mpsc::Receiver<BlobId>,
    /// Somebody wants every blob looked at.
    all: Arc<Notify>,
    executed: broadcast::Receiver<Arc<Executed>>,
    report: watch::Sender<Report>,
    in_flight: FuturesUnordered<Looking>,
    /// Members connected when last looked.
    members: BTreeSet<PeerId>,
}

impl<N> std::fmt::Debug for Actor<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("repair::Actor").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<N: Network> Actor<N> {
    /// Returns the actor, not yet running, a handle to it, and what the server needs to answer helpers' questions.
    #[allow(clippy::too_many_arguments, reason = "each is another actor, given once, at the wiring")]
    #[must_use]
    pub(crate) fn new(
        config: Config,
        (membership, key): (Membership, SecretKey),
        network: N,
        (store, blobs): (SliverStore, Blobs),
        commitments: CommitmentCache,
        encoder: Encoder,
        uploads: Uploads,
    ) -> (Self, Repair, Coefficients, EvidenceShelf) {
        let (hint_sender, hints) = mpsc::channel(config.mailbox_capacity);
        let (report, report_view) = watch::channel(Report::default());
        let counters = Arc::new(Counters::default());
        let (coefficients, evidence) = (Coefficients::default(), EvidenceShelf::default());
        let pauses = Pauses {
            first: config.retry_after,
            longest: config.retry_max,
            being_sent: config.being_sent_for,
            being_sent_max: config.being_sent_max,
        };
        let executed = blobs.ledger().executed();
        let all = Arc::new(Notify::new());
        let start = Instant::now();
        let context = Context {
            config,
            membership,
            key,
            network,
            store,
            blobs,
            commitments,
            encoder,
            uploads,
            coefficients: coefficients.clone(),
            evidence: evidence.clone(),
            counters: Arc::clone(&counters),
            start,
            helpers: Mutex::default(),
            segments: Arc::new(Semaphore::new(config.segments_in_flight)),
        };
        let actor = Self {
            context: Arc::new(context),
            start,
            state: State::new(pauses, config.queue_capacity),
            hints,
            all: Arc::clone(&all),
            executed,
            report,
            in_flight: FuturesUnordered::new(),
            members: BTreeSet::new(),
        };
        (actor, Repair::new(hint_sender, counters, report_view, all), coefficients, evidence)
    }

    /// Runs until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut connected = self.context.network.connected();
        let mut pass = tokio::time::interval(self.context.config.pass_interval);
        loop {
            self.turn_page();
            self.begin();
            self.tell();
            let next_due = self.state.next_due().map(|due| self.start + due);
            let has_room = self.has_room();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some((blob_id, outcome)) = self.in_flight.next() => {
                    self.state.done(self.start.elapsed(), blob_id, outcome);
                }
                Some(blob_id) = self.hints.recv() => {
                    self.context.counters.hints.took(1);
                    self.state.hint(self.start.elapsed(), blob_id);
                }
                executed = self.executed.recv() => match executed {
                    Ok(executed) => {
                        let now = self.start.elapsed();
                        concerned(&executed).for_each(|blob_id| self.state.hint(now, blob_id));
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => self.state.hint_all(),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                alive = connected.changed() => {
                    if !alive {
                        return;
                    }
                    if self.has_newcomer(&connected.peers()) {
                        // It may be the helper that was missing.
                        self.state.hurry(self.start.elapsed());
                    }
                }
                () = self.all.notified() => self.state.hint_all(),
                _ = pass.tick() => self.state.hint_all(),
                () = sleep_until(next_due), if has_room && next_due.is_some() => {}
            }
        }
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < self.context.config.blobs_in_flight
    }

    /// Takes the next pages of a pass over all blobs, as far as there is room.
    fn turn_page(&mut self) {
        if is_planted(Bug::NoPass) {
            return;
        }
        while let Some(after) = self.state.wants_page(PAGE) {
            match self.context.blobs.list(after, PAGE) {
                Ok(page) => self.state.page(self.start.elapsed(), &page),
                Err(error) => {
                    tracing::error!(%error, "the blobs on the ledger cannot be listed");
                    self.state.page(self.start.elapsed(), &[]);
                }
            }
        }
    }

    /// True if a member is connected that was not; strangers come and go as they like.
    fn has_newcomer(&mut self, connected: &BTreeSet<PeerId>) -> bool {
        let others = self.context.membership.now().map(|roster| roster.others()).unwrap_or_default();
        let members: BTreeSet<PeerId> = others.into_iter().filter(|peer| connected.contains(peer)).collect();
        let has_newcomer = !members.is_subset(&self.members);
        self.members = members;
        has_newcomer
    }

    /// Begins to look at what is due, as far as there is room.
    fn begin(&mut self) {
        while self.has_room() {
            let Some(turn) = self.state.take(self.start.elapsed()) else { return };
            let context = Arc::clone(&self.context);
            self.in_flight.push(Box::pin(look_at(context, turn)));
        }
    }

    fn tell(&self) {
        let report = Report { missing: self.state.missing(), is_settled: self.state.is_settled() };
        self.report.send_if_modified(|old| {
            let is_new = *old != report;
            *old = report;
            is_new
        });
    }
}

async fn look_at<N: Network>(context: Arc<Context<N>>, turn: Turn) -> (BlobId, Outcome) {
    (turn.blob_id, context.look_at(turn).await)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
