//! One question to one member, and its answer or the reason why there is none.
//!
//! A [`NodeIndex`] means something in one committee only. So an [`Exchange`] is bound to one, for as long as an operation
//! lasts; whoever goes on under another committee makes another.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    NetworkId, NodeIndex, PeerId,
    committee::{Committee, Member},
    genesis::Genesis,
    message::{Refusal, Request, Response},
};
use swarm::{Address, Network, Offence, PeerRole, RequestError};
use tokio::time::Instant;

use super::{
    ClientConfig,
    retry::{Patience, pause},
};
use crate::exchange::{ExchangeError, ask};

/// Why a member did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AskError {
    /// There is no answer.
    #[error(transparent)]
    Network(#[from] RequestError),
    /// The member says no.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The answer does not decode.
    #[error("its answer does not decode")]
    Malformed,
    /// The answer decodes, but answers something else.
    #[error("its answer is not to what it was asked")]
    Unexpected,
    /// The answer does not match the blob ID, or its signature does not hold.
    #[error("its answer does not verify")]
    Unverifiable,
    /// The member confirmed nothing, since it lacks slivers that it was sent.
    #[error("it lost {0} of the slivers it was sent")]
    Lost(u32),
}

impl AskError {
    /// True if only a liar gives such an answer.
    pub(super) const fn is_lie(&self) -> bool {
        matches!(self, Self::Malformed | Self::Unexpected | Self::Unverifiable)
    }
}

impl From<ExchangeError> for AskError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Request(error) => Self::Network(error),
            ExchangeError::Refused(refusal) => Self::Refused(refusal),
            ExchangeError::Malformed => Self::Malformed,
        }
    }
}

/// When something was last heard in answer to a line of questions, and how many of them are open.
#[derive(Debug)]
pub(super) struct Pulse(Mutex<Beat>);

