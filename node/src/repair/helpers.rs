//! In which order to ask the other members for help; no I/O, no clock.

use std::{collections::BTreeMap, time::Duration};

use protocol::NodeIndex;

/// For how long a member that let us down is asked last. A silent one costs a timeout each time it is asked, and a
/// segment is asked for in seconds: it must cost that once and not with every segment.
const LAST_FOR: Duration = Duration::from_secs(60);

/// Which members let this node down lately.
#[derive(Debug, Default)]
pub(super) struct Helpers {
    /// INV: one entry a member at most.
    failed: BTreeMap<NodeIndex, Duration>,
}

impl Helpers {
    /// A member gave no answer, or a wrong one.
    pub(super) fn failed(&mut self, now: Duration, node: NodeIndex) {
        self.failed.insert(node, now);
    }

    /// A member helped.
    pub(super) fn helped(&mut self, node: NodeIndex) {
        self.failed.remove(&node);
    }

    /// The members in the order in which to ask them: those connected first, those that failed lately last. `turn`
    /// rotates them, so that the load spreads.
    pub(super) fn order(
        &self,
        now: Duration,
        members: impl IntoIterator<Item = (NodeIndex, bool)>,
        turn: usize,
    ) -> Vec<NodeIndex> {
        let mut members: Vec<(NodeIndex, bool)> = members.into_iter().collect();
        let len = members.len().max(1);
        members.rotate_left(turn % len);
        let has_failed =
            |node: &NodeIndex| self.failed.get(node).is_some_and(|at| now.saturating_sub(*at) < LAST_FOR);
        members.sort_by_key(|(node, is_connected)| (has_failed(node), !is_connected));
        members.into_iter().map(|(node, _)| node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_failed_lately_is_asked_last() {
        let members = || (0..5).map(|i| (NodeIndex(i), i != 1));
        let order = |helpers: &Helpers, seconds, turn| {
            let order = helpers.order(Duration::from_secs(seconds), members(), turn);
            order.into_iter().map(|node| node.0).collect::<Vec<_>>()
        };
        let mut helpers = Helpers::default();
        assert_eq!(order(&helpers, 0, 0), [0, 2, 3, 4, 1]);
        assert_eq!(order(&helpers, 0, 13), [3, 4, 0, 2, 1]);
        helpers.failed(Duration::from_secs(10), NodeIndex(2));
        assert_eq!(order(&helpers, 20, 0), [0, 3, 4, 1, 2]);
        assert_eq!(order(&helpers, 70, 0), [0, 2, 3, 4, 1], "forgiven");
        helpers.failed(Duration::from_secs(71), NodeIndex(0));
        helpers.helped(NodeIndex(0));
        assert_eq!(order(&helpers, 72, 0), [0, 2, 3, 4, 1]);
    }
}
