//! Everything that the engine asks for: timers, signatures, the log, blocks, and words to others.
//!
//! Every effect is answered, whatever happens: an effect without its answer kills the engine. What cannot go on is
//! remembered in `fatal`; from then on nothing leaves any more, and the replica stops once the engine has returned.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use arc_malachitebft_core_consensus::{
    ConsensusMsg, Effect, Input, LivenessMsg, LocallyProposedValue, MisbehaviorEvidence, Resumable as _,
    Resume, SignedConsensusMsg, VoteExtensionError,
};
use arc_malachitebft_core_types::{self as engine, CertificateError, Round, SignedMessage, Timeout};
use protocol::{
    BlockId, NetworkId, PeerId, codec,
    ledger::{
        block::{BLOCK_BYTES_MAX, Block, Decided, Draft, TRANSACTIONS_MAX, Tip},
        commit::CommitCertificate,
        signature::{Signature, SigningKey},
        transaction::Place,
        vote::{Equivocation, SignedProposal, SignedVote},
        wire::Message,
    },
};

use super::{
    application::{Application, Payload},
    block_store::{BlockStore, Change},
    config::{Config, Now},
    context::{
        Height, Ledger, Members, Proposal, Value, Vote, commit_of, polka_of, proposal_of, round_of,
        signed_proposal_of, signed_vote_of, vote_of,
    },
    fatal::Fatal,
    mempool::Mempool,
    output::{Offence, Output},
    record::Record,
    snapshot_sync::Fetched,
    verify::{Unproven, verify_polka, verify_round},
    wal::Wal,
};

/// Bytes of a block beside its last commit and its transactions, generously.
const HEADER_BYTES_MAX: usize = 1024;
/// Bytes that a transaction takes in a block beside its own.
const LENGTH_BYTES: usize = 8;
/// Blocks of one round that are looked at: more than one is an equivocation, and two prove it.
const BODIES_PER_ROUND_MAX: usize = 2;

/// Where a height stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The last height is decided and the next not begun.
    Waiting,
    /// The engine is at work.
    Running,
    /// The engine is shown again what it was shown before a restart.
    Replaying,
}

/// What is to be said of a block. It stays that, at this height, but for one that comes too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Valid,
    Invalid,
    /// Too far in the future, or not looked at since a restart.
    Open,
}

impl Verdict {
    fn is_valid(self) -> bool {
        self == Self::Valid
    }
}

/// What is known of a block of the height being decided.
#[derive(Debug)]
struct Body {
    block: Arc<Block>,
    round: u32,
    verdict: Verdict,
    is_logged: bool,
    /// Rounds for which the engine was told of it, and what it was told. Telling it again would only grow the log.
    told: BTreeSet<(u32, bool)>,
}

impl Body {
    const fn new(block: Arc<Block>, round: u32, verdict: Verdict) -> Self {
        Self { block, round, verdict, is_logged: false, told: BTreeSet::new() }
    }
}

/// The world as the engine meets it.
pub(super) struct Environment<A> {
    pub(super) config: Config,
    pub(super) network: NetworkId,
    pub(super) me: PeerId,
    key: SigningKey,
    pub(super) now: Now,
    pub(super) app: A,
    pub(super) wal: Box<dyn Wal + Send>,
    pub(super) blocks: Box<dyn BlockStore + Send>,
    pub(super) tip: Tip,
    /// Certificate of the last block.
    last_commit: Option<CommitCertificate>,
    /// INV: the committee of `tip`.
    pub(super) members: Members,
    pub(super) mempool: Mempool,
    pub(super) phase: Phase,
    /// The log of this height is damaged: the node listens, but does not vote until the height has passed.
    pub(super) is_muted: bool,
    /// Blocks proposed at this height.
    bodies: BTreeMap<BlockId, Body>,
    /// What this node proposed in each round of this height, to be proposed again after a restart.
    own_values: BTreeMap<u32, BlockId>,
    /// A round in which it is our turn, met while replaying.
    pub(super) deferred: Option<u32>,
    /// Own votes and proposals that are in the log already, met while replaying.
    replayed: BTreeSet<Vec<u8>>,
    timers: BTreeMap<(Duration, u64), Timeout>,
    n_timers: u64,
    /// What to tell the engine next.
    pub(super) inputs: VecDeque<Input<Ledger>>,
    /// What the engine decided, until the replica has committed it.
    pub(super) decided: Option<CommitCertificate>,
    /// What is wrong with what the engine was last shown.
    pub(super) offence: Option<Offence>,
    pub(super) outputs: Vec<Output>,
    pub(super) fatal: Option<Fatal>,
    /// The last height at which a block was ahead of the clock.
    clock_told: u64,
}

