//! Storing.

use protocol::{
    certificate::Persistence,
    message::{BlobStatus, Refusal},
};
use swarm::simulated::Link;
use tokio::time::Instant;

use super::*;
use crate::client::{BlobSource, blob_id};

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
                    assert!(matches!(double.status(stored.blob_id), BlobStatus::Certified(_)));
                }
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
        let stored = cluster.client.store(source, StoreOptions::default(), progress).await.unwrap();
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
    run(async {
        let cluster = Cluster::new(7, 7);
        let first = cluster.store(b"hello").await.unwrap();
        let again = cluster.store(b"hello").await.unwrap();
        assert!(again.already_certified);
        assert_eq!(again.blob_id, first.blob_id);
        assert!(again.confirmed >= 5, "a quorum is on record");
        let options = StoreOptions { persistence: Persistence::Permanent };
        let permanent = cluster.client.store(Arc::new(b"hello".to_vec()), options, quiet()).await.unwrap();
        assert!(!permanent.already_certified, "a blob that may be deleted is not what was asked for");
        assert!(cluster.store(b"hello").await.unwrap().already_certified);
    });
}

#[test]
fn faulty_shards_up_to_f_do_not_stop_an_upload() {
    let manners = [
        Manner::Silent,
        Manner::Liar,
        Manner::Loses,
        Manner::Forgetful,
        Manner::RecordsNothing,
        Manner::Busy(5),
        Manner::Refuses(Refusal::Full),
        Manner::Refuses(Refusal::Busy),
    ];
    for manner in manners {
        run(async {
            let cluster = Cluster::new(7, 7);
            cluster.behave([2, 5], &manner);
            let data = blob(50_000);
            let stored = cluster.store(&data).await.unwrap();
            assert!(stored.duration < SECOND, "{manner:?} {:?}", stored.duration);
            let (_, read) = cluster.read(stored.blob_id).await.unwrap();
            assert!(read == data, "{manner:?}");
        });
    }
    run(async {
        let cluster = Cluster::new(7, 7);
        cluster.crash([0, 6]);
        assert!(cluster.round_trip(b"hello").await.0.duration < SECOND);
    });
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
    for (manner, expected) in manners {
        run(async {
            let cluster = Cluster::new(7, 7);
            cluster.behave([1, 2, 5], &manner);
            let started = Instant::now();
            let error = cluster.store(&blob(50_000)).await.unwrap_err();
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
            cluster.round_trip(&blob(50_000)).await;
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
        let error = cluster.store(&blob(50_000)).await.unwrap_err();
        assert!(error.to_string().contains("node-2: it lost"), "{error}");
    });
}

#[test]
fn a_certificate_that_too_few_record_is_no_success() {
    run(async {
        let cluster = Cluster::new(7, 7);
        cluster.behave([1, 2, 5], &Manner::RecordsNothing);
        let error = cluster.store(b"hello").await.unwrap_err();
        assert!(matches!(error, StoreError::TooFewRecords { got: 4, required: 5 }), "{error:?}");
    });
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
                let (_network, inbound) = cluster.simulation.join(peer(i), cluster.genesis.network_id());
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
        cluster.simulation.set_link(CLIENT, peer(i), link);
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
            cluster.simulation.set_link(CLIENT, peer(i), link.clone());
            cluster.simulation.set_link(peer(i), CLIENT, link);
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
        });
    }
}

/// A blob that reads differently after a number of reads.
struct Unsteady {
    data: Vec<u8>,
    reads_left: Mutex<u32>,
    then_shorter: bool,
}

impl BlobSource for Unsteady {
    fn len(&self) -> u64 {
        u64::try_from(self.data.len()).unwrap()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.data.read_at(offset, buffer)?;
        let mut left = self.reads_left.lock().unwrap();
        if *left == 0 {
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
            let source = Arc::new(Unsteady { data, reads_left: Mutex::new(3), then_shorter });
            let result = cluster.client.store(source, StoreOptions::default(), quiet()).await;
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
            let source = Arc::new(Unsteady { data: blob(50_000), reads_left: Mutex::new(1), then_shorter });
            let stored = cluster.client.store(source, StoreOptions::default(), quiet()).await.unwrap();
            assert!(stored.confirmed >= 5);
            assert_eq!(cluster.doubles[1].n_slivers(), 0);
        });
    }
}

#[test]
fn an_invalid_blob_is_not_stored() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let id = blob_id(&Encoder::inline(7), Arc::new(b"hello".to_vec()), 7, quiet()).await.unwrap();
        cluster.doubles[3].set_status(id, BlobStatus::Invalid(cluster.invalidity(id)));
        cluster.behave([0, 1, 2], &Manner::Refuses(Refusal::Invalid));
        assert!(matches!(cluster.store(b"hello").await, Err(StoreError::Invalid)));
    });
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
