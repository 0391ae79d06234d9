//! Storing: a blob to slivers on the nodes, and their confirmations to a certificate.

use std::{io, sync::Arc, time::Duration};

use protocol::{BlobId, encoding::ShapeError};
use swarm::Network;

use super::{BlobSource, Client, OnProgress, StoreOptions};

/// A blob that was stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its ID.
    pub blob_id: BlobId,
    /// Bytes of the blob.
    pub size: u64,
    /// Bytes of its slivers over all shards.
    pub encoded_size: u64,
    /// Weight in shards of the members that confirmed.
    pub confirmed: u16,
    /// True if the blob was certified before, and nothing was sent.
    pub already_certified: bool,
    /// Time to the point of availability.
    pub duration: Duration,
}

/// Why a blob was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The blob cannot be encoded for this network.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The bytes of the blob could not be read.
    #[error("cannot read the blob")]
    Source(#[source] io::Error),
    /// The bytes changed between the two passes over them.
    #[error("the file changed while it was being stored; nothing was stored")]
    Changed,
    /// The blob was proved to be encoded wrongly.
    #[error("a blob with this ID was certified as encoded wrongly")]
    Invalid,
    /// Too few members confirmed. The blob is not stored; what they hold is dropped in time.
    #[error("members with {got} of the {required} shards needed confirmed; {reasons}")]
    TooFewConfirmations {
        /// Weight in shards of the members that confirmed.
        got: u16,
        /// Weight needed.
        required: u16,
        /// What the others said, one clause a member.
        reasons: String,
    },
    /// The certificate could not be recorded by enough members. The blob may or may not be stored; storing it again
    /// settles it.
    #[error("members with {got} of the {required} shards needed recorded the certificate; store the file again")]
    TooFewRecords {
        /// Weight in shards of the members that recorded the certificate.
        got: u16,
        /// Weight needed.
        required: u16,
    },
    /// This client is stopping.
    #[error("the client has stopped")]
    Stopped,
}

impl<N: Network> Client<N> {
    /// Stores a blob and returns at its point of availability: when a quorum has durably recorded its certificate.
    /// Uploads to slower nodes go on for a short tail within this call.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn store(
        &self,
        _source: Arc<dyn BlobSource>,
        _options: StoreOptions,
        _progress: OnProgress,
    ) -> Result<Stored, StoreError> {
        todo!()
    }
}

/// Computes the blob ID of `source` on a network of `n_shards` shards; needs no network.
///
/// # Errors
///
/// [`StoreError::Shape`], [`StoreError::Source`] and [`StoreError::Stopped`].
pub async fn blob_id(
    _encoder: &crate::encoder::Encoder,
    _source: Arc<dyn BlobSource>,
    _n_shards: u16,
    _progress: OnProgress,
) -> Result<BlobId, StoreError> {
    todo!()
}
