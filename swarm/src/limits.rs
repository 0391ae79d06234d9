//! How much one peer, and all of them together, may ask of this node.
//!
//! Pure: time is an argument. Both implementations apply the same limits through [`Admission`].

use std::time::Duration;

use crate::{
    frame::{HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX},
    inbound::QueueLimits,
    network::PeerRole,
};

/// The longest that an exchange may take, whatever the caller asks for.
///
/// A stream that nobody waits for any longer still holds memory on both sides; nothing in Floe is asked for that
/// would still be wanted after a minute.
pub const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Bytes of the largest frame.
const FRAME_BYTES_MAX: usize = HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX;

const MIB: usize = 1024 * 1024;

/// How much one peer may ask for in a second, and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests a second.
    pub requests_per_second: u64,
    /// Bytes of requests and answers a second.
    pub bytes_per_second: u64,
    /// Seconds' worth that may be used at once after a pause.
    pub burst_seconds: u64,
    /// Requests of one channel that may be worked on at the same time.
    pub in_flight_max: usize,
}

/// The limits of a node. The defaults fit a storage node; every one says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A member of the committee.
    pub member: RateLimits,
    /// Anyone else.
    pub stranger: RateLimits,
    /// Requests of one channel that this node may have open with one peer; more are `Busy` at once.
    pub outgoing_max: usize,
    /// Requests of this node that may wait for a connection, over all peers; more are `Busy` at once.
    pub waiting_max: usize,
    /// Control requests that wait for the node.
    pub control_queue: QueueLimits,
    /// Gossip that waits for the node.
    pub gossip_queue: QueueLimits,
    /// Bulk requests that wait for the node.
    pub bulk_queue: QueueLimits,
    /// Messages on topics that the node has yet to judge; more are ignored.
    pub verdicts_max: usize,
    /// Bytes of answers to members being sent; more are answered `Busy`.
    pub member_response_bytes: usize,
    /// Bytes of answers to others being sent; more are answered `Busy`.
    pub stranger_response_bytes: usize,
    /// Bytes of requests being read from all peers on one channel; more are answered `Busy`.
    pub request_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A core serves some 12,000 requests a second (measured); a member at fault may take a third of one.
            // 1 GiB/s is what encryption passes on one core, so bytes bind only peers on very fast links.
            member: RateLimits {
                requests_per_second: 4_000,
                bytes_per_second: 1 << 30,
                burst_seconds: 2,
                // 32 ranges fill a link of 50 ms (measured); four readers of that kind on one node share a peer.
                in_flight_max: 128,
            },
            // A gateway that fetches 240 KiB ranges at a gigabit needs 500 requests and 120 MiB a second.
            stranger: RateLimits {
                requests_per_second: 1_000,
                bytes_per_second: 256 << 20,
                burst_seconds: 2,
                // Two readers. Each open stream can make us hold 256 KiB of unread window.
                in_flight_max: 64,
            },
            // What a member grants; asking for more only earns refusals.
            outgoing_max: 128,
            // Eight peers' worth of full windows. Requests hold their payload while they wait.
            waiting_max: 1_024,
            // A committee of 100 may send ten messages each before the node looks.
            control_queue: QueueLimits { messages_max: 1_024, bytes_max: 32 * MIB },
            // As above; a burst of block proposals of 2 MiB still fits.
            gossip_queue: QueueLimits { messages_max: 1_024, bytes_max: 32 * MIB },
            // Two members' worth of full windows.
            bulk_queue: QueueLimits { messages_max: 256, bytes_max: 256 * FRAME_BYTES_MAX },
            // What the gossip queue holds, so that a node that hands messages on to a pool is not cut short.
            verdicts_max: 1_024,
            // 273 of the longest answers: two members with a full window each.
            member_response_bytes: 64 * MIB,
            // Two strangers with a full window each. Apart from the members' share, so that slow strangers never
            // keep a committee from repairing.
            stranger_response_bytes: 32 * MIB,
            // As for answers. Counted as bytes arrive, so a peer that announces much and sends little holds little.
            request_bytes: 64 * MIB,
        }
    }
}

impl Limits {
    /// The limits for a peer in this role.
    #[must_use]
    pub const fn of(&self, role: PeerRole) -> &RateLimits {
        match role {
            PeerRole::Member => &self.member,
            PeerRole::Bootstrap | PeerRole::Other => &self.stranger,
        }
    }
}

/// Tokens that come back at a steady rate, up to a burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    /// Nanotokens, so that a short step at a low rate is not rounded away.
    level: u128,
    filled_at: Duration,
}

const NANOS: u128 = 1_000_000_000;

