//! Whole networks of replicas under faults, from seeds.
//!
//! `CONSENSUS_SEEDS=1000 cargo test --release -p node --test consensus` runs more seeds, `CONSENSUS_SEED=17` one of them.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stdout, reason = "says which seed failed, and what the seeds covered")]
#![allow(unreachable_pub, reason = "one test program")]

mod byzantine;
mod snapshots;
mod stores;
mod toy;
mod world;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use byzantine::Lie;
use node::ledger::consensus::Replica;
use protocol::{
    hash::Hash,
    ledger::{
        block::{Block, Draft, Tip},
        proposer::Rotation,
        vote::{Proposal, Vote, VoteKind},
        wire::Message,
    },
};
use rand::{Rng as _, seq::SliceRandom as _};
use toy::{BAD, NEXT_EPOCH, Toy, committees_of, key, node_of};
use world::{NETWORK, World};

const SECOND: Duration = Duration::from_secs(1);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds to run: `default` of them, unless the environment says otherwise.
fn seeds(default: u64) -> Vec<u64> {
    match number("CONSENSUS_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("CONSENSUS_SEEDS").unwrap_or(default)).collect(),
    }
}

/// Says which seed failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("again: CONSENSUS_SEED={} cargo test -p node --test consensus", self.0);
        }
    }
}

/// Liars worth what the model allows.
fn corrupt(world: &mut World) {
    let n_liars = (world.n - 1) / 3;
    let mut nodes: Vec<usize> = (0..world.n).collect();
    nodes.shuffle(&mut world.rng);
    let n = world.rng.random_range(0..=n_liars);
    for node in nodes.into_iter().take(n) {
        let lie = Lie::ALL[world.rng.random_range(0..Lie::ALL.len())];
        world.liars.push((node, lie));
    }
}

/// One thing goes wrong, or right again.
fn mishap(world: &mut World) {
    let node = world.rng.random_range(0..=world.n);
    match world.rng.random_range(0..10) {
        0 if world.is_up(node) => {
            let power = world.rng.random();
            world.crash(node, power);
            let after = Duration::from_millis(world.rng.random_range(1..4_000));
            world.restart_later(node, after);
        }
        1 => {
            for node in 0..=world.n {
                if world.is_up(node) {
                    world.crash(node, true);
                }
                let after = Duration::from_millis(world.rng.random_range(1..2_000));
                world.restart_later(node, after);
            }
        }
        2 | 3 => world.crash_while_writing(node),
        4 => {
            for node in 0..=world.n {
                world.weather.side[node] = u8::from(world.rng.random_bool(0.4));
            }
        }
        5 | 6 => world.weather.side.fill(0),
        7 => world.weather.loss = world.rng.random_range(0.0..0.2),
        8 => world.weather.duplication = world.rng.random_range(0.0..0.3),
        _ => world.weather.latency_ms = (1, world.rng.random_range(2..300)),
    }
}

/// What comes from outside: transactions, good and bad, and now and then a change of the committee.
fn work(world: &mut World, step: u64) {
    let node = world.rng.random_range(0..=world.n);
    let text = match world.rng.random_range(0..12) {
        0 => [BAD, b"transaction"].concat(),
        1 => [NEXT_EPOCH, step.to_string().as_bytes()].concat(),
        _ => format!("{step} at {node}").into_bytes(),
    };
    let kept = world.submit(node, &text);
    assert!(!(kept && text.starts_with(BAD)), "a bad transaction was kept");
}

/// Faults end, everyone comes back.
fn heal(world: &mut World) {
    world.weather.side.fill(0);
    world.weather.loss = 0.0;
    world.weather.duplication = 0.0;
    world.weather.latency_ms = (1, 40);
    for node in 0..=world.n {
        // Whether it is up or not: switches on its disks are off after this.
        world.crash(node, true);
        world.start(node);
    }
    world.connect_all();
}

