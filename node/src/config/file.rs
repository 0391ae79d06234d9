//! Reading and writing small files, with errors that say which file, which line, and what to try.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use protocol::{
    genesis::{Endowment, GENESIS_BYTES_MAX, Genesis, GenesisAccount, GenesisError, GenesisStake},
    ledger::parameters::Parameters,
};
use serde::{Deserialize, de::DeserializeOwned};

/// Most bytes of a configuration file. A longer one is something else, given by mistake.
const CONFIG_BYTES_MAX: usize = 1 << 20;

/// Why a file of the configuration could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The text is not TOML, a key is unknown or missing, or a value is out of range.
    #[error("{}{}: {message}", .path.display(), at(*.line))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1, if one is at fault.
        line: Option<usize>,
        /// What is wrong with it.
        message: String,
    },
    /// The file is a genesis in form, but does not describe a network.
    #[error("{} is no genesis", .path.display())]
    Genesis {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<GenesisError>,
    },
}

fn at(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(":{line}"))
}

/// Reads and verifies a genesis file.
///
/// # Errors
///
/// [`ConfigError`].
pub fn load_genesis(path: &Path) -> Result<Genesis, ConfigError> {
    let text = read_bounded(path, GENESIS_BYTES_MAX)?;
    Genesis::parse(&text).map_err(|error| match error {
        GenesisError::Toml(error) => syntax(path, &text, &error),
        source => ConfigError::Genesis { path: path.to_owned(), source: Box::new(source) },
    })
}

/// The part of a genesis file that says who has what, as a file of its own.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EndowmentFile {
    accounts: Vec<GenesisAccount>,
    stakes: Vec<GenesisStake>,
    parameters: Parameters,
}

/// Reads a file with `[[accounts]]`, `[[stakes]]` and `[parameters]`, as they stand in a genesis file. Whether they fit
/// a network is not checked.
///
/// # Errors
///
/// [`ConfigError`].
pub fn load_endowment(path: &Path) -> Result<Endowment, ConfigError> {
    let text = read_bounded(path, GENESIS_BYTES_MAX)?;
    let EndowmentFile { accounts, stakes, parameters } = parse(path, &text)?;
    Ok(Endowment { accounts, stakes, parameters })
}

/// Writes a file that must not exist yet, durably.
///
/// # Errors
///
/// [`ConfigError::Write`].
pub fn create_new(path: &Path, text: &str) -> Result<(), ConfigError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        sync_dir(path)
    };
    write().map_err(|source| ConfigError::Write { path: path.to_owned(), source })
}

/// Makes the name of a file durable, by syncing the directory that it is in.
///
/// # Errors
///
/// The operating system's.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Reads a configuration file.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    read_bounded(path, CONFIG_BYTES_MAX)
}

fn read_bounded(path: &Path, bytes_max: usize) -> Result<String, ConfigError> {
    let read = || {
        let mut text = String::new();
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        File::open(path)?.take(limit.saturating_add(1)).read_to_string(&mut text)?;
        if text.len() > bytes_max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {bytes_max} bytes")));
        }
        Ok(text)
    };
    read().map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// Parses TOML; `path` is only for the error.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| syntax(path, text, &error))
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let line = error.span().and_then(|span| Some(1 + text.get(..span.start)?.matches('\n').count()));
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    ConfigError::Syntax { path: path.to_owned(), line, message }
}
