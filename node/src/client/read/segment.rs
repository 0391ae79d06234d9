//! One segment: its commitment, enough of its primary slivers, its bytes.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use protocol::{
    SegmentIndex,
    commitment::SegmentCommitment,
    encoding::{
        Axis, DecodeError, SegmentDecoder, SegmentEncoder, SegmentShape, VerifiedSliver, verify_sliver,
    },
};
use swarm::{Network, RequestError};

use super::{
    ReadError,
    gather::{Shortfall, gather},
    plan::Plan,
    reader::{Reader, SharedReader, Sliver},
};
use crate::client::{
    Failures,
    exchange::{AskError, Pulse},
};

/// Bytes of a segment, without padding.
pub(super) struct SegmentBytes {
    /// Where they begin in the blob.
    pub(super) start: u64,
    pub(super) chunks: Vec<Bytes>,
    /// True if it had to be decoded.
    pub(super) is_decoded: bool,
}

impl SegmentBytes {
    /// Keeps those that are in a range of the blob's.
    pub(super) fn keep(&mut self, range: &Range<u64>) {
        let mut at = self.start;
        for chunk in &mut self.chunks {
            let end = at + u64::try_from(chunk.len()).expect("a segment is shorter than 2^64");
            let within =
                |byte: u64| usize::try_from(byte.clamp(at, end) - at).expect("it is within the chunk");
            let kept = within(range.start)..within(range.end);
            *chunk = if kept.is_empty() { Bytes::new() } else { chunk.slice(kept) };
            at = end;
        }
    }
}

/// The commitment, fetched once and waited for by every sliver that arrives before it.
type Commitment = Shared<BoxFuture<'static, Result<Arc<SegmentCommitment>, Shortfall>>>;

/// Why a segment could not be had.
enum SegmentError {
    TooFew(Shortfall),
    Inconsistent,
    Stopped,
}

/// Reads the bytes of one segment that are in a range of the blob's, and perhaps others around them.
pub(super) async fn read_segment<N: Network>(
    reader: SharedReader<N>,
    index: SegmentIndex,
    wanted: Range<u64>,
) -> Result<SegmentBytes, ReadError> {
    read(&reader, index, &wanted).await.map_err(|error| match error {
        SegmentError::TooFew(Shortfall { got, required, failures }) => {
            ReadError::TooFewSlivers { segment: index.0, got, required, failures }
        }
        SegmentError::Inconsistent => ReadError::Inconsistent,
        SegmentError::Stopped => ReadError::Stopped,
    })
}

/// The systematic primary slivers of a segment that hold what is wanted of its bytes; none of copies, which are all the same, or
/// if nothing is wanted.
fn rows(shape: SegmentShape, has: &Range<u64>, wanted: &Range<u64>) -> Range<u16> {
    let within = |byte: u64| {
        usize::try_from(byte.clamp(has.start, has.end) - has.start).expect("a segment fits in memory")
    };
    let (start, end) = (within(wanted.start), within(wanted.end));
    if shape.is_replicated() || start >= end {
        return 0..0;
    }
    let row_bytes = shape.sliver_bytes(Axis::Primary);
    let row = |row| u16::try_from(row).expect("there are fewer rows than shards");
    row(start / row_bytes)..row(end.div_ceil(row_bytes))
}

