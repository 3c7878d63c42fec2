//! A member takes the place of another: dead, alive, leading, or rebuilt without its data; and learners and addresses by hand.

mod common;

use common::{CLUSTER, Cluster, count, free_address, get, put, wait_for};
use mvcc::Store;
use objects::cluster::{Member, MemberAdd};
use raft_store::{Config, MembershipError, RaftStore};
use std::time::Duration;

fn add_of(config: &Config) -> MemberAdd {
    MemberAdd {
        name: config.name.clone(),
        peer_address: config.peer_address.clone(),
        api_url: config.api_url.clone(),
    }
}

/// Opens the member that was admitted as `member`.
async fn open(cluster: &mut Cluster, mut config: Config, member: &Member) -> usize {
    config.member_id = member.id;
    let store = RaftStore::open(config.clone()).await;
    cluster.configs.push(config);
    cluster.members.push(Some(store.expect("the member opens")));
    cluster.members.len() - 1
}

async fn join(cluster: &mut Cluster, name: &str, replaces: Option<&str>) -> usize {
    let config = cluster.config(name, 0);
    let member = cluster
        .any()
        .join_member(add_of(&config), replaces.map(str::to_owned))
        .await
        .expect("the member is admitted");
    open(cluster, config, &member).await
}

fn voters(store: &RaftStore) -> Vec<String> {
    let voters = store.members().into_iter().filter(|member| member.voter);
    voters.map(|member| member.name).collect()
}

