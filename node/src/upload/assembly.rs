//! Slivers in the making; no I/O, no clock.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use protocol::{
    BlobId, PeerId,
    message::{RANGE_BYTES_MAX, SliverAt},
};

use crate::sliver_store::SliverRecord;

/// Why a part was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PartError {
    /// The part does not begin or end where a part does; the sender is at fault.
    #[error("a part begins at a multiple of {RANGE_BYTES_MAX} bytes and fills it, or ends the sliver")]
    Misplaced,
    /// Too many slivers are in the making.
    #[error("too many slivers are in the making")]
    Busy,
}

/// One sliver in the making.
#[derive(Debug)]
struct Assembly {
    from: PeerId,
    record: SliverRecord,
    /// One flag a part.
    received: Vec<bool>,
    missing: usize,
    touched: Duration,
}

/// A sliver of which every part came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// Its bytes, where they were put together.
    pub(super) record: SliverRecord,
    /// Bytes that it goes on taking of its sender's share, until [`Assemblies::release`].
    pub(super) reserved: usize,
}

/// All slivers in the making. Time is the time since some start.
#[derive(Debug)]
pub(super) struct Assemblies {
    bytes_max: usize,
    /// Share of `bytes_max` that one peer may take.
    bytes_max_per_peer: usize,
    /// Bytes of every part but the last.
    part_bytes: usize,
    idle_max: Duration,
    /// INV: what `bytes_of` adds up to; slivers that are whole count until they are released.
    bytes: usize,
    slivers: BTreeMap<(PeerId, SliverAt), Assembly>,
    bytes_of: BTreeMap<PeerId, usize>,
}

impl Assemblies {
    /// Returns assemblies that hold at most `bytes_max` bytes, half of them of one peer, and forget a sliver of which
    /// nothing came for `idle_max`.
    pub(super) const fn new(bytes_max: usize, idle_max: Duration) -> Self {
        Self {
            bytes_max,
            bytes_max_per_peer: bytes_max.div_ceil(2),
            part_bytes: RANGE_BYTES_MAX,
            idle_max,
            bytes: 0,
            slivers: BTreeMap::new(),
            bytes_of: BTreeMap::new(),
        }
    }

    /// Takes a part of a sliver of `len` bytes; returns the sliver once it is whole. It then still waits to be checked
    /// and written, which takes as much memory as before: its bytes stay booked until [`Self::release`].
    pub(super) fn part(
        &mut self,
        now: Duration,
        (from, at): (PeerId, SliverAt),
        len: usize,
        (offset, part): (usize, &Bytes),
    ) -> Result<Option<Whole>, PartError> {
        let is_placed = offset.is_multiple_of(self.part_bytes)
            && offset < len
            && part.len() == self.part_bytes.min(len - offset);
        if !is_placed {
            return Err(PartError::Misplaced);
        }
        // A sliver that comes in one part is never in the making.
        if part.len() == len {
            return Ok(Some(Whole { record: SliverRecord::from(&part[..]), reserved: 0 }));
        }
        let key = (from, at);
        if !self.slivers.contains_key(&key) {
            self.forget_idle(now);
            let of_peer = self.bytes_of.get(&from).copied().unwrap_or(0);
            if self.bytes + len > self.bytes_max || of_peer + len > self.bytes_max_per_peer {
                return Err(PartError::Busy);
            }
            let n_parts = len.div_ceil(self.part_bytes);
            let assembly = Assembly {
                from,
                record: SliverRecord::zeroed(len),
                received: vec![false; n_parts],
                missing: n_parts,
                touched: now,
            };
            self.bytes += len;
            *self.bytes_of.entry(from).or_default() += len;
            self.slivers.insert(key, assembly);
        }
        let Some(assembly) = self.slivers.get_mut(&key) else { return Err(PartError::Busy) };
        if assembly.record.sliver().len() != len {
            return Err(PartError::Misplaced);
        }
        let received = &mut assembly.received[offset / self.part_bytes];
        if !*received {
            // Only what is new counts as going on: a part sent again and again must not hold the room for ever.
            assembly.touched = now;
            *received = true;
            assembly.missing -= 1;
            assembly.record.sliver_mut()[offset..][..part.len()].copy_from_slice(part);
        }
        if assembly.missing > 0 {
            return Ok(None);
        }
        let whole = self.slivers.remove(&key);
        Ok(whole.map(|assembly| Whole { record: assembly.record, reserved: len }))
    }

    /// Gives back the room of a sliver of `from` that was whole, and is now written or refused.
    pub(super) fn release(&mut self, from: PeerId, reserved: usize) {
        self.bytes = self.bytes.saturating_sub(reserved);
        if let Some(bytes) = self.bytes_of.get_mut(&from) {
            *bytes = bytes.saturating_sub(reserved);
            if *bytes == 0 {
                self.bytes_of.remove(&from);
            }
        }
    }

    /// Forgets what got nothing for too long.
    pub(super) fn forget_idle(&mut self, now: Duration) {
        let idle_max = self.idle_max;
        // Parts are taken in another order than their times were: `now` may be a little before the last touch.
        self.forget(|_, assembly| now.saturating_sub(assembly.touched) > idle_max);
    }

