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
    /// Slivers are still missing, fewer than before: what was regained may help with the rest.
    Regained(u32),
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
    /// How long repair waits for a client in all: anyone may send something for any blob, again and again.
    pub(super) being_sent_max: Duration,
}

/// What is remembered of a blob from one look to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct History {
    /// Failures in a row.
    failures: u32,
    /// When it was first left to a client that was still sending it.
    deferred: Option<Duration>,
}

/// A blob to look at now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// The blob.
    pub(super) blob_id: BlobId,
    /// Whether it may be left to a client that is still sending it.
    pub(super) may_defer: bool,
}

/// The blobs to look at, and when.
#[derive(Debug)]
pub(super) struct State {
    pauses: Pauses,
    capacity: usize,
    due: BTreeSet<(Duration, BlobId)>,
    /// When each queued blob is due.
    queued: BTreeMap<BlobId, (Duration, History)>,
    /// INV: queued blobs that have failed; at most half of `capacity`, so that they never keep out those that can be
    /// repaired.
    n_failing: usize,
    /// Blobs being looked at, and whether a hint came meanwhile.
    in_hand: BTreeMap<BlobId, (History, bool)>,
    /// Slivers known to be missing, by blob.
    missing: BTreeMap<BlobId, u32>,
    /// Where the pass over all blobs goes on; `None` when there is none under way.
    pass: Option<Option<BlobId>>,
    /// A blob behind the pass may need a look: another one follows.
    pass_again: bool,
    /// A failing blob was left out of the queue: only a pass finds it.
    has_left_out: bool,
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
            n_failing: 0,
            in_hand: BTreeMap::new(),
            missing: BTreeMap::new(),
            pass: Some(None),
            pass_again: false,
            has_left_out: false,
            passed: false,
        }
    }

    /// Something may be missing of this blob.
    pub(super) fn hint(&mut self, now: Duration, blob_id: BlobId) {
        if let Some((_, again)) = self.in_hand.get_mut(&blob_id) {
            *again = true;
        } else {
            self.enqueue(blob_id, now, History::default());
        }
    }

    /// Something may be missing of any blob.
    pub(super) fn hint_all(&mut self) {
        match self.pass {
            None => self.pass = Some(None),
            Some(None) => {}
            // It may be one that the pass has gone by.
            Some(Some(_)) => self.pass_again = true,
        }
    }

    /// Queues a blob, or brings it forward; one that waits longer already has its failures forgotten.
    fn enqueue(&mut self, blob_id: BlobId, at: Duration, mut history: History) {
        if let Some((due, before)) = self.queued.get(&blob_id) {
            if *due <= at {
                return;
            }
            history.deferred = history.deferred.or(before.deferred);
            self.unqueue(blob_id);
        } else if self.queued.len() >= self.capacity {
            // No room: a pass over everything finds it again.
            self.hint_all();
            return;
        }
        self.n_failing += usize::from(history.failures > 0);
        self.queued.insert(blob_id, (at, history));
        self.due.insert((at, blob_id));
    }

    fn unqueue(&mut self, blob_id: BlobId) -> Option<History> {
        let (due, history) = self.queued.remove(&blob_id)?;
        self.due.remove(&(due, blob_id));
        self.n_failing -= usize::from(history.failures > 0);
        Some(history)
    }

    /// The next blob to look at, if one is due.
    pub(super) fn take(&mut self, now: Duration) -> Option<Turn> {
        let (at, blob_id) = *self.due.first()?;
        if at > now {
            return None;
        }
        let history = self.unqueue(blob_id)?;
        self.in_hand.insert(blob_id, (history, false));
        let may_defer = history.deferred.is_none_or(|since| now < since + self.pauses.being_sent_max);
        Some(Turn { blob_id, may_defer })
    }

    /// When the next blob is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Books how looking at a blob ended.
    pub(super) fn done(&mut self, now: Duration, blob_id: BlobId, outcome: Outcome) {
        let Some((mut history, again)) = self.in_hand.remove(&blob_id) else { return };
        let (missing, next) = match outcome {
            Outcome::Whole => (0, None),
            Outcome::Missing(missing) => {
                let factor = 1_u32.checked_shl(history.failures.min(16)).unwrap_or(u32::MAX);
                let pause = self.pauses.first.saturating_mul(factor).min(self.pauses.longest);
                history.failures = history.failures.saturating_add(1);
                (missing, Some(now + pause))
            }
            // At once: each time fewer are missing, so this comes to an end by itself.
            Outcome::Regained(missing) => {
                history.failures = 0;
                (missing, Some(now))
            }
            Outcome::BeingSent(missing) => {
                let since = *history.deferred.get_or_insert(now);
                // Never past the end of the time that a client has.
                let until = since + self.pauses.being_sent_max;
                (missing, Some((now + self.pauses.being_sent).min(until.max(now))))
            }
        };
        if missing == 0 {
            self.missing.remove(&blob_id);
        } else {
            self.missing.insert(blob_id, missing);
        }
        match next {
            _ if again => {
                // What was deferred stays so: a hint must not give a client its time once more.
                let deferred = next.and(history.deferred);
                self.enqueue(blob_id, now, History { failures: 0, deferred });
            }
            Some(_) if history.failures > 0 && self.n_failing >= self.capacity.div_ceil(2) => {
                self.has_left_out = true;
            }
            Some(at) => self.enqueue(blob_id, at, history),
            None => {}
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
                self.pass = std::mem::take(&mut self.pass_again).then_some(None);
                self.passed = true;
            }
        }
        for blob_id in blobs {
            if !self.in_hand.contains_key(blob_id) && !self.queued.contains_key(blob_id) {
                self.enqueue(*blob_id, now, History::default());
            }
        }
    }

    /// Brings everything that waits forward: peers that were away are back.
    pub(super) fn hurry(&mut self, now: Duration) {
        let late: Vec<_> = self.due.iter().filter(|(at, _)| *at > now).map(|(_, blob_id)| *blob_id).collect();
        for blob_id in late {
            self.enqueue(blob_id, now, History::default());
        }
        if std::mem::take(&mut self.has_left_out) {
            self.hint_all();
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

    fn take(state: &mut State, now: Duration) -> Option<BlobId> {
        state.take(now).map(|turn| turn.blob_id)
    }

    fn state(capacity: usize) -> State {
        let pauses = Pauses {
            first: seconds(1),
            longest: seconds(4),
            being_sent: seconds(2),
            being_sent_max: seconds(15),
        };
        let mut state = State::new(pauses, capacity);
        state.page(seconds(0), &[]);
        state
    }

    #[test]
    fn a_blob_is_looked_at_once_at_a_time_and_again_after_a_hint() {
        let mut state = state(10);
        state.hint(seconds(0), A);
        state.hint(seconds(0), A);
        assert_eq!(take(&mut state, seconds(0)), Some(A));
        assert_eq!(take(&mut state, seconds(0)), None);
        state.hint(seconds(1), A);
        assert_eq!(take(&mut state, seconds(1)), None);
        state.done(seconds(2), A, Outcome::Whole);
        assert_eq!(take(&mut state, seconds(2)), Some(A));
        state.done(seconds(3), A, Outcome::Whole);
        assert_eq!(take(&mut state, seconds(9)), None);
        assert!(state.is_settled());
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_a_bound() {
        let mut state = state(10);
        state.hint(seconds(0), A);
        let mut now = seconds(0);
        for pause in [1, 2, 4, 4] {
            assert_eq!(take(&mut state, now), Some(A));
            state.done(now, A, Outcome::Missing(3));
            assert_eq!(state.missing(), 3);
            assert_eq!(state.next_due(), Some(now + seconds(pause)));
            now += seconds(pause);
        }
        state.hurry(now - seconds(1));
        assert_eq!(take(&mut state, now - seconds(1)), Some(A));
        state.done(now, A, Outcome::BeingSent(2));
        assert_eq!(state.next_due(), Some(now + seconds(2)));
        assert_eq!(take(&mut state, now + seconds(2)), Some(A));
        state.done(now, A, Outcome::Whole);
        assert_eq!(state.missing(), 0);
    }

    #[test]
    fn what_was_partly_repaired_is_looked_at_again_at_once() {
        let mut state = state(10);
        state.hint(seconds(0), A);
        let mut now = seconds(0);
        for pause in [1, 2, 4] {
            assert_eq!(take(&mut state, now), Some(A));
            state.done(now, A, Outcome::Missing(3));
            now += seconds(pause);
        }
        assert_eq!(take(&mut state, now), Some(A));
        state.hint(now, B);
        state.done(now + seconds(1), A, Outcome::Regained(2));
        assert_eq!((state.missing(), state.n_failing), (2, 0));
        assert_eq!(take(&mut state, now + seconds(1)), Some(B), "those who waited come first");
        assert_eq!(take(&mut state, now + seconds(1)), Some(A));
        state.done(now + seconds(1), A, Outcome::Missing(2));
        assert_eq!(state.next_due(), Some(now + seconds(2)), "its failures were forgotten");
    }

    #[test]
    fn a_full_queue_turns_hints_into_a_pass() {
        let mut state = state(1);
        assert_eq!(state.wants_page(1), None);
        state.hint(seconds(0), A);
        state.hint(seconds(0), B);
        assert!(!state.is_settled());
        assert_eq!(state.wants_page(1), None, "there is no room for a page");
        assert_eq!(take(&mut state, seconds(0)), Some(A));
        state.done(seconds(0), A, Outcome::Whole);
        assert_eq!(state.wants_page(1), Some(None));
        state.page(seconds(0), &[B]);
        assert_eq!(take(&mut state, seconds(0)), Some(B));
        state.done(seconds(0), B, Outcome::Whole);
        assert_eq!(state.wants_page(1), Some(Some(B)));
        state.page(seconds(0), &[]);
        assert!(state.is_settled());
    }

    #[test]
    fn a_client_that_never_ends_is_waited_for_only_so_long() {
        let mut state = state(10);
        let begin = seconds(100);
        state.hint(begin, A);
        let mut now = begin;
        loop {
            let turn = state.take(now).unwrap();
            if !turn.may_defer {
                break;
            }
            // A hint in between, and one meanwhile, give it no more time.
            if now < begin + seconds(6) {
                state.hint(now, A);
            }
            state.done(now, A, Outcome::BeingSent(1));
            state.hint(now, A);
            now = state.next_due().unwrap().max(now + seconds(1));
        }
        assert_eq!(now, begin + seconds(15));
        // Nor does a failure of what was then tried.
        state.done(now, A, Outcome::Missing(1));
        now = state.next_due().unwrap();
        assert!(!state.take(now).unwrap().may_defer);
        // Once whole, it is like any other.
        state.done(now, A, Outcome::Whole);
        state.hint(now, A);
        assert!(state.take(now).unwrap().may_defer);
    }

    #[test]
    fn blobs_that_fail_leave_half_of_the_queue_to_others() {
        let id = |i: u8| BlobId([i; 32]);
        let mut state = state(4);
        for i in 0..4 {
            state.hint(seconds(0), id(i));
            assert_eq!(take(&mut state, seconds(0)), Some(id(i)));
            state.done(seconds(0), id(i), Outcome::Missing(1));
        }
        assert_eq!(state.queued.len(), 2);
        assert_eq!(state.missing(), 4, "those left out are known to be missing");
        state.hint(seconds(0), id(8));
        state.hint(seconds(0), id(9));
        assert_eq!(take(&mut state, seconds(0)), Some(id(8)));
        assert_eq!(take(&mut state, seconds(0)), Some(id(9)));
        assert_eq!(state.wants_page(1), None);
        // Peers that come back are a reason to look at those left out too.
        state.hurry(seconds(1));
        assert_eq!(state.wants_page(1), Some(None));
    }

    #[test]
    fn what_a_pass_has_gone_by_is_found_by_the_next() {
        let mut state = state(2);
        state.hint_all();
        state.page(seconds(0), &[B]);
        state.hint_all();
        state.page(seconds(0), &[]);
        assert_eq!(state.wants_page(1), Some(None), "something behind the first page may be missing");
        state.page(seconds(0), &[]);
        assert_eq!(state.wants_page(1), None);
    }
}
