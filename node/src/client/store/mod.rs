//! Storing: a blob to slivers on the nodes, and their confirmations to a certificate.
//!
//! The bytes are read twice. The first pass ([`identify`]) finds the blob ID, on which the place of every sliver
//! depends; the second ([`upload`]) encodes again and sends, a few segments at a time; [`certify`] turns signatures into the point of
//! availability. [`state`] decides who is waited
//! for, [`lane`] is the way to one member, [`resend`] serves those that lost what they were sent.

mod certify;
mod identify;
mod lane;
mod resend;
mod state;
mod upload;

use std::{io, sync::Arc, time::Duration};

use protocol::{
    BlobId,
    encoding::{BlobShape, ShapeError},
};
use swarm::Network;
use tokio::time::Instant;

use self::{identify::Segments, upload::Upload};
use super::{BlobSource, Client, ClientConfig, OnProgress, Progress, StoreOptions};
use crate::encoder::Encoder;

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
    #[error("only members with {got} of the {required} shards needed can take the blob; {reasons}")]
    TooFewConfirmations {
        /// Weight in shards of the members that confirmed, or could have when it became clear that too few would.
        got: u16,
        /// Weight needed.
        required: u16,
        /// What the others said, one clause a member.
        reasons: String,
    },
    /// The certificate could not be recorded by enough members. The blob may or may not be stored; storing it again
    /// settles it.
    #[error(
        "members with {got} of the {required} shards needed recorded the certificate; store the file again"
    )]
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
    /// Stores a blob and returns after its point of availability: when a quorum has durably recorded its certificate.
    /// Uploads to slower nodes go on for a short tail within this call.
    ///
    /// Cancel safe: yes; the blob may have been stored, and storing it again settles it.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn store(
        &self,
        source: Arc<dyn BlobSource>,
        options: StoreOptions,
        progress: OnProgress,
    ) -> Result<Stored, StoreError> {
        let started = Instant::now();
        self.exchange.use_now();
        let shape = BlobShape::new(self.exchange.genesis().n_shards(), source.len())?;
        let segments = Segments::new(self.encoder.clone(), source, shape);
        let identified = segments.identify(self.config.segments_in_flight.max(1), &progress).await?;
        progress(Progress::Identified(identified.header.blob_id()));
        Box::pin(Upload::new(self.clone(), segments, identified, (options, progress, started)).run()).await
    }
}

/// Computes the blob ID of `source` on a network of `n_shards` shards; needs no network.
///
/// Cancel safe: yes.
///
/// # Errors
///
/// [`StoreError::Shape`], [`StoreError::Source`] and [`StoreError::Stopped`].
pub async fn blob_id(
    encoder: &Encoder,
    source: Arc<dyn BlobSource>,
    n_shards: u16,
    progress: OnProgress,
) -> Result<BlobId, StoreError> {
    let shape = BlobShape::new(n_shards, source.len())?;
    let segments = Segments::new(encoder.clone(), source, shape);
    let identified = segments.identify(ClientConfig::default().segments_in_flight, &progress).await?;
    Ok(identified.header.blob_id())
}