async fn wait_for_only_voters(store: &RaftStore, names: &[&str]) {
    wait_for(&format!("only {names:?} are members"), || {
        voters(store) == names && store.members().len() == names.len()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_replaced_by_one_that_joins_later() {
    let mut cluster = Cluster::new(3).await;
    for number in 0..50 {
        put(cluster.any(), &format!("k{number}"), "v").await;
    }
    if cluster.leader().await == 2 {
        let store = cluster.member(2).clone();
        store
            .transfer_leadership(Some("m1"))
            .await
            .expect("m1 leads");
    }
    cluster.kill(2).await;
    let replaced = cluster
        .any()
        .replace_member("m3", "m4")
        .await
        .expect("it is noted");
    assert_eq!((replaced.id, &*replaced.name), (3, "m3"));
    let noted = cluster.any().members();
    assert_eq!(noted[2].replaced_by.as_deref(), Some("m4"));
    assert_eq!(noted.len(), 3, "nothing goes before the new one is there");
    let place = join(&mut cluster, "m4", None).await;
    assert_eq!(cluster.configs[place].member_id, 4);
    wait_for_only_voters(cluster.any(), &["m1", "m2", "m4"]).await;
    let plans = cluster.any().members();
    assert!(
        plans
            .iter()
            .all(|member| member.replaces.is_none() && member.replaced_by.is_none())
    );
    assert_eq!(count(cluster.member(place)).await, 50);
    // The one that was replaced comes back and is nobody.
    cluster.start(2).await;
    put(cluster.any(), "after", "1").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    put(cluster.any(), "later", "1").await;
    assert_eq!(voters(cluster.any()), ["m1", "m2", "m4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_replaced_while_it_lives() {
    let mut cluster = Cluster::new(1).await;
    put(cluster.any(), "k", "v").await;
    // It leads and is alone: the most delicate member to lose.
    let place = join(&mut cluster, "m2", Some("m1")).await;
    wait_for_only_voters(cluster.member(place), &["m2"]).await;
    cluster.kill(0).await;
    put(cluster.member(place), "after", "1").await;
    assert_eq!(get(cluster.member(place), "k").await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_member_is_taken_back_under_a_new_id_and_a_live_one_keeps_its_place() {
    let mut cluster = Cluster::new(3).await;
    put(cluster.any(), "k", "v").await;
    let lost = cluster.follower().await;
    let config = cluster.configs[lost].clone();
    let refused = cluster.any().join_member(add_of(&config), None).await;
    assert_eq!(refused, Err(MembershipError::Alive(config.name.clone())));
    cluster.kill(lost).await;
    std::fs::remove_dir_all(&config.data_dir).expect("its data are lost");
    let began = std::time::Instant::now();
    let member = loop {
        match cluster.any().join_member(add_of(&config), None).await {
            Ok(member) => break member,
            Err(MembershipError::Alive(_)) if began.elapsed() < Duration::from_secs(5) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(err) => panic!("{err}"),
        }
    };
    assert_eq!(member.id, 4, "an id is never used again");
    let ids: Vec<u64> = cluster
        .any()
        .members()
        .iter()
        .map(|member| member.id)
        .collect();
    assert!(
        !ids.contains(&config.member_id) && ids.len() == 3,
        "{ids:?}"
    );
    let place = open(&mut cluster, config, &member).await;
    cluster.wait_for_voters(3).await;
    assert_eq!(get(cluster.member(place), "k").await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nobody_is_taken_back() {
    let mut cluster = Cluster::new(4).await;
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..4).filter(|place| *place != leader).collect();
    cluster.kill(others[0]).await;
    let gone = cluster.configs[others[0]].name.clone();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    // Three of four agree. Without a live one, two of three would.
    let live = cluster.configs[others[1]].name.clone();
    cluster
        .member(leader)
        .replace_member(&live, "m9")
        .await
        .expect("three of four would remain");
    cluster
        .member(leader)
        .remove_member(&gone)
        .await
        .expect("the dead one can go");
    cluster.kill(others[1]).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let refused = cluster
        .member(leader)
        .remove_member(&cluster.configs[others[2]].name)
        .await;
    let reason = refused.expect_err("one of two is no quorum").to_string();
    assert!(
        reason.contains("1 reachable voters of 2, fewer than the 2 that a quorum needs"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_learner_votes_only_when_it_is_promoted() {
    let mut cluster = Cluster::new(1).await;
    put(cluster.any(), "k", "v").await;
    let config = cluster.config("m2", 0);
    let store = cluster.any().clone();
    let member = store
        .add_learner(add_of(&config))
        .await
        .expect("it is added");
    let early = store.promote_member(member.id).await;
    assert_eq!(early, Err(MembershipError::NotCaughtUp("m2".to_owned())));
    let place = open(&mut cluster, config, &member).await;
    wait_for("it caught up", || {
        cluster.member(place).applied_revision() == store.applied_revision()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(voters(&store), ["m1"], "it is not promoted by itself");
    let promoted = store.promote_member(member.id).await.expect("it caught up");
    assert!(promoted.voter);
    assert_eq!(voters(&store), ["m1", "m2"]);
    let again = store.promote_member(member.id).await;
    assert_eq!(again, Err(MembershipError::VotesAlready("m2".to_owned())));
    let unknown = store.promote_member(99).await;
    assert_eq!(unknown, Err(MembershipError::Unknown("99".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moved_is_found_again() {
    let mut cluster = Cluster::new(3).await;
    let moved = cluster.follower().await;
    let taken = cluster.configs[(moved + 1) % 3].peer_address.clone();
    let refused = cluster
        .any()
        .update_member(cluster.configs[moved].member_id, &taken)
        .await;
    assert!(
        matches!(refused, Err(MembershipError::AddressTaken(..))),
        "{refused:?}"
    );
    cluster.kill(moved).await;
    put(cluster.any(), "meanwhile", "1").await;
    let listen = free_address();
    cluster.configs[moved].listen = listen;
    cluster.configs[moved].peer_address = listen.to_string();
    cluster.start(moved).await;
    let member = cluster.member(moved).clone();
    let peers = cluster.any().clone();
    wait_for("the others know the new address", || {
        peers
            .members()
            .iter()
            .any(|member| member.peer_address == listen.to_string())
    })
    .await;
    put(&peers, "after", "1").await;
    wait_for("it is fed at the new address", || {
        member.applied_revision() == peers.applied_revision()
    })
    .await;
    assert_eq!(get(&member, "meanwhile").await.as_deref(), Some("1"));
    assert_eq!(cluster.any().identity().cluster_id, CLUSTER);
}
