//! The replica and what belongs to it, as one value that moves to a thread that may block and back.
//!
//! What users wait for is kept here too, because it is looked at after every block and needs the state for it.

use std::collections::{BTreeMap, VecDeque};

use protocol::{
    NetworkId,
    hash::Hash,
    ledger::{
        block::transaction_id,
        signature::SigningKey,
        transaction::{Action, Transaction},
        vote::Equivocation,
        wire,
    },
};
use tokio::sync::oneshot;

use super::{
    app::{App, AppError, Done},
    consensus::{Fatal, Now, Output, Refused, Replica, RequestId},
    mailbox::{Input, SubmitError, SubmitReply},
    view::View,
};

/// Transactions that users wait for.
const WAITING_MAX: usize = 1024;
/// Executed transactions of which the height is remembered, for those who ask again because an answer was lost.
const EXECUTED_MAX: usize = 16_384;
/// Contradictions kept until they are on the ledger: a member is ejected for the first, so more than one each is plenty.
const EVIDENCE_MAX: usize = 64;

/// Why the ledger of a node stopped.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// Consensus cannot go on.
    #[error(transparent)]
    Consensus(#[from] Fatal),
    /// The state cannot go on.
    #[error(transparent)]
    App(#[from] AppError),
    /// A call panicked, or the node is going down.
    #[error("a call to the replica did not return")]
    Gone,
}

/// A transaction that somebody waits for.
#[derive(Debug)]
struct Waiting {
    transaction: Vec<u8>,
    replies: Vec<SubmitReply>,
}

/// What a step led to.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// To be carried out by the actor; requests are answered already.
    pub(super) outputs: Vec<Output>,
    /// Blocks executed, in order.
    pub(super) done: VecDeque<Done>,
    /// When to come again.
    pub(super) deadline: Option<std::time::Duration>,
}

