//! What storage costs and what the network has of it: set by the genesis file, then by votes.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

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
        check("equivocation_slash_bp", self.equivocation_slash_bp.into(), 0, BASIS_POINTS.into())
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
        ];
        for (parameters, name) in cases {
            assert_eq!(parameters.check().unwrap_err().name, name);
        }
    }
}
