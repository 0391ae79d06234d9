//! How a command fails: one line that says what happened, why and what to try, and an exit code.

use std::{error::Error, fmt, io, process::ExitCode};

use crate::{
    client::{LedgerError, ReadError, StoreError, SubmitError},
    config::ConfigError,
    keys::KeyError,
    telemetry::TelemetryError,
};

/// What the exit code says; a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Anything that has no code of its own.
    Other,
    /// The command line, or what it names, cannot be used: an unknown option, a malformed blob ID, a broken
    /// configuration file.
    Usage,
    /// There is no such blob.
    NotFound,
    /// Too few nodes can be reached.
    Unavailable,
    /// A file could not be read or written.
    Io,
    /// The blob was encoded wrongly by its writer.
    InvalidBlob,
    /// Something is not as Floe promises.
    Broken,
    /// Stopped by a signal, or by a reader of the output that went away: 128 and the signal's number.
    Signal(u8),
}

impl Exit {
    /// The codes, for the help.
    pub const HELP: &'static str = "Exit codes: 0 done, 1 other failure, 2 usage or configuration, 3 not found, \
         4 too few nodes available, 5 input or output, 6 invalid blob, 7 a promise is broken, \
         128+N stopped by signal N";

    /// The code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Unavailable => 4,
            Self::Io => 5,
            Self::InvalidBlob => 6,
            Self::Broken => 7,
            Self::Signal(number) => 128 + number,
        }
    }
}

/// Number of the signal that ends writers to a pipe without readers.
const SIGPIPE: u8 = 13;
/// Number of the signal of Ctrl-C.
const SIGINT: u8 = 2;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    /// What happened; empty if there is nobody to tell.
    what: String,
    /// Why, outermost first.
    causes: Vec<String>,
    /// What to try.
    hint: Option<String>,
}

impl Failure {
    /// A failure without a cause.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), causes: Vec::new(), hint: None }
    }

    /// Something failed because of `cause`, and what that was caused by.
    pub fn because(exit: Exit, what: impl Into<String>, cause: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::new(exit, what);
        let mut cause = Some(cause);
        while let Some(error) = cause {
            failure.causes.push(error.to_string());
            cause = error.source();
        }
        failure
    }

    /// An error that says itself what happened.
    pub fn of(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::because(exit, String::new(), error);
        failure.what = failure.causes.remove(0);
        failure
    }

    /// A file could not be used.
    pub fn io(what: impl Into<String>, error: &io::Error) -> Self {
        Self::because(Exit::Io, what, error)
    }

    /// Standard output takes no more. A reader that went away has seen enough, which is not worth a word.
    #[must_use]
    pub fn stdout(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Signal(SIGPIPE), "");
        }
        Self::io("cannot write to standard output", &error)
    }

    /// A signal stopped the command.
    #[must_use]
    pub fn interrupted(signal: i32) -> Self {
        Self::new(Exit::Signal(u8::try_from(signal).unwrap_or(SIGINT)), "interrupted")
    }

    /// Says the same of another deed than the one first blamed.
    #[must_use]
    pub(super) fn doing(mut self, deed: &str, object: &str) -> Self {
        self.what = format!("cannot {deed} {object}");
        self
    }

    /// Says what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the exit code says.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// Tells the user, and returns the exit code.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        if !self.what.is_empty() {
            super::output::note(format_args!("error: {self}"));
        }
        ExitCode::from(self.exit.code())
    }
}

/// One line: `what: cause: cause; hint`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.what.clone();
        for cause in &self.causes {
            // Errors that quote their source would otherwise say it twice.
            if !line.contains(cause.as_str()) {
                line.push_str(": ");
                line.push_str(cause);
            }
        }
        if let Some(hint) = &self.hint {
            line.push_str("; ");
            line.push_str(hint);
        }
        f.write_str(&line.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let missing = matches!(&error, ConfigError::Read { source, .. } | ConfigError::Write { source, .. }
            if source.kind() != io::ErrorKind::InvalidData);
        Self::of(if missing { Exit::Io } else { Exit::Usage }, &error)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let exit = match error {
            KeyError::Io { .. } | KeyError::Random(_) => Exit::Io,
            _ => Exit::Usage,
        };
        Self::of(exit, &error)
    }
}

impl From<TelemetryError> for Failure {
    fn from(error: TelemetryError) -> Self {
        Self::of(Exit::Usage, &error)
    }
}

impl Failure {
    /// A file was not stored.
    #[must_use]
    pub fn store(file: &str, error: &StoreError) -> Self {
        let what = format!("cannot store {file}");
        let (exit, hint) = match error {
            StoreError::Ledger(error) => return Self::ledger(what, error),
            StoreError::Submit(error) => return Self::submit(what, error),
            StoreError::Superseded => (Exit::Other, Some("try again, or use another wallet")),
            StoreError::Deletable { .. } => (Exit::Usage, None),
            StoreError::Shape(_) => (Exit::Usage, None),
            StoreError::Source(_) => (Exit::Io, None),
            StoreError::Changed => (Exit::Io, Some("store it again once nothing writes to it")),
            StoreError::Invalid => (Exit::InvalidBlob, None),
            StoreError::TooFewConfirmations { .. } => {
                (Exit::Unavailable, Some("see which nodes are down with `health`"))
            }
            StoreError::Stopped => (Exit::Other, None),
        };
        let failure = Self::because(exit, what, error);
        hint.into_iter().fold(failure, Self::hint)
    }

