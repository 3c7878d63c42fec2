//! Debian's etcdctl against real masters, over TLS, as an operator types it; and what probes ask there by HTTP.

use crate::site::Site;
use crate::told::{Told, assert_words, timed, until};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const PORT: &str = "2379";

#[test]
fn etcdctl_operates_a_cluster_of_masters() {
    let mut site = Site::empty("etcd", 15);
    timed("three masters", || start(&mut site));
    let etcd = Etcd::of(&site, &["m1", "m2", "m3"]);
    timed("the whole cluster asked", || {
        the_cluster_is_seen(&site, &etcd)
    });
    timed("a snapshot", || a_snapshot_is_saved(&site, &etcd));
    timed("lock and election", || locks_and_elections(&etcd));
    timed("health and metrics", || probes_are_answered(&etcd));
    timed("check perf", || etcdctl_judges_the_speed(&etcd));
}

fn start(site: &mut Site) {
    site.start_master("m1", &["--init", "--etcd-port", PORT]);
    until("the join token", 30, || {
        let token = site.token().is_file().then_some(());
        token.ok_or_else(|| site.log("m1"))
    });
    let (url, token) = (site.url("m1"), site.token().display().to_string());
    for name in ["m2", "m3"] {
        let how = ["--join", &url, "--token-file", &token, "--etcd-port", PORT];
        site.start_master(name, &how);
    }
    site.wait_voters(3);
}

/// What clients of etcd need to know.
struct Etcd {
    endpoints: Vec<String>,
    pki: PathBuf,
}

impl Etcd {
    fn of(site: &Site, masters: &[&str]) -> Self {
        let urls = masters
            .iter()
            .map(|name| site.url(name).replace(":6443", ":2379"));
        Etcd {
            endpoints: urls.collect(),
            pki: site.data(masters[0]).join("pki"),
        }
    }

    fn file(&self, name: &str) -> String {
        self.pki.join(name).display().to_string()
    }

    fn command(&self, endpoints: &str, args: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args([
            format!("--endpoints={endpoints}"),
            format!("--cacert={}", self.file("ca.crt")),
            format!("--cert={}", self.file("master.crt")),
            format!("--key={}", self.file("master.key")),
        ]);
        command.args(args);
        command
    }

    /// At the first master, which tells where the others are.
    fn run(&self, args: &[&str]) -> Told {
        Told::of(self.command(&self.endpoints[0], args), b"")
    }

    /// `curl` with the same certificate; the answer's body and, on a line of its own, its code.
    fn curl(&self, path: &str, more: &[&str]) -> String {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20"]);
        curl.args(["--cacert", &self.file("ca.crt")]);
        curl.args(["--write-out", "\n%{http_code} %{http_version}"]);
        curl.args(more).arg(format!("{}{path}", self.endpoints[0]));
        Told::of(curl, b"").ok()
    }
}

fn the_cluster_is_seen(site: &Site, etcd: &Etcd) {
    let health = etcd.run(&["endpoint", "health", "--cluster"]);
    // Told on both outputs, by version.
    let health = format!("{}{}", health.out, health.err);
    assert_eq!(health.matches("is healthy").count(), 3, "{health}");
    let status = etcd
        .run(&["endpoint", "status", "--cluster", "-w", "table"])
        .ok();
    assert_words(&status, &["ENDPOINT", "IS LEADER", " true |"]);
    let hashes = etcd
        .run(&["endpoint", "hashkv", "--cluster", "-w", "json"])
        .ok();
    let hashes: serde_json::Value = serde_json::from_str(&hashes).expect("JSON");
    assert_eq!(hashes.as_array().map(Vec::len), Some(3), "{hashes}");
    let members = etcd.run(&["member", "list", "-w", "json"]).ok();
    let members: serde_json::Value = serde_json::from_str(&members).expect("JSON");
    let first = &members["members"][0];
    let id = format!("{:x}", first["ID"].as_u64().expect("a number"));
    let peer = first["peerURLs"][0].as_str().expect("a URL").to_owned();
    let updated = etcd.run(&["member", "update", &id, &format!("--peer-urls={peer}")]);
    assert_words(&updated.ok(), &["updated"]);

    let leader = site.leader();
    let other = members["members"].as_array().expect("a list").iter();
    let mut other = other.filter(|member| member["name"] != leader.as_str());
    let other = other.next().expect("there are three");
    let id = format!("{:x}", other["ID"].as_u64().expect("a number"));
    let all = etcd.endpoints.join(",");
    let moved = Told::of(etcd.command(&all, &["move-leader", &id]), b"").ok();
    assert_words(&moved, &["Leadership transferred"]);
    until("the new leader", 10, || {
        let now = site.leader();
        (Some(&now[..]) == other["name"].as_str())
            .then_some(())
            .ok_or(now)
    });
    assert_words(&etcd.run(&["put", "/by-etcdctl", "1"]).ok(), &["OK"]);
    let compacted = etcd.run(&["compaction", "--physical", &revision(etcd)]);
    assert_words(&compacted.ok(), &["compacted revision"]);
}

