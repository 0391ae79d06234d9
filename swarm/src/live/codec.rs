//! A frame on a stream.
//!
//! ```text
//!  request:           header length (u32, little endian) | payload length (u32) | header | payload
//!  answer:   outcome (u8: 0 frame, 1 refused, 2 busy) | as above, after outcome 0 only
//! ```
//!
//! # Invariants
//!
//! - Nothing is allocated before both lengths were checked.
//! - A payload is written from where it lies. An answer is read into the one buffer that the node gets; the buffer of a
//!   request grows as its bytes arrive.
//! - Bytes of requests being read count against [`Limits::request_bytes`](crate::Limits) before there is memory for them, and
//!   no more of them than a few times what has arrived: announcing much and sending little holds little.

use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, future::Either};
use libp2p::{StreamProtocol, core::upgrade::NegotiationError, request_response};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::timeout,
};

use super::budget::{ReadBudget, Share};
use crate::{
    frame::{Frame, HEADER_BYTES_MAX, check_lengths},
    inbound::Answer,
};

/// A request that is not fully read after this time is given up: 30 KiB a second for the largest.
const READ_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer that the peer has not taken after this time is given up, since it holds a share of the byte budget.
/// A peer that reads 128 of the longest answers in turn needs 14 Mbit a second.
const WRITE_ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The start of a request that is not counted against the budget, so that small requests pass when it is used up.
/// A stream holds more than this in buffers anyway.
const UNCOUNTED_BYTES: usize = 4 * 1024;

/// The two lengths before a frame.
const PREFIX_BYTES: usize = 8;

const OUTCOME_FRAME: u8 = 0;
const OUTCOME_REFUSED: u8 = 1;
const OUTCOME_BUSY: u8 = 2;

/// Why a request of a peer was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The budget for requests being read was used up.
    NoRoom,
    /// It breaks the form or the limits of a frame.
    Malformed,
}

/// A request as the event loop hands it over, or gets it.
#[derive(Debug)]
pub(super) struct Request {
    /// The frame. A malformed one is no error of the stream, since libp2p keeps errors of unread requests to itself
    /// (read in the source), and its sender is to be scored down.
    pub(super) frame: Result<Frame, Unread>,
    /// Ready once the caller stopped waiting; the stream is then given up. `None` for a request of a peer.
    pub(super) abandoned: Option<oneshot::Receiver<()>>,
    /// The share of the budget that this request uses, until the node's queue, which has its own bounds, takes it.
    pub(super) held: Option<Share>,
}

/// An answer as the event loop hands it over, or gets it.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) answer: Answer,
    /// Shares of budgets, given back once the answer was written or given up.
    pub(super) held: Vec<OwnedSemaphorePermit>,
}

/// Reads and writes the frames of one stream.
#[derive(Debug)]
pub(super) struct Codec {
    request_bytes: Arc<ReadBudget>,
    /// Kept from the request for the time the answer is read.
    abandoned: Option<oneshot::Receiver<()>>,
}

impl Codec {
    pub(super) const fn new(request_bytes: Arc<ReadBudget>) -> Self {
        Self { request_bytes, abandoned: None }
    }
}

impl Clone for Codec {
    /// A codec for another stream: the budget is shared, the caller is not.
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.request_bytes))
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn timed_out<T>(_: T) -> io::Error {
    io::ErrorKind::TimedOut.into()
}

/// Whether a stream failed because the peer does not speak its protocol.
///
/// With lazy negotiation this is no error of its own: it surfaces in the first read.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    let source = error.get_ref().and_then(|source| source.downcast_ref::<NegotiationError>());
    matches!(source, Some(NegotiationError::Failed))
}

/// Reads both lengths.
async fn read_lengths<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<(usize, usize)> {
    let mut prefix = [0; PREFIX_BYTES];
    io.read_exact(&mut prefix).await?;
    let [a, b, c, d, e, f, g, h] = prefix;
    let length = |bytes| usize::try_from(u32::from_le_bytes(bytes)).map_err(invalid);
    let (header, payload) = (length([a, b, c, d])?, length([e, f, g, h])?);
    check_lengths(header, payload).map_err(invalid)?;
    Ok((header, payload))
}