async fn read<N: Network>(
    reader: &SharedReader<N>,
    index: SegmentIndex,
    wanted: &Range<u64>,
) -> Result<SegmentBytes, SegmentError> {
    let shape = reader.header.shape().segment(index).expect("only segments that exist are read");
    let range = reader.header.shape().range(index).expect("only segments that exist are read");
    let len = usize::try_from(range.end - range.start).expect("a segment fits in memory");
    let required = shape.n_source(Axis::Secondary);
    let rows = rows(shape, &range, wanted);

    let commitment: Commitment = {
        let reader = Arc::clone(reader);
        async move { find_commitment(&reader, index).await }.boxed().shared()
    };
    let fetch = |candidate, pulse: Arc<Pulse>| {
        fetch_verified(Arc::clone(reader), (index, shape, candidate), commitment.clone(), pulse).boxed()
    };
    let plan = Plan::among(required, shape.n(), &reader.candidates(index, shape)).or_all_of(rows.clone());
    let gathered = gather(reader, plan, |candidate| reader.owner(index, candidate), fetch).await;
    // Without a commitment no sliver counts.
    let known = commitment.await;
    let candidates = gathered.map_err(SegmentError::TooFew)?;
    let known =
        known.map_err(|shortfall| SegmentError::TooFew(Shortfall { got: 0, required, ..shortfall }))?;
    let mut slivers: BTreeMap<u16, _> =
        candidates.into_iter().map(|(candidate, sliver)| (candidate % shape.n(), sliver)).collect();

    if shape.is_replicated() {
        let copies = slivers.into_values().map(VerifiedSliver::into_bytes).collect();
        return Ok(SegmentBytes { start: range.start, chunks: cut(copies, len), is_decoded: false });
    }
    if rows.clone().all(|row| slivers.contains_key(&row)) {
        let skipped = usize::from(rows.start) * shape.sliver_bytes(Axis::Primary);
        let chunks = rows.filter_map(|row| slivers.remove(&row)).map(VerifiedSliver::into_bytes).collect();
        let start = range.start + u64::try_from(skipped).expect("a segment is shorter than 2^64");
        return Ok(SegmentBytes { start, chunks: cut(chunks, len - skipped), is_decoded: false });
    }
    let decoded = reader.encoder.run(move |encoder| decode(encoder, shape, &known, slivers)).await;
    let grid = decoded.map_err(|_| SegmentError::Stopped)?.map_err(|error| match error {
        DecodeError::Inconsistent { .. } => SegmentError::Inconsistent,
        DecodeError::TooFewSlivers { got, required } => {
            SegmentError::TooFew(Shortfall { got, required, failures: Failures::default() })
        }
    })?;
    Ok(SegmentBytes { start: range.start, chunks: cut(vec![grid.into()], len), is_decoded: true })
}

/// Cuts the padding off the end.
fn cut(chunks: Vec<Bytes>, len: usize) -> Vec<Bytes> {
    let mut left = len;
    let cut = |mut chunk: Bytes| {
        chunk.truncate(left);
        left -= chunk.len();
        chunk
    };
    chunks.into_iter().map(cut).collect()
}

fn decode(
    encoder: &mut SegmentEncoder,
    shape: SegmentShape,
    commitment: &SegmentCommitment,
    slivers: BTreeMap<u16, VerifiedSliver<Bytes>>,
) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = SegmentDecoder::new(shape, commitment);
    for sliver in slivers.into_values() {
        decoder.add_verified(sliver);
    }
    decoder.decode(encoder)
}

/// Finds the commitment of a segment; whom to ask first depends on the segment, so that no member serves them all.
async fn find_commitment<N: Network>(
    reader: &Reader<N>,
    index: SegmentIndex,
) -> Result<Arc<SegmentCommitment>, Shortfall> {
    let everyone = reader.everyone();
    let n_answerable = usize::from(reader.answerable().committee().n_members());
    let [first, second, ..] = *reader.header.blob_id().as_bytes();
    let turn = u64::from(u16::from_le_bytes([first, second])) + u64::from(index.0);
    let turn = usize::try_from(turn).unwrap_or(0) % n_answerable;
    let member = |candidate: u16| match usize::from(candidate) {
        candidate if candidate < n_answerable => everyone[(turn + candidate) % n_answerable],
        candidate => everyone[candidate],
    };
    let fetch = |candidate, pulse: Arc<Pulse>| {
        let source = member(candidate);
        async move { reader.fetch_commitment(source, index, &pulse).await }.boxed()
    };
    let n = u16::try_from(everyone.len()).expect("two committees have at most two thousand members");
    let found = gather(reader, Plan::new(1, n), member, fetch).await?;
    let missing = Shortfall { got: 0, required: 1, failures: Failures::default() };
    found.into_values().next().map(Arc::new).ok_or(missing)
}

