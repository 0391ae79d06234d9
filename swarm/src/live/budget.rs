//! How many bytes of requests are being read, over all peers; and who makes room when it is used up.
//!
//! Whoever sends all but the last byte of many requests would keep everybody else's out for as long as a request may take.
//! So a request that has been read for longer than [`HURRY_AFTER`] makes room for one that needs it: what is honest has
//! either arrived by then, or is told that the node is busy and is sent again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// How long a request may take while others have no room: the longest needs 1.1 Mbit/s. Shorter, and an attacker can have the
/// requests of slow honest clients thrown out; longer, and it holds the budget with less sending: 64 MiB in this time
/// take 270 Mbit/s.
const HURRY_AFTER: Duration = Duration::from_secs(2);

/// A request that is being read.
#[derive(Debug)]
struct Reader {
    began: Instant,
    bytes: usize,
    /// Dropped to have it given up.
    evict: Option<oneshot::Sender<()>>,
}

/// What is left, and who has the rest, the oldest first.
#[derive(Debug)]
struct State {
    free: usize,
    next: u64,
    readers: BTreeMap<u64, Reader>,
}

impl State {
    /// Whether so many bytes more fit for a reader, after others have made room if need be.
    fn take(&mut self, id: u64, bytes: usize, now: Instant) -> bool {
        let mut older = self.readers.iter_mut().filter(|(other, reader)| {
            let is_slow = now.saturating_duration_since(reader.began) > HURRY_AFTER;
            **other != id && is_slow && reader.evict.is_some()
        });
        while self.free < bytes {
            let Some((_, reader)) = older.next() else { return false };
            reader.evict = None;
            self.free += std::mem::take(&mut reader.bytes);
        }
        let Some(reader) = self.readers.get_mut(&id) else { return false };
        if reader.evict.is_none() {
            return false;
        }
        self.free -= bytes;
        reader.bytes += bytes;
        true
    }
}

/// The budget of a channel.
#[derive(Debug)]
pub(super) struct ReadBudget(Mutex<State>);

impl ReadBudget {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { free: bytes, next: 0, readers: BTreeMap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock, and the state is valid after each statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins to be read. What comes with its share is ready once it must make room for another.
    pub(super) fn begin(self: &Arc<Self>) -> (Share, oneshot::Receiver<()>) {
        let (evict, evicted) = oneshot::channel();
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.readers.insert(id, Reader { began: Instant::now(), bytes: 0, evict: Some(evict) });
        (Share { budget: Arc::clone(self), id }, evicted)
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.lock().free
    }
}

/// What one request holds of the budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<ReadBudget>,
    id: u64,
}

impl Share {
    /// Takes so many bytes more, if they fit.
    pub(super) fn take(&self, bytes: usize) -> bool {
        self.budget.lock().take(self.id, bytes, Instant::now())
    }

    /// What it holds.
    #[cfg(feature = "fuzz")]
    pub(super) fn bytes(&self) -> usize {
        self.budget.lock().readers.get(&self.id).map_or(0, |reader| reader.bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        if let Some(reader) = state.readers.remove(&self.id) {
            state.free += reader.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slow_requests_make_room_the_oldest_first_and_no_more_than_needed() {
        let budget = ReadBudget::new(100);
        let (oldest, mut oldest_evicted) = budget.begin();
        assert!(oldest.take(40));
        tokio::time::advance(Duration::from_secs(1)).await;
        let (older, mut older_evicted) = budget.begin();
        assert!(older.take(40));
        let (newest, mut newest_evicted) = budget.begin();
        assert!(!newest.take(30), "nobody has been slow");
        tokio::time::advance(HURRY_AFTER).await;
        assert!(newest.take(30));
        assert!(oldest_evicted.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        assert!(older_evicted.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert!(newest_evicted.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert_eq!(budget.free(), 30);
        assert!(!oldest.take(1), "it was given up");
        drop(oldest);
        assert_eq!(budget.free(), 30, "what it held was given back before");
        drop(older);
        drop(newest);
        assert_eq!(budget.free(), 100);
    }
}
