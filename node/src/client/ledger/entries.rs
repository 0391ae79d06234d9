//! Asking members for entries, and choosing among what they prove.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    Epoch, NodeIndex,
    certificate::Threshold,
    ledger::{
        answer::{Answer, AnswerError, KEYS_MAX},
        chain::{AdvanceError, TrustedChain},
    },
    message::{Refusal, Request, Response},
    planted::{Bug, is_planted},
};
use swarm::Network;

use super::{LedgerError, Proven, Trusted, plan::Plan};
use crate::client::{
    Client, Failures,
    exchange::{AskError, Exchange, Pulse},
    retry::Patience,
};

/// After this long without an answer, further members are asked: far more than an honest one needs, and short enough
/// that a silent one costs nobody patience.
const HEDGE_AFTER: Duration = Duration::from_millis(500);

/// Pause before members are asked again that have not executed a block yet which others have: they do within a few times
/// as long as a vote takes to them.
const BEHIND_PAUSE: Duration = Duration::from_millis(50);

/// How many members at a time are asked to show how the committee changed: one would do, if it is honest and there.
const FOLLOWED_MAX: usize = 2;

/// Values in the order of their keys.
pub(in crate::client) type Values = Vec<Option<Vec<u8>>>;

impl<N: Network> Client<N> {
    /// Entries of the ledger by their [keys](protocol::ledger::state::key), all of one height; `None` for those that are
    /// proven to be absent.
    ///
    /// Every answer is checked from the genesis on, by way of the changes of the committee, which members show and which are
    /// followed first; one that does not verify is held against the member. Proofs say
    /// what was so, not that nothing came after; so members worth a validity set are heard, of which one is honest, and
    /// the highest answer counts. Members that are slow are not waited for if others can be asked; if too few are as far as
    /// what this client has seen before, those that are behind are asked again for a quarter of the timeout of a request.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`LedgerError::TooFewProofs`], [`LedgerError::TooManyKeys`].
    pub async fn ledger_entries(&self, keys: &[Vec<u8>]) -> Result<Proven<Values>, LedgerError> {
        Ok(self.shown(keys, Threshold::Validity).await?.proven)
    }

    /// The same, heard from members worth a threshold, with the committees that are in place behind the block that proves
    /// it.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// As [`Self::ledger_entries`].
    pub(in crate::client) async fn shown(
        &self,
        keys: &[Vec<u8>],
        threshold: Threshold,
    ) -> Result<Shown, LedgerError> {
        if keys.len() > KEYS_MAX {
            return Err(LedgerError::TooManyKeys { got: keys.len(), max: KEYS_MAX });
        }
        self.exchange.use_now();
        loop {
            let trusted = self.ledger.trusted();
            // Whenever it begins anew, a step forward was proven, of which there are as many as epochs have ended.
            let shown = tokio::select! {
                biased;
                shown = self.shown_by(&trusted, keys, threshold) => shown?,
                () = self.shown_the_way(&trusted) => None,
            };
            if let Some(proven) = shown {
                return Ok(Shown { proven, trusted });
            }
        }
    }

    /// What members of the newest committee that is known prove; nothing if another one took over.
    async fn shown_by(
        &self,
        trusted: &Trusted,
        keys: &[Vec<u8>],
        threshold: Threshold,
    ) -> Result<Option<Proven<Values>>, LedgerError> {
        let exchange = &self.exchange.of(trusted.current());
        let committee = exchange.committee();
        let mut newest = Newest::new(threshold.weight(committee), self.ledger.seen());
        let mut plan = plan_of(exchange);
        let mut asked = FuturesUnordered::new();
        // Those who say that there is a later committee, until they are asked to show it.
        let mut ahead = VecDeque::new();
        let mut followed = FuturesUnordered::new();
        let mut wanted = plan.next(newest.missing());
        let behind_until = tokio::time::Instant::now() + exchange.request_timeout() / 4;
        while newest.missing() > 0 {
            for node in std::mem::take(&mut wanted) {
                asked.push(async move { (node, answer_of(exchange, node, keys).await) });
            }
            while followed.len() < FOLLOWED_MAX
                && let Some((node, epoch)) = ahead.pop_front()
            {
                followed.push(async move { (node, self.follow(exchange.peer(node), epoch).await) });
            }
            let hedge = tokio::time::sleep(HEDGE_AFTER);
            let again = tokio::time::sleep(BEHIND_PAUSE);
            let is_in_time = tokio::time::Instant::now() < behind_until;
            let may_catch_up = plan.is_empty() && !newest.behind.is_empty() && is_in_time;
            tokio::select! {
                biased;
                Some((node, result)) = followed.next() => {
                    if let Err(error) = &result {
                        newest.failures.blame(exchange.name(node), error, error.is_lie());
                    }
                    if self.ledger.trusted().epoch() > trusted.epoch() {
                        return Ok(None);
                    }
                    wanted = plan.next(committee.weight(node));
                }
                answer = asked.next(), if !asked.is_empty() || (!may_catch_up && followed.is_empty()) => match answer {
                    Some((node, answer)) => {
                        match self.heard((exchange, trusted), &mut newest, (node, answer), keys) {
                            Heard::Proof => {}
                            Heard::Nothing => wanted = plan.next(committee.weight(node)),
                            Heard::Ahead(epoch) => ahead.push_back((node, epoch)),
                        }
                        if asked.is_empty() && wanted.is_empty() {
                            wanted = plan.next(newest.missing());
                        }
                    }
                    None => break,
                },
                () = again, if may_catch_up => wanted = std::mem::take(&mut newest.behind),
                () = hedge, if !plan.is_empty() => wanted = plan.next(newest.missing()),
            }
        }
        let proven = newest.result()?;
        self.ledger.saw(proven.height);
        Ok(Some(proven))
    }

