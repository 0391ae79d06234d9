//! What a member says that lies in consensus. An honest replica runs behind it, so its lies are about what is going on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use node::{latest, ledger::View};
use protocol::{
    BlockId, NetworkId, NodeIndex, PeerId,
    committee::Committee,
    genesis::Genesis,
    ledger::{
        block::{Block, Decided, Draft, Tip, committee_hash},
        commit::CommitCertificate,
        signature::{Signature, SigningKey},
        state::State,
        transaction::{Action, SignedTransaction, Transaction},
        vote::{Proposal, SignedProposal, SignedVote, Vote, VoteKind},
        wire::{Message, PolkaCertificate, Response, RoundCertificate, RoundReason},
    },
};
use rand::{Rng as _, SeedableRng as _, seq::IteratorRandom as _};
use rand_chacha::ChaCha8Rng;
use swarm::Topic;

use super::{byzantine::Behaviour, model::Model};

/// Pairs of blocks that a member proposed to different members, both ways round: what those who vote for both need to know.
/// Liars of one network know each other's.
type Siblings = Arc<Mutex<BTreeMap<BlockId, BlockId>>>;

/// Something that a member says, and to whom; `None` is to everyone.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) topic: Topic,
    pub(super) data: Bytes,
    pub(super) audience: Option<BTreeSet<PeerId>>,
}

impl Said {
    fn new(message: &Message, audience: Option<BTreeSet<PeerId>>) -> Self {
        let topic = match message {
            Message::Transactions(_) => Topic::Transactions,
            _ => Topic::Ledger,
        };
        Self { topic, data: message.encode().into(), audience }
    }
}

/// What all liars of a network have in common.
#[derive(Clone, Debug)]
pub(super) struct Conspiracy {
    pub(super) seed: u64,
    pub(super) genesis: Arc<Genesis>,
    pub(super) model: Arc<Mutex<Model>>,
    siblings: Siblings,
}

impl Conspiracy {
    pub(super) fn new(seed: u64, genesis: Arc<Genesis>, model: Arc<Mutex<Model>>) -> Self {
        Self { seed, genesis, model, siblings: Siblings::default() }
    }

    fn siblings(&self) -> MutexGuard<'_, BTreeMap<BlockId, BlockId>> {
        self.siblings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The members that are told the first of two things in this round, and those that are told the second. Every liar
    /// divides them in the same way.
    fn halves(&self, committee: &Committee, height: u64, round: u32) -> [BTreeSet<PeerId>; 2] {
        let seed = self.seed ^ height.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(round).rotate_left(40);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let members = committee.members().iter().map(|member| member.peer);
        let (first, second) = members.partition(|_| rng.random());
        [first, second]
    }
}

/// One member that lies.
#[derive(Debug)]
pub(super) struct Liar {
    behaviour: Behaviour,
    key: SigningKey,
    others: Conspiracy,
    /// The ledger of its own node, once that has been started.
    view: Option<latest::Receiver<View>>,
    rng: ChaCha8Rng,
    /// Contradictions told so far.
    contradictions: u64,
}

impl Liar {
    pub(super) fn new(behaviour: Behaviour, key: SigningKey, others: Conspiracy) -> Self {
        let peer = u64::from(key.peer().0[0]);
        let rng = ChaCha8Rng::seed_from_u64(others.seed.wrapping_mul(257).wrapping_add(peer));
        Self { behaviour, key, others, view: None, rng, contradictions: 0 }
    }

    /// Lets it see the ledger of its own node.
    pub(super) fn sees(&mut self, view: latest::Receiver<View>) {
        self.view = Some(view);
    }

    /// Contradictions told so far, each of which convicts.
    pub(super) const fn contradictions(&self) -> u64 {
        self.contradictions
    }

    fn network(&self) -> NetworkId {
        self.others.genesis.network_id()
    }

    /// The committee that decides on the next height, as its own node knows.
    fn committee(&self) -> Arc<Committee> {
        let view = self.view.as_ref().map(|view| Arc::clone(view.get().state.committee()));
        view.unwrap_or_else(|| Arc::new(self.others.genesis.committee().clone()))
    }

