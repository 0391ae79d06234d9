//! The options that say how a network's epochs go.

use std::time::Duration;

use clap::value_parser;
use protocol::ledger::parameters::{CREDITS_MAX, MEMBERS_MAX, Parameters};

/// Options of whoever makes a network, in place of what `[parameters]` says.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct EpochArgs {
    /// How long an epoch takes, like 1week or 30s; in each, nodes are selected by stake [default: the first committee stays]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    epoch: Option<Duration>,
    /// How long after its beginning the next committee is fixed; the rest of the epoch is for copying shards [default: half]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    selection: Option<Duration>,
    /// Most members of a committee, those with the most stake [default: 100]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=i64::from(MEMBERS_MAX)))]
    members_max: Option<u16>,
    /// Least stake of a node that can be selected [default: 0]
    #[arg(long, value_name = "CREDITS", value_parser = value_parser!(u64).range(..=CREDITS_MAX))]
    min_stake: Option<u64>,
}

impl EpochArgs {
    /// Epochs of this length, and nothing else.
    #[must_use]
    pub const fn every(epoch: Duration) -> Self {
        Self { epoch: Some(epoch), selection: None, members_max: None, min_stake: None }
    }

    /// The parameters with what the options say. Whether they can be used is found when a genesis is made of them.
    #[must_use]
    pub fn apply(&self, parameters: Parameters) -> Parameters {
        Parameters {
            epoch_ms: self.epoch.map_or(parameters.epoch_ms, milliseconds),
            selection_ms: self.selection.map_or(parameters.selection_ms, milliseconds),
            members_max: self.members_max.unwrap_or(parameters.members_max),
            min_stake: self.min_stake.unwrap_or(parameters.min_stake),
            ..parameters
        }
    }

    /// True if none is given.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let Self { epoch, selection, members_max, min_stake } = self;
        epoch.is_none() && selection.is_none() && members_max.is_none() && min_stake.is_none()
    }
}

/// Reads a duration as configuration files have it: `30s`, `5m`, `1day 12h`.
///
/// # Errors
///
/// If it is none; the text says why.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text)
        .map_err(|error| format!("{error}; expected a duration like 30s, 5m or 1day"))
}

/// A duration as people read it, to the second.
#[must_use]
pub fn shown_seconds(duration: Duration) -> String {
    humantime_serde::re::humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

fn milliseconds(duration: Duration) -> u64 {
    // Longer than any parameter may be, which is refused there.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        epochs: EpochArgs,
    }

    fn parse(line: &str) -> Result<EpochArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).map(|line| line.epochs)
    }

    #[test]
    fn options_replace_what_they_name_and_nothing_else() {
        let before = Parameters { epoch_ms: 5000, min_stake: 7, storage_price: 3, ..Parameters::default() };
        assert_eq!(parse("").unwrap().apply(before), before);
        assert!(parse("").unwrap().is_empty());
        let args = parse("--epoch 30s --selection 10s --members-max 9").unwrap();
        assert!(!args.is_empty());
        let expected = Parameters { epoch_ms: 30_000, selection_ms: 10_000, members_max: 9, ..before };
        assert_eq!(args.apply(before), expected);
        assert_eq!(expected.check(), Ok(()));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for line in ["--epoch 30", "--epoch -1s", "--selection soon", "--members-max 0", "--min-stake x"] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("--epoch 30").err().unwrap().to_string().contains("like 30s"));
        // Out of bounds is for the genesis to say, with the bounds.
        let long = parse("--epoch 1000years").unwrap().apply(Parameters::default());
        assert_eq!(long.check().unwrap_err().name, "epoch_ms");
    }

    #[test]
    fn durations_are_shown_to_the_second() {
        assert_eq!(shown_seconds(Duration::from_millis(61_900)), "1m 1s");
        assert_eq!(shown_seconds(Duration::ZERO), "0s");
    }
}
