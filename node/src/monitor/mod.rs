//! What a node shows to whoever watches it: metrics and health, over HTTP.
//!
//! ```text
//!  Prometheus, floe node health --HTTP--> Monitor --> handles of the other actors: counters, queues, the ledger's view
//!                                            |
//!                                            +--> /metrics: every number, with its name, unit and help
//!                                            +--> /health:  judge(Facts): well, or why not
//! ```
//!
//! Actors count for themselves; here it is only read, when somebody asks. So a node that nobody watches pays for a few
//! additions, and a simulation is the same run with and without.
//!
//! # Invariants
//!
//! - Nothing here changes the node, and nothing that goes wrong here ends it: a port that is taken is tried again, a
//!   connection that fails is forgotten.
//! - Connections, the bytes of a request and the time that it may take are bounded.

mod actor;
mod ask;
mod health;
mod metrics;
mod process;
#[cfg(test)]
mod tests;

use std::time::Duration;

use protocol::{Epoch, PeerId};
use serde::{Deserialize, Serialize};
use swarm::live::LiveNetwork;
use tokio::time::Instant;

pub use self::{
    actor::Monitor,
    ask::{AskHealthError, ask_health},
    health::{Ailment, Facts, judge},
    metrics::{CONTENT_TYPE, metrics},
};
use crate::{
    membership::{Membership, Roster},
    node::Handles,
};

/// A node as it is watched.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What its operator calls it.
    pub name: String,
    /// Its actors.
    pub handles: Handles,
    /// Its network, if that is a real one.
    pub network: Option<LiveNetwork>,
    /// When it started.
    pub start: Instant,
}

/// How a node is, as `/health` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it can do its work.
    pub is_well: bool,
    /// Why not.
    pub reason: Option<String>,
    /// What its operator calls it.
    pub name: String,
    /// Its identity.
    pub peer: PeerId,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Height of its ledger.
    pub height: u64,
    /// The epoch, as far as it knows.
    pub epoch: Epoch,
    /// Seconds for which its ledger has been waiting for a block.
    pub waiting_seconds: u64,
    /// Shards whose members are connected, its own included.
    pub connected_shards: u16,
    /// Shards that it needs connected.
    pub required_shards: u16,
    /// Slivers that it should hold and does not.
    pub slivers_missing: u64,
}

impl Subject {
    /// How it is now.
    #[must_use]
    pub fn health(&self) -> Health {
        let Handles { membership, ledger, repair, peers, .. } = &self.handles;
        let view = ledger.view();
        let (_, waiting) = ledger.pulse();
        let connected = peers.peers();
        let facts = facts(membership, &view, |peer| connected.contains(peer), waiting);
        let verdict = judge(&facts);
        Health {
            is_well: verdict.is_ok(),
            reason: verdict.err().map(|ailment| ailment.to_string()),
            name: self.name.clone(),
            peer: membership.me(),
            uptime_seconds: self.uptime().as_secs(),
            height: view.height(),
            epoch: view.state.committee().epoch(),
            waiting_seconds: waiting.as_secs(),
            connected_shards: facts.connected_shards,
            required_shards: facts.required_shards,
            slivers_missing: repair.report().missing,
        }
    }

    fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}

/// What is known of a node that matters for how it is. A ledger that contradicts itself has stopped the node.
fn facts(
    membership: &Membership,
    view: &crate::ledger::View,
    is_connected: impl Fn(&PeerId) -> bool,
    waiting: Duration,
) -> Facts {
    let roster = Roster::of(&view.state, membership.me()).ok();
    Facts::of(roster.as_ref(), is_connected, waiting)
}
