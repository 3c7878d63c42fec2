//! `/metrics`: this master's numbers in Prometheus' text format.
//!
//! Names and types are etcd's where etcd has the same thing, so that dashboards and alerts made for it go on working; what only
//! this store has begins with `trireme_`. Numbers are taken at the moment of asking: nothing runs in between.

use crate::snapshots::Counters;
use anyhow::Result;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, TextEncoder};
use raft_store::{BOUNDS_US, Distribution, Figures, RaftStore};
use std::sync::atomic::Ordering;

/// The whole text.
pub async fn render(store: &RaftStore, runs: &Counters) -> Result<String> {
    let figures = store.figures().await;
    let mut families = of_store(&figures);
    families.extend(of_members(&figures));
    families.extend(of_snapshots(runs));
    families.extend(ProcessCollector::for_self().collect());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(String::from_utf8(text)?)
}

fn of_snapshots(runs: &Counters) -> Vec<MetricFamily> {
    vec![
        counter(
            "trireme_snapshot_runs_saved_total",
            "The number of scheduled snapshots that this master saved since it started.",
            runs.saved.load(Ordering::Relaxed),
        ),
        counter(
            "trireme_snapshot_runs_failed_total",
            "The number of scheduled snapshots that this master failed to save since it started.",
            runs.failed.load(Ordering::Relaxed),
        ),
    ]
}

fn of_store(figures: &Figures) -> Vec<MetricFamily> {
    let flag = |flag: bool| u64::from(flag);
    let f = figures;
    vec![
        gauge(
            "etcd_server_has_leader",
            "Whether or not a leader exists. 1 is existence, 0 is not.",
            flag(f.has_leader),
        ),
        gauge(
            "etcd_server_is_leader",
            "Whether or not this member is a leader. 1 if is, 0 otherwise.",
            flag(f.is_leader),
        ),
        gauge(
            "etcd_server_is_learner",
            "Whether or not this member is a learner. 1 if is, 0 otherwise.",
            flag(f.is_learner),
        ),
        counter(
            "etcd_server_leader_changes_seen_total",
            "The number of leader changes seen.",
            f.leader_changes,
        ),
        // Gauges despite their names, as in etcd: a snapshot may move them far.
        gauge(
            "etcd_server_proposals_committed_total",
            "The total number of consensus proposals committed.",
            f.committed_index,
        ),
        gauge(
            "etcd_server_proposals_applied_total",
            "The total number of consensus proposals applied.",
            f.applied_index,
        ),
        gauge(
            "etcd_server_proposals_pending",
            "The current number of pending proposals to commit.",
            f.proposals_pending,
        ),
        counter(
            "etcd_server_proposals_failed_total",
            "The total number of failed proposals seen.",
            f.proposals_failed,
        ),
        counter(
            "etcd_server_slow_apply_total",
            "The total number of slow apply requests: writes of applied entries that took more than 100 ms.",
            f.slow_applies,
        ),
        gauge(
            "etcd_server_quota_backend_bytes",
            "The size at which the database leaves the disk its reserve, and writes are refused.",
            f.db_bytes_max,
        ),
        histogram(
            "etcd_disk_wal_fsync_duration_seconds",
            "The latency distributions of writing the log, its fsync included.",
            &f.fsync,
        ),
        histogram(
            "etcd_disk_backend_commit_duration_seconds",
            "The latency distributions of writing applied entries to the state.",
            &f.commit,
        ),
        gauge(
            "etcd_mvcc_db_total_size_in_bytes",
            "Total size of the underlying database, its files and log included.",
            f.db_bytes,
        ),
        gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Total size of what of the database is still in use.",
            f.db_live_bytes,
        ),
        gauge(
            "etcd_debugging_mvcc_current_revision",
            "The current revision of store.",
            f.revision,
        ),
        gauge(
            "etcd_debugging_mvcc_compact_revision",
            "The revision of the last compaction in store.",
            f.compacted_revision,
        ),
        gauge(
            "etcd_debugging_mvcc_watcher_total",
            "Total number of watchers.",
            f.watchers,
        ),
        gauge(
            "etcd_debugging_mvcc_slow_watcher_total",
            "Total number of unsynced slow watchers.",
            f.slow_watchers,
        ),
        counter(
            "trireme_store_commands_total",
            "Commands that clients of this master proposed.",
            f.proposals,
        ),
        counter(
            "trireme_store_entries_total",
            "Raft entries into which those commands went.",
            f.entries,
        ),
        gauge(
            "trireme_store_log_bytes",
            "Bytes of the log's entries.",
            f.log_bytes,
        ),
        gauge(
            "trireme_store_history_bytes",
            "Bytes of the changes between the oldest revision that is kept and the newest.",
            f.history_bytes,
        ),
    ]
}

fn of_members(figures: &Figures) -> Vec<MetricFamily> {
    // etcd tells each peer apart; here the connections of all members are counted together.
    let sent = labelled_counter(
        (
            "etcd_network_peer_sent_bytes_total",
            "The total number of bytes sent to peers.",
        ),
        ("To", "all"),
        figures.peer_sent_bytes,
    );
    let received = labelled_counter(
        (
            "etcd_network_peer_received_bytes_total",
            "The total number of bytes received from peers.",
        ),
        ("From", "all"),
        figures.peer_received_bytes,
    );
    vec![sent, received]
}

