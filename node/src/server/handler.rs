//! What each request does.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use protocol::{
    BlobId, PeerId, SegmentIndex, SliverPairIndex,
    bls::SecretKey,
    certificate::{InvalidityAttestation, Statement as _},
    encoding::{Axis, SegmentShape, encode::sliver_index, recover::SymbolSum},
    inconsistency::ProvenSymbol,
    message::{
        Announcement, BlobStatus, NodeHealth, RANGE_BYTES_MAX, Refusal, Request, Response, SYMBOLS_MAX,
        SliverAt, SymbolAt, encode_page,
    },
};
use swarm::{Network, Topic};
use tokio::time::Instant;

use super::attesting::Attesting;
use crate::{
    commitments::{CommitmentCache, CommitmentReadError},
    encoder::Encoder,
    membership::Membership,
    registry::{RecordError, Registry},
    repair::{Coefficients, Evidence, EvidenceShelf, Repair, evidence_bytes_max, fetch_evidence},
    sliver_store::{SliverStore, StoreReadError},
    upload::Uploads,
};

/// Records in one page: each has at most 600 bytes, so a page fits a payload.
const PAGE_RECORDS: usize = 256;
/// A sliver up to this size is read whole to make symbols of it; of a longer one only the ranges asked for.
const READ_WHOLE_MAX: usize = 1 << 20;

/// What a request is answered with.
type Answer = Result<(Response, Bytes), Refusal>;

/// Carries out requests.
pub(crate) struct Handler<N> {
    pub(crate) name: String,
    pub(crate) membership: Arc<Membership>,
    pub(crate) key: SecretKey,
    pub(crate) network: N,
    pub(crate) store: SliverStore,
    pub(crate) registry: Registry,
    pub(crate) commitments: CommitmentCache,
    pub(crate) encoder: Encoder,
    pub(crate) uploads: Uploads,
    pub(crate) repair: Repair,
    pub(crate) coefficients: Coefficients,
    pub(crate) evidence: EvidenceShelf,
    /// Members whose evidence is being looked at.
    pub(crate) attesting: Attesting,
    pub(crate) start: Instant,
    /// Bytes of symbols sent to peers that repair.
    pub(crate) symbol_bytes_sent: AtomicU64,
}

fn done() -> Answer {
    Ok((Response::Done, Bytes::new()))
}

fn refusal_of_record(error: &RecordError) -> Refusal {
    match error {
        RecordError::Certificate(_) | RecordError::Header(_) => Refusal::Unverifiable,
        RecordError::OtherNetwork => Refusal::OtherNetwork,
        RecordError::Invalid => Refusal::Invalid,
        RecordError::Busy => Refusal::Busy,
        RecordError::Store(crate::sliver_store::StoreWriteError::Full) => Refusal::Full,
        RecordError::Store(_) | RecordError::Read(_) | RecordError::Stopped => Refusal::Internal,
    }
}

impl<N: Network> Handler<N> {
    pub(super) const fn network(&self) -> &N {
        &self.network
    }

    /// True if the peer is on the committee.
    pub(super) fn is_member(&self, peer: PeerId) -> bool {
        self.membership.committee.index_of(&peer).is_some()
    }

    /// A peer is no longer connected.
    pub(super) fn peer_left(&self, peer: PeerId) {
        self.uploads.peer_left(peer);
    }

