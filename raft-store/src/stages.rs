//! Where the time of a write goes: how often each stage was passed, and how long all passes took. Kept by each member for what
//! happens on it, at the cost of a few clock readings a batch.
//!
//! ```text
//!  at the client's member      on its way          at every member                 back
//!  queue ----> encode ----> agree [ append ----> (sync) ----> apply ----> reply ]
//! ```

use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A part of a write's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A command waits until it is in a batch.
    Queue,
    /// A batch is encoded.
    Encode,
    /// From the batch's encoding until its replies are here: all that follows, at the leader and on the way there and back.
    Agree,
    /// An entry is in this member's log, in memory, until a quorum is known to have it and it can be applied.
    Commit,
    /// The disk takes a batch of log records, sync included.
    Sync,
    /// Committed entries are applied and written to the tables.
    Apply,
}

impl Stage {
    const ALL: [Stage; 6] = [
        Stage::Queue,
        Stage::Encode,
        Stage::Agree,
        Stage::Commit,
        Stage::Sync,
        Stage::Apply,
    ];

    fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Encode => "encode",
            Stage::Agree => "agree",
            Stage::Commit => "commit",
            Stage::Sync => "sync",
            Stage::Apply => "apply",
        }
    }
}

/// Entries whose time in the log is remembered; beyond them the oldest are not counted.
const ENTRIES_MAX: usize = 1024;

/// The counters.
#[derive(Debug, Default)]
pub struct Stages {
    counts: [AtomicU64; Stage::ALL.len()],
    nanos: [AtomicU64; Stage::ALL.len()],
    appended: Mutex<VecDeque<(u64, Instant)>>,
}

/// A stage's counters at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Passed {
    /// How often it was passed.
    pub count: u64,
    /// How long all passes took, in microseconds.
    pub total_us: u64,
}

impl Stages {
    /// A stage was passed once.
    pub fn passed(&self, stage: Stage, took: Duration) {
        self.passed_by(stage, 1, took);
    }

    /// A stage was passed by so many at once; `took` is the time of all of them.
    pub fn passed_by(&self, stage: Stage, count: u64, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[stage as usize].fetch_add(count, Ordering::Relaxed);
        self.nanos[stage as usize].fetch_add(nanos, Ordering::Relaxed);
    }

    /// An entry came into the log.
    pub fn appended(&self, index: u64) {
        let mut appended = self.lock();
        if appended.len() == ENTRIES_MAX {
            appended.pop_front();
        }
        appended.push_back((index, Instant::now()));
    }

    /// The entries up to `index` are committed and about to be applied.
    pub fn committed(&self, index: u64) {
        let now = Instant::now();
        let mut appended = self.lock();
        let (mut count, mut took) = (0, Duration::ZERO);
        while let Some((_, at)) = appended.pop_front_if(|(appended, _)| *appended <= index) {
            count += 1;
            took += now - at;
        }
        drop(appended);
        self.passed_by(Stage::Commit, count, took);
    }

    /// The counters now, by the stages' names.
    pub fn snapshot(&self) -> BTreeMap<&'static str, Passed> {
        let passed = |stage: Stage| Passed {
            count: self.counts[stage as usize].load(Ordering::Relaxed),
            total_us: self.nanos[stage as usize].load(Ordering::Relaxed) / 1000,
        };
        Stage::ALL
            .into_iter()
            .map(|stage| (stage.name(), passed(stage)))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, Instant)>> {
        self.appended.lock().expect("no holder of the lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_counted_once_when_it_is_committed() {
        let stages = Stages::default();
        for index in 1..=3 {
            stages.appended(index);
        }
        stages.committed(2);
        stages.committed(2);
        assert_eq!(stages.snapshot()["commit"].count, 2);
        for index in 4..4 + 2 * ENTRIES_MAX as u64 {
            stages.appended(index);
        }
        stages.committed(u64::MAX);
        assert_eq!(stages.snapshot()["commit"].count, 2 + ENTRIES_MAX as u64);
    }
}
