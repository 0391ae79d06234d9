//! Takes commitments and slivers from clients, and vouches for what is on the disk.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    BlobId, PeerId, SegmentIndex,
    bls::SecretKey,
    certificate::{MemberSignature, Persistence, Statement as _, StorageConfirmation},
    commitment::{BlobHeader, SegmentCommitment, VerifiedHeader},
    encoding::encode::sliver_index,
    hash::Hash,
    message::{BlobStatus, Refusal, SliverAt},
    planted::{Bug, is_planted},
};
use tokio::time::Instant;

use super::{
    assembly::{Assemblies, PartError, Whole},
    missing::missing_of_blob,
    pending::{Dropping, Pending},
};
use crate::{
    commitments::{CommitmentCache, CommitmentReadError},
    encoder::Encoder,
    membership::Membership,
    registry::Registry,
    sliver_store::{SliverStore, StoreReadError, StoreWriteError},
};

/// Tuning of uploads.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of slivers in the making.
    pub assembly_bytes: usize,
    /// How long a sliver in the making may get nothing.
    pub idle_max: Duration,
    /// How long part of what this node should hold of a blob that is not certified is kept after the last of it came.
    pub pending_ttl: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            assembly_bytes: 128 << 20,
            idle_max: Duration::from_secs(30),
            pending_ttl: Duration::from_secs(60 * 60),
        }
    }
}

/// Missing slivers are counted up to about here when a client asks: it must send again in any case.
const MISSING_TOLD_MAX: u32 = 1_000;

/// Takes what clients send; cheap to clone.
#[derive(Clone)]
pub struct Uploads(Arc<Inner>);

