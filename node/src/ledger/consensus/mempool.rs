//! Transactions that wait for a block; no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
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

#[derive(Debug)]
struct Entry {
    turn: u64,
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
            own: BTreeSet::new(),
            fresh: Vec::new(),
            repeat_at: None,
        }
    }

    /// Keeps a transaction; `height` is that of the last block. One that is there already stays where it is.
    pub(super) fn insert(&mut self, bytes: Vec<u8>, height: u64) -> Result<Hash, Refused> {
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
        let (turn, expires) = (self.next_turn, height.saturating_add(self.blocks_max));
        self.next_turn += 1;
        self.bytes += got;
        self.order.insert(turn, id);
        self.entries.insert(id, Entry { turn, bytes, expires });
        Ok(id)
    }

    /// Keeps a transaction that was submitted here, and passes it on.
    pub(super) fn submit(&mut self, bytes: Vec<u8>, height: u64, now: Duration) -> Result<Hash, Refused> {
        let id = self.insert(bytes, height)?;
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
