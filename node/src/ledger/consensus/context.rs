//! The engine's types, and their translation into the protocol's.

use std::{fmt, sync::Arc};

use arc_malachitebft_core_types::{
    self as engine, Context, LinearTimeouts, NilOrVal, Round, SignedExtension, SignedMessage, VoteType,
};
use protocol::{
    BlockId, PeerId,
    committee::Committee,
    ledger::{
        commit::CommitCertificate,
        proposer::Rotation,
        signature::Signature,
        vote::{self, VoteKind},
        wire::{PolkaCertificate, RoundCertificate, RoundReason},
    },
};

/// A height of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Height(pub(super) u64);

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl engine::Height for Height {
    const ZERO: Self = Self(0);
    const INITIAL: Self = Self(1);

    fn increment_by(&self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }

    fn as_u64(&self) -> u64 {
        self.0
    }
}

/// Who votes. The identity, not the index in a committee: a node keeps it when the committee changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address(pub(super) PeerId);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl engine::Address for Address {}

/// What is voted on: a block's name. The block travels beside it, and whether it is valid is told explicitly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Value(pub(super) BlockId);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl engine::Value for Value {
    type Id = Self;

    fn id(&self) -> Self {
        *self
    }
}

/// A member as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validator {
    address: Address,
    weight: u64,
}

impl engine::Validator<Ledger> for Validator {
    fn address(&self) -> &Address {
        &self.address
    }

    fn public_key(&self) -> &PeerId {
        &self.address.0
    }

    fn voting_power(&self) -> u64 {
        self.weight
    }
}

/// A committee as the engine sees it: cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Members {
    /// INV: sorted by address.
    validators: Arc<[Validator]>,
    rotation: Arc<Rotation>,
    n_shards: u64,
}

impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        self.validators == other.validators
    }
}

impl Eq for Members {}

impl Members {
    pub(super) fn new(committee: &Committee) -> Self {
        let validators = committee.nodes().zip(committee.members()).map(|(node, member)| Validator {
            address: Address(member.peer),
            weight: u64::from(committee.weight(node)),
        });
        Self {
            validators: validators.collect(),
            rotation: Arc::new(Rotation::new(committee)),
            n_shards: u64::from(committee.n_shards()),
        }
    }

    /// Shards of a member; none if it is no member.
    pub(super) fn weight(&self, peer: &PeerId) -> Option<u64> {
        let position = self.validators.binary_search_by_key(&Address(*peer), |it| it.address).ok()?;
        self.validators.get(position).map(|it| it.weight)
    }

    pub(super) fn n_shards(&self) -> u64 {
        self.n_shards
    }

    pub(super) fn proposer(&self, height: u64, round: u32) -> &Validator {
        &self.validators[self.rotation.proposer(height, round).as_usize()]
    }

    pub(super) fn proposer_peer(&self, height: u64, round: u32) -> PeerId {
        self.proposer(height, round).address.0
    }
}

impl engine::ValidatorSet<Ledger> for Members {
    fn count(&self) -> usize {
        self.validators.len()
    }

    fn total_voting_power(&self) -> u64 {
        self.n_shards
    }

    fn get_by_address(&self, address: &Address) -> Option<&Validator> {
        let position = self.validators.binary_search_by_key(address, |it| it.address).ok()?;
        self.validators.get(position)
    }

    fn get_by_index(&self, index: usize) -> Option<&Validator> {
        self.validators.get(index)
    }
}

/// A proposal as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    height: Height,
    round: Round,
    value: Value,
    lock_round: Round,
    proposer: Address,
}

impl engine::Proposal<Ledger> for Proposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &Value {
        &self.value
    }

    fn take_value(self) -> Value {
        self.value
    }

    fn pol_round(&self) -> Round {
        self.lock_round
    }

    fn validator_address(&self) -> &Address {
        &self.proposer
    }
}

/// Blocks travel whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoPart;

impl engine::ProposalPart<Ledger> for NoPart {
    fn is_first(&self) -> bool {
        true
    }

    fn is_last(&self) -> bool {
        true
    }
}

/// A vote as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vote {
    height: Height,
    round: Round,
    kind: VoteType,
    value: NilOrVal<Value>,
    voter: Address,
}

