//! Signed statements of the committee, and the certificates they add up to.
//!
//! ```text
//! statement --sign--> MemberSignature --CertificateBuilder::add--> ... --finish--> QuorumCertificate --verify--> weight
//! ```
//!
//! Two kinds, told apart by their [`Statement`]:
//!
//! | statement | means | signed by | certificate |
//! |---|---|---|---|
//! | [`StorageConfirmation`] | I hold my slivers of this blob | a quorum (2f+1) | [`CertificateOfAvailability`] |
//! | [`InvalidityAttestation`] | this blob was encoded wrongly | validity (f+1) | [`InvalidityCertificate`] |
//!
//! A quorum, so that at least `f + 1` honest shards hold the blob while `f` lie: enough to rebuild it (Walrus paper,
//! 2025, point of availability). Validity, since one honest node checked the inconsistency proof and anyone may
//! check it again.
//!
//! # What is signed
//!
//! `"floe/v1/" || name of the statement || 0 || network ID || statement in canonical form`, where the statement begins
//! with its epoch. Names hold no zero byte, so no two statements share a signed text: not of two kinds, not of two
//! networks, not of two epochs.
//!
//! # Invariants
//!
//! A certificate has one binary form for its statement, signers and signature, of at most [`CERTIFICATE_BYTES_MAX`]
//! bytes. A decoded certificate claims; only [`QuorumCertificate::verify`] proves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use bincode::{
    Decode, Encode,
    de::{Decoder, read::Reader},
    enc::{Encoder, write::Writer},
};
use serde::{Deserialize, Serialize};

use crate::{
    bls::{self, AggregateError, PublicKey, SecretKey, Signature},
    codec,
    committee::Committee,
    ids::{BlobId, Epoch, NetworkId, NodeIndex, RegistrationId},
    planted::{Bug, is_planted},
    quorum::N_SHARDS_MAX,
};

/// Limit for decoding a certificate: a statement of at most 76 bytes, a bitmap of 126 and a signature of 96, twice.
pub const CERTIFICATE_BYTES_MAX: usize = 640;

/// Begins every signed statement of this version of the protocol.
const DOMAIN: &[u8] = b"floe/v1/";
/// Most bytes of a signer set: a bit for each possible member.
const SIGNER_BYTES_MAX: u16 = N_SHARDS_MAX.div_ceil(8);
// The bitmap's length is written as one byte.
const _: () = assert!(SIGNER_BYTES_MAX <= 255);

/// How much weight makes a statement the committee's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// `2f + 1`: any two such sets share an honest shard.
    Quorum,
    /// `f + 1`: an honest shard is among them.
    Validity,
}

impl Threshold {
    /// The smallest weight that reaches it in `committee`.
    #[must_use]
    pub fn weight(self, committee: &Committee) -> u16 {
        match self {
            Self::Quorum if is_planted(Bug::QuorumOffByOne) => committee.quorum() - 1,
            Self::Quorum => committee.quorum(),
            Self::Validity => committee.validity(),
        }
    }
}

/// Something that members of a committee sign, one kind per type.
///
/// The canonical form of an implementation begins with its epoch.
pub trait Statement: Encode + Clone + PartialEq + fmt::Debug {
    /// Sets this kind apart from all others: unique, lower case, without a zero byte.
    const NAME: &'static str;
    /// Whose word makes it the committee's.
    const THRESHOLD: Threshold;

    /// The epoch whose committee signs it.
    fn epoch(&self) -> Epoch;

    /// The bytes that are signed on a network: see the module.
    #[must_use]
    fn message(&self, network: &NetworkId) -> Vec<u8> {
        let fields = codec::encode(self);
        [DOMAIN, Self::NAME.as_bytes(), &[0], network.as_bytes(), &fields].concat()
    }

    /// Signs it as the member with this index.
    #[must_use]
    fn sign(&self, network: &NetworkId, member: NodeIndex, key: &SecretKey) -> MemberSignature {
        MemberSignature { member, signature: key.sign(&self.message(network)) }
    }
}

/// Whether the owner of a blob may delete it before it expires.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Persistence {
    /// Kept until its end epoch, whatever its owner wants.
    Permanent,
    /// Its owner may delete it at any time.
    Deletable,
}

impl fmt::Display for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Permanent => "permanent",
            Self::Deletable => "deletable",
        })
    }
}

/// A node's word that it stores, durably and checked, its slivers of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
pub struct StorageConfirmation {
    /// The epoch in which the node holds the shards that it confirms for.
    pub epoch: Epoch,
    /// The blob.
    pub blob_id: BlobId,
    /// For which registration of it: what was confirmed for one that has ended proves nothing for one made later.
    pub registration: RegistrationId,
}

impl Statement for StorageConfirmation {
    const NAME: &'static str = "storage-confirmation";
    const THRESHOLD: Threshold = Threshold::Quorum;

    fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// A node's word that it verified an inconsistency proof: the slivers committed to are not those of any blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
pub struct InvalidityAttestation {
    /// The epoch in which it was verified.
    pub epoch: Epoch,
    /// The blob.
    pub blob_id: BlobId,
}

impl Statement for InvalidityAttestation {
    const NAME: &'static str = "invalidity-attestation";
    const THRESHOLD: Threshold = Threshold::Validity;

    fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// One member's signature of a statement that both sides already know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct MemberSignature {
    /// Who claims to have signed, in the committee of the statement's epoch.
    pub member: NodeIndex,
    /// What it signed with.
    pub signature: Signature,
}

/// A signed [`StorageConfirmation`].
pub type SignedConfirmation = MemberSignature;
/// A signed [`InvalidityAttestation`].
pub type SignedAttestation = MemberSignature;
/// Proof that a quorum stores a blob: from the moment it is on the ledger, the committee answers for the blob.
pub type CertificateOfAvailability = QuorumCertificate<StorageConfirmation>;
/// Proof that an honest node found a blob to be encoded wrongly.
pub type InvalidityCertificate = QuorumCertificate<InvalidityAttestation>;

/// The members that signed, as a set with one binary form: a bitmap, least significant bit first, cut after the last
/// byte that is not zero and preceded by its length in one byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignerSet(
    /// INV: indices below `N_SHARDS_MAX`, rounded up to whole bytes.
    BTreeSet<NodeIndex>,
);

impl SignerSet {
    /// The members, ascending.
    #[must_use]
    pub const fn nodes(&self) -> &BTreeSet<NodeIndex> {
        &self.0
    }

    fn to_bitmap(&self) -> Vec<u8> {
        let mut bitmap = vec![0; self.0.last().map_or(0, |last| last.as_usize() / 8 + 1)];
        for node in &self.0 {
            bitmap[node.as_usize() / 8] |= 1 << (node.0 % 8);
        }
        bitmap
    }

    fn from_bitmap(bitmap: &[u8]) -> Option<Self> {
        let has_one_form = bitmap.len() <= usize::from(SIGNER_BYTES_MAX) && bitmap.last() != Some(&0);
        has_one_form.then(|| {
            let bits = bitmap.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
            Self((0..).map(NodeIndex).zip(bits).filter(|(_, is_set)| *is_set).map(|(node, _)| node).collect())
        })
    }
}

impl Encode for SignerSet {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        let bitmap = self.to_bitmap();
        let len = u8::try_from(bitmap.len()).expect("the bitmap is at most 255 bytes long");
        len.encode(encoder)?;
        encoder.writer().write(&bitmap)
    }
}

impl<C> Decode<C> for SignerSet {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, bincode::error::DecodeError> {
        let len = usize::from(u8::decode(decoder)?);
        decoder.claim_bytes_read(len)?;
        let mut bitmap = vec![0; len];
        decoder.reader().read(&mut bitmap)?;
        Self::from_bitmap(&bitmap)
            .ok_or(bincode::error::DecodeError::Other("signers too long or followed by zeros"))
    }
}

bincode::impl_borrow_decode!(SignerSet);

/// Why a member's signature was not counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmationError {
    /// There is no such member; whoever sent this is at fault.
    #[error("signed as member {member}, but the committee of epoch {epoch} has only {n_members}")]
    UnknownMember {
        /// The index claimed.
        member: NodeIndex,
        /// Epoch of the committee.
        epoch: Epoch,
        /// Its members.
        n_members: u16,
    },
    /// It is not that member's signature of the statement; the member, or whoever sent this in its name, is at fault.
    #[error("signature of member {member} (`{name}`) does not verify")]
    BadSignature {
        /// The member.
        member: NodeIndex,
        /// Its name.
        name: String,
        /// What the check said.
        #[source]
        source: bls::VerifyError,
    },
}

/// Why a certificate proves nothing. Unless it was made here, whoever sent it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is of another epoch than the committee.
    #[error("statement of epoch {got}, but the committee is that of epoch {required}")]
    WrongEpoch {
        /// Epoch of the statement.
        got: Epoch,
        /// Epoch of the committee.
        required: Epoch,
    },
    /// It names a signer that is no member.
    #[error("signer {signer} is not one of the {n_members} members")]
    UnknownSigner {
        /// The first such signer.
        signer: NodeIndex,
        /// Members of the committee.
        n_members: u16,
    },
    /// Too few shards stand behind it.
    #[error("signed by {got} of the {required} shards needed")]
    TooLittleWeight {
        /// Shards of the signers.
        got: u16,
        /// Shards needed.
        required: u16,
    },
    /// The signers' signatures cancel out: all of them collude.
    #[error("the signatures cannot be aggregated")]
    Aggregate(#[source] AggregateError),
    /// The signature is not that of the named signers over the statement on this network.
    #[error("aggregate signature does not verify")]
    BadSignature(#[source] bls::VerifyError),
}

/// A statement with the signatures of enough of a committee, added up to one.
///
/// Made by a [`CertificateBuilder`]. A decoded one is a claim until it is verified.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QuorumCertificate<S> {
    statement: S,
    signers: SignerSet,
    signature: Signature,
}

