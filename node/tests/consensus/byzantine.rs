//! Members that lie. Each runs an honest replica behind it, so that its lies are about what is going on.

use std::sync::Arc;

use protocol::{
    BlockId, NetworkId, NodeIndex,
    ledger::{
        block::{Block, Decided, Draft, Tip},
        commit::CommitCertificate,
        signature::{Signature, SigningKey},
        vote::{Proposal, SignedProposal, SignedVote, Vote, VoteKind},
        wire::{Message, PolkaCertificate, Response, RoundCertificate, RoundReason},
    },
};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::{
    snapshots::mislead,
    toy::{Toy, key, node_of},
};

/// How a member lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Says one thing to some and another to others.
    Equivocates,
    /// Keeps its proposals and half of its votes to itself, and never has blocks to give.
    Withholds,
    /// Forges votes, certificates, proposals, heights and blocks.
    Forges,
    /// Gives wrong states to those who are behind, and is honest otherwise.
    Misleads,
}

impl Lie {
    /// Those that concern every height.
    pub const ALL: [Self; 3] = [Self::Equivocates, Self::Withholds, Self::Forges];
}

/// What a lying member needs to know.
pub struct Liar<'a> {
    pub lie: Lie,
    pub network: NetworkId,
    pub key: SigningKey,
    pub tip: Tip,
    pub app: &'a Toy,
    pub rng: &'a mut ChaCha8Rng,
}

