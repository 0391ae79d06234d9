//! The ledger on real processes: what is executed while nodes are killed, and what is left of it after.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::{sync::Arc, time::Duration};

use node::{
    cli::Connection,
    client::{Client, ClientConfig, SubmitError},
};
use protocol::{
    AccountId,
    genesis::GenesisAccount,
    ledger::{signature::SigningKey, transaction::Action},
};
use swarm::Network;
use testnet::cluster::{Cluster, ClusterConfig, Fate, ProcessState, Signal, until};
use tokio::{sync::watch, task::JoinSet};

const PROGRAM: &str = env!("CARGO_BIN_EXE_floe-testnet");
/// Far more than anything here takes, so that only what hangs is cut short.
const LIMIT: Duration = Duration::from_secs(120);
/// Nodes, each with one shard: one may fail, and three are a quorum.
const NODES: u16 = 4;
/// Accounts that spend.
const SPENDERS: u8 = 8;
/// One more, to see whether transfers are executed.
const PROBE: u8 = SPENDERS;
/// Credits that each begins with.
const CREDITS: u64 = 1_000_000;

fn key(spender: u8) -> SigningKey {
    SigningKey::from_secret(&[spender + 1; 32])
}

/// Where all credits go.
fn sink() -> AccountId {
    SigningKey::from_secret(&[0xFF; 32]).account()
}

/// Four nodes, which die with this test.
struct Net {
    cluster: Cluster,
    observer: Connection,
    _dir: tempfile::TempDir,
}

