//! Reading the ledger and having transactions executed, with members that lie.

use protocol::{
    AccountId,
    genesis::{Endowment, GenesisAccount, GenesisStake},
    ledger::{
        answer::KEYS_MAX,
        parameters::Parameters,
        state::{entry::Stage, key as entry_key},
    },
};
use tokio::time::Instant;

use super::{fake_ledger::Tampering, *};
use crate::client::{LedgerError, SubmitError};

const CREDITS: u64 = 1_000;
const STAKE: u64 = 70;

/// The account that has credits.
fn rich() -> SigningKey {
    owner()
}

fn poor() -> AccountId {
    stranger().account()
}

struct LedgerCluster {
    cluster: Cluster,
}

impl LedgerCluster {
    /// An account with credits, and a stake on the first member.
    fn new(n_shards: u16, n_members: u16) -> Self {
        let account = rich().account();
        let cluster = Cluster::endowed(n_shards, n_members, |peers| Endowment {
            accounts: vec![GenesisAccount { account, balance: CREDITS }],
            stakes: vec![GenesisStake { node: peers[0], account, amount: STAKE }],
            parameters: Parameters { storage_price: 3, ..Parameters::default() },
        });
        Self { cluster }
    }

    fn client(&self) -> &Client<SimulatedNetwork> {
        &self.cluster.client
    }

    fn tamper(&self, nodes: impl IntoIterator<Item = u16>, tampering: Tampering) {
        self.cluster.behave(nodes, &Manner::Ledger(tampering));
    }

    fn advance(&self) -> u64 {
        self.cluster.ledger().advance(None).unwrap()
    }

    fn balance_of(&self, account: &AccountId) -> u64 {
        self.cluster.ledger().account(account).balance
    }

    async fn balance(&self) -> Result<(u64, u64), LedgerError> {
        let proven = self.client().ledger_account(&rich().account()).await?;
        Ok((proven.height, proven.value.balance))
    }

    async fn send(&self, amount: u64) -> Result<crate::client::Submitted, SubmitError> {
        self.client().submit(Action::Transfer { to: poor(), amount }, &rich()).await
    }
}

/// All the ways to lie about entries.
const LIES: [Tampering; 6] = [
    Tampering::ForgedValue,
    Tampering::ForgedHead,
    Tampering::BorrowedCertificate,
    Tampering::ForgedGenesis,
    Tampering::Truncated,
    Tampering::Garbage,
];

#[test]
fn the_ledger_can_be_asked_on_any_thread() {
    const fn is_send<T: Send>(_: &T) {}
    run(async {
        let net = LedgerCluster::new(4, 4);
        let key = rich();
        is_send(&net.client().ledger_overview(true));
        is_send(&net.client().ledger_entries(&[]));
        is_send(&net.client().submit(Action::Transfer { to: poor(), amount: 1 }, &key));
    });
}

#[test]
fn entries_are_proven_from_the_genesis_and_from_the_last_block() {
    run(async {
        let net = LedgerCluster::new(7, 7);
        assert_eq!(net.balance().await, Ok((0, CREDITS)));
        let client = net.client();
        let nobody = client.ledger_account(&AccountId([9; 32])).await.unwrap();
        assert_eq!((nobody.value.balance, nobody.value.nonce), (0, 0));
        assert_eq!(net.advance(), 1);
        assert_eq!(net.advance(), 2);
        let head = client.ledger_head().await.unwrap();
        assert_eq!((head.height, head.value.height, head.value.time_ms), (2, 2, 2000));
        assert_eq!((head.value.epoch.0, head.value.stage), (0, Stage::Steady));
        assert_eq!(client.ledger_parameters().await.unwrap().value.storage_price, 3);
        let member = net.cluster.genesis.committee().members()[0].clone();
        let node = client.ledger_node(&member.peer).await.unwrap().value.unwrap();
        assert_eq!((node.stake.credits, node.description.name), (STAKE, member.name));
        assert_eq!(client.ledger_node(&CLIENT).await.unwrap().value, None);
        assert_eq!(client.ledger_blob(&BlobId([1; 32])).await.unwrap().value, None);
        let registration = client.ledger_registration(&BlobId([1; 32]), &rich().account()).await.unwrap();
        assert_eq!(registration.value, None);
        let many = vec![entry_key::head(); KEYS_MAX + 1];
        assert!(matches!(client.ledger_entries(&many).await, Err(LedgerError::TooManyKeys { .. })));
        assert_eq!(client.ledger_entries(&many[1..]).await.unwrap().value.len(), KEYS_MAX);
    });
}

#[test]
fn the_overview_has_every_member_with_its_stake() {
    run(async {
        // More members than one answer has.
        let net = LedgerCluster::new(40, 37);
        net.advance();
        let overview = net.client().ledger_overview(false).await.unwrap();
        assert!(overview.committee.is_none());
        assert_eq!((overview.head.height, overview.parameters.storage_price), (1, 3));
        let committee = net.client().ledger_overview(true).await.unwrap().committee.unwrap();
        let members: Vec<Member> = committee.iter().map(|entry| entry.member.clone()).collect();
        assert_eq!(members, net.cluster.genesis.committee().members());
        assert_eq!(committee[0].node.stake.credits, STAKE);
        assert!(committee[1..].iter().all(|entry| entry.node.stake.credits == 0));
    });
}

