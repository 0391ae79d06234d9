//! How the members of the committee are.

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesOrdered};
use protocol::{
    NodeIndex,
    message::{NodeHealth, Request, Response},
};
use swarm::Network;

use super::{
    Client,
    exchange::{AskError, Exchange},
};

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
    /// Asks every member of the newest committee how it is, once and all at the same time. Bounded by the
    /// request timeout and a quarter of it.
    ///
    /// Cancel safe: yes.
    pub async fn health(&self) -> Vec<MemberHealth> {
        // So that it is the newest committee that is asked. Whoever is in reach is worth showing also if that is not known.
        let head = tokio::time::timeout(self.exchange.request_timeout() / 4, self.ledger_head()).await;
        if !matches!(head, Ok(Ok(_))) {
            tracing::debug!("it is not known which committee is the newest");
        }
        let exchange = &self.exchange();
        let committee = exchange.committee();
        let members: FuturesOrdered<_> = committee
            .nodes()
            .map(|node| async move {
                let report = health_of(exchange, node).await.map_err(|error| error.to_string());
                let name = exchange.name(node).to_owned();
                MemberHealth { node, name, shards: committee.weight(node), report }
            })
            .collect();
        members.collect().await
    }
}

async fn health_of<N: Network>(exchange: &Exchange<N>, node: NodeIndex) -> Result<NodeHealth, AskError> {
    match exchange.ask(node, &Request::Health, Bytes::new()).await? {
        (Response::Health(health), _) => Ok(health),
        _ => Err(exchange.report_unexpected(node)),
    }
}
