//! The ledger's state machine as consensus sees it: [`State`] in memory, with a snapshot on disk now and then.
//!
//! # Invariants
//!
//! - The state is that of the last block committed. Trying a block out happens on a clone, which costs nothing.
//! - A snapshot is of a block that is durable already, so the blocks after it are always there to be executed again. One
//!   that was fetched from others is there before its block, and does not count until that is.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::{
    NetworkId,
    committee::Committee,
    genesis::Genesis,
    hash::Hash,
    ledger::{
        block::{Block, Decided, Header, committee_hash, transaction_id},
        state::{ApplyError, Corrupt, Event, Receipt, State},
        transaction::{Place, SignedTransaction, TransactionError, VerifiedTransaction},
        tree::{Page, Tree},
        wire::STATE_PAGE_BYTES_AIM,
    },
};

use super::{
    consensus::{Application, BlockStore, InvalidPayload, Payload, PrepareError, StoreError},
    mailbox::Executed,
    snapshots::{SnapshotError, Snapshots},
    view::View,
};

/// Transactions remembered as verified: a transaction is looked at when it comes, when it is proposed, when the proposal is
/// checked, and after every block in between.
const VERIFIED_MAX: usize = 4096;

/// Blocks executed that are kept until they are asked for: far more than one call to the replica commits. A start executes as
/// many as there are since the last snapshot, and nobody asks in between.
const DONE_MAX: usize = 1024;

/// States after transactions that wait which are remembered: one for each of the sixteen of sixty-four busy senders. A state
/// costs what the transactions changed, some kilobytes.
const TAILS_MAX: usize = 1024;

/// States of which pages are handed out: while a new one is there, whoever is fetching the one before must be able to end. Each
/// keeps in memory what changed since.
const PINNED_MAX: usize = 2;

/// Snapshots on the disk that a restart may begin from.
const SNAPSHOTS_MAX: usize = 2;

/// Why a transaction cannot be executed now. Its sender is at fault, or was overtaken by others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is not a transaction that anyone stands behind.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// The rules do not allow it.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Why the state cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The genesis describes no state: a bug, since it was verified.
    #[error("the genesis describes no state")]
    Genesis(#[source] Corrupt),
    /// The directory of the snapshots cannot be read.
    #[error("cannot list the snapshots of the ledger")]
    List(#[source] io::Error),
    /// The blocks cannot be read.
    #[error(transparent)]
    Blocks(#[from] StoreError),
    /// No snapshot can be read, and blocks before this height were deleted.
    #[error(
        "no snapshot of the ledger can be read, and its blocks before height {first} are gone: a copy of the ledger's directory from before, or that of a node that starts anew, has to take its place"
    )]
    Lost {
        /// Height of the first block that is there.
        first: u64,
    },
}

/// Why the state cannot go on. The node stops.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A quorum decided on a block that does not execute here: this node or the quorum runs another program.
    #[error("the committee decided on block {height}, which does not execute here")]
    Diverged {
        /// Height of the block.
        height: u64,
        /// What is wrong with it.
        #[source]
        source: InvalidPayload,
    },
    /// A snapshot could not be written.
    #[error("cannot write the snapshot of height {height}")]
    Snapshot {
        /// Its height.
        height: u64,
        /// What the disk says.
        #[source]
        source: io::Error,
    },
}

/// A block that was executed.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) decided: Decided,
    pub(super) state: State,
    pub(super) receipts: Vec<Receipt>,
    pub(super) events: Vec<Event>,
    /// The state was taken from others.
    pub(super) is_snapshot: bool,
}

impl Done {
    /// What is told of it.
    pub(super) fn into_news(self) -> (View, Executed) {
        let Self { decided: Decided { block, certificate }, state, receipts, events, is_snapshot } = self;
        let header = block.header().clone();
        let (height, time_ms) = (header.height, header.time_ms);
        let executed = Executed { height, time_ms, receipts, events, is_snapshot };
        (View { head: Some(Arc::new((header, certificate))), state }, executed)
    }
}

