//! Blocks that one node has and another lacks.

use std::time::Duration;

use protocol::{
    PeerId, codec,
    ledger::{
        block::{Block, Decided},
        wire::{PAGE_BLOCKS_MAX, PAGE_BYTES_MAX, Request},
    },
};

use super::{
    super::{
        application::Application,
        catch_up::{Claimed, Outcome},
        fatal::Fatal,
        output::{Offence, Output},
    },
    Replica,
};

/// Peers of whom is remembered when they were last told our height.
const TOLD_MAX: usize = 1024;

impl<A: Application> Replica<A> {
    /// Blocks that a peer says are decided, from our next height on.
    pub(super) fn on_blocks(&mut self, from: PeerId, blocks: Vec<Decided>) -> Result<Outcome, Fatal> {
        if blocks.is_empty() {
            return Ok(Outcome::NoBlocks);
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
        Ok(Outcome::Progress)
    }

    /// A quorum decided on this block. If it is invalid here, either this node or the quorum is wrong, and there is nothing
    /// that this node could do right.
    pub(super) fn check_decided(&mut self, block: &Block) -> Result<(), Fatal> {
        let height = block.header().height;
        let follows = self.env.tip.check(block).map_err(|error| error.to_string());
        let checked = follows.and_then(|()| self.env.app.check(block).map_err(|error| error.to_string()));
        checked.map_err(|reason| self.stop(Fatal::Diverged { height, reason }))
    }

    /// Decided blocks from a height on: one at least, if it is there, and more as they fit.
    pub(super) fn page(&self, from: u64, n_max: u16) -> Vec<Decided> {
        let mut page = Vec::new();
        let mut bytes = 0;
        for height in (from..=self.height()).take(usize::from(n_max.min(PAGE_BLOCKS_MAX))) {
            // What cannot be read here, others may have: the asker goes on to them.
            let Ok(Some(decided)) = self.env.blocks.read(height) else { break };
            bytes += codec::encode(&decided).len();
            if !page.is_empty() && bytes > PAGE_BYTES_MAX {
                break;
            }
            page.push(decided);
        }
        page
    }

    /// A peer's ledger reaches this far, it says.
    pub(super) fn claim(&mut self, peer: PeerId, height: u64, patience: Duration) {
        let is_member = self.env.members.weight(&peer).is_some();
        self.catch_up.claim(self.env.now.uptime, Claimed { peer, height, patience, is_member });
    }

    pub(super) fn ask_status(&mut self, peer: PeerId) {
        let height = self.height();
        self.request(peer, Request::Status { height });
    }

    /// Lets a peer know how far the ledger reaches, but not at its every word.
    pub(super) fn tell(&mut self, peer: PeerId) {
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
