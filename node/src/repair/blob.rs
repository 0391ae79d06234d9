//! Looks at one blob: what of it is missing here, and rebuilds it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use protocol::{
    Epoch, NetworkId, PeerId, SegmentIndex,
    bls::SecretKey,
    commitment::{SegmentCommitment, VerifiedHeader},
    encoding::RecoveryCoefficients,
    hash::Hash,
    message::{Request, Response, SliverAt},
};
use swarm::{Network, Offence, RequestError};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    actor::Config,
    dispute::{self, Evidence, EvidenceShelf},
    helpers::Helpers,
    mailbox::Counters,
    segment::SegmentRepair,
    state::{Outcome, Turn},
};
use crate::{
    blobs::{BlobStatus, Blobs},
    commitments::{CommitmentCache, CommitmentReadError},
    encoder::Encoder,
    exchange::{ExchangeError, ask, malformed},
    membership::{Membership, Roster, Seat, Seats},
    sliver_store::{SliverStore, StoreReadError, StoreWriteError},
    upload::{Uploads, missing_in_segment, missing_of_blob},
};

/// How often a segment is gone over in one look. The second time finds what the first one found to have rotted; a disk
/// that rots faster than that must not keep a segment in hand for ever.
const ROUNDS_MAX: u32 = 3;

/// Recovery coefficients, computed when first needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coefficients(Arc<OnceLock<Arc<RecoveryCoefficients>>>);

impl Coefficients {
    pub(crate) fn get(&self, n: u16) -> Arc<RecoveryCoefficients> {
        Arc::clone(self.0.get_or_init(|| Arc::new(RecoveryCoefficients::new(n))))
    }
}

/// What repair works with.
pub(super) struct Context<N> {
    pub(super) config: Config,
    pub(super) membership: Membership,
    pub(super) key: SecretKey,
    pub(super) network: N,
    pub(super) store: SliverStore,
    pub(super) blobs: Blobs,
    pub(super) commitments: CommitmentCache,
    pub(super) encoder: Encoder,
    pub(super) uploads: Uploads,
    pub(super) coefficients: Coefficients,
    pub(super) evidence: EvidenceShelf,
    pub(super) counters: Arc<Counters>,
    pub(super) start: Instant,
    /// Who let this node down lately.
    pub(super) helpers: Mutex<Helpers>,
    /// Bounds the segments in hand over all blobs.
    pub(super) segments: Arc<Semaphore>,
}

/// Why repair of a blob went no further.
#[derive(Debug)]
pub(super) enum Halt {
    /// The store failed or has stopped.
    Store,
    /// The disk is full.
    Full,
    /// The node is stopping.
    Stopped,
    /// The writer encoded wrongly.
    Inconsistent(Box<Evidence>),
}

/// What this node is to hold of a blob, and who holds the blob, as of one block.
pub(super) struct Owed {
    pub(super) roster: Arc<Roster>,
    /// The places for which it is to hold it.
    pub(super) seats: Seats,
    pub(super) header: VerifiedHeader,
    /// The epoch of the committee that vouched for the blob.
    pub(super) certified: Epoch,
}

impl From<StoreWriteError> for Halt {
    fn from(error: StoreWriteError) -> Self {
        match error {
            StoreWriteError::Full => Self::Full,
            StoreWriteError::Failed => Self::Store,
        }
    }
}

impl<N: Network> Context<N> {
    /// This node's place on the current committee, if it has one, and the network.
    pub(super) fn seat(&self) -> Option<(NetworkId, Seat)> {
        let roster = self.membership.now().ok()?;
        Some((roster.network, roster.seat()?))
    }

    fn lock_helpers(&self) -> MutexGuard<'_, Helpers> {
        // Nothing that can panic runs under this lock.
        self.helpers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other members, in the order in which to ask them for a segment.
    pub(super) fn helpers_for(&self, roster: &Roster, segment: SegmentIndex) -> Vec<PeerId> {
        let connected = self.network.connected();
        let others = roster.others();
        // From segment to segment and from node to node, so that the load spreads: beginning with the one after this node.
        let turn = segment.as_usize() + others.range(..self.membership.me()).count();
        let members = others.into_iter().map(|peer| (peer, connected.contains(peer)));
        self.lock_helpers().order(self.start.elapsed(), members, turn)
    }

