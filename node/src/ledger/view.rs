//! The ledger as it is after a block.

use std::sync::Arc;

use protocol::{
    committee::Committee,
    ledger::{
        answer::{Answer, RANGE_BYTES_AIM, Range},
        block::Header,
        commit::CommitCertificate,
        state::State,
    },
};

/// The state after the last block, and what proves it. Cloning costs nothing.
#[derive(Clone, Debug)]
pub struct View {
    /// The last block's header with its certificate; none while the genesis is the state.
    pub head: Option<Arc<(Header, CommitCertificate)>>,
    /// The state.
    pub state: State,
}

impl View {
    /// Height of the last block; 0 before the first.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.0.height)
    }

    /// The committee that signed the last block: the one before, if that block began an epoch. A block does not end the handover
    /// that it begins, since who is ready says so once it is there.
    #[must_use]
    pub fn signed_by(&self) -> &Arc<Committee> {
        let begins_epoch = self.head.as_ref().is_some_and(|head| head.0.next_committee.is_some());
        let previous = self.state.previous_committee().filter(|_| begins_epoch);
        previous.unwrap_or_else(|| self.state.committee())
    }

    /// The values of these keys, or that they have none, with what proves it.
    #[must_use]
    pub fn answer(&self, keys: &[Vec<u8>]) -> Answer {
        let proofs = keys.iter().map(|key| self.state.tree().prove(key)).collect();
        Answer { head: self.head.as_deref().cloned(), proofs }
    }

    /// Entries from this key on, with what proves that none is left out.
    #[must_use]
    pub fn range(&self, start: &[u8]) -> Range {
        let page = self.state.tree().range_page(start, RANGE_BYTES_AIM);
        Range { head: self.head.as_deref().cloned(), page }
    }
}
