//! A writer that encodes wrongly: it commits to a sliver that is not on the grid, and keeps it from its owner.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use node::exchange::{ExchangeError, ask};
use protocol::{
    BlobId, Epoch, NodeIndex, RegistrationId, SegmentIndex, SliverPairIndex,
    certificate::{CertificateBuilder, Persistence, StorageConfirmation},
    commitment::{BlobHeader, PairRoots, SegmentCommitment},
    committee::Committee,
    encoding::{Axis, BlobShape, EncodedSegment, SegmentEncoder},
    genesis::Genesis,
    ledger::{
        signature::SigningKey,
        transaction::{Action, Transaction},
    },
    message::{Refusal, Request, Response, SliverAt},
};
use swarm::{Network, PeerRole};

/// How long the writer waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often it asks a member again that has yet to hear of its registration, or has no time.
const TRIES: u32 = 10;

/// A blob of one segment that was encoded wrongly.
#[derive(Debug)]
pub struct WrongWriter {
    genesis: Arc<Genesis>,
    committee: Arc<Committee>,
    segment: EncodedSegment,
    commitment: SegmentCommitment,
    header: BlobHeader,
    victim: NodeIndex,
}

/// The writer could not get its blob certified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotCertified(String);

impl WrongWriter {
    /// Encodes `data`, and commits to something else in the place of a primary sliver that belongs to `victim`.
    ///
    /// # Panics
    ///
    /// If `data` takes more than one segment.
    #[must_use]
    pub fn new(genesis: Arc<Genesis>, data: &[u8], victim: NodeIndex) -> Self {
        let committee = Arc::new(genesis.committee().clone());
        Self::of(genesis, committee, data, victim)
    }

    /// The same, for a later committee, of which `victim` is a member.
    ///
    /// # Panics
    ///
    /// As [`Self::new`].
    #[must_use]
    pub fn of(genesis: Arc<Genesis>, committee: Arc<Committee>, data: &[u8], victim: NodeIndex) -> Self {
        let n = genesis.n_shards();
        // A blob as small as that is replicated, and copies cannot be encoded wrongly.
        let replicated_max = 64 * usize::from(n);
        let mut data = data.to_vec();
        data.resize(data.len().max(replicated_max + 1), 7);
        let length = u64::try_from(data.len()).expect("a small blob");
        let shape = BlobShape::new(n, length).expect("a small blob");
        assert_eq!(shape.n_segments(), 1, "one segment is enough to be wrong");
        let segment_shape = shape.segment(SegmentIndex(0)).expect("the first segment exists");
        let mut encoder = SegmentEncoder::new(n);
        let segment = encoder.encode(segment_shape, &data);
        // The blob ID, and with it who holds which pair, follows from the commitment; so try pairs until the one that
        // is wrong is the victim's.
        for wrong in (0..n).map(SliverPairIndex) {
            let mut sliver = segment.sliver(Axis::Primary, wrong.primary()).to_vec();
            sliver[0] ^= 1;
            let root = encoder.hash_sliver(segment_shape, Axis::Primary, &sliver).root();
            let honest = segment.commitment();
            let pairs = (0..n).map(SliverPairIndex).map(|pair| {
                let roots = *honest.pair(pair);
                if pair == wrong { PairRoots { primary: root, ..roots } } else { roots }
            });
            let commitment = SegmentCommitment::new(pairs.collect());
            let header = BlobHeader::new(&shape, &[commitment.root()]);
            let shard = committee.shard_of(&header.blob_id(), SegmentIndex(0), wrong);
            if committee.owner(shard) == victim {
                return Self { genesis, committee, segment, commitment, header, victim };
            }
        }
        // With a pair a shard and IDs that are as good as random, about one try in `n / weight` succeeds; a blob for
        // which none does is as rare as its data is arbitrary.
        data.push(0);
        Self::of(genesis, committee, &data, victim)
    }

    fn introduce<N: Network>(&self, network: &N) {
        for member in self.committee.members() {
            let addresses = member.addresses.iter().filter_map(|text| text.parse().ok()).collect();
            network.add_peer(member.peer, addresses, PeerRole::Member);
        }
    }

    /// The ID of the blob.
    #[must_use]
    pub fn blob_id(&self) -> BlobId {
        self.header.blob_id()
    }

    /// Sends the victim a sliver with a bit flipped, which a node must refuse. Returns what it answered.
    ///
    /// # Errors
    ///
    /// [`NotCertified`] if the node did not take the commitment.
    ///
    /// # Panics
    ///
    /// If the victim has no shards, which no member has.
    pub async fn send_garbage<N: Network>(
        &self,
        network: &N,
    ) -> Result<Result<Response, ExchangeError>, NotCertified> {
        self.introduce(network);
        let (blob_id, segment) = (self.blob_id(), SegmentIndex(0));
        let committee = &self.committee;
        let member = committee.member(self.victim).expect("the victim is a member");
        let commitment = Request::StoreCommitment { header: self.header, segment, path: Vec::new() };
        self.ask(network, self.victim, (&commitment, self.commitment.to_bytes().into())).await?;
        let pair = committee.pair_of(&blob_id, segment, committee.shards(self.victim)[0]);
        let at = SliverAt { blob_id, segment, pair, axis: Axis::Secondary };
        let mut sliver = self.segment.sliver_of_pair(Axis::Secondary, pair).to_vec();
        sliver[0] ^= 1;
        let request = Request::StoreSliver { at, offset: 0 };
        let answer = ask(network, member.peer, (&request, sliver.into()), TIMEOUT).await;
        Ok(answer.map(|(response, _)| response))
    }

