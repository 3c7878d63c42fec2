//! The past as members keep it: times that all agree on, forgetting by age and by size, room given back, watches from far back.

mod common;

use common::{Cluster, put};
use futures::StreamExt;
use mvcc::{
    At, HistoryLimits, KeyRange, RangeRequest, Store, StoreError, VersionsRequest, WatchRequest,
};
use objects::Revision;
use raft_store::{Limits, RaftStore};
use rand::Rng;
use std::path::Path;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(100);

fn limits(keep_ms: u64, keep_bytes: u64) -> Limits {
    Limits {
        history: HistoryLimits {
            keep_ms,
            keep_bytes,
        },
        history_step: STEP,
        ..Limits::default()
    }
}

async fn oldest(store: &RaftStore) -> Revision {
    store
        .past()
        .await
        .expect("the past is told")
        .oldest
        .revision
}

/// Text that no compression makes smaller.
fn noise(bytes: usize) -> String {
    let mut noise = vec![0; bytes];
    rand::rng().fill_bytes(&mut noise);
    noise
        .into_iter()
        .map(|byte| char::from(b'0' + byte % 64))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_know_when_a_revision_was_and_a_new_leader_too() {
    let mut cluster = Cluster::with_limits(3, limits(3_600_000, u64::MAX)).await;
    let leader = cluster.leader().await;
    let first = put(cluster.member(leader), "a", "1").await;
    // A sample of the first revision is surely taken before the second one.
    let began = Instant::now();
    let sampled = loop {
        let moment = cluster.member(leader).moment(At::Revision(first)).await;
        if let Some(at_ms) = moment.expect("it is kept").at_ms {
            break at_ms;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "no time was noted"
        );
        tokio::time::sleep(STEP).await;
    };
    let second = put(cluster.member(leader), "a", "2").await;
    tokio::time::sleep(5 * STEP).await;
    cluster.kill(leader).await;
    let next = cluster.leader().await;
    for place in (0..3).filter(|place| *place != leader) {
        let member = cluster.member(place);
        let at = |at| async move { member.moment(at).await.expect("it is kept").revision };
        assert_eq!(at(At::TimeMs(sampled)).await, first, "as of then");
        assert_eq!(at(At::TimeMs(u64::MAX)).await, second, "as of now");
        let request = VersionsRequest {
            key: "a".into(),
            before: None,
            limit: 10,
        };
        let versions = member
            .versions(request)
            .await
            .expect("they are kept")
            .versions;
        let values: Vec<_> = versions.iter().map(|version| version.revision).collect();
        assert_eq!(values, [second, first]);
    }
    put(cluster.member(next), "a", "3").await;
    assert_eq!(
        oldest(cluster.member(next)).await,
        Revision(1),
        "nothing is forgotten by a new leader"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_old_is_forgotten_and_nothing_sooner() {
    let cluster = Cluster::with_limits(1, limits(3_000, u64::MAX)).await;
    let store = cluster.member(0);
    let began = Instant::now();
    let first = put(store, "a", "1").await;
    let mut last = first;
    while oldest(store).await <= first {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "nothing was forgotten"
        );
        last = put(store, "a", "2").await;
        tokio::time::sleep(STEP).await;
    }
    assert!(
        began.elapsed() >= Duration::from_millis(2_900),
        "it was forgotten after {:?}",
        began.elapsed()
    );
    let read = |revision| async move {
        let request = RangeRequest {
            revision: Some(revision),
            ..RangeRequest::new(KeyRange::key("a"))
        };
        store.range(request).await
    };
    assert!(matches!(
        read(first).await,
        Err(StoreError::Compacted { .. })
    ));
    assert_eq!(read(last).await.expect("it is kept").count, 1);
    // What the cluster sets, counts from then on.
    let week = HistoryLimits {
        keep_ms: 7 * 24 * 3_600_000,
        ..HistoryLimits::default()
    };
    store.keep_history(week).await.expect("it is set");
    let kept = store.past().await.expect("the past is told");
    assert_eq!(kept.limits, Some(week));
    for _ in 0..10 {
        put(store, "a", "3").await;
        tokio::time::sleep(STEP).await;
    }
    assert_eq!(oldest(store).await, kept.oldest.revision);
}

fn table_bytes(folder: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)
        .expect("the folder can be read")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            bytes += table_bytes(&path);
        } else if path.extension().is_some_and(|extension| extension == "sst") {
            bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_forgotten_and_its_room_given_back() {
    const WRITTEN: usize = 24 << 20;
    const VALUE: usize = 16 << 10;
    let mut cluster = Cluster::with_limits(1, limits(3_600_000, u64::MAX)).await;
    let store = cluster.member(0).clone();
    let writing = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..WRITTEN / VALUE / 8 {
                put(&store, &format!("k{writer}-{}", round % 10), &noise(VALUE)).await;
            }
        })
    });
    for writer in writing {
        writer.await.expect("it writes");
    }
    let before = table_bytes(cluster.dir());
    assert!(before > WRITTEN as u64 / 2, "{before} bytes in files");
    let bounded = HistoryLimits {
        keep_bytes: 2 << 20,
        ..HistoryLimits::default()
    };
    store.keep_history(bounded).await.expect("it is set");
    let newest = put(&store, "last", "x").await;
    let folder = cluster.dir().to_owned();
    let began = Instant::now();
    let mut after = before;
    // Half of the files is the log, which keeps its own measure; of history a tenth may stay.
    while after > before / 4 * 3 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{before} bytes in files became only {after}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
        put(&store, "last", "y").await;
        after = table_bytes(&folder);
    }
    let past = store.past().await.expect("the past is told");
    assert!(past.bytes <= 3 << 20, "{past:?}");
    assert!(past.oldest.revision.0 > newest.0 / 2, "{past:?}");
    println!(
        "{before} bytes in files became {after} in {:?}",
        began.elapsed()
    );
    drop(store);
    cluster.kill(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_far_back_sees_all_that_memory_has_left() {
    let mut limits = limits(3_600_000, u64::MAX);
    limits.hub.ring_bytes_max = 64 << 10;
    let cluster = Cluster::with_limits(1, limits).await;
    let store = cluster.member(0);
    let first = put(store, "k", "0").await;
    let writing = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..500 {
                put(&store, "k", "some value that is not so short").await;
            }
        })
    });
    for writer in writing {
        writer.await.expect("it writes");
    }
    for start in [first, Revision(first.0 + 1_777), Revision(first.0 + 3_999)] {
        let request = WatchRequest {
            range: KeyRange::key("k"),
            start,
        };
        let mut watch = store.watch(request).await.expect("the watch starts");
        let mut next = start;
        while next.0 <= first.0 + 4_000 {
            let batch = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
            let batch = batch
                .expect("it goes on")
                .expect("it does not end")
                .expect("nor fail");
            for event in &batch.events {
                assert_eq!(event.revision(), next, "each once, in order");
                next = next.next();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_under_load_holds_no_write_up() {
    let cluster = Cluster::with_limits(1, limits(3_600_000, u64::MAX)).await;
    let store = cluster.member(0).clone();
    let slowest = |rounds: usize| {
        let store = store.clone();
        async move {
            let mut took = Vec::with_capacity(rounds);
            for round in 0..rounds {
                let began = Instant::now();
                put(&store, &format!("k{}", round % 50), "some value").await;
                took.push(began.elapsed());
            }
            took.sort();
            (took[rounds / 2], took[rounds * 99 / 100], took[rounds - 1])
        }
    };
    let others = (0..16).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..400 {
                put(&store, &format!("o{writer}-{}", round % 5), "v").await;
            }
        })
    });
    for writer in others {
        writer.await.expect("it writes");
    }
    let quiet = slowest(300).await;
    let revision = store.applied_revision();
    store.compact(revision).await.expect("it is compacted");
    let sweeping = slowest(300).await;
    println!("p50, p99, max of a put: quiet {quiet:?}, while 6,700 changes are swept {sweeping:?}");
    // A pause for the whole of it would show; the machine's own noise is larger than a slice.
    assert!(
        sweeping.1 < quiet.1 * 4 + Duration::from_millis(50),
        "{quiet:?} {sweeping:?}"
    );
}