    /// Takes what one member said.
    fn heard(
        &self,
        (exchange, trusted): (&Exchange<N>, &Trusted),
        newest: &mut Newest,
        (node, answer): (NodeIndex, Result<Answer, AskError>),
        keys: &[Vec<u8>],
    ) -> Heard {
        let (name, weight) = (exchange.name(node), exchange.committee().weight(node));
        let answer = match answer {
            Ok(answer) => answer,
            Err(AskError::Refused(Refusal::NotFound)) if is_planted(Bug::AbsenceUnproven) => {
                return newest.taken_on_faith(weight, keys.len());
            }
            Err(error @ (AskError::Malformed | AskError::Unexpected | AskError::Unverifiable)) => {
                newest.failures.lied(name, error);
                return Heard::Nothing;
            }
            Err(error) => {
                newest.failures.failed(name, error);
                return Heard::Nothing;
            }
        };
        // What proves itself against a head that is certified needs no second certificate.
        let known = newest.chain_at(answer.height()).cloned();
        let later = answer.epoch().filter(|epoch| *epoch > trusted.epoch());
        match (self.verify((exchange, trusted), node, (answer, known), keys), later) {
            // The head itself puts another committee in place, or that one signed it.
            (Ok(_), Some(later)) => Heard::Ahead(later),
            (Err(AnswerError::Head(AdvanceError::Gap { got, known, .. })), Some(later)) if got > known => {
                Heard::Ahead(later)
            }
            (Ok((chain, values)), None) => match newest.proven(name, weight, (chain, values)) {
                true => Heard::Proof,
                false => {
                    newest.behind.push(node);
                    Heard::Nothing
                }
            },
            (Err(AnswerError::Old { got, known }), _) => {
                newest.is_behind(name, got, known);
                newest.behind.push(node);
                Heard::Nothing
            }
            (Err(_), _) if is_planted(Bug::AbsenceUnproven) => newest.taken_on_faith(weight, keys.len()),
            (Err(error), _) if is_nobodys_fault(&error) => {
                newest.failures.failed(name, Causes(&error));
                Heard::Nothing
            }
            (Err(error), _) => {
                newest.failures.lied(name, format_args!("its answer proves nothing: {}", Causes(&error)));
                Heard::Nothing
            }
        }
    }

    /// Verifies a member's answer, from `known` if its head is known, else from the last change of the committee on. One
    /// that proves nothing is held against the member, unless it is nobody's fault.
    pub(super) fn verify(
        &self,
        (exchange, trusted): (&Exchange<N>, &Trusted),
        node: NodeIndex,
        (answer, known): (Answer, Option<TrustedChain>),
        keys: &[Vec<u8>],
    ) -> Result<(TrustedChain, Values), AnswerError> {
        let root = self.ledger.genesis_root(exchange.genesis());
        let mut chain = known.unwrap_or_else(|| trusted.chain().clone());
        match answer.verify(&mut chain, root, keys) {
            Ok(values) => Ok((chain, values)),
            Err(error) => {
                if !is_nobodys_fault(&error) {
                    let name = exchange.name(node);
                    tracing::info!(member = name, error = %Causes(&error), "refused an answer that proves nothing");
                    exchange.report_unverifiable(node);
                }
                Err(error)
            }
        }
    }
}

/// The members, in the order in which this client asks them: each client begins with another.
pub(super) fn plan_of<N: Network>(exchange: &Exchange<N>) -> Plan {
    let committee = exchange.committee();
    let members = committee.nodes().map(|node| (node, committee.weight(node)));
    Plan::new(members, exchange.turn(), |node| exchange.is_connected(node))
}

/// Asks one member; what it says is not verified yet.
async fn answer_of<N: Network>(
    exchange: &Exchange<N>,
    node: NodeIndex,
    keys: &[Vec<u8>],
) -> Result<Answer, AskError> {
    let request = Request::Entries { keys: keys.to_vec() };
    let (patience, pulse) = (Patience::control(exchange.request_timeout()), Pulse::new());
    let answer = exchange.ask_patiently(node, (&request, Bytes::new()), patience, &pulse).await?;
    let (Response::Entries, payload) = answer else {
        return Err(exchange.report_unexpected(node));
    };
    Answer::from_bytes(&payload).map_err(|_| exchange.report_malformed(node))
}

