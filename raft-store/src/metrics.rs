//! Light counters of the store, for `status` and the dashboard. Reading them never waits for anything.

use crate::stages::{Passed, Stage, Stages};
use crate::store::SlowWrites;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Upper bounds of the fsync histogram, in microseconds; the last bucket has none.
pub const FSYNC_BOUNDS_US: [u64; 9] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000,
];

/// The store's counters.
#[derive(Debug, Default)]
pub struct Metrics {
    fsync: [AtomicU64; FSYNC_BOUNDS_US.len() + 1],
    fsync_us: AtomicU64,
    writing_since: Mutex<Option<Instant>>,
    /// The last writes that took long.
    pub(crate) slow_writes: SlowWrites,
    proposals: AtomicU64,
    entries: AtomicU64,
    pending: AtomicU64,
    leader_changes: AtomicU64,
    /// Where the time of writes goes.
    pub stages: Stages,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Snapshot {
    /// How many batches of log writes took up to the bound of the same place in [`FSYNC_BOUNDS_US`].
    pub fsync_counts: Vec<u64>,
    /// The time of all of them, in microseconds.
    pub fsync_total_us: u64,
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
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = FSYNC_BOUNDS_US.partition_point(|bound| *bound < micros);
        self.fsync[bucket].fetch_add(1, Ordering::Relaxed);
        self.fsync_us.fetch_add(micros, Ordering::Relaxed);
        self.stages.passed(Stage::Sync, took);
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

    /// Another leader was seen.
    pub fn leader_changed(&self) {
        self.leader_changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            fsync_counts: self.fsync.iter().map(get).collect(),
            fsync_total_us: get(&self.fsync_us),
            proposals: get(&self.proposals),
            entries: get(&self.entries),
            pending: get(&self.pending),
            leader_changes: get(&self.leader_changes),
            stages: self.stages.snapshot(),
        }
    }
}
