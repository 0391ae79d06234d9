//! Whom to ask next for enough of several interchangeable things: pure.
//!
//! The same decisions serve the commitment of a segment (one of the members' copies) and its primary slivers (any `p`
//! of `n`): ask for as many as are needed, best candidates first, and for one more for each that fails or is late. Of a part
//! of a segment, the systematic slivers that hold it are enough, and they alone are asked for until one of them fails or is late.

use std::{collections::BTreeSet, ops::Range};

/// What became of one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Not asked yet, or to be asked again.
    Fresh,
    /// Asked. A late one is no longer counted on, though it may still come.
    Asked { is_late: bool },
    /// Arrived and verified.
    Got,
    /// Did not come; it may if asked again.
    Missed,
    /// Will not come.
    Gone,
}

/// Candidates, of which any `required` will do that are different things, or those that are `sufficient`.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    required: usize,
    /// Things that are enough if they are all there; none if only numbers count.
    sufficient: Range<u16>,
    /// True while only those are asked for.
    is_narrow: bool,
    /// Different things: candidate `i` is thing `i` modulo this.
    n_things: u16,
    fates: Vec<Fate>,
}

impl Plan {
    /// Candidates `0..n`, all of them different things.
    pub(super) fn new(required: usize, n: u16) -> Self {
        let fates = vec![Fate::Fresh; usize::from(n)];
        Self { required, sufficient: 0..0, is_narrow: false, n_things: n, fates }
    }

    /// Candidates `0..2n`, of which only those in `held` exist: two ways to each of `n` things, the better one first.
    pub(super) fn among(required: usize, n: u16, held: &BTreeSet<u16>) -> Self {
        let fate = |index| if held.contains(&index) { Fate::Fresh } else { Fate::Gone };
        Self { fates: (0..2 * n).map(fate).collect(), ..Self::new(required, n) }
    }

    /// Makes some things enough, which are fewer than are required otherwise: they alone are asked for while that goes well.
    pub(super) fn or_all_of(mut self, sufficient: Range<u16>) -> Self {
        self.is_narrow = sufficient.len() < self.required && !sufficient.is_empty();
        self.sufficient = sufficient;
        self
    }

    /// The ways to a thing, the better one first.
    fn ways(&self, thing: u16) -> impl Iterator<Item = (u16, Fate)> {
        let ways = (0..).zip(self.fates.iter().copied());
        ways.skip(thing.into()).step_by(self.n_things.into())
    }

    /// The candidates that have to be asked to have all that is sufficient; none if that is not to be expected any more, because
    /// the only ways left to one of them failed, are late, or are to be avoided.
    fn ask_narrowly(&self, is_avoided: impl Fn(u16) -> bool) -> Option<Vec<u16>> {
        let mut chosen = Vec::new();
        for thing in self.sufficient.clone() {
            let is_counted_on = |fate| matches!(fate, Fate::Got | Fate::Asked { is_late: false });
            if !self.ways(thing).any(|(_, fate)| is_counted_on(fate)) {
                let is_open = |(index, fate): &(u16, Fate)| *fate == Fate::Fresh && !is_avoided(*index);
                chosen.push(self.ways(thing).find(is_open)?.0);
            }
        }
        Some(chosen)
    }

    fn count(&self, matches: impl Fn(Fate) -> bool) -> usize {
        self.fates.iter().filter(|fate| matches(**fate)).count()
    }

    fn set(&mut self, index: u16, fate: Fate) {
        self.fates[usize::from(index)] = fate;
    }

    fn indices(&self, matches: impl Fn(Fate) -> bool) -> Vec<u16> {
        (0..).zip(&self.fates).filter(|(_, fate)| matches(**fate)).map(|(index, _)| index).collect()
    }

    /// The candidates to ask now, marked as asked. Those to be avoided come last, else the order is that of indices.
    pub(super) fn ask(&mut self, is_avoided: impl Fn(u16) -> bool) -> Vec<u16> {
        let narrowly = self.is_narrow.then(|| self.ask_narrowly(&is_avoided)).flatten();
        self.is_narrow = narrowly.is_some();
        let chosen = narrowly.unwrap_or_else(|| {
            let counted_on = self.count(|fate| matches!(fate, Fate::Got | Fate::Asked { is_late: false }));
            let mut chosen = self.indices(|fate| fate == Fate::Fresh);
            chosen.sort_by_key(|index| is_avoided(*index));
            chosen.truncate(self.required.saturating_sub(counted_on));
            chosen
        });
        for index in &chosen {
            self.set(*index, Fate::Asked { is_late: false });
        }
        chosen
    }

