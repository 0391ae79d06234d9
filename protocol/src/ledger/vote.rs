//! What members of the committee sign to order blocks.
//!
//! # What is signed
//!
//! `"floe/v1/consensus-vote" || 0 || network ID || height (8 bytes) || round (4) || kind (4) || 0, or 1 and a value (1 or
//! 33)`, as for every signed statement ([`crate::certificate`]).
//!
//! | kind | number | value |
//! |---|---|---|
//! | proposal | 0 | [`proposal_value`]: a hash over all that the proposal says |
//! | prevote | 1 | the block's ID, or none |
//! | precommit | 2 | the block's ID, or none |
//!
//! So two signatures of one member for one height, round and kind, with two values, always contradict each other.
//! [`vote_bytes`] and [`proposal_bytes`] are the only functions that make these bytes.

use std::sync::LazyLock;

use bincode::{Decode, Encode};

use super::signature::{Signature, SigningKey, VerifyError, signed_text};
use crate::{
    codec,
    hash::{Domain, Hash},
    ids::{BlockId, NetworkId, PeerId},
};

/// Name of votes and proposals among signed statements.
const NAME: &str = "consensus-vote";
/// Number of proposals among what is signed in a round.
const PROPOSAL: u32 = 0;

static PROPOSAL_VALUE: LazyLock<Domain> = LazyLock::new(|| Domain::new("floe/v1/consensus-proposal"));

/// The two votes of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum VoteKind {
    /// I would accept this block.
    Prevote,
    /// I saw a quorum of prevotes for this block.
    Precommit,
}

impl VoteKind {
    /// Its number among what is signed in a round.
    const fn number(self) -> u32 {
        match self {
            Self::Prevote => 1,
            Self::Precommit => 2,
        }
    }
}

fn signed_bytes(network: &NetworkId, height: u64, round: u32, kind: u32, value: Option<[u8; 32]>) -> Vec<u8> {
    signed_text(NAME, network, &codec::encode(&(height, round, kind, value)))
}

/// The bytes that a vote's signature is over; no block is a vote for none.
#[must_use]
pub fn vote_bytes(
    network: &NetworkId,
    height: u64,
    round: u32,
    kind: VoteKind,
    block: Option<BlockId>,
) -> Vec<u8> {
    signed_bytes(network, height, round, kind.number(), block.map(|block| block.0))
}

/// The bytes that a proposal's signature is over.
#[must_use]
pub fn proposal_bytes(network: &NetworkId, proposal: &Proposal) -> Vec<u8> {
    let value = Some(proposal_value(proposal).0);
    signed_bytes(network, proposal.height, proposal.round, PROPOSAL, value)
}

/// What a proposal is for, as a value that is signed: a hash over the earlier round that it names, and the block.
#[must_use]
pub fn proposal_value(proposal: &Proposal) -> Hash {
    PROPOSAL_VALUE.hash(&codec::encode(&(proposal.lock_round, proposal.block)))
}

/// A vote of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Vote {
    /// Height that is voted on.
    pub height: u64,
    /// Round within the height.
    pub round: u32,
    /// Which of the round's votes.
    pub kind: VoteKind,
    /// The block voted for, or none of this round.
    pub block: Option<BlockId>,
    /// Who votes. Not part of what is signed: the key says it.
    pub voter: PeerId,
}

/// A vote with its signature: a claim until verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct SignedVote {
    /// The vote.
    pub vote: Vote,
    /// The voter's signature of [`vote_bytes`].
    pub signature: Signature,
}

impl Vote {
    /// The bytes to sign on this network.
    #[must_use]
    pub fn bytes(&self, network: &NetworkId) -> Vec<u8> {
        vote_bytes(network, self.height, self.round, self.kind, self.block)
    }

    /// Signs the vote.
    #[must_use]
    pub fn sign(self, network: &NetworkId, key: &SigningKey) -> SignedVote {
        SignedVote { signature: key.sign(&self.bytes(network)), vote: self }
    }
}

