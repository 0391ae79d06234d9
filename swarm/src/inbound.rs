//! What peers ask and say, and the bounded queue in which it waits for the node.
//!
//! ```text
//!  event loop --push--> [notices][control][gossip][bulk] --recv, in turn--> node
//!             <--full: Busy--                            --Responder, Verdict--> event loop
//! ```
//!
//! # Invariants
//!
//! - Each kind has a queue of its own, bounded in messages and in bytes. A full one refuses at once.
//! - Notices of connection are never lost. Those that cancel out while nobody listens are dropped in pairs, so a
//!   reader always hears `Connected` and `Disconnected` of a peer in turn.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use bytes::Bytes;
use protocol::PeerId;

use crate::{
    frame::{Channel, Frame, TooLarge, Topic},
    traffic::QueueLoad,
};

/// Something a peer did.
#[derive(Debug)]
pub enum Inbound {
    /// A peer asks; it waits until `reply` is used or dropped.
    Request {
        /// Who asks; proven by the connection.
        from: PeerId,
        /// The channel it asks on.
        channel: Channel,
        /// The request.
        frame: Frame,
        /// Takes the answer.
        reply: Responder,
    },
    /// A message on a topic. It travels on only once it is accepted.
    Gossip {
        /// Who wrote it; proven by its signature.
        from: PeerId,
        /// The peer that handed it to us.
        propagated_by: PeerId,
        /// The topic.
        topic: Topic,
        /// The message.
        data: Bytes,
        /// Takes our judgement.
        verdict: Verdict,
    },
    /// The first connection to this peer was made.
    Connected(PeerId),
    /// The last connection to this peer ended.
    Disconnected(PeerId),
}

/// How a request ended on the side that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The answer.
    Frame(Frame),
    /// Declined: the responder was dropped.
    Refused,
    /// Not carried out for want of room.
    Busy,
}

/// Runs once, with an outcome, or with the default when dropped.
struct Once<T>(Option<Box<dyn FnOnce(T) + Send>>);

impl<T> Once<T> {
    fn call(&mut self, value: T) {
        if let Some(callback) = self.0.take() {
            callback(value);
        }
    }
}

/// Answers one request. Dropping it tells the caller `Refused`.
pub struct Responder(Once<Answer>);

impl Responder {
    pub(crate) fn new(callback: impl FnOnce(Answer) + Send + 'static) -> Self {
        Self(Once(Some(Box::new(callback))))
    }

    /// Sends the answer. A caller that went away is not an error.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if the frame exceeds its limits; the caller is then told `Refused`.
    pub fn send(mut self, answer: Frame) -> Result<(), TooLarge> {
        answer.check()?;
        self.0.call(Answer::Frame(answer));
        Ok(())
    }

    /// Says that there is no room to carry out the request now; the caller gets `Busy` and may retry.
    pub fn busy(mut self) {
        self.0.call(Answer::Busy);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.0.call(Answer::Refused);
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder")
    }
}

/// What becomes of a message on a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Accept,
    Ignore,
    Reject,
}

/// Judges one message on a topic. Dropping it ignores the message.
pub struct Verdict(Once<Judgement>);

impl Verdict {
    pub(crate) fn new(callback: impl FnOnce(Judgement) + Send + 'static) -> Self {
        Self(Once(Some(Box::new(callback))))
    }

    /// The message is valid: pass it on.
    pub fn accept(mut self) {
        self.0.call(Judgement::Accept);
    }

    /// Neither valid nor anyone's fault, for one because it is stale: do not pass it on, blame nobody.
    pub fn ignore(mut self) {
        self.0.call(Judgement::Ignore);
    }

    /// The message is invalid, and whoever passed it on should have known: do not pass it on, score the peer down.
    pub fn reject(mut self) {
        self.0.call(Judgement::Reject);
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        self.0.call(Judgement::Ignore);
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verdict")
    }
}

/// How much may wait for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages that may wait.
    pub messages_max: usize,
    /// Bytes that the waiting messages may have together.
    pub bytes_max: usize,
}