    /// A blob was not read.
    #[must_use]
    pub fn read(blob_id: &protocol::BlobId, error: ReadError) -> Self {
        let (exit, hint) = match error {
            ReadError::Sink(source) if source.kind() == io::ErrorKind::BrokenPipe => {
                return Self::stdout(source);
            }
            ReadError::Sink(_) => (Exit::Io, None),
            ReadError::NotFound => {
                (Exit::NotFound, Some("check the ID, and that it was stored on this network"))
            }
            ReadError::Invalid | ReadError::Inconsistent => (Exit::InvalidBlob, None),
            ReadError::Status(error) => return Self::status(blob_id, &error),
            ReadError::Range { .. } => (Exit::Usage, None),
            ReadError::TooFewSlivers { .. } => (Exit::Unavailable, None),
            ReadError::Stopped => (Exit::Other, None),
        };
        let failure = Self::because(exit, format!("cannot read {blob_id}"), &error);
        hint.into_iter().fold(failure, Self::hint)
    }

    /// What the ledger says is not known.
    pub fn ledger(what: impl Into<String>, error: &LedgerError) -> Self {
        let exit = match error {
            LedgerError::TooFewProofs { .. } | LedgerError::Changing => Exit::Unavailable,
            LedgerError::TooManyKeys { .. } => Exit::Other,
            LedgerError::Form { .. } | LedgerError::Missing { .. } => Exit::Broken,
        };
        Self::because(exit, what, error)
    }

    /// A transaction was not executed, or is not known to be.
    pub fn submit(what: impl Into<String>, error: &SubmitError) -> Self {
        let (exit, hint) = match error {
            SubmitError::Nonce(source) => (Self::ledger("", source).exit, None),
            SubmitError::Transaction(_) => (Exit::Usage, None),
            SubmitError::Rejected { .. } => (Exit::Other, None),
            SubmitError::Superseded { .. } => {
                let hint = "try again once no other program uses the account";
                (Exit::Other, Some(hint.to_owned()))
            }
            SubmitError::NotTaken { .. } => {
                (Exit::Unavailable, Some("see which nodes are down with `health`".to_owned()))
            }
            SubmitError::Unknown { id, nonce, .. } => {
                let hint = format!(
                    "before trying again, see with `wallet balance --json`: once the nonce is above {nonce}, it was executed \
                     if `last` is {}, and else will not be, unless other transactions were executed since",
                    hex::encode(id.0.0)
                );
                (Exit::Unavailable, Some(hint))
            }
        };
        hint.into_iter().fold(Self::because(exit, what, error), Self::hint)
    }

    /// The status of a blob is not known.
    #[must_use]
    pub fn status(blob_id: &protocol::BlobId, error: &LedgerError) -> Self {
        Self::ledger(format!("the status of {blob_id} is not known"), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Failures;

    #[test]
    fn a_failure_is_one_line_with_every_cause_once() {
        let source = io::Error::new(io::ErrorKind::NotFound, "no such\n  file");
        let error = ConfigError::Read { path: "a/b".into(), source };
        let failure = Failure::because(Exit::Io, "cannot start", &error).hint("create it");
        assert_eq!(failure.to_string(), "cannot start: cannot read a/b: no such file; create it");
        let quoting = ConfigError::Read { path: "a/b".into(), source: io::Error::other("x") };
        assert_eq!(Failure::because(Exit::Io, "x", &quoting).to_string(), "x: cannot read a/b");
    }

    #[test]
    fn codes_are_distinct() {
        let exits = [
            Exit::Other,
            Exit::Usage,
            Exit::NotFound,
            Exit::Unavailable,
            Exit::Io,
            Exit::InvalidBlob,
            Exit::Broken,
            Exit::Signal(SIGINT),
        ];
        let codes: std::collections::BTreeSet<u8> = exits.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes.len(), exits.len());
        assert!(!codes.contains(&0));
    }

    #[test]
    fn a_closed_pipe_is_silent() {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::stdout(closed()).exit().code(), 141);
        let blob_id = protocol::BlobId([0; 32]);
        let read = Failure::read(&blob_id, ReadError::Sink(closed()));
        assert_eq!((read.exit().code(), read.to_string().as_str()), (141, ""));
    }

    #[test]
    fn what_went_wrong_decides_the_code() {
        let blob_id = protocol::BlobId([0; 32]);
        assert_eq!(Failure::read(&blob_id, ReadError::NotFound).exit(), Exit::NotFound);
        assert_eq!(Failure::read(&blob_id, ReadError::Inconsistent).exit(), Exit::InvalidBlob);
        let few = LedgerError::TooFewProofs { proved: 0, required: 3, failures: Failures::default() };
        assert_eq!(Failure::read(&blob_id, few.into()).exit(), Exit::Unavailable);
        assert_eq!(Failure::store("f", &StoreError::Changed).exit(), Exit::Io);
    }
}
