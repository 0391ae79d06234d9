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
        wire,
    },
};
use tokio::sync::oneshot;

use super::{
    app::{App, AppError, Done, Unfit},
    consensus::{Activity, Fatal, Now, Output, Refused, Replica, RequestId},
    mailbox::{Input, SubmitError, SubmitReply},
    view::View,
};

/// Transactions that users wait for.
const WAITING_MAX: usize = 1024;
/// Executed transactions of which the height is remembered, for those who ask again because an answer was lost.
const EXECUTED_MAX: usize = 16_384;
/// Duties kept until they are done. Of evidence one for each member is plenty, since it is ejected for the first; what else is
/// not kept is owed again by whoever found it.
const DUTIES_MAX: usize = 64;

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
    /// What goes on after it.
    pub(super) activity: Activity,
}

/// Answers those who wait for a transaction. They may have given up.
fn tell(replies: impl IntoIterator<Item = SubmitReply>, answer: &Result<u64, SubmitError>) {
    for reply in replies {
        let _ = reply.send(answer.clone());
    }
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
    /// What this node owes to the ledger and has yet to say there. INV: at most [`DUTIES_MAX`], no two the same.
    duties: Vec<Action>,
    has_new_duty: bool,
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
            duties: Vec::new(),
            has_new_duty: false,
        }
    }

    /// Books the blocks that were executed at the start; returns the last of them.
    pub(super) fn catch_up(&mut self) -> Option<View> {
        let mut done = self.replica.app().take_done();
        self.book(&done);
        done.pop_back().map(|done| done.into_news().0)
    }

    /// The replica, to look at.
    #[cfg(test)]
    pub(super) const fn replica(&self) -> &Replica<App> {
        &self.replica
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
            self.route(outputs, &mut step.outputs);
            let has_done = !done.is_empty();
            step.done.extend(done);
            let has_duty = std::mem::take(&mut self.has_new_duty);
            // A duty makes the replica say something; that is the only way to go round.
            if self.duties.is_empty() || !(has_duty || has_done) {
                break;
            }
            self.do_duty(now);
        }
        step.deadline = self.replica.next_deadline();
        step.activity = self.replica.activity();
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
            Input::Duty { action } => {
                self.owe(*action);
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
        tell([reply], &answer);
    }

    /// Has a transaction ordered, if there is room for one who waits for it.
    fn wait_for(&mut self, now: Now, id: Hash, transaction: &[u8]) -> Result<(), SubmitError> {
        let rejected = |error: String| SubmitError::Rejected { reason: error };
        self.examine(transaction).map_err(|unfit| rejected(unfit.to_string()))?;
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

    /// Whether a transaction could be executed after those of its sender that wait.
    fn examine(&self, transaction: &[u8]) -> Result<(), Unfit> {
        let app = self.replica.app();
        app.examine(transaction, &self.replica.before(&app.place(transaction)?))
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
                if let Some(waiting) = self.waiting.remove(&id) {
                    tell(waiting.replies, &Ok(height));
                }
            }
        }
        if done.is_empty() || self.waiting.is_empty() {
            return;
        }
        self.forget_the_gone();
        // It may have been executed in one of the blocks that were left out.
        let is_certain = !done.iter().any(|done| done.is_snapshot);
        // Whatever waits is in the mempool, which has looked at it: only what it has dropped is looked at here.
        let dropped: Vec<Hash> =
            self.waiting.keys().filter(|id| !self.replica.is_waiting(id)).copied().collect();
        for id in dropped {
            let Some(Waiting { transaction, replies }) = self.waiting.remove(&id) else { continue };
            let error = match self.reason(&transaction) {
                Err(unfit) if is_certain => SubmitError::Rejected { reason: unfit.to_string() },
                // It waited too long, or what comes before it was dropped: sent again it may still be executed.
                _ => SubmitError::NotOrdered,
            };
            tell(replies, &Err(error));
        }
    }

    fn owe(&mut self, action: Action) {
        if self.duties.len() < DUTIES_MAX && !self.duties.contains(&action) {
            self.duties.push(action);
            self.has_new_duty = true;
        }
    }

    /// Why a transaction will not be executed, if that can be told: its turn has passed, or has come and it is void.
    fn reason(&self, transaction: &[u8]) -> Result<(), Unfit> {
        let app = self.replica.app();
        if app.turn(&app.place(transaction)?)? == 0 { app.examine(transaction, &[]) } else { Ok(()) }
    }

    /// Answers peers, keeps evidence, and leaves the rest to the actor.
    fn route(&mut self, outputs: Vec<Output>, rest: &mut Vec<Output>) {
        for output in outputs {
            match output {
                Output::Reply { id, response } => {
                    if let Some(reply) = self.asked.remove(&id) {
                        // The peer may have gone.
                        let _ = reply.send(response);
                    }
                }
                // Without an answer the asker is told that the node is busy.
                Output::Busy { id } => drop(self.asked.remove(&id)),
                Output::Evidence(equivocation) => {
                    tracing::warn!(accused = %equivocation.accused(), "a member contradicted itself");
                    self.owe(Action::Evidence { equivocation: Box::new(equivocation) });
                }
                // What follows from it was taken from the application.
                Output::Committed(_) | Output::Installed(_) => {}
                output => rest.push(output),
            }
        }
    }

    /// Submits the first duty that is still to be done; the next one after it is, since both would have the same nonce.
    fn do_duty(&mut self, now: Now) {
        let sender = self.key.account();
        let Ok(account) = self.replica.app().state().account(&sender) else { return };
        let sign = |action: &Action| {
            let transaction = Transaction { sender, nonce: account.nonce, action: action.clone() };
            transaction.sign(&self.network, &self.key).to_bytes()
        };
        let app = self.replica.app();
        self.duties.retain(|action| app.examine(&sign(action), &[]).is_ok());
        if let Some(transaction) = self.duties.first().map(sign)
            && let Err(error) = self.replica.submit(now, transaction)
        {
            tracing::debug!(%error, "a duty was not submitted; it is tried again after the next block");
        }
    }
}
