//! Sending the blob again to a member that lost some of what it was sent.
//!
//! It may have been started anew with another disk, or dropped what rotted or came too slowly. It does not say what it
//! lacks, so it is sent everything; what it holds it answers at once. Segments that were let go are encoded once more,
//! for all who lost them together. None of this fails a blob that the others can make certain.

use std::{collections::BTreeSet, sync::Arc};

use futures::FutureExt as _;
use protocol::NodeIndex;
use swarm::Network;

use super::{
    StoreError,
    lane::Outgoing,
    upload::{Event, Upload, outgoing},
};

impl<N: Network> Upload<N> {
    /// Begins to send a member everything again.
    pub(super) fn resend(&mut self, node: NodeIndex) {
        tracing::info!(member = self.client.exchange.name(node), "lost some of the blob, sending it again");
        for index in self.identified.header.shape().segments() {
            // What is in hand is kept for it.
            let in_hand = self.held.get(&index).map(Arc::clone);
            match in_hand.and_then(|segment| outgoing(index, segment, &self.identified.roots).ok()) {
                Some(outgoing) => self.send(node, &Arc::new(outgoing)),
                None => {
                    self.again.entry(index).or_default().insert(node);
                }
            }
        }
    }

    /// Encodes what was lost once more, as far as there is room.
    pub(super) fn encode_again(&mut self) {
        while !self.has_next() && self.has_room() {
            let Some((index, mut nodes)) = self.again.pop_first() else { return };
            nodes.retain(|node| self.state.is_reachable(*node));
            if nodes.is_empty() {
                continue;
            }
            self.n_encoding += 1;
            let encoded = self.encode(index);
            self.events.push(encoded.map(|outgoing| Event::EncodedAgain(nodes, outgoing)).boxed());
        }
    }

    pub(super) fn offer_again(
        &mut self,
        nodes: BTreeSet<NodeIndex>,
        outgoing: Result<Outgoing, StoreError>,
    ) -> Result<(), StoreError> {
        self.n_encoding -= 1;
        let outgoing = match outgoing {
            Ok(outgoing) => Arc::new(outgoing),
            Err(StoreError::Stopped) => return Err(StoreError::Stopped),
            Err(error) => {
                for node in nodes {
                    self.give_up(node, format!("it lost slivers, and they cannot be made again: {error}"));
                }
                return Ok(());
            }
        };
        self.held.insert(outgoing.index, Arc::clone(&outgoing.segment));
        self.state.offer_again(outgoing.index, &nodes, self.started.elapsed());
        for node in nodes.into_iter().filter(|node| self.state.is_reachable(*node)) {
            self.send(node, &outgoing);
        }
        Ok(())
    }
}