    /// Registers the blob, and asks the victim to vouch for it.
    ///
    /// # Errors
    ///
    /// [`NotCertified`] if it gives no answer.
    pub async fn ask_to_confirm<N: Network>(&self, network: &N) -> Result<Response, NotCertified> {
        self.register(network).await?;
        self.confirm(network, self.victim).await
    }

    /// Sends everybody but the victim what it should hold, and has the blob certified by those who can be reached.
    ///
    /// # Errors
    ///
    /// [`NotCertified`] if too few members confirm, or the ledger does not take the certificate.
    pub async fn store<N: Network>(&self, network: &N) -> Result<(), NotCertified> {
        self.introduce(network);
        self.register(network).await?;
        let committee = Arc::clone(&self.committee);
        let registration = self.registration();
        let statement =
            StorageConfirmation { epoch: committee.epoch(), blob_id: self.blob_id(), registration };
        let builder = CertificateBuilder::new(statement, &self.genesis.network_id(), Arc::clone(&committee));
        let mut builder = builder.map_err(|error| NotCertified(error.to_string()))?;
        let mut reasons = String::new();
        for node in committee.nodes().filter(|node| *node != self.victim) {
            match self.send_and_confirm(network, node).await {
                Ok(Response::Confirmed(signature)) => {
                    builder.add(&signature).map_err(|error| NotCertified(error.to_string()))?;
                }
                Ok(other) => reasons.push_str(&format!("; {node}: {other:?}")),
                Err(NotCertified(reason)) => reasons.push_str(&format!("; {reason}")),
            }
        }
        let certificate = builder.finish().map_err(|error| NotCertified(format!("{error}{reasons}")))?;
        self.submit(network, 1, Action::CertifyBlob { certificate: Box::new(certificate) }).await
    }

    /// The writer's key: one of its own for each blob, so that the first transaction registers it.
    fn key(&self) -> SigningKey {
        SigningKey::from_secret(&self.blob_id().0)
    }

    fn registration(&self) -> RegistrationId {
        RegistrationId { owner: self.key().account(), nonce: 0 }
    }

    async fn register<N: Network>(&self, network: &N) -> Result<(), NotCertified> {
        let action = Action::RegisterBlob {
            header: self.header,
            persistence: Persistence::Permanent,
            end_epoch: Epoch(self.committee.epoch().0 + 20),
        };
        self.submit(network, 0, action).await
    }

    /// Has the ledger execute a transaction: members worth a validity set say that it has, of which one is honest.
    async fn submit<N: Network>(&self, network: &N, nonce: u64, action: Action) -> Result<(), NotCertified> {
        let key = self.key();
        let transaction = Transaction { sender: key.account(), nonce, action };
        let bytes = Bytes::from(transaction.sign(&self.genesis.network_id(), &key).to_bytes());
        let request = Request::Submit { keys: Vec::new() };
        let committee = &self.committee;
        let (mut said, mut reasons) = (BTreeSet::new(), String::new());
        for _ in 0..TRIES {
            for node in committee.nodes() {
                match self.ask(network, node, (&request, bytes.clone())).await {
                    Ok(_) => said.insert(node),
                    Err(NotCertified(reason)) => {
                        reasons = reason;
                        continue;
                    }
                };
                if committee.weight_of(&said) >= committee.validity() {
                    return Ok(());
                }
            }
        }
        Err(NotCertified(format!("a transaction is not executed: {reasons}")))
    }

    async fn send_and_confirm<N: Network>(
        &self,
        network: &N,
        node: NodeIndex,
    ) -> Result<Response, NotCertified> {
        self.send(network, node).await?;
        self.confirm(network, node).await
    }

    async fn confirm<N: Network>(&self, network: &N, node: NodeIndex) -> Result<Response, NotCertified> {
        let epoch = self.committee.epoch();
        let confirm = Request::Confirm { header: self.header, registration: self.registration(), epoch };
        let busy = ExchangeError::Refused(Refusal::Busy).to_string();
        let mut answer = self.ask(network, node, (&confirm, Bytes::new())).await;
        for _ in 0..TRIES {
            match &answer {
                Err(NotCertified(reason)) if reason.ends_with(&busy) => {}
                _ => break,
            }
            answer = self.ask(network, node, (&confirm, Bytes::new())).await;
        }
        answer
    }

    async fn send<N: Network>(&self, network: &N, node: NodeIndex) -> Result<(), NotCertified> {
        let (blob_id, segment) = (self.blob_id(), SegmentIndex(0));
        let commitment = Request::StoreCommitment { header: self.header, segment, path: Vec::new() };
        let bytes = self.commitment.to_bytes().into();
        self.ask(network, node, (&commitment, bytes)).await?;
        let committee = &self.committee;
        for shard in committee.shards(node) {
            let pair = committee.pair_of(&blob_id, segment, *shard);
            for axis in [Axis::Primary, Axis::Secondary] {
                let at = SliverAt { blob_id, segment, pair, axis };
                let sliver = Bytes::copy_from_slice(self.segment.sliver_of_pair(axis, pair));
                self.ask(network, node, (&Request::StoreSliver { at, offset: 0 }, sliver)).await?;
            }
        }
        Ok(())
    }

    async fn ask<N: Network>(
        &self,
        network: &N,
        node: NodeIndex,
        (request, payload): (&Request, Bytes),
    ) -> Result<Response, NotCertified> {
        let member = self.committee.member(node).ok_or_else(|| NotCertified("no such node".into()))?;
        let answer = ask(network, member.peer, (request, payload), TIMEOUT).await;
        answer
            .map(|(response, _)| response)
            .map_err(|error| NotCertified(format!("{}: {error}", member.name)))
    }
}
