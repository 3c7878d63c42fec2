//! Damaged files: of a write-ahead log every flipped or cut byte either does no harm or is told, a torn tail opens, and a member
//! whose data are damaged is found by comparison, steps back, and is fed again as a new member.

mod common;

use common::{Cluster, count, get, put, wait_for};
use mvcc::{Table, Tables};
use objects::cluster::{Alarm, MemberAdd};
use openraft::storage::RaftLogStorage;
use raft_store::db::{Db, Family, WriteBatch};
use raft_store::identity::{db_dir, mark_path};
use raft_store::log::LogStore;
use raft_store::log::mark::Mark;
use raft_store::{Config, OpenError, RaftStore, damage};
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a crash leaves of a member that acknowledged some writes: its files as they are while it runs. One that ends in order
/// would leave an empty log.
async fn killed() -> (Cluster, Config) {
    let mut cluster = Cluster::new(1).await;
    for number in 0..40 {
        put(cluster.any(), &format!("k{number}"), &"v".repeat(200)).await;
    }
    let mut config = cluster.configs[0].clone();
    let image = cluster.dir().join("image");
    copy(&config.data_dir, &image);
    config.data_dir = image;
    cluster.kill(0).await;
    (cluster, config)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("it is made");
    for entry in std::fs::read_dir(from).expect("it can be read") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &target),
            false => std::fs::copy(&path, &target)
                .map(|_| ())
                .expect("it is copied"),
        }
    }
}

/// The write-ahead log that is written now.
fn newest_log(data_dir: &Path) -> PathBuf {
    let entries = std::fs::read_dir(db_dir(data_dir)).expect("the database's folder");
    let logs = entries.filter_map(|entry| {
        let path = entry.expect("an entry").path();
        path.extension()
            .is_some_and(|extension| extension == "log")
            .then_some(path)
    });
    logs.max().expect("there is one")
}

