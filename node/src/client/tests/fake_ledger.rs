//! A ledger without consensus: the real state machine, in blocks that all members sign at once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use protocol::{
    AccountId, BlobId, Epoch, NetworkId, NodeIndex, PeerId, RegistrationId, codec,
    commitment::BlobHeader,
    committee::Committee,
    genesis::Genesis,
    hash::Hash,
    ledger::{
        answer::Answer,
        block::{Block, Draft, Header, Tip, committee_hash},
        commit::CommitCertificate,
        signature::SigningKey,
        state::{
            State,
            entry::{Account, Blob, Registration},
        },
        transaction::{Action, SignedTransaction, Transaction, TransactionId},
        vote::{VoteKind, vote_bytes},
        wire,
    },
    message::{Refusal, Request},
};

/// What a node does to the ledger's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tampering {
    /// Nothing.
    None,
    /// Proves another balance, by a tree of its own.
    ForgedValue,
    /// Has its own tree in a header that it signed alone.
    ForgedHead,
    /// Has its own tree in a header to which it adds the certificate of the real one.
    BorrowedCertificate,
    /// Has its own tree, as if there were no block yet.
    ForgedGenesis,
    /// Leaves out the last proof.
    Truncated,
    /// Sends what does not decode.
    Garbage,
    /// Answers with what was so at this height.
    Stale(u64),
    /// Says of every transaction that it was executed at this height, and drops it.
    ClaimsExecuted(u64),
    /// Rejects every transaction.
    Rejects,
    /// Takes transactions, and says that they are not ordered.
    DropsUnordered,
    /// Has transactions executed, and says that they are not ordered yet.
    ExecutesUnordered,
    /// Has transactions executed, and is not heard of again.
    GoneOnceExecuted,
    /// Shows changes of the committee that it signed alone.
    ForgedChange,
    /// Shows another committee than the one that took over.
    OtherCommittee,
    /// Leaves changes of the committee out.
    SkipsChange,
    /// Shows no change of the committee.
    NoChange,
    /// Says that the committee changed far more often than it did.
    ClaimsEpoch(u32),
}

/// Is called with every request before it is answered.
pub(super) type Hook = Box<dyn FnMut(&Request, &[u8], &mut FakeLedger) + Send>;

/// A block that changed the committee.
struct Change {
    header: Header,
    certificate: CommitCertificate,
    committee: Arc<Committee>,
}

/// The state behind a block, and the proof of it.
#[derive(Clone)]
struct Moment {
    state: State,
    head: Option<(Header, CommitCertificate)>,
}

pub(super) struct FakeLedger {
    network: NetworkId,
    /// Of all nodes.
    keys: BTreeMap<PeerId, SigningKey>,
    tip: Tip,
    changes: Vec<Change>,
    /// Something that is to happen when something is asked.
    pub(super) hook: Option<Hook>,
    /// By height.
    moments: Vec<Moment>,
    /// Heights of the blocks of all transactions.
    executed: BTreeMap<TransactionId, u64>,
    /// How long a transaction takes to get into a block.
    pub(super) block_time: Duration,
}

impl FakeLedger {
    pub(super) fn new(genesis: &Genesis, keys: Vec<SigningKey>) -> Self {
        let network = genesis.network_id();
        let state = State::genesis(genesis).unwrap();
        let tip = Tip::genesis(network, Arc::new(genesis.committee().clone()));
        let moments = vec![Moment { state, head: None }];
        let keys = keys.into_iter().map(|key| (key.peer(), key)).collect();
        let (changes, executed) = (Vec::new(), BTreeMap::new());
        Self { network, keys, tip, changes, hook: None, moments, executed, block_time: Duration::ZERO }
    }

    /// Something is asked.
    pub(super) fn observe(&mut self, request: &Request, payload: &[u8]) {
        if let Some(mut hook) = self.hook.take() {
            hook(request, payload, self);
            self.hook.get_or_insert(hook);
        }
    }

    fn moment(&self, tampering: Tampering) -> &Moment {
        match tampering {
            Tampering::Stale(height) => &self.moments[usize::try_from(height).unwrap()],
            _ => self.last(),
        }
    }

    /// The state, as a node knows it.
    pub(super) fn state_of(&self, tampering: Tampering) -> &State {
        &self.moment(tampering).state
    }

    /// Another committee takes over, in a block of its own.
    pub(super) fn begin_epoch(&mut self, committee: Arc<Committee>) -> u64 {
        self.add(None, Some(committee)).unwrap()
    }

    /// What members announce of the last change of the committee.
    pub(super) fn announcement(&self) -> Vec<u8> {
        let Change { header, certificate, .. } = self.changes.last().unwrap();
        codec::encode(&(header.clone(), certificate.clone()))
    }

