//! A rebuilt sliver does not match its commitment: somebody is to blame. Symbols are asked for again, with proofs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bincode::{Decode, Encode};
use bytes::Bytes;
use futures::{StreamExt as _, stream, stream::FuturesUnordered};
use protocol::{
    BlobId, PeerId, SegmentIndex, SliverPairIndex,
    certificate::{CertificateBuilder, InvalidityAttestation, MemberSignature, Statement as _},
    codec,
    commitment::{BlobHeader, CommitmentError, PAIR_ROOTS_BYTES},
    encoding::{Axis, BlobShape, SegmentEncoder, SliverRecovery, encode::sliver_index},
    hash::{HASH_BYTES, Hash},
    inconsistency::{InconsistencyProof, ProofError, ProvenSymbol},
    ledger::transaction::Action,
    message::{RANGE_BYTES_MAX, Request, Response, SymbolAt},
    planted::{Bug, is_planted},
};
use swarm::{Network, Offence};

use super::{
    blob::{Context, Halt},
    segment::SegmentRepair,
};
use crate::{
    exchange::{ExchangeError, ask, malformed},
    membership::Seat,
};

/// Most bytes of evidence on any network; on most, [`evidence_bytes_max`] says less. The largest sliver is that of the
/// smallest committee, 8 MiB at four shards; the most proofs are those of the largest.
const EVIDENCE_BYTES_MAX: usize = 16 << 20;
/// Blobs whose evidence is kept at hand for peers to fetch: as many as are looked at at the same time, so that none is
/// pushed out while it is fetched.
const EVIDENCE_KEPT: usize = 8;
/// Proofs asked for at the same time.
const PROOFS_IN_FLIGHT: usize = 16;
/// How long a peer may take to fetch and verify evidence.
const ATTEST_TIMEOUT: Duration = Duration::from_secs(50);

/// Who is to blame.
pub(super) enum Verdict {
    /// The symbols of these crossing slivers were wrong, or could not be proved.
    Wrong(Vec<u16>),
    /// All symbols prove: the writer encoded wrongly.
    Writer(Box<Evidence>),
}

/// All that anyone needs to see that a blob was encoded wrongly.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Evidence {
    /// Header of the blob.
    pub header: BlobHeader,
    /// Commitment of the segment.
    pub commitment: Vec<u8>,
    /// Path of the segment root to the blob root.
    pub path: Vec<Hash>,
    /// The proof itself.
    pub proof: InconsistencyProof,
}

