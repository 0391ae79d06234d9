//! How many shards are enough.
//!
//! All weights are counts of shards. With `n` shards, up to `f = floor((n-1)/3)` of them may be Byzantine
//! (RedStuff, section 2; Walrus paper, 2025).

/// Fewest shards a committee can have: below four, `f` is zero and nothing is tolerated.
pub const N_SHARDS_MIN: u16 = 4;
/// Most shards a committee can have. Every per-blob cost is at least linear in it; see `docs/adr`.
pub const N_SHARDS_MAX: u16 = 1000;

/// Returns `f`, the largest number of Byzantine shards that a committee of `n` tolerates.
#[must_use]
pub const fn max_faulty(n: u16) -> u16 {
    n.saturating_sub(1) / 3
}

/// True if shards worth `weight` are a quorum of `n`: any two quorums share an honest shard.
#[must_use]
pub fn is_quorum(weight: u16, n: u16) -> bool {
    3 * u32::from(weight) > 2 * u32::from(n)
}

/// True if shards worth `weight` contain at least one honest shard.
#[must_use]
pub const fn is_validity(weight: u16, n: u16) -> bool {
    weight > max_faulty(n)
}

/// The smallest weight that is a quorum of `n`.
#[must_use]
pub const fn quorum(n: u16) -> u16 {
    n - max_faulty(n)
}

/// The smallest weight that contains an honest shard of `n`.
#[must_use]
pub const fn validity(n: u16) -> u16 {
    max_faulty(n) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_the_smallest_weights_that_pass() {
        for n in N_SHARDS_MIN..=N_SHARDS_MAX {
            let f = max_faulty(n);
            assert!(3 * f < n, "n={n}");
            assert!(3 * (f + 1) >= n, "n={n}");
            assert!(is_quorum(quorum(n), n), "n={n}");
            assert!(!is_quorum(quorum(n) - 1, n), "n={n}");
            assert!(is_validity(validity(n), n), "n={n}");
            // A quorum is always reachable without the faulty shards, and two of them share an honest one.
            assert!(quorum(n) <= n - f, "n={n}");
            assert!(2 * quorum(n) - n > f, "n={n}");
        }
    }

    #[test]
    fn validity_is_more_than_the_faulty() {
        for n in N_SHARDS_MIN..=N_SHARDS_MAX {
            assert!(validity(n) > max_faulty(n));
        }
    }
}