impl TokenBucket {
    fn full(limits: (u64, u64), now: Duration) -> Self {
        Self { level: burst(limits), filled_at: now }
    }

    fn refill(&mut self, limits: (u64, u64), now: Duration) {
        let passed = now.saturating_sub(self.filled_at).as_nanos();
        let added = passed.saturating_mul(u128::from(limits.0));
        self.level = self.level.saturating_add(added).min(burst(limits));
        self.filled_at = self.filled_at.max(now);
    }

    fn holds(&self, tokens: u64) -> bool {
        self.level >= NANOS.saturating_mul(u128::from(tokens))
    }

    fn take(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(NANOS.saturating_mul(u128::from(tokens)));
    }
}

/// The most a bucket holds, from its tokens per second and the seconds of a burst.
fn burst((per_second, burst_seconds): (u64, u64)) -> u128 {
    NANOS.saturating_mul(u128::from(per_second)).saturating_mul(u128::from(burst_seconds))
}

/// Refusals for its rate after which a peer counts as flooding, each time. A peer that backs off when refused has a
/// window of 128 refused now and then; one that does not passes this within a second.
const FLOODING_AFTER: u32 = 1_024;

/// What one peer has used of its limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    requests: TokenBucket,
    bytes: TokenBucket,
    /// Refusals since the peer last counted as flooding.
    refused: u32,
}

/// Whether a request is within its peer's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It is, and was charged.
    Yes,
    /// It is not.
    No,
    /// It is not, and the peer goes on although it was refused often.
    Flooding,
}

impl Admission {
    /// A peer that has been quiet.
    pub(crate) fn new(limits: &RateLimits, now: Duration) -> Self {
        Self {
            requests: TokenBucket::full((limits.requests_per_second, limits.burst_seconds), now),
            bytes: TokenBucket::full((limits.bytes_per_second, limits.burst_seconds), now),
            refused: 0,
        }
    }

    /// Whether a request of this many bytes is within the peer's rate; if so, it is charged.
    pub(crate) fn admit(&mut self, limits: &RateLimits, bytes: usize, now: Duration) -> Admitted {
        self.requests.refill((limits.requests_per_second, limits.burst_seconds), now);
        self.bytes.refill((limits.bytes_per_second, limits.burst_seconds), now);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if self.requests.holds(1) && self.bytes.holds(bytes) {
            self.requests.take(1);
            self.bytes.take(bytes);
            return Admitted::Yes;
        }
        self.refused += 1;
        if self.refused < FLOODING_AFTER {
            return Admitted::No;
        }
        self.refused = 0;
        Admitted::Flooding
    }

    /// Charges the bytes of an answer; it delays later requests rather than refusing this one.
    pub(crate) fn charge(&mut self, bytes: usize) {
        self.bytes.take(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: RateLimits =
        RateLimits { requests_per_second: 2, bytes_per_second: 100, burst_seconds: 2, in_flight_max: 1 };

    #[test]
    fn a_burst_is_admitted_and_then_the_steady_rate() {
        let mut peer = Admission::new(&SLOW, Duration::ZERO);
        let admitted = |peer: &mut Admission, millis| {
            peer.admit(&SLOW, 0, Duration::from_millis(millis)) == Admitted::Yes
        };
        assert_eq!((0..9).filter(|_| admitted(&mut peer, 0)).count(), 4);
        assert!(!admitted(&mut peer, 499));
        assert!(admitted(&mut peer, 500));
        assert!(!admitted(&mut peer, 501));
        assert_eq!(
            (0..9).filter(|_| admitted(&mut peer, 100_000)).count(),
            4,
            "a pause gives back one burst"
        );
    }

    #[test]
    fn bytes_are_charged_for_requests_and_answers() {
        let mut peer = Admission::new(&SLOW, Duration::ZERO);
        assert_eq!(peer.admit(&SLOW, 201, Duration::ZERO), Admitted::No);
        assert_eq!(peer.admit(&SLOW, 100, Duration::ZERO), Admitted::Yes);
        peer.charge(1_000);
        assert_eq!(peer.admit(&SLOW, 1, Duration::ZERO), Admitted::No);
        assert_eq!(peer.admit(&SLOW, 100, Duration::from_secs(1)), Admitted::Yes);
    }

    #[test]
    fn only_going_on_after_many_refusals_is_flooding() {
        let mut peer = Admission::new(&SLOW, Duration::ZERO);
        let outcomes: Vec<_> = (0..3_000).map(|_| peer.admit(&SLOW, 0, Duration::ZERO)).collect();
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Admitted::Yes).count(), 4);
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Admitted::Flooding).count(), 2);
    }
}
