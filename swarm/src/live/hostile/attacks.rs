//! What is done with connections and streams.
//!
//! Each attack goes on until the node ends the connection; its worker then makes another one. A stream that the node ends is
//! part of the attack, and so no error: a connection that ends is, since nothing more can be done with it.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, future::try_join_all};
use libp2p::{core::muxing::SubstreamBox, tcp};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::{sleep, timeout};

use super::{
    Attack, PATIENCE, PAUSE, Protocol, Scene, Session, datagrams,
    session::{connect, drain},
    wire,
};

/// How often a slow stream sends a byte.
const SLOW: Duration = Duration::from_secs(1);
/// Streams side by side, for each protocol or question where there are several.
const LANES: usize = 16;
/// Half-sent requests of one session on each channel: with 16 MiB in all, a quarter of what a node reads at a time.
const HOARD_LANES: usize = 64;
/// Streams that are left while a protocol is agreed on; a node that stops looking at new ones does so after fewer.
const STALLED_STREAMS: usize = 128;
/// Streams of one session; Yamux lets no peer have more that were not answered (the backlog of its specification).
const STREAMS: usize = 250;
/// What fits into a stream that nobody reads.
const WINDOW_BYTES: usize = 256 * 1024;
/// Topics in a packet; with 64 letters each, about half of what gossip takes in a message of this kind.
const TOPICS: usize = 400;

pub(super) async fn on_handshake(attack: Attack, scene: &Scene, dice: &mut ChaCha8Rng) -> io::Result<()> {
    let deeds = &scene.deeds;
    let mut stream = tcp::tokio::TcpStream(connect(&scene.target).await?);
    deeds.connected(attack);
    match attack {
        Attack::Trickle => trickle(attack, scene, &mut stream, &wire::proposal(wire::NOISE)).await,
        Attack::Noise => {
            let garbage = wire::random(dice, WINDOW_BYTES / 64);
            stream.write_all(&garbage).await?;
            deeds.sent(attack, garbage.len());
            Ok(())
        }
        Attack::HalfOpen => {
            wire::agree(&mut stream, wire::NOISE).await?;
            // The first message of Noise XX is a public key, and any 32 bytes are one.
            let first = [&[0, 32][..], &wire::random(dice, 32)].concat();
            stream.write_all(&first).await?;
            deeds.sent(attack, first.len());
            hold(&mut stream).await
        }
        _ => hold(&mut stream).await,
    }
}

/// The same over QUIC: where they come from is a connection, as far as there is one.
pub(super) async fn on_datagrams(attack: Attack, scene: &Scene, dice: &mut ChaCha8Rng) -> io::Result<()> {
    let deeds = &scene.deeds;
    if attack == Attack::Noise {
        let socket = datagrams::socket(&scene.target).await?;
        deeds.connected(attack);
        for _ in 0..LANES {
            deeds.sent(attack, socket.send(&datagrams::garbage(dice)).await?);
        }
        return Ok(());
    }
    let sent = timeout(PATIENCE, datagrams::half_open(&scene.target)).await.map_err(io::Error::other)??;
    deeds.connected(attack);
    deeds.sent(attack, sent);
    Ok(())
}

