//! Going on under another committee when the epoch ends before the blob is certified.
//!
//! ```text
//! hint: WrongEpoch, NotMine, or any answer whose head another committee signed --follow--> later committee
//!   all sent:  Confirm by its members --Missing--> slivers of the shards that they got
//!   ordered:   Confirm by those who took the order; everything, with the order, to the others
//!   else:      what went out already is sent to who lacks it, the rest to all
//! ```
//!
//! The registration carries over, since the ledger takes a certificate of the current committee whenever that was made; an
//! order does, which nobody has executed yet; and so do the slivers that are out: most shards stay where they are. Nothing
//! that was signed does.

use std::collections::BTreeSet;

use futures::{FutureExt as _, StreamExt as _, stream};
use protocol::{Epoch, NodeIndex, SegmentIndex, message::Refusal};
use swarm::Network;
use tokio::time::Instant;

use super::{
    StoreError,
    holdings::Slivers,
    upload::{Event, ORDER_PATIENCE, Phase, Upload, builder_of, lanes_of},
};
use crate::client::exchange::AskError;

/// How many members at a time are asked to show that the epoch ended: one would do, if it is honest and there.
const FOLLOWED_MAX: usize = 3;

impl<N: Network> Upload<N> {
    /// The epoch whose members are asked to confirm.
    pub(super) fn epoch(&self) -> Epoch {
        self.exchange.committee().epoch()
    }

    /// Goes on under the newest committee that is known, if that is another and there is no certificate yet.
    pub(super) fn keep_up(&mut self) {
        if matches!(self.phase, Phase::Confirming) && self.client.ledger.trusted().epoch() > self.epoch() {
            self.go_on();
        }
    }

    /// The certificate came too late for its epoch: members are asked to confirm for the one that has begun.
    pub(super) fn begin_anew(&mut self) -> Result<(), StoreError> {
        if self.client.ledger.trusted().epoch() <= self.epoch() {
            return Err(StoreError::Superseded);
        }
        self.phase = Phase::Confirming;
        self.go_on();
        Ok(())
    }

    fn go_on(&mut self) {
        let client = self.client.clone();
        let committee = client.ledger.trusted();
        let committee = committee.current();
        tracing::info!(epoch = %committee.epoch(), "the epoch ended; storing goes on with its successor");
        for lane in &self.lanes {
            lane.stop();
        }
        self.exchange = client.exchange.of(committee);
        self.builder = builder_of(&self.exchange, &self.deal);
        self.lanes = lanes_of(&self.exchange, self.deal.header, &self.flow);
        let order_bytes = self.order().len();
        self.in_one &= self.lanes.iter().all(|lane| lane.fits_in_one(order_bytes));
        if self.in_one && self.is_ordered() {
            self.give_order_up_at = Some(Instant::now() + ORDER_PATIENCE);
        } else {
            // Nodes that hold the order have it executed by themselves, or will find that it is.
            self.give_order_up();
        }
        self.state.move_to(committee);
        self.again.clear();
        self.hints.clear();
        self.is_doubtful = false;
        self.has_moved = true;
        if self.has_next() || !self.encoding.is_empty() || self.is_ordered() {
            self.send_what_went_out();
        } else {
            self.ask_everyone();
        }
    }

    /// Everything went out: members are asked first whether they lack anything.
    fn ask_everyone(&mut self) {
        self.state.assume_held();
        let now = self.started.elapsed();
        for index in self.held.keys() {
            self.state.offer_again(*index, &BTreeSet::new(), now);
        }
        for node in self.exchange.committee().nodes() {
            self.confirm(node);
        }
    }

    /// Some is still to come, or not everyone has the order: what went out is sent to those who lack it now.
    fn send_what_went_out(&mut self) {
        let now = self.started.elapsed();
        let sent = (0..self.next.0).map(SegmentIndex).filter(|index| !self.encoding.contains(index));
        let sent: Vec<SegmentIndex> = sent.collect();
        for index in sent {
            if self.held.contains_key(&index) {
                self.state.offer(index, now);
            }
            for node in self.exchange.committee().nodes() {
                if self.lacking(node, index).is_empty() {
                    if self.state.holds(node, index, now) {
                        self.confirm(node);
                    }
                } else {
                    self.send_in_hand(node, index);
                }
            }
        }
    }

    /// What a member is not known to hold of a segment.
    pub(super) fn lacking(&self, node: NodeIndex, index: SegmentIndex) -> Slivers {
        let header = &self.deal.header;
        let shape = header.shape().segment(index).expect("only segments that exist are sent");
        self.holdings.lacking(self.exchange.committee(), node, (header.blob_id(), index), shape)
    }

    /// Takes from a refusal that another committee may have taken over.
    pub(super) fn note_hint(&mut self, node: NodeIndex, error: &AskError) {
        match error {
            AskError::Refused(Refusal::WrongEpoch { current }) if *current > self.epoch() => {
                self.hints.insert(self.exchange.peer(node), *current);
            }
            AskError::Refused(Refusal::NotMine) => self.is_doubtful = true,
            _ => {}
        }
    }

    /// True while it may turn out that another committee took over.
    pub(super) fn may_move(&self) -> bool {
        self.is_refreshing || self.is_doubtful || !self.hints.is_empty()
    }

    /// Finds out whether another committee took over, if there is reason to: from who says so, or from members worth a
    /// validity set. Bounded by the timeout of a request.
    pub(super) fn refresh(&mut self) {
        if self.is_refreshing || !self.may_move() || !matches!(self.phase, Phase::Confirming) {
            return;
        }
        self.is_refreshing = true;
        self.is_doubtful = false;
        let hints = std::mem::take(&mut self.hints);
        let (client, epoch) = (self.client.clone(), self.epoch());
        let refresh = async move {
            // Whatever comes of it shows in the committees that are known.
            if hints.is_empty() {
                if let Err(error) = client.ledger_head().await {
                    tracing::debug!(%error, "it is not known whether the epoch ended");
                }
                return;
            }
            let follow = |(peer, later)| client.follow(peer, later);
            let mut followed = stream::iter(hints).map(follow).buffer_unordered(FOLLOWED_MAX);
            while let Some(result) = followed.next().await {
                if client.ledger.trusted().epoch() > epoch {
                    return;
                }
                if let Err(error) = result {
                    tracing::debug!(%error, "who says that the epoch ended does not show it");
                }
            }
        };
        let refresh = tokio::time::timeout(self.exchange.request_timeout(), refresh);
        self.events.push(refresh.map(|_| Event::Refreshed).boxed());
    }
}
