//! Messages on topics.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use protocol::PeerId;
use rand::Rng as _;

use super::world::{Event, World, pair};
use crate::{
    frame::Topic,
    inbound::{Inbound, Judgement, Verdict},
};

/// How often a lost copy is tried again: libp2p offers a message again at each heartbeat, for five of them.
const TRIES_MAX: u32 = 5;

/// The heartbeat of gossip.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A message is remembered for this long, as libp2p does for duplicates.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A message and who has it.
pub(super) struct Message {
    author: PeerId,
    topic: Topic,
    data: Bytes,
    /// The neighbours to whom the author hands it, if it is not for all of them. The others may have it from these.
    audience: Option<BTreeSet<PeerId>>,
    /// Nodes that have a copy, or have one under way.
    have: BTreeSet<PeerId>,
}

impl World {
    pub(super) fn publish(
        &mut self,
        author: PeerId,
        topic: Topic,
        data: Bytes,
        audience: Option<BTreeSet<PeerId>>,
    ) {
        let id = self.number();
        let have = BTreeSet::from([author]);
        self.messages.insert(id, Message { author, topic, data, audience, have });
        self.schedule_in(REMEMBERED, Event::GossipForget { message: id });
        self.forward(id, author, 0);
    }

    /// Sends a message to the neighbours of a node that lack it, and again later to those it did not reach.
    pub(super) fn forward(&mut self, id: u64, node: PeerId, tries: u32) {
        let Some(message) = self.messages.get(&id) else { return };
        let Some(incarnation) = self.nodes.get(&node).map(|node| node.incarnation) else { return };
        let (topic, bytes) = (message.topic, message.data.len());
        let lacks = |(peer, other): (&PeerId, &super::world::Node)| {
            let linked = self.sessions.contains_key(&pair(node, *peer));
            let kept_from = message.audience.as_ref().is_some_and(|audience| !audience.contains(peer));
            let linked = linked && !(node == message.author && kept_from);
            (linked && other.topics.contains(&topic) && !message.have.contains(peer))
                .then_some((*peer, other.incarnation))
        };
        let neighbours: Vec<(PeerId, u64)> = self.nodes.iter().filter_map(lacks).collect();
        let mut missed = false;
        for (peer, incarnation) in neighbours {
            let Some(at) = self.transmit(node, peer, bytes) else {
                missed = true;
                continue;
            };
            if let Some(message) = self.messages.get_mut(&id) {
                message.have.insert(peer);
            }
            self.schedule(at, Event::GossipArrives { message: id, by: node, to: peer, incarnation });
            let twice = self.rng.random_bool(self.plan.duplicate.clamp(0.0, 1.0));
            if let Some(again) = twice.then(|| self.transmit(node, peer, bytes)).flatten() {
                self.schedule(again, Event::GossipArrives { message: id, by: node, to: peer, incarnation });
            }
        }
        if missed && tries < TRIES_MAX {
            let event = Event::GossipRetry { message: id, node, incarnation, tries: tries + 1 };
            self.schedule_in(HEARTBEAT, event);
        }
    }

    pub(super) fn gossip_arrives(&mut self, id: u64, by: PeerId, to: PeerId, incarnation: u64) {
        let Some(message) = self.messages.get(&id) else { return };
        let (from, topic, data) = (message.author, message.topic, message.data.clone());
        if self.check_up(to, incarnation).is_none() {
            return;
        }
        self.record("gossip", by, to, data.len());
        let handle = self.handle.clone();
        let Some(node) = self.nodes.get_mut(&to) else { return };
        if node.verdicts >= node.limits.verdicts_max {
            return;
        }
        node.verdicts += 1;
        let verdict = Verdict::new(move |judgement| {
            if let Some(shared) = handle.upgrade() {
                shared.with(|world| world.judge(id, to, incarnation, judgement));
            }
        });
        let inbound = Inbound::Gossip { from, propagated_by: by, topic, data, verdict };
        if let Err(inbound) = node.inbox.push(inbound) {
            // Dropping it ignores the message.
            self.refused.push(inbound);
        }
    }

    fn judge(&mut self, id: u64, by: PeerId, incarnation: u64, judgement: Judgement) {
        let Some(node) = self.nodes.get_mut(&by).filter(|node| node.incarnation == incarnation) else {
            return;
        };
        node.verdicts -= 1;
        if judgement == Judgement::Accept {
            self.forward(id, by, 0);
        }
    }
}
