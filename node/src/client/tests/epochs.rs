//! Epochs that end, for clients that do not wait for it.

use protocol::{
    ledger::{state::entry::Stage, transaction::SignedTransaction},
    message::{Refusal, Request},
};
use tokio::time::Instant;

use super::{
    fake_ledger::{Hook, Tampering},
    *,
};
use crate::{
    client::{BlobStatus, LedgerError},
    config::PeerAddress,
};

/// Bytes of blobs of which each member of seven is sent one message, and several.
const SIZES: [usize; 2] = [50_000, 2_000_000];

impl Cluster {
    /// Members of the genesis, and nodes beside them that may become members.
    fn with_others(n_shards: u16, n_members: u16, n_others: u16) -> Self {
        let (plan, config) = (Plan::new(1), ClientConfig::default());
        Self::build((plan, config), (n_shards, n_members, n_others), |_| Endowment::default())
    }

    /// The committee of an epoch, in which node `owners[i]` has shard `i`.
    fn committee(&self, epoch: u32, owners: &[u16]) -> Arc<Committee> {
        let nodes: std::collections::BTreeSet<u16> = owners.iter().copied().collect();
        let member = |node: &u16| {
            let shards = (0..).zip(owners).filter(|(_, owner)| *owner == node).map(|(i, _)| ShardIndex(i));
            self.descriptions[usize::from(*node)].to_member(self.peer(*node), shards.collect())
        };
        let n_shards = self.genesis.n_shards();
        Arc::new(Committee::new(Epoch(epoch), n_shards, nodes.iter().map(member).collect()).unwrap())
    }

    fn begin_epoch(&self, epoch: u32, owners: &[u16]) -> u64 {
        let committee = self.committee(epoch, owners);
        self.ledger().begin_epoch(committee)
    }

    /// Nodes get the slivers of their shards from who has them.
    fn sync_shards(&self) {
        let committee = Arc::clone(self.ledger().state().committee());
        let all: Vec<_> = self.doubles.iter().flat_map(|double| double.slivers()).collect();
        for (at, kept) in all {
            let owner = committee.owner(committee.shard_of(&at.blob_id, at.segment, at.pair));
            let peer = committee.member(owner).unwrap().peer;
            let double = self.peers.iter().position(|other| *other == peer).unwrap();
            self.doubles[double].take_over(at, kept);
        }
    }

    fn upload_bytes(&self) -> Vec<usize> {
        self.doubles.iter().map(|double| double.upload_bytes()).collect()
    }

    fn fetches(&self) -> Vec<usize> {
        self.doubles.iter().map(|double| double.n_fetches()).collect()
    }

    async fn epoch(&self) -> Result<u32, LedgerError> {
        Ok(self.client.ledger_head().await?.value.epoch.0)
    }

    fn set_hook(&self, hook: impl FnMut(&Request, &[u8], &mut FakeLedger) + Send + 'static) {
        let hook: Hook = Box::new(hook);
        self.ledger().hook = Some(hook);
    }
}

/// The first member left, and the second has its shard.
const MOVED: [u16; 7] = [1, 1, 2, 3, 4, 5, 6];
/// Another node has come instead of the first member.
const REPLACED: [u16; 7] = [7, 1, 2, 3, 4, 5, 6];

#[test]
fn several_changes_of_the_committee_are_followed_from_the_genesis() {
    run(async {
        let cluster = Cluster::with_others(7, 7, 7);
        let late = cluster.join(PeerId([201; 32]));
        for epoch in 1..=7 {
            let first = u16::try_from(epoch).unwrap();
            let owners: Vec<u16> = (first..first + 7).collect();
            cluster.begin_epoch(epoch, &owners);
            if epoch % 2 == 0 {
                assert_eq!(cluster.epoch().await, Ok(epoch), "its first block is the last there is");
            }
            cluster.ledger().finish_handover();
            assert_eq!(cluster.epoch().await, Ok(epoch));
        }
        // Nobody is left whom the genesis names; a client that knows nothing else is told all the same.
        assert_eq!(late.ledger_head().await.unwrap().value.epoch, Epoch(7));
        cluster.crash(0..7);
        let stored = cluster.store(&blob(50_000)).await.unwrap();
        assert_eq!(stored.epoch, Epoch(7));
        let read = late.read(stored.blob_id, Vec::new(), quiet()).await.unwrap().1;
        assert!(read == blob(50_000));
        let names: Vec<String> = cluster.client.health().await.into_iter().map(|it| it.name).collect();
        assert_eq!(names.len(), 7);
        assert!(names.contains(&"node-13".to_owned()) && !names.contains(&"node-6".to_owned()), "{names:?}");
        let overview = late.ledger_overview(true).await.unwrap();
        assert_eq!((overview.head.epoch, overview.committee.unwrap().len()), (Epoch(7), 7));
    });
}

