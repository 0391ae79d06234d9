//! What the ledger says of a blob.

use protocol::{
    BlobId,
    codec::DecodeError,
    commitment::VerifiedHeader,
    ledger::state::{
        entry::{Availability, Blob},
        key,
    },
};
use swarm::Network;

use super::{
    Client,
    ledger::{LedgerError, Proven, decode},
};

/// What the ledger says of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobStatus {
    /// Nothing: it was never registered, or all its registrations have ended.
    Unknown,
    /// Somebody registered it, and the committee does not answer for it.
    Registered,
    /// The committee answers for it.
    Certified {
        /// Its header.
        header: VerifiedHeader,
        /// Since when and for how long.
        available: Availability,
    },
    /// It was proved to be encoded wrongly; nobody can read it.
    Invalid {
        /// Height of the block that says so.
        height: u64,
    },
}

/// What is known of a blob, proven.
#[derive(Clone, Copy, Debug)]
pub struct StatusReport {
    /// The blob.
    pub blob_id: BlobId,
    /// What the ledger says of it.
    pub status: BlobStatus,
    /// Height of the ledger behind which it is so.
    pub height: u64,
}

impl<N: Network> Client<N> {
    /// Finds the status of a blob. That it is certified, or invalid, is believed when members worth a validity set have
    /// shown what they know and the newest proof says so; that it is not takes a quorum, since a few members may not have
    /// executed yet what others have.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn status(&self, blob_id: BlobId) -> Result<StatusReport, LedgerError> {
        let report = self.status_by(blob_id, false).await?;
        match report.status {
            BlobStatus::Unknown | BlobStatus::Registered => self.status_by(blob_id, true).await,
            _ => Ok(report),
        }
    }

    async fn status_by(&self, blob_id: BlobId, by_quorum: bool) -> Result<StatusReport, LedgerError> {
        let keys = [key::blob(&blob_id)];
        let Proven { height, value } = match by_quorum {
            false => self.ledger_entries(&keys).await?,
            true => self.ledger_entries_of_quorum(&keys).await?,
        };
        let blob = value.into_iter().next().flatten().map(|value| decode("a blob", &value)).transpose()?;
        let status = match blob {
            Some(blob) => status_of(blob_id, &blob)?,
            None => BlobStatus::Unknown,
        };
        Ok(StatusReport { blob_id, status, height })
    }
}

fn status_of(blob_id: BlobId, blob: &Blob) -> Result<BlobStatus, LedgerError> {
    Ok(match (blob.invalid, blob.available) {
        (Some(height), _) => BlobStatus::Invalid { height },
        (None, None) => BlobStatus::Registered,
        (None, Some(available)) => {
            let header = blob.header.verify_for(blob_id).map_err(|error| LedgerError::Form {
                what: "a blob",
                source: DecodeError::Malformed { reason: error.to_string() },
            })?;
            BlobStatus::Certified { header, available }
        }
    })
}
