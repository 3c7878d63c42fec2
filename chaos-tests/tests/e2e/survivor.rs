//! Two of three masters are lost for good. The third becomes the cluster, and others join it.

use crate::api::Api;
use crate::site::{Site, bin};
use crate::told::{Told, assert_words, timed, until};
use client::Error;
use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

#[test]
fn one_master_survives_and_becomes_the_cluster() {
    let mut site = timed("three masters", || Site::cluster("survivor", 11, 3, 0));
    let acknowledged: Vec<String> = (0..50).map(|number| format!("w-{number}")).collect();
    for name in &acknowledged {
        write(&site, name).expect("it is acknowledged");
    }
    let revision = revision(&site);
    settled(&site);
    // The last contact is noted every few seconds.
    std::thread::sleep(std::time::Duration::from_secs(6));
    for master in ["m1", "m2"] {
        site.end(master, Signal::SIGKILL);
    }
    fs::remove_dir_all(site.data("m1")).expect("it can be removed");
    timed("asking", || nothing_is_done_unasked(&mut site));
    timed("recovery", || recover(&mut site));

    for name in &acknowledged {
        assert_eq!(
            site.get(&["cm", name])["metadata"]["name"],
            name.as_str(),
            "nothing acknowledged is lost"
        );
    }
    let api = Api::of(&site);
    let path =
        format!("/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={revision}");
    match api.first_event(&path) {
        Err(Error::Api(status)) => assert_eq!(status.code, 410, "{status:?}"),
        other => panic!("a watcher from before must get 410, not {other:?}"),
    }
    write(&site, "goes-on").expect("the survivor alone is a majority");
    timed("others join", || others_join(&mut site));
    write(&site, "all-again").expect("three are a majority");
}

fn write(site: &Site, name: &str) -> Result<Value, Error> {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    Api::of(site).call(
        Method::POST,
        "/api/v1/namespaces/default/configmaps",
        &object.to_string(),
    )
}

fn revision(site: &Site) -> String {
    let list = Api::of(site)
        .get("/api/v1/namespaces/default/configmaps")
        .expect("it can be listed");
    list["metadata"]["resourceVersion"]
        .as_str()
        .expect("a list has one")
        .to_owned()
}

/// Waits until every member has applied the same.
fn settled(site: &Site) {
    until("equal members", 20, || {
        let status = site.json(&["status", "-o", "json"])?;
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let applied: Vec<&Value> = members.iter().map(|member| &member["revision"]).collect();
        let is_equal = applied.windows(2).all(|two| two[0] == two[1]);
        is_equal.then_some(()).ok_or_else(|| status.to_string())
    });
}

fn command(site: &Site, more: &[&str]) -> Told {
    let mut command = Command::new(bin("ctl"));
    command
        .args(["recover", "--from-survivor", "--data-dir"])
        .arg(site.data("m3"))
        .args(more);
    Told::of(command, b"")
}

fn nothing_is_done_unasked(site: &mut Site) {
    let running = command(site, &["--yes"]).fails(1);
    assert_words(&running, &["in use by another process; stop it first"]);
    site.end("m3", Signal::SIGKILL);
    let identity = fs::read(site.data("m3").join("identity.json")).expect("it is there");
    let unasked = command(site, &[]).fails(1);
    assert_words(
        &unasked,
        &[
            "3 voting masters: m1, m2, m3",
            "last contact",
            "What may be lost",
            "say --yes",
        ],
    );
    let told = command(site, &["--dry-run", "-o", "json"]).ok();
    let found: Value = serde_json::from_str(&told).expect("it is JSON");
    assert!(
        found["secondsSinceContact"]
            .as_u64()
            .is_some_and(|seconds| seconds < 60),
        "{found}"
    );
    assert!(
        found["lastLogIndex"].as_u64() >= found["committedIndex"].as_u64(),
        "{found}"
    );
    assert_eq!(
        fs::read(site.data("m3").join("identity.json")).expect("it is there"),
        identity
    );
    let mut other = Command::new(bin("ctl"));
    other
        .args(["recover", "--from-survivor", "--yes", "--data-dir"])
        .arg(site.home().join("nowhere"));
    Told::of(other, b"").one_line(&["is empty or absent"]);
}

fn recover(site: &mut Site) {
    let told = command(site, &["--yes"]).ok();
    assert_words(
        &told,
        &[
            "recovered revision",
            "as the new cluster",
            "of m3 alone",
            "is kept in",
            "--rejoin",
        ],
    );
    site.operated_from(&site.data("m3"));
    site.start_master("m3", &[]);
    site.wait_voters(1);
}

/// One comes with an empty data directory, one with what it held in the former cluster.
fn others_join(site: &mut Site) {
    let (url, token) = (site.url("m3"), site.token().display().to_string());
    let join = ["--join", &url, "--token-file", &token, "--rejoin"];
    site.start_master("m1", &join);
    site.start_master("m2", &join);
    site.wait_voters(3);
    settled(site);
}