fn split(buffer: Vec<u8>, header: usize) -> Frame {
    let mut payload = Bytes::from(buffer);
    let header = payload.split_to(header);
    Frame { header, payload }
}

async fn read_frame<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Frame> {
    let (header, payload) = read_lengths(io).await?;
    let mut buffer = vec![0; header + payload];
    io.read_exact(&mut buffer).await?;
    Ok(split(buffer, header))
}

/// How many bytes to make room for when so many have arrived and so many are still to come: three times as many, so that
/// little is copied as the buffer grows; or all, if less than what has arrived would be left.
const fn next_step(arrived: usize, to_come: usize) -> usize {
    let step = 3 * arrived;
    if to_come < step + arrived { to_come } else { step }
}

/// Reads a frame within the budget; `None` if the budget is used up.
async fn read_frame_within<T: AsyncRead + Unpin + Send>(
    io: &mut T,
    budget: &Arc<ReadBudget>,
) -> io::Result<Option<(Frame, Option<Share>)>> {
    let (header, payload) = read_lengths(io).await?;
    let length = header + payload;
    let mut buffer = vec![0; UNCOUNTED_BYTES.min(length)];
    io.read_exact(&mut buffer).await?;
    if buffer.len() == length {
        return Ok(Some((split(buffer, header), None)));
    }
    let (share, evicted) = budget.begin();
    let rest = async {
        while buffer.len() < length {
            let arrived = buffer.len();
            let step = next_step(arrived, length - arrived);
            if !share.take(step) {
                return Ok(false);
            }
            buffer.reserve_exact(step);
            buffer.resize(arrived + step, 0);
            io.read_exact(&mut buffer[arrived..]).await?;
        }
        Ok::<_, io::Error>(true)
    };
    let is_whole = match futures::future::select(pin!(rest), evicted).await {
        Either::Left((is_whole, _)) => is_whole?,
        Either::Right(_) => false,
    };
    Ok(is_whole.then(|| (split(buffer, header), Some(share))))
}

async fn write_frame<T: AsyncWrite + Unpin + Send>(
    io: &mut T,
    outcome: Option<u8>,
    frame: Frame,
) -> io::Result<()> {
    frame.check().map_err(invalid)?;
    let length = |part: &Bytes| u32::try_from(part.len()).map(u32::to_le_bytes).map_err(invalid);
    // The small parts go out together: every write becomes a Yamux frame and an encrypted packet of its own.
    let mut start = Vec::with_capacity(1 + PREFIX_BYTES + frame.header.len().min(HEADER_BYTES_MAX));
    start.extend(outcome);
    start.extend(length(&frame.header)?);
    start.extend(length(&frame.payload)?);
    start.extend_from_slice(&frame.header);
    io.write_all(&start).await?;
    if !frame.payload.is_empty() {
        io.write_all(&frame.payload).await?;
    }
    io.flush().await
}

