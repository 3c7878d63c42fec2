//! Everything is lost: all masters and their data directories. A snapshot brings the cluster back, and the pods never notice.

use crate::api::Api;
use crate::manifests::{SERVE, births, deployment, documents, lives, service, wait_pods};
use crate::site::{Site, bin, items};
use crate::told::{Told, assert_words, timed, until};
use client::Error;
use http::Method;
use nix::sys::signal::Signal;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn everything_is_lost_and_restored() {
    let mut site = timed("three masters and two nodes", || {
        Site::cluster("disaster", 6, 3, 2)
    });
    site.apply(&documents(&[deployment("web", 4, SERVE), service("web")]));
    wait_pods(&site, "web", 4);
    let before = (lives(&site, "web"), births(&site, "web"), everything(&site));
    let revision = revision_of(&Api::of(&site));
    let snapshot = timed("snapshot", || saved_while_writes_run(&site));
    damaged_snapshots_are_refused(&site, &snapshot);

    for master in ["m1", "m2", "m3"] {
        site.end(master, Signal::SIGKILL);
    }
    for master in ["m1", "m2", "m3"] {
        fs::remove_dir_all(site.data(master)).expect("it can be removed");
    }
    timed("restore", || restore(&mut site, &snapshot));

    nothing_of_the_snapshot_is_missing(&site, &before.2, &snapshot);
    timed("adoption", || site.wait_nodes(2));
    wait_pods(&site, "web", 4);
    assert_eq!(
        lives(&site, "web"),
        before.0,
        "the containers are adopted, not restarted"
    );
    assert_eq!(
        births(&site, "web"),
        before.1,
        "the kernel knows them as the same"
    );
    watchers_from_before_are_told(&site, &revision);
    timed("work goes on", || work_goes_on(&site));
    let after = (lives(&site, "web"), births(&site, "web"));
    let kept = |before: &[String], after: &[String]| before.iter().all(|life| after.contains(life));
    assert!(
        kept(&before.0, &after.0) && kept(&before.1, &after.1),
        "nor are they restarted later: {after:?}"
    );
}

/// The revision of a list as of now.
fn revision_of(api: &Api) -> String {
    let list = api
        .get("/api/v1/namespaces/default/configmaps")
        .expect("it can be listed");
    list["metadata"]["resourceVersion"]
        .as_str()
        .expect("a list has a revision")
        .to_owned()
}

fn passphrase(site: &Site) -> PathBuf {
    let file = site.home().join("passphrase");
    fs::write(&file, "correct horse battery staple\n").expect("it can be written");
    file
}

/// Every object's identity by its path, of the kinds that do not live by themselves.
fn everything(site: &Site) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for kind in [
        "namespaces",
        "nodes",
        "services",
        "deployments",
        "replicasets",
        "pods",
        "configmaps",
        "secrets",
        "serviceaccounts",
    ] {
        let scope: &[&str] = if matches!(kind, "namespaces" | "nodes") {
            &[kind]
        } else {
            &[kind, "-A"]
        };
        for object in items(&site.get(scope)) {
            let metadata = &object["metadata"];
            found.insert(
                format!("{kind} {} {}", metadata["namespace"], metadata["name"]),
                metadata["uid"].to_string(),
            );
        }
    }
    assert!(found.len() > 15, "{found:?}");
    found
}

/// Saves a snapshot while a client writes on. What was acknowledged before it began must be in it.
fn saved_while_writes_run(site: &Site) -> PathBuf {
    let config = Api::config(site);
    let stop = AtomicBool::new(false);
    let file = site.home().join("snapshot");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let api = Api::with(&config);
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("w-{written}")}});
                api.call(Method::POST, "/api/v1/namespaces/default/configmaps", &object.to_string()).expect("writes go on");
                written += 1;
            }
            written
        });
        until("some writes", 10, || {
            let there = Api::of(site).get("/api/v1/namespaces/default/configmaps/w-20");
            there.map(drop).map_err(|error| error.to_string())
        });
        let (to, key) = (
            file.display().to_string(),
            passphrase(site).display().to_string(),
        );
        let told = site.ctl(&["snapshot", "save", &to, "--passphrase-file", &key]);
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().expect("the writer saw no error");
        assert_words(&told.ok(), &["saved", &to]);
        assert!(written > 20, "{written}");
    });
    let told = site
        .ctl(&["snapshot", "status", &file.display().to_string()])
        .ok();
    assert_words(
        &told,
        &[
            "revision",
            "records",
            "sealed under a passphrase",
            "checksum  good",
        ],
    );
    file
}

