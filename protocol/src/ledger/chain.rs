//! Following the ledger from the genesis alone: for clients, joining nodes, and anyone else who trusts no node.
//!
//! ```text
//! genesis committee --certifies--> header with next_committee --certifies--> ... --> head
//! ```
//!
//! Only the headers at which the committee changes are needed, and the one at which to end: a header names the committee
//! that signs it, so leaving one out that changed the committee is noticed.
//!
//! A certificate proves order, not freshness: whoever wants the newest head asks several nodes. And it proves only as much
//! as the committee's keys are secret: a chain that starts long ago is best started from a recent checkpoint
//! ([`TrustedChain::from_checkpoint`]).

use std::sync::Arc;

use super::{
    block::{BLOCK_VERSION, Header, committee_hash, genesis_id},
    commit::{CommitCertificate, CommitError},
};
use crate::{
    committee::Committee,
    hash::Hash,
    ids::{BlockId, Epoch, NetworkId},
};

/// A chain verified up to its head.
#[derive(Clone, Debug)]
pub struct TrustedChain {
    network: NetworkId,
    /// Height of the head; 0 before the first block.
    height: u64,
    id: BlockId,
    time_ms: u64,
    state_root: Option<Hash>,
    /// The committee that signs the heights after the head.
    committee: Arc<Committee>,
    /// INV: [`committee_hash`] of `committee`.
    committee_hash: Hash,
}

/// Why a header was not accepted. Nothing has changed. Whoever sent header, certificate and committee is at fault, except
/// where another is named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdvanceError {
    /// It is of a later version than this program knows. Nobody is at fault: update.
    #[error("header of version {got}, this program reads version {BLOCK_VERSION}")]
    Version {
        /// Version it has.
        got: u16,
    },
    /// It belongs to another network; whoever asked may have asked the wrong node.
    #[error("header of network {got}, required is {required}")]
    Network {
        /// Network it names.
        got: NetworkId,
        /// Network that is followed.
        required: NetworkId,
    },
    /// It is not after the head: nothing to learn, and nobody at fault.
    #[error("header of height {got} is not after the head at height {head}")]
    NotAfter {
        /// Height it has.
        got: u64,
        /// Height of the head.
        head: u64,
    },
    /// The certificate is for another block.
    #[error(
        "the certificate is for block {got} at height {got_height}, the header is block {required} at height {height}"
    )]
    OtherBlock {
        /// The block certified.
        got: BlockId,
        /// Its height.
        got_height: u64,
        /// The header's block.
        required: BlockId,
        /// Its height.
        height: u64,
    },
    /// It is signed by another committee than the last one known: headers in between, at which the committee changed,
    /// were left out, or it belongs to a fork.
    #[error(
        "header of height {height} is signed by a committee of epoch {got}, the last one known is of epoch {known}: a change of the committee is missing"
    )]
    Gap {
        /// Height of the header.
        height: u64,
        /// Epoch it names.
        got: Epoch,
        /// Epoch of the last committee known.
        known: Epoch,
    },
    /// It is the next header but follows another block.
    #[error("header of height {height} follows {got}, the head is {required}")]
    Parent {
        /// Height of the header.
        height: u64,
        /// The parent it names.
        got: BlockId,
        /// The head.
        required: BlockId,
    },
    /// Its time is not after that of the head.
    #[error("block time {got_ms} ms is not after {head_ms} ms")]
    Time {
        /// Its time.
        got_ms: u64,
        /// Time of the head.
        head_ms: u64,
    },
    /// The certificate does not hold.
    #[error("the committee of epoch {epoch} did not certify the header")]
    Certificate {
        /// Epoch of the committee that should have.
        epoch: Epoch,
        /// What is wrong with it.
        #[source]
        source: CommitError,
    },
    /// It changes the committee, but the new one was not given.
    #[error("header of height {height} changes the committee, but the new one is missing")]
    CommitteeMissing {
        /// Height of the header.
        height: u64,
    },
    /// The committee given is not the one that the header puts in place.
    #[error("the committee of epoch {got} is not the one that the header of height {height} puts in place")]
    CommitteeMismatch {
        /// Height of the header.
        height: u64,
        /// Epoch of the committee given.
        got: Epoch,
    },
}

impl TrustedChain {
    /// Starts from a genesis, which is trusted.
    #[must_use]
    pub fn from_genesis(network: NetworkId, committee: impl Into<Arc<Committee>>) -> Self {
        let committee = committee.into();
        let committee_hash = committee_hash(&committee);
        let id = genesis_id(&network);
        Self { network, height: 0, id, time_ms: 0, state_root: None, committee, committee_hash }
    }

