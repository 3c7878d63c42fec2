//! One member survives its majority, and becomes a cluster of its own.

mod common;

use common::{CLUSTER, Cluster, count, get, put};
use mvcc::{Consistency, KeyRange, RangeRequest, Store, StoreError};
use raft_store::recover::{RecoverError, look, recover};
use raft_store::types::term_of;
use raft_store::{OpenError, RaftStore};

const NEW: &str = "a-new-cluster";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_keeps_what_its_log_holds_and_stands_alone() {
    let mut cluster = Cluster::new(3).await;
    for number in 0..200 {
        put(cluster.any(), &format!("k{number:03}"), "v").await;
    }
    cluster
        .member(0)
        .transfer_leadership(None)
        .await
        .expect("another leads");
    let last = put(cluster.any(), "last", "v").await;
    let survivor = (0..3).find(|place| !cluster.member(*place).leader_state().is_leader);
    let survivor = survivor.expect("a follower");
    // A follower's log holds what it was sent; wait until that is everything.
    while cluster.member(survivor).applied_revision() < last {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let config = cluster.configs[survivor].clone();
    let running = look(&config.data_dir);
    assert!(
        matches!(running, Err(RecoverError::InUse(_))),
        "{:?}",
        running.err()
    );
    // The last contact is noted every five seconds.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    for place in 0..3 {
        cluster.kill(place).await;
    }

    let found = look(&config.data_dir).expect("it can be looked at");
    assert_eq!(found.identity.name, config.name);
    assert_eq!(found.node.peer_address, config.peer_address);
    assert_eq!(
        found.members.iter().filter(|member| member.voter).count(),
        3
    );
    assert!(found.last_log >= found.committed);
    assert!(
        found.last_contact_ms.is_some(),
        "it was among a majority for seconds"
    );

    let (into, node) = (cluster.dir().join("recovered"), found.node.clone());
    std::fs::create_dir_all(into.join("db")).expect("what an interrupted try left");
    std::fs::write(into.join("db/CURRENT"), "half").expect("what an interrupted try left");
    let recovered = recover(&config.data_dir, &into, NEW, node).expect("it is recovered");
    assert_eq!(recovered.reached, last);
    assert!(recovered.revision.0 > last.0 + 100_000_000);

    let mut anew = config.clone();
    anew.data_dir = into;
    anew.cluster_id = NEW.to_owned();
    let wrong = RaftStore::open(anew.clone()).await;
    assert!(
        matches!(wrong.err(), Some(OpenError::OtherMember { .. })),
        "its old number is not its number"
    );
    anew.member_id = recovered.identity.member_id;
    let store = RaftStore::open(anew).await.expect("it opens");
    assert_eq!(get(&store, "last").await.as_deref(), Some("v"));
    assert_eq!(count(&store).await, 201);
    put(&store, "goes-on", "v").await;
    let (term, was) = (
        store.leader_state().term.0,
        term_of(&found.last_log.expect("it has a log")),
    );
    assert!(
        term > found.term && term > was,
        "terms only grow: {term} after {} and {was}",
        found.term
    );
    assert_eq!(store.members().len(), 1);
    let old = RangeRequest {
        revision: Some(last),
        ..RangeRequest::new(KeyRange::key("last"))
    };
    assert!(matches!(
        store.range(old).await,
        Err(StoreError::Compacted { .. })
    ));
    store.kill().await;

    // The folder that it came from is as it was: whoever thinks better of it goes on with the former cluster.
    for place in 0..3 {
        cluster.start(place).await;
    }
    put(cluster.any(), "former", "v").await;
    assert_eq!(cluster.member(survivor).identity().cluster_id, CLUSTER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_were_never_known_to_be_committed_become_true() {
    let mut cluster = Cluster::new(3).await;
    put(cluster.any(), "before", "v").await;
    let leader = (0..3).find(|place| cluster.member(*place).leader_state().is_leader);
    let leader = leader.expect("one leads");
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    for place in others {
        cluster.kill(place).await;
    }
    let store = cluster.member(leader).clone();
    let unacknowledged = store
        .txn(mvcc::Txn {
            success: vec![mvcc::Op::put("unknown", "v")],
            ..mvcc::Txn::default()
        })
        .await;
    assert!(unacknowledged.is_err(), "no majority, no acknowledgement");
    drop(store);
    cluster.kill(leader).await;
    let config = cluster.configs[leader].clone();
    let found = look(&config.data_dir).expect("it can be looked at");
    assert!(found.last_log > found.committed, "{found:?}");
    let into = cluster.dir().join("recovered");
    let recovered = recover(&config.data_dir, &into, NEW, found.node.clone()).expect("recovers");
    assert_eq!(recovered.applied, found.last_log);
    let mut anew = config;
    anew.data_dir = into;
    anew.cluster_id = NEW.to_owned();
    anew.member_id = recovered.identity.member_id;
    let store = RaftStore::open(anew).await.expect("it opens");
    let mut request = RangeRequest::new(KeyRange::key("unknown"));
    request.consistency = Consistency::Linearizable;
    put(&store, "goes-on", "v").await;
    assert_eq!(store.range(request).await.expect("it is read").kvs.len(), 1);
}

#[test]
fn what_is_no_member_is_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let none = look(dir.path());
    assert!(
        matches!(none, Err(RecoverError::NoMember(_))),
        "{:?}",
        none.err()
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).expect("readable").count(),
        0,
        "looking makes nothing"
    );
}