/// What a block led to when it was tried out.
#[derive(Clone, Debug)]
struct Tried {
    block: protocol::BlockId,
    state: State,
    receipts: Vec<Receipt>,
    /// What the stage of the epoch changed that began with it.
    events: Vec<Event>,
    /// The committee that takes over with it, if one does.
    next: Option<Arc<Committee>>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct App {
    network: NetworkId,
    state: State,
    /// [`State::due_ms`] of `state`: consensus asks for it all the time.
    due_ms: Option<u64>,
    height: u64,
    /// The last block that was found sound, so that it is not executed again when it is decided.
    tried: Option<Tried>,
    /// Behind a lock because looking at a transaction changes nothing that anyone could tell.
    verified: Mutex<BTreeMap<Hash, Arc<VerifiedTransaction>>>,
    /// The state as it would be after transactions that were examined, by their names: those of one sender follow each other,
    /// and each would have to be executed again for every one after it. INV: at most [`TAILS_MAX`]; none from before the last
    /// block.
    tails: Mutex<BTreeMap<Vec<Hash>, State>>,
    /// INV: at most [`DONE_MAX`]; of more only the last are kept.
    done: Mutex<VecDeque<Done>>,
    snapshots: Snapshots,
    /// Blocks from one snapshot to the next.
    snapshot_blocks: u64,
    snapshot_height: u64,
    /// Heights of the newest snapshots on the disk, ascending. INV: at most [`SNAPSHOTS_MAX`].
    on_disk: VecDeque<u64>,
    /// States of which pages are handed out, by height. INV: at most [`PINNED_MAX`]; their blocks are durable.
    pinned: BTreeMap<u64, State>,
    /// What was made durable, to go on from.
    prepared: Option<(u64, State)>,
    failed: Option<AppError>,
}

impl App {
    /// Loads the newest sound snapshot of which the block is there, or the genesis; and what can be said of it.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn load(
        genesis: &Genesis,
        snapshots: Snapshots,
        blocks: &dyn BlockStore,
        snapshot_blocks: u64,
    ) -> Result<(Self, View), LoadError> {
        let mut view = View { head: None, state: State::genesis(genesis).map_err(LoadError::Genesis)? };
        let heights = snapshots.heights().map_err(LoadError::List)?;
        for height in heights.iter().copied() {
            // A snapshot without its block proves nothing: the blocks are from a backup, or another node's.
            let decided = blocks.read(height)?;
            let Some(Decided { block, certificate }) = decided else { continue };
            match open(&snapshots, height, block.header().state_root) {
                Ok(state) => {
                    view = View { head: Some(Arc::new((block.header().clone(), certificate))), state };
                    break;
                }
                Err(error) => tracing::warn!(height, %error, "a snapshot of the ledger is of no use"),
            }
        }
        let height = view.height();
        let first = blocks.first()?;
        if height == 0 && first > 1 {
            return Err(LoadError::Lost { first });
        }
        let on_disk = heights.into_iter().filter(|it| (1..=height).contains(it)).take(SNAPSHOTS_MAX);
        let mut app = Self {
            network: genesis.network_id(),
            state: view.state.clone(),
            due_ms: due_ms(&view.state),
            height,
            tried: None,
            verified: Mutex::default(),
            tails: Mutex::default(),
            done: Mutex::default(),
            snapshots,
            snapshot_blocks: snapshot_blocks.max(1),
            snapshot_height: height,
            on_disk: on_disk.collect::<VecDeque<u64>>().into_iter().rev().collect(),
            pinned: BTreeMap::new(),
            prepared: None,
            failed: None,
        };
        if height > 0 {
            app.pin();
        }
        Ok((app, view))
    }

    /// The state after the last block.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Why the state cannot go on, if it cannot.
    pub(super) const fn take_failed(&mut self) -> Option<AppError> {
        self.failed.take()
    }

    /// The blocks executed since the last time that this was asked.
    pub(super) fn take_done(&self) -> VecDeque<Done> {
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a transaction could be executed on the state as it is, after these others.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn examine(&self, transaction: &[u8], after: &[&[u8]]) -> Result<(), Unfit> {
        let verified = self.verified(transaction)?;
        let mut ids: Vec<Hash> = after.iter().map(|it| transaction_id(it)).collect();
        let known = self.tails().get(&ids).cloned();
        let mut state = known.map_or_else(|| self.state_after(after), Ok)?;
        ids.push(transaction_id(transaction));
        if self.tails().contains_key(&ids) {
            return Ok(());
        }
        state.apply(&verified)?;
        let mut tails = self.tails();
        if tails.len() >= TAILS_MAX {
            tails.clear();
        }
        tails.insert(ids, state);
        Ok(())
    }

    fn state_after(&self, transactions: &[&[u8]]) -> Result<State, Unfit> {
        let mut state = self.state.clone();
        for bytes in transactions {
            state.apply(&*self.verified(bytes)?)?;
        }
        Ok(state)
    }

    /// Whether a transaction at this place may ever be executed, and how many of its sender's come before it.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn turn(&self, place: &Place) -> Result<u64, Unfit> {
        Ok(self.state.turn(place)?)
    }

