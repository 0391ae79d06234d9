//! Credits that belong to several accounts by shares, so that a reward or a slash reaches all of them at once.
//!
//! # Invariants
//!
//! There are credits or shares of them, or neither. Shares are rounded down where they are given and up where they are
//! taken, and credits down where they are paid: rounding never takes from those who stay.

use bincode::{Decode, Encode};

use super::store::{Corrupt, add, sub};
use crate::ledger::parameters::BASIS_POINTS;

/// Fewest shares given for credits that they do not match exactly. One share is what rounding can cost, so it costs
/// nobody more than a thousandth, however dear a share was made.
pub const SHARES_MIN: u64 = 1000;

const CREDITS: &str = "credits of a pool";
const SHARES: &str = "shares of a pool";

/// Credits that belong to several accounts by shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Pool {
    /// Credits in it.
    pub credits: u64,
    /// Shares of them, over all accounts.
    pub shares: u64,
}

/// `a * b / c`, rounded down, and whether it was; `None` if it has no room. `c` is not zero.
fn mul_div(a: u64, b: u64, c: u64) -> Option<(u64, bool)> {
    let (product, c) = (u128::from(a) * u128::from(b), u128::from(c));
    Some((u64::try_from(product / c).ok()?, !product.is_multiple_of(c)))
}

impl Pool {
    /// Shares that these credits would get; `None` if there can be none: the pool was slashed to nothing, or a share is
    /// too small to count.
    fn shares_for(&self, credits: u64) -> Option<(u64, bool)> {
        if self.shares == 0 {
            return Some((credits, false));
        }
        if self.credits == 0 {
            return None;
        }
        mul_div(credits, self.shares, self.credits)
    }

    /// Adds credits, rounded in favour of those who are in; `None`, and nothing changes, if they would be lost.
    pub(super) fn put(&mut self, credits: u64) -> Option<u64> {
        let (shares, _) = self.shares_for(credits)?;
        let next =
            Self { credits: self.credits.checked_add(credits)?, shares: self.shares.checked_add(shares)? };
        (shares > 0).then(|| {
            *self = next;
            shares
        })
    }

    /// [`put`](Self::put), unless rounding would take more than a [`SHARES_MIN`]th.
    pub(super) fn put_exactly(&mut self, credits: u64) -> Option<u64> {
        let (shares, is_rounded) = self.shares_for(credits)?;
        if is_rounded && shares < SHARES_MIN { None } else { self.put(credits) }
    }

    /// Credits that these shares are worth.
    pub(super) fn worth(&self, shares: u64) -> Result<u64, Corrupt> {
        if self.shares == 0 {
            return Ok(0);
        }
        let (credits, _) =
            mul_div(shares, self.credits, self.shares).ok_or(Corrupt::Sum { what: CREDITS })?;
        Ok(credits)
    }

    /// Shares that must be given for these credits, which are at most those in the pool.
    pub(super) fn price(&self, credits: u64) -> Result<u64, Corrupt> {
        if self.credits == 0 {
            return Ok(0);
        }
        let (shares, is_rounded) =
            mul_div(credits, self.shares, self.credits).ok_or(Corrupt::Sum { what: SHARES })?;
        add(SHARES, shares, u64::from(is_rounded))
    }

    /// Takes out credits for shares; the last shares take all that is left, which is returned.
    pub(super) fn take(&mut self, shares: u64, credits: u64) -> Result<u64, Corrupt> {
        let credits = if shares == self.shares { self.credits } else { credits };
        self.shares = sub(SHARES, self.shares, shares)?;
        self.credits = sub(CREDITS, self.credits, credits)?;
        Ok(credits)
    }

    /// Adds credits that belong to all by their shares; false, and nothing changes, if there are none.
    pub(super) fn reward(&mut self, credits: u64) -> Result<bool, Corrupt> {
        if self.shares == 0 {
            return Ok(false);
        }
        self.credits = add(CREDITS, self.credits, credits)?;
        Ok(true)
    }

    /// Takes a part of everybody's credits, rounded down, and returns it.
    pub(super) fn slash(&mut self, basis_points: u16) -> Result<u64, Corrupt> {
        let basis_points = basis_points.min(BASIS_POINTS);
        let (credits, _) = mul_div(self.credits, basis_points.into(), BASIS_POINTS.into())
            .ok_or(Corrupt::Sum { what: CREDITS })?;
        self.credits = sub(CREDITS, self.credits, credits)?;
        Ok(credits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_follow_the_credits() {
        let mut pool = Pool::default();
        assert_eq!(pool.put_exactly(100), Some(100));
        assert_eq!(pool.reward(50), Ok(true));
        assert_eq!(pool.put_exactly(150), Some(100), "exact, however few");
        assert_eq!(pool.put_exactly(151), None, "rounded, and too few");
        assert_eq!(pool.put_exactly(3_001), Some(2_000));
        assert_eq!(pool.worth(100), Ok(150));
        assert_eq!(pool.price(150), Ok(100));
        assert_eq!(pool.price(151), Ok(101));
        assert_eq!(pool.slash(1_000), Ok(330));
        assert_eq!(pool, Pool { credits: 2_971, shares: 2_200 });
        assert_eq!(pool.take(2_200, 0), Ok(2_971), "the last take the rest");
        assert_eq!(pool, Pool::default());
        assert_eq!(pool.reward(1), Ok(false));
        let mut slashed = Pool { credits: 0, shares: 5 };
        assert_eq!(slashed.put(10), None);
        assert_eq!(slashed.worth(5), Ok(0));
    }

    proptest! {
        #[test]
        fn rounding_never_takes_from_those_who_stay(
            credits in 1_u64..1 << 60, shares in 1_u64..1 << 60, mine in any::<u64>(), new in 1_u64..1 << 60,
        ) {
            let mine = mine % shares;
            let mut pool = Pool { credits, shares };
            let worth = pool.worth(mine).unwrap();
            if let Some(got) = pool.put_exactly(new) {
                prop_assert!(pool.worth(mine).unwrap() >= worth);
                let now = pool.worth(got).unwrap();
                prop_assert!(now <= new && now >= new - new / SHARES_MIN - 1, "{new} became {now}");
                let asked = now / 3;
                let price = pool.price(asked).unwrap();
                prop_assert!(price <= got);
                prop_assert_eq!(pool.take(price, asked), Ok(asked));
                prop_assert!(pool.worth(mine).unwrap() >= worth);
            }
        }
    }
}
