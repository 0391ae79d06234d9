//! How the members of the committee are.

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesOrdered};
use protocol::{
    NodeIndex,
    message::{NodeHealth, Request, Response},
};
use swarm::Network;

use super::{Client, exchange::AskError};

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
    /// Asks every member how it is, once and all at the same time. Bounded by the request timeout.
    ///
    /// Cancel safe: yes.
    pub async fn health(&self) -> Vec<MemberHealth> {
        self.exchange.use_now();
        let committee = self.exchange.committee();
        let members: FuturesOrdered<_> = committee
            .nodes()
            .map(|node| async move {
                let report = self.health_of(node).await.map_err(|error| error.to_string());
                let name = self.exchange.name(node).to_owned();
                MemberHealth { node, name, shards: committee.weight(node), report }
            })
            .collect();
        members.collect().await
    }

    async fn health_of(&self, node: NodeIndex) -> Result<NodeHealth, AskError> {
        match self.exchange.ask(node, &Request::Health, Bytes::new()).await? {
            (Response::Health(health), _) => Ok(health),
            _ => Err(self.exchange.report_unexpected(node)),
        }
    }
}
