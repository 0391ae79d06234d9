//! Takes commitments and slivers from clients, and vouches for what is on the disk.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    BlobId, PeerId, SegmentIndex,
    bls::SecretKey,
    certificate::{MemberSignature, Persistence, Statement as _, StorageConfirmation},
    commitment::{BlobHeader, SegmentCommitment, VerifiedHeader},
    encoding::{Axis, encode::sliver_index},
    hash::Hash,
    message::{BlobStatus, Refusal, SliverAt},
    planted::{Bug, is_planted},
};
use tokio::time::Instant;

use super::assembly::{Assemblies, PartError, Whole};
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
    /// How long slivers of a blob that is not certified are kept after the last of them came.
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
    /// When something last came for a blob that is not known to be certified.
    pending: Mutex<BTreeMap<BlobId, Instant>>,
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
        self.0.store.put_commitment(header, segment, &path, &bytes).await.map_err(refusal_of_write)?;
        self.0.commitments.insert(verified, segment, commitment);
        self.touch(blob_id);
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
        self.touch(at.blob_id);
        if inner.store.has_sliver(&at) {
            return Ok(());
        }
        let offset = usize::try_from(offset).map_err(|_| Refusal::Malformed)?;
        let len = shape.sliver_bytes(at.axis);
        let now = inner.start.elapsed();
        let whole = inner.assemblies.lock().unwrap_or_else(PoisonError::into_inner).part(
            now,
            (from, at),
            len,
            (offset, &part),
        );
        let Whole { sliver, reserved } = match whole {
            Ok(Some(whole)) => whole,
            Ok(None) => return Ok(()),
            Err(PartError::Misplaced) => return Err(Refusal::Malformed),
            Err(PartError::Busy) => return Err(Refusal::Busy),
        };
        let _room = Room { assemblies: &inner.assemblies, from, reserved };
        let (parity, sliver) = self.check(at, &commitment, shape, sliver).await?;
        inner.store.put_sliver(at, parity, &sliver).await.map_err(refusal_of_write)
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
        let missing = missing_slivers(&inner.membership, &inner.store, &verified);
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

    fn touch(&self, blob_id: BlobId) {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(blob_id, Instant::now());
    }

    /// When something last came for a blob, if lately.
    #[must_use]
    pub fn last_touched(&self, blob_id: &BlobId) -> Option<Instant> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner).get(blob_id).copied()
    }

    /// Drops what came for blobs that were not certified in time. Called from time to time.
    ///
    /// # Errors
    ///
    /// [`StoreReadError`] if the store fails.
    pub async fn drop_stale(&self) -> Result<u32, StoreReadError> {
        const PAGE: usize = 256;
        let inner = &self.0;
        let (mut after, mut dropped) = (None, 0);
        loop {
            let page = inner.store.committed(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(dropped) };
            after = Some(*last);
            for blob_id in page {
                if inner.registry.status(blob_id).await? != BlobStatus::Unknown {
                    inner.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&blob_id);
                    continue;
                }
                // A blob from before a restart is as if something had just come for it.
                let touched = *inner
                    .pending
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(blob_id)
                    .or_insert_with(Instant::now);
                if touched.elapsed() > inner.config.pending_ttl {
                    let drop = inner.store.drop_blob(blob_id, inner.membership.shards()).await;
                    drop.map_err(|_| StoreReadError::Failed)?;
                    inner.commitments.forget(blob_id);
                    inner.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&blob_id);
                    dropped += 1;
                    tracing::info!(%blob_id, "dropped a blob that was not certified in time");
                }
            }
        }
    }
}

/// Slivers of a blob that this node should hold and does not.
pub(crate) fn missing_slivers(membership: &Membership, store: &SliverStore, header: &VerifiedHeader) -> u32 {
    let blob_id = header.blob_id();
    let mut missing = 0;
    for segment in header.shape().segments() {
        for pair in membership.pairs(&blob_id, segment) {
            for axis in [Axis::Primary, Axis::Secondary] {
                missing += u32::from(!store.has_sliver(&SliverAt { blob_id, segment, pair, axis }));
            }
        }
    }
    missing
}
