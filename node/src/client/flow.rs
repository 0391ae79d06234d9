//! How many ranges are in flight: enough for a long fast link, few enough for a slow one.
//!
//! A range passes the [`Gate`] of its member, which opens wider with every quick answer, and then the [`Flow`] of the
//! whole store or read. Both begin narrow: ranges that pile up on a slow link would run into their timeouts.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

/// Ranges in flight to all members together: 15 MB, which fills a link of 100 ms at a gigabit.
const RANGES_IN_FLIGHT: usize = 64;
/// Ranges in flight to one member at first.
const GATE_MIN: usize = 2;
/// Ranges that take longer than this are too many for the link: their number goes down. What queues behind them, such
/// as a confirmation, then waits no longer either.
const LATENCY_AIM: Duration = Duration::from_secs(2);
/// Most permits that a range takes, so that eight are always in flight.
const COST_MAX: u32 = 8;
/// Permits that a range takes before anything is known of the link: a quarter of the window is tried first.
const COST_UNKNOWN: u32 = 4;
/// Nothing is late before this: a round trip around the world, and some work at its end.
const DELAY_MIN: Duration = Duration::from_millis(300);
/// A range is late after this many times what others take.
const DELAY_FACTOR: u32 = 3;
/// Weight of what was known before, against one more sample: about the last eight count.
const MEMORY: u32 = 7;

/// What is known of the link: pure.
#[derive(Clone, Copy, Debug, Default)]
struct Latency(Option<Duration>);

impl Latency {
    fn sample(&mut self, took: Duration) {
        let average = |before: Duration| (before * MEMORY + took) / (MEMORY + 1);
        self.0 = Some(self.0.map_or(took, average));
    }

    /// Without an answer for this long, a range is late; `unknown` as long as there was no answer at all.
    fn delay(self, unknown: Duration) -> Duration {
        self.0.map_or(unknown, |average| DELAY_MIN.max(average * DELAY_FACTOR))
    }

    /// Permits that the next range takes.
    fn cost(self) -> u32 {
        let cost = |average: Duration| average.as_millis() / LATENCY_AIM.as_millis() + 1;
        self.0.map_or(COST_UNKNOWN, |average| u32::try_from(cost(average)).unwrap_or(COST_MAX).min(COST_MAX))
    }
}

/// What an answer says about the number of ranges in flight to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    More,
    Enough,
    Fewer,
}

/// Judges an answer by the time it took; `None` is no answer.
fn judge(took: Option<Duration>) -> Verdict {
    match took {
        Some(took) if took <= LATENCY_AIM / 2 => Verdict::More,
        Some(took) if took <= LATENCY_AIM => Verdict::Enough,
        _ => Verdict::Fewer,
    }
}

/// Bounds the ranges in flight to one member.
#[derive(Debug)]
pub(super) struct Gate {
    room: Semaphore,
    width_max: usize,
    /// INV: permits of `room`, those handed out included; `1..=width_max`.
    width: Mutex<usize>,
}

/// Leave for one range to be in flight, until dropped.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    /// `None` once the gate became narrower by this pass.
    permit: Option<SemaphorePermit<'a>>,
}

impl Gate {
    pub(super) fn new(width_max: usize) -> Self {
        let width = GATE_MIN.min(width_max);
        Self { room: Semaphore::new(width), width_max, width: Mutex::new(width) }
    }

    /// Waits until another range may be in flight. Cancel safe: yes.
    pub(super) async fn enter(&self) -> Pass<'_> {
        // The semaphore is never closed.
        Pass { gate: self, permit: self.room.acquire().await.ok() }
    }
}

impl Pass<'_> {
    fn note(&mut self, took: Option<Duration>) {
        // Nothing that can panic runs under this lock.
        let mut width = self.gate.width.lock().unwrap_or_else(PoisonError::into_inner);
        match judge(took) {
            Verdict::More if *width < self.gate.width_max => {
                *width += 1;
                self.gate.room.add_permits(1);
            }
            Verdict::Fewer if *width > 1 => {
                if let Some(permit) = self.permit.take() {
                    *width -= 1;
                    permit.forget();
                }
            }
            _ => {}
        }
    }
}

/// Bounds the ranges in flight of one store or read.
#[derive(Debug)]
pub(super) struct Flow {
    room: Semaphore,
    latency: Mutex<Latency>,
}

impl Flow {
    pub(super) fn new() -> Self {
        Self { room: Semaphore::new(RANGES_IN_FLIGHT), latency: Mutex::default() }
    }

    fn latency(&self) -> Latency {
        *self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without an answer for this long, it is worth asking someone else.
    pub(super) fn delay(&self) -> Duration {
        self.latency().delay(DELAY_MIN)
    }

    /// Carries out an exchange of a range that passed its gate, once there is room for it.
    ///
    /// A late one gives its room up: it takes no bandwidth, and silent members must not hold up the others.
    pub(super) async fn carry<T, E>(
        &self,
        pass: &mut Pass<'_>,
        exchange: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        // The semaphore is never closed.
        let room = self.room.acquire_many(self.latency().cost()).await;
        let started = Instant::now();
        let mut exchange = Box::pin(exchange);
        let result = loop {
            // What is late may have changed meanwhile: on a slow link, everything takes long.
            let late_at = started + self.latency().delay(LATENCY_AIM);
            if late_at <= Instant::now() {
                drop(room);
                break exchange.await;
            }
            if let Ok(result) = timeout_at(late_at, &mut exchange).await {
                break result;
            }
        };
        let took = result.is_ok().then(|| started.elapsed());
        pass.note(took);
        if let Some(took) = took {
            self.latency.lock().unwrap_or_else(PoisonError::into_inner).sample(took);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn delay_and_cost_follow_the_link() {
        let mut latency = Latency::default();
        assert_eq!((latency.delay(ms(77)), latency.cost()), (ms(77), 4), "a careful start");
        // average latency, delay, cost
        let table = [
            (ms(20), ms(300), 1),
            (ms(1_000), ms(3_000), 1),
            (ms(5_000), ms(15_000), 3),
            (ms(60_000), ms(180_000), 8),
        ];
        for (took, delay, cost) in table {
            latency = Latency::default();
            latency.sample(took);
            latency.sample(took);
            assert_eq!((latency.delay(ms(77)), latency.cost()), (delay, cost), "{took:?}");
        }
    }

    #[test]
    fn ranges_that_queue_up_on_a_slow_link_are_not_late() {
        let mut latency = Latency::default();
        for k in 1..64 {
            let took = ms(200 * k);
            latency.sample(took);
            assert!(latency.delay(DELAY_MIN) >= took + ms(200), "{k}");
        }
    }

    #[tokio::test]
    async fn a_gate_opens_with_quick_answers_and_closes_with_slow_ones() {
        let gate = Gate::new(4);
        let width = || *gate.width.lock().unwrap();
        assert_eq!(width(), 2);
        for expected in [3, 4, 4] {
            gate.enter().await.note(Some(ms(10)));
            assert_eq!((width(), gate.room.available_permits()), (expected, expected));
        }
        gate.enter().await.note(Some(ms(1_500)));
        assert_eq!(width(), 4, "neither quick nor slow");
        for expected in [3, 2, 1, 1] {
            gate.enter().await.note(None);
            assert_eq!((width(), gate.room.available_permits()), (expected, expected));
        }
        let mut pass = gate.enter().await;
        pass.note(Some(ms(10)));
        pass.note(Some(ms(9_000)));
        pass.note(Some(ms(9_000)));
        drop(pass);
        assert_eq!((width(), gate.room.available_permits()), (1, 1));
    }
}
