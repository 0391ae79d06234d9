//! Blobs: registered, certified, extended, deleted, expired, invalid.
//!
//! Each owner of a blob has a registration of its own, with its own terms. The committee answers for the blob while one is
//! certified. Nodes confirm a blob while it has any, and drop its slivers when the ledger says so and not before.
//!
//! A certificate says that nodes stored a blob in an epoch, not that they still do, and confirmations of one epoch are the
//! same bytes whenever they were given. So a blob whose last registration was deleted lingers to the end of the epoch,
//! which was paid for: if it is registered again before, a certificate of that epoch is still true. In the next epoch only
//! certificates of that epoch count for what is registered in it, so nothing has to linger longer.

use std::sync::Arc;

use super::{
    ApplyError, Corrupt, Event, Left, Rejected, State,
    entry::{Blob, PointOfAvailability, Registration},
    fund::Purchase,
    slot::{BlobSlot, ExpirySlot, Latest, LifetimeSlot, LingerSlot, RegistrationSlot},
    store::{add, sub},
};
use crate::{
    certificate::{CertificateOfAvailability, InvalidityCertificate, Persistence, StorageConfirmation},
    commitment::{BlobHeader, VerifiedHeader},
    committee::Committee,
    ids::{AccountId, BlobId, Epoch},
    ledger::parameters::cost,
};

const REGISTRATIONS: &str = "registrations of a blob";

fn check_valid(blob_id: BlobId, blob: &Blob) -> Result<(), Rejected> {
    match blob.invalid {
        None => Ok(()),
        Some(height) => Err(Rejected::BlobInvalid { blob_id, height }),
    }
}

impl State {
    fn blob_entry(&self, blob_id: BlobId) -> Result<Option<Blob>, Corrupt> {
        self.store.get(&BlobSlot { blob_id })
    }

    fn write_blob(&mut self, blob_id: BlobId, blob: &Blob) {
        self.store.set(&BlobSlot { blob_id }, blob);
    }

    /// An owner's registration of a blob, with the blob.
    fn registered(&self, blob_id: BlobId, owner: AccountId) -> Result<(Blob, Registration), ApplyError> {
        let slot = RegistrationSlot { blob_id, owner };
        let registration = self.store.get(&slot)?.ok_or(Rejected::NoRegistration { blob_id, owner })?;
        Ok((self.store.require(&BlobSlot { blob_id })?, registration))
    }

    fn verify_header(&self, header: BlobHeader) -> Result<VerifiedHeader, ApplyError> {
        let (got, required) = (header.n_shards, self.head()?.n_shards);
        if got != required {
            return Err(Rejected::Shards { got, required }.into());
        }
        Ok(header.verify().map_err(Rejected::Header)?)
    }

    /// Checks an end epoch that has to lie behind `after`.
    fn check_end(&self, end: Epoch, after: Epoch) -> Result<(), ApplyError> {
        let ahead = self.parameters()?.epochs_ahead_max;
        let (min, max) =
            (Epoch(after.0.saturating_add(1)), Epoch(self.head()?.epoch.0.saturating_add(ahead)));
        if min <= end && end <= max { Ok(()) } else { Err(Rejected::EndEpoch { got: end, min, max }.into()) }
    }

    pub(super) fn register_blob(
        &mut self,
        owner: AccountId,
        header: BlobHeader,
        persistence: Persistence,
        end: Epoch,
    ) -> Result<Event, ApplyError> {
        let header = self.verify_header(header)?;
        let (blob_id, shape) = (header.blob_id(), header.shape());
        let registered = self.head()?.epoch;
        self.check_end(end, registered)?;
        let mut blob = self.blob_entry(blob_id)?.unwrap_or_else(|| Blob {
            length: shape.length(),
            encoded_bytes: shape.encoded_bytes(),
            n_registrations: 0,
            available: None,
            invalid: None,
        });
        check_valid(blob_id, &blob)?;
        let slot = RegistrationSlot { blob_id, owner };
        if let Some(Registration { end, .. }) = self.store.get(&slot)? {
            return Err(Rejected::BlobExists { blob_id, owner, end }.into());
        }
        let parameters = self.parameters()?;
        let rate = cost(blob.encoded_bytes, parameters.storage_price);
        let once = cost(blob.encoded_bytes, parameters.write_price);
        let encoded_bytes = blob.encoded_bytes;
        self.buy(&owner, &Purchase { encoded_bytes, rate, once, from: registered, to: end })?;
        blob.n_registrations = add(REGISTRATIONS, blob.n_registrations, 1)?;
        self.write_blob(blob_id, &blob);
        self.store.set(&slot, &Registration { persistence, registered, end, rate, certified: None });
        self.store.set(&ExpirySlot { end, blob_id, owner }, &());
        Ok(Event::BlobRegistered { blob_id, owner, length: blob.length, persistence, end })
    }

