//! Operators: they bring nodes in, take them out and shift stake while everything runs; and what was promised of epochs.

use std::time::Duration;

use node::client::{Client, SubmitError};
use protocol::{
    AccountId, Epoch, NodeIndex, PeerId,
    ledger::{
        block::committee_hash,
        signature::SigningKey,
        state::entry::{NodeStatus, Stage},
        transaction::{Action, NodeDescription},
    },
};
use rand::{Rng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use super::{
    byzantine::Watched,
    ledger::{STAKE, treasury},
    world::World,
};

/// How often a transaction is submitted before anything goes wrong.
const TRIES: u32 = 5;

/// Pause between what operators do.
const PAUSE: std::ops::Range<u64> = 1_000..8_000;
/// Time within which, once everything is well, an epoch ends and the next one's handover is done, beside the epoch's own time.
const HANDOVER_MAX: Duration = Duration::from_secs(60);

/// A node, as its operator knows it.
#[derive(Clone, Debug)]
pub(super) struct Operated {
    pub(super) peer: PeerId,
    pub(super) signing: SigningKey,
    pub(super) description: NodeDescription,
}

/// All operators of a network, one after the other.
pub(super) struct Operators {
    client: Client<Watched>,
    nodes: Vec<Operated>,
    /// Nodes that a committee needs at least.
    n_nodes: usize,
    rng: ChaCha8Rng,
}

impl Operators {
    pub(super) fn new(world: &mut World) -> Self {
        let (nodes, rng) = (world.operated(), world.rng(300));
        Self { client: world.client(), nodes, n_nodes: usize::from(world.plan.n_nodes), rng }
    }

    /// Takes the part of each operator in turn until told to stop.
    pub(super) async fn work(mut self, world_ends: Instant) -> Self {
        while Instant::now() < world_ends {
            // What does not get through chaos is done another time.
            let _ = tokio::time::timeout_at(world_ends, self.act()).await;
            let pause = Duration::from_millis(self.rng.random_range(PAUSE));
            tokio::time::sleep_until((Instant::now() + pause).min(world_ends)).await;
        }
        self
    }

    /// Does something about one node: puts stake behind it, takes it away, has it leave, or come.
    async fn act(&mut self) -> Option<()> {
        let Operated { peer, signing, description } = self.nodes.choose(&mut self.rng)?.clone();
        let entry = self.client.ledger_node(&peer).await.ok()?.value;
        let n_candidates = self.n_candidates().await?;
        let treasury = treasury();
        let (key, action) = match entry {
            None => (signing, Action::RegisterNode { description: Box::new(description) }),
            Some(node) => match node.status {
                NodeStatus::Ejected => return None,
                NodeStatus::Leaving => (signing, Action::RegisterNode { description: Box::new(description) }),
                NodeStatus::Active if node.stake.credits == 0 => {
                    (treasury, Action::Stake { node: peer, amount: STAKE })
                }
                // A committee of fewer would put more on each than the faults of a run allow for.
                NodeStatus::Active if n_candidates <= self.n_nodes => return None,
                NodeStatus::Active if self.rng.random() => (signing, Action::LeaveNode { node: peer }),
                NodeStatus::Active => (treasury, Action::Unstake { node: peer, amount: None }),
            },
        };
        let _ = self.client.submit(action, &key).await;
        Some(())
    }

    /// Nodes that would be selected.
    async fn n_candidates(&self) -> Option<usize> {
        let mut n = 0;
        for node in &self.nodes {
            let entry = self.client.ledger_node(&node.peer).await.ok()?.value;
            n += usize::from(entry.is_some_and(|it| it.status == NodeStatus::Active && it.stake.credits > 0));
        }
        Some(n)
    }
}

/// Who answers for what, and who said so: looked at on every node that runs.
pub(super) fn look(world: &World) {
    for node in world.running() {
        look_at(world, node);
    }
}

fn look_at(world: &World, node: NodeIndex) {
    let Some(handles) = world.handles(node) else { return };
    let Ok(roster) = handles.membership.now() else {
        world.model().violation("L7", format!("node {node} cannot read its ledger"));
        return;
    };
    for committee in roster.committees() {
        // A committee gives every shard to one member, by its type; so it is enough that there is one for each epoch.
        let (epoch, hash) = (committee.epoch(), committee_hash(committee));
        let mut model = world.model();
        let known =
            model.committees.entry(epoch).or_insert_with(|| (hash, std::sync::Arc::clone(committee))).0;
        model.check("L7", known == hash, || format!("node {node} has another committee of epoch {epoch}"));
    }
    world.model().reached(roster.epoch(), handles.ledger.view().height());
    match roster.stage {
        Stage::Steady => {}
        Stage::Selected { .. } => world.model().operation("selected"),
        Stage::Handover { .. } => world.model().operation("handover"),
    }
    readiness_is_true(world, node, roster.epoch());
}

/// D7: who said that its shards are ready has, on its disk, all that was certified before the epoch and is certified still.
fn readiness_is_true(world: &World, node: NodeIndex, epoch: Epoch) {
    let Some(handles) = world.handles(node) else { return };
    let Some(seat) = handles.membership.now().ok().and_then(|roster| roster.seat()) else { return };
    let state = handles.ledger.view().state;
    if epoch == Epoch(0) || !state.is_ready(epoch, seat.node).unwrap_or(false) {
        return;
    }
    if !world.model().ready.insert((epoch, node)) {
        return;
    }
    world.model().operation("ready");
    if world.plan.flips || !world.is_answerable(node) {
        return;
    }
    let lacking = super::oracle::lacks_of_old(world, node, epoch);
    world.model().check("D7", lacking.is_none(), || {
        format!("node {node} said that it is ready for epoch {epoch}: {}", lacking.unwrap_or_default())
    });
}

/// L8: with everything well, the epoch ends, another begins, and its handover is done.
pub(super) async fn epochs_go_on(world: &World) {
    let Some(epochs) = world.plan.epochs else { return };
    let (start, first) = (Instant::now(), world.epoch());
    let limit = 2 * epochs.length + HANDOVER_MAX;
    loop {
        look(world);
        let mut nodes = world.running().into_iter().filter(|node| !world.is_let_down(*node));
        let is_steady = nodes.all(|node| {
            let head = world.handles(node).and_then(|handles| handles.ledger.view().state.head().ok());
            head.is_some_and(|head| head.epoch > first && !matches!(head.stage, Stage::Handover { .. }))
        });
        if is_steady {
            world.model().operation("epoch changed");
            return;
        }
        if start.elapsed() > limit {
            let stages: Vec<_> = world
                .running()
                .into_iter()
                .filter_map(|node| world.handles(node)?.ledger.view().state.head().ok())
                .map(|head| (head.height, head.epoch.0, head.stage))
                .collect();
            world.model().violation("L8", format!("epoch {first} does not give way: {stages:?}"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Brings the nodes in that are on no committee, and puts stake behind all.
pub(super) async fn open(world: &mut World) {
    if world.plan.epochs.is_none() {
        return;
    }
    let client = world.client();
    let genesis = std::sync::Arc::clone(&world.genesis);
    for Operated { peer, signing, description } in world.operated() {
        if genesis.committee().index_of(&peer).is_none() {
            let action = Action::RegisterNode { description: Box::new(description) };
            submitted(world, &client, &action, &signing).await;
        }
        submitted(world, &client, &Action::Stake { node: peer, amount: STAKE }, &treasury()).await;
    }
}

/// Submits until it is executed, or was: messages may be lost from the beginning.
async fn submitted(world: &World, client: &Client<Watched>, action: &Action, key: &SigningKey) {
    let mut reason = String::new();
    for _ in 0..TRIES {
        match client.submit(action.clone(), key).await {
            Ok(_) => return,
            Err(SubmitError::Rejected { .. }) if !reason.is_empty() => return,
            Err(error) => reason = error.to_string(),
        }
    }
    world.model().violation("L1", format!("nothing is wrong yet, and {action:?} is not executed: {reason}"));
}

/// The account that a node is operated by: that of its own key.
pub(super) fn operator(peer: PeerId) -> AccountId {
    AccountId::from(peer)
}
