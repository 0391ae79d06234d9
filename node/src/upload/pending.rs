//! Blobs for which something came lately, and when; no I/O, no clock.
//!
//! What comes for a blob that the ledger does not know is kept for a while, in a bounded buffer: nobody has paid for it.

use std::{collections::BTreeMap, time::Duration};

use protocol::BlobId;

/// Where such a blob stands. Times are since some start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Something came at this time.
    Touched(Duration),
    /// What came is being dropped: what comes now must come again.
    Dropping,
}

/// A blob is being dropped; try again in a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dropping;

/// The blobs. One for each of which a commitment was stored, so their number is bounded by the disk.
#[derive(Debug)]
pub(super) struct Pending {
    stages: BTreeMap<BlobId, Stage>,
    /// Most bytes for blobs that the ledger does not know.
    unregistered_max: usize,
    /// INV: what `unregistered_of` adds up to.
    unregistered: usize,
    /// Bytes that came for each while the ledger did not know it, since the start.
    unregistered_of: BTreeMap<BlobId, usize>,
}

impl Pending {
    pub(super) const fn new(unregistered_max: usize) -> Self {
        Self { stages: BTreeMap::new(), unregistered_max, unregistered: 0, unregistered_of: BTreeMap::new() }
    }

    /// Books bytes for a blob that the ledger does not know; false if there is no room. `is_known` says of blobs booked
    /// before whether the ledger knows them by now: their room is given back when it is needed.
    pub(super) fn book(&mut self, blob_id: BlobId, bytes: usize, is_known: impl Fn(&BlobId) -> bool) -> bool {
        if self.unregistered.saturating_add(bytes) > self.unregistered_max {
            let known: Vec<BlobId> = self.unregistered_of.keys().copied().filter(|id| is_known(id)).collect();
            known.iter().for_each(|blob_id| self.unbook(blob_id));
        }
        if self.unregistered.saturating_add(bytes) > self.unregistered_max {
            return false;
        }
        self.unregistered += bytes;
        *self.unregistered_of.entry(blob_id).or_default() += bytes;
        true
    }

    fn unbook(&mut self, blob_id: &BlobId) {
        self.unregistered -= self.unregistered_of.remove(blob_id).unwrap_or_default();
    }

    /// Something came for a blob, and is about to be kept.
    pub(super) fn touch(&mut self, now: Duration, blob_id: BlobId) -> Result<(), Dropping> {
        match self.stages.insert(blob_id, Stage::Touched(now)) {
            Some(Stage::Dropping) => {
                self.stages.insert(blob_id, Stage::Dropping);
                Err(Dropping)
            }
            Some(Stage::Touched(_)) | None => Ok(()),
        }
    }

    /// Puts off dropping a blob, if it is one that may be dropped at all.
    pub(super) fn hold(&mut self, now: Duration, blob_id: BlobId) -> Result<(), Dropping> {
        match self.stages.get_mut(&blob_id) {
            Some(Stage::Dropping) => Err(Dropping),
            Some(Stage::Touched(at)) => {
                *at = now;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A blob was found on the disk: as if something had just come for it.
    pub(super) fn found(&mut self, now: Duration, blob_id: BlobId) {
        self.stages.entry(blob_id).or_insert(Stage::Touched(now));
    }

    /// The blob is certified, invalid, dropped, or to be kept for another reason.
    pub(super) fn settle(&mut self, blob_id: BlobId) {
        self.stages.remove(&blob_id);
        self.unbook(&blob_id);
    }

    /// When something last came for a blob.
    pub(super) fn touched(&self, blob_id: &BlobId) -> Option<Duration> {
        match self.stages.get(blob_id)? {
            Stage::Touched(at) => Some(*at),
            Stage::Dropping => None,
        }
    }

    /// Blobs for which nothing came for longer than `ttl`.
    pub(super) fn stale(&self, now: Duration, ttl: Duration) -> Vec<BlobId> {
        let is_stale = |stage: &Stage| is_stale(*stage, now, ttl);
        self.stages.iter().filter(|(_, stage)| is_stale(stage)).map(|(blob_id, _)| *blob_id).collect()
    }

    /// True if nothing came for a blob for longer than `ttl`.
    pub(super) fn is_stale(&self, now: Duration, ttl: Duration, blob_id: &BlobId) -> bool {
        self.stages.get(blob_id).is_some_and(|stage| is_stale(*stage, now, ttl))
    }

    /// Begins to drop a blob, unless that is being done. Nothing is kept for it until [`Self::settle`], or [`Self::found`]
    /// after [`Self::settle`].
    pub(super) fn begin_drop(&mut self, blob_id: BlobId) -> bool {
        self.stages.insert(blob_id, Stage::Dropping) != Some(Stage::Dropping)
    }
}

fn is_stale(stage: Stage, now: Duration, ttl: Duration) -> bool {
    matches!(stage, Stage::Touched(at) if now.saturating_sub(at) > ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BlobId = BlobId([1; 32]);
    const B: BlobId = BlobId([2; 32]);
    const TTL: Duration = Duration::from_secs(10);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_nothing_came_for_is_dropped_and_nothing_else() {
        let mut pending = Pending::new(100);
        pending.touch(seconds(0), A).unwrap();
        pending.found(seconds(1), B);
        pending.found(seconds(9), A);
        assert_eq!(pending.stale(seconds(10), TTL), []);
        assert_eq!(pending.stale(seconds(11), TTL), [A]);
        pending.hold(seconds(11), B).unwrap();
        assert_eq!(pending.stale(seconds(12), TTL), [A]);
        assert!(pending.begin_drop(A));
        pending.settle(A);
        assert_eq!(pending.touched(&A), None);
        assert_eq!(pending.touched(&B), Some(seconds(11)));
    }

    #[test]
    fn nothing_is_taken_for_a_blob_while_it_is_dropped() {
        let mut pending = Pending::new(100);
        pending.touch(seconds(0), A).unwrap();
        assert!(pending.begin_drop(A));
        for _ in 0..2 {
            assert_eq!(pending.touch(seconds(11), A), Err(Dropping));
            assert_eq!(pending.hold(seconds(11), A), Err(Dropping));
        }
        assert!(!pending.begin_drop(A), "it is being dropped");
        assert_eq!(pending.stale(seconds(30), TTL), []);
        pending.settle(A);
        pending.touch(seconds(30), A).unwrap();
    }

    #[test]
    fn a_question_about_a_blob_leaves_no_trace() {
        let mut pending = Pending::new(100);
        pending.hold(seconds(0), A).unwrap();
        assert!(pending.stages.is_empty());
    }

    #[test]
    fn what_nobody_paid_for_has_bounded_room() {
        let mut pending = Pending::new(100);
        assert!(pending.book(A, 60, |_| false));
        assert!(pending.book(B, 40, |_| false));
        assert!(!pending.book(B, 1, |_| false));
        assert!(pending.book(B, 60, |blob_id| *blob_id == A), "A is paid for by now");
        assert!(!pending.book(A, 1, |_| false));
        pending.settle(B);
        assert!(pending.book(A, 100, |_| false));
    }
}
