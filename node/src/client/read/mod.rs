//! Reading: primary slivers, each checked, to the bytes of the blob.
//!
//! ```text
//! status -> header, committees -> read_segment, a few at a time -> sink, in order
//!    ^                             |  gather: commitment of any member, any p slivers --verify--> concatenate or decode
//!    +--too few came, and the epoch ended: go on with the segments that are left
//! ```
//!
//! [`plan`] decides whom to ask next and [`pace`] who is late; [`gather`] carries it out, [`reader`] makes the requests.

mod gather;
mod pace;
mod plan;
mod reader;
mod segment;

use std::{io, ops::Range, sync::Arc};

use futures::{FutureExt as _, StreamExt as _, stream};
use protocol::{BlobId, SegmentIndex, commitment::VerifiedHeader, encoding::BlobShape};
use swarm::Network;

use self::{
    reader::Reader,
    segment::{SegmentBytes, read_segment},
};
use super::{
    BlobSink, BlobStatus, Client, Failures, LedgerError, OnProgress, Progress,
    status::{Found, Sources},
};
use crate::encoder::Encoder;

/// How a read went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// Bytes of the blob.
    pub size: u64,
    /// Segments of which something was asked for.
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
    /// There are no such bytes; whoever asked for them is at fault.
    #[error("the blob has {size} bytes: there are none from {start} to {end}")]
    Range {
        /// The first byte asked for.
        start: u64,
        /// The byte after the last.
        end: u64,
        /// Bytes of the blob.
        size: u64,
    },
    /// The status of the blob could not be found.
    #[error(transparent)]
    Status(#[from] LedgerError),
    /// Too few slivers could be had.
    #[error(
        "segment {segment}: got {got} of the {required} primary slivers needed{failures}; try again when these nodes are well"
    )]
    TooFewSlivers {
        /// The segment.
        segment: u32,
        /// Slivers received and verified.
        got: usize,
        /// Slivers needed.
        required: usize,
        /// Members that had some to give, and did not.
        failures: Failures,
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
        self.read_range(blob_id, 0..u64::MAX, sink, progress).await
    }

    /// Reads the bytes of a blob from the start of a range to its end or, if that comes first, the blob's. The primary slivers
    /// that hold them are fetched whole, others only of segments of which one of those cannot be had.
    ///
    /// Cancel safe: yes; as [`Self::read`].
    ///
    /// # Errors
    ///
    /// [`ReadError`], of which [`ReadError::Range`] if the range ends before it starts, or starts behind the blob's end.
    pub async fn read_range<S: BlobSink>(
        &self,
        blob_id: BlobId,
        range: Range<u64>,
        sink: S,
        progress: OnProgress,
    ) -> Result<(ReadSummary, S), ReadError> {
        let (header, sources) = self.certified(blob_id).await?;
        let size = header.shape().length();
        let Range { start, end } = range;
        if start > end || start > size {
            return Err(ReadError::Range { start, end, size });
        }
        let mut reader = Arc::new(Reader::new(self, header, sources));
        let segments = segments_of(header.shape(), start..end.min(size));
        let summary = ReadSummary {
            size,
            segments: u32::try_from(segments.len()).unwrap_or(u32::MAX),
            ..ReadSummary::default()
        };
        let mut reading =
            Reading { sink: Some(sink), range: start..end.min(size), segments, done: 0, summary };
        progress(Progress::Reading { done: 0, total: reading.len() });
        loop {
            let result = Box::pin(self.read_segments(&reader, &mut reading, &progress)).await;
            reading.summary.received_bytes += reader.received();
            match (result, reading.sink.take()) {
                (Ok(()), Some(sink)) => return Ok((reading.summary, sink)),
                (Ok(()), None) => return Err(ReadError::Stopped),
                // The members may know better what is wrong with the blob, it may be gone since this began, or others may have it
                // by now.
                (Err(error @ ReadError::TooFewSlivers { .. }), Some(sink)) => {
                    let found = self.certified(blob_id).await;
                    match found {
                        Err(known @ (ReadError::Invalid | ReadError::NotFound)) => return Err(known),
                        Ok((_, sources)) if !sources.is_same(&reader.sources) => {
                            let segment = reading.segments.start;
                            tracing::debug!(%blob_id, segment, "goes on with another committee");
                            reading.sink = Some(sink);
                            reader = Arc::new(Reader::new(self, header, sources));
                        }
                        _ => return Err(error),
                    }
                }
                (Err(ReadError::Inconsistent), _) => {
                    return Err(match self.certified(blob_id).await {
                        Err(ReadError::Invalid) => ReadError::Invalid,
                        _ => ReadError::Inconsistent,
                    });
                }
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// The verified header of a certified blob, and who has it.
    async fn certified(&self, blob_id: BlobId) -> Result<(VerifiedHeader, Sources), ReadError> {
        let Found { report, sources } = self.look_up(blob_id).await?;
        match report.status {
            BlobStatus::Certified { header, .. } => Ok((header, sources)),
            BlobStatus::Invalid { .. } => Err(ReadError::Invalid),
            BlobStatus::Registered | BlobStatus::Unknown => Err(ReadError::NotFound),
        }
    }

    /// Reads on from the next segment. What was written when it fails is not read again.
    async fn read_segments<S: BlobSink>(
        &self,
        reader: &Arc<Reader<N>>,
        reading: &mut Reading<S>,
        progress: &OnProgress,
    ) -> Result<(), ReadError> {
        let total = reading.len();
        let wanted = reading.range.clone();
        let read = |index| read_segment(Arc::clone(reader), SegmentIndex(index), wanted.clone()).boxed();
        let in_flight = self.config.segments_in_flight.max(1);
        let mut segments = stream::iter(reading.segments.clone().map(read)).buffered(in_flight);
        let mut next = segments.next().await;
        while let Some(segment) = next {
            let mut segment = segment?;
            segment.keep(&reading.range);
            let sink = reading.sink.take().ok_or(ReadError::Stopped)?;
            reading.summary.segments_decoded += u32::from(segment.is_decoded);
            let len: usize = segment.chunks.iter().map(|chunk| chunk.len()).sum();
            // Fetching goes on while the sink writes.
            let (written, following) =
                futures::future::join(write(&self.encoder, sink, segment), segments.next()).await;
            reading.sink = Some(written?);
            next = following;
            reading.segments.start += 1;
            reading.done += u64::try_from(len).unwrap_or(0);
            progress(Progress::Reading { done: reading.done, total });
        }
        Ok(())
    }
}

/// How far a read is.
struct Reading<S> {
    /// Where the bytes go to; none while they are written, and after that failed.
    sink: Option<S>,
    /// The bytes that are wanted. INV: some of the blob's.
    range: Range<u64>,
    /// The segments that are still to be written.
    segments: Range<u32>,
    /// Bytes written.
    done: u64,
    summary: ReadSummary,
}

impl<S> Reading<S> {
    /// Bytes that are wanted.
    const fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// The segments that hold any of these bytes of a blob; all of them for all its bytes, also if these are none.
fn segments_of(shape: &BlobShape, range: Range<u64>) -> Range<u32> {
    let is_wanted = |index: &SegmentIndex| {
        let has = shape.range(*index).expect("only segments that exist are looked at");
        let holds_some = has.start < range.end && range.start < has.end && !range.is_empty();
        holds_some || range == (0..shape.length())
    };
    let mut wanted = shape.segments().filter(is_wanted).map(|index| index.0);
    let first = wanted.next();
    first.map_or(0..0, |first| first..wanted.next_back().unwrap_or(first) + 1)
}

/// Writes a segment on the pool, since a sink may block.
async fn write<S: BlobSink>(encoder: &Encoder, mut sink: S, segment: SegmentBytes) -> Result<S, ReadError> {
    let write = move |_: &mut _| segment.chunks.iter().try_for_each(|chunk| sink.write(chunk)).map(|()| sink);
    encoder.run(write).await.map_err(|_| ReadError::Stopped)?.map_err(ReadError::Sink)
}
