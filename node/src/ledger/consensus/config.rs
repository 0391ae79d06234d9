//! What can be tuned, and how time is told.

use std::time::Duration;

use arc_malachitebft_core_types::LinearTimeouts;

/// The time, given from outside with each call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Since some start; never goes back. Timers run on it.
    pub uptime: Duration,
    /// Milliseconds since 1970, as far as the node knows. Block time is made of it, and nothing else.
    pub unix_ms: u64,
}

/// How a replica behaves. The defaults suit a network across continents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long to wait for a proposal in the first round: a round trip and the time to make and send a block. A
    /// proposer that is down costs this.
    pub propose: Duration,
    /// How long to wait for more votes once a quorum has voted for different things: a round trip.
    pub vote: Duration,
    /// By how much either grows with each round, so that they are long enough at last.
    pub growth: Duration,
    /// Own votes are repeated after this while nothing happens. Also how often transactions submitted here are.
    pub repeat: Duration,
    /// No wait is longer.
    pub wait_max: Duration,
    /// Least time between two blocks: what comes meanwhile shares a block.
    pub block_interval_min: Duration,
    /// Least time between two blocks of which the latter is for nothing: one member alone can make others begin a height,
    /// and must not fill their disks with empty blocks.
    pub empty_block_interval_min: Duration,
    /// How far the clocks of honest nodes may differ: blocks from further in the future are not voted for.
    pub clock_drift_max: Duration,
    /// After this much quiet a member says once how far its ledger reaches: whoever missed the end of the last height
    /// learns of it.
    pub settle: Duration,
    /// How long a peer may take to answer.
    pub answer_max: Duration,
    /// Bytes of transactions kept until they are in a block.
    pub mempool_bytes_max: usize,
    /// Transactions kept until they are in a block.
    pub mempool_transactions_max: usize,
    /// A transaction that is still not in a block after this many is dropped: otherwise one that never will be would make
    /// blocks for ever.
    pub mempool_blocks_max: u64,
    /// Who is more blocks behind takes a snapshot instead of executing them. More than twice what lies between two snapshots,
    /// so that the newest of a peer is well ahead; fewer than are kept, so that whoever is less behind finds the blocks.
    pub snapshot_lag_min: u64,
    /// Blocks kept for those who are behind, beside those that a restart needs: at the longest 2 GB, and ordinarily a
    /// hundredth of that.
    pub blocks_kept: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            propose: Duration::from_millis(1_000),
            vote: Duration::from_millis(500),
            growth: Duration::from_millis(500),
            repeat: Duration::from_millis(2_000),
            wait_max: Duration::from_secs(30),
            block_interval_min: Duration::from_millis(100),
            empty_block_interval_min: Duration::from_millis(1_000),
            clock_drift_max: Duration::from_secs(10),
            settle: Duration::from_millis(250),
            answer_max: Duration::from_secs(2),
            mempool_bytes_max: 16 << 20,
            mempool_transactions_max: 16_384,
            mempool_blocks_max: 64,
            snapshot_lag_min: 2_560,
            blocks_kept: 8_192,
        }
    }
}

impl Config {
    /// The engine's timeouts.
    pub(super) const fn timeouts(&self) -> LinearTimeouts {
        LinearTimeouts {
            propose: self.propose,
            propose_delta: self.growth,
            prevote: self.vote,
            prevote_delta: self.growth,
            precommit: self.vote,
            precommit_delta: self.growth,
            rebroadcast: self.repeat,
            max_timeout: self.wait_max,
        }
    }
}
