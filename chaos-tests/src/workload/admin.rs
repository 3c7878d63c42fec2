//! What an administrator does meanwhile: compaction, hashes of all members at one revision, snapshots.

use super::process::{Process, Shared};
use super::{Kind, LAST_WORD_DEADLINE, number};
use crate::history::{Outcome, Request};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two compactions, each followed by hashes.
const COMPACT_EVERY: Duration = Duration::from_secs(2);
/// Each so many compactions a snapshot is fetched.
const SNAPSHOT_EVERY: u32 = 5;
/// How many revisions a compaction leaves.
const KEPT: u64 = 300;

pub(super) async fn run(shared: Arc<Shared>) -> Vec<String> {
    let mut process = Process::new(&shared, number(Kind::Admin, 0, 0), 10.0);
    for round in 1_u32.. {
        if !process.rest(COMPACT_EVERY).await {
            break;
        }
        let newest = shared.newest();
        if newest > KEPT {
            let revision = newest - KEPT;
            process.ask(Request::Compact { revision }).await;
        }
        for at in 0..shared.members() {
            process.ask_at(at, Request::Hash { revision: newest }).await;
        }
        if round.is_multiple_of(SNAPSHOT_EVERY) {
            process.ask(Request::Snapshot).await;
        }
    }
    last_hashes(&mut process).await
}

/// Every member's hash at the last revision.
async fn last_hashes(process: &mut Process) -> Vec<String> {
    let revision = process.shared.newest();
    let mut missing = Vec::new();
    for at in 0..process.shared.members() {
        let until = Instant::now() + LAST_WORD_DEADLINE;
        loop {
            let outcome = process.ask_at(at, Request::Hash { revision }).await;
            if let Outcome::Ok(_) = outcome {
                break;
            }
            if Instant::now() > until {
                missing.push(format!("the hash of {}", process.shared.endpoint(at).name));
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    missing
}