fn revision(etcd: &Etcd) -> String {
    let status = etcd.run(&["get", "/by-etcdctl", "-w", "json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    status["header"]["revision"].to_string()
}

fn a_snapshot_is_saved(site: &Site, etcd: &Etcd) {
    let file = site.home().join("by-etcdctl.snapshot");
    let path = file.display().to_string();
    etcd.run(&["snapshot", "save", &path]).ok();
    let told = etcd.run(&["snapshot", "status", &path]).ok();
    assert_eq!(
        told.trim().split(", ").count(),
        4,
        "hash, revision, keys, size: {told}"
    );
}

fn locks_and_elections(etcd: &Etcd) {
    let held = etcd.run(&["lock", "door", "echo", "held"]).ok();
    assert_eq!(held, "held\n");
    let mut leader = etcd.command(&etcd.endpoints[1], &["elect", "office", "somebody"]);
    leader.stdout(Stdio::null()).stderr(Stdio::null());
    let mut leader = leader.spawn().expect("etcdctl runs");
    until("the key of the leader", 20, || {
        let office = etcd
            .run(&["get", "--prefix", "office/", "--print-value-only"])
            .ok();
        (office.trim() == "somebody").then_some(()).ok_or(office)
    });
    leader.kill().expect("it runs");
    leader.wait().expect("it ends");
}

fn probes_are_answered(etcd: &Etcd) {
    let certificate = [
        "--cert",
        &etcd.file("master.crt"),
        "--key",
        &etcd.file("master.key"),
    ];
    let ask = |path: &str, version: &'static str| {
        let more = [&certificate[..], &[version]].concat();
        etcd.curl(path, &more)
    };
    let healthy = r#"{"health":"true","reason":""}"#;
    assert_eq!(ask("/health", "--http1.1"), format!("{healthy}\n200 1.1"));
    assert_eq!(ask("/health", "--http2"), format!("{healthy}\n200 2"));
    assert_eq!(ask("/livez", "--http1.1"), "ok\n\n200 1.1");
    assert_eq!(ask("/readyz", "--http1.1"), "ok\n\n200 1.1");
    let metrics = ask("/metrics", "--http1.1");
    // Of this cluster's own objects, of its calls, and of what only a master counts.
    assert_words(
        &metrics,
        &[
            "etcd_server_has_leader 1",
            r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#,
            "etcd_network_peer_round_trip_time_seconds_count{To=",
            "trireme_snapshot_runs_saved_total 0",
        ],
    );
    // Who has no certificate is told nothing.
    let mut refused = Command::new("curl");
    refused.args(["--silent", "--cacert", &etcd.file("ca.crt")]);
    refused.arg(format!("{}/health", etcd.endpoints[0]));
    let refused = Told::of(refused, b"");
    assert!(
        refused.code != Some(0) && refused.out.is_empty(),
        "{refused:?}"
    );
}

/// A minute long; its verdict on a busy machine's latency is not this test's.
fn etcdctl_judges_the_speed(etcd: &Etcd) {
    let mut command = etcd.command(&etcd.endpoints.join(","), &["check", "perf", "--load=s"]);
    command.args(["--auto-compact", "--auto-defrag"]);
    let told = Told::of(command, b"");
    let text = format!("{}{}", told.out, told.err);
    assert_words(&text, &["PASS: Throughput"]);
    assert!(!text.contains("Error"), "{text}");
    let left = etcd.run(&["get", "--prefix", "/etcdctl-check-perf/", "--keys-only"]);
    assert_eq!(left.ok(), "", "it takes away what it wrote");
}
