//! The storage fund: a bucket for each epoch, filled by those who buy storage of it, emptied to those who gave it.

use super::{
    ApplyError, Corrupt, Event, Rejected, State,
    entry::{Bucket, Node, NodeStatus},
    slot::{BucketSlot, NodeSlot},
    store::{add, sub},
};
use crate::{
    committee::Committee,
    ids::{AccountId, Epoch, PeerId},
    ledger::parameters::{BASIS_POINTS, CAPACITY_UNLIMITED},
};

const FUND: &str = "credits of the fund";
const RESERVED: &str = "reserved bytes";

/// Storage of so many bytes, for so much an epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purchase {
    pub(super) encoded_bytes: u64,
    /// Credits for each epoch.
    pub(super) rate: u64,
    /// Credits besides, for the first epoch.
    pub(super) once: u64,
    pub(super) from: Epoch,
    /// Exclusive.
    pub(super) to: Epoch,
}

impl State {
    /// What was sold of an epoch.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself.
    pub fn bucket(&self, epoch: Epoch) -> Result<Bucket, Corrupt> {
        Ok(self.store.get(&BucketSlot { epoch })?.unwrap_or_default())
    }

    /// Writes a bucket; an empty one has no entry.
    pub(super) fn write_bucket(&mut self, epoch: Epoch, bucket: Bucket) -> Result<(), Corrupt> {
        let slot = BucketSlot { epoch };
        if bucket != Bucket::default() {
            self.store.set(&slot, &bucket);
            Ok(())
        } else if self.store.has(&slot) {
            self.store.remove(&slot)
        } else {
            Ok(())
        }
    }

    /// Puts credits, taken from elsewhere, into the bucket of an epoch.
    pub(super) fn fund(&mut self, epoch: Epoch, amount: u64) -> Result<(), Corrupt> {
        let bucket = self.bucket(epoch)?;
        self.write_bucket(epoch, Bucket { credits: add(FUND, bucket.credits, amount)?, ..bucket })
    }

    /// Reserves room in each epoch and pays for it.
    pub(super) fn buy(&mut self, buyer: &AccountId, purchase: &Purchase) -> Result<(), ApplyError> {
        let Purchase { encoded_bytes, rate, once, from, to } = *purchase;
        let needs = u128::from(rate) * u128::from(to.0 - from.0) + u128::from(once);
        self.withdraw(buyer, needs)?;
        self.fund(from, once)?;
        let capacity = self.parameters()?.capacity_bytes;
        for epoch in (from.0..to.0).map(Epoch) {
            let bucket = self.bucket(epoch)?;
            let free = u128::from(capacity).saturating_sub(bucket.reserved_bytes);
            if capacity != CAPACITY_UNLIMITED && u128::from(encoded_bytes) > free {
                let free = u64::try_from(free).map_err(|_| Corrupt::Sum { what: RESERVED })?;
                return Err(Rejected::Capacity { epoch, free, needs: encoded_bytes }.into());
            }
            let credits = add(FUND, bucket.credits, rate)?;
            let reserved_bytes = bucket
                .reserved_bytes
                .checked_add(encoded_bytes.into())
                .ok_or(Corrupt::Sum { what: RESERVED })?;
            self.write_bucket(epoch, Bucket { credits, reserved_bytes })?;
        }
        Ok(())
    }

    /// Gives back the room reserved in the epochs from `from` on, and returns the credits for them, `rate` an epoch.
    pub(super) fn give_back(
        &mut self,
        encoded_bytes: u64,
        rate: u64,
        epochs: std::ops::Range<u32>,
    ) -> Result<u64, Corrupt> {
        let mut refund = 0;
        for epoch in epochs.map(Epoch) {
            let bucket = self.bucket(epoch)?;
            let credits = sub(FUND, bucket.credits, rate)?;
            let reserved_bytes = bucket
                .reserved_bytes
                .checked_sub(encoded_bytes.into())
                .ok_or(Corrupt::Sum { what: RESERVED })?;
            self.write_bucket(epoch, Bucket { credits, reserved_bytes })?;
            refund = add(FUND, refund, rate)?;
        }
        Ok(refund)
    }

    /// Pays the bucket of the epoch that ends to its committee, by shards; what is left over goes to the next epoch.
    ///
    /// An ejected member's part is left over too.
    pub(super) fn settle(&mut self, committee: &Committee) -> Result<Vec<Event>, Corrupt> {
        let epoch = committee.epoch();
        let bucket = self.bucket(epoch)?;
        self.write_bucket(epoch, Bucket::default())?;
        let mut left = bucket.credits;
        let mut events = Vec::new();
        for index in committee.nodes() {
            let Some(member) = committee.member(index) else { continue };
            let part = u128::from(bucket.credits) * u128::from(committee.weight(index))
                / u128::from(committee.n_shards());
            let part = u64::try_from(part).map_err(|_| Corrupt::Sum { what: FUND })?;
            if let Some(event) = self.reward(member.peer, part)? {
                left = sub(FUND, left, part)?;
                events.push(event);
            }
        }
        self.fund(Epoch(epoch.0 + 1), left)?;
        Ok(events)
    }

    /// Pays a node: its commission to the operator, the rest to those who stake on it, or to the operator if nobody does.
    fn reward(&mut self, peer: PeerId, part: u64) -> Result<Option<Event>, Corrupt> {
        let slot = NodeSlot { node: peer };
        let mut node: Node = self.store.require(&slot)?;
        if part == 0 || node.status == NodeStatus::Ejected {
            return Ok(None);
        }
        let commission = u128::from(part) * u128::from(node.commission_bp) / u128::from(BASIS_POINTS);
        let mut operator = u64::try_from(commission).map_err(|_| Corrupt::Sum { what: FUND })?;
        let mut stakers = sub(FUND, part, operator)?;
        if node.stake.reward(stakers)? {
            self.store.set(&slot, &node);
        } else {
            (operator, stakers) = (part, 0);
        }
        self.deposit(&node.description.operator, operator)?;
        Ok(Some(Event::Rewarded { node: peer, operator, stakers }))
    }
}
