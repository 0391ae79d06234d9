//! Rebuilds the missing slivers of one segment.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, FuturesUnordered},
};
use protocol::{
    BlobId, PeerId, SegmentIndex, SliverPairIndex,
    commitment::SegmentCommitment,
    encoding::{
        Axis, RecoverError, SegmentShape, SliverRecovery, encode::sliver_index, recover::recovery_symbol,
    },
    message::{RANGE_BYTES_MAX, Request, Response, SYMBOLS_MAX, SliverAt, SymbolAt},
    planted::{Bug, is_planted},
};
use swarm::{Network, Offence};

use super::{
    blob::{Context, Halt, Owed},
    dispute::{self, Verdict},
    gather::{Ask, Gather, Standing, group_by_node},
};
use crate::{
    exchange::{ExchangeError, ask, malformed},
    membership::Seats,
    sliver_store::StoreReadError,
};

/// Messages in flight to one helper for one segment.
pub(super) const MESSAGES_IN_FLIGHT: usize = 8;

/// How often the bytes of a sliver are held at most while it is rebuilt: as symbols, and as what of them has just arrived and
/// is not put together yet, or as the sliver itself.
const HELD_TIMES: usize = 2;

/// How many slivers of this size are rebuilt at once within so many bytes; one in any case. What a node lost of a segment
/// grows with its shards: of a thousand, with a third of them, it is a hundred times what one of a small network loses.
const fn slivers_at_once(segment_bytes: usize, sliver_bytes: usize) -> usize {
    let at_once = segment_bytes / (HELD_TIMES * sliver_bytes);
    if at_once == 0 { 1 } else { at_once }
}

/// A segment that is being repaired.
pub(super) struct SegmentRepair<'a, N> {
    pub(super) context: &'a Context<N>,
    pub(super) owed: &'a Owed,
    pub(super) segment: SegmentIndex,
    pub(super) shape: SegmentShape,
    pub(super) commitment: std::sync::Arc<SegmentCommitment>,
}

/// Symbols by target and crossing sliver.
type Symbols = BTreeMap<(u16, u16), Vec<u8>>;

