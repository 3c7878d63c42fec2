//! What a member does by itself, now and then: leaves the lead when its disk hangs, brings the state to disk and cuts the log,
//! tells watchers their progress; and as leader ends leases and makes voters of learners that caught up. What it does about the
//! past is said by `history`.

use super::{Inner, contact, leases, slow};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

const TICK: Duration = Duration::from_millis(500);
/// Ticks between two progress notices to watchers.
const PROGRESS_TICKS: u64 = 10;
/// How much of the state may be in memory and the log alone: a restart applies it again, at tens of megabytes a second.
const UNPERSISTED_BYTES_MAX: u64 = 24 << 20;

/// Runs as long as the member does.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut leave = slow::Leave::default();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0u64.. {
        ticks.tick().await;
        leave.look(&inner).await;
        crate::membership::finish_changes(&inner).await;
        leases::expire(&inner).await;
        persist(&inner).await;
        if tick % PROGRESS_TICKS == 0 {
            inner.hub.progress();
            contact::keep(&inner);
        }
    }
}

/// Brings the state to disk when much of it would have to be applied again, and then cuts the log down to what members that
/// were away for a moment need.
async fn persist(inner: &Inner) {
    inner.log.note_committed().await;
    let trigger = inner.raft.trigger();
    let is_large = inner.log.bytes() > inner.config.limits.log_bytes_max;
    let must_persist = inner.db.unpersisted_bytes() > UNPERSISTED_BYTES_MAX || is_large;
    if must_persist && trigger.snapshot().await.is_err() {
        tracing::debug!("the state was not persisted, since the member is stopping");
    }
    // Only what a snapshot has can be cut, so the one just begun shows at the next tick.
    if is_large
        && let Some(upto) = inner.log.newest(inner.config.limits.log_bytes_max / 2)
        && trigger.purge_log(upto).await.is_err()
    {
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
