//! A storage node that keeps everything in memory, and misbehaves on demand.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use protocol::{
    BlobId, Epoch, PeerId, RegistrationId, SegmentIndex,
    bls::SecretKey,
    certificate::{Statement as _, StorageConfirmation},
    commitment::{BlobHeader, VerifiedHeader},
    committee::Committee,
    encoding::SegmentEncoder,
    genesis::Genesis,
    hash::Hash,
    message::{NodeHealth, RANGE_BYTES_MAX, Refusal, Request, Response, SliverAt},
};
use swarm::{Frame, Inbound, InboundReceiver};

use super::fake_ledger::{FakeLedger, Tampering};

/// How a node behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// As it should.
    Honest,
    /// Takes requests and never answers.
    Silent,
    /// Flips a byte of every sliver, commitment and proof that it hands out, and signs something else.
    Liar,
    /// Refuses everything.
    Refuses(Refusal),
    /// Drops each commitment once between an upload's commitment and its slivers, and hands none out.
    Forgetful,
    /// Refuses as busy this many times.
    Busy(u32),
    /// Takes everything, and then signs nothing since it lost a sliver.
    Loses,
    /// Asked to sign, finds its disk empty, this many times.
    Drops(u32),
    /// Takes no transactions.
    SubmitsNothing,
    /// Vouches for nothing before the ledger has the registration, whatever was ordered.
    RefusesOrders,
    /// Has an order executed before it vouches on it.
    ExecutesOrders,
    /// Is honest but about the ledger.
    Ledger(Tampering),
}

/// What a node's manner is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All that it is asked.
    All,
    /// Blobs only: of the ledger, it is honest.
    Blobs,
}

#[derive(Default)]
struct Store {
    commitments: BTreeMap<(BlobId, SegmentIndex), (BlobHeader, Vec<Hash>, Bytes)>,
    reminded: BTreeMap<(BlobId, SegmentIndex), ()>,
    parts: BTreeMap<SliverAt, BTreeMap<usize, Bytes>>,
    slivers: BTreeMap<SliverAt, (Bytes, Hash)>,
    /// Messages that brought slivers.
    n_uploads: usize,
    /// Bytes of slivers in them.
    upload_bytes: usize,
    /// Slivers that were asked for.
    n_fetches: usize,
}

/// A sliver with the root of its parity symbols, and the commitment that it belongs to.
type Kept = ((BlobHeader, Vec<Hash>, Bytes), Bytes, Hash);

/// One node.
pub(super) struct Double {
    /// Its number among the nodes, by which it is called.
    number: u16,
    peer: PeerId,
    key: SecretKey,
    genesis: Arc<Genesis>,
    manner: Mutex<(Manner, Scope)>,
    store: Mutex<Store>,
    /// The ledger that all nodes share.
    ledger: Arc<Mutex<FakeLedger>>,
}

type Answer = Result<(Response, Bytes), Refusal>;

impl Double {
    pub(super) fn new(
        (number, peer): (u16, PeerId),
        key: SecretKey,
        genesis: Arc<Genesis>,
        ledger: Arc<Mutex<FakeLedger>>,
    ) -> Self {
        let manner = Mutex::new((Manner::Honest, Scope::All));
        Self { number, peer, key, genesis, manner, store: Mutex::default(), ledger }
    }

    pub(super) fn become_(&self, manner: Manner, scope: Scope) {
        *self.manner.lock().unwrap() = (manner, scope);
    }

    pub(super) fn n_slivers(&self) -> usize {
        self.store.lock().unwrap().slivers.len()
    }

    /// Messages so far that brought slivers.
    pub(super) fn n_uploads(&self) -> usize {
        self.store.lock().unwrap().n_uploads
    }

    /// Bytes of slivers so far that were sent here.
    pub(super) fn upload_bytes(&self) -> usize {
        self.store.lock().unwrap().upload_bytes
    }

