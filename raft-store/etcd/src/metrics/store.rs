//! The store's own numbers.

use super::family::{counter, family, gauge, gauged, histogram};
use crate::API_VERSION;
use prometheus::proto::{MetricFamily, MetricType};
use raft_store::{Figures, RaftStore};

pub fn families(store: &RaftStore, figures: &Figures) -> Vec<MetricFamily> {
    let mut families = of_identity(store);
    families.extend(of_consensus(figures));
    families.extend(of_disk(figures));
    families.extend(of_data(figures));
    families.extend(of_work(figures));
    families.extend(of_leases(figures));
    families.extend(of_ours(figures));
    families
}

/// Numbers that are always 1 and say something by their label.
fn of_identity(store: &RaftStore) -> Vec<MetricFamily> {
    let labelled = |name, help, label, value: &str| {
        let sample = gauged(&[(label, value)], 1);
        family(name, help, MetricType::GAUGE, vec![sample])
    };
    let (minor, _) = API_VERSION.rsplit_once('.').unwrap_or((API_VERSION, ""));
    let id = format!("{:x}", store.identity().member_id);
    vec![
        labelled(
            "etcd_server_version",
            "The version of etcd whose API is served.",
            "server_version",
            API_VERSION,
        ),
        labelled(
            "etcd_cluster_version",
            "The same without its patch.",
            "cluster_version",
            minor,
        ),
        labelled(
            "etcd_server_id",
            "This member's id in hexadecimal.",
            "server_id",
            &id,
        ),
    ]
}

fn of_consensus(f: &Figures) -> Vec<MetricFamily> {
    let flag = u64::from;
    let heartbeats = f.peers.values().map(|peer| peer.failed_heartbeats).sum();
    vec![
        gauge(
            "etcd_server_has_leader",
            "Whether this member knows a leader: 1 if so, 0 if not.",
            flag(f.has_leader),
        ),
        gauge(
            "etcd_server_is_leader",
            "Whether this member leads: 1 if so, 0 if not.",
            flag(f.is_leader),
        ),
        gauge(
            "etcd_server_is_learner",
            "Whether this member only learns: 1 if so, 0 if not.",
            flag(f.is_learner),
        ),
        counter(
            "etcd_server_leader_changes_seen_total",
            "How often this member saw another leader.",
            f.leader_changes,
        ),
        counter(
            "etcd_server_learner_promote_successes",
            "Learners that this member, leading, made voters.",
            f.work.learners_promoted,
        ),
        counter(
            "etcd_server_heartbeat_send_failures_total",
            "Heartbeats of this member, leading, that were not answered in time.",
            heartbeats,
        ),
        // Gauges despite their names, as in etcd: a snapshot may move them far.
        gauge(
            "etcd_server_proposals_committed_total",
            "The index of the last entry that a quorum has.",
            f.committed_index,
        ),
        gauge(
            "etcd_server_proposals_applied_total",
            "The index of the last entry that was applied.",
            f.applied_index,
        ),
        gauge(
            "etcd_server_proposals_pending",
            "Commands that wait for their reply.",
            f.proposals_pending,
        ),
        counter(
            "etcd_server_proposals_failed_total",
            "Commands that failed, or whose outcome is unknown.",
            f.proposals_failed,
        ),
        counter(
            "etcd_server_read_indexes_failed_total",
            "Questions for the read index that failed.",
            f.work.read_indexes_failed,
        ),
        counter(
            "etcd_server_slow_read_indexes_total",
            "Questions for the read index that took more than half a second.",
            f.work.read_indexes_slow,
        ),
        gauge(
            "etcd_server_snapshot_apply_in_progress_total",
            "Whether a snapshot of the leader's takes the state's place just now: 1 if so.",
            f.snapshots_installing,
        ),
    ]
}