    /// The committee whose word of this epoch counts: the current one's, and during the handover that of the one before,
    /// for what was registered under it.
    fn committee_of(&self, got: Epoch, registered: Option<Epoch>) -> Result<Arc<Committee>, ApplyError> {
        let current = self.committee.epoch();
        if got == current {
            return Ok(Arc::clone(&self.committee));
        }
        let is_carried = registered.is_none_or(|registered| registered <= got);
        match &self.previous {
            Some(previous) if previous.epoch() == got && is_carried => Ok(Arc::clone(previous)),
            _ => Err(Rejected::CertificateEpoch { got, current }.into()),
        }
    }

    pub(super) fn certify_blob(
        &mut self,
        owner: AccountId,
        certificate: &CertificateOfAvailability,
    ) -> Result<Event, ApplyError> {
        let StorageConfirmation { epoch: got, blob_id, persistence: certified } = *certificate.statement();
        let (mut blob, registration) = self.registered(blob_id, owner)?;
        check_valid(blob_id, &blob)?;
        let Registration { persistence, registered, end, .. } = registration;
        if let Some(height) = registration.certified {
            return Err(Rejected::AlreadyCertified { blob_id, owner, height }.into());
        }
        if persistence != certified {
            return Err(Rejected::OtherPersistence { blob_id, registered: persistence, certified }.into());
        }
        let head = self.head()?;
        let committee = self.committee_of(got, Some(registered))?;
        certificate.verify(&head.network, &committee).map_err(Rejected::Certificate)?;
        let is_first = blob.available.is_none();
        if is_first {
            blob.available = Some(PointOfAvailability { height: head.height, epoch: head.epoch });
            self.write_blob(blob_id, &blob);
        }
        let certified = Some(head.height);
        self.store.set(&RegistrationSlot { blob_id, owner }, &Registration { certified, ..registration });
        self.count_lifetime(blob_id, end)?;
        Ok(Event::BlobCertified { blob_id, owner, end, is_first })
    }

    pub(super) fn extend_blob(
        &mut self,
        owner: AccountId,
        blob_id: BlobId,
        end: Epoch,
    ) -> Result<Event, ApplyError> {
        let (blob, registration) = self.registered(blob_id, owner)?;
        check_valid(blob_id, &blob)?;
        if registration.certified.is_none() {
            return Err(Rejected::NotCertified { blob_id, owner }.into());
        }
        let old = registration.end;
        self.check_end(end, old)?;
        let encoded_bytes = blob.encoded_bytes;
        let rate = cost(encoded_bytes, self.parameters()?.storage_price);
        self.buy(&owner, &Purchase { encoded_bytes, rate, once: 0, from: old, to: end })?;
        let rate = rate.min(registration.rate);
        self.store.set(&RegistrationSlot { blob_id, owner }, &Registration { end, rate, ..registration });
        self.store.remove(&ExpirySlot { end: old, blob_id, owner })?;
        self.store.set(&ExpirySlot { end, blob_id, owner }, &());
        self.discount_lifetime(blob_id, old)?;
        self.count_lifetime(blob_id, end)?;
        Ok(Event::BlobExtended { blob_id, owner, end })
    }

    /// Gives back what was paid for epochs that have not begun: nobody has earned it, and the room can be sold again.
    pub(super) fn delete_blob(&mut self, owner: AccountId, blob_id: BlobId) -> Result<Event, ApplyError> {
        let (blob, registration) = self.registered(blob_id, owner)?;
        check_valid(blob_id, &blob)?;
        let Registration { persistence, end, rate, .. } = registration;
        if persistence == Persistence::Permanent {
            return Err(Rejected::Permanent { blob_id, end }.into());
        }
        let next = self.head()?.epoch.0 + 1;
        let refund = self.give_back(blob.encoded_bytes, rate, next..end.0)?;
        self.deposit(&owner, refund)?;
        self.store.remove(&ExpirySlot { end, blob_id, owner })?;
        let left = self.end_registration(blob_id, owner)?;
        if left == Left::Nothing {
            let epoch = self.head()?.epoch;
            self.store.set(&LingerSlot { epoch, blob_id }, &());
        }
        Ok(Event::BlobDeleted { blob_id, owner, refund, left })
    }

