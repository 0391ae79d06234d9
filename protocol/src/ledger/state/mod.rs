//! The state of the ledger and how transactions, blocks and epochs change it.
//!
//! ```text
//! State::genesis ─> begin_block [─> a stage of the epoch] ─> apply, apply, ... ─> end_block ─> root ─> begin_block ...
//! ```
//!
//! Everything that matters is an entry of the tree, so that the root commits to it and a snapshot of the tree is a
//! snapshot of the state: see [`entry`] for what entries hold and `docs/spec/ledger.md` for their keys and all rules.
//! Committees are kept beside the tree as well, since making one of its entries costs reading a key a member.
//!
//! # Invariants
//!
//! - A change happens as a whole or not at all: it is made on a clone, which costs nothing, and kept if it succeeds.
//! - Credits in accounts, stakes, withdrawn stakes and buckets add up to the same [`total`](State::total) for ever.
//! - What a transaction costs to apply is bounded by the parameters and the size of the committee, never by how many
//!   entries there are. Only stages of the epoch take longer: selection looks at every node, and [the
//!   handover](State::advance_epoch) does work in proportion to what ends with an epoch.

mod accounts;
mod blobs;
pub mod entry;
mod epoch;
mod event;
mod evidence;
mod fund;
mod genesis;
pub mod key;
mod nodes;
mod pool;
mod queries;
mod rejected;
mod slot;
mod stake;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::{
    entry::{Head, Stage},
    slot::{HeadSlot, MemberSlot},
    store::Store,
};
pub use self::{
    event::{Event, Left, Receipt},
    pool::{Pool, SHARES_MIN},
    rejected::{AdvanceError, ApplyError, BlockError, Rejected},
    store::Corrupt,
};
use crate::{
    committee::{Committee, Member},
    hash::Hash,
    ids::{Epoch, RegistrationId},
    ledger::{
        transaction::{Action, Transaction, VerifiedTransaction},
        tree::Tree,
    },
};

/// The state of the ledger. Cloning is free and gives a snapshot.
#[derive(Clone, Debug)]
pub struct State {
    store: Store,
    /// The committee of the current epoch, as in the tree.
    committee: Arc<Committee>,
    /// The one before, while the handover runs; as in the tree.
    previous: Option<Arc<Committee>>,
    /// The one after, once it is fixed; as in the tree.
    next: Option<Arc<Committee>>,
    /// The block that has begun, and not ended, began the epoch too.
    begins_epoch: bool,
}

impl State {
    /// The state that a tree holds, such as one rebuilt from a snapshot.
    ///
    /// # Errors
    ///
    /// If the tree holds no state.
    pub fn open(tree: Tree) -> Result<Self, Corrupt> {
        let store = Store::new(tree);
        let head = store.require(&HeadSlot {})?;
        let committee = Arc::new(read_committee(&store, &head, head.epoch)?);
        let of = |epoch: Option<u32>| -> Result<_, Corrupt> {
            let epoch = Epoch(epoch.ok_or(Corrupt::Sum { what: "epochs" })?);
            Ok(Some(Arc::new(read_committee(&store, &head, epoch)?)))
        };
        let (previous, next) = match head.stage {
            Stage::Steady => (None, None),
            Stage::Selected { .. } => (None, of(head.epoch.0.checked_add(1))?),
            Stage::Handover { .. } => (of(head.epoch.0.checked_sub(1))?, None),
        };
        Ok(Self { store, committee, previous, next, begins_epoch: false })
    }

    /// Begins the block that follows the last, with the stage of the epoch that is due by then, if one is. Returns what that
    /// changed.
    ///
    /// # Errors
    ///
    /// If it is of another height, or earlier than the one before. Nothing changed then.
    pub fn begin_block(&mut self, height: u64, time_ms: u64) -> Result<Vec<Event>, BlockError> {
        let head = self.head()?;
        let required = head.height.checked_add(1).ok_or(Corrupt::Sum { what: "heights" })?;
        if height != required {
            return Err(BlockError::Height { got: height, required });
        }
        if time_ms < head.time_ms {
            return Err(BlockError::Time { got: time_ms, min: head.time_ms });
        }
        let mut next = self.clone();
        let epoch_started_ms = if head.height == 0 { time_ms } else { head.epoch_started_ms };
        next.store.set(&HeadSlot {}, &Head { height, time_ms, epoch_started_ms, ..head });
        next.begins_epoch = false;
        let events = next.begin_stage()?;
        *self = next;
        Ok(events)
    }

