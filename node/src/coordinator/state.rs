//! What the coordinator remembers, and what follows from it; no I/O, no clock. Time is the time since some start.
//!
//! All of it may be forgotten: it spares doing things twice.

use std::time::Duration;

use protocol::{Epoch, ledger::state::entry::Stage};

use crate::{
    membership::{Roster, Seats},
    repair::Report,
};

/// What it means for this node that a stage has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// The node has just started: others were told long ago, and repair begins with a look at everything.
    pub(super) is_first: bool,
    /// The node is to hold for some place what it was not to hold before.
    pub(super) is_gain: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct State {
    /// Pause before something is tried again that did not succeed.
    again_after: Duration,
    /// The epoch and stage that was last acted on.
    seen: Option<(Epoch, Stage)>,
    /// The places for which repair was last told to look at everything.
    held_for: Seats,
    found_whole: Option<Epoch>,
    /// When something was last found missing, and what repair reported then.
    lacking: Option<(Report, Duration)>,
    /// The epoch for which the ledger was last told that this node is ready, and when.
    said: Option<(Epoch, Duration)>,
}

impl State {
    pub(super) fn new(again_after: Duration) -> Self {
        Self {
            again_after,
            seen: None,
            held_for: Seats::default(),
            found_whole: None,
            lacking: None,
            said: None,
        }
    }

    /// Takes note of where the epoch is; what it means, if another stage has begun.
    pub(super) fn stage(&mut self, roster: &Roster) -> Option<Begun> {
        let now = (roster.epoch(), roster.stage);
        let is_same = |(epoch, stage): (Epoch, Stage)| {
            epoch == now.0 && std::mem::discriminant(&stage) == std::mem::discriminant(&now.1)
        };
        if self.seen.is_some_and(is_same) {
            return None;
        }
        let is_first = self.seen.replace(now).is_none();
        let owed = roster.owed();
        // What it is to hold for an epoch that begins, repair has looked for since the selection.
        let is_gain = !is_first && !self.held_for.include(&owed);
        self.held_for = owed;
        Some(Begun { is_first, is_gain })
    }

    /// The last epoch for which everything was found.
    pub(super) const fn found_whole(&self) -> Option<Epoch> {
        self.found_whole
    }

    /// Everything was found that this node is to hold in an epoch.
    pub(super) const fn whole(&mut self, epoch: Epoch) {
        (self.found_whole, self.lacking) = (Some(epoch), None);
    }

    /// Something was not found, or could not be looked for, while repair reported this.
    pub(super) const fn lacking(&mut self, now: Duration, report: Report) {
        self.lacking = Some((report, now));
    }

    /// How long to wait before everything is checked: not at all, unless something was missing a moment ago and repair reports
    /// nothing else since.
    pub(super) fn check_in(&self, now: Duration, report: Report) -> Duration {
        match self.lacking {
            Some((before, at)) if before == report => (at + self.again_after).saturating_sub(now),
            _ => Duration::ZERO,
        }
    }

    /// How long to wait before the ledger is told that this node is ready for an epoch: not at all, unless it was a moment ago.
    pub(super) fn say_in(&self, now: Duration, epoch: Epoch) -> Duration {
        match self.said {
            Some((said, at)) if said == epoch => (at + self.again_after).saturating_sub(now),
            _ => Duration::ZERO,
        }
    }

    /// The ledger was told.
    pub(super) const fn said(&mut self, now: Duration, epoch: Epoch) {
        self.said = Some((epoch, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::tests::{committee, roster};

    const SELECTED: Stage = Stage::Selected { ends_ms: 9 };

    fn handover(ready_shards: u16) -> Stage {
        Stage::Handover { ready_shards }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_stage_begins_once_and_repair_looks_when_there_is_something_to_gain() {
        let steady = roster(2, None, None);
        let next = committee(6, &[(1, &[0]), (2, &[1, 2]), (3, &[3])]);
        let selected = Roster { stage: SELECTED, next: Some(next.clone()), ..steady.clone() };
        let taken_over = Roster {
            stage: handover(0),
            current: next,
            previous: Some(steady.current.clone()),
            ..steady.clone()
        };
        let ready = Roster { stage: handover(3), ..taken_over.clone() };
        let mut state = State::new(seconds(5));
        let begun = |is_first, is_gain| Some(Begun { is_first, is_gain });
        assert_eq!(state.stage(&steady), begun(true, false));
        assert_eq!(state.stage(&steady), None);
        assert_eq!(state.stage(&selected), begun(false, true));
        assert_eq!(
            state.stage(&taken_over),
            begun(false, false),
            "it has looked for that since the selection"
        );
        assert_eq!(state.stage(&ready), None, "as members say that they are ready");
        // A node that slept through the selection.
        let mut state = State::new(seconds(5));
        state.stage(&steady);
        assert_eq!(state.stage(&taken_over), begun(false, true));
    }

    #[test]
    fn what_was_missing_is_looked_for_again_after_news_or_a_while() {
        let mut state = State::new(seconds(5));
        let (busy, idle) =
            (Report { missing: 3, is_settled: false }, Report { missing: 0, is_settled: true });
        assert_eq!(state.check_in(seconds(10), busy), Duration::ZERO);
        state.lacking(seconds(10), busy);
        assert_eq!(state.check_in(seconds(12), busy), seconds(3));
        assert_eq!(state.check_in(seconds(12), idle), Duration::ZERO);
        assert_eq!(state.check_in(seconds(16), busy), Duration::ZERO);
        state.whole(Epoch(4));
        assert_eq!(
            (state.found_whole(), state.check_in(seconds(12), busy)),
            (Some(Epoch(4)), Duration::ZERO)
        );
    }

    #[test]
    fn readiness_is_said_again_after_a_while_and_for_each_epoch() {
        let mut state = State::new(seconds(5));
        assert_eq!(state.say_in(seconds(1), Epoch(4)), Duration::ZERO);
        state.said(seconds(1), Epoch(4));
        assert_eq!(state.say_in(seconds(2), Epoch(4)), seconds(4));
        assert_eq!(state.say_in(seconds(2), Epoch(5)), Duration::ZERO);
        assert_eq!(state.say_in(seconds(6), Epoch(4)), Duration::ZERO);
    }
}
