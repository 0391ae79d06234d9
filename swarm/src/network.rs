//! The network as the rest of a node sees it.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::PeerId;

use crate::{
    address::Address,
    frame::{Channel, Frame, TooLarge, Topic},
    view::View,
};

/// A handle to the network; cheap to clone.
///
/// An implementation is created together with an [`InboundReceiver`](crate::InboundReceiver), which yields what
/// peers ask and say.
pub trait Network: Clone + Send + Sync + 'static {
    /// The identity of this node.
    fn local_peer(&self) -> PeerId;

    /// Asks a peer and waits for its answer, at most `timeout` (and never more than
    /// [`REQUEST_TIMEOUT_MAX`](crate::limits::REQUEST_TIMEOUT_MAX)).
    ///
    /// A peer that is not connected but has a known address is dialled first, within the same `timeout`.
    /// A node does not ask itself through the network: a request to [`Self::local_peer`] is
    /// [`RequestError::Unreachable`] at once.
    ///
    /// Cancel safe: dropping the future abandons the exchange; the peer may have carried out the request.
    fn request(
        &self,
        to: PeerId,
        channel: Channel,
        request: Frame,
        timeout: Duration,
    ) -> impl Future<Output = Result<Frame, RequestError>> + Send;

    /// Hands a message to gossip; it reaches every peer that follows the topic, with high probability, and never
    /// this node itself. Nobody following the topic is not an error.
    ///
    /// Every call is a message of its own, also if the bytes are the same: repeating a message is how it reaches
    /// those who missed it.
    ///
    /// Cancel safe: the message may or may not have been sent.
    fn publish(&self, topic: Topic, data: Bytes) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// Makes the addresses of a peer known, or changes its role. Never blocks and is never lost.
    ///
    /// The addresses are added to those known; an empty list only sets the role. [`PeerRole::Member`] and
    /// [`PeerRole::Bootstrap`] peers are kept connected: dialled at a limited pace, and again after a jittered,
    /// growing pause.
    fn add_peer(&self, peer: PeerId, addresses: Vec<Address>, role: PeerRole);

    /// Says that a peer broke a rule. Below a threshold it is disconnected and refused for a while.
    fn report(&self, peer: PeerId, offence: Offence);

    /// A view of the peers connected now.
    fn connected(&self) -> ConnectedPeers;
}

/// What a peer is to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerRole {
    /// In a current committee: kept connected, not counted against connection limits, refused only briefly.
    Member,
    /// A way into the network: kept connected, within the limits.
    Bootstrap,
    /// Anyone else: dialled only when there is something to ask.
    #[default]
    Other,
}

/// A rule that a peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offence {
    /// Something from it did not decode.
    Malformed,
    /// Something from it decoded, but its hash, proof or signature does not hold.
    Unverifiable,
    /// It did not do what it had promised: no answer, or not what was asked for.
    Unhelpful,
    /// It asks for more than its share.
    Flooding,
}

impl Offence {
    /// Every offence.
    pub const ALL: [Self; 4] = [Self::Malformed, Self::Unverifiable, Self::Unhelpful, Self::Flooding];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unverifiable => "unverifiable",
            Self::Unhelpful => "unhelpful",
            Self::Flooding => "flooding",
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No connection, and no known address leads to one; the request was not sent.
    #[error("the peer cannot be reached")]
    Unreachable,
    /// No answer in time; the peer may have carried out the request.
    #[error("the peer did not answer in time")]
    Timeout,
    /// The peer read the request and declined to answer.
    #[error("the peer declined to answer")]
    Refused,
    /// The peer, or this node, has too much in flight; the request was not carried out. Retry after a pause.
    #[error("too many requests are in flight")]
    Busy,
    /// The connection or the stream ended before the answer; the peer may have carried out the request.
    #[error("the connection ended before the answer")]
    Closed,
    /// The request is larger than a frame may be; nothing was sent.
    #[error("the request cannot be sent")]
    TooLarge(#[source] TooLarge),
    /// The peer does not speak this protocol, for one because it belongs to another network.
    #[error("the peer does not speak this protocol")]
    Unsupported,
    /// The network of this node has stopped.
    #[error("the network has stopped")]
    Stopped,
}

/// Why a message was not handed to gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The message is larger than its topic allows.
    #[error("the message cannot be published")]
    TooLarge(#[source] TooLarge),
    /// The queues to all peers are full. Retry after a pause.
    #[error("too many messages wait to be sent")]
    Busy,
    /// The network of this node has stopped.
    #[error("the network has stopped")]
    Stopped,
}

/// Checks a message against the limit of its topic.
pub(crate) const fn check_gossip(topic: Topic, bytes: usize) -> Result<(), PublishError> {
    if bytes > topic.bytes_max() {
        return Err(PublishError::TooLarge(TooLarge {
            part: "message",
            bytes,
            bytes_max: topic.bytes_max(),
        }));
    }
    Ok(())
}

/// The peers connected now; a view that can be waited on.
#[derive(Clone, Debug)]
pub struct ConnectedPeers {
    view: View<BTreeSet<PeerId>>,
}

impl ConnectedPeers {
    pub(crate) const fn new(view: View<BTreeSet<PeerId>>) -> Self {
        Self { view }
    }

    /// The peers, in the order of their identities.
    #[must_use]
    pub fn peers(&self) -> Arc<BTreeSet<PeerId>> {
        self.view.get()
    }

    /// Whether this peer is connected.
    #[must_use]
    pub fn contains(&self, peer: PeerId) -> bool {
        self.view.get().contains(&peer)
    }

    /// Waits until the set differs from the one last seen by this view; `false` once the network has stopped.
    ///
    /// Cancel safe: yes.
    pub async fn changed(&mut self) -> bool {
        self.view.changed().await
    }

    /// Waits until the condition holds; `false` if the network stops before.
    ///
    /// Cancel safe: yes.
    pub async fn wait_until(&mut self, mut condition: impl FnMut(&BTreeSet<PeerId>) -> bool + Send) -> bool {
        self.view.wait_until(|peers| condition(peers)).await
    }
}