    /// Starts from a header that is trusted, and the committee that signs the heights after it.
    ///
    /// # Errors
    ///
    /// If the header does not put that committee in place, or is of an unknown version.
    pub fn from_checkpoint(header: &Header, committee: Committee) -> Result<Self, AdvanceError> {
        if header.version != BLOCK_VERSION {
            return Err(AdvanceError::Version { got: header.version });
        }
        let committee_hash = committee_hash(&committee);
        let &Header { network, height, time_ms, state_root, .. } = header;
        if header.next_committee.unwrap_or(header.committee) != committee_hash {
            return Err(AdvanceError::CommitteeMismatch { height, got: committee.epoch() });
        }
        let (id, committee) = (header.id(), Arc::new(committee));
        Ok(Self { network, height, id, time_ms, state_root: Some(state_root), committee, committee_hash })
    }

    /// Accepts a later header. `next_committee` is the committee that the header puts in place, if it does.
    ///
    /// # Errors
    ///
    /// If the header is not proven to be decided. Nothing has changed then.
    pub fn advance(
        &mut self,
        header: &Header,
        certificate: &CommitCertificate,
        next_committee: Option<&Committee>,
    ) -> Result<(), AdvanceError> {
        let (id, height) = (self.check_pair(header, certificate)?, header.height);
        let next = match (header.next_committee, next_committee) {
            (None, None) => None,
            (Some(_), None) => return Err(AdvanceError::CommitteeMissing { height }),
            (required, Some(next)) => {
                let hash = committee_hash(next);
                if required != Some(hash) {
                    return Err(AdvanceError::CommitteeMismatch { height, got: next.epoch() });
                }
                Some((next, hash))
            }
        };
        self.check_certificate(certificate)?;
        self.height = height;
        self.id = id;
        self.time_ms = header.time_ms;
        self.state_root = Some(header.state_root);
        if let Some((next, hash)) = next {
            self.committee = Arc::new(next.clone());
            self.committee_hash = hash;
        }
        Ok(())
    }

    /// Checks that a later header is decided, and stays where it is: enough to believe its state root, also if it changes
    /// the committee and the new one is not known.
    ///
    /// # Errors
    ///
    /// If the header is not proven to be decided.
    pub fn verify(&self, header: &Header, certificate: &CommitCertificate) -> Result<(), AdvanceError> {
        self.check_pair(header, certificate)?;
        self.check_certificate(certificate)
    }

    fn check_certificate(&self, certificate: &CommitCertificate) -> Result<(), AdvanceError> {
        let epoch = self.committee.epoch();
        let verified = certificate.verify(&self.network, &self.committee);
        verified.map(drop).map_err(|source| AdvanceError::Certificate { epoch, source })
    }

    /// Checks everything but the proof and the next committee.
    fn check_pair(&self, header: &Header, certificate: &CommitCertificate) -> Result<BlockId, AdvanceError> {
        let id = self.check_header(header)?;
        let (got, got_height, height) = (certificate.block_id(), certificate.height(), header.height);
        if got != id || got_height != height {
            return Err(AdvanceError::OtherBlock { got, got_height, required: id, height });
        }
        Ok(id)
    }

    fn check_header(&self, header: &Header) -> Result<BlockId, AdvanceError> {
        let height = header.height;
        if header.version != BLOCK_VERSION {
            return Err(AdvanceError::Version { got: header.version });
        }
        if header.network != self.network {
            return Err(AdvanceError::Network { got: header.network, required: self.network });
        }
        if height <= self.height {
            return Err(AdvanceError::NotAfter { got: height, head: self.height });
        }
        if header.committee != self.committee_hash || header.epoch != self.committee.epoch() {
            let known = self.committee.epoch();
            return Err(AdvanceError::Gap { height, got: header.epoch, known });
        }
        if height - self.height == 1 && header.parent != self.id {
            return Err(AdvanceError::Parent { height, got: header.parent, required: self.id });
        }
        if header.time_ms <= self.time_ms {
            return Err(AdvanceError::Time { got_ms: header.time_ms, head_ms: self.time_ms });
        }
        Ok(header.id())
    }

    /// Height of the head; 0 before the first block.
    #[must_use]
    pub const fn height(&self) -> u64 {
        self.height
    }

    /// The head.
    #[must_use]
    pub const fn head(&self) -> BlockId {
        self.id
    }

    /// Block time of the head.
    #[must_use]
    pub const fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Root of the ledger's state at the head; none before the first block.
    #[must_use]
    pub const fn state_root(&self) -> Option<Hash> {
        self.state_root
    }

    /// The committee that signs the heights after the head.
    #[must_use]
    pub fn committee(&self) -> &Committee {
        &self.committee
    }

    /// [`Self::committee`], to be kept.
    #[must_use]
    pub const fn shared_committee(&self) -> &Arc<Committee> {
        &self.committee
    }
}
