//! The network as each node and client of a simulation sees it: answers of faulty peers are tampered with, and what is
//! said about peers is written down.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use protocol::{
    PeerId,
    message::{BlobStatus, Refusal, Request, Response, decode_page, encode_page},
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use swarm::{
    Address, Channel, ConnectedPeers, Frame, Network, Offence, PeerRole, PublishError, RequestError, Topic,
    simulated::SimulatedNetwork,
};

/// How a faulty peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Not at all.
    Mute,
    /// With bytes flipped, as often as not.
    Liar,
    /// That it knows of nothing, as often as not.
    Denier,
    /// The truth; but it lists its records one by one, each after [`LISTING_PAUSE`].
    Lister,
}

/// How long a [`Behaviour::Lister`] takes for a record.
pub const LISTING_PAUSE: Duration = Duration::from_secs(1);

/// What is known of the peers of a simulation: who is faulty, and who was blamed.
#[derive(Clone, Debug)]
pub struct Peers(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    faulty: BTreeMap<PeerId, Behaviour>,
    /// Who blamed whom for what.
    blamed: Vec<(PeerId, PeerId, Offence)>,
    tampered: u64,
    rng: ChaCha8Rng,
}

impl Peers {
    /// Returns peers that are all honest.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            faulty: BTreeMap::new(),
            blamed: Vec::new(),
            tampered: 0,
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x6c69_6172),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a peer faulty.
    pub fn corrupt(&self, peer: PeerId, behaviour: Behaviour) {
        self.lock().faulty.insert(peer, behaviour);
    }

    /// Makes a peer honest again.
    pub fn reform(&self, peer: PeerId) {
        self.lock().faulty.remove(&peer);
    }

    /// True if the peer is faulty now.
    #[must_use]
    pub fn is_faulty(&self, peer: PeerId) -> bool {
        self.lock().faulty.contains_key(&peer)
    }

    /// Who blamed whom for what, so far.
    #[must_use]
    pub fn blamed(&self) -> Vec<(PeerId, PeerId, Offence)> {
        self.lock().blamed.clone()
    }

    /// Answers that were tampered with.
    #[must_use]
    pub fn tampered(&self) -> u64 {
        self.lock().tampered
    }

    fn behaviour(&self, peer: PeerId) -> Option<Behaviour> {
        self.lock().faulty.get(&peer).copied()
    }

    /// What a faulty peer answers instead.
    fn tamper(&self, behaviour: Behaviour, answer: Frame) -> Frame {
        let mut inner = self.lock();
        if behaviour != Behaviour::Lister && inner.rng.random_bool(0.5) {
            return answer;
        }
        inner.tampered += 1;
        match behaviour {
            Behaviour::Mute => answer,
            Behaviour::Lister => {
                let mut page = decode_page(&answer.payload).unwrap_or_default();
                page.truncate(1);
                Frame::new(answer.header, encode_page(&page))
            }
            Behaviour::Liar if answer.payload.is_empty() => {
                let mut header = BytesMut::from(&answer.header[..]);
                flip(&mut inner.rng, &mut header);
                Frame::new(header.freeze(), answer.payload)
            }
            Behaviour::Liar => {
                let mut payload = BytesMut::from(&answer.payload[..]);
                flip(&mut inner.rng, &mut payload);
                Frame::new(answer.header, payload.freeze())
            }
            Behaviour::Denier => {
                let response = match Response::from_bytes(&answer.header) {
                    Ok(Response::Status(_)) => Response::Status(BlobStatus::Unknown),
                    _ => Response::Refused(Refusal::NotFound),
                };
                Frame::new(response.to_bytes(), Bytes::new())
            }
        }
    }
}

fn flip(rng: &mut ChaCha8Rng, bytes: &mut [u8]) {
    if !bytes.is_empty() {
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8_u32);
    }
}

/// A simulated network through which faulty peers are heard as they choose to be.
#[derive(Clone, Debug)]
pub struct Watched {
    network: SimulatedNetwork,
    peers: Peers,
}

impl Watched {
    /// Returns the network as one node sees it.
    #[must_use]
    pub const fn new(network: SimulatedNetwork, peers: Peers) -> Self {
        Self { network, peers }
    }
}

impl Network for Watched {
    fn local_peer(&self) -> PeerId {
        self.network.local_peer()
    }

    async fn request(
        &self,
        to: PeerId,
        channel: Channel,
        request: Frame,
        timeout: Duration,
    ) -> Result<Frame, RequestError> {
        match self.peers.behaviour(to) {
            None => self.network.request(to, channel, request, timeout).await,
            Some(Behaviour::Mute) => {
                tokio::time::sleep(timeout).await;
                Err(RequestError::Timeout)
            }
            Some(Behaviour::Lister)
                if !matches!(Request::from_bytes(&request.header), Ok(Request::ListRecords { .. })) =>
            {
                self.network.request(to, channel, request, timeout).await
            }
            Some(behaviour) => {
                if behaviour == Behaviour::Lister {
                    tokio::time::sleep(LISTING_PAUSE).await;
                }
                let answer = self.network.request(to, channel, request, timeout).await?;
                Ok(self.peers.tamper(behaviour, answer))
            }
        }
    }

    async fn publish(&self, topic: Topic, data: Bytes) -> Result<(), PublishError> {
        self.network.publish(topic, data).await
    }

    fn add_peer(&self, peer: PeerId, addresses: Vec<Address>, role: PeerRole) {
        self.network.add_peer(peer, addresses, role);
    }

    fn report(&self, peer: PeerId, offence: Offence) {
        self.peers.lock().blamed.push((self.local_peer(), peer, offence));
        self.network.report(peer, offence);
    }

    fn connected(&self) -> ConnectedPeers {
        self.network.connected()
    }
}
