//! `floe status`.

use std::path::Path;

use protocol::BlobId;
use serde::Serialize;

use super::{Connection, Exit, Failure, Output, network_file, output::Bytes};
use crate::client::{BlobStatus, StatusReport};

/// What is printed of a blob.
#[derive(Debug, Serialize)]
struct Document {
    blob_id: String,
    /// `certified`, `registered`, `unknown` or `invalid`.
    status: &'static str,
    /// Height of the ledger behind which it is so.
    height: u64,
    #[serde(flatten)]
    certified: Option<Certified>,
}

#[derive(Debug, Serialize)]
struct Certified {
    size: u64,
    encoded_size: u64,
    n_shards: u16,
    /// The epoch in which it was certified.
    epoch: u32,
    /// Height of the block that certified it.
    certified_at: u64,
    /// The first epoch in which it is no longer stored, as things are.
    end_epoch: u32,
}

pub(super) async fn execute(network: Option<&Path>, blob_id: BlobId, output: Output) -> Result<(), Failure> {
    let connection = Connection::open(&network_file(network)?).await?;
    let report = connection.client().status(blob_id).await;
    connection.close().await;
    let report = report.map_err(|error| Failure::status(&blob_id, &error))?;
    let document = Document::new(&report);
    output.data(&document, text(&document))?;
    match report.status {
        BlobStatus::Certified { .. } => Ok(()),
        BlobStatus::Unknown => {
            Err(Failure::new(Exit::NotFound, format!("no blob {blob_id} on this network"))
                .hint("check the ID, and that it was stored on this network"))
        }
        BlobStatus::Registered => {
            Err(Failure::new(Exit::NotFound, format!("blob {blob_id} is registered, and not certified"))
                .hint("whoever began to store it can store it again"))
        }
        BlobStatus::Invalid { .. } => Err(Failure::new(
            Exit::InvalidBlob,
            format!("blob {blob_id} was encoded wrongly by its writer; nobody can read it"),
        )),
    }
}

impl Document {
    fn new(report: &StatusReport) -> Self {
        let (status, certified) = match &report.status {
            BlobStatus::Unknown => ("unknown", None),
            BlobStatus::Registered => ("registered", None),
            BlobStatus::Certified { header, available } => {
                let shape = header.shape();
                let certified = Certified {
                    size: shape.length(),
                    encoded_size: shape.encoded_bytes(),
                    n_shards: shape.n(),
                    epoch: available.epoch.0,
                    certified_at: available.height,
                    end_epoch: available.end.0,
                };
                ("certified", Some(certified))
            }
            BlobStatus::Invalid { .. } => ("invalid", None),
        };
        Self { blob_id: report.blob_id.to_string(), status, height: report.height, certified }
    }
}

fn text(document: &Document) -> String {
    let Some(certified) = &document.certified else { return document.status.to_owned() };
    let Certified { size, encoded_size, epoch, certified_at, end_epoch, n_shards: _ } = certified;
    let encoded = Bytes(*encoded_size);
    format!(
        "{}: {size} bytes ({encoded} encoded), since epoch {epoch} (height {certified_at}), to epoch {end_epoch}",
        document.status
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_has_a_status_and_nothing_more() {
        let report = StatusReport { blob_id: BlobId([0; 32]), status: BlobStatus::Unknown, height: 9 };
        let json = serde_json::to_value(Document::new(&report)).unwrap();
        let expected = serde_json::json!({"blob_id": "A".repeat(43), "status": "unknown", "height": 9});
        assert_eq!(json, expected);
    }
}
