//! Takes commitments and slivers from clients, and vouches for what is on the disk.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    BlobId, Epoch, NetworkId, PeerId, RegistrationId, SegmentIndex,
    bls::SecretKey,
    certificate::{MemberSignature, Statement as _, StorageConfirmation},
    commitment::{BlobHeader, SegmentCommitment, VerifiedHeader},
    committee::shard_of,
    encoding::{SegmentEncoder, SegmentShape, encode::sliver_index},
    hash::Hash,
    ledger::state::Corrupt,
    message::{Refusal, SliverAt},
    planted::{Bug, is_planted},
};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::{
    assembly::{Assemblies, PartError, Whole},
    missing::missing_of_blob,
    orders::Orders,
    pending::{Dropping, Pending},
};
use crate::{
    blobs::{BlobStatus, Blobs, Standing},
    commitments::{CommitmentCache, CommitmentReadError},
    encoder::Encoder,
    membership::{Membership, Seat},
    sliver_store::{SliverRecord, SliverStore, StoreWriteError},
};

/// Tuning of uploads.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of slivers in the making.
    pub assembly_bytes: usize,
    /// How long a sliver in the making may get nothing.
    pub idle_max: Duration,
    /// How long what came for a blob that the ledger does not know is kept after the last of it came.
    pub pending_ttl: Duration,
    /// Bytes kept for blobs that the ledger does not know.
    pub unregistered_bytes: usize,
    /// Bytes of slivers that this node vouches for on an order, before the ledger has executed it.
    pub order_bytes: usize,
    /// How long an owner may take to have an order executed; then this node does it.
    pub order_patience: Duration,
    /// How long a confirmation waits for the ledger to have the registration, before the client is to ask again.
    pub registration_wait: Duration,
    /// Confirmations that may wait so.
    pub waiting_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            assembly_bytes: 128 << 20,
            idle_max: Duration::from_secs(30),
            pending_ttl: Duration::from_secs(60 * 60),
            // What a client sends within the second or two that its registration takes, for some clients at once.
            unregistered_bytes: 1 << 30,
            // Thousands of small blobs, each for the time of a block.
            order_bytes: 64 << 20,
            order_patience: Duration::from_secs(5),
            // Some blocks, and well below a client's patience for one answer.
            registration_wait: Duration::from_secs(1),
            waiting_max: 256,
        }
    }
}

/// Missing slivers are counted up to about here when a client asks: it must send again in any case.
const MISSING_TOLD_MAX: u32 = 1_000;

/// Takes what clients send; cheap to clone.
#[derive(Clone)]
pub struct Uploads(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) membership: Membership,
    key: SecretKey,
    pub(super) store: SliverStore,
    pub(super) blobs: Blobs,
    pub(super) commitments: CommitmentCache,
    pub(super) encoder: Encoder,
    pub(super) start: Instant,
    assemblies: Mutex<Assemblies>,
    pending: Mutex<Pending>,
    orders: Mutex<Orders>,
    waiting: Semaphore,
    /// An order was taken.
    pub(super) ordered: Notify,
}

/// The room of a sliver that is whole, given back when it is written or refused.
struct Room<'a> {
    assemblies: &'a Mutex<Assemblies>,
    from: PeerId,
    reserved: usize,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut assemblies = self.assemblies.lock().unwrap_or_else(PoisonError::into_inner);
        assemblies.release(self.from, self.reserved);
    }
}

impl std::fmt::Debug for Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uploads").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl From<Dropping> for Refusal {
    fn from(_: Dropping) -> Self {
        Self::Busy
    }
}

/// The ledger's state contradicts itself, which is a bug: nothing follows from it.
pub(super) fn unclear(error: Corrupt) -> Refusal {
    tracing::error!(%error, "the ledger's state cannot be read");
    Refusal::Internal
}

pub(super) fn refusal_of_write(error: StoreWriteError) -> Refusal {
    match error {
        StoreWriteError::Full => Refusal::Full,
        StoreWriteError::Failed => Refusal::Internal,
    }
}

