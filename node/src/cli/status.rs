//! `floe status`.

use std::path::Path;

use protocol::{
    BlobId,
    certificate::Persistence,
    encoding::BlobShape,
    message::{BlobRecord, BlobStatus},
};
use serde::Serialize;

use super::{Connection, Exit, Failure, Output, network_file, output::Bytes};
use crate::client::StatusReport;

/// What is printed of a blob.
#[derive(Debug, Serialize)]
struct Document {
    blob_id: String,
    /// `certified`, `unknown` or `invalid`.
    status: &'static str,
    /// Shards of the members that answered.
    answered_shards: u16,
    #[serde(flatten)]
    certified: Option<Certified>,
}

#[derive(Debug, Serialize)]
struct Certified {
    size: u64,
    encoded_size: Option<u64>,
    n_shards: u16,
    epoch: u32,
    persistence: Persistence,
    /// Members that signed the certificate.
    signers: usize,
}

pub(super) async fn execute(network: Option<&Path>, blob_id: BlobId, output: Output) -> Result<(), Failure> {
    let connection = Connection::open(&network_file(network)?).await?;
    let report = connection.client().status(blob_id).await;
    connection.close().await;
    let report = report.map_err(|error| Failure::status(&blob_id, &error))?;
    let document = Document::new(&report);
    output.data(&document, text(&document))?;
    match report.status {
        BlobStatus::Certified(_) => Ok(()),
        BlobStatus::Unknown => {
            Err(Failure::new(Exit::NotFound, format!("no blob {blob_id} on this network"))
                .hint("check the ID, and that it was stored on this network"))
        }
        BlobStatus::Invalid(_) => Err(Failure::new(
            Exit::InvalidBlob,
            format!("blob {blob_id} was encoded wrongly by its writer; nobody can read it"),
        )),
    }
}

impl Document {
    fn new(report: &StatusReport) -> Self {
        let (status, certified) = match &report.status {
            BlobStatus::Unknown => ("unknown", None),
            BlobStatus::Certified(record) => ("certified", Some(Certified::new(record))),
            BlobStatus::Invalid(_) => ("invalid", None),
        };
        Self { blob_id: report.blob_id.to_string(), status, answered_shards: report.answered, certified }
    }
}

impl Certified {
    fn new(BlobRecord { header, certificate }: &BlobRecord) -> Self {
        let shape = BlobShape::new(header.n_shards, header.length).ok();
        Self {
            size: header.length,
            encoded_size: shape.map(|shape| shape.encoded_bytes()),
            n_shards: header.n_shards,
            epoch: certificate.statement().epoch.0,
            persistence: certificate.statement().persistence,
            signers: certificate.signers().len(),
        }
    }
}

fn text(document: &Document) -> String {
    let Some(certified) = &document.certified else { return document.status.to_owned() };
    let Certified { size, encoded_size, epoch, persistence, signers, n_shards: _ } = certified;
    let encoded = encoded_size.map_or_else(String::new, |bytes| format!(" ({} encoded)", Bytes(bytes)));
    format!(
        "{}: {size} bytes{encoded}, {persistence}, since epoch {epoch}, signed by {signers} nodes",
        document.status
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_has_a_status_and_nothing_more() {
        let report = StatusReport { blob_id: BlobId([0; 32]), status: BlobStatus::Unknown, answered: 9 };
        let json = serde_json::to_value(Document::new(&report)).unwrap();
        let expected =
            serde_json::json!({"blob_id": "A".repeat(43), "status": "unknown", "answered_shards": 9});
        assert_eq!(json, expected);
    }
}
