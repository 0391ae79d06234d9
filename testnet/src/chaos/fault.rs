//! What is done to nodes.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use serde::Serialize;

use crate::relay::Weather;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nodes are killed, as by a loss of power, and started again
    Kill,
    /// Nodes are asked to end, and started again
    Restart,
    /// Nodes stand still, and go on: they look slow, not gone
    Stop,
    /// Nodes are killed, and started again with empty disks
    Wipe,
    /// Bytes in the sliver files of running nodes change
    Corrupt,
    /// The disks of nodes are full
    Fill,
    /// Nodes are cut off, each from all others
    Cut,
    /// Nodes are cut off from the others, but not from each other
    Split,
    /// All messages between nodes take long
    Delay,
    /// Messages between nodes get lost, and are sent again
    Lose,
    /// Nodes are started again with clocks that are minutes off
    Skew,
    /// More nodes are cut off than there may be faulty ones: nothing can be stored until they are back
    Majority,
    /// More nodes are killed than there may be faulty ones: nothing can be stored until they are back
    Outage,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Kill,
        Self::Restart,
        Self::Stop,
        Self::Wipe,
        Self::Corrupt,
        Self::Fill,
        Self::Cut,
        Self::Split,
        Self::Delay,
        Self::Lose,
        Self::Skew,
        Self::Majority,
        Self::Outage,
    ];

    /// True if the network is to stay live: fewer nodes are hit than may be faulty.
    #[must_use]
    pub const fn is_within_model(self) -> bool {
        !matches!(self, Self::Majority | Self::Outage)
    }

    /// True if it hits the network between all nodes, rather than some of them.
    #[must_use]
    pub const fn is_weather(self) -> bool {
        matches!(self, Self::Delay | Self::Lose)
    }

    /// True if it takes slivers from a disk: until they are regained, the node counts as faulty.
    #[must_use]
    pub const fn takes_slivers(self) -> bool {
        matches!(self, Self::Wipe | Self::Corrupt)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.write_str(name.as_ref().map_or("fault", |name| name.get_name()))
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What is done.
    pub kind: Kind,
    /// To which nodes; empty for weather.
    pub nodes: Vec<usize>,
    /// When it is to begin, after the beginning.
    #[serde(rename = "at_seconds", serialize_with = "seconds")]
    pub at: Duration,
    /// How long it is to last.
    #[serde(rename = "lasts_seconds", serialize_with = "seconds")]
    pub lasts: Duration,
    /// How bad it is, in what the kind goes by: milliseconds of delay, percent of losses, seconds of skew, bytes that change.
    pub strength: i64,
}

impl Fault {
    /// Begins it in the network between nodes, if that is where it is.
    pub(super) fn begin_in(&self, weather: &mut Weather) {
        match self.kind {
            Kind::Cut | Kind::Majority => weather.cut_off(&self.nodes),
            Kind::Split => weather.split(&self.nodes),
            Kind::Delay => weather.delay_ms = self.strength.try_into().unwrap_or(0),
            Kind::Lose => weather.loss_percent = self.strength.try_into().unwrap_or(0),
            _ => {}
        }
    }

    /// Ends it there.
    pub(super) fn end_in(&self, weather: &mut Weather) {
        match self.kind {
            Kind::Cut | Kind::Majority | Kind::Split => weather.bring_back(&self.nodes),
            Kind::Delay => weather.delay_ms = Weather::default().delay_ms,
            Kind::Lose => weather.loss_percent = Weather::default().loss_percent,
            _ => {}
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        for node in &self.nodes {
            write!(f, " node-{node}")?;
        }
        match self.kind {
            Kind::Delay => write!(f, " of up to {} ms", self.strength),
            Kind::Lose => write!(f, " {} %", self.strength),
            Kind::Skew => write!(f, " by {} s", self.strength),
            // Done at once; it lasts as long as it may take until it is found.
            Kind::Corrupt => return write!(f, ": {} bytes", self.strength),
            _ => Ok(()),
        }?;
        write!(f, " for {:.1} s", self.lasts.as_secs_f64())
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_as_on_the_command_line() {
        let fault = |kind, nodes: &[usize], strength| {
            let (at, lasts) = (Duration::from_secs(4), Duration::from_millis(2500));
            Fault { kind, nodes: nodes.to_vec(), at, lasts, strength }.to_string()
        };
        assert_eq!(fault(Kind::Kill, &[1, 4], 0), "kill node-1 node-4 for 2.5 s");
        assert_eq!(fault(Kind::Delay, &[], 80), "delay of up to 80 ms for 2.5 s");
        assert_eq!(fault(Kind::Skew, &[0], -90), "skew node-0 by -90 s for 2.5 s");
        assert_eq!(fault(Kind::Corrupt, &[2], 9), "corrupt node-2: 9 bytes");
        for kind in Kind::ALL {
            assert_eq!(Kind::from_str(&kind.to_string(), false), Ok(kind));
        }
        assert_eq!(Kind::ALL.len(), Kind::value_variants().len());
    }
    #[test]
    fn the_network_is_broken_as_long_as_a_fault_lasts() {
        let fault = |kind, nodes: &[usize], strength| {
            let (at, lasts) = (Duration::ZERO, Duration::from_secs(1));
            Fault { kind, nodes: nodes.to_vec(), at, lasts, strength }
        };
        let is_cut = |weather: &Weather, from, to| weather.is_cut(Some(from), Some(to));
        let mut weather = Weather::default();
        let (delay, lose) = (fault(Kind::Delay, &[], 80), fault(Kind::Lose, &[], 7));
        let (split, cut) = (fault(Kind::Split, &[1, 2], 0), fault(Kind::Cut, &[3, 4], 0));
        for begun in [&delay, &lose, &split, &cut] {
            begun.begin_in(&mut weather);
        }
        assert_eq!((weather.delay_ms, weather.loss_percent), (80, 7));
        assert!(is_cut(&weather, 1, 0) && !is_cut(&weather, 1, 2) && is_cut(&weather, 3, 4));
        split.end_in(&mut weather);
        delay.end_in(&mut weather);
        assert_eq!((weather.delay_ms, weather.loss_percent), (0, 7));
        assert!(!is_cut(&weather, 1, 0) && is_cut(&weather, 3, 0));
        lose.end_in(&mut weather);
        cut.end_in(&mut weather);
        assert_eq!(weather, Weather::default());
        // What is done to nodes themselves.
        for kind in [Kind::Kill, Kind::Stop, Kind::Wipe, Kind::Corrupt, Kind::Fill, Kind::Skew, Kind::Outage]
        {
            fault(kind, &[1], 9).begin_in(&mut weather);
        }
        assert_eq!(weather, Weather::default());
    }
}
