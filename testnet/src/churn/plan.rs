//! What happens in an epoch: a pure function of the seed, the epoch's number and what the ledger says when it begins.
//!
//! # Invariants
//!
//! - Nodes that lack what they answer for, those about to lose their disks included, weigh at most `f` shards.
//! - No node leaves that the network needs: those that stay can take all shards with the cap of one node.
//! - Each decision is drawn from a number of its own, so that one that turns out otherwise changes no other.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Stake of a node of the genesis; others have from half to one and a half times as much.
pub const STAKE: u64 = 1_000_000;
/// What a node keeps at least when stake moves away from it, and what it needs to be selected.
pub const STAKE_MIN: u64 = STAKE / 10;
/// More nodes than can take all shards at the cap: one may be down and another joining.
const SPARE_NODES: usize = 2;

/// The kinds of change that an epoch brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// A node joins.
    Join,
    /// A member leaves.
    Leave,
    /// A member is killed, and starts again with an empty disk.
    Wipe,
    /// Stake moves from one node to another.
    Shift,
}

/// What is the same in all epochs.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Where all chance comes from.
    pub seed: u64,
    /// Shards of the network.
    pub n_shards: u16,
    /// Shards that may be faulty, and the most of one node.
    pub max_faulty: u16,
    /// How long an epoch takes.
    pub epoch: Duration,
    /// How long after its beginning the next committee is selected.
    pub selection: Duration,
    /// Kinds of change that are left out.
    pub without: Vec<Kind>,
}

/// A node that is on the committee, or may be on the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its number.
    pub node: usize,
    /// Its shards in this epoch.
    pub shards: u16,
    /// The most shards that it has on any committee that matters: this one, in a handover the one before, and the next once
    /// that is selected.
    pub weight: u16,
    /// Credits behind it.
    pub stake: u64,
    /// The ledger has it as active: it did not leave.
    pub is_active: bool,
    /// It has what it answers for: it did not lose its disk, or has regained everything.
    pub is_whole: bool,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A new node registers, is staked on, and runs.
    Join {
        /// Its stake.
        stake: u64,
    },
    /// A member leaves.
    Leave {
        /// The member.
        node: usize,
    },
    /// A member is killed, loses its disk, and is started again.
    Wipe {
        /// The member.
        node: usize,
        /// How long it is away.
        away: Duration,
    },
    /// Stake moves.
    Shift {
        /// Whose it was.
        from: usize,
        /// Whose it becomes.
        to: usize,
        /// How much.
        amount: u64,
    },
}

/// A change, and how long after the epoch's beginning it comes.
pub type Due = (Duration, Deed);

/// What happens in an epoch, by time.
#[must_use]
pub fn plan(terms: &Terms, epoch: u32, nodes: &[NodeView]) -> Vec<Due> {
    let mut dice = Dice::new(terms.seed, epoch);
    let mut deeds = Vec::new();
    let wants = |kind| !terms.without.contains(&kind);
    let joins = wants(Kind::Join);

    // What is to have an effect on the next committee comes well before that is selected.
    let (at, stake) = (dice.part(terms.selection, 2..30), STAKE / 100 * dice.draw(50..=150));
    if joins {
        deeds.push((at, Deed::Join { stake }));
    }

    let (at, pick) = (dice.part(terms.selection, 5..60), dice.number());
    let victims: Vec<usize> =
        nodes.iter().filter(|view| may_wipe(terms, nodes, view.node)).map(|view| view.node).collect();
    let (wipe_at, wipe_pick) = (dice.part(terms.epoch, 10..90), dice.number());
    let away = dice.part(terms.epoch, 1..10);
    let wiped = choose(&victims, wipe_pick).filter(|_| wants(Kind::Wipe));

    let active = || nodes.iter().filter(|view| view.is_active);
    let n_after = (active().count() + usize::from(joins)).saturating_sub(1);
    let leavers: Vec<usize> =
        active().filter(|view| view.shards > 0 && Some(view.node) != wiped).map(|view| view.node).collect();
    let left = choose(&leavers, pick).filter(|_| wants(Kind::Leave) && n_after >= nodes_min(terms));
    deeds.extend(left.map(|node| (at, Deed::Leave { node })));
    deeds.extend(wiped.map(|node| (wipe_at, Deed::Wipe { node, away })));

    let (at, from, to) = (dice.part(terms.selection, 10..70), dice.number(), dice.number());
    let percent = dice.draw(5..=25);
    let givers: Vec<&NodeView> =
        active().filter(|view| Some(view.node) != left && view.stake > 2 * STAKE_MIN).collect();
    let giver = choose(&givers, from);
    let takers: Vec<usize> = active()
        .map(|view| view.node)
        .filter(|node| Some(*node) != left && Some(*node) != giver.map(|giver| giver.node))
        .collect();
    if let (Some(giver), Some(to)) = (giver, choose(&takers, to))
        && wants(Kind::Shift)
    {
        let amount = (giver.stake / 100 * percent).min(giver.stake - STAKE_MIN);
        deeds.push((at, Deed::Shift { from: giver.node, to, amount }));
    }
    deeds.sort_by_key(|(at, _)| *at);
    deeds
}

