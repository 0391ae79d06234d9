//! Blobs that are not known to be certified, and when something last came for them; no I/O, no clock.

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
#[derive(Debug, Default)]
pub(super) struct Pending(BTreeMap<BlobId, Stage>);

impl Pending {
    /// Something came for a blob, and is about to be kept.
    pub(super) fn touch(&mut self, now: Duration, blob_id: BlobId) -> Result<(), Dropping> {
        match self.0.insert(blob_id, Stage::Touched(now)) {
            Some(Stage::Dropping) => {
                self.0.insert(blob_id, Stage::Dropping);
                Err(Dropping)
            }
            Some(Stage::Touched(_)) | None => Ok(()),
        }
    }

    /// Puts off dropping a blob, if it is one that may be dropped at all.
    pub(super) fn hold(&mut self, now: Duration, blob_id: BlobId) -> Result<(), Dropping> {
        match self.0.get_mut(&blob_id) {
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
        self.0.entry(blob_id).or_insert(Stage::Touched(now));
    }

    /// The blob is certified, invalid, dropped, or to be kept for another reason.
    pub(super) fn settle(&mut self, blob_id: BlobId) {
        self.0.remove(&blob_id);
    }

    /// When something last came for a blob.
    pub(super) fn touched(&self, blob_id: &BlobId) -> Option<Duration> {
        match self.0.get(blob_id)? {
            Stage::Touched(at) => Some(*at),
            Stage::Dropping => None,
        }
    }

    /// Blobs for which nothing came for longer than `ttl`.
    pub(super) fn stale(&self, now: Duration, ttl: Duration) -> Vec<BlobId> {
        let is_stale = |stage: &Stage| is_stale(*stage, now, ttl);
        self.0.iter().filter(|(_, stage)| is_stale(stage)).map(|(blob_id, _)| *blob_id).collect()
    }

    /// Begins to drop a blob, unless something came for it meanwhile. Nothing is kept for it until [`Self::settle`] or
    /// [`Self::found`] after [`Self::settle`].
    pub(super) fn begin_drop(&mut self, now: Duration, ttl: Duration, blob_id: BlobId) -> bool {
        match self.0.get_mut(&blob_id) {
            Some(stage) if is_stale(*stage, now, ttl) => {
                *stage = Stage::Dropping;
                true
            }
            _ => false,
        }
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
        let mut pending = Pending::default();
        pending.touch(seconds(0), A).unwrap();
        pending.found(seconds(1), B);
        pending.found(seconds(9), A);
        assert_eq!(pending.stale(seconds(10), TTL), []);
        assert_eq!(pending.stale(seconds(11), TTL), [A]);
        pending.hold(seconds(11), B).unwrap();
        assert_eq!(pending.stale(seconds(12), TTL), [A]);
        assert!(!pending.begin_drop(seconds(12), TTL, B));
        assert!(pending.begin_drop(seconds(12), TTL, A));
        pending.settle(A);
        assert_eq!(pending.touched(&A), None);
        assert_eq!(pending.touched(&B), Some(seconds(11)));
    }

    #[test]
    fn nothing_is_taken_for_a_blob_while_it_is_dropped() {
        let mut pending = Pending::default();
        pending.touch(seconds(0), A).unwrap();
        assert!(pending.begin_drop(seconds(11), TTL, A));
        for _ in 0..2 {
            assert_eq!(pending.touch(seconds(11), A), Err(Dropping));
            assert_eq!(pending.hold(seconds(11), A), Err(Dropping));
        }
        assert!(!pending.begin_drop(seconds(30), TTL, A), "it is being dropped");
        assert_eq!(pending.stale(seconds(30), TTL), []);
        pending.settle(A);
        pending.touch(seconds(30), A).unwrap();
    }

    #[test]
    fn a_question_about_a_blob_leaves_no_trace() {
        let mut pending = Pending::default();
        pending.hold(seconds(0), A).unwrap();
        assert!(pending.0.is_empty());
    }
}
