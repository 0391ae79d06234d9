//! The proof that a committee decided on a block: precommits worth a quorum of shards.
//!
//! # Invariants
//!
//! A certificate has one binary form for its signatures: signers ascend, and nobody signs twice. Which members' signatures
//! it holds is up to whoever made it, so two certificates of one block may differ; see [`super::block`] for how everyone
//! comes to agree on one.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode, de::Decoder, enc::Encoder};

use super::{
    signature::{Signature, VerifyError},
    vote::{VoteKind, vote_bytes},
};
use crate::{
    certificate::Threshold,
    codec::{self, DecodeError},
    committee::Committee,
    ids::{BlockId, NetworkId, NodeIndex},
    quorum::N_SHARDS_MAX,
};

/// Most signatures: one of each possible member.
pub const SIGNATURES_MAX: u16 = N_SHARDS_MAX;
/// Most bytes of a certificate: 52, and 66 for each signature.
pub const COMMIT_BYTES_MAX: usize = 66_052;
/// Limit for decoding one: signatures take a few times their bytes in memory.
const DECODE_LIMIT: usize = 4 * COMMIT_BYTES_MAX;

/// Precommits for one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitCertificate {
    height: u64,
    round: u32,
    block_id: BlockId,
    /// INV: at most [`SIGNATURES_MAX`].
    signatures: BTreeMap<NodeIndex, Signature>,
}

/// Why a certificate proves nothing. Unless it was made here, whoever sent it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// It names a signer that is no member.
    #[error("signer {signer} is not one of the {n_members} members")]
    UnknownSigner {
        /// The last such signer.
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
    /// A signature is not that of the member it is ascribed to.
    #[error("signature of member {signer} does not verify")]
    BadSignature {
        /// The member.
        signer: NodeIndex,
        /// What the check said.
        #[source]
        source: VerifyError,
    },
    /// One member appears twice.
    #[error("member {signer} signed twice")]
    Duplicate {
        /// The member.
        signer: NodeIndex,
    },
    /// There are more signatures than members can be.
    #[error("{got} signatures, at most {SIGNATURES_MAX} allowed")]
    TooMany {
        /// Signatures given.
        got: usize,
    },
}

impl CommitCertificate {
    /// Collects signatures, in any order. Nothing is verified yet.
    ///
    /// # Errors
    ///
    /// If a member appears twice or there are too many.
    pub fn new(
        height: u64,
        round: u32,
        block_id: BlockId,
        signatures: impl IntoIterator<Item = (NodeIndex, Signature)>,
    ) -> Result<Self, CommitError> {
        let mut by_signer = BTreeMap::new();
        for (signer, signature) in signatures {
            if by_signer.insert(signer, signature).is_some() {
                return Err(CommitError::Duplicate { signer });
            }
        }
        let got = by_signer.len();
        if got > usize::from(SIGNATURES_MAX) {
            return Err(CommitError::TooMany { got });
        }
        Ok(Self { height, round, block_id, signatures: by_signer })
    }

    /// Decodes the canonical form.
    ///
    /// # Errors
    ///
    /// If the bytes are not the canonical form of a certificate; whoever sent them is at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > COMMIT_BYTES_MAX {
            return Err(DecodeError::TooLong { got: bytes.len(), limit: COMMIT_BYTES_MAX });
        }
        codec::decode_exact::<Self, DECODE_LIMIT>(bytes)
    }

    /// Height of the block.
    #[must_use]
    pub const fn height(&self) -> u64 {
        self.height
    }

    /// Round in which it was decided.
    #[must_use]
    pub const fn round(&self) -> u32 {
        self.round
    }

    /// The block.
    #[must_use]
    pub const fn block_id(&self) -> BlockId {
        self.block_id
    }

    /// The signatures by member.
    #[must_use]
    pub const fn signatures(&self) -> &BTreeMap<NodeIndex, Signature> {
        &self.signatures
    }

    /// Checks that a quorum of `committee`, which must be the one that signs this height, decided on the block, and
    /// returns its weight in shards.
    ///
    /// Every signature must verify, also those beyond a quorum: a block names them as a record of who took part.
    ///
    /// # Errors
    ///
    /// If a signer is no member, the weight is no quorum, or a signature does not verify.
    pub fn verify(&self, network: &NetworkId, committee: &Committee) -> Result<u16, CommitError> {
        let n_members = committee.n_members();
        if let Some((&signer, _)) = self.signatures.last_key_value()
            && signer.0 >= n_members
        {
            return Err(CommitError::UnknownSigner { signer, n_members });
        }
        let signers: BTreeSet<NodeIndex> = self.signatures.keys().copied().collect();
        let (got, required) = (committee.weight_of(&signers), Threshold::Quorum.weight(committee));
        if got < required {
            return Err(CommitError::TooLittleWeight { got, required });
        }
        let message = vote_bytes(network, self.height, self.round, VoteKind::Precommit, Some(self.block_id));
        for ((signer, signature), member) in
            self.signatures.iter().filter_map(|(node, it)| Some(((node, it), committee.member(*node)?)))
        {
            signature
                .verify(member.peer, &message)
                .map_err(|source| CommitError::BadSignature { signer: *signer, source })?;
        }
        Ok(got)
    }
}

impl Encode for CommitCertificate {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        (self.height, self.round, self.block_id).encode(encoder)?;
        let signatures: Vec<(NodeIndex, Signature)> =
            self.signatures.iter().map(|(signer, signature)| (*signer, *signature)).collect();
        signatures.encode(encoder)
    }
}

impl<C> Decode<C> for CommitCertificate {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, bincode::error::DecodeError> {
        let (height, round, block_id) = <(u64, u32, BlockId)>::decode(decoder)?;
        let n = u64::decode(decoder)?;
        if n > u64::from(SIGNATURES_MAX) {
            return Err(bincode::error::DecodeError::Other("more signatures than members"));
        }
        let mut signatures = BTreeMap::new();
        for _ in 0..n {
            let (signer, signature) = <(NodeIndex, Signature)>::decode(decoder)?;
            let ascends = signatures.last_key_value().is_none_or(|(last, _)| *last < signer);
            if !ascends {
                return Err(bincode::error::DecodeError::Other("signers twice or out of order"));
            }
            signatures.insert(signer, signature);
        }
        Ok(Self { height, round, block_id, signatures })
    }
}

bincode::impl_borrow_decode!(CommitCertificate);
