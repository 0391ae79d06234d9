//! Those who spend credits, and what was promised of the ledger.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::{
    NodeIndex,
    genesis::{Endowment, GenesisAccount},
    ids::AccountId,
    ledger::{parameters::Parameters, signature::SigningKey, transaction::Action},
};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use super::{
    model::Model,
    plan::{Epochs, Plan},
    world::{SimClient, World},
};

/// Credits put behind each node that can be selected.
pub(super) const STAKE: u64 = 100;
/// Credits for stakes: more than nodes can be given.
const TREASURY: u64 = 1_000_000;
/// Credits that each spender begins with: more than it can spend.
const CREDITS: u64 = 1_000_000;
/// Pause after a transfer was not executed, as far as can be proven.
const RETRY: Duration = Duration::from_millis(700);

/// The key of a spender.
fn spender(index: u16) -> SigningKey {
    let [high, low] = index.to_be_bytes();
    let mut secret = [0x5E; 32];
    (secret[0], secret[1]) = (high, low);
    SigningKey::from_secret(&secret)
}

/// The key of the account that has credits for stakes.
pub(super) fn treasury() -> SigningKey {
    spender(u16::MAX - 1)
}

/// Where all credits go.
fn sink() -> AccountId {
    spender(u16::MAX).account()
}

/// What this many spenders begin with.
pub(super) fn endowment(n: u16, epochs: Option<Epochs>) -> Endowment {
    let account = |index| GenesisAccount { account: spender(index).account(), balance: CREDITS };
    let treasury = GenesisAccount { account: treasury().account(), balance: TREASURY };
    let accounts = (0..n).map(account).chain([treasury]).collect();
    let mut parameters = Parameters::default();
    if let Some(Epochs { length, .. }) = epochs {
        parameters.epoch_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        // What is withdrawn is soon there to be put elsewhere; and whoever has nothing behind it is not selected.
        (parameters.unbonding_epochs, parameters.min_stake) = (1, 1);
    }
    Endowment { accounts, parameters, ..Endowment::default() }
}

/// One who spends, and remembers what was proven to it.
pub(super) struct Spender {
    client: SimClient,
    rng: ChaCha8Rng,
    model: Arc<Mutex<Model>>,
    key: SigningKey,
    /// Transfers that were proven to be executed.
    n_spent: u64,
}

impl Spender {
    pub(super) fn new(world: &mut World, index: u16) -> Self {
        Self {
            client: world.client(),
            rng: world.rng(200 + u64::from(index)),
            model: world.shared_model(),
            key: spender(index),
            n_spent: 0,
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spends through the chaos.
    pub(super) async fn work(mut self, plan: Plan) -> Self {
        let n = plan.stores_per_client;
        let pause = plan.chaos / u32::from(n).max(1);
        for _ in 0..n {
            let wait = self.rng.random_range(Duration::ZERO..pause);
            tokio::time::sleep(wait).await;
            self.spend().await;
        }
        self
    }

    /// Transfers a credit, again and again until the ledger proves that it is executed. One that was given up may be executed
    /// too.
    pub(super) async fn spend(&mut self) {
        let action = Action::Transfer { to: sink(), amount: 1 };
        while let Err(error) = self.client.submit(action.clone(), &self.key).await {
            tracing::debug!(%error, "a transfer is not proven");
            self.model().operation("transfer refused");
            tokio::time::sleep(RETRY).await;
        }
        self.n_spent += 1;
        let mut model = self.model();
        model.operation("transferred");
        model.spent.insert(self.key.account(), self.n_spent);
    }
}

/// L2, L3 and L5: looks at the ledger of every node that runs.
pub(super) fn look(world: &World) {
    for node in world.running() {
        look_at(world, node);
    }
}

fn look_at(world: &World, node: NodeIndex) {
    let Some(view) = world.handles(node).map(|handles| handles.ledger.view()) else { return };
    let (height, root) = (view.height(), view.state.root());
    let mut model = world.model();
    // L3: states are equal at equal heights.
    let seen = model.ledger_roots.insert(height, root);
    let known = seen.unwrap_or(root);
    model.check("L3", known == root, || {
        format!("node {node} has {root:?} at height {height}, others {known:?}")
    });
    // L5: credits are neither made nor lost. Counted once for each state: it takes reading the keys of all nodes.
    if seen != Some(root) {
        let total = view.state.total().ok();
        let required = u128::from(CREDITS) * u128::from(world.plan.n_clients) + u128::from(TREASURY);
        model.check("L5", total == Some(required), || {
            format!("node {node} counts {total:?} credits at height {height}, there are {required}")
        });
    }
    // L2: what a node has executed once, it has for ever, unless it lost its disk.
    let seen = model.ledger_heights.insert(node, height).unwrap_or_default();
    model.check("L2", height >= seen, || format!("node {node} was at height {seen} and is at {height}"));
}

/// L2 and L3: within `limit`, a transfer is executed, and all nodes are at one height with all that was proven.
pub(super) async fn comes_together(world: &World, spender: &mut Spender, limit: Duration) {
    let start = Instant::now();
    if tokio::time::timeout(limit, spender.spend()).await.is_err() {
        world.model().violation("L2", "every node is up, and a transfer is not executed".to_owned());
        return;
    }
    loop {
        let nodes: Vec<_> = world.all().into_iter().filter(|node| !world.is_let_down(*node)).collect();
        let views: Vec<_> = nodes
            .iter()
            .filter_map(|node| world.handles(*node).map(|handles| handles.ledger.view()))
            .collect();
        let highest = views.iter().map(node::ledger::View::height).max().unwrap_or_default();
        let n_there = views.iter().filter(|view| view.height() == highest).count();
        if n_there == nodes.len() {
            break;
        }
        if start.elapsed() > limit {
            let heights: Vec<u64> = views.iter().map(node::ledger::View::height).collect();
            world.model().violation("L2", format!("ledgers do not come together: {heights:?}"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    look(world);
    for node in world.running().into_iter().filter(|node| !world.is_let_down(*node)) {
        let Some(view) = world.handles(node).map(|handles| handles.ledger.view()) else { continue };
        let spent = world.model().spent.clone();
        for (account, required) in spent {
            let got = view.state.account(&account).map(|account| account.nonce).unwrap_or_default();
            world.model().check("L2", got >= required, || {
                format!("node {node} has executed {got} of the {required} transfers proven to {account}")
            });
        }
    }
}