    /// Marks a candidate, unless the same thing arrived another way.
    fn mark(&mut self, index: u16, fate: Fate) {
        if self.fates[usize::from(index)] != Fate::Gone {
            self.set(index, fate);
        }
    }

    /// A candidate arrived; false if it is needed no longer.
    pub(super) fn got(&mut self, index: u16) -> bool {
        if self.fates[usize::from(index)] == Fate::Gone {
            return false;
        }
        for fate in self.fates.iter_mut().skip((index % self.n_things).into()).step_by(self.n_things.into()) {
            *fate = Fate::Gone;
        }
        self.set(index, Fate::Got);
        true
    }

    /// A candidate did not arrive; `for_good` if asking again is no use.
    pub(super) fn missed(&mut self, index: u16, for_good: bool) {
        self.mark(index, if for_good { Fate::Gone } else { Fate::Missed });
    }

    /// A candidate takes too long.
    pub(super) fn late(&mut self, index: u16) {
        self.mark(index, Fate::Asked { is_late: true });
    }

    /// Candidates that were asked and are not known to be late.
    pub(super) fn punctual(&self) -> Vec<u16> {
        self.indices(|fate| fate == Fate::Asked { is_late: false })
    }

    /// Candidates that were asked and did not come yet.
    pub(super) fn awaited(&self) -> Vec<u16> {
        self.indices(|fate| matches!(fate, Fate::Asked { .. }))
    }

    /// Candidates that were asked, took too long, and are still awaited.
    pub(super) fn tardy(&self) -> Vec<u16> {
        self.indices(|fate| fate == Fate::Asked { is_late: true })
    }

    /// True while a candidate is left that was not asked.
    pub(super) fn has_fresh(&self) -> bool {
        self.count(|fate| fate == Fate::Fresh) > 0
    }

    /// Makes candidates that did not arrive ones to ask again; false if there are none.
    pub(super) fn retry(&mut self) -> bool {
        let missed = self.indices(|fate| fate == Fate::Missed);
        for index in &missed {
            self.set(*index, Fate::Fresh);
        }
        !missed.is_empty()
    }

    /// Candidates that arrived.
    pub(super) fn n_got(&self) -> usize {
        self.count(|fate| fate == Fate::Got)
    }

    /// Candidates that are needed.
    pub(super) const fn required(&self) -> usize {
        self.required
    }

    /// True once enough arrived.
    pub(super) fn is_complete(&self) -> bool {
        let has = |thing| self.ways(thing).any(|(_, fate)| fate == Fate::Got);
        self.n_got() >= self.required || (!self.sufficient.is_empty() && self.sufficient.clone().all(has))
    }

