//! A storage node that keeps everything in memory, and misbehaves on demand.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use protocol::{
    BlobId, NodeIndex, SegmentIndex,
    bls::SecretKey,
    certificate::{CertificateOfAvailability, Statement as _, StorageConfirmation},
    codec,
    commitment::BlobHeader,
    encoding::SegmentEncoder,
    genesis::Genesis,
    hash::Hash,
    message::{BlobRecord, BlobStatus, NodeHealth, RANGE_BYTES_MAX, Refusal, Request, Response, SliverAt},
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
    /// Flips a byte of every sliver, commitment and certificate that it hands out, and signs something else.
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
    /// Does not record certificates.
    RecordsNothing,
    /// Is honest but about the ledger.
    Ledger(Tampering),
}

#[derive(Default)]
struct Store {
    commitments: BTreeMap<(BlobId, SegmentIndex), (BlobHeader, Vec<Hash>, Bytes)>,
    reminded: BTreeMap<(BlobId, SegmentIndex), ()>,
    parts: BTreeMap<SliverAt, BTreeMap<usize, Bytes>>,
    slivers: BTreeMap<SliverAt, (Bytes, Hash)>,
    statuses: BTreeMap<BlobId, BlobStatus>,
}

/// One node.
pub(super) struct Double {
    node: NodeIndex,
    key: SecretKey,
    genesis: Arc<Genesis>,
    manner: Mutex<Manner>,
    store: Mutex<Store>,
    /// The ledger that all nodes share, if there is one.
    ledger: Option<Arc<Mutex<FakeLedger>>>,
}

type Answer = Result<(Response, Bytes), Refusal>;

impl Double {
    pub(super) fn new(node: NodeIndex, key: SecretKey, genesis: Arc<Genesis>) -> Self {
        Self { node, key, genesis, manner: Mutex::new(Manner::Honest), store: Mutex::default(), ledger: None }
    }

    pub(super) fn with_ledger(self, ledger: Arc<Mutex<FakeLedger>>) -> Self {
        Self { ledger: Some(ledger), ..self }
    }