    /// Ranges of slivers so far that were asked for here.
    pub(super) fn n_fetches(&self) -> usize {
        self.store.lock().unwrap().n_fetches
    }

    /// Slivers that it has, with what they belong to.
    pub(super) fn slivers(&self) -> Vec<(SliverAt, Kept)> {
        let store = self.store.lock().unwrap();
        let of = |at: &SliverAt| store.commitments[&(at.blob_id, at.segment)].clone();
        store.slivers.iter().map(|(at, (bytes, parity))| (*at, (of(at), bytes.clone(), *parity))).collect()
    }

    /// Takes a sliver from another node, as nodes do when a shard moves.
    pub(super) fn take_over(&self, at: SliverAt, (commitment, bytes, parity): Kept) {
        let mut store = self.store.lock().unwrap();
        store.commitments.insert((at.blob_id, at.segment), commitment);
        store.slivers.insert(at, (bytes, parity));
    }

    /// Drops slivers that are not those of its shards in a committee.
    pub(super) fn drop_moved(&self, committee: &Committee) {
        let mut store = self.store.lock().unwrap();
        store.slivers.retain(|at, _| {
            let shard = committee.shard_of(&at.blob_id, at.segment, at.pair);
            committee.member(committee.owner(shard)).unwrap().peer == self.peer
        });
    }

    /// Drops slivers and commitments, as a node does with those of invalid blobs.
    pub(super) fn drop_slivers(&self) {
        let mut store = self.store.lock().unwrap();
        store.slivers.clear();
        store.commitments.clear();
    }

    pub(super) async fn serve(self: Arc<Self>, mut inbound: InboundReceiver) {
        let mut unanswered = Vec::new();
        let mut waiting: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        loop {
            let inbound = tokio::select! {
                biased;
                Some(()) = waiting.next() => continue,
                inbound = inbound.recv() => inbound,
            };
            let Some(inbound) = inbound else { return };
            let Inbound::Request { frame, reply, .. } = inbound else { continue };
            let request = Request::from_bytes(&frame.header).unwrap();
            let is_submission = matches!(request, Request::Submit { .. });
            let refusal = match self.manner_in(&request) {
                Manner::Silent => {
                    unanswered.push(reply);
                    continue;
                }
                Manner::Refuses(refusal) => Some(refusal),
                Manner::Busy(times @ 1..) => {
                    self.go_on_as(Manner::Busy(times - 1));
                    reply.busy();
                    continue;
                }
                Manner::SubmitsNothing if is_submission => Some(Refusal::Busy),
                Manner::Ledger(Tampering::GoneOnceExecuted) if is_submission => {
                    let _ = self.answer(request, frame.payload);
                    unanswered.push(reply);
                    continue;
                }
                _ => None,
            };
            let block_time = if is_submission { self.ledger().block_time } else { Duration::ZERO };
            let me = Arc::clone(&self);
            let answer = move || {
                let is_liar = me.manner_in(&request) == Manner::Liar;
                let answer = refusal.map_or_else(|| me.answer(request, frame.payload), Err);
                let (response, payload) =
                    answer.unwrap_or_else(|refusal| (Response::Refused(refusal), Bytes::new()));
                let (response, payload) = if is_liar { lie(response, payload) } else { (response, payload) };
                reply.send(Frame::new(response.to_bytes(), payload)).unwrap();
            };
            if block_time.is_zero() {
                answer();
            } else {
                waiting.push(tokio::time::sleep(block_time).map(|()| answer()).boxed());
            }
        }
    }

    /// The manner in which a request is met.
    fn manner_in(&self, request: &Request) -> Manner {
        let is_ledgers =
            matches!(request, Request::Entries { .. } | Request::Submit { .. } | Request::Ledger(_));
        match self.manner.lock().unwrap().clone() {
            (_, Scope::Blobs) if is_ledgers => Manner::Honest,
            (manner, _) => manner,
        }
    }

    /// Changes the manner, about the same things as before.
    fn go_on_as(&self, manner: Manner) {
        self.manner.lock().unwrap().0 = manner;
    }

