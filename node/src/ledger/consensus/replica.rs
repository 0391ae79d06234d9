//! One node's part in ordering the ledger: the state machine that everything outside calls.

use std::{collections::BTreeMap, convert::Infallible, fmt, sync::Arc, time::Duration};

use arc_malachitebft_core_consensus::{
    Error as EngineError, Input, MisbehaviorEvidence, Params, ProposedValue, State, process,
};
use arc_malachitebft_core_types::{
    Round, ThresholdParams, Validity, ValueOrigin, ValuePayload, VoteExtensionPolicy,
};
use protocol::{
    NetworkId, PeerId, codec,
    committee::Committee,
    hash::Hash,
    ledger::{
        block::{Block, Decided, Tip},
        signature::SigningKey,
        vote::{Equivocation, SignedProposal, SignedVote},
        wire::{Message, PAGE_BLOCKS_MAX, PAGE_BYTES, Request, Response},
    },
};

use super::{
    application::Application,
    block_store::BlockStore,
    catch_up::{CatchUp, Claimed, Outcome},
    config::{Config, Now},
    context::{
        Address, Height, Ledger, Value, signed_vote_of, to_polka, to_round, to_signed_proposal,
        to_signed_vote,
    },
    environment::{Environment, Offence, Output, Phase, RequestId, Start},
    fatal::Fatal,
    future::Future,
    mempool::Refused,
    record::Record,
    wal::{Wal, WalError},
};

/// Messages for other heights are kept here and not by the engine, which would not check them first.
const ENGINE_QUEUE: usize = 1;
/// How far ahead of its own round the engine looks at votes and proposals.
const ROUNDS_AHEAD_MAX: u32 = 10;
/// Peers of whom is remembered when they were last told our height.
const TOLD_MAX: usize = 1024;

/// What a replica is made of.
pub struct Parts<A> {
    /// The network.
    pub network: NetworkId,
    /// The node's identity, which signs its votes.
    pub key: SigningKey,
    /// The committee that signed the block at the application's height; at height 0, the genesis committee.
    pub signed_by: Arc<Committee>,
    /// The committee that signs the height after the application's.
    pub committee: Arc<Committee>,
    /// The state machine.
    pub app: A,
    /// The log of votes.
    pub wal: Box<dyn Wal + Send>,
    /// The chain.
    pub blocks: Box<dyn BlockStore + Send>,
}

impl<A: fmt::Debug> fmt::Debug for Parts<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("key", &self.key).field("app", &self.app).finish_non_exhaustive()
    }
}

/// A node's view of the ledger, and its voice in it if it is a member.
///
/// Every call that may change something takes the time and may leave outputs: [`Replica::drain`] them after it, and call
/// [`Replica::on_tick`] at [`Replica::next_deadline`]. A call may write to the disk and wait for it, so it belongs on a
/// thread that may block. After a [`Fatal`] error the replica is of no use any more, and what it had to say is void.
pub struct Replica<A> {
    engine: State<Ledger>,
    env: Environment<A>,
    catch_up: CatchUp,
    future: Future,
    /// When each peer was last told our height.
    told: BTreeMap<PeerId, Duration>,
    next_request: u64,
    /// When the last block was committed here.
    committed_at: Duration,
    /// When to say once how far the ledger reaches.
    settle_at: Option<Duration>,
    /// When to begin a height that is for nothing, because a member has begun it.
    follow_at: Option<Duration>,
    /// A height has ended: what was kept may be of the next.
    has_moved: bool,
}

impl<A> fmt::Debug for Replica<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("me", &self.env.me)
            .field("height", &self.env.tip.height)
            .field("phase", &self.env.phase)
            .field("round", &self.engine.round())
            .finish_non_exhaustive()
    }
}

