//! Who is late, and who is avoided: pure; time is an argument.

use std::{collections::BTreeMap, time::Duration};

use protocol::PeerId;

/// No sliver is late before this, however fast the others came.
const AGE_MIN: Duration = Duration::from_millis(300);
/// A slow member is asked last for this long; then it gets another chance.
const SLOW_FOR: Duration = Duration::from_secs(10);
/// A member that did not answer is asked last for this long.
const DOWN_FOR: Duration = Duration::from_secs(30);

/// Why a member is avoided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Others were faster.
    Slow,
    /// It did not answer.
    Down,
    /// It does not have what it should, or lied.
    Useless,
}

/// What one read knows of the members.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Until when, since the start of the read, a member is asked last.
    avoided: BTreeMap<PeerId, Duration>,
}

impl Pace {
    /// A member failed.
    pub(super) fn avoid(&mut self, peer: PeerId, fault: Fault, now: Duration) {
        let until = match fault {
            Fault::Slow => now + SLOW_FOR,
            Fault::Down => now + DOWN_FOR,
            Fault::Useless => Duration::MAX,
        };
        let avoided = self.avoided.entry(peer).or_default();
        *avoided = until.max(*avoided);
    }

    /// True if a member is to be asked last.
    pub(super) fn is_avoided(&self, peer: PeerId, now: Duration) -> bool {
        self.avoided.get(&peer).is_some_and(|until| now < *until)
    }
}

/// True if something asked for `age` ago, of which nothing came for `still`, should be asked of someone else too.
///
/// `delay` is how long a range may take; `arrived` are the times that others took, once they are enough to compare.
pub(super) fn is_late(age: Duration, still: Duration, delay: Duration, arrived: Option<&[Duration]>) -> bool {
    let median = arrived.and_then(|arrived| {
        let mut sorted = arrived.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    });
    still >= delay || median.is_some_and(|median| age >= AGE_MIN.max(2 * median))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn lateness_is_measured_against_the_others() {
        let arrived = [ms(100), ms(400), ms(300)];
        // age, still, delay, with the others' times, late
        let table = [
            (ms(299), ms(299), ms(300), false, false),
            (ms(300), ms(300), ms(300), false, true),
            (ms(5_000), ms(10), ms(300), false, false),
            (ms(5_000), ms(10), ms(300), true, true),
            (ms(599), ms(10), ms(300), true, false),
            (ms(600), ms(10), ms(300), true, true),
            (ms(500), ms(500), ms(900), false, false),
        ];
        for (age, still, delay, compared, late) in table {
            let arrived = compared.then_some(&arrived[..]);
            assert_eq!(is_late(age, still, delay, arrived), late, "{age:?} {still:?} {delay:?} {compared}");
        }
    }

    #[test]
    fn faults_are_forgotten_in_time_but_lies_are_not() {
        let mut pace = Pace::default();
        let [slow, down, liar] = [0, 1, 2].map(|byte| PeerId([byte; 32]));
        pace.avoid(slow, Fault::Slow, ms(0));
        pace.avoid(down, Fault::Down, ms(0));
        pace.avoid(liar, Fault::Useless, ms(0));
        pace.avoid(liar, Fault::Slow, ms(0));
        let avoided = |now| [slow, down, liar].map(|peer| pace.is_avoided(peer, now));
        assert_eq!(avoided(ms(9_999)), [true, true, true]);
        assert_eq!(avoided(ms(10_000)), [false, true, true]);
        assert_eq!(avoided(ms(30_000)), [false, false, true]);
        assert!(!pace.is_avoided(PeerId([3; 32]), ms(0)));
    }
}
