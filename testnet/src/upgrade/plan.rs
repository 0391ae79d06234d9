//! In which order programs are replaced. Pure.

use rand::{Rng as _, seq::SliceRandom as _};
use serde::Serialize;

use crate::content::rng;

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// What runs first.
    Old,
    /// What takes its place.
    New,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Old, Self::New];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }
}

/// A node gets a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The node.
    pub node: usize,
    /// The program.
    pub to: Version,
}

/// Each node once, in some order; then one of them back.
#[must_use]
pub fn steps(seed: u64, n_nodes: usize) -> Vec<Step> {
    let mut dice = rng(seed, 0);
    let mut nodes: Vec<usize> = (0..n_nodes).collect();
    nodes.shuffle(&mut dice);
    let back = dice.random_range(0..n_nodes.max(1));
    let up = nodes.into_iter().map(|node| Step { node, to: Version::New });
    up.chain((back < n_nodes).then_some(Step { node: back, to: Version::Old })).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_node_is_upgraded_once_and_one_goes_back() {
        for seed in 0..50 {
            let steps = steps(seed, 7);
            let (back, up) = steps.split_last().unwrap();
            assert_eq!(up.iter().map(|step| step.node).collect::<BTreeSet<_>>(), (0..7).collect());
            assert!(up.iter().all(|step| step.to == Version::New));
            assert_eq!(up.len(), 7);
            assert!(back.node < 7 && back.to == Version::Old);
            assert_eq!(steps, super::steps(seed, 7));
        }
        assert_ne!(steps(1, 7), steps(2, 7));
        assert!(steps(1, 0).is_empty());
    }
}
