use super::world::*;
use crate::{
    certificate::{
        CertificateError,
        Persistence::{Deletable, Permanent},
    },
    codec,
    commitment::CommitmentError,
    encoding::{BlobShape, ShapeError},
    ids::{BlobId, Epoch},
    ledger::{
        parameters::Parameters,
        state::{Event, Left, Rejected, entry::Availability, key},
        transaction::Action,
    },
    quorum,
};

fn certify(world: &World, owner: u8, blob: u8, epoch: u32) -> Action {
    Action::CertifyBlob { certificate: world.availability(owner, blob, Epoch(epoch)) }
}

fn store(world: &World, owner: u8, blob: u8, end: u32) -> Action {
    let (header, certificate) = (header(world, blob), world.availability(owner, blob, world.epoch()));
    Action::StoreBlob { header, persistence: Deletable, end_epoch: Epoch(end), certificate }
}

fn extend(world: &World, blob: u8, end: u32) -> Action {
    Action::ExtendBlob { blob_id: blob_id(world, blob), end_epoch: Epoch(end) }
}

fn delete(world: &World, blob: u8) -> Action {
    Action::DeleteBlob { blob_id: blob_id(world, blob) }
}

fn end_of(world: &World, blob: u8) -> Option<Epoch> {
    world.state.blob(&blob_id(world, blob)).unwrap().and_then(|blob| blob.available).map(|it| it.end)
}

#[test]
fn a_blob_is_registered_certified_extended_and_expires() {
    let mut world = World::priced();
    let id = blob_id(&world, 1);
    let (rate, write) = (world.rate(), world.write_cost());
    assert!(rate > 0 && write > 0);
    world.state.begin_block(1, 0).unwrap();
    let event = world.does(0, register(&world, 1, Permanent, 3));
    let owner = account(0);
    let registered = Event::BlobRegistered {
        blob_id: id,
        owner,
        length: BLOB_BYTES,
        persistence: Permanent,
        end: Epoch(3),
    };
    assert_eq!(event, registered);
    assert_eq!(world.balance(0), BALANCE - 1 - write - 3 * rate);
    assert_eq!(end_of(&world, 1), None, "not certified");
    let buckets = [0, 1, 2, 3].map(|epoch| world.state.bucket(Epoch(epoch)).unwrap());
    let encoded = BlobShape::new(4, BLOB_BYTES).unwrap().encoded_bytes();
    assert_eq!(buckets.map(|bucket| bucket.credits), [1 + write + rate, rate, rate, 0]);
    let expected = [encoded, encoded, encoded, 0].map(u128::from);
    assert_eq!(buckets.map(|bucket| bucket.reserved_bytes), expected);

    world.state.begin_block(2, 0).unwrap();
    // Anyone may show the certificate.
    let event = world.does(2, certify(&world, 0, 1, 0));
    assert_eq!(event, Event::BlobCertified { blob_id: id, owner, end: Epoch(3), is_first: true });
    let blob = world.state.blob(&id).unwrap().unwrap();
    assert_eq!(blob.available, Some(Availability { height: 2, epoch: Epoch(0), end: Epoch(3) }));

    let event = world.does(0, extend(&world, 1, 5));
    assert_eq!(event, Event::BlobExtended { blob_id: id, owner, end: Epoch(5) });
    assert_eq!(end_of(&world, 1), Some(Epoch(5)));
    world.audit();
    for _ in 1..5 {
        let events = world.next_epoch();
        assert!(!events.iter().any(|event| matches!(event, Event::BlobExpired { .. })));
        assert_eq!(end_of(&world, 1), Some(Epoch(5)));
    }
    let events = world.next_epoch();
    assert!(events.contains(&Event::BlobExpired { blob_id: id, owner, left: Left::Nothing }));
    assert_eq!(world.state.blob(&id).unwrap(), None);
    assert_eq!(world.is_refused(0, extend(&world, 1, 9)), Rejected::NoRegistration { blob_id: id, owner });
    world.audit();
}

