//! A small network that never changes: whose committee, blocks, state and blob the targets decode against.

use std::sync::{Arc, LazyLock};

use protocol::{
    BlobId, Epoch, NetworkId, NodeIndex, RegistrationId, SegmentIndex,
    bls::SecretKey,
    certificate::{
        CertificateBuilder, CertificateOfAvailability, InvalidityAttestation, InvalidityCertificate,
        MemberSignature, Persistence, Statement, StorageConfirmation,
    },
    commitment::{BlobHeader, SegmentCommitment, VerifiedHeader},
    committee::{Committee, Member, spread},
    encoding::{BlobShape, SegmentEncoder, SegmentShape, encode::EncodedSegment},
    genesis::{Endowment, Genesis, GenesisAccount, GenesisStake},
    ledger::{
        block::{Block, Decided, Draft, Header, Tip, committee_hash},
        commit::CommitCertificate,
        parameters::Parameters,
        signature::{Signature, SigningKey},
        state::State,
        transaction::{Action, NodeDescription, SignedTransaction, Transaction, VerifiedTransaction},
        vote::{VoteKind, vote_bytes},
    },
    quorum::N_SHARDS_MIN,
};

/// Members.
const N_MEMBERS: u8 = 4;
/// Who owns the blob, and registers a node: an account that is no member's.
const OWNER: u8 = N_MEMBERS;
/// Shards.
pub(super) const N_SHARDS: u16 = 7;
/// Credits of everyone who has any.
const CREDITS: u64 = 1_000_000;

/// The network.
pub(super) struct World {
    pub(super) network: NetworkId,
    pub(super) committee: Arc<Committee>,
    /// The state before the first block.
    pub(super) before: State,
    /// The state after the last block.
    pub(super) state: State,
    /// The state at each height, from 0 on.
    pub(super) states: Vec<State>,
    /// The blocks; the last changes the committee.
    pub(super) blocks: Vec<Decided>,
    /// What the last block puts in place.
    pub(super) next: Committee,
    /// One transaction of each kind.
    pub(super) transactions: Vec<(&'static str, SignedTransaction)>,
    /// The same, verified.
    pub(super) verified: Vec<VerifiedTransaction>,
    pub(super) blob: EncodedBlob,
}

/// A blob that is coded, and its only segment.
pub(super) struct EncodedBlob {
    pub(super) data: Vec<u8>,
    pub(super) header: VerifiedHeader,
    pub(super) shape: SegmentShape,
    pub(super) segment: EncodedSegment,
    pub(super) commitment: SegmentCommitment,
}

pub(super) static WORLD: LazyLock<World> = LazyLock::new(|| World::new(N_MEMBERS));

/// The same with two members, for what reads all of them each time: to parse the keys of one takes longer than all else.
pub(super) static SMALL_WORLD: LazyLock<World> = LazyLock::new(|| World::new(2));

/// The ledger key of the member with this number, or of an account with a larger one.
pub(super) fn key(number: u8) -> SigningKey {
    SigningKey::from_secret(&[number + 1; 32])
}

fn bls_key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number + 1; 32])
}

fn member(number: u8) -> Member {
    let peer = key(number).peer();
    Member {
        name: format!("node-{number}"),
        peer,
        public_key: bls_key(number).public_key(),
        proof_of_possession: bls_key(number).prove_possession(&peer),
        addresses: vec![format!("/ip4/10.0.0.{number}/udp/4100/quic-v1")],
        shards: Vec::new(),
    }
}

fn description(number: u8) -> NodeDescription {
    let Member { name, public_key, proof_of_possession, addresses, .. } = member(number);
    NodeDescription {
        name,
        public_key,
        proof_of_possession,
        addresses,
        operator: key(number).account(),
        commission_bp: 500,
        capacity_bytes: 1 << 40,
    }
}

fn members(n_shards: u16, numbers: impl ExactSizeIterator<Item = u8>) -> Vec<Member> {
    let shards = spread(n_shards, u16::try_from(numbers.len()).expect("a handful of members"));
    numbers.zip(shards).map(|(number, shards)| Member { shards, ..member(number) }).collect()
}

