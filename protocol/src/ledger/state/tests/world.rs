//! A small network whose accounts, nodes and blobs are numbers.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use crate::{
    bls,
    certificate::{
        CertificateBuilder, CertificateOfAvailability, InvalidityAttestation, InvalidityCertificate,
        Persistence, Statement, StorageConfirmation,
    },
    codec,
    commitment::BlobHeader,
    committee::{Committee, Member, spread},
    encoding::BlobShape,
    genesis::{Endowment, Genesis, GenesisAccount, GenesisStake},
    hash::Hash,
    ids::{AccountId, BlobId, BlockId, Epoch, NetworkId, NodeIndex, PeerId, RegistrationId},
    ledger::{
        parameters::{Parameters, cost},
        signature::SigningKey,
        state::{
            AdvanceError, ApplyError, Event, Receipt, Rejected, State,
            entry::{Blob, Registration},
            slot::{
                BlobSlot, BucketSlot, DelegationSlot, ExpirySlot, LifetimeSlot, RegistrationSlot,
                UnbondingShareSlot, UnbondingSlot,
            },
        },
        transaction::{Action, NodeDescription, SignedTransaction, Transaction, VerifiedTransaction},
        vote::{Equivocation, Vote, VoteKind},
    },
    quorum,
};

/// Credits of each of the accounts 0 to 3.
pub(crate) const BALANCE: u64 = 1_000_000;
/// Accounts with credits.
pub(crate) const N_ACCOUNTS: u8 = 4;
/// Nodes are the accounts from here on.
pub(crate) const NODES: u8 = 100;
/// Bytes of every blob: one mebibyte of encoded size, about.
pub(crate) const BLOB_BYTES: u64 = 200 << 10;

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_secret(&[seed; 32])
}

pub(crate) fn account(seed: u8) -> AccountId {
    key(seed).account()
}

/// The node with this number, from 0.
pub(crate) fn node(index: u8) -> PeerId {
    PeerId(account(NODES + index).0)
}

pub(crate) fn bls_key(index: u8) -> bls::SecretKey {
    bls::SecretKey::from_seed(&[index; 32])
}

pub(crate) fn description(index: u8) -> NodeDescription {
    NodeDescription {
        name: format!("node-{index}"),
        public_key: bls_key(index).public_key(),
        proof_of_possession: bls_key(index).prove_possession(&node(index)),
        addresses: vec![format!("/ip4/10.0.0.{index}/tcp/7000")],
        operator: AccountId::from(node(index)),
        commission_bp: 0,
        capacity_bytes: 0,
    }
}

/// Members 0, 1, ... that share the shards evenly.
fn members(n_shards: u16, n_members: u8) -> Vec<Member> {
    let shards = spread(n_shards, n_members.into());
    (0..n_members)
        .zip(shards)
        .map(|(index, shards)| description(index).to_member(node(index), shards))
        .collect()
}

pub(crate) fn priced() -> Parameters {
    Parameters { storage_price: 10, write_price: 3, transaction_fee: 1, ..Parameters::default() }
}

/// What costs pairings and comes out the same each time.
#[derive(Debug, Default)]
struct Cache {
    committees: BTreeMap<Epoch, Arc<Committee>>,
    certificates: BTreeMap<StorageConfirmation, CertificateOfAvailability>,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) network: NetworkId,
    n_members: u8,
    cache: Rc<RefCell<Cache>>,
}

impl World {
    /// Everything is free of charge.
    pub(crate) fn new(n_shards: u16, n_members: u8) -> Self {
        Self::with(n_shards, n_members, Parameters::default(), Vec::new())
    }

    /// Four shards, four members, prices and a fee.
    pub(crate) fn priced() -> Self {
        Self::with(4, 4, priced(), Vec::new())
    }

    pub(crate) fn with(
        n_shards: u16,
        n_members: u8,
        parameters: Parameters,
        stakes: Vec<GenesisStake>,
    ) -> Self {
        let genesis = Self::genesis(n_shards, n_members, parameters, stakes);
        let state = State::genesis(&genesis).unwrap();
        Self { state, network: genesis.network_id(), n_members, cache: Rc::default() }
    }