    /// True once half of what is asked for arrived: from then on the others tell how long one should take.
    pub(super) fn is_half_done(&self) -> bool {
        let needed = if self.is_narrow { self.sufficient.len() } else { self.required };
        self.n_got() > 0 && 2 * self.n_got() >= needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn nobody(_: u16) -> bool {
        false
    }

    #[test]
    fn systematic_ones_come_first_and_those_to_avoid_last() {
        // avoided, first choice of 3 out of 7
        let table: [(&[u16], &[u16]); 4] = [
            (&[], &[0, 1, 2]),
            (&[1], &[0, 2, 3]),
            (&[0, 1, 2], &[3, 4, 5]),
            (&[0, 1, 2, 3, 4, 5], &[6, 0, 1]),
        ];
        for (avoided, expected) in table {
            let mut plan = Plan::new(3, 7);
            assert_eq!(plan.ask(|index| avoided.contains(&index)), expected, "{avoided:?}");
            assert!(plan.ask(nobody).is_empty(), "enough are under way");
        }
    }

    #[test]
    fn only_candidates_that_exist_are_asked() {
        let mut plan = Plan::among(1, 7, &BTreeSet::from([2, 5]));
        assert_eq!(plan.ask(nobody), [2]);
        plan.missed(2, false);
        assert_eq!(plan.ask(nobody), [5]);
        plan.missed(5, true);
        assert!(!plan.has_fresh());
        assert!(plan.retry());
        assert_eq!(plan.ask(nobody), [2]);
    }

    #[test]
    fn another_way_to_the_same_thing_is_tried_last_and_counts_once() {
        // Two of three things; the second one is where it was.
        let mut plan = Plan::among(2, 3, &BTreeSet::from([0, 1, 2, 3, 5]));
        assert_eq!(plan.ask(nobody), [0, 1]);
        plan.late(0);
        plan.missed(1, true);
        assert_eq!(plan.ask(nobody), [2, 3]);
        plan.missed(2, false);
        assert_eq!(plan.ask(nobody), [5]);
        assert!(plan.got(3));
        assert!(!plan.got(0), "it came another way");
        plan.missed(0, false);
        assert_eq!((plan.n_got(), plan.is_complete()), (1, false));
        assert!(plan.retry());
        assert!(plan.ask(nobody).is_empty(), "the other way is under way");
        assert!(plan.got(5));
        assert!(plan.is_complete());
    }

    #[test]
    fn one_more_is_asked_for_each_that_fails_or_is_late() {
        let mut plan = Plan::new(2, 5);
        assert_eq!(plan.ask(nobody), [0, 1]);
        plan.missed(0, true);
        assert_eq!(plan.ask(nobody), [2]);
        plan.late(1);
        assert_eq!(plan.ask(nobody), [3]);
        assert_eq!((plan.punctual(), plan.tardy()), (vec![2, 3], vec![1]));
        plan.got(1);
        assert!(plan.is_half_done());
        plan.missed(2, false);
        assert!(plan.ask(nobody).is_empty(), "the late one came after all");
        plan.got(3);
        assert!(plan.is_complete());
    }

    #[test]
    fn what_is_sufficient_is_asked_for_alone_while_that_goes_well() {
        // Things 1 and 2 of seven are enough, else any four.
        let plan = || Plan::new(4, 7).or_all_of(1..3);
        let mut well = plan();
        assert_eq!(well.ask(nobody), [1, 2]);
        assert!(well.ask(nobody).is_empty());
        well.got(2);
        assert!(well.is_half_done() && !well.is_complete());
        well.got(1);
        assert!(well.is_complete());

        let mut late = plan();
        assert_eq!(late.ask(nobody), [1, 2]);
        late.late(1);
        assert_eq!(late.ask(nobody), [0, 3, 4]);
        late.got(2);
        late.got(3);
        assert!(late.is_half_done() && !late.is_complete());
        late.got(1);
        assert!(late.is_complete(), "it came after all");

        let mut failed = plan();
        assert_eq!(failed.ask(nobody), [1, 2]);
        failed.missed(2, true);
        assert_eq!(failed.ask(nobody), [0, 3, 4]);
        for index in [0, 1, 3] {
            failed.got(index);
        }
        assert!(!failed.is_complete());
        failed.got(4);
        assert!(failed.is_complete());

        assert_eq!(plan().ask(|index| index == 1), [0, 2, 3, 4], "one of them is to be avoided");
    }

    #[test]
    fn another_way_to_what_is_sufficient_comes_before_everything_else() {
        let mut plan = Plan::among(2, 3, &BTreeSet::from([0, 1, 2, 3])).or_all_of(0..1);
        assert_eq!(plan.ask(nobody), [0]);
        plan.late(0);
        assert_eq!(plan.ask(nobody), [3]);
        plan.missed(3, true);
        assert_eq!(plan.ask(nobody), [1, 2]);
        plan.got(0);
        assert!(plan.is_complete());
        let mut plan = Plan::among(2, 3, &BTreeSet::from([0, 1, 2, 3])).or_all_of(0..1);
        assert_eq!(plan.ask(|index| index == 0), [3]);
        // As many as are required anyway are no fewer.
        assert_eq!(Plan::new(2, 3).or_all_of(0..2).ask(|index| index == 0), [1, 2]);
    }

    #[test]
    fn only_what_may_still_come_is_tried_again() {
        let mut plan = Plan::new(2, 3);
        assert_eq!(plan.ask(nobody), [0, 1]);
        plan.missed(0, true);
        plan.missed(1, false);
        assert_eq!(plan.ask(nobody), [2]);
        plan.missed(2, true);
        assert!(!plan.has_fresh());
        assert!(plan.retry());
        assert_eq!(plan.ask(nobody), [1]);
        plan.missed(1, true);
        assert!(!plan.retry());
        assert_eq!((plan.n_got(), plan.required()), (0, 2));
    }
}
