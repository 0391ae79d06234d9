//! `floe read`.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use protocol::BlobId;
use serde::Serialize;

use super::{Connection, Exit, Failure, Output, network_file, part_file::PartFile, progress::Bar, shown};
use crate::client::{BlobSink, ReadSummary};

/// What is printed of a blob that was written to a file.
#[derive(Debug, Serialize)]
struct Document {
    blob_id: String,
    file: String,
    size: u64,
    segments: u32,
    segments_decoded: u32,
    received_bytes: u64,
}

pub(super) async fn execute(
    network: Option<&Path>,
    blob_id: BlobId,
    out: Option<&Path>,
    output: Output,
) -> Result<(), Failure> {
    let network = network_file(network)?;
    match out {
        None if output.json => {
            Err(Failure::new(Exit::Usage, "standard output cannot hold both the blob and JSON")
                .hint("give --out FILE or leave out --json"))
        }
        None => {
            let (_, stdout) = read(&network, blob_id, Stdout).await?;
            stdout.finish()
        }
        Some(path) => {
            // Before the network is bothered: a file that cannot be written is found at once.
            let (part, file) = PartFile::create(path)?;
            let (summary, file) = read::<File>(&network, blob_id, file).await?;
            part.complete(&file)?;
            output.data(&Document::new(blob_id, path, summary), "")
        }
    }
}

async fn read<S: BlobSink>(network: &Path, blob_id: BlobId, sink: S) -> Result<(ReadSummary, S), Failure> {
    let connection = Connection::open(network).await?;
    let bar = Bar::new(&blob_id.to_string());
    let result = connection.client().read(blob_id, sink, bar.reports()).await;
    drop(bar);
    connection.close().await;
    result.map_err(|error| Failure::read(&blob_id, error))
}

/// Standard output, unbuffered: the client hands over whole segments.
#[derive(Debug)]
struct Stdout;

impl Stdout {
    fn finish(self) -> Result<(), Failure> {
        io::stdout().lock().flush().map_err(Failure::stdout)
    }
}

impl BlobSink for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::stdout().lock().write_all(bytes)
    }
}

impl Document {
    fn new(blob_id: BlobId, path: &Path, summary: ReadSummary) -> Self {
        let ReadSummary { size, segments, segments_decoded, received_bytes } = summary;
        Self {
            blob_id: blob_id.to_string(),
            file: shown(path),
            size,
            segments,
            segments_decoded,
            received_bytes,
        }
    }
}
