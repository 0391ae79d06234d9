//! What the ledger says, proven, and what is asked of it.
//!
//! ```text
//!   ledger_entries: ask members --> Answer::verify from the last change --> highest of a validity set --> Proven
//!                     |                                                                  ^
//!                     +--the committee changed: follow, and begin anew with its members--+
//!   submit:         proven nonce --> sign once --> members, one after the other --> proven nonce has moved
//! ```
//!
//! # Invariants
//!
//! - No value is returned that is not proven by a certified root, or by the genesis while there is no block.
//! - What a client has seen does not go back: an answer of a height below the highest seen counts for nothing. Nor do
//!   the committees that it knows, which all its clones share.
//! - A transaction is signed once. It may be sent many times, to many members: its nonce makes it good once.

mod anchor;
mod entries;
mod follow;
mod listing;
mod overview;
mod plan;
mod submission;
mod submit;
mod turn;

use protocol::{
    AccountId, BlobId, PeerId,
    codec::{self, DecodeError},
    ledger::{
        parameters::Parameters,
        state::{
            entry::{Account, Blob, Head, Node, Registration},
            key,
        },
    },
};
use swarm::Network;

pub(super) use self::{
    anchor::{Anchor, Trusted},
    entries::{Shown, Values},
    turn::Turn,
};
pub use self::{
    overview::{LedgerMember, LedgerOverview},
    submit::{SubmitError, Submitted},
};
use super::{Client, Failures};

/// Limit for decoding an entry: a node with every text at its longest takes a few times its 5 KB in memory.
const ENTRY_LIMIT: usize = 64 << 10;

/// What the ledger says at a height: proven, and as new as what any of a validity set of members could show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven<T> {
    /// Height of the block behind which it is so; 0 is the genesis.
    pub height: u64,
    /// What it says.
    pub value: T,
}

impl<T> Proven<T> {
    fn map<U>(self, of: impl FnOnce(T) -> U) -> Proven<U> {
        Proven { height: self.height, value: of(self.value) }
    }
}

/// Why it is not known what the ledger says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Too few members proved what they said.
    #[error(
        "members with {proved} of the {required} shards needed proved what the ledger says{failures}{}",
        hint(*.proved, failures)
    )]
    TooFewProofs {
        /// Shards of the members that did.
        proved: u16,
        /// Shards needed, so that an honest member is among them.
        required: u16,
        /// The members that did not.
        failures: Failures,
    },
    /// More was asked for than fits into one answer; whoever asked is at fault.
    #[error("{got} entries asked for at once, at most {max} are answered")]
    TooManyKeys {
        /// Entries asked for.
        got: usize,
        /// Most entries.
        max: usize,
    },
    /// An entry is proven, and of a form that this program does not know. Nobody is at fault: update.
    #[error("the ledger's entry of {what} cannot be read by this version of the program")]
    Form {
        /// Of what.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// An entry that every ledger has is proven to be missing: not a ledger that this program knows.
    #[error("the ledger has no entry of {what}: it is not one that this version of the program knows")]
    Missing {
        /// Of what.
        what: &'static str,
    },
    /// The epoch ended again and again while its committee was read.
    #[error("the committee changed while it was read; try again")]
    Changing,
}

fn hint(proved: u16, failures: &Failures) -> &'static str {
    let nobody_lied = failures.liars().next().is_none();
    match proved {
        0 if nobody_lied => "; is the network up, and client.toml the right one?",
        _ if nobody_lied => "; too many nodes are down",
        _ => "",
    }
}

/// Reads an entry's value.
pub(super) fn decode<T: bincode::Decode<()>>(what: &'static str, value: &[u8]) -> Result<T, LedgerError> {
    codec::decode_exact::<T, ENTRY_LIMIT>(value).map_err(|source| LedgerError::Form { what, source })
}

/// Reads an entry that every ledger has.
pub(super) fn require<T: bincode::Decode<()>>(
    what: &'static str,
    value: Option<&[u8]>,
) -> Result<T, LedgerError> {
    decode(what, value.ok_or(LedgerError::Missing { what })?)
}

impl<N: Network> Client<N> {
    /// One entry of the ledger; `None` if it is proven that there is none.
    async fn entry<T: bincode::Decode<()>>(
        &self,
        what: &'static str,
        key: Vec<u8>,
    ) -> Result<Proven<Option<T>>, LedgerError> {
        let Proven { height, value } = self.ledger_entries(&[key]).await?;
        let value = value.into_iter().next().flatten().map(|value| decode(what, &value)).transpose()?;
        Ok(Proven { height, value })
    }

    /// Where the ledger is: its height, time, epoch and stage.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn ledger_head(&self) -> Result<Proven<Head>, LedgerError> {
        const WHAT: &str = "the head";
        let Proven { height, value } = self.entry(WHAT, key::head()).await?;
        Ok(Proven { height, value: value.ok_or(LedgerError::Missing { what: WHAT })? })
    }

    /// Rules and current prices.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn ledger_parameters(&self) -> Result<Proven<Parameters>, LedgerError> {
        const WHAT: &str = "the parameters";
        let Proven { height, value } = self.entry(WHAT, key::parameters()).await?;
        Ok(Proven { height, value: value.ok_or(LedgerError::Missing { what: WHAT })? })
    }

    /// An account's credits, and the nonce of its next transaction. One that the ledger does not know has none, and 0.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn ledger_account(&self, account: &AccountId) -> Result<Proven<Account>, LedgerError> {
        let entry = self.entry("an account", key::account(account)).await?;
        Ok(entry.map(Option::unwrap_or_default))
    }

    /// A storage node, if the ledger knows it.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn ledger_node(&self, node: &PeerId) -> Result<Proven<Option<Node>>, LedgerError> {
        self.entry("a node", key::node(node)).await
    }

    /// What the ledger says of a blob, if it knows it.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn ledger_blob(&self, blob_id: &BlobId) -> Result<Proven<Option<Blob>>, LedgerError> {
        self.entry("a blob", key::blob(blob_id)).await
    }

    /// An owner's registration of a blob, if there is one.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn ledger_registration(
        &self,
        blob_id: &BlobId,
        owner: &AccountId,
    ) -> Result<Proven<Option<Registration>>, LedgerError> {
        self.entry("a registration", key::registration(blob_id, owner)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_lied_are_named_first_and_what_they_write_is_harmless() {
        let mut failures = Failures::default();
        assert!(failures.is_empty());
        assert_eq!(failures.to_string(), "");
        failures.failed("a", "gone");
        failures.failed("b", "busy");
        failures.lied("c", "\u{1b}[2J\n\u{9b}1m".to_owned() + &"é".repeat(600));
        failures.failed("b", "gone too");
        failures.failed("d", "x");
        let text = failures.to_string();
        assert!(text.starts_with("; c:  [2J  1mé"), "{text}");
        assert!(text.ends_with("; a: gone; b: gone too; and 1 more"), "{text}");
        assert!(text.len() < 600, "{}", text.len());
        assert_eq!(failures.liars().collect::<Vec<_>>(), ["c"]);
    }
}