    pub(super) fn become_(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    pub(super) fn n_slivers(&self) -> usize {
        self.store.lock().unwrap().slivers.len()
    }

    pub(super) fn set_status(&self, blob_id: BlobId, status: BlobStatus) {
        self.store.lock().unwrap().statuses.insert(blob_id, status);
    }

    pub(super) fn status(&self, blob_id: BlobId) -> BlobStatus {
        self.store.lock().unwrap().statuses.get(&blob_id).cloned().unwrap_or(BlobStatus::Unknown)
    }

    /// Drops slivers and commitments, as a node does with those of invalid blobs.
    pub(super) fn drop_slivers(&self) {
        let mut store = self.store.lock().unwrap();
        store.slivers.clear();
        store.commitments.clear();
    }

    pub(super) async fn serve(self: Arc<Self>, mut inbound: InboundReceiver) {
        let mut unanswered = Vec::new();
        while let Some(inbound) = inbound.recv().await {
            let Inbound::Request { frame, reply, .. } = inbound else { continue };
            let manner = self.manner.lock().unwrap().clone();
            let refusal = match manner {
                Manner::Silent => {
                    unanswered.push(reply);
                    continue;
                }
                Manner::Refuses(refusal) => Some(refusal),
                Manner::Busy(0) => None,
                Manner::Busy(times) => {
                    self.become_(Manner::Busy(times - 1));
                    reply.busy();
                    continue;
                }
                _ => None,
            };
            let request = Request::from_bytes(&frame.header).unwrap();
            if matches!(request, Request::Submit) && self.is(&Manner::Ledger(Tampering::GoneOnceExecuted)) {
                let _ = self.ledger_answer(&request, &frame.payload);
                unanswered.push(reply);
                continue;
            }
            let answer = refusal.map_or_else(|| self.answer(request, frame.payload), Err);
            let (response, payload) =
                answer.unwrap_or_else(|refusal| (Response::Refused(refusal), Bytes::new()));
            let (response, payload) =
                if self.is(&Manner::Liar) { lie(response, payload) } else { (response, payload) };
            reply.send(Frame::new(response.to_bytes(), payload)).unwrap();
        }
    }

    fn is(&self, manner: &Manner) -> bool {
        *self.manner.lock().unwrap() == *manner
    }

    /// What the ledger, or what is told of it, has to say.
    fn ledger_answer(&self, request: &Request, payload: &[u8]) -> Answer {
        let mut ledger = self.ledger.as_ref().ok_or(Refusal::NotFound)?.lock().unwrap();
        let tampering = match *self.manner.lock().unwrap() {
            Manner::Ledger(tampering) => tampering,
            _ => Tampering::None,
        };
        match request {
            Request::Entries { keys } => {
                Ok((Response::Entries, ledger.answer(self.node, keys, tampering).into()))
            }
            _ => {
                ledger.submit(payload, tampering).map(|height| (Response::Submitted { height }, Bytes::new()))
            }
        }
    }

    fn answer(&self, request: Request, payload: Bytes) -> Answer {
        if let Request::Entries { .. } | Request::Submit = request {
            return self.ledger_answer(&request, &payload);
        }
        let mut store = self.store.lock().unwrap();
        let done = Ok((Response::Done, Bytes::new()));
        match request {
            Request::StoreCommitment { header, segment, path } => {
                let verified = header.verify().map_err(|_| Refusal::Unverifiable)?;
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
            Request::Confirm { header, persistence } => {
                let verified = header.verify().map_err(|_| Refusal::Unverifiable)?;
                let blob_id = verified.blob_id();
                let manner = self.manner.lock().unwrap().clone();
                if let Manner::Drops(times @ 1..) = manner {
                    self.become_(Manner::Drops(times - 1));
                    store.slivers.clear();
                    store.commitments.clear();
                }
                let n_held = store.slivers.keys().filter(|at| at.blob_id == blob_id).count();
                let committee = self.genesis.committee();
                let slivers_of = |segment| {
                    let shape = verified.shape().segment(segment).unwrap();
                    committee.slivers_of(self.node, (blob_id, segment), shape).count()
                };
                let expected: usize = verified.shape().segments().map(slivers_of).sum();
                if n_held != expected || self.is(&Manner::Loses) {
                    return Ok((Response::Missing { slivers: 1 }, Bytes::new()));
                }
                let statement = StorageConfirmation { epoch: committee.epoch(), blob_id, persistence };
                let signature = statement.sign(&self.genesis.network_id(), self.node, &self.key);
                Ok((Response::Confirmed(signature), Bytes::new()))
            }
            Request::Certify(_) if self.is(&Manner::RecordsNothing) => Err(Refusal::Internal),
            Request::Certify(record) => {
                record.certificate.verify(&self.genesis.network_id(), self.genesis.committee()).unwrap();
                store.statuses.insert(record.header.blob_id(), BlobStatus::Certified(record));
                done
            }
            Request::Status(blob_id) => {
                let status = store.statuses.get(&blob_id).cloned().unwrap_or(BlobStatus::Unknown);
                Ok((Response::Status(status), Bytes::new()))
            }
            Request::FetchCommitment { blob_id, .. }
            | Request::FetchSliver { at: SliverAt { blob_id, .. }, .. }
                if matches!(store.statuses.get(&blob_id), Some(BlobStatus::Invalid(_))) =>
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
                let (bytes, parity) = store.slivers.get(&at).cloned().ok_or(Refusal::NotFound)?;
                let (offset, len) = (usize::try_from(offset).unwrap(), usize::try_from(len).unwrap());
                Ok((Response::Sliver { parity }, bytes.slice(offset..offset + len)))
            }
            Request::Health => Ok((Response::Health(self.health(store.slivers.len())), Bytes::new())),
            _ => Err(Refusal::Malformed),
        }
    }

    fn health(&self, n_slivers: usize) -> NodeHealth {
        NodeHealth {
            name: format!("node-{}", self.node),
            shards: self.genesis.committee().weight(self.node),
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
        let committee = self.genesis.committee();
        let shard = committee.shard_of(&at.blob_id, at.segment, at.pair);
        assert_eq!(committee.owner(shard), self.node, "slivers go to their owners");
        let (header, path, bytes) =
            store.commitments.get(&(at.blob_id, at.segment)).cloned().ok_or(Refusal::NotFound)?;
        let verified = header.verify().unwrap();
        let shape = verified.shape().segment(at.segment).unwrap();
        let len = shape.sliver_bytes(at.axis);
        assert_eq!(offset % RANGE_BYTES_MAX, 0);
        assert_eq!(part.len(), RANGE_BYTES_MAX.min(len - offset));
        let parts = store.parts.entry(at).or_default();
        parts.insert(offset, part);
        if parts.values().map(Bytes::len).sum::<usize>() == len {
            let sliver: Vec<u8> = store.parts.remove(&at).unwrap().into_values().flatten().collect();
            let hashes = SegmentEncoder::new(shape.n()).hash_sliver(shape, at.axis, &sliver);
            let commitment = verified.verify_segment(at.segment, &bytes, &path).unwrap();
            assert_eq!(hashes.root(), commitment.pair(at.pair).root(at.axis), "a sliver as committed to");
            store.slivers.insert(at, (sliver.into(), hashes.parity));
        }
        Ok(())
    }
}

/// Flips a byte of what is handed out.
fn lie(response: Response, payload: Bytes) -> (Response, Bytes) {
    let flipped = |bytes: Bytes| {
        let mut bytes = bytes.to_vec();
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
        }
        Bytes::from(bytes)
    };
    match response {
        Response::Status(BlobStatus::Certified(BlobRecord { header, certificate })) => {
            let mut bytes = codec::encode(&certificate);
            // The epoch is first, the blob ID next, then the persistence.
            bytes[36] ^= 1;
            let certificate = codec::decode_exact::<CertificateOfAvailability, 512>(&bytes).unwrap();
            (Response::Status(BlobStatus::Certified(BlobRecord { header, certificate })), payload)
        }
        Response::Confirmed(mut signed) => {
            signed.signature = SecretKey::from_seed(&[99; 32]).sign(b"something else");
            (Response::Confirmed(signed), payload)
        }
        other => (other, flipped(payload)),
    }
}
