//! What an account has registered.

use bytes::Bytes;
use protocol::{
    AccountId, BlobId, NodeIndex,
    ledger::{
        answer::Range,
        state::{entry::Registration, key},
        tree::Entry,
    },
    message::{Request, Response},
};
use swarm::Network;

use super::{Failures, LedgerError, Proven, decode};
use crate::client::{
    Client,
    exchange::{AskError, Pulse},
    retry::Patience,
};

impl<N: Network> Client<N> {
    /// The blobs that an account has registered, in the order of their IDs, with their registrations; no more than `limit`.
    ///
    /// The head is read first from members worth a validity set; what is listed is of that height or a later one.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn ledger_registrations(
        &self,
        owner: &AccountId,
        limit: usize,
    ) -> Result<Proven<Vec<(BlobId, Registration)>>, LedgerError> {
        let mut height = self.ledger_head().await?.height;
        let prefix = key::registrations(owner);
        let (mut start, mut listed) = (prefix.clone(), Vec::new());
        loop {
            let (at, entries, is_last) = self.ledger_range(&start).await?;
            height = height.max(at);
            let last = entries.last().map(|entry| entry.key.clone());
            let is_over = is_last || last.as_ref().is_none_or(|last| !last.starts_with(&prefix));
            for Entry { key, value } in entries.iter().filter(|entry| entry.key.starts_with(&prefix)) {
                let blob_id = key::registered_blob(key).ok_or(LedgerError::Missing { what: "a blob ID" })?;
                listed.push((blob_id, decode("a registration", value)?));
            }
            if is_over || listed.len() >= limit {
                listed.truncate(limit);
                return Ok(Proven { height, value: listed });
            }
            // The key after the last.
            start = [last.unwrap_or_default(), vec![0]].concat();
        }
    }

    /// Entries from a key on, of the highest height that was proven so far or a later one: from whichever member proves it
    /// first.
    async fn ledger_range(&self, start: &[u8]) -> Result<(u64, Vec<Entry>, bool), LedgerError> {
        let mut failures = Failures::default();
        for (node, _) in self.plan().members() {
            let name = self.exchange.name(node);
            match self.range_of(node, start).await {
                Ok((height, ..)) if height < self.ledger.seen() => {
                    failures.failed(name, format_args!("it is behind: height {height}"));
                }
                Ok(range) => return Ok(range),
                Err(error @ (AskError::Malformed | AskError::Unexpected | AskError::Unverifiable)) => {
                    failures.lied(name, error);
                }
                Err(error) => failures.failed(name, error),
            }
        }
        Err(LedgerError::TooFewProofs { proved: 0, required: 1, failures })
    }

    async fn range_of(&self, node: NodeIndex, start: &[u8]) -> Result<(u64, Vec<Entry>, bool), AskError> {
        let request = Request::Range { start: start.to_vec() };
        let (patience, pulse) = (Patience::hedged(self.exchange.request_timeout()), Pulse::new());
        let answer = self.exchange.ask_patiently(node, (&request, Bytes::new()), patience, &pulse).await?;
        let (Response::Range, payload) = answer else {
            return Err(self.exchange.report_unexpected(node));
        };
        let range = Range::from_bytes(&payload).map_err(|_| self.exchange.report_malformed(node))?;
        let (genesis, root) = self.ledger.get(self.exchange.genesis());
        let mut chain = genesis.clone();
        let (entries, is_last) = range.verify(&mut chain, root, start).map_err(|error| {
            tracing::info!(member = self.exchange.name(node), %error, "refused entries that prove nothing");
            self.exchange.report_unverifiable(node)
        })?;
        Ok((chain.height(), entries, is_last))
    }
}
