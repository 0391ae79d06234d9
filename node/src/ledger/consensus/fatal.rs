//! Why a replica stops for good.

use std::sync::Arc;

use super::{application::PrepareError, block_store::StoreError, wal::WalError};

/// Why a replica can go on no longer. The node stops; what is on its disk is the truth it starts from again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fatal {
    /// The write-ahead log failed or is damaged: without it, a vote could contradict an earlier one.
    #[error("the write-ahead log of consensus failed")]
    Wal(#[source] Arc<WalError>),
    /// The block store failed.
    #[error("the block store failed")]
    Blocks(#[source] Arc<StoreError>),
    /// The state is of a height that the block store does not reach: one of the two is from another node or a backup.
    #[error("the ledger state is of height {state}, but blocks reach only to {blocks}")]
    StateAhead {
        /// Height of the state.
        state: u64,
        /// Height of the last block.
        blocks: u64,
    },
    /// A quorum decided on a block that this node finds invalid: it or the quorum runs another program.
    #[error("the committee decided on block {height}, which is invalid here: {reason}")]
    Diverged {
        /// Height of the block.
        height: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The state after a block was there, certified, and could not be taken.
    #[error("cannot take the state of height {height} from others")]
    Install {
        /// Height of the block.
        height: u64,
        /// Why.
        #[source]
        source: Arc<PrepareError>,
    },
    /// The application proposed what is no block.
    #[error("the proposed payload does not make a block: {reason}")]
    Payload {
        /// What is wrong with it.
        reason: String,
    },
    /// The engine refuses to go on, for instance because replaying its log would make it contradict itself.
    #[error("the consensus engine stopped: {reason}")]
    Engine {
        /// What it says.
        reason: String,
    },
}

impl From<WalError> for Fatal {
    fn from(error: WalError) -> Self {
        Self::Wal(Arc::new(error))
    }
}

impl From<StoreError> for Fatal {
    fn from(error: StoreError) -> Self {
        Self::Blocks(Arc::new(error))
    }
}
