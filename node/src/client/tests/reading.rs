//! Reading, and the status of a blob.

use std::ops::Range;

use protocol::{SegmentIndex, SliverPairIndex, encoding::Axis, message::Refusal};
use swarm::simulated::Link;
use tokio::time::Instant;

use super::{fake_ledger::Tampering, *};
use crate::client::{BlobStatus, LedgerError};

#[test]
fn up_to_two_f_silent_shards_do_not_stop_a_read() {
    // f = 2, p = 3. The status is known after a fifth of a second, silence is noticed after three.
    for silent in [vec![0, 1], vec![0, 1, 2, 3], vec![3, 4, 5, 6], vec![0, 2, 4, 6]] {
        for manner in [Manner::Silent, Manner::Refuses(Refusal::NotFound), Manner::Liar] {
            run(async {
                let cluster = Cluster::new(7, 7);
                let data = blob(100_000);
                let stored = cluster.store(&data).await.unwrap();
                cluster.behave(silent.iter().copied(), &manner);
                let started = Instant::now();
                let (summary, read) = cluster.read(stored.blob_id).await.unwrap();
                assert!(read == data);
                assert!(started.elapsed() < 3 * SECOND, "{silent:?} {manner:?} {:?}", started.elapsed());
                assert!(summary.segments_decoded <= 1);
            });
        }
    }
    run(async {
        let cluster = Cluster::new(7, 7);
        let stored = cluster.store(b"hello").await.unwrap();
        cluster.crash([0, 1, 2, 3]);
        let started = Instant::now();
        assert_eq!(cluster.read(stored.blob_id).await.unwrap().1, b"hello");
        assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
    });
}

#[test]
fn too_few_slivers_are_told_in_bounded_time() {
    for manner in [Manner::Silent, Manner::Refuses(Refusal::NotFound), Manner::Refuses(Refusal::Busy)] {
        run(async {
            let cluster = Cluster::new(7, 7);
            let stored = cluster.store(&blob(100_000)).await.unwrap();
            cluster.behave_with_blobs(0..5, &manner);
            let started = Instant::now();
            let error = cluster.read(stored.blob_id).await.unwrap_err();
            assert!(
                matches!(error, ReadError::TooFewSlivers { segment: 0, got: 2, required: 3, .. }),
                "{manner:?} {error:?}"
            );
            assert!(started.elapsed() <= 50 * SECOND, "{manner:?} {:?}", started.elapsed());
        });
    }
    run(async {
        let cluster = Cluster::new(7, 7);
        let stored = cluster.store(&blob(1000)).await.unwrap();
        cluster.crash(0..5);
        // Without a validity set, it is not even known what the ledger says.
        assert!(matches!(
            cluster.read(stored.blob_id).await,
            Err(ReadError::Status(LedgerError::TooFewProofs { proved: 2, required: 3, .. }))
        ));
    });
}

#[test]
fn a_range_is_read_from_the_segments_that_hold_it_alone() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let shape = BlobShape::new(7, 1 << 30).unwrap();
        let segment = usize::try_from(shape.range(SegmentIndex(0)).unwrap().end).unwrap();
        let to_u64 = |len: usize| u64::try_from(len).unwrap();
        let len = 2 * segment + 1000;
        let data = blob(len);
        let stored = cluster.store(&data).await.unwrap();
        let read = async |start: usize, end: usize| {
            let range = to_u64(start)..to_u64(end);
            cluster.client.read_range(stored.blob_id, range, Vec::new(), quiet()).await
        };
        for (start, end, segments) in [
            (0, 10, 1),
            (segment - 1, segment, 1),
            (segment - 1, segment + 1, 2),
            (5, len - 5, 3),
            (len - 1, len + 100, 1),
            (len, len + 1, 0),
            (7, 7, 0),
        ] {
            let (summary, bytes) = read(start, end).await.unwrap();
            assert!(bytes == data[start..end.min(len)], "{start}..{end}");
            assert_eq!((summary.segments, summary.size), (segments, to_u64(len)), "{start}..{end}");
        }
        for (start, end) in [(len + 1, len + 2), (6, 5)] {
            let refused = read(start, end).await.unwrap_err();
            assert!(matches!(refused, ReadError::Range { .. }), "{refused:?}");
        }
    });
}