#[test]
fn a_lie_is_refused_and_its_author_named_and_others_are_asked() {
    for lie in LIES {
        run(async {
            // f = 2: three shards are a validity set, and two members lie.
            let net = LedgerCluster::new(7, 7);
            net.advance();
            net.tamper([1, 4], lie);
            for _ in 0..4 {
                assert_eq!(net.balance().await, Ok((1, CREDITS)), "{lie:?}");
            }
        });
        run(async {
            let net = LedgerCluster::new(7, 7);
            net.advance();
            net.tamper(0..7, lie);
            let error = net.balance().await.unwrap_err();
            let LedgerError::TooFewProofs { proved: 0, required: 3, failures } = &error else {
                panic!("{error}")
            };
            assert_eq!(failures.liars().count(), 7, "{error}");
            let text = error.to_string();
            let expected = if lie == Tampering::Garbage { "does not decode" } else { "proves nothing" };
            assert!(text.contains("node-") && text.contains(expected), "{text}");
            assert!(!text.contains("is the network up"), "{text}");
        });
    }
}

#[test]
fn a_single_malicious_node_in_reach_is_refused_and_it_is_said_so() {
    for lie in LIES {
        run(async {
            let net = LedgerCluster::new(4, 4);
            net.advance();
            net.cluster.crash([0, 1, 3]);
            net.tamper([2], lie);
            let started = Instant::now();
            let error = net.balance().await.unwrap_err();
            assert!(started.elapsed() <= 40 * SECOND, "{:?}", started.elapsed());
            assert!(error.to_string().contains("; node-2: its answer"), "{error}");
            let error = net.send(1).await.unwrap_err();
            assert!(matches!(error, SubmitError::Nonce(_)), "{error}");
        });
    }
}

#[test]
fn an_answer_of_an_old_height_does_not_count_beside_a_newer_one() {
    run(async {
        let net = LedgerCluster::new(7, 7);
        for _ in 0..5 {
            net.advance();
        }
        net.tamper([0, 3], Tampering::Stale(2));
        for _ in 0..4 {
            assert_eq!(net.balance().await, Ok((5, CREDITS)));
        }
        // What was seen does not go back, whoever says so.
        net.tamper(0..7, Tampering::Stale(4));
        let error = net.balance().await.unwrap_err();
        assert!(error.to_string().contains("height 4, and 5 was seen before"), "{error}");
        let LedgerError::TooFewProofs { failures, .. } = error else { panic!() };
        assert_eq!(failures.liars().count(), 0, "to be behind is no lie");
    });
}

#[test]
fn members_that_are_only_a_moment_behind_are_asked_again() {
    run(async {
        let net = LedgerCluster::new(4, 4);
        for _ in 0..5 {
            net.advance();
        }
        assert_eq!(net.balance().await, Ok((5, CREDITS)));
        // All but one have yet to execute what the client has seen.
        net.tamper(1..4, Tampering::Stale(4));
        let catch_up = async {
            tokio::time::sleep(SECOND / 5).await;
            net.tamper([2], Tampering::None);
        };
        let (balance, ()) = tokio::join!(net.balance(), catch_up);
        assert_eq!(balance, Ok((5, CREDITS)));
    });
}

#[test]
fn members_that_are_silent_or_gone_are_not_waited_for() {
    run(async {
        let net = LedgerCluster::new(7, 7);
        net.advance();
        net.cluster.behave([0, 1, 2], &Manner::Silent);
        net.cluster.crash([3]);
        let started = Instant::now();
        assert_eq!(net.balance().await, Ok((1, CREDITS)));
        assert!(started.elapsed() < 3 * SECOND, "{:?}", started.elapsed());
        net.cluster.crash(0..5);
        let error = net.balance().await.unwrap_err();
        assert!(matches!(error, LedgerError::TooFewProofs { proved: 2, required: 3, .. }), "{error}");
    });
}

#[test]
fn a_transfer_is_executed_once_and_proven() {
    run(async {
        let net = LedgerCluster::new(7, 7);
        for nonce in 0..3 {
            let submitted = net.send(10).await.unwrap();
            assert_eq!((submitted.nonce, submitted.height), (nonce, nonce + 1));
        }
        assert_eq!(net.balance_of(&poor()), 30);
        assert_eq!(net.balance().await, Ok((3, CREDITS - 30)));
    });
}

#[test]
fn what_the_rules_do_not_allow_is_rejected_with_the_reason() {
    run(async {
        let net = LedgerCluster::new(7, 7);
        let error = net.send(CREDITS + 1).await.unwrap_err();
        let SubmitError::Rejected { reason } = &error else { panic!("{error}") };
        assert!(reason.contains("has 1000 credits and needs 1001"), "{reason}");
        let node = CLIENT;
        let error = net.client().submit(Action::Stake { node, amount: 1 }, &rich()).await.unwrap_err();
        assert!(error.to_string().contains("there is no node"), "{error}");
        assert_eq!(net.balance_of(&rich().account()), CREDITS);
    });
}

