//! The most memory that nodes held, and which of them held more than they may (X3): pure.

use crate::cluster::Memory;

/// Memory that no node may ever hold, in bytes: a third of what its container may take, and more than twice the most that was
/// measured (`docs/TESTING.md`).
pub(super) const MEMORY_MAX: u64 = 256 << 20;

/// What was seen of each node.
#[derive(Clone, Debug, Default)]
pub(super) struct Peaks(Vec<u64>);

impl Peaks {
    /// A look at all nodes, in the order of their numbers; none is known of those that have no process. Returns those that are seen
    /// to have held too much for the first time, and how many bytes.
    pub(super) fn saw(&mut self, nodes: &[Option<Memory>]) -> Vec<(usize, u64)> {
        self.0.resize(self.0.len().max(nodes.len()), 0);
        let mut over = Vec::new();
        for (node, (known, seen)) in self.0.iter_mut().zip(nodes).enumerate() {
            let Some(Memory { peak, .. }) = *seen else { continue };
            if *known <= MEMORY_MAX && peak > MEMORY_MAX {
                over.push((node, peak));
            }
            *known = peak.max(*known);
        }
        over
    }

    /// The most that any node held, in bytes; none if nothing was ever known.
    pub(super) fn most(&self) -> Option<u64> {
        self.0.iter().copied().max().filter(|most| *most > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_held_too_much_is_named_once_also_if_its_next_process_holds_less() {
        let at = |peak| Some(Memory { now: 1, peak });
        let mut peaks = Peaks::default();
        assert_eq!((peaks.saw(&[None, None]), peaks.most()), (Vec::new(), None));
        assert_eq!(peaks.saw(&[at(7), at(MEMORY_MAX)]), []);
        assert_eq!(peaks.saw(&[at(MEMORY_MAX + 1), None]), [(0, MEMORY_MAX + 1)]);
        assert_eq!(peaks.saw(&[at(3), at(5)]), []);
        assert_eq!(peaks.saw(&[at(MEMORY_MAX + 2), at(MEMORY_MAX + 3)]), [(1, MEMORY_MAX + 3)]);
        assert_eq!(peaks.most(), Some(MEMORY_MAX + 3));
    }
}