    pub(crate) fn genesis(
        n_shards: u16,
        n_members: u8,
        parameters: Parameters,
        stakes: Vec<GenesisStake>,
    ) -> Genesis {
        let genesis =
            Genesis::new("test network".to_owned(), n_shards, members(n_shards, n_members)).unwrap();
        let accounts =
            (0..N_ACCOUNTS).map(|seed| GenesisAccount { account: account(seed), balance: BALANCE }).collect();
        genesis.with_endowment(Endowment { accounts, stakes, parameters }).unwrap()
    }

    pub(crate) fn sign(&self, sender: u8, nonce: u64, action: Action) -> VerifiedTransaction {
        let transaction = Transaction { sender: account(sender), nonce, action };
        let signed = transaction.sign(&self.network, &key(sender));
        let read = SignedTransaction::from_bytes(&signed.to_bytes()).unwrap();
        assert_eq!(read, signed);
        read.verify(&self.network).unwrap()
    }

    /// Sends the next transaction of an account.
    pub(crate) fn send(&mut self, sender: u8, action: Action) -> Result<Receipt, ApplyError> {
        let nonce = self.state.account(&account(sender)).unwrap().nonce;
        let transaction = self.sign(sender, nonce, action);
        self.state.apply(&transaction)
    }

    /// Sends a transaction that is taken, and returns its first event.
    pub(crate) fn does(&mut self, sender: u8, action: Action) -> Event {
        let total = self.state.total().unwrap();
        let receipt = self.send(sender, action).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(self.state.total().unwrap(), total, "credits are conserved");
        receipt.events[0].clone()
    }

    /// Sends a transaction that is not taken, and returns why.
    pub(crate) fn is_refused(&mut self, sender: u8, action: Action) -> Rejected {
        let root = self.state.root();
        let error = self.send(sender, action).unwrap_err();
        assert_eq!(self.state.root(), root, "nothing changed");
        match error {
            ApplyError::Rejected(rejected) => rejected,
            ApplyError::Corrupt(corrupt) => panic!("{corrupt}"),
        }
    }

    pub(crate) fn balance(&self, seed: u8) -> u64 {
        self.state.account(&account(seed)).unwrap().balance
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.state.head().unwrap().epoch
    }

    /// The committee of an epoch: always the same nodes with the same shards.
    pub(crate) fn committee(&self, epoch: Epoch) -> Arc<Committee> {
        let n_shards = self.state.committee().n_shards();
        let members = || members(n_shards, self.n_members);
        let make = || Arc::new(Committee::new(epoch, n_shards, members()).unwrap());
        Arc::clone(self.cache.borrow_mut().committees.entry(epoch).or_insert_with(make))
    }

    pub(crate) fn advance(&mut self) -> Result<Vec<Event>, AdvanceError> {
        if self.state.head().unwrap().height == 0 {
            self.next_block();
        }
        let next = Epoch(self.epoch().0 + 1);
        let events = self.state.advance_epoch(self.committee(next))?;
        self.next_block();
        Ok(events)
    }

    /// Ends the block and begins another, a millisecond later.
    pub(crate) fn next_block(&mut self) -> Vec<Event> {
        let head = self.state.head().unwrap();
        self.state.begin_block(head.height + 1, head.time_ms + 1).unwrap()
    }

    /// Goes to the next epoch and through its handover.
    pub(crate) fn next_epoch(&mut self) -> Vec<Event> {
        let total = self.state.total().unwrap();
        let events = self.advance().unwrap();
        self.hand_over();
        assert_eq!(self.state.total().unwrap(), total, "credits are conserved");
        events
    }

    pub(crate) fn hand_over(&mut self) {
        let epoch = self.epoch();
        for index in 0..self.n_members {
            self.does(NODES + index, Action::ShardsReady { epoch });
        }
    }

    fn certificate<S: Statement>(
        &self,
        statement: S,
        weight: u16,
    ) -> crate::certificate::QuorumCertificate<S> {
        let committee = self.committee(statement.epoch());
        let mut builder = CertificateBuilder::new(statement, &self.network, Arc::clone(&committee)).unwrap();
        for index in 0..self.n_members {
            if builder.weight() >= weight {
                break;
            }
            let member = committee.index_of(&node(index)).unwrap();
            builder.add(&builder.statement().sign(&self.network, member, &bls_key(index))).unwrap();
        }
        builder.finish().unwrap()
    }