/// Everything submitted to honest nodes from now on is ordered; then there is silence.
fn must_recover(world: &mut World) {
    let texts: Vec<(usize, Vec<u8>)> = world
        .honest()
        .into_iter()
        .map(|node| (node, format!("after {}, {node}", world.height()).into_bytes()))
        .collect();
    for (node, text) in &texts {
        assert!(world.submit(*node, text), "seed {}: node {node} keeps no transaction", world.seed);
    }
    let mut waited = 0;
    while !(world.is_idle() && texts.iter().all(|(_, text)| world.done.contains(text))) {
        world.run_for(SECOND);
        waited += 1;
        assert!(waited < 300, "seed {}: no recovery: {:?}", world.seed, states(world));
    }
    world.check_equal();
    let before = world.n_messages;
    world.run_for(600 * SECOND);
    assert_eq!(world.n_messages, before, "seed {}: an idle network speaks", world.seed);
}

fn states(world: &World) -> Vec<String> {
    world
        .honest()
        .iter()
        .filter(|node| world.is_up(**node))
        .map(|node| format!("{:?}", world.replica(*node)))
        .collect()
}

fn run(seed: u64, n: usize) -> World {
    let _seed = Seed(seed);
    let mut world = World::new(seed, n);
    corrupt(&mut world);
    go_through_faults(world)
}

fn go_through_faults(mut world: World) -> World {
    world.connect_all();
    for step in 0..30 {
        work(&mut world, step);
        if world.rng.random_bool(0.4) {
            mishap(&mut world);
        }
        let pause = Duration::from_millis(world.rng.random_range(50..1_000));
        world.run_for(pause);
    }
    heal(&mut world);
    must_recover(&mut world);
    world
}

/// Runs seeds and sees to it that what they are for did happen.
fn run_all(default: u64, n: usize) {
    let seeds = seeds(default);
    let mut offences = BTreeSet::new();
    let (mut heights, mut convicted, mut blamed, mut crashes, mut rounds) = (0, 0, 0, 0, 0);
    for seed in &seeds {
        let world = run(*seed, n);
        heights += world.height();
        convicted += world.evidence.len();
        blamed += world.blamed.len();
        offences.extend(world.offences.iter().cloned());
        crashes += world.n_crashes;
        rounds = rounds.max(world.rounds_max);
    }
    println!(
        "{} seeds, {n} members: {heights} heights, {crashes} crashes, up to round {rounds}, {convicted} convicted, {blamed} blamed for {offences:?}",
        seeds.len()
    );
    if seeds.len() >= 50 && n > 1 {
        assert!(heights > 5 * u64::try_from(seeds.len()).unwrap());
        assert!(convicted > 0, "nobody who equivocated was convicted");
        let kinds = "Block Certificate NotAsked NotDecided NotItsTurn OtherBlock Payload Signature";
        let missing: Vec<&str> = kinds.split(' ').filter(|kind| !offences.contains(*kind)).collect();
        assert!(missing.is_empty() || n != 4, "nobody was blamed for {missing:?}");
        assert!(rounds > 0, "no height needed a second round");
    }
}

#[test]
fn four_members_survive_faults() {
    run_all(140, 4);
}

#[test]
fn a_single_member_survives_faults() {
    run_all(20, 1);
}

#[test]
fn seven_members_survive_faults() {
    run_all(60, 7);
}

/// Runs seeds with a planted fault until one is noticed; returns what was said.
fn noticed(plant: fn(&mut World)) -> String {
    let said = |seed| {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, 4);
            plant(&mut world);
            // From the first start on.
            heal(&mut world);
            go_through_faults(world);
        });
        run.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
    };
    (0..40).find_map(said).expect("40 seeds see nothing of a planted fault")
}

#[test]
fn votes_that_are_forgotten_are_noticed() {
    let said = noticed(|world| world.wal_forgets = true);
    assert!(said.contains("contradicts itself") || said.contains("convicted"), "{said}");
}

