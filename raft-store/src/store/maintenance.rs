//! What a member does by itself, now and then: leaves the lead when its disk hangs, cuts a log that grew large, tells watchers
//! their progress; and as leader ends leases and makes voters of learners that caught up. What it does about the past is said by
//! `history`.

use super::{Inner, leases, space};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

const TICK: Duration = Duration::from_millis(500);
/// Ticks between two looks at the sizes of log and disk.
const LOG_TICKS: u64 = 10;
/// Ticks between two progress notices to watchers.
const PROGRESS_TICKS: u64 = 10;
/// A log that is too large is cut to so many applied entries.
const ENTRIES_KEPT_OF_A_LARGE_LOG: u64 = 500;

/// Runs as long as the member does.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0u64.. {
        ticks.tick().await;
        leave_to_a_faster_disk(&inner).await;
        crate::membership::promote_learners(&inner).await;
        leases::expire(&inner).await;
        if tick % LOG_TICKS == 0 {
            cut_log(&inner).await;
            space::look(&inner);
        }
        if tick % PROGRESS_TICKS == 0 {
            inner.hub.progress();
        }
    }
}

/// A leader whose disk hangs would slow everybody down.
async fn leave_to_a_faster_disk(inner: &Inner) {
    let writing_for = inner.metrics.writing_for();
    if writing_for < inner.config.timings.slow_disk || !inner.leader.borrow().is_leader {
        return;
    }
    tracing::warn!(?writing_for, "the disk is slow; handing leadership over");
    if let Err(err) = crate::membership::transfer_here(inner, None).await {
        tracing::warn!(error = %err, "leadership stays on a member with a slow disk");
    }
}

async fn cut_log(inner: &Inner) {
    if inner.log.bytes() <= inner.config.limits.log_bytes_max {
        return;
    }
    let Some(applied) = inner.applied.borrow().log_id else {
        return;
    };
    let upto = applied.index.saturating_sub(ENTRIES_KEPT_OF_A_LARGE_LOG);
    tracing::info!(
        bytes = inner.log.bytes(),
        upto,
        "the log is large and will be cut"
    );
    let trigger = inner.raft.trigger();
    if trigger.snapshot().await.is_err() || trigger.purge_log(upto).await.is_err() {
        tracing::debug!("the log was not cut, since the member is stopping");
    }
}

/// How far each member's log is, as the leader knows it: None on other members.
pub(crate) fn matched(inner: &Inner) -> Option<(u64, Vec<(u64, u64)>)> {
    let data = inner.raft.data_metrics();
    let data = data.borrow_watched();
    let last = data.last_log.map_or(0, |log_id| log_id.index);
    let replication = data.replication.as_ref()?;
    let matched = replication
        .iter()
        .map(|(id, log_id)| (*id, log_id.map_or(0, |log_id| log_id.index)));
    Some((last, matched.collect()))
}
