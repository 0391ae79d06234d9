//! The handle to the repair worker.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use protocol::BlobId;
use swarm::QueueLoad;
use tokio::sync::{Notify, mpsc, watch};

use crate::load::Work;

/// What repair has done and knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Slivers known to be missing.
    pub missing: u64,
    /// True if every blob has been looked at since the start and nothing waits.
    pub is_settled: bool,
}

/// Counters of repair since the node started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    received_bytes: AtomicU64,
    regained_bytes: AtomicU64,
    regained_slivers: AtomicU64,
    corrupt: AtomicU64,
    pub(super) hints: Work,
}

impl Counters {
    pub(super) fn add_received(&self, bytes: usize) {
        self.received_bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn add_regained(&self, bytes: usize) {
        self.regained_bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.regained_slivers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_corrupt(&self) {
        self.corrupt.fetch_add(1, Ordering::Relaxed);
    }
}

/// Handle to the repair worker; cheap to clone.
#[derive(Clone, Debug)]
pub struct Repair {
    hints: mpsc::Sender<BlobId>,
    counters: Arc<Counters>,
    report: watch::Receiver<Report>,
    all: Arc<Notify>,
}

impl Repair {
    pub(super) const fn new(
        hints: mpsc::Sender<BlobId>,
        counters: Arc<Counters>,
        report: watch::Receiver<Report>,
        all: Arc<Notify>,
    ) -> Self {
        Self { hints, counters, report, all }
    }

    /// Says that something may be missing of a blob. A hint that finds the mailbox full is lost, which costs delay:
    /// the next pass over all blobs finds it.
    pub fn hint(&self, blob_id: BlobId) {
        if self.hints.try_send(blob_id).is_err() {
            self.counters.hints.refused();
            tracing::debug!(%blob_id, "a repair hint was dropped");
        }
    }

    /// Says that something may be missing of any blob: this node is to hold others than before.
    pub fn look_at_all(&self) {
        self.all.notify_one();
    }

    /// What repair knows, to wait on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Report> {
        self.report.clone()
    }

    /// Says that a sliver was found corrupt, and removed.
    pub fn found_corrupt(&self, blob_id: BlobId) {
        self.counters.add_corrupt();
        self.hint(blob_id);
    }

    /// What repair knows now.
    #[must_use]
    pub fn report(&self) -> Report {
        *self.report.borrow()
    }

    /// Bytes that repair received from peers.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.counters.received_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of slivers that repair regained.
    #[must_use]
    pub fn regained_bytes(&self) -> u64 {
        self.counters.regained_bytes.load(Ordering::Relaxed)
    }

    /// Slivers that repair regained.
    #[must_use]
    pub fn regained_slivers(&self) -> u64 {
        self.counters.regained_slivers.load(Ordering::Relaxed)
    }

    /// How full the mailbox is.
    #[must_use]
    pub fn load(&self) -> QueueLoad {
        self.counters.hints.load(&self.hints)
    }

    /// Slivers found corrupt on disk.
    #[must_use]
    pub fn corrupt(&self) -> u64 {
        self.counters.corrupt.load(Ordering::Relaxed)
    }
}
