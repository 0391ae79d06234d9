//! What each request does.

use std::{collections::BTreeSet, time::Duration};

use bytes::{Bytes, BytesMut};
use protocol::{
    BlobId, PeerId, SegmentIndex, SliverPairIndex,
    bls::SecretKey,
    certificate::{InvalidityAttestation, Statement as _},
    encoding::{Axis, SegmentShape, encode::sliver_index, recover::SymbolSum},
    inconsistency::ProvenSymbol,
    ledger::{
        answer::{ANSWER_BYTES_MAX, KEY_BYTES_MAX, KEYS_MAX},
        transaction::TRANSACTION_BYTES_MAX,
    },
    message::{
        NodeHealth, RANGE_BYTES_MAX, REASON_BYTES_MAX, Refusal, Request, Response, SYMBOLS_MAX, SliverAt,
        SymbolAt,
    },
};
use swarm::Network;
use tokio::time::Instant;

use super::{attesting::Attesting, served::Served};
use crate::{
    blobs::{BlobStatus, Blobs},
    commitments::{CommitmentCache, CommitmentReadError},
    encoder::Encoder,
    ledger::{Ledger, SubmitError},
    membership::{Membership, Seat},
    repair::{Coefficients, Evidence, EvidenceShelf, Repair, evidence_bytes_max, fetch_evidence},
    sliver_store::{SliverStore, StoreReadError},
    upload::Uploads,
};

/// A sliver up to this size is read whole to make symbols of it; of a longer one only the ranges asked for.
const READ_WHOLE_MAX: usize = 1 << 20;

/// What a request is answered with.
type Answer = Result<(Response, Bytes), Refusal>;

/// Carries out requests.
pub(crate) struct Handler<N> {
    pub(crate) name: String,
    pub(crate) membership: Membership,
    /// Peers by way of which this node finds the network, members or not.
    pub(crate) bootstrap: BTreeSet<PeerId>,
    pub(crate) key: SecretKey,
    pub(crate) network: N,
    pub(crate) store: SliverStore,
    pub(crate) blobs: Blobs,
    pub(crate) ledger: Ledger,
    pub(crate) commitments: CommitmentCache,
    pub(crate) encoder: Encoder,
    pub(crate) uploads: Uploads,
    pub(crate) repair: Repair,
    pub(crate) coefficients: Coefficients,
    pub(crate) evidence: EvidenceShelf,
    /// Members whose evidence is being looked at.
    pub(crate) attesting: Attesting,
    pub(crate) start: Instant,
    pub(crate) served: Served,
}

fn done() -> Answer {
    Ok((Response::Done, Bytes::new()))
}

fn refusal_of_submit(error: SubmitError) -> Refusal {
    match error {
        SubmitError::Rejected { mut reason } => {
            let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
            reason.truncate(end.unwrap_or(0));
            Refusal::Rejected(reason)
        }
        SubmitError::Busy => Refusal::Busy,
        SubmitError::NotOrdered => Refusal::NotOrdered,
        SubmitError::Stopped => Refusal::Internal,
    }
}

/// True if so much may be asked at once.
fn are_bounded(keys: &[Vec<u8>]) -> bool {
    keys.len() <= KEYS_MAX && keys.iter().all(|key| key.len() <= KEY_BYTES_MAX)
}

impl<N: Network> Handler<N> {
    pub(super) const fn network(&self) -> &N {
        &self.network
    }

    /// True if the peer is on the committee.
    pub(super) fn is_member(&self, peer: PeerId) -> bool {
        self.membership.is_member(&peer)
    }

    /// A peer is connected: if it is a member, or a way into the network, each is to learn how far the other's ledger reaches.
    pub(super) fn peer_joined(&self, peer: PeerId) {
        if self.is_member(peer) || self.bootstrap.contains(&peer) {
            self.ledger.connected(peer);
        }
    }