/// Runs `work` until the caller stops waiting.
async fn unless_abandoned<T>(
    abandoned: Option<&mut oneshot::Receiver<()>>,
    work: impl Future<Output = io::Result<T>> + Send,
) -> io::Result<T> {
    let Some(abandoned) = abandoned else { return work.await };
    match futures::future::select(pin!(work), abandoned).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(io::ErrorKind::Interrupted.into()),
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        let read = read_frame_within(io, &self.request_bytes);
        let (frame, held) = match timeout(READ_REQUEST_TIMEOUT, read).await.map_err(timed_out)? {
            Ok(Some((frame, held))) => (Ok(frame), held),
            Ok(None) => (Err(Unread::NoRoom), None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => (Err(Unread::Malformed), None),
            Err(error) => return Err(error),
        };
        Ok(Request { frame, abandoned: None, held })
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        let read = async {
            let mut outcome = [0];
            io.read_exact(&mut outcome).await?;
            match outcome {
                [OUTCOME_FRAME] => Ok(Answer::Frame(read_frame(io).await?)),
                [OUTCOME_REFUSED] => Ok(Answer::Refused),
                [OUTCOME_BUSY] => Ok(Answer::Busy),
                [other] => Err(invalid(format!("unknown outcome {other}"))),
            }
        };
        let answer = unless_abandoned(self.abandoned.as_mut(), read).await?;
        Ok(Response { answer, held: Vec::new() })
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.abandoned = request.abandoned;
        let frame = request.frame.map_err(|unread| invalid(format!("{unread:?}")))?;
        unless_abandoned(self.abandoned.as_mut(), write_frame(io, None, frame)).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let Response { answer, held } = response;
        let write = async {
            match answer {
                Answer::Frame(frame) => write_frame(io, Some(OUTCOME_FRAME), frame).await,
                Answer::Refused => io.write_all(&[OUTCOME_REFUSED]).await,
                Answer::Busy => io.write_all(&[OUTCOME_BUSY]).await,
            }
        };
        let written = timeout(WRITE_ANSWER_TIMEOUT, write).await.map_err(timed_out);
        drop(held);
        written?
    }
}

/// For [`crate::fuzz`]: a request that is all there, and the form that it is sent in.
#[cfg(feature = "fuzz")]
pub(crate) fn read_request(io: &mut futures::io::Cursor<&[u8]>, budget: usize) -> Option<Vec<u8>> {
    use futures::FutureExt as _;
    let budget = ReadBudget::new(budget);
    let (frame, held) = read_frame_within(io, &budget).now_or_never()?.ok()??;
    let held = held.map_or(0, |held| held.bytes());
    assert!(held <= frame.bytes(), "{held} bytes are held for a frame of {}", frame.bytes());
    let mut form = futures::io::Cursor::new(Vec::new());
    write_frame(&mut form, None, frame).now_or_never()?.ok()?;
    Some(form.into_inner())
}