fn of_disk(f: &Figures) -> Vec<MetricFamily> {
    vec![
        counter(
            "etcd_server_slow_apply_total",
            "Writes of applied entries to the state that took more than 100 ms.",
            f.slow_applies,
        ),
        gauge(
            "etcd_server_quota_backend_bytes",
            "The size at which the database leaves the disk its reserve, and writes are refused.",
            f.db_bytes_max,
        ),
        histogram(
            "etcd_disk_wal_fsync_duration_seconds",
            "How long writing the log took, its fsync included.",
            &f.fsync,
        ),
        histogram(
            "etcd_disk_backend_commit_duration_seconds",
            "How long writing applied entries to the state took.",
            &f.commit,
        ),
        histogram(
            "etcd_disk_backend_snapshot_duration_seconds",
            "How long writing the state as an archive took.",
            &f.archives,
        ),
        histogram(
            "etcd_mvcc_hash_rev_duration_seconds",
            "How long hashing the state up to a revision took.",
            &f.hashes,
        ),
        gauge(
            "etcd_mvcc_db_total_size_in_bytes",
            "Bytes of the database, its files and log included.",
            f.db_bytes,
        ),
        gauge(
            "etcd_debugging_mvcc_db_total_size_in_bytes",
            "The same, under its former name.",
            f.db_bytes,
        ),
        gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Bytes of them that hold something that is still there.",
            f.db_live_bytes,
        ),
    ]
}

fn of_data(f: &Figures) -> Vec<MetricFamily> {
    let mut families = vec![
        gauge(
            "etcd_debugging_mvcc_current_revision",
            "The store's revision.",
            f.revision,
        ),
        gauge(
            "etcd_debugging_mvcc_compact_revision",
            "The oldest revision that can be read.",
            f.compacted_revision,
        ),
        gauge(
            "etcd_debugging_mvcc_watcher_total",
            "Watches, those of this master's own parts included.",
            f.watchers,
        ),
        gauge(
            "etcd_debugging_mvcc_slow_watcher_total",
            "Watches that are behind and read history.",
            f.slow_watchers,
        ),
        gauge(
            "etcd_debugging_mvcc_pending_events_total",
            "Changes that wait for their watches.",
            f.pending_events,
        ),
    ];
    families.extend(f.keys.map(|keys| {
        gauge(
            "etcd_debugging_mvcc_keys_total",
            "About how many keys there are, as RocksDB estimates.",
            keys,
        )
    }));
    families
}

fn of_work(f: &Figures) -> Vec<MetricFamily> {
    let w = &f.work;
    let mut families = vec![gauge(
        "etcd_debugging_mvcc_total_put_size_in_bytes",
        "Bytes of the keys and values that were put.",
        w.put_bytes,
    )];
    // Twice: etcd keeps their former names.
    for part in ["etcd_mvcc", "etcd_debugging_mvcc"] {
        let told = [
            ("put", "Puts applied by this member.", w.puts),
            ("delete", "Deletes applied by this member.", w.deletes),
            ("range", "Ranges read by this member.", w.ranges),
            ("txn", "Transactions of several steps applied.", w.txns),
        ];
        families.extend(
            told.map(|(what, help, value)| counter(&format!("{part}_{what}_total"), help, value)),
        );
    }
    families
}

fn of_leases(f: &Figures) -> Vec<MetricFamily> {
    let w = &f.work;
    vec![
        counter(
            "etcd_debugging_lease_granted_total",
            "Leases granted.",
            w.leases_granted,
        ),
        counter(
            "etcd_debugging_lease_renewed_total",
            "Leases kept alive.",
            w.leases_renewed,
        ),
        counter(
            "etcd_debugging_lease_revoked_total",
            "Leases revoked.",
            w.leases_revoked,
        ),
        counter(
            "etcd_debugging_server_lease_expired_total",
            "Leases that ended because their holder fell silent.",
            w.leases_expired,
        ),
    ]
}

/// What etcd has no counterpart of.
fn of_ours(f: &Figures) -> Vec<MetricFamily> {
    vec![
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