impl<A: Application> Replica<A> {
    /// Starts, or starts again: executes the blocks that the application has not seen, and takes up the height that was
    /// being decided where its log ends.
    ///
    /// # Errors
    ///
    /// If a store fails, or does not fit the application.
    pub fn new(config: Config, parts: Parts<A>, now: Now) -> Result<Self, Fatal> {
        let Parts { network, key, signed_by, committee, app, wal, blocks } = parts;
        let (state, head) = (app.height(), blocks.head()?);
        let (tip, last_commit) = match state {
            0 => (Tip::genesis(network, committee), None),
            _ => {
                let last = blocks.read(state)?.ok_or(Fatal::StateAhead { state, blocks: head })?;
                let tip = Tip::of(last.block.header(), signed_by, committee);
                (tip, Some(last.certificate))
            }
        };
        let mut env = Environment::new(config, Start { key, app, wal, blocks, tip, last_commit }, now);
        for height in state + 1..=head {
            let decided =
                env.blocks.read(height)?.ok_or(Fatal::StateAhead { state: height, blocks: head })?;
            env.execute(decided)?;
        }
        let params = Params {
            address: Address(env.me),
            threshold_params: ThresholdParams::default(),
            value_payload: ValuePayload::ProposalAndParts,
            enabled: true,
        };
        let (height, members) = (Height(env.next_height()), env.members.clone());
        let engine = State::new(Ledger, height, members, params, ENGINE_QUEUE, ENGINE_QUEUE);
        let mut replica = Self {
            engine,
            catch_up: CatchUp::new(config.answer_max, env.tip.height),
            env,
            future: Future::default(),
            told: BTreeMap::new(),
            next_request: 0,
            committed_at: now.uptime,
            settle_at: None,
            follow_at: None,
            has_moved: false,
        };
        let records = match replica.env.wal.open(height.0) {
            Err(WalError::Damaged { .. }) => {
                // What it voted is lost, so it must not vote on this height again; others may go on without it.
                replica.env.is_muted = true;
                Vec::new()
            }
            records => records?,
        };
        if !records.is_empty() {
            replica.start_height(records)?;
        }
        replica.go_on()?;
        Ok(replica)
    }

    /// Height of the last block.
    #[must_use]
    pub const fn height(&self) -> u64 {
        self.env.tip.height
    }

    /// The end of the chain, with the committees around it.
    #[must_use]
    pub const fn tip(&self) -> &Tip {
        &self.env.tip
    }

    /// The state machine.
    #[must_use]
    pub const fn app(&self) -> &A {
        &self.env.app
    }

    /// True if the log of votes is damaged: the node follows, but does not vote until the height that it is at has passed.
    #[must_use]
    pub const fn is_muted(&self) -> bool {
        self.env.is_muted
    }

