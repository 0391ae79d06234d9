//! Copies slivers of a segment that moved to this node from the nodes that hold them as a whole.
//!
//! Rebuilding one moves as many bytes, from many nodes; copying asks one, and leaves the others to their users. Whatever is not
//! to be had so is rebuilt.

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use protocol::{
    PeerId,
    message::{RANGE_BYTES_MAX, Request, Response, SliverAt},
};
use swarm::{Network, Offence};

use super::{
    blob::Halt,
    segment::{MESSAGES_IN_FLIGHT, SegmentRepair},
};
use crate::{
    exchange::{ExchangeError, ask, malformed},
    upload::check_sliver,
};

impl<N: Network> SegmentRepair<'_, N> {
    /// Copies what is missing of the segment and another node answers for. What nobody gives, or gives wrongly, stays missing.
    pub(super) async fn copy(&self) -> Result<(), Halt> {
        let (context, owed) = (self.context, self.owed);
        let me = context.membership.me();
        for at in owed.seats.slivers(self.blob_id(), self.segment, self.shape) {
            if context.store.has_sliver(&at) {
                continue;
            }
            let holders = owed.roster.holders(owed.certified, (at.blob_id, at.segment), at.pair);
            for peer in holders.into_iter().filter(|peer| *peer != me && !context.has_failed(peer)) {
                let copied = self.fetch_sliver(peer, at).await;
                context.note(peer, &copied);
                match copied {
                    Ok(sliver) => {
                        if self.keep_copy(peer, at, sliver).await? {
                            break;
                        }
                    }
                    Err(error) => tracing::debug!(%peer, %error, "a sliver was not copied"),
                }
            }
        }
        Ok(())
    }

    /// Fetches a whole sliver; what it says is not checked yet.
    async fn fetch_sliver(&self, peer: PeerId, at: SliverAt) -> Result<Bytes, ExchangeError> {
        let len = self.shape.sliver_bytes(at.axis);
        let parts =
            (0..len).step_by(RANGE_BYTES_MAX).map(|offset| (offset, RANGE_BYTES_MAX.min(len - offset)));
        let parts = stream::iter(parts).map(|range| self.fetch_range(peer, at, range));
        // Boxed where they are awaited: the future of one request is large.
        let parts: Vec<Bytes> = Box::pin(parts.buffered(MESSAGES_IN_FLIGHT).try_collect()).await?;
        let mut sliver = BytesMut::with_capacity(len);
        parts.iter().for_each(|part| sliver.extend_from_slice(part));
        Ok(sliver.freeze())
    }

    async fn fetch_range(
        &self,
        peer: PeerId,
        at: SliverAt,
        (offset, len): (usize, usize),
    ) -> Result<Bytes, ExchangeError> {
        let context = self.context;
        let narrow = |count: usize| u32::try_from(count).map_err(|_| ExchangeError::Malformed);
        let request = Request::FetchSliver { at, offset: narrow(offset)?, len: narrow(len)? };
        let timeout = context.config.request_timeout;
        let (response, payload) = ask(&context.network, peer, (&request, Bytes::new()), timeout).await?;
        context.counters.add_received(payload.len() + response.to_bytes().len());
        match response {
            Response::Sliver { .. } if payload.len() == len => Ok(payload),
            _ => Err(malformed(&context.network, peer)),
        }
    }

    /// Checks a copy in full and makes it durable; false if it is not the sliver that was committed to.
    async fn keep_copy(&self, peer: PeerId, at: SliverAt, sliver: Bytes) -> Result<bool, Halt> {
        let (context, shape, commitment) = (self.context, self.shape, self.commitment.clone());
        let bytes = sliver.clone();
        let check = move |encoder: &mut _| check_sliver(encoder, &commitment, (at, shape), &bytes);
        let Some(parity) = context.encoder.run(check).await.map_err(|_| Halt::Stopped)? else {
            tracing::warn!(%peer, blob_id = %at.blob_id, "a peer sent a sliver that is not the one committed to");
            context.network.report(peer, Offence::Unverifiable);
            context.note_wrong(peer);
            return Ok(false);
        };
        context.store.put_sliver(at, parity, &sliver).await?;
        context.counters.add_regained(sliver.len());
        Ok(true)
    }
}
