//! In which order to ask the other members for help; no I/O, no clock.

use std::{collections::BTreeMap, time::Duration};

use protocol::PeerId;

/// For how long a member that let us down is asked last. A silent one costs a timeout each time it is asked, and a
/// segment is asked for in seconds: it must cost that once and not with every segment.
const LAST_FOR: Duration = Duration::from_secs(60);

/// Which members let this node down lately.
#[derive(Debug, Default)]
pub(super) struct Helpers {
    /// INV: one entry a member at most; of members of committees that are over none is as old as [`LAST_FOR`].
    failed: BTreeMap<PeerId, Duration>,
}

impl Helpers {
    /// A member gave no answer, or a wrong one.
    pub(super) fn failed(&mut self, now: Duration, node: PeerId) {
        self.failed.retain(|_, at| now.saturating_sub(*at) < LAST_FOR);
        self.failed.insert(node, now);
    }

    /// A member helped.
    pub(super) fn helped(&mut self, node: PeerId) {
        self.failed.remove(&node);
    }

    /// True if a member let this node down lately.
    pub(super) fn has_failed(&self, now: Duration, node: &PeerId) -> bool {
        self.failed.get(node).is_some_and(|at| now.saturating_sub(*at) < LAST_FOR)
    }

    /// The members in the order in which to ask them: those connected first, those that failed lately last. `turn`
    /// rotates them, so that the load spreads.
    pub(super) fn order(
        &self,
        now: Duration,
        members: impl IntoIterator<Item = (PeerId, bool)>,
        turn: usize,
    ) -> Vec<PeerId> {
        let mut members: Vec<(PeerId, bool)> = members.into_iter().collect();
        let len = members.len().max(1);
        members.rotate_left(turn % len);
        members.sort_by_key(|(node, is_connected)| (self.has_failed(now, node), !is_connected));
        members.into_iter().map(|(node, _)| node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(i: u8) -> PeerId {
        PeerId([i; 32])
    }

    #[test]
    fn who_failed_lately_is_asked_last() {
        let members = || (0..5).map(|i| (peer(i), i != 1));
        let order = |helpers: &Helpers, seconds, turn| {
            let order = helpers.order(Duration::from_secs(seconds), members(), turn);
            order.into_iter().map(|node| node.0[0]).collect::<Vec<_>>()
        };
        let mut helpers = Helpers::default();
        assert_eq!(order(&helpers, 0, 0), [0, 2, 3, 4, 1]);
        assert_eq!(order(&helpers, 0, 13), [3, 4, 0, 2, 1]);
        helpers.failed(Duration::from_secs(10), peer(2));
        assert_eq!(order(&helpers, 20, 0), [0, 3, 4, 1, 2]);
        assert_eq!(order(&helpers, 70, 0), [0, 2, 3, 4, 1], "forgiven");
        helpers.failed(Duration::from_secs(71), peer(0));
        helpers.helped(peer(0));
        assert_eq!(order(&helpers, 72, 0), [0, 2, 3, 4, 1]);
    }
}