    /// True if a member let this node down lately.
    pub(super) fn has_failed(&self, node: &PeerId) -> bool {
        self.lock_helpers().has_failed(self.start.elapsed(), node)
    }

    /// Takes note of how a member answered.
    pub(super) fn note<T>(&self, node: PeerId, answer: &Result<T, ExchangeError>) {
        let mut helpers = self.lock_helpers();
        match answer {
            Ok(_) => helpers.helped(node),
            // It is there, and has not what it was asked for, or no time for it.
            Err(ExchangeError::Refused(_) | ExchangeError::Request(RequestError::Busy)) => {}
            Err(ExchangeError::Request(_) | ExchangeError::Malformed) => {
                helpers.failed(self.start.elapsed(), node);
            }
        }
    }

    /// Takes note of a member that sent something wrong.
    pub(super) fn note_wrong(&self, node: PeerId) {
        self.lock_helpers().failed(self.start.elapsed(), node);
    }

    /// Removes a sliver that the disk damaged, so that it is missing rather than wrong.
    pub(super) async fn drop_corrupt(&self, at: SliverAt) -> Result<(), Halt> {
        tracing::warn!(blob_id = %at.blob_id, segment = %at.segment, pair = %at.pair, axis = ?at.axis, "a sliver is corrupt on disk");
        self.counters.add_corrupt();
        Ok(self.store.drop_corrupt_sliver(at).await?)
    }

    /// Looks at a blob and rebuilds what is missing of it, unless it may be left to the client that is sending it.
    pub(super) async fn look_at(&self, Turn { blob_id, may_defer }: Turn) -> Outcome {
        let (header, certified) = match self.blobs.status(blob_id) {
            Ok(BlobStatus::Certified { header, epoch }) => (header, epoch),
            Ok(BlobStatus::Invalid) => {
                let dropped = self.store.drop_blob(blob_id).await;
                // Afterwards, or whoever asks meanwhile brings them back to the cache.
                self.commitments.forget(blob_id);
                self.evidence.remove(&blob_id);
                self.uploads.forget(blob_id);
                return if dropped.is_ok() { Outcome::Whole } else { Outcome::Missing(0) };
            }
            // Its last registration ended, or it never had one.
            Ok(BlobStatus::Unknown) => {
                let dropped = self.uploads.drop_unknown(blob_id).await;
                return if dropped.is_ok() { Outcome::Whole } else { Outcome::Missing(0) };
            }
            // Its client goes on sending it.
            Ok(BlobStatus::Registered) => return Outcome::Whole,
            Err(error) => {
                tracing::error!(%blob_id, %error, "the ledger's state cannot be read");
                return Outcome::Whole;
            }
        };
        let roster = match self.membership.now() {
            Ok(roster) => Arc::new(roster),
            Err(error) => {
                tracing::error!(%error, "the ledger's state cannot be read");
                return Outcome::Whole;
            }
        };
        let owed = Owed { seats: roster.owed(), roster, header, certified };
        // A store that cannot tell what it lacks is asked again.
        let missing = missing_of_blob(owed.seats.clone(), &self.store, &header, u32::MAX).await.unwrap_or(1);
        if missing == 0 {
            return Outcome::Whole;
        }
        let untouched_for = self.uploads.untouched_for(&blob_id);
        if may_defer && untouched_for.is_some_and(|untouched| untouched < self.config.being_sent_for) {
            return Outcome::BeingSent(missing);
        }
        // Proved wrong before, by evidence that too few members looked at.
        if let Some(evidence) = self.evidence.get(&blob_id) {
            return match dispute::ask_to_attest(self, blob_id, &evidence).await {
                Ok(true) => Outcome::Whole,
                Ok(false) | Err(_) => Outcome::Missing(missing),
            };
        }
        tracing::info!(%blob_id, missing, "repairing a blob");
        match self.heal(&owed).await {
            Ok(0) => {
                tracing::info!(%blob_id, "a blob is whole again");
                Outcome::Whole
            }
            Ok(left) if left < missing => Outcome::Regained(left),
            Ok(left) => Outcome::Missing(left),
            Err(Halt::Inconsistent(evidence)) => match dispute::accuse(self, *evidence).await {
                // The block that says so brings the blob back here, to be dropped.
                Ok(true) => Outcome::Whole,
                Ok(false) | Err(_) => Outcome::Missing(missing),
            },
            Err(halt) => {
                tracing::warn!(%blob_id, ?halt, "repair of a blob was cut short");
                Outcome::Missing(missing)
            }
        }
    }