/// What an [`Environment`] starts from.
pub(super) struct Start<A> {
    pub(super) key: SigningKey,
    pub(super) app: A,
    pub(super) wal: Box<dyn Wal + Send>,
    pub(super) blocks: Box<dyn BlockStore + Send>,
    pub(super) tip: Tip,
    pub(super) last_commit: Option<CommitCertificate>,
}

impl<A: Application> Environment<A> {
    pub(super) fn new(config: Config, start: Start<A>, now: Now) -> Self {
        let Start { key, app, wal, blocks, tip, last_commit } = start;
        Self {
            config,
            network: tip.network,
            me: key.peer(),
            key,
            now,
            app,
            wal,
            blocks,
            members: Members::new(tip.committee()),
            tip,
            last_commit,
            mempool: Mempool::new(&config),
            phase: Phase::Waiting,
            is_muted: false,
            bodies: BTreeMap::new(),
            own_values: BTreeMap::new(),
            deferred: None,
            replayed: BTreeSet::new(),
            timers: BTreeMap::new(),
            n_timers: 0,
            inputs: VecDeque::new(),
            decided: None,
            offence: None,
            outputs: Vec::new(),
            fatal: None,
            clock_told: 0,
        }
    }

    pub(super) fn is_member(&self) -> bool {
        self.members.weight(&self.me).is_some()
    }

    /// Whether this node votes on the next height.
    pub(super) fn may_vote(&self) -> bool {
        self.is_member() && !self.is_muted
    }

    /// The block time at which a stage is due, if honest clocks may differ on whether that is now.
    pub(super) fn due_soon_ms(&self) -> Option<u64> {
        let drift_ms = u64::try_from(self.config.clock_drift_max.as_millis() / 2).unwrap_or(u64::MAX);
        self.app.due_ms().filter(|due_ms| *due_ms <= self.now.unix_ms.saturating_add(drift_ms))
    }

    /// Whether a transaction could be executed after those of its sender that wait.
    pub(super) fn admits(&self, transaction: &[u8], place: Option<&Place>) -> bool {
        let before = place.map(|place| self.mempool.before(place)).unwrap_or_default();
        self.app.admits(transaction, &before)
    }

    /// Height to be decided next.
    pub(super) const fn next_height(&self) -> u64 {
        self.tip.height + 1
    }

    /// Executes a decided block that is durable, and moves on.
    pub(super) fn execute(&mut self, decided: Decided) -> Result<(), Fatal> {
        let header = decided.block.header();
        let next = self.app.commit(&decided).map(Arc::new);
        let required = header.next_committee;
        let got = next.as_ref().map(|next| protocol::ledger::block::committee_hash(next));
        if got != required {
            let reason = "it puts another committee in place than its header says".to_owned();
            return Err(Fatal::Diverged { height: header.height, reason });
        }
        let changes = next.is_some();
        self.tip = self.tip.advanced(header, next);
        if changes {
            self.members = Members::new(self.tip.committee());
            self.keep_change(&decided)?;
        }
        self.last_commit = Some(decided.certificate);
        Ok(())
    }

