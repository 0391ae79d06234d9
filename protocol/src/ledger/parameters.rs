//! What storage costs and what the network has of it: set by the genesis file, then by votes.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{quorum::max_faulty, selection::Rules};

/// Most credits that can exist, and the most that any amount or price can be: what a TOML integer holds. So no sum of
/// balances leaves 64 bits.
pub const CREDITS_MAX: u64 = u64::MAX >> 1;
/// A capacity that nothing exhausts: what is sold of an epoch is counted, and not compared with it. Otherwise the first
/// to register blobs of absurd lengths on a network without prices would leave no room to anyone.
pub const CAPACITY_UNLIMITED: u64 = CREDITS_MAX;
/// Bytes of encoded size that a price is for.
pub const PRICED_BYTES: u64 = 1 << 20;
/// Basis points of the whole.
pub const BASIS_POINTS: u16 = 10_000;
/// Most epochs that storage can be bought ahead. A registration reads and writes an entry for each.
pub const EPOCHS_AHEAD_MAX: u32 = 1000;
/// Most epochs that stake can be locked after it was withdrawn. Evidence looks at an entry for each.
pub const UNBONDING_EPOCHS_MAX: u32 = 1000;

/// Shortest epoch, in milliseconds: there is time for blocks in it, and for a shard to move.
pub const EPOCH_MS_MIN: u64 = 1_000;
/// Longest epoch, in milliseconds: a year.
pub const EPOCH_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;
/// Most members of a committee: each is answerable for a shard at least, and there are at most a thousand.
pub const MEMBERS_MAX: u16 = 1000;

/// What a node asks for storage and offers of it; what the network agrees on has the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ballot {
    /// Credits for [`PRICED_BYTES`] of encoded size in one epoch.
    pub storage_price: u64,
    /// Credits for writing [`PRICED_BYTES`] of encoded size, once.
    pub write_price: u64,
    /// Bytes of encoded size that the voting node stores.
    pub capacity_bytes: u64,
}

/// Rules and prices of a network. The genesis file sets them; votes move the prices and the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Credits for [`PRICED_BYTES`] of encoded size in one epoch. 0 unless said otherwise.
    pub storage_price: u64,
    /// Credits for writing [`PRICED_BYTES`] of encoded size, once. 0 unless said otherwise.
    pub write_price: u64,
    /// Bytes of encoded size that can be sold of an epoch. [`CAPACITY_UNLIMITED`] unless said otherwise.
    pub capacity_bytes: u64,
    /// Credits that a transaction costs. 0 unless said otherwise.
    pub transaction_fee: u64,
    /// Epochs for which withdrawn stake stays locked behind the one in which it was withdrawn, so that what it
    /// answered for can still be found out: 1 to [`UNBONDING_EPOCHS_MAX`]; 2 unless said otherwise.
    pub unbonding_epochs: u32,
    /// Epochs that storage can be bought ahead, the current one included: 1 to [`EPOCHS_AHEAD_MAX`]; 53 unless said
    /// otherwise, a year of weeks.
    pub epochs_ahead_max: u32,
    /// Basis points of the stake behind a node that it loses for equivocation: at most [`BASIS_POINTS`]; 1000 (a tenth)
    /// unless said otherwise.
    pub equivocation_slash_bp: u16,
    /// Milliseconds of block time that an epoch takes: [`EPOCH_MS_MIN`] to [`EPOCH_MS_MAX`]. 0 unless said otherwise: the
    /// committee of the genesis file stays.
    pub epoch_ms: u64,
    /// Milliseconds of block time from the beginning of an epoch until the next committee is fixed: less than
    /// `epoch_ms`. 0 unless said otherwise: half of it. What is left of the epoch is for shards to be copied in.
    pub selection_ms: u64,
    /// Most members of a committee, those with the most stake: 1 to [`MEMBERS_MAX`]; 100 unless said otherwise. Each votes
    /// on each block.
    pub members_max: u16,
    /// Most shards of a member, whatever its stake. 0 unless said otherwise: `f`, so that no member alone is more than the
    /// network bears.
    pub node_shards_max: u16,
    /// Least stake of a node that can be selected. 0 unless said otherwise.
    pub min_stake: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            storage_price: 0,
            write_price: 0,
            capacity_bytes: CAPACITY_UNLIMITED,
            transaction_fee: 0,
            unbonding_epochs: 2,
            epochs_ahead_max: 53,
            equivocation_slash_bp: 1000,
            epoch_ms: 0,
            selection_ms: 0,
            members_max: 100,
            node_shards_max: 0,
            min_stake: 0,
        }
    }
}