    /// Marks a blob for good. Registrations end as they would; what was paid for them stays paid.
    pub(super) fn invalidate_blob(
        &mut self,
        certificate: &InvalidityCertificate,
    ) -> Result<Event, ApplyError> {
        let blob_id = certificate.statement().blob_id;
        let blob = self.blob_entry(blob_id)?.ok_or(Rejected::UnknownBlob { blob_id })?;
        check_valid(blob_id, &blob)?;
        let head = self.head()?;
        let committee = self.committee_of(certificate.statement().epoch, None)?;
        certificate.verify(&head.network, &committee).map_err(Rejected::Certificate)?;
        self.write_blob(blob_id, &Blob { invalid: Some(head.height), available: None, ..blob });
        Ok(Event::BlobInvalidated { blob_id })
    }

    /// Drops what lingered in the epoch that ends, and ends the registrations that end when `next` begins.
    pub(super) fn expire(&mut self, next: Epoch) -> Result<Vec<Event>, Corrupt> {
        let mut events = Vec::new();
        let old = self.head()?.epoch;
        let lingering: Vec<_> = self.store.scan::<LingerSlot>(&[&old]).collect::<Result<_, _>>()?;
        for (slot, ()) in lingering {
            self.store.remove(&slot)?;
            events.extend(self.drop_blob(slot.blob_id)?);
        }
        let due: Vec<_> = self.store.scan::<ExpirySlot>(&[&next]).collect::<Result<_, _>>()?;
        for (slot, ()) in due {
            let ExpirySlot { blob_id, owner, .. } = slot;
            self.store.remove(&slot)?;
            let left = self.end_registration(blob_id, owner)?;
            events.push(Event::BlobExpired { blob_id, owner, left });
            events.extend(self.drop_blob(blob_id)?);
        }
        Ok(events)
    }

    /// Forgets a blob that has no registration; one that is invalid is remembered for good.
    fn drop_blob(&mut self, blob_id: BlobId) -> Result<Option<Event>, Corrupt> {
        let slot = BlobSlot { blob_id };
        let blob = self.store.require(&slot)?;
        if blob.n_registrations > 0 || blob.invalid.is_some() {
            return Ok(None);
        }
        self.store.remove(&slot)?;
        Ok(Some(Event::BlobDropped { blob_id }))
    }

    /// Removes a registration whose expiry is no longer listed.
    fn end_registration(&mut self, blob_id: BlobId, owner: AccountId) -> Result<Left, Corrupt> {
        let slot = RegistrationSlot { blob_id, owner };
        let registration = self.store.require(&slot)?;
        self.store.remove(&slot)?;
        if registration.certified.is_some() {
            self.discount_lifetime(blob_id, registration.end)?;
        }
        let mut blob = self.store.require(&BlobSlot { blob_id })?;
        blob.n_registrations = sub(REGISTRATIONS, blob.n_registrations, 1)?;
        let is_certified = blob.invalid.is_none() && self.latest_end(blob_id)?.is_some();
        if !is_certified {
            blob.available = None;
        }
        self.write_blob(blob_id, &blob);
        Ok(match blob.n_registrations {
            0 => Left::Nothing,
            // Its slivers were dropped when it was found out.
            _ if blob.invalid.is_some() => Left::Nothing,
            _ if is_certified => Left::Certified,
            _ => Left::Registered,
        })
    }

    fn count_lifetime(&mut self, blob_id: BlobId, end: Epoch) -> Result<(), Corrupt> {
        let slot = LifetimeSlot { blob_id, end: Latest::new(end) };
        let n = self.store.get(&slot)?.unwrap_or_default();
        self.store.set(&slot, &add(REGISTRATIONS, n, 1)?);
        Ok(())
    }

    fn discount_lifetime(&mut self, blob_id: BlobId, end: Epoch) -> Result<(), Corrupt> {
        let slot = LifetimeSlot { blob_id, end: Latest::new(end) };
        match sub(REGISTRATIONS, self.store.require(&slot)?, 1)? {
            0 => self.store.remove(&slot)?,
            n => self.store.set(&slot, &n),
        }
        Ok(())
    }

    /// The latest end of a certified registration of a blob.
    pub(super) fn latest_end(&self, blob_id: BlobId) -> Result<Option<Epoch>, Corrupt> {
        let latest = self.store.scan::<LifetimeSlot>(&[&blob_id]).next().transpose()?;
        Ok(latest.map(|(slot, _)| slot.end.epoch()))
    }
}
