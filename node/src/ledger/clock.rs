//! What time it is, for block time alone: everything else runs on a clock that never goes back.

use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

/// Where a node gets the time of day from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The system.
    System,
    /// The system, but this far off: to try out what a wrong clock does.
    OffBy {
        /// Seconds ahead of the system's, or behind it if negative.
        seconds: i64,
    },
    /// The paused clock of a simulation, which began at `start`.
    Simulated {
        /// When the simulation began.
        start: Instant,
        /// Milliseconds since 1970 at that moment.
        unix_ms: u64,
    },
}

impl Clock {
    /// Milliseconds since 1970, as far as this node knows. It may be wrong and go back: consensus only takes it for a
    /// proposal that others compare with their own.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the one place where the time of day comes in")]
    pub fn unix_ms(&self) -> u64 {
        match self {
            Self::System => {
                let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
                // Before 1970 the clock is not set at all.
                millis(since.unwrap_or_default())
            }
            Self::OffBy { seconds } => {
                Self::System.unix_ms().saturating_add_signed(seconds.saturating_mul(1000))
            }
            Self::Simulated { start, unix_ms } => unix_ms.saturating_add(millis(start.elapsed())),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