/// A parameter is outside what the rules allow. Whoever wrote the genesis file or the vote is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {got}, allowed are {min} to {max}")]
pub struct ParameterError {
    /// The parameter.
    pub name: &'static str,
    /// Its value.
    pub got: u64,
    /// The least allowed.
    pub min: u64,
    /// The most allowed.
    pub max: u64,
}

fn check(name: &'static str, got: u64, min: u64, max: u64) -> Result<(), ParameterError> {
    if (min..=max).contains(&got) { Ok(()) } else { Err(ParameterError { name, got, min, max }) }
}

impl Ballot {
    /// Checks that the values are within bounds.
    ///
    /// # Errors
    ///
    /// If one is not.
    pub fn check(&self) -> Result<(), ParameterError> {
        check("storage_price", self.storage_price, 0, CREDITS_MAX)?;
        check("write_price", self.write_price, 0, CREDITS_MAX)?;
        check("capacity_bytes", self.capacity_bytes, 0, CREDITS_MAX)
    }
}

impl Parameters {
    /// Checks that the values are within bounds.
    ///
    /// # Errors
    ///
    /// If one is not.
    pub fn check(&self) -> Result<(), ParameterError> {
        self.market().check()?;
        check("transaction_fee", self.transaction_fee, 0, CREDITS_MAX)?;
        check("unbonding_epochs", self.unbonding_epochs.into(), 1, UNBONDING_EPOCHS_MAX.into())?;
        check("epochs_ahead_max", self.epochs_ahead_max.into(), 1, EPOCHS_AHEAD_MAX.into())?;
        check("equivocation_slash_bp", self.equivocation_slash_bp.into(), 0, BASIS_POINTS.into())?;
        if self.epoch_ms > 0 {
            check("epoch_ms", self.epoch_ms, EPOCH_MS_MIN, EPOCH_MS_MAX)?;
        }
        check("selection_ms", self.selection_ms, 0, self.epoch_ms.saturating_sub(1))?;
        check("members_max", self.members_max.into(), 1, MEMBERS_MAX.into())?;
        check("node_shards_max", self.node_shards_max.into(), 0, MEMBERS_MAX.into())?;
        check("min_stake", self.min_stake, 0, CREDITS_MAX)
    }

    /// Milliseconds of an epoch before and after the next committee is fixed; none if epochs do not end.
    #[must_use]
    pub const fn epoch_parts_ms(&self) -> Option<(u64, u64)> {
        let before = if self.selection_ms == 0 { self.epoch_ms / 2 } else { self.selection_ms };
        if self.epoch_ms == 0 { None } else { Some((before, self.epoch_ms.saturating_sub(before))) }
    }

    /// What a selection of the committee of `n_shards` shards has to keep to.
    #[must_use]
    pub fn selection_rules(&self, n_shards: u16) -> Rules {
        let node_shards_max = match self.node_shards_max {
            0 => max_faulty(n_shards).max(1),
            max => max,
        };
        Rules { n_shards, members_max: self.members_max, node_shards_max }
    }

    /// The part that votes move.
    #[must_use]
    pub const fn market(&self) -> Ballot {
        Ballot {
            storage_price: self.storage_price,
            write_price: self.write_price,
            capacity_bytes: self.capacity_bytes,
        }
    }

