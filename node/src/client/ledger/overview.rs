//! The ledger at a glance: where it is, what storage costs, who is on the committee.

use protocol::{
    NodeIndex,
    committee::Member,
    ledger::{
        parameters::Parameters,
        state::{
            entry::{Bucket, Head, Node},
            key,
        },
    },
};
use swarm::Network;

use super::{LedgerError, Proven, decode, require};
use crate::client::Client;

/// Entries of members or nodes in one answer: the largest have 5 KB, so they fit with room for their proofs.
const BATCH: usize = 16;
/// How often reading begins anew when the epoch ends meanwhile. An epoch lasts far longer than reading does.
const ATTEMPTS: usize = 3;

/// A member of the committee, and what stands behind it.
#[derive(Clone, Debug)]
pub struct LedgerMember {
    /// As a member: its name, its identity, its shards.
    pub member: Member,
    /// As a node: its status, its stake. As of the overview's height or later, in the same epoch.
    pub node: Node,
}

/// The ledger at a glance, proven.
#[derive(Clone, Debug)]
pub struct LedgerOverview {
    /// Where the ledger is.
    pub head: Head,
    /// Rules and current prices.
    pub parameters: Parameters,
    /// What was sold of the current epoch.
    pub bucket: Bucket,
    /// The committee of the current epoch by index, if it was asked for.
    pub committee: Option<Vec<LedgerMember>>,
}

impl<N: Network> Client<N> {
    /// Reads the ledger's head, its parameters and, if wanted, its committee.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn ledger_overview(&self, with_committee: bool) -> Result<LedgerOverview, LedgerError> {
        let mut epoch = self.ledger.trusted().epoch();
        for _ in 0..ATTEMPTS {
            let keys = [key::head(), key::parameters(), key::bucket(epoch)];
            let Proven { value, .. } = self.ledger_entries(&keys).await?;
            let [head, parameters, bucket] = [0, 1, 2].map(|i| value.get(i).and_then(Option::as_deref));
            let head: Head = require("the head", head)?;
            if head.epoch != epoch {
                epoch = head.epoch;
                continue;
            }
            let parameters = require("the parameters", parameters)?;
            let bucket =
                bucket.map(|bucket| decode("an epoch's credits", bucket)).transpose()?.unwrap_or_default();
            let committee =
                if with_committee { self.ledger_committee(&head).await? } else { Some(Vec::new()) };
            if let Some(committee) = committee {
                let committee = with_committee.then_some(committee);
                return Ok(LedgerOverview { head, parameters, bucket, committee });
            }
        }
        Err(LedgerError::Changing)
    }

    /// The committee of the head's epoch; `None` if that ended meanwhile.
    async fn ledger_committee(&self, head: &Head) -> Result<Option<Vec<LedgerMember>>, LedgerError> {
        const WHAT: &str = "a member";
        let mut members: Vec<Member> = Vec::new();
        // There are as many members as there are shards, at most.
        for first in (0..head.n_shards).step_by(BATCH) {
            let indices = (first..head.n_shards).take(BATCH).map(NodeIndex);
            let keys = indices.map(|index| key::member(head.epoch, index));
            let Some(values) = self.batch(head, keys).await? else { return Ok(None) };
            let n_values = values.len();
            let found: Result<Vec<Member>, _> =
                values.iter().flatten().map(|value| decode(WHAT, value)).collect();
            let found = found?;
            let is_last = found.len() < n_values;
            members.extend(found);
            if is_last {
                break;
            }
        }
        let mut committee = Vec::new();
        let mut members = members.into_iter().peekable();
        while members.peek().is_some() {
            let some: Vec<Member> = members.by_ref().take(BATCH).collect();
            let keys = some.iter().map(|member| key::node(&member.peer));
            let Some(values) = self.batch(head, keys).await? else { return Ok(None) };
            for (member, value) in some.into_iter().zip(values) {
                committee.push(LedgerMember { member, node: require("a node", value.as_deref())? });
            }
        }
        Ok(Some(committee))
    }

    /// Entries of the head's epoch; `None` if that ended meanwhile.
    async fn batch(
        &self,
        head: &Head,
        keys: impl Iterator<Item = Vec<u8>>,
    ) -> Result<Option<Vec<Option<Vec<u8>>>>, LedgerError> {
        let keys: Vec<Vec<u8>> = std::iter::once(key::head()).chain(keys).collect();
        let mut values = self.ledger_entries(&keys).await?.value.into_iter();
        let now: Head = require("the head", values.next().flatten().as_deref())?;
        Ok((now.epoch == head.epoch).then(|| values.collect()))
    }
}
