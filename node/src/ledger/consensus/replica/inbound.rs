//! What others say about a height.

use std::{sync::Arc, time::Duration};

use arc_malachitebft_core_consensus::{Input, ProposedValue};
use arc_malachitebft_core_types::{Round, Validity, ValueOrigin};
use protocol::{
    PeerId,
    ledger::{
        block::Block,
        vote::{Equivocation, SignedProposal, SignedVote},
        wire::Message,
    },
};

use super::{
    super::{
        application::Application,
        context::{
            Address, Height, Value, signed_vote_of, to_polka, to_round, to_signed_proposal, to_signed_vote,
        },
        environment::Phase,
        fatal::Fatal,
        output::{Offence, Output},
    },
    Replica,
};

/// How far ahead of its own round the engine looks at votes and proposals.
const ROUNDS_AHEAD_MAX: u32 = 10;

impl<A: Application> Replica<A> {
    pub(super) fn on_height_message(&mut self, from: PeerId, message: Message) -> Result<(), Fatal> {
        let Some(height) = message.height() else { return Ok(()) };
        let next = self.env.next_height();
        if height < next {
            self.on_late(from, &message, height);
            return Ok(());
        }
        if height > next {
            // One ahead is ordinary: its sender heard the last vote before we do. Give it time to arrive.
            let patience = if height == next + 1 { self.env.config.settle } else { Duration::ZERO };
            self.claim(from, height - 1, patience);
            if height == next + 1
                && let Some(author) = self.author(&message, 0)
            {
                self.future.keep(author, from, message);
            }
            return Ok(());
        }
        if self.env.phase == Phase::Waiting {
            if self.is_behind() {
                return Ok(());
            }
            // Only a member makes others begin a height, and only by its own signature.
            let Some(author) = self.author(&message, ROUNDS_AHEAD_MAX) else { return Ok(()) };
            let follow_at = self.committed_at + self.env.config.empty_block_interval_min;
            if !self.is_for_something(&message) && self.env.now.uptime < follow_at {
                self.future.keep(author, from, message);
                self.follow_at = Some(follow_at);
                return Ok(());
            }
            self.start_height(Vec::new())?;
        }
        self.env.offence = None;
        self.dispatch(from, message)?;
        if let Some(offence) = self.env.offence.take() {
            self.env.outputs.push(Output::Misbehaved { peer: from, offence });
        }
        Ok(())
    }

    /// Whether a height that this message speaks of has something to order.
    pub(super) fn is_for_something(&self, message: &Message) -> bool {
        let has_content = match message {
            Message::Proposal { block, .. } => {
                !block.transactions().is_empty() || block.header().next_committee.is_some()
            }
            _ => false,
        };
        has_content || !self.env.mempool.is_empty() || self.env.due_soon_ms().is_some()
    }

    /// The member whose vote, or proposal for one of the rounds up to `round_max`, this is. None if it is not signed by
    /// a member, or is something else.
    pub(super) fn author(&self, message: &Message, round_max: u32) -> Option<PeerId> {
        let (network, members) = (&self.env.network, &self.env.members);
        match message {
            Message::Vote(signed) => {
                let voter = signed.vote.voter;
                (members.weight(&voter).is_some() && signed.verify(network).is_ok()).then_some(voter)
            }
            Message::Proposal { proposal: signed, .. } => {
                let proposal = signed.proposal;
                let turn = members.proposer_peer(proposal.height, proposal.round);
                let is_its_turn = proposal.proposer == turn && proposal.round <= round_max;
                (is_its_turn && signed.verify(network).is_ok()).then_some(turn)
            }
            _ => None,
        }
    }

    /// Somebody speaks of a height that is decided.
    pub(super) fn on_late(&mut self, from: PeerId, message: &Message, height: u64) {
        if let Message::Vote(signed) = message
            && self.engine.height() == Height(height)
        {
            self.note_late_vote(signed);
        }
        // Votes of the last height arrive for a while after it was decided. Whoever repeats them long after, or speaks of
        // one before, is stuck there and does not know.
        let is_repeated = self.env.now.uptime >= self.committed_at + self.env.config.repeat / 2;
        if height < self.height() || is_repeated {
            self.tell(from);
        }
    }

    /// A vote that comes after the decision may still contradict another of its author.
    pub(super) fn note_late_vote(&mut self, signed: &SignedVote) {
        let vote = to_signed_vote(signed);
        if self.engine.can_record_equivocation(&vote)
            && signed.verify(&self.env.network).is_ok()
            && let Some((first, second)) = self.engine.record_vote_evidence(vote)
        {
            let evidence = Equivocation::Votes(signed_vote_of(&first), signed_vote_of(&second));
            self.env.outputs.push(Output::Evidence(evidence));
        }
    }

    /// Shows the engine a message of the height that it is at.
    pub(super) fn dispatch(&mut self, from: PeerId, message: Message) -> Result<(), Fatal> {
        match message {
            Message::Vote(vote) => self.feed(Input::Vote(to_signed_vote(&vote))),
            Message::Polka(polka) => self.feed(Input::PolkaCertificate(to_polka(&polka))),
            Message::Round(certificate) => self.feed(Input::RoundCertificate(to_round(&certificate))),
            Message::Proposal { proposal, block } => self.on_proposal(&proposal, &block),
            Message::Status { .. } | Message::Transactions(_) => {
                debug_assert!(false, "a message without a height from {from}");
                Ok(())
            }
        }
    }

    /// A block is proposed. The engine is told of the block first and of the proposal second: then it knows at once whether
    /// the block is valid. So whose proposal it is must be checked before.
    pub(super) fn on_proposal(&mut self, signed: &SignedProposal, block: &Arc<Block>) -> Result<(), Fatal> {
        let proposal = signed.proposal;
        let required = self.env.members.proposer_peer(proposal.height, proposal.round);
        if proposal.proposer != required {
            self.env.offence = Some(Offence::NotItsTurn { got: proposal.proposer, required });
            return Ok(());
        }
        if let Err(error) = signed.verify(&self.env.network) {
            self.env.offence = Some(Offence::Signature(error));
            return Ok(());
        }
        let got = block.id();
        if got != proposal.block {
            self.env.offence = Some(Offence::OtherBlock { got, required: proposal.block });
            return Ok(());
        }
        let round = self.engine.round().as_u32().unwrap_or_default();
        if proposal.round > round.saturating_add(ROUNDS_AHEAD_MAX) {
            return Ok(());
        }
        if let Some(is_valid) = self.env.judge(block, proposal.round) {
            let value = ProposedValue {
                height: Height(proposal.height),
                round: Round::new(proposal.round),
                valid_round: Round::from(proposal.lock_round),
                proposer: Address(proposal.proposer),
                value: Value(proposal.block),
                validity: Validity::from_bool(is_valid),
            };
            self.feed(Input::ProposedValue(value, ValueOrigin::Consensus))?;
        }
        if self.env.next_height() == proposal.height {
            self.feed(Input::Proposal(to_signed_proposal(signed)))?;
        }
        Ok(())
    }
}
