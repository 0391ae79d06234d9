//! Transactions of one account, one after the other: each has a nonce, which is good for one of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use protocol::AccountId;
use tokio::sync::{Mutex as Gate, OwnedMutexGuard};

/// The accounts that a client signs for.
#[derive(Debug, Default)]
pub(super) struct Accounts(Mutex<BTreeMap<AccountId, Arc<Account>>>);

#[derive(Debug, Default)]
struct Account {
    gate: Arc<Gate<()>>,
    /// The nonce after the last transaction that was executed; 0 if that is not known.
    next: AtomicU64,
}

/// Leave to use the account's next nonce, until dropped.
#[derive(Debug)]
pub(in crate::client) struct Turn {
    account: Arc<Account>,
    _gate: OwnedMutexGuard<()>,
}

impl Accounts {
    /// Waits for the account's turn; those who wait are served in order.
    ///
    /// Cancel safe: yes; the place in the queue is lost.
    pub(super) async fn turn(&self, account: AccountId) -> Turn {
        let account = {
            let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(accounts.entry(account).or_default())
        };
        let gate = Arc::clone(&account.gate).lock_owned().await;
        Turn { account, _gate: gate }
    }
}

impl Turn {
    /// The account's next nonce, if this client alone uses it and has used it before.
    pub(in crate::client) fn next(&self) -> Option<u64> {
        Some(self.account.next.load(Ordering::Relaxed)).filter(|next| *next > 0)
    }

    /// A transaction with this nonce was executed.
    pub(super) fn used(&self, nonce: u64) {
        self.account.next.fetch_max(nonce.saturating_add(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_account_has_one_turn_at_a_time() {
        let accounts = Accounts::default();
        let [a, b] = [1, 2].map(|byte| AccountId([byte; 32]));
        let turn = accounts.turn(a).await;
        assert_eq!(turn.next(), None);
        turn.used(4);
        turn.used(2);
        assert!(accounts.turn(a).now_or_never().is_none());
        assert_eq!(accounts.turn(b).await.next(), None);
        drop(turn);
        assert_eq!(accounts.turn(a).await.next(), Some(5));
    }
}
