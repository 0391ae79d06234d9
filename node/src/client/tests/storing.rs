//! Storing.

use protocol::{
    genesis::GenesisAccount,
    ledger::{
        parameters::{Parameters, cost},
        state::entry::Registration,
    },
    message::Refusal,
};
use swarm::simulated::Link;
use tokio::time::Instant;

use super::{fake_ledger::Tampering, *};
use crate::client::{BlobSource, SubmitError, blob_id};

/// Bytes of blobs of which each member of seven is sent one message, and several.
const SIZES: [usize; 2] = [50_000, 2_000_000];

#[test]
fn blobs_of_any_size_come_back() {
    for (n_shards, n_members) in [(4, 4), (7, 7), (10, 4), (13, 1)] {
        for len in [0, 1, 1000, 100_000] {
            run(async {
                let cluster = Cluster::new(n_shards, n_members);
                let data = blob(len);
                let (stored, summary) = cluster.round_trip(&data).await;
                assert_eq!(stored.size, u64::try_from(len).unwrap());
                assert!(!stored.already_certified);
                assert!(stored.duration < SECOND, "{:?}", stored.duration);
                assert_eq!((summary.segments, summary.segments_decoded), (1, 0));
                let id = blob_id(&Encoder::inline(n_shards), Arc::new(data), n_shards, quiet()).await;
                assert_eq!(id.unwrap(), stored.blob_id);
                for (node, double) in (0..).map(NodeIndex).zip(&cluster.doubles) {
                    let weight = usize::from(cluster.genesis.committee().weight(node));
                    // Small blobs are held once.
                    let owed = if len <= 64 * usize::from(n_shards) { 1 } else { 2 * weight };
                    assert_eq!(double.n_slivers(), owed, "the tail reaches everyone");
                }
                assert!(cluster.ledger().is_available(stored.blob_id));
                let registration = cluster.registration(&owner(), stored.blob_id);
                assert_eq!((registration.end, registration.nonce), (stored.end, 0));
                assert_eq!(stored.end, Epoch(DEFAULT_EPOCHS));
            });
        }
    }
}

#[test]
fn several_segments_come_back_and_progress_is_told_in_order() {
    run(async {
        let cluster = Cluster::new(4, 4);
        let data = blob(3 * segment_bytes(4) + 17);
        let (progress, log) = recorded();
        let source = Arc::new(data.clone());
        let options = StoreOptions::default();
        let stored = cluster.client.store(source, &owner(), options, progress).await.unwrap();
        assert!(stored.timings.registered.is_some(), "it does not fit into one message");
        let (summary, read) = cluster.read(stored.blob_id).await.unwrap();
        assert!(read == data);
        assert_eq!((summary.segments, summary.segments_decoded), (4, 0));
        let total = stored.size;
        let log = log.lock().unwrap().clone();
        let uploaded: Vec<u64> = log
            .iter()
            .filter_map(|p| if let Progress::Uploading { done, .. } = p { Some(*done) } else { None })
            .collect();
        assert!(uploaded.is_sorted());
        assert_eq!((uploaded[0], *uploaded.last().unwrap()), (0, total));
        assert!(log.contains(&Progress::Encoding { done: total, total }));
        assert!(log.contains(&Progress::Identified(stored.blob_id)));
        assert_eq!(log.last(), Some(&Progress::Certified));
    });
}

#[test]
fn what_is_certified_is_not_sent_again() {
    for len in SIZES {
        run(async {
            let cluster = Cluster::new(7, 7);
            let data = blob(len);
            let first = cluster.store(&data).await.unwrap();
            let (n_uploads, height) = (cluster.n_uploads(), cluster.ledger().height());
            let again = cluster.store(&data).await.unwrap();
            assert!(again.already_certified);
            assert_eq!((again.blob_id, again.end), (first.blob_id, first.end));
            // For less than there is, nothing is to be done either.
            let options = StoreOptions { epochs: 1, ..StoreOptions::default() };
            let again = cluster.store_as(&owner(), &data, options).await.unwrap();
            assert_eq!((again.already_certified, again.end), (true, first.end));
            assert_eq!(cluster.n_uploads(), n_uploads);
            assert_eq!(cluster.ledger().height(), height, "nothing to put on the ledger");
        });
    }
}

