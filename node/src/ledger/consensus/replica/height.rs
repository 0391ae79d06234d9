//! From the beginning of a height to its end.

use std::{convert::Infallible, time::Duration};

use arc_malachitebft_core_consensus::{Error as EngineError, Input, MisbehaviorEvidence, process};
use arc_malachitebft_core_types::{Round, VoteExtensionPolicy};
use protocol::ledger::block::Decided;

use super::{
    super::{
        application::Application,
        context::{Height, Ledger},
        environment::Phase,
        fatal::Fatal,
        output::Output,
        record::Record,
        wal::WalError,
    },
    Replica,
};

impl<A: Application> Replica<A> {
    /// When a new height is to be started: as soon as there is something to order. A node that is no member starts none.
    pub(super) fn start_at(&self) -> Option<Duration> {
        let env = &self.env;
        if env.phase != Phase::Waiting || self.is_behind() {
            return None;
        }
        if !env.may_vote() {
            return self.follow_at;
        }
        let blocks_at = self.catch_up.wait_until(env.config.settle).unwrap_or_default();
        let not_before = blocks_at.max(self.committed_at + env.config.block_interval_min);
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
    pub(super) fn start_height(&mut self, records: Vec<Vec<u8>>) -> Result<(), Fatal> {
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
    pub(super) fn replay(&mut self, inputs: Vec<Input<Ledger>>) -> Result<(), Fatal> {
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
    pub(super) fn feed(&mut self, input: Input<Ledger>) -> Result<(), Fatal> {
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
    pub(super) fn commit(&mut self, decided: Decided) -> Result<(), Fatal> {
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
        let block = std::sync::Arc::clone(&decided.block);
        env.outputs.push(Output::Committed(decided));
        self.moved_to(height, block.transactions());
        self.prune()
    }

    /// Draws the consequences of having reached a height.
    pub(super) fn moved_to(&mut self, height: u64, transactions: &[Vec<u8>]) {
        let env = &mut self.env;
        env.end_height();
        let app = &env.app;
        let turn = |it: &[u8], place: Option<&_>| app.turn(it, place);
        env.mempool.committed(transactions, height, turn, |it, before| app.admits(it, before));
        let now = env.now.uptime;
        self.committed_at = now;
        self.follow_at = None;
        self.has_moved = true;
        self.settle_at = Some(now + env.config.settle);
        self.catch_up.reached(height);
        if !self.is_decided_elsewhere() {
            self.snapshot.stop();
        }
    }

    /// Hands out evidence that the engine still holds of the height that it was at.
    pub(super) fn drain_evidence(&mut self) {
        let votes = self.engine.driver.take_vote_evidence();
        let proposals = self.engine.driver.take_proposal_evidence();
        self.env.accuse(&MisbehaviorEvidence { proposals, votes });
    }
}
