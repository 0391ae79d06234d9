//! Carries out single changes: transactions of operators, processes that start and end.

use std::{collections::BTreeSet, time::Duration};

use node::{
    cli::{Exit, Failure, register_node, wanted_node},
    config::{NodeConfig, PeerAddress},
    keys::NodeKeys,
};
use protocol::{
    PeerId,
    ledger::{signature::SigningKey, transaction::Action},
};
use tokio::time::Instant;

use super::{
    measure::{Deeds, Wiped},
    plan::Deed,
    run::{Churn, Running},
    watch::Sight,
};

/// Ways in that a new node is given.
const BOOTSTRAP: usize = 3;

impl Churn {
    /// Makes a change.
    pub(super) async fn carry_out(&mut self, deed: Deed) -> Result<(), Failure> {
        match deed {
            Deed::Join { stake } => self.join(stake).await,
            Deed::Leave { node } => self.leave(node).await,
            Deed::Wipe { node, away } => self.wipe(node, away).await,
            Deed::Shift { from, to, amount } => self.shift((from, to), amount).await,
        }
    }

    fn deeds(&mut self) -> &mut Deeds {
        let epoch = self.epoch();
        self.deeds.entry(epoch).or_default()
    }

    async fn join(&mut self, stake: u64) -> Result<(), Failure> {
        let mut bootstrap = Vec::new();
        for node in self.nodes.keys().rev().take(BOOTSTRAP) {
            let member = self.cluster.member(*node)?;
            let peer = member.peer;
            bootstrap.extend(member.addresses.into_iter().map(|address| PeerAddress { peer, address }));
        }
        let node = self.cluster.add_node(bootstrap).await?;
        let dir = self.cluster.node_dir(node);
        let (config, keys) = (NodeConfig::load(&dir)?, NodeKeys::load(&dir)?);
        let wanted = wanted_node(&config, &keys, self.faucet.account());
        register_node(&self.client, &wanted, (&keys, &self.faucet)).await?;
        self.submit(Action::Stake { node: keys.peer(), amount: stake }, self.faucet.signing()).await?;
        self.cluster.start(node).await?;
        self.introduce(node)?;
        self.tell(format_args!("node-{node} joins, with {stake} credits of stake"));
        self.deeds().joined.push(format!("node-{node}"));
        Ok(())
    }

    async fn leave(&mut self, node: usize) -> Result<(), Failure> {
        let peer = self.peer(node)?;
        // Nodes of the genesis are operated by the account of their own key.
        let own = NodeKeys::load(&self.cluster.node_dir(node))?;
        let own = SigningKey::from_secret(own.peer_key().secret_bytes());
        let key = if node < self.cluster.n_nodes() { &own } else { self.faucet.signing() };
        self.submit(Action::LeaveNode { node: peer }, key).await?;
        if let Some(running) = self.nodes.get_mut(&node) {
            running.is_active = false;
        }
        self.tell(format_args!("node-{node} leaves"));
        self.deeds().left.push(format!("node-{node}"));
        Ok(())
    }

    async fn wipe(&mut self, node: usize, away: Duration) -> Result<(), Failure> {
        let (peer, sight) = (self.peer(node)?, self.sight());
        // What it has received so far is not known any more once it is gone.
        let health = self.observer.health(peer).await;
        self.saw(node, health, &sight);
        self.cluster.kill(node).await?;
        self.cluster.wipe(node).await?;
        self.meter.ended(&peer);
        let epoch = sight.epoch();
        let index = self.wipes.len();
        if let Some(running) = self.nodes.get_mut(&node) {
            self.wipes.push(Wiped {
                node,
                epoch,
                shards: sight.committees.shards_now(&peer).into_iter().collect::<BTreeSet<u16>>(),
                copied_bytes: running.copied_bytes,
                started: None,
                healed: None,
            });
            running.health = None;
            running.copied_bytes = 0;
            running.wiped = Some(index);
            running.restart = Some(Instant::now() + away);
        }
        self.tell(format_args!("killed node-{node} and wiped its disk"));
        self.deeds().wiped.push(format!("node-{node}"));
        Ok(())
    }

    async fn shift(&mut self, (from, to): (usize, usize), amount: u64) -> Result<(), Failure> {
        let (giver, taker) = (self.peer(from)?, self.peer(to)?);
        let faucet = self.faucet.signing();
        self.submit(Action::Unstake { node: giver, amount: Some(amount) }, faucet).await?;
        self.submit(Action::Stake { node: taker, amount }, faucet).await?;
        self.tell(format_args!("{amount} credits of stake move from node-{from} to node-{to}"));
        self.deeds().stake_moved += amount;
        Ok(())
    }

    async fn submit(&self, action: Action, key: &SigningKey) -> Result<(), Failure> {
        let result = self.client.submit(action, key).await;
        result.map(|_| ()).map_err(|error| Failure::submit("a transaction was not executed", &error))
    }

    fn peer(&self, node: usize) -> Result<PeerId, Failure> {
        let gone = || Failure::new(Exit::Other, format!("node-{node} is gone"));
        self.nodes.get(&node).map(|running| running.peer).ok_or_else(gone)
    }

    /// Starts wiped nodes whose time has come.
    pub(super) async fn restart_due(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let is_due = |running: &Running| running.restart.is_some_and(|at| at <= now);
        let due: Vec<usize> =
            self.nodes.iter().filter(|(_, running)| is_due(running)).map(|(node, _)| *node).collect();
        for node in due {
            self.cluster.start(node).await?;
            let Some(running) = self.nodes.get_mut(&node) else { continue };
            running.restart = None;
            let wiped = running.wiped.and_then(|index| self.wipes.get_mut(index));
            if let Some(wiped) = wiped {
                wiped.started = Some(Instant::now());
            }
            self.tell(format_args!("node-{node} starts with an empty disk"));
        }
        Ok(())
    }

    /// Ends the processes of nodes that nobody needs any more.
    pub(super) async fn stop_leavers(&mut self, sight: &Sight) -> Result<(), Failure> {
        let may_stop = |running: &Running| !running.is_active && sight.committees.may_stop(&running.peer);
        let gone: Vec<usize> =
            self.nodes.iter().filter(|(_, running)| may_stop(running)).map(|(node, _)| *node).collect();
        for node in gone {
            self.cluster.remove_node(node).await?;
            if let Some(running) = self.nodes.remove(&node) {
                self.meter.ended(&running.peer);
            }
            self.tell(format_args!("node-{node} has handed over its shards, and ends"));
            self.deeds().stopped.push(format!("node-{node}"));
        }
        Ok(())
    }
}