#[test]
fn votes_that_are_not_durable_when_they_leave_are_noticed() {
    let said = noticed(|world| world.wal_lies = true);
    let by_whom = ["lost votes", "contradicts itself", "convicted"];
    assert!(by_whom.iter().any(|it| said.contains(it)), "{said}");
}

#[test]
fn blocks_that_are_not_durable_when_they_are_acknowledged_are_noticed() {
    let said = noticed(|world| world.blocks_lie = true);
    assert!(said.contains("lost blocks") || said.contains("Ahead"), "{said}");
}

/// A few heights of which some take several rounds, so that votes are for blocks and for none, for new proposals and for
/// repeated ones.
fn some_rounds(mut world: World, ends_after: Option<(usize, u64, bool)>) -> World {
    world.ends_after = ends_after;
    world.weather.proposal_loss = 0.5;
    for step in 0..3 {
        // To any member but the one that ends, which may be down.
        world.submit(1, format!("{step}").as_bytes());
        world.run_for(6 * SECOND);
    }
    world.weather.proposal_loss = 0.0;
    world
}

/// The points at which a member ends below are such that it matters what it remembers.
#[test]
fn a_crash_after_a_vote_that_is_forgotten_is_noticed() {
    let said = |n| {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(0, 4);
            world.wal_forgets = true;
            some_rounds(world, Some((0, n, true)));
        });
        run.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
    };
    let said: Vec<String> = (1..=10).filter_map(said).collect();
    assert!(said.iter().any(|it| it.contains("contradicts itself") || it.contains("convicted")), "{said:?}");
}

/// A member that ends right after any of its votes or proposals has left, and starts again while the round goes on,
/// never contradicts what it said. `World` checks every message that leaves, before and after.
#[test]
fn a_crash_after_any_vote_that_left_leads_to_no_other_vote() {
    let (mut n_points, mut rounds) = (0, 0);
    for seed in 0..5 {
        let n_sent = some_rounds(World::new(seed, 4), None).n_sent[0];
        for n in 1..=n_sent {
            for power in [true, false] {
                let mut world = some_rounds(World::new(seed, 4), Some((0, n, power)));
                // The weather is drawn anew after the end, so that up to it every run is the first.
                assert_eq!(world.n_crashes, 1, "seed {seed}: node 0 sends fewer than {n}");
                must_recover(&mut world);
                assert!(world.evidence.is_empty());
                rounds = rounds.max(world.rounds_max);
                n_points += 1;
            }
        }
    }
    assert!(n_points >= 100, "only {n_points} points to end at");
    assert!(rounds > 0, "no height needed a second round");
    println!("{n_points} points, up to round {rounds}");
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 4] {
        let (first, second) = (run(seed, 4), run(seed, 4));
        assert_eq!(first.trace(), second.trace(), "seed {seed}");
    }
}

#[test]
fn without_work_nobody_says_a_word() {
    for n in [4, 7] {
        let mut world = World::new(1, n);
        assert!(world.is_idle());
        world.run_for(3_600 * SECOND);
        assert_eq!((world.n_messages, world.height()), (0, 0));
    }
}

#[test]
fn one_transaction_is_one_block_everywhere_and_then_silence() {
    let mut world = World::new(2, 4);
    assert!(world.submit(1, b"one"));
    world.run_for(5 * SECOND);
    assert_eq!(world.height(), 1);
    assert!(world.is_idle());
    world.check_equal();
    assert!(!world.submit(2, b"one"), "a transaction that is done is done");
    let before = world.n_messages;
    world.run_for(3_600 * SECOND);
    assert_eq!((world.n_messages, world.height()), (before, 1));
}

#[test]
fn a_due_stage_makes_a_block_without_a_transaction() {
    // Clocks differ by up to four seconds.
    for seed in 0..10 {
        let mut world = World::new(seed, 4).with_due(60_000);
        world.run_for(56 * SECOND);
        assert_eq!((world.height(), world.n_messages), (0, 0), "seed {seed}");
        world.run_for(12 * SECOND);
        assert_eq!(world.height(), 1, "seed {seed}");
        assert!(world.is_idle());
        world.check_equal();
    }
}

