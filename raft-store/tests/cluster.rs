//! Three members in one process: elections, writes, reads, watches and restarts.

mod common;

use common::{Cluster, get, put, put_until_known, wait_for};
use futures::StreamExt;
use mvcc::{Command, Consistency, KeyRange, LeaseId, Op, RangeRequest, Store, Txn, WatchRequest};
use objects::Revision;
use raft_store::{OpenError, RaftStore};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_takes_writes_and_reads_what_others_wrote() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    for round in 0..20 {
        let value = round.to_string();
        let revision = put(cluster.member(follower), "a", &value).await;
        assert_eq!(
            get(cluster.member(leader), "a").await.as_ref(),
            Some(&value)
        );
        let other = (0..3)
            .find(|place| *place != leader && *place != follower)
            .expect("three members");
        assert_eq!(
            get(cluster.member(other), "a").await.as_ref(),
            Some(&value),
            "a follower's read is linearizable"
        );
        assert!(cluster.member(other).applied_revision() >= revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_is_ordered_and_whole_while_leaders_die() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let watcher = (leader + 1) % 3;
    let writer = (leader + 2) % 3;
    let request = WatchRequest {
        range: KeyRange::prefix("k"),
        start: Revision(1),
    };
    let mut watch = cluster
        .member(watcher)
        .watch(request)
        .await
        .expect("the watch starts");
    let store = cluster.member(writer).clone();
    let writing = tokio::spawn(async move {
        for number in 0..60 {
            put_until_known(&store, &format!("k{number:04}"), "v").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    let began = Instant::now();
    cluster.kill(leader).await;
    let mut seen = Vec::new();
    let mut last = Revision(0);
    while seen.len() < 60 {
        let next = tokio::time::timeout(Duration::from_secs(20), watch.next())
            .await
            .expect("the watch goes on");
        let batch = next
            .expect("the watch does not end")
            .expect("the watch does not fail");
        for event in &batch.events {
            assert!(
                event.revision() > last,
                "{:?} came after {last:?}",
                event.revision()
            );
            last = event.revision();
            seen.push(String::from_utf8_lossy(event.key()).into_owned());
        }
        assert!(batch.revision >= last);
    }
    writing.await.expect("every write was acknowledged");
    let expected: Vec<String> = (0..60).map(|number| format!("k{number:04}")).collect();
    assert_eq!(seen, expected);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_all_are_killed() {
    let mut cluster = Cluster::new(3).await;
    for number in 0..50 {
        put(cluster.member(number % 3), &format!("k{number}"), "v").await;
    }
    for place in 0..3 {
        cluster.kill(place).await;
    }
    for place in 0..3 {
        cluster.start(place).await;
    }
    for place in 0..3 {
        assert_eq!(common::count(cluster.member(place)).await, 50);
    }
}

/// Whoever waited for the lease and an election timeout would need longer than this, each time.
const SOONER_THAN_ANY_TIMEOUT: Duration = Duration::from_millis(900);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_is_gone_is_followed_before_its_lease_ends() {
    let mut cluster = Cluster::new(3).await;
    // While the last member is made a voter, the first alone is a quorum of the members before.
    for number in 0..5 {
        put(cluster.any(), "a", &number.to_string()).await;
    }
    let mut gaps = Vec::new();
    for round in 0..3 {
        let (leader, follower) = (cluster.leader().await, cluster.follower().await);
        let store = cluster.member(follower).clone();
        let began = Instant::now();
        let writing = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            put_until_known(&store, &format!("k{round}"), "v").await;
            began.elapsed()
        });
        cluster.kill(leader).await;
        gaps.push(writing.await.expect("the write is answered"));
        cluster.start(leader).await;
        wait_for("the member is back", || {
            let revision = cluster.member(follower).applied_revision();
            cluster.member(leader).applied_revision() == revision
        })
        .await;
    }
    println!("writes again after {gaps:?}");
    let shortest = gaps.iter().min().expect("three rounds");
    assert!(*shortest < SOONER_THAN_ANY_TIMEOUT, "{gaps:?}");
    assert!(
        gaps.iter().all(|gap| *gap < Duration::from_secs(4)),
        "{gaps:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_takes_of_the_state_is_applied_again() {
    let cluster = Cluster::new(1).await;
    for number in 0..100 {
        put(cluster.any(), &format!("k{number}"), "v").await;
    }
    let revision = cluster.any().applied_revision();
    // The files as they are while the member runs are what a crash leaves.
    let crashed = tempfile::tempdir().expect("a temporary folder");
    copy_folder(&cluster.configs[0].data_dir, crashed.path());
    let mut config = cluster.config("m1", 1);
    config.data_dir = crashed.path().to_owned();
    config.peer_address = cluster.configs[0].peer_address.clone();
    let tables = raft_store::db::Db::open(&config.data_dir.join("db")).expect("it opens");
    let found = mvcc::Meta::load(&tables.view()).expect("the tables can be read");
    assert!(found.revision < revision, "the state has no log of its own");
    drop(tables);
    let again = RaftStore::open(config).await.expect("the member opens");
    assert!(again.applied_revision() > found.revision);
    assert_eq!(common::count(&again).await, 100);
    assert_eq!(again.applied_revision(), revision);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).expect("it can be copied")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_writes_are_refused_and_stale_reads_answered() {
    let mut cluster = Cluster::new(3).await;

    put(cluster.any(), "a", "0").await;
    let leader = cluster.leader().await;
    cluster.kill((leader + 1) % 3).await;
    cluster.kill((leader + 2) % 3).await;
    let left = cluster.member(leader);
    wait_for("the leader sees that it has no quorum", || {
        !left.leader_state().is_leader
    })
    .await;
    assert!(left.txn(common::put_txn("b", "1")).await.is_err());
    assert!(
        left.range(RangeRequest::new(KeyRange::key("a")))
            .await
            .is_err()
    );
    let stale = RangeRequest {
        consistency: Consistency::Stale,
        ..RangeRequest::new(KeyRange::key("a"))
    };
    assert_eq!(
        left.range(stale)
            .await
            .expect("stale reads need no quorum")
            .count,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_hands_leadership_over() {
    let mut cluster = Cluster::new(3).await;
    put(cluster.any(), "a", "0").await;
    let leader = cluster.leader().await;
    let term = cluster.member(leader).leader_state().term;
    let witness = cluster.member(leader).clone();
    let stopped_reason = tokio::spawn(async move { witness.stopped().await });
    let began = Instant::now();
    cluster.members[leader]
        .take()
        .expect("it runs")
        .shutdown()
        .await;
    let stopped = began.elapsed();
    let reason = stopped_reason.await.expect("whoever waits is told");
    assert_eq!(reason, "the member was stopped");
    put(cluster.any(), "b", "1").await;
    println!(
        "stopped after {stopped:?}, writes again after {:?}",
        began.elapsed()
    );
    let next = cluster.leader().await;
    assert_eq!(
        cluster.member(next).leader_state().term.0,
        term.0 + 1,
        "one election was enough"
    );
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_ends_with_its_keys_but_not_with_its_leader() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let id = LeaseId(7);
    let now_ms = cluster.member(leader).lease_now_ms();
    let grant = Command::LeaseGrant {
        id,
        ttl_ms: 2_000,
        now_ms,
    };
    cluster
        .member(leader)
        .command(grant)
        .await
        .expect("the lease is granted");
    let held = Op::Put {
        key: "held".into(),
        value: "v".into(),
        lease: id,
        prev_kv: false,
    };
    let txn = Txn {
        success: vec![held],
        ..Txn::default()
    };
    cluster.any().txn(txn).await.expect("the key is written");
    let began = Instant::now();
    cluster.kill(leader).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(get(cluster.any(), "held").await.as_deref(), Some("v"));
    while get(cluster.any(), "held").await.is_some() {
        assert!(
            began.elapsed() < Duration::from_secs(12),
            "the lease never ends"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "a new leader gives every lease its whole time again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_refused_to_all_but_its_member() {
    let mut cluster = Cluster::new(1).await;
    let config = cluster.configs[0].clone();
    let second = RaftStore::open(config.clone()).await;
    assert!(
        matches!(second, Err(OpenError::InUse(_))),
        "{:?}",
        second.err()
    );
    cluster.kill(0).await;
    let mut stranger = config.clone();
    stranger.cluster_id = "another".to_owned();
    let refused = RaftStore::open(stranger).await;
    assert!(
        matches!(refused, Err(OpenError::OtherMember { .. })),
        "{:?}",
        refused.err()
    );
    let newer = r#"{"format": 99, "cluster_id": "x", "member_id": 1, "name": "m1"}"#;
    std::fs::write(config.data_dir.join("member.json"), newer).expect("the file can be written");
    let refused = RaftStore::open(config).await;
    assert!(
        matches!(refused, Err(OpenError::Identity(_))),
        "{:?}",
        refused.err()
    );
}
