//! Whether a store is as it may be after the power was cut.

use std::collections::BTreeMap;

use super::plan::{Plan, Step};

/// A write, by its batch and its place in it. Ordered as they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The batch, from 1.
    pub batch: u64,
    /// The write in it, from 0.
    pub write: u16,
}

/// What a key was found with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The payload of this write, byte for byte.
    Written(At),
    /// Other bytes, or none although the key is there.
    Unreadable,
}

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Keys of which what was acknowledged is gone, or older.
    pub lost: usize,
    /// Keys with bytes that nobody wrote to them.
    pub wrong: usize,
    /// There is a write such that the store holds what it held right after it, and everything acknowledged is before.
    pub is_prefix: bool,
}

/// What a key should hold: the write that put it there, if the last one did not delete it.
type Contents = BTreeMap<u16, At>;

fn apply(contents: &mut Contents, step: &Step) {
    match step.payload_bytes {
        Some(_) => contents.insert(step.key, step.at),
        None => contents.remove(&step.key),
    };
}

/// Compares what was found with what batches up to `acknowledged` left, and those up to `issued` may have.
#[must_use]
pub fn judge(plan: &Plan, acknowledged: u64, issued: u64, found: &BTreeMap<u16, Found>) -> Verdict {
    judge_steps(|batch| plan.steps(batch), (acknowledged, issued), found)
}

fn judge_steps(
    steps: impl Fn(u64) -> Vec<Step>,
    (acknowledged, issued): (u64, u64),
    found: &BTreeMap<u16, Found>,
) -> Verdict {
    let mut contents = Contents::new();
    (1..=acknowledged).flat_map(&steps).for_each(|step| apply(&mut contents, &step));
    let later: Vec<Step> = (acknowledged + 1..=issued).flat_map(&steps).collect();
    let held: Contents = found
        .iter()
        .filter_map(|(key, found)| match found {
            Found::Written(at) => Some((*key, *at)),
            Found::Unreadable => None,
        })
        .collect();
    let is_later = |key: u16, at: At| later.iter().any(|step| (step.key, step.at) == (key, at));
    let is_deleted_later =
        |key: u16| later.iter().any(|step| step.key == key && step.payload_bytes.is_none());
    let missing = contents.iter().filter(|(key, at)| match found.get(key) {
        None => !is_deleted_later(**key),
        Some(Found::Written(got)) => got < at,
        Some(Found::Unreadable) => false,
    });
    // What was deleted, and that was acknowledged, must not come back.
    let back = held.iter().filter(|(key, at)| !contents.contains_key(key) && !is_later(**key, **at));
    let lost = missing.count() + back.count();
    let wrong = found.values().filter(|found| **found == Found::Unreadable).count();
    let mut is_prefix = contents == held;
    for step in &later {
        apply(&mut contents, step);
        is_prefix |= contents == held;
    }
    Verdict { lost, wrong, is_prefix: is_prefix && wrong == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batch 1 puts keys 1 and 2, batch 2 puts key 1 again and deletes key 2, batch 3 puts keys 3 and 2, batch 4 deletes key 1.
    fn steps(batch: u64) -> Vec<Step> {
        let steps: &[(u16, bool)] = match batch {
            1 => &[(1, true), (2, true)],
            2 => &[(1, true), (2, false)],
            3 => &[(3, true), (2, true)],
            4 => &[(1, false)],
            _ => &[],
        };
        let step = |(write, (key, is_put)): (u16, &(u16, bool))| Step {
            at: At { batch, write },
            key: *key,
            payload_bytes: is_put.then_some(10),
        };
        (0..).zip(steps).map(step).collect()
    }

    #[test]
    fn what_may_be_left_and_what_may_not() {
        let written = |batch, write| Found::Written(At { batch, write });
        let sound = Verdict { lost: 0, wrong: 0, is_prefix: true };
        let lost = |lost| Verdict { lost, wrong: 0, is_prefix: false };
        /// A name, what was found, how far was acknowledged and issued, and what is to be said of it.
        type Case<'a> = (&'a str, &'a [(u16, Found)], (u64, u64), Verdict);
        let cases: &[Case<'_>] = &[
            ("nothing was written", &[], (0, 0), sound),
            ("nothing was acknowledged", &[], (0, 2), sound),
            ("all of it", &[(1, written(1, 0)), (2, written(1, 1))], (1, 1), sound),
            ("half of a batch under way", &[(1, written(1, 0))], (0, 1), sound),
            ("the later half of a batch", &[(2, written(1, 1))], (0, 1), lost(0)),
            ("later than acknowledged", &[(1, written(2, 0))], (1, 2), sound),
            ("a write is gone", &[(1, written(1, 0))], (1, 1), lost(1)),
            ("all are gone", &[], (1, 1), lost(2)),
            ("an older one is there", &[(1, written(1, 0))], (2, 2), lost(1)),
            ("a deleted one is back", &[(1, written(2, 0)), (2, written(1, 1))], (2, 2), lost(1)),
            (
                "deleted, and put again later",
                &[(1, written(2, 0)), (2, written(3, 1)), (3, written(3, 0))],
                (2, 3),
                sound,
            ),
            (
                "put again without what came before",
                &[(1, written(2, 0)), (2, written(3, 1))],
                (2, 3),
                lost(0),
            ),
            ("deleted later", &[(2, written(3, 1)), (3, written(3, 0))], (3, 4), sound),
            (
                "other bytes",
                &[(1, Found::Unreadable), (2, written(1, 1))],
                (1, 1),
                Verdict { lost: 0, wrong: 1, is_prefix: false },
            ),
        ];
        for (name, found, issued, expected) in cases {
            let found = found.iter().copied().collect();
            assert_eq!(judge_steps(steps, *issued, &found), *expected, "{name}");
        }
    }
}
