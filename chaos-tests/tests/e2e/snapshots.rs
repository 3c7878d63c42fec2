//! Snapshots by themselves: into a bucket, verified, the old ones deleted, whoever leads. And from the bucket the cluster comes back,
//! with masters that still have what they held before.

use crate::api::Api;
use crate::bucket::{self, Bucket};
use crate::site::{Site, bin};
use crate::told::{Told, assert_words, timed, until};
use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

#[test]
fn snapshots_are_saved_by_themselves_and_the_cluster_comes_back_from_a_bucket() {
    let mut site = timed("three masters", || Site::cluster("snapshots", 10, 3, 0));
    let bucket = Bucket::serve(&site.host_address(), &site.home().join("s3"));
    write(&site, "before", "1");
    timed("a schedule", || {
        a_schedule_runs_and_deletes_what_is_old(&site, &bucket)
    });
    timed("failures", || failures_are_told(&site));
    timed("a folder", || a_folder_is_the_leaders(&site));
    timed("a lost leader", || {
        a_lost_leaders_run_is_done_once(&mut site, &bucket)
    });
    write(&site, "last", "1");
    timed("by hand", || by_hand(&site, &bucket));
    timed("back from the bucket", || {
        the_cluster_comes_back_and_former_masters_join(&mut site, &bucket)
    });
}

fn write(site: &Site, name: &str, value: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}});
    Api::of(site)
        .call(
            Method::POST,
            "/api/v1/namespaces/default/configmaps",
            &object.to_string(),
        )
        .expect("it can be written");
}

fn key(site: &Site) -> String {
    site.home().join("snapshot.key").display().to_string()
}

/// `ctl snapshot schedule set NAME` into the bucket, with these words more.
fn set(site: &Site, bucket: &Bucket, name: &str, more: &[&str]) -> Told {
    let secret = site.home().join("secret");
    fs::write(&secret, format!("{}\n", bucket::SECRET)).expect("it can be written");
    let (secret, endpoint) = (secret.display().to_string(), bucket.endpoint().to_owned());
    let mut words = vec![
        "snapshot",
        "schedule",
        "set",
        name,
        "--s3-bucket",
        bucket::NAME,
    ];
    words.extend(["--s3-prefix", name, "--s3-endpoint", &endpoint]);
    words.extend(["--s3-access-key", bucket::KEY, "--s3-secret-file", &secret]);
    words.extend(more);
    site.ctl(&words)
}

fn schedule(site: &Site, name: &str) -> Value {
    site.json(&["snapshot", "schedule", "get", name, "-o", "json"])
        .unwrap_or_else(|told| panic!("{told}"))
}

fn saved(site: &Site, schedule: &str) -> Vec<Value> {
    let list = site
        .json(&["snapshot", "list", "-o", "json"])
        .unwrap_or_else(|told| panic!("{told}"));
    let all = list["snapshots"].as_array().cloned().unwrap_or_default();
    all.into_iter()
        .filter(|snapshot| snapshot["schedule"] == schedule)
        .collect()
}