#[test]
fn what_is_announced_is_looked_at_at_once_and_believed_by_nobody() {
    run(async {
        let cluster = Cluster::with_others(7, 7, 7);
        cluster.begin_epoch(1, &REPLACED);
        let (announced, member) = (cluster.ledger().announcement(), cluster.peer(1));
        let known = || cluster.client.exchange().committee().epoch();
        // Members that do not go along with it, or show something else, and who is none.
        cluster.behave([2], &Manner::Ledger(Tampering::NoChange));
        cluster.behave([3], &Manner::Ledger(Tampering::ForgedChange));
        assert!(cluster.client.hear(cluster.peer(2), &announced).await);
        assert!(cluster.client.hear(cluster.peer(3), &announced).await);
        assert!(!cluster.client.hear(member, b"not one").await);
        assert_eq!(known(), Epoch(0));
        assert!(cluster.client.hear(member, &announced).await);
        assert_eq!(known(), Epoch(1), "before anything was asked for");
        assert!(cluster.client.hear(cluster.peer(7), &announced).await, "it is a member now");
        assert!(!cluster.client.hear(PeerId([77; 32]), &announced).await);
    });
}

#[test]
fn whoever_is_named_shows_the_way_when_all_whom_the_genesis_names_are_gone() {
    run(async {
        let cluster = Cluster::with_others(7, 7, 7);
        cluster.begin_epoch(1, &[7, 8, 9, 10, 11, 12, 13]);
        cluster.ledger().finish_handover();
        cluster.crash(0..7);
        // The first does not answer, the second lies.
        let named = [9, 10, 11].map(|node| {
            let peer = cluster.peer(node);
            PeerAddress { peer, address: cluster.simulation.address(peer) }
        });
        cluster.behave([9], &Manner::Silent);
        cluster.behave([10], &Manner::Ledger(Tampering::ForgedChange));
        let config = ClientConfig { bootstrap: named.to_vec(), ..ClientConfig::default() };
        let client = join(&cluster.simulation, &cluster.genesis, PeerId([201; 32]), config);
        let started = Instant::now();
        let key = owner();
        let stored = client.store(Arc::new(blob(50_000)), &key, StoreOptions::default(), quiet()).await;
        assert_eq!(stored.unwrap().epoch, Epoch(1));
        assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
        assert!(cluster.epoch().await.is_err(), "nobody shows it to who knows the genesis only");
    });
}

#[test]
fn a_change_that_does_not_verify_is_refused_and_its_author_named() {
    for lie in [Tampering::ForgedChange, Tampering::OtherCommittee, Tampering::SkipsChange] {
        run(async {
            let cluster = Cluster::with_others(7, 7, 1);
            cluster.begin_epoch(1, &REPLACED);
            cluster.ledger().finish_handover();
            cluster.begin_epoch(2, &MOVED);
            // Those that are asked first.
            cluster.behave([0, 1], &Manner::Ledger(lie));
            assert_eq!(cluster.epoch().await, Ok(2), "{lie:?}");
        });
        run(async {
            let cluster = Cluster::with_others(7, 7, 1);
            cluster.begin_epoch(1, &REPLACED);
            cluster.ledger().finish_handover();
            cluster.begin_epoch(2, &MOVED);
            cluster.behave(0..8, &Manner::Ledger(lie));
            let error = cluster.epoch().await.unwrap_err();
            let LedgerError::TooFewProofs { proved: 0, failures, .. } = &error else { panic!("{error}") };
            assert_eq!(failures.liars().count(), 7, "{lie:?}: {error}");
            assert!(error.to_string().contains("the change of the committee that it shows"), "{error}");
        });
    }
}

