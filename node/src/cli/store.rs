//! `floe store`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{Args as ClapArgs, value_parser};
use protocol::certificate::Persistence;
use serde::Serialize;

use super::{Connection, Failure, Output, network_file, output, progress::Bar, shown, wallet};
use crate::{
    client::{BlobSource as _, DEFAULT_EPOCHS, FileSource, StoreOptions, Stored, Timings},
    keys::AccountKey,
};

/// What is printed of one file.
#[derive(Debug, Serialize)]
struct Document {
    file: String,
    blob_id: String,
    size: u64,
    encoded_size: u64,
    confirmed_shards: u16,
    already_certified: bool,
    /// The first epoch in which it is no longer stored.
    end_epoch: u32,
    seconds: f64,
    timings: Breakdown,
}

/// When each step was done, in seconds since the beginning.
#[derive(Debug, Serialize)]
struct Breakdown {
    identified: f64,
    looked_up: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    registered: Option<f64>,
    confirmed: f64,
    certified: f64,
}

impl From<Timings> for Breakdown {
    fn from(timings: Timings) -> Self {
        Self {
            identified: timings.identified.as_secs_f64(),
            looked_up: timings.looked_up.as_secs_f64(),
            registered: timings.registered.map(|at| at.as_secs_f64()),
            confirmed: timings.confirmed.as_secs_f64(),
            certified: timings.certified.as_secs_f64(),
        }
    }
}

/// What is printed of several files.
#[derive(Debug, Serialize)]
struct Documents {
    blobs: Vec<Document>,
}

/// Arguments of `floe store`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    wallet: wallet::Wallet,
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// For how many epochs, the current one included
    #[arg(long, value_name = "N", default_value_t = DEFAULT_EPOCHS, value_parser = value_parser!(u32).range(1..))]
    epochs: u32,
    /// Keep it to the end, whatever the owner wants: it cannot be deleted
    #[arg(long)]
    permanent: bool,
    /// Print when each step was done
    #[arg(long)]
    timings: bool,
}

impl Args {
    const fn options(&self) -> StoreOptions {
        let persistence = if self.permanent { Persistence::Permanent } else { Persistence::Deletable };
        StoreOptions { persistence, epochs: self.epochs }
    }
}

pub(super) async fn execute(network: Option<&Path>, args: Args, output: Output) -> Result<(), Failure> {
    let files = &args.files;
    // A typing error in the last name is found before a wallet is made or the first file is sent.
    for file in files {
        open(file)?;
    }
    let file = network_file(network)?;
    let key = args.wallet.load_or_create(network)?;
    let connection = Connection::open(&file).await?;
    let mut blobs = Vec::new();
    let mut result = Ok(());
    for file in files {
        match store(&connection, file, (&key, args.options())).await {
            Ok(stored) if output.json => blobs.push(Document::new(file, &stored)),
            Ok(stored) => {
                output::raw(line(&stored, file, files.len()).as_bytes())?;
                if args.timings {
                    output::note(breakdown(&stored));
                }
            }
            Err(failure) => {
                result = Err(failure);
                break;
            }
        }
    }
    connection.close().await;
    if output.json {
        match <[Document; 1]>::try_from(blobs) {
            Ok([blob]) if files.len() == 1 => output.data(&blob, "")?,
            // What was stored before a failure is stored, and said.
            Ok([blob]) => output.data(&Documents { blobs: vec![blob] }, "")?,
            Err(blobs) if files.len() > 1 => output.data(&Documents { blobs }, "")?,
            Err(_) => {}
        }
    }
    result
}

async fn store(
    connection: &Connection,
    file: &Path,
    (key, options): (&AccountKey, StoreOptions),
) -> Result<Stored, Failure> {
    let source = Arc::new(open(file)?);
    let bar = Bar::new(&shown(file));
    let stored = connection.client().store(source, key.signing(), options, bar.reports()).await;
    stored.map_err(|error| Failure::store(&shown(file), &error))
}

/// Opens a file as the source of a blob.
pub(super) fn open(file: &Path) -> Result<FileSource, Failure> {
    let source = FileSource::open(file)
        .map_err(|error| Failure::io(format!("cannot read {}", shown(file)), &error))?;
    tracing::debug!(file = %file.display(), bytes = source.len(), "opened");
    Ok(source)
}

/// The blob ID; with its file, if there are several.
fn line(stored: &Stored, file: &Path, n_files: usize) -> String {
    match n_files {
        1 => format!("{}\n", stored.blob_id),
        _ => format!("{}  {}\n", stored.blob_id, file.display()),
    }
}

/// When each step was done, in a line.
fn breakdown(stored: &Stored) -> String {
    let Timings { identified, looked_up, registered, confirmed, certified } = stored.timings;
    let ms = |at: Duration| format!("{:.1} ms", at.as_secs_f64() * 1e3);
    if stored.already_certified {
        return format!(
            "encoded at {}, found on the ledger at {} (one round trip): nothing to send",
            ms(identified),
            ms(looked_up)
        );
    }
    let registration = match registered {
        Some(at) => format!("registered at {} (one block), ", ms(at)),
        None => String::new(),
    };
    format!(
        "encoded at {}, looked up at {} (one round trip), {registration}confirmed by a quorum at {}, certified at {} \
         (one block)",
        ms(identified),
        ms(looked_up),
        ms(confirmed),
        ms(certified)
    )
}

impl Document {
    fn new(file: &Path, stored: &Stored) -> Self {
        Self {
            file: shown(file),
            blob_id: stored.blob_id.to_string(),
            size: stored.size,
            encoded_size: stored.encoded_size,
            confirmed_shards: stored.confirmed,
            already_certified: stored.already_certified,
            end_epoch: stored.end.0,
            seconds: stored.duration.as_secs_f64(),
            timings: stored.timings.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::{BlobId, Epoch};

    use super::*;

    #[test]
    fn the_document_has_the_keys_that_scripts_read() {
        let stored = Stored {
            blob_id: BlobId([0; 32]),
            size: 1,
            encoded_size: 2,
            confirmed: 9,
            end: Epoch(4),
            signers: Vec::new(),
            epoch: Epoch(0),
            already_certified: false,
            duration: Duration::from_millis(1500),
            timings: Timings { certified: Duration::from_millis(500), ..Timings::default() },
        };
        let json = serde_json::to_value(Document::new(Path::new("f"), &stored)).unwrap();
        let expected = serde_json::json!({
            "file": "f", "blob_id": "A".repeat(43), "size": 1, "encoded_size": 2, "confirmed_shards": 9,
            "already_certified": false, "end_epoch": 4, "seconds": 1.5,
            "timings": {"identified": 0.0, "looked_up": 0.0, "confirmed": 0.0, "certified": 0.5},
        });
        assert_eq!(json, expected);
        assert_eq!(line(&stored, Path::new("f"), 1), format!("{}\n", "A".repeat(43)));
        assert_eq!(line(&stored, Path::new("f"), 2), format!("{}  f\n", "A".repeat(43)));
    }
}