    /// These parameters with the part that votes move replaced.
    #[must_use]
    pub const fn with_market(self, market: Ballot) -> Self {
        Self {
            storage_price: market.storage_price,
            write_price: market.write_price,
            capacity_bytes: market.capacity_bytes,
            ..self
        }
    }
}

/// Credits for `bytes` of encoded size at a price for [`PRICED_BYTES`], rounded up so that nothing is free that has a
/// price. More than there can be if no number says it.
#[must_use]
pub fn cost(bytes: u64, price: u64) -> u64 {
    let cost = (u128::from(bytes) * u128::from(price)).div_ceil(u128::from(PRICED_BYTES));
    u64::try_from(cost).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_for_a_mebibyte_and_rounded_up() {
        for (bytes, price, expected) in [
            (0, 5, 0),
            (1, 5, 1),
            (PRICED_BYTES, 5, 5),
            (PRICED_BYTES + 1, 5, 6),
            (3 * PRICED_BYTES, 5, 15),
            (1 << 40, 0, 0),
            (u64::MAX, CREDITS_MAX, u64::MAX),
        ] {
            assert_eq!(cost(bytes, price), expected, "{bytes} at {price}");
        }
    }

    #[test]
    fn what_is_not_said_follows_from_what_is() {
        let said = Parameters { epoch_ms: 30_000, ..Parameters::default() };
        assert_eq!(Parameters::default().epoch_parts_ms(), None);
        assert_eq!(said.epoch_parts_ms(), Some((15_000, 15_000)));
        let said = Parameters { selection_ms: 20_000, node_shards_max: 3, ..said };
        assert_eq!(said.epoch_parts_ms(), Some((20_000, 10_000)));
        assert_eq!(said.selection_rules(10).node_shards_max, 3);
        for (n_shards, max) in [(1, 1), (4, 1), (10, 3), (1000, 333)] {
            assert_eq!(Parameters::default().selection_rules(n_shards).node_shards_max, max);
        }
    }

    #[test]
    fn bounds_are_checked() {
        let good = Parameters::default();
        assert_eq!(good.check(), Ok(()));
        let cases = [
            (Parameters { storage_price: CREDITS_MAX + 1, ..good }, "storage_price"),
            (Parameters { write_price: CREDITS_MAX + 1, ..good }, "write_price"),
            (Parameters { capacity_bytes: CREDITS_MAX + 1, ..good }, "capacity_bytes"),
            (Parameters { transaction_fee: CREDITS_MAX + 1, ..good }, "transaction_fee"),
            (Parameters { unbonding_epochs: 0, ..good }, "unbonding_epochs"),
            (Parameters { unbonding_epochs: 1001, ..good }, "unbonding_epochs"),
            (Parameters { epochs_ahead_max: 0, ..good }, "epochs_ahead_max"),
            (Parameters { epochs_ahead_max: 1001, ..good }, "epochs_ahead_max"),
            (Parameters { equivocation_slash_bp: 10_001, ..good }, "equivocation_slash_bp"),
            (Parameters { epoch_ms: 999, ..good }, "epoch_ms"),
            (Parameters { epoch_ms: EPOCH_MS_MAX + 1, ..good }, "epoch_ms"),
            (Parameters { selection_ms: 1, ..good }, "selection_ms"),
            (Parameters { epoch_ms: 1000, selection_ms: 1000, ..good }, "selection_ms"),
            (Parameters { members_max: 0, ..good }, "members_max"),
            (Parameters { members_max: 1001, ..good }, "members_max"),
            (Parameters { node_shards_max: 1001, ..good }, "node_shards_max"),
            (Parameters { min_stake: CREDITS_MAX + 1, ..good }, "min_stake"),
        ];
        for (parameters, name) in cases {
            assert_eq!(parameters.check().unwrap_err().name, name);
        }
    }
}