impl SignedVote {
    /// Checks that the voter signed it. Says nothing of whether the voter may vote.
    ///
    /// # Errors
    ///
    /// If it did not; whoever sent it is at fault.
    pub fn verify(&self, network: &NetworkId) -> Result<(), VerifyError> {
        self.signature.verify(self.vote.voter, &self.vote.bytes(network))
    }
}

/// A member's proposal of a block for a round in which it is its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Proposal {
    /// Height proposed for.
    pub height: u64,
    /// Round within the height.
    pub round: u32,
    /// An earlier round in which a quorum prevoted for the block, if it is proposed again for that.
    pub lock_round: Option<u32>,
    /// The block.
    pub block: BlockId,
    /// Who proposes. Not part of what is signed: the key says it.
    pub proposer: PeerId,
}

/// A proposal with its signature: a claim until verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct SignedProposal {
    /// The proposal.
    pub proposal: Proposal,
    /// The proposer's signature of [`proposal_bytes`].
    pub signature: Signature,
}

impl Proposal {
    /// Signs the proposal.
    #[must_use]
    pub fn sign(self, network: &NetworkId, key: &SigningKey) -> SignedProposal {
        SignedProposal { signature: key.sign(&proposal_bytes(network, &self)), proposal: self }
    }
}

impl SignedProposal {
    /// Checks that the proposer signed it. Says nothing of whose turn it is.
    ///
    /// # Errors
    ///
    /// If it did not; whoever sent it is at fault.
    pub fn verify(&self, network: &NetworkId) -> Result<(), VerifyError> {
        self.signature.verify(self.proposal.proposer, &proposal_bytes(network, &self.proposal))
    }
}

/// Two signatures of one member that exclude each other. Anyone can check it: no honest member makes both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Equivocation {
    /// Two votes of the same kind in one round.
    Votes(SignedVote, SignedVote),
    /// Two proposals for one round.
    Proposals(SignedProposal, SignedProposal),
}

/// Why two signatures do not convict anyone. Whoever made the accusation is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EquivocationError {
    /// Both say the same: there is no contradiction.
    #[error("both signatures are for the same")]
    Same,
    /// They are of different members, heights, rounds or kinds, which an honest member may sign.
    #[error("the signatures are not of one member for one vote or turn")]
    Unrelated,
    /// One of them is not the accused's.
    #[error("a signature of {accused} does not verify")]
    Forged {
        /// Who was accused.
        accused: PeerId,
        /// What the check said.
        #[source]
        source: VerifyError,
    },
}

impl Equivocation {
    /// Who is accused.
    #[must_use]
    pub const fn accused(&self) -> PeerId {
        match self {
            Self::Votes(first, _) => first.vote.voter,
            Self::Proposals(first, _) => first.proposal.proposer,
        }
    }

    /// The height at which it happened: the committee of that height says whether the accused was a member.
    #[must_use]
    pub const fn height(&self) -> u64 {
        match self {
            Self::Votes(first, _) => first.vote.height,
            Self::Proposals(first, _) => first.proposal.height,
        }
    }

