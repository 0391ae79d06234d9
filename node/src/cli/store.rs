//! `floe store`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::{Connection, Failure, Output, network_file, output, progress::Bar, shown};
use crate::client::{BlobSource as _, FileSource, StoreOptions, Stored};

/// What is printed of one file.
#[derive(Debug, Serialize)]
struct Document {
    file: String,
    blob_id: String,
    size: u64,
    encoded_size: u64,
    confirmed_shards: u16,
    already_certified: bool,
    seconds: f64,
}

/// What is printed of several files.
#[derive(Debug, Serialize)]
struct Documents {
    blobs: Vec<Document>,
}

pub(super) async fn execute(
    network: Option<&Path>,
    files: &[PathBuf],
    output: Output,
) -> Result<(), Failure> {
    let network = network_file(network)?;
    // A typing error in the last name is found before the first file is sent.
    for file in files {
        open(file)?;
    }
    let connection = Connection::open(&network).await?;
    let mut blobs = Vec::new();
    let mut result = Ok(());
    for file in files {
        match store(&connection, file).await {
            Ok(stored) if output.json => blobs.push(Document::new(file, &stored)),
            Ok(stored) => output::raw(line(&stored, file, files.len()).as_bytes())?,
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

async fn store(connection: &Connection, file: &Path) -> Result<Stored, Failure> {
    let source = Arc::new(open(file)?);
    let bar = Bar::new(&shown(file));
    let stored = connection.client().store(source, StoreOptions::default(), bar.reports()).await;
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

impl Document {
    fn new(file: &Path, stored: &Stored) -> Self {
        Self {
            file: shown(file),
            blob_id: stored.blob_id.to_string(),
            size: stored.size,
            encoded_size: stored.encoded_size,
            confirmed_shards: stored.confirmed,
            already_certified: stored.already_certified,
            seconds: stored.duration.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::BlobId;

    use super::*;

    #[test]
    fn the_document_has_the_keys_that_scripts_read() {
        let stored = Stored {
            blob_id: BlobId([0; 32]),
            size: 1,
            encoded_size: 2,
            confirmed: 9,
            already_certified: false,
            duration: Duration::from_millis(1500),
        };
        let json = serde_json::to_value(Document::new(Path::new("f"), &stored)).unwrap();
        let expected = serde_json::json!({
            "file": "f", "blob_id": "A".repeat(43), "size": 1, "encoded_size": 2, "confirmed_shards": 9,
            "already_certified": false, "seconds": 1.5,
        });
        assert_eq!(json, expected);
        assert_eq!(line(&stored, Path::new("f"), 1), format!("{}\n", "A".repeat(43)));
        assert_eq!(line(&stored, Path::new("f"), 2), format!("{}  f\n", "A".repeat(43)));
    }
}
