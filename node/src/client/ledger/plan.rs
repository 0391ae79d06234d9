//! Which member is asked next: pure.

use std::collections::VecDeque;

use protocol::NodeIndex;

/// Members in the order in which they are asked.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    waiting: VecDeque<(NodeIndex, u16)>,
}

impl Plan {
    /// Members with their weights; asking begins at the one numbered `start`, modulo their number, with those that
    /// `is_near` before the others.
    pub(super) fn new(
        members: impl IntoIterator<Item = (NodeIndex, u16)>,
        start: usize,
        is_near: impl Fn(NodeIndex) -> bool,
    ) -> Self {
        let mut members: Vec<(NodeIndex, u16)> = members.into_iter().collect();
        if !members.is_empty() {
            let start = start % members.len();
            members.rotate_left(start);
        }
        // Stable: within either part the order stays.
        members.sort_by_key(|(node, _)| !is_near(*node));
        Self { waiting: members.into() }
    }

    /// Members in the order in which they are given.
    pub(super) fn in_order(members: impl IntoIterator<Item = (NodeIndex, u16)>) -> Self {
        Self { waiting: members.into_iter().collect() }
    }

    /// The members not taken yet, in order.
    pub(super) fn members(&self) -> Vec<(NodeIndex, u16)> {
        self.waiting.iter().copied().collect()
    }

    /// The next members, whose shards are at least `weight` if there are as many left.
    pub(super) fn next(&mut self, weight: u16) -> Vec<NodeIndex> {
        let (mut nodes, mut got) = (Vec::new(), 0);
        while got < weight {
            let Some((node, shards)) = self.waiting.pop_front() else { break };
            got += shards;
            nodes.push(node);
        }
        nodes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_turn_those_near_first_and_as_many_as_their_shards_are_needed() {
        let members = || (0..5).map(|i| (NodeIndex(i), 2));
        let nodes = |list: &[u16]| list.iter().copied().map(NodeIndex).collect::<Vec<_>>();
        let mut plan = Plan::new(members(), 8, |node| node.0 == 1);
        assert_eq!(plan.next(3), nodes(&[1, 3]));
        assert_eq!(plan.next(0), nodes(&[]));
        assert_eq!(plan.next(2), nodes(&[4]));
        assert_eq!(plan.next(u16::MAX), nodes(&[0, 2]));
        assert!(plan.is_empty());
        assert!(Plan::new([], 3, |_| true).is_empty());
    }
}
