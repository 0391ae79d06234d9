//! Certificates: enough of the right committee over exactly one statement, or an error that says what is missing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod committee_support;

use std::{collections::BTreeSet, sync::Arc};

use committee_support::{committee, key, peer};
use proptest::prelude::*;
use protocol::{
    AccountId, BlobId, Epoch, NetworkId, NodeIndex, RegistrationId,
    bls::VerifyError,
    certificate::{
        CERTIFICATE_BYTES_MAX, CertificateBuilder, CertificateError, CertificateOfAvailability,
        ConfirmationError, InvalidityAttestation, InvalidityCertificate, MemberSignature, QuorumCertificate,
        Statement, StorageConfirmation,
    },
    codec,
    committee::Committee,
};

const NETWORK: NetworkId = NetworkId([1; 32]);
const EPOCH: Epoch = Epoch(3);

fn registration(nonce: u64) -> RegistrationId {
    RegistrationId { owner: AccountId([4; 32]), nonce }
}

fn confirmation() -> StorageConfirmation {
    StorageConfirmation { epoch: EPOCH, blob_id: BlobId([2; 32]), registration: registration(5) }
}

fn attestation() -> InvalidityAttestation {
    InvalidityAttestation { epoch: EPOCH, blob_id: BlobId([2; 32]) }
}

/// The statement signed by the node with this seed, under its own index.
fn signed<S: Statement>(statement: &S, committee: &Committee, seed: u8) -> MemberSignature {
    statement.sign(&NETWORK, committee.index_of(&peer(seed)).unwrap(), &key(seed))
}

fn builder<S: Statement>(statement: S, committee: &Arc<Committee>) -> CertificateBuilder<S> {
    CertificateBuilder::new(statement, &NETWORK, Arc::clone(committee)).unwrap()
}

fn certificate<S: Statement>(statement: S, committee: &Arc<Committee>, seeds: &[u8]) -> QuorumCertificate<S> {
    let mut builder = builder(statement.clone(), committee);
    for seed in seeds {
        builder.add(&signed(&statement, committee, *seed)).unwrap();
    }
    builder.finish().unwrap()
}

#[test]
fn a_quorum_of_confirmations_is_a_certificate_of_availability() {
    // Weights 3, 3, 2, 2; a quorum is 7.
    let committee = Arc::new(committee(EPOCH.0, 10, 4));
    let mut builder = builder(confirmation(), &committee);
    assert_eq!((builder.weight(), builder.required(), builder.is_complete()), (0, 7, false));
    for (seed, weight, complete) in [(3, 2, false), (0, 5, false), (0, 5, false), (2, 7, true), (1, 10, true)]
    {
        if !builder.is_complete() {
            let error = CertificateError::TooLittleWeight { got: builder.weight(), required: 7 };
            assert_eq!(builder.finish(), Err(error));
        }
        builder.add(&signed(&confirmation(), &committee, seed)).unwrap();
        assert_eq!((builder.weight(), builder.is_complete()), (weight, complete));
        if complete {
            let certificate = builder.finish().unwrap();
            assert_eq!(certificate.verify(&NETWORK, &committee), Ok(weight));
            assert_eq!(certificate.statement(), &confirmation());
        }
    }
    assert!(builder.signers().eq(committee.nodes()));
}

#[test]
fn validity_is_enough_to_call_a_blob_invalid() {
    // Validity is 4.
    let committee = Arc::new(committee(EPOCH.0, 10, 4));
    let mut builder = builder(attestation(), &committee);
    builder.add(&signed(&attestation(), &committee, 3)).unwrap();
    assert!(!builder.is_complete());
    builder.add(&signed(&attestation(), &committee, 2)).unwrap();
    assert_eq!(builder.finish().unwrap().verify(&NETWORK, &committee), Ok(4));
}

#[test]
fn a_bad_confirmation_is_refused_by_name_and_does_no_harm() {
    let committee = Arc::new(committee(EPOCH.0, 10, 4));
    let mut builder = builder(confirmation(), &committee);
    let index = committee.index_of(&peer(1)).unwrap();
    let forged = confirmation().sign(&NETWORK, index, &key(2));
    let refusal = Err(ConfirmationError::BadSignature {
        member: index,
        name: "node-1".to_owned(),
        source: VerifyError::Mismatch,
    });
    assert_eq!(builder.add(&forged), refusal);
    assert_eq!(builder.weight(), 0);
    let genuine = signed(&confirmation(), &committee, 1);
    assert_eq!(builder.add(&genuine), Ok(()));
    // Neither repeating nor contradicting itself changes what a member's word is worth.
    assert_eq!(builder.add(&genuine), Ok(()));
    assert_eq!(builder.add(&forged), refusal);
    assert_eq!(builder.weight(), 3);

    let stranger = MemberSignature { member: NodeIndex(4), ..genuine };
    let refusal = ConfirmationError::UnknownMember { member: NodeIndex(4), epoch: EPOCH, n_members: 4 };
    assert_eq!(builder.add(&stranger), Err(refusal));
}