    /// Keeps for good what proves that this block, the last one, put the current committee in place, if it did.
    pub(super) fn keep_change(&mut self, decided: &Decided) -> Result<(), Fatal> {
        let header = decided.block.header().clone();
        if header.next_committee.is_some() {
            let committee = codec::encode(&**self.tip.committee());
            self.blocks.keep_change(&Change {
                header,
                certificate: decided.certificate.clone(),
                committee,
            })?;
        }
        Ok(())
    }

    /// Goes on from a state that others had. Whatever dies when, a start finds the old state with its blocks or the new one.
    pub(super) fn install(&mut self, fetched: Fetched) -> Result<Decided, Fatal> {
        let Fetched { decided, signed_by, committee, tree } = fetched;
        let header = decided.block.header();
        let height = header.height;
        self.app
            .prepare(&decided, tree)
            .map_err(|source| Fatal::Install { height, source: Arc::new(source) })?;
        // From here on the new state is the one that counts.
        self.blocks.restart(&decided)?;
        self.app.adopt(&decided);
        self.tip = Tip::of(header, signed_by, committee);
        self.members = Members::new(self.tip.committee());
        self.last_commit = Some(decided.certificate.clone());
        // What was voted on is decided: nothing that this node says from now on can contradict it.
        self.wal.reset(height + 1)?;
        Ok(decided)
    }

    /// Forgets what was known of the height that has been decided.
    pub(super) fn end_height(&mut self) {
        self.bodies.clear();
        self.own_values.clear();
        self.deferred = None;
        self.replayed.clear();
        self.timers.clear();
        self.inputs.clear();
        self.is_muted = false;
        self.phase = Phase::Waiting;
    }

    /// Takes a block that was decided out of those proposed.
    pub(super) fn body(&self, id: BlockId) -> Option<Arc<Block>> {
        self.bodies.get(&id).map(|body| Arc::clone(&body.block))
    }

    /// Takes note of a record of the log before the engine is shown it again.
    pub(super) fn recall(&mut self, record: &Record, encoded: Vec<u8>) {
        match record {
            Record::Value { round, proposer, block, is_valid, body, .. } => {
                if let Some(body) = body {
                    let verdict = if *is_valid { Verdict::Valid } else { Verdict::Open };
                    let mut body = Body::new(Arc::clone(body), *round, verdict);
                    body.is_logged = true;
                    self.bodies.insert(body.block.id(), body);
                }
                if *proposer == self.me {
                    self.own_values.entry(*round).or_insert(*block);
                }
            }
            Record::Vote(SignedVote { vote, .. }) if vote.voter == self.me => {
                self.replayed.insert(encoded);
            }
            Record::Proposal(SignedProposal { proposal, .. }) if proposal.proposer == self.me => {
                self.replayed.insert(encoded);
            }
            _ => {}
        }
    }

    /// Looks at a block proposed for a round. Returns whether it may be voted for; none if the engine knows that already, or
    /// there are too many blocks for this round.
    pub(super) fn judge(&mut self, block: &Arc<Block>, round: u32) -> Option<bool> {
        let id = block.id();
        if let Some(body) = self.bodies.get_mut(&id)
            && body.verdict != Verdict::Open
        {
            // Executing it again would cost as much as the first time, and whoever sends it again would have us do it.
            let is_valid = body.verdict.is_valid();
            return body.told.insert((round, is_valid)).then_some(is_valid);
        }
        let n_alike = self.bodies.values().filter(|body| body.round == round).count();
        if !self.bodies.contains_key(&id) && n_alike >= BODIES_PER_ROUND_MAX {
            return None;
        }
        let verdict = self.look_at(block);
        let is_valid = verdict.is_valid();
        let body = self.bodies.entry(id).or_insert_with(|| Body::new(Arc::clone(block), round, verdict));
        body.verdict = verdict;
        body.told.insert((round, is_valid)).then_some(is_valid)
    }

