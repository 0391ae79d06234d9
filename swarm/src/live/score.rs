//! How gossip judges its neighbours.
//!
//! The unit is one point for a first delivery. A member starts with [`MEMBER_SCORE`], so that only invalid messages can
//! take it below a threshold; a stranger starts at zero.

use std::{collections::BTreeMap, time::Duration};

use libp2p::gossipsub::{PeerScoreParams, PeerScoreThresholds, TopicHash, TopicScoreParams};

/// What a member has in advance: after one invalid message it is trusted as before, after three it is not heard.
pub(super) const MEMBER_SCORE: f64 = 100.0;

/// The parameters; `public` if peers come from many networks, so that counting them by address makes sense.
pub(super) fn params(topics: impl IntoIterator<Item = TopicHash>, public: bool) -> PeerScoreParams {
    let topics: BTreeMap<TopicHash, TopicScoreParams> =
        topics.into_iter().map(|topic| (topic, topic_params())).collect();
    PeerScoreParams {
        topics: topics.into_iter().collect(),
        // Good deeds make up for one invalid message, not for two.
        topic_score_cap: 40.0,
        app_specific_weight: 1.0,
        // More than ten peers behind one address lose points with the square of the excess. Off on local networks,
        // where every peer has the same one.
        ip_colocation_factor_weight: if public { -5.0 } else { 0.0 },
        ip_colocation_factor_threshold: 10.0,
        // Broken promises and grafts during a pause: six are free, since a busy node breaks some.
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 6.0,
        // A tenth is left after a minute.
        behaviour_penalty_decay: 0.96,
        decay_interval: Duration::from_secs(1),
        decay_to_zero: 0.01,
        // As long as a peer could wait before it comes back with a clean slate.
        retain_score: Duration::from_secs(600),
        // A peer that reads slowly is no attacker: its queue drops what is old, and its score stays.
        slow_peer_weight: 0.0,
        ..PeerScoreParams::default()
    }
}

fn topic_params() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        // Up to ten points for ten minutes in the mesh.
        time_in_mesh_weight: 1.0,
        time_in_mesh_quantum: Duration::from_secs(60),
        time_in_mesh_cap: 10.0,
        // Up to ten points for being first, half of it gone after a minute.
        first_message_deliveries_weight: 1.0,
        first_message_deliveries_decay: 0.988,
        first_message_deliveries_cap: 10.0,
        // Topics may be silent for an epoch: delivering nothing is no offence.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // The square counts: one invalid message costs 40, two 160, three 360. A stranger is not heard after two, a
        // member after three. A tenth of the count is left after four minutes.
        invalid_message_deliveries_weight: -40.0,
        invalid_message_deliveries_decay: 0.99,
        ..TopicScoreParams::default()
    }
}

/// Below which score what happens.
pub(super) fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        // One invalid message: no more gossip about what we have.
        gossip_threshold: -20.0,
        // Between one and two: our own messages do not go there.
        publish_threshold: -50.0,
        // Two invalid messages: nothing it says is looked at.
        graylist_threshold: -70.0,
        // Peer exchange is off.
        accept_px_threshold: 1_000.0,
        // If half of a mesh has hardly a point, it is full of newcomers: take in better ones.
        opportunistic_graft_threshold: 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_consistent() {
        let topics = [TopicHash::from_raw("a"), TopicHash::from_raw("b")];
        assert_eq!(params(topics.clone(), true).validate(), Ok(()));
        assert_eq!(params(topics, false).validate(), Ok(()));
        assert_eq!(thresholds().validate(), Ok(()));
    }
}
