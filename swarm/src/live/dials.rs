//! Whom to dial, and when. Pure; time and chance are arguments.
//!
//! # Invariants
//!
//! - At most [`DIALS_MAX`] dials are under way: a mesh of 100 nodes that dials all at once loses a fifth of its
//!   connections to broken handshakes; paced, it loses none (measured).
//! - After a failure the pause doubles, up to [`PAUSE_MAX`], and is drawn at random from its upper half.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::PeerId;

/// Dials under way at the same time.
const DIALS_MAX: usize = 8;

/// The pause after the first failed dial, and after a lost connection: a process restarts in about this time.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// The longest pause: a member that comes back is found within half a minute, and a dead one costs a packet or two.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A request may cut a pause short, but not below this: callers that retry in a loop must not become a storm.
const PAUSE_WANTED: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
struct Dial {
    /// To be connected all the time.
    kept: bool,
    connected: bool,
    dialing: bool,
    due: Option<Duration>,
    failures: u32,
    /// When the last dial failed.
    failed_at: Option<Duration>,
}

impl Dial {
    const fn is_idle(&self) -> bool {
        !self.kept && !self.connected && !self.dialing && self.due.is_none()
    }
}

/// The dials of a node.
#[derive(Debug, Default)]
pub(super) struct Dials {
    peers: BTreeMap<PeerId, Dial>,
    due: BTreeSet<(Duration, PeerId)>,
    dialing: usize,
}

impl Dials {
    /// Applies `step` and keeps the queue in line with it.
    fn update(&mut self, peer: PeerId, step: impl FnOnce(&mut Dial)) {
        let dial = self.peers.entry(peer).or_default();
        if let Some(due) = dial.due {
            self.due.remove(&(due, peer));
        }
        let was_dialing = dial.dialing;
        step(dial);
        if dial.connected || dial.dialing {
            dial.due = None;
        }
        if let Some(due) = dial.due {
            self.due.insert((due, peer));
        }
        self.dialing += usize::from(dial.dialing);
        self.dialing -= usize::from(was_dialing);
        if dial.is_idle() {
            self.peers.remove(&peer);
        }
    }

    /// Says whether to stay connected to a peer.
    pub(super) fn keep(&mut self, peer: PeerId, kept: bool, now: Duration) {
        self.update(peer, |dial| {
            dial.kept = kept;
            if kept {
                dial.due = dial.due.or(Some(now));
            } else {
                dial.due = None;
            }
        });
    }

    /// Asks for a connection, because there is something to send.
    pub(super) fn want(&mut self, peer: PeerId, now: Duration) {
        self.update(peer, |dial| {
            let soonest =
                dial.failed_at.map_or(now, |failed_at| now.max(failed_at.saturating_add(PAUSE_WANTED)));
            dial.due = Some(dial.due.map_or(soonest, |due| due.min(soonest)));
        });
    }

    /// A connection exists, whoever dialled.
    pub(super) fn connected(&mut self, peer: PeerId) {
        self.update(peer, |dial| {
            dial.connected = true;
            dial.dialing = false;
            dial.failures = 0;
            dial.failed_at = None;
        });
    }

    /// The last connection is gone. `jitter` is between 0 and 1.
    pub(super) fn disconnected(&mut self, peer: PeerId, now: Duration, jitter: f64) {
        self.update(peer, |dial| {
            dial.connected = false;
            if dial.kept {
                dial.due = Some(now.saturating_add(jittered(PAUSE_MIN, jitter)));
            }
        });
    }

    /// A dial failed, or the connection it made was of no use.
    pub(super) fn failed(&mut self, peer: PeerId, now: Duration, jitter: f64) {
        self.update(peer, |dial| {
            dial.dialing = false;
            // Six doublings pass the longest pause.
            let pause = PAUSE_MIN.saturating_mul(1 << dial.failures.min(6)).min(PAUSE_MAX);
            dial.failures = dial.failures.saturating_add(1);
            dial.failed_at = Some(now);
            dial.due = dial.kept.then(|| now.saturating_add(jittered(pause, jitter)));
        });
    }

    /// When the next dial may start; `None` if nothing is due, or too much is under way.
    pub(super) fn next_due(&self) -> Option<Duration> {
        if self.dialing >= DIALS_MAX {
            return None;
        }
        self.due.first().map(|(due, _)| *due)
    }

    /// The next peer to dial now, if any, with the number of dials that failed before.
    pub(super) fn start(&mut self, now: Duration) -> Option<(PeerId, u32)> {
        let (_, peer) =
            self.due.first().copied().filter(|(due, _)| *due <= now && self.dialing < DIALS_MAX)?;
        let mut failures = 0;
        self.update(peer, |dial| {
            dial.dialing = true;
            failures = dial.failures;
        });
        Some((peer, failures))
    }

    /// Whether a dial to this peer is under way.
    pub(super) fn is_dialing(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|dial| dial.dialing)
    }
}

/// Between half of the pause and all of it.
fn jittered(pause: Duration, jitter: f64) -> Duration {
    pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn peer(i: u8) -> PeerId {
        PeerId([i; 32])
    }

    #[test]
    fn a_mesh_is_dialled_a_few_at_a_time() {
        let mut dials = Dials::default();
        for i in 0..20 {
            dials.keep(peer(i), true, millis(0));
        }
        let started: Vec<_> = std::iter::from_fn(|| dials.start(millis(0))).collect();
        assert_eq!(started.len(), DIALS_MAX);
        assert_eq!(dials.next_due(), None);
        dials.connected(peer(0));
        assert_eq!(dials.start(millis(0)), Some((peer(8), 0)));
    }

    #[test]
    fn a_kept_peer_is_dialled_again_with_growing_pauses() {
        let mut dials = Dials::default();
        dials.keep(peer(1), true, millis(0));
        let mut now = millis(0);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert!(dials.start(now).is_some());
            dials.failed(peer(1), now, 1.0);
            let due = dials.next_due().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        dials.connected(peer(1));
        assert_eq!(dials.next_due(), None);
        dials.disconnected(peer(1), now, 0.0);
        assert_eq!(dials.next_due(), Some(now + millis(250)));
        dials.keep(peer(1), false, now);
        assert!(dials.peers.is_empty());
    }

    #[test]
    fn a_request_cuts_a_pause_short_but_does_not_end_it() {
        let mut dials = Dials::default();
        dials.keep(peer(1), true, millis(0));
        for _ in 0..9 {
            dials.start(Duration::MAX);
            dials.failed(peer(1), millis(1_000), 1.0);
        }
        dials.want(peer(1), millis(1_001));
        assert_eq!(dials.next_due(), Some(millis(1_250)));
        dials.want(peer(2), millis(1_001));
        assert_eq!(dials.start(millis(1_001)), Some((peer(2), 0)));
        dials.failed(peer(2), millis(1_001), 0.0);
        assert!(!dials.peers.contains_key(&peer(2)), "a stranger is not dialled again by itself");
    }

    #[test]
    fn a_connection_from_the_other_side_ends_the_dial() {
        let mut dials = Dials::default();
        dials.keep(peer(1), true, millis(0));
        assert!(dials.start(millis(0)).is_some());
        dials.connected(peer(1));
        assert!(!dials.is_dialing(peer(1)));
        dials.failed(peer(1), millis(1), 0.0);
        assert_eq!(dials.next_due(), None, "the late failure of our own dial changes nothing");
    }
}