    fn count(&self, lie: &'static str) {
        self.others.model.lock().unwrap_or_else(PoisonError::into_inner).fault(lie);
    }

    /// What it says instead of what its replica says.
    pub(super) fn twist(&mut self, topic: Topic, data: &Bytes) -> Vec<Said> {
        let as_it_is = || vec![Said { topic, data: data.clone(), audience: None }];
        let Ok(message) = Message::decode(data) else { return as_it_is() };
        match self.behaviour {
            Behaviour::DoubleVoter => self.double_vote(&message),
            Behaviour::Equivocator => self.equivocate(&message),
            Behaviour::Withholder => self.withhold(&message),
            Behaviour::Forger => {
                let mut said = as_it_is();
                if let Some(forged) = self.forge(&message) {
                    self.count("forged message");
                    said.push(Said::new(&forged, None));
                }
                return said;
            }
            _ => None,
        }
        .unwrap_or_else(as_it_is)
    }

    /// Two votes instead of one, each for one half.
    fn double_vote(&mut self, message: &Message) -> Option<Vec<Said>> {
        let Message::Vote(SignedVote { vote, .. }) = message else { return None };
        let sibling = vote.block.and_then(|block| self.others.siblings().get(&block).copied());
        let block = match sibling {
            Some(sibling) => Some(sibling),
            None if vote.block.is_some() && self.rng.random() => None,
            None => Some(BlockId(self.rng.random())),
        };
        Some(self.both_votes(*vote, message, block))
    }

    fn both_votes(&mut self, vote: Vote, message: &Message, block: Option<BlockId>) -> Vec<Said> {
        self.count("double vote");
        self.contradictions += 1;
        let second = Message::Vote(Vote { block, ..vote }.sign(&self.network(), &self.key));
        let [these, those] = self.others.halves(&self.committee(), vote.height, vote.round);
        vec![Said::new(message, Some(these)), Said::new(&second, Some(those))]
    }

    /// Two proposals instead of one, and votes for both.
    fn equivocate(&mut self, message: &Message) -> Option<Vec<Said>> {
        match message {
            Message::Proposal { proposal: SignedProposal { proposal, .. }, block }
                if proposal.proposer == self.key.peer() =>
            {
                let known = self.others.siblings().contains_key(&block.id());
                let other = Arc::new(self.sibling(block)?);
                if !known {
                    let mut siblings = self.others.siblings();
                    siblings.insert(block.id(), other.id());
                    siblings.insert(other.id(), block.id());
                }
                self.count("double proposal");
                self.contradictions += 1;
                let second = Proposal { block: other.id(), ..*proposal }.sign(&self.network(), &self.key);
                let second = Message::Proposal { proposal: second, block: other };
                let [these, those] = self.others.halves(&self.committee(), proposal.height, proposal.round);
                Some(vec![Said::new(message, Some(these)), Said::new(&second, Some(those))])
            }
            Message::Vote(SignedVote { vote, .. }) => {
                let sibling = self.others.siblings().get(&vote.block?).copied()?;
                Some(self.both_votes(*vote, message, Some(sibling)))
            }
            _ => None,
        }
    }

    /// Another block of the same height that every honest member finds sound; always the same for a block.
    fn sibling(&self, block: &Block) -> Option<Block> {
        let header = block.header();
        let view = self.view.as_ref()?.get();
        if view.height() + 1 != header.height {
            return None;
        }
        let network = self.network();
        let time_ms = header.time_ms + 1;
        let mut state: State = view.state.clone();
        state.begin_block(header.height, time_ms).ok()?;
        let next_committee = state.new_committee().map(|next| committee_hash(next));
        for bytes in block.transactions() {
            let transaction = SignedTransaction::from_bytes(bytes).ok()?.verify(&network).ok()?;
            state.apply(&transaction).ok()?;
        }
        let draft = Draft {
            time_ms,
            last_commit: block.last_commit().cloned(),
            transactions: block.transactions().to_vec(),
            state_root: state.end_block(),
            next_committee,
            tip: self.tip(&view),
        };
        Block::build(draft).ok()
    }

