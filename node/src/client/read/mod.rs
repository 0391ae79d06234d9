//! Reading: primary slivers, each checked, to the bytes of the blob.
//!
//! ```text
//! status -> header -> read_segment, a few at a time -> sink, in order
//!                        gather: commitment of any member, any p slivers --verify--> concatenate or decode
//! ```
//!
//! [`plan`] decides whom to ask next and [`pace`] who is late; [`gather`] carries it out, [`reader`] makes the requests.

mod gather;
mod pace;
mod plan;
mod reader;
mod segment;

use std::{io, sync::Arc};

use futures::{FutureExt as _, StreamExt as _, stream};
use protocol::{BlobId, commitment::VerifiedHeader};
use swarm::Network;

use self::{
    reader::Reader,
    segment::{SegmentBytes, read_segment},
};
use super::{BlobSink, BlobStatus, Client, LedgerError, OnProgress, Progress};
use crate::encoder::Encoder;

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
    #[error(
        "the blob was encoded wrongly by its writer; storage nodes will certify this once they repair it"
    )]
    Inconsistent,
    /// The status of the blob could not be found.
    #[error(transparent)]
    Status(#[from] LedgerError),
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
    /// Cancel safe: yes; what was written by then is a correct beginning of the blob.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; what was written by then is a correct beginning of the blob.
    pub async fn read<S: BlobSink>(
        &self,
        blob_id: BlobId,
        sink: S,
        progress: OnProgress,
    ) -> Result<(ReadSummary, S), ReadError> {
        let header = self.header(blob_id).await?;
        let reader = Arc::new(Reader::new(self, header));
        match Box::pin(self.read_segments(&reader, sink, &progress)).await {
            // The members may know better what is wrong with the blob.
            Err(error @ (ReadError::TooFewSlivers { .. } | ReadError::Inconsistent)) => {
                let ask = reader.is_suspect() || matches!(error, ReadError::Inconsistent);
                match if ask { self.header(blob_id).await } else { Ok(header) } {
                    Err(ReadError::Invalid) => Err(ReadError::Invalid),
                    _ => Err(error),
                }
            }
            result => result,
        }
    }

    /// The verified header of a certified blob.
    async fn header(&self, blob_id: BlobId) -> Result<VerifiedHeader, ReadError> {
        match self.status(blob_id).await?.status {
            BlobStatus::Certified { header, .. } => Ok(header),
            BlobStatus::Invalid { .. } => Err(ReadError::Invalid),
            BlobStatus::Registered | BlobStatus::Unknown => Err(ReadError::NotFound),
        }
    }

    async fn read_segments<S: BlobSink>(
        &self,
        reader: &Arc<Reader<N>>,
        mut sink: S,
        progress: &OnProgress,
    ) -> Result<(ReadSummary, S), ReadError> {
        let shape = *reader.header.shape();
        let total = shape.length();
        let read = |index| read_segment(Arc::clone(reader), index).boxed();
        let in_flight = self.config.segments_in_flight.max(1);
        let mut segments = stream::iter(shape.segments().map(read)).buffered(in_flight);
        let mut summary = ReadSummary { size: total, segments: shape.n_segments(), ..ReadSummary::default() };
        let mut done = 0;
        progress(Progress::Reading { done, total });
        let mut next = segments.next().await;
        while let Some(segment) = next {
            let segment = segment?;
            summary.segments_decoded += u32::from(segment.is_decoded);
            let len: usize = segment.chunks.iter().map(|chunk| chunk.len()).sum();
            // Fetching goes on while the sink writes.
            let (written, following) =
                futures::future::join(write(&self.encoder, sink, segment), segments.next()).await;
            sink = written?;
            next = following;
            done += u64::try_from(len).unwrap_or(0);
            progress(Progress::Reading { done, total });
        }
        summary.received_bytes = reader.received();
        Ok((summary, sink))
    }
}

/// Writes a segment on the pool, since a sink may block.
async fn write<S: BlobSink>(encoder: &Encoder, mut sink: S, segment: SegmentBytes) -> Result<S, ReadError> {
    let write = move |_: &mut _| segment.chunks.iter().try_for_each(|chunk| sink.write(chunk)).map(|()| sink);
    encoder.run(write).await.map_err(|_| ReadError::Stopped)?.map_err(ReadError::Sink)
}
