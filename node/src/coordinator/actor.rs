//! The shell of the coordinator: gathers facts, and carries out what is planned.

use std::{collections::BTreeSet, future::Future, pin::Pin, time::Duration};

use protocol::{
    BlobId, Epoch, PeerId, codec,
    ledger::{
        state::{Corrupt, entry::Stage},
        transaction::Action,
    },
    planted::{Bug, is_planted},
};
use swarm::{Address, Network, PeerRole, Topic};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    plan::{Facts, Plan, Readiness, bytes_of_shards, plan},
    state::{Begun, State},
};
use crate::{
    blobs::{BlobStatus, Blobs, status_of},
    ledger::View,
    load::Work,
    membership::{Membership, Roster, Seat},
    repair::Repair,
    sliver_store::SliverStore,
    upload::missing_of_blob,
};

/// Tuning of the coordinator.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Pause before everything is checked again that was not there, unless repair reports sooner that something has changed.
    pub check_interval: Duration,
    /// Pause between one page of slivers dropped and the next: users come first.
    pub drop_pause: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { check_interval: Duration::from_secs(5), drop_pause: Duration::from_millis(20) }
    }
}

/// What a check of everything found.
#[derive(Debug)]
enum Found {
    /// Every blob that was certified when the check began, which was in this epoch.
    Whole(Epoch),
    /// Something of this blob is missing.
    Lacking(BlobId),
    /// The store failed, or the ledger's state contradicts itself.
    Failed,
}

type Check = Pin<Box<dyn Future<Output = Found> + Send>>;

/// Takes a node through the stages of an epoch; see the [module](super) for the invariants.
pub struct Coordinator<N> {
    config: Config,
    membership: Membership,
    network: N,
    store: SliverStore,
    blobs: Blobs,
    repair: Repair,
    start: Instant,
    state: State,
    /// Peers that the network was told to be members.
    introduced: BTreeSet<PeerId>,
    /// Peers by way of which this node finds the network.
    bootstrap: BTreeSet<PeerId>,
    check: Option<Check>,
    turns: Work,
}

impl<N> std::fmt::Debug for Coordinator<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<N: Network> Coordinator<N> {
    /// Returns the actor, not yet running. The network was told of the peers in `introduced` that they are members; those in
    /// `bootstrap` stay a way into the network whatever else they are.
    pub fn new(
        config: Config,
        (membership, network): (Membership, N),
        (store, blobs): (SliverStore, Blobs),
        repair: Repair,
        (introduced, bootstrap): (BTreeSet<PeerId>, BTreeSet<PeerId>),
    ) -> Self {
        Self {
            config,
            membership,
            network,
            store,
            blobs,
            repair,
            start: Instant::now(),
            state: State::new(config.check_interval),
            introduced,
            bootstrap,
            check: None,
            turns: Work::default(),
        }
    }

    /// How often it looked at where the epoch is.
    pub(crate) fn turns(&self) -> Work {
        self.turns.clone()
    }