#[test]
fn a_clock_that_is_minutes_off_holds_nobody_up_and_is_named() {
    for (seed, skew_ms) in [(1, 300_000), (2, -300_000), (3, 300_000), (4, -300_000)] {
        let mut world = World::new(seed, 4);
        world.skew(0, skew_ms);
        for i in 0..12_u8 {
            assert!(world.submit(1 + usize::from(i % 3), &[b't', i]));
            world.run_for(15 * SECOND);
        }
        world.check_equal();
        assert_eq!(world.done.len(), 12, "skew {skew_ms}");
        // Whose clock is behind is told so; those who are asked to agree to a block of the future are told as well.
        let expected: BTreeSet<usize> = if skew_ms < 0 { [0].into() } else { [1, 2, 3, 4].into() };
        assert!(
            !world.behind.is_empty() && world.behind.is_subset(&expected),
            "{skew_ms}: {:?}",
            world.behind
        );
    }
}

#[test]
fn more_than_a_third_down_stops_the_ledger_and_nothing_else() {
    let mut world = World::new(5, 4);
    world.crash(0, true);
    world.crash(1, true);
    assert!(world.submit(2, b"waits"));
    world.run_for(60 * SECOND);
    assert_eq!(world.height(), 0);
    heal(&mut world);
    must_recover(&mut world);
    assert!(world.height() > 0);
}

#[test]
fn one_member_alone_cannot_fill_disks_with_empty_blocks() {
    let mut world = World::new(9, 4);
    world.liars.push((0, Lie::Withholds));
    for _ in 0..600 {
        let height = world.height() + 1;
        let voter = key(0).peer();
        let vote = Vote { height, round: 0, kind: VoteKind::Prevote, block: None, voter };
        let vote = Message::Vote(vote.sign(&NETWORK, &key(0)));
        for to in 1..=4 {
            world.inject(to, 0, vote.clone());
        }
        world.run_for(SECOND / 10);
    }
    assert!((1..=60).contains(&world.height()), "{} blocks for nothing in a minute", world.height());
}

#[test]
fn an_invalid_block_is_executed_once_however_often_it_comes() {
    let mut world = World::new(9, 4);
    let committee = &committees_of(4)[0];
    let turn = committee.member(Rotation::new(committee).proposer(1, 0)).unwrap().peer;
    let (proposer, victim) = (node_of(&turn), (node_of(&turn) + 1) % 4);
    world.liars = vec![(proposer, Lie::Withholds)];
    let draft = Draft {
        tip: Tip::genesis(NETWORK, Arc::clone(committee)),
        time_ms: 1,
        last_commit: None,
        transactions: vec![b"x".to_vec()],
        state_root: Hash::default(),
        next_committee: None,
    };
    let block = Arc::new(Block::build(draft).unwrap());
    let proposal = Proposal { height: 1, round: 0, lock_round: None, block: block.id(), proposer: turn };
    let proposal = proposal.sign(&NETWORK, &key(proposer));
    for _ in 0..20 {
        world.inject(victim, proposer, Message::Proposal { proposal, block: Arc::clone(&block) });
    }
    world.run_for(SECOND / 5);
    assert_eq!(world.replica(victim).app().n_checks, 1);
    assert!(world.blamed.contains(&turn));
}

#[test]
fn a_member_that_claims_and_does_not_answer_does_not_slow_down_a_height() {
    let mut world = World::new(10, 4);
    let committee = &committees_of(4)[0];
    let turn = committee.member(Rotation::new(committee).proposer(1, 0)).unwrap().peer;
    let (proposer, liar) = (node_of(&turn), (node_of(&turn) + 1) % 4);
    for to in (0..4).filter(|to| *to != liar) {
        world.inject(to, liar, Message::Status { height: u64::MAX });
    }
    world.weather.side[liar] = 1;
    world.run_for(SECOND / 100);
    assert!(world.submit(proposer, b"one"));
    // Sooner than the network gives up on the requests.
    world.run_for(SECOND * 9 / 20);
    assert_eq!(world.height(), 1);
}

