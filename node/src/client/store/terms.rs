//! What is to be done about a blob, as its owner wants it and the ledger says that it is: pure.

use protocol::{
    BlobId, Epoch,
    certificate::Persistence,
    ledger::state::entry::{Account, Blob, Head, Registration},
};

use super::StoreError;
use crate::client::StoreOptions;

/// What the ledger says before anything is done, all of one height.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) head: Head,
    /// The owner's account.
    pub(super) account: Account,
    pub(super) blob: Option<Blob>,
    /// The owner's registration of the blob.
    pub(super) registration: Option<Registration>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Nothing: it is stored as wanted, up to this epoch.
    Stored(Epoch),
    /// Have the registration hold longer.
    Extend(Epoch),
    /// Have the registration made by the transaction with this nonce confirmed.
    Confirm { nonce: u64 },
    /// Register it up to this epoch by the transaction with this nonce, and have that confirmed.
    Register { nonce: u64, end: Epoch },
}

/// Decides what to do next.
///
/// # Errors
///
/// If it cannot be stored as wanted.
pub(super) fn course(blob_id: BlobId, facts: &Facts, wanted: StoreOptions) -> Result<Course, StoreError> {
    if facts.blob.is_some_and(|blob| blob.invalid.is_some()) {
        return Err(StoreError::Invalid);
    }
    let wanted_end = Epoch(facts.head.epoch.0.saturating_add(wanted.epochs));
    let Some(Registration { persistence, nonce, end, certified, .. }) = facts.registration else {
        return Ok(Course::Register { nonce: facts.account.nonce, end: wanted_end });
    };
    // A blob that may be deleted is not what one who wants it kept asked for.
    if persistence == Persistence::Deletable && wanted.persistence == Persistence::Permanent {
        return Err(StoreError::Deletable { blob_id, end });
    }
    Ok(match certified {
        None => Course::Confirm { nonce },
        Some(_) if end < wanted_end => Course::Extend(wanted_end),
        Some(_) => Course::Stored(end),
    })
}

#[cfg(test)]
mod tests {
    use protocol::{
        NetworkId,
        commitment::{BlobHeader, FORMAT_VERSION},
        hash::Hash,
        ledger::state::entry::Stage,
    };

    use super::*;

    const ID: BlobId = BlobId([1; 32]);

    fn facts(registration: Option<(Persistence, u32, bool)>) -> Facts {
        let head = Head {
            network: NetworkId([0; 32]),
            n_shards: 7,
            height: 5,
            time_ms: 0,
            epoch: Epoch(10),
            epoch_started_ms: 0,
            stage: Stage::Steady,
            n_available: 0,
        };
        let registration = registration.map(|(persistence, end, is_certified)| Registration {
            persistence,
            nonce: 3,
            registered: Epoch(9),
            end: Epoch(end),
            rate: 0,
            certified: is_certified.then_some(4),
        });
        Facts { head, account: Account { nonce: 8, ..Account::default() }, blob: None, registration }
    }

    #[test]
    fn what_is_done_follows_from_what_there_is() {
        use Course::{Confirm, Extend, Register, Stored};
        use Persistence::{Deletable, Permanent};
        // registration, what is wanted, what is done
        let table = [
            (None, Deletable, Some(Register { nonce: 8, end: Epoch(12) })),
            (Some((Deletable, 12, false)), Deletable, Some(Confirm { nonce: 3 })),
            (Some((Deletable, 11, false)), Deletable, Some(Confirm { nonce: 3 })),
            (Some((Deletable, 12, true)), Deletable, Some(Stored(Epoch(12)))),
            (Some((Deletable, 11, true)), Deletable, Some(Extend(Epoch(12)))),
            (Some((Permanent, 13, true)), Deletable, Some(Stored(Epoch(13)))),
            (Some((Permanent, 13, true)), Permanent, Some(Stored(Epoch(13)))),
            (Some((Deletable, 13, true)), Permanent, None),
            (Some((Deletable, 13, false)), Permanent, None),
        ];
        for (registration, persistence, expected) in table {
            let wanted = StoreOptions { persistence, epochs: 2 };
            assert_eq!(course(ID, &facts(registration), wanted).ok(), expected, "{registration:?}");
        }
    }

    #[test]
    fn an_invalid_blob_is_not_stored() {
        let header = BlobHeader { version: FORMAT_VERSION, n_shards: 7, length: 1, root: Hash([0; 32]) };
        let blob = Blob { header, encoded_bytes: 1, n_registrations: 0, available: None, invalid: Some(2) };
        let facts = Facts { blob: Some(blob), ..facts(None) };
        assert!(matches!(course(ID, &facts, StoreOptions::default()), Err(StoreError::Invalid)));
    }
}
