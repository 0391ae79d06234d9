//! Whether what the engine is shown was signed by whom it says.

use std::collections::BTreeSet;

use arc_malachitebft_core_types::{ThresholdParam, ThresholdParams};
use protocol::{
    NetworkId, PeerId,
    ledger::{
        signature::{Signature, VerifyError},
        vote::{Vote, VoteKind},
        wire::{PolkaCertificate, RoundCertificate, RoundReason},
    },
};

use super::context::Members;

/// Why votes do not make a certificate; whoever sent it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// A member appears twice.
    #[error("{voter} votes twice")]
    Duplicate {
        /// The member.
        voter: PeerId,
    },
    /// A voter is no member.
    #[error("{voter} is no member")]
    Stranger {
        /// The voter.
        voter: PeerId,
    },
    /// A prevote is among precommits.
    #[error("a prevote of {voter} is among the precommits")]
    Prevote {
        /// The voter.
        voter: PeerId,
    },
    /// Too few shards stand behind it.
    #[error("signed by {got} of the {required} shards needed")]
    TooLittleWeight {
        /// Shards of the voters.
        got: u64,
        /// Shards needed.
        required: u64,
    },
    /// A vote is not its voter's.
    #[error("signature of {voter} does not verify")]
    Signature {
        /// The voter.
        voter: PeerId,
        /// What the check said.
        #[source]
        source: VerifyError,
    },
}

/// A vote by its signer, as certificates hold them.
type Signed = (Vote, Signature);

fn verify_votes(
    network: &NetworkId,
    members: &Members,
    votes: &[Signed],
    threshold: ThresholdParam,
) -> Result<(), Unproven> {
    let mut voters: BTreeSet<PeerId> = BTreeSet::new();
    let mut got = 0;
    for &(Vote { voter, .. }, _) in votes {
        if !voters.insert(voter) {
            return Err(Unproven::Duplicate { voter });
        }
        got += members.weight(&voter).ok_or(Unproven::Stranger { voter })?;
    }
    let total = members.n_shards();
    if !threshold.is_met(got, total) {
        return Err(Unproven::TooLittleWeight { got, required: threshold.min_expected(total) });
    }
    // Signatures last: they cost most.
    votes.iter().try_for_each(|(vote, signature)| {
        let verified = signature.verify(vote.voter, &vote.bytes(network));
        verified.map_err(|source| Unproven::Signature { voter: vote.voter, source })
    })
}

/// Checks that a quorum prevoted for the block in that round.
pub(super) fn verify_polka(
    network: &NetworkId,
    members: &Members,
    polka: &PolkaCertificate,
) -> Result<(), Unproven> {
    let &PolkaCertificate { height, round, block, .. } = polka;
    let votes: Vec<Signed> = polka
        .signatures
        .iter()
        .map(|&(voter, signature)| {
            (Vote { height, round, kind: VoteKind::Prevote, block: Some(block), voter }, signature)
        })
        .collect();
    verify_votes(network, members, &votes, ThresholdParams::default().quorum)
}

/// Checks that the votes justify the round: an honest shard's of any kind, or a quorum's precommits.
pub(super) fn verify_round(
    network: &NetworkId,
    members: &Members,
    certificate: &RoundCertificate,
) -> Result<(), Unproven> {
    let &RoundCertificate { height, round, reason, .. } = certificate;
    let votes: Vec<Signed> = certificate
        .votes
        .iter()
        .map(|&(kind, block, voter, signature)| (Vote { height, round, kind, block, voter }, signature))
        .collect();
    let ThresholdParams { quorum, honest } = ThresholdParams::default();
    let threshold = match reason {
        RoundReason::Skip => honest,
        RoundReason::Precommits => {
            let prevote = votes.iter().find(|(vote, _)| vote.kind == VoteKind::Prevote);
            if let Some((vote, _)) = prevote {
                return Err(Unproven::Prevote { voter: vote.voter });
            }
            quorum
        }
    };
    verify_votes(network, members, &votes, threshold)
}
