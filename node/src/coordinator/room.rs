//! How much room shards take; no I/O, no clock.

/// Shards that a node is to hold more than it has.
pub(super) const fn shards_more(owed: usize, has: usize) -> usize {
    owed.saturating_sub(has)
}

/// About how many bytes so many of `n` shards take, with blobs of these encoded sizes: each shard holds an equal share.
pub(super) fn bytes_of_shards(encoded: impl IntoIterator<Item = u64>, shards: usize, n: u16) -> u64 {
    let encoded: u128 = encoded.into_iter().map(u128::from).sum();
    let shards = u128::try_from(shards).unwrap_or(u128::MAX);
    let bytes = encoded.saturating_mul(shards) / u128::from(n.max(1));
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_takes_its_share_of_everything() {
        assert_eq!(bytes_of_shards([700, 1400], 2, 7), 600);
        assert_eq!(bytes_of_shards([], 2, 7), 0);
        assert_eq!(bytes_of_shards([u64::MAX, u64::MAX], 1000, 1000), u64::MAX);
        assert_eq!((shards_more(5, 3), shards_more(3, 5)), (2, 0));
    }
}
