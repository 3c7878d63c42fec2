//! The past can be asked: what was, who changed it, what differs, and bringing it back, over real masters one of which dies.

use crate::site::Site;
use crate::told::{assert_words, timed, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[test]
fn the_past_is_asked_and_brought_back() {
    let mut site = timed("three masters", || Site::cluster("past", 13, 3, 0));
    let made = timed("changes", || somebody_errs(&site));
    timed("get", || what_was_is_shown(&site, made));
    timed("history", || who_did_what_is_told(&site));
    timed("diff", || what_changed_is_told(&site, made));
    timed("dry run", || a_dry_run_changes_nothing(&site, made));
    timed("a leader dies", || {
        let leader = site.leader();
        site.end(&leader, Signal::SIGKILL);
    });
    timed("restore", || what_was_comes_back(&site, made));
    timed("a namespace", || a_namespace_comes_back(&site));
    timed("bounds", || what_is_kept_can_be_set(&site));
}

#[test]
fn a_master_logs_json_and_keeps_what_it_was_told() {
    let mut site = Site::empty("bounds", 14);
    let how = [
        "--init",
        "--history",
        "12h",
        "--history-bytes",
        "512Mi",
        "--log-format",
        "json",
    ];
    site.start_master("m1", &how);
    until("the history's bounds", 30, || {
        let told = site.ctl(&["history"]);
        let wanted = "kept for 12h or up to 512.0 MiB";
        told.out
            .contains(wanted)
            .then_some(())
            .ok_or(format!("{told:?}"))
    });
    let log = site.log("m1");
    let lines: Vec<Value> = log
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(!lines.is_empty(), "{log}");
    for line in &lines {
        assert!(
            line["level"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
        assert!(line["message"].is_string(), "{line}");
    }
}

fn map(name: &str, value: &str) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"colour": value}}).to_string()
}

/// Makes two maps, then changes one, deletes the other and makes a third; returns the revision before that.
fn somebody_errs(site: &Site) -> u64 {
    site.apply(&map("changed", "red"));
    site.apply(&map("deleted", "green"));
    site.apply(
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"word": "hush"}}).to_string(),
    );
    let made = now(site);
    // Between two writes, so that a time can lie there too.
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    site.apply(&map("changed", "blue"));
    site.ctl(&["delete", "configmap/deleted"]).ok();
    site.apply(&map("made", "new"));
    made
}

fn now(site: &Site) -> u64 {
    let told = site.json(&["history", "-o", "json"]).expect("it is told");
    told["newest"]["revision"].as_u64().expect("a revision")
}

fn colour(site: &Site, name: &str) -> Option<String> {
    let maps = site.get(&["configmaps"]);
    let found = maps["items"]
        .as_array()?
        .iter()
        .find(|map| map["metadata"]["name"] == name)?;
    found["data"]["colour"].as_str().map(str::to_owned)
}

fn what_was_is_shown(site: &Site, made: u64) {
    let at = made.to_string();
    let table = site.ctl(&["get", "configmaps", "--at", &at]).ok();
    assert_words(&table, &["NAME", "changed", "deleted"]);
    assert!(!table.contains("made"), "{table}");
    let one = ["get", "configmap", "changed", "--at", &at, "-o"];
    let json = site.json(&[&one[..], &["json"]].concat()).expect("it was");
    assert_eq!(json["data"]["colour"], "red");
    assert_eq!(json["kind"], "ConfigMap");
    let yaml = site.ctl(&[&one[..], &["yaml"]].concat()).ok();
    assert_words(&yaml, &["colour: red"]);
    let names = site
        .ctl(&["get", "configmaps", "--at", &at, "-o", "name"])
        .ok();
    assert_words(&names, &["configmap/changed", "configmap/deleted"]);
    // The same by the time at which it was.
    let history = site
        .json(&["history", "configmap/deleted", "-o", "json"])
        .expect("it is told");
    let time = history[1]["time"].as_str().expect("when it was made");
    let by_time = site.ctl(&["get", "configmap/deleted", "--at", time]).ok();
    assert_words(&by_time, &["deleted"]);
    let absent = site.ctl(&["get", "configmap/made", "--at", &at]).fails(4);
    assert_words(&absent, &["\"made\" not found", &at]);
    let future = site.ctl(&["get", "pods", "--at", "999999999"]).fails(1);
    assert_words(&future, &["999999999"]);
}

fn who_did_what_is_told(site: &Site) {
    let told = site.ctl(&["history", "configmap/changed"]).ok();
    assert_words(
        &told,
        &[
            "changed by trireme:admin",
            "(patch)",
            "data.colour: \"red\" -> \"blue\"",
            "created by trireme:admin",
            "(create)",
        ],
    );
    let told = site.ctl(&["history", "configmap/deleted"]).ok();
    assert_words(
        &told,
        &["deleted by trireme:admin", "(delete)", "created by"],
    );
    let secret = site.ctl(&["history", "secret/key", "-o", "json"]).ok();
    assert!(
        !secret.contains("hush") && !secret.contains("aHVzaA"),
        "{secret}"
    );
    site.ctl(&["history", "configmap/never"]).fails(4);
}