#[test]
fn what_is_no_blob_of_this_network_is_refused() {
    let mut world = World::new(4, 4);
    let good = header(&world, 1);
    let with = |header| Action::RegisterBlob { header, persistence: Permanent, end_epoch: Epoch(1) };
    let mut other = good;
    other.n_shards = 7;
    assert_eq!(world.is_refused(0, with(other)), Rejected::Shards { got: 7, required: 4 });
    let mut other = good;
    other.version = 2;
    assert_eq!(world.is_refused(0, with(other)), Rejected::Header(CommitmentError::Version(2)));
    let mut other = good;
    other.length = u64::MAX;
    let rejected = world.is_refused(0, with(other));
    assert!(matches!(rejected, Rejected::Header(CommitmentError::Shape(ShapeError::TooLong { .. }))));
    // A shorter length is another blob: nobody pays for less than is stored.
    let mut other = good;
    other.length = 1;
    let Event::BlobRegistered { blob_id, .. } = world.does(0, with(other)) else { panic!() };
    assert_ne!(blob_id, good.blob_id());
}

#[test]
fn an_end_that_is_over_or_too_far_is_refused() {
    let mut world =
        World::with(4, 4, Parameters { epochs_ahead_max: 3, ..Parameters::default() }, Vec::new());
    let refused = |got, min, max| Rejected::EndEpoch { got: Epoch(got), min: Epoch(min), max: Epoch(max) };
    assert_eq!(world.is_refused(0, register(&world, 1, Permanent, 0)), refused(0, 1, 3));
    assert_eq!(world.is_refused(0, register(&world, 1, Permanent, 4)), refused(4, 1, 3));
    world.store(0, 1, Permanent, 2);
    assert_eq!(world.is_refused(0, extend(&world, 1, 2)), refused(2, 3, 3));
    assert_eq!(world.is_refused(0, extend(&world, 1, 4)), refused(4, 3, 3));
    assert_eq!(world.is_refused(0, extend(&world, 1, u32::MAX)), refused(u32::MAX, 3, 3));
    world.does(0, extend(&world, 1, 3));
    world.next_epoch();
    assert_eq!(world.is_refused(0, register(&world, 2, Permanent, 1)), refused(1, 2, 4));
}

#[test]
fn what_cannot_be_paid_or_held_is_refused() {
    let mut world = World::priced();
    let needs = u128::from(world.write_cost() + 2 * world.rate());
    world.does(1, Action::Transfer { to: account(9), amount: 4 });
    let rejected = world.is_refused(9, register(&world, 1, Permanent, 2));
    assert_eq!(rejected, Rejected::Overdraft { account: account(9), has: 3, needs });

    let encoded = BlobShape::new(4, BLOB_BYTES).unwrap().encoded_bytes();
    let parameters = Parameters { capacity_bytes: 2 * encoded + 5, ..Parameters::default() };
    let mut world = World::with(4, 4, parameters, Vec::new());
    world.store(0, 1, Deletable, 1);
    world.store(0, 2, Deletable, 3);
    world.next_epoch();
    world.store(0, 3, Deletable, 3);
    let full = Rejected::Capacity { epoch: Epoch(1), free: 5, needs: encoded };
    assert_eq!(world.is_refused(0, register(&world, 4, Permanent, 4)), full);
    // Room of the current epoch is used up, even by what is deleted; room of those to come is sold again.
    world.does(0, delete(&world, 3));
    assert_eq!(world.is_refused(0, register(&world, 4, Permanent, 4)), full);
    world.next_epoch();
    world.does(0, register(&world, 4, Permanent, 4));
    world.audit();
}

