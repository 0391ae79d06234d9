//! A peer that does its worst: for tests, and for `floe-testnet bench flood`.
//!
//! ```text
//!  Assault: for each attack a few workers, each with an identity that is made anew whenever the node hangs up
//!     wire       bytes of connections, of handshakes and of the agreement on a protocol, written by hand
//!     datagrams  the same for QUIC
//!     session    a connection after the real handshake (Noise and Yamux, or QUIC), and its streams, raw
//!     attacks    what is done with them
//!     deeds      what was done, so that an attack that does nothing is noticed
//! ```
//!
//! Nothing of a node's own code is used: that would be as well behaved as a node. Which protocols there are to attack is what
//! the node itself says when it is asked to identify itself, so none can be forgotten.

mod attacks;
mod datagrams;
mod deeds;
mod session;
mod wire;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

pub use self::deeds::{Attack, Counts, Deeds};
use self::session::Session;
use crate::address::Transport;

/// How long the peer waits for an answer that it wants, and before it begins anew what failed at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between connections of one worker: what a flood is made of is connections, not the attacker's processor time.
const PAUSE: Duration = Duration::from_millis(50);

/// Whom to attack, and from where.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the node listens.
    pub node: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// The attacker's own address. On one machine, another one than everybody else's tells it apart, as in the world.
    pub source: IpAddr,
    /// Requests that the node answers at length, by the name of the protocol; their answers are asked for and not read.
    pub questions: Vec<(String, Bytes)>,
}

/// A protocol that the node speaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Protocol {
    /// The name on the wire.
    name: String,
    /// The name in reports: without the network, which differs each time.
    label: String,
}

impl Protocol {
    fn new(name: String) -> Self {
        let own = name.strip_prefix("/floe/").and_then(|rest| rest.split('/').nth(1));
        let label = own.map_or_else(|| name.clone(), str::to_owned);
        Self { name, label }
    }

    /// Whether requests of Floe's own form go over it.
    fn is_channel(&self) -> bool {
        self.label == "control" || self.label == "bulk"
    }

    /// Whether it is a version of gossip.
    fn is_gossip(&self) -> bool {
        self.name.starts_with("/meshsub/")
    }
}

/// What all workers know.
#[derive(Debug)]
struct Scene {
    target: Target,
    protocols: Vec<Protocol>,
    deeds: Deeds,
}

/// Attacks that are under way; they end when it is dropped.
#[derive(Debug)]
pub struct Assault {
    scene: Arc<Scene>,
    stop: CancellationToken,
    workers: JoinSet<()>,
}

impl Assault {
    /// Asks the node which protocols it speaks, and begins these attacks, each with so many workers. Those that do not exist over
    /// its transport ([`Attack::is_over`]) are left out.
    ///
    /// Cancel safe: yes, nothing goes on.
    ///
    /// # Errors
    ///
    /// If the node cannot be reached, or does not say what it speaks.
    pub async fn begin(target: Target, attacks: &[(Attack, usize)]) -> io::Result<Self> {
        let protocols = timeout(PATIENCE, protocols(&target)).await.map_err(io::Error::other)??;
        let labels = protocols.iter().map(|protocol| protocol.label.clone());
        let transport = target.transport;
        let attacks = attacks.iter().filter(|(attack, _)| attack.is_over(transport));
        let deeds = Deeds::new(attacks.clone().map(|(attack, _)| *attack), labels);
        let scene = Arc::new(Scene { target, protocols, deeds });
        let (stop, mut workers) = (CancellationToken::new(), JoinSet::new());
        for (attack, n_workers) in attacks {
            for worker in 0..*n_workers {
                let (attack, scene, stop) = (*attack, Arc::clone(&scene), stop.clone());
                let seed = u64::try_from(worker).unwrap_or(0);
                workers.spawn(async move {
                    stop.run_until_cancelled(work(attack, &scene, seed)).await;
                });
            }
        }
        Ok(Self { scene, stop, workers })
    }

    /// The protocols that the node speaks, by the names that they have in reports.
    #[must_use]
    pub fn protocols(&self) -> Vec<String> {
        self.scene.protocols.iter().map(|protocol| protocol.label.clone()).collect()
    }

    /// What was done so far.
    #[must_use]
    pub fn deeds(&self) -> &Deeds {
        &self.scene.deeds
    }

    /// Ends it, and returns what was done.
    ///
    /// Cancel safe: it ends anyway.
    pub async fn end(mut self) -> Deeds {
        self.stop.cancel();
        while self.workers.join_next().await.is_some() {}
        self.scene.deeds.clone()
    }
}

/// One attack again and again.
async fn work(attack: Attack, scene: &Scene, seed: u64) {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    loop {
        let ended = match (attack.is_of_handshake(), scene.target.transport) {
            (true, Transport::Tcp) => attacks::on_handshake(attack, scene, &mut dice).await,
            (true, Transport::Quic) => attacks::on_datagrams(attack, scene, &mut dice).await,
            (false, _) => attacks::in_session(attack, scene, &mut dice).await,
        };
        tracing::trace!(?attack, ?ended, "a connection of an attack ended");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The protocols that a node says that it speaks.
async fn protocols(target: &Target) -> io::Result<Vec<Protocol>> {
    let (session, drive) = Session::connect(target).await?;
    let ask = async {
        let mut stream = session.open_protocol(wire::IDENTIFY).await?;
        let info = wire::read_message(&mut stream).await?;
        let mut protocols: Vec<_> = wire::identified_protocols(&info)?.map(Protocol::new).collect();
        protocols.sort();
        Ok(protocols)
    };
    tokio::select! {
        protocols = ask => protocols,
        error = drive => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_leave_the_network_out() {
        for (name, label) in [
            ("/floe/0123456789abcdef/bulk/1", "bulk"),
            ("/floe/0123456789abcdef/kad/1", "kad"),
            ("/ipfs/ping/1.0.0", "/ipfs/ping/1.0.0"),
        ] {
            assert_eq!(Protocol::new(name.to_owned()).label, label);
        }
    }
}
