//! Which faults there are to be, and when: from a seed alone.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::fault::{Fault, Kind};

/// How long it is calm before the first fault.
const FIRST: Duration = Duration::from_secs(5);
/// Pause between one step and the next, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 1_500..6_000;
/// How long a fault lasts, in milliseconds.
const LASTS_MS: std::ops::Range<u64> = 2_000..15_000;
/// How long a node counts as faulty at least of which bytes changed: until all it stores was looked at, twice over.
pub(super) const UNTIL_SCRUBBED: Duration = Duration::from_secs(12);
/// One step in this many has bad weather beside its fault.
const WEATHER_ONE_IN: u32 = 4;
/// One step in this many hits two groups of nodes in two ways at the same time.
const DOUBLE_ONE_IN: u32 = 4;

/// What the plan is made for.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Where all chance comes from.
    pub seed: u64,
    /// When the last fault is over.
    pub duration: Duration,
    /// Kinds of faults.
    pub kinds: Vec<Kind>,
    /// Shards of each node.
    pub weights: Vec<u16>,
    /// Shards that may be faulty at the same time.
    pub max_faulty: u16,
}

/// The faults, by the time at which they begin. Each kind comes as often as the others, but for chance; those that hit nodes at
/// the same time hit at most `max_faulty` shards together, unless it is their kind to hit more.
#[must_use]
pub fn plan(terms: &Terms) -> Vec<Fault> {
    let mut dice = ChaCha8Rng::seed_from_u64(terms.seed);
    let mut faults: Vec<Fault> = Vec::new();
    let (mut storms, mut blows) = (Deck::of(terms, true), Deck::of(terms, false));
    let mut now = FIRST;
    loop {
        let mut step = Vec::new();
        let mut free = terms.max_faulty;
        let mut taken = Vec::new();
        let is_storm = blows.is_empty() || dice.random_ratio(1, WEATHER_ONE_IN);
        if is_storm && let Some(kind) = storms.draw(&mut dice) {
            step.push(fault(kind, Vec::new(), now, &mut dice));
        }
        let n_blows = if dice.random_ratio(1, DOUBLE_ONE_IN) { 2 } else { 1 };
        for _ in 0..n_blows {
            let Some(kind) = blows.draw(&mut dice) else { break };
            if !kind.is_within_model() {
                // Alone: with anything else, it would be another one.
                if step.iter().all(|other: &Fault| other.kind.is_weather()) {
                    let nodes = nodes(terms, kind, &[], &mut dice);
                    step.push(fault(kind, nodes, now, &mut dice));
                } else {
                    blows.put_back(kind);
                }
                break;
            }
            let nodes = pick(terms, (kind, free), &taken, &mut dice);
            if nodes.is_empty() {
                blows.put_back(kind);
                break;
            }
            free = free.saturating_sub(weight(terms, &nodes));
            taken.extend(&nodes);
            step.push(fault(kind, nodes, now, &mut dice));
        }
        if step.is_empty() {
            return faults;
        }
        let end = step.iter().map(|fault| fault.at + fault.lasts).max().unwrap_or(now);
        if end > terms.duration {
            return faults;
        }
        faults.extend(step);
        now = end + Duration::from_millis(dice.random_range(PAUSE_MS));
    }
}

/// Shards of nodes.
pub(super) fn weight(terms: &Terms, nodes: &[usize]) -> u16 {
    nodes.iter().filter_map(|node| terms.weights.get(*node)).sum()
}

fn shuffled(terms: &Terms, dice: &mut ChaCha8Rng) -> Vec<usize> {
    let mut nodes: Vec<usize> = (0..terms.weights.len()).collect();
    nodes.shuffle(dice);
    nodes
}

/// Nodes to be hit that are not among `taken`: one, or as many as `free` shards allow.
fn pick(terms: &Terms, (kind, free): (Kind, u16), taken: &[usize], dice: &mut ChaCha8Rng) -> Vec<usize> {
    let is_one = dice.random_bool(0.5) && kind != Kind::Split;
    let mut picked: Vec<usize> = Vec::new();
    for node in nodes(terms, kind, taken, dice) {
        let mut more = picked.clone();
        more.push(node);
        if weight(terms, &more) <= free {
            picked = more;
        }
        if is_one && !picked.is_empty() {
            break;
        }
    }
    picked.sort_unstable();
    picked
}