#[derive(Debug)]
struct Beat {
    at: Instant,
    open: usize,
    /// The last question to end was not answered: asking again is no sign of life.
    is_failing: bool,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Beat { at: Instant::now(), open: 0, is_failing: false }))
    }

    fn with<T>(&self, step: impl FnOnce(&mut Beat) -> T) -> T {
        // Nothing that can panic runs under this lock.
        step(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A question is about to be asked.
    pub(super) fn open(&self) {
        self.with(|beat| {
            if beat.open == 0 && !beat.is_failing {
                beat.at = Instant::now();
            }
            beat.open += 1;
        });
    }

    /// A question is no longer open; `answered` if it brought the matter forward.
    pub(super) fn close(&self, answered: bool) {
        self.with(|beat| {
            beat.open = beat.open.saturating_sub(1);
            beat.is_failing = !answered;
            if answered {
                beat.at = Instant::now();
            }
        });
    }

    /// The last instant at which something came back, or at which asking began.
    pub(super) fn last(&self) -> Instant {
        self.with(|beat| beat.at)
    }

    /// How long nothing came back while something was asked.
    pub(super) fn still(&self) -> Duration {
        self.with(|beat| if beat.open == 0 { Duration::ZERO } else { beat.at.elapsed() })
    }
}

/// Asks the members of one committee; cheap to clone.
#[derive(Clone)]
pub(super) struct Exchange<N> {
    network: N,
    genesis: Arc<Genesis>,
    network_id: NetworkId,
    committee: Arc<Committee>,
    request_timeout: Duration,
    connect_timeout: Duration,
    first_use: Arc<OnceLock<Instant>>,
}

impl<N: Network> Exchange<N> {
    /// Asks the members of the genesis.
    pub(super) fn new(network: N, genesis: Arc<Genesis>, config: &ClientConfig) -> Self {
        Self {
            network,
            network_id: genesis.network_id(),
            committee: Arc::new(genesis.committee().clone()),
            genesis,
            request_timeout: config.request_timeout,
            connect_timeout: config.connect_timeout,
            first_use: Arc::default(),
        }
    }

    /// Asks the members of a committee.
    pub(super) fn of(&self, committee: &Arc<Committee>) -> Self {
        Self { committee: Arc::clone(committee), ..self.clone() }
    }

    pub(super) const fn genesis(&self) -> &Arc<Genesis> {
        &self.genesis
    }

    pub(super) const fn network_id(&self) -> &NetworkId {
        &self.network_id
    }

    pub(super) const fn committee(&self) -> &Arc<Committee> {
        &self.committee
    }

    fn member(&self, node: NodeIndex) -> &Member {
        self.committee.member(node).expect("only members of the committee are asked")
    }

    /// Who a member is on the network.
    pub(super) fn peer(&self, node: NodeIndex) -> PeerId {
        self.member(node).peer
    }

    /// What people call a member.
    pub(super) fn name(&self, node: NodeIndex) -> &str {
        &self.member(node).name
    }

    /// How long one answer may take.
    pub(super) const fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Marks the first use, from which on nodes have the connect timeout to become reachable.
    pub(super) fn use_now(&self) {
        self.first_use.get_or_init(Instant::now);
    }

    /// True while connections may still be on their way.
    pub(super) fn is_connecting(&self) -> bool {
        self.first_use.get_or_init(Instant::now).elapsed() < self.connect_timeout
    }

    /// Makes known where peers are that the ledger names.
    pub(super) fn introduce<'a>(&self, members: impl IntoIterator<Item = &'a Member>) {
        for member in members {
            let addresses = member.addresses.iter().filter_map(|text| text.parse::<Address>().ok()).collect();
            self.network.add_peer(member.peer, addresses, PeerRole::Member);
        }
    }

    /// A peer is no member any more.
    pub(super) fn dismiss(&self, peer: PeerId, role: PeerRole) {
        self.network.add_peer(peer, Vec::new(), role);
    }

    /// Says that a peer sent something that does not verify.
    pub(super) fn report_peer(&self, peer: PeerId, offence: Offence) -> AskError {
        self.network.report(peer, offence);
        match offence {
            Offence::Malformed => AskError::Malformed,
            Offence::Unverifiable => AskError::Unverifiable,
            Offence::Unhelpful | Offence::Flooding => AskError::Unexpected,
        }
    }

    /// Says that a member sent something that does not verify.
    pub(super) fn report_unverifiable(&self, node: NodeIndex) -> AskError {
        self.report_peer(self.peer(node), Offence::Unverifiable)
    }

    /// Says that what a member sent does not decode.
    pub(super) fn report_malformed(&self, node: NodeIndex) -> AskError {
        self.report_peer(self.peer(node), Offence::Malformed)
    }

    /// Says that a member answered something that it was not asked.
    pub(super) fn report_unexpected(&self, node: NodeIndex) -> AskError {
        self.report_peer(self.peer(node), Offence::Unhelpful)
    }

    /// Whether a member is connected.
    pub(super) fn is_connected(&self, node: NodeIndex) -> bool {
        self.network.connected().contains(self.peer(node))
    }

    /// A number of this client's own, by which clients spread over members where any of them will do.
    pub(super) fn turn(&self) -> usize {
        let [low, high, ..] = self.network.local_peer().0;
        usize::from(u16::from_le_bytes([low, high]))
    }

    /// Asks a member once.
    ///
    /// Cancel safe: the member may have carried out the request.
    pub(super) async fn ask(
        &self,
        node: NodeIndex,
        request: &Request,
        payload: Bytes,
    ) -> Result<(Response, Bytes), AskError> {
        self.send(self.peer(node), request, payload, self.request_timeout).await
    }

    /// Asks a member until it answers something final or `patience` is at its end. `pulse` beats with each answer.
    ///
    /// Cancel safe: the member may have carried out the request.
    pub(super) async fn ask_patiently(
        &self,
        node: NodeIndex,
        question: (&Request, Bytes),
        patience: Patience,
        pulse: &Pulse,
    ) -> Result<(Response, Bytes), AskError> {
        self.ask_peer_patiently(self.peer(node), question, patience, pulse).await
    }

    /// The same, of any peer.
    ///
    /// Cancel safe: the peer may have carried out the request.
    pub(super) async fn ask_peer_patiently(
        &self,
        peer: PeerId,
        (request, payload): (&Request, Bytes),
        patience: Patience,
        pulse: &Pulse,
    ) -> Result<(Response, Bytes), AskError> {
        // Its own peer is out of reach for good.
        let is_self = peer == self.network.local_peer();
        let started = Instant::now();
        for attempt in 0.. {
            pulse.open();
            let answer = self.send(peer, request, payload.clone(), patience.attempt).await;
            pulse.close(answer.is_ok());
            let Err(error) = answer else { return answer };
            let still = started.max(pulse.last()).elapsed();
            let connecting = self.is_connecting() && !is_self;
            match pause(&error, attempt, still, (patience, connecting)) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
        unreachable!("the attempts are endless")
    }

    async fn send(
        &self,
        peer: PeerId,
        request: &Request,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(Response, Bytes), AskError> {
        Ok(ask(&self.network, peer, (request, payload), timeout).await?)
    }
}