#[test]
fn a_replica_can_live_on_any_thread() {
    fn is_send<T: Send>() {}
    is_send::<Replica<Toy>>();
}

#[test]
fn strangers_start_nothing() {
    let mut world = World::new(6, 4);
    world.liars.push((4, Lie::Withholds));
    let status = Message::Status { height: u64::MAX };
    let batch = Message::Transactions(vec![[BAD, b"x"].concat()]);
    for message in [status, batch] {
        world.inject(0, 4, message);
    }
    world.run_for(60 * SECOND);
    assert_eq!(world.height(), 0);
    assert!(world.is_idle(), "{:?}", states(&world));
    assert_eq!(world.offences, BTreeSet::from(["Transaction".to_owned()]), "no honest node passes that on");
}

#[test]
fn many_rounds_in_which_proposals_are_lost_end_in_a_decision() {
    let mut rounds = 0;
    for seed in 0..6 {
        let mut world = World::new(seed, 4);
        world.weather.proposal_loss = 1.0;
        assert!(world.submit(1, b"one"));
        world.run_for(60 * SECOND);
        assert_eq!(world.height(), 0);
        // Some see a proposal and lock on it, others do not.
        world.weather.proposal_loss = 0.6;
        world.run_for(60 * SECOND);
        world.weather.proposal_loss = 0.0;
        must_recover(&mut world);
        rounds = rounds.max(world.rounds_max);
    }
    assert!(rounds >= 10, "only {rounds} rounds");
}

#[test]
fn a_node_that_lost_its_votes_follows_and_does_not_vote() {
    let mut world = World::new(7, 4);
    // Members 0 and 1 without 2 and 3: no quorum, so the height stays open.
    world.crash(2, true);
    world.crash(3, true);
    assert!(world.submit(0, b"one") && world.submit(1, b"two"));
    world.run_for(5 * SECOND);
    assert_eq!(world.height(), 0);
    world.crash(0, false);
    world.flip_log(0, 50);
    world.start(0);
    assert!(world.replica(0).is_muted());
    // Nothing follows from it at the next start either.
    world.crash(0, true);
    world.start(0);
    assert!(world.replica(0).is_muted());

    // The others are a quorum of 7 shards without it.
    for node in [2, 3] {
        world.start(node);
    }
    world.connect_all();
    world.run_for(20 * SECOND);
    assert!(world.height() > 0);
    assert!(!world.replica(0).is_muted());
    must_recover(&mut world);
}

#[test]
fn a_node_without_disks_follows_the_committees_from_genesis() {
    let mut world = World::new(8, 4);
    assert!(world.submit(1, &[NEXT_EPOCH, b"1"].concat()));
    world.run_for(2 * SECOND);
    // Member 0 has left, so nothing that it forgets can make it contradict itself.
    world.crash(0, true);
    let mut n_bytes = 0;
    for block in 0..150_u32 {
        let len = if block % 10 == 0 { 15 << 10 } else { 100 };
        let mut transaction = block.to_le_bytes().to_vec();
        transaction.resize(len, 0);
        for copy in 0..8 {
            transaction[5] = copy;
            n_bytes += transaction.len();
            assert!(world.submit(2, &transaction));
        }
        world.run_for(SECOND / 2);
    }
    assert!(world.height() > 100);
    world.wipe(0);
    world.start(0);
    world.connect_all();
    world.run_for(20 * SECOND);
    assert_eq!(world.replica(0).height(), world.height(), "of {n_bytes} bytes in blocks");
    assert!(world.submit(3, &[NEXT_EPOCH, b"2"].concat()));
    must_recover(&mut world);
    assert_eq!(world.replica(0).tip().committee().epoch().0, 2);
}
