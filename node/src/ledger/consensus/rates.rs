//! How much each peer may ask: a bucket of tokens a peer, in which they come back with time; no I/O.

use std::{collections::BTreeMap, time::Duration};

use protocol::PeerId;

/// Tokens that come back in a second. What one buys costs a millisecond or two to read or cut: so one peer takes at most a
/// tenth of a processor, and has 10 MB of a state, or four thousand blocks, each second, which is more than it can execute.
const TOKENS_PER_SECOND: u64 = 64;
/// Most tokens of a peer: two seconds' worth, since what a slow line has held back arrives at once.
const TOKENS_MAX: u64 = 2 * TOKENS_PER_SECOND;
/// Peers remembered that are no members; members, who are few, always are. Who has all its tokens need not be remembered, so
/// these are peers that asked within the last two seconds.
const STRANGERS_MAX: usize = 1024;
/// Time in which a token comes back.
const TOKEN: Duration = Duration::from_micros(1_000_000 / TOKENS_PER_SECOND);
/// Least time from one request to a peer to the next, by which an asker stays below what is granted.
pub(super) const PACE: Duration = Duration::from_millis(20);
const _: () = assert!(PACE.as_micros() > TOKEN.as_micros(), "who keeps the pace is never refused");

/// What a peer has left.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When it is full again.
    full_at: Duration,
    is_member: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// INV: at most [`STRANGERS_MAX`], and one for each that was a member when it asked; none that is full.
    buckets: BTreeMap<PeerId, Bucket>,
}

impl Rates {
    /// Takes a token of this peer's; false if it has none left.
    pub(super) fn take(&mut self, now: Duration, peer: PeerId, is_member: bool) -> bool {
        let full_in = TOKEN * u32::try_from(TOKENS_MAX).expect("a few hundred");
        if !self.buckets.contains_key(&peer) {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
            let n_strangers = self.buckets.values().filter(|bucket| !bucket.is_member).count();
            if !is_member && n_strangers >= STRANGERS_MAX {
                return false;
            }
        }
        let bucket = self.buckets.entry(peer).or_insert(Bucket { full_at: now, is_member });
        bucket.is_member = is_member;
        let full_at = bucket.full_at.max(now) + TOKEN;
        if full_at > now + full_in {
            return false;
        }
        bucket.full_at = full_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u16) -> PeerId {
        let [high, low] = n.to_be_bytes();
        let mut bytes = [0; 32];
        (bytes[0], bytes[1]) = (high, low);
        PeerId(bytes)
    }

    fn taken(it: &mut Rates, now: Duration, n: usize) -> usize {
        (0..n).filter(|_| it.take(now, peer(1), false)).count()
    }

    #[test]
    fn a_peer_has_so_many_at_once_and_so_many_a_second() {
        let mut it = Rates::default();
        assert_eq!(taken(&mut it, Duration::ZERO, 1_000), 128);
        assert_eq!(taken(&mut it, TOKEN, 10), 1);
        assert_eq!(taken(&mut it, Duration::from_secs(1), 1_000), 63);
        assert_eq!(taken(&mut it, Duration::from_secs(60), 1_000), 128);
        assert!(it.take(Duration::from_secs(60), peer(2), false), "another peer has its own");
    }

    #[test]
    fn who_keeps_the_pace_is_never_refused() {
        let mut it = Rates::default();
        for n in 0..10_000 {
            assert!(it.take(PACE * n, peer(1), false));
        }
    }

    #[test]
    fn strangers_are_bounded_and_members_always_heard() {
        let mut it = Rates::default();
        for n in 0..3_000 {
            assert_eq!(it.take(Duration::ZERO, peer(n), false), n < 1_024, "{n}");
        }
        assert!(it.take(Duration::ZERO, peer(5_000), true));
        assert_eq!(it.buckets.len(), 1_025);
        assert!(it.take(Duration::from_secs(3), peer(2_000), false));
        assert_eq!(it.buckets.len(), 1, "who has all its tokens is forgotten");
    }
}
