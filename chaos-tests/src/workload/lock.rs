//! Locks with a lease that nobody prolongs, and holders that sleep longer than it lives, as a process does whose machine stands
//! still. With the condition that the lock is still held their writes are safe; without it they are not.
//!
//! One process of each lock sleeps in its first holding until somebody else has the lock, so that two who believe to hold it
//! are a matter of course; later, and among the others, it is chance.

use super::ask::LOCK_TTL;
use super::lease::lease_id;
use super::process::{Process, Shared};
use super::{Kind, number, together};
use crate::history::{Outcome, Request};
use rand::RngExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PROCESSES: u64 = 4;
const LOCKS: u64 = 2;
const WRITES_MAX: u32 = 6;
/// Of a hundred holders, how many sleep past their lease.
const SLEEPERS_PERCENT: u32 = 30;
/// How long a sleeper waits for its successor at most; under faults there may be none.
const SLEEP_MAX: Duration = Duration::from_secs(LOCK_TTL * 8);
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn run(shared: Arc<Shared>, per_second: f64, fenced: bool) -> Vec<String> {
    let kind = if fenced {
        Kind::Lock
    } else {
        Kind::LockUnfenced
    };
    let newest: Vec<Arc<AtomicU64>> = (0..LOCKS).map(|_| Arc::default()).collect();
    together(PROCESSES, |process| {
        let lock = process % LOCKS;
        let per_second = per_second / PROCESSES as f64;
        let holder = Holder {
            process: Process::new(&shared, number(kind, 0, process), per_second),
            lock: format!("{}-{lock}", kind.name()),
            fenced,
            newest: newest[lock as usize].clone(),
            is_to_sleep: process < LOCKS,
        };
        holder.run()
    })
    .await;
    Vec::new()
}

/// A process that takes a lock again and again.
struct Holder {
    process: Process,
    lock: String,
    fenced: bool,
    /// The newest revision at which anybody took the lock.
    newest: Arc<AtomicU64>,
    /// Whether it sleeps in its next holding until another has the lock.
    is_to_sleep: bool,
}

impl Holder {
    async fn run(mut self) {
        while self.process.is_due().await {
            let acquire = Request::Acquire {
                lock: self.lock.clone(),
                lease: lease_id(&self.process),
            };
            let Outcome::Ok(reply) = self.process.ask(acquire).await else {
                continue;
            };
            let Some(token) = reply.revision.filter(|_| reply.took_effect()) else {
                if !self.process.rest(Duration::from_millis(100)).await {
                    return;
                }
                continue;
            };
            self.newest.fetch_max(token, Ordering::Relaxed);
            if !self.hold(token).await {
                return;
            }
            let lock = self.lock.clone();
            self.process.ask(Request::Release { lock, token }).await;
        }
    }

    /// Writes under the lock; false where the load is over.
    async fn hold(&mut self, token: u64) -> bool {
        for _ in 0..self.process.rng.random_range(1..=WRITES_MAX) {
            if !self.pause(token).await {
                return false;
            }
            let write = Request::Guarded {
                lock: self.lock.clone(),
                token,
                fenced: self.fenced,
            };
            self.process.ask(write).await;
        }
        true
    }

    /// Waits before a write, for a moment or longer than the lease lives; false where the load is over.
    async fn pause(&mut self, token: u64) -> bool {
        if std::mem::take(&mut self.is_to_sleep) {
            return self.sleep_until_overtaken(token).await;
        }
        let sleeps = self.process.rng.random_range(0..100) < SLEEPERS_PERCENT / WRITES_MAX;
        let rest = if sleeps {
            Duration::from_secs(LOCK_TTL * 2)
        } else {
            Duration::from_millis(self.process.rng.random_range(5..50))
        };
        self.process.rest(rest).await
    }

    async fn sleep_until_overtaken(&mut self, token: u64) -> bool {
        let until = Instant::now() + SLEEP_MAX;
        while self.newest.load(Ordering::Relaxed) <= token && Instant::now() < until {
            if !self.process.rest(LOOK).await {
                return false;
            }
        }
        true
    }
}