    /// Forgets what a peer was sending: it has gone.
    pub(super) fn forget_peer(&mut self, peer: PeerId) {
        self.forget(|_, assembly| assembly.from == peer);
    }

    /// Forgets what was being sent of a blob: it is no longer taken.
    pub(super) fn forget_blob(&mut self, blob_id: BlobId) {
        self.forget(|at, _| at.blob_id == blob_id);
    }

    /// Forgets a sliver, whoever was sending it: it is on the disk by now.
    pub(super) fn forget_sliver(&mut self, sliver: SliverAt) {
        self.forget(|at, _| *at == sliver);
    }

    /// There are a few hundred at most, since only slivers of several parts are ever in the making.
    fn forget(&mut self, is_over: impl Fn(&SliverAt, &Assembly) -> bool) {
        let over: Vec<_> = self
            .slivers
            .iter()
            .filter(|((_, at), assembly)| is_over(at, assembly))
            .map(|(key, _)| *key)
            .collect();
        for key in over {
            if let Some(assembly) = self.slivers.remove(&key) {
                self.release(assembly.from, assembly.record.sliver().len());
            }
        }
    }

    /// Bytes of all slivers in the making, and of those that are whole and not yet released.
    #[cfg(test)]
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// For [`crate::fuzz`]: a part of a sliver that somebody sends.
#[cfg(feature = "fuzz")]
#[derive(Clone, Debug)]
pub struct Piece {
    /// Who sends it, of which sliver.
    pub of: (PeerId, SliverAt),
    /// Bytes of the sliver.
    pub len: usize,
    /// Where the part begins.
    pub offset: usize,
    /// The part.
    pub part: Bytes,
    /// When it comes.
    pub at: Duration,
}

/// For [`crate::fuzz`]: puts slivers together of parts of `part_bytes`, which may be less than those that travel: to move those
/// would take all the time. At most `bytes_max` bytes may be in the making. Returns how many slivers were whole.
///
/// # Panics
///
/// If the bounds do not hold, or a sliver is not of the bytes that were sent.
#[cfg(feature = "fuzz")]
#[must_use]
pub fn assemble(bytes_max: usize, part_bytes: usize, pieces: &[Piece]) -> usize {
    let mut assemblies = Assemblies { part_bytes, ..Assemblies::new(bytes_max, Duration::from_secs(60)) };
    let mut n_whole = 0;
    for Piece { of, len, offset, part, at } in pieces {
        if let Ok(Some(whole)) = assemblies.part(*at, *of, *len, (*offset, part)) {
            assert_eq!(
                whole.record.sliver().len(),
                *len,
                "a whole sliver has the length that it was said to have"
            );
            assert_eq!(whole.record.sliver()[*offset..][..part.len()], part[..], "the last part is in it");
            assemblies.release(of.0, whole.reserved);
            n_whole += 1;
        }
        assert!(assemblies.bytes <= bytes_max, "{} bytes in the making", assemblies.bytes);
        let held: usize = assemblies.slivers.values().map(|assembly| assembly.record.sliver().len()).sum();
        assert_eq!(held, assemblies.bytes, "what is held is what is booked");
        assert_eq!(
            assemblies.bytes_of.values().sum::<usize>(),
            held,
            "what is booked is booked for somebody"
        );
    }
    n_whole
}

#[cfg(test)]
mod tests {
    use protocol::{SegmentIndex, SliverPairIndex, encoding::Axis};

    use super::*;

    const LEN: usize = 2 * RANGE_BYTES_MAX + 10;
    const PEER: PeerId = PeerId([1; 32]);

    fn at(segment: u32) -> SliverAt {
        SliverAt {
            blob_id: BlobId([9; 32]),
            segment: SegmentIndex(segment),
            pair: SliverPairIndex(0),
            axis: Axis::Primary,
        }
    }

    fn part(index: usize) -> (usize, Bytes) {
        let offset = index * RANGE_BYTES_MAX;
        let len = RANGE_BYTES_MAX.min(LEN - offset);
        (offset, vec![u8::try_from(index + 1).unwrap(); len].into())
    }

    fn take(
        assemblies: &mut Assemblies,
        seconds: u64,
        peer: PeerId,
        segment: u32,
        index: usize,
    ) -> Result<Option<Whole>, PartError> {
        let (offset, bytes) = part(index);
        assemblies.part(Duration::from_secs(seconds), (peer, at(segment)), LEN, (offset, &bytes))
    }

    #[test]
    fn parts_in_any_order_make_the_sliver_once() {
        let mut assemblies = Assemblies::new(10 * LEN, Duration::from_secs(30));
        for index in [2, 0, 2, 0] {
            assert_eq!(take(&mut assemblies, 0, PEER, 0, index), Ok(None));
        }
        let whole = take(&mut assemblies, 0, PEER, 0, 1).unwrap().unwrap();
        assert_eq!(whole.record.sliver(), [part(0).1, part(1).1, part(2).1].concat());
        assert_eq!((whole.reserved, assemblies.bytes()), (LEN, LEN), "it still waits to be written");
        assemblies.release(PEER, whole.reserved);
        assert_eq!(assemblies.bytes(), 0);
    }

