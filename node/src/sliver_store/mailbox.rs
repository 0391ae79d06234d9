//! The handle to the sliver store: records as slivers, commitments and orders.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use protocol::{
    BlobId, SegmentIndex, ShardIndex, codec,
    commitment::BlobHeader,
    committee::shard_of,
    hash::{HASH_BYTES, Hash},
    message::SliverAt,
};
use storage::{Key, ReadError, Stats, Store, Write};
use swarm::QueueLoad;
use tokio::sync::{mpsc, oneshot};

use super::{
    actor::{OnlyIf, WriteRequest},
    blocking::Blocking,
    keys,
    record::SliverRecord,
};
use crate::load::Work;

/// Bytes before the sliver in its record: the root over its parity symbols.
const PARITY_BYTES: u64 = 32;
/// Keys taken from the index at once.
const PAGE: usize = 1024;
/// Bytes claimed by the head of a commitment record when it is decoded.
const COMMITMENT_HEAD_LIMIT: usize = 8 << 10;

/// Why something was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreWriteError {
    /// The disk is full; what was stored before is safe, and writing works again once there is room.
    #[error("the disk is full")]
    Full,
    /// The store failed or has stopped; the node is going down.
    #[error("the store cannot be written")]
    Failed,
}

/// Why something was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreReadError {
    /// There is no such thing in the store.
    #[error("not in the store")]
    NotFound,
    /// There is, and the disk gave back other bytes than were written, or none.
    #[error("corrupt on disk")]
    Corrupt,
    /// The range is not within the record.
    #[error("out of range")]
    OutOfRange,
    /// The store failed or has stopped.
    #[error("the store cannot be read")]
    Failed,
}

impl From<&ReadError> for StoreReadError {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::NotFound,
            ReadError::OutOfRange { .. } => Self::OutOfRange,
            // A sector that cannot be read is as good as one that changed: the record must be had elsewhere. A disk that
            // is gone altogether fails the next write, which ends the node.
            ReadError::Corrupt { .. } | ReadError::Io(_) => Self::Corrupt,
            ReadError::Index(_) => Self::Failed,
        }
    }
}

/// How a record was found to be bad.
enum Bad {
    /// The disk gave back other bytes than were written, or none.
    Unreadable,
    /// It was these bytes, which do not verify.
    Wrong(Bytes),
}

/// A sliver that the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldSliver {
    /// The sliver.
    pub at: SliverAt,
    /// Bytes of the sliver.
    pub bytes: u64,
}

/// How much the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Slivers.
    pub slivers: u64,
    /// Bytes of slivers.
    pub sliver_bytes: u64,
}

/// Lengths of sliver records before and after a group of writes; `None` where there is no record.
pub(super) type Lengths = BTreeMap<Key, (Option<u64>, Option<u64>)>;

/// [`Counts`], kept by the one actor that writes.
#[derive(Debug, Default)]
pub(super) struct Counters {
    slivers: AtomicU64,
    sliver_bytes: AtomicU64,
    pub(super) writes: Work,
}

impl Counters {
    /// Counts what the store holds.
    pub(super) fn of(records: &Store) -> Result<Self, ReadError> {
        let counters = Self::default();
        let mut after = None;
        loop {
            let page = records.scan(&[keys::SLIVER], after.as_ref(), PAGE)?;
            for (_, len) in &page {
                counters.add(*len);
            }
            match page.last() {
                Some((last, _)) => after = Some(last.clone()),
                None => return Ok(counters),
            }
        }
    }

    fn add(&self, record_bytes: u64) {
        self.slivers.fetch_add(1, Ordering::Relaxed);
        self.sliver_bytes.fetch_add(record_bytes.saturating_sub(PARITY_BYTES), Ordering::Relaxed);
    }

    fn remove(&self, record_bytes: u64) {
        self.slivers.fetch_sub(1, Ordering::Relaxed);
        self.sliver_bytes.fetch_sub(record_bytes.saturating_sub(PARITY_BYTES), Ordering::Relaxed);
    }

