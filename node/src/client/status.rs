//! What the network knows of a blob.

use protocol::{BlobId, message::BlobStatus};
use swarm::Network;

use super::Client;

/// What the network knows of a blob, verified.
#[derive(Clone, Debug)]
pub struct StatusReport {
    /// The blob.
    pub blob_id: BlobId,
    /// Its verified status.
    pub status: BlobStatus,
    /// Weight in shards of the members that answered.
    pub answered: u16,
}

/// Why the status of a blob is not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StatusError {
    /// Too few members answered to say that the blob does not exist.
    #[error("members with {answered} of the {required} shards needed answered; {}", hint(*.answered))]
    TooFewAnswers {
        /// Weight in shards of the members that answered.
        answered: u16,
        /// Weight needed.
        required: u16,
    },
}

fn hint(answered: u16) -> &'static str {
    if answered == 0 { "is the network up, and client.toml the right one?" } else { "too many nodes are down" }
}

impl<N: Network> Client<N> {
    /// Finds the status of a blob: a valid certificate from anyone is proof, absence takes a quorum's word.
    ///
    /// # Errors
    ///
    /// [`StatusError::TooFewAnswers`].
    pub async fn status(&self, _blob_id: BlobId) -> Result<StatusReport, StatusError> {
        todo!()
    }
}