#[test]
fn a_short_range_costs_the_slivers_that_it_lies_in_and_more_only_if_they_cannot_be_had() {
    for manner in [Manner::Silent, Manner::Refuses(Refusal::NotFound), Manner::Liar] {
        run(async {
            let cluster = Cluster::new(7, 7);
            let data = blob(100_000);
            let stored = cluster.store(&data).await.unwrap();
            let shape = BlobShape::new(7, 100_000).unwrap().segment(SegmentIndex(0)).unwrap();
            let row = shape.sliver_bytes(Axis::Primary);
            let to_u64 = |len: usize| u64::try_from(len).unwrap();
            let read = async |range: Range<usize>| {
                let asked = to_u64(range.start)..to_u64(range.end);
                let read = cluster.client.read_range(stored.blob_id, asked, Vec::new(), quiet()).await;
                let (summary, bytes) = read.unwrap();
                assert!(bytes == data[range], "{manner:?}");
                summary
            };
            for (range, rows) in [(5..9, 1), (row..row + 1, 1), (row - 1..row + 1, 2), (0..100_000, 3)] {
                let summary = read(range.clone()).await;
                assert_eq!(
                    (summary.received_bytes, summary.segments_decoded),
                    (to_u64(rows * row), 0),
                    "{range:?}"
                );
            }
            let committee = cluster.genesis.committee();
            let shard = committee.shard_of(&stored.blob_id, SegmentIndex(0), SliverPairIndex(1));
            cluster.behave_with_blobs([committee.owner(shard).0], &manner);
            let started = Instant::now();
            assert_eq!(read(5..9).await.received_bytes, to_u64(row), "the row is another member's");
            let summary = read(row - 1..row + 1).await;
            assert_eq!(summary.segments_decoded, 1);
            assert!(summary.received_bytes <= to_u64(4 * row), "{summary:?}");
            assert!(started.elapsed() < 3 * SECOND, "{manner:?} {:?}", started.elapsed());
        });
    }
}

#[test]
fn members_that_are_still_repairing_or_starting_are_asked_again() {
    for manner in [Manner::Refuses(Refusal::NotFound), Manner::Refuses(Refusal::Internal)] {
        run(async {
            let cluster = Cluster::new(7, 7);
            let data = blob(100_000);
            let stored = cluster.store(&data).await.unwrap();
            cluster.behave_with_blobs(0..5, &manner);
            let error = cluster.read(stored.blob_id).await.unwrap_err();
            let named = |name: &str| error.to_string().contains(name);
            assert!((0..5).any(|node| named(&format!("node-{node}: "))), "{error}");
            assert!(!named("node-5: ") && !named("node-6: "), "{error}");
            let heal = async {
                tokio::time::sleep(3 * SECOND).await;
                cluster.behave_with_blobs([2], &Manner::Honest);
            };
            let (read, ()) = tokio::join!(cluster.read(stored.blob_id), heal);
            assert!(read.unwrap().1 == data, "{manner:?}");
        });
    }
}

#[test]
fn a_blob_that_is_deleted_while_it_is_read_is_not_there() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let blob_id = cluster.store(&blob(100_000)).await.unwrap().blob_id;
        cluster.behave_with_blobs(0..7, &Manner::Refuses(Refusal::NotFound));
        let delete = async {
            tokio::time::sleep(SECOND).await;
            cluster.ledger().execute(&owner(), Action::DeleteBlob { blob_id });
        };
        let (read, ()) = tokio::join!(cluster.read(blob_id), delete);
        assert!(matches!(read, Err(ReadError::NotFound)), "{read:?}");
    });
}

#[test]
fn one_copy_is_enough_of_a_small_blob() {
    run(async {
        // Nodes with several shards hold it once.
        let cluster = Cluster::new(7, 4);
        let stored = cluster.store(b"hello").await.unwrap();
        cluster.behave_with_blobs(0..3, &Manner::Refuses(Refusal::NotFound));
        let (summary, read) = cluster.read(stored.blob_id).await.unwrap();
        assert_eq!((&read[..], summary.segments_decoded), (&b"hello"[..], 0));
        cluster.behave_with_blobs([3], &Manner::Refuses(Refusal::NotFound));
        let error = cluster.read(stored.blob_id).await.unwrap_err();
        assert!(matches!(error, ReadError::TooFewSlivers { got: 0, .. }), "{error:?}");
    });
}

#[test]
fn silence_costs_its_delay_once_not_for_every_segment() {
    run(async {
        let cluster = Cluster::new(4, 4);
        let data = blob(4 * segment_bytes(4));
        let stored = cluster.store(&data).await.unwrap();
        cluster.behave([0], &Manner::Silent);
        let started = Instant::now();
        let (summary, read) = cluster.read(stored.blob_id).await.unwrap();
        assert!(read == data);
        assert!(summary.segments_decoded > 0);
        assert!(started.elapsed() < 2 * SECOND, "{:?}", started.elapsed());
        let sliver_bytes = summary.size / 2;
        assert!(summary.received_bytes < summary.size + sliver_bytes, "hedges are few: {summary:?}");
    });
}

#[test]
fn silent_members_do_not_use_up_the_room_for_others() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let data = blob(3 * segment_bytes(7));
        let stored = cluster.store(&data).await.unwrap();
        cluster.behave([0, 2, 3, 6], &Manner::Silent);
        let started = Instant::now();
        let (_, read) = cluster.read(stored.blob_id).await.unwrap();
        assert!(read == data);
        assert!(started.elapsed() < 4 * SECOND, "{:?}", started.elapsed());
    });
}

#[test]
fn a_link_that_is_slow_for_all_is_not_loaded_with_hedges() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let data = blob(segment_bytes(7));
        let stored = cluster.store(&data).await.unwrap();
        for i in 0..7 {
            let link = Link { bytes_per_second: Some(2 << 20), ..Link::default() };
            cluster.simulation.set_link(cluster.peer(i), CLIENT, link);
        }
        let (summary, read) = cluster.read(stored.blob_id).await.unwrap();
        assert!(read == data);
        assert!(summary.received_bytes <= summary.size + summary.size / 4, "{summary:?}");
    });
}

