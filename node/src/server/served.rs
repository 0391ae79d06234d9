//! What the server did, counted by kind, for whoever watches the node.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::histogram::Histogram;
use protocol::message::{Refusal, Request};
use swarm::traffic::Tally;

/// Upper ends of the ranges of answering times, in seconds. A read of a sliver takes a millisecond or less, a transaction waits for
/// its block, and nobody waits for longer than some ten seconds.
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The name of each kind of request.
const KINDS: [&str; 15] = [
    "store_commitment",
    "store_sliver",
    "confirm",
    "store_blob",
    "fetch_commitment",
    "fetch_sliver",
    "fetch_symbols",
    "fetch_symbol_proof",
    "attest",
    "fetch_evidence",
    "health",
    "ledger",
    "entries",
    "range",
    "submit",
];

/// That there was no place for a request: it was not looked at.
const NO_PLACE: &str = "no_place";

/// The name of each reason for which a request is refused.
const REASONS: [&str; 16] = [
    NO_PLACE,
    "not_found",
    "not_mine",
    "busy",
    "full",
    "malformed",
    "unverifiable",
    "not_member",
    "other_network",
    "invalid",
    "not_registered",
    "internal",
    "rejected",
    "not_ordered",
    "wrong_epoch",
    "not_on_committee",
];

/// The kind of a request.
pub(super) const fn kind(request: &Request) -> &'static str {
    match request {
        Request::StoreCommitment { .. } => "store_commitment",
        Request::StoreSliver { .. } => "store_sliver",
        Request::Confirm { .. } => "confirm",
        Request::StoreBlob { .. } => "store_blob",
        Request::FetchCommitment { .. } => "fetch_commitment",
        Request::FetchSliver { .. } => "fetch_sliver",
        Request::FetchSymbols { .. } => "fetch_symbols",
        Request::FetchSymbolProof { .. } => "fetch_symbol_proof",
        Request::Attest { .. } => "attest",
        Request::FetchEvidence { .. } => "fetch_evidence",
        Request::Health => "health",
        Request::Ledger(_) => "ledger",
        Request::Entries { .. } => "entries",
        Request::Range { .. } => "range",
        Request::Submit { .. } => "submit",
    }
}

const fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NotFound => "not_found",
        Refusal::NotMine => "not_mine",
        Refusal::Busy => "busy",
        Refusal::Full => "full",
        Refusal::Malformed => "malformed",
        Refusal::Unverifiable => "unverifiable",
        Refusal::NotMember => "not_member",
        Refusal::OtherNetwork => "other_network",
        Refusal::Invalid => "invalid",
        Refusal::NotRegistered => "not_registered",
        Refusal::Internal => "internal",
        Refusal::Rejected(_) => "rejected",
        Refusal::NotOrdered => "not_ordered",
        Refusal::WrongEpoch { .. } => "wrong_epoch",
        Refusal::NotOnCommittee => "not_on_committee",
    }
}

#[derive(Debug)]
struct Counts {
    seconds: BTreeMap<&'static str, Histogram>,
    refusals: Tally<&'static str>,
    symbol_bytes: AtomicU64,
}

/// What the server did since the start. Cheap to clone: clones count together.
#[derive(Clone, Debug)]
pub struct Served(Arc<Counts>);

impl Default for Served {
    fn default() -> Self {
        Self(Arc::new(Counts {
            seconds: KINDS.into_iter().map(|kind| (kind, Histogram::new(SECONDS))).collect(),
            refusals: Tally::new(REASONS),
            symbol_bytes: AtomicU64::new(0),
        }))
    }
}

impl Served {
    /// A request of this kind was answered, or refused, after this time.
    pub(super) fn answered(&self, kind: &'static str, took: Duration) {
        if let Some(seconds) = self.0.seconds.get(kind) {
            seconds.observe(took.as_secs_f64());
        }
    }

    /// A request was refused.
    pub(super) fn refused(&self, refusal: &Refusal) {
        self.0.refusals.count(reason(refusal));
    }

    /// A request was not looked at, since too many were in hand.
    pub(super) fn had_no_place(&self) {
        self.0.refusals.count(NO_PLACE);
    }

    /// Symbols were sent to a peer that repairs.
    pub(super) fn sent_symbols(&self, bytes: usize) {
        self.0.symbol_bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Times of answering, in seconds, by kind of request.
    pub fn seconds(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        self.0.seconds.iter().map(|(kind, seconds)| (*kind, seconds))
    }

    /// Refusals by reason.
    #[must_use]
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        self.0.refusals.counts()
    }

    /// Bytes of symbols sent to peers that repair.
    #[must_use]
    pub fn symbol_bytes(&self) -> u64 {
        self.0.symbol_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::{encoding::text::encode, registry::Registry};
    use protocol::Epoch;

    use super::*;

    #[test]
    fn each_request_and_each_refusal_is_counted_under_its_name() {
        let served = Served::default();
        served.answered(kind(&Request::Health), Duration::from_millis(2));
        served.answered("no such kind", Duration::ZERO);
        let mut registry = Registry::default();
        for (kind, seconds) in served.seconds() {
            registry.register(kind, "", seconds.clone());
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(text.contains("\nhealth_sum 0.002\nhealth_count 1\n"), "{text}");
        let counts = text.lines().filter(|line| line.contains("_count ") && !line.ends_with(" 0"));
        assert_eq!(counts.count(), 1, "{text}");

        let refusals = [
            Refusal::NotFound,
            Refusal::NotMine,
            Refusal::Busy,
            Refusal::Full,
            Refusal::Malformed,
            Refusal::Unverifiable,
            Refusal::NotMember,
            Refusal::OtherNetwork,
            Refusal::Invalid,
            Refusal::NotRegistered,
            Refusal::Internal,
            Refusal::Rejected(String::new()),
            Refusal::NotOrdered,
            Refusal::WrongEpoch { current: Epoch(1) },
            Refusal::NotOnCommittee,
        ];
        for refusal in &refusals {
            served.refused(refusal);
        }
        served.had_no_place();
        assert!(served.refusals().iter().all(|(_, count)| *count == 1), "{:?}", served.refusals());
        assert_eq!(served.refusals().len(), refusals.len() + 1);
    }

    #[test]
    fn names_are_distinct() {
        assert_eq!(KINDS.into_iter().collect::<BTreeSet<_>>().len(), KINDS.len());
        assert_eq!(REASONS.into_iter().collect::<BTreeSet<_>>().len(), REASONS.len());
    }
}
