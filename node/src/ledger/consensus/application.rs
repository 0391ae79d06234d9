//! What is agreed on: the state machine behind the blocks.

use protocol::{
    committee::Committee,
    hash::Hash,
    ledger::{
        block::{Block, Decided},
        transaction::Place,
        tree::{Page, Tree},
    },
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

/// Why a state that others had cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A quorum signed what is no state here: this node or the quorum runs another program.
    #[error("the entries make no state: {reason}")]
    NoState {
        /// What is wrong with it.
        reason: String,
    },
    /// The disk failed, or has no room.
    #[error("cannot write the state")]
    Io(#[from] std::io::Error),
}

/// The replicated state machine. All of it is deterministic: the same blocks lead to the same state on every node.
///
/// Only [`Application::commit`] changes the state; proposing and checking try a block out on it.
pub trait Application {
    /// Height of the state: that of the last block committed to it, durably. Blocks after it are committed again when a
    /// replica starts.
    fn height(&self) -> u64;

    /// Whether this is a transaction that somebody stands behind. If not, whoever passed it on is at fault: whether it can
    /// be executed depends on the state, this does not.
    fn is_sound(&self, transaction: &[u8]) -> bool;

    /// The place among those of its sender of a transaction that is sound; none if senders do not matter.
    fn place(&self, transaction: &[u8]) -> Option<Place>;

    /// Whether a transaction could be executed on the state as it is, after others of its sender. Asked before it is kept;
    /// costs what executing them costs.
    fn admits(&self, transaction: &[u8], after: &[&[u8]]) -> bool;

    /// How many transactions of its sender have to be executed before this one, as far as a cheap look tells; none if it
    /// never can be. Asked of every transaction that waits, after every block.
    fn turn(&self, transaction: &[u8], place: Option<&Place>) -> Option<u64>;

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

    /// Height of the newest state of which pages are handed out, and of which the block is durable; none if there is none.
    /// It changes seldom, and the one before is handed out as well: fetching all pages takes a while.
    fn pinned(&self) -> Option<u64>;

    /// The page of the state of this height that follows the entry with key `after`, or the first; none if there is no such
    /// state or entry.
    fn page(&self, height: u64, after: Option<&[u8]>) -> Option<Page>;

    /// Height of the first block that a restart may need: those below may be deleted.
    fn needs_from(&self) -> u64;

    /// Makes the state after a decided block durable, beside the own one: which of them counts after a restart, the block
    /// store says. The root of `tree` is the one that the block names.
    ///
    /// # Errors
    ///
    /// [`PrepareError`]. The own state is what it was.
    fn prepare(&mut self, decided: &Decided, tree: Tree) -> Result<(), PrepareError>;

    /// Goes on from the state that was prepared last, the block of which is durable by now.
    fn adopt(&mut self, decided: &Decided);
}
