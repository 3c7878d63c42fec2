//! Light counters of the store, for `status` and the dashboard. Reading them never waits for anything.

use crate::histogram::{Distribution, Histogram};
use crate::stages::{Passed, Stage, Stages};
use crate::store::SlowWrites;
use crate::work::Work;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Writing applied entries to the state is slow beyond this; etcd's measure.
const SLOW_APPLY: Duration = Duration::from_millis(100);

/// The store's counters.
#[derive(Debug, Default)]
pub struct Metrics {
    fsync: Histogram,
    commit: Histogram,
    slow_applies: AtomicU64,
    failed: AtomicU64,
    writing_since: Mutex<Option<Instant>>,
    /// The last writes that took long.
    pub(crate) slow_writes: SlowWrites,
    proposals: AtomicU64,
    entries: AtomicU64,
    pending: AtomicU64,
    leader_changes: AtomicU64,
    /// Where the time of writes goes.
    pub stages: Stages,
    /// What was applied and read.
    pub(crate) work: Work,
    /// How long it took to write the state as an archive.
    pub(crate) archives: Histogram,
    /// How long it took to hash the state.
    pub(crate) hashes: Histogram,
    installing: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Snapshot {
    /// How long batches of log writes took, sync included.
    pub fsync: Distribution,
    /// How long batches of applied entries took to be written to the state.
    pub commit: Distribution,
    /// How many of those took more than 100 ms.
    pub slow_applies: u64,
    /// Commands that failed, or whose outcome is unknown.
    pub failed: u64,
    /// Commands proposed by this member's clients.
    pub proposals: u64,
    /// Raft entries into which they went.
    pub entries: u64,
    /// Commands that wait for their reply.
    pub pending: u64,
    /// How often another leader was seen.
    pub leader_changes: u64,
    /// Where the time of writes goes.
    pub stages: BTreeMap<&'static str, Passed>,
}

impl Metrics {
    /// A write of the log begins.
    pub fn write_begins(&self) {
        *self
            .writing_since
            .lock()
            .expect("no holder of the lock panics") = Some(Instant::now());
    }

    /// For how long the disk has been at the write that is under way; zero when there is none.
    pub fn writing_for(&self) -> Duration {
        let since = self
            .writing_since
            .lock()
            .expect("no holder of the lock panics");
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The write that began last is on disk.
    pub fn write_ended(&self) {
        let since = self
            .writing_since
            .lock()
            .expect("no holder of the lock panics")
            .take();
        let took = since.map_or(Duration::ZERO, |since| since.elapsed());
        self.slow_writes.note(took, Instant::now());
        self.fsync(took);
    }

    fn fsync(&self, took: Duration) {
        self.fsync.record(took);
        self.stages.passed(Stage::Sync, took);
    }

    /// Applied entries were written to the state.
    pub fn committed(&self, took: Duration) {
        self.commit.record(took);
        if took > SLOW_APPLY {
            self.slow_applies.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many commands failed.
    pub fn failed(&self, commands: u64) {
        self.failed.fetch_add(commands, Ordering::Relaxed);
    }

    /// So many commands wait more.
    pub fn proposed(&self, commands: u64) {
        self.proposals.fetch_add(commands, Ordering::Relaxed);
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.pending.fetch_add(commands, Ordering::Relaxed);
    }

    /// So many commands wait no longer.
    pub fn answered(&self, commands: u64) {
        self.pending.fetch_sub(commands, Ordering::Relaxed);
    }

    /// A snapshot of the leader's takes the state's place, until the guard is dropped.
    pub fn installing(&self) -> impl Drop + use<'_> {
        struct Installing<'m>(&'m AtomicU64);
        impl Drop for Installing<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.installing.fetch_add(1, Ordering::Relaxed);
        Installing(&self.installing)
    }

    /// How many snapshots take the state's place just now.
    pub fn snapshots_installing(&self) -> u64 {
        self.installing.load(Ordering::Relaxed)
    }

    /// Another leader was seen.
    pub fn leader_changed(&self) {
        self.leader_changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            fsync: self.fsync.distribution(),
            commit: self.commit.distribution(),
            slow_applies: get(&self.slow_applies),
            failed: get(&self.failed),
            proposals: get(&self.proposals),
            entries: get(&self.entries),
            pending: get(&self.pending),
            leader_changes: get(&self.leader_changes),
            stages: self.stages.snapshot(),
        }
    }
}