#[test]
fn who_only_says_that_the_committee_changed_is_not_believed() {
    for epoch in [1, u32::MAX] {
        run(async {
            let cluster = Cluster::new(7, 7);
            cluster.ledger().advance(None).unwrap();
            cluster.behave([0, 1], &Manner::Ledger(Tampering::ClaimsEpoch(epoch)));
            assert_eq!(cluster.epoch().await, Ok(0));
            cluster.behave(0..7, &Manner::Ledger(Tampering::ClaimsEpoch(epoch)));
            let started = Instant::now();
            let error = cluster.epoch().await.unwrap_err();
            assert!(error.to_string().contains("does not show how the committee changed"), "{error}");
            assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
        });
    }
    run(async {
        // Who cannot show it is no obstacle.
        let cluster = Cluster::with_others(7, 7, 1);
        cluster.begin_epoch(1, &REPLACED);
        cluster.behave([0, 1], &Manner::Ledger(Tampering::NoChange));
        assert_eq!(cluster.epoch().await, Ok(1));
    });
}

#[test]
fn a_member_that_is_an_epoch_behind_is_not_blamed() {
    run(async {
        let cluster = Cluster::with_others(7, 7, 1);
        let before = cluster.ledger().advance(None).unwrap();
        cluster.begin_epoch(1, &REPLACED);
        assert_eq!(cluster.epoch().await, Ok(1));
        cluster.behave([2, 3, 4, 5], &Manner::Ledger(Tampering::Stale(before)));
        assert_eq!(cluster.epoch().await, Ok(1), "a validity set is not behind");
        cluster.behave(0..8, &Manner::Ledger(Tampering::Stale(before)));
        let error = cluster.epoch().await.unwrap_err();
        assert!(error.to_string().contains("it is behind: height"), "{error}");
        let LedgerError::TooFewProofs { failures, .. } = error else { panic!() };
        assert_eq!(failures.liars().count(), 0);
    });
}

/// Moments at which an epoch may end under a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// What the ledger says was looked up, and nothing is sent yet.
    BeforeAll,
    /// So many slivers, or blobs in one message, have come.
    Slivers(usize),
    /// So many members were asked to confirm.
    Confirmations(usize),
    /// The certificate is on its way to the ledger.
    BeforeCertify,
}

impl Moment {
    const ALL: [Self; 7] = [
        Self::BeforeAll,
        Self::Slivers(1),
        Self::Slivers(4),
        Self::Confirmations(1),
        Self::Confirmations(4),
        Self::Confirmations(6),
        Self::BeforeCertify,
    ];

    /// Counts a request that brings the moment nearer; true once it is there.
    fn is_reached(self, seen: &mut usize, request: &Request, payload: &[u8]) -> bool {
        let counted = match self {
            Self::BeforeAll => !matches!(request, Request::Entries { .. } | Request::Ledger(_)),
            Self::Slivers(_) => matches!(request, Request::StoreSliver { .. } | Request::StoreBlob { .. }),
            Self::Confirmations(_) => matches!(request, Request::Confirm { .. } | Request::StoreBlob { .. }),
            Self::BeforeCertify => {
                matches!(request, Request::Submit { .. })
                    && SignedTransaction::from_bytes(payload).is_ok_and(|signed| {
                        matches!(
                            signed.transaction().action,
                            Action::StoreBlob { .. } | Action::CertifyBlob { .. }
                        )
                    })
            }
        };
        *seen += usize::from(counted);
        match self {
            Self::Slivers(n) | Self::Confirmations(n) => *seen >= n,
            Self::BeforeAll | Self::BeforeCertify => *seen >= 1,
        }
    }
}

/// Has another committee take over at a moment of a store; `and_done` if the handover is done at once.
fn change_at(cluster: &Cluster, moment: Moment, owners: &[u16], and_done: bool) {
    let next = cluster.committee(1, owners);
    let mut seen = 0;
    cluster.set_hook(move |request, payload, ledger| {
        if ledger.state().committee().epoch() == Epoch(0) && moment.is_reached(&mut seen, request, payload) {
            ledger.begin_epoch(Arc::clone(&next));
            if and_done {
                ledger.finish_handover();
            }
        }
    });
}