    fn look_at(&mut self, block: &Block) -> Verdict {
        let drift_ms = u64::try_from(self.config.clock_drift_max.as_millis()).unwrap_or(u64::MAX);
        if block.header().time_ms > self.now.unix_ms.saturating_add(drift_ms) {
            // Nobody's fault that can be told: it may be our clock. Before all that costs something, since it is done again
            // each time that the block comes.
            let height = self.next_height();
            if self.clock_told < height {
                self.clock_told = height;
                let by_ms = block.header().time_ms.saturating_sub(self.now.unix_ms);
                self.outputs.push(Output::ClockBehind { by: Duration::from_millis(by_ms) });
            }
            return Verdict::Open;
        }
        if let Err(invalid) = self.tip.check(block) {
            self.offence = Some(Offence::Block(invalid));
            return Verdict::Invalid;
        }
        match self.app.check(block) {
            Ok(()) => Verdict::Valid,
            Err(invalid) => {
                self.offence = Some(Offence::Payload(invalid));
                Verdict::Invalid
            }
        }
    }

    /// Makes, or remembers, what this node proposes in a round.
    pub(super) fn propose(&mut self, round: u32) -> Option<Input<Ledger>> {
        let id = match self.own_values.get(&round) {
            Some(id) => *id,
            None => match self.build() {
                Ok(block) => {
                    let id = block.id();
                    self.bodies
                        .entry(id)
                        .or_insert_with(|| Body::new(Arc::new(block), round, Verdict::Valid));
                    self.own_values.insert(round, id);
                    id
                }
                Err(fatal) => {
                    self.fatal = Some(fatal);
                    return None;
                }
            },
        };
        let height = Height(self.next_height());
        Some(Input::Propose(LocallyProposedValue::new(height, Round::new(round), Value(id))))
    }

    fn build(&mut self) -> Result<Block, Fatal> {
        let height = self.next_height();
        // If somebody whose clock is ahead began the height because a stage is due, meet it: an earlier block time would not
        // make the stage happen, and one empty block after the other would follow until it does.
        let due_ms = self.due_soon_ms().filter(|_| self.mempool.is_empty());
        let time_ms = self.now.unix_ms.max(self.tip.time_ms + 1).max(due_ms.unwrap_or_default());
        let last_commit = self.last_commit.clone();
        let commit_bytes = codec::encode(&last_commit).len();
        let room = BLOCK_BYTES_MAX - HEADER_BYTES_MAX - commit_bytes;
        let candidates = self.mempool.candidates(TRANSACTIONS_MAX, room, LENGTH_BYTES);
        let Payload { transactions, state_root, next_committee } =
            self.app.propose(height, time_ms, &candidates);
        let tip = self.tip.clone();
        Block::build(Draft { tip, time_ms, last_commit, transactions, state_root, next_committee })
            .map_err(|error| Fatal::Payload { reason: error.to_string() })
    }

    /// Says something to everyone, unless this node must not speak any more.
    pub(super) fn broadcast(&mut self, message: Message) {
        if self.fatal.is_none() {
            self.outputs.push(Output::Broadcast(message));
        }
    }

    /// Hands evidence out.
    pub(super) fn accuse(&mut self, evidence: &MisbehaviorEvidence<Ledger>) {
        let votes = evidence.votes.iter().flat_map(|(_, pairs)| pairs);
        let votes = votes.map(|(a, b)| Equivocation::Votes(signed_vote_of(a), signed_vote_of(b)));
        let proposals = evidence.proposals.iter().flat_map(|(_, pairs)| pairs);
        let proposals =
            proposals.map(|(a, b)| Equivocation::Proposals(signed_proposal_of(a), signed_proposal_of(b)));
        self.outputs.extend(votes.chain(proposals).map(Output::Evidence));
    }

    /// When the first timer runs out.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes a timer that has run out.
    pub(super) fn take_timer(&mut self) -> Option<Timeout> {
        let entry = self.timers.first_entry()?;
        (entry.key().0 <= self.now.uptime).then(|| entry.remove())
    }

