//! Whether what clients were answered is what was promised: a pure function of the history.
//!
//! Operations on one blob that change something come one after the other, so that there is one order of them. Of one that is
//! not known to be done, both may be true.

use std::{collections::BTreeMap, time::Duration};

use super::history::{Kind, Operation, Outcome, Span};

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Broken {
    /// The promise, as `docs/TESTING.md` names it.
    pub promise: &'static str,
    /// When, after the beginning.
    #[serde(skip)]
    pub at: Duration,
    /// What happened.
    pub what: String,
}

/// How a blob is, as far as clients were told, at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It must be there.
    Stored,
    /// It must not be there.
    Gone,
    /// It may be there, or not.
    Open,
}

/// How a blob stood from `start` to `end`, when the epoch was `epoch` or the one after; `changes` are the operations on it that
/// change something, in their order.
#[must_use]
pub fn standing<'a>(
    changes: impl IntoIterator<Item = &'a Operation>,
    (start, end): (Duration, Duration),
    epoch: u32,
) -> Standing {
    let mut standing = Standing::Gone;
    let mut stored_until = 0;
    for change in changes {
        if change.start > end {
            break;
        }
        // Before the look began, or while it was going on.
        let is_over = change.end < start;
        standing = match (change.kind, &change.outcome) {
            (Kind::Store | Kind::Extend, Outcome::Done { end: until }) if is_over => {
                stored_until = stored_until.max(until.unwrap_or(0));
                Standing::Stored
            }
            (Kind::Delete, Outcome::Done { .. }) if is_over => Standing::Gone,
            // It was there before and after, until whenever.
            (Kind::Extend, _) => standing,
            _ => Standing::Open,
        };
    }
    // The epoch may be over before anybody has seen its end.
    let is_due = stored_until <= epoch.saturating_add(1);
    if standing == Standing::Stored && is_due { Standing::Open } else { standing }
}

/// The operations on each blob that change something, in their order.
#[must_use]
pub fn changes(operations: &[Operation]) -> BTreeMap<u64, Vec<&Operation>> {
    let mut changes: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    let is_change = |operation: &&Operation| !matches!(operation.kind, Kind::Read | Kind::Range);
    for operation in operations.iter().filter(is_change) {
        changes.entry(operation.blob).or_default().push(operation);
    }
    for of_blob in changes.values_mut() {
        of_blob.sort_by_key(|operation| operation.start);
    }
    changes
}

/// Times of which something is known.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// Nothing was broken, so that everything had to be done.
    pub calm: Vec<Span>,
    /// More was down than the model bears, so that nothing could be changed, and whoever wanted to was to be told why.
    pub outages: Vec<Span>,
}

/// Looks at every answer.
#[must_use]
pub fn check(operations: &[Operation], times: &Times) -> Vec<Broken> {
    let changes = changes(operations);
    let mut broken: Vec<Broken> = operations
        .iter()
        .filter_map(|operation| {
            let of_blob = changes.get(&operation.blob).into_iter().flatten().copied();
            let (promise, what) = judge(operation, of_blob, times)?;
            Some(Broken { promise, at: operation.end, what })
        })
        .collect();
    broken.sort_by_key(|broken| broken.at);
    broken
}

