//! A value that many can look at and wait for.
//!
//! What `tokio::sync::watch` does, except that those who wait are woken in the order in which they began to. `watch`
//! wakes them in an order that it draws from the runtime's generator, which a simulation cannot seed: one seed would
//! then give several runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<T> {
    value: Arc<T>,
    version: u64,
    is_closed: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Only a change of the value can panic here, and leaves the one before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes the value; dropping it tells those who wait that there will be no more changes.
#[derive(Debug)]
pub(crate) struct ViewSender<T>(Arc<Shared<T>>);

impl<T> ViewSender<T> {
    /// Changes the value, and wakes those who wait.
    pub(crate) fn send_modify(&self, change: impl FnOnce(&mut Arc<T>)) {
        let mut state = self.0.lock();
        change(&mut state.value);
        state.version += 1;
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Replaces the value, and wakes those who wait.
    pub(crate) fn send_replace(&self, value: Arc<T>) {
        self.send_modify(|old| *old = value);
    }
}

impl<T> Drop for ViewSender<T> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_waiters();
    }
}

/// Looks at the value. A clone has seen what the original has.
#[derive(Debug)]
pub(crate) struct View<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> View<T> {
    /// The value now.
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.shared.lock().value)
    }

    /// Waits for a change since the last one seen; `false` if there will be none.
    ///
    /// Cancel safe: yes.
    pub(crate) async fn changed(&mut self) -> bool {
        loop {
            let changed = self.shared.changed.notified();
            {
                // A waiter is woken by what happens after it was made, so nothing is missed in between.
                let state = self.shared.lock();
                if state.version != self.seen {
                    self.seen = state.version;
                    return true;
                }
                if state.is_closed {
                    return false;
                }
            }
            changed.await;
        }
    }

    /// Waits until the value meets a condition; `false` if it never will.
    ///
    /// Cancel safe: yes.
    pub(crate) async fn wait_until(&mut self, mut condition: impl FnMut(&T) -> bool + Send) -> bool {
        loop {
            let (value, version) = {
                let state = self.shared.lock();
                (Arc::clone(&state.value), state.version)
            };
            self.seen = version;
            if condition(&value) {
                return true;
            }
            if !self.changed().await {
                return false;
            }
        }
    }
}

/// Returns both ends of a view of `value`.
pub(crate) fn view<T>(value: Arc<T>) -> (ViewSender<T>, View<T>) {
    let state = Mutex::new(State { value, version: 0, is_closed: false });
    let shared = Arc::new(Shared { state, changed: Notify::new() });
    (ViewSender(Arc::clone(&shared)), View { shared, seen: 0 })
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_in_the_order_of_waiting() {
        let (sender, view) = view(Arc::new(0));
        for round in 1..20 {
            let order = Arc::new(Mutex::new(Vec::new()));
            let mut tasks = JoinSet::new();
            for i in 0..10 {
                let (mut view, order) = (view.clone(), Arc::clone(&order));
                tasks.spawn(async move {
                    assert!(view.wait_until(|value| *value == round).await);
                    order.lock().unwrap().push(i);
                });
            }
            tokio::task::yield_now().await;
            sender.send_replace(Arc::new(round));
            while tasks.join_next().await.is_some() {}
            assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn no_change_is_missed_and_the_end_is_told() {
        let (sender, mut first) = view(Arc::new(0));
        let mut second = first.clone();
        sender.send_modify(|value| *value = Arc::new(1));
        sender.send_modify(|value| *value = Arc::new(2));
        assert!(first.changed().await);
        assert_eq!(*first.get(), 2);
        drop(sender);
        assert!(!first.changed().await);
        assert!(second.changed().await, "a change before the end is still told");
        assert!(!second.changed().await);
        assert!(second.wait_until(|value| *value == 2).await);
        assert!(!second.wait_until(|value| *value == 3).await);
    }
}