#[test]
fn a_blob_stored_for_more_epochs_holds_longer() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let first = cluster.store(b"hello").await.unwrap();
        let n_uploads = cluster.n_uploads();
        let options = StoreOptions { epochs: 20, ..StoreOptions::default() };
        let again = cluster.store_as(&owner(), b"hello", options).await.unwrap();
        assert_eq!((first.end, again.end), (Epoch(10), Epoch(20)));
        assert!(again.already_certified);
        let Registration { end, certified, .. } = cluster.registration(&owner(), first.blob_id);
        assert_eq!((end, certified), (Epoch(20), Some(1)));
        assert_eq!(cluster.n_uploads(), n_uploads);
    });
}

#[test]
fn a_blob_that_may_be_deleted_is_not_what_one_who_wants_it_kept_asked_for() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let permanent = StoreOptions { persistence: Persistence::Permanent, ..StoreOptions::default() };
        let first = cluster.store(b"hello").await.unwrap();
        let error = cluster.store_as(&owner(), b"hello", permanent).await.unwrap_err();
        let StoreError::Deletable { blob_id, end } = error else { panic!("{error:?}") };
        assert_eq!((blob_id, end), (first.blob_id, first.end));
        // As the error says.
        cluster.ledger().execute(&owner(), Action::DeleteBlob { blob_id });
        let second = cluster.store_as(&owner(), b"hello", permanent).await.unwrap();
        assert!(!second.already_certified);
        assert_eq!(cluster.registration(&owner(), blob_id).persistence, Persistence::Permanent);
        assert!(cluster.store(b"hello").await.unwrap().already_certified, "more than was asked for");
    });
}

#[test]
fn what_another_account_has_stored_is_confirmed_and_not_sent_again() {
    for len in SIZES {
        run(async {
            let cluster = Cluster::new(7, 7);
            let data = blob(len);
            let first = cluster.store(&data).await.unwrap();
            let n_uploads = cluster.n_uploads();
            let second = cluster.store_as(&stranger(), &data, StoreOptions::default()).await.unwrap();
            assert_eq!(second.blob_id, first.blob_id);
            assert!(!second.already_certified, "the registration is its own");
            assert!(second.confirmed >= 5);
            assert_eq!(cluster.n_uploads(), n_uploads);
            assert_eq!(cluster.ledger().blob(first.blob_id).unwrap().n_registrations, 2);
            assert!(cluster.registration(&stranger(), first.blob_id).certified.is_some());
            // So it stays when the first is gone.
            cluster.ledger().execute(&owner(), Action::DeleteBlob { blob_id: first.blob_id });
            assert!(cluster.ledger().is_available(first.blob_id));
            assert!(cluster.read(first.blob_id).await.unwrap().1 == data);
        });
        run(async {
            // Three lost it meanwhile, without whom there is no quorum: they are sent it.
            let cluster = Cluster::new(7, 7);
            let data = blob(len);
            cluster.store(&data).await.unwrap();
            let n_uploads = cluster.n_uploads();
            cluster.behave([1, 2, 5], &Manner::Drops(1));
            cluster.store_as(&stranger(), &data, StoreOptions::default()).await.unwrap();
            assert!(cluster.n_uploads() > n_uploads);
            assert!(cluster.doubles.iter().all(|double| double.n_slivers() == 2));
        });
    }
}

#[test]
fn what_was_registered_and_not_certified_is_taken_up() {
    for len in SIZES {
        run(async {
            let cluster = Cluster::new(7, 7);
            let data = blob(len);
            let header = cluster.header_of(&data).await;
            cluster.register(&owner(), header);
            let stored = cluster.store(&data).await.unwrap();
            assert!(!stored.already_certified);
            assert_eq!(stored.end, Epoch(DEFAULT_EPOCHS));
            let registration = cluster.registration(&owner(), stored.blob_id);
            assert_eq!((registration.nonce, registration.certified), (0, Some(2)));
        });
    }
}

#[test]
fn one_account_stores_several_blobs_at_once() {
    for len in SIZES {
        run(async {
            let cluster = Cluster::new(7, 7);
            let (a, b) = (blob(len), blob(len + 1));
            let (a, b) = futures::future::join(cluster.store(&a), cluster.store(&b)).await;
            for stored in [a.unwrap(), b.unwrap()] {
                assert!(!stored.already_certified);
                assert!(cluster.registration(&owner(), stored.blob_id).certified.is_some());
            }
        });
        run(async {
            // The same one twice.
            let cluster = Cluster::new(7, 7);
            let data = blob(len);
            let (a, b) = futures::future::join(cluster.store(&data), cluster.store(&data)).await;
            assert_eq!(a.unwrap().blob_id, b.unwrap().blob_id);
        });
        run(async {
            // By two programs, neither of which knows of the other.
            let cluster = Cluster::new(7, 7);
            let other = cluster.join(PeerId([201; 32]));
            let (data, key) = (blob(len + 1), owner());
            let there = other.store(Arc::new(data), &key, StoreOptions::default(), quiet());
            let (a, b) = futures::future::join(cluster.store(&blob(len)), there).await;
            for stored in [a.unwrap(), b.unwrap()] {
                assert!(cluster.registration(&owner(), stored.blob_id).certified.is_some());
            }
        });
    }
}

