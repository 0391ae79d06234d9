//! What an attacker did, counted by attack and protocol.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use crate::address::Transport;

/// A way to do harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// Connections on which nothing is ever sent.
    Silent,
    /// Connections that begin the handshake a byte a second.
    Trickle,
    /// Connections full of bytes that are no handshake.
    Noise,
    /// Handshakes that are left in the middle, when the node has done its part of the cryptography.
    HalfOpen,
    /// Streams on which the agreement on a protocol never ends, is about protocols that nobody knows, or is garbage.
    Negotiation,
    /// Garbage on each protocol: random, well framed, or announcing more than may be sent.
    Garbage,
    /// On each protocol streams that begin the longest message and go on a byte a second.
    Loris,
    /// Requests that are sent but for their last byte.
    Hoard,
    /// Requests whose answers are not read, and pings whose echoes are not.
    Unread,
    /// As many streams as there can be, each full.
    Streams,
    /// Answers to what the node asks: garbage, a byte a second, or none.
    Answers,
    /// Topics made up by the thousand.
    Topics,
}

impl Attack {
    /// Every attack.
    pub const ALL: [Self; 12] = [
        Self::Silent,
        Self::Trickle,
        Self::Noise,
        Self::HalfOpen,
        Self::Negotiation,
        Self::Garbage,
        Self::Loris,
        Self::Hoard,
        Self::Unread,
        Self::Streams,
        Self::Answers,
        Self::Topics,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Trickle => "trickle",
            Self::Noise => "noise",
            Self::HalfOpen => "half-open",
            Self::Negotiation => "negotiation",
            Self::Garbage => "garbage",
            Self::Loris => "loris",
            Self::Hoard => "hoard",
            Self::Unread => "unread",
            Self::Streams => "streams",
            Self::Answers => "answers",
            Self::Topics => "topics",
        }
    }

    /// Whether it ends before there is a connection that has streams.
    #[must_use]
    pub const fn is_of_handshake(self) -> bool {
        matches!(self, Self::Silent | Self::Trickle | Self::Noise | Self::HalfOpen)
    }

    /// Whether there is such an attack over a transport. QUIC knows no connection before its first packet, which comes whole: one
    /// that goes no further is half open, and nothing can trickle.
    #[must_use]
    pub const fn is_over(self, transport: Transport) -> bool {
        matches!(transport, Transport::Tcp) || !matches!(self, Self::Silent | Self::Trickle)
    }

    /// Whether each protocol is attacked in this way.
    const fn is_of_each_protocol(self) -> bool {
        matches!(self, Self::Garbage | Self::Loris)
    }

    /// Whether bytes are part of it.
    const fn sends(self) -> bool {
        !matches!(self, Self::Silent)
    }
}

/// What was done in one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Connections made; with sessions, those whose handshake was completed; of datagrams, the ports that they come from.
    pub connections: u64,
    /// Streams opened.
    pub streams: u64,
    /// Bytes sent, without those of handshakes that were completed.
    pub bytes: u64,
    /// Messages, whole or begun, by protocol.
    pub messages: BTreeMap<String, u64>,
}

/// What an attacker did. Cheap to clone: clones count together.
#[derive(Clone, Debug)]
pub struct Deeds {
    protocols: Arc<[String]>,
    counts: Arc<Mutex<BTreeMap<Attack, Counts>>>,
}

impl Deeds {
    pub(super) fn new(
        attacks: impl Iterator<Item = Attack>,
        protocols: impl Iterator<Item = String>,
    ) -> Self {
        let counts = attacks.map(|attack| (attack, Counts::default())).collect();
        Self { protocols: protocols.collect(), counts: Arc::new(Mutex::new(counts)) }
    }

    /// Of these attacks, none of which has done anything.
    #[must_use]
    pub fn of<const N: usize>(attacks: [Attack; N]) -> Self {
        Self::new(attacks.into_iter(), std::iter::empty())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Attack, Counts>> {
        // Counters are valid after each statement.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, attack: Attack, step: impl FnOnce(&mut Counts)) {
        step(self.lock().entry(attack).or_default());
    }

    pub(super) fn connected(&self, attack: Attack) {
        self.count(attack, |counts| counts.connections += 1);
    }

    pub(super) fn opened(&self, attack: Attack) {
        self.count(attack, |counts| counts.streams += 1);
    }

    pub(super) fn sent(&self, attack: Attack, bytes: usize) {
        self.count(attack, |counts| counts.bytes += u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn message(&self, attack: Attack, label: &str) {
        self.count(attack, |counts| *counts.messages.entry(label.to_owned()).or_default() += 1);
    }

    /// The counts, attack by attack.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Attack, Counts> {
        self.lock().clone()
    }

    /// What was meant to be done and was not: then what a node bore says nothing.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (attack, counts) in &*self.lock() {
            let mut demand = |is_done: bool, what: &str| {
                if !is_done {
                    missing.push(format!("{}: no {what}", attack.name()));
                }
            };
            demand(counts.connections > 0, "connection");
            demand(counts.bytes > 0 || !attack.sends(), "byte sent");
            demand(counts.streams > 0 || attack.is_of_handshake(), "stream");
            demand(!counts.messages.is_empty() || attack.is_of_handshake(), "message");
            for label in self.protocols.iter().filter(|_| attack.is_of_each_protocol()) {
                demand(counts.messages.contains_key(label), label);
            }
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_attack_that_did_nothing_is_named() {
        let labels = ["a", "b"].map(str::to_owned);
        let deeds = Deeds::new([Attack::Silent, Attack::Garbage].into_iter(), labels.into_iter());
        assert_eq!(deeds.missing().len(), 1 + 6);
        deeds.connected(Attack::Silent);
        for label in ["a", "b"] {
            assert!(deeds.missing().contains(&format!("garbage: no {label}")));
            deeds.connected(Attack::Garbage);
            deeds.opened(Attack::Garbage);
            deeds.sent(Attack::Garbage, 7);
            deeds.message(Attack::Garbage, label);
        }
        assert_eq!(deeds.missing(), [""; 0]);
        assert_eq!(deeds.counts()[&Attack::Garbage].bytes, 14);
    }

    #[test]
    fn names_are_distinct_and_all_are_listed() {
        let names: BTreeSet<_> = Attack::ALL.map(Attack::name).into();
        assert_eq!(names.len(), Attack::ALL.len());
        for attack in Attack::ALL {
            assert_eq!(serde_json_name(attack), attack.name());
        }
    }

    /// The name in JSON, without a dependency on it.
    fn serde_json_name(attack: Attack) -> String {
        let mut name = String::new();
        for letter in format!("{attack:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }
}
