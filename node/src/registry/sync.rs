//! Finds records that this node missed, by comparing summaries with its peers.
//!
//! Gossip tells of new records quickly and not surely: a node that was down, cut off or new hears nothing. So each
//! node asks its peers in turn for a summary of what they know, and lists those that know something else. What it
//! lists proves itself; the peer is trusted with nothing but a turn's time. A list that takes longer is gone on with
//! at the peer's next turn, so nobody keeps us from the others by listing slowly.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    BlobId, PeerId,
    message::{Announcement, BlobStatus, Request, Response, decode_page},
    planted::{Bug, is_planted},
};
use swarm::{Network, Offence};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    actor::blob_of,
    mailbox::{RecordError, Registry},
};
use crate::{
    exchange::{ExchangeError, ask, malformed},
    membership::Membership,
};

/// Tuning of the search for missed records.
#[derive(Clone, Copy, Debug)]
pub struct SyncConfig {
    /// Pause between one peer and the next; all peers are asked in turn.
    pub interval: Duration,
    /// How long to wait for a peer's answer.
    pub request_timeout: Duration,
    /// How long one peer may be listed before it is the next one's turn. No page is asked for after that; the last one
    /// may still take its time.
    pub turn_max: Duration,
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            // A summary is 40 bytes: even every second it costs nothing that counts.
            interval: Duration::from_secs(2),
            request_timeout: Duration::from_secs(10),
            // Some thousand new records, each of which costs a pairing; and all who list slowly, a third of the members
            // at most, hold up a round by no more than as many who do not answer at all.
            turn_max: Duration::from_secs(5),
        }
    }
}

/// Why listing a peer ended early.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Asks peers for what this node missed.
#[derive(Debug)]
pub struct Sync<N> {
    config: SyncConfig,
    membership: Arc<Membership>,
    network: N,
    registry: Registry,
    /// Where the lists of members go on that were cut short.
    resume: BTreeMap<PeerId, BlobId>,
}

/// How a turn of a peer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It knows nothing more.
    Done,
    /// Its time was over before its list was.
    Cut,
}

impl<N: Network> Sync<N> {
    /// Returns the actor, not yet running.
    pub const fn new(
        config: SyncConfig,
        membership: Arc<Membership>,
        network: N,
        registry: Registry,
    ) -> Self {
        Self { config, membership, network, registry, resume: BTreeMap::new() }
    }

    /// Runs until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut connected = self.network.connected();
        let mut known = BTreeSet::new();
        let mut turn: usize = 0;
        loop {
            // Peers that have come are asked at once: one of us may have been away.
            let members: BTreeSet<PeerId> = self.members(&connected.peers()).collect();
            let new: Vec<PeerId> = members.difference(&known).copied().collect();
            known = members;
            let next = known.iter().nth(turn % known.len().max(1)).copied();
            let peers = if new.is_empty() { next.into_iter().collect() } else { new };
            turn = turn.wrapping_add(1);
            let look = async {
                let mut was_cut = false;
                for peer in peers {
                    if is_planted(Bug::NoRecordSync) {
                        continue;
                    }
                    match self.look_at(peer).await {
                        Ok(turn) => was_cut |= turn == Turn::Cut,
                        Err(error) => tracing::debug!(%peer, %error, "could not compare records with a peer"),
                    }
                }
                // There is more to be had: on with the next at once.
                let pause = if was_cut { Duration::ZERO } else { self.config.interval };
                let pause = tokio::time::sleep(pause);
                tokio::select! {
                    biased;
                    alive = connected.changed() => alive,
                    () = pause => true,
                }
            };
            let alive = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                alive = look => alive,
            };
            if !alive {
                return;
            }
        }
    }

    fn members(&self, connected: &BTreeSet<PeerId>) -> impl Iterator<Item = PeerId> {
        let peers: Vec<PeerId> =
            self.membership.others().map(|(_, peer)| peer).filter(|peer| connected.contains(peer)).collect();
        peers.into_iter()
    }

    /// Lists a peer's records if its summary differs from ours, for as long as its turn lasts.
    async fn look_at(&mut self, peer: PeerId) -> Result<Turn, SyncError> {
        let end = Instant::now() + self.config.turn_max;
        // Whatever is wrong with its list, the next turn begins anew.
        let mut after = self.resume.remove(&peer);
        let (response, _) = self.ask(peer, &Request::Digest).await?;
        let Response::Digest(digest) = response else { return Err(malformed(&self.network, peer).into()) };
        if digest == self.registry.digest() {
            return Ok(Turn::Done);
        }
        loop {
            let (response, payload) = self.ask(peer, &Request::ListRecords { after }).await?;
            let (Response::Records, Ok(page)) = (response, decode_page(&payload)) else {
                return Err(malformed(&self.network, peer).into());
            };
            if page.is_empty() {
                return Ok(Turn::Done);
            }
            for record in page {
                let blob_id = blob_of(&record);
                // In increasing order, or a page could be listed for ever.
                if after.is_some_and(|after| blob_id <= after) {
                    return Err(malformed(&self.network, peer).into());
                }
                self.take(peer, blob_id, record).await?;
                after = Some(blob_id);
            }
            if let Some(after) = after.filter(|_| Instant::now() >= end) {
                self.resume.insert(peer, after);
                return Ok(Turn::Cut);
            }
        }
    }

    async fn take(&self, peer: PeerId, blob_id: BlobId, record: Announcement) -> Result<(), SyncError> {
        let known = self.registry.status(blob_id).await;
        let is_known = match (&known, &record) {
            (Ok(BlobStatus::Invalid(_)), _) => true,
            (Ok(BlobStatus::Certified(_)), record) => matches!(record, Announcement::Certified(_)),
            (Ok(BlobStatus::Unknown) | Err(_), _) => false,
        };
        if is_known {
            return Ok(());
        }
        match self.registry.record(record).await {
            Ok(_) | Err(RecordError::Invalid) => Ok(()),
            Err(error) => {
                if error.is_senders_fault() {
                    self.network.report(peer, Offence::Unverifiable);
                }
                Err(error.into())
            }
        }
    }

    async fn ask(&self, peer: PeerId, request: &Request) -> Result<(Response, Bytes), ExchangeError> {
        ask(&self.network, peer, (request, Bytes::new()), self.config.request_timeout).await
    }
}