    fn is(&self, manner: &Manner) -> bool {
        self.manner.lock().unwrap().0 == *manner
    }

    fn ledger(&self) -> MutexGuard<'_, FakeLedger> {
        self.ledger.lock().unwrap()
    }

    fn answer(&self, request: Request, payload: Bytes) -> Answer {
        let tampering = match self.manner_in(&request) {
            Manner::Ledger(tampering) => tampering,
            _ => Tampering::None,
        };
        self.ledger().observe(&request, &payload);
        let mut store = self.store.lock().unwrap();
        let done = Ok((Response::Done, Bytes::new()));
        match request {
            Request::Entries { keys } => {
                Ok((Response::Entries, self.ledger().answer(self.peer, &keys, tampering).into()))
            }
            Request::Ledger(request) => {
                let answer = self.ledger().answer_about_committees(self.peer, &request, tampering);
                Ok((Response::Ledger, answer.into()))
            }
            Request::Submit { keys } => {
                let height = self.ledger().submit(&payload, tampering)?;
                // Who lies about that has nothing to show.
                let answer = match tampering {
                    Tampering::ClaimsExecuted(_) => Vec::new(),
                    tampering => self.ledger().answer(self.peer, &keys, tampering),
                };
                Ok((Response::Submitted { height }, answer.into()))
            }
            Request::StoreCommitment { header, segment, path } => {
                let verified = self.acceptable(header)?;
                verified.verify_segment(segment, &payload, &path).map_err(|_| Refusal::Unverifiable)?;
                store.commitments.insert((verified.blob_id(), segment), (header, path, payload));
                done
            }
            Request::StoreSliver { at, offset } => {
                let key = (at.blob_id, at.segment);
                if self.is(&Manner::Forgetful) && store.reminded.insert(key, ()).is_none() {
                    store.commitments.remove(&key);
                }
                self.part(&mut store, at, usize::try_from(offset).unwrap(), payload)?;
                done
            }
            Request::StoreBlob { header, registration, epoch, order_bytes } => {
                let verified = self.acceptable(header)?;
                let committee = self.vouching(epoch, tampering)?;
                let mut rest = payload;
                let order = rest.split_to(order_bytes.into());
                self.segment(&mut store, &committee, &verified, rest)?;
                if !self.ledger().has(verified.blob_id(), registration)? {
                    self.act_on(&verified, registration, &order)?;
                }
                self.vouch(&store, &committee, &verified, registration)
            }
            Request::Confirm { header, registration, epoch } => {
                let verified = self.acceptable(header)?;
                let committee = self.vouching(epoch, tampering)?;
                if !self.ledger().has(verified.blob_id(), registration)? {
                    return Err(Refusal::Busy);
                }
                let manner = self.manner.lock().unwrap().0.clone();
                if let Manner::Drops(times @ 1..) = manner {
                    self.go_on_as(Manner::Drops(times - 1));
                    store.slivers.clear();
                    store.commitments.clear();
                }
                self.vouch(&store, &committee, &verified, registration)
            }
            Request::FetchCommitment { .. } | Request::FetchSliver { .. } => self.fetch(&mut store, &request),
            Request::Health => Ok((Response::Health(self.health(store.slivers.len())), Bytes::new())),
            _ => Err(Refusal::Malformed),
        }
    }

    /// Hands out what readers ask for.
    fn fetch(&self, store: &mut Store, request: &Request) -> Answer {
        match *request {
            Request::FetchCommitment { blob_id, .. }
            | Request::FetchSliver { at: SliverAt { blob_id, .. }, .. }
                if self.ledger().is_invalid(blob_id) =>
            {
                Err(Refusal::Invalid)
            }
            Request::FetchCommitment { .. } if self.is(&Manner::Forgetful) => Err(Refusal::NotFound),
            Request::FetchCommitment { blob_id, segment } => {
                let found = store.commitments.get(&(blob_id, segment)).cloned();
                let (header, path, bytes) = found.ok_or(Refusal::NotFound)?;
                Ok((Response::Commitment { header, path }, bytes))
            }
            Request::FetchSliver { at, offset, len } => {
                store.n_fetches += 1;
                let (bytes, parity) = store.slivers.get(&at).cloned().ok_or(Refusal::NotFound)?;
                let (offset, len) = (usize::try_from(offset).unwrap(), usize::try_from(len).unwrap());
                Ok((Response::Sliver { parity }, bytes.slice(offset..offset + len)))
            }
            _ => Err(Refusal::Malformed),
        }
    }

    fn acceptable(&self, header: BlobHeader) -> Result<VerifiedHeader, Refusal> {
        let verified = header.verify().map_err(|_| Refusal::Unverifiable)?;
        if self.ledger().is_invalid(verified.blob_id()) { Err(Refusal::Invalid) } else { Ok(verified) }
    }

    /// Says whether this node would vouch on an order.
    fn act_on(
        &self,
        header: &VerifiedHeader,
        registration: RegistrationId,
        order: &[u8],
    ) -> Result<(), Refusal> {
        let mut ledger = self.ledger();
        if self.is(&Manner::RefusesOrders) || !ledger.would_execute(order, header.header(), registration) {
            return Err(Refusal::Busy);
        }
        if self.is(&Manner::ExecutesOrders) {
            ledger.submit(order, Tampering::None).unwrap();
        }
        Ok(())
    }

    /// The committee for which this node vouches in an epoch.
    fn vouching(&self, epoch: Epoch, tampering: Tampering) -> Result<Arc<Committee>, Refusal> {
        let ledger = self.ledger();
        let state = ledger.state_of(tampering);
        let mut committees = [Some(state.committee()), state.previous_committee()].into_iter().flatten();
        let vouching = committees
            .find(|committee| committee.epoch() == epoch && committee.index_of(&self.peer).is_some());
        vouching.cloned().ok_or_else(|| Refusal::WrongEpoch { current: state.committee().epoch() })
    }

    /// Signs, if everything is there.
    fn vouch(
        &self,
        store: &Store,
        committee: &Committee,
        header: &VerifiedHeader,
        registration: RegistrationId,
    ) -> Answer {
        let (blob_id, node) = (header.blob_id(), committee.index_of(&self.peer).unwrap());
        let missing: usize = header
            .shape()
            .segments()
            .map(|segment| {
                let shape = header.shape().segment(segment).unwrap();
                let slivers = committee.slivers_of(node, (blob_id, segment), shape);
                let at = |(pair, axis)| SliverAt { blob_id, segment, pair, axis };
                slivers.filter(|sliver| !store.slivers.contains_key(&at(*sliver))).count()
            })
            .sum();
        if missing > 0 || self.is(&Manner::Loses) {
            let slivers = u32::try_from(missing).unwrap().max(1);
            return Ok((Response::Missing { slivers }, Bytes::new()));
        }
        let statement = StorageConfirmation { epoch: committee.epoch(), blob_id, registration };
        let signature = statement.sign(&self.genesis.network_id(), node, &self.key);
        Ok((Response::Confirmed(signature), Bytes::new()))
    }

    fn health(&self, n_slivers: usize) -> NodeHealth {
        NodeHealth {
            name: format!("node-{}", self.number),
            shards: 0,
            blobs: 0,
            slivers_held: u64::try_from(n_slivers).unwrap(),
            slivers_missing: 0,
            repair_bytes_received: 0,
            repair_bytes_regained: 0,
            slivers_corrupt: 0,
            peers: 0,
            uptime_seconds: 0,
            ledger_height: 0,
            ledger_root: Hash::default(),
        }
    }

    fn part(&self, store: &mut Store, at: SliverAt, offset: usize, part: Bytes) -> Result<(), Refusal> {
        let committees = self.accepting();
        let is_mine = |committee: &Arc<Committee>| {
            let owner = committee.owner(committee.shard_of(&at.blob_id, at.segment, at.pair));
            committee.member(owner).unwrap().peer == self.peer
        };
        if !committees.iter().any(is_mine) {
            return Err(Refusal::NotMine);
        }
        let (header, ..) =
            store.commitments.get(&(at.blob_id, at.segment)).cloned().ok_or(Refusal::NotFound)?;
        let shape = header.verify().unwrap().shape().segment(at.segment).unwrap();
        let len = shape.sliver_bytes(at.axis);
        assert_eq!(offset % RANGE_BYTES_MAX, 0);
        assert_eq!(part.len(), RANGE_BYTES_MAX.min(len - offset));
        store.n_uploads += 1;
        store.upload_bytes += part.len();
        let parts = store.parts.entry(at).or_default();
        parts.insert(offset, part);
        if parts.values().map(Bytes::len).sum::<usize>() == len {
            let sliver: Vec<u8> = store.parts.remove(&at).unwrap().into_values().flatten().collect();
            self.keep(store, at, sliver.into());
        }
        Ok(())
    }

    /// The committees as a member of which this node takes slivers.
    fn accepting(&self) -> Vec<Arc<Committee>> {
        let ledger = self.ledger();
        let state = ledger.state();
        let committees = [Some(state.committee()), state.next_committee(), state.previous_committee()];
        committees.into_iter().flatten().cloned().collect()
    }

    /// Takes all that is to be held here of a blob of one segment.
    fn segment(
        &self,
        store: &mut Store,
        committee: &Committee,
        header: &VerifiedHeader,
        mut payload: Bytes,
    ) -> Result<(), Refusal> {
        assert!(payload.len() <= RANGE_BYTES_MAX);
        assert_eq!(header.shape().n_segments(), 1);
        let (blob_id, segment) = (header.blob_id(), SegmentIndex(0));
        let shape = header.shape().segment(segment).unwrap();
        let node = committee.index_of(&self.peer).unwrap();
        let slivers: Vec<_> = committee.slivers_of(node, (blob_id, segment), shape).collect();
        let sliver_bytes: usize = slivers.iter().map(|(_, axis)| shape.sliver_bytes(*axis)).sum();
        let commitment = payload.split_to(payload.len().checked_sub(sliver_bytes).ok_or(Refusal::Malformed)?);
        header.verify_segment(segment, &commitment, &[]).map_err(|_| Refusal::Unverifiable)?;
        store.commitments.insert((blob_id, segment), (*header.header(), Vec::new(), commitment));
        store.n_uploads += 1;
        store.upload_bytes += sliver_bytes;
        for (pair, axis) in slivers {
            let sliver = payload.split_to(shape.sliver_bytes(axis));
            self.keep(store, SliverAt { blob_id, segment, pair, axis }, sliver);
        }
        Ok(())
    }

    /// Keeps a sliver, which must be right.
    fn keep(&self, store: &mut Store, at: SliverAt, sliver: Bytes) {
        let (header, path, bytes) = store.commitments[&(at.blob_id, at.segment)].clone();
        let verified = header.verify().unwrap();
        let shape = verified.shape().segment(at.segment).unwrap();
        let hashes = SegmentEncoder::new(shape.n()).hash_sliver(shape, at.axis, &sliver);
        let commitment = verified.verify_segment(at.segment, &bytes, &path).unwrap();
        assert_eq!(hashes.root(), commitment.pair(at.pair).root(at.axis), "a sliver as committed to");
        store.slivers.insert(at, (sliver, hashes.parity));
    }
}

/// Flips a byte of what is handed out.
fn lie(response: Response, payload: Bytes) -> (Response, Bytes) {
    if let Response::Confirmed(mut signed) = response {
        signed.signature = SecretKey::from_seed(&[99; 32]).sign(b"something else");
        return (Response::Confirmed(signed), payload);
    }
    let mut bytes = payload.to_vec();
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
    (response, bytes.into())
}
