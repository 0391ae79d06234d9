//! Having a transaction executed.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    AccountId, NodeIndex,
    certificate::Threshold,
    ledger::{
        answer::Answer,
        signature::SigningKey,
        state::{entry::Account, key},
        transaction::{Action, Transaction, TransactionError, TransactionId},
    },
    message::{Refusal, Request, Response},
};
use swarm::{Network, RequestError};
use tokio::time::Instant;

use super::{
    LedgerError, Turn, Values, decode,
    entries::plan_of,
    submission::{Outcome, Said, Submission},
};
use crate::client::{
    Client, Failures,
    exchange::{AskError, Exchange},
    failures::printable,
};

/// How many times the timeout of a request a transaction may take: it is tried with several members, and ordered.
const SUBMIT_TIMEOUTS: u32 = 3;
/// How often an action is tried with the next nonce when another transaction of the account took the one before: each store that
/// failed may have left an order for it.
const NONCES_MAX: usize = 4;

/// A transaction that was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Its name.
    pub id: TransactionId,
    /// Its nonce.
    pub nonce: u64,
    /// Height at which it is proven to be executed.
    pub height: u64,
}

/// Why a transaction was not executed, or is not known to be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubmitError {
    /// The account's nonce is not known. Nothing was sent.
    #[error("nothing was sent, since the account's nonce is not known")]
    Nonce(#[source] LedgerError),
    /// The transaction cannot be sent; whoever made it is at fault.
    #[error("nothing was sent: the transaction cannot be used")]
    Transaction(#[source] TransactionError),
    /// The ledger's rules do not allow it: a validity set of members says so. Nothing changed; what was signed could
    /// still be executed if it became allowed before the account's next transaction.
    #[error("the ledger does not allow it: {reason}")]
    Rejected {
        /// Why, in the words of a member.
        reason: String,
    },
    /// Another transaction of the account was executed in its place, so this one never will be.
    #[error(
        "another transaction of the account, made before or at the same time, was executed by height {height} in its place"
    )]
    Superseded {
        /// Height at which that is proven.
        height: u64,
    },
    /// No member took it.
    #[error("no member took the transaction{failures}")]
    NotTaken {
        /// The members, and why.
        failures: Failures,
    },
    /// It was sent, and is not known to be executed. It may have been, or may yet be, at most once.
    #[error("the transaction was sent, and it is not known whether it was executed{failures}")]
    Unknown {
        /// Its name.
        id: TransactionId,
        /// Its nonce: once the account's is higher, it is decided.
        nonce: u64,
        /// What members said.
        failures: Failures,
    },
}

impl<N: Network> Client<N> {
    /// Signs an action and has it executed by the ledger.
    ///
    /// The account's nonce is read with proof, and the transaction is signed once: however often it is sent, to however
    /// many members, it is executed at most once. That it was is believed when the account is proven to have it as its last one.
    /// If another was executed in its place, it never will be, and the action is signed again with the next nonce. Two programs
    /// that use one account at the same moment may have it end as unknown.
    ///
    /// Cancel safe: what was sent may be executed.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]. Only [`SubmitError::Unknown`] leaves open what happened.
    pub async fn submit(&self, action: Action, key: &SigningKey) -> Result<Submitted, SubmitError> {
        let sender = key.account();
        let turn = self.turn(sender).await;
        let mut tries = 0;
        loop {
            let nonce = self.ledger_account(&sender).await.map_err(SubmitError::Nonce)?.value.nonce;
            tries += 1;
            match self.submit_at(nonce, action.clone(), (key, &turn), &[]).await {
                Err(SubmitError::Superseded { .. }) if tries < NONCES_MAX => {}
                submitted => return submitted.map(|(submitted, _)| submitted),
            }
        }
    }

    /// Waits until it is this caller's turn to use an account's nonce.
    ///
    /// Cancel safe: yes.
    pub(in crate::client) async fn turn(&self, account: AccountId) -> Turn {
        self.ledger.accounts.turn(account).await
    }

