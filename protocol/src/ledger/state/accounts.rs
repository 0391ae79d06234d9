//! Balances and nonces.

use super::{ApplyError, Corrupt, Event, Rejected, State, entry::Account, slot::AccountSlot, store::add};
use crate::{
    ids::AccountId,
    ledger::transaction::{Place, TransactionId},
};

const BALANCES: &str = "balances";

impl State {
    /// An account; one that never was has nothing.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself.
    pub fn account(&self, account: &AccountId) -> Result<Account, Corrupt> {
        Ok(self.store.get(&AccountSlot { account: *account })?.unwrap_or_default())
    }

    /// How many transactions of its sender have to be executed before one at this place can be; 0 if it is next. A look at
    /// one account, without a proof or signature being checked: it may still be refused when its turn comes.
    ///
    /// # Errors
    ///
    /// If its place is taken, or its sender cannot pay the fee.
    pub fn turn(&self, place: &Place) -> Result<u64, ApplyError> {
        let account = self.account(&place.sender)?;
        let (got, required) = (place.nonce, account.nonce);
        let nonce = Rejected::Nonce { account: place.sender, got, required };
        let turn = got.checked_sub(required).ok_or(nonce)?;
        let (has, fee) = (account.balance, self.fee(place)?);
        if has < fee {
            return Err(Rejected::Overdraft { account: place.sender, has, needs: fee.into() }.into());
        }
        Ok(turn)
    }

    /// What a transaction at this place pays.
    pub(super) fn fee(&self, place: &Place) -> Result<u64, Corrupt> {
        if place.pays_fee { Ok(self.parameters()?.transaction_fee) } else { Ok(0) }
    }

    fn write_account(&mut self, account: &AccountId, value: Account) {
        self.store.set(&AccountSlot { account: *account }, &value);
    }

    /// Takes a transaction's place in the order of its sender's.
    pub(super) fn take_place(&mut self, place: &Place, id: TransactionId) -> Result<(), ApplyError> {
        let account = self.account(&place.sender)?;
        let (got, required) = (place.nonce, account.nonce);
        if got != required {
            return Err(Rejected::Nonce { account: place.sender, got, required }.into());
        }
        let nonce = add("nonces", required, 1)?;
        self.write_account(&place.sender, Account { nonce, last: Some(id), ..account });
        Ok(())
    }

    /// Takes credits from an account.
    pub(super) fn withdraw(&mut self, from: &AccountId, needs: u128) -> Result<(), ApplyError> {
        let account = self.account(from)?;
        let has = account.balance;
        let left =
            u128::from(has).checked_sub(needs).ok_or(Rejected::Overdraft { account: *from, has, needs })?;
        let balance = u64::try_from(left).map_err(|_| Corrupt::Sum { what: BALANCES })?;
        self.write_account(from, Account { balance, ..account });
        Ok(())
    }

    /// Gives credits, taken from elsewhere, to an account.
    pub(super) fn deposit(&mut self, to: &AccountId, amount: u64) -> Result<(), Corrupt> {
        if amount == 0 {
            return Ok(());
        }
        let account = self.account(to)?;
        let balance = add(BALANCES, account.balance, amount)?;
        self.write_account(to, Account { balance, ..account });
        Ok(())
    }

    pub(super) fn charge_fee(&mut self, sender: &AccountId, fee: u64) -> Result<(), ApplyError> {
        if fee == 0 {
            return Ok(());
        }
        self.withdraw(sender, fee.into())?;
        let epoch = self.head()?.epoch;
        self.fund(epoch, fee)?;
        Ok(())
    }

    pub(super) fn transfer(
        &mut self,
        from: AccountId,
        to: AccountId,
        amount: u64,
    ) -> Result<Event, ApplyError> {
        if amount == 0 {
            return Err(Rejected::NoAmount.into());
        }
        self.withdraw(&from, amount.into())?;
        self.deposit(&to, amount)?;
        Ok(Event::Transferred { from, to, amount })
    }
}
