//! What all segments of one read share, and the requests that it makes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    NodeIndex, PeerId, SegmentIndex, SliverPairIndex,
    commitment::{SegmentCommitment, VerifiedHeader},
    encoding::{Axis, SegmentShape},
    hash::Hash,
    message::{RANGE_BYTES_MAX, Request, Response, SliverAt},
};
use swarm::Network;
use tokio::time::Instant;

use super::pace::{Fault, Pace};
use crate::{
    client::{
        Client,
        exchange::{AskError, Exchange, Pulse},
        flow::{Flow, Gate},
        retry::{Patience, is_temporary},
        status::Sources,
    },
    encoder::Encoder,
};

/// Most ranges in flight to one member: 8 MB, which fills a link of 50 ms (measured).
const RANGES_PER_MEMBER: usize = 32;

/// A member whose word is asked for: as one of the answerable committee, or of the other.
pub(super) struct Source<'a, N> {
    pub(super) exchange: &'a Exchange<N>,
    pub(super) node: NodeIndex,
}

/// One read, as long as the same committees have the blob.
pub(super) struct Reader<N> {
    pub(super) sources: Sources,
    /// To ask the members of either committee.
    answerable: Exchange<N>,
    other: Option<Exchange<N>>,
    pub(super) encoder: Encoder,
    pub(super) header: VerifiedHeader,
    started: Instant,
    pace: Mutex<Pace>,
    /// Bounds the ranges in flight to all members.
    pub(super) flow: Flow,
    gates: BTreeMap<PeerId, Gate>,
    received: AtomicU64,
}

/// A sliver as a member sent it.
pub(super) struct Sliver {
    pub(super) bytes: Bytes,
    /// Root over its parity symbols, as the member says.
    pub(super) parity: Hash,
}

impl<N> Clone for Source<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for Source<'_, N> {}

impl<'a, N: Network> Source<'a, N> {
    pub(super) fn peer(&self) -> PeerId {
        self.exchange.peer(self.node)
    }

    pub(super) fn name(&self) -> &'a str {
        self.exchange.name(self.node)
    }
}

impl<N: Network> Reader<N> {
    pub(super) fn new(client: &Client<N>, header: VerifiedHeader, sources: Sources) -> Self {
        let answerable = client.exchange.of(&sources.answerable);
        let other = sources.other.as_ref().map(|other| client.exchange.of(other));
        let exchanges = [Some(&answerable), other.as_ref()].into_iter().flatten();
        let members = exchanges.flat_map(|exchange| exchange.committee().members());
        let gates = members.map(|member| (member.peer, Gate::new(RANGES_PER_MEMBER))).collect();
        Self {
            sources,
            answerable,
            other,
            encoder: client.encoder.clone(),
            header,
            started: Instant::now(),
            pace: Mutex::default(),
            flow: Flow::new(),
            gates,
            received: AtomicU64::new(0),
        }
    }

    /// To ask the members of the committee that answers for the blob.
    pub(super) const fn answerable(&self) -> &Exchange<N> {
        &self.answerable
    }

    fn with_pace<T>(&self, step: impl FnOnce(&mut Pace) -> T) -> T {
        // Nothing that can panic runs under this lock.
        step(&mut self.pace.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is_avoided(&self, peer: PeerId) -> bool {
        let now = self.started.elapsed();
        self.with_pace(|pace| pace.is_avoided(peer, now))
    }

    pub(super) fn avoid(&self, peer: PeerId, fault: Fault) {
        let now = self.started.elapsed();
        self.with_pace(|pace| pace.avoid(peer, fault, now));
    }

    /// Remembers why a member failed.
    pub(super) fn failed(&self, peer: PeerId, error: &AskError) {
        self.avoid(peer, if is_temporary(error) { Fault::Down } else { Fault::Useless });
    }

    /// Bytes of slivers received.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whom to ask for a primary sliver, by candidate: sliver `i` of the member that answers for it is candidate `i`, and
    /// `n + i` that of the member that has it in the other committee.
    pub(super) fn owner(&self, segment: SegmentIndex, candidate: u16) -> Source<'_, N> {
        let n = self.answerable.committee().n_shards();
        let exchange = if candidate < n { &self.answerable } else { self.other() };
        let (committee, pair) = (exchange.committee(), SliverPairIndex(candidate % n));
        let node = committee.owner(committee.shard_of(&self.header.blob_id(), segment, pair));
        Source { exchange, node }
    }

    fn other(&self) -> &Exchange<N> {
        self.other.as_ref().expect("candidates of the other committee exist only if there is one")
    }

    /// The candidates that exist for a segment's primary slivers: see [`Self::owner`].
    pub(super) fn candidates(&self, segment: SegmentIndex, shape: SegmentShape) -> BTreeSet<u16> {
        let (of, n) = ((self.header.blob_id(), segment), shape.n());
        let mut candidates = self.answerable.committee().primary_slivers(of, shape);
        if let Some(other) = &self.other {
            let held = other.committee().primary_slivers(of, shape).into_iter();
            // Whoever has it in both committees need not be asked twice.
            let is_elsewhere =
                |sliver: &u16| self.owner(segment, *sliver).peer() != self.owner(segment, n + sliver).peer();
            let more: Vec<u16> = held
                .filter(|sliver| !candidates.contains(sliver) || is_elsewhere(sliver))
                .map(|sliver| n + sliver)
                .collect();
            candidates.extend(more);
        }
        candidates
    }

    /// Everyone who may know a commitment: members of the answerable committee first.
    pub(super) fn everyone(&self) -> Vec<Source<'_, N>> {
        let exchanges = [Some(&self.answerable), self.other.as_ref()].into_iter().flatten();
        let all = exchanges
            .flat_map(|exchange| exchange.committee().nodes().map(move |node| Source { exchange, node }));
        let mut known = BTreeSet::new();
        all.filter(|source| known.insert(source.peer())).collect()
    }