#[test]
fn liars_never_change_the_bytes() {
    run(async {
        let cluster = Cluster::new(4, 4);
        let data = blob(2 * segment_bytes(4) + 5);
        let stored = cluster.store(&data).await.unwrap();
        cluster.behave([1, 3], &Manner::Liar);
        let (summary, read) = cluster.read(stored.blob_id).await.unwrap();
        assert!(read == data);
        assert!(summary.segments_decoded > 0);
        // With three, two slivers cannot be had, and nothing false is read instead.
        cluster.behave_with_blobs([0, 1, 3], &Manner::Liar);
        let error = cluster.read(stored.blob_id).await.unwrap_err();
        assert!(matches!(error, ReadError::TooFewSlivers { got: 0 | 1, required: 2, .. }), "{error:?}");
        cluster.behave([0, 1, 3], &Manner::Liar);
        let error = cluster.read(stored.blob_id).await.unwrap_err();
        assert!(matches!(error, ReadError::Status(LedgerError::TooFewProofs { proved: 1, .. })), "{error:?}");
    });
}

#[test]
fn unknown_blobs_are_not_found_on_the_word_of_a_quorum() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let unknown = BlobId([9; 32]);
        cluster.behave([0, 1], &Manner::Silent);
        let started = Instant::now();
        let report = cluster.client.status(unknown).await.unwrap();
        assert_eq!(report.status, BlobStatus::Unknown);
        // A validity set is asked first, then a quorum; silence is noticed after half a second each time.
        assert!(started.elapsed() < 2 * SECOND, "{:?}", started.elapsed());
        assert!(matches!(cluster.read(unknown).await, Err(ReadError::NotFound)));
        cluster.behave([2], &Manner::Silent);
        let started = Instant::now();
        let error = cluster.client.status(unknown).await.unwrap_err();
        assert!(matches!(error, LedgerError::TooFewProofs { proved: 4, required: 5, .. }), "{error:?}");
        assert!(started.elapsed() <= 25 * SECOND, "{:?}", started.elapsed());
    });
}

#[test]
fn what_is_registered_and_not_certified_is_not_there_to_be_read() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let stored = cluster.store(b"hello").await.unwrap();
        let header = cluster.ledger().blob(stored.blob_id).unwrap().header;
        cluster.ledger().execute(&owner(), Action::DeleteBlob { blob_id: stored.blob_id });
        cluster.register(&stranger(), header);
        let report = cluster.client.status(stored.blob_id).await.unwrap();
        assert_eq!((report.status, report.height), (BlobStatus::Registered, cluster.ledger().height()));
        assert!(matches!(cluster.read(stored.blob_id).await, Err(ReadError::NotFound)));
    });
}

#[test]
fn a_validity_set_of_members_is_enough_to_know_that_a_blob_is_certified() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let stored = cluster.store(b"hello").await.unwrap();
        cluster.behave([0, 6], &Manner::Liar);
        cluster.behave([1, 2], &Manner::Silent);
        let started = Instant::now();
        let report = cluster.client.status(stored.blob_id).await.unwrap();
        assert!(matches!(report.status, BlobStatus::Certified { .. }));
        assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
        cluster.behave([3], &Manner::Liar);
        let error = cluster.client.status(stored.blob_id).await.unwrap_err();
        assert!(matches!(error, LedgerError::TooFewProofs { proved: 2, required: 3, .. }), "{error:?}");
    });
}

#[test]
fn that_a_blob_is_invalid_overrules_availability() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let stored = cluster.store(b"hello").await.unwrap();
        let height = cluster.ledger().height();
        cluster.invalidate(stored.blob_id);
        // Those that are asked first do not know yet.
        cluster.behave([6, 0], &Manner::Ledger(Tampering::Stale(height)));
        let report = cluster.client.status(stored.blob_id).await.unwrap();
        assert_eq!(report.status, BlobStatus::Invalid { height: height + 1 });
        assert!(matches!(cluster.read(stored.blob_id).await, Err(ReadError::Invalid)));
        assert!(matches!(cluster.store(b"hello").await, Err(StoreError::Invalid)));
    });
}

#[test]
fn a_blob_found_invalid_while_it_is_read_is_told_so() {
    run(async {
        let cluster = Cluster::new(7, 7);
        let stored = cluster.store(&blob(1000)).await.unwrap();
        let late = async {
            // After the status, before the slivers.
            tokio::time::sleep(Duration::from_millis(42)).await;
            cluster.invalidate(stored.blob_id);
            for double in &cluster.doubles {
                double.drop_slivers();
            }
        };
        let latency = Duration::from_millis(20)..=Duration::from_millis(20);
        cluster.simulation.set_default_link(Link { latency, ..Link::default() });
        let (result, ()) = futures::future::join(cluster.read(stored.blob_id), late).await;
        assert!(matches!(result, Err(ReadError::Invalid)), "{result:?}");
    });
}