    /// Has an action executed by the transaction with this nonce; returns the values of `keys` as well, if a member proved
    /// them as of a height at which it is.
    ///
    /// Cancel safe: what was sent may be executed.
    ///
    /// # Errors
    ///
    /// As [`Self::submit`].
    pub(in crate::client) async fn submit_at(
        &self,
        nonce: u64,
        action: Action,
        (key, turn): (&SigningKey, &Turn),
        keys: &[Vec<u8>],
    ) -> Result<(Submitted, Option<Values>), SubmitError> {
        let sender = key.account();
        let keys = [&[key::account(&sender)], keys].concat();
        let mut shown = None;
        let network = self.exchange.network_id();
        let signed = Transaction { sender, nonce, action }.sign(network, key);
        let payload = Bytes::from(signed.to_bytes());
        let id = signed.verify(network).map_err(SubmitError::Transaction)?.id();

        let mut exchange = Arc::new(self.exchange());
        let now = Instant::now();
        let deadline = now + exchange.request_timeout().saturating_mul(SUBMIT_TIMEOUTS);
        let validity = |exchange: &Exchange<N>| Threshold::Validity.weight(exchange.committee());
        let members = plan_of(&exchange).members();
        let mut submission = Submission::new((nonce, id), validity(&exchange), members, (now, deadline));
        let (mut sends, mut reads) = (FuturesUnordered::new(), FuturesUnordered::new());
        let outcome = loop {
            let now = Instant::now();
            if self.ledger.trusted().epoch() > exchange.committee().epoch() {
                // Who was asked before may still have had it ordered: what comes of it shows in the nonce.
                exchange = Arc::new(self.exchange());
                submission.go_on_with(validity(&exchange), plan_of(&exchange).members(), now);
            }
            if let Some(outcome) = submission.outcome(now) {
                break outcome;
            }
            for node in submission.due_sends(now) {
                sends.push(self.submit_to(Arc::clone(&exchange), node, payload.clone(), &keys));
            }
            if submission.due_read(now) {
                reads.push(self.ledger_account(&sender));
            }
            tokio::select! {
                biased;
                Some((asked, node, said, proven)) = sends.next() => {
                    let (name, weight) = (asked.name(node), asked.committee().weight(node));
                    let is_member = Arc::ptr_eq(&asked, &exchange);
                    match said {
                        said if is_member => submission.answered((node, name, weight), said, Instant::now()),
                        Said::Executed(_) | Said::Unclear(_) => submission.answered_before(Instant::now()),
                        Said::Rejected(_) | Said::NotTaken(_) => {}
                    }
                    if let Some((height, account, values)) = proven {
                        let liars = submission.proven(height, &account, Instant::now());
                        self.report_liars(&exchange, &mut submission, &liars);
                        if account.nonce > nonce {
                            self.ledger.saw(height);
                            shown = Some(values);
                        }
                    }
                }
                Some(account) = reads.next() => match account {
                    Ok(account) => {
                        let liars = submission.proven(account.height, &account.value, Instant::now());
                        self.report_liars(&exchange, &mut submission, &liars);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the nonce could not be read");
                        submission.read_failed(Instant::now());
                    }
                },
                () = tokio::time::sleep_until(submission.wake()) => {}
            }
        };
        let failures = submission.failures;
        match outcome {
            Outcome::Executed(height) => {
                turn.used(nonce);
                Ok((Submitted { id, nonce, height }, shown))
            }
            Outcome::Rejected(reason) => Err(SubmitError::Rejected { reason }),
            Outcome::Superseded(height) => Err(SubmitError::Superseded { height }),
            Outcome::NotTaken => Err(SubmitError::NotTaken { failures }),
            Outcome::Unknown => Err(SubmitError::Unknown { id, nonce, failures }),
        }
    }

    fn report_liars(&self, exchange: &Exchange<N>, submission: &mut Submission, liars: &[NodeIndex]) {
        for liar in liars {
            let name = exchange.name(*liar);
            tracing::info!(member = name, "a member says that it executed what was not executed");
            submission
                .failures
                .lied(name, "it says that the transaction was executed, which is proven wrong");
            exchange.report_unverifiable(*liar);
        }
    }

    /// Sends the transaction to a member; returns what it says and, if it proves that, the height, the account, and the
    /// values of the keys after the first, which is the account's.
    async fn submit_to(
        &self,
        exchange: Arc<Exchange<N>>,
        node: NodeIndex,
        payload: Bytes,
        keys: &[Vec<u8>],
    ) -> (Arc<Exchange<N>>, NodeIndex, Said, Option<(u64, Account, Values)>) {
        let request = Request::Submit { keys: keys.to_vec() };
        let mut proven = None;
        let said = match exchange.ask(node, &request, payload).await {
            Ok((Response::Submitted { height }, answer)) => {
                proven = self.proof_of(&exchange, node, &answer, keys);
                Said::Executed(height)
            }
            Ok(_) => Said::Unclear(exchange.report_unexpected(node).to_string()),
            Err(AskError::Refused(Refusal::Rejected(reason))) => Said::Rejected(printable(&reason)),
            Err(error) if is_not_taken(&error) => Said::NotTaken(error.to_string()),
            Err(error) => Said::Unclear(error.to_string()),
        };
        (exchange, node, said, proven)
    }

    /// What came with the word that a transaction was executed. Without it, or if it is of no use, the nonce is read.
    fn proof_of(
        &self,
        exchange: &Exchange<N>,
        node: NodeIndex,
        answer: &[u8],
        keys: &[Vec<u8>],
    ) -> Option<(u64, Account, Values)> {
        if answer.is_empty() {
            return None;
        }
        let answer = Answer::from_bytes(answer).map_err(|_| exchange.report_malformed(node)).ok()?;
        let (height, trusted) = (answer.height(), self.ledger.trusted());
        let (_, mut values) = self.verify((exchange, &trusted), node, (answer, None), keys).ok()?;
        let account = values.remove(0).map(|value| decode("an account", &value)).transpose().ok()?;
        Some((height, account.unwrap_or_default(), values))
    }
}

/// True if a member that is honest has not got the transaction.
const fn is_not_taken(error: &AskError) -> bool {
    match error {
        AskError::Network(error) => matches!(
            error,
            RequestError::Unreachable
                | RequestError::Busy
                | RequestError::TooLarge(_)
                | RequestError::Unsupported
        ),
        AskError::Refused(refusal) => !matches!(refusal, Refusal::NotOrdered | Refusal::Internal),
        _ => false,
    }
}