    /// Checks that the accused signed both, and that both exclude each other.
    ///
    /// # Errors
    ///
    /// If they prove nothing.
    pub fn verify(&self, network: &NetworkId) -> Result<(), EquivocationError> {
        let (same, related) = match self {
            Self::Votes(SignedVote { vote: a, .. }, SignedVote { vote: b, .. }) => {
                (a == b, Vote { block: a.block, ..*b } == *a)
            }
            Self::Proposals(SignedProposal { proposal: a, .. }, SignedProposal { proposal: b, .. }) => {
                (a == b, (a.height, a.round, a.proposer) == (b.height, b.round, b.proposer))
            }
        };
        if same {
            return Err(EquivocationError::Same);
        }
        if !related {
            return Err(EquivocationError::Unrelated);
        }
        let verified = match self {
            Self::Votes(a, b) => a.verify(network).and_then(|()| b.verify(network)),
            Self::Proposals(a, b) => a.verify(network).and_then(|()| b.verify(network)),
        };
        verified.map_err(|source| EquivocationError::Forged { accused: self.accused(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([7; 32]);

    fn vote(key: &SigningKey, block: Option<u8>) -> Vote {
        let block = block.map(|byte| BlockId([byte; 32]));
        Vote { height: 5, round: 1, kind: VoteKind::Precommit, block, voter: key.peer() }
    }

    #[test]
    fn the_signed_bytes_are_as_documented() {
        let bytes = vote_bytes(&NETWORK, 0x0102, 3, VoteKind::Precommit, Some(BlockId([9; 32])));
        let mut expected = b"floe/v1/consensus-vote\0".to_vec();
        expected.extend([7; 32]);
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1]);
        expected.extend([9; 32]);
        assert_eq!(bytes, expected);
        let none = vote_bytes(&NETWORK, 1, 0, VoteKind::Prevote, None);
        assert!(none.ends_with(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]));
    }

    #[test]
    fn each_field_changes_the_signed_bytes() {
        let key = SigningKey::from_secret(&[1; 32]);
        let base = vote(&key, Some(1));
        let others = [
            Vote { height: 6, ..base },
            Vote { round: 2, ..base },
            Vote { kind: VoteKind::Prevote, ..base },
            Vote { block: None, ..base },
            Vote { block: Some(BlockId([2; 32])), ..base },
        ];
        for other in others {
            assert_ne!(other.bytes(&NETWORK), base.bytes(&NETWORK), "{other:?}");
        }
        assert_ne!(base.bytes(&NetworkId([8; 32])), base.bytes(&NETWORK));
        let signed = base.sign(&NETWORK, &key);
        assert_eq!(signed.verify(&NETWORK), Ok(()));
        let elsewhere = SignedVote { vote: others[0], ..signed };
        assert_eq!(elsewhere.verify(&NETWORK), Err(VerifyError::Signature));
    }

    #[test]
    fn two_different_votes_convict_and_nothing_else_does() {
        let (key, other) = (SigningKey::from_secret(&[1; 32]), SigningKey::from_secret(&[2; 32]));
        let first = vote(&key, Some(1)).sign(&NETWORK, &key);
        let second = vote(&key, None).sign(&NETWORK, &key);
        assert_eq!(Equivocation::Votes(first, second).verify(&NETWORK), Ok(()));
        assert_eq!(Equivocation::Votes(first, second).accused(), key.peer());
        assert_eq!(Equivocation::Votes(first, first).verify(&NETWORK), Err(EquivocationError::Same));
        let later = Vote { round: 2, ..vote(&key, None) }.sign(&NETWORK, &key);
        let of_another = vote(&other, None).sign(&NETWORK, &other);
        for unrelated in [later, of_another] {
            let evidence = Equivocation::Votes(first, unrelated);
            assert_eq!(evidence.verify(&NETWORK), Err(EquivocationError::Unrelated));
        }
        let forged = SignedVote { signature: first.signature, ..second };
        let error = Equivocation::Votes(first, forged).verify(&NETWORK);
        assert!(matches!(error, Err(EquivocationError::Forged { accused, .. }) if accused == key.peer()));
    }

    #[test]
    fn two_proposals_for_one_turn_convict() {
        let key = SigningKey::from_secret(&[1; 32]);
        let proposal =
            Proposal { height: 1, round: 0, lock_round: None, block: BlockId([1; 32]), proposer: key.peer() };
        let first = proposal.sign(&NETWORK, &key);
        let second = Proposal { block: BlockId([2; 32]), ..proposal }.sign(&NETWORK, &key);
        assert_eq!(Equivocation::Proposals(first, second).verify(&NETWORK), Ok(()));
        // The same block for another reason is another proposal, too.
        let third = Proposal { lock_round: Some(0), ..proposal }.sign(&NETWORK, &key);
        assert_eq!(Equivocation::Proposals(first, third).verify(&NETWORK), Ok(()));
        let next = Proposal { round: 1, ..proposal }.sign(&NETWORK, &key);
        let evidence = Equivocation::Proposals(first, next);
        assert_eq!(evidence.verify(&NETWORK), Err(EquivocationError::Unrelated));
    }
}