/// The last entry of the log in the folder; Err tells that it is damaged.
async fn last_index(data_dir: &Path) -> Result<Option<u64>, String> {
    let db = match Db::open(&db_dir(data_dir)) {
        Ok(db) => Arc::new(db),
        Err(err) if err.is_corruption() => return Err(err.to_string()),
        Err(err) => panic!("neither whole nor damaged: {err}"),
    };
    let mark = Mark::open(&mark_path(data_dir)).expect("the note can be read");
    match LogStore::open_marked(db, Arc::default(), Some(mark)) {
        Ok(mut log) => {
            let state = log.get_log_state().await.expect("it is known");
            Ok(state.last_log_id.map(|last| last.index))
        }
        Err(err) => {
            let err = OpenError::from(err);
            assert!(err.is_damage(), "neither whole nor damaged: {err}");
            Err(err.to_string())
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damage_of_the_log_is_taken_for_a_torn_tail() {
    let (cluster, config) = killed().await;
    let whole = std::fs::read(newest_log(&config.data_dir)).expect("the log");
    let scratch = cluster.dir().join("scratch");
    let open = async |bytes: &[u8]| {
        let _ = std::fs::remove_dir_all(&scratch);
        copy(&config.data_dir, &scratch);
        std::fs::write(newest_log(&scratch), bytes).expect("it is written");
        last_index(&scratch).await
    };
    let acknowledged = open(&whole).await.expect("it is whole");
    assert!(acknowledged >= Some(40), "{acknowledged:?}");
    let mut told = 0;
    let mut judge = |what: String, found: Result<Option<u64>, String>| match found {
        Ok(last) => {
            assert_eq!(
                last, acknowledged,
                "{what}: acknowledged entries are gone in silence"
            );
        }
        Err(_) => told += 1,
    };
    // Evenly over the file, and densely where a tail could be torn.
    let dense = whole.len().saturating_sub(700);
    let offsets = (0..dense)
        .step_by(dense / 30 + 1)
        .chain((dense..whole.len()).step_by(23));
    for offset in offsets {
        judge(format!("cut at {offset}"), open(&whole[..offset]).await);
        let mut flipped = whole.clone();
        flipped[offset] ^= 0x10;
        judge(format!("flipped at {offset}"), open(&flipped).await);
    }
    assert!(told > 30, "{told} told");
    // What a power cut leaves of a write that was not synced: a part of it, or other bytes in its place.
    for tail in [
        &b"\0"[..],
        &[0; 4096],
        &[0xa5; 100],
        &whole[whole.len() / 2..whole.len() / 2 + 50],
    ] {
        let torn = [&whole[..], tail].concat();
        assert_eq!(open(&torn).await.expect("a torn tail is cut"), acknowledged);
    }
    let _ = std::fs::remove_dir_all(&scratch);
    copy(&config.data_dir, &scratch);
    std::fs::remove_file(newest_log(&scratch)).expect("it is removed");
    last_index(&scratch).await.expect_err("the log is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_folder_is_marked_and_never_opened_again() {
    let (_cluster, config) = killed().await;
    let log = newest_log(&config.data_dir);
    let bytes = std::fs::read(&log).expect("the log");
    std::fs::write(&log, &bytes[..bytes.len() / 2]).expect("it is cut");
    let refused = RaftStore::open(config.clone())
        .await
        .err()
        .expect("it is damaged");
    assert!(refused.is_damage(), "{refused}");
    assert!(damage::noted(&config.data_dir).is_some());
    std::fs::write(&log, bytes).expect("it is put back");
    let refused = RaftStore::open(config.clone())
        .await
        .err()
        .expect("it is marked");
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}

/// Changes a record of the history of a member that does not run.
fn change_history(config: &Config) {
    let db = Db::open(&db_dir(&config.data_dir)).expect("the database opens");
    let mut changed = None;
    let view = db.live();
    view.scan(
        Table::History,
        Bound::Unbounded,
        Bound::Unbounded,
        true,
        &mut |key, value| {
            changed = Some((key.to_vec(), value.to_vec()));
            ControlFlow::Break(())
        },
    )
    .expect("it can be read");
    drop(view);
    let (key, mut value) = changed.expect("there is history");
    *value.last_mut().expect("it has a value") ^= 1;
    let mut batch = WriteBatch::default();
    batch.put(Family::State(0, Table::History), key, value);
    db.write(batch).expect("it can be written");
    db.sync().expect("it is on disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_differs_steps_back_and_is_fed_again() {
    let mut cluster = Cluster::new(3).await;
    for number in 0..30 {
        put(cluster.any(), &format!("k{number}"), "value").await;
    }
    let leader = cluster.leader().await;
    let checks = cluster
        .member(leader)
        .compare_members()
        .await
        .expect("all answer");
    assert!(
        checks.iter().all(|check| check.same == Some(true)),
        "{checks:?}"
    );
    let place = cluster.follower().await;
    let config = cluster.configs[place].clone();
    let applied = mvcc::Store::applied_revision(cluster.member(leader));
    wait_for("all have everything", || {
        mvcc::Store::applied_revision(cluster.member(place)) == applied
    })
    .await;
    cluster.kill(place).await;
    change_history(&config);
    cluster.start(place).await;
    put(cluster.any(), "after", "1").await;
    let leader = cluster.leader().await;
    let checks = cluster
        .member(leader)
        .compare_members()
        .await
        .expect("two answer");
    for check in &checks {
        assert_eq!(
            check.same,
            Some(check.member.id != config.member_id),
            "{checks:?}"
        );
    }
    let damaged = cluster.members[place].take().expect("it runs");
    let reason = tokio::time::timeout(Duration::from_secs(15), damaged.stopped()).await;
    let reason = reason.expect("it steps back");
    assert!(
        damaged.is_damaged() && reason.contains("differ"),
        "{reason}"
    );
    let status = cluster.member(leader).status().await;
    let told = status
        .members
        .iter()
        .find(|known| known.member.id == config.member_id);
    assert_eq!(told.expect("it is a member yet").alarms, [Alarm::Corrupt]);
    damaged.kill().await;
    let refused = RaftStore::open(config.clone())
        .await
        .err()
        .expect("it is marked");
    assert!(refused.is_damage(), "{refused}");

    damage::set_aside(&config.data_dir).expect("it is set aside");
    let add = MemberAdd {
        name: config.name.clone(),
        peer_address: config.peer_address.clone(),
        api_url: config.api_url.clone(),
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let member = cluster
        .any()
        .join_member(add, None)
        .await
        .expect("it is taken back");
    let again = Config {
        member_id: member.id,
        ..config
    };
    let store = RaftStore::open(again.clone()).await.expect("it opens");
    cluster.configs[place] = again;
    cluster.members[place] = Some(store);
    cluster.wait_for_voters(3).await;
    assert_eq!(count(cluster.member(place)).await, 31);
    assert_eq!(
        get(cluster.member(place), "k29").await.as_deref(),
        Some("value")
    );
    let leader = cluster.leader().await;
    let checks = cluster
        .member(leader)
        .compare_members()
        .await
        .expect("all answer");
    assert!(
        checks.iter().all(|check| check.same == Some(true)),
        "{checks:?}"
    );
}
