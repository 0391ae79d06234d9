//! Those who spend credits, and what was promised of the ledger.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use node::exchange::ask;
use protocol::{
    NodeIndex, PeerId, codec,
    genesis::{Endowment, Genesis, GenesisAccount},
    ids::AccountId,
    ledger::{
        answer::Answer,
        chain::TrustedChain,
        signature::SigningKey,
        state::{State, entry::Account, key},
        transaction::{Action, Transaction},
    },
    message::{Request, Response},
};
use rand::{Rng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use swarm::Network as _;
use tokio::time::Instant;

use super::{byzantine::Watched, model::Model, plan::Plan, world::World};

/// Credits that each spender begins with: more than it can spend.
const CREDITS: u64 = 1_000_000;
/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a transfer was not executed, as far as can be proven.
const RETRY: Duration = Duration::from_millis(700);

/// The key of a spender.
fn spender(index: u16) -> SigningKey {
    let [high, low] = index.to_be_bytes();
    let mut secret = [0x5E; 32];
    (secret[0], secret[1]) = (high, low);
    SigningKey::from_secret(&secret)
}

/// Where all credits go.
fn sink() -> AccountId {
    spender(u16::MAX).account()
}

/// What this many spenders begin with.
pub(super) fn endowment(n: u16) -> Endowment {
    let account = |index| GenesisAccount { account: spender(index).account(), balance: CREDITS };
    Endowment { accounts: (0..n).map(account).collect(), ..Endowment::default() }
}

/// One who spends, and remembers what was proven to it.
pub(super) struct Spender {
    network: Watched,
    genesis: Arc<Genesis>,
    rng: ChaCha8Rng,
    model: Arc<Mutex<Model>>,
    key: SigningKey,
    nonce: u64,
}

impl Spender {
    pub(super) fn new(world: &mut World, index: u16) -> Self {
        let network = world.stranger();
        node::node::introduce_members(&network, &world.genesis);
        Self {
            network,
            genesis: Arc::clone(&world.genesis),
            rng: world.rng(200 + u64::from(index)),
            model: world.shared_model(),
            key: spender(index),
            nonce: 0,
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

    fn any_member(&mut self) -> PeerId {
        let members = self.genesis.committee().members();
        members.choose(&mut self.rng).map_or(PeerId([0; 32]), |member| member.peer)
    }

    /// Transfers a credit, and says it again to one node after the other until the ledger proves that it is executed.
    pub(super) async fn spend(&mut self) {
        let action = Action::Transfer { to: sink(), amount: 1 };
        let transaction = Transaction { sender: self.key.account(), nonce: self.nonce, action };
        let bytes = transaction.sign(&self.genesis.network_id(), &self.key).to_bytes();
        loop {
            let node = self.any_member();
            let request = (&Request::Submit { keys: Vec::new() }, Bytes::from(bytes.clone()));
            let answer = ask(&self.network, node, request, TIMEOUT).await;
            let is_submitted = matches!(answer, Ok((Response::Submitted { .. }, _)));
            // What one node says may be a lie; what it proves is not.
            if self.proven_nonce().await.is_some_and(|nonce| nonce > self.nonce) {
                self.nonce += 1;
                let (account, nonce) = (self.key.account(), self.nonce);
                let mut model = self.model();
                model.operation("transferred");
                model.spent.insert(account, nonce);
                return;
            }
            self.model().operation(if is_submitted { "transfer not proven" } else { "transfer refused" });
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The nonce of the spender's account, as some node proves it from the genesis alone.
    async fn proven_nonce(&mut self) -> Option<u64> {
        let node = self.any_member();
        let keys = vec![key::account(&self.key.account())];
        let request = Request::Entries { keys: keys.clone() };
        let answer = ask(&self.network, node, (&request, Bytes::new()), TIMEOUT).await;
        let Ok((Response::Entries, bytes)) = answer else { return None };
        let genesis_root = State::genesis(&self.genesis).ok()?.root();
        let committee = self.genesis.committee().clone();
        let mut chain = TrustedChain::from_genesis(self.genesis.network_id(), committee);
        let values = Answer::from_bytes(&bytes)
            .and_then(|answer| answer.verify(&mut chain, &genesis_root, &keys))
            .inspect_err(|_| self.network.report(node, swarm::Offence::Unverifiable))
            .ok()?;
        let account: Account = codec::decode_exact::<_, 64>(values.first()?.as_deref()?).ok()?;
        Some(account.nonce)
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
        let required = u128::from(CREDITS) * u128::from(world.plan.n_clients);
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
        let views: Vec<_> = world
            .all()
            .into_iter()
            .filter_map(|node| world.handles(node).map(|handles| handles.ledger.view()))
            .collect();
        let highest = views.iter().map(node::ledger::View::height).max().unwrap_or_default();
        let n_there = views.iter().filter(|view| view.height() == highest).count();
        if n_there == world.all().len() {
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
    for node in world.running() {
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
