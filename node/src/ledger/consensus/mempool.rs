//! Transactions that wait for a block; no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
    AccountId,
    hash::Hash,
    ledger::{
        block::{TRANSACTION_BYTES_MAX, transaction_id},
        wire::{BATCH_BYTES_MAX, BATCH_TRANSACTIONS_MAX},
    },
};

use super::config::Config;

/// Why a transaction is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It does not fit into a block; whoever made it is at fault.
    #[error("transaction of {got} bytes, at most {TRANSACTION_BYTES_MAX} allowed")]
    TooLong {
        /// Bytes it has.
        got: usize,
    },
    /// The ledger would not execute it; whoever made it is at fault.
    #[error("the ledger does not accept the transaction as things are")]
    Invalid,
    /// There is no room. Nobody is at fault: try again later.
    #[error("too many transactions are waiting")]
    Full,
    /// The replica has stopped.
    #[error("the ledger has stopped on this node")]
    Stopped,
}

/// Transactions of one sender that wait at a time. The ledger takes one with each nonce, so of those that it would take now
/// one is executed, and the others are in vain: signed anew, one transaction fills the mempool and is paid for once. A few
/// are for those who change their mind.
const SENDER_TRANSACTIONS_MAX: usize = 4;

#[derive(Debug)]
struct Entry {
    turn: u64,
    sender: Option<AccountId>,
    bytes: Vec<u8>,
    /// Height from which it is no longer kept.
    expires: u64,
}

/// The transactions that wait, in the order of their coming.
#[derive(Debug)]
pub(super) struct Mempool {
    bytes_max: usize,
    transactions_max: usize,
    blocks_max: u64,
    /// After how long own ones are passed on again: twice as long each time, until there is a block.
    repeat: Duration,
    repeat_min: Duration,
    repeat_max: Duration,
    entries: BTreeMap<Hash, Entry>,
    /// INV: the turns of `entries`.
    order: BTreeMap<u64, Hash>,
    next_turn: u64,
    bytes: usize,
    /// How many of `entries` each sender has. INV: none with zero.
    by_sender: BTreeMap<AccountId, usize>,
    /// Those submitted here, which this node passes on until they are in a block. INV: in `entries`.
    own: BTreeSet<Hash>,
    /// Own ones that were never passed on. INV: in `own`.
    fresh: Vec<Hash>,
    /// When all own ones are passed on again. INV: some if there are any.
    repeat_at: Option<Duration>,
}

impl Mempool {
    pub(super) const fn new(config: &Config) -> Self {
        Self {
            bytes_max: config.mempool_bytes_max,
            transactions_max: config.mempool_transactions_max,
            blocks_max: config.mempool_blocks_max,
            repeat: config.repeat,
            repeat_min: config.repeat,
            repeat_max: config.wait_max,
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            next_turn: 0,
            bytes: 0,
            by_sender: BTreeMap::new(),
            own: BTreeSet::new(),
            fresh: Vec::new(),
            repeat_at: None,
        }
    }

    /// Keeps a transaction; `height` is that of the last block. One that is there already stays where it is.
    pub(super) fn insert(
        &mut self,
        bytes: Vec<u8>,
        sender: Option<AccountId>,
        height: u64,
    ) -> Result<Hash, Refused> {
        let (id, got) = (transaction_id(&bytes), bytes.len());
        if got > TRANSACTION_BYTES_MAX {
            return Err(Refused::TooLong { got });
        }
        if self.entries.contains_key(&id) {
            return Ok(id);
        }
        if self.entries.len() >= self.transactions_max || self.bytes + got > self.bytes_max {
            return Err(Refused::Full);
        }
        if let Some(sender) = sender {
            let n = self.by_sender.get(&sender).copied().unwrap_or_default();
            if n >= SENDER_TRANSACTIONS_MAX {
                return Err(Refused::Full);
            }
            self.by_sender.insert(sender, n + 1);
        }
        let (turn, expires) = (self.next_turn, height.saturating_add(self.blocks_max));
        self.next_turn += 1;
        self.bytes += got;
        self.order.insert(turn, id);
        self.entries.insert(id, Entry { turn, sender, bytes, expires });
        Ok(id)
    }