    /// The owner's registration of a blob, or the one that its next transaction would make.
    pub(crate) fn registration_id(&self, owner: u8, blob: u8) -> RegistrationId {
        let owner = account(owner);
        let registration = self.state.registration(&blob_id(self, blob), &owner).unwrap();
        let next = self.state.account(&owner).unwrap().nonce;
        RegistrationId { owner, nonce: registration.map_or(next, |registration| registration.nonce) }
    }

    pub(crate) fn availability(&self, owner: u8, blob: u8, epoch: Epoch) -> Box<CertificateOfAvailability> {
        let registration = self.registration_id(owner, blob);
        let statement = StorageConfirmation { epoch, blob_id: blob_id(self, blob), registration };
        if let Some(known) = self.cache.borrow().certificates.get(&statement) {
            return Box::new(known.clone());
        }
        let certificate = self.certificate(statement, quorum::quorum(self.state.committee().n_shards()));
        self.cache.borrow_mut().certificates.insert(statement, certificate.clone());
        Box::new(certificate)
    }

    pub(crate) fn invalidity(&self, blob: u8, epoch: Epoch) -> Box<InvalidityCertificate> {
        let statement = InvalidityAttestation { epoch, blob_id: blob_id(self, blob) };
        Box::new(self.certificate(statement, quorum::validity(self.state.committee().n_shards())))
    }

    pub(crate) fn equivocation(&self, index: u8) -> Box<Equivocation> {
        let key = key(NODES + index);
        let [first, second] = [1, 2].map(|byte| {
            let block = Some(BlockId([byte; 32]));
            let vote = Vote { height: 1, round: 0, kind: VoteKind::Prevote, block, voter: node(index) };
            vote.sign(&self.network, &key)
        });
        Box::new(Equivocation::Votes(first, second))
    }

    /// Registers and certifies a blob.
    pub(crate) fn store(&mut self, owner: u8, blob: u8, persistence: Persistence, end: u32) {
        self.does(owner, register(self, blob, persistence, end));
        let certificate = self.availability(owner, blob, self.epoch());
        self.does(owner, Action::CertifyBlob { certificate });
    }

    /// What a blob costs an epoch.
    pub(crate) fn rate(&self) -> u64 {
        cost(
            header(self, 0).verify().unwrap().shape().encoded_bytes(),
            self.state.parameters().unwrap().storage_price,
        )
    }

    /// What writing a blob costs.
    pub(crate) fn write_cost(&self) -> u64 {
        cost(
            header(self, 0).verify().unwrap().shape().encoded_bytes(),
            self.state.parameters().unwrap().write_price,
        )
    }

