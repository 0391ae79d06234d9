//! Asking single nodes how they are, whether or not they are on a committee.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesOrdered};
use node::{
    cli::{Exit, Failure},
    exchange::ask,
    keys::PeerKey,
};
use protocol::{
    PeerId,
    genesis::Genesis,
    message::{NodeHealth, Request, Response},
};
use swarm::{
    Address, Network as _, PeerRole,
    live::{Live, LiveConfig, LiveNetwork},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A client that knows nodes by what it is told of them, not by the ledger.
#[derive(Debug)]
pub struct Observer {
    network: LiveNetwork,
    stop: CancellationToken,
    event_loop: JoinSet<()>,
    timeout: Duration,
}

impl Observer {
    /// Joins a network; waits at most `timeout` for each answer.
    ///
    /// # Errors
    ///
    /// If the system refuses sockets or random numbers.
    pub async fn start(genesis: &Genesis, timeout: Duration) -> Result<Self, Failure> {
        let mut config = LiveConfig::new(PeerKey::generate()?.for_network(), genesis.network_id());
        config.topics.clear();
        let (network, _inbound, event_loop) =
            Live::start(config).await.map_err(|error| Failure::of(Exit::Other, &error))?;
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(event_loop.run(stop.clone()));
        Ok(Self { network, stop, event_loop: tasks, timeout })
    }

    /// Says where a node listens.
    pub fn introduce(&self, peer: PeerId, addresses: Vec<Address>) {
        self.network.add_peer(peer, addresses, PeerRole::Other);
    }

    /// What a node says of itself; `None` if it does not answer.
    ///
    /// Cancel safe: yes.
    pub async fn health(&self, peer: PeerId) -> Option<NodeHealth> {
        match ask(&self.network, peer, (&Request::Health, Bytes::new()), self.timeout).await {
            Ok((Response::Health(health), _)) => Some(health),
            _ => None,
        }
    }

    /// What several nodes say of themselves, all asked at the same time.
    ///
    /// Cancel safe: yes.
    pub async fn health_of(&self, peers: &[PeerId]) -> Vec<Option<NodeHealth>> {
        peers.iter().map(|peer| self.health(*peer)).collect::<FuturesOrdered<_>>().collect().await
    }

    /// Hangs up.
    pub async fn close(mut self) {
        self.stop.cancel();
        while self.event_loop.join_next().await.is_some() {}
    }
}