impl<S: Statement> QuorumCertificate<S> {
    /// What was signed.
    #[must_use]
    pub const fn statement(&self) -> &S {
        &self.statement
    }

    /// Who claims to have signed it.
    #[must_use]
    pub const fn signers(&self) -> &BTreeSet<NodeIndex> {
        self.signers.nodes()
    }

    /// Checks that enough of `committee` signed the statement on `network`, and returns their weight in shards.
    ///
    /// The cheap checks come first; only a plausible certificate costs a pairing.
    ///
    /// # Errors
    ///
    /// If the committee is that of another epoch, a signer is no member, the weight is too little for the statement,
    /// or the signature does not verify.
    pub fn verify(&self, network: &NetworkId, committee: &Committee) -> Result<u16, CertificateError> {
        check_epoch(&self.statement, committee)?;
        let signer_keys = self.signers().iter().map(|&signer| {
            let member = committee.member(signer);
            member
                .map(|member| &member.public_key)
                .ok_or_else(|| CertificateError::UnknownSigner { signer, n_members: committee.n_members() })
        });
        let signer_keys: Vec<&PublicKey> = signer_keys.collect::<Result<_, _>>()?;
        let weight = committee.weight_of(self.signers());
        check_weight::<S>(weight, committee)?;
        self.signature
            .verify_aggregate(&self.statement.message(network), signer_keys)
            .map_err(CertificateError::BadSignature)?;
        Ok(weight)
    }
}

/// Collects members' signatures of one statement until they are a certificate.
#[derive(Clone, Debug)]
pub struct CertificateBuilder<S> {
    statement: S,
    committee: Arc<Committee>,
    /// What the members sign.
    message: Vec<u8>,
    /// INV: each verified against its member's key.
    signatures: BTreeMap<NodeIndex, Signature>,
    weight: u16,
}

impl<S: Statement> CertificateBuilder<S> {
    /// Starts with no signature.
    ///
    /// # Errors
    ///
    /// If the committee is not that of the statement's epoch.
    pub fn new(
        statement: S,
        network: &NetworkId,
        committee: Arc<Committee>,
    ) -> Result<Self, CertificateError> {
        check_epoch(&statement, &committee)?;
        let message = statement.message(network);
        Ok(Self { statement, committee, message, signatures: BTreeMap::new(), weight: 0 })
    }

    /// Verifies a member's signature and counts it, once however often it comes. Costs a pairing, about a millisecond.
    ///
    /// # Errors
    ///
    /// If there is no such member or the signature is not its own over the statement; nothing is counted then, and a
    /// good signature of the same member still is.
    pub fn add(&mut self, signed: &MemberSignature) -> Result<(), ConfirmationError> {
        let MemberSignature { member: index, signature } = signed;
        // A member has exactly one valid signature of a message, so an equal one need not be verified again.
        if self.signatures.get(index) == Some(signature) {
            return Ok(());
        }
        let member = self.committee.member(*index).ok_or_else(|| ConfirmationError::UnknownMember {
            member: *index,
            epoch: self.committee.epoch(),
            n_members: self.committee.n_members(),
        })?;
        signature.verify(&self.message, &member.public_key).map_err(|source| {
            ConfirmationError::BadSignature { member: *index, name: member.name.clone(), source }
        })?;
        if self.signatures.insert(*index, *signature).is_none() {
            self.weight += self.committee.weight(*index);
        }
        Ok(())
    }

    /// What is being signed.
    #[must_use]
    pub const fn statement(&self) -> &S {
        &self.statement
    }

    /// The members whose signatures were counted, ascending.
    pub fn signers(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.signatures.keys().copied()
    }

    /// Shards of the members counted so far.
    #[must_use]
    pub const fn weight(&self) -> u16 {
        self.weight
    }

    /// Shards needed.
    #[must_use]
    pub fn required(&self) -> u16 {
        S::THRESHOLD.weight(&self.committee)
    }

    /// True once the weight suffices. More signatures may still be added: they do no harm and may be worth a reward.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.weight >= self.required()
    }

    /// Adds the signatures up to a certificate. The builder can go on collecting.
    ///
    /// # Errors
    ///
    /// If the weight does not suffice yet.
    pub fn finish(&self) -> Result<QuorumCertificate<S>, CertificateError> {
        check_weight::<S>(self.weight, &self.committee)?;
        let signature =
            Signature::aggregate(self.signatures.values()).map_err(CertificateError::Aggregate)?;
        let signers = SignerSet(self.signatures.keys().copied().collect());
        Ok(QuorumCertificate { statement: self.statement.clone(), signers, signature })
    }
}

fn check_epoch<S: Statement>(statement: &S, committee: &Committee) -> Result<(), CertificateError> {
    let (got, required) = (statement.epoch(), committee.epoch());
    if got == required { Ok(()) } else { Err(CertificateError::WrongEpoch { got, required }) }
}

fn check_weight<S: Statement>(got: u16, committee: &Committee) -> Result<(), CertificateError> {
    let required = S::THRESHOLD.weight(committee);
    if got >= required { Ok(()) } else { Err(CertificateError::TooLittleWeight { got, required }) }
}
