//! What is agreed on: the state machine behind the blocks.

use protocol::{
    AccountId,
    committee::Committee,
    hash::Hash,
    ledger::block::{Block, Decided},
};

/// What a proposer puts into a block.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The transactions chosen, in order.
    pub transactions: Vec<Vec<u8>>,
    /// Root of the state after them.
    pub state_root: Hash,
    /// Hash of the committee that signs from the next height on, if they change it.
    pub next_committee: Option<Hash>,
}

/// Why the transactions or roots of a block are wrong; whoever proposed it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid block: {reason}")]
pub struct InvalidPayload {
    /// What is wrong.
    pub reason: String,
}

/// The replicated state machine. All of it is deterministic: the same blocks lead to the same state on every node.
///
/// Only [`Application::commit`] changes the state; proposing and checking try a block out on it.
pub trait Application {
    /// Height of the state: that of the last block committed to it, durably. Blocks after it are committed again when a
    /// replica starts.
    fn height(&self) -> u64;

    /// Whether a transaction could be executed on the state as it is. Asked before it is kept, and again after each block.
    fn admits(&self, transaction: &[u8]) -> bool;

    /// Whose transaction this is, which is admitted: of one sender only so many wait at a time. None, if that is not limited.
    fn sender(&self, transaction: &[u8]) -> Option<AccountId> {
        let _ = transaction;
        None
    }

    /// The block time at which a block is due even if there is no transaction.
    fn due_ms(&self) -> Option<u64>;

    /// Chooses from `candidates`, which fit into a block together, what the block of this height and time contains.
    fn propose(&mut self, height: u64, time_ms: u64, candidates: &[&[u8]]) -> Payload;

    /// Executes a block that follows the last one, and compares its roots with the result.
    ///
    /// # Errors
    ///
    /// If it is wrong.
    fn check(&mut self, block: &Block) -> Result<(), InvalidPayload>;

    /// Executes a decided block for good. Returns the committee that it puts in place, if it does.
    fn commit(&mut self, decided: &Decided) -> Option<Committee>;
}
