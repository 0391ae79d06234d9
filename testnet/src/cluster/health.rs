//! Asking the nodes of a testnet how they are, and waiting for them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use node::{
    cli::{Connection, Failure},
    client::{ClientConfig, MemberHealth},
};
use protocol::{PeerId, message::NodeHealth};

use super::{Cluster, Observer, client_file, until};

/// How long to wait for a node's answer when only asking how it is. On loopback it answers in milliseconds.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

impl Cluster {
    /// A client of the network, with the settings of `client.toml`.
    ///
    /// # Errors
    ///
    /// See [`Connection::open`].
    pub async fn connect(&self) -> Result<Connection, Failure> {
        Connection::open(&client_file(&self.dir)).await
    }

    /// A client for asking nodes how they are, which does not wait long for those that are gone.
    ///
    /// # Errors
    ///
    /// See [`Connection::start`].
    pub async fn observe(&self) -> Result<Connection, Failure> {
        let config = ClientConfig {
            request_timeout: HEALTH_TIMEOUT,
            connect_timeout: HEALTH_TIMEOUT,
            ..ClientConfig::default()
        };
        Connection::start(Arc::clone(&self.genesis), config).await
    }

    /// Waits until `condition` holds of the answers of all nodes, in the order of their numbers. A node that was
    /// started and ended unasked is an error at once.
    ///
    /// # Errors
    ///
    /// If it does not hold in time, or a node ended; the end of its log says why.
    pub async fn wait_health<T>(
        &mut self,
        observer: &Connection,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&[MemberHealth]) -> Option<T>,
    ) -> Result<T, Failure> {
        until(what, limit, async || {
            self.check_alive()?;
            Ok(condition(&self.health(observer).await))
        })
        .await
    }

    /// Waits until all nodes answer, know of each other and miss nothing.
    ///
    /// # Errors
    ///
    /// As [`wait_health`](Self::wait_health).
    pub async fn wait_healthy(
        &mut self,
        observer: &Connection,
        limit: Duration,
        mut progress: impl FnMut(usize),
    ) -> Result<(), Failure> {
        let n_nodes = self.n_nodes();
        self.wait_health(observer, "waiting for all nodes to be healthy", limit, |members| {
            let healthy = members.iter().filter(|member| is_healthy(member, n_nodes)).count();
            progress(healthy);
            (healthy == n_nodes).then_some(())
        })
        .await
    }

    /// Waits until one node answers.
    ///
    /// # Errors
    ///
    /// As [`wait_health`](Self::wait_health).
    pub async fn wait_reachable(
        &mut self,
        observer: &Connection,
        node: usize,
        limit: Duration,
    ) -> Result<(), Failure> {
        let what = format!("waiting for node-{node} to answer");
        self.wait_health(observer, &what, limit, |members| members.get(node)?.report.is_ok().then_some(()))
            .await
    }

    /// How all nodes are, in the order of their numbers.
    pub async fn health(&self, observer: &Connection) -> Vec<MemberHealth> {
        let mut members = observer.client().health().await;
        let number = |member: &MemberHealth| member.name.strip_prefix("node-")?.parse::<usize>().ok();
        members.sort_by_key(|member| number(member).unwrap_or(usize::MAX));
        members
    }

    /// How the nodes are that answer, by number; also those that are on no committee.
    ///
    /// # Errors
    ///
    /// If a node's files cannot be read, or the system refuses sockets.
    pub async fn health_of_all(&self) -> Result<BTreeMap<usize, NodeHealth>, Failure> {
        let observer = Observer::start(&self.genesis, HEALTH_TIMEOUT).await?;
        let mut members = Vec::new();
        for (node, entry) in self.manifest()?.nodes.iter().enumerate() {
            if !entry.is_removed {
                let member = self.member(node)?;
                observer.introduce(member.peer, member.addresses);
                members.push((node, member.peer));
            }
        }
        let peers: Vec<PeerId> = members.iter().map(|(_, peer)| *peer).collect();
        let answers = observer.health_of(&peers).await;
        observer.close().await;
        let nodes = members.into_iter().zip(answers);
        Ok(nodes.filter_map(|((node, _), health)| Some((node, health?))).collect())
    }
}

/// True if a node answers, misses nothing and knows all others.
fn is_healthy(member: &MemberHealth, n_nodes: usize) -> bool {
    let others = n_nodes - 1;
    member
        .report
        .as_ref()
        .is_ok_and(|health| health.slivers_missing == 0 && usize::from(health.peers) >= others)
}