impl engine::Vote<Ledger> for Vote {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<Value> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<Value> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Address {
        &self.voter
    }

    fn extension(&self) -> Option<&SignedExtension<Ledger>> {
        None
    }

    fn take_extension(&mut self) -> Option<SignedExtension<Ledger>> {
        None
    }

    fn extend(self, _: SignedExtension<Ledger>) -> Self {
        self
    }
}

/// Ed25519 by the nodes' identities. The engine never sees a private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identities;

/// Bytes that are no signature or key of this scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wrong number of bytes")]
pub(super) struct WrongLength;

impl engine::SigningScheme for Identities {
    type DecodingError = WrongLength;
    type Signature = Signature;
    type PublicKey = PeerId;
    type PrivateKey = ();

    fn decode_signature(bytes: &[u8]) -> Result<Signature, WrongLength> {
        bytes.try_into().map(Signature).map_err(|_| WrongLength)
    }

    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.0.to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<PeerId, WrongLength> {
        bytes.try_into().map(PeerId).map_err(|_| WrongLength)
    }

    fn encode_public_key(key: &PeerId) -> Vec<u8> {
        key.0.to_vec()
    }
}

/// The ledger, as what the engine is generic over.
#[derive(Clone, Debug)]
pub(super) struct Ledger;

impl Context for Ledger {
    type Address = Address;
    type Height = Height;
    type ProposalPart = NoPart;
    type Proposal = Proposal;
    type Validator = Validator;
    type ValidatorSet = Members;
    type Timeouts = LinearTimeouts;
    type Value = Value;
    type Vote = Vote;
    type Extension = ();
    type SigningScheme = Identities;

    fn select_proposer<'a>(&self, members: &'a Members, height: Height, round: Round) -> &'a Validator {
        members.proposer(height.0, round.as_u32().unwrap_or_default())
    }

    fn new_proposal(
        &self,
        height: Height,
        round: Round,
        value: Value,
        lock_round: Round,
        proposer: Address,
    ) -> Proposal {
        Proposal { height, round, value, lock_round, proposer }
    }

    fn new_prevote(&self, height: Height, round: Round, value: NilOrVal<Value>, voter: Address) -> Vote {
        Vote { height, round, kind: VoteType::Prevote, value, voter }
    }

    fn new_precommit(&self, height: Height, round: Round, value: NilOrVal<Value>, voter: Address) -> Vote {
        Vote { height, round, kind: VoteType::Precommit, value, voter }
    }
}

/// A round that has a number. Votes and proposals always are of one.
fn number(round: Round) -> u32 {
    round.as_u32().unwrap_or_default()
}

fn kind_of(kind: VoteType) -> VoteKind {
    match kind {
        VoteType::Prevote => VoteKind::Prevote,
        VoteType::Precommit => VoteKind::Precommit,
    }
}

const fn type_of(kind: VoteKind) -> VoteType {
    match kind {
        VoteKind::Prevote => VoteType::Prevote,
        VoteKind::Precommit => VoteType::Precommit,
    }
}

fn block_of(value: &NilOrVal<Value>) -> Option<BlockId> {
    match value {
        NilOrVal::Nil => None,
        NilOrVal::Val(Value(block)) => Some(*block),
    }
}

fn value_of(block: Option<BlockId>) -> NilOrVal<Value> {
    block.map_or(NilOrVal::Nil, |block| NilOrVal::Val(Value(block)))
}

/// The vote in the protocol's terms.
pub(super) fn vote_of(vote: &Vote) -> vote::Vote {
    vote::Vote {
        height: vote.height.0,
        round: number(vote.round),
        kind: kind_of(vote.kind),
        block: block_of(&vote.value),
        voter: vote.voter.0,
    }
}

/// The proposal in the protocol's terms.
pub(super) fn proposal_of(proposal: &Proposal) -> vote::Proposal {
    vote::Proposal {
        height: proposal.height.0,
        round: number(proposal.round),
        lock_round: proposal.lock_round.as_u32(),
        block: proposal.value.0,
        proposer: proposal.proposer.0,
    }
}