/// The nodes that may be hit in the order of their turns; of kinds outside the model, those that are: just more than may be faulty.
fn nodes(terms: &Terms, kind: Kind, taken: &[usize], dice: &mut ChaCha8Rng) -> Vec<usize> {
    let mut nodes = shuffled(terms, dice);
    nodes.retain(|node| !taken.contains(node));
    if !kind.is_within_model() {
        let enough = (1..=nodes.len()).find(|n| weight(terms, &nodes[..*n]) > terms.max_faulty);
        nodes.truncate(enough.unwrap_or(nodes.len()));
        nodes.sort_unstable();
    }
    nodes
}

fn fault(kind: Kind, nodes: Vec<usize>, at: Duration, dice: &mut ChaCha8Rng) -> Fault {
    let lasts = Duration::from_millis(dice.random_range(LASTS_MS));
    let strength = match kind {
        Kind::Delay => dice.random_range(10..150),
        Kind::Lose => dice.random_range(1..15),
        Kind::Skew => {
            let seconds: i64 = dice.random_range(30..600);
            if dice.random_bool(0.5) { seconds } else { -seconds }
        }
        Kind::Corrupt => dice.random_range(1..20),
        _ => 0,
    };
    let lasts = if kind == Kind::Corrupt { lasts.max(UNTIL_SCRUBBED) } else { lasts };
    Fault { kind, nodes, at, lasts, strength }
}

/// Kinds in a random order, over and over.
struct Deck {
    kinds: Vec<Kind>,
    left: Vec<Kind>,
}

impl Deck {
    fn of(terms: &Terms, is_weather: bool) -> Self {
        let mut kinds: Vec<Kind> =
            terms.kinds.iter().copied().filter(|kind| kind.is_weather() == is_weather).collect();
        kinds.sort_unstable();
        kinds.dedup();
        Self { kinds, left: Vec::new() }
    }

    const fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    fn draw(&mut self, dice: &mut ChaCha8Rng) -> Option<Kind> {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            self.left.shuffle(dice);
        }
        self.left.pop()
    }

    fn put_back(&mut self, kind: Kind) {
        self.left.push(kind);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn terms(seed: u64, kinds: &[Kind]) -> Terms {
        let weights = vec![2, 2, 2, 2, 2, 2, 1];
        Terms { seed, duration: 10 * MINUTE, kinds: kinds.to_vec(), weights, max_faulty: 4 }
    }

    fn within() -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| kind.is_within_model()).collect()
    }

    #[test]
    fn a_seed_gives_one_plan_that_ends_in_time_with_every_kind_and_stays_within_the_model() {
        for seed in 0..100 {
            let terms = terms(seed, &within());
            let faults = plan(&terms);
            assert_eq!(faults, plan(&terms));
            let kinds: BTreeSet<Kind> = faults.iter().map(|fault| fault.kind).collect();
            assert_eq!(kinds, within().into_iter().collect(), "{seed}");
            assert!(faults.is_sorted_by_key(|fault| fault.at));
            for fault in &faults {
                let end = fault.at + fault.lasts;
                assert!(end <= terms.duration);
                assert_eq!(fault.nodes.is_empty(), fault.kind.is_weather(), "{fault}");
                let overlaps = |other: &&Fault| other.at <= end && other.at + other.lasts >= fault.at;
                let hit: Vec<usize> =
                    faults.iter().filter(overlaps).flat_map(|other| other.nodes.clone()).collect();
                let distinct: BTreeSet<usize> = hit.iter().copied().collect();
                assert_eq!(distinct.len(), hit.len(), "{fault}");
                assert!(weight(&terms, &hit) <= 4, "{fault}");
            }
        }
        assert_ne!(plan(&terms(1, &within())), plan(&terms(2, &within())));
    }

    #[test]
    fn outside_the_model_just_too_many_are_hit_and_nothing_else_at_the_time() {
        for seed in 0..100 {
            let terms = terms(seed, &[Kind::Outage, Kind::Majority, Kind::Kill]);
            let faults = plan(&terms);
            for fault in faults.iter().filter(|fault| !fault.kind.is_within_model()) {
                let hit = weight(&terms, &fault.nodes);
                assert!((5..=6).contains(&hit), "{fault}");
                assert_eq!(faults.iter().filter(|other| other.at == fault.at).count(), 1);
            }
            assert!(faults.iter().any(|fault| fault.kind == Kind::Outage));
        }
    }

    #[test]
    fn where_there_is_no_time_or_no_kind_there_is_no_fault() {
        assert_eq!(plan(&terms(1, &[])), []);
        assert_eq!(plan(&Terms { duration: FIRST, ..terms(1, &Kind::ALL) }), []);
        let weather = plan(&terms(1, &[Kind::Delay]));
        assert!(weather.len() > 10 && weather.iter().all(|fault| fault.kind == Kind::Delay));
    }
}