/// A genesis of few members, without any extra: to check a member takes far longer than to read it.
pub(super) fn small_genesis(n_members: u8) -> Genesis {
    let members = members(N_SHARDS_MIN, 0..n_members);
    let account = key(0).account();
    let endowment = Endowment {
        accounts: vec![GenesisAccount { account, balance: CREDITS }],
        stakes: vec![GenesisStake { account, node: key(0).peer(), amount: 100 }],
        parameters: Parameters::default(),
    };
    Genesis::new("small".to_owned(), N_SHARDS_MIN, members)
        .and_then(|genesis| genesis.with_endowment(endowment))
        .expect("the genesis is sound")
}

/// Encodes a blob of `length` bytes.
pub(super) fn encode(length: usize) -> EncodedBlob {
    let data: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect();
    let shape = BlobShape::new(N_SHARDS, u64::try_from(length).unwrap_or(0)).expect("a blob has this length");
    let segment_shape = shape.segment(SegmentIndex(0)).expect("a blob has a first segment");
    let segment = SegmentEncoder::new(N_SHARDS).encode(segment_shape, &data);
    let commitment = segment.commitment();
    let header = BlobHeader::new(&shape, &[commitment.root()]).verify().expect("the header is of this blob");
    EncodedBlob { data, header, shape: segment_shape, segment, commitment }
}

impl World {
    fn new(n_members: u8) -> Self {
        let accounts = (0..OWNER + 2)
            .map(|number| GenesisAccount { account: key(number).account(), balance: CREDITS })
            .collect();
        let stakes = (0..n_members)
            .map(|n| GenesisStake {
                account: key(n).account(),
                node: key(n).peer(),
                amount: 100 + u64::from(n),
            })
            .collect();
        let parameters = Parameters { epoch_ms: 60_000, transaction_fee: 1, ..Parameters::default() };
        // Another number whenever something else is signed than before: what a former run found is not signed for this network
        // then, and so no forgery.
        let genesis = Genesis::new("fuzzed-2".to_owned(), N_SHARDS, members(N_SHARDS, 0..n_members))
            .and_then(|genesis| genesis.with_endowment(Endowment { accounts, stakes, parameters }))
            .expect("the genesis is sound");
        let (network, committee) = (genesis.network_id(), Arc::new(genesis.committee().clone()));
        let next = Committee::new(Epoch(1), N_SHARDS, members(N_SHARDS, 1..n_members)).expect("a committee");
        let before = State::genesis(&genesis).expect("the genesis is a state");
        // Symbols of 66 bytes: more than a block of the code, and not a whole number of them.
        let blob = encode(990);
        let transactions = transactions(&network, &committee, &blob);
        let verify = |(_, it): &(_, SignedTransaction)| it.clone().verify(&network).expect("it is signed");
        let verified = transactions.iter().map(verify).collect();
        let mut world = Self {
            network,
            committee,
            state: before.clone(),
            states: vec![before.clone()],
            before,
            blocks: Vec::new(),
            next,
            transactions,
            verified,
            blob,
        };
        world.decide();
        world
    }

    /// Decides on three blocks.
    fn decide(&mut self) {
        let mut tip = Tip::genesis(self.network, Arc::clone(&self.committee));
        let mut last_commit = None;
        for height in 1..=3_u64 {
            let time_ms = 1_000 * height;
            self.state.begin_block(height, time_ms).expect("the next block");
            let mut transactions = Vec::new();
            for ((_, transaction), verified) in self.transactions.iter().zip(&self.verified) {
                if self.state.apply(verified).is_ok() {
                    transactions.push(transaction.to_bytes());
                }
            }
            let state_root = self.state.end_block();
            self.states.push(self.state.clone());
            let next_committee = (height == 3).then(|| committee_hash(&self.next));
            let draft =
                Draft { tip: tip.clone(), time_ms, last_commit, transactions, state_root, next_committee };
            let block = Block::build(draft).expect("the block is short");
            let certificate = self.certify(block.header());
            tip = tip.advanced(block.header(), (height == 3).then(|| Arc::new(self.next.clone())));
            last_commit = Some(certificate.clone());
            self.blocks.push(Decided { block: Arc::new(block), certificate });
        }
    }

