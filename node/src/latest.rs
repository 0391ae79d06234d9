//! The latest value of something, to look at and to wait on.
//!
//! Like tokio's `watch`, but those who wait are woken in the order in which they began to. Tokio's wakes them in an order drawn at
//! random, and one seed is to replay a whole network.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// No further value will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no further value will come")]
pub struct Closed;

#[derive(Debug)]
struct Shared<T> {
    current: Mutex<Current<T>>,
    news: Notify,
}

#[derive(Debug)]
struct Current<T> {
    value: T,
    /// Grows with each value.
    version: u64,
    is_closed: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Current<T>> {
        // Nothing that can panic runs under this lock, but for a clone.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where values come from. There is one; when it is dropped, those who wait are told.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Puts a value in the place of the last, and wakes those who wait.
    pub fn send(&self, value: T) {
        let mut current = self.0.lock();
        (current.value, current.version) = (value, current.version + 1);
        drop(current);
        self.0.news.notify_waiters();
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.news.notify_waiters();
    }
}

/// Where values are looked at. A clone has seen what the original has seen.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

/// Returns both ends, with a first value that counts as seen.
#[must_use]
pub fn channel<T>(first: T) -> (Sender<T>, Receiver<T>) {
    let current = Mutex::new(Current { value: first, version: 0, is_closed: false });
    let shared = Arc::new(Shared { current, news: Notify::new() });
    (Sender(Arc::clone(&shared)), Receiver { shared, seen: 0 })
}

impl<T: Clone> Receiver<T> {
    /// The latest value, which does not count as seen by this.
    #[must_use]
    pub fn get(&self) -> T {
        self.shared.lock().value.clone()
    }

    /// The latest value, which counts as seen from now on.
    pub fn see(&mut self) -> T {
        let current = self.shared.lock();
        self.seen = current.version;
        current.value.clone()
    }

    /// Waits for a value that was not seen, and counts it as seen.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`Closed`], if the last value was seen and no further one will come.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            let mut news = std::pin::pin!(self.shared.news.notified());
            // Before looking, so that nothing is missed in between.
            news.as_mut().enable();
            let (version, is_closed) = {
                let current = self.shared.lock();
                (current.version, current.is_closed)
            };
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if is_closed {
                return Err(Closed);
            }
            news.await;
        }
    }

    /// Waits until the latest value is as wanted, and returns it; what is looked at counts as seen.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`Closed`], if it is not and no further one will come.
    pub async fn wait_for(&mut self, mut is_wanted: impl FnMut(&T) -> bool) -> Result<T, Closed> {
        loop {
            let value = self.see();
            if is_wanted(&value) {
                return Ok(value);
            }
            self.changed().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};

    use super::*;

    #[tokio::test]
    async fn the_latest_value_counts() {
        let (sender, mut receiver) = channel(0);
        assert!(receiver.changed().now_or_never().is_none());
        sender.send(1);
        sender.send(2);
        let mut clone = receiver.clone();
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert_eq!((receiver.get(), receiver.changed().now_or_never()), (2, None));
        assert_eq!(clone.see(), 2);
        assert!(clone.changed().now_or_never().is_none());
        sender.send(3);
        drop(sender);
        assert_eq!(receiver.wait_for(|value| *value == 3).await, Ok(3));
        assert_eq!(receiver.changed().await, Err(Closed));
        assert_eq!(clone.wait_for(|value| *value == 4).await, Err(Closed));
    }

    #[tokio::test]
    async fn those_who_wait_are_woken_in_their_order() {
        let (sender, receiver) = channel(0);
        let mut waiting: FuturesUnordered<_> = (0..50)
            .map(|i| {
                let mut receiver = receiver.clone();
                async move { (i, receiver.changed().await) }
            })
            .collect();
        assert!(waiting.next().now_or_never().is_none(), "all of them wait");
        sender.send(1);
        let woken: Vec<i32> = waiting.map(|(i, _)| i).collect().await;
        let mut sorted = woken.clone();
        sorted.sort_unstable();
        assert_eq!(woken, sorted);
    }
}