    /// Runs until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut views = self.blobs.ledger().watch();
        let mut reports = self.repair.watch();
        loop {
            let view = views.see();
            reports.mark_unchanged();
            self.turns.took(1);
            let wake = match self.turn(&view).await {
                Ok(wake) => wake,
                Err(error) => {
                    tracing::error!(%error, "the epoch cannot be looked after for now");
                    Some(self.config.check_interval)
                }
            };
            let pause = tokio::time::sleep(wake.unwrap_or_default());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                found = checked(&mut self.check) => self.found(&found),
                () = changed(views.changed()) => {}
                () = changed(reports.changed()) => {}
                () = pause, if wake.is_some() => {}
            }
        }
    }

    /// Does what is to be done now; says when to come again even if nothing happens.
    async fn turn(&mut self, view: &View) -> Result<Option<Duration>, TurnError> {
        let roster = Roster::of(&view.state, self.membership.me())?;
        self.notice(&roster, view).await;
        let facts = facts(&self.store, self.state.found_whole(), &roster, view).await?;
        let Plan { readiness, drop } = plan(&facts);
        let mut wake = None;
        match readiness {
            Readiness::Settled => {}
            Readiness::Check => wake = self.begin_check(&roster, view),
            Readiness::Say => wake = self.say_ready(roster.epoch()),
        }
        if let Some(shard) = drop.first() {
            if !self.store.drop_some_of_shard(*shard).await.map_err(|_| TurnError::Store)? {
                return Ok(wake);
            }
            tracing::debug!(%shard, "dropping slivers of a shard that has moved");
            wake = Some(self.config.drop_pause);
        }
        Ok(wake)
    }

    /// Acts on a stage that has begun.
    async fn notice(&mut self, roster: &Roster, view: &View) {
        let Some(Begun { is_first, is_gain }) = self.state.stage(roster) else { return };
        self.introduce(roster);
        if is_first {
            return;
        }
        let (epoch, shards) = (roster.epoch(), roster.owed().shards().len());
        tracing::info!(%epoch, stage = ?roster.stage, shards, "a stage of the epoch has begun");
        if is_gain {
            self.repair.look_at_all();
            self.look_for_room(roster, view);
        }
        if let (Some(head), true) = (view.head.as_deref(), roster.is_member(&self.membership.me())) {
            let announced = self.network.publish(Topic::Epoch, codec::encode(head).into()).await;
            if let Err(error) = announced {
                tracing::debug!(%error, "a stage was not announced; everyone finds it on the ledger");
            }
        }
    }

    /// Says so in time if the disk has less room than what this node gains is going to take.
    fn look_for_room(&self, roster: &Roster, view: &View) {
        let has = roster.seat().map_or(0, |seat| seat.shards().len());
        let gains = roster.owed().shards().len().saturating_sub(has);
        let bucket = view.state.bucket(roster.epoch()).unwrap_or_default();
        let required = bytes_of_shards(bucket.reserved_bytes, gains, roster.n_shards());
        let Some(free) = self.store.free_bytes().filter(|free| *free < required) else { return };
        tracing::warn!(
            gains,
            required,
            free,
            "this node gains shards that may need more bytes than its disk has free: make room, or have it leave; without room it \
             does not get ready, and others answer in its place"
        );
    }

    /// Tells the network who the members are, and where.
    fn introduce(&mut self, roster: &Roster) {
        let members = roster.members();
        for member in &members {
            let addresses = member.addresses.iter().filter_map(|text| text.parse::<Address>().ok()).collect();
            self.network.add_peer(member.peer, addresses, PeerRole::Member);
        }
        let members: BTreeSet<PeerId> = members.iter().map(|member| member.peer).collect();
        for former in self.introduced.difference(&members) {
            let role = if self.bootstrap.contains(former) { PeerRole::Bootstrap } else { PeerRole::Other };
            self.network.add_peer(*former, Vec::new(), role);
        }
        self.introduced = members;
    }

    /// Begins to check everything, if there is hope.
    fn begin_check(&mut self, roster: &Roster, view: &View) -> Option<Duration> {
        let seat = roster.seat()?;
        if self.check.is_some() {
            return None;
        }
        let wait = self.state.check_in(self.start.elapsed(), self.repair.report());
        if !wait.is_zero() {
            return Some(wait);
        }
        self.check = Some(Box::pin(check_all(self.store.clone(), seat, view.clone())));
        None
    }

    fn found(&mut self, found: &Found) {
        match found {
            Found::Whole(epoch) => {
                tracing::info!(%epoch, "every certified blob of this node's shards is here");
                self.state.whole(*epoch);
                return;
            }
            Found::Lacking(blob_id) => self.repair.hint(*blob_id),
            Found::Failed => {}
        }
        self.state.lacking(self.start.elapsed(), self.repair.report());
    }

    /// Says on the ledger that this node is ready; again after a while, should that have been lost.
    fn say_ready(&mut self, epoch: Epoch) -> Option<Duration> {
        let now = self.start.elapsed();
        let wait = self.state.say_in(now, epoch);
        if !wait.is_zero() {
            return Some(wait);
        }
        if self.blobs.ledger().owe(Action::ShardsReady { epoch }) {
            self.state.said(now, epoch);
        }
        Some(self.config.check_interval)
    }
}

/// What is known of the epoch now.
async fn facts(
    store: &SliverStore,
    found_whole: Option<Epoch>,
    roster: &Roster,
    view: &View,
) -> Result<Facts, TurnError> {
    let (seat, epoch, stage) = (roster.seat(), roster.epoch(), roster.stage);
    let has_said_ready = match &seat {
        Some(Seat { node, .. }) => view.state.is_ready(epoch, *node)?,
        None => false,
    };
    let owed = roster.owed().shards();
    // Only while shards may be dropped does it matter what is there.
    let stored = match stage {
        Stage::Selected { .. } => store.shards().await.map_err(|_| TurnError::Store)?,
        Stage::Steady | Stage::Handover { .. } => Vec::new(),
    };
    Ok(Facts {
        epoch,
        stage,
        is_seated: seat.is_some(),
        has_said_ready,
        found_whole,
        owed,
        stored: stored.into_iter().collect(),
    })
}

/// Why a turn was cut short; it is tried again.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error("the ledger's state cannot be read")]
    Ledger(#[from] Corrupt),
    #[error("the store failed")]
    Store,
}

/// Waits for a check to end; for ever if none is running.
async fn checked(check: &mut Option<Check>) -> Found {
    match check {
        Some(running) => {
            let found = running.await;
            *check = None;
            found
        }
        None => std::future::pending().await,
    }
}

/// Waits for news; for ever if there will be none, since the node is stopping then.
async fn changed<E>(news: impl Future<Output = Result<(), E>>) {
    if news.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Whether all slivers are on the disk that go with a place, of every blob that is certified as of this view.
async fn check_all(store: SliverStore, seat: Seat, view: View) -> Found {
    let epoch = seat.committee.epoch();
    if is_planted(Bug::ReadyBlindly) {
        return Found::Whole(epoch);
    }
    for entry in view.state.blobs_from(&BlobId([0; 32])) {
        let Ok((blob_id, blob)) = entry else { return Found::Failed };
        let BlobStatus::Certified { header, .. } = status_of(blob_id, &blob) else { continue };
        match missing_of_blob(seat.clone().into(), &store, &header, 0).await {
            Ok(0) => {}
            Ok(_) => return Found::Lacking(blob_id),
            Err(_) => return Found::Failed,
        }
    }
    Found::Whole(epoch)
}
