//! Leases: each is granted with a key, kept alive some times, left, and asked for until its key is gone.

use super::process::{Process, Shared};
use super::{Kind, number, together};
use crate::history::{Outcome, Request, Told};
use rand::RngExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PROCESSES: u64 = 6;
const TTL_MIN: u64 = 2;
const TTL_MAX: u64 = 4;
const KEEP_ALIVES_MAX: u32 = 6;
/// Between two looks at whether a key is gone.
const LOOK: Duration = Duration::from_millis(150);
/// A key that outlives its lease by this much is left; the checker has seen enough.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn run(shared: Arc<Shared>, per_second: f64) -> Vec<String> {
    // Leases take their time; more of them at once make the rate.
    let processes = PROCESSES.max((per_second / 4.0) as u64).min(64);
    together(processes, |process| {
        let process = Process::new(&shared, number(Kind::Lease, 0, process), 1000.0);
        run_process(process)
    })
    .await;
    Vec::new()
}

async fn run_process(mut process: Process) {
    while process.is_due().await {
        let lease = lease_id(&process);
        let ttl = process.rng.random_range(TTL_MIN..=TTL_MAX);
        let Outcome::Ok(granted) = process.ask(Request::Grant { lease, ttl }).await else {
            if !process.rest(Duration::from_millis(200)).await {
                return;
            }
            continue;
        };
        let ttl = match granted.told {
            Told::Lease { ttl } => Duration::from_secs(ttl),
            _ => continue,
        };
        for _ in 0..process.rng.random_range(0..=KEEP_ALIVES_MAX) {
            if !process.rest(ttl.div_f64(3.0)).await {
                return;
            }
            process.ask(Request::KeepAlive { lease }).await;
        }
        if process.rng.random_range(0..10) == 0 {
            process.ask(Request::Revoke { lease }).await;
        }
        if !look_until_gone(&mut process, lease, ttl + PATIENCE).await {
            return;
        }
    }
}

async fn look_until_gone(process: &mut Process, lease: u64, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if !process.rest(LOOK).await {
            return false;
        }
        let outcome = process.ask(Request::IsAttached { lease }).await;
        if let Outcome::Ok(reply) = outcome
            && reply.told == (Told::Held { held: false })
        {
            break;
        }
    }
    true
}

/// A lease's number is the client's choice; this one belongs to nobody else, also not to an earlier run on the same store.
pub(super) fn lease_id(process: &Process) -> u64 {
    let run = process.shared.prefix.bytes().fold(0_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    (run & 0xffff) << 40 | process.shared.number()
}
