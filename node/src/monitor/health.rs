//! Whether a node is well; no I/O, no clock.

use std::time::Duration;

use protocol::{
    PeerId,
    quorum::{quorum, validity},
};

use crate::membership::Roster;

/// How long a block may be waited for. A few rounds with proposers that are down take some ten seconds, catching up brings blocks
/// all the time; what takes a minute is not going to be over by itself.
const WAITING_MAX: Duration = Duration::from_secs(60);

/// What matters for how a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Shards of the current committee whose members are connected, this node's own included.
    pub connected_shards: u16,
    /// Shards that must be connected.
    pub required_shards: u16,
    /// How long a block has been waited for: one to be made, or one that others have.
    pub waiting: Duration,
}

impl Facts {
    /// What is known as of a roster. Without one, which only a broken ledger has not, nothing is required.
    ///
    /// A member needs a quorum: with less, blobs are not certified and blocks not made as far as it can see. Anyone else
    /// needs one honest member to follow.
    #[must_use]
    pub fn of(roster: Option<&Roster>, is_connected: impl Fn(&PeerId) -> bool, waiting: Duration) -> Self {
        let Some(roster) = roster else { return Self { connected_shards: 0, required_shards: 0, waiting } };
        let committee = &roster.current;
        let reached = |peer: &PeerId| *peer == roster.me || is_connected(peer);
        let connected = committee
            .nodes()
            .filter(|node| committee.member(*node).is_some_and(|member| reached(&member.peer)));
        let n = roster.n_shards();
        Self {
            connected_shards: connected.map(|node| committee.weight(node)).sum(),
            required_shards: if roster.seat().is_some() { quorum(n) } else { validity(n) },
            waiting,
        }
    }
}

/// Why a node is not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ailment {
    /// It cannot reach enough others.
    #[error(
        "connected to members with {connected} shards, {required} are needed; are they up, and is the network?"
    )]
    TooFewPeers {
        /// Shards of members that it is connected to, its own included.
        connected: u16,
        /// Shards needed.
        required: u16,
    },
    /// Its ledger does not come on.
    #[error("the ledger has been waiting for a block for {} s; its log says why", .waiting.as_secs())]
    Stuck {
        /// For how long.
        waiting: Duration,
    },
}

/// Whether a node is well.
///
/// # Errors
///
/// The [`Ailment`] that explains most: who reaches too few has a ledger that is stuck for that reason.
pub fn judge(facts: &Facts) -> Result<(), Ailment> {
    let Facts { connected_shards: connected, required_shards: required, waiting } = *facts;
    if connected < required {
        return Err(Ailment::TooFewPeers { connected, required });
    }
    if waiting >= WAITING_MAX {
        return Err(Ailment::Stuck { waiting });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::tests::{committee, roster};

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn too_few_peers_and_a_ledger_that_is_stuck_are_told_apart() {
        let few = |connected, required| Err(Ailment::TooFewPeers { connected, required });
        let stuck = |seconds| Err(Ailment::Stuck { waiting: at(seconds) });
        // Shards connected, shards required, seconds of waiting: the verdict.
        let table = [
            (9, 9, 0, Ok(())),
            (13, 9, 59, Ok(())),
            (8, 9, 0, few(8, 9)),
            (0, 5, 0, few(0, 5)),
            (13, 9, 60, stuck(60)),
            (5, 5, 3600, stuck(3600)),
            // The one is the reason for the other.
            (8, 9, 3600, few(8, 9)),
            (0, 0, 0, Ok(())),
        ];
        for (connected_shards, required_shards, seconds, expected) in table {
            let facts = Facts { connected_shards, required_shards, waiting: at(seconds) };
            assert_eq!(judge(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_member_needs_a_quorum_and_a_follower_one_honest_member() {
        let peer = |i: u8| PeerId([i; 32]);
        // Members 1, 2, 3 with 2, 2 and 3 of 7 shards.
        let current = committee(0, &[(1, &[0, 1]), (2, &[2, 3]), (3, &[4, 5, 6])]);
        let roster = |me| Roster { current: current.clone(), ..roster(me, None, None) };
        // This node, the peers connected: shards connected, shards required.
        let table: [(u8, &[u8], u16, u16); 5] =
            [(1, &[], 2, 5), (1, &[2], 4, 5), (1, &[3, 9], 5, 5), (9, &[1, 2, 3], 7, 3), (9, &[1, 8], 2, 3)];
        for (me, connected, connected_shards, required_shards) in table {
            let connected: Vec<PeerId> = connected.iter().copied().map(peer).collect();
            let facts = Facts::of(Some(&roster(me)), |peer| connected.contains(peer), at(7));
            assert_eq!(facts, Facts { connected_shards, required_shards, waiting: at(7) });
        }
    }
}
