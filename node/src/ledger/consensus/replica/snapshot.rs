//! The state that one node has and another is far behind.

use protocol::{
    PeerId,
    ledger::{
        chain::TrustedChain,
        wire::{Link, Response},
    },
};

use super::{
    super::{
        application::Application,
        catch_up::{InFlight, Outcome},
        fatal::Fatal,
        output::Output,
        snapshot_sync::{Fetched, Taken},
    },
    Replica,
};

/// Blocks from one time that blocks are deleted to the next: a write for as many is nothing beside their own.
const PRUNE_BLOCKS: u64 = 16;

impl<A: Application> Replica<A> {
    /// Whether this peer is to be asked for a snapshot rather than for blocks.
    pub(super) fn is_better_off_with_snapshot(&self, request: &InFlight) -> bool {
        let is_far_ahead = request.height.saturating_sub(self.height()) > self.env.config.snapshot_lag_min;
        !request.lacks_snapshot && (request.lacks_blocks || is_far_ahead)
    }

    /// Begins to fetch a snapshot. Without the last block there is nothing to begin from, and blocks are asked for.
    pub(super) fn start_snapshot(&mut self) {
        let tip = &self.env.tip;
        let committee = (**tip.committee()).clone();
        let chain = match tip.height {
            0 => Some(TrustedChain::from_genesis(tip.network, committee)),
            height => {
                let last = self.env.blocks.read(height).ok().flatten();
                last.and_then(|last| TrustedChain::from_checkpoint(last.block.header(), committee).ok())
            }
        };
        if let Some(chain) = chain {
            self.snapshot.start(chain);
        }
    }

    /// A part of a snapshot has come.
    pub(super) fn on_snapshot_part(&mut self, from: PeerId, response: Response) -> Result<Outcome, Fatal> {
        Ok(match self.snapshot.take(from, response) {
            Taken::Progress | Taken::Stale => Outcome::Progress,
            Taken::Change(change) => {
                // It is proven, whatever becomes of the snapshot.
                let kept = self.env.blocks.keep_change(&change);
                kept.map_err(|error| self.stop(error.into()))?;
                Outcome::Progress
            }
            Taken::Whole(fetched) => {
                self.install(*fetched)?;
                Outcome::Progress
            }
            Taken::Lacking => Outcome::NoSnapshot,
            Taken::Nothing => Outcome::Nothing,
            Taken::Lie(offence) => {
                self.env.outputs.push(Output::Misbehaved { peer: from, offence });
                Outcome::Lie
            }
        })
    }

    /// Goes on from a state that others had.
    fn install(&mut self, fetched: Fetched) -> Result<(), Fatal> {
        if fetched.decided.block.header().height <= self.height() {
            return Ok(());
        }
        self.drain_evidence();
        let decided = self.env.install(fetched).map_err(|fatal| self.stop(fatal))?;
        let height = decided.block.header().height;
        self.moved_to(height, decided.block.transactions());
        self.env.outputs.push(Output::Installed(decided));
        Ok(())
    }

    /// Whether a certificate for the next height, or one above, was seen.
    pub(super) fn is_decided_elsewhere(&self) -> bool {
        self.snapshot.proven_height().is_some_and(|height| height >= self.env.next_height())
    }

    /// Whether the next height is decided elsewhere: a quorum's certificate was seen, or members with more than a third of the
    /// shards, of whom one is honest, say so. Who began it now would at best say in vain what it said before, and at worst,
    /// had it lost its log of votes, contradict it.
    pub(super) fn is_behind(&self) -> bool {
        if self.is_decided_elsewhere() {
            return true;
        }
        let members = &self.env.members;
        let claimers = self.catch_up.claimers(self.env.next_height());
        let weight: u64 = claimers.filter_map(|peer| members.weight(peer)).sum();
        3 * weight > members.n_shards()
    }

    /// The next step from a height to the newest snapshot here. What cannot be read here, others may have.
    pub(super) fn link(&self, after: u64) -> Option<Link> {
        let newest = self.env.app.pinned().filter(|newest| *newest > after)?;
        let change = self.env.blocks.change_after(after).ok()?;
        let (header, certificate) = match change.filter(|(header, _)| header.height <= newest) {
            Some(change) => change,
            None => {
                let decided = self.env.blocks.read(newest).ok()??;
                (decided.block.header().clone(), decided.certificate)
            }
        };
        let has_state = header.height == newest;
        Some(Link { header, certificate, has_state })
    }

    /// Deletes blocks that neither this node needs after a restart nor others are likely to ask for.
    pub(super) fn prune(&mut self) -> Result<(), Fatal> {
        let kept_from = self.height().saturating_sub(self.env.config.blocks_kept);
        let below = kept_from.min(self.env.app.needs_from());
        if self.height().is_multiple_of(PRUNE_BLOCKS) {
            self.env.blocks.prune(below).map_err(|error| self.stop(error.into()))?;
        }
        Ok(())
    }
}
