//! Entries in order.

use super::node::{Node, bit, first_difference};

/// Entries by ascending key.
#[derive(Debug)]
pub struct Entries<'a> {
    /// What is still to be visited, the next on top.
    stack: Vec<&'a Node>,
}

impl<'a> Entries<'a> {
    pub(super) fn all(root: Option<&'a Node>) -> Self {
        Self { stack: root.into_iter().collect() }
    }

    /// Entries whose key is not below `start`.
    pub(super) fn from(root: Option<&'a Node>, start: &[u8]) -> Self {
        let mut stack = Vec::new();
        let Some(mut node) = root else { return Self { stack } };
        // Up to this bit, the start agrees with all keys that a walk by its bits leads to.
        let differs_at = first_difference(start, &node.walk(start).key);
        while let Node::Branch(branch) = node
            && differs_at.is_none_or(|at| branch.bit < at)
        {
            if !bit(start, branch.bit) {
                stack.push(&*branch.right);
            }
            node = branch.children(start).0;
        }
        // All keys under this node are the start, or on one side of it.
        if differs_at.is_none_or(|at| !bit(start, at)) {
            stack.push(node);
        }
        Self { stack }
    }
}

/// The key of the last entry before `start`.
pub(super) fn last_before<'a>(root: Option<&'a Node>, start: &[u8]) -> Option<&'a [u8]> {
    let mut node = root?;
    // Up to this bit, the start agrees with all keys that a walk by its bits leads to.
    let differs_at = first_difference(start, &node.walk(start).key);
    let mut left = None;
    while let Node::Branch(branch) = node
        && differs_at.is_none_or(|at| branch.bit < at)
    {
        if bit(start, branch.bit) {
            left = Some(&*branch.left);
        }
        node = branch.children(start).0;
    }
    // All keys under this node are the start, or on one side of it.
    let mut last = if differs_at.is_some_and(|at| bit(start, at)) { node } else { left? };
    loop {
        match last {
            Node::Leaf(leaf) => return Some(&leaf.key),
            Node::Branch(branch) => last = &branch.right,
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.stack.pop()? {
                Node::Leaf(leaf) => return Some((&leaf.key, &leaf.value)),
                Node::Branch(branch) => {
                    self.stack.push(&*branch.right);
                    self.stack.push(&*branch.left);
                }
            }
        }
    }
}
