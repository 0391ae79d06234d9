//! What clients were told, and what was seen to be wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use protocol::{BlobId, Epoch, NodeIndex, PeerId, committee::Committee, hash::Hash, ids::AccountId};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the promise, as in `docs/TESTING.md`.
    pub promise: &'static str,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.detail)
    }
}

/// A blob whose store was acknowledged.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// Its bytes.
    pub data: Arc<Vec<u8>>,
    /// The epoch of the committee that vouched for it.
    pub epoch: Epoch,
    /// The members that vouched for it, as that committee counts them.
    pub signers: Vec<NodeIndex>,
}

/// The committee of each epoch, with its hash.
pub(super) type Committees = BTreeMap<Epoch, (Hash, Arc<Committee>)>;

impl Acknowledged {
    /// True if a node is among those who vouched for it.
    #[must_use]
    pub fn is_signed_by(&self, peer: &PeerId, committees: &Committees) -> bool {
        let committee = committees.get(&self.epoch);
        let index = committee.and_then(|(_, committee)| committee.index_of(peer));
        index.is_some_and(|index| self.signers.contains(&index))
    }
}

/// What clients were told.
#[derive(Debug, Default)]
pub struct Model {
    /// Blobs whose store was acknowledged.
    pub acknowledged: BTreeMap<BlobId, Acknowledged>,
    /// Transfers that the ledger proved to be executed, by the account that made them.
    pub spent: BTreeMap<AccountId, u64>,
    /// Roots of the ledger's state at each height that was seen on a node.
    pub ledger_roots: BTreeMap<u64, Hash>,
    /// Height of each node's ledger when it was last seen; a node that lost its disk begins again.
    pub ledger_heights: BTreeMap<NodeIndex, u64>,
    /// The committee of each epoch that was seen on a node, with its hash.
    pub committees: Committees,
    /// The greatest height that was seen on a node in each epoch.
    pub heights: BTreeMap<Epoch, u64>,
    /// Nodes that were seen to have said that they are ready for an epoch.
    pub ready: BTreeSet<(Epoch, NodeIndex)>,
    /// Blobs that a writer encoded wrongly.
    pub wrong: Vec<BlobId>,
    /// Operations by kind and outcome.
    pub operations: BTreeMap<&'static str, u64>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Broken promises.
    pub violations: Vec<Violation>,
}

impl Model {
    /// Counts an operation.
    pub fn operation(&mut self, kind: &'static str) {
        *self.operations.entry(kind).or_default() += 1;
    }

    /// Takes note of the height that a node was seen at in an epoch.
    pub fn reached(&mut self, epoch: Epoch, height: u64) {
        let greatest = self.heights.entry(epoch).or_default();
        *greatest = height.max(*greatest);
    }

    /// Counts a fault.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Writes down a broken promise.
    pub fn violation(&mut self, promise: &'static str, detail: impl Into<String>) {
        self.violations.push(Violation { promise, detail: detail.into() });
    }

    /// Writes down a broken promise unless `holds`.
    pub fn check(&mut self, promise: &'static str, holds: bool, detail: impl FnOnce() -> String) {
        if !holds {
            self.violation(promise, detail());
        }
    }
}
