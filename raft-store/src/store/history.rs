//! The past as a member keeps it: the leader notes times, and forgets what is too old or too much; each member then deletes for
//! itself what was forgotten, and gives its room back.
//!
//! What is too old is decided by the leases' clock, never by the wall clock (see [`mvcc::Command::Tick`]). Deleting goes in slices
//! between the entries that are applied, with a rest after each that grows with what the slice took, so that writes wait a few
//! milliseconds at most. Room is given back by RocksDB's background compaction of the files that hold deletions: nothing is
//! rewritten as a whole and nothing stops.

use super::Inner;
use crate::{clock, runtime};
use mvcc::{Command, Excess, HistoryLimits, Meta};
use objects::Revision;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// How often to look whether there is something to sweep.
const SWEEP_LOOK: Duration = Duration::from_millis(500);
/// After a slice the sweeper rests for so many times what it took.
const SWEEP_REST: u32 = 4;
/// After so many bytes were forgotten it is worth giving their room back.
const GIVE_BACK_BYTES: u64 = 8 << 20;

/// Notes times and forgets, while this member leads, as long as it runs.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut noted = Revision(0);
    let mut steps = interval(inner.config.limits.history_step);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        steps.tick().await;
        if !inner.leader.borrow().is_leader {
            noted = Revision(0);
            continue;
        }
        note_time(&inner, &mut noted).await;
        forget(&inner).await;
    }
}

/// Notes the time, if something was written since it was noted last.
async fn note_time(inner: &Inner, noted: &mut Revision) {
    let revision = inner.applied.borrow().revision;
    if revision <= *noted {
        return;
    }
    let tick = Command::Tick {
        wall_ms: clock::now_ms(),
        now_ms: inner.lease_now_ms(),
    };
    match inner.propose(tick).await {
        Ok(_) => *noted = revision,
        Err(err) => tracing::debug!(error = %err, "the time was not noted; trying again"),
    }
}

/// Forgets what is too old or too much.
async fn forget(inner: &Arc<Inner>) {
    let (db, clock_ms, limits) = (
        inner.db.clone(),
        inner.lease_now_ms(),
        inner.history_limits(),
    );
    let looked =
        runtime::spawn_blocking(move || mvcc::to_forget(&db.view(), limits, clock_ms)).await;
    let (revision, excess) = match looked {
        Ok(Ok(Some(found))) => found,
        Ok(Ok(None)) | Err(_) => return,
        Ok(Err(err)) => {
            tracing::error!(error = %err, "the age of history cannot be read");
            return;
        }
    };
    match (inner.propose(Command::Compact { revision }).await, excess) {
        (Ok(_), Excess::Age) => {
            tracing::debug!(%revision, "history before this revision is old and was forgotten")
        }
        (Ok(_), Excess::Size) => tracing::warn!(
            %revision,
            keep_bytes = limits.keep_bytes,
            "so much was written that history before this revision was forgotten before its time"
        ),
        (Err(err), _) => {
            tracing::warn!(%revision, error = %err, "old history was not forgotten; trying again later");
        }
    }
}

impl Inner {
    /// How much of the past is kept: what the cluster set, else what this member was opened with.
    pub fn history_limits(&self) -> HistoryLimits {
        let set = Meta::load(&self.db.live())
            .ok()
            .and_then(|meta| meta.history_limits);
        set.unwrap_or(self.config.limits.history)
    }
}

/// Deletes what was forgotten, as long as the member runs.
pub(crate) async fn sweep(inner: Arc<Inner>) {
    let mut given_back = forgotten_bytes(&inner);
    loop {
        sleep(SWEEP_LOOK).await;
        loop {
            let began = Instant::now();
            let slice = inner
                .raft
                .with_state_machine(|state| Box::pin(async move { state.sweep() }))
                .await;
            let is_done = match slice {
                Ok(Ok(is_done)) => is_done,
                Ok(Err(err)) => {
                    tracing::error!(error = %err, "old history cannot be deleted");
                    true
                }
                Err(_) => return, // The member stops.
            };
            if is_done {
                break;
            }
            sleep(began.elapsed() * SWEEP_REST).await;
        }
        let forgotten = forgotten_bytes(&inner);
        if forgotten.saturating_sub(given_back) >= GIVE_BACK_BYTES {
            given_back = forgotten;
            give_back(&inner).await;
        }
    }
}

/// The bytes of all changes that were ever forgotten; zero when they cannot be told, which the next look finds out.
fn forgotten_bytes(inner: &Inner) -> u64 {
    let view = inner.db.view();
    match (Meta::load(&view), mvcc::past(&view)) {
        (Ok(meta), Ok(past)) => meta.written_bytes.saturating_sub(past.bytes),
        _ => 0,
    }
}

async fn give_back(inner: &Arc<Inner>) {
    let db = inner.db.clone();
    match runtime::spawn_blocking(move || db.give_back()).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(err)) => {
            tracing::warn!(error = %err, "the room of deleted history was not given back yet");
        }
    }
}
