//! What Prometheus is told, beside what Debian's etcd tells after the same requests.

mod served;

use prometheus_parse::{Scrape, Value};
use served::Served;
use served::http::get;
use served::real::Etcd;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tokio::process::Command;

/// What etcd tells and a member does not, by the beginning of its name, and why.
const ABSENT: [(&str, &str); 20] = [
    ("go_", "no Go"),
    ("etcd_server_go_version", "no Go"),
    ("etcd_grpc_proxy_", "no proxy"),
    ("etcd_debugging_store_", "no second version of the API"),
    ("etcd_debugging_auth_", "no users and roles"),
    ("promhttp_", "of the library for Go"),
    ("grpc_server_msg_", "messages are not counted, only calls"),
    (
        "etcd_server_client_requests_",
        "as grpc_server_started_total tells, by the client's version",
    ),
    ("etcd_debugging_disk_backend_commit_", "stages of bbolt"),
    (
        "etcd_debugging_mvcc_db_compaction_",
        "swept in slices, which are not counted",
    ),
    (
        "etcd_debugging_mvcc_index_compaction_",
        "no index in memory",
    ),
    ("etcd_debugging_snap_", "no snapshot files"),
    ("etcd_snap_", "no snapshot files"),
    ("etcd_disk_backend_defrag_", "nothing to defragment"),
    ("etcd_disk_defrag_inflight", "nothing to defragment"),
    ("etcd_disk_wal_write_bytes_total", "not counted"),
    ("etcd_mvcc_db_open_read_transactions", "not counted"),
    (
        "etcd_mvcc_hash_duration_",
        "the newest state is hashed as any revision",
    ),
    ("etcd_debugging_lease_ttl_total", "not counted"),
    (
        "process_virtual_memory_max_bytes",
        "not told by the library",
    ),
];

async fn etcdctl(address: SocketAddr, args: &[&str]) {
    let told = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={address}"))
        .args(args)
        .output()
        .await
        .expect("etcdctl runs; install Debian's package etcd-client");
    assert!(told.status.success(), "{args:?}: {told:?}");
}

async fn scrape(address: SocketAddr) -> Scrape {
    let text = get(address, "/metrics").await.text;
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    Scrape::parse(lines).unwrap_or_else(|error| panic!("{error} in:\n{text}"))
}

async fn some_work(address: SocketAddr) {
    etcdctl(address, &["put", "/a", "1"]).await;
    etcdctl(address, &["get", "--prefix", "/"]).await;
    etcdctl(address, &["del", "/a"]).await;
    etcdctl(address, &["endpoint", "status"]).await;
}

/// The kind of each family, and its labels but those of buckets.
fn families(scrape: &Scrape) -> BTreeMap<&str, (&'static str, BTreeSet<&str>)> {
    let mut families = BTreeMap::new();
    for sample in &scrape.samples {
        let kind = match sample.value {
            Value::Counter(_) => "counter",
            Value::Gauge(_) => "gauge",
            Value::Histogram(_) => "histogram",
            Value::Summary(_) => "summary",
            Value::Untyped(_) => continue, // A histogram's sum and count.
        };
        let labels = sample
            .labels
            .keys()
            .map(String::as_str)
            .filter(|label| *label != "le");
        let (_, known) = families
            .entry(&sample.metric[..])
            .or_insert_with(|| (kind, BTreeSet::new()));
        known.extend(labels);
    }
    families
}