#[test]
fn an_order_that_members_do_not_act_on_is_given_up() {
    run(async {
        let cluster = Cluster::new(7, 7);
        cluster.behave(0..7, &Manner::RefusesOrders);
        let stored = cluster.store(b"hello").await.unwrap();
        assert!(stored.timings.registered.is_some_and(|at| at >= SECOND), "{:?}", stored.timings);
        assert!(stored.duration < 3 * SECOND, "{:?}", stored.duration);
        assert_eq!(cluster.registration(&owner(), stored.blob_id).certified, Some(2));
        assert_eq!(cluster.read(stored.blob_id).await.unwrap().1, b"hello");
    });
    run(async {
        // As long as a quorum does, the others are no reason to.
        let cluster = Cluster::new(7, 7);
        cluster.behave([0, 6], &Manner::RefusesOrders);
        let stored = cluster.store(b"hello").await.unwrap();
        assert_eq!((stored.timings.registered, cluster.ledger().height()), (None, 1));
        assert!(stored.duration < SECOND / 4, "{:?}", stored.duration);
    });
}

#[test]
fn an_order_that_a_member_has_executed_is_certified_all_the_same() {
    for nodes in [vec![4], vec![6], (0..7).collect()] {
        run(async {
            let cluster = Cluster::new(7, 7);
            cluster.behave(nodes, &Manner::ExecutesOrders);
            let stored = cluster.store(b"hello").await.unwrap();
            let registration = cluster.registration(&owner(), stored.blob_id);
            assert_eq!((registration.nonce, registration.certified), (0, Some(2)));
            assert!(stored.duration < 3 * SECOND, "{:?}", stored.duration);
        });
    }
}

/// A network where storage has a price, and the owner has this many credits.
fn with_credits(balance: u64) -> Cluster {
    Cluster::endowed(7, 7, |_| Endowment {
        accounts: vec![GenesisAccount { account: owner().account(), balance }],
        parameters: Parameters { storage_price: 7, write_price: 5, ..Parameters::default() },
        ..Endowment::default()
    })
}

#[test]
fn what_the_owner_cannot_pay_for_is_not_stored_and_it_is_said_why() {
    for len in SIZES {
        run(async {
            let cluster = with_credits(20);
            let started = Instant::now();
            let error = cluster.store(&blob(len)).await.unwrap_err();
            let StoreError::Submit(SubmitError::Rejected { reason }) = &error else { panic!("{error:?}") };
            assert!(reason.contains("has 20 credits and needs"), "{reason}");
            assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
            let account = cluster.ledger().account(&owner().account());
            assert_eq!((account.balance, account.nonce), (20, 0));
        });
    }
    run(async {
        let cluster = with_credits(1_000);
        let (stored, _) = cluster.round_trip(&blob(50_000)).await;
        let paid = 10 * cost(stored.encoded_size, 7) + cost(stored.encoded_size, 5);
        assert!(paid > 20);
        assert_eq!(cluster.ledger().account(&owner().account()).balance, 1_000 - paid);
    });
}

#[test]
fn a_small_blob_takes_three_round_trips_and_a_block() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let (round_trip, block_time) = (Duration::from_millis(100), Duration::from_millis(150));
        let latency = round_trip / 2..=round_trip / 2;
        cluster.simulation.set_default_link(Link { latency, ..Link::default() });
        cluster.ledger().block_time = block_time;
        // To be connected takes a moment more.
        cluster.client.health().await;
        let started = Instant::now();
        let stored = cluster.store(&blob(1024)).await.unwrap();
        let timings = stored.timings;
        // What the ledger says.
        assert!(timings.looked_up - timings.identified <= round_trip + MILLIS, "{timings:?}");
        // All parts, and the order: confirmed at once.
        assert!(timings.confirmed - timings.looked_up <= round_trip + MILLIS, "{timings:?}");
        // Registered and certified by one transaction, which is proven in the answer.
        assert_eq!(timings.registered, None);
        assert!(timings.certified - timings.confirmed <= round_trip + block_time + MILLIS, "{timings:?}");
        assert!(stored.duration <= 3 * round_trip + block_time + 3 * MILLIS, "{timings:?}");
        assert!(started.elapsed() < SECOND / 2, "everyone has it, so nobody is waited for");
        assert_eq!((cluster.ledger().height(), cluster.n_uploads()), (1, 7));
    });
}

