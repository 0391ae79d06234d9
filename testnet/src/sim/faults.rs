//! What goes wrong: one fault at a time, each within the fault model.

use std::time::Duration;

use protocol::{NodeIndex, PeerId};
use rand::{Rng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use swarm::simulated::Link;
use tokio::time::Instant;

use super::{byzantine::Behaviour, world::World};

/// Causes faults, and ends them.
#[derive(Debug)]
pub(super) struct Faults {
    rng: ChaCha8Rng,
    /// Nodes that are down, and when they come back, with a new disk or their own.
    down: Vec<(Instant, NodeIndex)>,
    /// When the network comes together again.
    partitioned_until: Option<Instant>,
    /// Disks that are full, and until when.
    full: Vec<(Instant, NodeIndex)>,
}

impl Faults {
    pub(super) const fn new(rng: ChaCha8Rng) -> Self {
        Self { rng, down: Vec::new(), partitioned_until: None, full: Vec::new() }
    }

    /// Makes some nodes faulty for the whole run, with half of the weight that the model allows.
    pub(super) fn corrupt_some(&mut self, world: &World) {
        let half = protocol::quorum::max_faulty(world.n_shards()).div_ceil(2);
        for node in world.all() {
            let weight = world.weight(node);
            if world.faulty_weight() + weight <= half.max(weight)
                && world.may_fail(node)
                && self.rng.random_bool(0.5)
            {
                let behaviours = [Behaviour::Mute, Behaviour::Liar, Behaviour::Denier];
                let behaviour = *behaviours.choose(&mut self.rng).unwrap_or(&Behaviour::Mute);
                world.peers.corrupt(world.peer(node), behaviour);
                world.model().fault(behaviour.name());
            }
        }
    }

    /// Ends faults whose time has come, and perhaps causes another.
    pub(super) async fn step(&mut self, world: &mut World) {
        let now = Instant::now();
        for node in world.reap().await {
            self.down.push((now + Duration::from_secs(1), node));
        }
        let (back, still) = self.down.drain(..).partition(|(at, _)| *at <= now);
        self.down = still;
        for (_, node) in back {
            world.restart(node).await;
        }
        if self.partitioned_until.is_some_and(|until| until <= now) {
            self.partitioned_until = None;
            world.simulation.heal();
        }
        let (free, still) = self.full.drain(..).partition(|(at, _)| *at <= now);
        self.full = still;
        for (_, node) in free {
            world.disk(node).set_capacity(None);
        }
        match self.rng.random_range(0..7_u32) {
            6 if world.plan.crashes => self.black_out(world).await,
            0 if world.plan.crashes => self.crash(world).await,
            1 if world.plan.wipes => self.wipe(world).await,
            2 if world.plan.partitions => self.partition(world),
            3 if world.plan.flips => self.flip(world),
            4 if world.plan.full_disks => self.fill(world),
            5 => self.change_link(world),
            _ => {}
        }
    }

    fn pick(&mut self, world: &World) -> Option<NodeIndex> {
        let candidates: Vec<NodeIndex> =
            world.running().into_iter().filter(|node| world.may_fail(*node)).collect();
        candidates.choose(&mut self.rng).copied()
    }

    fn pause(&mut self, seconds: std::ops::Range<u64>) -> Instant {
        Instant::now() + Duration::from_secs(self.rng.random_range(seconds))
    }

    async fn crash(&mut self, world: &mut World) {
        let Some(node) = self.pick(world) else { return };
        if self.rng.random_bool(0.7) {
            world.model().fault("power cut");
            world.crash(node).await;
        } else {
            world.model().fault("kill");
            world.kill(node).await;
        }
        let back = self.pause(1..15);
        self.down.push((back, node));
    }

    /// Cuts everybody's power at once. More than `f` are down then, but all come back with what they had synced, so
    /// nothing that was acknowledged may be lost.
    async fn black_out(&mut self, world: &mut World) {
        if !self.rng.random_bool(0.3) {
            return;
        }
        world.model().fault("black-out");
        let back = self.pause(1..3);
        for node in world.running() {
            world.crash(node).await;
            self.down.push((back, node));
        }
    }

    async fn wipe(&mut self, world: &mut World) {
        let Some(node) = self.pick(world) else { return };
        world.model().fault("wipe");
        world.kill(node).await;
        world.wipe(node);
        let back = self.pause(1..10);
        self.down.push((back, node));
    }

    fn partition(&mut self, world: &World) {
        if self.partitioned_until.is_some() {
            return;
        }
        let (mut left, mut right): (Vec<PeerId>, Vec<PeerId>) = (Vec::new(), Vec::new());
        for node in world.all() {
            if self.rng.random_bool(0.5) { &mut left } else { &mut right }.push(world.peer(node));
        }
        world.model().fault("partition");
        if self.rng.random_bool(0.3) {
            // One way only.
            for from in &left {
                for to in &right {
                    world.simulation.cut(*from, *to);
                }
            }
        } else {
            world.simulation.partition(&[&left, &right]);
        }
        self.partitioned_until = Some(self.pause(2..15));
    }

    /// Flips a bit in something that is stored.
    fn flip(&mut self, world: &World) {
        use storage::disk::Disk as _;
        let Some(node) = world.running().choose(&mut self.rng).copied() else { return };
        let disk = world.disk(node);
        let Ok(mut names) = disk.list() else { return };
        names.sort();
        let Some(name) = names.choose(&mut self.rng) else { return };
        let Some(len) = disk.open(name).and_then(|file| file.len()).ok().filter(|len| *len > 0) else {
            return;
        };
        let offset = self.rng.random_range(0..len);
        if disk.flip(name, offset, 1 << self.rng.random_range(0..8_u32)) {
            world.model().fault("bit flip");
        }
    }

    fn fill(&mut self, world: &World) {
        let Some(node) = self.pick(world) else { return };
        world.model().fault("full disk");
        // Not a byte more than there is.
        world.disk(node).set_capacity(Some(0));
        let until = self.pause(2..10);
        self.full.push((until, node));
    }

    fn change_link(&mut self, world: &World) {
        let nodes = world.all();
        let (Some(from), Some(to)) = (nodes.choose(&mut self.rng), nodes.choose(&mut self.rng)) else {
            return;
        };
        let slowest = Duration::from_millis(self.rng.random_range(20..2_000));
        let link = Link {
            latency: Duration::from_millis(1)..=slowest,
            loss: f64::from(self.rng.random_range(0..20_u32)) / 100.0,
            bytes_per_second: self.rng.random_bool(0.3).then_some(1 << 20),
        };
        world.model().fault("bad link");
        world.simulation.set_link(world.peer(*from), world.peer(*to), link);
    }

    /// Ends all faults but lies in consensus: from here on, liveness is owed too.
    pub(super) async fn heal(&mut self, world: &mut World) {
        world.simulation.heal();
        world.simulation.reset_links();
        world.set_links(true);
        for node in world.all() {
            world.peers.reform(world.peer(node));
            world.disk(node).set_capacity(None);
        }
        world.reap().await;
        for node in world.all() {
            world.restart(node).await;
        }
        self.down.clear();
        self.full.clear();
        self.partitioned_until = None;
    }
}
