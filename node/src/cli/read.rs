//! `floe read`.

use std::{
    fs::File,
    io::{self, Write as _},
    ops::Range,
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
    /// Bytes of the blob.
    size: u64,
    /// Those that were asked for.
    bytes: u64,
    segments: u32,
    segments_decoded: u32,
    received_bytes: u64,
}

pub(super) async fn execute(
    network: Option<&Path>,
    (blob_id, range): (BlobId, Range<u64>),
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
            let (_, stdout) = read(&network, (blob_id, range), Stdout).await?;
            stdout.finish()
        }
        Some(path) => {
            // Before the network is bothered: a file that cannot be written is found at once.
            let (part, file) = PartFile::create(path)?;
            let (summary, file) = read::<File>(&network, (blob_id, range.clone()), file).await?;
            part.complete(&file)?;
            output.data(&Document::new((blob_id, range), path, summary), "")
        }
    }
}

/// A range of bytes, as people write it.
pub(super) fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (start, end) = text.split_once("..").ok_or("write it as START..END, such as 0..1000")?;
    let number = |text: &str, default: u64| match text.trim() {
        "" => Ok(default),
        text => text.parse().map_err(|error| format!("{text:?}: {error}")),
    };
    let range = number(start, 0)?..number(end, u64::MAX)?;
    if range.start > range.end {
        return Err("it ends before it starts".to_owned());
    }
    Ok(range)
}

async fn read<S: BlobSink>(
    network: &Path,
    (blob_id, range): (BlobId, Range<u64>),
    sink: S,
) -> Result<(ReadSummary, S), Failure> {
    let connection = Connection::open(network).await?;
    let bar = Bar::new(&blob_id.to_string());
    let result = connection.client().read_range(blob_id, range, sink, bar.reports()).await;
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
    fn new((blob_id, range): (BlobId, Range<u64>), path: &Path, summary: ReadSummary) -> Self {
        let ReadSummary { size, segments, segments_decoded, received_bytes } = summary;
        Self {
            blob_id: blob_id.to_string(),
            file: shown(path),
            size,
            bytes: range.end.min(size).saturating_sub(range.start),
            segments,
            segments_decoded,
            received_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_as_people_do() {
        for (text, range) in [
            ("..", 0..u64::MAX),
            ("5..", 5..u64::MAX),
            ("..7", 0..7),
            ("5..7", 5..7),
            (" 5 .. 7 ", 5..7),
            ("7..7", 7..7),
        ] {
            assert_eq!(parse_range(text), Ok(range), "{text}");
        }
        for text in ["", "5", "7..5", "-1..5", "a..b", "1...5", "0..18446744073709551616"] {
            parse_range(text).unwrap_err();
        }
    }
}
