//! Adding, removing and replacing members; a member that is far behind; archives.

mod common;

use bytes::Bytes;
use common::{Cluster, count, get, put, wait_for};
use futures::StreamExt;
use mvcc::{KeyRange, RangeRequest, Store, StoreError, WatchRequest};
use objects::Revision;
use objects::cluster::MemberAdd;
use raft_store::archive::{self, ArchiveError, RestoreError};
use raft_store::types::{Node, term_of};
use raft_store::{Limits, MembershipError, RaftStore};

/// So few entries are kept that a member which was away needs a snapshot.
fn short_log() -> Limits {
    Limits {
        log_entries_slack: 20,
        log_entries_kept: 10,
        ..Limits::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_far_behind_is_fed_a_snapshot_and_its_watches_resume() {
    let mut cluster = Cluster::with_limits(3, short_log()).await;
    put(cluster.any(), "before", "1").await;
    let away = cluster.follower().await;
    cluster.kill(away).await;
    for number in 0..200 {
        put(cluster.any(), &format!("k{number:03}"), "v").await;
    }
    cluster.start(away).await;
    let member = cluster.member(away);
    let request = WatchRequest {
        range: KeyRange::prefix("k"),
        start: Revision(1),
    };
    let mut watch = member.watch(request).await.expect("the watch starts");
    wait_for("the member caught up", || {
        member.applied_revision() == cluster.any().applied_revision()
    })
    .await;
    assert_eq!(count(member).await, 201);
    put(member, "k999", "v").await;
    let mut keys = Vec::new();
    while keys.last().is_none_or(|key: &Bytes| key != "k999") {
        let batch = watch
            .next()
            .await
            .expect("the watch goes on")
            .expect("the watch does not fail");
        keys.extend(batch.events.iter().map(|event| event.key().clone()));
    }
    assert_eq!(keys.len(), 201);
    assert!(keys.is_sorted());
    // It survives its own restart with what it was fed.
    cluster.kill(away).await;
    cluster.start(away).await;
    assert_eq!(count(cluster.member(away)).await, 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_added_replaced_and_removed_under_load() {
    let mut cluster = Cluster::new(3).await;
    for number in 0..100 {
        put(cluster.any(), &format!("k{number}"), "v").await;
    }
    let gone = cluster.follower().await;
    cluster.kill(gone).await;
    let gone_id = cluster.configs[gone].member_id;
    cluster
        .any()
        .remove_member(&gone_id.to_string())
        .await
        .expect("two of three can remove the third");
    let place = cluster.join("m4").await;
    assert_eq!(
        cluster.configs[place].member_id, 4,
        "ids are not used again"
    );
    cluster.wait_for_voters(3).await;
    assert_eq!(count(cluster.member(place)).await, 100);
    let leader = cluster.leader().await;
    let name = cluster.configs[leader].name.clone();
    let other = cluster.follower().await;
    cluster
        .member(other)
        .remove_member(&name)
        .await
        .expect("a leader hands over and goes");
    wait_for("two are left", || {
        cluster.member(other).members().len() == 2
    })
    .await;
    put(cluster.member(other), "after", "1").await;
    let again = cluster.any();
    assert!(
        again
            .members()
            .iter()
            .all(|member| member.voter || member.id != leader as u64 + 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_cannot_be_are_refused_with_the_reason() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let (second, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let config = cluster.configs[leader].clone();
    let add = |name: &str, peer_address: &str| MemberAdd {
        name: name.to_owned(),
        peer_address: peer_address.to_owned(),
        api_url: String::new(),
    };
    let store = cluster.member(second).clone();
    let taken = store.add_member(add(&config.name, "127.0.0.1:1")).await;
    assert_eq!(taken, Err(MembershipError::NameTaken(config.name.clone())));
    let taken = store.add_member(add("m9", &config.peer_address)).await;
    assert!(
        matches!(taken, Err(MembershipError::AddressTaken(..))),
        "{taken:?}"
    );
    let unknown = store.remove_member("nobody").await;
    assert_eq!(unknown, Err(MembershipError::Unknown("nobody".to_owned())));
    drop(store);
    cluster.kill(third).await;
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    let name = cluster.configs[second].name.clone();
    let refused = cluster.member(leader).remove_member(&name).await;
    assert!(
        matches!(
            refused,
            Err(MembershipError::WouldLoseQuorum {
                healthy: 1,
                voters: 2,
                ..
            })
        ),
        "{refused:?}"
    );
    let status = cluster.member(leader).status().await;
    let healthy: Vec<bool> = status.members.iter().map(|member| member.healthy).collect();
    assert_eq!(
        healthy.iter().filter(|healthy| **healthy).count(),
        2,
        "{status:?}"
    );
    assert_eq!(status.leader, Some(cluster.configs[leader].member_id));
}

async fn saved(store: &RaftStore, extra: Option<Bytes>) -> Vec<u8> {
    let mut chunks = store
        .archive(extra, None)
        .await
        .expect("the archive begins");
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk.expect("the archive goes on"));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_taken_while_writing_becomes_a_new_cluster() {
    let cluster = Cluster::new(3).await;
    for number in 0..300 {
        put(cluster.any(), &format!("k{number:04}"), &"v".repeat(1000)).await;
    }
    while cluster.any().leader_state().term.0 < 4 {
        // A busy machine may be too slow for one; what counts is the term.
        let _ = cluster.any().transfer_leadership(None).await;
    }
    put(cluster.any(), "in-a-later-term", "v").await;
    let writer = cluster.any().clone();
    let writing = tokio::spawn(async move {
        for number in 300..400 {
            put(&writer, &format!("k{number:04}"), "v").await;
        }
    });
    let archive = saved(cluster.any(), Some(Bytes::from_static(b"sealed keys"))).await;
    writing.await.expect("writes go on");
    let summary = archive::verify(&archive[..]).expect("the archive is whole");
    assert_eq!(summary.extra.as_deref(), Some(&b"sealed keys"[..]));
    assert_eq!(summary.header.cluster_id, common::CLUSTER);

    let mut config = cluster.config("restored", 0);
    config.cluster_id = "a-new-cluster".to_owned();
    let node = Node {
        name: config.name.clone(),
        peer_address: config.peer_address.clone(),
        api_url: config.api_url.clone(),
        ..Node::default()
    };
    let same = archive::restore(
        &archive[..],
        None,
        &config.data_dir,
        common::CLUSTER,
        node.clone(),
    );
    assert!(matches!(same, Err(RestoreError::SameCluster(_))));
    let restored = archive::restore(
        &archive[..],
        None,
        &config.data_dir,
        &config.cluster_id,
        node.clone(),
    )
    .expect("it is restored");
    assert_eq!(restored.extra.as_deref(), Some(&b"sealed keys"[..]));
    assert!(restored.compared, "what was read back is what was saved");
    let header = restored.header;
    let again = archive::restore(
        &archive[..],
        None,
        &config.data_dir,
        &config.cluster_id,
        node,
    );
    assert!(matches!(again, Err(RestoreError::NotEmpty(_))));

    config.member_id = raft_store::identity::Identity::load(&config.data_dir)
        .expect("the identity can be read")
        .expect("there is one")
        .member_id;
    let restored = RaftStore::open(config)
        .await
        .expect("the restored member opens");
    assert_eq!(
        get(&restored, "k0299").await.map(|value| value.len()),
        Some(1000)
    );
    assert!(count(&restored).await >= 300);
    let (term, was) = (
        restored.leader_state().term.0,
        header.applied.map_or(0, |applied| term_of(&applied)),
    );
    assert!(
        was >= 4 && term > was,
        "terms only grow: {term} after {was}"
    );
    let revision = put(&restored, "new", "1").await;
    assert!(revision.0 > header.revision.0 + 1_000_000);
    let old = RangeRequest {
        revision: Some(header.revision),
        ..RangeRequest::new(KeyRange::key("k0000"))
    };
    assert!(matches!(
        restored.range(old).await,
        Err(StoreError::Compacted { .. })
    ));
    let watch = restored
        .watch(WatchRequest {
            range: KeyRange::prefix(""),
            start: header.revision,
        })
        .await;
    assert!(matches!(watch.err(), Some(StoreError::Compacted { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_damage_of_an_archive_is_told() {
    let cluster = Cluster::new(1).await;
    for number in 0..20 {
        put(cluster.any(), &format!("k{number}"), "some value").await;
    }
    let archive = saved(cluster.any(), Some(Bytes::from_static(b"extra"))).await;
    archive::verify(&archive[..]).expect("the archive is whole");
    for bit in 0..archive.len() * 8 {
        let mut damaged = archive.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(
            archive::verify(&damaged[..]).is_err(),
            "the flipped bit {bit} was not told"
        );
    }
    let cut = archive::verify(&archive[..archive.len() - 1]);
    assert!(
        matches!(cut, Err(ArchiveError::CutShort { .. })),
        "{:?}",
        cut.err()
    );
    let mut damaged = archive;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let target = cluster.dir().join("not-restored");
    let refused = archive::restore(
        &damaged[..],
        None,
        &target,
        "a-new-cluster",
        Node::default(),
    );
    assert!(matches!(refused, Err(RestoreError::Archive(_))));
    assert!(!target.join("member.json").exists());
}