fn judge<'a>(
    operation: &Operation,
    changes: impl Iterator<Item = &'a Operation>,
    times: &Times,
) -> Option<(&'static str, String)> {
    let Operation { kind, blob, size, start, end, epoch, .. } = operation;
    let is_within = |spans: &[Span]| spans.iter().any(|span| span.start <= *start && *end <= span.end);
    let what = kind.name();
    let named = format!("blob {blob} of {size} bytes, {:.3} s after the beginning", end.as_secs_f64());
    match &operation.outcome {
        Outcome::Wrong => Some(("D1", format!("other bytes were read than were stored: {named}"))),
        Outcome::Condemned => {
            Some(("H5", format!("it was said to be encoded wrongly, which it was not: {named}")))
        }
        Outcome::Absent => {
            let standing = standing(changes, (*start, *end), *epoch);
            let is_lost = standing == Standing::Stored;
            is_lost.then(|| ("D1", format!("it was said not to be stored, which it is: {named}")))
        }
        Outcome::Done { .. } if matches!(kind, Kind::Read | Kind::Range) => {
            let standing = standing(changes, (*start, *end), *epoch);
            let is_back = standing == Standing::Gone;
            is_back.then(|| {
                ("H6", format!("it was read after it was deleted, or before it was stored: {named}"))
            })
        }
        Outcome::Done { .. } => is_within(&times.outages)
            .then(|| ("L1", format!("a {what} was acknowledged while too few nodes were there: {named}"))),
        Outcome::Failed { why, .. } if is_within(&times.calm) => {
            Some(("L1", format!("a {what} failed while nothing was broken: {named}: {why}")))
        }
        Outcome::Failed { why, is_refusal: false } if is_within(&times.outages) => {
            Some(("L1", format!("a {what} failed for want of nodes, and did not say so: {named}: {why}")))
        }
        Outcome::Failed { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn done(end: u32) -> Outcome {
        Outcome::Done { end: Some(end) }
    }

    fn failed() -> Outcome {
        Outcome::Failed { why: "why".to_owned(), is_refusal: true }
    }

    /// It failed, and does not say that nodes are missing.
    fn broken() -> Outcome {
        Outcome::Failed { why: "why".to_owned(), is_refusal: false }
    }

    fn operation(kind: Kind, (start, end): (u64, u64), outcome: Outcome) -> Operation {
        Operation { kind, blob: 1, size: 5, start: at(start), end: at(end), epoch: 3, outcome }
    }

    #[test]
    fn how_a_blob_stands_follows_from_what_is_known_of_its_changes() {
        use Kind::{Delete, Extend, Store};
        use Standing::{Gone, Open, Stored};
        let stored = || operation(Store, (10, 12), done(9));
        for (changes, look, expected) in [
            (vec![], (0, 1), Gone),
            (vec![stored()], (0, 9), Gone),
            (vec![stored()], (0, 10), Open),
            (vec![stored()], (12, 20), Open),
            (vec![stored()], (13, 20), Stored),
            (vec![operation(Store, (10, 12), failed())], (13, 20), Open),
            (vec![stored(), operation(Delete, (15, 16), done(0))], (13, 14), Stored),
            (vec![stored(), operation(Delete, (15, 16), done(0))], (13, 15), Open),
            (vec![stored(), operation(Delete, (15, 16), done(0))], (16, 18), Open),
            (vec![stored(), operation(Delete, (15, 16), done(0))], (17, 18), Gone),
            (vec![stored(), operation(Delete, (15, 16), failed())], (17, 18), Open),
            (vec![stored(), operation(Extend, (15, 16), failed())], (17, 18), Stored),
            (vec![stored(), operation(Extend, (15, 16), done(20))], (15, 15), Stored),
            // It ends with the epoch after the one that was last seen, or has ended.
            (vec![operation(Store, (10, 12), done(4))], (13, 20), Open),
            (vec![operation(Store, (10, 12), done(5))], (13, 20), Stored),
            (
                vec![operation(Store, (10, 12), done(4)), operation(Extend, (15, 16), done(6))],
                (17, 18),
                Stored,
            ),
        ] {
            let look = (at(look.0), at(look.1));
            assert_eq!(standing(&changes, look, 3), expected, "{changes:?} {look:?}");
        }
    }

    #[test]
    fn each_promise_that_is_broken_is_named() {
        use Kind::{Delete, Range, Read, Store};
        let store = || operation(Store, (10, 12), done(9));
        let delete = || operation(Delete, (30, 31), done(0));
        let cases = [
            (vec![operation(Read, (13, 14), Outcome::Wrong)], Some("D1")),
            (vec![operation(Read, (13, 14), Outcome::Absent)], Some("D1")),
            (vec![operation(Range, (13, 14), Outcome::Condemned)], Some("H5")),
            (vec![operation(Read, (11, 14), Outcome::Absent)], None),
            (vec![delete(), operation(Read, (32, 33), Outcome::Absent)], None),
            (vec![delete(), operation(Range, (32, 33), Outcome::Done { end: None })], Some("H6")),
            (vec![delete(), operation(Range, (31, 33), Outcome::Done { end: None })], None),
            (vec![operation(Read, (1, 2), Outcome::Done { end: None })], Some("H6")),
            (vec![operation(Read, (13, 14), failed())], None),
            (vec![operation(Read, (51, 52), failed())], Some("L1")),
            (vec![operation(Read, (49, 52), failed())], None),
            // While too few nodes are there, what changes something is refused, and the reason is that.
            (vec![operation(Store, (71, 72), done(9))], Some("L1")),
            (vec![operation(Store, (69, 72), done(9))], None),
            (vec![operation(Store, (71, 81), done(9))], None),
            (vec![operation(Delete, (71, 72), Outcome::Done { end: None })], Some("L1")),
            (vec![operation(Read, (71, 72), Outcome::Done { end: None })], None),
            (vec![operation(Read, (71, 72), failed())], None),
            (vec![operation(Read, (71, 72), broken())], Some("L1")),
            (vec![operation(Read, (69, 72), broken())], None),
        ];
        let calm = vec![Span { start: at(50), end: at(60) }];
        let times = Times { calm, outages: vec![Span { start: at(70), end: at(80) }] };
        for (mut history, expected) in cases {
            history.push(store());
            let broken = check(&history, &times);
            assert_eq!(broken.first().map(|broken| broken.promise), expected, "{history:?}");
        }
    }

    #[test]
    fn the_first_broken_promise_comes_first() {
        let late = operation(Kind::Read, (13, 40), Outcome::Wrong);
        let early = operation(Kind::Read, (20, 21), Outcome::Condemned);
        let broken = check(&[late, early], &Times::default());
        assert_eq!(broken.iter().map(|broken| broken.promise).collect::<Vec<_>>(), ["H5", "D1"]);
    }
}
