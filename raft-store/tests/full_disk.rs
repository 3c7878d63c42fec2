//! A full disk, on an ext4 image of its own: puts are refused, deletes and compactions go on, and it heals by itself; a write
//! that finds no room at all ends the member without losing anything. Needs root, for mounting.

mod common;

use common::{Cluster, count, put, put_txn, wait_for};
use mvcc::{Op, Store, StoreError, Txn};
use objects::cluster::Alarm;
use raft_store::{Limits, RaftStore};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const RESERVE_BYTES: u64 = 16 << 20;

/// A mounted image.
struct Disk {
    root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (image, root) = (dir.path().join("image"), dir.path().join("root"));
        std::fs::create_dir(&root).expect("a folder");
        let file = std::fs::File::create(&image).expect("an image");
        file.set_len(256 << 20).expect("a sparse file");
        run(
            "mkfs.ext4",
            &["-q", "-m", "0", &image.display().to_string()],
        );
        run(
            "mount",
            &[
                "-o",
                "loop",
                &image.display().to_string(),
                &root.display().to_string(),
            ],
        );
        Disk { root, _dir: dir }
    }

    fn balloon(&self) -> PathBuf {
        self.root.join("balloon")
    }

    /// Leaves so many bytes free.
    fn fill(&self, left_bytes: u64) {
        let stat = rustix::fs::statvfs(&self.root).expect("its size");
        let free = stat.f_bavail * stat.f_frsize;
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.balloon())
            .expect("a balloon");
        let at = file.metadata().expect("its length").len();
        let more = free.saturating_sub(left_bytes);
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(&file, flags, at, more) {
            // The blocks that say where the balloon is are needed too; what could be had is taken.
            Err(rustix::io::Errno::NOSPC) if left_bytes == 0 => {}
            filled => filled.expect("it fills the disk"),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.root).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.root.display());
        }
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|err| panic!("{program} cannot be run: {err}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} failed; this test needs root: {text}"
    );
}

async fn member(disk: &Path, disk_reserve_bytes: u64) -> (Cluster, RaftStore) {
    let limits = Limits {
        disk_reserve_bytes,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(1, limits).await;
    // The harness' own member only serves to make the folder's configuration.
    let mut config = cluster.config("full", 1);
    config.data_dir = disk.join("member");
    let store = RaftStore::open(config.clone()).await.expect("it opens");
    store.bootstrap().await.expect("a cluster begins");
    cluster.configs.push(config);
    (cluster, store)
}

fn delete(key: &str) -> Txn {
    Txn {
        success: vec![Op::delete(key.to_owned())],
        ..Txn::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_raises_an_alarm_takes_deletes_and_heals_by_itself() {
    let disk = Disk::new();
    let (_cluster, store) = member(&disk.root, RESERVE_BYTES).await;
    for number in 0..20 {
        put(&store, &format!("k{number}"), "v").await;
    }
    let kept = disk.root.join("member/reserve");
    assert!(kept.exists(), "room is kept while there is plenty");
    disk.fill(0);
    wait_for("the room that was kept is given away", || !kept.exists()).await;
    let refused = store.txn(put_txn("more", "v")).await;
    assert_eq!(refused.err(), Some(StoreError::NoSpace));
    let status = store.status().await;
    assert_eq!(status.members[0].alarms, [Alarm::NoSpace], "{status:?}");
    assert_eq!(store.alarms().await, [(1, Alarm::NoSpace)]);
    for number in 0..10 {
        let key = format!("k{number}");
        store.txn(delete(&key)).await.expect("deletes are taken");
    }
    let revision = store.applied_revision();
    store
        .compact(revision)
        .await
        .expect("compactions are taken");
    assert_eq!(count(&store).await, 10);
    std::fs::remove_file(disk.balloon()).expect("there is room again");
    let mut healed = false;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        healed = store.txn(put_txn("more", "v")).await.is_ok();
        if healed {
            break;
        }
    }
    assert!(healed, "puts are taken again, without anybody's help");
    assert!(store.alarms().await.is_empty());
    wait_for("room is kept again", || kept.exists()).await;
    store.kill().await;
}

/// A value that no log can make much smaller.
fn noise(seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..50_000)
        .map(|_| char::from(rng.random_range(b'!'..=b'~')))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_finds_no_room_ends_the_member_and_loses_nothing() {
    let disk = Disk::new();
    // Without a reserve nothing warns: the log itself runs into the end of the disk.
    let (mut cluster, store) = member(&disk.root, 0).await;
    disk.fill(1 << 20);
    let mut acknowledged = 0;
    loop {
        let written = store
            .txn(put_txn(&format!("k{acknowledged}"), &noise(acknowledged)))
            .await;
        match written {
            Ok(_) => acknowledged += 1,
            Err(err) => {
                assert!(!matches!(err, StoreError::NoSpace), "nothing warned");
                break;
            }
        }
        assert!(acknowledged < 1000, "the disk did not fill");
    }
    let reason = tokio::time::timeout(Duration::from_secs(5), store.stopped()).await;
    let reason = reason.expect("it stops by itself");
    assert!(reason.contains("No space left"), "{reason}");
    assert!(!store.is_damaged(), "a full disk is no damage");
    store.kill().await;

    let mut config = cluster.configs.pop().expect("the member's");
    config.limits.disk_reserve_bytes = 256 << 20;
    let balloon = std::fs::OpenOptions::new().write(true).open(disk.balloon());
    let balloon = balloon.expect("the balloon");
    let length = balloon.metadata().expect("its length").len();
    balloon.set_len(length - (140 << 20)).expect("room is made");
    disk.fill(128 << 20); // As much as the file that keeps room gives away.
    let store = RaftStore::open(config)
        .await
        .expect("it opens with little room");
    wait_for("it leads", || store.leader_state().is_leader).await;
    assert!(
        count(&store).await >= acknowledged,
        "{acknowledged} were acknowledged"
    );
    let refused = store.txn(put_txn("more", "v")).await;
    assert_eq!(refused.err(), Some(StoreError::NoSpace));
    store.txn(delete("k0")).await.expect("deletes are taken");
    store.kill().await;
}