    pub(super) const fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) async fn handle(
        &self,
        from: PeerId,
        request: Request,
        payload: Bytes,
        evidence_timeout: Duration,
    ) -> Answer {
        match request {
            Request::StoreCommitment { header, segment, path } => {
                self.uploads.commitment(header, segment, path, payload).await?;
                done()
            }
            Request::StoreSliver { at, offset } => {
                self.uploads.part(from, at, offset, payload).await?;
                done()
            }
            Request::Confirm { header, persistence } => {
                Ok(match self.uploads.confirm(header, persistence).await? {
                    Ok(signature) => (Response::Confirmed(signature), Bytes::new()),
                    Err(slivers) => (Response::Missing { slivers }, Bytes::new()),
                })
            }
            Request::Certify(record) => self.record(Announcement::Certified(record)).await,
            Request::Invalidate(certificate) => self.record(Announcement::Invalid(certificate)).await,
            Request::Status(blob_id) => match self.registry.status(blob_id).await {
                Ok(status) => Ok((Response::Status(status), Bytes::new())),
                Err(_) => Err(Refusal::Internal),
            },
            Request::FetchCommitment { blob_id, segment } => self.commitment(blob_id, segment).await,
            Request::FetchSliver { at, offset, len } => self.sliver(at, offset, len).await,
            Request::FetchSymbols { blob_id, segment, symbols, offset, len } => {
                self.symbols((blob_id, segment), symbols, offset, len).await
            }
            Request::FetchSymbolProof { blob_id, segment, symbol } => {
                self.symbol_proof(blob_id, segment, symbol).await
            }
            Request::ListRecords { after } => self.page(after).await,
            Request::Digest => Ok((Response::Digest(self.registry.digest()), Bytes::new())),
            Request::Attest { blob_id, evidence_bytes } => {
                self.attest(from, blob_id, evidence_bytes, evidence_timeout).await
            }
            Request::FetchEvidence { blob_id, offset, len } => {
                let part = self.evidence.part(&blob_id, offset, len).ok_or(Refusal::NotFound)?;
                Ok((Response::Evidence, part))
            }
            Request::Health => Ok((Response::Health(self.health()), Bytes::new())),
            Request::Ledger(_) | Request::Entries { .. } | Request::Submit => Err(Refusal::NotFound),
        }
    }

    /// Takes a record, and announces it if it was news.
    async fn record(&self, record: Announcement) -> Answer {
        match self.registry.record(record.clone()).await {
            Ok(false) => done(),
            Ok(true) => {
                let published = self.network.publish(Topic::Certificates, record.to_bytes().into()).await;
                if let Err(error) = published {
                    tracing::debug!(%error, "a record was not announced; peers find it in our list");
                }
                done()
            }
            Err(error) => Err(refusal_of_record(&error)),
        }
    }

    async fn commitment(&self, blob_id: BlobId, segment: SegmentIndex) -> Answer {
        match self.store.commitment(blob_id, segment).await {
            Ok((header, path, commitment)) => Ok((Response::Commitment { header, path }, commitment)),
            Err(StoreReadError::Failed) => Err(Refusal::Internal),
            Err(StoreReadError::Corrupt | StoreReadError::OutOfRange) => {
                tracing::warn!(%blob_id, %segment, "a reader met a corrupt commitment");
                if let Err(error) = self.store.drop_corrupt_commitment(blob_id, segment).await {
                    tracing::warn!(%error, "a corrupt commitment could not be removed");
                }
                self.commitments.forget(blob_id);
                self.repair.found_corrupt(blob_id);
                Err(Refusal::NotFound)
            }
            Err(StoreReadError::NotFound) => Err(Refusal::NotFound),
        }
    }

    async fn sliver(&self, at: SliverAt, offset: u32, len: u32) -> Answer {
        let in_bounds = usize::try_from(len).is_ok_and(|len| len <= RANGE_BYTES_MAX);
        if !in_bounds || at.pair.0 >= self.membership.n_shards() {
            return Err(Refusal::Malformed);
        }
        match self.store.read_sliver(at, offset.into(), len.into()).await {
            Ok((parity, bytes)) => Ok((Response::Sliver { parity }, bytes)),
            Err(error) => Err(self.read_failed(at, error).await),
        }
    }

    /// Says why a sliver cannot be served, and has it repaired if the disk damaged it.
    async fn read_failed(&self, at: SliverAt, error: StoreReadError) -> Refusal {
        match error {
            StoreReadError::NotFound => Refusal::NotFound,
            StoreReadError::OutOfRange => Refusal::Malformed,
            StoreReadError::Failed => Refusal::Internal,
            StoreReadError::Corrupt => {
                tracing::warn!(blob_id = %at.blob_id, segment = %at.segment, pair = %at.pair, axis = ?at.axis, "a reader met a corrupt sliver");
                if let Err(error) = self.store.drop_corrupt_sliver(at).await {
                    tracing::warn!(%error, "a corrupt sliver could not be removed");
                }
                self.repair.found_corrupt(at.blob_id);
                Refusal::NotFound
            }
        }
    }

    /// The shape of a segment of which this node has the commitment.
    async fn shape(&self, blob_id: BlobId, segment: SegmentIndex) -> Result<SegmentShape, Refusal> {
        let (header, _) = self.commitments.get(blob_id, segment).await.map_err(|error| match error {
            CommitmentReadError::NotFound => Refusal::NotFound,
            CommitmentReadError::Failed => Refusal::Internal,
        })?;
        header.shape().segment(segment).map_err(|_| Refusal::Malformed)
    }

    /// The sliver that a recovery symbol is made of: the crossing one, or a copy where all slivers are alike.
    fn helper_sliver(
        &self,
        (blob_id, segment): (BlobId, SegmentIndex),
        shape: SegmentShape,
        symbol: &SymbolAt,
    ) -> Result<SliverAt, Refusal> {
        let n = self.membership.n_shards();
        if symbol.crossing >= n || symbol.index >= n {
            return Err(Refusal::Malformed);
        }
        let axis = symbol.axis.crossing();
        // The pairing reverses indices, so it is its own inverse.
        let pair = SliverPairIndex(sliver_index(axis, SliverPairIndex(symbol.crossing), n));
        let axis = if shape.is_replicated() { Axis::Primary } else { axis };
        Ok(SliverAt { blob_id, segment, pair, axis })
    }

    async fn symbols(
        &self,
        (blob_id, segment): (BlobId, SegmentIndex),
        symbols: Vec<SymbolAt>,
        offset: u32,
        len: u32,
    ) -> Answer {
        let shape = self.shape(blob_id, segment).await?;
        let (Ok(offset), Ok(len)) = (usize::try_from(offset), usize::try_from(len)) else {
            return Err(Refusal::Malformed);
        };
        let is_sound = (1..=SYMBOLS_MAX).contains(&symbols.len())
            && len > 0
            && len.is_multiple_of(2)
            && offset.is_multiple_of(2)
            && len <= RANGE_BYTES_MAX / symbols.len()
            && offset.checked_add(len).is_some_and(|end| end <= shape.symbol_bytes());
        if !is_sound {
            return Err(Refusal::Malformed);
        }
        let mut payload = BytesMut::with_capacity(symbols.len() * len);
        for symbol in symbols {
            let at = self.helper_sliver((blob_id, segment), shape, &symbol)?;
            payload.extend_from_slice(&self.symbol(shape, at, symbol.index, (offset, len)).await?);
        }
        let sent = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        self.symbol_bytes_sent.fetch_add(sent, std::sync::atomic::Ordering::Relaxed);
        Ok((Response::Symbols, payload.freeze()))
    }

    /// A range of symbol `index` of one of this node's slivers: read if it is stored, else added up.
    async fn symbol(
        &self,
        shape: SegmentShape,
        at: SliverAt,
        index: u16,
        (offset, len): (usize, usize),
    ) -> Result<Bytes, Refusal> {
        let w = shape.symbol_bytes();
        let terms = self.coefficients.get(shape.n()).of_symbol(shape, at.axis, index);
        let wide = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let whole = terms.len() > 1 && shape.sliver_bytes(at.axis) <= READ_WHOLE_MAX;
        let ranges = if whole {
            vec![(0, wide(shape.sliver_bytes(at.axis)))]
        } else {
            terms.iter().map(|(source, _)| (wide(source * w + offset), wide(len))).collect()
        };
        let mut parts = match self.store.read_sliver_parts(at, ranges).await {
            Ok((_, parts)) => parts,
            Err(error) => return Err(self.read_failed(at, error).await),
        };
        if terms.len() == 1 {
            return parts.pop().ok_or(Refusal::Internal);
        }
        if whole {
            let sliver = parts.pop().ok_or(Refusal::Internal)?;
            parts = terms
                .iter()
                .map(|(source, _)| sliver.slice(source * w + offset..source * w + offset + len))
                .collect();
        }
        let sum = move |_: &mut _| {
            let mut sum = SymbolSum::new(len);
            for ((_, coefficient), part) in terms.iter().zip(&parts) {
                sum.add(*coefficient, part);
            }
            Bytes::from(sum.finish())
        };
        self.encoder.run(sum).await.map_err(|_| Refusal::Internal)
    }

    async fn symbol_proof(&self, blob_id: BlobId, segment: SegmentIndex, symbol: SymbolAt) -> Answer {
        let shape = self.shape(blob_id, segment).await?;
        if shape.is_replicated() {
            return Err(Refusal::Malformed);
        }
        let at = self.helper_sliver((blob_id, segment), shape, &symbol)?;
        let sliver = match self.store.read_whole_sliver(at).await {
            Ok((_, sliver)) => sliver,
            Err(error) => return Err(self.read_failed(at, error).await),
        };
        let prove = move |encoder: &mut _| {
            ProvenSymbol::new(encoder, shape, (at.axis, symbol.crossing, &sliver), symbol.index)
        };
        let proven = self.encoder.run(prove).await.map_err(|_| Refusal::Internal)?;
        // A leaf of one symbol is the symbol, which the asker has.
        let leaf = if shape.symbols_per_leaf() == 1 { Bytes::new() } else { proven.leaf.into() };
        Ok((Response::SymbolProof { path: proven.path, other_part: proven.other_part }, leaf))
    }

    async fn page(&self, after: Option<BlobId>) -> Answer {
        let (mut records, mut after) = (Vec::new(), after);
        // An empty page is the last, so one of which nothing can be read is passed over.
        while records.is_empty() {
            let blobs = self.registry.list(after, PAGE_RECORDS).await.map_err(|_| Refusal::Internal)?;
            let Some(last) = blobs.last() else { break };
            after = Some(*last);
            for blob_id in blobs {
                match self.registry.status(blob_id).await {
                    Ok(BlobStatus::Certified(record)) => records.push(Announcement::Certified(record)),
                    Ok(BlobStatus::Invalid(record)) => records.push(Announcement::Invalid(record)),
                    Ok(BlobStatus::Unknown) | Err(StoreReadError::Corrupt) => {}
                    Err(_) => return Err(Refusal::Internal),
                }
            }
        }
        Ok((Response::Records, encode_page(&records).into()))
    }

    /// Fetches evidence from the member that asks, verifies it, and vouches that the blob is invalid.
    async fn attest(&self, from: PeerId, blob_id: BlobId, evidence_bytes: u32, timeout: Duration) -> Answer {
        if !self.is_member(from) {
            return Err(Refusal::NotMember);
        }
        let Some(_one_at_a_time) = self.attesting.begin(from) else { return Err(Refusal::Busy) };
        // What the committee has certified needs no more evidence.
        let is_known = matches!(self.registry.status(blob_id).await, Ok(BlobStatus::Invalid(_)));
        if !is_known {
            let of = (blob_id, evidence_bytes, evidence_bytes_max(self.membership.n_shards()));
            let evidence = fetch_evidence(&self.network, from, of, timeout).await;
            let evidence = evidence.map_err(|_| Refusal::NotFound)?;
            let verify = move |encoder: &mut _| Evidence::verify(&evidence, blob_id, encoder);
            let verified = self.encoder.run(verify).await;
            if let Err(error) = verified.map_err(|_| Refusal::Internal)? {
                tracing::warn!(%from, %blob_id, %error, "a member asks to attest what does not hold");
                return Err(Refusal::Unverifiable);
            }
        }
        let Membership { network, committee, node } = &*self.membership;
        let statement = InvalidityAttestation { epoch: committee.epoch(), blob_id };
        Ok((Response::Attested(statement.sign(network, *node, &self.key)), Bytes::new()))
    }

    fn health(&self) -> NodeHealth {
        let narrow = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        NodeHealth {
            name: self.name.clone(),
            shards: narrow(self.membership.shards().len()),
            blobs: self.registry.digest().count,
            slivers_held: self.store.counts().slivers,
            slivers_missing: self.repair.report().missing,
            repair_bytes_received: self.repair.received_bytes(),
            repair_bytes_regained: self.repair.regained_bytes(),
            slivers_corrupt: self.repair.corrupt(),
            peers: narrow(self.network.connected().peers().len()),
            uptime_seconds: self.start.elapsed().as_secs(),
        }
    }
}

impl<N> std::fmt::Debug for Handler<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler").field("name", &self.name).finish_non_exhaustive()
    }
}
