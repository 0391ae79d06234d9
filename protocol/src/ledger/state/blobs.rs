//! Blobs: registered, certified, extended, deleted, expired, invalid.
//!
//! Each owner of a blob has a registration of its own, with its own terms. The committee answers for the blob while one is
//! certified. Nodes drop its slivers when the last registration ends.
//!
//! A certificate says that nodes stored a blob when they confirmed it, not that they still do. So a confirmation names the
//! registration that it is for, by its owner and the nonce of the transaction that made it: when that registration has
//! ended, what was confirmed for it proves nothing any more, and nobody has to keep slivers on account of it.

use std::sync::Arc;

use super::{
    ApplyError, Corrupt, Event, Left, Rejected, State,
    entry::{Availability, Blob, Head, Registration},
    fund::Purchase,
    slot::{BlobSlot, ExpirySlot, HeadSlot, Latest, LifetimeSlot, RegistrationSlot},
    store::{add, sub},
};
use crate::{
    certificate::{CertificateOfAvailability, InvalidityCertificate, Persistence, StorageConfirmation},
    commitment::{BlobHeader, VerifiedHeader},
    committee::Committee,
    ids::{AccountId, BlobId, Epoch, RegistrationId},
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
        RegistrationId { owner, nonce }: RegistrationId,
        header: BlobHeader,
        persistence: Persistence,
        end: Epoch,
    ) -> Result<Event, ApplyError> {
        let header = self.verify_header(header)?;
        let (blob_id, shape) = (header.blob_id(), header.shape());
        let registered = self.head()?.epoch;
        self.check_end(end, registered)?;
        let mut blob = self.blob_entry(blob_id)?.unwrap_or_else(|| Blob {
            header: *header.header(),
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
        self.store.set(&slot, &Registration { persistence, nonce, registered, end, rate, certified: None });
        self.store.set(&ExpirySlot { end, blob_id, owner }, &());
        Ok(Event::BlobRegistered { blob_id, owner, length: shape.length(), persistence, end })
    }

    /// The committee whose word of this epoch counts: the current one's, and during the handover that of the one before.
    fn committee_of(&self, got: Epoch) -> Result<Arc<Committee>, ApplyError> {
        let current = self.committee.epoch();
        if got == current {
            return Ok(Arc::clone(&self.committee));
        }
        match &self.previous {
            Some(previous) if previous.epoch() == got => Ok(Arc::clone(previous)),
            _ => Err(Rejected::CertificateEpoch { got, current }.into()),
        }
    }

    /// Certifies the registration that the same transaction has just made.
    pub(super) fn certify_own(
        &mut self,
        by: RegistrationId,
        certificate: &CertificateOfAvailability,
    ) -> Result<Event, ApplyError> {
        let StorageConfirmation { blob_id, registration, .. } = *certificate.statement();
        if registration.owner != by.owner {
            return Err(Rejected::NoRegistration { blob_id, owner: registration.owner }.into());
        }
        if registration != by {
            let (got, required) = (registration.nonce, by.nonce);
            return Err(Rejected::OtherRegistration { blob_id, got, required }.into());
        }
        self.certify_blob(certificate)
    }

    pub(super) fn certify_blob(
        &mut self,
        certificate: &CertificateOfAvailability,
    ) -> Result<Event, ApplyError> {
        let StorageConfirmation { epoch: got, blob_id, registration: id } = *certificate.statement();
        let RegistrationId { owner, nonce } = id;
        let (mut blob, registration) = self.registered(blob_id, owner)?;
        check_valid(blob_id, &blob)?;
        let Registration { nonce: required, end, .. } = registration;
        if nonce != required {
            return Err(Rejected::OtherRegistration { blob_id, got: nonce, required }.into());
        }
        if let Some(height) = registration.certified {
            return Err(Rejected::AlreadyCertified { blob_id, owner, height }.into());
        }
        let head = self.head()?;
        let committee = self.committee_of(got)?;
        certificate.verify(&head.network, &committee).map_err(Rejected::Certificate)?;
        let is_first = blob.available.is_none();
        if is_first {
            self.count_available()?;
        }
        let point = Availability { height: head.height, epoch: committee.epoch(), end };
        let available = blob.available.get_or_insert(point);
        available.end = available.end.max(end);
        self.write_blob(blob_id, &blob);
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
        let (mut blob, registration) = self.registered(blob_id, owner)?;
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
        if let Some(available) = &mut blob.available {
            available.end = available.end.max(end);
            self.write_blob(blob_id, &blob);
        }
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
        let committee = self.committee_of(certificate.statement().epoch)?;
        certificate.verify(&head.network, &committee).map_err(Rejected::Certificate)?;
        if blob.available.is_some() {
            self.discount_available()?;
        }
        self.write_blob(blob_id, &Blob { invalid: Some(head.height), available: None, ..blob });
        Ok(Event::BlobInvalidated { blob_id })
    }

    /// Ends the registrations that end when `next` begins.
    pub(super) fn expire(&mut self, next: Epoch) -> Result<Vec<Event>, Corrupt> {
        let mut events = Vec::new();
        let due: Vec<_> = self.store.scan::<ExpirySlot>(&[&next]).collect::<Result<_, _>>()?;
        for (slot, ()) in due {
            let ExpirySlot { blob_id, owner, .. } = slot;
            self.store.remove(&slot)?;
            let left = self.end_registration(blob_id, owner)?;
            events.push(Event::BlobExpired { blob_id, owner, left });
        }
        Ok(events)
    }

    /// Removes a registration whose expiry is no longer listed, and with the last of them the blob; one that is invalid is
    /// remembered for good.
    fn end_registration(&mut self, blob_id: BlobId, owner: AccountId) -> Result<Left, Corrupt> {
        let slot = RegistrationSlot { blob_id, owner };
        let registration = self.store.require(&slot)?;
        self.store.remove(&slot)?;
        if registration.certified.is_some() {
            self.discount_lifetime(blob_id, registration.end)?;
        }
        let mut blob = self.store.require(&BlobSlot { blob_id })?;
        blob.n_registrations = sub(REGISTRATIONS, blob.n_registrations, 1)?;
        let latest = if blob.invalid.is_some() { None } else { self.latest_end(blob_id)? };
        let left = blob.available.zip(latest).map(|(available, end)| Availability { end, ..available });
        if blob.available.is_some() && left.is_none() {
            self.discount_available()?;
        }
        blob.available = left;
        if blob.n_registrations == 0 && blob.invalid.is_none() {
            self.store.remove(&BlobSlot { blob_id })?;
        } else {
            self.write_blob(blob_id, &blob);
        }
        Ok(match blob.n_registrations {
            0 => Left::Nothing,
            // Its slivers were dropped when it was found out.
            _ if blob.invalid.is_some() => Left::Nothing,
            _ if blob.available.is_some() => Left::Certified,
            _ => Left::Registered,
        })
    }

    fn count_available(&mut self) -> Result<(), Corrupt> {
        let head = self.head()?;
        let n_available = add("blobs", head.n_available, 1)?;
        self.store.set(&HeadSlot {}, &Head { n_available, ..head });
        Ok(())
    }

    fn discount_available(&mut self) -> Result<(), Corrupt> {
        let head = self.head()?;
        let n_available = sub("blobs", head.n_available, 1)?;
        self.store.set(&HeadSlot {}, &Head { n_available, ..head });
        Ok(())
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
    fn latest_end(&self, blob_id: BlobId) -> Result<Option<Epoch>, Corrupt> {
        let latest = self.store.scan::<LifetimeSlot>(&[&blob_id]).next().transpose()?;
        Ok(latest.map(|(slot, _)| slot.end.epoch()))
    }
}