impl Net {
    async fn up() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = ClusterConfig { n_nodes: NODES, n_shards: NODES, base_port: None };
        let account = |spender| GenesisAccount { account: key(spender).account(), balance: CREDITS };
        let accounts = (0..=PROBE).map(account).collect();
        let at = dir.path().join("net");
        let cluster = Cluster::create_endowed(&at, &config, Fate::WithParent, accounts).await.unwrap();
        let cluster = cluster.with_program(PROGRAM);
        let observer = cluster.observe().await.unwrap();
        let mut net = Self { cluster, observer, _dir: dir };
        net.start().await;
        net
    }

    /// Starts the nodes that do not run, and waits until all know each other.
    async fn start(&mut self) {
        self.cluster.start_all().await.unwrap();
        self.cluster.wait_healthy(&self.observer, LIMIT, |_| {}).await.unwrap();
    }

    /// A client that gives up three times as long after it sent a transaction.
    async fn client(&self, request_timeout: Duration) -> Connection {
        let config = ClientConfig { request_timeout, ..ClientConfig::default() };
        Connection::start(Arc::clone(self.cluster.genesis()), config).await.unwrap()
    }

    async fn kill(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.cluster.kill(*node).await.unwrap();
        }
    }

    /// Kills all nodes before any of them can notice that another is gone.
    async fn kill_all(&mut self) {
        let manifest = self.cluster.manifest().unwrap();
        for process in manifest.nodes.iter().filter_map(|node| node.process.as_ref()) {
            process.signal(Signal::KILL).unwrap();
        }
        until("the nodes end", LIMIT, async || {
            let states = (0..usize::from(NODES)).map(|node| self.cluster.state(node));
            let n_dead = states.filter(|state| matches!(state, Ok(ProcessState::Dead))).count();
            Ok((n_dead == usize::from(NODES)).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Waits until all nodes have the same ledger, of at least this height; returns its height.
    async fn wait_equal(&mut self, height_min: u64) -> u64 {
        let equal = |members: &[node::client::MemberHealth]| {
            let head = |member: &node::client::MemberHealth| {
                member.report.as_ref().ok().map(|health| (health.ledger_height, health.ledger_root))
            };
            let first = members.first().and_then(head)?;
            let are_equal = members.iter().all(|member| head(member) == Some(first));
            (are_equal && first.0 >= height_min).then_some(first.0)
        };
        self.cluster.wait_health(&self.observer, "the ledgers become equal", LIMIT, equal).await.unwrap()
    }
}

async fn transfer<N: Network>(client: &Client<N>, spender: u8) -> Result<u64, SubmitError> {
    let action = Action::Transfer { to: sink(), amount: 1 };
    client.submit(action, &key(spender)).await.map(|submitted| submitted.height)
}

/// Balance and nonce of an account, as the ledger proves them.
async fn account<N: Network>(client: &Client<N>, account: AccountId) -> (u64, u64) {
    let account = client.ledger_account(&account).await.unwrap().value;
    (account.balance, account.nonce)
}

#[tokio::test]
async fn transfers_go_on_with_f_killed_and_who_was_away_catches_up() {
    let mut net = Net::up().await;
    let connection = net.client(Duration::from_secs(20)).await;
    let client = connection.client();
    let before = transfer(client, 0).await.unwrap();
    net.kill(&[3]).await;
    let mut height = before;
    for n in 1..=6 {
        let executed = transfer(client, 0).await.unwrap();
        assert!(executed > height, "transfer {n} is proven at height {executed}, the one before at {height}");
        height = executed;
    }
    assert_eq!(account(client, key(0).account()).await, (CREDITS - 7, 7));
    // Nobody asks for anything any more: that it is behind, a node has to find out by itself.
    net.start().await;
    let reached = net.wait_equal(height).await;
    // It takes part again: without it, there is no quorum now.
    net.kill(&[0]).await;
    assert!(transfer(client, 1).await.unwrap() > reached);
    assert_eq!(account(client, sink()).await.0, 8);
}

#[tokio::test]
async fn below_a_quorum_nothing_is_executed_and_the_client_says_so() {
    let mut net = Net::up().await;
    let connection = net.client(Duration::from_secs(1)).await;
    let client = connection.client();
    transfer(client, 0).await.unwrap();
    let height = net.wait_equal(1).await;
    net.kill(&[1, 2]).await;
    let error = transfer(client, 1).await.unwrap_err();
    assert!(matches!(error, SubmitError::Unknown { nonce: 0, .. }), "{error}");
    assert!(error.to_string().contains("not known whether it was executed"), "{error}");
    // What was so before, two nodes of which one is honest still prove; and that nothing followed.
    assert_eq!(client.ledger_head().await.unwrap().height, height);
    assert_eq!(account(client, key(1).account()).await, (CREDITS, 0));
    net.start().await;
    // Those that were left keep what they were sent until it is in a block.
    until("what was sent is executed", LIMIT, async || {
        let nonce = client.ledger_account(&key(1).account()).await.ok().map(|proven| proven.value.nonce);
        Ok((nonce == Some(1)).then_some(()))
    })
    .await
    .unwrap();
    transfer(client, 1).await.unwrap();
    assert_eq!(account(client, key(1).account()).await, (CREDITS - 2, 2));
    assert_eq!(account(client, sink()).await.0, 3);
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_every_node_is_killed_at_once() {
    let mut net = Net::up().await;
    let connection = net.client(Duration::from_secs(2)).await;
    let mut acknowledged = vec![0; usize::from(SPENDERS)];
    for round in 1..=2 {
        let (progress, mut executed) = watch::channel(0_u32);
        let mut spenders = JoinSet::new();
        for spender in 0..SPENDERS {
            let (client, progress) = (connection.client().clone(), progress.clone());
            spenders.spawn(async move {
                let mut n = 0;
                while transfer(&client, spender).await.is_ok() {
                    n += 1;
                    progress.send_modify(|all| *all += 1);
                }
                (spender, n)
            });
        }
        let enough = executed.wait_for(|all| *all >= 3 * u32::from(SPENDERS));
        tokio::time::timeout(LIMIT, enough).await.expect("transfers are executed").unwrap();
        net.kill_all().await;
        while let Some(ended) = tokio::time::timeout(LIMIT, spenders.join_next()).await.unwrap() {
            let (spender, n) = ended.unwrap();
            acknowledged[usize::from(spender)] += n;
        }
        net.start().await;
        // The ledger goes on; a block that was being decided is decided before this one.
        let height = transfer(connection.client(), PROBE).await.unwrap();
        net.wait_equal(height).await;
        // What nobody was told of may be executed too: one transfer of each account that was under way, in each round.
        let mut total = round;
        for (spender, required) in (0..SPENDERS).zip(&mut acknowledged) {
            let (balance, nonce) = account(connection.client(), key(spender).account()).await;
            assert!(
                (*required..=*required + 1).contains(&nonce),
                "round {round}: {required} transfers of spender {spender} were acknowledged, {nonce} executed"
            );
            assert_eq!(balance, CREDITS - nonce, "round {round}, spender {spender}");
            *required = nonce;
            total += nonce;
        }
        assert_eq!(account(connection.client(), sink()).await.0, total, "round {round}");
    }
}
