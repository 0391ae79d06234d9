//! How the members of the committee are.

use protocol::{message::NodeHealth, NodeIndex};
use swarm::Network;

use super::Client;

/// What is known of one member.
#[derive(Clone, Debug)]
pub struct MemberHealth {
    /// The member.
    pub node: NodeIndex,
    /// Its name in the committee.
    pub name: String,
    /// Shards that the committee gives it.
    pub shards: u16,
    /// What it says of itself, if it answered; else why not.
    pub report: Result<NodeHealth, String>,
}

impl<N: Network> Client<N> {
    /// Asks every member how it is, all at once. Bounded by the request timeout.
    pub async fn health(&self) -> Vec<MemberHealth> {
        todo!()
    }
}