/// Fetches a sliver and verifies it on the pool: hashing megabytes would hold up everything else.
async fn fetch_verified<N: Network>(
    reader: SharedReader<N>,
    (index, shape, candidate): (SegmentIndex, SegmentShape, u16),
    commitment: Commitment,
    pulse: Arc<Pulse>,
) -> Result<VerifiedSliver<Bytes>, AskError> {
    let len = shape.sliver_bytes(Axis::Primary);
    let fetched = reader.fetch_sliver((index, candidate, len), &pulse);
    let sliver = candidate % shape.n();
    // Both at once: a short read then takes one round trip less.
    let (fetched, known) = futures::future::join(fetched, commitment).await;
    let Sliver { bytes, parity } = fetched?;
    // Without a commitment the segment is lost; nobody is at fault.
    let known = known.map_err(|_| AskError::Network(RequestError::Stopped))?;
    let verify =
        move |_: &mut SegmentEncoder| verify_sliver(shape, &known, (Axis::Primary, sliver), bytes, &parity);
    let verified = reader.encoder.run(verify).await.map_err(|_| AskError::Network(RequestError::Stopped))?;
    let source = reader.owner(index, candidate);
    verified.map_err(|_| source.exchange.report_unverifiable(source.node))
}

#[cfg(test)]
mod tests {
    use protocol::encoding::BlobShape;

    use super::*;

    #[test]
    fn a_range_lies_in_the_rows_that_its_bytes_are_in() {
        let blob = BlobShape::new(13, 100_000_000).unwrap();
        let index = SegmentIndex(1);
        let (shape, has) = (blob.segment(index).unwrap(), blob.range(index).unwrap());
        let row = u64::try_from(shape.sliver_bytes(Axis::Primary)).unwrap();
        let p = u16::try_from(shape.n_source(Axis::Secondary)).unwrap();
        let at = |offset: u64| has.start + offset;
        for (wanted, expected) in [
            (at(0)..at(1), 0..1),
            (at(row - 1)..at(row), 0..1),
            (at(row - 1)..at(row + 1), 0..2),
            (at(row)..at(2 * row), 1..2),
            (has.end - 1..has.end, p - 1..p),
            (0..u64::MAX, 0..p),
            (0..has.start + 1, 0..1),
            (at(5)..at(5), 0..0),
            (0..has.start, 0..0),
            (has.end..u64::MAX, 0..0),
        ] {
            assert_eq!(rows(shape, &has, &wanted), expected, "{wanted:?}");
        }
        let copies = BlobShape::new(13, 5).unwrap();
        let shape = copies.segment(SegmentIndex(0)).unwrap();
        assert!(shape.is_replicated());
        assert_eq!(rows(shape, &(0..5), &(0..5)), 0..0);
    }

    #[test]
    fn what_is_kept_of_a_segment_is_what_the_range_has_of_it() {
        // Ten bytes from the hundredth on, in three chunks.
        let segment = || SegmentBytes {
            start: 100,
            chunks: [&[0_u8, 1, 2, 3][..], &[4, 5, 6, 7], &[8, 9]].map(Bytes::from_static).to_vec(),
            is_decoded: false,
        };
        for (range, kept) in [
            (0..u64::MAX, 0..10),
            (100..110, 0..10),
            (0..101, 0..1),
            (103..105, 3..5),
            (104..108, 4..8),
            (109..200, 9..10),
            (110..200, 0..0),
            (0..100, 0..0),
            (105..105, 0..0),
        ] {
            let mut segment = segment();
            segment.keep(&range);
            let bytes: Vec<u8> = segment.chunks.iter().flatten().copied().collect();
            assert_eq!(bytes, kept.collect::<Vec<u8>>(), "{range:?}");
        }
    }
}