/// What is proven, and the committees that are in place behind the block that proves it.
#[derive(Clone, Debug)]
pub(in crate::client) struct Shown {
    pub(in crate::client) proven: Proven<Values>,
    pub(in crate::client) trusted: Arc<Trusted>,
}

/// What a member's answer is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// It proves what it says.
    Proof,
    /// Nothing; someone else is to be asked.
    Nothing,
    /// It says that the committee of this epoch took over, which is not known here.
    Ahead(Epoch),
}

/// True if an honest member can give such an answer: when it is behind, or this program is older than the network, or does
/// not know the committee that certified the head.
const fn is_nobodys_fault(error: &AnswerError) -> bool {
    matches!(error, AnswerError::Old { .. })
        || matches!(
            error,
            AnswerError::Head(AdvanceError::Version { .. } | AdvanceError::CommitteeMissing { .. })
        )
        || matches!(error, AnswerError::Head(AdvanceError::Gap { got, known, .. }) if got.0 > known.0)
}

/// An error and what it was caused by, in one line.
struct Causes<'a>(&'a AnswerError);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Verified answers, of which the highest counts. Pure.
#[derive(Debug)]
struct Newest {
    required: u16,
    /// What was proven before; what is below is old.
    floor: u64,
    /// Weight of the members that proved something that is not old.
    proved: u16,
    best: Option<(TrustedChain, Values)>,
    /// Members that proved what is old, and have not been asked again since.
    behind: Vec<NodeIndex>,
    /// What a planted bug takes for an answer.
    unproven: Option<Values>,
    failures: Failures,
}

impl Newest {
    fn new(required: u16, floor: u64) -> Self {
        let (best, behind, unproven) = (None, Vec::new(), None);
        Self { required, floor, proved: 0, best, behind, unproven, failures: Failures::default() }
    }

    /// Weight of the members that are still to be heard.
    const fn missing(&self) -> u16 {
        self.required.saturating_sub(self.proved)
    }

    /// The best chain, if it ends at this height.
    fn chain_at(&self, height: u64) -> Option<&TrustedChain> {
        self.best.as_ref().map(|(chain, _)| chain).filter(|chain| chain.height() == height)
    }

    /// A member proved values at the head of a chain; false if that is old.
    fn proven(&mut self, name: &str, weight: u16, (chain, values): (TrustedChain, Values)) -> bool {
        let height = chain.height();
        if height < self.floor {
            self.is_behind(name, height, self.floor);
            return false;
        }
        self.proved = self.proved.saturating_add(weight);
        if self.best.as_ref().is_none_or(|(best, _)| best.height() < height) {
            self.best = Some((chain, values));
        }
        true
    }

    fn is_behind(&mut self, name: &str, height: u64, known: u64) {
        let why = format_args!("it is behind: height {height}, and {known} was seen before");
        self.failures.failed(name, why);
    }

    /// A planted bug takes a member's word that there is nothing.
    fn taken_on_faith(&mut self, weight: u16, n_keys: usize) -> Heard {
        self.unproven = Some(vec![None; n_keys]);
        self.proved = self.proved.saturating_add(weight);
        Heard::Proof
    }

    fn result(self) -> Result<Proven<Values>, LedgerError> {
        let Self { required, floor, proved, best, unproven, failures, .. } = self;
        if let Some(value) = unproven {
            return Ok(Proven { height: floor, value });
        }
        match best {
            Some((chain, value)) if proved >= required => Ok(Proven { height: chain.height(), value }),
            _ => Err(LedgerError::TooFewProofs { proved, required, failures }),
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Epoch, NetworkId, ids::BlockId};

    use super::*;

    #[test]
    fn only_what_is_proven_to_be_anothers_fault_is_held_against_a_member() {
        let gap = |got, known| {
            AnswerError::Head(AdvanceError::Gap { height: 9, got: Epoch(got), known: Epoch(known) })
        };
        let network = NetworkId([1; 32]);
        let id = BlockId([0; 32]);
        let table = [
            (AnswerError::Old { got: 1, known: 2 }, true),
            (AnswerError::Head(AdvanceError::Version { got: 2 }), true),
            (AnswerError::Head(AdvanceError::CommitteeMissing { height: 9 }), true),
            (gap(1, 0), true),
            // The committee of that epoch is known: a header of its epoch that names another is a lie.
            (gap(0, 0), false),
            (AnswerError::Head(AdvanceError::Network { got: network, required: network }), false),
            (AnswerError::Head(AdvanceError::Parent { height: 1, got: id, required: id }), false),
            (AnswerError::Count { got: 1, required: 2 }, false),
        ];
        for (error, expected) in table {
            assert_eq!(is_nobodys_fault(&error), expected, "{error}");
        }
    }
}