    /// The place of a transaction among those of its sender.
    ///
    /// # Errors
    ///
    /// If nobody stands behind it.
    pub fn place(&self, transaction: &[u8]) -> Result<Place, Unfit> {
        Ok(self.verified(transaction)?.transaction().place())
    }

    fn tails(&self) -> MutexGuard<'_, BTreeMap<Vec<Hash>, State>> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, BTreeMap<Hash, Arc<VerifiedTransaction>>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verified(&self, bytes: &[u8]) -> Result<Arc<VerifiedTransaction>, TransactionError> {
        let id = transaction_id(bytes);
        if let Some(verified) = self.cache().get(&id) {
            return Ok(Arc::clone(verified));
        }
        let verified = Arc::new(SignedTransaction::from_bytes(bytes)?.verify(&self.network)?);
        let mut cache = self.cache();
        if cache.len() >= VERIFIED_MAX {
            cache.clear();
        }
        cache.insert(id, Arc::clone(&verified));
        Ok(verified)
    }

    /// Executes a block on a clone of the state.
    fn execute(&self, block: &Block) -> Result<Tried, InvalidPayload> {
        let header = block.header();
        let invalid = |reason: String| InvalidPayload { reason };
        let mut state = self.state.clone();
        let events = state.begin_block(header.height, header.time_ms);
        let events = events.map_err(|error| invalid(error.to_string()))?;
        let mut receipts = Vec::with_capacity(block.transactions().len());
        for (bytes, position) in block.transactions().iter().zip(0_usize..) {
            let receipt = self.verified(bytes).map_err(Unfit::from).and_then(|it| Ok(state.apply(&it)?));
            receipts.push(receipt.map_err(|error| invalid(format!("transaction {position}: {error}")))?);
        }
        let next = state.new_committee().cloned();
        let root = state.end_block();
        if root != header.state_root {
            let required = header.state_root;
            return Err(invalid(format!("it leads to root {root:?}, not to {required:?}")));
        }
        if header.next_committee != next.as_deref().map(committee_hash) {
            return Err(invalid("it names another next committee than it leads to".to_owned()));
        }
        Ok(Tried { block: header.id(), state, receipts, events, next })
    }

    /// Writes a snapshot of the last block, if there is none yet. Want of room is no failure: an older one is as good.
    pub(super) fn snapshot(&mut self) {
        let height = self.height;
        if height == self.snapshot_height || self.failed.is_some() {
            return;
        }
        match self.snapshots.write(height, self.state.tree()) {
            Ok(()) => {
                self.snapshot_height = height;
                self.is_on_disk(height);
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                // Not again at every block.
                self.snapshot_height = height;
                tracing::warn!(height, %error, "no room for a snapshot of the ledger; the one before is kept");
            }
            Err(source) => self.failed = Some(AppError::Snapshot { height, source }),
        }
    }
}

/// When a stage of the epoch is due. A state that contradicts itself has none.
fn due_ms(state: &State) -> Option<u64> {
    state.due_ms().unwrap_or_else(|error| {
        tracing::error!(%error, "the ledger's state cannot be read");
        None
    })
}

impl App {
    fn set_state(&mut self, state: State, height: u64) {
        self.due_ms = due_ms(&state);
        (self.state, self.height) = (state, height);
        self.tails().clear();
    }

    /// Hands out pages of the state as it is.
    fn pin(&mut self) {
        self.pinned.insert(self.height, self.state.clone());
        while self.pinned.len() > PINNED_MAX {
            self.pinned.pop_first();
        }
    }

    fn is_on_disk(&mut self, height: u64) {
        self.on_disk.push_back(height);
        while self.on_disk.len() > SNAPSHOTS_MAX {
            self.on_disk.pop_front();
        }
    }

    fn tell(&mut self, done: Done) {
        let all = self.done.get_mut().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= DONE_MAX {
            all.pop_front();
        }
        all.push_back(done);
    }
}

/// Reads a snapshot and takes it for a state.
fn open(snapshots: &Snapshots, height: u64, root: Hash) -> Result<State, OpenError> {
    Ok(State::open(snapshots.read(height, root)?)?)
}

/// Why a snapshot is of no use.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    State(#[from] Corrupt),
}

