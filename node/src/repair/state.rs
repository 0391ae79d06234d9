//! Which blob to look at next; no I/O, no clock. Time is the time since some start.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::BlobId;

/// How looking at a blob ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is missing, or the blob is none of ours to repair any more.
    Whole,
    /// Slivers are still missing: peers could not help.
    Missing(u32),
    /// Slivers are missing, but a client is still sending them.
    BeingSent(u32),
}

/// Pauses between attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    /// After the first failure; doubles with each further one.
    pub(super) first: Duration,
    /// Longest pause.
    pub(super) longest: Duration,
    /// While a client is still sending the blob.
    pub(super) being_sent: Duration,
}

/// The blobs to look at, and when.
#[derive(Debug)]
pub(super) struct State {
    pauses: Pauses,
    capacity: usize,
    due: BTreeSet<(Duration, BlobId)>,
    /// When each queued blob is due, and how often it has failed in a row.
    queued: BTreeMap<BlobId, (Duration, u32)>,
    /// Blobs being looked at, and whether a hint came meanwhile.
    in_hand: BTreeMap<BlobId, (u32, bool)>,
    /// Slivers known to be missing, by blob.
    missing: BTreeMap<BlobId, u32>,
    /// Where the pass over all blobs goes on; `None` when there is none under way.
    pass: Option<Option<BlobId>>,
    /// A pass has been completed since the start.
    passed: bool,
}

impl State {
    /// Returns a state with `capacity` places in the queue and a pass over all blobs to begin with.
    pub(super) const fn new(pauses: Pauses, capacity: usize) -> Self {
        Self {
            pauses,
            capacity,
            due: BTreeSet::new(),
            queued: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            missing: BTreeMap::new(),
            pass: Some(None),
            passed: false,
        }
    }

    /// Something may be missing of this blob.
    pub(super) fn hint(&mut self, now: Duration, blob_id: BlobId) {
        if let Some((_, again)) = self.in_hand.get_mut(&blob_id) {
            *again = true;
        } else {
            self.enqueue(blob_id, now, 0);
        }
    }

    /// Something may be missing of any blob.
    pub(super) fn hint_all(&mut self) {
        if self.pass.is_none() {
            self.pass = Some(None);
        }
    }

    fn enqueue(&mut self, blob_id: BlobId, at: Duration, failures: u32) {
        if let Some((due, _)) = self.queued.get(&blob_id) {
            if *due <= at {
                return;
            }
            self.due.remove(&(*due, blob_id));
        } else if self.queued.len() >= self.capacity {
            // No room: a pass over everything finds it again.
            self.hint_all();
            return;
        }
        self.queued.insert(blob_id, (at, failures));
        self.due.insert((at, blob_id));
    }

    /// The next blob to look at, if one is due.
    pub(super) fn take(&mut self, now: Duration) -> Option<BlobId> {
        let (at, blob_id) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.remove(&(at, blob_id));
        let (_, failures) = self.queued.remove(&blob_id)?;
        self.in_hand.insert(blob_id, (failures, false));
        Some(blob_id)
    }

