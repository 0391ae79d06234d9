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
        transaction::Place,
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

/// Transactions of one sender that wait at a time: a client that does not wait for each before it signs the next has as many
/// under way as blocks of some round trips take. Each is examined after those before it, so it is also what examining one
/// costs at most. The total is bounded beside it, and one sender has a thousandth of it.
pub(super) const SENDER_TRANSACTIONS_MAX: usize = 16;
/// Of these, with one nonce. One of them is executed, and the others are in vain: signed anew, one transaction fills the
/// mempool and is paid for once. A few are for those who change their mind.
const RIVALS_MAX: usize = 4;
/// Transactions that are examined in full after a block, those that have waited longest: what is first in line and not
/// executed may be void for a reason that a cheap look does not tell, and would make blocks for nothing. Few, since each may
/// cost a pairing and everything else waits.
const EXAMINED_MAX: usize = 4;

#[derive(Debug)]
struct Entry {
    turn: u64,
    place: Option<Place>,
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
    /// Those of `entries` that have a sender, by nonce and then in the order of their coming. INV: none empty.
    by_sender: BTreeMap<AccountId, BTreeMap<u64, Vec<Hash>>>,
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

    /// The transactions that wait and come before this place, the first of each nonce, in order.
    pub(super) fn before(&self, place: &Place) -> Vec<&[u8]> {
        let nonces = self.by_sender.get(&place.sender).into_iter().flat_map(|it| it.range(..place.nonce));
        nonces
            .filter_map(|(_, rivals)| self.entries.get(rivals.first()?))
            .map(|entry| entry.bytes.as_slice())
            .collect()
    }

    pub(super) fn contains(&self, id: &Hash) -> bool {
        self.entries.contains_key(id)
    }

    /// Whether there is room for one more at this place.
    fn has_room(&self, place: &Place) -> bool {
        let Some(own) = self.by_sender.get(&place.sender) else { return true };
        let n_rivals = own.get(&place.nonce).map_or(0, Vec::len);
        n_rivals < RIVALS_MAX && own.values().map(Vec::len).sum::<usize>() < SENDER_TRANSACTIONS_MAX
    }

    /// Keeps a transaction; `height` is that of the last block. One that is there already stays where it is.
    pub(super) fn insert(
        &mut self,
        bytes: Vec<u8>,
        place: Option<Place>,
        height: u64,
    ) -> Result<Hash, Refused> {
        let (id, got) = (transaction_id(&bytes), bytes.len());
        if got > TRANSACTION_BYTES_MAX {
            return Err(Refused::TooLong { got });
        }
        if self.entries.contains_key(&id) {
            return Ok(id);
        }
        let is_full = self.entries.len() >= self.transactions_max || self.bytes + got > self.bytes_max;
        if is_full || place.is_some_and(|place| !self.has_room(&place)) {
            return Err(Refused::Full);
        }
        if let Some(Place { sender, nonce, .. }) = place {
            self.by_sender.entry(sender).or_default().entry(nonce).or_default().push(id);
        }
        let (turn, expires) = (self.next_turn, height.saturating_add(self.blocks_max));
        self.next_turn += 1;
        self.bytes += got;
        self.order.insert(turn, id);
        self.entries.insert(id, Entry { turn, place, bytes, expires });
        Ok(id)
    }

    /// Keeps a transaction that was submitted here, and passes it on.
    pub(super) fn submit(
        &mut self,
        bytes: Vec<u8>,
        place: Option<Place>,
        height: u64,
        now: Duration,
    ) -> Result<Hash, Refused> {
        let id = self.insert(bytes, place, height)?;
        if self.own.insert(id) {
            self.fresh.push(id);
            self.repeat_at.get_or_insert(now + self.repeat);
        }
        Ok(id)
    }

    fn remove(&mut self, id: &Hash) {
        let Some(entry) = self.entries.remove(id) else { return };
        self.order.remove(&entry.turn);
        self.bytes -= entry.bytes.len();
        self.own.remove(id);
        if let Some(Place { sender, nonce, .. }) = entry.place
            && let Some(own) = self.by_sender.get_mut(&sender)
        {
            if let Some(rivals) = own.get_mut(&nonce) {
                rivals.retain(|other| other != id);
            }
            own.retain(|_, rivals| !rivals.is_empty());
            if own.is_empty() {
                self.by_sender.remove(&sender);
            }
        }
    }

    /// Forgets what is in a block, what has waited too long and what is no longer valid: `turn` says cheaply how many of its
    /// sender's come before a transaction, if it may be valid at all; `admits` whether it is, after others.
    pub(super) fn committed(
        &mut self,
        block: &[Vec<u8>],
        height: u64,
        turn: impl Fn(&[u8], Option<&Place>) -> Option<u64>,
        admits: impl Fn(&[u8], &[&[u8]]) -> bool,
    ) {
        for transaction in block {
            self.remove(&transaction_id(transaction));
        }
        let is_over =
            |entry: &Entry| entry.expires <= height || turn(&entry.bytes, entry.place.as_ref()).is_none();
        let gone: Vec<Hash> = self.entries.iter().filter(|(_, it)| is_over(it)).map(|(id, _)| *id).collect();
        for id in gone {
            self.remove(&id);
        }
        let oldest: Vec<Hash> = self.order.values().take(EXAMINED_MAX).copied().collect();
        for id in oldest {
            let Some(Entry { bytes, place, .. }) = self.entries.get(&id) else { continue };
            let before = place.as_ref().map(|place| self.before(place)).unwrap_or_default();
            if !admits(bytes, &before) {
                self.remove(&id);
            }
        }
        self.drop_unreachable(turn);
        self.fresh.retain(|id| self.own.contains(id));
        self.repeat = self.repeat_min;
        if self.own.is_empty() {
            self.repeat_at = None;
        }
    }

