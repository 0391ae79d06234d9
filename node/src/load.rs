//! How busy an actor is: counters that it and its mailbox keep, for whoever watches the node.
//!
//! Counting is one addition that waits for nobody, and nothing is decided by these numbers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use swarm::QueueLoad;
use tokio::sync::mpsc;

/// What went through a mailbox since the start. Cheap to clone: clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    taken: AtomicU64,
    refused: AtomicU64,
}

impl Work {
    /// The actor took up messages.
    pub(crate) fn took(&self, messages: usize) {
        self.0.taken.fetch_add(u64::try_from(messages).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The mailbox was full.
    pub(crate) fn refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages taken up.
    pub(crate) fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// How full the mailbox is.
    pub(crate) fn load<T>(&self, mailbox: &mpsc::Sender<T>) -> QueueLoad {
        QueueLoad {
            waiting: mailbox.max_capacity() - mailbox.capacity(),
            capacity: mailbox.max_capacity(),
            taken: self.taken(),
            refused: self.0.refused.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_told_from_what_was_taken() {
        let work = Work::default();
        let (sender, mut receiver) = mpsc::channel(2);
        for message in 0..3 {
            if sender.try_send(message).is_err() {
                work.refused();
            }
        }
        receiver.try_recv().unwrap();
        work.took(1);
        assert_eq!(work.load(&sender), QueueLoad { waiting: 1, capacity: 2, taken: 1, refused: 1 });
    }
}
