//! Nodes that are far behind, and those who would mislead them.

use std::collections::BTreeSet;

use protocol::ledger::{
    tree::Page,
    wire::{Link, Response},
};
use rand::Rng as _;

use super::{
    SECOND, Seed,
    byzantine::Lie,
    go_through_faults, must_recover, seeds,
    toy::{NEXT_EPOCH, PIN_BLOCKS},
    world::World,
};

/// Blocks by which a node has to be behind to take a snapshot, in these tests.
const LAG_MIN: u64 = 2 * PIN_BLOCKS + 2;

/// A network in which few blocks are kept, and that is some blocks old, of three epochs.
fn old_network(seed: u64, n_blocks: u64) -> World {
    let mut world = World::new(seed, 4).with_snapshots(LAG_MIN, LAG_MIN + 2);
    world.connect_all();
    world.crash(4, true);
    grow(&mut world, n_blocks);
    world
}

/// Has blocks made, with a change of the committee now and then.
fn grow(world: &mut World, n_blocks: u64) {
    let end = world.height() + n_blocks;
    while world.height() < end {
        let height = world.height();
        let text = match height % 17 {
            7 => [NEXT_EPOCH, height.to_string().as_bytes()].concat(),
            _ => format!("transaction {height} of {}", world.seed).into_bytes(),
        };
        assert!(world.submit(1, &text));
        world.run_for(SECOND / 2);
    }
}

fn join(world: &mut World, node: usize) {
    world.wipe(node);
    world.start(node);
    world.connect_all();
}

#[test]
fn a_node_without_disks_joins_after_blocks_were_deleted() {
    for seed in 0..4 {
        let _seed = Seed(seed);
        let mut world = old_network(seed, 60);
        for node in 0..4 {
            assert!(world.first_block(node) > 20, "node {node} keeps everything");
        }
        join(&mut world, 4);
        world.run_for(20 * SECOND);
        assert_eq!(world.replica(4).height(), world.height());
        assert!(world.n_installed > 0);
        assert!(world.blamed.is_empty());
        // It can be asked in its turn: it knows who signed what it never had.
        for node in 0..4 {
            world.crash(node, true);
        }
        join(&mut world, 0);
        world.run_for(20 * SECOND);
        assert_eq!(world.replica(0).height(), world.height());
        for node in 1..4 {
            world.start(node);
        }
        world.connect_all();
        must_recover(&mut world);
    }
}

#[test]
fn a_node_that_was_away_for_long_takes_a_snapshot_and_for_short_blocks() {
    for (n_blocks, n_installed) in [(4, 0), (40, 1)] {
        let mut world = old_network(5, 20);
        world.start(4);
        world.connect_all();
        world.run_for(10 * SECOND);
        assert_eq!(world.replica(4).height(), world.height());
        world.crash(4, true);
        let before = world.n_installed;
        grow(&mut world, n_blocks);
        world.start(4);
        world.connect_all();
        world.run_for(10 * SECOND);
        assert_eq!(world.replica(4).height(), world.height());
        assert_eq!(world.n_installed - before, n_installed);
        must_recover(&mut world);
    }
}

#[test]
fn a_snapshot_of_many_pages_arrives_while_blocks_go_on() {
    let mut world = old_network(6, 60);
    world.weather.latency_ms = (100, 150);
    let before = world.height();
    join(&mut world, 4);
    // Several pages at a third of a second each, and several blocks meanwhile.
    grow(&mut world, 2 * PIN_BLOCKS);
    world.run_for(20 * SECOND);
    assert!(world.n_pages > 4, "{} pages", world.n_pages);
    assert!(world.height() > before + PIN_BLOCKS);
    assert_eq!(world.replica(4).height(), world.height());
    assert!(world.n_installed > 0);
    must_recover(&mut world);
    assert_eq!(world.n_busy, 0, "who means well is never refused");
}

#[test]
fn who_stops_answering_in_the_middle_is_replaced() {
    let mut world = old_network(7, 60);
    join(&mut world, 4);
    for _ in 0..200 {
        if world.n_pages > 2 {
            break;
        }
        world.run_for(SECOND / 100);
    }
    assert_eq!(world.n_installed, 0, "too late to stop anyone");
    // Two of the four are gone: nobody decides any more, but the state is there to be had.
    world.crash(1, true);
    world.crash(2, true);
    world.run_for(60 * SECOND);
    assert_eq!(world.n_installed, 1);
    assert_eq!(world.replica(4).height(), world.height());
    for node in [1, 2] {
        world.start(node);
    }
    world.connect_all();
    must_recover(&mut world);
}