struct Inner {
    config: Config,
    membership: Arc<Membership>,
    key: SecretKey,
    store: SliverStore,
    registry: Registry,
    commitments: CommitmentCache,
    encoder: Encoder,
    start: Instant,
    assemblies: Mutex<Assemblies>,
    pending: Mutex<Pending>,
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

fn refusal_of_write(error: StoreWriteError) -> Refusal {
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
        (membership, key): (Arc<Membership>, SecretKey),
        (store, registry): (SliverStore, Registry),
        commitments: CommitmentCache,
        encoder: Encoder,
    ) -> Self {
        let assemblies = Mutex::new(Assemblies::new(config.assembly_bytes, config.idle_max));
        Self(Arc::new(Inner {
            config,
            membership,
            key,
            store,
            registry,
            commitments,
            encoder,
            start: Instant::now(),
            assemblies,
            pending: Mutex::default(),
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
        let verified = self.acceptable(header).await?;
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
        self.touch(blob_id)?;
        self.0.store.put_commitment(header, segment, &path, &bytes).await.map_err(refusal_of_write)?;
        self.0.commitments.insert(verified, segment, commitment);
        Ok(())
    }

    /// Checks a header, and that its blob may be stored here.
    async fn acceptable(&self, header: BlobHeader) -> Result<VerifiedHeader, Refusal> {
        let verified = header.verify().map_err(|_| Refusal::Unverifiable)?;
        if verified.shape().n() != self.0.membership.n_shards() {
            return Err(Refusal::OtherNetwork);
        }
        match self.0.registry.status(verified.blob_id()).await {
            Ok(BlobStatus::Invalid(_)) => Err(Refusal::Invalid),
            Ok(BlobStatus::Certified(_) | BlobStatus::Unknown) | Err(StoreReadError::Corrupt) => Ok(verified),
            Err(_) => Err(Refusal::Internal),
        }
    }

    /// Takes a part of a sliver; once the sliver is whole, checks it in full and makes it durable.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; [`Refusal::NotFound`] if the segment's commitment is not here yet.
    pub async fn part(&self, from: PeerId, at: SliverAt, offset: u32, part: Bytes) -> Result<(), Refusal> {
        let inner = &self.0;
        if at.pair.0 >= inner.membership.n_shards()
            || inner.membership.owner(&at.blob_id, at.segment, at.pair) != inner.membership.node
        {
            return Err(Refusal::NotMine);
        }
        let commitment = inner.commitments.get(at.blob_id, at.segment).await;
        let (header, commitment) = commitment.map_err(|error| match error {
            CommitmentReadError::NotFound => Refusal::NotFound,
            CommitmentReadError::Failed => Refusal::Internal,
        })?;
        let shape = header.shape().segment(at.segment).map_err(|_| Refusal::Malformed)?;
        if !inner.membership.slivers(at.blob_id, at.segment, shape).any(|own| own == at) {
            return Err(Refusal::NotMine);
        }
        self.touch(at.blob_id)?;
        if inner.store.has_sliver(&at) {
            // Repair or another client was faster: nobody's parts of it are needed any more.
            self.assemblies().forget_sliver(at);
            return Ok(());
        }
        let offset = usize::try_from(offset).map_err(|_| Refusal::Malformed)?;
        let len = shape.sliver_bytes(at.axis);
        let now = inner.start.elapsed();
        let whole = self.assemblies().part(now, (from, at), len, (offset, &part));
        let Whole { sliver, reserved } = match whole {
            Ok(Some(whole)) => whole,
            Ok(None) => return Ok(()),
            Err(PartError::Misplaced) => return Err(Refusal::Malformed),
            Err(PartError::Busy) => return Err(Refusal::Busy),
        };
        let _room = Room { assemblies: &inner.assemblies, from, reserved };
        // Asked once a sliver, not with every part of it.
        if let Ok(BlobStatus::Invalid(_)) = inner.registry.status(at.blob_id).await {
            return Err(Refusal::Invalid);
        }
        let (parity, sliver) = self.check(at, &commitment, shape, sliver).await?;
        inner.store.put_sliver(at, parity, &sliver).await.map_err(refusal_of_write)?;
        self.assemblies().forget_sliver(at);
        Ok(())
    }

    fn assemblies(&self) -> MutexGuard<'_, Assemblies> {
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
        commitment: &SegmentCommitment,
        shape: protocol::encoding::SegmentShape,
        sliver: Vec<u8>,
    ) -> Result<(Hash, Vec<u8>), Refusal> {
        let index = sliver_index(at.axis, at.pair, shape.n());
        let root = commitment.sliver_root(at.axis, index);
        let (hashes, sliver) = self
            .0
            .encoder
            .run(move |encoder| (encoder.hash_sliver(shape, at.axis, &sliver), sliver))
            .await
            .map_err(|_| Refusal::Internal)?;
        if hashes.root() == root || is_planted(Bug::UploadUnchecked) {
            Ok((hashes.parity, sliver))
        } else {
            Err(Refusal::Unverifiable)
        }
    }

    /// Vouches for a blob if all slivers that this node should hold are on its disk; else says how many are not.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn confirm(
        &self,
        header: BlobHeader,
        persistence: Persistence,
    ) -> Result<Result<MemberSignature, u32>, Refusal> {
        let verified = self.acceptable(header).await?;
        let inner = &self.0;
        // From here on it is not dropped before its time is over once more, so that what is found below stays.
        self.hold(verified.blob_id())?;
        let missing = missing_of_blob(&inner.membership, &inner.store, &verified, MISSING_TOLD_MAX).await;
        let missing = missing.map_err(|_| Refusal::Internal)?;
        if missing > 0 && !is_planted(Bug::ConfirmedBlindly) {
            return Ok(Err(missing));
        }
        let Membership { network, committee, node } = &*inner.membership;
        let statement =
            StorageConfirmation { epoch: committee.epoch(), blob_id: verified.blob_id(), persistence };
        let (network, node, key) = (*network, *node, inner.key.clone());
        let signature = inner.encoder.run(move |_| statement.sign(&network, node, &key)).await;
        signature.map(Ok).map_err(|_| Refusal::Internal)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing that can panic runs under this lock.
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self, blob_id: BlobId) -> Result<(), Dropping> {
        self.pending().touch(self.0.start.elapsed(), blob_id)
    }

    fn hold(&self, blob_id: BlobId) -> Result<(), Dropping> {
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

    /// Finds what came before the node was started.
    pub(super) async fn find_pending(&self) -> Result<(), StoreReadError> {
        let mut after = None;
        loop {
            let page = self.0.store.committed(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(*last);
            for blob_id in page {
                match self.0.registry.status(blob_id).await {
                    // A record that rotted is found again, and then says which it is.
                    Ok(BlobStatus::Unknown) | Err(StoreReadError::Corrupt) => {
                        self.pending().found(self.0.start.elapsed(), blob_id);
                    }
                    Ok(BlobStatus::Certified(_) | BlobStatus::Invalid(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Drops what came in part for blobs that were not certified in time; says how many of them.
    pub(super) async fn drop_stale(&self) -> Result<u32, StaleError> {
        let (ttl, now) = (self.0.config.pending_ttl, self.0.start.elapsed());
        let stale = self.pending().stale(now, ttl);
        let mut dropped = 0;
        for blob_id in stale {
            if !self.pending().begin_drop(self.0.start.elapsed(), ttl, blob_id) {
                continue;
            }
            let fate = self.drop_if_partial(blob_id).await;
            let mut pending = self.pending();
            pending.settle(blob_id);
            match fate {
                Ok(Fate::Kept) => {}
                Ok(Fate::Dropped) => {
                    dropped += 1;
                    tracing::info!(%blob_id, "dropped a blob that was not certified in time");
                }
                // Another time.
                Ok(Fate::Unclear) | Err(StaleError::Write(StoreWriteError::Full)) => {
                    pending.found(self.0.start.elapsed(), blob_id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(dropped)
    }

    /// Drops a blob of which this node lacks something. If it lacks nothing it may have vouched for the blob, and the
    /// certificate may be made of its word at any time.
    async fn drop_if_partial(&self, blob_id: BlobId) -> Result<Fate, StaleError> {
        let inner = &self.0;
        match inner.registry.status(blob_id).await {
            Ok(BlobStatus::Unknown) => {}
            Ok(BlobStatus::Certified(_) | BlobStatus::Invalid(_)) => return Ok(Fate::Kept),
            Err(StoreReadError::Corrupt) => return Ok(Fate::Unclear),
            Err(error) => return Err(error.into()),
        }
        let Some(segment) = inner.store.commitments_of(blob_id, 1).await?.first().copied() else {
            return Ok(Fate::Kept);
        };
        let header = match inner.commitments.get(blob_id, segment).await {
            Ok((header, _)) => header,
            // The scrubber removes a commitment that rotted.
            Err(CommitmentReadError::NotFound) => return Ok(Fate::Unclear),
            Err(CommitmentReadError::Failed) => return Err(StoreReadError::Failed.into()),
        };
        if missing_of_blob(&inner.membership, &inner.store, &header, 0).await? == 0 {
            return Ok(Fate::Kept);
        }
        inner.store.drop_blob(blob_id, inner.membership.shards()).await?;
        inner.commitments.forget(blob_id);
        self.forget(blob_id);
        Ok(Fate::Dropped)
    }
}

/// What became of a blob for which nothing came for long.
enum Fate {
    /// It is certified, invalid or whole.
    Kept,
    Dropped,
    /// That cannot be said now.
    Unclear,
}

/// Why stale uploads were not dropped.
#[derive(Debug, thiserror::Error)]
pub(super) enum StaleError {
    #[error(transparent)]
    Read(#[from] StoreReadError),
    #[error(transparent)]
    Write(#[from] StoreWriteError),
}

/// Blobs listed from the store at once.
const PAGE: usize = 256;