    fn schedule(&mut self, timeout: Timeout) {
        self.timers.retain(|_, other| *other != timeout);
        let at = self.now.uptime + self.config.timeouts().duration_for(timeout);
        self.n_timers += 1;
        self.timers.insert((at, self.n_timers), timeout);
    }

    /// Makes the log durable: before anything signed leaves, and before a round begins or a height ends.
    fn flush(&mut self) {
        if let Err(error) = self.wal.flush() {
            self.fatal.get_or_insert_with(|| error.into());
        }
    }

    fn log(&mut self, height: Height, input: &Input<Ledger>) {
        // Who does not vote has nothing to remember; and what is left of the log says that it must not.
        if height.0 != self.next_height() || self.is_muted {
            return;
        }
        let bodies = &mut self.bodies;
        let record = Record::of(input, |id| {
            let body = bodies.get_mut(&id)?;
            (!std::mem::replace(&mut body.is_logged, true)).then(|| Arc::clone(&body.block))
        });
        let Some(record) = record else { return };
        let encoded = record.encode();
        if self.phase == Phase::Replaying && !self.is_signed_anew(&record, &encoded) {
            return;
        }
        if let Err(error) = self.wal.append(&encoded) {
            self.fatal.get_or_insert_with(|| error.into());
        }
    }

    /// Whether this is a vote or proposal that the engine has just signed although it is replaying: the crash came before
    /// it was logged. Everything else that it says while replaying is in the log already.
    fn is_signed_anew(&self, record: &Record, encoded: &[u8]) -> bool {
        let author = match record {
            Record::Vote(signed) => signed.vote.voter,
            Record::Proposal(signed) => signed.proposal.proposer,
            Record::Value { .. } | Record::Polka(_) | Record::Elapsed { .. } => return false,
        };
        author == self.me && !self.replayed.contains(encoded)
    }

    fn sign_vote(&self, vote: Vote) -> engine::SignedVote<Ledger> {
        let SignedVote { signature, .. } = vote_of(&vote).sign(&self.network, &self.key);
        SignedMessage::new(vote, signature)
    }

    fn sign_proposal(&self, proposal: Proposal) -> engine::SignedProposal<Ledger> {
        let SignedProposal { signature, .. } = proposal_of(&proposal).sign(&self.network, &self.key);
        SignedMessage::new(proposal, signature)
    }

    fn verify(&mut self, message: &ConsensusMsg<Ledger>, signature: Signature) -> bool {
        let verified = match message {
            ConsensusMsg::Vote(vote) => SignedVote { vote: vote_of(vote), signature }.verify(&self.network),
            ConsensusMsg::Proposal(proposal) => {
                SignedProposal { proposal: proposal_of(proposal), signature }.verify(&self.network)
            }
        };
        if let Err(error) = verified {
            self.offence = Some(Offence::Signature(error));
        }
        verified.is_ok()
    }

    fn blamed(&mut self, verified: Result<(), Unproven>) -> Result<(), ()> {
        verified.map_err(|error| self.offence = Some(Offence::Certificate(error)))
    }

    fn is_proven(&self, certificate: &CommitCertificate) -> bool {
        certificate.verify(&self.network, self.tip.committee()).is_ok()
    }

    fn decide(&mut self, certificate: &engine::CommitCertificate<Ledger>) {
        self.flush();
        self.decided = commit_of(certificate, self.tip.committee());
    }

    fn publish(&mut self, message: SignedConsensusMsg<Ledger>) {
        self.flush();
        match message {
            SignedConsensusMsg::Vote(vote) => self.broadcast(Message::Vote(signed_vote_of(&vote))),
            SignedConsensusMsg::Proposal(proposal) => {
                let proposal = signed_proposal_of(&proposal);
                if let Some(block) = self.body(proposal.proposal.block) {
                    self.broadcast(Message::Proposal { proposal, block });
                }
            }
        }
    }

