//! What is to be done about the epoch now; no I/O, no clock.

use std::collections::BTreeSet;

use protocol::{Epoch, ShardIndex, ledger::state::entry::Stage};

/// What is known of the epoch, and of this node in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) epoch: Epoch,
    pub(super) stage: Stage,
    /// This node has a place on the current committee.
    pub(super) is_seated: bool,
    /// The ledger has its word that it is ready for this epoch.
    pub(super) has_said_ready: bool,
    /// The last epoch for which this node looked at everything, and lacked nothing.
    pub(super) found_whole: Option<Epoch>,
    /// Shards that it is to hold for the current committee or the next.
    pub(super) owed: BTreeSet<ShardIndex>,
    /// Shards of which there are slivers on the disk.
    pub(super) stored: BTreeSet<ShardIndex>,
}

/// What to do about being ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Nothing: it is said, or not for this node to say.
    Settled,
    /// Look whether every certified blob is here.
    Check,
    /// Say so on the ledger.
    Say,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) readiness: Readiness,
    /// Shards to drop.
    pub(super) drop: BTreeSet<ShardIndex>,
}

/// Decides what is to be done.
pub(super) fn plan(facts: &Facts) -> Plan {
    let Facts { epoch, stage, is_seated, has_said_ready, found_whole, owed, stored } = facts;
    let readiness = match () {
        // The members of the genesis begin with nothing to take over.
        () if *epoch == Epoch(0) || !is_seated || *has_said_ready => Readiness::Settled,
        () if *found_whole == Some(*epoch) => Readiness::Say,
        () => Readiness::Check,
    };
    let drop = match stage {
        Stage::Selected { .. } => stored.difference(owed).copied().collect(),
        // Whoever gained it may still be copying.
        Stage::Steady | Stage::Handover { .. } => BTreeSet::new(),
    };
    Plan { readiness, drop }
}

/// Most bytes that so many of `n` shards take, with so many bytes of encoded size to be stored: each holds an equal share.
pub(super) fn bytes_of_shards(encoded: u128, shards: usize, n: u16) -> u64 {
    let shards = u128::try_from(shards).unwrap_or(u128::MAX);
    let bytes = encoded.saturating_mul(shards) / u128::from(n.max(1));
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELECTED: Stage = Stage::Selected { ends_ms: 9 };
    const HANDOVER: Stage = Stage::Handover { ready_shards: 2 };

    fn shards(shards: &[u16]) -> BTreeSet<ShardIndex> {
        shards.iter().copied().map(ShardIndex).collect()
    }

    fn facts(epoch: u32, stage: Stage) -> Facts {
        Facts {
            epoch: Epoch(epoch),
            stage,
            is_seated: true,
            has_said_ready: false,
            found_whole: None,
            owed: shards(&[1, 2]),
            stored: shards(&[1, 2, 5]),
        }
    }

    #[test]
    fn readiness_is_said_once_after_everything_was_found() {
        let table = [
            // Epoch, stage, seated, said, found whole for: what to do.
            (0, Stage::Steady, true, false, None, Readiness::Settled),
            (3, HANDOVER, true, false, None, Readiness::Check),
            (3, HANDOVER, true, false, Some(2), Readiness::Check),
            (3, HANDOVER, true, false, Some(3), Readiness::Say),
            (3, HANDOVER, true, true, Some(3), Readiness::Settled),
            (3, HANDOVER, false, false, None, Readiness::Settled),
            // A slow one says it late.
            (3, Stage::Steady, true, false, Some(3), Readiness::Say),
            (3, SELECTED, true, false, None, Readiness::Check),
        ];
        for (epoch, stage, is_seated, has_said_ready, found, expected) in table {
            let found_whole = found.map(Epoch);
            let facts = Facts { is_seated, has_said_ready, found_whole, ..facts(epoch, stage) };
            assert_eq!(plan(&facts).readiness, expected, "{facts:?}");
        }
    }

    #[test]
    fn a_shard_takes_its_share_of_everything() {
        assert_eq!(bytes_of_shards(2100, 2, 7), 600);
        assert_eq!(bytes_of_shards(0, 2, 7), 0);
        assert_eq!(bytes_of_shards(u128::MAX, 1000, 1000), u64::MAX);
    }

    #[test]
    fn what_has_moved_is_dropped_once_nobody_needs_it() {
        for (stage, dropped) in [(Stage::Steady, &[][..]), (HANDOVER, &[]), (SELECTED, &[5])] {
            assert_eq!(plan(&facts(3, stage)).drop, shards(dropped), "{stage:?}");
        }
        let left = Facts { is_seated: false, owed: shards(&[]), ..facts(3, SELECTED) };
        assert_eq!(plan(&left).drop, shards(&[1, 2, 5]));
    }
}
