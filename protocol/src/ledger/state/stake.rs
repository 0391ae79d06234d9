//! Stake: credits behind a node, which earn with it and answer for it.
//!
//! Stake has a part in all that is paid to its node while it is there, however short. Since what is withdrawn is locked for
//! at least an epoch without earning anything, whoever comes for a payment and goes earns less than whoever stays.

use super::{
    ApplyError, Corrupt, Event, Rejected, State,
    entry::{Node, NodeStatus},
    slot::{DelegationSlot, NodeSlot, UnbondingShareSlot, UnbondingSlot},
    store::{add, sub},
};
use crate::ids::{AccountId, Epoch, PeerId};

const SHARES: &str = "shares of stake";

impl State {
    pub(super) fn stake(
        &mut self,
        account: AccountId,
        node: PeerId,
        amount: u64,
    ) -> Result<Event, ApplyError> {
        if amount == 0 {
            return Err(Rejected::NoAmount.into());
        }
        let mut known = self.known_node(node)?;
        match known.status {
            NodeStatus::Active => {}
            NodeStatus::Leaving => return Err(Rejected::NodeLeaving { node }.into()),
            NodeStatus::Ejected => return Err(Rejected::NodeEjected { node }.into()),
        }
        self.withdraw(&account, amount.into())?;
        let shares = known.stake.put_exactly(amount).ok_or(Rejected::StakeTooSmall { node, amount })?;
        let slot = DelegationSlot { node, account };
        let shares = add(SHARES, self.store.get(&slot)?.unwrap_or_default(), shares)?;
        self.store.set(&slot, &shares);
        self.store.set(&NodeSlot { node }, &known);
        Ok(Event::Staked { node, account, amount })
    }

    /// Moves stake to where it earns nothing and can still be slashed, until it is released.
    pub(super) fn unstake(
        &mut self,
        account: AccountId,
        node: PeerId,
        amount: Option<u64>,
    ) -> Result<Event, ApplyError> {
        let mut known = self.known_node(node)?;
        let slot = DelegationSlot { node, account };
        let has_shares: u64 = self.store.get(&slot)?.unwrap_or_default();
        let has = known.stake.worth(has_shares)?;
        let needs = amount.unwrap_or(has);
        if needs > has {
            return Err(Rejected::TooLittleStake { node, account, has, needs }.into());
        }
        if needs == 0 {
            return Err(Rejected::NoAmount.into());
        }
        let shares = if amount.is_none() { has_shares } else { known.stake.price(needs)? };
        let amount = known.stake.take(shares, needs)?;
        self.store.set(&NodeSlot { node }, &known);
        let left = sub(SHARES, has_shares, shares)?;
        if left == 0 {
            self.store.remove(&slot)?
        } else {
            self.store.set(&slot, &left)
        }
        let release = self.lock(account, node, amount)?;
        Ok(Event::Unstaked { node, account, amount, release })
    }

    /// Adds to what is released together, and returns when that is.
    fn lock(&mut self, account: AccountId, node: PeerId, amount: u64) -> Result<Epoch, ApplyError> {
        let release = self.release_of(self.head()?.epoch)?;
        let slot = UnbondingSlot { release, node };
        let mut pool = self.store.get(&slot)?.unwrap_or_default();
        // A pool that was slashed to nothing takes nobody's credits any more.
        let shares = pool.put(amount).ok_or(Rejected::StakeTooSmall { node, amount })?;
        self.store.set(&slot, &pool);
        let slot = UnbondingShareSlot { release, node, account };
        let shares = add(SHARES, self.store.get(&slot)?.unwrap_or_default(), shares)?;
        self.store.set(&slot, &shares);
        Ok(release)
    }

    /// The epoch with which stake is released that is withdrawn in this one: as many whole epochs lie between as stake
    /// answers for.
    pub(super) fn release_of(&self, epoch: Epoch) -> Result<Epoch, Corrupt> {
        let locked = self.parameters()?.unbonding_epochs;
        let release = epoch.0.checked_add(1).and_then(|next| next.checked_add(locked));
        release.map(Epoch).ok_or(Corrupt::Sum { what: "epochs" })
    }

    /// Releases all that is to be released when `epoch` begins.
    pub(super) fn release(&mut self, epoch: Epoch) -> Result<Vec<Event>, Corrupt> {
        let pools: Vec<_> = self.store.scan::<UnbondingSlot>(&[&epoch]).collect::<Result<_, _>>()?;
        let mut events = Vec::new();
        for (slot, mut pool) in pools {
            let node = slot.node;
            let shares: Vec<_> =
                self.store.scan::<UnbondingShareSlot>(&[&epoch, &node]).collect::<Result<_, _>>()?;
            for (share_slot, shares) in shares {
                let amount = pool.take(shares, pool.worth(shares)?)?;
                self.deposit(&share_slot.account, amount)?;
                self.store.remove(&share_slot)?;
                events.push(Event::Released { node, account: share_slot.account, amount });
            }
            self.store.remove(&slot)?;
            if pool.credits != 0 || pool.shares != 0 {
                return Err(Corrupt::Sum { what: SHARES });
            }
        }
        Ok(events)
    }

    /// Takes a part of all stake behind a node, withdrawn but not released stake included, and returns it.
    pub(super) fn slash(&mut self, peer: PeerId, node: &mut Node, basis_points: u16) -> Result<u64, Corrupt> {
        let mut slashed = node.stake.slash(basis_points)?;
        let epoch = self.head()?.epoch;
        for release in (epoch.0..=self.release_of(epoch)?.0).map(Epoch) {
            let slot = UnbondingSlot { release, node: peer };
            if let Some(mut pool) = self.store.get(&slot)? {
                slashed = add("slashed credits", slashed, pool.slash(basis_points)?)?;
                self.store.set(&slot, &pool);
            }
        }
        Ok(slashed)
    }
}