    /// Ends the block, and returns the root that it commits to.
    #[must_use]
    pub fn end_block(&mut self) -> Hash {
        self.begins_epoch = false;
        self.root()
    }

    /// Applies a transaction.
    ///
    /// # Errors
    ///
    /// If the rules do not allow it, or the state contradicts itself. Nothing changed then, the sender's nonce and the fee
    /// included: a transaction that is not allowed belongs into no block.
    pub fn apply(&mut self, transaction: &VerifiedTransaction) -> Result<Receipt, ApplyError> {
        let mut next = self.clone();
        let receipt = next.execute(transaction)?;
        *self = next;
        Ok(receipt)
    }

    fn execute(&mut self, verified: &VerifiedTransaction) -> Result<Receipt, ApplyError> {
        let (got, required) = (*verified.network(), self.head()?.network);
        if got != required {
            return Err(Rejected::WrongNetwork { got, required }.into());
        }
        let Transaction { sender, nonce, action } = verified.transaction();
        let place = verified.transaction().place();
        self.take_place(&place, verified.id())?;
        let fee = self.fee(&place)?;
        self.charge_fee(sender, fee)?;
        let events = self.act(RegistrationId { owner: *sender, nonce: *nonce }, action)?;
        Ok(Receipt { id: verified.id(), fee, events })
    }

    /// Does what the transaction `by` says; what it registers is called the same.
    fn act(&mut self, by: RegistrationId, action: &Action) -> Result<Vec<Event>, ApplyError> {
        let sender = by.owner;
        let event = match action {
            Action::Transfer { to, amount } => self.transfer(sender, *to, *amount),
            Action::RegisterNode { description } => self.register_node(sender, description),
            Action::UpdateNode { node, description } => self.update_node(sender, *node, description),
            Action::LeaveNode { node } => self.leave_node(sender, *node),
            Action::Stake { node, amount } => self.stake(sender, *node, *amount),
            Action::Unstake { node, amount } => self.unstake(sender, *node, *amount),
            Action::RegisterBlob { header, persistence, end_epoch } => {
                self.register_blob(by, *header, *persistence, *end_epoch)
            }
            Action::CertifyBlob { certificate } => self.certify_blob(certificate),
            Action::ExtendBlob { blob_id, end_epoch } => self.extend_blob(sender, *blob_id, *end_epoch),
            Action::DeleteBlob { blob_id } => self.delete_blob(sender, *blob_id),
            Action::InvalidateBlob { certificate } => self.invalidate_blob(certificate),
            Action::ShardsReady { epoch } => return self.shards_ready(sender, *epoch),
            Action::Vote { node, ballot } => self.vote(sender, *node, *ballot),
            Action::Evidence { equivocation } => self.punish(equivocation),
            Action::StoreBlob { header, persistence, end_epoch, certificate } => {
                let registered = self.register_blob(by, *header, *persistence, *end_epoch)?;
                return Ok(vec![registered, self.certify_own(by, certificate)?]);
            }
        };
        Ok(vec![event?])
    }
}

/// The committee that the tree holds for an epoch. Its members are registered nodes: possession of their keys was proven then.
fn read_committee(store: &Store, head: &Head, epoch: Epoch) -> Result<Committee, Corrupt> {
    let members: Result<Vec<Member>, Corrupt> =
        store.scan::<MemberSlot>(&[&epoch]).map(|entry| entry.map(|(_, member)| member)).collect();
    Ok(Committee::of_known(epoch, head.n_shards, members?)?)
}
