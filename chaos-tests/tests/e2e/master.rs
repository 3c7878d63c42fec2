//! A master is lost: the leader under a writing client, a minority member for good.

use crate::api::Api;
use crate::site::Site;
use crate::told::{assert_words, timed, until};
use client::Error;
use http::Method;
use nix::sys::signal::Signal;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A client that retries gives up after so long.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_master_is_lost() {
    let mut site = timed("three masters", || Site::cluster("master", 4, 3, 0));
    let config = Api::config(&site);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&Api::with(&config), &stop));
        std::thread::sleep(Duration::from_millis(500));
        timed("the leader is killed and comes back", || {
            the_leader_dies_and_comes_back(&mut site)
        });
        timed("a stop hands over", || {
            a_stopped_leader_hands_over(&mut site)
        });
        stop.store(true, Ordering::Relaxed);
        let acknowledged = writer.join().expect("the writer saw no error");
        assert!(
            acknowledged.len() > 50,
            "only {} writes were acknowledged",
            acknowledged.len()
        );
        nothing_is_lost(&site, &acknowledged);
    });
    timed("a member is replaced", || {
        a_member_is_removed_and_comes_anew(&mut site)
    });
    timed("a majority is missed", || {
        without_a_majority_writes_are_refused(&mut site)
    });
}

/// Writes objects one after another, each until it is acknowledged.
fn write_until(api: &Api, stop: &AtomicBool) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("w-{}", acknowledged.len());
        create_surely(api, &name);
        acknowledged.insert(name);
        std::thread::sleep(Duration::from_millis(5));
    }
    acknowledged
}

/// As any careful client: what may or may not have happened is asked again, and "exists already" is then success.
fn create_surely(api: &Api, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"name": name}});
    let begun = Instant::now();
    let mut asked_before = false;
    loop {
        match api.call(
            Method::POST,
            "/api/v1/namespaces/default/configmaps",
            &object.to_string(),
        ) {
            Ok(_) => return,
            Err(error) if error.is_code(409) && asked_before => return,
            Err(error) => {
                let passing = error.is_ambiguous()
                    || error.is_code(429)
                    || matches!(error, Error::Unreachable { .. });
                assert!(
                    passing && begun.elapsed() < PATIENCE,
                    "{name} after {:?}: {error}",
                    begun.elapsed()
                );
                asked_before = true;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn the_leader_dies_and_comes_back(site: &mut Site) {
    let first = site.leader();
    site.end(&first, Signal::SIGKILL);
    let second = until("another leader", 10, || {
        let leader = site.leader();
        if leader == first {
            Err(leader)
        } else {
            Ok(leader)
        }
    });
    assert_ne!(first, second);
    std::thread::sleep(Duration::from_millis(500));
    site.start(&first);
    healthy_and_equal(site);
}

fn a_stopped_leader_hands_over(site: &mut Site) {
    let leader = site.leader();
    site.end(&leader, Signal::SIGTERM);
    assert_words(&site.log(&leader), &["stopping"]);
    site.leader();
    site.start(&leader);
    healthy_and_equal(site);
}

/// Waits until all members are healthy and have applied the same, or nearly so while writes run.
fn healthy_and_equal(site: &Site) {
    until("all members healthy", 30, || {
        let status = site.json(&["status", "-o", "json"])?;
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let applied: Vec<u64> = members
            .iter()
            .filter_map(|member| member["appliedIndex"].as_u64())
            .collect();
        let near = applied
            .iter()
            .max()
            .zip(applied.iter().min())
            .is_some_and(|(most, least)| most - least < 50);
        let healthy = members.len() == 3
            && applied.len() == 3
            && members
                .iter()
                .all(|member| member["healthy"] == true && member["voter"] == true);
        if healthy && near {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
}

/// Every master has every acknowledged object, and none twice.
fn nothing_is_lost(site: &Site, acknowledged: &BTreeSet<String>) {
    for master in site.masters() {
        let alone = client::Config {
            servers: vec![site.url(&master)],
            ..Api::config(site)
        };
        let list = Api::with(&alone)
            .get("/api/v1/namespaces/default/configmaps")
            .expect("a master answers");
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let there: BTreeSet<String> = items
            .iter()
            .filter_map(|item| item["data"]["name"].as_str().map(str::to_owned))
            .collect();
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "{master} has lost {lost:?}");
        assert_eq!(
            items
                .iter()
                .filter(|item| item["data"]["name"].is_string())
                .count(),
            there.len()
        );
    }
}

fn a_member_is_removed_and_comes_anew(site: &mut Site) {
    let leader = site.leader();
    let lost = ["m3", "m2"]
        .into_iter()
        .find(|name| *name != leader)
        .expect("one of two is no leader");
    site.end(lost, Signal::SIGKILL);
    std::fs::remove_dir_all(site.data(lost)).expect("it can be removed");
    assert_words(&site.ctl(&["member", "remove", lost]).ok(), &["removed"]);
    site.ctl(&["member", "remove", lost]).fails(4);
    assert_eq!(
        site.ctl(&["member", "list"]).ok().lines().count(),
        3,
        "a head and two members"
    );
    let (url, token) = (site.url("m1"), site.token().display().to_string());
    site.start_master(lost, &["--join", &url, "--token-file", &token]);
    site.wait_voters(3);
    healthy_and_equal(site);
    let alone = client::Config {
        servers: vec![site.url(lost)],
        ..Api::config(site)
    };
    Api::with(&alone)
        .get("/api/v1/namespaces/default/configmaps/w-0")
        .expect("the new member has the old objects");
}

fn without_a_majority_writes_are_refused(site: &mut Site) {
    for lost in ["m2", "m3"] {
        site.end(lost, Signal::SIGKILL);
    }
    let alone = client::Config {
        servers: vec![site.url("m1")],
        ..Api::config(site)
    };
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "never"}});
    let api = Api::with(&alone);
    let refused = api.call(
        Method::POST,
        "/api/v1/namespaces/default/configmaps",
        &object.to_string(),
    );
    let error = refused.expect_err("no majority, no write");
    assert!(error.is_ambiguous(), "{error}");
    // A read that asks for no more than this master knows is answered.
    api.get("/api/v1/namespaces/default/configmaps/w-0?resourceVersion=0")
        .expect("a stale read is answered");
    for lost in ["m2", "m3"] {
        site.start(lost);
    }
    healthy_and_equal(site);
}