#[test]
fn a_store_goes_on_whenever_the_epoch_ends() {
    for (moment, len) in Moment::ALL.into_iter().flat_map(|moment| SIZES.map(|len| (moment, len))) {
        for (owners, and_done) in [(MOVED, false), (MOVED, true), (REPLACED, false), (REPLACED, true)] {
            run(async {
                let cluster = Cluster::with_others(7, 7, 1);
                let data = blob(len);
                change_at(&cluster, moment, &owners, and_done);
                let context = format!("{moment:?} {len} {owners:?} {and_done}");
                let stored = cluster.store(&data).await.unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(stored.duration < 5 * SECOND, "{context}: {:?}", stored.duration);
                assert!(!stored.already_certified);
                let ended = cluster.ledger().state().committee().epoch();
                assert_eq!(ended, Epoch(1), "{context}");
                assert!(cluster.registration(&owner(), stored.blob_id).certified.is_some());
                // While members take over, the word of the committee before is good.
                if and_done {
                    assert_eq!(stored.epoch, Epoch(1), "{context}");
                }
                // What is certified in the epoch that has begun is with its members, and is read from them.
                cluster.ledger().finish_handover();
                if stored.epoch == Epoch(0) {
                    cluster.sync_shards();
                }
                cluster.crash([0]);
                assert!(cluster.read(stored.blob_id).await.unwrap().1 == data, "{context}");
            });
        }
    }
}

#[test]
fn members_are_sent_only_what_they_lack_in_the_next_committee() {
    let moments = [Moment::Confirmations(6), Moment::Confirmations(4), Moment::BeforeCertify];
    for (moment, len) in moments.into_iter().flat_map(|moment| SIZES.map(|len| (moment, len))) {
        // As much of it as is sent at first.
        let pair = run(async {
            let cluster = Cluster::new(7, 7);
            cluster.store(&blob(len)).await.unwrap();
            assert!(cluster.upload_bytes().iter().all(|bytes| *bytes == cluster.upload_bytes()[0]));
            cluster.upload_bytes()[0]
        });
        for owners in [MOVED, REPLACED] {
            run(async {
                let cluster = Cluster::with_others(7, 7, 1);
                change_at(&cluster, moment, &owners, true);
                // All members have it by the time that they are asked.
                cluster.ledger().block_time = SECOND;
                let stored = cluster.store(&blob(len)).await.unwrap();
                assert_eq!(stored.epoch, Epoch(1));
                let sent = cluster.upload_bytes();
                let context = format!("{moment:?} {len} {owners:?} {sent:?}");
                assert_eq!(sent[2..7], [pair; 5], "{context}");
                let gained = if owners == MOVED { [2 * pair, 0] } else { [pair, pair] };
                assert_eq!([sent[1], sent[7]], gained, "{context}");
            });
        }
    }
}

#[test]
fn a_store_outlives_many_epochs() {
    for len in SIZES {
        run(async {
            let cluster = Cluster::with_others(7, 7, 1);
            let data = blob(len);
            let committees: Vec<_> = (1..=12)
                .map(|epoch| cluster.committee(epoch, if epoch % 2 == 0 { &REPLACED } else { &MOVED }))
                .collect();
            let (mut seen, mut left) = (0, committees.into_iter());
            cluster.set_hook(move |request, _, ledger| {
                seen += usize::from(matches!(request, Request::Confirm { .. } | Request::StoreBlob { .. }));
                if seen >= 4
                    && let Some(next) = left.next()
                {
                    seen = 0;
                    ledger.begin_epoch(next);
                    ledger.finish_handover();
                }
            });
            // For so many epochs that the registration holds.
            let options = StoreOptions { epochs: 20, ..StoreOptions::default() };
            let stored = cluster.store_as(&owner(), &data, options).await.unwrap();
            assert_eq!(stored.epoch, Epoch(12));
            assert!(cluster.read(stored.blob_id).await.unwrap().1 == data);
        });
        run(async {
            // Even the epoch that was paid for is over.
            let cluster = Cluster::with_others(7, 7, 1);
            change_at(&cluster, Moment::Confirmations(4), &MOVED, true);
            let options = StoreOptions { epochs: 1, ..StoreOptions::default() };
            let stored = cluster.store_as(&owner(), &blob(len), options).await.unwrap();
            assert_eq!((stored.epoch, stored.end), (Epoch(1), Epoch(2)));
        });
    }
}

#[test]
fn large_blobs_go_on_in_the_middle() {
    for moment in [Moment::Slivers(3), Moment::Slivers(20), Moment::Slivers(90)] {
        for owners in [[1, 1, 2, 3], [4, 1, 2, 3]] {
            run(async {
                let config = ClientConfig { segments_in_flight: 1, ..ClientConfig::default() };
                let endow = |_: &[PeerId]| Endowment::default();
                let cluster = Cluster::build((Plan::new(1), config), (4, 4, 1), endow);
                change_at(&cluster, moment, &owners, true);
                let data = blob(2 * segment_bytes(4) + 17);
                let stored = cluster.store(&data).await.unwrap();
                assert_eq!(stored.epoch, Epoch(1));
                cluster.crash([0]);
                assert!(cluster.read(stored.blob_id).await.unwrap().1 == data);
                for (node, double) in (0..).zip(&cluster.doubles).skip(1) {
                    let n_shards = owners.iter().filter(|owner| **owner == node).count();
                    let n_held = double.slivers().len();
                    assert!(n_held >= 3 * 2 * n_shards, "{moment:?} {owners:?}: node {node} has {n_held}");
                }
            });
        }
    }
}

