//! Carries out a [`Plan`]: asks, hedges, asks again, until enough arrived or nobody is left.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::message::Refusal;
use swarm::Network;
use tokio::time::Instant;

use super::{
    pace::{Fault, is_late},
    plan::Plan,
    reader::{Reader, Source},
};
use crate::client::{
    Failures,
    exchange::{AskError, Pulse},
    retry::is_temporary,
};

/// How often those under way are looked at.
const TICK: Duration = Duration::from_millis(50);
/// The pause before asking again those that did not answer; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// For how long after the last arrival those that failed are asked again, once connections had their time: a node that is
/// started again is back by then, and one that lacks a sliver of a small blob has repaired it.
const RETRY_FOR: Duration = Duration::from_secs(5);

/// Too few arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shortfall {
    pub(super) got: usize,
    pub(super) required: usize,
    /// Those that had something to give, and why it did not come.
    pub(super) failures: Failures,
}

/// Something asked for.
struct Asked {
    at: Instant,
    pulse: Arc<Pulse>,
}

/// Fetches enough of the candidates of `plan`, by candidate. `fetch` asks for one of them, of the member that `owner` names, and
/// verifies it. Bounded by twice the request timeout without anything arriving.
pub(super) async fn gather<'a, N, T, F>(
    reader: &Reader<N>,
    mut plan: Plan,
    owner: impl Fn(u16) -> Source<'a, N>,
    fetch: impl Fn(u16, Arc<Pulse>) -> F,
) -> Result<BTreeMap<u16, T>, Shortfall>
where
    N: Network,
    F: Future<Output = Result<T, AskError>>,
{
    let silence_max = 2 * reader.answerable().request_timeout();
    let mut under_way = FuturesUnordered::new();
    let mut asked: BTreeMap<u16, Asked> = BTreeMap::new();
    let mut arrived = BTreeMap::new();
    let mut times = Vec::new();
    let mut failures = Failures::default();
    let mut last = Instant::now();
    let mut round = 0;
    while !plan.is_complete() {
        for index in plan.ask(|index| reader.is_avoided(owner(index).peer())) {
            let pulse = Arc::new(Pulse::new());
            asked.insert(index, Asked { at: Instant::now(), pulse: Arc::clone(&pulse) });
            let fetched = fetch(index, pulse);
            under_way.push(async move { (index, fetched.await) });
        }
        tokio::select! {
            biased;
            fetched = under_way.next() => match fetched {
                Some((index, Ok(value))) => {
                    failures.forget(owner(index).name());
                    if plan.got(index) {
                        arrived.insert(index, value);
                    }
                    times.push(asked[&index].at.elapsed());
                    last = Instant::now();
                }
                Some((index, Err(error))) => {
                    let source = owner(index);
                    reader.failed(source.peer(), &error);
                    failures.blame(source.name(), &error, error.is_lie());
                    plan.missed(index, !may_come(&error));
                }
                None => {
                    let patience = if reader.answerable().is_connecting() { silence_max } else { RETRY_FOR };
                    if last.elapsed() >= patience || !plan.retry() {
                        return Err(Shortfall { got: plan.n_got(), required: plan.required(), failures });
                    }
                    let pause = PAUSE_MIN.saturating_mul(1 << round.min(8)).min(PAUSE_MAX);
                    tokio::time::sleep(pause).await;
                    round += 1;
                }
            },
            // However patient each question is: once nothing at all was heard for so long, nobody is left.
            () = tokio::time::sleep_until(last + silence_max) => {
                let heard = asked.values().map(|asked| (asked.at, asked.pulse.last()));
                match heard.filter(|(at, heard)| heard > at && *heard > last).map(|(_, heard)| heard).max() {
                    Some(heard) => last = heard,
                    None => {
                        for index in plan.awaited() {
                            failures.failed(owner(index).name(), "no answer in time");
                        }
                        return Err(Shortfall { got: plan.n_got(), required: plan.required(), failures });
                    }
                }
            }
            () = tokio::time::sleep(TICK), if plan.has_fresh() => {
                let delay = reader.flow.delay();
                let compared = plan.is_half_done().then_some(&times[..]);
                for index in plan.punctual() {
                    let Asked { at, pulse } = &asked[&index];
                    if is_late(at.elapsed(), pulse.still(), delay, compared) {
                        plan.late(index);
                    }
                }
            }
        }
    }
    for index in plan.tardy() {
        reader.avoid(owner(index).peer(), Fault::Slow);
    }
    Ok(arrived)
}

/// True if asking the same member again may bring it: also a member that lacks what it answers for is about to repair it.
const fn may_come(error: &AskError) -> bool {
    is_temporary(error) || matches!(error, AskError::Refused(Refusal::NotFound))
}
