//! What can be read from the state.

use std::sync::Arc;

use super::{
    Corrupt, Pool, State,
    entry::{Account, Blob, Bucket, Head, Node, Registration, Stage},
    slot::{
        AccountSlot, BlobSlot, BucketSlot, DelegationSlot, HeadSlot, NodeSlot, ParametersSlot, ReadySlot,
        RegistrationSlot, Slot as _, UnbondingSlot, prefix,
    },
};
use crate::{
    committee::Committee,
    hash::Hash,
    ids::{AccountId, BlobId, Epoch, NodeIndex, PeerId},
    ledger::{parameters::Parameters, tree::Tree},
};

impl State {
    /// Where the ledger is.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself.
    pub fn head(&self) -> Result<Head, Corrupt> {
        self.store.require(&HeadSlot {})
    }

    /// Rules and current prices.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself.
    pub fn parameters(&self) -> Result<Parameters, Corrupt> {
        self.store.require(&ParametersSlot {})
    }

    /// The committee that answers for the shards.
    #[must_use]
    pub const fn committee(&self) -> &Arc<Committee> {
        &self.committee
    }

    /// The committee before, while members of the current one are still taking over from it.
    #[must_use]
    pub const fn previous_committee(&self) -> Option<&Arc<Committee>> {
        self.previous.as_ref()
    }

    /// The committee of the next epoch, once it is fixed.
    #[must_use]
    pub const fn next_committee(&self) -> Option<&Arc<Committee>> {
        self.next.as_ref()
    }

    /// The committee that takes over with the block that has begun and not ended, if one does: it signs from the next height on.
    #[must_use]
    pub fn new_committee(&self) -> Option<&Arc<Committee>> {
        self.begins_epoch.then_some(&self.committee)
    }

    /// The block time, in milliseconds since 1970, from which on a stage of the epoch is due, if one ever is without
    /// a transaction.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself.
    pub fn due_ms(&self) -> Result<Option<u64>, Corrupt> {
        let head = self.head()?;
        let Some((before, _)) = self.parameters()?.epoch_parts_ms() else { return Ok(None) };
        Ok(match head.stage {
            // The first block begins the first epoch.
            _ if head.height == 0 => Some(0),
            Stage::Steady => Some(head.epoch_started_ms.saturating_add(before)),
            Stage::Selected { ends_ms } => Some(ends_ms),
            Stage::Handover { .. } => None,
        })
    }

    /// Whether a member of the committee of an epoch has said that its shards are ready.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself.
    pub fn is_ready(&self, epoch: Epoch, member: NodeIndex) -> Result<bool, Corrupt> {
        Ok(self.store.get(&ReadySlot { epoch, member })?.is_some())
    }

    /// The hash of everything.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.store.root()
    }

    /// The entries, for proofs and snapshots.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        self.store.tree()
    }

    /// A blob, if the ledger knows it.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself.
    pub fn blob(&self, blob_id: &BlobId) -> Result<Option<Blob>, Corrupt> {
        self.store.get(&BlobSlot { blob_id: *blob_id })
    }

    /// All blobs whose ID is not below `start`, by ascending ID.
    pub fn blobs_from(&self, start: &BlobId) -> impl Iterator<Item = Result<(BlobId, Blob), Corrupt>> {
        let start = BlobSlot { blob_id: *start }.key();
        let blobs = self.store.scan_from::<BlobSlot>(prefix::<BlobSlot>(&[]), start);
        blobs.map(|entry| entry.map(|(slot, blob)| (slot.blob_id, blob)))
    }

    /// An owner's registration of a blob.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself.
    pub fn registration(&self, blob_id: &BlobId, owner: &AccountId) -> Result<Option<Registration>, Corrupt> {
        self.store.get(&RegistrationSlot { blob_id: *blob_id, owner: *owner })
    }

    /// Credits that an account's stake behind a node is worth.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself.
    pub fn staked(&self, node: &PeerId, account: &AccountId) -> Result<u64, Corrupt> {
        let shares = self.store.get(&DelegationSlot { node: *node, account: *account })?;
        match (shares, self.node(node)?) {
            (Some(shares), Some(node)) => node.stake.worth(shares),
            _ => Ok(0),
        }
    }

    /// All nodes, by ascending peer ID: what a committee is selected from.
    pub fn nodes(&self) -> impl Iterator<Item = Result<(PeerId, Node), Corrupt>> {
        self.store.scan::<NodeSlot>(&[]).map(|entry| entry.map(|(slot, node)| (slot.node, node)))
    }

    /// All credits there are: in accounts, stakes, withdrawn stakes and the fund. The same for ever; counting takes a look
    /// at every account, so this is for audits and tests.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself.
    pub fn total(&self) -> Result<u128, Corrupt> {
        let balances = self.store.scan::<AccountSlot>(&[]).map(|entry| {
            let (_, Account { balance, .. }) = entry?;
            Ok(balance)
        });
        let stakes = self.nodes().map(|entry| Ok(entry?.1.stake.credits));
        let unbonding = self.store.scan::<UnbondingSlot>(&[]).map(|entry| {
            let (_, Pool { credits, .. }) = entry?;
            Ok(credits)
        });
        let fund = self.store.scan::<BucketSlot>(&[]).map(|entry| {
            let (_, Bucket { credits, .. }) = entry?;
            Ok(credits)
        });
        balances
            .chain(stakes)
            .chain(unbonding)
            .chain(fund)
            .try_fold(0, |total, credits: Result<u64, Corrupt>| Ok(total + u128::from(credits?)))
    }
}