impl<N: Network> SegmentRepair<'_, N> {
    pub(super) fn blob_id(&self) -> BlobId {
        self.owed.header.blob_id()
    }

    pub(super) fn at(&self, pair: SliverPairIndex, axis: Axis) -> SliverAt {
        SliverAt { blob_id: self.blob_id(), segment: self.segment, pair, axis }
    }

    /// The pairs of which the sliver along `axis` is to be held for these places.
    fn pairs_of(&self, seats: &Seats, axis: Axis) -> Vec<SliverPairIndex> {
        let slivers = seats.slivers(self.blob_id(), self.segment, self.shape);
        slivers.into_iter().filter(|at| at.axis == axis).map(|at| at.pair).collect()
    }

    /// Gets what is missing and returns how many slivers still are: what another node holds as a whole is copied, the rest, and
    /// what is not to be had so, rebuilt.
    ///
    /// Secondary slivers first: `p` helpers suffice for them, and then this node's own columns cross the rows that
    /// it lost, so that even with `f` shards silent enough symbols can be had.
    pub(super) async fn heal(&self) -> Result<u32, Halt> {
        let mut missing = 0;
        self.copy().await?;
        for axis in [Axis::Secondary, Axis::Primary] {
            missing += self.heal_axis(axis).await?;
        }
        Ok(missing)
    }

    async fn heal_axis(&self, axis: Axis) -> Result<u32, Halt> {
        let mut lost = self.pairs_of(&self.owed.seats, axis);
        lost.retain(|pair| !self.context.store.has_sliver(&self.at(*pair, axis)));
        let at_once = slivers_at_once(self.context.config.segment_bytes, self.shape.sliver_bytes(axis));
        let mut rest = &lost[..];
        while let Some((now, behind)) = rest.split_at_checked(at_once.min(rest.len()).max(1)) {
            let left = self.heal_some(axis, now).await?;
            if left > 0 {
                // Too few symbols can be had: those of the others would come from the same helpers.
                return Ok(left.saturating_add(u32::try_from(behind.len()).unwrap_or(u32::MAX)));
            }
            rest = behind;
        }
        Ok(0)
    }

    /// Rebuilds these slivers along one axis, and returns how many are still missing.
    async fn heal_some(&self, axis: Axis, lost: &[SliverPairIndex]) -> Result<u32, Halt> {
        let n = self.shape.n();
        let mut targets: BTreeMap<u16, (SliverPairIndex, SliverRecovery)> = lost
            .iter()
            .map(|pair| (sliver_index(axis, *pair, n), (*pair, SliverRecovery::new(self.shape, axis))))
            .collect();
        let at_hand = self.take_own(axis, &mut targets).await?;
        let mut gather = Gather::new(self.shape.n_source(axis), at_hand, self.helpers(axis));
        let mut in_flight = FuturesUnordered::new();
        // Who gave the symbols of each crossing sliver; nobody gave those of own slivers.
        let mut sources = BTreeMap::new();
        loop {
            for ask in gather.next() {
                let wanted: Vec<u16> = targets.keys().copied().collect();
                in_flight.push(async move { (self.fetch(axis, wanted, &ask).await, ask) });
            }
            match gather.standing() {
                Standing::Waiting => {}
                Standing::Complete => {
                    for crossing in self.finish(axis, &mut targets, &sources).await? {
                        gather.reject(crossing);
                        // Who sent one wrong symbol sends others: each would cost a proof from everybody.
                        if let Some(node) = sources.remove(&crossing) {
                            gather.exclude(node);
                            self.context.note_wrong(node);
                        }
                    }
                    if targets.is_empty() {
                        return Ok(0);
                    }
                    continue;
                }
                Standing::Short { got, required } => {
                    let blob_id = self.blob_id();
                    tracing::debug!(%blob_id, segment = %self.segment, ?axis, got, required, "too few symbols");
                    return Ok(u32::try_from(targets.len()).unwrap_or(u32::MAX));
                }
            }
            let Some((result, ask)) = in_flight.next().await else { continue };
            self.context.note(ask.node, &result);
            match result {
                Ok(symbols) => {
                    for ((index, crossing), symbol) in symbols {
                        if let Some((_, recovery)) = targets.get_mut(&index) {
                            recovery.add(crossing, symbol);
                        }
                    }
                    sources.extend(ask.crossings.iter().map(|crossing| (*crossing, ask.node)));
                    gather.received(&ask);
                }
                Err(error) => {
                    tracing::debug!(node = %ask.node, %error, "a helper did not help");
                    gather.failed(&ask);
                }
            }
        }
    }

    /// Takes the symbols that this node's own slivers give, and returns the slivers that gave them.
    async fn take_own(
        &self,
        axis: Axis,
        targets: &mut BTreeMap<u16, (SliverPairIndex, SliverRecovery)>,
    ) -> Result<Vec<u16>, Halt> {
        let mut at_hand = Vec::new();
        for pair in self.pairs_of(&self.owed.roster.kept(), axis.crossing()) {
            let at = self.at(pair, axis.crossing());
            let sliver = match self.context.store.read_whole_sliver(at).await {
                Ok((_, sliver)) => sliver,
                Err(StoreReadError::NotFound) => continue,
                Err(StoreReadError::Corrupt | StoreReadError::OutOfRange) => {
                    self.context.drop_corrupt(at).await?;
                    continue;
                }
                Err(StoreReadError::Failed) => return Err(Halt::Store),
            };
            let (shape, coefficients) = (self.shape, self.context.coefficients.get(self.shape.n()));
            let wanted: Vec<u16> = targets.keys().copied().collect();
            let crossing = sliver_index(axis.crossing(), pair, shape.n());
            let symbols = self
                .context
                .encoder
                .run(move |_| {
                    let symbol = |index| {
                        let range = 0..shape.symbol_bytes();
                        recovery_symbol(&coefficients, shape, (axis.crossing(), &sliver), index, range)
                    };
                    wanted.into_iter().map(|index| (index, symbol(index))).collect::<Vec<_>>()
                })
                .await
                .map_err(|_| Halt::Stopped)?;
            for (index, symbol) in symbols {
                if let Some((_, recovery)) = targets.get_mut(&index) {
                    recovery.add(crossing, symbol);
                }
            }
            at_hand.push(crossing);
        }
        Ok(at_hand)
    }

    /// The other nodes in the order in which to ask them: those connected first, beginning at a place that differs
    /// from segment to segment and from node to node, so that the load spreads.
    fn helpers(&self, axis: Axis) -> Vec<Ask> {
        let Owed { roster, certified, .. } = self.owed;
        let nodes = self.context.helpers_for(roster, self.segment);
        // Of a coded segment every pair is held; of a replicated one some are, and a copy gives any symbol.
        let held = roster.held_pairs(*certified, (self.blob_id(), self.segment), self.shape);
        let crossing = |pair| sliver_index(axis.crossing(), pair, self.shape.n());
        group_by_node(held.into_iter().map(|(pair, holders)| (crossing(pair), holders)), &nodes)
    }

    /// Fetches the symbols of all `wanted` targets from one node's slivers.
    async fn fetch(&self, axis: Axis, wanted: Vec<u16>, helper: &Ask) -> Result<Symbols, ExchangeError> {
        let symbol_bytes = self.shape.symbol_bytes();
        let all: Vec<SymbolAt> = wanted
            .iter()
            .flat_map(|index| {
                let symbol = |crossing: &u16| SymbolAt { axis, index: *index, crossing: *crossing };
                helper.crossings.iter().map(symbol)
            })
            .collect();
        // Small symbols share a message, large ones take several.
        let per_message = (RANGE_BYTES_MAX / symbol_bytes).clamp(1, SYMBOLS_MAX);
        let step = RANGE_BYTES_MAX.min(symbol_bytes);
        let mut messages = Vec::new();
        for symbols in all.chunks(per_message) {
            for offset in (0..symbol_bytes).step_by(step) {
                messages.push((symbols.to_vec(), offset, step.min(symbol_bytes - offset)));
            }
        }
        let parts: Vec<(Vec<SymbolAt>, usize, Bytes)> = stream::iter(messages)
            .map(|(symbols, offset, len)| self.fetch_part(helper.node, symbols, offset, len))
            .buffered(MESSAGES_IN_FLIGHT)
            .try_collect()
            .await?;
        let mut symbols = Symbols::new();
        for (list, offset, payload) in parts {
            let len = payload.len() / list.len();
            for (symbol, bytes) in list.iter().zip(payload.chunks_exact(len)) {
                let whole =
                    symbols.entry((symbol.index, symbol.crossing)).or_insert_with(|| vec![0; symbol_bytes]);
                whole[offset..][..len].copy_from_slice(bytes);
            }
        }
        Ok(symbols)
    }

    async fn fetch_part(
        &self,
        peer: PeerId,
        symbols: Vec<SymbolAt>,
        offset: usize,
        len: usize,
    ) -> Result<(Vec<SymbolAt>, usize, Bytes), ExchangeError> {
        let context = self.context;
        let request = Request::FetchSymbols {
            blob_id: self.blob_id(),
            segment: self.segment,
            symbols: symbols.clone(),
            offset: u32::try_from(offset).map_err(|_| ExchangeError::Malformed)?,
            len: u32::try_from(len).map_err(|_| ExchangeError::Malformed)?,
        };
        let (response, payload) =
            ask(&context.network, peer, (&request, Bytes::new()), context.config.request_timeout).await?;
        context.counters.add_received(payload.len() + response.to_bytes().len());
        if response == Response::Symbols && payload.len() == symbols.len() * len {
            Ok((symbols, offset, payload))
        } else {
            Err(malformed(&context.network, peer))
        }
    }

    /// Rebuilds, checks and stores every target that has its symbols; those done leave `targets`. Returns the crossing
    /// slivers whose symbols turned out to be wrong; they leave all recoveries.
    async fn finish(
        &self,
        axis: Axis,
        targets: &mut BTreeMap<u16, (SliverPairIndex, SliverRecovery)>,
        sources: &BTreeMap<u16, PeerId>,
    ) -> Result<Vec<u16>, Halt> {
        for index in targets.keys().copied().collect::<Vec<_>>() {
            let Some((pair, recovery)) = targets.remove(&index) else { continue };
            let (root, shape) = (self.commitment.sliver_root(axis, index), self.shape);
            let (recovery, result) = self
                .context
                .encoder
                .run(move |encoder| {
                    let mut result = recovery.recover(encoder, &root);
                    if is_planted(Bug::RepairUnchecked)
                        && let Ok(sliver) = recovery.decode(encoder)
                    {
                        let hashes = encoder.hash_sliver(shape, axis, &sliver);
                        result = Ok((sliver, hashes));
                    }
                    (recovery, result)
                })
                .await
                .map_err(|_| Halt::Stopped)?;
            match result {
                Ok((sliver, hashes)) => {
                    let put = self.context.store.put_sliver(self.at(pair, axis), hashes.parity, &sliver);
                    put.await.map_err(Halt::from)?;
                    self.context.counters.add_regained(sliver.len());
                }
                Err(RecoverError::TooFewSymbols { .. }) => {
                    targets.insert(index, (pair, recovery));
                }
                Err(RecoverError::Mismatch) if self.shape.is_replicated() => {
                    // A copy proves itself: who sent another one is at fault.
                    let wrong: Vec<u16> = recovery.used().map(|(crossing, _)| crossing).collect();
                    for crossing in &wrong {
                        if let Some(peer) = sources.get(crossing) {
                            self.context.network.report(*peer, Offence::Unverifiable);
                        }
                    }
                    targets.insert(index, (pair, SliverRecovery::new(shape, axis)));
                    return Ok(wrong);
                }
                Err(RecoverError::Mismatch) => {
                    let verdict = dispute::settle(self, (axis, index), &recovery, sources).await?;
                    targets.insert(index, (pair, recovery));
                    match verdict {
                        Verdict::Writer(evidence) => return Err(Halt::Inconsistent(evidence)),
                        Verdict::Wrong(crossings) => {
                            for (_, recovery) in targets.values_mut() {
                                crossings.iter().for_each(|crossing| recovery.remove(*crossing));
                            }
                            return Ok(crossings);
                        }
                    }
                }
            }
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use protocol::encoding::BlobShape;

    use super::*;
    use crate::repair::Config;

    #[test]
    fn slivers_are_rebuilt_together_as_far_as_they_fit() {
        assert_eq!(slivers_at_once(100, 5), 10);
        assert_eq!(slivers_at_once(99, 5), 9);
        assert_eq!(slivers_at_once(9, 5), 1, "one does not fit, and is rebuilt all the same");
    }

    #[test]
    fn the_bound_splits_only_what_nodes_of_many_shards_lost() {
        let at_once = |n, axis| {
            let segment = BlobShape::new(n, 1 << 30).unwrap().segment(SegmentIndex(0)).unwrap();
            slivers_at_once(Config::default().segment_bytes, segment.sliver_bytes(axis))
        };
        for axis in [Axis::Primary, Axis::Secondary] {
            assert!(at_once(13, axis) >= 4, "a third of the shards of a small network");
            assert!((33..333).contains(&at_once(1000, axis)), "{}", at_once(1000, axis));
        }
    }
}