fn family(name: &str, help: &str, kind: MetricType, metric: Metric) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

fn gauge(name: &str, help: &str, value: u64) -> MetricFamily {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    family(name, help, MetricType::GAUGE, Metric::from_gauge(gauge))
}

fn counter(name: &str, help: &str, value: u64) -> MetricFamily {
    family(name, help, MetricType::COUNTER, counted(vec![], value))
}

fn labelled_counter(
    (name, help): (&str, &str),
    (label, labelled): (&str, &str),
    value: u64,
) -> MetricFamily {
    let mut pair = LabelPair::default();
    pair.set_name(label.to_owned());
    pair.set_value(labelled.to_owned());
    family(name, help, MetricType::COUNTER, counted(vec![pair], value))
}

fn counted(labels: Vec<LabelPair>, value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

fn histogram(name: &str, help: &str, distribution: &Distribution) -> MetricFamily {
    let mut below = 0;
    let buckets = BOUNDS_US.iter().zip(&distribution.counts);
    let buckets = buckets.map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(distribution.count());
    histogram.set_sample_sum(distribution.total_us as f64 / 1e6);
    let mut metric = Metric::from_label(vec![]);
    metric.set_histogram(histogram);
    family(name, help, MetricType::HISTOGRAM, metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvcc::{Op, Store, Txn};
    use prometheus_parse::{Scrape, Value};
    use raft_store::{Config, Limits, Timings};

    /// A member that is alone.
    async fn store(folder: &std::path::Path) -> RaftStore {
        let listen = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        let config = Config {
            data_dir: folder.to_owned(),
            cluster_id: "c".to_owned(),
            member_id: 1,
            name: "m1".to_owned(),
            listen,
            peer_address: listen.to_string(),
            api_url: "https://127.0.0.1:6443".to_owned(),
            tls: None,
            timings: Timings::default(),
            limits: Limits::default(),
        };
        let store = RaftStore::open(config).await.expect("it opens");
        store.bootstrap().await.expect("it begins");
        store
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_text_parses_and_has_the_names_that_etcd_s_users_know() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path()).await;
        let put = Txn {
            success: vec![Op::put("a", "b")],
            ..Txn::default()
        };
        let revision = store.txn(put).await.expect("it is written").revision;
        let text = render(&store, &Counters::default())
            .await
            .expect("it is rendered");
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        let scrape = Scrape::parse(lines).expect("it parses");
        let number = |name: &str| {
            let sample = scrape.samples.iter().find(|sample| sample.metric == name);
            match sample.map(|sample| &sample.value) {
                Some(Value::Counter(number) | Value::Gauge(number)) => *number,
                other => panic!("{name} is {other:?} in:\n{text}"),
            }
        };
        for name in [
            "etcd_server_has_leader",
            "etcd_server_is_leader",
            "etcd_server_proposals_committed_total",
            "etcd_server_proposals_applied_total",
            "etcd_server_quota_backend_bytes",
            "etcd_server_leader_changes_seen_total",
            "etcd_mvcc_db_total_size_in_bytes",
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "trireme_store_commands_total",
            "trireme_store_history_bytes",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_start_time_seconds",
        ] {
            assert!(number(name) > 0.0, "{name} is 0 in:\n{text}");
        }
        for name in [
            "etcd_server_is_learner",
            "etcd_server_proposals_pending",
            "etcd_server_proposals_failed_total",
            "etcd_server_slow_apply_total",
            "etcd_debugging_mvcc_compact_revision",
            "etcd_debugging_mvcc_watcher_total",
            "etcd_debugging_mvcc_slow_watcher_total",
            "etcd_network_peer_sent_bytes_total",
            "etcd_network_peer_received_bytes_total",
        ] {
            assert!(number(name) >= 0.0);
        }
        assert_eq!(
            number("etcd_debugging_mvcc_current_revision"),
            revision.0 as f64
        );
        for name in [
            "etcd_disk_wal_fsync_duration_seconds",
            "etcd_disk_backend_commit_duration_seconds",
        ] {
            let sample = scrape.samples.iter().find(|sample| sample.metric == name);
            let Some(Value::Histogram(counts)) = sample.map(|sample| &sample.value) else {
                panic!("{name} is no histogram in:\n{text}")
            };
            assert!(
                counts.last().is_some_and(|last| last.count > 0.0),
                "{counts:?}"
            );
        }
        store.kill().await;
    }

    #[test]
    fn a_histogram_is_told_in_seconds_and_sums() {
        let mut distribution = Distribution {
            counts: vec![0; BOUNDS_US.len() + 1],
            total_us: 3_000_700,
        };
        distribution.counts[3] = 2;
        distribution.counts[BOUNDS_US.len()] = 1;
        let text = TextEncoder::new()
            .encode_to_string(&[histogram("took_seconds", "How long.", &distribution)])
            .expect("it is encoded");
        for line in [
            "# TYPE took_seconds histogram",
            "took_seconds_bucket{le=\"0.0005\"} 0",
            "took_seconds_bucket{le=\"0.001\"} 2",
            "took_seconds_bucket{le=\"8.192\"} 2",
            "took_seconds_bucket{le=\"+Inf\"} 3",
            "took_seconds_sum 3.0007",
            "took_seconds_count 3",
        ] {
            assert!(
                text.lines().any(|told| told == line),
                "{line} is missing in:\n{text}"
            );
        }
    }
}
