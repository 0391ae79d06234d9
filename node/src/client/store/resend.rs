//! Sending slivers once more, or for the first time, to members that lack them although the blob went out already.
//!
//! A member may have been started anew with another disk, or dropped what rotted or came too slowly. It does not say what it
//! lacks, so it is sent everything; what it holds it answers at once. A member that got shards when the committee changed
//! lacks the slivers of these, and is sent no others. Segments that were let go are encoded once more, for all who lack them
//! together. None of this fails a blob that the others can make certain.

use std::{collections::BTreeSet, sync::Arc};

use futures::FutureExt as _;
use protocol::{NodeIndex, SegmentIndex};
use swarm::Network;

use super::{
    StoreError,
    lane::Outgoing,
    upload::{Event, Upload, outgoing},
};

impl<N: Network> Upload<N> {
    /// Begins to send a member what it lacks: what it is not known to hold or, if it is known to hold everything, all of it.
    pub(super) fn resend(&mut self, node: NodeIndex) {
        let segments = || self.identified.header.shape().segments();
        if segments().all(|index| self.lacking(node, index).is_empty()) {
            tracing::info!(member = self.exchange.name(node), "lost some of the blob, sending it again");
            self.holdings.forget(&self.exchange.peer(node));
        }
        for index in self.identified.header.shape().segments() {
            if self.lacking(node, index).is_empty() {
                self.state.holds(node, index, self.started.elapsed());
            } else {
                self.send_in_hand(node, index);
            }
        }
    }

    /// Sends a member what it lacks of a segment that went out before: at once if the segment is in hand, else when it is
    /// encoded once more.
    pub(super) fn send_in_hand(&mut self, node: NodeIndex, index: SegmentIndex) {
        let in_hand = self.held.get(&index).map(Arc::clone);
        match in_hand.and_then(|segment| outgoing(index, segment, &self.identified.roots).ok()) {
            Some(outgoing) => self.send(node, &Arc::new(outgoing)),
            None => {
                self.again.entry(index).or_default().insert(node);
            }
        }
    }

    /// Encodes what is lacked once more, as far as there is room.
    pub(super) fn encode_again(&mut self) {
        let state = &self.state;
        self.again.retain(|_, nodes| {
            nodes.retain(|node| state.is_reachable(*node));
            !nodes.is_empty()
        });
        while !self.has_next() && self.has_room() {
            let next = self.again.keys().find(|index| !self.encoding_again.contains(index));
            let Some(index) = next.copied() else { return };
            self.encoding_again.insert(index);
            let encoded = self.encode(index);
            self.events.push(encoded.map(move |outgoing| Event::EncodedAgain(index, outgoing)).boxed());
        }
    }

    pub(super) fn offer_again(
        &mut self,
        index: SegmentIndex,
        outgoing: Result<Outgoing, StoreError>,
    ) -> Result<(), StoreError> {
        self.encoding_again.remove(&index);
        let mut nodes: BTreeSet<NodeIndex> = self.again.remove(&index).unwrap_or_default();
        nodes.retain(|node| self.state.is_reachable(*node));
        let outgoing = match outgoing {
            Ok(outgoing) => Arc::new(outgoing),
            Err(StoreError::Stopped) => return Err(StoreError::Stopped),
            Err(error) => {
                for node in nodes {
                    self.give_up(node, format!("it lacks slivers, and they cannot be made again: {error}"));
                }
                return Ok(());
            }
        };
        self.held.insert(index, Arc::clone(&outgoing.segment));
        self.state.offer_again(index, &nodes, self.started.elapsed());
        for node in nodes {
            self.send(node, &outgoing);
        }
        Ok(())
    }
}
