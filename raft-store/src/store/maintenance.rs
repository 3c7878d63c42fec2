//! What a member does by itself, now and then: leaves the lead when its disk hangs, sweeps compacted history, cuts a log that grew large, tells watchers their
//! progress; and as leader ends leases, forgets history by age and makes voters of learners that caught up.

use super::{Inner, leases, space};
use crate::clock;
use crate::db::{Family, WriteBatch};
use mvcc::{Command, Meta};
use objects::Revision;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

const TICK: Duration = Duration::from_millis(500);
/// Ticks between two looks at the sizes of log and disk.
const LOG_TICKS: u64 = 10;
/// Ticks between two progress notices to watchers.
const PROGRESS_TICKS: u64 = 10;
/// Ticks between two looks at the age of history.
const AGE_TICKS: u64 = 120;
/// Into so many steps the kept history is divided.
const AGE_STEPS: u32 = 48;
/// A log that is too large is cut to so many applied entries.
const ENTRIES_KEPT_OF_A_LARGE_LOG: u64 = 500;

const AGES_KEY: &[u8] = b"history-ages";

/// Runs as long as the member does.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut ages = Ages::load(&inner);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0u64.. {
        ticks.tick().await;
        sweep(&inner).await;
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
        if tick % AGE_TICKS == 0 {
            ages.look(&inner, clock::now_ms()).await;
        }
    }
}

/// Deletes compacted history, a slice at a time, between the entries that are applied.
async fn sweep(inner: &Inner) {
    loop {
        let swept = inner
            .raft
            .with_state_machine(|state| Box::pin(async move { state.sweep() }))
            .await;
        match swept {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) | Err(_) => return,
            Ok(Err(err)) => {
                tracing::error!(error = %err, "old history cannot be deleted");
                return;
            }
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

/// When which revision was the newest, oldest first, by this member's clock. Kept on disk, so that restarts forget nothing.
#[derive(Default, Serialize, Deserialize)]
struct Ages {
    samples: VecDeque<(u64, Revision)>,
}

impl Ages {
    fn load(inner: &Inner) -> Self {
        match inner.db.own(AGES_KEY) {
            Ok(Some(json)) => serde_json::from_slice(&json).unwrap_or_default(),
            _ => Ages::default(),
        }
    }

    async fn look(&mut self, inner: &Inner, now_ms: u64) {
        let history_ms = u64::try_from(inner.config.limits.history.as_millis()).unwrap_or(u64::MAX);
        let revision = inner.applied.borrow().revision;
        let old = self.take(now_ms, history_ms, revision);
        let json = serde_json::to_vec(self).expect("samples are plain numbers");
        let mut batch = WriteBatch::default();
        batch.put(Family::Own, AGES_KEY, json);
        if let Err(err) = inner.db.write(batch) {
            tracing::warn!(error = %err, "the age of history cannot be noted");
        }
        if let Some(revision) = old
            && inner.leader.borrow().is_leader
        {
            forget(inner, revision).await;
        }
    }

    /// Adds a sample when the last one is old enough; returns the revision before which history is too old.
    fn take(&mut self, now_ms: u64, history_ms: u64, revision: Revision) -> Option<Revision> {
        let step_ms = history_ms / u64::from(AGE_STEPS);
        if self
            .samples
            .back()
            .is_none_or(|(at_ms, _)| now_ms.saturating_sub(*at_ms) >= step_ms)
        {
            self.samples.push_back((now_ms, revision));
        }
        let mut old = None;
        while let Some((at_ms, revision)) = self.samples.front()
            && now_ms.saturating_sub(*at_ms) >= history_ms
        {
            old = Some(*revision);
            self.samples.pop_front();
        }
        old
    }
}

async fn forget(inner: &Inner, revision: Revision) {
    let compacted = Meta::load(&inner.db.live()).map(|meta| meta.compacted);
    if compacted.is_ok_and(|compacted| revision <= compacted) {
        return;
    }
    match inner.propose(Command::Compact { revision }).await {
        Ok(_) => tracing::info!(%revision, "history before this revision is old and was forgotten"),
        Err(err) => {
            tracing::warn!(%revision, error = %err, "old history was not forgotten; trying again later")
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_forgotten_by_age_in_steps() {
        let mut ages = Ages::default();
        let day_ms = 48 * 100;
        let mut forgotten = Vec::new();
        for minute in 0..200u64 {
            if let Some(revision) = ages.take(minute * 50, day_ms, Revision(1000 + minute)) {
                forgotten.push((minute, revision.0));
            }
        }
        assert_eq!(forgotten.first(), Some(&(96, 1000)));
        assert_eq!(forgotten.get(1), Some(&(98, 1002)));
        assert!(ages.samples.len() <= 49);
    }
}