    /// What a group of writes will change, worked out before it is written: the length before and after, by sliver.
    pub(super) fn plan(records: &Store, group: &[Write]) -> Result<Lengths, ReadError> {
        let mut plan = BTreeMap::new();
        for write in group {
            let (key, after) = match write {
                Write::Put { key, payload } => (key, u64::try_from(payload.len()).ok()),
                Write::Delete { key } => (key, None),
            };
            if keys::parse_sliver(key).is_some() {
                let before = records.len(key)?;
                plan.entry(key.clone()).or_insert((before, None)).1 = after;
            }
        }
        Ok(plan)
    }

    /// Applies a plan once its group is written.
    pub(super) fn apply(&self, plan: Lengths) {
        for (before, after) in plan.into_values() {
            if let Some(bytes) = before {
                self.remove(bytes);
            }
            if let Some(bytes) = after {
                self.add(bytes);
            }
        }
    }
}

/// Handle to the sliver store; cheap to clone.
#[derive(Clone)]
pub struct SliverStore {
    sender: mpsc::Sender<WriteRequest>,
    records: Arc<Store>,
    blocking: Blocking,
    n_shards: u16,
    counters: Arc<Counters>,
}

impl std::fmt::Debug for SliverStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SliverStore").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl SliverStore {
    pub(super) const fn new(
        sender: mpsc::Sender<WriteRequest>,
        records: Arc<Store>,
        blocking: Blocking,
        n_shards: u16,
        counters: Arc<Counters>,
    ) -> Self {
        Self { sender, records, blocking, n_shards, counters }
    }

    /// How much the store holds.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            slivers: self.counters.slivers.load(Ordering::Relaxed),
            sliver_bytes: self.counters.sliver_bytes.load(Ordering::Relaxed),
        }
    }

    /// How full the mailbox of writes is; a full one makes callers wait.
    #[must_use]
    pub fn load(&self) -> QueueLoad {
        self.counters.writes.load(&self.sender)
    }

    /// What is on the disk; none if that does not tell. It may keep the caller waiting.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        self.records.stats().ok()
    }

    /// Bytes of the disk that stay free in any case.
    #[must_use]
    pub fn reserve_bytes(&self) -> u64 {
        self.records.config().reserve_bytes
    }

    /// Bytes that are free on the disk, beyond what stays free in any case; none if the disk does not tell.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        Some(self.stats()?.free_bytes.saturating_sub(self.reserve_bytes()))
    }

    fn sliver_key(&self, at: &SliverAt) -> Key {
        let shard = shard_of(self.n_shards, &at.blob_id, at.segment, at.pair);
        keys::sliver(shard, &at.blob_id, at.segment, at.axis)
    }

    /// Writes records and returns once they are durable.
    async fn write(&self, records: Vec<Write>) -> Result<(), StoreWriteError> {
        self.write_if(records, None).await
    }

    async fn write_if(&self, records: Vec<Write>, only_if: Option<OnlyIf>) -> Result<(), StoreWriteError> {
        let (reply, answer) = oneshot::channel();
        let request = WriteRequest { records, only_if, reply };
        self.sender.send(request).await.map_err(|_| StoreWriteError::Failed)?;
        answer.await.unwrap_or(Err(StoreWriteError::Failed))
    }

    /// Drops a record that was found to be bad, if it is still as it was found: a good one may have been written in
    /// its place meanwhile, and somebody may have vouched for that.
    async fn drop_bad(&self, key: Key, found: Bad) -> Result<(), StoreWriteError> {
        let name = key.clone();
        let only_if: OnlyIf = Box::new(move |records| match (read_all(records, &name), found) {
            (Err(StoreReadError::Corrupt), Bad::Unreadable) => true,
            (Ok(now), Bad::Wrong(bytes)) => now == bytes,
            _ => false,
        });
        self.write_if(vec![Write::Delete { key }], Some(only_if)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Store) -> Result<T, StoreReadError> + Send + 'static,
    ) -> Result<T, StoreReadError> {
        let records = Arc::clone(&self.records);
        self.blocking.run(move || call(&records)).await.map_err(|_| StoreReadError::Failed)?
    }

    /// Looks at many entries of the index where it holds nobody up.
    ///
    /// # Errors
    ///
    /// [`StoreReadError::Failed`] if the store has stopped.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, StoreReadError> {
        let store = self.clone();
        self.blocking.run(move || look(&store)).await.map_err(|_| StoreReadError::Failed)
    }

    /// Keeps a sliver that was checked in full; `parity` is the root over its parity symbols.
    ///
    /// Cancel safe: the sliver may or may not be written.
    ///
    /// # Errors
    ///
    /// [`StoreWriteError`].
    pub async fn put_sliver(&self, at: SliverAt, parity: Hash, sliver: &[u8]) -> Result<(), StoreWriteError> {
        self.put_record(at, parity, SliverRecord::from(sliver)).await
    }

    /// Like [`put_sliver`](Self::put_sliver), without a copy.
    ///
    /// Cancel safe: the sliver may or may not be written.
    ///
    /// # Errors
    ///
    /// [`StoreWriteError`].
    pub async fn put_record(
        &self,
        at: SliverAt,
        parity: Hash,
        record: SliverRecord,
    ) -> Result<(), StoreWriteError> {
        self.write(vec![self.sliver_write(&at, parity, record)]).await
    }

    fn sliver_write(&self, at: &SliverAt, parity: Hash, record: SliverRecord) -> Write {
        Write::Put { key: self.sliver_key(at), payload: record.seal(parity) }
    }

    /// Keeps all of a blob of one segment at once: its commitment, slivers that were checked in full, each with the root over
    /// its parity symbols, and the order for it if there is one.
    ///
    /// # Errors
    ///
    /// [`StoreWriteError`]; some of it may be written then.
    pub async fn put_segment(
        &self,
        (header, commitment): (BlobHeader, &[u8]),
        slivers: &[(SliverAt, Hash, Bytes)],
        order: Option<Bytes>,
    ) -> Result<(), StoreWriteError> {
        let blob_id = header.blob_id();
        let mut records = vec![commitment_record(header, SegmentIndex(0), &[], commitment)?];
        records.extend(
            slivers
                .iter()
                .map(|(at, parity, sliver)| self.sliver_write(at, *parity, SliverRecord::from(&sliver[..]))),
        );
        records.extend(order.map(|payload| Write::Put { key: keys::order(&blob_id), payload }));
        self.write(records).await
    }

    /// True if the store holds the sliver. A store whose index fails holds nothing that one could vouch for.
    #[must_use]
    pub fn has_sliver(&self, at: &SliverAt) -> bool {
        self.has(&self.sliver_key(at))
    }

    fn has(&self, key: &Key) -> bool {
        self.records.contains(key).unwrap_or_else(|error| {
            tracing::error!(%error, "the index of the store failed; restart the node");
            false
        })
    }

    /// Reads the range `offset..offset + len` of a sliver, and the root over its parity symbols.
    ///
    /// # Errors
    ///
    /// [`StoreReadError`]; bytes that the disk changed are never returned.
    pub async fn read_sliver(
        &self,
        at: SliverAt,
        offset: u64,
        len: u64,
    ) -> Result<(Hash, Bytes), StoreReadError> {
        let mut parts = self.read_sliver_parts(at, vec![(offset, len)]).await?;
        let bytes = parts.1.pop().ok_or(StoreReadError::Failed)?;
        Ok((parts.0, bytes))
    }

    /// Reads several ranges of a sliver, each `(offset, len)`, and the root over its parity symbols.
    ///
    /// # Errors
    ///
    /// [`StoreReadError`].
    pub async fn read_sliver_parts(
        &self,
        at: SliverAt,
        ranges: Vec<(u64, u64)>,
    ) -> Result<(Hash, Vec<Bytes>), StoreReadError> {
        let key = self.sliver_key(&at);
        self.blocking(move |records| {
            let read = |start: u64, len: u64| {
                let end = start.checked_add(len).ok_or(StoreReadError::OutOfRange)?;
                records.read(&key, start..end).map_err(|error| StoreReadError::from(&error))
            };
            let parity = read(0, PARITY_BYTES)?;
            let parity = Hash(parity[..].try_into().map_err(|_| StoreReadError::Corrupt)?);
            let parts = ranges.into_iter().map(|(offset, len)| {
                read(offset.checked_add(PARITY_BYTES).ok_or(StoreReadError::OutOfRange)?, len)
            });
            Ok((parity, parts.collect::<Result<_, _>>()?))
        })
        .await
    }

    /// Reads a whole sliver and the root over its parity symbols.
    ///
    /// # Errors
    ///
    /// [`StoreReadError`].
    pub async fn read_whole_sliver(&self, at: SliverAt) -> Result<(Hash, Bytes), StoreReadError> {
        let key = self.sliver_key(&at);
        self.blocking(move |records| {
            let record = read_all(records, &key)?;
            let parity = record.first_chunk::<HASH_BYTES>().ok_or(StoreReadError::Corrupt)?;
            Ok((Hash(*parity), record.slice(HASH_BYTES..)))
        })
        .await
    }

    /// Drops a sliver that was found to be corrupt, unless another was written in its place meanwhile; durable on
    /// return.
    ///
    /// # Errors
    ///
    /// [`StoreWriteError`].
    pub async fn drop_corrupt_sliver(&self, at: SliverAt) -> Result<(), StoreWriteError> {
        self.drop_bad(self.sliver_key(&at), Bad::Unreadable).await
    }

    /// Drops a sliver that was read as this and does not verify, unless another was written in its place meanwhile;
    /// durable on return.
    ///
    /// # Errors
    ///
    /// [`StoreWriteError`].
    pub async fn drop_wrong_sliver(
        &self,
        at: SliverAt,
        parity: Hash,
        sliver: &[u8],
    ) -> Result<(), StoreWriteError> {
        let record = [&parity.0[..], sliver].concat().into();
        self.drop_bad(self.sliver_key(&at), Bad::Wrong(record)).await
    }

    async fn delete(&self, names: Vec<Key>) -> Result<(), StoreWriteError> {
        let held = names.into_iter().filter(|key| self.has(key));
        let deletes: Vec<_> = held.map(|key| Write::Delete { key }).collect();
        if deletes.is_empty() { Ok(()) } else { self.write(deletes).await }
    }

    /// Keeps the commitment of a segment, with the header and the path that bind it to the blob ID.
    ///
    /// # Errors
    ///
    /// [`StoreWriteError`].
    pub async fn put_commitment(
        &self,
        header: BlobHeader,
        segment: SegmentIndex,
        path: &[Hash],
        commitment: &[u8],
    ) -> Result<(), StoreWriteError> {
        self.write(vec![commitment_record(header, segment, path, commitment)?]).await
    }

    /// Reads the commitment of a segment: header, path, commitment. The caller verifies them.
    ///
    /// # Errors
    ///
    /// [`StoreReadError`].
    pub async fn commitment(
        &self,
        blob_id: BlobId,
        segment: SegmentIndex,
    ) -> Result<(BlobHeader, Vec<Hash>, Bytes), StoreReadError> {
        let key = keys::commitment(&blob_id, segment);
        let record = self.blocking(move |records| read_all(records, &key)).await?;
        parse_commitment(&record).ok_or(StoreReadError::Corrupt)
    }

    /// True if the store has a commitment of the segment.
    #[must_use]
    pub fn has_commitment(&self, blob_id: BlobId, segment: SegmentIndex) -> bool {
        self.has(&keys::commitment(&blob_id, segment))
    }

    /// Drops a commitment that cannot be read or does not verify; durable on return.
    ///
    /// # Errors
    ///
    /// [`StoreWriteError`].
    pub async fn drop_corrupt_commitment(
        &self,
        blob_id: BlobId,
        segment: SegmentIndex,
    ) -> Result<(), StoreWriteError> {
        let key = keys::commitment(&blob_id, segment);
        let name = key.clone();
        let only_if: OnlyIf = Box::new(move |records| match read_all(records, &name) {
            Ok(record) => parse_commitment(&record).is_none_or(|(header, path, commitment)| {
                let verified = header.verify_for(blob_id);
                !verified.is_ok_and(|header| header.verify_segment(segment, &commitment, &path).is_ok())
            }),
            Err(error) => error == StoreReadError::Corrupt,
        });
        self.write_if(vec![Write::Delete { key }], Some(only_if)).await
    }

    /// The segments of a blob of which there is a commitment, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`StoreReadError::Failed`].
    pub async fn commitments_of(
        &self,
        blob_id: BlobId,
        limit: usize,
    ) -> Result<Vec<SegmentIndex>, StoreReadError> {
        let page = self.page(keys::commitments_of(&blob_id), None, limit).await?;
        let segments = page.iter().filter_map(|(key, _)| keys::parse_commitment(key));
        Ok(segments.map(|(_, segment)| segment).collect())
    }

    /// A page of the commitments in the store, blob by blob, from after `after` on.
    ///
    /// # Errors
    ///
    /// [`StoreReadError::Failed`].
    pub async fn commitments(
        &self,
        after: Option<(BlobId, SegmentIndex)>,
        limit: usize,
    ) -> Result<Vec<(BlobId, SegmentIndex)>, StoreReadError> {
        let after = after.map(|(blob_id, segment)| keys::commitment(&blob_id, segment));
        let page = self.page(vec![keys::COMMITMENT], after, limit).await?;
        Ok(page.iter().filter_map(|(key, _)| keys::parse_commitment(key)).collect())
    }

    /// Forgets the order by which this node vouched for a blob; durable on return.
    ///
    /// # Errors
    ///
    /// [`StoreWriteError`].
    pub async fn delete_order(&self, blob_id: BlobId) -> Result<(), StoreWriteError> {
        self.delete(vec![keys::order(&blob_id)]).await
    }

    /// The order by which this node vouched for a blob: a signed transaction, as it was given to
    /// [`put_segment`](Self::put_segment).
    ///
    /// # Errors
    ///
    /// [`StoreReadError`].
    pub async fn order(&self, blob_id: BlobId) -> Result<Bytes, StoreReadError> {
        let key = keys::order(&blob_id);
        self.blocking(move |records| read_all(records, &key)).await
    }

    /// True if there is an order for the blob on the disk.
    #[must_use]
    pub fn has_order(&self, blob_id: BlobId) -> bool {
        self.has(&keys::order(&blob_id))
    }

    /// A page of blobs with an order, in the order of their IDs, from after `after` on.
    ///
    /// # Errors
    ///
    /// [`StoreReadError::Failed`].
    pub async fn ordered(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobId>, StoreReadError> {
        self.page(vec![keys::ORDER], after.map(|id| keys::order(&id)), limit)
            .await
            .map(|page| page.iter().filter_map(|(key, _)| keys::parse_blob(key)).collect())
    }

    /// A page of the slivers in the store, shard by shard, from after `after` on.
    ///
    /// # Errors
    ///
    /// [`StoreReadError::Failed`].
    pub async fn slivers(
        &self,
        after: Option<SliverAt>,
        limit: usize,
    ) -> Result<Vec<HeldSliver>, StoreReadError> {
        let page = self.page(vec![keys::SLIVER], after.map(|at| self.sliver_key(&at)), limit).await?;
        Ok(page.iter().filter_map(|(key, len)| self.held(key, *len)).collect())
    }

    fn held(&self, key: &Key, len: u64) -> Option<HeldSliver> {
        let (shard, blob_id, segment, axis) = keys::parse_sliver(key)?;
        if shard.0 >= self.n_shards {
            return None;
        }
        let pair = protocol::committee::pair_of(self.n_shards, &blob_id, segment, shard);
        let at = SliverAt { blob_id, segment, pair, axis };
        Some(HeldSliver { at, bytes: len - PARITY_BYTES.min(len) })
    }

    /// Blobs of which a commitment is kept, a page in the order of their IDs.
    ///
    /// # Errors
    ///
    /// [`StoreReadError::Failed`].
    pub async fn committed(
        &self,
        after: Option<BlobId>,
        limit: usize,
    ) -> Result<Vec<BlobId>, StoreReadError> {
        // Past every segment of the last blob: segment indices stop short of 2^32 - 1.
        let after = after.map(|id| keys::commitment(&id, SegmentIndex(u32::MAX)));
        let page = self.page(vec![keys::COMMITMENT], after, limit).await?;
        let mut blobs: Vec<_> = page.iter().filter_map(|(key, _)| keys::parse_blob(key)).collect();
        blobs.dedup();
        Ok(blobs)
    }

    /// Drops all slivers and commitments of a blob, of whatever shards; durable on return. An order for it stays.
    ///
    /// # Errors
    ///
    /// [`StoreWriteError`].
    pub async fn drop_blob(&self, blob_id: BlobId) -> Result<(), StoreWriteError> {
        let shards = (0..self.n_shards).map(ShardIndex);
        let slivers = shards.map(|shard| keys::slivers_of(shard, &blob_id));
        let prefixes: Vec<Vec<u8>> = slivers.chain([keys::commitments_of(&blob_id)]).collect();
        while self.drop_page(&prefixes).await? {}
        Ok(())
    }

    /// Drops some slivers of a shard; durable on return. False if there are none left.
    ///
    /// # Errors
    ///
    /// [`StoreWriteError`].
    pub async fn drop_some_of_shard(&self, shard: ShardIndex) -> Result<bool, StoreWriteError> {
        self.drop_page(&[keys::slivers_in(shard)]).await
    }

    /// The shards of which there are slivers, ascending.
    ///
    /// # Errors
    ///
    /// [`StoreReadError::Failed`].
    pub async fn shards(&self) -> Result<Vec<ShardIndex>, StoreReadError> {
        let n_shards = self.n_shards;
        self.blocking(move |records| {
            let mut shards = Vec::new();
            for shard in (0..n_shards).map(ShardIndex) {
                let first = records.scan(&keys::slivers_in(shard), None, 1);
                if !first.map_err(|error| StoreReadError::from(&error))?.is_empty() {
                    shards.push(shard);
                }
            }
            Ok(shards)
        })
        .await
    }

    /// Drops up to a page of the records whose names begin so; false if there were none.
    async fn drop_page(&self, prefixes: &[Vec<u8>]) -> Result<bool, StoreWriteError> {
        let prefixes = prefixes.to_vec();
        let find = move |records: &Store| {
            let mut keys = Vec::new();
            for prefix in prefixes {
                let found = records.scan(&prefix, None, PAGE - keys.len());
                keys.extend(
                    found.map_err(|error| StoreReadError::from(&error))?.into_iter().map(|(key, _)| key),
                );
                if keys.len() >= PAGE {
                    break;
                }
            }
            Ok(keys)
        };
        let keys = self.blocking(find).await.map_err(|_| StoreWriteError::Failed)?;
        if keys.is_empty() {
            return Ok(false);
        }
        self.delete(keys).await?;
        Ok(true)
    }

    async fn page(
        &self,
        prefix: Vec<u8>,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, u64)>, StoreReadError> {
        self.blocking(move |records| {
            records.scan(&prefix, after.as_ref(), limit).map_err(|error| StoreReadError::from(&error))
        })
        .await
    }
}

