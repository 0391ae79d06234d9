//! The client library: stores blobs on a network and reads them back.
//!
//! A client trusts nobody. What it stores is confirmed by members' signatures, what it reads is checked against the
//! blob ID, and a progress needs quorums, not everyone: nodes that are slow or gone are left behind.
//!
//! Committees change while it works. It follows them by what they certify, from the genesis on (`ledger`), and asks the
//! members of one committee at a time, or of two where shards move (`exchange`). An operation that outlives its committee
//! goes on with the next.

mod exchange;
mod failures;
mod flow;
mod health;
mod ledger;
mod read;
mod retry;
mod source;
mod status;
mod store;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use protocol::{BlobId, certificate::Persistence, genesis::Genesis};
use swarm::{Network, PeerRole};

use self::exchange::Exchange;
pub use self::{
    failures::Failures,
    health::MemberHealth,
    ledger::{LedgerError, LedgerMember, LedgerOverview, Proven, SubmitError, Submitted},
    read::{ReadError, ReadSummary},
    source::{BlobSink, BlobSource, FileSource},
    status::{BlobStatus, StatusReport},
    store::{StoreError, Stored, Timings, blob_id},
};
use crate::{config::PeerAddress, encoder::Encoder};

/// How a client goes about its work.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// How long to wait for the answer to one request.
    pub request_timeout: Duration,
    /// How long to wait for nodes to become reachable, at the start.
    pub connect_timeout: Duration,
    /// Segments in hand at the same time; each takes about six times its size in memory.
    pub segments_in_flight: usize,
    /// How long, at least, uploads to slower nodes go on once a quorum has confirmed.
    pub tail: Duration,
    /// Nodes to ask for the way to the newest committee when members of the one that is known do not answer. They are not
    /// trusted.
    pub bootstrap: Vec<PeerAddress>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            segments_in_flight: 2,
            tail: Duration::from_millis(500),
            bootstrap: Vec::new(),
        }
    }
}

/// How a blob is stored.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Whether the blob may be deleted before it expires.
    pub persistence: Persistence,
    /// For how many epochs, the current one included.
    pub epochs: u32,
}

/// Epochs for which a blob is stored if nobody says for how many.
pub const DEFAULT_EPOCHS: u32 = 10;

impl Default for StoreOptions {
    fn default() -> Self {
        Self { persistence: Persistence::Deletable, epochs: DEFAULT_EPOCHS }
    }
}

/// What a long operation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The blob is being encoded to find its ID.
    Encoding {
        /// Bytes of the blob done.
        done: u64,
        /// Bytes of the blob.
        total: u64,
    },
    /// The blob ID is known.
    Identified(BlobId),
    /// Slivers are being sent.
    Uploading {
        /// Bytes of the blob whose slivers a quorum holds.
        done: u64,
        /// Bytes of the blob.
        total: u64,
    },
    /// The blob is certified.
    Certified,
    /// The blob is being read.
    Reading {
        /// Bytes read and checked.
        done: u64,
        /// Bytes of the blob.
        total: u64,
    },
}

/// Takes progress reports.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// A client of one network.
#[derive(Clone)]
pub struct Client<N> {
    /// Made for the committee of the genesis: see [`Self::exchange`].
    exchange: Exchange<N>,
    encoder: Encoder,
    config: ClientConfig,
    /// What proofs are checked against.
    ledger: Arc<ledger::Anchor>,
}

impl<N> std::fmt::Debug for Client<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<N: Network> Client<N> {
    /// Returns a client over a network that is already running, and makes the members' addresses known to it.
    pub fn new(network: N, genesis: Arc<Genesis>, encoder: Encoder, config: ClientConfig) -> Self {
        for PeerAddress { peer, address } in &config.bootstrap {
            network.add_peer(*peer, vec![address.clone()], PeerRole::Bootstrap);
        }
        let exchange = Exchange::new(network, genesis, &config);
        exchange.introduce(exchange.committee().members());
        let ledger = Arc::new(ledger::Anchor::new(exchange.genesis(), exchange.committee()));
        Self { exchange, encoder, config, ledger }
    }

    /// To ask the members of the newest committee that is known.
    fn exchange(&self) -> Exchange<N> {
        self.exchange.of(self.ledger.trusted().current())
    }

    /// The genesis of the network.
    #[must_use]
    pub const fn genesis(&self) -> &Arc<Genesis> {
        self.exchange.genesis()
    }
}