#[test]
fn the_last_byte_of_room_is_sold_and_no_more() {
    let needs = BlobShape::new(4, BLOB_BYTES).unwrap().encoded_bytes();
    let with_room = |capacity_bytes| {
        World::with(4, 4, Parameters { capacity_bytes, ..Parameters::default() }, Vec::new())
    };
    let mut world = with_room(needs);
    world.does(0, register(&world, 1, Permanent, 1));
    let mut world = with_room(needs - 1);
    let refused = Rejected::Capacity { epoch: Epoch(0), free: needs - 1, needs };
    assert_eq!(world.is_refused(0, register(&world, 1, Permanent, 1)), refused);
}

#[test]
fn blobs_of_absurd_lengths_leave_room_where_capacity_has_no_limit() {
    let mut world = World::new(4, 4);
    let mut longest = header(&world, 1);
    longest.length = 1 << 54;
    for byte in 0..=255 {
        longest.root = crate::hash::Hash([byte; 32]);
        let action = Action::RegisterBlob { header: longest, persistence: Permanent, end_epoch: Epoch(1) };
        world.does(0, action);
    }
    let reserved = world.state.bucket(Epoch(0)).unwrap().reserved_bytes;
    assert!(reserved > u128::from(u64::MAX) / 2, "{reserved}");
    world.does(1, register(&world, 1, Permanent, 1));
}

#[test]
fn a_certificate_has_to_fit() {
    let mut world = World::new(4, 4);
    let (id, owner) = (blob_id(&world, 1), account(0));
    let refused = Rejected::NoRegistration { blob_id: id, owner };
    assert_eq!(world.is_refused(0, certify(&world, 0, 1, 0)), refused);
    world.does(0, register(&world, 1, Permanent, 5));
    // What was confirmed for a registration to come, and another one came.
    let early = certify(&world, 0, 2, 0);
    world.does(0, Action::Transfer { to: account(1), amount: 1 });
    world.does(0, register(&world, 2, Permanent, 5));
    assert_eq!(
        world.is_refused(0, early),
        Rejected::OtherRegistration { blob_id: blob_id(&world, 2), got: 1, required: 2 }
    );
    for epoch in [1, 9] {
        let refused = Rejected::CertificateEpoch { got: Epoch(epoch), current: Epoch(0) };
        assert_eq!(world.is_refused(0, certify(&world, 0, 1, epoch)), refused);
    }
    // Of another network.
    let other = World::priced();
    let foreign = Action::CertifyBlob { certificate: other.availability(0, 1, Epoch(0)) };
    let rejected = world.is_refused(0, foreign);
    assert!(matches!(rejected, Rejected::Certificate(CertificateError::BadSignature(_))));
    world.does(0, certify(&world, 0, 1, 0));
    assert_eq!(
        world.is_refused(0, certify(&world, 0, 1, 0)),
        Rejected::AlreadyCertified { blob_id: id, owner, height: 0 }
    );
}

#[test]
fn too_little_weight_certifies_nothing() {
    let mut world = World::with(7, 7, Parameters::default(), Vec::new());
    world.does(0, register(&world, 1, Permanent, 5));
    let mut certificate = crate::codec::encode(&*world.availability(0, 1, Epoch(0)));
    // The bitmap of signers follows the statement of 76 bytes and its length: one signer less.
    let bitmap = certificate[77];
    assert_eq!(bitmap.count_ones(), 5);
    certificate[77] &= bitmap - 1;
    let certificate = crate::codec::decode_exact::<_, 640>(&certificate).unwrap();
    let rejected = world.is_refused(0, Action::CertifyBlob { certificate: Box::new(certificate) });
    let required = quorum::quorum(7);
    assert_eq!(rejected, CertificateError::TooLittleWeight { got: 4, required }.into());
}

