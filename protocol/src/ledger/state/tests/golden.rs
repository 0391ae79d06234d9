//! Roots that every implementation computes. A change here is a change of the ledger's format: nodes of before and after
//! do not agree.

use super::world::*;
use crate::{
    certificate::Persistence::{Deletable, Permanent},
    genesis::GenesisStake,
    ids::Epoch,
    ledger::{
        parameters::Ballot,
        transaction::{Action, NodeDescription},
    },
};

fn world() -> World {
    let stakes = vec![GenesisStake { node: node(1), account: account(3), amount: 5_000 }];
    World::with(4, 4, priced(), stakes)
}

/// One of each action, over four epochs.
fn run(world: &mut World) -> Vec<(&'static str, String)> {
    let mut roots = Vec::new();
    let mut note = |world: &World, name| roots.push((name, format!("{:?}", world.state.root())));
    note(world, "genesis");
    world.state.begin_block(1, 1_000).unwrap();
    for index in 0..4 {
        world.does(0, Action::Transfer { to: account(NODES + index), amount: 1_000 });
    }
    world.does(1, Action::Transfer { to: account(NODES + 9), amount: 100 });
    note(world, "transfers");
    world.state.begin_block(2, 2_000).unwrap();
    world.does(NODES + 9, Action::RegisterNode { description: Box::new(description(9)) });
    let updated = NodeDescription { commission_bp: 500, operator: account(2), ..description(0) };
    world.does(NODES, Action::UpdateNode { node: node(0), description: Box::new(updated) });
    world.does(NODES + 9, Action::LeaveNode { node: node(9) });
    world.does(1, Action::Stake { node: node(0), amount: 10_000 });
    world.does(1, Action::Unstake { node: node(0), amount: Some(3_000) });
    let ballot = Ballot { storage_price: 20, write_price: 6, capacity_bytes: 1 << 40 };
    world.does(NODES + 1, Action::Vote { node: node(1), ballot });
    note(world, "nodes and stake");
    world.state.begin_block(3, 2_000).unwrap();
    world.store(0, 1, Permanent, 3);
    world.store(1, 1, Deletable, 9);
    world.store(1, 2, Deletable, 4);
    let (header, certificate) = (header(world, 4), world.availability(1, 4, Epoch(0)));
    let end_epoch = Epoch(2);
    world.does(1, Action::StoreBlob { header, persistence: Deletable, end_epoch, certificate });
    world.does(2, register(world, 3, Permanent, 2));
    world.does(0, Action::ExtendBlob { blob_id: blob_id(world, 1), end_epoch: Epoch(5) });
    world.does(1, Action::DeleteBlob { blob_id: blob_id(world, 2) });
    world.does(2, Action::InvalidateBlob { certificate: world.invalidity(3, Epoch(0)) });
    note(world, "blobs");
    world.state.begin_block(4, 3_000).unwrap();
    world.does(2, Action::Evidence { equivocation: world.equivocation(2) });
    world.next_epoch();
    note(world, "epoch 1");
    for _ in 0..3 {
        world.next_epoch();
    }
    note(world, "epoch 4");
    roots
}

#[test]
fn roots_are_what_they_always_were() {
    let mut world = world();
    let roots = run(&mut world);
    world.audit();
    let lines: Vec<String> = roots.iter().map(|(name, root)| format!("{root} {name}")).collect();
    let frozen: Vec<&str> =
        include_str!("golden.txt").lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, frozen, "computed now:\n{}", lines.join("\n"));
}