    /// Keeps a transaction that was submitted here, and passes it on.
    pub(super) fn submit(
        &mut self,
        bytes: Vec<u8>,
        sender: Option<AccountId>,
        height: u64,
        now: Duration,
    ) -> Result<Hash, Refused> {
        let id = self.insert(bytes, sender, height)?;
        if self.own.insert(id) {
            self.fresh.push(id);
            self.repeat_at.get_or_insert(now + self.repeat);
        }
        Ok(id)
    }

    fn remove(&mut self, id: &Hash) {
        if let Some(entry) = self.entries.remove(id) {
            self.order.remove(&entry.turn);
            self.bytes -= entry.bytes.len();
            self.own.remove(id);
            if let Some(sender) = entry.sender
                && let Some(n) = self.by_sender.remove(&sender)
                && n > 1
            {
                self.by_sender.insert(sender, n - 1);
            }
        }
    }

    /// Forgets what is in a block, what has waited too long and what is no longer valid.
    pub(super) fn committed(&mut self, block: &[Vec<u8>], height: u64, is_valid: impl Fn(&[u8]) -> bool) {
        for transaction in block {
            self.remove(&transaction_id(transaction));
        }
        let gone: Vec<Hash> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.expires <= height || !is_valid(&entry.bytes))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.remove(&id);
        }
        self.fresh.retain(|id| self.own.contains(id));
        self.repeat = self.repeat_min;
        if self.own.is_empty() {
            self.repeat_at = None;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Transactions in order, at most `n_max`, of which each costs its bytes and `extra`, up to `bytes_max` together.
    pub(super) fn candidates(&self, n_max: usize, bytes_max: usize, extra: usize) -> Vec<&[u8]> {
        let mut room = bytes_max;
        let mut chosen = Vec::new();
        for entry in self.order.values().filter_map(|id| self.entries.get(id)) {
            let Some(rest) = room.checked_sub(entry.bytes.len() + extra) else { continue };
            if chosen.len() == n_max {
                break;
            }
            room = rest;
            chosen.push(entry.bytes.as_slice());
        }
        chosen
    }

    /// When own transactions are passed on again.
    pub(super) const fn next_deadline(&self) -> Option<Duration> {
        self.repeat_at
    }

    /// Marks own transactions for being passed on again, if it is time: the oldest, as many as fit a message.
    pub(super) fn on_tick(&mut self, now: Duration) {
        if self.repeat_at.is_some_and(|at| at <= now) {
            self.repeat = self.repeat.saturating_mul(2).min(self.repeat_max);
            self.repeat_at = Some(now + self.repeat);
            let own = self.order.values().filter(|id| self.own.contains(id));
            self.fresh = own.take(BATCH_TRANSACTIONS_MAX).copied().collect();
        }
    }

    /// Messages with the transactions to pass on.
    pub(super) fn take_batches(&mut self) -> Vec<Vec<Vec<u8>>> {
        let mut batches: Vec<Vec<Vec<u8>>> = Vec::new();
        let mut room = 0;
        for id in std::mem::take(&mut self.fresh) {
            let Some(entry) = self.entries.get(&id) else { continue };
            let is_full = batches.last().is_none_or(|batch| batch.len() == BATCH_TRANSACTIONS_MAX);
            if is_full || entry.bytes.len() > room {
                batches.push(Vec::new());
                room = BATCH_BYTES_MAX;
            }
            room -= entry.bytes.len();
            if let Some(batch) = batches.last_mut() {
                batch.push(entry.bytes.clone());
            }
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mempool(bytes_max: usize, transactions_max: usize) -> Mempool {
        Mempool::new(&Config {
            mempool_bytes_max: bytes_max,
            mempool_transactions_max: transactions_max,
            mempool_blocks_max: 3,
            ..Config::default()
        })
    }

    fn transaction(n: u8, len: usize) -> Vec<u8> {
        vec![n; len]
    }

    #[test]
    fn bounds_hold_and_room_comes_back() {
        let mut it = mempool(100, 3);
        assert_eq!(
            it.insert(transaction(0, TRANSACTION_BYTES_MAX + 1), None, 0),
            Err(Refused::TooLong { got: 16_385 })
        );
        it.insert(transaction(1, 60), None, 0).unwrap();
        assert_eq!(it.insert(transaction(2, 41), None, 0), Err(Refused::Full));
        it.insert(transaction(2, 40), None, 0).unwrap();
        assert_eq!(it.insert(transaction(1, 60), None, 0), Ok(transaction_id(&transaction(1, 60))));
        it.committed(&[transaction(1, 60)], 1, |_| true);
        for n in [3, 4] {
            it.insert(transaction(n, 1), None, 1).unwrap();
        }
        assert_eq!(it.insert(transaction(5, 1), None, 1), Err(Refused::Full));
    }

    #[test]
    fn one_sender_does_not_fill_it() {
        let mut it = mempool(10_000, 100);
        let [one, other] = [1, 2].map(|byte| Some(AccountId([byte; 32])));
        for n in 0..4 {
            it.insert(transaction(n, 10), one, 0).unwrap();
        }
        assert_eq!(it.insert(transaction(9, 10), one, 0), Err(Refused::Full));
        assert!(it.insert(transaction(0, 10), one, 0).is_ok(), "it is there already");
        it.insert(transaction(9, 10), other, 0).unwrap();
        // One of them is executed, and the others are no longer valid.
        it.committed(&[transaction(0, 10)], 1, |bytes| bytes[0] == 9);
        assert_eq!(it.by_sender.into_values().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn what_waits_too_long_or_is_not_valid_any_more_is_dropped() {
        let mut it = mempool(100, 10);
        for n in 1..=3 {
            it.insert(transaction(n, 1), None, u64::from(n)).unwrap();
        }
        it.committed(&[], 3, |bytes| bytes[0] != 2);
        assert_eq!(it.candidates(10, 100, 0), [[1], [3]]);
        it.committed(&[], 4, |_| true);
        assert_eq!(it.candidates(10, 100, 0), [[3]]);
        it.committed(&[], 6, |_| true);
        assert!(it.is_empty());
        assert_eq!((it.bytes, it.order.len()), (0, 0));
    }

    #[test]
    fn candidates_come_in_order_as_far_as_they_fit() {
        let mut it = mempool(1_000, 10);
        for (n, len) in [(1, 10), (2, 50), (3, 20)] {
            it.insert(transaction(n, len), None, 0).unwrap();
        }
        let first = |it: &Mempool, n_max, bytes_max| {
            it.candidates(n_max, bytes_max, 8).iter().map(|it| it[0]).collect::<Vec<_>>()
        };
        assert_eq!(first(&it, 10, 1_000), [1, 2, 3]);
        assert_eq!(first(&it, 2, 1_000), [1, 2]);
        assert_eq!(first(&it, 10, 10 + 8 + 20 + 8), [1, 3]);
        assert_eq!(first(&it, 10, 17), [0_u8; 0]);
    }

    #[test]
    fn own_ones_are_passed_on_until_they_are_in_a_block_and_others_are_not() {
        let mut it = mempool(1_000, 10);
        it.insert(transaction(1, 1), None, 0).unwrap();
        assert_eq!(it.next_deadline(), None);
        it.submit(transaction(2, 1), None, 0, Duration::ZERO).unwrap();
        // It came from somebody else first; now it is ours to care for.
        it.submit(transaction(1, 1), None, 0, Duration::ZERO).unwrap();
        assert_eq!(it.take_batches(), [[[2], [1]]]);
        assert!(it.take_batches().is_empty());
        let mut waits = Vec::new();
        let mut now = Duration::ZERO;
        for _ in 0..6 {
            let at = it.next_deadline().unwrap();
            waits.push((at - now).as_secs());
            now = at;
            it.on_tick(now);
            assert_eq!(it.take_batches(), [[[1], [2]]]);
        }
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
        it.committed(&[transaction(1, 1), transaction(2, 1)], 1, |_| true);
        assert_eq!(it.next_deadline(), None);
    }

    #[test]
    fn batches_keep_the_bounds_of_a_message() {
        let mut it = mempool(16 << 20, 10_000);
        for n in 0..5_u8 {
            it.submit(transaction(n, 15 << 10), None, 0, Duration::ZERO).unwrap();
        }
        for n in 0..2_000_u32 {
            it.submit(n.to_le_bytes().to_vec(), None, 0, Duration::ZERO).unwrap();
        }
        let batches = it.take_batches();
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 2_005);
        for batch in batches {
            assert!(!batch.is_empty());
            assert!(batch.len() <= BATCH_TRANSACTIONS_MAX);
            assert!(batch.iter().map(Vec::len).sum::<usize>() <= BATCH_BYTES_MAX);
        }
    }
}
