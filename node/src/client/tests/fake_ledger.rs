//! A ledger without consensus: the real state machine, in blocks that all members sign at once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use protocol::{
    AccountId, BlobId, NetworkId, NodeIndex, RegistrationId, codec,
    commitment::BlobHeader,
    genesis::Genesis,
    ledger::{
        answer::Answer,
        block::{Block, Draft, Header, Tip},
        commit::CommitCertificate,
        signature::SigningKey,
        state::{
            State,
            entry::{Account, Blob, Registration},
        },
        transaction::{Action, SignedTransaction, Transaction, TransactionId},
        vote::{VoteKind, vote_bytes},
    },
    message::Refusal,
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
}

/// The state behind a block, and the proof of it.
#[derive(Clone)]
struct Moment {
    state: State,
    head: Option<(Header, CommitCertificate)>,
}

pub(super) struct FakeLedger {
    network: NetworkId,
    /// In the order of the members.
    keys: Vec<SigningKey>,
    tip: Tip,
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
        Self { network, keys, tip, moments, executed: BTreeMap::new(), block_time: Duration::ZERO }
    }

    fn last(&self) -> &Moment {
        self.moments.last().unwrap()
    }

    pub(super) fn state(&self) -> &State {
        &self.last().state
    }

    fn sign(&self, header: &Header, signers: &[usize]) -> CommitCertificate {
        let text = vote_bytes(&self.network, header.height, 0, VoteKind::Precommit, Some(header.id()));
        let signatures = signers
            .iter()
            .map(|signer| (NodeIndex(u16::try_from(*signer).unwrap()), self.keys[*signer].sign(&text)));
        CommitCertificate::new(header.height, 0, header.id(), signatures).unwrap()
    }

    /// Adds a block without transactions, or of one.
    pub(super) fn advance(&mut self, transaction: Option<&SignedTransaction>) -> Result<u64, Refusal> {
        let Moment { mut state, head } = self.last().clone();
        let height = self.tip.height + 1;
        let time_ms = 1000 * height;
        state.begin_block(height, time_ms).unwrap();
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
            next_committee: None,
        };
        let block = Block::build(draft).unwrap();
        let header = block.header().clone();
        self.tip = self.tip.advanced(&header, None);
        let everyone: Vec<usize> = (0..self.keys.len()).collect();
        let certificate = self.sign(&header, &everyone);
        self.moments.push(Moment { state, head: Some((header, certificate)) });
        Ok(height)
    }

    /// The payload with which `node` answers.
    pub(super) fn answer(&self, node: NodeIndex, keys: &[Vec<u8>], tampering: Tampering) -> Vec<u8> {
        let moment = match tampering {
            Tampering::Stale(height) => &self.moments[usize::try_from(height).unwrap()],
            _ => self.last(),
        };
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
                tree.insert(key, &codec::encode(&Account { balance: 1 << 40, nonce: 0 }));
            }
        }
        match tampering {
            Tampering::ForgedHead | Tampering::BorrowedCertificate => {
                let (mut header, mut certificate) = head.unwrap();
                header.state_root = tree.root();
                if tampering == Tampering::ForgedHead {
                    certificate = self.sign(&header, &[node.as_usize()]);
                }
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
