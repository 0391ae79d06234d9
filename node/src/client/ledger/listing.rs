//! What an account has registered.

use bytes::Bytes;
use protocol::{
    AccountId, BlobId, NodeIndex,
    ledger::{
        answer::{AnswerError, Range},
        chain::AdvanceError,
        state::{entry::Registration, key},
        tree::Entry,
    },
    message::{Request, Response},
};
use swarm::Network;

use super::{LedgerError, Proven, Trusted, decode, entries::plan_of, follow::FollowError};
use crate::client::{
    Client, Failures,
    exchange::{AskError, Exchange, Pulse},
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
        loop {
            let trusted = self.ledger.trusted();
            match self.ledger_range_of(&trusted, start).await {
                // Somebody showed that another committee took over: its members are asked.
                Err(_) if self.ledger.trusted().epoch() > trusted.epoch() => {}
                result => return result,
            }
        }
    }

    async fn ledger_range_of(
        &self,
        trusted: &Trusted,
        start: &[u8],
    ) -> Result<(u64, Vec<Entry>, bool), LedgerError> {
        let exchange = &self.exchange.of(trusted.current());
        let mut failures = Failures::default();
        for (node, _) in plan_of(exchange).members() {
            let name = exchange.name(node);
            match self.range_of((exchange, trusted), node, start).await {
                Ok((height, ..)) if height < self.ledger.seen() => {
                    failures.failed(name, format_args!("it is behind: height {height}"));
                }
                Ok(range) => return Ok(range),
                Err(RangeError::Follow(error)) => failures.blame(name, &error, error.is_lie()),
                Err(RangeError::Moved) => break,
                Err(RangeError::Ask(
                    error @ (AskError::Malformed | AskError::Unexpected | AskError::Unverifiable),
                )) => failures.lied(name, error),
                Err(RangeError::Ask(error)) => failures.failed(name, error),
                Err(RangeError::Old { got }) => {
                    failures.failed(name, format_args!("it is behind: height {got}"))
                }
            }
        }
        Err(LedgerError::TooFewProofs { proved: 0, required: 1, failures })
    }

    async fn range_of(
        &self,
        (exchange, trusted): (&Exchange<N>, &Trusted),
        node: NodeIndex,
        start: &[u8],
    ) -> Result<(u64, Vec<Entry>, bool), RangeError> {
        let request = Request::Range { start: start.to_vec() };
        let (patience, pulse) = (Patience::hedged(exchange.request_timeout()), Pulse::new());
        let answer = exchange.ask_patiently(node, (&request, Bytes::new()), patience, &pulse).await?;
        let (Response::Range, payload) = answer else {
            return Err(exchange.report_unexpected(node).into());
        };
        let range = Range::from_bytes(&payload).map_err(|_| exchange.report_malformed(node))?;
        let root = self.ledger.genesis_root(exchange.genesis());
        let epoch = range.epoch();
        let height = range.head.as_ref().map_or(0, |(header, _)| header.height);
        match range.verify(&mut trusted.chain().clone(), root, start) {
            Ok((entries, is_last)) => Ok((height, entries, is_last)),
            Err(AnswerError::Old { got, .. }) => Err(RangeError::Old { got }),
            Err(AnswerError::Head(AdvanceError::Gap { got, known, .. })) if got > known => {
                self.follow(exchange.peer(node), epoch.unwrap_or(got)).await?;
                Err(RangeError::Moved)
            }
            Err(error) => {
                tracing::info!(member = exchange.name(node), %error, "refused entries that prove nothing");
                Err(exchange.report_unverifiable(node).into())
            }
        }
    }
}

/// Why a member's entries are of no use.
#[derive(Debug, thiserror::Error)]
enum RangeError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// They are of an earlier height than is known.
    #[error("it is behind: height {got}")]
    Old { got: u64 },
    /// It showed that another committee took over.
    #[error("another committee took over")]
    Moved,
}
