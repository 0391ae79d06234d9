//! What all segments of one read share, and the requests that it makes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    NodeIndex, SegmentIndex, SliverPairIndex,
    commitment::{SegmentCommitment, VerifiedHeader},
    encoding::Axis,
    hash::Hash,
    message::{RANGE_BYTES_MAX, Refusal, Request, Response, SliverAt},
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
    },
    encoder::Encoder,
};

/// Most ranges in flight to one member: 8 MB, which fills a link of 50 ms (measured).
const RANGES_PER_MEMBER: usize = 32;

/// One read.
pub(super) struct Reader<N> {
    pub(super) exchange: Exchange<N>,
    pub(super) encoder: Encoder,
    pub(super) header: VerifiedHeader,
    started: Instant,
    pace: Mutex<Pace>,
    /// Bounds the ranges in flight to all members.
    pub(super) flow: Flow,
    gates: BTreeMap<NodeIndex, Gate>,
    received: AtomicU64,
    is_suspect: AtomicBool,
}

/// A sliver as a member sent it.
pub(super) struct Sliver {
    pub(super) bytes: Bytes,
    /// Root over its parity symbols, as the member says.
    pub(super) parity: Hash,
}

impl<N: Network> Reader<N> {
    pub(super) fn new(client: &Client<N>, header: VerifiedHeader) -> Self {
        let nodes = client.exchange.committee().nodes();
        Self {
            exchange: client.exchange.clone(),
            encoder: client.encoder.clone(),
            header,
            started: Instant::now(),
            pace: Mutex::default(),
            flow: Flow::new(),
            gates: nodes.map(|node| (node, Gate::new(RANGES_PER_MEMBER))).collect(),
            received: AtomicU64::new(0),
            is_suspect: AtomicBool::new(false),
        }
    }

    fn with_pace<T>(&self, step: impl FnOnce(&mut Pace) -> T) -> T {
        // Nothing that can panic runs under this lock.
        step(&mut self.pace.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is_avoided(&self, node: NodeIndex) -> bool {
        let now = self.started.elapsed();
        self.with_pace(|pace| pace.is_avoided(node, now))
    }

    pub(super) fn avoid(&self, node: NodeIndex, fault: Fault) {
        let now = self.started.elapsed();
        self.with_pace(|pace| pace.avoid(node, fault, now));
    }

    /// Remembers why a member failed.
    pub(super) fn failed(&self, node: NodeIndex, error: &AskError) {
        if matches!(error, AskError::Refused(Refusal::Invalid)) {
            self.is_suspect.store(true, Ordering::Relaxed);
        }
        self.avoid(node, if is_temporary(error) { Fault::Down } else { Fault::Useless });
    }

    /// True if a member said that the blob is invalid.
    pub(super) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed)
    }

    /// Bytes of slivers received.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The member that answers for a primary sliver.
    pub(super) fn owner(&self, segment: SegmentIndex, sliver: u16) -> NodeIndex {
        let committee = self.exchange.committee();
        committee.owner(committee.shard_of(&self.header.blob_id(), segment, SliverPairIndex(sliver)))
    }

    /// Asks a member for the commitment of a segment, and verifies it.
    pub(super) async fn fetch_commitment(
        &self,
        node: NodeIndex,
        segment: SegmentIndex,
        pulse: &Pulse,
    ) -> Result<SegmentCommitment, AskError> {
        let request = Request::FetchCommitment { blob_id: self.header.blob_id(), segment };
        match self.ask(node, &request, pulse).await? {
            (Response::Commitment { path, .. }, bytes) => self
                .header
                .verify_segment(segment, &bytes, &path)
                .map_err(|_| self.exchange.report_unverifiable(node)),
            _ => Err(self.exchange.report_unexpected(node)),
        }
    }

    /// Fetches a primary sliver of `len` bytes from its owner, in ranges; it is not verified yet.
    pub(super) async fn fetch_sliver(
        &self,
        (segment, sliver, len): (SegmentIndex, u16, usize),
        pulse: &Pulse,
    ) -> Result<Sliver, AskError> {
        let node = self.owner(segment, sliver);
        let at = SliverAt {
            blob_id: self.header.blob_id(),
            segment,
            pair: SliverPairIndex(sliver),
            axis: Axis::Primary,
        };
        let mut ranges: FuturesUnordered<_> = (0..len)
            .step_by(RANGE_BYTES_MAX)
            .map(|start| async move {
                let len = RANGE_BYTES_MAX.min(len - start);
                self.fetch_range(node, at, (start, len), pulse).await.map(|range| (start, range))
            })
            .collect();
        let mut parity = None;
        let mut whole = BytesMut::new();
        while let Some(range) = ranges.next().await {
            let (start, range) = range?;
            if *parity.get_or_insert(range.parity) != range.parity {
                return Err(self.exchange.report_unverifiable(node));
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
        node: NodeIndex,
        at: SliverAt,
        (start, len): (usize, usize),
        pulse: &Pulse,
    ) -> Result<Sliver, AskError> {
        let mut pass = self.gates[&node].enter().await;
        let narrow = |value| u32::try_from(value).expect("a sliver is far shorter than 4 GiB");
        let request = Request::FetchSliver { at, offset: narrow(start), len: narrow(len) };
        match self.flow.carry(&mut pass, self.ask(node, &request, pulse)).await? {
            (Response::Sliver { parity }, bytes) if bytes.len() == len => {
                self.received.fetch_add(u64::try_from(len).unwrap_or(0), Ordering::Relaxed);
                Ok(Sliver { bytes, parity })
            }
            _ => Err(self.exchange.report_unexpected(node)),
        }
    }

    /// Asks a member, bearing only with its being busy: whatever else is wrong, another member is asked instead.
    async fn ask(
        &self,
        node: NodeIndex,
        request: &Request,
        pulse: &Pulse,
    ) -> Result<(Response, Bytes), AskError> {
        let patience = Patience::hedged(self.exchange.request_timeout());
        self.exchange.ask_patiently(node, (request, Bytes::new()), patience, pulse).await
    }
}

/// Shared between the segments of a read.
pub(super) type SharedReader<N> = Arc<Reader<N>>;