#[test]
fn during_the_handover_the_committee_before_is_heard() {
    let mut world = World::new(4, 4);
    world.does(0, register(&world, 1, Permanent, 9));
    world.does(1, register(&world, 1, Permanent, 9));
    world.advance().unwrap();
    world.does(0, register(&world, 2, Permanent, 9));
    assert!(world.state.previous_committee().is_some());
    assert_eq!(world.reopened().root(), world.state.root());
    let refused = |got, current| Rejected::CertificateEpoch { got: Epoch(got), current: Epoch(current) };
    let epoch_of = |world: &World, blob| {
        let blob = world.state.blob(&blob_id(world, blob)).unwrap();
        blob.and_then(|blob| blob.available).map(|available| available.epoch)
    };
    world.does(0, certify(&world, 0, 1, 0));
    // Also for what is registered, or registered and certified, only now: its members said that they hold it.
    world.does(0, certify(&world, 0, 2, 0));
    world.does(0, register(&world, 3, Permanent, 9));
    world.does(0, certify(&world, 0, 3, 1));
    assert_eq!([1, 2, 3].map(|blob| epoch_of(&world, blob)), [0, 0, 1].map(|epoch| Some(Epoch(epoch))));
    world.hand_over();
    assert_eq!(world.state.previous_committee(), None);
    assert_eq!(world.is_refused(0, certify(&world, 1, 1, 0)), refused(0, 1));
    let event = world.does(0, certify(&world, 1, 1, 1));
    let blob_id = blob_id(&world, 1);
    assert_eq!(event, Event::BlobCertified { blob_id, owner: account(1), end: Epoch(9), is_first: false });
    world.audit();
}

#[test]
fn each_owner_has_its_own_registration() {
    let mut world = World::new(4, 4);
    let id = blob_id(&world, 1);
    world.store(0, 1, Deletable, 2);
    world.does(1, register(&world, 1, Permanent, 5));
    assert_eq!(
        world.is_refused(0, register(&world, 1, Permanent, 7)),
        Rejected::BlobExists { blob_id: id, owner: account(0), end: Epoch(2) }
    );
    assert_eq!(end_of(&world, 1), Some(Epoch(2)), "the other is not certified");
    let not_certified = Rejected::NotCertified { blob_id: id, owner: account(1) };
    assert_eq!(world.is_refused(1, extend(&world, 1, 7)), not_certified);
    let event = world.does(1, certify(&world, 1, 1, 0));
    assert_eq!(
        event,
        Event::BlobCertified { blob_id: id, owner: account(1), end: Epoch(5), is_first: false }
    );
    assert_eq!(end_of(&world, 1), Some(Epoch(5)));
    let event = world.does(0, delete(&world, 1));
    let left = Left::Certified;
    assert_eq!(event, Event::BlobDeleted { blob_id: id, owner: account(0), refund: 0, left });
    assert_eq!(end_of(&world, 1), Some(Epoch(5)));
    let permanent = Rejected::Permanent { blob_id: id, end: Epoch(5) };
    assert_eq!(world.is_refused(1, delete(&world, 1)), permanent);
    assert_eq!(
        world.is_refused(2, delete(&world, 1)),
        Rejected::NoRegistration { blob_id: id, owner: account(2) }
    );
    world.audit();
}

#[test]
fn deleting_gives_back_what_was_paid_for_epochs_to_come() {
    let mut world = World::priced();
    let (rate, id) = (world.rate(), blob_id(&world, 1));
    world.store(0, 1, Deletable, 4);
    let balance = world.balance(0);
    let event = world.does(0, delete(&world, 1));
    let (owner, left) = (account(0), Left::Nothing);
    assert_eq!(event, Event::BlobDeleted { blob_id: id, owner, refund: 3 * rate, left });
    assert_eq!(world.balance(0), balance + 3 * rate - 1);
    assert_eq!(world.state.bucket(Epoch(1)).unwrap(), crate::ledger::state::entry::Bucket::default());
    assert_eq!(end_of(&world, 1), None);
    world.audit();
}