    fn tip(&self, view: &View) -> Tip {
        let committee = Arc::clone(view.state.committee());
        match view.head.as_deref() {
            Some((header, _)) => Tip::of(header, Arc::clone(view.signed_by()), committee),
            None => Tip::genesis(self.network(), committee),
        }
    }

    /// Keeps its proposals to itself, or shows them to one member only; and half of its votes.
    fn withhold(&mut self, message: &Message) -> Option<Vec<Said>> {
        let is_kept = match message {
            Message::Proposal { proposal, .. } => proposal.proposal.proposer == self.key.peer(),
            Message::Vote(_) => self.rng.random(),
            _ => false,
        };
        if !is_kept {
            return None;
        }
        self.count("withheld");
        let is_proposal = matches!(message, Message::Proposal { .. });
        if !is_proposal || self.rng.random() {
            return Some(Vec::new());
        }
        let committee = self.committee();
        let members = committee.members();
        let me = self.key.peer();
        let one = members.iter().map(|member| member.peer).filter(|peer| *peer != me).choose(&mut self.rng);
        Some(vec![Said::new(message, Some(one.into_iter().collect()))])
    }

    fn signature(&mut self) -> Signature {
        Signature(std::array::from_fn(|_| self.rng.random()))
    }

    /// Something that no honest member says, about the same height.
    fn forge(&mut self, message: &Message) -> Option<Message> {
        let height = message
            .height()
            .unwrap_or_else(|| self.view.as_ref().map_or(1, |view| view.get().height().saturating_add(1)));
        let round = self.rng.random_range(0..3);
        let id = BlockId(self.rng.random());
        let members: Vec<PeerId> = self.committee().members().iter().map(|member| member.peer).collect();
        let victim = members[self.rng.random_range(0..members.len())];
        Some(match self.rng.random_range(0..9_u32) {
            0 => {
                let kind = if self.rng.random() { VoteKind::Prevote } else { VoteKind::Precommit };
                let vote = Vote { height, round, kind, block: Some(id), voter: victim };
                Message::Vote(SignedVote { vote, signature: self.signature() })
            }
            1 => {
                let signatures = members.into_iter().map(|peer| (peer, self.signature())).collect();
                Message::Polka(PolkaCertificate { height, round, block: id, signatures })
            }
            2 => {
                let votes = members.into_iter();
                let votes = votes.map(|peer| (VoteKind::Precommit, None, peer, self.signature())).collect();
                Message::Round(RoundCertificate { height, round, reason: RoundReason::Precommits, votes })
            }
            // Too few, well signed: its own alone, or its own as often as it takes.
            3 => {
                let (kind, me) = (VoteKind::Prevote, self.key.peer());
                let vote = Vote { height, round, kind, block: Some(id), voter: me };
                let signature = vote.sign(&self.network(), &self.key).signature;
                let n = if self.rng.random() { 1 } else { members.len() };
                Message::Polka(PolkaCertificate {
                    height,
                    round,
                    block: id,
                    signatures: vec![(me, signature); n],
                })
            }
            4 => Message::Status { height: u64::MAX },
            5 => self.replay(message)?,
            6 => match message {
                Message::Proposal { proposal, block } => self.uncertified(proposal, block)?,
                _ => return None,
            },
            _ => Message::Transactions(self.bad_transactions(message)),
        })
    }

    /// A vote of another member for the block before, well signed by it.
    fn replay(&mut self, message: &Message) -> Option<Message> {
        let last = match message {
            Message::Proposal { block, .. } => block.last_commit()?.clone(),
            _ => self.view.as_ref()?.get().head.as_ref()?.1.clone(),
        };
        let (signer, signature) = last.signatures().iter().choose(&mut self.rng)?;
        let voter = self.committee().member(*signer)?.peer;
        let (height, round, block) = (last.height(), last.round(), Some(last.block_id()));
        let vote = Vote { height, round, kind: VoteKind::Precommit, block, voter };
        Some(Message::Vote(SignedVote { vote, signature: *signature }))
    }