    #[test]
    fn misplaced_parts_are_refused() {
        let mut assemblies = Assemblies::new(10 * LEN, Duration::from_secs(30));
        let short = Bytes::from(vec![0; 5]);
        for (offset, bytes) in
            [(1, part(0).1), (0, short.clone()), (2 * RANGE_BYTES_MAX, short), (LEN, Bytes::new())]
        {
            let result = assemblies.part(Duration::ZERO, (PEER, at(0)), LEN, (offset, &bytes));
            assert_eq!(result, Err(PartError::Misplaced));
        }
        let far = assemblies.part(Duration::ZERO, (PEER, at(0)), LEN, (usize::MAX - 1, &Bytes::new()));
        assert_eq!(far, Err(PartError::Misplaced));
        assert_eq!(assemblies.bytes(), 0);
    }

    #[test]
    fn memory_is_bounded_for_each_peer_and_for_all() {
        let mut assemblies = Assemblies::new(4 * LEN, Duration::from_secs(30));
        assert_eq!(take(&mut assemblies, 0, PEER, 0, 0), Ok(None));
        assert_eq!(take(&mut assemblies, 0, PEER, 1, 0), Ok(None));
        assert_eq!(take(&mut assemblies, 0, PEER, 2, 0), Err(PartError::Busy));
        let other = PeerId([2; 32]);
        assert_eq!(take(&mut assemblies, 0, other, 0, 0), Ok(None));
        assert_eq!(take(&mut assemblies, 0, other, 1, 0), Ok(None));
        assert_eq!(take(&mut assemblies, 0, PeerId([3; 32]), 0, 0), Err(PartError::Busy));
        // What nobody goes on with makes room for others.
        assert_eq!(take(&mut assemblies, 31, PeerId([3; 32]), 0, 0), Ok(None));
        assert_eq!(assemblies.bytes(), LEN);
    }

    #[test]
    fn whole_slivers_count_until_they_are_written() {
        let mut assemblies = Assemblies::new(4 * LEN, Duration::from_secs(30));
        for segment in [0, 1] {
            for index in [0, 1] {
                assert_eq!(take(&mut assemblies, 0, PEER, segment, index), Ok(None));
            }
            assert!(take(&mut assemblies, 0, PEER, segment, 2).unwrap().is_some());
        }
        assert_eq!(take(&mut assemblies, 0, PEER, 2, 0), Err(PartError::Busy));
        assemblies.release(PEER, LEN);
        assert_eq!(take(&mut assemblies, 0, PEER, 2, 0), Ok(None));
    }

    #[test]
    fn a_part_sent_again_holds_no_room() {
        let mut assemblies = Assemblies::new(2 * LEN, Duration::from_secs(30));
        for seconds in [0, 20, 40] {
            assert_eq!(take(&mut assemblies, seconds, PEER, 0, 0), Ok(None));
        }
        assert_eq!(
            take(&mut assemblies, 41, PEER, 1, 0),
            Ok(None),
            "the first sliver got nothing new for 41 s"
        );
    }

    #[test]
    fn what_is_over_gives_its_room_back() {
        let (other, elsewhere) = (PeerId([2; 32]), BlobId([8; 32]));
        let filled = || {
            let mut assemblies = Assemblies::new(10 * LEN, Duration::from_secs(30));
            for (peer, segment) in [(PEER, 0), (PEER, 1), (other, 0)] {
                assert_eq!(take(&mut assemblies, 0, peer, segment, 0), Ok(None));
            }
            let at = SliverAt { blob_id: elsewhere, ..at(0) };
            let (offset, bytes) = part(0);
            let taken = assemblies.part(Duration::ZERO, (other, at), LEN, (offset, &bytes));
            assert_eq!((taken, assemblies.bytes()), (Ok(None), 4 * LEN));
            assemblies
        };
        let left = |forget: fn(&mut Assemblies)| {
            let mut assemblies = filled();
            forget(&mut assemblies);
            let of_peers: usize = assemblies.bytes_of.values().sum();
            assert_eq!(of_peers, assemblies.bytes());
            assemblies.bytes() / LEN
        };
        assert_eq!(left(|assemblies| assemblies.forget_peer(PEER)), 2);
        assert_eq!(left(|assemblies| assemblies.forget_blob(BlobId([9; 32]))), 1);
        assert_eq!(left(|assemblies| assemblies.forget_sliver(at(0))), 2, "whoever was sending it");
        assert_eq!(left(|assemblies| assemblies.forget_idle(Duration::from_secs(30))), 4);
        assert_eq!(left(|assemblies| assemblies.forget_idle(Duration::from_secs(31))), 0);
    }

    #[test]
    fn a_clock_read_before_the_last_part_came_is_no_harm() {
        let mut assemblies = Assemblies::new(10 * LEN, Duration::from_secs(30));
        assert_eq!(take(&mut assemblies, 5, PEER, 0, 0), Ok(None));
        assert_eq!(take(&mut assemblies, 4, PEER, 1, 0), Ok(None));
    }
}
