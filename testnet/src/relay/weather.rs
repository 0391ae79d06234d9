//! Who is cut off from whom, and how late and lossy the rest is.

use std::{collections::BTreeMap, time::Duration};

use rand::Rng;
use serde::{Deserialize, Serialize};

/// How long a segment takes that was lost once: the shortest time after which Linux sends again.
const RESEND: Duration = Duration::from_millis(200);
/// How often a segment is lost at most: each time it takes twice as long.
const LOSSES_MAX: u32 = 5;

/// The state of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weather {
    /// The part of the network in which a node is; all others are in the same one.
    parts: BTreeMap<usize, usize>,
    /// Most milliseconds that what is sent takes; it takes at least half of them.
    pub delay_ms: u64,
    /// Percent of segments that are lost.
    pub loss_percent: u32,
}

impl Weather {
    /// Cuts nodes off, each from all others.
    pub fn cut_off(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.split(std::slice::from_ref(node));
        }
    }

    /// Cuts nodes off from the others, but not from each other.
    pub fn split(&mut self, nodes: &[usize]) {
        let part = self.parts.values().max().map_or(1, |last| last + 1);
        for node in nodes {
            self.parts.insert(*node, part);
        }
    }

    /// Joins all parts.
    pub fn join(&mut self) {
        self.parts.clear();
    }

    /// Joins these nodes with all that are not cut off.
    pub fn bring_back(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.parts.remove(node);
        }
    }

    /// True if nothing gets from one node to the other. Who is no node is cut off from none.
    #[must_use]
    pub fn is_cut(&self, from: Option<usize>, to: Option<usize>) -> bool {
        let part = |node: usize| self.parts.get(&node).copied().unwrap_or(0);
        from.zip(to).is_some_and(|(from, to)| part(from) != part(to))
    }

    /// How long the next segment takes.
    pub(super) fn latency(&self, dice: &mut impl Rng) -> Duration {
        let delay = if self.delay_ms == 0 {
            Duration::ZERO
        } else {
            let most = self.delay_ms.saturating_mul(1000);
            Duration::from_micros(dice.random_range(most / 2..=most))
        };
        let mut resent = Duration::ZERO;
        for losses in 0..LOSSES_MAX {
            if !dice.random_ratio(self.loss_percent.min(100), 100) {
                break;
            }
            resent += RESEND * (1 << losses);
        }
        delay + resent
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn parts_hear_nothing_of_each_other() {
        let cut = |weather: &Weather, from: usize, to: usize| weather.is_cut(Some(from), Some(to));
        let mut weather = Weather::default();
        assert!(!cut(&weather, 1, 2));
        weather.cut_off(&[1, 2]);
        weather.split(&[3, 4]);
        for (from, to, is_cut) in
            [(1, 2, true), (1, 0, true), (0, 5, false), (3, 4, false), (3, 0, true), (3, 1, true)]
        {
            assert_eq!(cut(&weather, from, to), is_cut, "{from} {to}");
            assert_eq!(cut(&weather, to, from), is_cut, "{to} {from}");
        }
        assert!(!weather.is_cut(None, Some(1)) && !weather.is_cut(Some(1), None));
        weather.bring_back(&[1]);
        assert!(!cut(&weather, 1, 0) && cut(&weather, 1, 2));
        weather.join();
        assert_eq!(weather, Weather::default());
    }

    #[test]
    fn fair_weather_costs_nothing_and_losses_cost_what_sending_again_does() {
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        let fair = Weather::default();
        assert!((0..100).all(|_| fair.latency(&mut dice) == Duration::ZERO));
        let slow = Weather { delay_ms: 10, ..Weather::default() };
        let within = Duration::from_millis(5)..=Duration::from_millis(10);
        assert!((0..100).all(|_| within.contains(&slow.latency(&mut dice))));
        let lossy = Weather { loss_percent: 10, ..Weather::default() };
        let late = (0..1000).filter(|_| lossy.latency(&mut dice) >= RESEND).count();
        assert!((50..200).contains(&late), "{late}");
        let dead = Weather { loss_percent: 100, ..Weather::default() };
        assert_eq!(dead.latency(&mut dice), RESEND * 31);
    }
}
