//! Whether the ledger comes on; no I/O, no clock. Time is the time since some start.

use std::time::Duration;

use super::consensus::Activity;

/// What the ledger of a node was last seen to do.
///
/// An idle ledger makes no blocks, so that none came for long says nothing: what counts is how long something has been waiting
/// for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// The round of the height under way; none while there is nothing to order.
    pub round: Option<u32>,
    /// Since when a block has been waited for, one to be made or one that others have.
    pub(super) waiting_since: Option<Duration>,
}

impl Pulse {
    /// Takes note of a step: whether it led to blocks, and what is going on after it.
    pub(super) fn beat(&mut self, now: Duration, has_block: bool, activity: Activity) {
        self.round = activity.round;
        let is_waiting = activity.round.is_some() || activity.is_behind;
        let since = self.waiting_since.filter(|_| !has_block).unwrap_or(now);
        self.waiting_since = is_waiting.then_some(since);
    }

    /// How long a block has been waited for.
    #[must_use]
    pub fn waiting(&self, now: Duration) -> Duration {
        self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_waiting_without_a_block_counts() {
        const IDLE: Activity = Activity { round: None, is_behind: false };
        const BEHIND: Activity = Activity { round: None, is_behind: true };
        const RUNNING: Activity = Activity { round: Some(0), is_behind: false };
        // The time of a step, whether there was a block, what goes on; how long has been waited a second later.
        let steps = [
            (0, false, IDLE, 0),
            (10, false, RUNNING, 1),
            (20, false, Activity { round: Some(3), is_behind: false }, 11),
            (30, true, RUNNING, 1),
            (40, true, IDLE, 0),
            (50, false, BEHIND, 1),
            (55, false, RUNNING, 6),
            (60, true, BEHIND, 1),
            (70, false, IDLE, 0),
        ];
        let mut pulse = Pulse::default();
        for (seconds, has_block, activity, expected) in steps {
            pulse.beat(at(seconds), has_block, activity);
            assert_eq!(pulse.waiting(at(seconds + 1)), at(expected), "at {seconds} s");
            assert_eq!(pulse.round, activity.round);
        }
    }
}