#[test]
fn a_refund_is_never_more_than_was_paid() {
    let mut world = World::priced();
    world.store(0, 1, Deletable, 2);
    let cheap = world.rate();
    // Storage becomes dearer, and the extension with it.
    for index in 0..4 {
        let ballot =
            crate::ledger::parameters::Ballot { storage_price: 100, write_price: 3, capacity_bytes: 1 << 40 };
        world.does(0, Action::Transfer { to: account(NODES + index), amount: 10 });
        world.does(NODES + index, Action::Vote { node: node(index), ballot });
    }
    world.next_epoch();
    let dear = world.rate();
    assert!(dear > 5 * cheap);
    let balance = world.balance(0);
    world.does(0, extend(&world, 1, 4));
    assert_eq!(world.balance(0), balance - 1 - 2 * dear);
    let Event::BlobDeleted { refund, .. } = world.does(0, delete(&world, 1)) else { panic!() };
    assert_eq!(refund, 2 * cheap, "the lowest rate, for each epoch to come");
    assert_eq!(world.state.bucket(Epoch(2)).unwrap().credits, dear - cheap, "the rest stays with the nodes");
    world.audit();
}

#[test]
fn what_was_confirmed_for_a_registration_that_ended_proves_nothing() {
    let mut world = World::new(4, 4);
    let id = blob_id(&world, 1);
    world.store(0, 1, Deletable, 5);
    let old = certify(&world, 0, 1, 0);
    world.does(0, delete(&world, 1));
    assert_eq!(world.state.blob(&id).unwrap(), None, "nodes drop it");
    world.does(0, register(&world, 1, Deletable, 5));
    let refused = Rejected::OtherRegistration { blob_id: id, got: 0, required: 3 };
    assert_eq!(world.is_refused(0, old), refused);
    let event = world.does(0, certify(&world, 0, 1, 0));
    assert!(matches!(event, Event::BlobCertified { is_first: true, .. }));
    world.audit();
}

#[test]
fn a_blob_is_registered_and_certified_at_once_by_the_transaction_it_was_confirmed_for() {
    let mut world = World::priced();
    let id = blob_id(&world, 1);
    let (early, balance) = (store(&world, 0, 1, 3), world.balance(0));
    // The nonce was used for something else.
    world.does(0, Action::Transfer { to: account(1), amount: 1 });
    let refused = Rejected::OtherRegistration { blob_id: id, got: 0, required: 1 };
    assert_eq!(world.is_refused(0, early.clone()), refused);
    // It was confirmed for somebody else.
    let owner = account(0);
    assert_eq!(world.is_refused(1, early), Rejected::NoRegistration { blob_id: id, owner });
    let receipt = world.send(0, store(&world, 0, 1, 3)).unwrap();
    let [registered, certified] = &receipt.events[..] else { panic!("{receipt:?}") };
    assert!(matches!(registered, Event::BlobRegistered { end: Epoch(3), .. }));
    assert_eq!(*certified, Event::BlobCertified { blob_id: id, owner, end: Epoch(3), is_first: true });
    assert_eq!(world.balance(0), balance - 2 - 1 - world.write_cost() - 3 * world.rate(), "one fee each");
    world.audit();
    // The committee before is heard until the handover is done.
    let late = |world: &World, blob| {
        let (header, certificate) = (header(world, blob), world.availability(0, blob, Epoch(0)));
        Action::StoreBlob { header, persistence: Deletable, end_epoch: Epoch(9), certificate }
    };
    world.advance().unwrap();
    world.send(0, late(&world, 2)).unwrap();
    world.hand_over();
    let refused = Rejected::CertificateEpoch { got: Epoch(0), current: Epoch(1) };
    assert_eq!(world.is_refused(0, late(&world, 3)), refused);
    assert_eq!(world.state.blob(&blob_id(&world, 3)).unwrap(), None, "all of it, or nothing");
    world.audit();
}

#[test]
fn a_blob_that_others_have_registered_is_not_dropped() {
    let mut world = World::new(4, 4);
    world.store(0, 1, Deletable, 5);
    world.does(1, register(&world, 1, Deletable, 5));
    let Event::BlobDeleted { left, .. } = world.does(0, delete(&world, 1)) else { panic!() };
    assert_eq!(left, Left::Registered);
    assert_eq!(end_of(&world, 1), None);
    let event = world.does(1, certify(&world, 1, 1, 0));
    assert!(matches!(event, Event::BlobCertified { is_first: true, .. }));
    assert_eq!(end_of(&world, 1), Some(Epoch(5)));
}

