//! Clients that store and read, and remember what they were told.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use node::client::{OnProgress, ReadError, StoreError, StoreOptions, SubmitError};
use protocol::{BlobId, certificate::Persistence, ledger::signature::SigningKey};
use rand::{Rng as _, RngCore as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;

use super::{
    model::{Acknowledged, Model},
    plan::Plan,
    world::SimClient,
};

/// Tells the run of blobs whose store was acknowledged, to look at the disks.
pub(super) type Acknowledgements = mpsc::Sender<BlobId>;

/// One client with its share of chance.
pub(super) struct User {
    pub(super) client: SimClient,
    /// The account that stores.
    pub(super) key: SigningKey,
    pub(super) rng: ChaCha8Rng,
    pub(super) model: Arc<Mutex<Model>>,
    pub(super) acknowledgements: Acknowledgements,
}

/// For longer than any run takes.
pub(super) const LASTING: StoreOptions = StoreOptions { persistence: Persistence::Deletable, epochs: 53 };

pub(super) fn silent() -> OnProgress {
    Arc::new(|_| {})
}

impl User {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores and reads through the chaos.
    pub(super) async fn work(mut self, plan: Plan) -> Self {
        let pause = plan.chaos / u32::from(plan.stores_per_client).max(1);
        for round in 0..plan.stores_per_client {
            let wait = self.rng.random_range(Duration::ZERO..pause);
            tokio::time::sleep(wait).await;
            let mut data = self.blob(plan.blob_bytes_max);
            let is_long = plan.long_blobs && round == 0;
            if is_long {
                let mut long = vec![0; plan.segment_bytes()];
                self.rng.fill_bytes(&mut long);
                long.extend_from_slice(&data);
                long.push(0);
                data = Arc::new(long);
            }
            // Chaos explains a refusal; what is said after an acknowledgement is looked at.
            let stored = self.store(&data).await;
            if is_long && stored.is_ok() {
                self.model().operation("stored in segments");
            }
            self.read_some().await;
        }
        self
    }

    /// Bytes of a new blob.
    pub(super) fn blob(&mut self, bytes_max: usize) -> Arc<Vec<u8>> {
        let len = match self.rng.random_range(0..6_u32) {
            0 => self.rng.random_range(0..=2),
            _ => self.rng.random_range(0..=bytes_max),
        };
        let mut data = vec![0; len];
        self.rng.fill_bytes(&mut data);
        Arc::new(data)
    }

    /// Stores a blob, and writes down what it was told; says why if it was not acknowledged.
    pub(super) async fn store(&self, data: &Arc<Vec<u8>>) -> Result<(), String> {
        let source = Arc::new(data.to_vec());
        match self.client.store(source, &self.key, LASTING, silent()).await {
            Ok(stored) => {
                let (epoch, signers) = (stored.epoch, stored.signers);
                let acknowledged = Acknowledged { data: Arc::clone(data), epoch, signers };
                self.acknowledged(stored.blob_id, acknowledged);
                // The run has ended if nobody listens.
                let _ = self.acknowledgements.send(stored.blob_id).await;
                Ok(())
            }
            Err(error) => {
                let mut model = self.model();
                model.operation("store refused");
                model.check("L1", is_explained_by_chaos(&error), || format!("store failed: {error}"));
                Err(error.to_string())
            }
        }
    }

    fn acknowledged(&self, blob_id: BlobId, acknowledged: Acknowledged) {
        let mut model = self.model();
        model.operation("stored");
        let data = Arc::clone(&acknowledged.data);
        let before = model.acknowledged.insert(blob_id, acknowledged);
        model.check("H3", before.is_none_or(|before| before.data == data), || {
            format!("{blob_id} was acknowledged for two different blobs")
        });
    }

    async fn read_some(&mut self) {
        let known: Vec<BlobId> = self.model().acknowledged.keys().copied().collect();
        if let Some(blob_id) = known.choose(&mut self.rng) {
            self.read(*blob_id).await;
        }
    }

    /// Reads a blob whose store was acknowledged: it must be its bytes, or a reason that chaos explains. True if it was
    /// read.
    pub(super) async fn read(&self, blob_id: BlobId) -> bool {
        let expected =
            self.model().acknowledged.get(&blob_id).map(|acknowledged| Arc::clone(&acknowledged.data));
        match self.client.read(blob_id, Vec::new(), silent()).await {
            Ok((_, data)) => {
                let mut model = self.model();
                model.operation("read");
                let is_right = expected.is_some_and(|expected| *expected == data);
                model.check("D1", is_right, || format!("{blob_id} was read as other bytes"));
                true
            }
            Err(ReadError::TooFewSlivers { .. } | ReadError::Status(_)) => {
                self.model().operation("read refused");
                false
            }
            Err(error) => {
                self.model().violation("D1", format!("{blob_id} was acknowledged, reading it says: {error}"));
                false
            }
        }
    }
}

/// True if nodes that are down, cut off or lying can be the reason.
const fn is_explained_by_chaos(error: &StoreError) -> bool {
    match error {
        StoreError::TooFewConfirmations { .. } | StoreError::Ledger(_) | StoreError::Superseded => true,
        StoreError::Submit(error) => {
            !matches!(error, SubmitError::Rejected { .. } | SubmitError::Transaction(_))
        }
        _ => false,
    }
}
