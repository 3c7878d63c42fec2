//! Masters that go and come, on real processes: one is replaced with one command, one comes back without its store or with a
//! damaged one, a leader is removed. Needs root and the programs, as the smoke test does.

use chaos::cluster::{Cluster, Options};
use http::Method;
use objects::cluster::{Member, MemberList};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const OBJECTS: usize = 40;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn start() -> Cluster {
    let options = Options::masters(3).expect("the programs are built");
    let cluster = Cluster::start(options).await.expect("three masters vote");
    for number in 0..OBJECTS {
        write(&cluster, number).await;
    }
    cluster
}

async fn write(cluster: &Cluster, number: usize) {
    let client = cluster.client().expect("a client");
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("map-{number}")},
        "data": {"text": "x".repeat(500)},
    });
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = client.post::<Value>(MAPS, &map).await {
        // What is unknown is asked again; then it may be there already.
        if error.is_code(409) {
            return;
        }
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What the master itself has, without asking the others.
async fn assert_whole(cluster: &Cluster, name: &str, count: usize) {
    let client = cluster.client_of(name).expect("a client");
    let path = format!("{MAPS}?resourceVersion=0");
    let maps: Value = client.get(&path).await.expect("it answers");
    let items = maps["items"].as_array().expect("a list");
    let written = items.iter().filter(|map| {
        let name = map["metadata"]["name"].as_str();
        name.is_some_and(|name| name.starts_with("map-"))
    });
    assert_eq!(written.count(), count, "{name} lacks objects");
}

async fn members(cluster: &Cluster) -> Vec<Member> {
    let client = cluster.client().expect("a client");
    let list: MemberList = client.get("/cluster/v1/members").await.expect("an answer");
    list.members
}

async fn member(cluster: &Cluster, name: &str) -> Member {
    let members = members(cluster).await;
    let found = members.iter().find(|member| member.name == name);
    found
        .unwrap_or_else(|| panic!("{name} is not in {members:?}"))
        .clone()
}

fn ctl(cluster: &Cluster, arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(cluster.binaries().path("ctl"));
    command
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_dead_leader_is_replaced_with_one_command_and_a_leader_is_removed() {
    let mut cluster = start().await;
    let dead = cluster.wait_for_leader().await.expect("a leader").name;
    cluster.kill(&dead).await.expect("it is killed");
    cluster.destroy_data(&dead).expect("its machine is gone");
    write(&cluster, OBJECTS).await;
    let replace = ctl(&cluster, &["member", "replace", &dead, "m4", "-o", "json"]);
    let mut replace = replace_of(replace);
    tokio::time::sleep(Duration::from_secs(1)).await;
    if replace.try_wait().expect("it runs").is_some() {
        panic!(
            "it waits for m4, yet: {:?}",
            replace.wait_with_output().await
        );
    }
    cluster.add_master("m4").expect("a machine");
    cluster.start_machine("m4").expect("it starts");
    let told = tokio::time::timeout(Duration::from_secs(40), replace.wait_with_output());
    let told = told.await.expect("it ends").expect("it ran");
    let progress = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{progress}");
    assert!(progress.contains("control run --name m4"), "{progress}");
    assert!(progress.contains("waiting for m4 to join"), "{progress}");
    let answer: Value = serde_json::from_slice(&told.stdout).expect("JSON alone on stdout");
    assert_eq!(answer["replaced"]["name"], dead.as_str());
    assert_eq!(
        (&answer["member"]["id"], &answer["member"]["voter"]),
        (&json!(4), &json!(true))
    );
    let mut names: Vec<String> = members(&cluster)
        .await
        .into_iter()
        .map(|member| member.name)
        .collect();
    assert!(names.len() == 3 && !names.contains(&dead), "{names:?}");
    assert_whole(&cluster, "m4", OBJECTS + 1).await;

    let leader = cluster.wait_for_leader().await.expect("a leader").name;
    let removed = ctl(&cluster, &["member", "remove", &leader]).output().await;
    let removed = removed.expect("it ran");
    let text = String::from_utf8_lossy(&removed.stderr);
    assert!(removed.status.success(), "{text}");
    write(&cluster, OBJECTS + 1).await;
    names.retain(|name| *name != leader);
    assert_eq!(names.len(), 2, "{names:?}");
    it_says_that_it_was_removed(&cluster, &leader, &names).await;
    let rest = cluster.client_of(&names[0]).expect("a client");
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let list: MemberList = rest.get("/cluster/v1/members").await.expect("an answer");
        if list.members.len() == 2 {
            assert!(
                list.members
                    .iter()
                    .all(|member| names.contains(&member.name))
            );
            return;
        }
        assert!(Instant::now() < until, "{:?}", list.members);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A removed master that still runs asks the others, and then tells everybody to ask them.
async fn it_says_that_it_was_removed(cluster: &Cluster, removed: &str, names: &[String]) {
    let alone = cluster.client_of(removed).expect("a client");
    let until = Instant::now() + Duration::from_secs(15);
    let told = loop {
        match alone.get::<MemberList>("/cluster/v1/members").await {
            Err(error) if error.to_string().contains("was removed") => break error.to_string(),
            other => assert!(Instant::now() < until, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(
        told.contains("no member any more") && told.contains("--join"),
        "{told}"
    );
    assert!(names.iter().all(|name| told.contains(name)), "{told}");
    let object = alone.get::<Value>("/api/v1/namespaces/default/configmaps?resourceVersion=0");
    let refused = object.await.expect_err("what it has is old").to_string();
    assert!(refused.contains("was removed"), "{refused}");
    let log = std::fs::read_to_string(cluster.log(removed)).expect("it has a log");
    assert!(
        log.contains("this member was removed and still runs"),
        "{log}"
    );
}

fn replace_of(mut command: tokio::process::Command) -> tokio::process::Child {
    command.spawn().expect("ctl starts")
}

#[tokio::test]
async fn a_master_without_its_store_or_with_a_damaged_one_is_fed_again() {
    let mut cluster = start().await;
    let before = member(&cluster, "m2").await;
    cluster.kill("m2").await.expect("it is killed");
    let store = cluster.data_dir("m2").join("store");
    std::fs::remove_dir_all(&store).expect("the store is lost, and nothing else");
    cluster.start_machine("m2").expect("it starts");
    wait_for_new_id(&mut cluster, &before).await;
    assert_whole(&cluster, "m2", OBJECTS).await;

    let before = member(&cluster, "m3").await;
    cluster.kill("m3").await.expect("it is killed");
    let store = cluster.data_dir("m3").join("store");
    let damaged = damage_log(&store.join("db"));
    cluster.start_machine("m3").expect("it starts");
    wait_for_new_id(&mut cluster, &before).await;
    assert_whole(&cluster, "m3", OBJECTS).await;
    let aside = store.with_file_name("store.damaged-1");
    assert!(
        aside.join("damaged.json").exists(),
        "{} is kept; damaged: {damaged:?}",
        aside.display()
    );
    let log = std::fs::read_to_string(cluster.log("m3")).expect("the log");
    assert!(log.contains("data cannot be used"), "it says so: {log}");
}

async fn wait_for_new_id(cluster: &mut Cluster, before: &Member) {
    cluster.wait_until_whole().await.expect("all vote again");
    let now = member(cluster, &before.name).await;
    assert!(now.id > before.id, "{} is still {}", now.name, now.id);
}

/// Flips bits in the middle of what the write-ahead log holds.
fn damage_log(db: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(db).expect("the database's folder");
    let mut damaged = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let mut bytes = std::fs::read(&path).unwrap_or_default();
        if is_log && bytes.len() > 4096 {
            let middle = bytes.len() / 2;
            bytes[middle..middle + 8]
                .iter_mut()
                .for_each(|byte| *byte ^= 0x55);
            std::fs::write(&path, bytes).expect("it can be written");
            damaged.push(path);
        }
    }
    assert!(
        !damaged.is_empty(),
        "there is a log to damage in {}",
        db.display()
    );
    damaged
}

#[tokio::test]
async fn a_failed_sync_ends_the_master_at_once_and_nothing_is_acknowledged_after_it() {
    let mut cluster = start().await;
    let leader = cluster.wait_for_leader().await.expect("a leader").name;
    let pid = cluster.pid(&leader).expect("it runs").to_string();
    let strace = tokio::process::Command::new("strace")
        .args(["-f", "-q", "-o", "/dev/null", "-p", &pid])
        .args(["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let _strace = strace.expect("strace is installed: apt-get install strace");
    let client = cluster.client_of(&leader).expect("a client");
    let mut number = OBJECTS;
    // Writes go on until one fails: from then on none may succeed at this master.
    let failed_at = loop {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("map-{number}")}});
        let call = client.call::<Value>(
            Method::POST,
            MAPS,
            client::Payload::json(&map),
            client::Deadline(Duration::from_secs(5)),
        );
        match call.await {
            Ok(_) => number += 1,
            Err(_) => break Instant::now(),
        }
        assert!(
            number < OBJECTS + 5000,
            "no sync failed: was strace let in?"
        );
    };
    let status = loop {
        if let Some(status) = cluster.take_ended(&leader) {
            break status;
        }
        assert!(
            failed_at.elapsed() < Duration::from_secs(3),
            "{leader} still runs"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.code(), Some(1), "{status}");
    let log = std::fs::read_to_string(cluster.log(&leader)).expect("the log");
    assert!(
        log.contains("the store stopped") && log.contains("start this master again"),
        "{log}"
    );
    // What was acknowledged is still there, also on the one whose disk failed.
    cluster.start_machine(&leader).expect("it starts");
    cluster.wait_until_whole().await.expect("it is back");
    let maps: Value = cluster
        .client()
        .expect("a client")
        .get(MAPS)
        .await
        .expect("a list");
    let found = maps["items"].as_array().expect("a list").len();
    assert!(
        found >= number,
        "{number} were acknowledged, {found} are there"
    );
}