/// Why evidence proves nothing; whoever sent it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// The bytes are not evidence.
    #[error("malformed evidence")]
    Decode(#[from] codec::DecodeError),
    /// The header or the commitment does not belong to the blob.
    #[error(transparent)]
    Commitment(#[from] CommitmentError),
    /// The proof does not hold.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The blob is not of this network.
    #[error("the blob was encoded for another network")]
    OtherNetwork,
}

impl Evidence {
    /// Reads evidence and verifies that it condemns `blob_id`.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`].
    pub fn verify(bytes: &[u8], blob_id: BlobId, encoder: &mut SegmentEncoder) -> Result<(), EvidenceError> {
        let evidence: Self = codec::decode_exact::<_, { 2 * EVIDENCE_BYTES_MAX }>(bytes)?;
        let header = evidence.header.verify_for(blob_id)?;
        if header.shape().n() != encoder.n() {
            return Err(EvidenceError::OtherNetwork);
        }
        let segment = evidence.proof.segment;
        let commitment = header.verify_segment(segment, &evidence.commitment, &evidence.path)?;
        let shape = header.shape().segment(segment).map_err(CommitmentError::from)?;
        evidence.proof.verify(encoder, shape, &commitment)?;
        Ok(())
    }
}

/// Most bytes of evidence on a network of `n` shards: the symbols of one sliver of a full segment with their proofs, and
/// the commitment.
pub(crate) fn evidence_bytes_max(n: u16) -> usize {
    /// Paths of at most ten hashes, the root of the other part, a leaf that holds other symbols too, lengths.
    const PROOF_BYTES: usize = 12 * HASH_BYTES + 128;
    /// Header, the path to the blob root, what names the sliver.
    const HEAD_BYTES: usize = 4 << 10;
    let shape = BlobShape::new(n, u64::from(u32::MAX)).and_then(|blob| blob.segment(SegmentIndex(0)));
    let bytes = shape.map(|shape| {
        let sliver = |axis| shape.sliver_bytes(axis) + shape.n_source(axis) * PROOF_BYTES;
        sliver(Axis::Primary).max(sliver(Axis::Secondary)) + shape.n_slivers() * PAIR_ROOTS_BYTES + HEAD_BYTES
    });
    bytes.map_or(EVIDENCE_BYTES_MAX, |bytes| bytes.min(EVIDENCE_BYTES_MAX))
}

/// Evidence at hand for peers to fetch.
#[derive(Clone, Debug, Default)]
pub(crate) struct EvidenceShelf(Arc<Mutex<Shelf>>);

#[derive(Debug, Default)]
struct Shelf {
    /// Evidence by blob, with when it was last asked for.
    kept: BTreeMap<BlobId, (u64, Bytes)>,
    clock: u64,
}

impl Shelf {
    fn get(&mut self, blob_id: &BlobId) -> Option<Bytes> {
        self.clock += 1;
        let (used, evidence) = self.kept.get_mut(blob_id)?;
        *used = self.clock;
        Some(evidence.clone())
    }
}

impl EvidenceShelf {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps evidence, and returns what is kept: what was there before stays, since a peer that has fetched half of it
    /// would blame us for the other half.
    fn keep(&self, blob_id: BlobId, evidence: Bytes) -> Bytes {
        let mut shelf = self.lock();
        if let Some(evidence) = shelf.get(&blob_id) {
            return evidence;
        }
        let used = shelf.clock;
        shelf.kept.insert(blob_id, (used, evidence.clone()));
        while shelf.kept.len() > EVIDENCE_KEPT {
            let oldest = shelf.kept.iter().min_by_key(|(_, (used, _))| *used).map(|(blob_id, _)| *blob_id);
            let Some(oldest) = oldest else { break };
            shelf.kept.remove(&oldest);
        }
        evidence
    }

    /// The evidence against a blob, if it is at hand.
    pub(super) fn get(&self, blob_id: &BlobId) -> Option<Bytes> {
        self.lock().get(blob_id)
    }

    /// Lets go of the evidence against a blob that everybody knows to be invalid, or will.
    pub(super) fn remove(&self, blob_id: &BlobId) {
        self.lock().kept.remove(blob_id);
    }

    /// Part of the evidence against a blob.
    pub(crate) fn part(&self, blob_id: &BlobId, offset: u32, len: u32) -> Option<Bytes> {
        let (start, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
        let evidence = self.get(blob_id)?;
        let end = start.checked_add(len)?;
        (end <= evidence.len() && len <= RANGE_BYTES_MAX).then(|| evidence.slice(start..end))
    }
}

/// Finds who is to blame for a mismatch.
pub(super) async fn settle<N: Network>(
    repair: &SegmentRepair<'_, N>,
    (axis, index): (Axis, u16),
    recovery: &SliverRecovery,
    sources: &BTreeMap<u16, PeerId>,
) -> Result<Verdict, Halt> {
    let used: Vec<(u16, Vec<u8>)> =
        recovery.used().map(|(crossing, symbol)| (crossing, symbol.to_vec())).collect();
    let proofs = stream::iter(used).map(|(crossing, symbol)| async move {
        let symbol_at = SymbolAt { axis, index, crossing };
        (crossing, prove(repair, symbol_at, symbol, sources.get(&crossing).copied()).await)
    });
    let mut proofs = proofs.buffered(PROOFS_IN_FLIGHT);
    let (mut proven, mut wrong) = (Vec::new(), Vec::new());
    while let Some((crossing, proof)) = proofs.next().await {
        match proof? {
            Some(symbol) => proven.push(symbol),
            None => wrong.push(crossing),
        }
    }
    drop(proofs);
    if !wrong.is_empty() {
        return Ok(Verdict::Wrong(wrong));
    }
    let commitment = repair.context.store.commitment(repair.blob_id(), repair.segment).await;
    let (header, path, commitment) = commitment.map_err(|_| Halt::Store)?;
    let proof = InconsistencyProof { segment: repair.segment, axis, index, symbols: proven };
    Ok(Verdict::Writer(Box::new(Evidence { header, commitment: commitment.to_vec(), path, proof })))
}

/// The proof of a symbol that was used, or `None` if whoever gave it cannot prove that very symbol. Without a source it is from
/// one of this node's own slivers.
async fn prove<N: Network>(
    repair: &SegmentRepair<'_, N>,
    symbol_at: SymbolAt,
    symbol: Vec<u8>,
    source: Option<PeerId>,
) -> Result<Option<ProvenSymbol>, Halt> {
    let (context, shape) = (repair.context, repair.shape);
    let across = symbol_at.axis.crossing();
    let Some(peer) = source else { return prove_own(repair, symbol_at).await };
    let request =
        Request::FetchSymbolProof { blob_id: repair.blob_id(), segment: repair.segment, symbol: symbol_at };
    let answer = ask(&context.network, peer, (&request, Bytes::new()), context.config.request_timeout).await;
    let Ok((Response::SymbolProof { path, other_part }, payload)) = answer else { return Ok(None) };
    let leaf = if shape.symbols_per_leaf() == 1 { symbol.clone() } else { payload.to_vec() };
    let proven = ProvenSymbol { crossing: symbol_at.crossing, leaf, path, other_part };
    let verified = proven.verify(shape, &repair.commitment, across, symbol_at.index);
    if verified.is_ok_and(|verified| verified == symbol) {
        return Ok(Some(proven));
    }
    tracing::warn!(%peer, "a peer sent a symbol that it cannot prove");
    context.network.report(peer, Offence::Unverifiable);
    Ok(None)
}

/// The proof of a symbol of one of this node's own slivers; `None` if the sliver cannot be read, or is not the one that
/// was committed to, in which case it is dropped, to be repaired in turn.
async fn prove_own<N: Network>(
    repair: &SegmentRepair<'_, N>,
    symbol_at: SymbolAt,
) -> Result<Option<ProvenSymbol>, Halt> {
    let (context, shape, across) = (repair.context, repair.shape, symbol_at.axis.crossing());
    // The pairing reverses indices, so it is its own inverse.
    let pair = SliverPairIndex(sliver_index(across, SliverPairIndex(symbol_at.crossing), shape.n()));
    let at = repair.at(pair, across);
    let Ok((parity, sliver)) = context.store.read_whole_sliver(at).await else { return Ok(None) };
    let (crossing, own) = (symbol_at.crossing, sliver.clone());
    let prove = move |encoder: &mut SegmentEncoder| {
        ProvenSymbol::new(encoder, shape, (across, crossing, &own), symbol_at.index)
    };
    let proven = context.encoder.run(prove).await.map_err(|_| Halt::Stopped)?;
    if proven.verify(shape, &repair.commitment, across, symbol_at.index).is_ok() {
        return Ok(Some(proven));
    }
    tracing::error!(blob_id = %repair.blob_id(), pair = %at.pair, ?across, "a sliver of this node is not the one committed to");
    context.counters.add_corrupt();
    context.store.drop_wrong_sliver(at, parity, &sliver).await?;
    Ok(None)
}

/// Has the committee certify that a blob is invalid. False if too few members would say so now.
pub(super) async fn accuse<N: Network>(context: &Context<N>, evidence: Evidence) -> Result<bool, Halt> {
    let blob_id = evidence.header.blob_id();
    let bytes = Bytes::from(codec::encode(&evidence));
    // What is said of others is first checked here, as they will.
    let to_verify = bytes.clone();
    let verified = context.encoder.run(move |encoder| Evidence::verify(&to_verify, blob_id, encoder)).await;
    if let Err(error) = verified.map_err(|_| Halt::Stopped)? {
        tracing::error!(%blob_id, %error, "evidence of a wrong encoding does not hold; this is a bug");
        return Ok(false);
    }
    tracing::warn!(%blob_id, "a blob was encoded wrongly by its writer; asking the committee to certify it");
    let bytes = context.evidence.keep(blob_id, bytes);
    ask_to_attest(context, blob_id, &bytes).await
}

/// Has the committee certify that a blob is invalid by evidence that is on the shelf.
pub(super) async fn ask_to_attest<N: Network>(
    context: &Context<N>,
    blob_id: BlobId,
    bytes: &Bytes,
) -> Result<bool, Halt> {
    let evidence_bytes = u32::try_from(bytes.len()).map_err(|_| Halt::Stopped)?;
    // A node that is not on the committee leaves it to those who are.
    let Some((network, Seat { committee, node })) = context.seat() else { return Ok(false) };
    let statement = InvalidityAttestation { epoch: committee.epoch(), blob_id };
    let mut builder =
        CertificateBuilder::new(statement, &network, Arc::clone(&committee)).map_err(|_| Halt::Stopped)?;
    let mut signatures = vec![statement.sign(&network, node, &context.key)];
    let request = Request::Attest { blob_id, evidence_bytes };
    let others = committee.members().iter().filter(|member| member.peer != context.membership.me());
    let mut asks: FuturesUnordered<_> = others.map(|member| attest(context, member.peer, &request)).collect();
    loop {
        for signature in signatures.drain(..) {
            if let Err(error) = builder.add(&signature) {
                tracing::debug!(%error, "an attestation does not verify");
            }
        }
        if builder.is_complete() {
            break;
        }
        match asks.next().await {
            Some(Ok(signature)) => signatures.push(signature),
            Some(Err(error)) => tracing::debug!(%error, "a member does not attest"),
            None => return Ok(false),
        }
    }
    drop(asks);
    let certificate = builder.finish().map_err(|_| Halt::Stopped)?;
    let certificate = Box::new(certificate);
    if is_planted(Bug::InvalidIgnored) {
        return Ok(true);
    }
    Ok(context.blobs.ledger().owe(Action::InvalidateBlob { certificate }))
}

async fn attest<N: Network>(
    context: &Context<N>,
    peer: PeerId,
    request: &Request,
) -> Result<MemberSignature, ExchangeError> {
    match ask(&context.network, peer, (request, Bytes::new()), ATTEST_TIMEOUT).await? {
        (Response::Attested(signature), _) => Ok(signature),
        _ => Err(malformed(&context.network, peer)),
    }
}

/// Fetches the evidence against a blob from the member that asks us to attest it.
pub(crate) async fn fetch_evidence<N: Network>(
    network: &N,
    peer: PeerId,
    (blob_id, evidence_bytes, bytes_max): (BlobId, u32, usize),
    timeout: Duration,
) -> Result<Vec<u8>, ExchangeError> {
    let total = usize::try_from(evidence_bytes).unwrap_or(usize::MAX);
    if total > bytes_max {
        return Err(malformed(network, peer));
    }
    let mut evidence = Vec::new();
    while evidence.len() < total {
        let len = RANGE_BYTES_MAX.min(total - evidence.len());
        let offset = u32::try_from(evidence.len()).map_err(|_| ExchangeError::Malformed)?;
        let request = Request::FetchEvidence {
            blob_id,
            offset,
            len: u32::try_from(len).map_err(|_| ExchangeError::Malformed)?,
        };
        let (response, payload) = ask(network, peer, (&request, Bytes::new()), timeout).await?;
        if response != Response::Evidence || payload.len() != len {
            return Err(malformed(network, peer));
        }
        evidence.extend_from_slice(&payload);
    }
    Ok(evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(i: u8) -> BlobId {
        BlobId([i; 32])
    }

    #[test]
    fn evidence_stays_the_same_while_peers_fetch_it() {
        let shelf = EvidenceShelf::default();
        let first = shelf.keep(id(0), Bytes::from_static(b"first evidence"));
        assert_eq!(shelf.keep(id(0), Bytes::from_static(b"other symbols")), first);
        assert_eq!(shelf.part(&id(0), 6, 8).unwrap(), "evidence");
        for (offset, len) in [(7, 8), (u32::MAX, 1), (0, u32::MAX)] {
            assert_eq!(shelf.part(&id(0), offset, len), None, "{offset} {len}");
        }
        // What is being fetched is not pushed out by others.
        for i in 1..20 {
            shelf.keep(id(i), Bytes::new());
            assert!(shelf.part(&id(0), 0, 5).is_some());
        }
        assert_eq!(shelf.lock().kept.len(), EVIDENCE_KEPT);
        assert_eq!(shelf.get(&id(1)), None);
        shelf.remove(&id(0));
        assert_eq!(shelf.part(&id(0), 0, 5), None);
    }

    #[test]
    fn evidence_of_all_members_fits_in_memory() {
        for n in [4, 7, 10, 31, 100, 334, 1000] {
            let bytes = evidence_bytes_max(n);
            let sliver = BlobShape::new(n, 1 << 40).unwrap().segment(SegmentIndex(0)).unwrap();
            assert!(bytes >= sliver.sliver_bytes(Axis::Primary), "{n}");
            assert!(bytes <= 9 << 20, "{n}: {bytes}");
            // A third of a committee with a shard each, all asking at once with the most that there can be.
            assert!(bytes * usize::from(n / 3) < 256 << 20, "{n}: {bytes}");
        }
    }
}