/// One bounded queue.
struct Queue {
    limits: QueueLimits,
    bytes: usize,
    entries: VecDeque<(usize, Inbound)>,
    /// Since the start.
    taken: u64,
    /// Since the start.
    refused: u64,
}

impl Queue {
    const fn new(limits: QueueLimits) -> Self {
        Self { limits, bytes: 0, entries: VecDeque::new(), taken: 0, refused: 0 }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.entries.len() < self.limits.messages_max && self.bytes + bytes <= self.limits.bytes_max
    }

    fn push(&mut self, bytes: usize, inbound: Inbound) {
        self.bytes += bytes;
        self.entries.push_back((bytes, inbound));
    }

    fn pop(&mut self) -> Option<Inbound> {
        let (bytes, inbound) = self.entries.pop_front()?;
        self.bytes -= bytes;
        self.taken += 1;
        Some(inbound)
    }

    fn load(&self) -> QueueLoad {
        QueueLoad {
            waiting: self.entries.len(),
            capacity: self.limits.messages_max,
            taken: self.taken,
            refused: self.refused,
        }
    }
}

struct State {
    notices: VecDeque<(PeerId, bool)>,
    /// In the order control, gossip, bulk.
    queues: [Queue; 3],
    /// The queue that is served next.
    turn: usize,
    waker: Option<Waker>,
    sender_gone: bool,
    receiver_gone: bool,
}

const CONTROL: usize = 0;
const GOSSIP: usize = 1;
const BULK: usize = 2;

impl State {
    fn notice(&mut self, peer: PeerId, connected: bool) {
        // The last waiting notice of a peer is the opposite of the new one, and the two cancel out, unless it is a
        // disconnection the reader has yet to hear of and the peer came back: then it hears both.
        let waiting = self.notices.iter().filter(|(other, _)| *other == peer).count();
        let last = self.notices.iter().rposition(|(other, _)| *other == peer);
        match last {
            Some(position) if !connected || waiting > 1 => {
                self.notices.remove(position);
            }
            _ => self.notices.push_back((peer, connected)),
        }
    }

    fn pop(&mut self) -> Option<Inbound> {
        if let Some((peer, connected)) = self.notices.pop_front() {
            return Some(if connected { Inbound::Connected(peer) } else { Inbound::Disconnected(peer) });
        }
        let n_queues = self.queues.len();
        for offset in 0..n_queues {
            let index = (self.turn + offset) % n_queues;
            if let Some(inbound) = self.queues[index].pop() {
                self.turn = (index + 1) % n_queues;
                return Some(inbound);
            }
        }
        None
    }
}

type Shared = Arc<Mutex<State>>;

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    // No code that can panic runs under this lock, and the state is valid after each statement.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end from which the node reads.
pub struct InboundReceiver(Shared);

