//! When the epochs and their stages began, as the ledger showed it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{PeerId, committee::Member, ledger::state::entry::Stage};
use tokio::time::Instant;

/// The shards of each member.
pub type Shards = BTreeMap<PeerId, BTreeSet<u16>>;

/// The shards of a committee.
#[must_use]
pub fn shards_of(members: &[Member]) -> Shards {
    let of = |member: &Member| member.shards.iter().map(|shard| shard.0).collect();
    members.iter().map(|member| (member.peer, of(member))).collect()
}

/// What an operation counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The committee holds what it answers for; whether the next one is selected makes no difference.
    Steady,
    /// From the beginning of an epoch until members worth a quorum are ready.
    Handover,
}

impl Phase {
    /// The phase of a stage.
    #[must_use]
    pub const fn of(stage: Stage) -> Self {
        match stage {
            Stage::Steady | Stage::Selected { .. } => Self::Steady,
            Stage::Handover { .. } => Self::Handover,
        }
    }
}

/// One epoch.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it began, by the time of its first block.
    pub began: Instant,
    /// When its handover was first seen to be done; at its beginning for the first epoch, which has none.
    pub steady: Option<Instant>,
    /// Its committee.
    pub shards: Shards,
}

/// All epochs that were seen.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    epochs: BTreeMap<u32, Seen>,
}

impl Timeline {
    /// The ledger shows an epoch in a stage. An epoch began `ago`, by the time of its first block.
    pub fn saw(&mut self, (epoch, stage): (u32, Stage), members: &[Member], (now, ago): (Instant, Duration)) {
        let began = now.checked_sub(ago).unwrap_or(now);
        let seen = self.epochs.entry(epoch).or_insert_with(|| Seen {
            began,
            steady: None,
            shards: shards_of(members),
        });
        if Phase::of(stage) == Phase::Steady {
            seen.steady.get_or_insert(now);
        }
    }

    /// The epochs by number.
    #[must_use]
    pub const fn epochs(&self) -> &BTreeMap<u32, Seen> {
        &self.epochs
    }

    /// What something that went on from `start` to `end` counts for: a handover if it went on at any moment of one.
    #[must_use]
    pub fn phase(&self, start: Instant, end: Instant) -> Phase {
        let mut handovers = self.epochs.iter().filter(|(epoch, _)| **epoch > 0);
        let is_in = |seen: &Seen| seen.began <= end && seen.steady.is_none_or(|steady| start <= steady);
        if handovers.any(|(_, seen)| is_in(seen)) { Phase::Handover } else { Phase::Steady }
    }

    /// How long the handover of an epoch took; `None` if there was none, or it is not done.
    #[must_use]
    pub fn handover(&self, epoch: u32) -> Option<Duration> {
        let seen = self.epochs.get(&epoch)?;
        let took = seen.steady?.saturating_duration_since(seen.began);
        (epoch > 0).then_some(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_handover_that_was_over_at_the_first_look_is_a_handover() {
        let (start, second) = (Instant::now() + Duration::from_secs(60), Duration::from_secs(1));
        let mut timeline = Timeline::default();
        timeline.saw((0, Stage::Steady), &[], (start, Duration::ZERO));
        timeline.saw((1, Stage::Steady), &[], (start + 9 * second, second));
        timeline.saw((1, Stage::Steady), &[], (start + 12 * second, 4 * second));
        assert_eq!(timeline.handover(1), Some(second));
        assert_eq!(timeline.phase(start + 8 * second, start + 8 * second), Phase::Handover);
        assert_eq!(timeline.phase(start + 10 * second, start + 11 * second), Phase::Steady);
    }

    #[tokio::test(start_paused = true)]
    async fn a_handover_lasts_from_the_beginning_of_its_epoch_until_it_is_done() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut timeline = Timeline::default();
        let handover = Stage::Handover { ready_shards: 0 };
        for (epoch, stage, at) in [
            (0, Stage::Steady, 0),
            (0, Stage::Selected { ends_ms: 9 }, 5),
            (1, handover, 10),
            (1, Stage::Handover { ready_shards: 2 }, 11),
            (1, Stage::Steady, 13),
            (1, Stage::Selected { ends_ms: 9 }, 15),
            (2, handover, 20),
        ] {
            timeline.saw((epoch, stage), &[], (start + at * second, Duration::ZERO));
        }
        assert_eq!(timeline.epochs()[&1].began, start + 10 * second);
        assert_eq!(timeline.handover(1), Some(3 * second));
        assert_eq!((timeline.handover(0), timeline.handover(2), timeline.handover(3)), (None, None, None));
        for (from, to, expected) in [
            (0, 9, Phase::Steady),
            (8, 10, Phase::Handover),
            (9, 14, Phase::Handover),
            (11, 12, Phase::Handover),
            (13, 15, Phase::Handover),
            (14, 19, Phase::Steady),
            (25, 30, Phase::Handover),
        ] {
            assert_eq!(
                timeline.phase(start + from * second, start + to * second),
                expected,
                "{from} to {to}"
            );
        }
        assert_eq!((Phase::of(handover), Phase::of(Stage::Steady)), (Phase::Handover, Phase::Steady));
    }
}