fn a_schedule_runs_and_deletes_what_is_old(site: &Site, bucket: &Bucket) {
    site.ctl(&["snapshot", "keygen", &key(site)]).ok();
    let without_keys = set(site, bucket, "nightly", &["--at", "03:00"]);
    without_keys.one_line(&["--passphrase-file", "--key-file", "--no-keys"]);
    set(site, bucket, "nightly", &["--at", "3 o'clock", "--no-keys"])
        .one_line(&["no time of day", "03:00"]);
    let made = set(
        site,
        bucket,
        "nightly",
        &[
            "--at",
            "03:00",
            "--keep-last",
            "2",
            "--verify",
            "--key-file",
            &key(site),
        ],
    );
    assert_words(
        &made.ok(),
        &[
            "schedule nightly set; next",
            "T03:00:00Z",
            "s3://backups/nightly",
        ],
    );
    for _ in 0..3 {
        let told = site.ctl(&["snapshot", "schedule", "run", "nightly"]).ok();
        assert_words(&told, &["saved s3://backups/nightly/trireme-", "verified"]);
    }
    let kept = until("the deletion of the oldest", 10, || {
        let kept = saved(site, "nightly");
        if kept.len() == 2 {
            Ok(kept)
        } else {
            Err(format!("{kept:?}"))
        }
    });
    let mut names: Vec<&str> = kept.iter().filter_map(|one| one["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(bucket.objects("nightly"), names);
    assert!(
        kept.iter()
            .all(|one| one["verified"] == true && one["keys"] == "sealed for a key file")
    );
    assert_words(
        &site.ctl(&["snapshot", "list"]).ok(),
        &["SAVED", "nightly", "s3://backups/nightly/trireme-"],
    );
    for output in ["json", "yaml", "table"] {
        let shown = site
            .ctl(&["snapshot", "schedule", "get", "nightly", "-o", output])
            .ok();
        assert!(
            !shown.contains(bucket::SECRET) && !shown.contains("secretAccessKey"),
            "{shown}"
        );
    }
    let changed = site
        .ctl(&["snapshot", "schedule", "set", "nightly", "--keep-last", "1"])
        .ok();
    assert_words(&changed, &["schedule nightly set"]);
    assert_words(
        &site.ctl(&["snapshot", "schedule", "run", "nightly"]).ok(),
        &["verified"],
    );
}

fn failures_are_told(site: &Site) {
    let wrong = site.home().join("wrong-secret");
    fs::write(&wrong, "wrong").expect("it can be written");
    let wrong = wrong.display().to_string();
    let endpoint = schedule(site, "nightly")["target"]["endpoint"]
        .as_str()
        .expect("it has one")
        .to_owned();
    let words = [
        "snapshot",
        "schedule",
        "set",
        "broken",
        "--every",
        "12h",
        "--no-keys",
        "--s3-bucket",
        bucket::NAME,
    ];
    let words = [
        &words[..],
        &[
            "--s3-endpoint",
            &endpoint,
            "--s3-access-key",
            bucket::KEY,
            "--s3-secret-file",
        ],
        &[wrong.as_str()],
    ]
    .concat();
    site.ctl(&words).ok();
    let told = site
        .ctl(&["snapshot", "schedule", "run", "broken"])
        .fails(1);
    assert_words(&told, &["failed", "s3://backups/trireme-"]);
    let status = schedule(site, "broken");
    assert!(
        status["failures"] == 1 && status["lastSuccess"].is_null(),
        "{status}"
    );
    assert_words(
        &site.ctl(&["snapshot", "schedule", "list"]).ok(),
        &["broken", "failed:", "every 12h"],
    );
    site.ctl(&["snapshot", "schedule", "remove", "broken"]).ok();
    site.ctl(&["snapshot", "schedule", "get", "broken"])
        .fails(4);
    site.ctl(&["snapshot", "schedule", "run", "broken"])
        .fails(4);
}

fn a_folder_is_the_leaders(site: &Site) {
    let folder = site.home().join("folder");
    let path = folder.display().to_string();
    let passphrase = site.home().join("passphrase");
    fs::write(&passphrase, "correct horse battery staple\n").expect("it can be written");
    let passphrase = passphrase.display().to_string();
    site.ctl(&[
        "snapshot",
        "schedule",
        "set",
        "local",
        "--every",
        "1h",
        "--folder",
        &path,
        "--passphrase-file",
        &passphrase,
    ])
    .ok();
    site.ctl(&["snapshot", "schedule", "run", "local"]).ok();
    let one = saved(site, "local").pop().expect("one is saved");
    assert_eq!(one["on"].as_str(), Some(site.leader().as_str()));
    let file = folder
        .join(one["name"].as_str().expect("it has a name"))
        .display()
        .to_string();
    let told = site
        .ctl(&[
            "snapshot",
            "verify",
            &file,
            "--passphrase-file",
            &passphrase,
        ])
        .ok();
    assert_words(
        &told,
        &[
            "restored  good",
            "every table hashes as it did",
            "configmaps",
            "and open with what was given",
        ],
    );
    let other = key(site);
    site.ctl(&["snapshot", "verify", &file, "--key-file", &other])
        .one_line(&["sealed under a passphrase"]);
}

/// The bucket answers nothing while the leader saves; it is killed, and the next one does the run, once.
fn a_lost_leaders_run_is_done_once(site: &mut Site, bucket: &Bucket) {
    let first = site.leader();
    bucket.hold(true);
    set(
        site,
        bucket,
        "often",
        &["--every", "5s", "--keep-last", "100", "--no-keys"],
    )
    .ok();
    let due = until("a run that hangs", 20, || {
        let status = schedule(site, "often");
        match status["running"]["by"] == first.as_str() {
            true => Ok(status["running"]["due"].clone()),
            false => Err(status.to_string()),
        }
    });
    site.end(&first, Signal::SIGKILL);
    let second = until("another leader", 10, || {
        let leader = site.leader();
        if leader == first {
            Err(leader)
        } else {
            Ok(leader)
        }
    });
    bucket.hold(false);
    let status = until("the run by the next leader", 30, || {
        let status = schedule(site, "often");
        match status["lastSuccess"]["by"] == second.as_str() {
            true => Ok(status),
            false => Err(status.to_string()),
        }
    });
    assert_ne!(
        status["lastSuccess"]["due"],
        Value::Null,
        "{due} or a later moment was served"
    );
    // No further one, and none under way.
    site.ctl(&["snapshot", "schedule", "set", "often", "--every", "300d"])
        .ok();
    until("the end of the last run", 30, || {
        let status = schedule(site, "often");
        let is_over = status["running"].is_null() && status["failures"] == 0;
        is_over.then_some(()).ok_or_else(|| status.to_string())
    });
    site.start(&first);
    site.wait_voters(3);
    // One object and one record for each moment.
    let mut names: Vec<String> = saved(site, "often")
        .iter()
        .filter_map(|one| one["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    let unique = names.len();
    names.dedup();
    assert_eq!((names.len(), &bucket.objects("often")), (unique, &names));
    site.ctl(&["snapshot", "schedule", "remove", "often"]).ok();
}

/// `ctl` with the credentials of the bucket.
fn with_bucket(site: &Site, bucket: &Bucket, words: &[&str]) -> Told {
    let mut command = site.ctl_command(words);
    credentials(&mut command, bucket);
    Told::of(command, b"")
}

fn credentials(command: &mut Command, bucket: &Bucket) {
    command
        .env("AWS_ACCESS_KEY_ID", bucket::KEY)
        .env("AWS_SECRET_ACCESS_KEY", bucket::SECRET)
        .env("AWS_ENDPOINT_URL", bucket.endpoint())
        .env("AWS_REGION", "us-east-1");
}

const BY_HAND: &str = "s3://backups/by-hand.snapshot";

fn by_hand(site: &Site, bucket: &Bucket) {
    let key = key(site);
    let told = with_bucket(
        site,
        bucket,
        &["snapshot", "save", BY_HAND, "--key-file", &key],
    )
    .ok();
    assert_words(&told, &["saved s3://backups/by-hand.snapshot"]);
    let told = with_bucket(
        site,
        bucket,
        &[
            "snapshot",
            "verify",
            BY_HAND,
            "--key-file",
            &key,
            "-o",
            "json",
        ],
    )
    .ok();
    let verified: Value = serde_json::from_str(&told).expect("it is JSON");
    assert!(
        verified["compared"] == true && verified["keysOpened"] == true,
        "{verified}"
    );
    assert!(
        verified["objects"]["configmaps"].as_u64() >= Some(2),
        "{verified}"
    );
    let other = site.home().join("other.key").display().to_string();
    site.ctl(&["snapshot", "keygen", &other]).ok();
    with_bucket(
        site,
        bucket,
        &["snapshot", "verify", BY_HAND, "--key-file", &other],
    )
    .one_line(&["key file is wrong"]);
    site.ctl(&["snapshot", "keygen", &other])
        .one_line(&["cannot make the key file"]);
}

fn the_cluster_comes_back_and_former_masters_join(site: &mut Site, bucket: &Bucket) {
    let former = site.json(&["status", "-o", "json"]).expect("it answers")["clusterId"]
        .as_str()
        .expect("it has one")
        .to_owned();
    for master in ["m1", "m2", "m3"] {
        site.end(master, Signal::SIGKILL);
    }
    fs::remove_dir_all(site.data("m1")).expect("it can be removed");
    let address = site.machine("m1");
    let mut restore = Command::new(bin("ctl"));
    restore.args([
        "snapshot",
        "restore",
        BY_HAND,
        "--name",
        "m1",
        "--address",
        &address,
    ]);
    restore
        .arg("--data-dir")
        .arg(site.data("m1"))
        .args(["--key-file", &key(site)]);
    credentials(&mut restore, bucket);
    assert_words(
        &Told::of(restore, b"").ok(),
        &["restored revision", "--rejoin"],
    );
    site.start_master("m1", &[]);
    until("the join token", 30, || {
        site.token()
            .is_file()
            .then_some(())
            .ok_or_else(|| site.log("m1"))
    });
    let (url, token) = (site.url("m1"), site.token().display().to_string());

    // As it was started before: it is told what it is, and what to do.
    let join = ["--join", &url, "--token-file", &token];
    site.start_master("m2", &join);
    until("the refusal of a former master", 20, || {
        let log = site.log("m2");
        let is_told =
            log.contains(&former) && log.contains("former cluster") && log.contains("--rejoin");
        is_told.then_some(()).ok_or(log)
    });
    // And without a word of the new cluster it is refused by its members.
    site.start_master("m3", &[]);
    until("the refusal at the members' port", 20, || {
        let log = site.log("m1");
        let is_told =
            log.contains("a call to the members' port was refused") && log.contains(&former);
        is_told.then_some(()).ok_or(log)
    });
    until("what the refused one says itself", 20, || {
        let log = site.log("m3");
        let is_told =
            log.contains("another member refuses this one") && log.contains("must join anew");
        is_told.then_some(()).ok_or(log)
    });
    site.end("m3", Signal::SIGKILL);
    for master in ["m2", "m3"] {
        site.end(master, Signal::SIGKILL);
        site.start_master(master, &[&join[..], &["--rejoin"]].concat());
    }
    site.wait_voters(3);
    for master in ["m2", "m3"] {
        let aside = fs::read_dir(site.data(master)).expect("it can be read");
        let aside: Vec<String> = aside
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert!(
            aside
                .iter()
                .any(|name| name.starts_with(&format!("former-{former}"))),
            "{aside:?}"
        );
        // The same command again is a start as any other.
        site.end(master, Signal::SIGTERM);
        site.start(master);
    }
    site.wait_voters(3);
    let found = site.get(&["cm", "last"]);
    assert_eq!(found["data"]["value"], "1");
    assert_eq!(
        schedule(site, "nightly")["keepLast"],
        1,
        "the schedules came along"
    );
    assert_words(
        &site.ctl(&["snapshot", "schedule", "run", "nightly"]).ok(),
        &["verified"],
    );
}
