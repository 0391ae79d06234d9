//! Messages that come too early: others have decided on the height that we are at.
//!
//! Or too late to be worth anything by themselves: a height that is for nothing is not begun at once.
//!
//! In ordinary operation the last vote of a height and the first proposal of the next cross on the way. Dropping the latter
//! would cost a timeout, so a few messages for the next height are kept.

use std::collections::BTreeMap;

use protocol::{PeerId, ledger::wire::Message};

/// Votes of a member kept, by round and kind: the two of the first rounds.
const VOTES_MAX: usize = 8;

/// Messages for the height after the one that is being decided, or for the next if none is. INV: each was signed by its
/// author, a member; of each at most one proposal.
#[derive(Debug, Default)]
pub(super) struct Future {
    /// By author and order of coming.
    messages: BTreeMap<PeerId, Vec<(PeerId, Message)>>,
}

impl Future {
    /// Keeps a message of this author, which came from this peer.
    pub(super) fn keep(&mut self, author: PeerId, from: PeerId, message: Message) {
        let kept = self.messages.entry(author).or_default();
        let is_proposal = |message: &Message| matches!(message, Message::Proposal { .. });
        let n_alike = kept.iter().filter(|(_, other)| is_proposal(other) == is_proposal(&message)).count();
        let n_max = if is_proposal(&message) { 1 } else { VOTES_MAX };
        if n_alike < n_max && !kept.iter().any(|(_, other)| *other == message) {
            kept.push((from, message));
        }
    }

    /// All that was kept, proposals first: votes for a block are worth more once it is known.
    pub(super) fn take(&mut self) -> Vec<(PeerId, Message)> {
        let mut all: Vec<(PeerId, Message)> =
            std::mem::take(&mut self.messages).into_values().flatten().collect();
        all.sort_by_key(|(_, message)| !matches!(message, Message::Proposal { .. }));
        all
    }
}