    /// Heals all segments, a few at a time, and returns how many slivers are still missing.
    async fn heal(&self, owed: &Owed) -> Result<u32, Halt> {
        let segments = stream::iter(owed.header.shape().segments()).map(|segment| async move {
            let _permit = self.segments.acquire().await.map_err(|_| Halt::Stopped)?;
            self.heal_segment(owed, segment).await
        });
        let mut results = segments.buffer_unordered(self.config.segments_in_flight);
        let mut missing = 0;
        while let Some(result) = results.next().await {
            missing += result?;
        }
        Ok(missing)
    }

    async fn heal_segment(&self, owed: &Owed, segment: SegmentIndex) -> Result<u32, Halt> {
        let header = &owed.header;
        let shape = header.shape().segment(segment).map_err(|_| Halt::Stopped)?;
        let missing_now = || missing_in_segment(&owed.seats, &self.store, header, segment);
        let mut missing = missing_now();
        for _ in 0..ROUNDS_MAX {
            if missing == 0 {
                return Ok(0);
            }
            let Some(commitment) = self.commitment(owed, segment).await? else { return Ok(missing) };
            let segment_repair = SegmentRepair { context: self, owed, segment, shape, commitment };
            let left = Box::pin(segment_repair.heal()).await?;
            // Own slivers that help are read for it; one that turns out to have rotted is missing from then on.
            missing = missing_now();
            if missing <= left {
                break;
            }
        }
        Ok(missing)
    }

    /// The commitment of a segment, from the store or else from a peer; `None` if no peer has it.
    async fn commitment(
        &self,
        owed: &Owed,
        segment: SegmentIndex,
    ) -> Result<Option<Arc<SegmentCommitment>>, Halt> {
        let header = &owed.header;
        let blob_id = header.blob_id();
        // One at hand that is not on the disk would be lost with the next start.
        if self.store.has_commitment(blob_id, segment) {
            match self.commitments.get(blob_id, segment).await {
                Ok((_, commitment)) => return Ok(Some(commitment)),
                Err(CommitmentReadError::NotFound) => {}
                Err(CommitmentReadError::Failed) => return Err(Halt::Store),
            }
        }
        for node in self.helpers_for(&owed.roster, segment) {
            let fetched = self.fetch_commitment(header, segment, node).await;
            self.note(node, &fetched);
            match fetched {
                Ok((path, payload, commitment)) => {
                    self.store.put_commitment(*header.header(), segment, &path, &payload).await?;
                    return Ok(Some(self.commitments.insert(*header, segment, commitment).1));
                }
                Err(error) => tracing::debug!(%node, %error, "no commitment from a peer"),
            }
        }
        Ok(None)
    }

    async fn fetch_commitment(
        &self,
        header: &VerifiedHeader,
        segment: SegmentIndex,
        peer: PeerId,
    ) -> Result<(Vec<Hash>, Bytes, SegmentCommitment), ExchangeError> {
        let request = Request::FetchCommitment { blob_id: header.blob_id(), segment };
        let (response, payload) =
            ask(&self.network, peer, (&request, Bytes::new()), self.config.request_timeout).await?;
        self.counters.add_received(payload.len() + response.to_bytes().len());
        let Response::Commitment { path, .. } = response else {
            return Err(malformed(&self.network, peer));
        };
        let Ok(commitment) = header.verify_segment(segment, &payload, &path) else {
            self.network.report(peer, Offence::Unverifiable);
            return Err(ExchangeError::Malformed);
        };
        Ok((path, payload, commitment))
    }
}

/// Reads that failed for a reason other than absence end repair of the blob for now.
impl From<StoreReadError> for Halt {
    fn from(_: StoreReadError) -> Self {
        Self::Store
    }
}