impl Application for App {
    fn height(&self) -> u64 {
        self.height
    }

    fn is_sound(&self, transaction: &[u8]) -> bool {
        self.verified(transaction).is_ok()
    }

    fn place(&self, transaction: &[u8]) -> Option<Place> {
        Self::place(self, transaction).ok()
    }

    fn admits(&self, transaction: &[u8], after: &[&[u8]]) -> bool {
        self.examine(transaction, after).is_ok()
    }

    fn turn(&self, _: &[u8], place: Option<&Place>) -> Option<u64> {
        Self::turn(self, place?).ok()
    }

    fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    fn propose(&mut self, height: u64, time_ms: u64, candidates: &[&[u8]]) -> Payload {
        let mut state = self.state.clone();
        let (mut transactions, mut next_committee) = (Vec::new(), None);
        match state.begin_block(height, time_ms) {
            // Such a block is refused by everyone, this node included; it is all that can be said.
            Err(error) => tracing::error!(height, %error, "no block can follow the state; this is a bug"),
            Ok(_) => {
                next_committee = state.new_committee().map(|next| committee_hash(next));
                for bytes in candidates {
                    let verified = self.verified(bytes);
                    if verified.is_ok_and(|verified| state.apply(&verified).is_ok()) {
                        transactions.push(bytes.to_vec());
                    }
                }
            }
        }
        Payload { transactions, state_root: state.end_block(), next_committee }
    }

    fn check(&mut self, block: &Block) -> Result<(), InvalidPayload> {
        self.tried = Some(self.execute(block)?);
        Ok(())
    }

    fn commit(&mut self, decided: &Decided) -> Option<Committee> {
        if self.failed.is_some() {
            return None;
        }
        let block = &*decided.block;
        let tried = self.tried.take().filter(|tried| tried.block == block.id());
        let height = block.header().height;
        let Tried { state, receipts, events, next, .. } = match tried.map_or_else(|| self.execute(block), Ok)
        {
            Ok(tried) => tried,
            Err(source) => {
                self.failed = Some(AppError::Diverged { height, source });
                return None;
            }
        };
        self.set_state(state.clone(), height);
        self.tell(Done { decided: decided.clone(), state, receipts, events, is_snapshot: false });
        // At the same heights on all nodes, so that whoever fetches a state can take each page from another.
        if height.is_multiple_of(self.snapshot_blocks) {
            self.pin();
            self.snapshot();
        }
        next.map(|next| Committee::clone(&next))
    }

    fn pinned(&self) -> Option<u64> {
        self.pinned.last_key_value().map(|(height, _)| *height)
    }

    fn page(&self, height: u64, after: Option<&[u8]>) -> Option<Page> {
        self.pinned.get(&height)?.tree().page(after, STATE_PAGE_BYTES_AIM)
    }

    /// The older snapshot is there in case the newer rots; as long as there is only one, the genesis is.
    fn needs_from(&self) -> u64 {
        let oldest = self.on_disk.front().filter(|_| self.on_disk.len() >= SNAPSHOTS_MAX);
        oldest.copied().unwrap_or_default()
    }

    fn prepare(&mut self, decided: &Decided, tree: Tree) -> Result<(), PrepareError> {
        let no_state = |reason: String| PrepareError::NoState { reason };
        let Header { height, state_root, .. } = *decided.block.header();
        let state = State::open(tree).map_err(|error| no_state(error.to_string()))?;
        let head = state.head().map_err(|error| no_state(error.to_string()))?;
        if state.root() != state_root || head.height != height || head.network != self.network {
            return Err(no_state(format!("it is of height {}, the block of height {height}", head.height)));
        }
        self.snapshots.write(height, state.tree())?;
        self.prepared = Some((height, state));
        Ok(())
    }

    /// # Panics
    ///
    /// If another state was prepared: a mistake of the replica's.
    fn adopt(&mut self, decided: &Decided) {
        let height = decided.block.header().height;
        let prepared = self.prepared.take().filter(|(prepared, _)| *prepared == height);
        let (_, state) = prepared.expect("a state is adopted after it was prepared");
        self.tried = None;
        self.set_state(state.clone(), height);
        self.snapshot_height = height;
        self.is_on_disk(height);
        // The older ones have no blocks behind them any more.
        self.pinned.clear();
        self.pin();
        let decided = decided.clone();
        let (receipts, events) = (Vec::new(), Vec::new());
        self.tell(Done { decided, state, receipts, events, is_snapshot: true });
    }
}