#[test]
fn members_that_lie_about_a_transaction_do_not_stop_it() {
    use Tampering::{ClaimsExecuted, DropsUnordered, ExecutesUnordered, GoneOnceExecuted, Rejects};
    let height = 3;
    for manner in [
        ClaimsExecuted(height),
        ClaimsExecuted(u64::MAX),
        Rejects,
        DropsUnordered,
        ExecutesUnordered,
        GoneOnceExecuted,
    ] {
        // Any two members, so that those tried first are among them.
        for liars in [[0, 1], [2, 3], [4, 5], [6, 0]] {
            run(async {
                let net = LedgerCluster::new(7, 7);
                for _ in 0..height {
                    net.advance();
                }
                net.tamper(liars, manner);
                let started = Instant::now();
                let submitted = net.send(10).await.unwrap_or_else(|error| panic!("{manner:?}: {error}"));
                assert_eq!(submitted.height, height + 1, "{manner:?}");
                assert_eq!(net.balance_of(&poor()), 10, "{manner:?} {liars:?}");
                assert!(started.elapsed() < 15 * SECOND, "{manner:?} {:?}", started.elapsed());
            });
        }
    }
}

#[test]
fn members_that_are_busy_or_gone_are_passed_over() {
    run(async {
        let net = LedgerCluster::new(7, 7);
        net.cluster.behave([0, 1, 2], &Manner::Busy(1));
        net.cluster.crash([3, 4]);
        net.send(10).await.unwrap();
        assert_eq!(net.balance_of(&poor()), 10);
    });
}

#[test]
fn it_is_said_what_is_not_known() {
    run(async {
        let net = LedgerCluster::new(7, 7);
        net.tamper(0..7, Tampering::DropsUnordered);
        let started = Instant::now();
        let error = net.send(10).await.unwrap_err();
        assert!(started.elapsed() <= 61 * SECOND, "{:?}", started.elapsed());
        assert!(matches!(error, SubmitError::Unknown { nonce: 0, .. }), "{error}");
        assert!(error.to_string().contains("not known whether it was executed"), "{error}");
    });
    run(async {
        let net = LedgerCluster::new(7, 7);
        net.tamper(0..7, Tampering::ClaimsExecuted(0));
        let error = net.send(10).await.unwrap_err();
        let SubmitError::Unknown { failures, .. } = error else { panic!("{error}") };
        assert_eq!(failures.liars().count(), 7);
    });
}

#[test]
fn transactions_of_one_account_take_turns() {
    run(async {
        let net = LedgerCluster::new(7, 7);
        let (first, second) = tokio::join!(net.send(10), net.send(20));
        assert_eq!((first.unwrap().nonce, second.unwrap().nonce), (0, 1));
        assert_eq!(net.balance_of(&poor()), 30);
    });
}

#[test]
fn a_transaction_that_came_too_late_is_not_taken_for_another_of_the_account() {
    run(async {
        let net = LedgerCluster::new(7, 7);
        let (client, key) = (net.client(), rich());
        let other = net.cluster.join(PeerId([201; 32]));
        // Two programs at the same time with the same nonce: one is executed, and the other is signed again with the next.
        let action = |amount| Action::Transfer { to: poor(), amount };
        let (first, second) = tokio::join!(client.submit(action(10), &key), other.submit(action(20), &key));
        let mut nonces = [first.unwrap().nonce, second.unwrap().nonce];
        nonces.sort_unstable();
        assert_eq!((nonces, net.balance_of(&poor())), ([0, 1], 30));
    });
}

/// A store that failed has left an order with members, who have it executed when the owner's next transaction is under way.
#[test]
fn an_order_that_was_left_behind_is_not_taken_for_the_transaction_that_was_sent() {
    run(async {
        for tampering in [Tampering::None, Tampering::DropsUnordered] {
            let net = LedgerCluster::new(7, 7);
            net.tamper(0..7, tampering);
            let mut order = Some(Action::Transfer { to: AccountId([8; 32]), amount: 1 });
            net.cluster.ledger().hook = Some(Box::new(move |request, _, ledger| {
                if matches!(request, protocol::message::Request::Submit { .. })
                    && let Some(order) = order.take()
                {
                    ledger.execute(&rich(), order);
                }
            }));
            let sent = net.send(10).await;
            let (left, got) = (net.balance_of(&AccountId([8; 32])), net.balance_of(&poor()));
            // Whether members take what is sent is one thing; that nothing is said to be executed that was not is another.
            match tampering {
                Tampering::None => assert_eq!((sent.unwrap().nonce, left, got), (1, 1, 10)),
                _ => {
                    assert!(matches!(sent, Err(SubmitError::Unknown { nonce: 1, .. })), "{sent:?}");
                    assert_eq!((left, got), (1, 0));
                }
            }
        }
    });
}