/// See the [module](self).
pub(super) struct Core {
    replica: Replica<App>,
    network: NetworkId,
    key: SigningKey,
    /// Requests of peers, until they are answered.
    asked: BTreeMap<RequestId, oneshot::Sender<wire::Response>>,
    next_request: u64,
    /// By name. INV: at most [`WAITING_MAX`].
    waiting: BTreeMap<Hash, Waiting>,
    /// Heights of the transactions executed last. INV: at most [`EXECUTED_MAX`].
    executed: BTreeMap<Hash, u64>,
    /// The keys of `executed`, oldest first.
    executed_order: VecDeque<Hash>,
    /// INV: at most [`EVIDENCE_MAX`].
    evidence: Vec<Equivocation>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Core {
    pub(super) const fn new(replica: Replica<App>, network: NetworkId, key: SigningKey) -> Self {
        Self {
            replica,
            network,
            key,
            asked: BTreeMap::new(),
            next_request: 0,
            waiting: BTreeMap::new(),
            executed: BTreeMap::new(),
            executed_order: VecDeque::new(),
            evidence: Vec::new(),
        }
    }

    /// Books the blocks that were executed at the start; returns the last of them.
    pub(super) fn catch_up(&mut self) -> Option<View> {
        let mut done = self.replica.app().take_done();
        self.book(&done);
        done.pop_back().map(|done| done.into_news().0)
    }

    /// Writes a snapshot, so that the next start has nothing to execute.
    pub(super) fn snapshot(&mut self) {
        self.replica.app_mut().snapshot();
    }

    /// Takes what came, lets time pass, and says what follows.
    pub(super) fn step(&mut self, now: Now, inputs: Vec<Input>) -> Result<Step, Stopped> {
        for input in inputs {
            self.take(now, input)?;
        }
        self.replica.on_tick(now)?;
        let mut step = Step::default();
        loop {
            let outputs = self.replica.drain();
            let done = self.replica.app().take_done();
            if let Some(error) = self.replica.app_mut().take_failed() {
                return Err(error.into());
            }
            self.book(&done);
            let has_evidence = self.route(outputs, &mut step.outputs);
            let has_done = !done.is_empty();
            step.done.extend(done);
            // Own evidence makes the replica say something; that is the only way to go round.
            if self.evidence.is_empty() || !(has_evidence || has_done) {
                break;
            }
            self.accuse(now);
        }
        step.deadline = self.replica.next_deadline();
        Ok(step)
    }

    fn take(&mut self, now: Now, input: Input) -> Result<(), Fatal> {
        match input {
            Input::Message { from, message } => self.replica.on_message(now, from, message),
            Input::Request { from, request, reply } => {
                let id = RequestId(self.next_request);
                self.next_request += 1;
                self.asked.insert(id, reply);
                self.replica.on_request(now, from, id, request)
            }
            Input::Response { from, id, response } => self.replica.on_response(now, from, id, response),
            Input::Connected { peer } => self.replica.on_connected(now, peer),
            Input::Submit { transaction, reply } => {
                self.submit(now, transaction, reply);
                Ok(())
            }
        }
    }

    fn submit(&mut self, now: Now, transaction: Vec<u8>, reply: SubmitReply) {
        let id = transaction_id(&transaction);
        let answer = match self.executed.get(&id) {
            Some(height) => Ok(*height),
            None => match self.wait_for(now, id, &transaction) {
                Ok(()) => {
                    let new = || Waiting { transaction, replies: Vec::new() };
                    self.waiting.entry(id).or_insert_with(new).replies.push(reply);
                    return;
                }
                Err(error) => Err(error),
            },
        };
        // Whoever asked may have given up.
        let _ = reply.send(answer);
    }

    /// Has a transaction ordered, if there is room for one who waits for it.
    fn wait_for(&mut self, now: Now, id: Hash, transaction: &[u8]) -> Result<(), SubmitError> {
        let rejected = |error: String| SubmitError::Rejected { reason: error };
        if let Err(unfit) = self.replica.app().examine(transaction) {
            return Err(rejected(unfit.to_string()));
        }
        if self.waiting.len() >= WAITING_MAX {
            self.forget_the_gone();
        }
        let n_replies = self.waiting.get(&id).map_or(0, |waiting| waiting.replies.len());
        if (self.waiting.len() >= WAITING_MAX && n_replies == 0) || n_replies >= WAITING_MAX {
            return Err(SubmitError::Busy);
        }
        match self.replica.submit(now, transaction.to_vec()) {
            Ok(_) => Ok(()),
            Err(Refused::Full) => Err(SubmitError::Busy),
            Err(Refused::Stopped) => Err(SubmitError::Stopped),
            Err(refused @ (Refused::TooLong { .. } | Refused::Invalid)) => Err(rejected(refused.to_string())),
        }
    }

    fn forget_the_gone(&mut self) {
        self.waiting.retain(|_, waiting| {
            waiting.replies.retain(|reply| !reply.is_closed());
            !waiting.replies.is_empty()
        });
    }

    /// Answers those who wait for what has been executed, or never will be.
    fn book(&mut self, done: &VecDeque<Done>) {
        for Done { decided, .. } in done {
            let height = decided.block.header().height;
            for transaction in decided.block.transactions() {
                let id = transaction_id(transaction);
                if self.executed.insert(id, height).is_none() {
                    self.executed_order.push_back(id);
                }
                if self.executed_order.len() > EXECUTED_MAX
                    && let Some(oldest) = self.executed_order.pop_front()
                {
                    self.executed.remove(&oldest);
                }
                let replies = self.waiting.remove(&id).map(|waiting| waiting.replies);
                for reply in replies.into_iter().flatten() {
                    let _ = reply.send(Ok(height));
                }
            }
        }
        if done.is_empty() || self.waiting.is_empty() {
            return;
        }
        self.forget_the_gone();
        let app = self.replica.app();
        let unfit: Vec<(Hash, String)> = self
            .waiting
            .iter()
            .filter_map(|(id, waiting)| {
                let error = app.examine(&waiting.transaction).err()?;
                Some((*id, error.to_string()))
            })
            .collect();
        for (id, reason) in unfit {
            let replies = self.waiting.remove(&id).map(|waiting| waiting.replies);
            for reply in replies.into_iter().flatten() {
                let _ = reply.send(Err(SubmitError::Rejected { reason: reason.clone() }));
            }
        }
    }

    /// Answers peers, keeps evidence, and leaves the rest to the actor. True if there was evidence.
    fn route(&mut self, outputs: Vec<Output>, rest: &mut Vec<Output>) -> bool {
        let mut has_evidence = false;
        for output in outputs {
            match output {
                Output::Reply { id, response } => {
                    if let Some(reply) = self.asked.remove(&id) {
                        let _ = reply.send(response);
                    }
                }
                Output::Evidence(equivocation) => {
                    tracing::warn!(accused = %equivocation.accused(), "a member contradicted itself");
                    if self.evidence.len() < EVIDENCE_MAX {
                        self.evidence.push(equivocation);
                        has_evidence = true;
                    }
                }
                // What follows from it was taken from the application.
                Output::Committed(_) => {}
                output => rest.push(output),
            }
        }
        has_evidence
    }

    /// Submits the first evidence that still says something new; the next one after it is on the ledger, since both would
    /// have the same nonce.
    fn accuse(&mut self, now: Now) {
        let sender = self.key.account();
        let Ok(account) = self.replica.app().state().account(&sender) else { return };
        let sign = |equivocation: &Equivocation| {
            let action = Action::Evidence { equivocation: Box::new(*equivocation) };
            let transaction = Transaction { sender, nonce: account.nonce, action };
            transaction.sign(&self.network, &self.key).to_bytes()
        };
        let app = self.replica.app();
        self.evidence.retain(|equivocation| app.examine(&sign(equivocation)).is_ok());
        if let Some(transaction) = self.evidence.first().map(sign)
            && let Err(error) = self.replica.submit(now, transaction)
        {
            tracing::debug!(%error, "evidence was not submitted; it is tried again after the next block");
        }
    }
}