#[test]
fn a_statement_of_another_epoch_is_refused() {
    let committee = Arc::new(committee(4, 10, 4));
    let error = CertificateBuilder::new(confirmation(), &NETWORK, Arc::clone(&committee)).unwrap_err();
    assert_eq!(error, CertificateError::WrongEpoch { got: EPOCH, required: Epoch(4) });

    let past = Arc::new(committee_support::committee(EPOCH.0, 10, 4));
    let certificate = certificate(confirmation(), &past, &[0, 1, 2]);
    assert_eq!(certificate.verify(&NETWORK, &past), Ok(8));
    assert_eq!(certificate.verify(&NETWORK, &committee), Err(error));
}

#[test]
fn a_certificate_of_another_network_or_committee_is_refused() {
    let committee = Arc::new(committee(EPOCH.0, 10, 4));
    let certificate = certificate(confirmation(), &committee, &[0, 1, 2]);
    let mismatch = Err(CertificateError::BadSignature(VerifyError::Mismatch));
    assert_eq!(certificate.verify(&NetworkId([9; 32]), &committee), mismatch);
    // The same epoch, but the shards of one node: the signers are unknown there.
    let small = committee_support::committee(EPOCH.0, 10, 1);
    let error = CertificateError::UnknownSigner { signer: NodeIndex(1), n_members: 1 };
    assert_eq!(certificate.verify(&NETWORK, &small), Err(error));
    // The same epoch and seats, but other people in them.
    let others = (10..).zip(protocol::committee::spread(10, 4));
    let others = others.map(|(seed, shards)| committee_support::member(seed, shards)).collect();
    let others = Committee::new(EPOCH, 10, others).unwrap();
    assert_eq!(certificate.verify(&NETWORK, &others), mismatch);
}

/// The certificate with its bytes changed.
fn altered(
    certificate: &CertificateOfAvailability,
    change: impl FnOnce(&mut Vec<u8>),
) -> Option<CertificateOfAvailability> {
    let mut bytes = codec::encode(certificate);
    change(&mut bytes);
    codec::decode_exact::<_, CERTIFICATE_BYTES_MAX>(&bytes).ok()
}

/// Position of the signers' only byte: after epoch, blob ID, registration and the bitmap's length.
const SIGNERS: usize = 4 + 32 + 40 + 1;

#[test]
fn claimed_signers_are_held_against_the_signature() {
    let committee = Arc::new(committee(EPOCH.0, 10, 4));
    let certificate = certificate(confirmation(), &committee, &[1, 2, 3]);
    assert_eq!(certificate.signers(), &BTreeSet::from([0, 1, 2].map(NodeIndex)));
    let verdict = |signers: u8| {
        altered(&certificate, |bytes| bytes[SIGNERS] = signers).unwrap().verify(&NETWORK, &committee)
    };
    assert_eq!(verdict(0b0111), Ok(7));
    assert_eq!(verdict(0b1111), Err(CertificateError::BadSignature(VerifyError::Mismatch)));
    assert_eq!(verdict(0b1110), Err(CertificateError::BadSignature(VerifyError::Mismatch)));
    assert_eq!(verdict(0b0011), Err(CertificateError::TooLittleWeight { got: 4, required: 7 }));
    let error = CertificateError::UnknownSigner { signer: NodeIndex(4), n_members: 4 };
    assert_eq!(verdict(0b1_0111), Err(error));
}

#[test]
fn nobody_signed_is_too_little() {
    let committee = Arc::new(committee(EPOCH.0, 10, 4));
    let certificate = certificate(confirmation(), &committee, &[1, 2, 3]);
    let unsigned = altered(&certificate, |bytes| {
        bytes[SIGNERS - 1] = 0;
        bytes.remove(SIGNERS);
    });
    let error = CertificateError::TooLittleWeight { got: 0, required: 7 };
    assert_eq!(unsigned.unwrap().verify(&NETWORK, &committee), Err(error));
}

#[test]
fn a_set_of_signers_has_one_form() {
    let committee = Arc::new(committee(EPOCH.0, 10, 4));
    let certificate = certificate(confirmation(), &committee, &[1, 2, 3]);
    let padded = altered(&certificate, |bytes| {
        bytes[SIGNERS - 1] = 2;
        bytes.insert(SIGNERS + 1, 0);
    });
    assert_eq!(padded, None);
    let too_long = altered(&certificate, |bytes| {
        bytes[SIGNERS - 1] = 126;
        bytes.splice(SIGNERS + 1..SIGNERS + 1, [1; 125]);
    });
    assert_eq!(too_long, None);
    let longest = altered(&certificate, |bytes| {
        bytes[SIGNERS - 1] = 125;
        bytes.splice(SIGNERS + 1..SIGNERS + 1, [255; 124]);
    });
    let longest = longest.unwrap();
    assert_eq!(longest.signers().len(), 3 + 124 * 8);
    assert_eq!(longest.signers().last(), Some(&NodeIndex(999)));
    assert!(codec::encode(&longest).len() <= CERTIFICATE_BYTES_MAX / 2 + 6);
}

