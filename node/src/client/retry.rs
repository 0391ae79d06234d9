//! When to ask again: pure.

use std::time::Duration;

use protocol::message::Refusal;
use swarm::RequestError;

use super::exchange::AskError;

/// The pause before the first repetition; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause: a node that has room again, or is up again, is found within a second.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often an unreachable peer is tried once connections had their time: it may be starting anew.
const UNREACHABLE_MAX: u32 = 3;

/// How long to bear with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// How long to wait for one answer.
    pub(super) attempt: Duration,
    /// Without any answer for this long, a member is given up.
    pub(super) silence: Duration,
    /// How often a request is repeated whose answer was lost on the way.
    pub(super) losses: u32,
}

impl Patience {
    /// For what is small and changes something: a lost message is repeated soon.
    pub(super) fn control(request_timeout: Duration) -> Self {
        Self { attempt: request_timeout / 4, silence: request_timeout, losses: 3 }
    }

    /// For ranges that are sent: repeated once, since it may also be the link that is slow.
    pub(super) fn bulk(request_timeout: Duration) -> Self {
        Self { attempt: request_timeout / 2, silence: request_timeout, losses: 1 }
    }

    /// Bears with a member that is busy, and takes any other failure as final: someone else can be asked.
    pub(super) const fn hedged(request_timeout: Duration) -> Self {
        Self { attempt: request_timeout, silence: request_timeout, losses: 0 }
    }
}

/// The pause before asking again after `attempt` earlier failures, or `None` to give up.
///
/// `still` is for how long nothing came back; `connecting` says that connections may still be on their way.
pub(super) fn pause(
    error: &AskError,
    attempt: u32,
    still: Duration,
    (patience, connecting): (Patience, bool),
) -> Option<Duration> {
    let pause = PAUSE_MIN.saturating_mul(1 << attempt.min(10)).min(PAUSE_MAX);
    let again = match error {
        AskError::Network(RequestError::Busy) | AskError::Refused(Refusal::Busy) => {
            still + pause < patience.silence
        }
        AskError::Network(RequestError::Unreachable) => {
            patience.losses > 0 && (connecting || attempt < UNREACHABLE_MAX)
        }
        AskError::Network(RequestError::Timeout | RequestError::Closed | RequestError::Refused) => {
            attempt < patience.losses && still < patience.silence
        }
        _ => false,
    };
    again.then_some(pause)
}

/// True if asking the same member later may turn out better.
pub(super) const fn is_temporary(error: &AskError) -> bool {
    matches!(
        error,
        AskError::Network(
            RequestError::Busy
                | RequestError::Unreachable
                | RequestError::Timeout
                | RequestError::Closed
                | RequestError::Refused
        ) | AskError::Refused(Refusal::Busy | Refusal::Internal)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_borne_with_for_as_long_as_it_deserves() {
        use RequestError::{Busy, Closed, Timeout, Unreachable, Unsupported};
        let network = AskError::Network;
        let ms = Duration::from_millis;
        let patience = Patience::control(ms(20_000));
        // error, attempt, still, connecting, pause
        let table = [
            (network(Busy), 0, ms(0), false, Some(ms(50))),
            (network(Busy), 3, ms(0), false, Some(ms(400))),
            (network(Busy), 1000, ms(18_000), false, Some(ms(1000))),
            (network(Busy), 1000, ms(19_000), false, None),
            (AskError::Refused(Refusal::Busy), 0, ms(0), false, Some(ms(50))),
            (network(Unreachable), 9, ms(9_000), true, Some(ms(1000))),
            (network(Unreachable), 2, ms(9_000), false, Some(ms(200))),
            (network(Unreachable), 3, ms(9_000), false, None),
            (network(Closed), 2, ms(0), false, Some(ms(200))),
            (network(Closed), 3, ms(0), false, None),
            (network(Timeout), 0, ms(20_000), true, None),
            (network(Timeout), 0, ms(100), false, Some(ms(50))),
            (network(Unsupported), 0, ms(0), true, None),
            (AskError::Refused(Refusal::Full), 0, ms(0), true, None),
            (AskError::Malformed, 0, ms(0), true, None),
        ];
        for (error, attempt, still, connecting, expected) in table {
            let got = pause(&error, attempt, still, (patience, connecting));
            assert_eq!(got, expected, "{error:?} {attempt} {still:?} {connecting}");
        }
        let hedged = Patience::hedged(ms(20_000));
        assert!(pause(&network(Busy), 0, ms(0), (hedged, false)).is_some());
        assert!(pause(&network(Unreachable), 0, ms(0), (hedged, true)).is_none());
        assert!(pause(&network(Closed), 0, ms(0), (hedged, true)).is_none());
    }
}
