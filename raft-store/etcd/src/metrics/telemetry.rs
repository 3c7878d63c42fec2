//! What the services over the store count of themselves.

use crate::front::{Calls, Check, Outcome};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counts of one member's etcd API; they begin with the process.
#[derive(Debug, Default)]
pub struct Telemetry {
    pub calls: Calls,
    /// Bytes to and from clients, TLS not counted.
    pub sent_bytes: AtomicU64,
    pub received_bytes: AtomicU64,
    /// Events told to watchers.
    pub events: AtomicU64,
    watch_streams: AtomicU64,
    healthy: AtomicU64,
    unhealthy: AtomicU64,
    checks: Mutex<BTreeMap<(&'static str, Check), Checked>>,
}

/// How a check went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked {
    pub good: u64,
    pub bad: u64,
    /// Whether it was good the last time.
    pub is_good: bool,
}

impl Telemetry {
    /// `/health` was answered.
    pub fn health_told(&self, is_well: bool) {
        let counter = if is_well {
            &self.healthy
        } else {
            &self.unhealthy
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How often `/health` was answered well, and how often not.
    pub fn health(&self) -> (u64, u64) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (get(&self.healthy), get(&self.unhealthy))
    }

    /// A check of `/livez` or `/readyz` was done.
    pub fn checked(&self, kind: &'static str, check: Check, outcome: &Outcome) {
        let mut checks = self.checks.lock().expect("no holder of the lock panics");
        let checked = checks.entry((kind, check)).or_default();
        checked.is_good = outcome.is_ok();
        match outcome {
            Ok(()) => checked.good += 1,
            Err(_) => checked.bad += 1,
        }
    }

    /// How the checks went.
    pub fn checks(&self) -> BTreeMap<(&'static str, Check), Checked> {
        self.checks
            .lock()
            .expect("no holder of the lock panics")
            .clone()
    }

    /// A stream of watches is there until the guard is dropped.
    pub fn watch_stream(self: &std::sync::Arc<Self>) -> WatchStream {
        self.watch_streams.fetch_add(1, Ordering::Relaxed);
        WatchStream(self.clone())
    }

    /// How many there are.
    pub fn watch_streams(&self) -> u64 {
        self.watch_streams.load(Ordering::Relaxed)
    }
}

/// Counts a stream of watches while it lives.
#[derive(Debug)]
pub struct WatchStream(std::sync::Arc<Telemetry>);

impl WatchStream {
    /// So many events were told on it.
    pub fn told(&self, events: usize) {
        self.0.events.fetch_add(events as u64, Ordering::Relaxed);
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.0.watch_streams.fetch_sub(1, Ordering::Relaxed);
    }
}