impl InboundReceiver {
    /// Waits for the next thing a peer did; `None` once the network has stopped and the queues are empty.
    ///
    /// Notices come first, then control requests, gossip and bulk requests in turn, each in its own order.
    ///
    /// Cancel safe: yes.
    pub async fn recv(&mut self) -> Option<Inbound> {
        poll_fn(|context| {
            let mut state = lock(&self.0);
            match state.pop() {
                Some(inbound) => Poll::Ready(Some(inbound)),
                None if state.sender_gone => Poll::Ready(None),
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next thing a peer did, if one waits.
    pub fn try_recv(&mut self) -> Option<Inbound> {
        lock(&self.0).pop()
    }

    /// Messages that wait, by kind: control requests, gossip, bulk requests.
    #[must_use]
    pub fn waiting(&self) -> [usize; 3] {
        let state = lock(&self.0);
        [CONTROL, GOSSIP, BULK].map(|index| state.queues[index].entries.len())
    }

    /// A way to look at how full the queues are while the node reads from them.
    #[must_use]
    pub fn load(&self) -> InboundLoad {
        InboundLoad(Arc::clone(&self.0))
    }
}

/// How full the queues are in which peers wait for the node. Cheap to clone.
#[derive(Clone)]
pub struct InboundLoad(Shared);

impl InboundLoad {
    /// The queues by kind: control requests, gossip, bulk requests.
    #[must_use]
    pub fn queues(&self) -> [QueueLoad; 3] {
        let state = lock(&self.0);
        [CONTROL, GOSSIP, BULK].map(|index| state.queues[index].load())
    }
}

impl fmt::Debug for InboundLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InboundLoad").field(&self.queues()).finish()
    }
}

impl fmt::Debug for InboundReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundReceiver").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl Drop for InboundReceiver {
    fn drop(&mut self) {
        clear(&self.0, |state| state.receiver_gone = true);
    }
}

/// Empties the queues. The messages are dropped outside the lock, since their responders call back.
fn clear(shared: &Shared, mark: impl FnOnce(&mut State)) {
    let mut dropped = Vec::new();
    let waker = {
        let mut state = lock(shared);
        mark(&mut state);
        while let Some(inbound) = state.pop() {
            dropped.push(inbound);
        }
        state.waker.take()
    };
    drop(dropped);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The end into which an implementation writes.
pub(crate) struct InboundSender(Shared);

impl InboundSender {
    /// Queues a request or a message on a topic.
    ///
    /// # Errors
    ///
    /// Gives it back if its queue is full or nobody reads any more.
    // The caller needs the whole message back, to answer it.
    #[allow(clippy::result_large_err, reason = "the message is handed back, not an error value")]
    pub(crate) fn push(&self, inbound: Inbound) -> Result<(), Inbound> {
        let (index, bytes) = match &inbound {
            Inbound::Request { channel: Channel::Control, frame, .. } => (CONTROL, frame.bytes()),
            Inbound::Request { channel: Channel::Bulk, frame, .. } => (BULK, frame.bytes()),
            Inbound::Gossip { data, .. } => (GOSSIP, data.len()),
            Inbound::Connected(peer) => return self.notice(*peer, true),
            Inbound::Disconnected(peer) => return self.notice(*peer, false),
        };
        let waker = {
            let mut state = lock(&self.0);
            if state.receiver_gone || !state.queues[index].has_room(bytes) {
                state.queues[index].refused += 1;
                return Err(inbound);
            }
            state.queues[index].push(bytes, inbound);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    #[allow(clippy::result_large_err, reason = "same type as the caller")]
    #[allow(clippy::unnecessary_wraps, reason = "same type as the caller")]
    fn notice(&self, peer: PeerId, connected: bool) -> Result<(), Inbound> {
        let waker = {
            let mut state = lock(&self.0);
            if !state.receiver_gone {
                state.notice(peer, connected);
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Changes the limits for what arrives from now on.
    #[cfg(feature = "simulated")]
    pub(crate) fn set_limits(&self, control: QueueLimits, gossip: QueueLimits, bulk: QueueLimits) {
        let mut state = lock(&self.0);
        for (queue, limits) in state.queues.iter_mut().zip([control, gossip, bulk]) {
            queue.limits = limits;
        }
    }

    /// Drops what waits, as a crash does.
    #[cfg(feature = "simulated")]
    pub(crate) fn discard(self) {
        clear(&self.0, |state| state.sender_gone = true);
    }
}

impl Drop for InboundSender {
    fn drop(&mut self) {
        let waker = {
            let mut state = lock(&self.0);
            state.sender_gone = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Returns both ends, with a limit for control requests, gossip and bulk requests each.
pub(crate) fn queue(
    control: QueueLimits,
    gossip: QueueLimits,
    bulk: QueueLimits,
) -> (InboundSender, InboundReceiver) {
    let shared = Arc::new(Mutex::new(State {
        notices: VecDeque::new(),
        queues: [Queue::new(control), Queue::new(gossip), Queue::new(bulk)],
        turn: 0,
        waker: None,
        sender_gone: false,
        receiver_gone: false,
    }));
    (InboundSender(Arc::clone(&shared)), InboundReceiver(shared))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PEER: PeerId = PeerId([7; 32]);
    const SMALL: QueueLimits = QueueLimits { messages_max: 2, bytes_max: 10 };

    fn request(channel: Channel, bytes: usize, answers: &mpsc::Sender<Answer>) -> Inbound {
        let answers = answers.clone();
        let reply = Responder::new(move |answer| answers.send(answer).unwrap());
        Inbound::Request { from: PEER, channel, frame: Frame::new(vec![0; bytes], Bytes::new()), reply }
    }

    #[test]
    fn a_full_queue_refuses_and_leaves_the_others_alone() {
        let (answers, _kept) = mpsc::channel();
        let (sender, mut receiver) = queue(SMALL, SMALL, SMALL);
        assert!(sender.push(request(Channel::Bulk, 6, &answers)).is_ok());
        assert!(sender.push(request(Channel::Bulk, 6, &answers)).is_err(), "bytes");
        assert!(sender.push(request(Channel::Bulk, 0, &answers)).is_ok());
        assert!(sender.push(request(Channel::Bulk, 0, &answers)).is_err(), "messages");
        assert!(sender.push(request(Channel::Control, 10, &answers)).is_ok());
        assert_eq!(receiver.waiting(), [1, 0, 2]);
        let load = receiver.load();
        let bulk = |waiting, taken| QueueLoad { waiting, capacity: 2, taken, refused: 2 };
        assert_eq!(load.queues()[BULK], bulk(2, 0));
        assert!(matches!(receiver.try_recv(), Some(Inbound::Request { channel: Channel::Control, .. })));
        assert!(matches!(receiver.try_recv(), Some(Inbound::Request { channel: Channel::Bulk, .. })));
        assert_eq!(load.queues()[BULK], bulk(1, 1));
        assert!(sender.push(request(Channel::Bulk, 10, &answers)).is_ok(), "room was given back");
    }

    #[test]
    fn every_request_is_answered_once() {
        let (answers, got) = mpsc::channel();
        let (sender, receiver) = queue(SMALL, SMALL, SMALL);
        assert!(sender.push(request(Channel::Bulk, 0, &answers)).is_ok());
        drop(receiver);
        assert_eq!(got.try_recv(), Ok(Answer::Refused), "the reader went away");
        assert!(sender.push(request(Channel::Bulk, 0, &answers)).is_err());
        assert_eq!(got.try_recv(), Ok(Answer::Refused));

        let Inbound::Request { reply, .. } = request(Channel::Bulk, 0, &answers) else { panic!() };
        reply.busy();
        assert_eq!(got.try_recv(), Ok(Answer::Busy));
        let Inbound::Request { reply, .. } = request(Channel::Bulk, 0, &answers) else { panic!() };
        assert!(reply.send(Frame::new(vec![0; 1 << 20], Bytes::new())).is_err());
        assert_eq!(got.try_recv(), Ok(Answer::Refused));
        assert_eq!(got.try_recv(), Err(mpsc::TryRecvError::Empty));
    }

    fn notices(told: &[bool], receiver: &mut InboundReceiver) {
        for connected in told {
            match receiver.try_recv() {
                Some(Inbound::Connected(_)) => assert!(connected),
                Some(Inbound::Disconnected(_)) => assert!(!connected),
                other => panic!("{other:?}"),
            }
        }
        assert!(receiver.try_recv().is_none());
    }

    #[test]
    fn notices_that_cancel_out_do_not_pile_up() {
        let (sender, mut receiver) = queue(SMALL, SMALL, SMALL);
        let push = |connected: bool| {
            let inbound = if connected { Inbound::Connected(PEER) } else { Inbound::Disconnected(PEER) };
            sender.push(inbound).unwrap();
        };
        for _ in 0..3 {
            push(true);
            push(false);
        }
        notices(&[], &mut receiver);
        push(true);
        notices(&[true], &mut receiver);
        for _ in 0..3 {
            push(false);
            push(true);
        }
        notices(&[false, true], &mut receiver);
        push(false);
        push(true);
        push(false);
        notices(&[false], &mut receiver);
    }
}
