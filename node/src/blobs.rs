//! Which blobs exist, as the ledger of this node says: what everyone who asks that asks, and nothing else.
//!
//! # Invariants
//!
//! - What is said holds as of a block that is durable here, so it is not taken back by a crash of this node.

use protocol::{
    BlobId, Epoch, RegistrationId,
    commitment::VerifiedHeader,
    ledger::state::{Corrupt, Event, Left, State, entry},
};

use crate::ledger::{Executed, Ledger};

/// What the ledger says of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobStatus {
    /// Nothing: it was never registered, or all its registrations have ended.
    Unknown,
    /// Somebody paid for it; the committee does not answer for it.
    Registered,
    /// The committee answers for it.
    Certified {
        /// Its header.
        header: VerifiedHeader,
        /// The epoch of the committee that vouched for it.
        epoch: Epoch,
    },
    /// It was encoded wrongly by its writer.
    Invalid,
}

/// Where a registration of a blob stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The ledger has it.
    Made,
    /// The transaction that would make it was not executed yet.
    ToCome,
    /// It has ended, or its transaction did something else.
    Over,
}

/// What the ledger of this node says of blobs; cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    ledger: Ledger,
}

impl Blobs {
    /// What this ledger says.
    #[must_use]
    pub const fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }

    /// The ledger.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What is said of a blob now.
    ///
    /// # Errors
    ///
    /// If the state contradicts itself, which is a bug: then nothing should follow from it.
    pub fn status(&self, blob_id: BlobId) -> Result<BlobStatus, Corrupt> {
        let blob = self.ledger.view().state.blob(&blob_id)?;
        Ok(blob.map_or(BlobStatus::Unknown, |blob| status_of(blob_id, &blob)))
    }

    /// Where a registration of a blob stands now.
    ///
    /// # Errors
    ///
    /// As [`Self::status`].
    pub fn standing(&self, blob_id: BlobId, registration: RegistrationId) -> Result<Standing, Corrupt> {
        standing(&self.ledger.view().state, blob_id, registration)
    }

    /// A page of the blobs that the ledger knows, whatever their status, in the order of their IDs, from after `after` on.
    ///
    /// # Errors
    ///
    /// As [`Self::status`].
    pub fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobId>, Corrupt> {
        let state = self.ledger.view().state;
        let start = after.unwrap_or(BlobId([0; 32]));
        let blobs = state.blobs_from(&start).map(|entry| entry.map(|(blob_id, _)| blob_id));
        let is_after = |blob_id: &Result<BlobId, Corrupt>| blob_id.as_ref().ok() != after.as_ref();
        blobs.filter(is_after).take(limit).collect()
    }

    /// Number of blobs that the committee answers for.
    ///
    /// # Errors
    ///
    /// As [`Self::status`].
    pub fn n_certified(&self) -> Result<u64, Corrupt> {
        Ok(self.ledger.view().state.head()?.n_available)
    }
}

pub(crate) fn status_of(blob_id: BlobId, blob: &entry::Blob) -> BlobStatus {
    match (blob.invalid, blob.available) {
        (Some(_), _) => BlobStatus::Invalid,
        // The ledger takes no header of a blob that cannot be.
        (None, Some(available)) => {
            let certified = |header| BlobStatus::Certified { header, epoch: available.epoch };
            blob.header.verify_for(blob_id).map_or(BlobStatus::Registered, certified)
        }
        (None, None) => BlobStatus::Registered,
    }
}

fn standing(state: &State, blob_id: BlobId, registration: RegistrationId) -> Result<Standing, Corrupt> {
    let RegistrationId { owner, nonce } = registration;
    let is_made = state.registration(&blob_id, &owner)?.is_some_and(|it| it.nonce == nonce);
    Ok(match is_made {
        true => Standing::Made,
        false if state.account(&owner)?.nonce <= nonce => Standing::ToCome,
        false => Standing::Over,
    })
}

/// Blobs for which a node has something to do after a block: to get what it lacks, or to let go of what it holds.
pub(crate) fn concerned(executed: &Executed) -> impl Iterator<Item = BlobId> + use<'_> {
    let of_transactions = executed.receipts.iter().flat_map(|receipt| &receipt.events);
    executed.events.iter().chain(of_transactions).filter_map(|event| match event {
        Event::BlobCertified { blob_id, is_first: true, .. }
        | Event::BlobDeleted { blob_id, left: Left::Nothing, .. }
        | Event::BlobExpired { blob_id, left: Left::Nothing, .. }
        | Event::BlobInvalidated { blob_id } => Some(*blob_id),
        _ => None,
    })
}