impl Uploads {
    /// Returns the service; `key` is this member's signing key.
    #[must_use]
    pub fn new(
        config: Config,
        (membership, key): (Membership, SecretKey),
        (store, blobs): (SliverStore, Blobs),
        commitments: CommitmentCache,
        encoder: Encoder,
    ) -> Self {
        let assemblies = Mutex::new(Assemblies::new(config.assembly_bytes, config.idle_max));
        Self(Arc::new(Inner {
            config,
            membership,
            key,
            store,
            blobs,
            commitments,
            encoder,
            start: Instant::now(),
            assemblies,
            pending: Mutex::new(Pending::new(config.unregistered_bytes)),
            orders: Mutex::new(Orders::new(config.order_bytes)),
            waiting: Semaphore::new(config.waiting_max),
            ordered: Notify::new(),
        }))
    }

    /// Keeps the commitment of a segment.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn commitment(
        &self,
        header: BlobHeader,
        segment: SegmentIndex,
        path: Vec<Hash>,
        bytes: Bytes,
    ) -> Result<(), Refusal> {
        let (verified, is_known) = self.acceptable(header)?;
        let blob_id = verified.blob_id();
        self.hold(blob_id)?;
        if self.0.commitments.get(blob_id, segment).await.is_ok() {
            return Ok(());
        }
        let to_verify = bytes.clone();
        let path_to_verify = path.clone();
        let commitment = self
            .0
            .encoder
            .run(move |_| verified.verify_segment(segment, &to_verify, &path_to_verify))
            .await
            .map_err(|_| Refusal::Internal)?
            .map_err(|_| Refusal::Unverifiable)?;
        self.make_room(blob_id, is_known, bytes.len())?;
        self.touch(blob_id)?;
        self.0.store.put_commitment(header, segment, &path, &bytes).await.map_err(refusal_of_write)?;
        self.0.commitments.insert(verified, segment, commitment);
        Ok(())
    }

    /// Checks a header, and that its blob may be stored here. True if the ledger knows the blob.
    pub(super) fn acceptable(&self, header: BlobHeader) -> Result<(VerifiedHeader, bool), Refusal> {
        let verified = header.verify().map_err(|_| Refusal::Unverifiable)?;
        if verified.shape().n() != self.0.membership.n_shards() {
            return Err(Refusal::OtherNetwork);
        }
        Ok((verified, self.is_known(verified.blob_id())?))
    }

    /// True if the ledger knows a blob.
    fn is_known(&self, blob_id: BlobId) -> Result<bool, Refusal> {
        match self.0.blobs.status(blob_id).map_err(unclear)? {
            BlobStatus::Invalid => Err(Refusal::Invalid),
            BlobStatus::Unknown => Ok(false),
            BlobStatus::Registered | BlobStatus::Certified { .. } => Ok(true),
        }
    }

    /// Takes room in the buffer of blobs that the ledger does not know.
    pub(super) fn make_room(&self, blob_id: BlobId, is_known: bool, bytes: usize) -> Result<(), Refusal> {
        let is_known_by_now = |other: &BlobId| !matches!(self.is_known(*other), Ok(false));
        let has_room = is_known || self.pending().book(blob_id, bytes, is_known_by_now);
        // The client registers it meanwhile, or ought to.
        if has_room { Ok(()) } else { Err(Refusal::Busy) }
    }

    /// Takes a part of a sliver; once the sliver is whole, checks it in full and makes it durable.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; [`Refusal::NotFound`] if the segment's commitment is not here yet.
    pub async fn part(&self, from: PeerId, at: SliverAt, offset: u32, part: Bytes) -> Result<(), Refusal> {
        let inner = &self.0;
        if at.pair.0 >= inner.membership.n_shards() {
            return Err(Refusal::NotMine);
        }
        let kept = inner.membership.now().map_err(unclear)?.kept();
        let shard = shard_of(inner.membership.n_shards(), &at.blob_id, at.segment, at.pair);
        if !kept.shards().contains(&shard) {
            return Err(Refusal::NotMine);
        }
        let commitment = inner.commitments.get(at.blob_id, at.segment).await;
        let (header, commitment) = commitment.map_err(|error| match error {
            CommitmentReadError::NotFound => Refusal::NotFound,
            CommitmentReadError::Failed => Refusal::Internal,
        })?;
        let shape = header.shape().segment(at.segment).map_err(|_| Refusal::Malformed)?;
        if !kept.slivers(at.blob_id, at.segment, shape).contains(&at) {
            return Err(Refusal::NotMine);
        }
        self.touch(at.blob_id)?;
        if inner.store.has_sliver(&at) {
            // Repair or another client was faster: nobody's parts of it are needed any more.
            self.assemblies().forget_sliver(at);
            return Ok(());
        }
        self.make_room(at.blob_id, self.is_known(at.blob_id)?, part.len())?;
        let offset = usize::try_from(offset).map_err(|_| Refusal::Malformed)?;
        let len = shape.sliver_bytes(at.axis);
        let now = inner.start.elapsed();
        let whole = self.assemblies().part(now, (from, at), len, (offset, &part));
        // What it held is in the sliver by now, which may wait for long to be checked and written.
        drop(part);
        let Whole { record, reserved } = match whole {
            Ok(Some(whole)) => whole,
            Ok(None) => return Ok(()),
            Err(PartError::Misplaced) => return Err(Refusal::Malformed),
            Err(PartError::Busy) => return Err(Refusal::Busy),
        };
        let _room = Room { assemblies: &inner.assemblies, from, reserved };
        let (parity, record) = self.check(at, &commitment, shape, record).await?;
        inner.store.put_record(at, parity, record).await.map_err(refusal_of_write)?;
        self.assemblies().forget_sliver(at);
        Ok(())
    }

    pub(super) fn assemblies(&self) -> MutexGuard<'_, Assemblies> {
        self.0.assemblies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer has gone: what it was sending gives its room back. What it sends when it comes back begins anew; a sliver
    /// that stays incomplete is told when the peer asks for a confirmation.
    pub(crate) fn peer_left(&self, peer: PeerId) {
        self.assemblies().forget_peer(peer);
    }

    /// A blob is no longer taken: what was being sent of it gives its room back.
    pub(crate) fn forget(&self, blob_id: BlobId) {
        self.assemblies().forget_blob(blob_id);
    }

    /// Gives back the room of slivers of which nothing came for too long. Without this, they would keep it until
    /// somebody else wants it.
    pub(super) fn drop_idle(&self) {
        self.assemblies().forget_idle(self.0.start.elapsed());
    }

    /// How often to look for slivers of which nothing came for too long.
    pub(super) fn idle_interval(&self) -> Duration {
        self.0.config.idle_max
    }

    /// Checks a sliver in full: extends it and compares its root.
    async fn check(
        &self,
        at: SliverAt,
        commitment: &Arc<SegmentCommitment>,
        shape: SegmentShape,
        record: SliverRecord,
    ) -> Result<(Hash, SliverRecord), Refusal> {
        let commitment = commitment.clone();
        let check = move |encoder: &mut SegmentEncoder| {
            Some((check_sliver(encoder, &commitment, (at, shape), record.sliver())?, record))
        };
        self.0.encoder.run(check).await.map_err(|_| Refusal::Internal)?.ok_or(Refusal::Unverifiable)
    }

    /// Vouches for a blob in the name of the committee of an epoch, once the ledger has this registration of the blob, if all
    /// slivers that this node should hold for that committee are on its disk; else says how many are not.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; [`Refusal::Busy`] if the ledger does not have it yet.
    pub async fn confirm(
        &self,
        header: BlobHeader,
        registration: RegistrationId,
        epoch: Epoch,
    ) -> Result<Result<MemberSignature, u32>, Refusal> {
        let (verified, _) = self.acceptable(header)?;
        self.seat(epoch)?;
        let blob_id = verified.blob_id();
        // An order that is not on the disk yet would be forgotten by a crash.
        let is_ordered = self.orders().has(&blob_id, registration) && self.0.store.has_order(blob_id);
        if !is_ordered {
            self.wait_for(blob_id, registration).await?;
        }
        let inner = &self.0;
        // From here on it is not dropped but by the ledger's word, so that what is found below stays.
        self.hold(blob_id)?;
        let (_, seat) = self.seat(epoch)?;
        let missing = missing_of_blob(seat.into(), &inner.store, &verified, MISSING_TOLD_MAX).await;
        let missing = missing.map_err(|_| Refusal::Internal)?;
        if missing > 0 && !is_planted(Bug::ConfirmedBlindly) {
            return Ok(Err(missing));
        }
        self.sign(blob_id, registration, epoch).await.map(Ok)
    }

    /// The network, and this node's place on the committee for which it is to vouch.
    pub(super) fn seat(&self, epoch: Epoch) -> Result<(NetworkId, Seat), Refusal> {
        let roster = self.0.membership.now().map_err(unclear)?;
        let current = roster.epoch();
        let seat = roster.vouching_seat(epoch).ok_or(Refusal::WrongEpoch { current })?;
        Ok((roster.network, seat))
    }

    pub(super) async fn sign(
        &self,
        blob_id: BlobId,
        registration: RegistrationId,
        epoch: Epoch,
    ) -> Result<MemberSignature, Refusal> {
        // The epoch may have ended meanwhile: nobody needs this node's word for it then.
        let (network, Seat { node, .. }) = self.seat(epoch)?;
        let statement = StorageConfirmation { epoch, blob_id, registration };
        let key = self.0.key.clone();
        let signature = self.0.encoder.run(move |_| statement.sign(&network, node, &key)).await;
        signature.map_err(|_| Refusal::Internal)
    }

    /// Waits until the ledger has a registration.
    pub(super) async fn wait_for(
        &self,
        blob_id: BlobId,
        registration: RegistrationId,
    ) -> Result<(), Refusal> {
        let blobs = &self.0.blobs;
        let mut view = blobs.ledger().watch();
        let made = async {
            loop {
                view.see();
                match blobs.standing(blob_id, registration).map_err(unclear)? {
                    Standing::Made => return Ok(()),
                    Standing::Over => return Err(Refusal::NotRegistered),
                    Standing::ToCome => view.changed().await.map_err(|_| Refusal::Internal)?,
                }
            }
        };
        let Ok(_place) = self.0.waiting.try_acquire() else { return Err(Refusal::Busy) };
        tokio::time::timeout(self.0.config.registration_wait, made).await.unwrap_or(Err(Refusal::Busy))
    }

    pub(super) fn orders(&self) -> MutexGuard<'_, Orders> {
        // Nothing that can panic runs under this lock.
        self.0.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing that can panic runs under this lock.
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn touch(&self, blob_id: BlobId) -> Result<(), Dropping> {
        self.pending().touch(self.0.start.elapsed(), blob_id)
    }

    pub(super) fn hold(&self, blob_id: BlobId) -> Result<(), Dropping> {
        self.pending().hold(self.0.start.elapsed(), blob_id)
    }

    /// For how long nothing came for a blob, if something did lately.
    #[must_use]
    pub fn untouched_for(&self, blob_id: &BlobId) -> Option<Duration> {
        let touched = self.pending().touched(blob_id)?;
        Some(self.0.start.elapsed().saturating_sub(touched))
    }

    /// Bytes of slivers in the making.
    #[cfg(test)]
    pub(super) fn bytes_in_the_making(&self) -> usize {
        self.assemblies().bytes()
    }

    /// Pause between looks for what is stale: it goes away within an eighth of its time more.
    pub(super) fn sweep_interval(&self) -> Duration {
        (self.0.config.pending_ttl / 8).clamp(Duration::from_secs(1), Duration::from_secs(600))
    }
}

/// Extends a sliver and compares its root; returns the root over its parity symbols if it is the one committed to.
pub(crate) fn check_sliver(
    encoder: &mut SegmentEncoder,
    commitment: &SegmentCommitment,
    (at, shape): (SliverAt, SegmentShape),
    sliver: &[u8],
) -> Option<Hash> {
    let index = sliver_index(at.axis, at.pair, shape.n());
    let hashes = encoder.hash_sliver(shape, at.axis, sliver);
    let is_right = hashes.root() == commitment.sliver_root(at.axis, index);
    (is_right || is_planted(Bug::UploadUnchecked)).then_some(hashes.parity)
}