/// The signed vote in the protocol's terms.
pub(super) fn signed_vote_of(signed: &engine::SignedVote<Ledger>) -> vote::SignedVote {
    vote::SignedVote { vote: vote_of(&signed.message), signature: signed.signature }
}

/// The signed proposal in the protocol's terms.
pub(super) fn signed_proposal_of(signed: &engine::SignedProposal<Ledger>) -> vote::SignedProposal {
    vote::SignedProposal { proposal: proposal_of(&signed.message), signature: signed.signature }
}

/// The signed vote in the engine's terms.
pub(super) fn to_signed_vote(signed: &vote::SignedVote) -> engine::SignedVote<Ledger> {
    let vote::Vote { height, round, kind, block, voter } = signed.vote;
    let vote = Vote {
        height: Height(height),
        round: Round::new(round),
        kind: type_of(kind),
        value: value_of(block),
        voter: Address(voter),
    };
    SignedMessage::new(vote, signed.signature)
}

/// The signed proposal in the engine's terms.
pub(super) fn to_signed_proposal(signed: &vote::SignedProposal) -> engine::SignedProposal<Ledger> {
    let vote::Proposal { height, round, lock_round, block, proposer } = signed.proposal;
    let proposal = Proposal {
        height: Height(height),
        round: Round::new(round),
        value: Value(block),
        lock_round: Round::from(lock_round),
        proposer: Address(proposer),
    };
    SignedMessage::new(proposal, signed.signature)
}

/// The prevote certificate in the protocol's terms.
pub(super) fn polka_of(polka: &engine::PolkaCertificate<Ledger>) -> PolkaCertificate {
    let signatures = polka.polka_signatures.iter().map(|it| (it.address.0, it.signature)).collect();
    PolkaCertificate {
        height: polka.height.0,
        round: number(polka.round),
        block: polka.value_id.0,
        signatures,
    }
}

/// The prevote certificate in the engine's terms.
pub(super) fn to_polka(polka: &PolkaCertificate) -> engine::PolkaCertificate<Ledger> {
    let signatures = polka.signatures.iter();
    engine::PolkaCertificate {
        height: Height(polka.height),
        round: Round::new(polka.round),
        value_id: Value(polka.block),
        polka_signatures: signatures
            .map(|(voter, signature)| engine::PolkaSignature::new(Address(*voter), *signature))
            .collect(),
    }
}

/// The round certificate in the protocol's terms.
pub(super) fn round_of(certificate: &engine::RoundCertificate<Ledger>) -> RoundCertificate {
    let votes = certificate.round_signatures.iter();
    RoundCertificate {
        height: certificate.height.0,
        round: number(certificate.round),
        reason: match certificate.cert_type {
            engine::RoundCertificateType::Skip => RoundReason::Skip,
            engine::RoundCertificateType::Precommit => RoundReason::Precommits,
        },
        votes: votes
            .map(|it| (kind_of(it.vote_type), block_of(&it.value_id), it.address.0, it.signature))
            .collect(),
    }
}

/// The round certificate in the engine's terms.
pub(super) fn to_round(certificate: &RoundCertificate) -> engine::RoundCertificate<Ledger> {
    let votes = certificate.votes.iter();
    engine::RoundCertificate {
        height: Height(certificate.height),
        round: Round::new(certificate.round),
        cert_type: match certificate.reason {
            RoundReason::Skip => engine::RoundCertificateType::Skip,
            RoundReason::Precommits => engine::RoundCertificateType::Precommit,
        },
        round_signatures: votes
            .map(|(kind, block, voter, signature)| {
                engine::RoundSignature::new(type_of(*kind), value_of(*block), Address(*voter), *signature)
            })
            .collect(),
    }
}

/// The commit certificate in the protocol's terms; none if a signer is no member or appears twice.
pub(super) fn commit_of(
    certificate: &engine::CommitCertificate<Ledger>,
    committee: &Committee,
) -> Option<CommitCertificate> {
    let signatures = certificate.commit_signatures.iter();
    let by_node: Option<Vec<_>> =
        signatures.map(|it| Some((committee.index_of(&it.address.0)?, it.signature))).collect();
    let round = number(certificate.round);
    CommitCertificate::new(certificate.height.0, round, certificate.value_id.0, by_node?).ok()
}