fn commitment_record(
    header: BlobHeader,
    segment: SegmentIndex,
    path: &[Hash],
    commitment: &[u8],
) -> Result<Write, StoreWriteError> {
    let head = codec::encode(&(header, path));
    let head_len = u16::try_from(head.len()).map_err(|_| StoreWriteError::Failed)?;
    let payload = [&head_len.to_le_bytes()[..], &head, commitment].concat();
    Ok(Write::Put { key: keys::commitment(&header.blob_id(), segment), payload: payload.into() })
}

/// Takes the record of a commitment apart: header, path, commitment.
fn parse_commitment(record: &Bytes) -> Option<(BlobHeader, Vec<Hash>, Bytes)> {
    let (len, rest) = record.split_first_chunk::<2>()?;
    let head = rest.get(..usize::from(u16::from_le_bytes(*len)))?;
    let (header, path) = codec::decode_exact::<(BlobHeader, Vec<Hash>), COMMITMENT_HEAD_LIMIT>(head).ok()?;
    Some((header, path, record.slice(2 + head.len()..)))
}

/// For [`crate::fuzz`]: reads the record of a commitment and writes it again.
#[cfg(feature = "fuzz")]
pub(crate) fn read_commitment(bytes: &[u8]) -> Option<Vec<u8>> {
    let (header, path, commitment) = parse_commitment(&Bytes::copy_from_slice(bytes))?;
    match commitment_record(header, SegmentIndex(0), &path, &commitment).ok()? {
        Write::Put { payload, .. } => Some(payload.to_vec()),
        Write::Delete { .. } => None,
    }
}

fn read_all(records: &Store, key: &Key) -> Result<Bytes, StoreReadError> {
    records.read_all(key).map_err(|error| StoreReadError::from(&error))
}

/// The sliver that an open store holds, if any: for tests and tools that look at a disk without running a node.
#[must_use]
pub fn sliver_in_image(store: &Store, n_shards: u16, at: &SliverAt) -> Option<Vec<u8>> {
    let shard = shard_of(n_shards, &at.blob_id, at.segment, at.pair);
    let record = store.read_all(&keys::sliver(shard, &at.blob_id, at.segment, at.axis)).ok()?;
    record.get(HASH_BYTES..).map(<[u8]>::to_vec)
}
