//! Members of a real store on the testbed: three of Debian's etcd, broken and whole again.

use chaos::testbed::{Choice, Options, Testbed};
use chaos::tunswitch::Quality;
use std::path::Path;
use std::time::{Duration, Instant};

async fn three_of_etcd() -> Testbed {
    chaos::kernel::own_mounts().expect("this needs root");
    let choice = Choice::parse("etcd").expect("a target");
    let options = Options::of(choice).expect("options");
    Testbed::start(options)
        .await
        .expect("three members of etcd vote; is Debian's etcd-server installed?")
}

#[tokio::test]
async fn members_fail_return_are_replaced_added_and_removed_and_nothing_stays() {
    let mut bed = three_of_etcd().await;
    let leader = bed.wait_for_leader().await.expect("a leader").name;
    bed.kill(&leader).await.expect("it is killed");
    bed.restore().await.expect("it starts");
    bed.wait_until_whole().await.expect("it is back");

    let others: Vec<String> = bed.names();
    let leader = bed.wait_for_leader().await.expect("a leader").name;
    for other in others.iter().filter(|name| **name != leader) {
        bed.network()
            .set(&leader, other, Quality::cut())
            .expect("a link");
        bed.network()
            .set(other, &leader, Quality::cut())
            .expect("a link");
    }
    let next = loop {
        let known = bed.wait_for_leader().await.expect("a leader").name;
        if known != leader {
            break known;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    bed.restore().await.expect("the network heals");
    bed.wait_until_whole().await.expect("it is whole");

    bed.expel(&next).await.expect("it is put out");
    bed.rejoin(&next).await.expect("it is let in");
    bed.wait_until_whole().await.expect("it votes again");
    let added = bed.add_member().await.expect("a fourth");
    bed.wait_until_whole().await.expect("four vote");
    bed.remove_member(&added).await.expect("it goes");
    bed.wait_until_whole().await.expect("three vote");

    let namespace = format!("chaos-{}-t0-m1", std::process::id());
    let namespace = Path::new("/run/netns").join(namespace);
    assert!(namespace.exists());
    let data = bed.disk("m1").expect("a disk").data();
    drop(bed);
    assert!(!namespace.exists() && !data.exists());
    let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
    let own = format!("chaos-bed-{}-", std::process::id());
    assert!(!mounts.contains(&own), "{mounts}");
}

/// What a harness has on the machine: mounts, namespaces, folders that carry its process id.
fn belongings(pid: u32) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
    let bed = format!("chaos-bed-{pid}-");
    let mut found: Vec<String> = mounts
        .lines()
        .filter(|line| line.contains(&bed))
        .map(str::to_owned)
        .collect();
    for (folder, prefix) in [
        ("/run/netns", format!("chaos-{pid}-")),
        ("/tmp", bed.clone()),
    ] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        found.extend(names.filter(|name| name.starts_with(&prefix)));
    }
    found
}

#[tokio::test]
async fn what_a_killed_harness_leaves_is_swept_by_the_next() {
    let out = tempfile::tempdir().expect("a folder");
    let mut harness = std::process::Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args([
            "run",
            "--target",
            "etcd",
            "--nemesis",
            "none",
            "--time",
            "60s",
            "--out",
        ])
        .arg(out.path())
        .env("TMPDIR", "/tmp")
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the harness starts");
    let pid = harness.id();
    let history = out.path().join("history.jsonl");
    let until = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&history).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < until, "the run does not begin");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    harness.kill().expect("it is killed");
    harness.wait().expect("it is over");
    let left = belongings(pid);
    // A network namespace for each member, and the folder; the mounts went with the mount namespace that only the harness had.
    assert!(left.len() >= 4, "{left:?}");
    // Its members end with it, a moment later.
    tokio::time::sleep(Duration::from_millis(500)).await;
    chaos::testbed::sweep();
    assert_eq!(belongings(pid), Vec::<String>::new());
}

#[tokio::test]
async fn power_is_lost_at_all_members_and_what_was_acknowledged_is_there() {
    let mut bed = three_of_etcd().await;
    let put = |value: &str| {
        let urls: Vec<String> = bed.endpoints().into_iter().map(|at| at.url).collect();
        let output = std::process::Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &urls.join(","), "put", "key", value])
            .output()
            .expect("Debian's etcd-client is installed");
        assert!(output.status.success(), "{output:?}");
    };
    put("kept");
    let before = bed
        .probe()
        .expect("a probe")
        .status("m1")
        .await
        .expect("a status");
    let mut canaries = Vec::new();
    for name in bed.names() {
        canaries.push((
            name.clone(),
            bed.disk(&name)
                .expect("a disk")
                .set_canaries()
                .expect("files"),
        ));
    }
    for name in bed.names() {
        bed.disk(&name)
            .expect("a disk")
            .cut_power()
            .expect("it is cut");
    }
    for (name, canaries) in canaries {
        bed.kill(&name).await.expect("it is killed");
        let loss = bed
            .disk(&name)
            .expect("a disk")
            .power_on(&canaries)
            .expect("it is on");
        assert!(loss.kept_synced && loss.lost_unsynced, "{loss:?}");
    }
    bed.restore().await.expect("they start");
    bed.wait_until_whole().await.expect("they are whole");
    let after = bed
        .probe()
        .expect("a probe")
        .status("m1")
        .await
        .expect("a status");
    assert!(after.revision >= before.revision, "{after:?}, {before:?}");
}