    /// Forgets transactions behind a gap in the nonces of their sender: the one that would fill it has to be sent first.
    fn drop_unreachable(&mut self, turn: impl Fn(&[u8], Option<&Place>) -> Option<u64>) {
        let mut gone = Vec::new();
        for nonces in self.by_sender.values() {
            let mut next = 0;
            for id in nonces.values().flatten() {
                let Some(entry) = self.entries.get(id) else { continue };
                match turn(&entry.bytes, entry.place.as_ref()) {
                    Some(turn) if turn <= next => next = turn + 1,
                    _ => gone.push(*id),
                }
            }
        }
        for id in gone {
            self.remove(&id);
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
        commit(&mut it, &[transaction(1, 60)], 1, |_| true);
        for n in [3, 4] {
            it.insert(transaction(n, 1), None, 1).unwrap();
        }
        assert_eq!(it.insert(transaction(5, 1), None, 1), Err(Refused::Full));
    }

    /// A block, after which only these transactions are valid; all are next.
    fn commit(it: &mut Mempool, block: &[Vec<u8>], height: u64, is_valid: impl Fn(&[u8]) -> bool) {
        it.committed(block, height, |bytes, _| is_valid(bytes).then_some(0), |_, _| true);
    }

    fn place(sender: u8, nonce: u64) -> Option<Place> {
        Some(Place { sender: AccountId([sender; 32]), nonce, pays_fee: true })
    }

    #[test]
    fn one_sender_does_not_fill_it() {
        let mut it = mempool(10_000, 100);
        for n in 0..4 {
            it.insert(transaction(n, 10), place(1, 7), 0).unwrap();
        }
        assert_eq!(it.insert(transaction(9, 10), place(1, 7), 0), Err(Refused::Full), "rivals");
        assert!(it.insert(transaction(0, 10), place(1, 7), 0).is_ok(), "it is there already");
        for n in 0..12 {
            it.insert(transaction(20 + n, 10), place(1, 8 + u64::from(n)), 0).unwrap();
        }
        assert_eq!(it.insert(transaction(9, 10), place(1, 20), 0), Err(Refused::Full), "too many");
        it.insert(transaction(9, 10), place(2, 0), 0).unwrap();
        // One of the rivals is executed, and the others are no longer valid.
        commit(&mut it, &[transaction(0, 10)], 1, |bytes| bytes[0] == 9);
        assert_eq!(it.by_sender.into_keys().collect::<Vec<_>>(), [AccountId([2; 32])]);
    }

    #[test]
    fn those_of_one_sender_wait_in_the_order_of_their_nonces_and_not_behind_a_gap() {
        let mut it = mempool(10_000, 100);
        for n in 0..6 {
            it.insert(transaction(n, 10), place(1, 10 + u64::from(n)), 0).unwrap();
        }
        it.insert(transaction(9, 10), place(1, 11), 0).unwrap();
        let before = |it: &Mempool, nonce| -> Vec<u8> {
            it.before(&place(1, nonce).unwrap()).iter().map(|it| it[0]).collect()
        };
        assert_eq!(before(&it, 10), [0; 0]);
        assert_eq!(before(&it, 13), [0, 1, 2]);
        // The first is executed, and the third turns out to be void: those behind it go with it.
        let turn = |_: &[u8], place: Option<&Place>| place.unwrap().nonce.checked_sub(11);
        it.committed(&[transaction(0, 10)], 1, turn, |bytes, before| {
            assert!(bytes[0] > 3 || before.len() == usize::from(bytes[0]) - 1);
            bytes[0] != 3
        });
        assert_eq!(it.candidates(10, 1_000, 0), [[1; 10], [2; 10], [9; 10]]);
        assert_eq!(it.insert(transaction(3, 10), place(1, 13), 1).map(|_| ()), Ok(()));
    }

    #[test]
    fn only_the_oldest_are_examined_in_full() {
        let mut it = mempool(10_000, 100);
        for n in 0..40 {
            it.insert(transaction(n, 1), place(n, 0), 0).unwrap();
        }
        let n_examined = std::cell::Cell::new(0);
        for height in 1..3 {
            it.committed(
                &[],
                height,
                |_, _| Some(0),
                |_, _| {
                    n_examined.set(n_examined.get() + 1);
                    false
                },
            );
        }
        assert_eq!((n_examined.get(), it.entries.len()), (2 * EXAMINED_MAX, 40 - 2 * EXAMINED_MAX));
    }

    #[test]
    fn what_waits_too_long_or_is_not_valid_any_more_is_dropped() {
        let mut it = mempool(100, 10);
        for n in 1..=3 {
            it.insert(transaction(n, 1), None, u64::from(n)).unwrap();
        }
        commit(&mut it, &[], 3, |bytes| bytes[0] != 2);
        assert_eq!(it.candidates(10, 100, 0), [[1], [3]]);
        commit(&mut it, &[], 4, |_| true);
        assert_eq!(it.candidates(10, 100, 0), [[3]]);
        commit(&mut it, &[], 6, |_| true);
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
        commit(&mut it, &[transaction(1, 1), transaction(2, 1)], 1, |_| true);
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
