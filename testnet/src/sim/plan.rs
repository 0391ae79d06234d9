//! What happens in a run, all of it drawn from the seed.

use std::time::Duration;

use protocol::{SegmentIndex, encoding::BlobShape};
use rand::{Rng as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

/// More bytes than a segment has on any network.
const LONG: u64 = 1 << 32;

/// Epochs of a run in which they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epochs {
    /// How long each takes.
    pub length: Duration,
    /// Nodes beside those of the genesis, who come and go.
    pub n_more: u16,
}

/// The options of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// Nodes of the network.
    pub n_nodes: u16,
    /// Shards of the network.
    pub n_shards: u16,
    /// How long faults go on, in simulated time.
    pub chaos: Duration,
    /// Clients that store and read.
    pub n_clients: u16,
    /// Blobs that each client stores during the chaos.
    pub stores_per_client: u16,
    /// Most bytes of a blob.
    pub blob_bytes_max: usize,
    /// Share of messages lost, in percent.
    pub loss_percent: u8,
    /// Longest delay of a message.
    pub latency_max: Duration,
    /// Nodes crash, losing what they had not synced.
    pub crashes: bool,
    /// Nodes lose their disks.
    pub wipes: bool,
    /// The network falls apart, and comes together.
    pub partitions: bool,
    /// Bits flip on disks.
    pub flips: bool,
    /// Disks run full for a while.
    pub full_disks: bool,
    /// Some nodes lie or keep silent, as far as the fault model allows.
    pub byzantine: bool,
    /// A writer encodes wrongly.
    pub wrong_writer: bool,
    /// The first blob of each client takes two segments.
    pub long_blobs: bool,
    /// Some members lie in consensus, as far as the fault model allows.
    pub lies: bool,
    /// Epochs end, and nodes come and go; none if the first epoch stays.
    pub epochs: Option<Epochs>,
}

impl Plan {
    /// Draws the options from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x706c_616e);
        // Mostly small networks, which are cheap and reach the same states; some large ones.
        let n_nodes = *[7, 7, 7, 7, 8, 9, 10, 13, 16, 31].choose(&mut rng).unwrap_or(&7);
        let n_shards = n_nodes + rng.random_range(0..=n_nodes);
        let has_epochs = !seed.is_multiple_of(16);
        let length = Duration::from_secs(rng.random_range(12..=30));
        let n_more = rng.random_range(2..=4);
        Self {
            seed,
            n_nodes,
            n_shards,
            chaos: Duration::from_secs(rng.random_range(20..90)),
            n_clients: rng.random_range(1..=2),
            stores_per_client: rng.random_range(2..=4),
            blob_bytes_max: *[100, 3_000, 40_000].choose(&mut rng).unwrap_or(&100),
            loss_percent: *[0, 0, 1, 5].choose(&mut rng).unwrap_or(&0),
            latency_max: Duration::from_millis(*[5, 30, 300].choose(&mut rng).unwrap_or(&5)),
            crashes: rng.random_bool(0.7),
            wipes: rng.random_bool(0.4),
            partitions: rng.random_bool(0.4),
            flips: rng.random_bool(0.4),
            full_disks: rng.random_bool(0.2),
            byzantine: rng.random_bool(0.4),
            wrong_writer: rng.random_bool(0.15),
            // A segment is 8 MiB, which costs a second rather than milliseconds, and more with more shards.
            long_blobs: rng.random_bool(0.12) && n_shards <= 20,
            lies: rng.random_bool(0.4),
            epochs: has_epochs.then_some(Epochs { length, n_more }),
        }
    }

    /// Bytes of a full segment.
    pub(super) fn segment_bytes(&self) -> usize {
        let shape = BlobShape::new(self.n_shards, LONG).expect("not too long");
        let first = shape.range(SegmentIndex(0)).expect("there is a first segment");
        usize::try_from(first.end).expect("a segment fits in memory")
    }

    /// A run in which nothing goes wrong, to set options on.
    #[must_use]
    pub fn calm(seed: u64, n_nodes: u16, n_shards: u16) -> Self {
        Self {
            seed,
            n_nodes,
            n_shards,
            chaos: Duration::from_secs(20),
            n_clients: 1,
            stores_per_client: 2,
            blob_bytes_max: 3_000,
            loss_percent: 0,
            latency_max: Duration::from_millis(20),
            crashes: false,
            wipes: false,
            partitions: false,
            flips: false,
            full_disks: false,
            byzantine: false,
            wrong_writer: false,
            long_blobs: false,
            lies: false,
            epochs: None,
        }
    }
}