#[test]
fn faulty_shards_up_to_f_do_not_stop_an_upload() {
    let manners = [
        Manner::Silent,
        Manner::Liar,
        Manner::Loses,
        Manner::Forgetful,
        Manner::SubmitsNothing,
        Manner::RefusesOrders,
        Manner::Busy(5),
        Manner::Refuses(Refusal::Full),
        Manner::Refuses(Refusal::Busy),
        Manner::Ledger(Tampering::ForgedValue),
        Manner::Ledger(Tampering::ForgedGenesis),
        Manner::Ledger(Tampering::Truncated),
        Manner::Ledger(Tampering::Stale(0)),
    ];
    for (manner, len) in manners.iter().flat_map(|manner| SIZES.map(|len| (manner, len))) {
        run(async {
            let cluster = Cluster::new(7, 7);
            cluster.behave([2, 5], manner);
            let data = blob(len);
            let stored = cluster.store(&data).await.unwrap();
            assert!(stored.duration < SECOND, "{manner:?} {len} {:?}", stored.duration);
            let (_, read) = cluster.read(stored.blob_id).await.unwrap();
            assert!(read == data, "{manner:?}");
        });
    }
    // Those that are asked first.
    for (manner, len) in manners.iter().flat_map(|manner| SIZES.map(|len| (manner, len))) {
        run(async {
            let cluster = Cluster::new(7, 7);
            cluster.behave([6, 0], manner);
            let stored = cluster.store(&blob(len)).await.unwrap();
            // Who takes a transaction and is not heard of again is waited for; one is registered, one certified.
            assert!(stored.duration < 15 * SECOND, "{manner:?} {len} {:?}", stored.duration);
        });
    }
    for len in SIZES {
        run(async {
            let cluster = Cluster::new(7, 7);
            cluster.crash([0, 6]);
            assert!(cluster.round_trip(&blob(len)).await.0.duration < SECOND);
        });
    }
}

#[test]
fn too_many_faulty_shards_fail_it_in_bounded_time_and_say_why() {
    let manners = [
        (Manner::Silent, "the peer did not answer in time"),
        (Manner::Liar, "does not verify"),
        (Manner::Loses, "it lost 1 of the slivers"),
        (Manner::Refuses(Refusal::Full), "disk is full"),
        (Manner::Refuses(Refusal::Busy), "busy"),
    ];
    for ((manner, expected), len) in manners.iter().flat_map(|manner| SIZES.map(|len| (manner, len))) {
        run(async {
            let cluster = Cluster::new(7, 7);
            cluster.behave([1, 2, 5], manner);
            let started = Instant::now();
            let error = cluster.store(&blob(len)).await.unwrap_err();
            assert!(started.elapsed() <= 25 * SECOND, "{manner:?} {:?}", started.elapsed());
            let StoreError::TooFewConfirmations { got: 4, required: 5, reasons } = error else {
                panic!("{manner:?} {error:?}")
            };
            for node in ["node-1", "node-2", "node-5"] {
                assert!(reasons.contains(node) && reasons.contains(expected), "{reasons}");
            }
        });
    }
    run(async {
        let cluster = Cluster::new(7, 7);
        cluster.crash([0, 1, 6]);
        let started = Instant::now();
        assert!(matches!(cluster.store(b"hello").await, Err(StoreError::TooFewConfirmations { .. })));
        assert!(started.elapsed() <= 12 * SECOND, "{:?}", started.elapsed());
    });
}

#[test]
fn a_node_that_lost_what_it_was_sent_is_sent_it_again() {
    for times in 1..=2 {
        run(async {
            let cluster = Cluster::new(7, 7);
            // Without one of these there is no quorum.
            cluster.behave([1, 2, 5], &Manner::Drops(times));
            cluster.round_trip(&blob(2_000_000)).await;
            assert!(cluster.doubles.iter().all(|double| double.n_slivers() == 2), "{times}");
        });
    }
    run(async {
        // More segments than are kept: those that were let go are encoded once more.
        let config = ClientConfig { segments_in_flight: 1, ..ClientConfig::default() };
        let cluster = Cluster::with(Plan::new(1), 4, 4, config);
        cluster.behave([0, 3], &Manner::Drops(1));
        cluster.round_trip(&blob(2 * segment_bytes(4) + 17)).await;
        assert!(cluster.doubles.iter().all(|double| double.n_slivers() == 6));
    });
    run(async {
        let cluster = Cluster::new(7, 7);
        cluster.behave([1, 2, 5], &Manner::Drops(9));
        let error = cluster.store(&blob(2_000_000)).await.unwrap_err();
        assert!(error.to_string().contains("node-2: it lost"), "{error}");
    });
}

