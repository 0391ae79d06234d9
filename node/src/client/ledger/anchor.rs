//! What every proof is checked against: the genesis, and the changes of the committee since, as far as they are known.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use protocol::{
    committee::Committee,
    genesis::Genesis,
    hash::Hash,
    ids::Epoch,
    ledger::{chain::TrustedChain, state::State},
};
use tokio::sync::watch;

use super::turn::Accounts;

/// The newest committee that is proven, and the one before: as of one moment.
#[derive(Clone, Debug)]
pub(in crate::client) struct Trusted {
    /// Verified up to the block that put the current committee in place, or from the genesis if none did.
    chain: TrustedChain,
    previous: Option<Arc<Committee>>,
}

impl Trusted {
    /// What is proven once the chain has moved to a change of the committee.
    pub(super) fn followed_by(&self, chain: TrustedChain) -> Self {
        Self { chain, previous: Some(Arc::clone(self.current())) }
    }

    pub(super) const fn chain(&self) -> &TrustedChain {
        &self.chain
    }

    /// The committee that signs the heights after the last change.
    pub(in crate::client) const fn current(&self) -> &Arc<Committee> {
        self.chain.shared_committee()
    }

    /// The committee before, if there was one.
    pub(in crate::client) const fn previous(&self) -> Option<&Arc<Committee>> {
        self.previous.as_ref()
    }

    /// Epoch of the current committee.
    pub(in crate::client) fn epoch(&self) -> Epoch {
        self.current().epoch()
    }

    /// Both committees.
    pub(super) fn committees(&self) -> impl Iterator<Item = &Arc<Committee>> {
        std::iter::once(self.current()).chain(&self.previous)
    }
}

/// What a client trusts; all its clones share it.
#[derive(Debug)]
pub(in crate::client) struct Anchor {
    /// Root of the state that the genesis describes, made on first use.
    genesis_root: OnceLock<Hash>,
    /// INV: epochs only ascend.
    trusted: watch::Sender<Arc<Trusted>>,
    pub(super) accounts: Accounts,
    /// The highest height proven so far.
    seen: AtomicU64,
}

impl Anchor {
    pub(in crate::client) fn new(genesis: &Genesis, committee: &Arc<Committee>) -> Self {
        let chain = TrustedChain::from_genesis(genesis.network_id(), Arc::clone(committee));
        let (trusted, _) = watch::channel(Arc::new(Trusted { chain, previous: None }));
        Self {
            genesis_root: OnceLock::new(),
            trusted,
            accounts: Accounts::default(),
            seen: AtomicU64::new(0),
        }
    }

    pub(super) fn genesis_root(&self, genesis: &Genesis) -> &Hash {
        self.genesis_root.get_or_init(|| {
            let state = State::genesis(genesis).expect("a genesis is verified when it is made");
            state.root()
        })
    }

    /// The committees as they are known now.
    pub(in crate::client) fn trusted(&self) -> Arc<Trusted> {
        Arc::clone(&self.trusted.borrow())
    }

    /// To wait for a later committee.
    pub(in crate::client) fn watch(&self) -> watch::Receiver<Arc<Trusted>> {
        self.trusted.subscribe()
    }

    /// Takes a later committee; returns what was trusted before, or nothing if no later one than that is given.
    pub(super) fn install(&self, next: Trusted) -> Option<Arc<Trusted>> {
        let mut before = None;
        self.saw(next.chain.height());
        self.trusted.send_if_modified(|trusted| {
            let is_later = next.epoch() > trusted.epoch();
            if is_later {
                before = Some(std::mem::replace(trusted, Arc::new(next)));
            }
            is_later
        });
        before
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    pub(super) fn saw(&self, height: u64) {
        self.seen.fetch_max(height, Ordering::Relaxed);
    }
}
