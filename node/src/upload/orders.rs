//! Orders: transactions by which an owner will register a blob, on which this node vouched for the blob before the ledger had
//! them. No I/O, no clock.
//!
//! They are why a small blob is stored in one round trip and one block. An owner could take an order back, by another
//! transaction with the same nonce, and leave the nodes with slivers that nobody paid for. So an account has one order at a
//! time, they are bounded in number and bytes, and an order that its owner does not have executed is executed by the nodes
//! that hold it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use protocol::{AccountId, BlobId, RegistrationId};

/// An order that this node acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) registration: RegistrationId,
    /// The signed transaction.
    pub(super) transaction: Bytes,
    /// Bytes of the slivers that are kept for it.
    pub(super) sliver_bytes: usize,
    /// When it came.
    pub(super) since: Duration,
    /// When this node last had it executed itself, or tried to.
    pub(super) submitted: Option<Duration>,
}

/// The orders, one a blob. INV: one of each account; at most as many bytes as there may be.
#[derive(Debug)]
pub(super) struct Orders {
    bytes_max: usize,
    bytes: usize,
    by_blob: BTreeMap<BlobId, Order>,
    by_account: BTreeMap<AccountId, BlobId>,
}

impl Orders {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, by_blob: BTreeMap::new(), by_account: BTreeMap::new() }
    }

    /// True if this order was taken and is not settled.
    pub(super) fn has(&self, blob_id: &BlobId, registration: RegistrationId) -> bool {
        self.by_blob.get(blob_id).is_some_and(|order| order.registration == registration)
    }

    /// True if the blob is kept for an order.
    pub(super) fn keeps(&self, blob_id: &BlobId) -> bool {
        self.by_blob.contains_key(blob_id)
    }

    /// Takes an order, if there is room for it.
    pub(super) fn take(&mut self, blob_id: BlobId, order: Order) -> bool {
        let owner = order.registration.owner;
        let has_room = self.bytes.saturating_add(order.sliver_bytes) <= self.bytes_max;
        if !has_room || self.by_blob.contains_key(&blob_id) || self.by_account.contains_key(&owner) {
            return false;
        }
        self.restore(blob_id, order);
        true
    }

    /// Takes an order that was taken before a restart: this node vouched for it, whatever the room.
    pub(super) fn restore(&mut self, blob_id: BlobId, order: Order) {
        self.settle(&blob_id);
        self.bytes += order.sliver_bytes;
        self.by_account.insert(order.registration.owner, blob_id);
        self.by_blob.insert(blob_id, order);
    }

    /// The order is executed or can never be.
    pub(super) fn settle(&mut self, blob_id: &BlobId) {
        if let Some(order) = self.by_blob.remove(blob_id) {
            self.bytes -= order.sliver_bytes;
            let owner = order.registration.owner;
            if self.by_account.get(&owner) == Some(blob_id) {
                self.by_account.remove(&owner);
            }
        }
    }

    /// All orders.
    pub(super) fn all(&self) -> impl Iterator<Item = (BlobId, RegistrationId)> + '_ {
        self.by_blob.iter().map(|(blob_id, order)| (*blob_id, order.registration))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_blob.is_empty()
    }

    /// Transactions that were not executed for `patience`; each is named again after as long.
    pub(super) fn due(&mut self, now: Duration, patience: Duration) -> Vec<Bytes> {
        let is_due = |order: &Order| now.saturating_sub(order.submitted.unwrap_or(order.since)) >= patience;
        let due = self.by_blob.values_mut().filter(|order| is_due(order));
        due.map(|order| {
            order.submitted = Some(now);
            order.transaction.clone()
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(byte: u8) -> BlobId {
        BlobId([byte; 32])
    }

    fn order(owner: u8, sliver_bytes: usize, since: u64) -> Order {
        Order {
            registration: RegistrationId { owner: AccountId([owner; 32]), nonce: 7 },
            transaction: Bytes::copy_from_slice(&[owner]),
            sliver_bytes,
            since: Duration::from_secs(since),
            submitted: None,
        }
    }

    #[test]
    fn an_account_has_one_order_and_all_of_them_are_bounded() {
        let mut orders = Orders::new(100);
        assert!(orders.take(blob(1), order(1, 60, 0)));
        assert!(!orders.take(blob(2), order(1, 1, 0)), "the account has one");
        assert!(!orders.take(blob(1), order(2, 1, 0)), "the blob has one");
        assert!(!orders.take(blob(2), order(2, 41, 0)), "no room");
        assert!(orders.take(blob(2), order(2, 40, 0)));
        assert!(orders.has(&blob(1), order(1, 0, 0).registration));
        assert!(!orders.has(&blob(1), order(2, 0, 0).registration));
        orders.settle(&blob(1));
        orders.settle(&blob(1));
        assert!(!orders.keeps(&blob(1)));
        assert!(orders.take(blob(3), order(1, 60, 0)));
        // What was vouched for is kept, whatever the room.
        orders.restore(blob(4), order(4, 1000, 0));
        assert!(orders.keeps(&blob(4)));
        assert!(!orders.take(blob(5), order(5, 0, 0)));
    }

    #[test]
    fn what_its_owner_does_not_have_executed_is_due_again_and_again() {
        let mut orders = Orders::new(100);
        let (patience, at) = (Duration::from_secs(5), Duration::from_secs);
        orders.take(blob(1), order(1, 1, 0));
        orders.take(blob(2), order(2, 1, 3));
        assert_eq!(orders.due(at(4), patience), Vec::<Bytes>::new());
        assert_eq!(orders.due(at(5), patience), [Bytes::from_static(&[1])]);
        assert_eq!(orders.due(at(8), patience), [Bytes::from_static(&[2])]);
        assert_eq!(orders.due(at(10), patience), [Bytes::from_static(&[1])]);
        orders.settle(&blob(1));
        assert_eq!(orders.due(at(99), patience), [Bytes::from_static(&[2])]);
        assert_eq!(orders.all().count(), 1);
        assert!(!orders.is_empty());
    }
}