#[test]
fn signed_text_is_frozen() {
    let text = |tag: &[u8], fields: &[u8]| [tag, &[1; 32], &[3, 0, 0, 0], &[2; 32], fields].concat();
    let fields = [&[4; 32][..], &[5, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(confirmation().message(&NETWORK), text(b"floe/v1/storage-confirmation\0", &fields));
    assert_eq!(attestation().message(&NETWORK), text(b"floe/v1/invalidity-attestation\0", &[]));
}

#[test]
fn no_signature_verifies_as_that_of_another_statement() {
    let networks = [NETWORK, NetworkId([2; 32])];
    let epochs = [EPOCH, Epoch(4)];
    let blobs = [BlobId([2; 32]), BlobId([3; 32])];
    let mut texts = Vec::new();
    for network in &networks {
        for epoch in epochs {
            for blob_id in blobs {
                for registration in [5, 6].map(registration) {
                    texts.push(StorageConfirmation { epoch, blob_id, registration }.message(network));
                }
                texts.push(InvalidityAttestation { epoch, blob_id }.message(network));
            }
        }
    }
    assert_eq!(texts.len(), 24);
    let secret = key(1);
    for (i, signed) in texts.iter().enumerate() {
        let signature = secret.sign(signed);
        for (j, text) in texts.iter().enumerate() {
            let verdict = signature.verify(text, &secret.public_key());
            assert_eq!(verdict.is_ok(), i == j, "statement {i} as statement {j}");
        }
    }
}

#[test]
fn a_certificate_of_one_kind_is_none_of_another() {
    let committee = Arc::new(committee(EPOCH.0, 10, 4));
    let bytes = codec::encode(&certificate(confirmation(), &committee, &[0, 1, 2, 3]));
    // Without its registration the bytes are those of a certificate of the other kind.
    let mut recast = bytes.clone();
    recast.drain(36..76);
    let recast = codec::decode_exact::<InvalidityCertificate, CERTIFICATE_BYTES_MAX>(&recast).unwrap();
    let mismatch = Err(CertificateError::BadSignature(VerifyError::Mismatch));
    assert_eq!(recast.verify(&NETWORK, &committee), mismatch);
    // Nor is one for a blob that lasts one for a blob that may be deleted.
    let mut deletable = bytes;
    deletable[36] = 1;
    let deletable =
        codec::decode_exact::<CertificateOfAvailability, CERTIFICATE_BYTES_MAX>(&deletable).unwrap();
    assert_eq!(deletable.verify(&NETWORK, &committee), mismatch);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_signers_make_a_certificate_exactly_if_they_are_a_quorum(
        n_members in 1_u16..=9,
        chosen in proptest::collection::vec(any::<bool>(), 9),
    ) {
        let committee = Arc::new(committee(EPOCH.0, 13, n_members));
        let mut builder = builder(confirmation(), &committee);
        for (seed, _) in (0..u8::try_from(n_members).unwrap()).zip(&chosen).filter(|(_, chosen)| **chosen) {
            builder.add(&signed(&confirmation(), &committee, seed)).unwrap();
        }
        prop_assert_eq!(builder.is_complete(), committee.is_quorum(builder.weight()));
        match builder.finish() {
            Ok(certificate) => {
                prop_assert!(builder.is_complete());
                let decoded = codec::decode_exact::<CertificateOfAvailability, CERTIFICATE_BYTES_MAX>(
                    &codec::encode(&certificate),
                );
                prop_assert_eq!(decoded.as_ref(), Ok(&certificate));
                prop_assert_eq!(certificate.verify(&NETWORK, &committee), Ok(builder.weight()));
            }
            Err(error) => {
                let expected = CertificateError::TooLittleWeight { got: builder.weight(), required: 9 };
                prop_assert_eq!(error, expected);
            }
        }
    }

    #[test]
    fn an_altered_certificate_proves_nothing(position in 0_usize..138, flip in 1_u8..=255) {
        let committee = Arc::new(committee(EPOCH.0, 10, 4));
        let certificate = certificate(confirmation(), &committee, &[0, 1, 2]);
        if let Some(altered) = altered(&certificate, |bytes| bytes[position] ^= flip) {
            prop_assert!(altered.verify(&NETWORK, &committee).is_err());
        }
    }
}

proptest! {
    #[test]
    fn hostile_bytes_are_no_certificate_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(codec::decode_exact::<CertificateOfAvailability, CERTIFICATE_BYTES_MAX>(&bytes).is_err());
        prop_assert!(codec::decode_exact::<InvalidityCertificate, CERTIFICATE_BYTES_MAX>(&bytes).is_err());
        prop_assert!(codec::decode_exact::<MemberSignature, 128>(&bytes).is_err());
    }
}