    /// Asks a member for the commitment of a segment, and verifies it.
    pub(super) async fn fetch_commitment(
        &self,
        source: Source<'_, N>,
        segment: SegmentIndex,
        pulse: &Pulse,
    ) -> Result<SegmentCommitment, AskError> {
        let request = Request::FetchCommitment { blob_id: self.header.blob_id(), segment };
        match ask(source, &request, pulse).await? {
            (Response::Commitment { path, .. }, bytes) => self
                .header
                .verify_segment(segment, &bytes, &path)
                .map_err(|_| source.exchange.report_unverifiable(source.node)),
            _ => Err(source.exchange.report_unexpected(source.node)),
        }
    }

    /// Fetches a primary sliver of `len` bytes from the owner of a candidate, in ranges; it is not verified yet.
    pub(super) async fn fetch_sliver(
        &self,
        (segment, candidate, len): (SegmentIndex, u16, usize),
        pulse: &Pulse,
    ) -> Result<Sliver, AskError> {
        let source = self.owner(segment, candidate);
        let at = SliverAt {
            blob_id: self.header.blob_id(),
            segment,
            pair: SliverPairIndex(candidate % self.answerable.committee().n_shards()),
            axis: Axis::Primary,
        };
        let mut ranges: FuturesUnordered<_> = (0..len)
            .step_by(RANGE_BYTES_MAX)
            .map(|start| async move {
                let len = RANGE_BYTES_MAX.min(len - start);
                self.fetch_range(source, at, (start, len), pulse).await.map(|range| (start, range))
            })
            .collect();
        let mut parity = None;
        let mut whole = BytesMut::new();
        while let Some(range) = ranges.next().await {
            let (start, range) = range?;
            if *parity.get_or_insert(range.parity) != range.parity {
                return Err(source.exchange.report_unverifiable(source.node));
            }
            if range.bytes.len() == len {
                return Ok(range);
            }
            whole.resize(len, 0);
            whole[start..start + range.bytes.len()].copy_from_slice(&range.bytes);
        }
        let parity = parity.expect("a sliver has bytes");
        Ok(Sliver { bytes: whole.freeze(), parity })
    }

    async fn fetch_range(
        &self,
        source: Source<'_, N>,
        at: SliverAt,
        (start, len): (usize, usize),
        pulse: &Pulse,
    ) -> Result<Sliver, AskError> {
        let mut pass = self.gates[&source.peer()].enter().await;
        let narrow = |value| u32::try_from(value).expect("a sliver is far shorter than 4 GiB");
        let request = Request::FetchSliver { at, offset: narrow(start), len: narrow(len) };
        match self.flow.carry(&mut pass, ask(source, &request, pulse)).await? {
            (Response::Sliver { parity }, bytes) if bytes.len() == len => {
                self.received.fetch_add(u64::try_from(len).unwrap_or(0), Ordering::Relaxed);
                Ok(Sliver { bytes, parity })
            }
            _ => Err(source.exchange.report_unexpected(source.node)),
        }
    }
}

/// Asks a member, bearing only with its being busy: whatever else is wrong, another member is asked instead.
async fn ask<N: Network>(
    Source { exchange, node }: Source<'_, N>,
    request: &Request,
    pulse: &Pulse,
) -> Result<(Response, Bytes), AskError> {
    let patience = Patience::hedged(exchange.request_timeout());
    exchange.ask_patiently(node, (request, Bytes::new()), patience, pulse).await
}

/// Shared between the segments of a read.
pub(super) type SharedReader<N> = Arc<Reader<N>>;
