//! When to get room back from log files that are mostly no longer needed; no I/O, no clock. Time is the time since some
//! start.
//!
//! Compaction goes on step by step, each of bounded size, behind the requests that wait: a step begins when there are
//! none, and is followed by a pause that keeps copying below a rate. Only a step that has waited for long goes first, or a
//! store that is never idle would never shrink.

use std::time::Duration;

use storage::Compaction;

use super::actor::CompactConfig;

/// Bytes copied in a step. Each step looks for records from the beginning of a file, so smaller ones would read more
/// than they copy; larger ones would hold up the end of a node.
pub(super) const STEP_BYTES: u64 = 32 << 20;
/// How long to wait after a deletion: others follow, and what they delete need not be copied.
const SETTLE: Duration = Duration::from_secs(10);
/// How long requests may keep a step from beginning.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The next step of compaction.
#[derive(Debug)]
pub(super) struct Schedule {
    config: CompactConfig,
    /// When to take the next step; `None` if compaction is off.
    due: Option<Duration>,
    /// When the last step ended.
    last: Duration,
}

impl Schedule {
    /// Returns a schedule that begins soon: a node that is started often must come to it too.
    pub(super) fn new(config: CompactConfig) -> Self {
        let due = (config.bytes_per_second > 0).then(|| SETTLE.min(config.interval));
        Self { config, due, last: Duration::ZERO }
    }

    /// When to take the next step, if nothing else is to be done.
    pub(super) const fn due(&self) -> Option<Duration> {
        self.due
    }

    /// True if the next step has waited for long enough to go before what else is to be done.
    pub(super) fn is_overdue(&self, now: Duration) -> bool {
        self.due.is_some_and(|due| now >= due + WAIT_MAX)
    }

    /// Something was deleted.
    pub(super) fn deleted(&mut self, now: Duration) {
        self.bring_forward(now + SETTLE);
    }

    /// Something was refused for want of room.
    pub(super) fn refused(&mut self, now: Duration) {
        // At once, but not again and again: what the last step could not free, the next one cannot either.
        self.bring_forward(now.max(self.last + SETTLE));
    }

    fn bring_forward(&mut self, at: Duration) {
        self.due = self.due.map(|due| due.min(at));
    }

    /// A step ended; `None` if there was no room for what it had to copy.
    pub(super) fn done(&mut self, now: Duration, step: Option<Compaction>) {
        self.last = now;
        let step = step.unwrap_or_default();
        let pause = if step.copied_bytes > 0 || step.removed_logs > 0 {
            // There may be more.
            let nanos = u128::from(step.copied_bytes) * 1_000_000_000;
            let nanos = nanos / u128::from(self.config.bytes_per_second.max(1));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(self.config.interval)
        } else {
            self.config.interval
        };
        self.due = self.due.map(|_| now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: CompactConfig =
        CompactConfig { interval: Duration::from_secs(600), bytes_per_second: 8 << 20 };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn copied(bytes: u64) -> Option<Compaction> {
        Some(Compaction { copied_bytes: bytes, ..Compaction::default() })
    }

    #[test]
    fn steps_go_on_at_the_rate_until_there_is_nothing_to_copy() {
        let mut schedule = Schedule::new(CONFIG);
        assert_eq!(schedule.due(), Some(seconds(10)));
        schedule.done(seconds(10), copied(32 << 20));
        assert_eq!(schedule.due(), Some(seconds(14)), "32 MiB at 8 MiB/s");
        schedule.done(seconds(14), Some(Compaction { removed_logs: 1, ..Compaction::default() }));
        assert_eq!(schedule.due(), Some(seconds(14)));
        schedule.done(seconds(14), copied(0));
        assert_eq!(schedule.due(), Some(seconds(614)));
    }

    #[test]
    fn a_deletion_brings_it_forward_and_more_of_them_do_not_put_it_off() {
        let mut schedule = Schedule::new(CONFIG);
        schedule.done(seconds(0), copied(0));
        schedule.deleted(seconds(100));
        schedule.deleted(seconds(105));
        assert_eq!(schedule.due(), Some(seconds(110)));
        schedule.done(seconds(110), copied(0));
        assert_eq!(schedule.due(), Some(seconds(710)));
    }

    #[test]
    fn want_of_room_is_looked_at_at_once_and_not_in_a_loop() {
        let mut schedule = Schedule::new(CONFIG);
        schedule.done(seconds(0), copied(0));
        schedule.refused(seconds(100));
        assert_eq!(schedule.due(), Some(seconds(100)));
        schedule.done(seconds(100), None);
        schedule.refused(seconds(101));
        assert_eq!(schedule.due(), Some(seconds(110)));
    }

    #[test]
    fn requests_hold_a_step_up_only_so_long() {
        let mut schedule = Schedule::new(CONFIG);
        assert!(!schedule.is_overdue(seconds(39)));
        assert!(schedule.is_overdue(seconds(40)));
        schedule.done(seconds(40), copied(0));
        assert!(!schedule.is_overdue(seconds(41)));
    }

    #[test]
    fn it_can_be_turned_off() {
        let mut schedule = Schedule::new(CompactConfig { bytes_per_second: 0, ..CONFIG });
        schedule.deleted(seconds(1));
        schedule.refused(seconds(1));
        assert_eq!(schedule.due(), None);
        assert!(!schedule.is_overdue(seconds(9_999)));
    }
}