/// Waits until the node ends the connection.
async fn hold(stream: &mut tcp::tokio::TcpStream) -> io::Result<()> {
    let mut buffer = [0; 512];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Sends a byte a second: first these, then any.
async fn trickle<T: AsyncRead + AsyncWrite + Unpin>(
    attack: Attack,
    scene: &Scene,
    stream: &mut T,
    bytes: &[u8],
) -> io::Result<()> {
    for byte in bytes.iter().chain(std::iter::repeat(&7)) {
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
        scene.deeds.sent(attack, 1);
        sleep(SLOW).await;
    }
    Ok(())
}

/// What one of the streams side by side of a session does, again and again.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Negotiate,
    Garbage(&'a Protocol),
    Loris(&'a Protocol),
    Hoard(&'a Protocol),
    Unread(&'a Protocol, &'a Bytes),
    Pings(&'a Protocol),
    Answer(usize),
    Topics(&'a Protocol),
    Streams,
}

/// A step for each lane on each protocol that is meant.
fn each<'a>(
    scene: &'a Scene,
    lanes: usize,
    step: fn(&'a Protocol) -> Step<'a>,
    is_meant: fn(&Protocol) -> bool,
) -> Vec<Step<'a>> {
    let meant = scene.protocols.iter().filter(|protocol| is_meant(protocol));
    meant.flat_map(|protocol| std::iter::repeat_n(step(protocol), lanes)).collect()
}

/// The steps of an attack, to be taken side by side.
fn steps(attack: Attack, scene: &Scene) -> Vec<Step<'_>> {
    match attack {
        Attack::Negotiation => vec![Step::Negotiate; LANES],
        Attack::Garbage => each(scene, 1, Step::Garbage, |_| true),
        Attack::Loris => {
            // A node that sees gossip begun anew a few times hears no more of it on that connection, of whatever version.
            let mut steps = each(scene, 1, Step::Loris, Protocol::is_gossip);
            steps.extend(each(scene, LANES, Step::Loris, |protocol| !protocol.is_gossip()));
            steps
        }
        Attack::Hoard => each(scene, HOARD_LANES, Step::Hoard, Protocol::is_channel),
        Attack::Unread => {
            let mut steps = each(scene, 1, Step::Pings, |protocol| protocol.name.starts_with("/ipfs/ping/"));
            for (label, question) in &scene.target.questions {
                let protocols = scene.protocols.iter().filter(|protocol| protocol.label == *label);
                steps.extend(protocols.flat_map(|protocol| [Step::Unread(protocol, question); HOARD_LANES]));
            }
            steps
        }
        Attack::Answers => (0..LANES).map(Step::Answer).collect(),
        Attack::Topics => {
            let mut steps = each(scene, 1, Step::Topics, Protocol::is_gossip);
            // A node reads one stream of gossip at a time.
            steps.truncate(1);
            steps
        }
        Attack::Streams | Attack::Silent | Attack::Trickle | Attack::Noise | Attack::HalfOpen => {
            vec![Step::Streams]
        }
    }
}

pub(super) async fn in_session(attack: Attack, scene: &Scene, dice: &mut ChaCha8Rng) -> io::Result<()> {
    let (session, drive) = Session::connect(&scene.target).await?;
    scene.deeds.connected(attack);
    let act = Act { attack, scene, session: &session };
    let lanes =
        steps(attack, scene).into_iter().map(|step| act.lane(step, ChaCha8Rng::from_seed(dice.random())));
    tokio::select! {
        ended = try_join_all(lanes) => ended.map(drop),
        error = drive => Err(error),
    }
}

/// One session of an attack.
#[derive(Clone, Copy)]
struct Act<'a> {
    attack: Attack,
    scene: &'a Scene,
    session: &'a Session,
}

impl Act<'_> {
    /// Takes a step again and again, until there is no connection any more.
    async fn lane(self, step: Step<'_>, mut dice: ChaCha8Rng) -> io::Result<()> {
        loop {
            let taken = match step {
                Step::Negotiate => self.negotiate(&mut dice).await,
                Step::Garbage(protocol) => self.garbage(protocol, &mut dice).await,
                Step::Loris(protocol) => self.loris(protocol).await,
                Step::Hoard(protocol) => self.hoard(protocol).await,
                Step::Unread(protocol, question) => self.unread(protocol, question).await,
                Step::Pings(protocol) => self.pings(protocol, &mut dice).await,
                Step::Answer(number) => self.answer(number, &mut dice).await,
                Step::Topics(protocol) => self.topics(protocol, &mut dice).await,
                Step::Streams => self.streams().await,
            };
            match taken {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Err(error),
                _ => sleep(PAUSE).await,
            }
        }
    }

    async fn open(self) -> io::Result<SubstreamBox> {
        let stream = self.session.open().await?;
        self.scene.deeds.opened(self.attack);
        Ok(stream)
    }

    async fn open_protocol(self, protocol: &Protocol) -> io::Result<SubstreamBox> {
        let stream = self.session.open_protocol(&protocol.name).await?;
        self.scene.deeds.opened(self.attack);
        Ok(stream)
    }

    /// Sends bytes of a message on a protocol.
    async fn send(self, stream: &mut SubstreamBox, label: &str, bytes: &[u8]) -> io::Result<()> {
        self.scene.deeds.message(self.attack, label);
        stream.write_all(bytes).await?;
        stream.flush().await?;
        self.scene.deeds.sent(self.attack, bytes.len());
        Ok(())
    }

    async fn negotiate(self, dice: &mut ChaCha8Rng) -> io::Result<()> {
        const LABEL: &str = "multistream";
        let mut stream = self.open().await?;
        let bytes = match dice.random_range(0..6) {
            0 => [wire::proposal("/nobody/speaks/1"), wire::line("/nor/this/1").repeat(64)].concat(),
            1 => [wire::proposal("/nobody/speaks/1"), wire::line("ls").repeat(64)].concat(),
            // A line that is as long as a line may be, and does not end.
            2 => [wire::proposal("/nobody/speaks/1"), wire::varint(16_383), vec![b'/'; 9_000]].concat(),
            3 => wire::line("/multistream/2.0.0"),
            4 => wire::random(dice, 1_024),
            _ => {
                self.scene.deeds.message(self.attack, LABEL);
                return trickle(self.attack, self.scene, &mut stream, &wire::proposal(wire::IDENTIFY)).await;
            }
        };
        self.send(&mut stream, LABEL, &bytes).await?;
        self.wait(&mut stream, PATIENCE).await
    }

    async fn garbage(self, protocol: &Protocol, dice: &mut ChaCha8Rng) -> io::Result<()> {
        let mut stream = self.open_protocol(protocol).await?;
        let garbage = wire::garbage(dice, protocol.is_channel());
        self.send(&mut stream, &protocol.label, &garbage).await?;
        if dice.random() {
            stream.close().await?;
        }
        self.wait(&mut stream, SLOW).await
    }

    async fn loris(self, protocol: &Protocol) -> io::Result<()> {
        let mut stream = self.open_protocol(protocol).await?;
        self.send(&mut stream, &protocol.label, &wire::beginning(protocol.is_channel())).await?;
        trickle(self.attack, self.scene, &mut stream, &[]).await
    }

    async fn hoard(self, protocol: &Protocol) -> io::Result<()> {
        let mut stream = self.open_protocol(protocol).await?;
        self.send(&mut stream, &protocol.label, &wire::hoarded()).await?;
        self.wait(&mut stream, 2 * PATIENCE).await
    }

    async fn unread(self, protocol: &Protocol, question: &[u8]) -> io::Result<()> {
        let mut stream = self.open_protocol(protocol).await?;
        self.send(&mut stream, &protocol.label, &wire::request(question)).await?;
        // What arrives fills the window; it is never opened again.
        sleep(2 * PATIENCE).await;
        Ok(())
    }

    async fn pings(self, protocol: &Protocol, dice: &mut ChaCha8Rng) -> io::Result<()> {
        let mut stream = self.open_protocol(protocol).await?;
        loop {
            let ping = wire::random(dice, 32);
            // Once nothing more fits, the node waits for its echo to be read.
            let sent = timeout(PATIENCE, self.send(&mut stream, &protocol.label, &ping)).await;
            sent.map_err(io::Error::other)??;
        }
    }

    async fn answer(self, number: usize, dice: &mut ChaCha8Rng) -> io::Result<()> {
        let mut stream = self.session.accept().await?;
        self.scene.deeds.opened(self.attack);
        let protocol =
            Protocol::new(timeout(PATIENCE, wire::accept(&mut stream)).await.map_err(io::Error::other)??);
        match number % 3 {
            0 => {
                let garbage = wire::garbage(dice, protocol.is_channel());
                self.send(&mut stream, &protocol.label, &garbage).await?;
                self.wait(&mut stream, PATIENCE).await
            }
            1 => {
                self.send(&mut stream, &protocol.label, &wire::beginning(protocol.is_channel())).await?;
                trickle(self.attack, self.scene, &mut stream, &[]).await
            }
            _ => {
                self.scene.deeds.message(self.attack, &protocol.label);
                self.wait(&mut stream, 2 * PATIENCE).await
            }
        }
    }

    async fn topics(self, protocol: &Protocol, dice: &mut ChaCha8Rng) -> io::Result<()> {
        let mut stream = self.open_protocol(protocol).await?;
        loop {
            self.send(&mut stream, &protocol.label, &wire::subscriptions(dice, TOPICS)).await?;
            sleep(PAUSE).await;
        }
    }

    async fn streams(self) -> io::Result<()> {
        const LABEL: &str = "yamux";
        let mut streams = Vec::new();
        while streams.len() < STREAMS {
            // No more streams are let in: that is what was wanted.
            let Ok(stream) = timeout(SLOW, self.open()).await else { break };
            let mut stream = stream?;
            // The first ones begin what the node then waits for; those behind them are full.
            let is_behind = streams.len() >= STALLED_STREAMS;
            let bytes = wire::hoarded();
            let bytes = if is_behind { bytes.get(..WINDOW_BYTES).unwrap_or(&bytes) } else { &[19] };
            match timeout(SLOW, self.send(&mut stream, LABEL, bytes)).await {
                Ok(Err(error)) if error.kind() == io::ErrorKind::NotConnected => return Err(error),
                _ => streams.push(stream),
            }
        }
        sleep(PATIENCE).await;
        Ok(())
    }

    /// Waits until the node ends the stream, but not for long.
    async fn wait(self, stream: &mut SubstreamBox, limit: Duration) -> io::Result<()> {
        timeout(limit, drain(stream)).await.unwrap_or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::hostile::Target;

    #[test]
    fn each_protocol_is_attacked_and_no_attack_is_idle() {
        let names =
            ["/floe/f1/control/1", "/floe/f1/bulk/1", "/ipfs/ping/1.0.0", "/meshsub/1.1.0", "/meshsub/1.2.0"];
        let protocols: Vec<_> = names.map(|name| Protocol::new(name.to_owned())).into();
        let node = "127.0.0.1:1".parse().unwrap();
        let questions = vec![("control".to_owned(), Bytes::new())];
        let transport = crate::address::Transport::Tcp;
        let target = Target { node, transport, source: "127.0.0.2".parse().unwrap(), questions };
        let labels = protocols.iter().map(|protocol| protocol.label.clone());
        let deeds = super::super::Deeds::new(Attack::ALL.into_iter(), labels);
        let scene = Scene { target, protocols: protocols.clone(), deeds };
        for attack in Attack::ALL.into_iter().filter(|attack| !attack.is_of_handshake()) {
            assert!(!steps(attack, &scene).is_empty(), "{attack:?}");
        }
        for protocol in &protocols {
            let is_it =
                |step: &Step<'_>| matches!(step, Step::Garbage(it) | Step::Loris(it) if *it == protocol);
            assert!(steps(Attack::Garbage, &scene).iter().any(is_it));
            assert!(steps(Attack::Loris, &scene).iter().any(is_it));
        }
        assert_eq!(steps(Attack::Topics, &scene).len(), 1);
    }
}