/// True if a member may lose its disk now: those that lack what they answer for stay within what the network bears.
#[must_use]
pub fn may_wipe(terms: &Terms, nodes: &[NodeView], node: usize) -> bool {
    let Some(victim) = nodes.iter().find(|view| view.node == node && view.shards > 0) else {
        return false;
    };
    if !victim.is_whole || !victim.is_active {
        return false;
    }
    let lacking = nodes.iter().filter(|view| !view.is_whole);
    lacking.fold(victim.weight, |weight, view| weight.saturating_add(view.weight)) <= terms.max_faulty
}

/// Fewest active nodes: enough to take all shards at the cap, and some to spare.
fn nodes_min(terms: &Terms) -> usize {
    usize::from(terms.n_shards.div_ceil(terms.max_faulty.max(1))) + SPARE_NODES
}

fn choose<T: Copy>(of: &[T], number: u64) -> Option<T> {
    let n = u64::try_from(of.len()).unwrap_or(u64::MAX);
    let index = number.checked_rem(n)?;
    of.get(usize::try_from(index).unwrap_or(usize::MAX)).copied()
}

struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64, epoch: u32) -> Self {
        // An odd constant: each epoch has a stream of its own.
        Self(ChaCha8Rng::seed_from_u64(seed ^ u64::from(epoch).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    fn number(&mut self) -> u64 {
        self.0.random()
    }

    fn draw(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// A part of a time, in percent.
    fn part(&mut self, whole: Duration, percent: std::ops::Range<u32>) -> Duration {
        whole * self.0.random_range(percent) / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(seed: u64) -> Terms {
        let (epoch, selection) = (Duration::from_secs(30), Duration::from_secs(15));
        Terms { seed, n_shards: 13, max_faulty: 4, epoch, selection, without: Vec::new() }
    }

    fn nodes(shards: &[u16]) -> Vec<NodeView> {
        let view = |(node, shards): (usize, &u16)| NodeView {
            node,
            shards: *shards,
            weight: *shards,
            stake: STAKE,
            is_active: true,
            is_whole: true,
        };
        shards.iter().enumerate().map(view).collect()
    }

    const SHARDS: [u16; 7] = [2, 2, 2, 2, 2, 2, 1];

    #[test]
    fn the_seed_decides_and_every_kind_comes_in_every_epoch() {
        let nodes = nodes(&SHARDS);
        let mut plans = std::collections::BTreeSet::new();
        for seed in 0..50 {
            for epoch in 0..4 {
                let deeds = plan(&terms(seed), epoch, &nodes);
                assert_eq!(deeds, plan(&terms(seed), epoch, &nodes));
                assert!(deeds.is_sorted_by_key(|(at, _)| *at));
                assert!(deeds.iter().all(|(at, _)| *at < terms(seed).epoch));
                let count = |of: fn(&Deed) -> bool| deeds.iter().filter(|(_, deed)| of(deed)).count();
                assert_eq!(count(|deed| matches!(deed, Deed::Join { .. })), 1);
                assert_eq!(count(|deed| matches!(deed, Deed::Leave { .. })), 1);
                assert_eq!(count(|deed| matches!(deed, Deed::Wipe { .. })), 1);
                assert_eq!(count(|deed| matches!(deed, Deed::Shift { .. })), 1);
                plans.insert(format!("{deeds:?}"));
            }
        }
        assert_eq!(plans.len(), 200);
    }

    #[test]
    fn whoever_leaves_or_gives_is_not_wiped_or_given_to() {
        let nodes = nodes(&SHARDS);
        for seed in 0..500 {
            let deeds = plan(&terms(seed), 1, &nodes);
            let mut left = None;
            let mut wiped = None;
            for (_, deed) in &deeds {
                match deed {
                    Deed::Leave { node } => left = Some(*node),
                    Deed::Wipe { node, away } => {
                        wiped = Some(*node);
                        assert!(*away < Duration::from_secs(3));
                    }
                    Deed::Join { stake } => assert!((STAKE / 2..=STAKE + STAKE / 2).contains(stake)),
                    Deed::Shift { from, to, amount } => {
                        assert_ne!(from, to);
                        assert!((1..=STAKE / 4).contains(amount));
                    }
                }
            }
            assert_ne!(left, wiped);
            let touches = |deed: &Deed| matches!(deed, Deed::Shift { from, to, .. } if Some(*from) == left || Some(*to) == left);
            assert!(!deeds.iter().any(|(_, deed)| touches(deed)));
        }
    }

    #[test]
    fn what_lacks_data_stays_within_the_tolerance() {
        let terms = terms(1);
        let mut nodes = nodes(&[2, 3, 3, 2, 1, 1, 1]);
        assert!((0..7).all(|node| may_wipe(&terms, &nodes, node)));
        nodes[1].is_whole = false;
        // Three of four are lacking: one more may be.
        let may: Vec<usize> = (0..7).filter(|node| may_wipe(&terms, &nodes, *node)).collect();
        assert_eq!(may, [4, 5, 6]);
        nodes[4].weight = 2;
        assert!(!may_wipe(&terms, &nodes, 4));
        nodes[3].is_active = false;
        assert!(!may_wipe(&terms, &nodes, 3), "it is leaving");
        nodes[5].shards = 0;
        assert!(!may_wipe(&terms, &nodes, 5), "it has nothing to lose");
        assert!(!may_wipe(&terms, &nodes, 9));
        for epoch in 0..100 {
            for (_, deed) in plan(&terms, epoch, &nodes) {
                if let Deed::Wipe { node, .. } = deed {
                    assert_eq!(node, 6);
                }
            }
        }
    }

    #[test]
    fn nobody_leaves_whom_the_network_needs() {
        // Four nodes at the cap of four take thirteen shards; two are spare, and one is joining.
        let leaves = |nodes: &[NodeView], terms: &Terms| {
            plan(terms, 3, nodes).iter().any(|(_, deed)| matches!(deed, Deed::Leave { .. }))
        };
        assert!(leaves(&nodes(&[3, 2, 2, 2, 2, 2]), &terms(1)));
        assert!(!leaves(&nodes(&[4, 3, 2, 2, 2]), &terms(1)));
        let mut some = nodes(&[3, 2, 2, 2, 2, 2]);
        some[0].is_active = false;
        assert!(!leaves(&some, &terms(1)), "whoever left does not count");
        let alone = Terms { without: vec![Kind::Join], ..terms(1) };
        assert!(!leaves(&nodes(&[3, 2, 2, 2, 2, 2]), &alone));
        assert!(leaves(&nodes(&SHARDS), &alone));
    }

    #[test]
    fn kinds_can_be_left_out_and_the_others_stay_as_they_are() {
        let nodes = nodes(&SHARDS);
        let all = plan(&terms(5), 2, &nodes);
        let without = Terms { without: vec![Kind::Join, Kind::Shift], ..terms(5) };
        let some = plan(&without, 2, &nodes);
        let expected: Vec<Due> = all
            .into_iter()
            .filter(|(_, deed)| matches!(deed, Deed::Leave { .. } | Deed::Wipe { .. }))
            .collect();
        assert_eq!(some, expected);
        let none = Terms { without: vec![Kind::Join, Kind::Leave, Kind::Wipe, Kind::Shift], ..terms(5) };
        assert_eq!(plan(&none, 2, &nodes), []);
        assert!(plan(&terms(5), 2, &[]).len() == 1, "a network of nobody is only joined");
    }
}
