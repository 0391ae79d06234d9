//! What a member signs in consensus, and the proof that it signed two things that exclude each other.
//!
//! Consensus signs with the key by which a node is known as a peer, over exactly [`vote_bytes`], so that whoever sees two
//! conflicting votes can show them to the ledger.

use bincode::{Decode, Encode};

use super::signature::{BadSignature, Signature, signed_text};
use crate::{
    codec,
    hash::Hash,
    ids::{AccountId, NetworkId, PeerId},
};

/// Sets votes apart from everything else that is signed.
const NAME: &str = "consensus-vote";

/// What a vote is for. Of each kind a member signs at most one value in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum VoteKind {
    /// A proposer's value for the round. Where a proposal says more than the value (the round it was first proposed
    /// in), its value here is a hash over all of it.
    Proposal,
    /// A vote for a value that is valid.
    Prevote,
    /// A vote for a value that a quorum prevoted.
    Precommit,
}

/// The bytes that a member signs for a vote: `"floe/v1/consensus-vote" || 0 || network ID || height (8 bytes) || round
/// (4 bytes) || kind (4 bytes) || 0, or 1 and the 32 bytes of the value`. No value is a vote for nil.
#[must_use]
pub fn vote_bytes(
    network: &NetworkId,
    height: u64,
    round: u32,
    kind: VoteKind,
    value: Option<Hash>,
) -> Vec<u8> {
    signed_text(NAME, network, &codec::encode(&(height, round, kind, value)))
}

/// A value, nil included, with a member's signature of its vote for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedValue {
    /// The value; `None` is nil.
    pub value: Option<Hash>,
    /// Over [`vote_bytes`].
    pub signature: Signature,
}

/// Two votes of one node for one round that no honest node gives both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Equivocation {
    /// Who voted.
    pub node: PeerId,
    /// The height.
    pub height: u64,
    /// The round.
    pub round: u32,
    /// What the votes were for.
    pub kind: VoteKind,
    /// One vote.
    pub first: SignedValue,
    /// The other, for another value.
    pub second: SignedValue,
}

/// Why two votes prove nothing. Whoever reported them is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EquivocationError {
    /// Voting twice for the same is no fault.
    #[error("both votes are for the same value")]
    SameValue,
    /// The node did not sign one of them.
    #[error("a vote was not signed by the node")]
    Signature(#[from] BadSignature),
}

impl Equivocation {
    /// Checks that the node signed both votes and that they exclude each other.
    ///
    /// # Errors
    ///
    /// If it did not, or they do not.
    pub fn verify(&self, network: &NetworkId) -> Result<(), EquivocationError> {
        if self.first.value == self.second.value {
            return Err(EquivocationError::SameValue);
        }
        let key = AccountId::from(self.node);
        for vote in [&self.first, &self.second] {
            let text = vote_bytes(network, self.height, self.round, self.kind, vote.value);
            vote.signature.verify(&text, &key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::signature::SecretKey, *};

    const NETWORK: NetworkId = NetworkId([7; 32]);

    fn signed(key: &SecretKey, network: &NetworkId, value: Option<Hash>) -> SignedValue {
        let text = vote_bytes(network, 5, 2, VoteKind::Precommit, value);
        SignedValue { value, signature: key.sign(&text) }
    }

    #[test]
    fn the_signed_text_is_what_it_always_was() {
        let text = vote_bytes(&NETWORK, 5, 2, VoteKind::Precommit, Some(Hash([9; 32])));
        let expected = [
            &b"floe/v1/consensus-vote\0"[..],
            &[7; 32],
            &[5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1],
            &[9; 32],
        ];
        assert_eq!(text, expected.concat());
        let nil = vote_bytes(&NETWORK, 5, 2, VoteKind::Proposal, None);
        assert_eq!(nil[nil.len() - 5..], [0, 0, 0, 0, 0]);
    }

    #[test]
    fn only_two_different_votes_of_the_node_are_a_proof() {
        let (key, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let [a, b] = [1, 2].map(|byte| Some(Hash([byte; 32])));
        let proof = |first, second| Equivocation {
            node: PeerId(key.account().0),
            height: 5,
            round: 2,
            kind: VoteKind::Precommit,
            first,
            second,
        };
        let good = proof(signed(&key, &NETWORK, a), signed(&key, &NETWORK, b));
        assert_eq!(good.verify(&NETWORK), Ok(()));
        assert_eq!(proof(signed(&key, &NETWORK, None), signed(&key, &NETWORK, b)).verify(&NETWORK), Ok(()));
        let same = proof(signed(&key, &NETWORK, a), signed(&key, &NETWORK, a));
        assert_eq!(same.verify(&NETWORK), Err(EquivocationError::SameValue));
        let refused = Err(BadSignature { account: key.account() }.into());
        assert_eq!(proof(signed(&key, &NETWORK, a), signed(&other, &NETWORK, b)).verify(&NETWORK), refused);
        assert_eq!(good.verify(&NetworkId([8; 32])), refused);
        assert_eq!(Equivocation { round: 3, ..good }.verify(&NETWORK), refused);
        assert_eq!(Equivocation { height: 6, ..good }.verify(&NETWORK), refused);
        assert_eq!(Equivocation { kind: VoteKind::Prevote, ..good }.verify(&NETWORK), refused);
    }
}
