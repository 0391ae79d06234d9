//! The shell of the server: takes what peers send and hands it to tasks.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::{
    PeerId,
    ledger::wire::Message,
    message::{Refusal, Request, Response},
};
use swarm::{Frame, Inbound, InboundReceiver, Network, Offence, Responder, Topic, Verdict};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{handler::Handler, served::kind};
use crate::{exchange::decode_announcement, ledger};

/// Tuning of the server.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Requests worked on at the same time; more are answered `Busy`. Those of strangers take at most three quarters, so
    /// that however many they are, members can still repair.
    pub requests_in_flight: usize,
    /// How long a peer may take to hand over evidence that it asks us to attest.
    pub evidence_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        // A request holds at most a frame and a few disk pages: 512 of them are 128 MiB.
        Self { requests_in_flight: 512, evidence_timeout: Duration::from_secs(10) }
    }
}

/// Answers what peers ask; see the [module](super) for the invariants.
pub struct Actor<N> {
    config: Config,
    handler: Arc<Handler<N>>,
    inbound: InboundReceiver,
    tasks: JoinSet<()>,
    places: Places,
}

impl<N> std::fmt::Debug for Actor<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("server::Actor").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl<N: Network> Actor<N> {
    /// Returns the actor, not yet running.
    pub(crate) fn new(config: Config, handler: Handler<N>, inbound: InboundReceiver) -> Self {
        let places = Places::new(config.requests_in_flight);
        Self { config, handler: Arc::new(handler), inbound, tasks: JoinSet::new(), places }
    }

    /// Runs until `stop` is cancelled or the network stops; requests in hand are then dropped, their callers told.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(ended) = self.tasks.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "a request handler failed; this is a bug");
                },
                inbound = self.inbound.recv() => match inbound {
                    Some(inbound) => self.accept(inbound),
                    None => return,
                },
            }
        }
    }

    fn accept(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Request { from, frame, reply, .. } => self.request(from, frame, reply),
            Inbound::Gossip {
                from,
                topic: topic @ (Topic::Ledger | Topic::Transactions),
                data,
                verdict,
                ..
            } => {
                self.ledger_message(from, topic, &data, verdict);
            }
            Inbound::Gossip { from, topic: Topic::Epoch, data, verdict, .. } => {
                self.announcement(from, &data, verdict);
            }
            Inbound::Connected(peer) => {
                tracing::debug!(%peer, "a peer connected");
                self.handler.peer_joined(peer);
            }
            Inbound::Disconnected(peer) => {
                tracing::debug!(%peer, "a peer disconnected");
                self.handler.peer_left(peer);
            }
        }
    }

    fn request(&mut self, from: PeerId, frame: Frame, reply: Responder) {
        let Some(place) = self.places.take(self.handler.is_member(from)) else {
            self.handler.served.had_no_place();
            reply.busy();
            return;
        };
        let Ok(request) = Request::from_bytes(&frame.header) else {
            self.handler.network().report(from, Offence::Malformed);
            self.handler.served.refused(&Refusal::Malformed);
            answer(reply, Response::Refused(Refusal::Malformed), Bytes::new());
            return;
        };
        let handler = Arc::clone(&self.handler);
        let evidence_timeout = self.config.evidence_timeout;
        self.tasks.spawn(async move {
            let _place = place;
            let (kind, start) = (kind(&request), Instant::now());
            let result = Box::pin(handler.handle(from, request, frame.payload, evidence_timeout)).await;
            handler.served.answered(kind, start.elapsed());
            match result {
                Ok((response, payload)) => answer(reply, response, payload),
                Err(refusal) => {
                    handler.served.refused(&refusal);
                    if refusal == Refusal::Unverifiable {
                        handler.network().report(from, Offence::Unverifiable);
                    }
                    answer(reply, Response::Refused(refusal), Bytes::new());
                }
            }
        });
    }

    /// A member says that a stage of an epoch has begun. Whoever has not heard of the block asks that member for it; nothing is
    /// believed.
    fn announcement(&self, from: PeerId, data: &[u8], verdict: Verdict) {
        if !self.handler.is_member(from) {
            verdict.ignore();
            return;
        }
        let Ok((header, _)) = decode_announcement(data) else {
            self.handler.network().report(from, Offence::Malformed);
            verdict.reject();
            return;
        };
        if self.handler.ledger.hear(from, Message::Status { height: header.height }) {
            verdict.accept();
        } else {
            verdict.ignore();
        }
    }

    /// Passes on what a member says of the ledger. Whether it is true is for the ledger to find out; that a member said it is
    /// certain, so flooding has an author.
    fn ledger_message(&self, from: PeerId, topic: Topic, data: &[u8], verdict: Verdict) {
        if !self.handler.is_member(from) {
            verdict.ignore();
            return;
        }
        let message = Message::decode(data).ok().filter(|message| ledger::topic_of(message) == topic);
        let Some(message) = message else {
            self.handler.network().report(from, Offence::Malformed);
            verdict.reject();
            return;
        };
        if self.handler.ledger.hear(from, message) {
            verdict.accept();
        } else {
            verdict.ignore();
        }
    }
}

/// Places for requests in hand.
struct Places {
    all: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

/// One place, until it is dropped.
type Place = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl Places {
    fn new(places: usize) -> Self {
        let strangers = places - places / 4;
        Self { all: Arc::new(Semaphore::new(places)), strangers: Arc::new(Semaphore::new(strangers)) }
    }

    /// Takes a place, if there is one for this kind of peer.
    fn take(&self, is_member: bool) -> Option<Place> {
        let of_strangers = match is_member {
            true => None,
            false => Some(Arc::clone(&self.strangers).try_acquire_owned().ok()?),
        };
        Some((Arc::clone(&self.all).try_acquire_owned().ok()?, of_strangers))
    }
}

fn answer(reply: Responder, response: Response, payload: Bytes) {
    if let Err(error) = reply.send(Frame::new(response.to_bytes(), payload)) {
        tracing::error!(%error, "an answer was too large; this is a bug");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_leave_places_to_members() {
        let places = Places::new(8);
        let mut strangers: Vec<Place> = (0..6).map(|_| places.take(false).unwrap()).collect();
        assert!(places.take(false).is_none());
        let members: Vec<Place> = (0..2).map(|_| places.take(true).unwrap()).collect();
        assert!(places.take(true).is_none());
        strangers.pop();
        assert!(places.take(true).is_some());
        assert!(places.take(false).is_some());
        drop((members, strangers));
        let _all: Vec<Place> = (0..8).map(|_| places.take(true).unwrap()).collect();
        assert!(places.take(false).is_none());
        assert!(Places::new(1).take(false).is_some(), "a single place is for anyone");
    }
}
