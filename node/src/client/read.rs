//! Reading: primary slivers, each checked, to the bytes of the blob.

use std::io;

use protocol::BlobId;
use swarm::Network;

use super::{BlobSink, Client, OnProgress, StatusError};

/// How a read went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// Bytes of the blob.
    pub size: u64,
    /// Segments of the blob.
    pub segments: u32,
    /// Segments that had to be decoded, because systematic slivers could not be had.
    pub segments_decoded: u32,
    /// Bytes of slivers received.
    pub received_bytes: u64,
}

/// Why a blob could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No such blob is certified.
    #[error("no blob with this ID is stored on this network")]
    NotFound,
    /// The blob was proved to be encoded wrongly.
    #[error("the blob was encoded wrongly by its writer, as the committee certified; nobody can read it")]
    Invalid,
    /// The slivers verify and yet do not fit together.
    #[error("the blob was encoded wrongly by its writer; storage nodes will certify this once they repair it")]
    Inconsistent,
    /// The status of the blob could not be found.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// Too few slivers could be had.
    #[error(
        "segment {segment}: got {got} of the {required} primary slivers needed; too many nodes are down, try again when they are back"
    )]
    TooFewSlivers {
        /// The segment.
        segment: u32,
        /// Slivers received and verified.
        got: usize,
        /// Slivers needed.
        required: usize,
    },
    /// The bytes could not be written to where they should go.
    #[error("cannot write the blob")]
    Sink(#[source] io::Error),
    /// This client is stopping.
    #[error("the client has stopped")]
    Stopped,
}

impl<N: Network> Client<N> {
    /// Reads a blob into `sink`, in order; every byte is checked against the blob ID before it is written.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; what was written by then is a correct beginning of the blob.
    pub async fn read<S: BlobSink>(
        &self,
        _blob_id: BlobId,
        _sink: S,
        _progress: OnProgress,
    ) -> Result<(ReadSummary, S), ReadError> {
        todo!()
    }
}
