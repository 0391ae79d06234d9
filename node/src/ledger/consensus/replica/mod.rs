//! One node's part in ordering the ledger: the state machine that everything outside calls.

mod height;
mod inbound;
mod peers;
mod snapshot;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use arc_malachitebft_core_consensus::{Input, Params, State};
use arc_malachitebft_core_types::{ThresholdParams, ValuePayload};
use protocol::{
    NetworkId, PeerId,
    committee::Committee,
    hash::Hash,
    ledger::{
        block::Tip,
        signature::SigningKey,
        transaction::Place,
        wire::{Message, PAGE_BLOCKS_MAX, Request, Response},
    },
};

use super::{
    application::Application,
    block_store::BlockStore,
    catch_up::{CatchUp, InFlight, Outcome},
    config::{Config, Now},
    context::{Address, Height, Ledger},
    environment::{Environment, Phase, Start},
    fatal::Fatal,
    future::Future,
    mempool::Refused,
    output::{Offence, Output, RequestId},
    rates::Rates,
    snapshot_sync::SnapshotSync,
    wal::{Wal, WalError},
};

/// Messages for other heights are kept here and not by the engine, which would not check them first.
const ENGINE_QUEUE: usize = 1;

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

/// What a replica is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// The round of the height that is being decided; none if none is.
    pub round: Option<u32>,
    /// Others are known to have the next block.
    pub is_behind: bool,
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
    snapshot: SnapshotSync,
    /// The request under way, if it is for a part of a snapshot.
    snapshot_request: Option<u64>,
    rates: Rates,
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
        let (tip, last) = match state {
            0 => (Tip::genesis(network, committee), None),
            _ => {
                let last = blocks.read(state)?.ok_or(Fatal::StateAhead { state, blocks: head })?;
                (Tip::of(last.block.header(), signed_by, committee), Some(last))
            }
        };
        let last_commit = last.as_ref().map(|last| last.certificate.clone());
        let mut env = Environment::new(config, Start { key, app, wal, blocks, tip, last_commit }, now);
        if let Some(last) = last {
            // The power may have failed after the state was durable and before this was.
            env.keep_change(&last)?;
        }
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
            snapshot: SnapshotSync::default(),
            snapshot_request: None,
            env,
            rates: Rates::default(),
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

    /// The state machine, to be looked after between calls: what consensus knows of it must not change.
    pub const fn app_mut(&mut self) -> &mut A {
        &mut self.env.app
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

    /// What it is busy with.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let is_deciding = self.env.phase != Phase::Waiting;
        // A height that has begun is in its first round until the engine says otherwise.
        let round = is_deciding.then(|| self.engine.round().as_u32().unwrap_or(0));
        Activity { round, is_behind: self.is_behind() }
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
        let fetch_at = self.catch_up.next_deadline(self.snapshot.whom());
        let all = [self.env.next_timer(), self.start_at(), fetch_at, self.settle_at, own];
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
        let env = &mut self.env;
        if !env.app.is_sound(&transaction) {
            return Err(Refused::Invalid);
        }
        let place = env.app.place(&transaction);
        if !env.admits(&transaction, place.as_ref()) {
            return Err(Refused::Invalid);
        }
        let (height, now) = (env.tip.height, now.uptime);
        let id = env.mempool.submit(transaction, place, height, now)?;
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
            Message::Transactions(transactions) => self.on_transactions(from, transactions),
            message => self.on_height_message(from, message)?,
        }
        self.go_on()
    }

    fn on_transactions(&mut self, from: PeerId, transactions: Vec<Vec<u8>>) {
        let env = &mut self.env;
        for transaction in transactions {
            if !env.app.is_sound(&transaction) {
                // Honest members pass on what they would execute themselves; none of that stops being signed.
                env.outputs.push(Output::Misbehaved { peer: from, offence: Offence::Transaction });
                return;
            }
            let place = env.app.place(&transaction);
            if env.admits(&transaction, place.as_ref()) {
                // A full mempool is no reason to stop listening: whoever submitted it says it again.
                let _ = env.mempool.insert(transaction, place, env.tip.height);
            }
        }
    }

    /// The transactions that wait here and come before this place among their sender's, in order.
    #[must_use]
    pub fn before(&self, place: &Place) -> Vec<&[u8]> {
        self.env.mempool.before(place)
    }

    /// Whether this transaction waits here.
    #[must_use]
    pub fn is_waiting(&self, transaction: &Hash) -> bool {
        self.env.mempool.contains(transaction)
    }

    /// A peer asks. The answer is an [`Output::Reply`] with the same `id`, or [`Output::Busy`] if it asks too often.
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
        let is_cheap = matches!(request, Request::Status { .. });
        let is_member = self.env.members.weight(&from).is_some();
        if !is_cheap && !self.rates.take(now.uptime, from, is_member) {
            self.env.outputs.push(Output::Busy { id });
            return self.go_on();
        }
        let response = match request {
            Request::Status { height } => {
                self.claim(from, height, Duration::ZERO);
                Response::Status { height: self.height() }
            }
            Request::Blocks { from, n_max } => Response::Blocks(self.page(from, n_max)),
            Request::Link { after } => Response::Link(self.link(after).map(Box::new)),
            Request::Committee { height, offset } => {
                // What cannot be read here, others may have.
                Response::Committee(self.env.blocks.committee(height, offset).unwrap_or_default())
            }
            Request::Change { after } => {
                let change = self.env.blocks.change_after(after).ok().flatten();
                Response::Change(change.map(Box::new))
            }
            Request::Page { height, after } => Response::Page(self.env.app.page(height, after.as_deref())),
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
        if let Some(request) = self.catch_up.take(id.0, from) {
            let outcome = self.outcome(request, response)?;
            self.catch_up.ended(now.uptime, request, outcome);
        } else if let Some(Response::Status { height }) = response {
            self.claim(from, height, Duration::ZERO);
        }
        self.go_on()
    }

    /// What to make of the answer to a request for blocks, or for a part of a snapshot.
    fn outcome(&mut self, request: InFlight, response: Option<Response>) -> Result<Outcome, Fatal> {
        let is_snapshot = self.snapshot_request == Some(request.id);
        match response {
            None => Ok(Outcome::Silence),
            Some(response) if is_snapshot => self.on_snapshot_part(request.peer, response),
            Some(Response::Blocks(blocks)) => self.on_blocks(request.peer, blocks),
            Some(_) => Ok(Outcome::Lie),
        }
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
        self.fetch();
        Ok(())
    }

    /// Asks for what others have and this node lacks, if there is anyone to ask now.
    fn fetch(&mut self) {
        if self.snapshot.is_running() && !self.catch_up.has_any(self.snapshot.whom()) && self.snapshot.stop()
        {
            self.catch_up.forget_snapshot();
        }
        let (now, id, whom) = (self.env.now.uptime, self.next_request, self.snapshot.whom());
        let Some(request) = self.catch_up.next(now, id, whom) else { return };
        if !self.snapshot.is_running() && self.is_better_off_with_snapshot(&request) {
            self.start_snapshot();
        }
        let part = self.snapshot.ask(request.peer);
        self.snapshot_request = part.is_some().then_some(id);
        let blocks = Request::Blocks { from: self.env.next_height(), n_max: PAGE_BLOCKS_MAX };
        self.request(request.peer, part.unwrap_or(blocks));
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
}
