//! Whether what the engine is shown was signed by whom it says.

use std::collections::BTreeSet;

use arc_malachitebft_core_types::{CertificateError, ThresholdParam, ThresholdParams};
use protocol::{
    NetworkId, PeerId,
    ledger::{
        signature::Signature,
        vote::{Vote, VoteKind},
        wire::{PolkaCertificate, RoundCertificate, RoundReason},
    },
};

use super::context::{Address, Ledger, Members};

/// A vote by its signer, as certificates hold them.
type Signed = (Vote, Signature);

fn verify_votes(
    network: &NetworkId,
    members: &Members,
    votes: &[Signed],
    threshold: ThresholdParam,
) -> Result<(), CertificateError<Ledger>> {
    let mut voters: BTreeSet<PeerId> = BTreeSet::new();
    let mut signed = 0;
    for (Vote { voter, .. }, _) in votes {
        if !voters.insert(*voter) {
            return Err(CertificateError::DuplicateVote(Address(*voter)));
        }
        signed += members.weight(voter).ok_or(CertificateError::UnknownValidator(Address(*voter)))?;
    }
    let total = members.n_shards();
    if !threshold.is_met(signed, total) {
        let expected = threshold.min_expected(total);
        return Err(CertificateError::NotEnoughVotingPower { signed, total, expected });
    }
    // Signatures last: they cost most.
    let all_signed =
        votes.iter().all(|(vote, signature)| signature.verify(&vote.voter, &vote.bytes(network)).is_ok());
    if all_signed { Ok(()) } else { Err(CertificateError::VerificationError(None)) }
}

/// Checks that a quorum prevoted for the block in that round.
pub(super) fn verify_polka(
    network: &NetworkId,
    members: &Members,
    polka: &PolkaCertificate,
) -> Result<(), CertificateError<Ledger>> {
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
) -> Result<(), CertificateError<Ledger>> {
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
                return Err(CertificateError::InvalidVoteType(Address(vote.voter)));
            }
            quorum
        }
    };
    verify_votes(network, members, &votes, threshold)
}