fn is_absent(name: &str) -> bool {
    ABSENT.iter().any(|(absent, _)| name.starts_with(absent))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_kinds_and_labels_are_etcd_s() {
    let (served, etcd) = (Served::new(1).await, Etcd::start().await);
    for address in [served.addresses[0], etcd.address] {
        some_work(address).await;
    }
    let (ours, theirs) = (
        scrape(served.addresses[0]).await,
        scrape(etcd.address).await,
    );
    let (ours, theirs) = (families(&ours), families(&theirs));
    for (name, known) in theirs.iter().filter(|(name, _)| !is_absent(name)) {
        assert_eq!(ours.get(name), Some(known), "{name}");
    }
    for (absent, _) in ABSENT {
        let is =
            |families: &BTreeMap<&str, _>| families.keys().any(|name| name.starts_with(absent));
        assert!(is(&theirs), "etcd does not tell {absent}");
        assert!(!is(&ours), "{absent} is told by now");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_of_etcd_is_counted() {
    let (served, etcd) = (Served::new(1).await, Etcd::start().await);
    let methods = async |address| {
        let scrape = scrape(address).await;
        let started = scrape
            .samples
            .into_iter()
            .filter(|sample| sample.metric == "grpc_server_started_total");
        let named = started.map(|sample| {
            let label = |name| sample.labels.get(name).expect("it is there").to_owned();
            (
                label("grpc_service"),
                label("grpc_method"),
                label("grpc_type"),
            )
        });
        named.collect::<BTreeSet<_>>()
    };
    let (ours, theirs) = (
        methods(served.addresses[0]).await,
        methods(etcd.address).await,
    );
    let missing: Vec<_> = theirs.difference(&ours).collect();
    assert!(
        missing.is_empty() && theirs.len() > 30,
        "{missing:?} of {theirs:?}"
    );
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_count_what_happened() {
    let served = Served::three().await;
    let leader = served.cluster.leader().await;
    let address = served.addresses[leader];
    let before = scrape(address).await;
    some_work(address).await;
    etcdctl(address, &["lease", "grant", "600"]).await;
    let after = scrape(address).await;
    let number = |scrape: &Scrape, name: &str, label: Option<(&str, &str)>| {
        let mut samples = scrape.samples.iter().filter(|sample| sample.metric == name);
        let sample = samples.find(|sample| {
            label.is_none_or(|(label, value)| sample.labels.get(label) == Some(value))
        });
        match sample.map(|sample| &sample.value) {
            Some(Value::Counter(number) | Value::Gauge(number)) => *number,
            Some(Value::Histogram(buckets)) => buckets.last().map_or(0.0, |last| last.count),
            other => panic!("{name} is {other:?}"),
        }
    };
    let grown = |name: &str, label| number(&after, name, label) - number(&before, name, label);
    assert_eq!(grown("etcd_mvcc_put_total", None), 1.0);
    assert_eq!(grown("etcd_mvcc_delete_total", None), 1.0);
    assert_eq!(grown("etcd_debugging_lease_granted_total", None), 1.0);
    assert_eq!(
        grown("grpc_server_started_total", Some(("grpc_method", "Put"))),
        1.0
    );
    let ended = |method: &str, code: &str| {
        let of = |scrape: &Scrape| {
            let samples = scrape.samples.iter().filter(|sample| {
                sample.metric == "grpc_server_handled_total"
                    && sample.labels.get("grpc_method") == Some(method)
                    && sample.labels.get("grpc_code") == Some(code)
            });
            let counts = samples.map(|sample| match sample.value {
                Value::Counter(count) => count,
                _ => panic!("{sample:?}"),
            });
            counts.sum::<f64>()
        };
        of(&after) - of(&before)
    };
    assert_eq!((ended("Put", "OK"), ended("Put", "Unknown")), (1.0, 0.0));
    for name in [
        "etcd_network_client_grpc_sent_bytes_total",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_disk_wal_fsync_duration_seconds",
        "etcd_disk_backend_commit_duration_seconds",
        "etcd_server_proposals_applied_total",
    ] {
        assert!(grown(name, None) > 0.0, "{name} stays");
    }
    assert_eq!(number(&after, "etcd_server_is_leader", None), 1.0);
    // Each of the others by its id in hexadecimal.
    let others = (1..=3)
        .filter(|id| *id != leader + 1)
        .map(|id| format!("{id:x}"));
    for other in others {
        for (name, label) in [
            ("etcd_network_peer_sent_bytes_total", "To"),
            ("etcd_network_peer_received_bytes_total", "From"),
            ("etcd_network_peer_round_trip_time_seconds", "To"),
            ("etcd_network_known_peers", "Remote"),
        ] {
            let told = number(&after, name, Some((label, &other[..])));
            assert!(told > 0.0, "{name} of {other}");
        }
    }
    served.stop().await;
}