    /// The precommits of all members for a block.
    pub(super) fn certify(&self, header: &Header) -> CommitCertificate {
        let (height, id) = (header.height, header.id());
        let precommit = vote_bytes(&self.network, height, 0, VoteKind::Precommit, Some(id));
        let signatures: Vec<(NodeIndex, Signature)> =
            numbers(&self.committee).map(|(number, node)| (node, key(number).sign(&precommit))).collect();
        CommitCertificate::new(height, 0, id, signatures).expect("each signs once")
    }

    /// The last block before the committee changes.
    pub(super) fn head(&self) -> (Header, CommitCertificate) {
        let Decided { block, certificate } = &self.blocks[1];
        (block.header().clone(), certificate.clone())
    }

    /// The certificate of availability of the blob.
    pub(super) fn availability(&self) -> CertificateOfAvailability {
        availability(&self.network, &self.committee, self.blob.header.blob_id())
    }

    /// The certificate that the blob was encoded wrongly.
    pub(super) fn invalidity(&self) -> InvalidityCertificate {
        let blob_id = self.blob.header.blob_id();
        certify(&self.network, &self.committee, InvalidityAttestation { epoch: Epoch(0), blob_id })
    }
}

/// The members of a committee of the genesis by their numbers.
fn numbers(committee: &Committee) -> impl Iterator<Item = (u8, NodeIndex)> {
    (0..N_MEMBERS).filter_map(|number| Some((number, committee.index_of(&key(number).peer())?)))
}

/// Who registers the blob.
fn registration() -> RegistrationId {
    RegistrationId { owner: key(OWNER).account(), nonce: 0 }
}

fn availability(
    network: &NetworkId,
    committee: &Arc<Committee>,
    blob_id: BlobId,
) -> CertificateOfAvailability {
    certify(
        network,
        committee,
        StorageConfirmation { epoch: Epoch(0), blob_id, registration: registration() },
    )
}

fn certify<S: Statement>(
    network: &NetworkId,
    committee: &Arc<Committee>,
    statement: S,
) -> protocol::certificate::QuorumCertificate<S> {
    let mut builder = CertificateBuilder::new(statement.clone(), network, Arc::clone(committee))
        .expect("of the committee's epoch");
    for (number, member) in numbers(committee) {
        builder.add(&sign(network, &statement, number, member)).expect("the signature is good");
    }
    builder.finish().expect("all have signed")
}

/// The word of the member with this number, as the member with that index.
pub(super) fn sign<S: Statement>(
    network: &NetworkId,
    statement: &S,
    number: u8,
    member: NodeIndex,
) -> MemberSignature {
    statement.sign(network, member, &bls_key(number))
}

/// One transaction of each kind that a few lines make. The first are executed, the others are refused.
fn transactions(
    network: &NetworkId,
    committee: &Arc<Committee>,
    blob: &EncodedBlob,
) -> Vec<(&'static str, SignedTransaction)> {
    let (header, blob_id) = (*blob.header.header(), blob.header.blob_id());
    let (owner, persistence, end_epoch) = (OWNER, Persistence::Deletable, Epoch(4));
    let certificate = Box::new(availability(network, committee, blob_id));
    let node = key(0).peer();
    let actions = [
        ("register-blob", owner, 0, Action::RegisterBlob { header, persistence, end_epoch }),
        ("certify-blob", owner, 1, Action::CertifyBlob { certificate: certificate.clone() }),
        ("extend-blob", owner, 2, Action::ExtendBlob { blob_id, end_epoch: Epoch(9) }),
        ("transfer", owner, 3, Action::Transfer { to: key(9).account(), amount: 7 }),
        (
            "register-node",
            owner + 1,
            0,
            Action::RegisterNode { description: Box::new(description(owner + 1)) },
        ),
        ("stake", owner, 4, Action::Stake { node, amount: 3 }),
        ("unstake", owner, 5, Action::Unstake { node, amount: Some(1) }),
        ("leave-node", 0, 0, Action::LeaveNode { node }),
        ("delete-blob", owner, 99, Action::DeleteBlob { blob_id }),
        ("shards-ready", 1, 99, Action::ShardsReady { epoch: Epoch(1) }),
        ("store-blob", owner, 99, Action::StoreBlob { header, persistence, end_epoch, certificate }),
    ];
    let sign = |(name, sender, nonce, action)| {
        let key = key(sender);
        (name, Transaction { sender: key.account(), nonce, action }.sign(network, &key))
    };
    actions.into_iter().map(sign).collect()
}
