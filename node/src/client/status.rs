//! What the ledger says of a blob.

use std::sync::Arc;

use protocol::{
    BlobId, Epoch,
    certificate::Threshold,
    codec::DecodeError,
    commitment::VerifiedHeader,
    committee::Committee,
    ledger::state::{
        entry::{Availability, Blob, Head, Stage},
        key,
    },
};
use swarm::Network;

use super::{
    Client,
    ledger::{LedgerError, Proven, Shown, Trusted, decode, require},
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
        Ok(self.look_up(blob_id).await?.report)
    }

    /// The same, with who answers for the blob.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub(super) async fn look_up(&self, blob_id: BlobId) -> Result<Found, LedgerError> {
        let found = self.look_up_by(blob_id, Threshold::Validity).await?;
        match found.report.status {
            BlobStatus::Unknown | BlobStatus::Registered => self.look_up_by(blob_id, Threshold::Quorum).await,
            _ => Ok(found),
        }
    }

    async fn look_up_by(&self, blob_id: BlobId, threshold: Threshold) -> Result<Found, LedgerError> {
        // Of one height, since the one decides what follows from the other.
        let keys = [key::head(), key::blob(&blob_id)];
        let Shown { proven: Proven { height, value }, trusted } = self.shown(&keys, threshold).await?;
        let value = |i: usize| value.get(i).and_then(Option::as_deref);
        let blob = value(1).map(|value| decode("a blob", value)).transpose()?;
        let status = match blob {
            Some(blob) => status_of(blob_id, &blob)?,
            None => BlobStatus::Unknown,
        };
        let sources = match (status, value(0)) {
            (BlobStatus::Certified { available, .. }, head @ Some(_)) => {
                Sources::of(&trusted, &require("the head", head)?, available.epoch)
            }
            _ => Sources::current(&trusted),
        };
        Ok(Found { report: StatusReport { blob_id, status, height }, sources })
    }
}

/// What the ledger says of a blob, and where it is to be had.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) report: StatusReport,
    pub(super) sources: Sources,
}

/// The committees whose members have a blob.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    /// Answers for it.
    pub(super) answerable: Arc<Committee>,
    /// Its members have slivers of it, too, while shards move and for some time after that.
    pub(super) other: Option<Arc<Committee>>,
}

impl Sources {
    fn current(trusted: &Trusted) -> Self {
        Self { answerable: Arc::clone(trusted.current()), other: trusted.previous().map(Arc::clone) }
    }

    /// Of a blob that was certified in an epoch, as the ledger's head is: until the handover is done, the committee before
    /// answers for what was certified before.
    fn of(trusted: &Trusted, head: &Head, certified: Epoch) -> Self {
        let is_handover = matches!(head.stage, Stage::Handover { .. });
        match trusted.previous() {
            Some(previous) if is_handover && certified < head.epoch => {
                Self { answerable: Arc::clone(previous), other: Some(Arc::clone(trusted.current())) }
            }
            _ => Self::current(trusted),
        }
    }

    /// True if the same members are asked, in the same order.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.answerable.epoch() == other.answerable.epoch()
            && self.other.as_ref().map(|it| it.epoch()) == other.other.as_ref().map(|it| it.epoch())
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