    /// A peer is no longer connected.
    pub(super) fn peer_left(&self, peer: PeerId) {
        self.uploads.peer_left(peer);
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
            Request::Confirm { header, registration, epoch } => {
                Ok(match self.uploads.confirm(header, registration, epoch).await? {
                    Ok(signature) => (Response::Confirmed(signature), Bytes::new()),
                    Err(slivers) => (Response::Missing { slivers }, Bytes::new()),
                })
            }
            Request::StoreBlob { header, registration, epoch, order_bytes } => {
                let order_bytes = usize::from(order_bytes);
                if order_bytes > payload.len().min(TRANSACTION_BYTES_MAX) {
                    return Err(Refusal::Malformed);
                }
                let parts = (payload.slice(..order_bytes), payload.slice(order_bytes..));
                let signature = Box::pin(self.uploads.blob(header, (registration, epoch), parts)).await?;
                Ok((Response::Confirmed(signature), Bytes::new()))
            }
            Request::FetchCommitment { blob_id, segment } => self.commitment(blob_id, segment).await,
            Request::FetchSliver { at, offset, len } => self.sliver(at, offset, len).await,
            Request::FetchSymbols { blob_id, segment, symbols, offset, len } => {
                self.symbols((blob_id, segment), symbols, offset, len).await
            }
            Request::FetchSymbolProof { blob_id, segment, symbol } => {
                self.symbol_proof(blob_id, segment, symbol).await
            }
            Request::Attest { blob_id, evidence_bytes } => {
                self.attest(from, blob_id, evidence_bytes, evidence_timeout).await
            }
            Request::FetchEvidence { blob_id, offset, len } => {
                let part = self.evidence.part(&blob_id, offset, len).ok_or(Refusal::NotFound)?;
                Ok((Response::Evidence, part))
            }
            Request::Health => Ok((Response::Health(self.health()), Bytes::new())),
            Request::Ledger(request) => {
                let response = self.ledger.ask(from, request).await.ok_or(Refusal::Busy)?;
                Ok((Response::Ledger, response.encode().into()))
            }
            Request::Entries { keys } => self.entries(&keys),
            Request::Range { start } => {
                if start.len() > KEY_BYTES_MAX {
                    return Err(Refusal::Malformed);
                }
                Ok((Response::Range, self.ledger.view().range(&start).to_bytes().into()))
            }
            Request::Submit { keys } => self.submit(&payload, &keys).await,
        }
    }

    /// Entries of the ledger with proofs. More than fits into an answer was too much to ask for.
    fn entries(&self, keys: &[Vec<u8>]) -> Answer {
        let bytes = if are_bounded(keys) { self.ledger.answer(keys).to_bytes() } else { Vec::new() };
        if bytes.is_empty() || bytes.len() > ANSWER_BYTES_MAX {
            return Err(Refusal::Malformed);
        }
        Ok((Response::Entries, bytes.into()))
    }

    /// Has a transaction ordered, and proves entries as of its block.
    async fn submit(&self, transaction: &Bytes, keys: &[Vec<u8>]) -> Answer {
        if transaction.len() > TRANSACTION_BYTES_MAX || !are_bounded(keys) {
            return Err(Refusal::Malformed);
        }
        if !self.membership.is_member(&self.membership.me()) {
            return Err(Refusal::NotOnCommittee);
        }
        let height = self.ledger.submit(transaction.to_vec()).await.map_err(refusal_of_submit)?;
        let mut views = self.ledger.watch();
        // Whoever waited for the transaction is told a moment before everyone else.
        let view = views.wait_for(|view| view.height() >= height).await.map_err(|_| Refusal::Internal)?;
        let answer = view.answer(keys).to_bytes();
        // It is executed: what does not fit is asked for apart.
        let answer = if answer.len() > ANSWER_BYTES_MAX { Vec::new() } else { answer };
        Ok((Response::Submitted { height }, answer.into()))
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
        self.served.sent_symbols(payload.len());
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

    /// Fetches evidence from the member that asks, verifies it, and vouches that the blob is invalid.
    async fn attest(&self, from: PeerId, blob_id: BlobId, evidence_bytes: u32, timeout: Duration) -> Answer {
        if !self.is_member(from) {
            return Err(Refusal::NotMember);
        }
        let Some(_one_at_a_time) = self.attesting.begin(from) else { return Err(Refusal::Busy) };
        // What the committee has certified needs no more evidence.
        let is_known = matches!(self.blobs.status(blob_id), Ok(BlobStatus::Invalid));
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
        let roster = self.membership.now().map_err(|_| Refusal::Internal)?;
        let Some(Seat { committee, node }) = roster.seat() else { return Err(Refusal::NotMember) };
        let statement = InvalidityAttestation { epoch: committee.epoch(), blob_id };
        Ok((Response::Attested(statement.sign(&roster.network, node, &self.key)), Bytes::new()))
    }

    fn health(&self) -> NodeHealth {
        let ledger = self.ledger.view();
        let seat = self.membership.now().ok().and_then(|roster| roster.seat());
        let narrow = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        NodeHealth {
            name: self.name.clone(),
            shards: narrow(seat.map_or(0, |seat| seat.shards().len())),
            blobs: self.blobs.n_certified().unwrap_or(0),
            slivers_held: self.store.counts().slivers,
            slivers_missing: self.repair.report().missing,
            repair_bytes_received: self.repair.received_bytes(),
            repair_bytes_regained: self.repair.regained_bytes(),
            slivers_corrupt: self.repair.corrupt(),
            peers: narrow(self.network.connected().peers().len()),
            uptime_seconds: self.start.elapsed().as_secs(),
            ledger_height: ledger.height(),
            ledger_root: ledger.state.root(),
        }
    }
}

impl<N> std::fmt::Debug for Handler<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler").field("name", &self.name).finish_non_exhaustive()
    }
}