#[test]
fn members_that_do_not_know_yet_that_the_epoch_began_are_waited_for() {
    for len in SIZES {
        run(async {
            let cluster = Cluster::with_others(7, 7, 1);
            let before = cluster.ledger().height();
            cluster.begin_epoch(1, &MOVED);
            assert_eq!(cluster.epoch().await, Ok(1));
            cluster.behave([4, 5, 6], &Manner::Ledger(Tampering::Stale(before)));
            let late = async {
                tokio::time::sleep(2 * SECOND).await;
                cluster.behave([4, 5, 6], &Manner::Honest);
            };
            let data = blob(len);
            let (stored, ()) = tokio::join!(cluster.store(&data), late);
            let stored = stored.unwrap();
            assert_eq!(stored.epoch, Epoch(1));
            assert!(stored.duration < 4 * SECOND, "{:?}", stored.duration);
        });
    }
}

#[test]
fn reads_go_to_the_committee_that_answers_for_the_blob() {
    run(async {
        let others = [7, 8, 9, 10, 11, 12, 13];
        let cluster = Cluster::with_others(7, 7, 7);
        let data = blob(50_000);
        let old = cluster.store(&data).await.unwrap();
        cluster.begin_epoch(1, &others);
        let new = cluster.store(&blob(60_000)).await.unwrap();
        let asked = |before: &[usize]| -> Vec<usize> {
            let more = cluster.fetches().into_iter().zip(before).map(|(now, before)| now - before);
            (0..).zip(more).filter(|(_, more)| *more > 0).map(|(node, _)| node).collect()
        };
        let before = cluster.fetches();
        assert!(cluster.read(old.blob_id).await.unwrap().1 == data);
        assert!(asked(&before).iter().all(|node| *node < 7), "certified before: {:?}", asked(&before));
        let before = cluster.fetches();
        assert!(cluster.read(new.blob_id).await.unwrap().1 == blob(60_000));
        assert!(asked(&before).iter().all(|node| *node >= 7), "certified since: {:?}", asked(&before));
        cluster.sync_shards();
        // As soon as it has the slivers, the other committee is one to fall back on.
        cluster.behave_with_blobs(0..7, &Manner::Silent);
        assert!(cluster.read(old.blob_id).await.unwrap().1 == data);
        cluster.behave_with_blobs(0..7, &Manner::Honest);
        cluster.ledger().finish_handover();
        assert!(matches!(cluster.ledger().state().head().unwrap().stage, Stage::Steady));
        let before = cluster.fetches();
        assert!(cluster.read(old.blob_id).await.unwrap().1 == data);
        assert!(asked(&before).iter().all(|node| *node >= 7), "handed over: {:?}", asked(&before));
    });
}

#[test]
fn what_the_committee_before_certified_is_read_at_once() {
    for (len, and_done) in SIZES.into_iter().flat_map(|len| [(len, false), (len, true)]) {
        run(async {
            let cluster = Cluster::with_others(7, 7, 7);
            change_at(&cluster, Moment::BeforeCertify, &[7, 8, 9, 10, 11, 12, 13], false);
            let stored = cluster.store(&blob(len)).await.unwrap();
            assert_eq!(stored.epoch, Epoch(0));
            if and_done {
                cluster.ledger().finish_handover();
            }
            let started = Instant::now();
            assert!(cluster.read(stored.blob_id).await.unwrap().1 == blob(len), "{len} {and_done}");
            assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
        });
    }
}