#[test]
fn liars_are_blamed_and_passed_over() {
    let mut offences = BTreeSet::new();
    for seed in seeds(24) {
        let _seed = Seed(seed);
        let mut world = old_network(seed, 40 + seed % 7);
        let liar = world.rng.random_range(0..4);
        world.liars.push((liar, Lie::Misleads));
        join(&mut world, 4);
        world.run_for(60 * SECOND);
        assert_eq!(world.replica(4).height(), world.height(), "seed {seed}");
        assert!(world.n_installed > 0);
        offences.extend(world.offences.iter().cloned());
        must_recover(&mut world);
    }
    if seeds(24).len() >= 24 {
        for kind in ["Link", "NeedlessLink", "OtherCommittee", "Page"] {
            assert!(offences.contains(kind), "nobody was blamed for {kind}: {offences:?}");
        }
    }
}

#[test]
fn networks_that_forget_blocks_survive_faults() {
    let (mut n_installed, mut crashes) = (0, 0);
    for seed in seeds(60) {
        let _seed = Seed(seed);
        let mut world = World::new(seed, 4).with_snapshots(LAG_MIN, LAG_MIN + 2);
        super::corrupt(&mut world);
        if let Some((_, lie)) = world.liars.first_mut()
            && seed % 3 == 0
        {
            *lie = Lie::Misleads;
        }
        let mut world = go_through_faults(world);
        // Someone comes back after long, or anew, while power fails at any write. Without it nobody else may be silent.
        world.liars.retain(|(_, lie)| *lie == Lie::Misleads);
        let late = 4;
        world.crash(late, true);
        grow(&mut world, LAG_MIN + PIN_BLOCKS);
        let members = std::sync::Arc::clone(world.replica(0).tip().committee());
        if members.index_of(&super::key(late).peer()).is_none() {
            world.wipe(late);
        }
        world.crash_while_writing(late);
        world.start(late);
        world.connect_all();
        world.run_for(30 * SECOND);
        super::heal(&mut world);
        must_recover(&mut world);
        n_installed += world.n_installed;
        crashes += world.n_crashes;
    }
    if seeds(60).len() >= 60 {
        assert!(n_installed > 10 && crashes > 60, "{n_installed} snapshots, {crashes} crashes");
    }
}

#[test]
fn whatever_dies_while_a_state_is_taken_the_node_starts() {
    let mut is_over = false;
    for n in 0.. {
        for seed in 0..3 {
            let _seed = Seed(seed);
            let mut world = old_network(seed, 40);
            join(&mut world, 4);
            world.fail_blocks_after(4, n);
            world.run_for(20 * SECOND);
            let n_crashes = world.n_crashes;
            super::heal(&mut world);
            world.run_for(20 * SECOND);
            assert_eq!(world.replica(4).height(), world.height(), "seed {seed}, operation {n}");
            // The first crash is that of the network's making.
            is_over |= n_crashes == 1;
        }
        if is_over {
            assert!(n > 4, "only {n} operations");
            break;
        }
    }
}

/// What a member that misleads answers to who is behind.
pub(crate) fn mislead(response: Response, rng: &mut rand_chacha::ChaCha8Rng) -> Option<Response> {
    Some(match response {
        Response::Link(Some(mut link)) => {
            match rng.random_range(0..8) {
                0 => link.header.state_root.0[3] ^= 1,
                1 => link.header.network.0[3] ^= 1,
                2 => link.header.next_committee = None,
                3 => link.header.height += 1,
                4 => link.has_state = !link.has_state,
                5 => link = another_block(&link),
                _ => {}
            }
            Response::Link(Some(link))
        }
        Response::Committee(mut part) if !part.is_empty() => {
            match rng.random_range(0..3) {
                0 => part.truncate(part.len() / 2),
                1 => part[40] ^= 1,
                _ => {}
            }
            Response::Committee(part)
        }
        Response::Page(Some(page)) => match rng.random_range(0..5) {
            0 => Response::Page(bent(&page, rng)),
            1 => Response::Page(cut(&page)),
            2 => Response::Page(None),
            3 => return None,
            // The right page of nothing: an empty tree.
            _ => Response::Page(protocol::ledger::tree::Tree::default().page(None, 1)),
        },
        response => response,
    })
}

/// The link with a header that nobody signed.
fn another_block(link: &Link) -> Box<Link> {
    let mut other = link.clone();
    other.header.time_ms += 1;
    other.header.transactions.0[0] ^= 1;
    Box::new(other)
}

/// A page with a bit of an entry flipped.
fn bent(page: &Page, rng: &mut rand_chacha::ChaCha8Rng) -> Option<Page> {
    let mut bytes = Response::Page(Some(page.clone())).encode();
    for _ in 0..20 {
        let at = rng.random_range(8..bytes.len());
        bytes[at] ^= 1;
        if let Ok(Response::Page(bent)) = Response::decode(&bytes) {
            return bent;
        }
        bytes[at] ^= 1;
    }
    None
}

/// A page of which the last item is missing.
fn cut(page: &Page) -> Option<Page> {
    let bytes = protocol::codec::encode(page);
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    (8..bytes.len()).rev().find_map(|end| {
        let cut = [&(n - 1).to_le_bytes()[..], &bytes[8..end]].concat();
        protocol::codec::decode_exact::<Page, { 1 << 20 }>(&cut).ok()
    })
}