    /// Checks all counts, sums and indices against what they are of.
    pub(crate) fn audit(&self) {
        let store = &self.state.store;
        let epoch = self.epoch();
        let (mut registrations, mut lifetimes, mut expiries, mut reserved) =
            (BTreeMap::new(), BTreeMap::new(), Vec::new(), BTreeMap::new());
        for entry in store.scan::<RegistrationSlot>(&[]) {
            let (RegistrationSlot { blob_id, owner }, registration): (_, Registration) = entry.unwrap();
            assert!(registration.end > epoch, "a registration that is over");
            *registrations.entry(blob_id).or_insert(0_u64) += 1;
            if registration.certified.is_some() {
                *lifetimes.entry((blob_id, registration.end)).or_insert(0_u64) += 1;
            }
            expiries.push((registration.end, blob_id, owner));
            let blob: Blob = store.require(&BlobSlot { blob_id }).unwrap();
            for epoch in epoch.0 + 1..registration.end.0 {
                *reserved.entry(Epoch(epoch)).or_insert(0) += u128::from(blob.encoded_bytes);
            }
        }
        for entry in store.scan::<BlobSlot>(&[]) {
            let (BlobSlot { blob_id }, blob) = entry.unwrap();
            assert_eq!(blob.n_registrations, registrations.remove(&blob_id).unwrap_or(0));
            let is_certified = lifetimes.keys().any(|(of, _)| *of == blob_id);
            assert_eq!(blob.available.is_some(), is_certified && blob.invalid.is_none());
            let latest = lifetimes.keys().filter(|(of, _)| *of == blob_id).map(|(_, end)| *end).max();
            assert_eq!(blob.available.map(|available| available.end), blob.available.and(latest));
            assert!(blob.n_registrations > 0 || blob.invalid.is_some(), "kept for nothing");
        }
        let n_available = self.state.blobs_from(&BlobId([0; 32])).filter(|entry| {
            let (_, blob) = entry.as_ref().unwrap();
            blob.available.is_some()
        });
        assert_eq!(u64::try_from(n_available.count()).unwrap(), self.state.head().unwrap().n_available);
        assert_eq!(registrations, BTreeMap::new(), "registrations without a blob");
        let counted = store.scan::<LifetimeSlot>(&[]).map(|entry| {
            let (slot, n) = entry.unwrap();
            ((slot.blob_id, slot.end.epoch()), n)
        });
        assert_eq!(counted.collect::<BTreeMap<_, _>>(), lifetimes);
        expiries.sort_unstable();
        let listed = store.scan::<ExpirySlot>(&[]).map(|entry| {
            let (ExpirySlot { end, blob_id, owner }, ()) = entry.unwrap();
            (end, blob_id, owner)
        });
        assert_eq!(listed.collect::<Vec<_>>(), expiries);
        for entry in store.scan::<BucketSlot>(&[]) {
            let (BucketSlot { epoch: of }, bucket) = entry.unwrap();
            assert!(of >= epoch, "a bucket of an epoch that is over");
            if of > epoch {
                assert_eq!(bucket.reserved_bytes, reserved.remove(&of).unwrap_or(0));
            }
        }
        assert_eq!(reserved, BTreeMap::new(), "room that is not in a bucket");
        self.audit_stake();
    }

    fn audit_stake(&self) {
        let store = &self.state.store;
        let mut shares = BTreeMap::new();
        for entry in store.scan::<DelegationSlot>(&[]) {
            let (slot, n) = entry.unwrap();
            assert_ne!(n, 0);
            *shares.entry(slot.node).or_insert(0) += n;
        }
        for entry in self.state.nodes() {
            let (peer, node) = entry.unwrap();
            assert_eq!(node.stake.shares, shares.remove(&peer).unwrap_or(0));
            assert!(node.stake.shares > 0 || node.stake.credits == 0, "credits of nobody");
        }
        assert_eq!(shares, BTreeMap::new());
        let mut shares = BTreeMap::new();
        for entry in store.scan::<UnbondingShareSlot>(&[]) {
            let (slot, n) = entry.unwrap();
            *shares.entry((slot.release, slot.node)).or_insert(0) += n;
        }
        for entry in store.scan::<UnbondingSlot>(&[]) {
            let (slot, pool) = entry.unwrap();
            assert!(slot.release > self.epoch());
            assert_eq!(Some(pool.shares), shares.remove(&(slot.release, slot.node)));
        }
        assert_eq!(shares, BTreeMap::new());
    }

    /// The state that someone else reads from the same tree.
    pub(crate) fn reopened(&self) -> State {
        let state = State::open(self.state.tree().clone()).unwrap();
        assert_eq!(state.committee(), self.state.committee());
        assert_eq!(state.previous_committee(), self.state.previous_committee());
        state
    }

    /// Index of a node in the committee.
    pub(crate) fn member(&self, index: u8) -> NodeIndex {
        self.state.committee().index_of(&node(index)).unwrap()
    }
}

/// The header of the blob with this number, on this network.
pub(crate) fn header(world: &World, blob: u8) -> BlobHeader {
    let shape = BlobShape::new(world.state.committee().n_shards(), BLOB_BYTES).unwrap();
    let roots: Vec<Hash> = shape.segments().map(|_| Hash([blob; 32])).collect();
    BlobHeader::new(&shape, &roots)
}

pub(crate) fn blob_id(world: &World, blob: u8) -> BlobId {
    header(world, blob).blob_id()
}

pub(crate) fn register(world: &World, blob: u8, persistence: Persistence, end: u32) -> Action {
    Action::RegisterBlob { header: header(world, blob), persistence, end_epoch: Epoch(end) }
}

pub(crate) fn canonical_len(action: &Action) -> usize {
    codec::encode(action).len()
}