    /// Its own proposal, well signed, with a certificate of the block before that too few signed, or forged.
    fn uncertified(&mut self, signed: &SignedProposal, block: &Block) -> Option<Message> {
        if signed.proposal.proposer != self.key.peer() {
            return None;
        }
        let last = block.last_commit()?;
        let is_forged: bool = self.rng.random();
        let n = if is_forged { last.signatures().len() } else { 1 };
        let signatures: Vec<(NodeIndex, Signature)> = last
            .signatures()
            .iter()
            .take(n)
            .map(|(node, signature)| (*node, if is_forged { self.signature() } else { *signature }))
            .collect();
        let last = CommitCertificate::new(last.height(), last.round(), last.block_id(), signatures).ok()?;
        let view = self.view.as_ref()?.get();
        if view.height() + 1 != block.header().height {
            return None;
        }
        let draft = Draft {
            tip: self.tip(&view),
            time_ms: block.header().time_ms,
            last_commit: Some(last),
            transactions: block.transactions().to_vec(),
            state_root: block.header().state_root,
            next_committee: None,
        };
        let block = Block::build(draft).ok()?;
        let proposal = Proposal { block: block.id(), ..signed.proposal }.sign(&self.network(), &self.key);
        Some(Message::Proposal { proposal, block: Arc::new(block) })
    }

    /// Transactions that belong into no block: no transactions at all, one of another network, one of a later time, one
    /// that nobody signed, and one that may have been executed before.
    fn bad_transactions(&mut self, message: &Message) -> Vec<Vec<u8>> {
        let (sender, to) = (self.key.account(), self.key.account());
        let transfer = |nonce| Transaction { sender, nonce, action: Action::Transfer { to, amount: 1 } };
        let other = NetworkId(self.rng.random());
        let mut altered = transfer(0).sign(&self.network(), &self.key).to_bytes();
        let at = self.rng.random_range(0..altered.len());
        altered[at] ^= 1;
        let mut batch = vec![
            (0..self.rng.random_range(0..200)).map(|_| self.rng.random()).collect(),
            transfer(0).sign(&other, &self.key).to_bytes(),
            transfer(self.rng.random_range(1..9)).sign(&self.network(), &self.key).to_bytes(),
            altered,
        ];
        if let Message::Proposal { block, .. } = message {
            batch.extend(block.transactions().iter().take(4).cloned());
        }
        batch
    }

    /// What it answers instead; `None` if that is the truth.
    pub(super) fn twist_answer(&mut self, response: &Response) -> Option<Response> {
        let forged = match (self.behaviour, response) {
            (Behaviour::Withholder, Response::Blocks(blocks)) if !blocks.is_empty() => {
                self.count("withheld");
                return Some(Response::Blocks(Vec::new()));
            }
            (Behaviour::Forger, Response::Status { .. }) => Response::Status { height: u64::MAX },
            (Behaviour::Forger, Response::Blocks(blocks)) if !blocks.is_empty() => {
                match self.rng.random_range(0..4_u32) {
                    0 => Response::Blocks(blocks[1..].to_vec()),
                    1 => Response::Status { height: 1 },
                    _ => Response::Blocks(blocks.iter().map(|it| self.forge_decided(it)).collect()),
                }
            }
            _ => return None,
        };
        self.count("forged answer");
        Some(forged)
    }

    /// A block with a certificate that proves nothing: too few signatures, or one that is not its member's.
    fn forge_decided(&mut self, decided: &Decided) -> Decided {
        let Decided { block, certificate } = decided;
        let n = if self.rng.random() { 1 } else { certificate.signatures().len() };
        let mut signatures: Vec<_> =
            certificate.signatures().iter().take(n).map(|(node, it)| (*node, *it)).collect();
        if n > 1
            && let Some((_, signature)) = signatures.iter_mut().choose(&mut self.rng)
        {
            signature.0[0] ^= 1;
        }
        let (height, round) = (certificate.height(), certificate.round());
        let certificate = CommitCertificate::new(height, round, block.id(), signatures)
            .expect("signers of a certificate are different");
        Decided { block: Arc::clone(block), certificate }
    }
}