/// For [`crate::fuzz`]: an answer that is all there, and the form that it is sent in.
#[cfg(feature = "fuzz")]
pub(crate) fn read_answer(io: &mut futures::io::Cursor<&[u8]>) -> Option<Vec<u8>> {
    use futures::FutureExt as _;
    use request_response::Codec as _;
    let mut codec = Codec::new(ReadBudget::new(0));
    let protocol = StreamProtocol::new("/fuzz");
    let answer = codec.read_response(&protocol, io).now_or_never()?.ok()?.answer;
    let mut form = futures::io::Cursor::new(Vec::new());
    match answer {
        Answer::Frame(frame) => write_frame(&mut form, Some(OUTCOME_FRAME), frame).now_or_never()?.ok()?,
        Answer::Refused => return Some(vec![OUTCOME_REFUSED]),
        Answer::Busy => return Some(vec![OUTCOME_BUSY]),
    }
    Some(form.into_inner())
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;
    use libp2p::request_response::Codec as _;

    use super::*;
    use crate::frame::PAYLOAD_BYTES_MAX;

    const PROTOCOL: StreamProtocol = StreamProtocol::new("/test");

    fn codec(budget: usize) -> Codec {
        Codec::new(ReadBudget::new(budget))
    }

    async fn written(frame: Frame) -> Vec<u8> {
        let mut io = Cursor::new(Vec::new());
        let request = Request { frame: Ok(frame), abandoned: None, held: None };
        codec(0).write_request(&PROTOCOL, &mut io, request).await.unwrap();
        io.into_inner()
    }

    #[tokio::test]
    async fn frames_survive_the_wire_and_hold_the_budget() {
        for (header, payload) in [(0, 0), (3, 5), (HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX)] {
            let frame = Frame::new(vec![1; header], vec![2; payload]);
            let mut codec = codec(1 << 20);
            let mut io = Cursor::new(written(frame.clone()).await);
            let request = codec.read_request(&PROTOCOL, &mut io).await.unwrap();
            assert_eq!(request.frame, Ok(frame));
            let counted = (header + payload).saturating_sub(UNCOUNTED_BYTES);
            assert_eq!(codec.request_bytes.free(), (1 << 20) - counted);
            drop(request.held);
            assert_eq!(codec.request_bytes.free(), 1 << 20);
        }
    }

    #[tokio::test]
    async fn a_request_on_the_wire_has_this_form() {
        assert_eq!(written(Frame::new(vec![7], vec![8, 9])).await, [1, 0, 0, 0, 2, 0, 0, 0, 7, 8, 9]);
    }

    #[tokio::test]
    async fn lengths_are_refused_before_anything_is_read() {
        for prefix in [[0xff; 8], [1, 64, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 4, 0]] {
            let request = codec(1 << 20).read_request(&PROTOCOL, &mut Cursor::new(prefix)).await.unwrap();
            assert_eq!(request.frame, Err(Unread::Malformed), "{prefix:?}");
        }
        let outcome = codec(0).read_response(&PROTOCOL, &mut Cursor::new([9])).await;
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn an_exhausted_budget_is_no_error_of_the_peer() {
        let mut codec = codec(100_000);
        let mut io = Cursor::new(written(Frame::new(vec![1], vec![2; 200_000])).await);
        assert_eq!(codec.read_request(&PROTOCOL, &mut io).await.unwrap().frame, Err(Unread::NoRoom));
        assert_eq!(codec.request_bytes.free(), 100_000);
        let mut io = Cursor::new(written(Frame::new(vec![1], vec![2; 4_000])).await);
        let small = self::codec(0).read_request(&PROTOCOL, &mut io).await.unwrap();
        assert!(small.frame.is_ok(), "a small request passes");
    }

    #[test]
    fn a_buffer_grows_with_what_arrives() {
        for length in [UNCOUNTED_BYTES + 1, 100_000, HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX] {
            let (mut arrived, mut copied) = (UNCOUNTED_BYTES, 0);
            while arrived < length {
                let step = next_step(arrived, length - arrived);
                assert!(step <= 4 * arrived && arrived + step <= length);
                copied += arrived;
                arrived += step;
            }
            assert!(copied <= length, "{copied} bytes are copied for {length}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_end_makes_room_for_others() {
        let codec = codec(300_000);
        let whole = written(Frame::new(vec![1], vec![2; 200_000])).await;
        // All but the last byte, and then nothing.
        let (_writer, never) = tokio_util_pipe();
        let stalled = Cursor::new(whole[..whole.len() - 1].to_vec()).chain(never);
        let mut reader = codec.clone();
        let stalled = async move { reader.read_request(&PROTOCOL, &mut pin!(stalled)).await.unwrap().frame };
        let other = async {
            let read = async || codec.clone().read_request(&PROTOCOL, &mut Cursor::new(whole.clone())).await;
            assert_eq!(read().await.unwrap().frame, Err(Unread::NoRoom));
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert!(read().await.unwrap().frame.is_ok());
        };
        let began = tokio::time::Instant::now();
        assert_eq!(futures::join!(stalled, other).0, Err(Unread::NoRoom));
        assert!(began.elapsed() < READ_REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn a_caller_that_leaves_ends_the_stream() {
        let (alive, abandoned) = oneshot::channel();
        let mut codec = codec(0);
        codec.abandoned = Some(abandoned);
        let (_writer, mut never) = tokio_util_pipe();
        let protocol = PROTOCOL;
        let read = codec.read_response(&protocol, &mut never);
        let leave = async { drop(alive) };
        assert_eq!(futures::join!(read, leave).0.unwrap_err().kind(), io::ErrorKind::Interrupted);
    }

    /// A stream on which nothing arrives.
    fn tokio_util_pipe() -> (tokio::io::DuplexStream, impl AsyncRead + Unpin + Send) {
        let (writer, reader) = tokio::io::duplex(1);
        (writer, tokio_util::compat::TokioAsyncReadCompatExt::compat(reader))
    }
}