    fn publish_for_liveness(&mut self, message: LivenessMsg<Ledger>) {
        self.flush();
        self.broadcast(match message {
            LivenessMsg::Vote(vote) => Message::Vote(signed_vote_of(&vote)),
            LivenessMsg::PolkaCertificate(polka) => Message::Polka(polka_of(&polka)),
            LivenessMsg::SkipRoundCertificate(certificate) => Message::Round(round_of(&certificate)),
        });
    }

    /// It is this node's turn. While replaying a block made now would differ from the one made then: it waits.
    fn take_turn(&mut self, round: Round) {
        let Some(round) = round.as_u32() else { return };
        if self.phase == Phase::Replaying {
            self.deferred = Some(round);
        } else if let Some(input) = self.propose(round) {
            self.inputs.push_back(input);
        }
    }

    /// Carries out what the engine asks for, and answers it.
    pub(super) fn effect(&mut self, effect: Effect<Ledger>) -> Resume<Ledger> {
        let unproven = |_| CertificateError::VerificationError(None);
        match effect {
            Effect::SignVote(vote, r) => return r.resume_with(self.sign_vote(vote)),
            Effect::SignProposal(proposal, r) => return r.resume_with(self.sign_proposal(proposal)),
            Effect::VerifySignature(signed, _, r) => {
                return r.resume_with(self.verify(&signed.message, signed.signature));
            }
            Effect::VerifyCommitCertificate(certificate, _, _, r) => {
                let certificate = commit_of(&certificate, self.tip.committee());
                let verified = certificate.is_some_and(|it| self.is_proven(&it));
                return r.resume_with(if verified { Ok(()) } else { Err(unproven(())) });
            }
            Effect::VerifyPolkaCertificate(polka, members, _, r) => {
                let verified = verify_polka(&self.network, &members, &polka_of(&polka));
                return r.resume_with(self.blamed(verified).map_err(unproven));
            }
            Effect::VerifyRoundCertificate(certificate, members, _, r) => {
                let verified = verify_round(&self.network, &members, &round_of(&certificate));
                return r.resume_with(self.blamed(verified).map_err(unproven));
            }
            // Votes have no extensions.
            Effect::ExtendVote(_, _, _, _, r) => return r.resume_with(None),
            Effect::VerifyVoteExtension(_, _, _, _, _, _, r) => {
                return r.resume_with(Err(VoteExtensionError::InvalidVoteExtension));
            }
            // Blocks that others decided are committed by their certificates, without the engine.
            Effect::VerifyExtendedCommitCertificate(_, _, _, _, r) => {
                return r.resume_with(Err(unproven(())));
            }
            Effect::CertVerifiedSyncValue(..) | Effect::CertRejectedSyncValue(..) => {}
            Effect::CancelAllTimeouts(_) => self.timers.clear(),
            Effect::CancelTimeout(timeout, _) => self.timers.retain(|_, other| *other != timeout),
            Effect::ScheduleTimeout(timeout, _) => self.schedule(timeout),
            Effect::StartRound(..) => self.flush(),
            Effect::GetValue(_, round, _, _) => self.take_turn(round),
            Effect::PublishConsensusMsg(message, _) => self.publish(message),
            Effect::PublishLivenessMsg(message, _) => self.publish_for_liveness(message),
            Effect::RepublishVote(vote, _) => self.publish_for_liveness(LivenessMsg::Vote(vote)),
            Effect::RepublishRoundCertificate(certificate, _) => {
                self.publish_for_liveness(LivenessMsg::SkipRoundCertificate(certificate));
            }
            // A proposal carries its block, and the engine publishes it again right after this.
            Effect::RestreamProposal(..) => {}
            Effect::WalAppend(height, input, _) => self.log(height, &input),
            Effect::Decide(certificate, _, _) => self.decide(&certificate),
            Effect::Finalize(_, _, evidence, _) => self.accuse(&evidence),
        }
        Resume::Continue
    }
}