    /// True if there is nothing to wait for: the replica sleeps until it is called.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.env.phase == Phase::Waiting && self.next_deadline().is_none()
    }

    /// Takes what is to be done.
    pub fn drain(&mut self) -> Vec<Output> {
        for batch in self.env.mempool.take_batches() {
            self.env.broadcast(Message::Transactions(batch));
        }
        if self.env.fatal.is_some() {
            self.env.outputs.clear();
        }
        std::mem::take(&mut self.env.outputs)
    }

    /// When [`Replica::on_tick`] is to be called; never, if there is nothing to wait for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let own = self.env.mempool.next_deadline();
        let all =
            [self.env.next_timer(), self.start_at(), self.catch_up.next_deadline(), self.settle_at, own];
        all.into_iter().flatten().min()
    }

    /// Time has passed.
    ///
    /// # Errors
    ///
    /// [`Fatal`].
    pub fn on_tick(&mut self, now: Now) -> Result<(), Fatal> {
        self.begin(now)?;
        while let Some(timeout) = self.env.take_timer() {
            self.feed(Input::TimeoutElapsed(timeout))?;
        }
        if let Some(request) = self.catch_up.take_overdue(now.uptime) {
            self.catch_up.ended(now.uptime, request, Outcome::Silence);
        }
        if self.settle_at.is_some_and(|at| at <= now.uptime) {
            self.settle_at = None;
            if self.env.phase == Phase::Waiting && self.env.is_member() {
                let height = self.height();
                self.env.broadcast(Message::Status { height });
            }
        }
        self.env.mempool.on_tick(now.uptime);
        self.go_on()
    }

    /// A connection to a peer has come up: each learns how far the other's ledger reaches.
    ///
    /// # Errors
    ///
    /// [`Fatal`].
    pub fn on_connected(&mut self, now: Now, peer: PeerId) -> Result<(), Fatal> {
        self.begin(now)?;
        self.ask_status(peer);
        self.go_on()
    }

    /// Keeps a transaction until it is in a block, passes it on, and returns its name.
    ///
    /// # Errors
    ///
    /// If it cannot be kept.
    pub fn submit(&mut self, now: Now, transaction: Vec<u8>) -> Result<Hash, Refused> {
        self.begin(now).map_err(|_| Refused::Stopped)?;
        if !self.env.app.admits(&transaction) {
            return Err(Refused::Invalid);
        }
        let height = self.height();
        let id = self.env.mempool.submit(transaction, height, now.uptime)?;
        self.go_on().map_err(|_| Refused::Stopped)?;
        Ok(id)
    }

    /// Everyone, or one peer, was told this.
    ///
    /// # Errors
    ///
    /// [`Fatal`].
    pub fn on_message(&mut self, now: Now, from: PeerId, message: Message) -> Result<(), Fatal> {
        self.begin(now)?;
        match message {
            // What this node said itself may come back by way of others.
            _ if from == self.env.me => {}
            Message::Status { height } => self.claim(from, height, Duration::ZERO),
            Message::Transactions(transactions) => {
                let height = self.height();
                for transaction in transactions {
                    if self.env.app.admits(&transaction) {
                        // A full mempool is no reason to stop listening: whoever submitted it says it again.
                        let _ = self.env.mempool.insert(transaction, height);
                    }
                }
            }
            message => self.on_height_message(from, message)?,
        }
        self.go_on()
    }

    /// A peer asks. The answer is an [`Output::Reply`] with the same `id`.
    ///
    /// # Errors
    ///
    /// [`Fatal`].
    pub fn on_request(
        &mut self,
        now: Now,
        from: PeerId,
        id: RequestId,
        request: Request,
    ) -> Result<(), Fatal> {
        self.begin(now)?;
        let response = match request {
            Request::Status { height } => {
                self.claim(from, height, Duration::ZERO);
                Response::Status { height: self.height() }
            }
            Request::Blocks { from, n_max } => Response::Blocks(self.page(from, n_max)),
        };
        self.env.outputs.push(Output::Reply { id, response });
        self.go_on()
    }

    /// A peer answers what it was asked; none if it failed to.
    ///
    /// # Errors
    ///
    /// [`Fatal`].
    pub fn on_response(
        &mut self,
        now: Now,
        from: PeerId,
        id: RequestId,
        response: Option<Response>,
    ) -> Result<(), Fatal> {
        self.begin(now)?;
        let request = self.catch_up.take(id.0, from);
        match (response, request) {
            (Some(Response::Status { height }), None) => self.claim(from, height, Duration::ZERO),
            (Some(Response::Blocks(blocks)), Some(request)) => {
                let outcome = self.on_blocks(from, blocks)?;
                self.catch_up.ended(now.uptime, request, outcome);
            }
            (Some(Response::Status { .. }), Some(request)) => {
                self.catch_up.ended(now.uptime, request, Outcome::Lie);
            }
            (None, Some(request)) => self.catch_up.ended(now.uptime, request, Outcome::Silence),
            (Some(Response::Blocks(_)) | None, None) => {}
        }
        self.go_on()
    }

    fn begin(&mut self, now: Now) -> Result<(), Fatal> {
        self.env.now = now;
        self.env.fatal.clone().map_or(Ok(()), Err)
    }

    /// Does what is due after every call.
    fn go_on(&mut self) -> Result<(), Fatal> {
        if std::mem::take(&mut self.has_moved) {
            for (from, message) in self.future.take() {
                self.on_height_message(from, message)?;
            }
        }
        if self.start_at().is_some_and(|at| at <= self.env.now.uptime) {
            self.start_height(Vec::new())?;
        }
        let now = self.env.now.uptime;
        if let Some(request) = self.catch_up.next(now, self.next_request) {
            let from = self.env.next_height();
            let request_for = Request::Blocks { from, n_max: PAGE_BLOCKS_MAX };
            self.request(request.peer, request_for);
        }
        Ok(())
    }

    fn request(&mut self, peer: PeerId, request: Request) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.env.outputs.push(Output::Request { id, peer, request });
    }

    /// Remembers why the replica stops.
    fn stop(&mut self, fatal: Fatal) -> Fatal {
        self.env.fatal.get_or_insert(fatal).clone()
    }

    /// When a new height is to be started: as soon as there is something to order. A node that is no member starts none.
    fn start_at(&self) -> Option<Duration> {
        let env = &self.env;
        if env.phase != Phase::Waiting {
            return None;
        }
        if !env.may_vote() || self.catch_up.is_fetching_from_member() {
            return self.follow_at;
        }
        let not_before = self.committed_at + env.config.block_interval_min;
        if !env.mempool.is_empty() {
            return Some(not_before);
        }
        let due_at = env.app.due_ms().map(|due_ms| {
            let wait = Duration::from_millis(due_ms.saturating_sub(env.now.unix_ms));
            not_before.max(env.now.uptime + wait)
        });
        [due_at, self.follow_at].into_iter().flatten().min()
    }

    /// Begins the next height; `records` is what the log holds of it.
    fn start_height(&mut self, records: Vec<Vec<u8>>) -> Result<(), Fatal> {
        self.drain_evidence();
        self.follow_at = None;
        let height = self.env.next_height();
        let mut inputs = Vec::with_capacity(records.len());
        for encoded in records {
            let record = Record::decode(&encoded).ok_or_else(|| Fatal::from(WalError::Unknown { height }))?;
            inputs.push(record.input(height));
            self.env.recall(&record, encoded);
        }
        self.env.phase = if inputs.is_empty() { Phase::Running } else { Phase::Replaying };
        self.engine.params.enabled = !self.env.is_muted;
        let members = self.env.members.clone();
        let policy = VoteExtensionPolicy::Disabled;
        self.feed(Input::StartHeight(Height(height), members, false, None, policy))?;
        if !inputs.is_empty() {
            self.replay(inputs)?;
        }
        for (from, message) in self.future.take() {
            self.on_height_message(from, message)?;
        }
        Ok(())
    }

    /// Shows the engine what it was shown before the restart, and lets it go on from there.
    fn replay(&mut self, inputs: Vec<Input<Ledger>>) -> Result<(), Fatal> {
        self.engine.index_wal_entries(inputs.iter());
        for input in inputs {
            // It may turn out that the height was decided before the crash.
            if self.env.phase == Phase::Replaying {
                self.feed(input)?;
            }
        }
        self.engine.reset_entries_index();
        if self.env.phase == Phase::Replaying {
            self.env.phase = Phase::Running;
            let is_our_turn = self.engine.driver.step_is_propose();
            if let Some(round) = self.env.deferred.take()
                && is_our_turn
                && self.engine.round() == Round::new(round)
                && let Some(input) = self.env.propose(round)
            {
                self.feed(input)?;
            }
        }
        Ok(())
    }

    /// Tells the engine something, and all that follows from it.
    fn feed(&mut self, input: Input<Ledger>) -> Result<(), Fatal> {
        self.env.inputs.push_back(input);
        while let Some(input) = self.env.inputs.pop_front() {
            let (engine, env) = (&mut self.engine, &mut self.env);
            let result: Result<(), EngineError<Ledger>> = process!(
                input: input,
                state: engine,
                metrics: &(),
                with: effect => Ok::<_, Infallible>(env.effect(effect))
            );
            if let Err(error) = result {
                return Err(self.stop(Fatal::Engine { reason: error.to_string() }));
            }
            if let Some(fatal) = &self.env.fatal {
                return Err(fatal.clone());
            }
            if let Some(certificate) = self.env.decided.take() {
                let Some(block) = self.env.body(certificate.block_id()) else {
                    let reason = "it decided on a block that it was not shown".to_owned();
                    return Err(self.stop(Fatal::Engine { reason }));
                };
                self.commit(Decided { block, certificate })?;
            }
        }
        Ok(())
    }

    /// Makes a decided block durable, executes it, and ends its height.
    fn commit(&mut self, decided: Decided) -> Result<(), Fatal> {
        let env = &mut self.env;
        let height = decided.block.header().height;
        let result = env
            .blocks
            .append(&decided)
            .map_err(Fatal::from)
            .and_then(|()| env.execute(decided.clone()))
            // Only now: until the block was durable, the log was all that kept this node from contradicting itself.
            .and_then(|()| env.wal.reset(height + 1).map_err(Fatal::from));
        if let Err(fatal) = result {
            return Err(self.stop(fatal));
        }
        env.end_height();
        let app = &env.app;
        env.mempool.committed(decided.block.transactions(), height, |it| app.admits(it));
        env.outputs.push(Output::Committed(decided));
        let now = env.now.uptime;
        self.committed_at = now;
        self.follow_at = None;
        self.has_moved = true;
        self.settle_at = Some(now + env.config.settle);
        self.catch_up.reached(height);
        Ok(())
    }

    /// Hands out evidence that the engine still holds of the height that it was at.
    fn drain_evidence(&mut self) {
        let votes = self.engine.driver.take_vote_evidence();
        let proposals = self.engine.driver.take_proposal_evidence();
        self.env.accuse(&MisbehaviorEvidence { proposals, votes });
    }

    fn on_height_message(&mut self, from: PeerId, message: Message) -> Result<(), Fatal> {
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
    fn is_for_something(&self, message: &Message) -> bool {
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
    fn author(&self, message: &Message, round_max: u32) -> Option<PeerId> {
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
    fn on_late(&mut self, from: PeerId, message: &Message, height: u64) {
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
    fn note_late_vote(&mut self, signed: &SignedVote) {
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
    fn dispatch(&mut self, from: PeerId, message: Message) -> Result<(), Fatal> {
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
    fn on_proposal(&mut self, signed: &SignedProposal, block: &Arc<Block>) -> Result<(), Fatal> {
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

    /// Blocks that a peer says are decided, from our next height on.
    fn on_blocks(&mut self, from: PeerId, blocks: Vec<Decided>) -> Result<Outcome, Fatal> {
        if blocks.is_empty() {
            return Ok(Outcome::Nothing);
        }
        for decided in blocks {
            let (got, required) = (decided.block.header().height, self.env.next_height());
            if got < required {
                // Decided here while the answer was on its way.
                continue;
            }
            if got > required {
                let offence = Offence::NotAsked { got, required };
                self.env.outputs.push(Output::Misbehaved { peer: from, offence });
                return Ok(Outcome::Lie);
            }
            let certificate = &decided.certificate;
            let is_of_it = certificate.block_id() == decided.block.id() && certificate.height() == got;
            let verified = certificate.verify(&self.env.network, self.env.tip.committee()).map(drop);
            if !is_of_it || verified.is_err() {
                let offence = Offence::NotDecided { height: got, source: verified.err() };
                self.env.outputs.push(Output::Misbehaved { peer: from, offence });
                return Ok(Outcome::Lie);
            }
            self.check_decided(&decided.block)?;
            self.drain_evidence();
            self.commit(decided)?;
        }
        Ok(Outcome::Blocks)
    }

    /// A quorum decided on this block. If it is invalid here, either this node or the quorum is wrong, and there is nothing
    /// that this node could do right.
    fn check_decided(&mut self, block: &Block) -> Result<(), Fatal> {
        let height = block.header().height;
        let follows = self.env.tip.check(block).map_err(|error| error.to_string());
        let checked = follows.and_then(|()| self.env.app.check(block).map_err(|error| error.to_string()));
        checked.map_err(|reason| self.stop(Fatal::Diverged { height, reason }))
    }

    /// Decided blocks from a height on: one at least, if it is there, and more as they fit.
    fn page(&self, from: u64, n_max: u16) -> Vec<Decided> {
        let mut page = Vec::new();
        let mut bytes = 0;
        for height in (from..=self.height()).take(usize::from(n_max.min(PAGE_BLOCKS_MAX))) {
            // What cannot be read here, others may have: the asker goes on to them.
            let Ok(Some(decided)) = self.env.blocks.read(height) else { break };
            bytes += codec::encode(&decided).len();
            page.push(decided);
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        page
    }

    /// A peer's ledger reaches this far, it says.
    fn claim(&mut self, peer: PeerId, height: u64, patience: Duration) {
        let is_member = self.env.members.weight(&peer).is_some();
        self.catch_up.claim(self.env.now.uptime, Claimed { peer, height, patience, is_member });
    }

    fn ask_status(&mut self, peer: PeerId) {
        let height = self.height();
        self.request(peer, Request::Status { height });
    }

    /// Lets a peer know how far the ledger reaches, but not at its every word.
    fn tell(&mut self, peer: PeerId) {
        let (now, pause) = (self.env.now.uptime, self.env.config.settle);
        if self.told.get(&peer).is_some_and(|at| now < *at + pause) {
            return;
        }
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        self.told.insert(peer, now);
        self.ask_status(peer);
    }
}