fn what_changed_is_told(site: &Site, made: u64) {
    let since = made.to_string();
    let told = site.ctl(&["diff", "--since", &since, "configmaps"]).ok();
    assert_words(
        &told,
        &[
            "changed",
            "\"red\" -> \"blue\"",
            "created  configmap/made",
            "deleted  configmap/deleted",
        ],
    );
    let all: Vec<Value> =
        serde_json::from_str(&site.ctl(&["diff", "--since", &since, "-o", "json"]).ok())
            .expect("JSON");
    let whats: Vec<&str> = all
        .iter()
        .filter(|difference| difference["namespace"] == "default")
        .filter(|difference| {
            difference["object"]
                .as_str()
                .is_some_and(|name| name.starts_with("configmap/"))
        })
        .filter_map(|difference| difference["what"].as_str())
        .collect();
    assert_eq!(whats, ["changed", "deleted", "created"]);
    let one = site
        .ctl(&["diff", "--since", &since, "configmap", "made"])
        .ok();
    assert_words(&one, &["created  configmap/made"]);
    let none = site
        .ctl(&["diff", "--since", &since, "--until", &since, "configmaps"])
        .ok();
    assert_eq!(none, "");
}

fn a_dry_run_changes_nothing(site: &Site, made: u64) {
    let (before, at) = (now(site), made.to_string());
    let told = site
        .ctl(&[
            "restore",
            "configmap/changed",
            "configmap/deleted",
            "--at",
            &at,
            "--dry-run",
        ])
        .ok();
    assert_words(&told, &["\"blue\" -> \"red\"", "(dry run)"]);
    assert_eq!(colour(site, "changed").as_deref(), Some("blue"));
    assert_eq!(colour(site, "deleted"), None);
    assert!(now(site) >= before);
}

fn what_was_comes_back(site: &Site, made: u64) {
    let uid = site.get(&["configmap/changed"])["metadata"]["uid"].clone();
    let at = made.to_string();
    until("a new leader", 20, || {
        let told = site.ctl(&[
            "restore",
            "configmap/changed",
            "configmap/deleted",
            "--at",
            &at,
        ]);
        match told.code {
            Some(0) => Ok(()),
            _ => Err(told.err),
        }
    });
    assert_eq!(colour(site, "changed").as_deref(), Some("red"));
    assert_eq!(colour(site, "deleted").as_deref(), Some("green"));
    assert_eq!(site.get(&["configmap/changed"])["metadata"]["uid"], uid);
    let told = site.ctl(&["history", "configmap/changed"]).ok();
    assert_words(
        &told,
        &[
            "through ctl-restore",
            "\"blue\" -> \"red\"",
            "\"red\" -> \"blue\"",
        ],
    );
    let absent = site
        .ctl(&["restore", "configmap/made", "--at", &at])
        .fails(1);
    assert_words(&absent, &["not found", &at]);
}

fn a_namespace_comes_back(site: &Site) {
    site.apply(r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}"#);
    site.ctl_with(&["apply", "-n", "team", "-f", "-"], &map("a", "1"))
        .ok();
    site.ctl_with(&["apply", "-n", "team", "-f", "-"], &map("b", "2"))
        .ok();
    let then = now(site).to_string();
    site.ctl(&["delete", "namespace/team"]).ok();
    site.ctl(&["restore", "namespace/team", "--at", &then]).ok();
    let maps = site.get(&["configmaps", "-n", "team"]);
    let colours: Vec<&str> = maps["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|map| map["data"]["colour"].as_str())
        .collect();
    assert_eq!(colours, ["1", "2"]);
}

fn what_is_kept_can_be_set(site: &Site) {
    let told = site.ctl(&["history"]).ok();
    assert_words(
        &told,
        &["history from revision 1", "kept for 24h or up to 2.0 GiB"],
    );
    let told = site
        .ctl(&["history", "--keep", "48h", "--keep-bytes", "1Gi"])
        .ok();
    assert_words(&told, &["kept for 2d or up to 1.0 GiB"]);
    let status = site.ctl(&["status"]).ok();
    assert_words(
        &status,
        &[
            "led by",
            "FSYNC P50/P99",
            " ms",
            "history from revision 1",
            "kept for 2d",
        ],
    );
    let status = site.json(&["status", "-o", "json"]).expect("JSON");
    let fsync = |member: &Value| member["figures"]["fsyncP99Us"].as_u64();
    let members = status["members"].as_array().expect("a list");
    assert!(
        members.iter().any(|member| fsync(member) > Some(0)),
        "{status}"
    );
    assert_eq!(status["history"]["keep"]["seconds"], 2 * 86_400);
    let refused = site.ctl(&["history", "--keep", "1s"]).fails(1);
    assert_words(&refused, &["at least 300 s"]);
    for master in site.masters() {
        let log = site.log(&master);
        assert!(!log.contains("panicked"), "{master}: {log}");
    }
}