impl Liar<'_> {
    /// What goes out instead of a message: to those for whom the draw is true the first, to others the second.
    pub fn twist(&mut self, message: Message) -> Vec<(Message, Option<Message>)> {
        match self.lie {
            Lie::Equivocates => match self.contradict(&message) {
                Some(other) => vec![(message, Some(other))],
                None => vec![(message, None)],
            },
            Lie::Withholds => match message {
                Message::Proposal { .. } => Vec::new(),
                Message::Vote(_) if self.rng.random() => Vec::new(),
                message => vec![(message, None)],
            },
            Lie::Forges => {
                let forged = self.forge(&message);
                vec![(message, None), (forged, None)]
            }
            Lie::Misleads => vec![(message, None)],
        }
    }

    fn contradict(&mut self, message: &Message) -> Option<Message> {
        match message {
            Message::Vote(SignedVote { vote, .. }) => {
                let block = match vote.block {
                    Some(_) if self.rng.random() => None,
                    _ => Some(BlockId(self.rng.random())),
                };
                Some(Message::Vote(Vote { block, ..*vote }.sign(&self.network, &self.key)))
            }
            Message::Proposal { proposal, block } => {
                let other = self.sibling(block)?;
                let proposal = Proposal { block: other.id(), ..proposal.proposal };
                let proposal = proposal.sign(&self.network, &self.key);
                Some(Message::Proposal { proposal, block: Arc::new(other) })
            }
            _ => None,
        }
    }

    /// Another valid block of the same height.
    fn sibling(&mut self, block: &Block) -> Option<Block> {
        if block.header().height != self.tip.height + 1 {
            return None;
        }
        let time_ms = block.header().time_ms + 1;
        let extra = format!("sibling {}", self.rng.random::<u64>()).into_bytes();
        let payload = self.app.payload(vec![extra], time_ms);
        let draft = Draft {
            tip: self.tip.clone(),
            time_ms,
            last_commit: block.last_commit().cloned(),
            transactions: payload.transactions,
            state_root: payload.state_root,
            next_committee: payload.next_committee,
        };
        Block::build(draft).ok()
    }

    fn signature(&mut self) -> Signature {
        Signature(std::array::from_fn(|_| self.rng.random()))
    }

    /// A message that no honest node sends, about the same height.
    fn forge(&mut self, message: &Message) -> Message {
        let height = message.height().unwrap_or(self.tip.height + 1);
        let round = self.rng.random_range(0..3);
        let id = BlockId(self.rng.random());
        let victim = key(self.rng.random_range(0..4)).peer();
        let committee = Arc::clone(self.tip.committee());
        let everyone = committee.members().iter().map(|member| member.peer);
        match (self.rng.random_range(0..7), message) {
            (0, _) => {
                let kind = if self.rng.random() { VoteKind::Prevote } else { VoteKind::Precommit };
                let vote = Vote { height, round, kind, block: Some(id), voter: victim };
                Message::Vote(SignedVote { vote, signature: self.signature() })
            }
            (1, _) => {
                let signatures = everyone.map(|peer| (peer, self.signature())).collect();
                Message::Polka(PolkaCertificate { height, round, block: id, signatures })
            }
            (2, _) => {
                let votes = everyone.map(|peer| (VoteKind::Precommit, None, peer, self.signature()));
                let votes = votes.collect();
                Message::Round(RoundCertificate { height, round, reason: RoundReason::Precommits, votes })
            }
            // Its own signature, as often as it takes.
            (3, _) => {
                let vote =
                    Vote { height, round, kind: VoteKind::Prevote, block: Some(id), voter: self.key.peer() };
                let SignedVote { signature, .. } = vote.sign(&self.network, &self.key);
                let signatures = vec![(self.key.peer(), signature); committee.members().len()];
                Message::Polka(PolkaCertificate { height, round, block: id, signatures })
            }
            (4, Message::Proposal { proposal, block }) => {
                // Another block than the one that it names, or a turn that is not its own: both well signed.
                let proposal = if self.rng.random() {
                    Proposal { block: id, ..proposal.proposal }
                } else {
                    Proposal { round: proposal.proposal.round + 1, ..proposal.proposal }
                };
                let proposal = proposal.sign(&self.network, &self.key);
                Message::Proposal { proposal, block: Arc::clone(block) }
            }
            (5, _) => Message::Status { height: u64::MAX },
            (6, Message::Proposal { proposal, block }) => self.invalid_proposal(*proposal, block),
            _ => {
                let vote =
                    Vote { height: height + 1, round, kind: VoteKind::Prevote, block: None, voter: victim };
                Message::Vote(SignedVote { vote, signature: self.signature() })
            }
        }
    }

    /// Its own proposal, well signed, of a block that is wrong: as a successor, or in what it contains.
    fn invalid_proposal(&mut self, proposal: SignedProposal, block: &Block) -> Message {
        let mut payload = self.app.payload(vec![b"x".to_vec()], 1);
        payload.state_root.0[0] ^= 1;
        let last_commit = block.last_commit().filter(|_| self.rng.random()).cloned();
        let draft = Draft {
            tip: self.tip.clone(),
            time_ms: self.tip.time_ms + 5,
            last_commit,
            transactions: payload.transactions,
            state_root: payload.state_root,
            next_committee: None,
        };
        let block = Block::build(draft).unwrap();
        let proposal = Proposal { block: block.id(), ..proposal.proposal }.sign(&self.network, &self.key);
        Message::Proposal { proposal, block: Arc::new(block) }
    }

    /// What is answered instead.
    pub fn twist_answer(&mut self, response: Response) -> Option<Response> {
        match (self.lie, response) {
            (Lie::Withholds, Response::Blocks(_)) => Some(Response::Blocks(Vec::new())),
            (Lie::Forges, Response::Status { .. }) => Some(Response::Status { height: u64::MAX }),
            (Lie::Forges, Response::Blocks(mut blocks)) => match self.rng.random_range(0..5) {
                0 => None,
                1 if !blocks.is_empty() => {
                    blocks.remove(0);
                    Some(Response::Blocks(blocks))
                }
                2 => Some(Response::Status { height: 1 }),
                kind => {
                    let forged = blocks.iter().map(|it| self.forge_decided(it, kind));
                    Some(Response::Blocks(forged.collect()))
                }
            },
            (Lie::Misleads, Response::Page(Some(_))) if self.rng.random_bool(0.2) => {
                Some(Response::Page(self.app.page_of_oldest()))
            }
            (Lie::Misleads, response) => mislead(response, self.rng),
            (_, response) => Some(response),
        }
    }

    fn forge_decided(&self, decided: &Decided, kind: u32) -> Decided {
        let Decided { block, certificate } = decided;
        let (height, round) = (certificate.height(), certificate.round());
        if kind == 3 {
            // The right block, too few signatures.
            let few = certificate.signatures().iter().take(1).map(|(node, it)| (*node, *it));
            let certificate = CommitCertificate::new(height, round, block.id(), few).unwrap();
            return Decided { block: Arc::clone(block), certificate };
        }
        // Another block, with the signatures of the right one or with its own again and again.
        let payload = self.app.payload(vec![b"forged".to_vec()], block.header().time_ms);
        let draft = Draft {
            tip: self.tip.clone(),
            time_ms: block.header().time_ms,
            last_commit: block.last_commit().cloned(),
            transactions: payload.transactions,
            state_root: payload.state_root,
            next_committee: None,
        };
        let other = Arc::new(Block::build(draft).unwrap());
        let vote = Vote {
            height,
            round,
            kind: VoteKind::Precommit,
            block: Some(other.id()),
            voter: self.key.peer(),
        };
        let SignedVote { signature, .. } = vote.sign(&self.network, &self.key);
        let signatures = certificate.signatures().keys().map(|node: &NodeIndex| (*node, signature));
        let certificate = CommitCertificate::new(height, round, other.id(), signatures).unwrap();
        Decided { block: other, certificate }
    }
}

/// Whether the accused is one of these.
pub fn is_one_of(peer: &protocol::PeerId, liars: &[(usize, Lie)]) -> bool {
    let node = node_of(peer);
    liars.iter().any(|(liar, _)| *liar == node)
}
