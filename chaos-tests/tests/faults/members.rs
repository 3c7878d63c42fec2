//! Members of a real store on the testbed: three of Debian's etcd, broken and whole again.

use chaos::testbed::{Choice, Options, Testbed};
use chaos::tunswitch::Quality;
use std::path::Path;
use std::time::Duration;

async fn three_of_etcd() -> Testbed {
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
