//! The network as each node and client of a simulation sees it: answers of faulty peers are tampered with, and what is
//! said about peers is written down.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use node::{latest, ledger::View};
use protocol::{
    PeerId,
    ledger::wire,
    message::{Refusal, Response},
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use swarm::{
    Address, Channel, ConnectedPeers, Frame, Network, Offence, PeerRole, PublishError, RequestError, Topic,
    simulated::SimulatedNetwork,
};

use super::lies::{Liar, Said};

/// How a faulty peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Not at all.
    Mute,
    /// With bytes flipped, as often as not.
    Liar,
    /// That it knows of nothing, as often as not.
    Denier,
    /// The truth; but in consensus it votes twice, one way for some and another for others. This and the ones below are
    /// for [`World::lie`](super::World::lie).
    DoubleVoter,
    /// The truth; but in its turn it proposes two blocks to different members, and votes for both.
    Equivocator,
    /// The truth, and no blocks; in consensus it keeps proposals and half of its votes to itself.
    Withholder,
    /// The truth, and forged blocks; in consensus it says beside the truth what is forged, stale or malformed.
    Forger,
}

impl Behaviour {
    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mute => "mute",
            Self::Liar => "liar",
            Self::Denier => "denier",
            Self::DoubleVoter => "double voter",
            Self::Equivocator => "equivocator",
            Self::Withholder => "withholder",
            Self::Forger => "forger",
        }
    }
}

/// What is known of the peers of a simulation: who is faulty, and who was blamed.
#[derive(Clone, Debug)]
pub struct Peers(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    faulty: BTreeMap<PeerId, Behaviour>,
    /// All that ever were.
    ever_faulty: BTreeSet<PeerId>,
    /// Members that lie in consensus; all of them are in `faulty` too.
    liars: BTreeMap<PeerId, Liar>,
    /// The ledgers of all nodes, for those who lie about them.
    views: BTreeMap<PeerId, latest::Receiver<View>>,
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
            ever_faulty: BTreeSet::new(),
            liars: BTreeMap::new(),
            views: BTreeMap::new(),
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
        let mut inner = self.lock();
        inner.ever_faulty.insert(peer);
        inner.faulty.insert(peer, behaviour);
    }

    /// Makes a member lie in consensus.
    pub(super) fn lie(&self, peer: PeerId, behaviour: Behaviour, mut liar: Liar) {
        let mut inner = self.lock();
        if let Some(view) = inner.views.get(&peer) {
            liar.sees(view.clone());
        }
        inner.ever_faulty.insert(peer);
        inner.faulty.insert(peer, behaviour);
        inner.liars.insert(peer, liar);
    }

    /// Takes note of the ledger of a node that was started.
    pub(super) fn started(&self, peer: PeerId, view: latest::Receiver<View>) {
        let mut inner = self.lock();
        if let Some(liar) = inner.liars.get_mut(&peer) {
            liar.sees(view.clone());
        }
        inner.views.insert(peer, view);
    }

    /// Makes a peer honest again, unless it lies in consensus: that needs no end for everything else to be well.
    pub fn reform(&self, peer: PeerId) {
        let mut inner = self.lock();
        if !inner.liars.contains_key(&peer) {
            inner.faulty.remove(&peer);
        }
    }

    /// True if the peer has contradicted itself in consensus, and goes on to.
    pub(super) fn contradicts(&self, peer: PeerId) -> bool {
        self.lock().liars.get(&peer).is_some_and(|liar| liar.contradictions() > 0)
    }

    /// True if the peer is faulty now.
    #[must_use]
    pub fn is_faulty(&self, peer: PeerId) -> bool {
        self.lock().faulty.contains_key(&peer)
    }

    /// True if the peer was faulty at some time: others may refuse it for a while, and for longer if it is no member.
    #[must_use]
    pub fn was_faulty(&self, peer: PeerId) -> bool {
        self.lock().ever_faulty.contains(&peer)
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

    /// What a peer that lies says to everyone, or to some; `None` if it is honest.
    fn twist(&self, peer: PeerId, topic: Topic, data: &Bytes) -> Option<Vec<Said>> {
        if !matches!(topic, Topic::Ledger | Topic::Transactions) {
            return None;
        }
        self.lock().liars.get_mut(&peer).map(|liar| liar.twist(topic, data))
    }

    /// What a peer that lies in consensus answers.
    fn twist_answer(&self, peer: PeerId, answer: Frame) -> Frame {
        if !matches!(Response::from_bytes(&answer.header), Ok(Response::Ledger)) {
            return answer;
        }
        let Ok(response) = wire::Response::decode(&answer.payload) else { return answer };
        let mut inner = self.lock();
        match inner.liars.get_mut(&peer).and_then(|liar| liar.twist_answer(&response)) {
            Some(lie) => Frame::new(answer.header, Bytes::from(lie.encode())),
            None => answer,
        }
    }

    /// What a faulty peer answers instead.
    fn tamper(&self, behaviour: Behaviour, answer: Frame) -> Frame {
        let mut inner = self.lock();
        if inner.rng.random_bool(0.5) {
            return answer;
        }
        inner.tampered += 1;
        match behaviour {
            Behaviour::Mute
            | Behaviour::DoubleVoter
            | Behaviour::Equivocator
            | Behaviour::Withholder
            | Behaviour::Forger => answer,
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
            Behaviour::Denier => Frame::new(Response::Refused(Refusal::NotFound).to_bytes(), Bytes::new()),
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
            Some(
                Behaviour::DoubleVoter | Behaviour::Equivocator | Behaviour::Withholder | Behaviour::Forger,
            ) => {
                let answer = self.network.request(to, channel, request, timeout).await?;
                Ok(self.peers.twist_answer(to, answer))
            }
            Some(behaviour) => {
                let answer = self.network.request(to, channel, request, timeout).await?;
                Ok(self.peers.tamper(behaviour, answer))
            }
        }
    }

    async fn publish(&self, topic: Topic, data: Bytes) -> Result<(), PublishError> {
        let Some(said) = self.peers.twist(self.local_peer(), topic, &data) else {
            return self.network.publish(topic, data).await;
        };
        for Said { topic, data, audience } in said {
            match audience {
                Some(audience) => self.network.publish_to(audience, topic, data)?,
                None => self.network.publish(topic, data).await?,
            }
        }
        Ok(())
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
