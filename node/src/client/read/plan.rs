//! Whom to ask next for enough of several interchangeable things: pure.
//!
//! The same decisions serve the commitment of a segment (one of the members' copies) and its primary slivers (any `p`
//! of `n`): ask for as many as are needed, best candidates first, and for one more for each that fails or is late.

use std::collections::BTreeSet;

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

/// Candidates, of which any `required` will do that are different things.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    required: usize,
    /// Different things: candidate `i` is thing `i` modulo this.
    n_things: u16,
    fates: Vec<Fate>,
}

impl Plan {
    /// Candidates `0..n`, all of them different things.
    pub(super) fn new(required: usize, n: u16) -> Self {
        Self { required, n_things: n, fates: vec![Fate::Fresh; usize::from(n)] }
    }

    /// Candidates `0..2n`, of which only those in `held` exist: two ways to each of `n` things, the better one first.
    pub(super) fn among(required: usize, n: u16, held: &BTreeSet<u16>) -> Self {
        let fate = |index| if held.contains(&index) { Fate::Fresh } else { Fate::Gone };
        Self { required, n_things: n, fates: (0..2 * n).map(fate).collect() }
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
        let counted_on = self.count(|fate| matches!(fate, Fate::Got | Fate::Asked { is_late: false }));
        let mut chosen = self.indices(|fate| fate == Fate::Fresh);
        chosen.sort_by_key(|index| is_avoided(*index));
        chosen.truncate(self.required.saturating_sub(counted_on));
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
        self.n_got() >= self.required
    }

    /// True once half of what is needed arrived: from then on the others tell how long one should take.
    pub(super) fn is_half_done(&self) -> bool {
        self.n_got() > 0 && 2 * self.n_got() >= self.required
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
