//! What a process tells of itself while it runs: lines on standard error.
//!
//! `FLOE_LOG` says how much, in the form of `tracing-subscriber`'s filters: `debug`, `warn,node::repair=debug`.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// The environment variable that says what to tell.
pub const LOG_VARIABLE: &str = "FLOE_LOG";

/// Who tells; it decides what is told by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A storage node: its operator wants to see what it does. Libraries below it are kept to warnings.
    Node,
    /// A command: its user wants to see its result, and warnings.
    Client,
}

impl Role {
    const fn default_filter(self) -> &'static str {
        match self {
            Self::Node => "info,arc_malachitebft=warn,libp2p=warn,yamux=warn,sled=warn",
            Self::Client => "warn",
        }
    }
}

/// How it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why nothing will be told.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The variable holds no filter.
    #[error("{LOG_VARIABLE} is not a filter like `info` or `warn,node=debug`")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// The variable is not text.
    #[error("{LOG_VARIABLE} is not text")]
    NotUnicode,
}

/// Starts telling, for the rest of the process. A second call in one process changes nothing.
///
/// # Errors
///
/// [`TelemetryError`], if [`LOG_VARIABLE`] is set and cannot be understood.
pub fn init(role: Role, format: Format) -> Result<(), TelemetryError> {
    let filter = filter(role, std::env::var(LOG_VARIABLE))?;
    // Errors of the log itself would be printed by a macro that panics once standard error is closed.
    let lines = fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let lines = match format {
        Format::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    // Only a test runs two commands in one process; the first one's subscriber serves both.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    Ok(())
}

fn filter(role: Role, variable: Result<String, std::env::VarError>) -> Result<EnvFilter, TelemetryError> {
    let text = match &variable {
        Ok(text) if !text.trim().is_empty() => text,
        Ok(_) | Err(std::env::VarError::NotPresent) => role.default_filter(),
        Err(std::env::VarError::NotUnicode(_)) => return Err(TelemetryError::NotUnicode),
    };
    EnvFilter::builder().parse(text).map_err(TelemetryError::Filter)
}

#[cfg(test)]
mod tests {
    use std::env::VarError;

    use super::*;

    #[test]
    fn the_variable_overrides_the_default_unless_it_is_empty() {
        for (role, variable, expected) in [
            (Role::Client, Err(VarError::NotPresent), "warn"),
            (Role::Client, Ok(" ".to_owned()), "warn"),
            (Role::Node, Ok("debug".to_owned()), "debug"),
            (Role::Node, Ok("off".to_owned()), "off"),
        ] {
            assert_eq!(filter(role, variable).unwrap().to_string(), expected);
        }
        assert!(filter(Role::Node, Err(VarError::NotPresent)).unwrap().to_string().contains("info"));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        assert!(filter(Role::Client, Ok("node=loud".to_owned())).is_err());
    }
}