#[test]
fn a_certificate_that_the_ledger_does_not_have_is_no_success() {
    for (manner, len) in [
        Manner::SubmitsNothing,
        Manner::Ledger(Tampering::DropsUnordered),
        Manner::Ledger(Tampering::ClaimsExecuted(0)),
        Manner::Ledger(Tampering::ClaimsExecuted(9)),
    ]
    .iter()
    .flat_map(|manner| SIZES.map(|len| (manner, len)))
    {
        run(async {
            let cluster = Cluster::new(7, 7);
            cluster.behave(0..7, manner);
            let started = Instant::now();
            let error = cluster.store(&blob(len)).await.unwrap_err();
            assert!(
                matches!(
                    error,
                    StoreError::Submit(SubmitError::NotTaken { .. } | SubmitError::Unknown { .. })
                        | StoreError::TooFewConfirmations { .. }
                ),
                "{manner:?} {len} {error:?}"
            );
            assert!(started.elapsed() <= 4 * 61 * SECOND, "{:?}", started.elapsed());
            assert_eq!(cluster.ledger().height(), 0);
        });
    }
}

#[test]
fn nodes_that_come_up_late_are_waited_for() {
    run(async {
        let cluster = Cluster::new(4, 4);
        cluster.crash([0, 1]);
        let late = async {
            tokio::time::sleep(3 * SECOND).await;
            let mut servers = JoinSet::new();
            for i in [0, 1] {
                let network_id = cluster.genesis.network_id();
                let (_network, inbound) = cluster.simulation.join(cluster.peer(i), network_id);
                servers.spawn(Arc::clone(&cluster.doubles[usize::from(i)]).serve(inbound));
            }
            servers
        };
        let (stored, _servers) = futures::future::join(cluster.store(b"hello"), late).await;
        assert!(stored.unwrap().duration < 6 * SECOND);
    });
}

/// A cluster of four with one segment in flight, whose last node has a link of this many bytes a second.
fn with_slow_node(bytes_per_second: u64) -> Cluster {
    let config = ClientConfig { segments_in_flight: 1, ..ClientConfig::default() };
    let cluster = Cluster::with(Plan::new(1), 4, 4, config);
    for i in 0..4 {
        let rate = if i == 3 { bytes_per_second } else { 100 << 20 };
        let link = Link { bytes_per_second: Some(rate), ..Link::default() };
        cluster.simulation.set_link(CLIENT, cluster.peer(i), link);
    }
    cluster
}

#[test]
fn a_slow_node_is_left_behind_and_reads_do_not_need_it() {
    run(async {
        let data = blob(3 * segment_bytes(4));
        let cluster = with_slow_node(1 << 20);
        let stored = cluster.store(&data).await.unwrap();
        // 14 MB for each node and segment: 0.14 s at the rate of the fast ones, 14 s at that of the slow one.
        assert!(stored.duration < 4 * SECOND, "{:?}", stored.duration);
        assert_eq!(stored.confirmed, 3);
        assert!(cluster.doubles[3].n_slivers() < 6);
        let (summary, read) = cluster.read(stored.blob_id).await.unwrap();
        assert!(read == data);
        assert!(summary.segments_decoded > 0);
    });
    run(async {
        // Half as fast as the others is not slow.
        let cluster = with_slow_node(50 << 20);
        let stored = cluster.store(&blob(3 * segment_bytes(4))).await.unwrap();
        assert_eq!(cluster.doubles[3].n_slivers(), 6, "{:?}", stored.duration);
    });
}

#[test]
fn a_slow_line_takes_long_and_fails_nothing() {
    run(async {
        let cluster = Cluster::new(10, 10);
        for i in 0..10 {
            // A range takes five seconds, and many of them are wanted at once.
            let link = Link { bytes_per_second: Some(50_000), ..Link::default() };
            cluster.simulation.set_link(CLIENT, cluster.peer(i), link.clone());
            cluster.simulation.set_link(cluster.peer(i), CLIENT, link);
        }
        let (stored, _) = cluster.round_trip(&blob(segment_bytes(10))).await;
        assert!(stored.duration > 60 * SECOND, "the line was slow: {:?}", stored.duration);
    });
}

