//! Whose evidence is being looked at; no I/O, no clock.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::PeerId;

/// Members whose evidence is being looked at: one blob a member at a time, since evidence takes megabytes, and each
/// member for itself, since one that hands its evidence over slowly must not keep the others from being heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attesting(Arc<Mutex<BTreeSet<PeerId>>>);

/// Evidence of a member is being looked at, until this is dropped.
#[derive(Debug)]
pub(super) struct InHand {
    attesting: Attesting,
    from: PeerId,
}

impl Attesting {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<PeerId>> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to look at evidence of a member; `None` if some of it is in hand already.
    pub(super) fn begin(&self, from: PeerId) -> Option<InHand> {
        self.lock().insert(from).then(|| InHand { attesting: self.clone(), from })
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.attesting.lock().remove(&self.from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_heard_once_at_a_time_and_keeps_nobody_waiting() {
        let attesting = Attesting::default();
        let (slow, other) = (PeerId([1; 32]), PeerId([2; 32]));
        let in_hand = attesting.begin(slow).unwrap();
        assert!(attesting.begin(slow).is_none());
        assert!(attesting.begin(other).is_some());
        drop(in_hand);
        assert!(attesting.begin(slow).is_some());
    }
}