    /// When the next blob is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Books how looking at a blob ended.
    pub(super) fn done(&mut self, now: Duration, blob_id: BlobId, outcome: Outcome) {
        let Some((failures, again)) = self.in_hand.remove(&blob_id) else { return };
        let (missing, pause, failures) = match outcome {
            Outcome::Whole => (0, None, 0),
            Outcome::Missing(missing) => {
                let factor = 1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX);
                let pause = self.pauses.first.saturating_mul(factor).min(self.pauses.longest);
                (missing, Some(pause), failures.saturating_add(1))
            }
            Outcome::BeingSent(missing) => (missing, Some(self.pauses.being_sent), failures),
        };
        if missing == 0 {
            self.missing.remove(&blob_id);
        } else {
            self.missing.insert(blob_id, missing);
        }
        if again {
            self.enqueue(blob_id, now, 0);
        } else if let Some(pause) = pause {
            self.enqueue(blob_id, now + pause, failures);
        }
    }

    /// Where to list blobs from, if a pass is under way and the queue has room for `page` of them.
    pub(super) fn wants_page(&self, page: usize) -> Option<Option<BlobId>> {
        self.pass.filter(|_| self.queued.len() + page <= self.capacity)
    }

    /// Takes a page of a pass; an empty one ends it.
    pub(super) fn page(&mut self, now: Duration, blobs: &[BlobId]) {
        match blobs.last() {
            Some(last) => self.pass = Some(Some(*last)),
            None => {
                self.pass = None;
                self.passed = true;
            }
        }
        for blob_id in blobs {
            if !self.in_hand.contains_key(blob_id) && !self.queued.contains_key(blob_id) {
                self.enqueue(*blob_id, now, 0);
            }
        }
    }

    /// Brings everything that waits forward: peers that were away are back.
    pub(super) fn hurry(&mut self, now: Duration) {
        let late: Vec<_> = self.due.iter().filter(|(at, _)| *at > now).map(|(_, blob_id)| *blob_id).collect();
        for blob_id in late {
            self.enqueue(blob_id, now, 0);
        }
    }

    /// Slivers known to be missing.
    pub(super) fn missing(&self) -> u64 {
        self.missing.values().map(|missing| u64::from(*missing)).sum()
    }

    /// True if every blob has been looked at since the start and none waits.
    pub(super) fn is_settled(&self) -> bool {
        self.passed && self.pass.is_none() && self.queued.is_empty() && self.in_hand.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BlobId = BlobId([1; 32]);
    const B: BlobId = BlobId([2; 32]);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn state(capacity: usize) -> State {
        let pauses = Pauses { first: seconds(1), longest: seconds(4), being_sent: seconds(2) };
        let mut state = State::new(pauses, capacity);
        state.page(seconds(0), &[]);
        state
    }

    #[test]
    fn a_blob_is_looked_at_once_at_a_time_and_again_after_a_hint() {
        let mut state = state(10);
        state.hint(seconds(0), A);
        state.hint(seconds(0), A);
        assert_eq!(state.take(seconds(0)), Some(A));
        assert_eq!(state.take(seconds(0)), None);
        state.hint(seconds(1), A);
        assert_eq!(state.take(seconds(1)), None);
        state.done(seconds(2), A, Outcome::Whole);
        assert_eq!(state.take(seconds(2)), Some(A));
        state.done(seconds(3), A, Outcome::Whole);
        assert_eq!(state.take(seconds(9)), None);
        assert!(state.is_settled());
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_a_bound() {
        let mut state = state(10);
        state.hint(seconds(0), A);
        let mut now = seconds(0);
        for pause in [1, 2, 4, 4] {
            assert_eq!(state.take(now), Some(A));
            state.done(now, A, Outcome::Missing(3));
            assert_eq!(state.missing(), 3);
            assert_eq!(state.next_due(), Some(now + seconds(pause)));
            now += seconds(pause);
        }
        state.hurry(now - seconds(1));
        assert_eq!(state.take(now - seconds(1)), Some(A));
        state.done(now, A, Outcome::BeingSent(2));
        assert_eq!(state.next_due(), Some(now + seconds(2)));
        assert_eq!(state.take(now + seconds(2)), Some(A));
        state.done(now, A, Outcome::Whole);
        assert_eq!(state.missing(), 0);
    }

    #[test]
    fn a_full_queue_turns_hints_into_a_pass() {
        let mut state = state(1);
        assert_eq!(state.wants_page(1), None);
        state.hint(seconds(0), A);
        state.hint(seconds(0), B);
        assert!(!state.is_settled());
        assert_eq!(state.wants_page(1), None, "there is no room for a page");
        assert_eq!(state.take(seconds(0)), Some(A));
        state.done(seconds(0), A, Outcome::Whole);
        assert_eq!(state.wants_page(1), Some(None));
        state.page(seconds(0), &[B]);
        assert_eq!(state.take(seconds(0)), Some(B));
        state.done(seconds(0), B, Outcome::Whole);
        assert_eq!(state.wants_page(1), Some(Some(B)));
        state.page(seconds(0), &[]);
        assert!(state.is_settled());
    }
}
