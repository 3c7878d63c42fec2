//! Locks with a lease that nobody prolongs, and holders that now and then sleep longer than it lives, as a process does whose
//! machine stands still. With the condition that the lock is still held their writes are safe; without it they are not.

use super::ask::LOCK_TTL;
use super::lease::lease_id;
use super::process::{Process, Shared};
use super::{Kind, number, together};
use crate::history::{Outcome, Request};
use rand::RngExt;
use std::sync::Arc;
use std::time::Duration;

const PROCESSES: u64 = 4;
const LOCKS: u64 = 2;
const WRITES_MAX: u32 = 6;
/// Of a hundred holders, how many sleep past their lease.
const SLEEPERS_PERCENT: u32 = 30;

pub(super) async fn run(shared: Arc<Shared>, per_second: f64, fenced: bool) -> Vec<String> {
    let kind = if fenced {
        Kind::Lock
    } else {
        Kind::LockUnfenced
    };
    together(PROCESSES, |process| {
        let lock = format!("{}-{}", kind.name(), process % LOCKS);
        let per_second = per_second / PROCESSES as f64;
        let process = Process::new(&shared, number(kind, 0, process), per_second);
        run_process(process, lock, fenced)
    })
    .await;
    Vec::new()
}

async fn run_process(mut process: Process, lock: String, fenced: bool) {
    while process.is_due().await {
        let acquire = Request::Acquire {
            lock: lock.clone(),
            lease: lease_id(&process),
        };
        let Outcome::Ok(reply) = process.ask(acquire).await else {
            continue;
        };
        let Some(token) = reply.revision.filter(|_| reply.took_effect()) else {
            if !process.rest(Duration::from_millis(100)).await {
                return;
            }
            continue;
        };
        for _ in 0..process.rng.random_range(1..=WRITES_MAX) {
            let sleeps = process.rng.random_range(0..100) < SLEEPERS_PERCENT / WRITES_MAX;
            let rest = if sleeps {
                Duration::from_secs(LOCK_TTL * 2)
            } else {
                Duration::from_millis(process.rng.random_range(5..50))
            };
            if !process.rest(rest).await {
                return;
            }
            let write = Request::Guarded {
                lock: lock.clone(),
                token,
                fenced,
            };
            process.ask(write).await;
        }
        let lock = lock.clone();
        process.ask(Request::Release { lock, token }).await;
    }
}
