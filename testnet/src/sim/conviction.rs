//! Which members lie in consensus, and what must come of it.

use std::time::Duration;

use protocol::{NodeIndex, ledger::state::entry::NodeStatus, quorum::max_faulty};
use rand::{Rng as _, seq::IndexedRandom as _};
use tokio::time::Instant;

use super::{byzantine::Behaviour, ledger::Spender, world::World};

/// The ways to lie in consensus.
const LIES: [Behaviour; 4] =
    [Behaviour::DoubleVoter, Behaviour::Equivocator, Behaviour::Withholder, Behaviour::Forger];

/// Makes some members lie in consensus until they are convicted or the run ends, with at most the weight that the model
/// allows; often with half of it, so that others can fail beside them.
pub(super) fn corrupt_some(world: &World) {
    let mut rng = world.rng(7);
    let f = max_faulty(world.n_shards());
    let most = if rng.random_bool(0.4) { f } else { f.div_ceil(2) };
    for node in world.all() {
        let weight = world.weight(node);
        let has_room = world.faulty_weight() + weight <= most.max(weight);
        if has_room && world.may_fail(node) && rng.random_bool(0.5) {
            let behaviour = *LIES.choose(&mut rng).expect("there are several");
            world.lie(node, behaviour);
            world.model().fault(behaviour.name());
        }
    }
}

/// True if every node that runs has this one ejected.
fn is_ejected_everywhere(world: &World, node: NodeIndex) -> bool {
    let mut nodes = world.running().into_iter().filter(|at| !world.is_let_down(*at));
    nodes.all(|at| is_ejected(world, at, node))
}

/// True if a node is ejected on the ledger of another.
fn is_ejected(world: &World, at: NodeIndex, node: NodeIndex) -> bool {
    let Some(handles) = world.handles(at) else { return false };
    let entry = handles.ledger.view().state.node(&world.peer(node));
    entry.is_ok_and(|entry| entry.is_some_and(|entry| entry.status == NodeStatus::Ejected))
}

/// L6: members that go on to contradict themselves while everything else is well are ejected, on every node. Transfers
/// give them the occasion; each waits for its turn to propose.
pub(super) async fn contradictors_are_ejected(world: &World, spender: &mut Spender, limit: Duration) {
    let contradictors: Vec<NodeIndex> =
        world.all().into_iter().filter(|node| world.peers.contradicts(world.peer(*node))).collect();
    let end = Instant::now() + limit;
    let free = |node: &NodeIndex| !is_ejected_everywhere(world, *node);
    while contradictors.iter().any(free) {
        if tokio::time::timeout_at(end, spender.spend()).await.is_err() {
            let free: Vec<_> = contradictors.iter().filter(|node| free(node)).collect();
            let detail = format!("nodes {free:?} contradict themselves and are not ejected everywhere");
            world.model().violation("L6", detail);
            return;
        }
    }
    let mut model = world.model();
    for _ in contradictors {
        model.operation("ejected");
    }
}

/// L6: nobody who is honest is ejected. Those who lost their log of votes with their disk may have contradicted themselves.
pub(super) fn no_honest_node_was_ejected(world: &World) {
    for node in world.all().into_iter().filter(|node| world.is_answerable(*node)) {
        for at in world.running() {
            let is_ejected = is_ejected(world, at, node);
            world
                .model()
                .check("L6", !is_ejected, || format!("node {at} has the honest node {node} ejected"));
        }
    }
}