#[test]
fn who_says_falsely_that_the_epoch_ended_fails_no_store() {
    for (refusal, len) in [Refusal::WrongEpoch { current: Epoch(9) }, Refusal::NotMine]
        .iter()
        .flat_map(|refusal| SIZES.map(|len| (refusal, len)))
    {
        run(async {
            let cluster = Cluster::new(7, 7);
            cluster.behave_with_blobs([2, 5], &Manner::Refuses(refusal.clone()));
            let stored = cluster.store(&blob(len)).await.unwrap();
            assert!(stored.duration < SECOND, "{refusal:?} {len}: {:?}", stored.duration);
            cluster.behave_with_blobs([1, 2, 5], &Manner::Refuses(refusal.clone()));
            let started = Instant::now();
            let error = cluster.store(&blob(len + 1)).await.unwrap_err();
            assert!(matches!(error, StoreError::TooFewConfirmations { got: 4, .. }), "{error}");
            assert!(started.elapsed() < 5 * SECOND, "{refusal:?} {len}: {:?}", started.elapsed());
        });
    }
}

#[test]
fn a_transaction_is_executed_whenever_the_epoch_ends() {
    for (n, and_done) in [(1, false), (1, true), (2, true)] {
        run(async {
            let cluster = Cluster::with_others(7, 7, 7);
            let next = cluster.committee(1, &[7, 8, 9, 10, 11, 12, 13]);
            // Those who leave take nothing.
            cluster.behave(0..7, &Manner::SubmitsNothing);
            let mut seen = 0;
            cluster.set_hook(move |request, _, ledger| {
                seen += usize::from(matches!(request, Request::Entries { .. }));
                if seen > 3 * n && ledger.state().committee().epoch() == Epoch(0) {
                    ledger.begin_epoch(Arc::clone(&next));
                    if and_done {
                        ledger.finish_handover();
                    }
                }
            });
            // What is read while it is tried tells that there are others to try.
            let (key, amount) = (stranger(), 0);
            let action = Action::Transfer { to: owner().account(), amount };
            let reads = async {
                for _ in 0..3 {
                    cluster.client.ledger_head().await.unwrap();
                }
            };
            let (result, ()) = tokio::join!(cluster.client.submit(action, &key), reads);
            let error = result.unwrap_err();
            // The account has nothing to transfer: that much is said by those who have taken over.
            assert!(error.to_string().contains("the ledger does not allow it"), "{n} {and_done}: {error}");
        });
    }
}

#[test]
fn who_had_a_shard_before_is_asked_when_its_owner_has_nothing_yet() {
    run(async {
        let cluster = Cluster::with_others(7, 7, 5);
        let data = blob(100_000);
        let stored = cluster.store(&data).await.unwrap();
        // Five of seven are new and slow: with two slivers there is no reading.
        cluster.begin_epoch(1, &[7, 8, 9, 10, 11, 5, 6]);
        cluster.ledger().finish_handover();
        let started = Instant::now();
        assert!(cluster.read(stored.blob_id).await.unwrap().1 == data);
        assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
    });
}

#[test]
fn a_read_goes_on_over_changes_of_the_committee() {
    run(async {
        let config = ClientConfig { segments_in_flight: 1, ..ClientConfig::default() };
        let endow = |_: &[PeerId]| Endowment::default();
        let cluster = Cluster::build((Plan::new(1), config), (4, 4, 8), endow);
        let data = blob(3 * segment_bytes(4));
        let stored = cluster.store(&data).await.unwrap();
        let report = cluster.client.status(stored.blob_id).await.unwrap();
        assert!(matches!(report.status, BlobStatus::Certified { .. }));
        // After a segment, and after two, everyone is replaced, and who leaves has nothing any more.
        let next = [cluster.committee(1, &[4, 5, 6, 7]), cluster.committee(2, &[8, 9, 10, 11])];
        let cluster = Arc::new(cluster);
        let (in_progress, mut next) = (Arc::clone(&cluster), next.into_iter());
        let segment = u64::try_from(segment_bytes(4)).unwrap();
        let progress: OnProgress = Arc::new({
            let next = Mutex::new(move || next.next());
            move |progress| {
                if let Progress::Reading { done, .. } = progress
                    && done >= segment
                    && let Some(committee) = (*next.lock().unwrap())()
                {
                    in_progress.ledger().begin_epoch(Arc::clone(&committee));
                    in_progress.sync_shards();
                    in_progress.ledger().finish_handover();
                    in_progress.doubles.iter().for_each(|double| double.drop_moved(&committee));
                }
            }
        });
        let (summary, read) = cluster.client.read(stored.blob_id, Vec::new(), progress).await.unwrap();
        assert!(read == data);
        assert_eq!(cluster.ledger().state().committee().epoch(), Epoch(2));
        assert!(summary.received_bytes < summary.size * 3, "what was read is not read again: {summary:?}");
    });
}
