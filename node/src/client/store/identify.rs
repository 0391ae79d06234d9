//! The first pass over a blob: every segment to its root, all roots to the blob ID.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, stream};
use protocol::{
    SegmentIndex,
    commitment::{BlobHeader, VerifiedHeader},
    encoding::{BlobShape, EncodedSegment, SegmentEncoder},
    hash::Hash,
};

use super::StoreError;
use crate::{
    client::{BlobSource, OnProgress, Progress},
    encoder::Encoder,
};

/// Reads and encodes the segments of one blob, with buffers that are used again.
#[derive(Clone)]
pub(super) struct Segments(Arc<Inner>);

struct Inner {
    encoder: Encoder,
    source: Arc<dyn BlobSource>,
    shape: BlobShape,
    /// Buffers that are no longer needed; as many of each kind as were ever in hand together.
    spare: Mutex<Spare>,
}

#[derive(Default)]
struct Spare {
    data: Vec<Vec<u8>>,
    segments: Vec<EncodedSegment>,
}

/// Why a segment could not be encoded.
#[derive(Debug)]
pub(super) enum EncodeError {
    /// Its bytes could not be read.
    Source(io::Error),
    /// The encoder has stopped.
    Stopped,
}

impl From<EncodeError> for StoreError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Source(error) => Self::Source(error),
            EncodeError::Stopped => Self::Stopped,
        }
    }
}

/// What the first pass found.
pub(super) struct Identified {
    /// The blob ID, and what it is a hash of.
    pub(super) header: VerifiedHeader,
    /// Roots of all segments.
    pub(super) roots: Arc<Vec<Hash>>,
    /// The encoded segments, if there were few enough to keep.
    pub(super) kept: VecDeque<EncodedSegment>,
}

impl Segments {
    pub(super) fn new(encoder: Encoder, source: Arc<dyn BlobSource>, shape: BlobShape) -> Self {
        Self(Arc::new(Inner { encoder, source, shape, spare: Mutex::default() }))
    }

    pub(super) fn shape(&self) -> &BlobShape {
        &self.0.shape
    }

    /// Reads and encodes one segment on the pool, and runs `then` on it there.
    pub(super) async fn encode<T: Send + 'static>(
        &self,
        index: SegmentIndex,
        then: impl FnOnce(EncodedSegment) -> T + Send + 'static,
    ) -> Result<T, EncodeError> {
        let inner = Arc::clone(&self.0);
        let job = move |encoder: &mut SegmentEncoder| inner.read_and_encode(index, encoder).map(then);
        let result = self.0.encoder.run(job).await;
        result.map_err(|_| EncodeError::Stopped)?.map_err(EncodeError::Source)
    }

    /// Takes a segment back whose slivers are no longer needed.
    pub(super) fn recycle(&self, segment: EncodedSegment) {
        self.0.with_spare(|spare| spare.segments.push(segment));
    }

    /// Encodes every segment, `in_flight` at the same time, and keeps what is encoded if there are no more than that.
    pub(super) async fn identify(
        &self,
        in_flight: usize,
        progress: &OnProgress,
    ) -> Result<Identified, StoreError> {
        let shape = *self.shape();
        let total = shape.length();
        let keep = SegmentIndex(shape.n_segments()).as_usize() <= in_flight;
        let encode = |index| {
            let this = self.clone();
            self.encode(index, move |segment| {
                let root = segment.commitment().root();
                if keep {
                    return (root, Some(segment));
                }
                this.recycle(segment);
                (root, None)
            })
        };
        let mut encoded = stream::iter(shape.segments().map(encode)).buffered(in_flight);
        let (mut roots, mut kept) = (Vec::new(), VecDeque::new());
        progress(Progress::Encoding { done: 0, total });
        for index in shape.segments() {
            let (root, segment) = encoded.next().await.ok_or(StoreError::Stopped)??;
            roots.push(root);
            kept.extend(segment);
            progress(Progress::Encoding { done: shape.range(index)?.end, total });
        }
        let header =
            BlobHeader::new(&shape, &roots).verify().expect("the header is of this version and shape");
        Ok(Identified { header, roots: Arc::new(roots), kept })
    }
}

impl Inner {
    fn with_spare<T>(&self, step: impl FnOnce(&mut Spare) -> T) -> T {
        // Nothing that can panic runs under this lock.
        step(&mut self.spare.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read_and_encode(
        &self,
        index: SegmentIndex,
        encoder: &mut SegmentEncoder,
    ) -> io::Result<EncodedSegment> {
        let range = self.shape.range(index).map_err(io::Error::other)?;
        let shape = self.shape.segment(index).map_err(io::Error::other)?;
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let (data, segment) = self.with_spare(|spare| (spare.data.pop(), spare.segments.pop()));
        let mut data = data.unwrap_or_default();
        data.resize(len, 0);
        self.source.read_at(range.start, &mut data)?;
        let encoded = match segment {
            Some(mut segment) => {
                encoder.encode_into(shape, &data, &mut segment);
                segment
            }
            None => encoder.encode(shape, &data),
        };
        self.with_spare(|spare| spare.data.push(data));
        Ok(encoded)
    }
}