    /// Members say that their shards are ready, until the handover is done.
    pub(super) fn finish_handover(&mut self) {
        let committee = Arc::clone(self.state().committee());
        for member in committee.members() {
            if self.state().previous_committee().is_some() {
                let key = self.keys[&member.peer].clone();
                self.execute(&key, Action::ShardsReady { epoch: committee.epoch() });
            }
        }
    }

    fn last(&self) -> &Moment {
        self.moments.last().unwrap()
    }

    pub(super) fn state(&self) -> &State {
        &self.last().state
    }

    fn sign(&self, header: &Header, signers: impl IntoIterator<Item = PeerId>) -> CommitCertificate {
        let text = vote_bytes(&self.network, header.height, 0, VoteKind::Precommit, Some(header.id()));
        let committee = self.tip.committee();
        let signatures = signers.into_iter().map(|signer| {
            // Who is no member signs as somebody else.
            let node = committee.index_of(&signer).unwrap_or(NodeIndex(0));
            (node, self.keys[&signer].sign(&text))
        });
        CommitCertificate::new(header.height, 0, header.id(), signatures).unwrap()
    }

    /// Adds a block without transactions, or of one.
    pub(super) fn advance(&mut self, transaction: Option<&SignedTransaction>) -> Result<u64, Refusal> {
        self.add(transaction, None)
    }

    fn add(
        &mut self,
        transaction: Option<&SignedTransaction>,
        next: Option<Arc<Committee>>,
    ) -> Result<u64, Refusal> {
        let Moment { mut state, head } = self.last().clone();
        let height = self.tip.height + 1;
        let time_ms = 1000 * height;
        state.begin_block(height, time_ms).unwrap();
        if let Some(next) = &next {
            state.advance_epoch(Arc::clone(next)).unwrap();
        }
        if let Some(transaction) = transaction {
            let verified = transaction.clone().verify(&self.network).map_err(|_| Refusal::Unverifiable)?;
            // Submitted again, it is not executed again.
            if let Some(height) = self.executed.get(&verified.id()) {
                return Ok(*height);
            }
            state.apply(&verified).map_err(|error| Refusal::Rejected(error.to_string()))?;
            self.executed.insert(verified.id(), height);
        }
        let draft = Draft {
            tip: self.tip.clone(),
            time_ms,
            last_commit: head.map(|(_, certificate)| certificate),
            transactions: transaction.map(SignedTransaction::to_bytes).into_iter().collect(),
            state_root: state.end_block(),
            next_committee: next.as_deref().map(committee_hash),
        };
        let block = Block::build(draft).unwrap();
        let header = block.header().clone();
        let everyone: Vec<PeerId> = self.tip.committee().members().iter().map(|member| member.peer).collect();
        let certificate = self.sign(&header, everyone);
        self.tip = self.tip.advanced(&header, next.clone());
        if let Some(committee) = next {
            let (header, certificate) = (header.clone(), certificate.clone());
            self.changes.push(Change { header, certificate, committee });
        }
        self.moments.push(Moment { state, head: Some((header, certificate)) });
        Ok(height)
    }

    /// What a node says of the changes of the committee.
    pub(super) fn answer_about_committees(
        &self,
        peer: PeerId,
        request: &wire::Request,
        tampering: Tampering,
    ) -> Vec<u8> {
        let height = match tampering {
            Tampering::Stale(height) => height,
            _ => u64::MAX,
        };
        let mut known = self.changes.iter().filter(|change| change.header.height <= height);
        let response = match request {
            wire::Request::Change { .. } if tampering == Tampering::NoChange => wire::Response::Change(None),
            wire::Request::Change { after } => {
                let mut later = known.filter(|change| change.header.height > *after);
                let change = match tampering {
                    Tampering::SkipsChange => later.next_back(),
                    _ => later.next(),
                };
                wire::Response::Change(change.map(|change| {
                    let (mut header, mut certificate) = (change.header.clone(), change.certificate.clone());
                    if tampering == Tampering::ForgedChange {
                        header.next_committee = Some(Hash([9; 32]));
                        certificate = self.sign(&header, [peer]);
                    }
                    Box::new((header, certificate))
                }))
            }
            wire::Request::Committee { height, offset } => {
                let change = known.find(|change| change.header.height == *height);
                let mut form = change.map(|change| codec::encode(&*change.committee)).unwrap_or_default();
                if tampering == Tampering::OtherCommittee {
                    form[100] ^= 1;
                }
                let start = usize::try_from(*offset).unwrap().min(form.len());
                let end = form.len().min(start + wire::COMMITTEE_PART_BYTES);
                wire::Response::Committee(form[start..end].to_vec())
            }
            other => panic!("no client asks {other:?}"),
        };
        response.encode()
    }