#[test]
fn lost_messages_are_repeated() {
    for seed in 0..50 {
        run(async {
            let mut plan = Plan::new(seed);
            plan.link.loss = 0.02;
            let cluster = Cluster::with(plan, 7, 7, ClientConfig::default());
            cluster.behave([1], &Manner::Silent);
            cluster.round_trip(&blob(100_000)).await;
            cluster.round_trip(&blob(1_000_000)).await;
        });
    }
}

/// A blob that reads differently after a number of reads.
struct Unsteady {
    data: Vec<u8>,
    reads_left: Mutex<u32>,
    then_shorter: bool,
    /// Number of reads since then.
    n_later: Mutex<u32>,
}

impl Unsteady {
    fn new(data: Vec<u8>, reads_left: u32, then_shorter: bool) -> Self {
        Self { data, reads_left: Mutex::new(reads_left), then_shorter, n_later: Mutex::default() }
    }
}

impl BlobSource for Unsteady {
    fn len(&self) -> u64 {
        u64::try_from(self.data.len()).unwrap()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.data.read_at(offset, buffer)?;
        let mut left = self.reads_left.lock().unwrap();
        if *left == 0 {
            *self.n_later.lock().unwrap() += 1;
            if self.then_shorter {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            buffer[0] ^= 1;
        }
        *left = left.saturating_sub(1);
        Ok(())
    }
}

#[test]
fn a_file_that_changes_meanwhile_is_not_stored() {
    for then_shorter in [false, true] {
        run(async {
            let config = ClientConfig { segments_in_flight: 1, ..ClientConfig::default() };
            let cluster = Cluster::with(Plan::new(1), 4, 4, config);
            let data = blob(segment_bytes(4) + 1);
            let source = Arc::new(Unsteady::new(data, 3, then_shorter));
            let result = cluster.client.store(source, &owner(), StoreOptions::default(), quiet()).await;
            assert!(matches!(result, Err(StoreError::Changed)), "{result:?}");
        });
    }
}

#[test]
fn a_file_that_changes_before_it_is_sent_again_fails_only_who_lost_it() {
    for then_shorter in [false, true] {
        run(async {
            let cluster = Cluster::new(7, 7);
            cluster.behave([1], &Manner::Drops(1));
            // It takes a block until they are asked to confirm: by then the encoded bytes are no longer there.
            cluster.ledger().block_time = SECOND;
            let source = Arc::new(Unsteady::new(blob(2_000_000), 1, then_shorter));
            let (options, read) = (StoreOptions::default(), Arc::clone(&source));
            let stored = cluster.client.store(source, &owner(), options, quiet()).await.unwrap();
            assert!(stored.confirmed >= 5);
            assert_eq!(*read.n_later.lock().unwrap(), 1);
            assert_eq!(cluster.doubles[1].n_slivers(), 0);
        });
    }
}

#[test]
fn an_invalid_blob_is_not_stored() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let header = cluster.header_of(b"hello").await;
        cluster.register(&stranger(), header);
        cluster.invalidate(header.blob_id());
        let height = cluster.ledger().height();
        assert!(matches!(cluster.store(b"hello").await, Err(StoreError::Invalid)));
        assert_eq!((cluster.n_uploads(), cluster.ledger().height()), (0, height));
    });
    for len in SIZES {
        run(async {
            // It is found out between what the ledger says at first and the upload.
            let cluster = Cluster::new(7, 7);
            let data = blob(len);
            let header = cluster.header_of(&data).await;
            cluster.register(&stranger(), header);
            let latency = Duration::from_millis(20)..=Duration::from_millis(20);
            cluster.simulation.set_default_link(Link { latency, ..Link::default() });
            let late = async {
                tokio::time::sleep(Duration::from_millis(42)).await;
                cluster.invalidate(header.blob_id());
            };
            let (result, ()) = futures::future::join(cluster.store(&data), late).await;
            assert!(matches!(result, Err(StoreError::Invalid)), "{result:?}");
        });
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        run(async {
            let cluster = Cluster::with(Plan::new(seed), 7, 7, ClientConfig::default());
            cluster.behave([1], &Manner::Silent);
            cluster.crash([4]);
            cluster.round_trip(&blob(2_000_000)).await;
            cluster.simulation.trace()
        })
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}
