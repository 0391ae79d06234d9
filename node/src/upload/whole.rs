//! Blobs of which all that this node is to hold comes in one message, perhaps with an order to vouch on.

use bytes::Bytes;
use protocol::{
    Epoch, RegistrationId, SegmentIndex,
    certificate::MemberSignature,
    commitment::{BlobHeader, VerifiedHeader},
    encoding::SegmentEncoder,
    hash::Hash,
    ledger::transaction::{Action, SignedTransaction, Transaction},
    message::{Refusal, SliverAt},
};

use super::{
    orders::Order,
    service::{Uploads, check_sliver, refusal_of_write, unclear},
};
use crate::{
    blobs::Standing,
    membership::{Roster, Seat},
};

/// Takes a payload apart into the commitment and the slivers that go with a place.
fn split(
    seat: &Seat,
    header: &VerifiedHeader,
    payload: &Bytes,
) -> Result<(Bytes, Vec<(SliverAt, Bytes)>), Refusal> {
    let segment = SegmentIndex(0);
    if header.shape().n_segments() != 1 {
        return Err(Refusal::Malformed);
    }
    let shape = header.shape().segment(segment).map_err(|_| Refusal::Malformed)?;
    let slivers = seat.slivers(header.blob_id(), segment, shape);
    let slivers: Vec<(SliverAt, usize)> = slivers.map(|at| (at, shape.sliver_bytes(at.axis))).collect();
    let sliver_bytes: usize = slivers.iter().map(|(_, len)| len).sum();
    let at = payload.len().checked_sub(sliver_bytes).ok_or(Refusal::Malformed)?;
    let (commitment, mut rest) = (payload.slice(..at), payload.slice(at..));
    let parts = slivers.into_iter().map(|(at, len)| (at, rest.split_to(len))).collect();
    Ok((commitment, parts))
}

/// For [`crate::fuzz`]: takes a payload apart, and says how long the commitment and the slivers in it are.
#[cfg(feature = "fuzz")]
#[must_use]
pub fn split_whole_blob(seat: &Seat, header: BlobHeader, payload: &Bytes) -> Option<(usize, Vec<usize>)> {
    let header = header.verify().ok()?;
    // Whoever receives a blob has compared this with its network before.
    if header.shape().n() != seat.committee.n_shards() {
        return None;
    }
    let (commitment, parts) = split(seat, &header, payload).ok()?;
    Some((commitment.len(), parts.into_iter().map(|(_, part)| part.len()).collect()))
}

impl Uploads {
    /// Keeps and vouches for all that this node is to hold of a blob of one segment. `order` is the owner's signed transaction
    /// that makes the registration, or nothing; `payload` the commitment and the slivers.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; [`Refusal::Busy`] if the ledger does not have the registration yet and the order is of no use: the slivers
    /// are kept then.
    pub async fn blob(
        &self,
        header: BlobHeader,
        (registration, epoch): (RegistrationId, Epoch),
        (order, payload): (Bytes, Bytes),
    ) -> Result<MemberSignature, Refusal> {
        let (verified, is_known) = self.acceptable(header)?;
        let (_, seat) = self.seat(epoch)?;
        let blob_id = verified.blob_id();
        self.hold(blob_id)?;
        let (commitment, parts) = split(&seat, &verified, &payload)?;
        let sliver_bytes = parts.iter().map(|(_, sliver)| sliver.len()).sum();
        let slivers = self.check_all(&verified, commitment.clone(), parts).await?;
        let is_to_come = match self.0.blobs.standing(blob_id, registration).map_err(unclear)? {
            Standing::Made => false,
            Standing::Over => return Err(Refusal::NotRegistered),
            Standing::ToCome => true,
        };
        let is_ordered = is_to_come
            && !order.is_empty()
            && self.take_order(&verified, registration, (order.clone(), sliver_bytes));
        if is_to_come && !is_ordered {
            self.make_room(blob_id, is_known, payload.len())?;
        }
        self.touch(blob_id)?;
        let order = is_ordered.then_some(order);
        let written = self.0.store.put_segment((header, &commitment), &slivers, order).await;
        if let Err(error) = written {
            if is_ordered {
                // Nobody was told of it. What was written of it is dropped like what nobody paid for.
                self.orders().settle(&blob_id);
            }
            return Err(refusal_of_write(error));
        }
        for (at, ..) in &slivers {
            self.assemblies().forget_sliver(*at);
        }
        if is_to_come && !is_ordered {
            self.wait_for(blob_id, registration).await?;
        }
        self.sign(blob_id, registration, epoch).await
    }

    /// Checks a commitment and slivers of one segment in full.
    async fn check_all(
        &self,
        header: &VerifiedHeader,
        commitment: Bytes,
        parts: Vec<(SliverAt, Bytes)>,
    ) -> Result<Vec<(SliverAt, Hash, Bytes)>, Refusal> {
        let (header, segment) = (*header, SegmentIndex(0));
        let shape = header.shape().segment(segment).map_err(|_| Refusal::Malformed)?;
        let check = move |encoder: &mut SegmentEncoder| {
            let commitment = header.verify_segment(segment, &commitment, &[]).ok()?;
            let check = |(at, sliver): (SliverAt, Bytes)| {
                let parity = check_sliver(encoder, &commitment, (at, shape), &sliver)?;
                Some((at, parity, sliver))
            };
            let slivers = parts.into_iter().map(check).collect::<Option<Vec<_>>>()?;
            Some((commitment, slivers))
        };
        let checked = self.0.encoder.run(check).await.map_err(|_| Refusal::Internal)?;
        let (commitment, slivers) = checked.ok_or(Refusal::Unverifiable)?;
        self.0.commitments.insert(header, segment, commitment);
        Ok(slivers)
    }

    /// Takes an order, if the ledger would execute it as things are and there is room.
    fn take_order(
        &self,
        header: &VerifiedHeader,
        registration: RegistrationId,
        (transaction, sliver_bytes): (Bytes, usize),
    ) -> bool {
        let inner = &self.0;
        let Ok(Roster { network, .. }) = inner.membership.now() else { return false };
        let Ok(signed) = SignedTransaction::from_bytes(&transaction) else { return false };
        let Ok(verified) = signed.verify(&network) else { return false };
        let Transaction { sender, nonce, action } = verified.transaction();
        let is_for_it = matches!(action, Action::RegisterBlob { header: of, .. } if of == header.header());
        let is_his = *sender == registration.owner && *nonce == registration.nonce;
        if !is_for_it || !is_his || inner.blobs.ledger().view().state.apply(&verified).is_err() {
            return false;
        }
        let blob_id = header.blob_id();
        let since = inner.start.elapsed();
        let order = Order { registration, transaction, sliver_bytes, since, submitted: None };
        let mut orders = self.orders();
        let is_taken = orders.has(&blob_id, registration) || orders.take(blob_id, order);
        if is_taken {
            inner.ordered.notify_one();
        }
        is_taken
    }
}