    /// The payload with which a node answers.
    pub(super) fn answer(&self, peer: PeerId, keys: &[Vec<u8>], tampering: Tampering) -> Vec<u8> {
        let moment = self.moment(tampering);
        let mut tree = moment.state.tree().clone();
        let mut head = moment.head.clone();
        if matches!(
            tampering,
            Tampering::ForgedValue
                | Tampering::ForgedHead
                | Tampering::ForgedGenesis
                | Tampering::BorrowedCertificate
        ) {
            for key in keys {
                tree.insert(key, &codec::encode(&Account { balance: 1 << 40, ..Account::default() }));
            }
        }
        match tampering {
            Tampering::ForgedHead | Tampering::BorrowedCertificate => {
                let (mut header, mut certificate) = head.unwrap();
                header.state_root = tree.root();
                if tampering == Tampering::ForgedHead {
                    certificate = self.sign(&header, [peer]);
                }
                head = Some((header, certificate));
            }
            Tampering::ClaimsEpoch(epoch) => {
                let (mut header, _) = head.unwrap();
                header.epoch = Epoch(epoch);
                header.height += 1000;
                let certificate = self.sign(&header, [peer]);
                head = Some((header, certificate));
            }
            Tampering::ForgedGenesis => head = None,
            Tampering::Garbage => return vec![7; 100],
            _ => {}
        }
        let mut proofs: Vec<_> = keys.iter().map(|key| tree.prove(key)).collect();
        if tampering == Tampering::Truncated {
            proofs.pop();
        }
        Answer { head, proofs }.to_bytes()
    }

    pub(super) fn submit(&mut self, payload: &[u8], tampering: Tampering) -> Result<u64, Refusal> {
        let transaction = SignedTransaction::from_bytes(payload).map_err(|_| Refusal::Malformed)?;
        match tampering {
            Tampering::ClaimsExecuted(height) => return Ok(height),
            Tampering::Rejects => return Err(Refusal::Rejected("no such luck".to_owned())),
            Tampering::DropsUnordered => return Err(Refusal::NotOrdered),
            _ => {}
        }
        let height = self.advance(Some(&transaction))?;
        if tampering == Tampering::ExecutesUnordered { Err(Refusal::NotOrdered) } else { Ok(height) }
    }

    /// Has an action of an account executed in a block of its own.
    pub(super) fn execute(&mut self, key: &SigningKey, action: Action) -> u64 {
        let sender = key.account();
        let nonce = self.account(&sender).nonce;
        let transaction = Transaction { sender, nonce, action }.sign(&self.network, key);
        self.advance(Some(&transaction)).unwrap()
    }

    /// True if there is this registration, false if it can still be made.
    pub(super) fn has(&self, blob_id: BlobId, registration: RegistrationId) -> Result<bool, Refusal> {
        let RegistrationId { owner, nonce } = registration;
        match self.registration(blob_id, &owner) {
            Some(registration) if registration.nonce == nonce => Ok(true),
            _ if self.account(&owner).nonce <= nonce => Ok(false),
            _ => Err(Refusal::NotRegistered),
        }
    }

    /// True if a node may act on an order.
    pub(super) fn would_execute(&self, order: &[u8], of: &BlobHeader, registration: RegistrationId) -> bool {
        let Ok(signed) = SignedTransaction::from_bytes(order) else { return false };
        let Ok(verified) = signed.verify(&self.network) else { return false };
        let Transaction { sender, nonce, action } = verified.transaction();
        matches!(action, Action::RegisterBlob { header, .. } if header == of)
            && (RegistrationId { owner: *sender, nonce: *nonce }) == registration
            && self.state().clone().apply(&verified).is_ok()
    }

    pub(super) fn blob(&self, blob_id: BlobId) -> Option<Blob> {
        self.state().blob(&blob_id).unwrap()
    }

    pub(super) fn is_available(&self, blob_id: BlobId) -> bool {
        self.blob(blob_id).is_some_and(|blob| blob.available.is_some())
    }

    pub(super) fn is_invalid(&self, blob_id: BlobId) -> bool {
        self.blob(blob_id).is_some_and(|blob| blob.invalid.is_some())
    }

    pub(super) fn registration(&self, blob_id: BlobId, owner: &AccountId) -> Option<Registration> {
        self.state().registration(&blob_id, owner).unwrap()
    }

    /// Height of the last block.
    pub(super) const fn height(&self) -> u64 {
        self.tip.height
    }

    /// Credits of an account, and the nonce of its next transaction.
    pub(super) fn account(&self, account: &AccountId) -> Account {
        self.state().account(account).unwrap()
    }
}