#[test]
fn an_invalid_blob_stays_invalid() {
    let mut world = World::priced();
    let (id, owner) = (blob_id(&world, 1), account(0));
    let invalidate =
        |world: &World, epoch| Action::InvalidateBlob { certificate: world.invalidity(1, Epoch(epoch)) };
    assert_eq!(world.is_refused(1, invalidate(&world, 0)), Rejected::UnknownBlob { blob_id: id });
    world.store(0, 1, Deletable, 2);
    world.does(1, register(&world, 1, Permanent, 2));
    let refused = Rejected::CertificateEpoch { got: Epoch(7), current: Epoch(0) };
    assert_eq!(world.is_refused(1, invalidate(&world, 7)), refused);
    world.state.begin_block(1, 0).unwrap();
    assert_eq!(world.does(1, invalidate(&world, 0)), Event::BlobInvalidated { blob_id: id });
    assert_eq!(end_of(&world, 1), None);
    let invalid = Rejected::BlobInvalid { blob_id: id, height: 1 };
    for (sender, action) in [
        (0, delete(&world, 1)),
        (0, extend(&world, 1, 5)),
        (1, certify(&world, 1, 1, 0)),
        (2, register(&world, 1, Permanent, 5)),
        (2, invalidate(&world, 0)),
    ] {
        assert_eq!(world.is_refused(sender, action), invalid);
    }
    world.audit();
    world.next_epoch();
    let events = world.next_epoch();
    assert!(events.contains(&Event::BlobExpired { blob_id: id, owner, left: Left::Nothing }));
    for _ in 0..3 {
        world.next_epoch();
    }
    assert_eq!(world.is_refused(2, register(&world, 1, Permanent, 9)), invalid, "for good");
    world.audit();
}

#[test]
fn blobs_are_listed_in_order() {
    let mut world = World::new(4, 4);
    for blob in 0..20 {
        world.does(0, register(&world, blob, Permanent, 2));
    }
    let all: Vec<BlobId> = world.state.blobs_from(&BlobId([0; 32])).map(|entry| entry.unwrap().0).collect();
    assert_eq!(all.len(), 20);
    assert!(all.is_sorted());
    let from: Vec<BlobId> = world.state.blobs_from(&all[7]).map(|entry| entry.unwrap().0).collect();
    assert_eq!(from, all[7..]);
}

#[test]
fn a_client_that_knows_the_root_needs_no_trust() {
    let mut world = World::new(4, 4);
    world.store(0, 1, Permanent, 3);
    let (state, root) = (&world.state, world.state.root());
    let (id, owner) = (blob_id(&world, 1), account(0));
    let shown = |key: &[u8]| {
        let proof = state.tree().prove(key);
        proof.verify(&root, key).unwrap().map(<[u8]>::to_vec)
    };
    let blob = state.blob(&id).unwrap().unwrap();
    assert_eq!(shown(&key::blob(&id)), Some(codec::encode(&blob)));
    let registration = state.registration(&id, &owner).unwrap().unwrap();
    assert_eq!(shown(&key::registration(&id, &owner)), Some(codec::encode(&registration)));
    assert_eq!(shown(&key::head()), Some(codec::encode(&state.head().unwrap())));
    assert_eq!(shown(&key::account(&owner)), Some(codec::encode(&state.account(&owner).unwrap())));
    let node_entry = state.node(&node(2)).unwrap().unwrap();
    assert_eq!(shown(&key::node(&node(2))), Some(codec::encode(&node_entry)));
    assert_eq!(shown(&key::blob(&blob_id(&world, 2))), None);
    assert_eq!(shown(&key::registration(&id, &account(1))), None);
}