fn restore_command(site: &Site, snapshot: &Path, data: &Path, passphrase: &Path) -> Told {
    let mut command = Command::new(bin("ctl"));
    command
        .args(["snapshot", "restore"])
        .arg(snapshot)
        .arg("--data-dir")
        .arg(data);
    command.args([
        "--name",
        "m1",
        "--address",
        site.url("m1")
            .trim_start_matches("https://")
            .trim_end_matches(":6443"),
    ]);
    command.arg("--passphrase-file").arg(passphrase);
    Told::of(command, b"")
}

fn damaged_snapshots_are_refused(site: &Site, snapshot: &Path) {
    let bytes = fs::read(snapshot).expect("it is there");
    let (bad, data, good_key) = (
        site.home().join("flipped"),
        site.home().join("nowhere"),
        passphrase(site),
    );
    for place in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[place] ^= 4;
        fs::write(&bad, flipped).expect("it can be written");
        restore_command(site, &bad, &data, &good_key).one_line(&["error:", "flipped"]);
        assert!(!data.exists(), "nothing is half done");
    }
    fs::write(&bad, &bytes[..bytes.len() / 2]).expect("it can be written");
    restore_command(site, &bad, &data, &good_key).one_line(&["error:", "flipped"]);
    let wrong_key = site.home().join("wrong");
    fs::write(&wrong_key, "incorrect horse\n").expect("it can be written");
    restore_command(site, snapshot, &data, &wrong_key).one_line(&["error:", "passphrase"]);
    assert!(!data.exists(), "nothing is half done");
    restore_command(site, snapshot, &site.data("m2"), &good_key)
        .one_line(&["is not empty", "never overwrites"]);
    assert_eq!(
        site.ctl(&["status", "-o", "json"]).code,
        Some(0),
        "the cluster took no harm"
    );
}

fn restore(site: &mut Site, snapshot: &Path) {
    let told = restore_command(site, snapshot, &site.data("m1"), &passphrase(site)).ok();
    assert_words(
        &told,
        &[
            "restored revision",
            "as the new cluster",
            "next: control run",
        ],
    );
    site.start_master("m1", &[]);
    until("the join token", 30, || {
        if site.token().is_file() {
            Ok(())
        } else {
            Err(site.log("m1"))
        }
    });
    let (url, token) = (site.url("m1"), site.token().display().to_string());
    for name in ["m2", "m3"] {
        site.start_master(name, &["--join", &url, "--token-file", &token]);
    }
    site.wait_voters(3);
}

fn nothing_of_the_snapshot_is_missing(
    site: &Site,
    before: &BTreeMap<String, String>,
    snapshot: &Path,
) {
    let after = everything(site);
    let lost: Vec<_> = before
        .iter()
        .filter(|(path, uid)| after.get(*path) != Some(*uid))
        .collect();
    assert!(lost.is_empty(), "lost or made anew: {lost:?}");
    let written: Vec<u32> = items(&site.get(&["cm"]))
        .iter()
        .filter_map(|item| {
            item["metadata"]["name"]
                .as_str()?
                .strip_prefix("w-")?
                .parse()
                .ok()
        })
        .collect();
    let (count, last) = (
        written.len() as u32,
        written.iter().max().copied().unwrap_or(0),
    );
    assert!(
        count > 20 && last + 1 == count,
        "{} of {} of {} are there: the snapshot is of one moment",
        count,
        last + 1,
        snapshot.display()
    );
}

fn watchers_from_before_are_told(site: &Site, revision: &str) {
    let api = Api::of(site);
    let path = |revision: &str| {
        format!("/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={revision}")
    };
    match api.first_event(&path(revision)) {
        Err(Error::Api(status)) => assert_eq!(
            (status.code, &status.reason),
            (410, &Some(objects::Reason::Expired)),
            "{status:?}"
        ),
        other => panic!("a watcher from before must get 410, not {other:?}"),
    }
    let newer = revision_of(&api);
    let (old, new) = (
        revision.parse::<u64>().expect("a number"),
        newer.parse::<u64>().expect("a number"),
    );
    assert!(
        new > old + 100_000,
        "the revision moved from {old} to {new}: far ahead of all that the lost masters may have given out"
    );
    site.ctl(&["delete", "cm", "w-0"]).ok();
    let event = api
        .first_event(&path(&newer))
        .expect("the watch resumes from the list");
    assert_eq!(event["metadata"]["name"], "w-0");
}

/// Controllers, scheduler and nodes do their work as before.
fn work_goes_on(site: &Site) {
    site.ctl(&["scale", "deploy/web", "--replicas", "5"]).ok();
    let pods = wait_pods(site, "web", 5);
    let from = pods[0]["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    until("the service's answer", 20, || {
        let told = site.ctl(&[
            "exec",
            &from,
            "--",
            "timeout",
            "3",
            "wget",
            "-qO-",
            "http://web",
        ]);
        if told.code == Some(0) {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    });
}
