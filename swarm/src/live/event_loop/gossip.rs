//! Messages on topics.

use bytes::Bytes;
use futures::FutureExt as _;
use libp2p::gossipsub;
use protocol::PeerId;
use tokio::sync::oneshot;

use super::{
    super::{keys, score},
    EventLoop,
};
use crate::{
    frame::Topic,
    inbound::{Inbound, Judgement, Verdict},
    network::{PeerRole, PublishError},
    traffic::{Dropped, Gossip},
};

/// The node's judgement of a message.
pub(super) struct Judged {
    pub(super) message: gossipsub::MessageId,
    pub(super) propagated_by: libp2p::PeerId,
    /// None if it is on no topic of ours.
    pub(super) topic: Option<Topic>,
    pub(super) judgement: Judgement,
}

impl EventLoop {
    pub(super) fn publish(&mut self, topic: Topic, data: Bytes) -> Result<(), PublishError> {
        self.shared.traffic.gossip.count((topic, Gossip::Published));
        let topic = self.names.topic(topic);
        match self.swarm.behaviour_mut().gossip.publish(topic, data) {
            Ok(_) | Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => Ok(()),
            Err(gossipsub::PublishError::AllQueuesFull(_)) => Err(PublishError::Busy),
            Err(error) => {
                // Sizes were checked, keys can sign, and every message has a number of its own.
                tracing::error!(%error, "gossip refused a message");
                Err(PublishError::Busy)
            }
        }
    }

    /// Hands a message on a topic to the node.
    pub(super) fn gossip(
        &mut self,
        propagated_by: libp2p::PeerId,
        message: gossipsub::MessageId,
        content: gossipsub::Message,
    ) {
        let author = content.source.as_ref().and_then(keys::from_libp2p);
        let (Some(from), Some(neighbour), Some(topic)) =
            (author, keys::from_libp2p(&propagated_by), self.topics.get(&content.topic).copied())
        else {
            let judgement = Judgement::Reject;
            return self.judge(&Judged { message, propagated_by, topic: None, judgement });
        };
        let early =
            |judgement| Judged { message: message.clone(), propagated_by, topic: Some(topic), judgement };
        if content.data.len() > topic.bytes_max() {
            return self.judge(&early(Judgement::Reject));
        }
        if self.verdicts.len() >= self.limits.verdicts_max {
            self.shared.traffic.dropped.count(Dropped::Verdicts);
            return self.judge(&early(Judgement::Ignore));
        }
        let (verdict, judged) = oneshot::channel();
        let verdict = Verdict::new(move |judgement| {
            // The event loop may have stopped.
            let _ = verdict.send(judgement);
        });
        let data = Bytes::from(content.data);
        let inbound = Inbound::Gossip { from, propagated_by: neighbour, topic, data, verdict };
        // Dropping what the queue does not take ignores it.
        drop(self.ends.inbox.push(inbound));
        self.verdicts.push(
            async move {
                let judgement = judged.await.unwrap_or(Judgement::Ignore);
                Judged { message, propagated_by, topic: Some(topic), judgement }
            }
            .boxed(),
        );
    }

    pub(super) fn judge(&mut self, judged: &Judged) {
        let (acceptance, outcome) = match judged.judgement {
            Judgement::Accept => (gossipsub::MessageAcceptance::Accept, Gossip::Accepted),
            Judgement::Ignore => (gossipsub::MessageAcceptance::Ignore, Gossip::Ignored),
            Judgement::Reject => (gossipsub::MessageAcceptance::Reject, Gossip::Rejected),
        };
        if let Some(topic) = judged.topic {
            self.shared.traffic.gossip.count((topic, outcome));
        }
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        // A message judged too late is not in the cache any more, and travels no further.
        gossip.report_message_validation_result(&judged.message, &judged.propagated_by, acceptance);
    }

    pub(super) fn set_gossip_score(&mut self, peer: PeerId, role: PeerRole) {
        let points = if role == PeerRole::Member { score::MEMBER_SCORE } else { 0.0 };
        self.swarm.behaviour_mut().gossip.set_application_score(&keys::to_libp2p(peer), points);
    }
}
