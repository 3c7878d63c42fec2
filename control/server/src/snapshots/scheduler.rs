//! Runs what is due, on the master that leads, one at a time; and deletes what is old.
//!
//! ```text
//!            due or asked              saved
//! waiting ────────────────► running ──────────► waiting (done = due)
//!    ▲                        │  │ failed
//!    └── by the next leader, ─┘  └────────────► waiting (tried again later)
//!        when this one is gone
//! ```

use super::plan;
use super::records::{self, Claim, Entry, State};
use super::run::{Progress, Runner};
use crate::clock;
use anyhow::Result;
use etcd::family::counter;
use futures::StreamExt;
use mvcc::{Consistency, LeaderState, Store};
use objects::snapshots::{
    SavedSnapshot, SnapshotProgress, SnapshotRun, SnapshotSchedule, SnapshotTarget,
};
use objects::{Term, Timestamp};
use prometheus::proto::MetricFamily;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the schedules are looked at. The local replica answers, so it costs nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a run tells how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// How often old snapshots in this master's folder are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What the runs on this master came to since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Runs that saved a snapshot.
    pub saved: AtomicU64,
    /// Runs that did not.
    pub failed: AtomicU64,
}

impl Counters {
    /// For Prometheus.
    pub fn families(&self) -> Vec<MetricFamily> {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            counter(
                "trireme_snapshot_runs_saved_total",
                "The number of scheduled snapshots that this master saved since it started.",
                get(&self.saved),
            ),
            counter(
                "trireme_snapshot_runs_failed_total",
                "The number of scheduled snapshots that this master failed to save since it started.",
                get(&self.failed),
            ),
        ]
    }
}

/// Runs the schedules.
pub struct Scheduler {
    /// Does a run.
    pub runner: Runner,
    /// Counts them.
    pub counters: Arc<Counters>,
}

impl Scheduler {
    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        // What a killed process was verifying.
        if let Err(error) = std::fs::remove_dir_all(&self.runner.scratch)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the folder in which snapshots are verified could not be emptied");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow_leadership() => {}
            () = self.sweep_own_folder() => {}
        }
    }

    async fn follow_leadership(&self) {
        let mut leader = self.runner.store.leader();
        let mut state = LeaderState::default();
        loop {
            // A run that goes on when leadership is lost is dropped, and takes its unfinished file or upload with it.
            tokio::select! {
                change = leader.next() => match change {
                    Some(change) => state = change,
                    None => return,
                },
                () = self.lead(state.term), if state.is_leader => {}
            }
        }
    }

    async fn lead(&self, term: Term) {
        loop {
            if let Err(error) = self.look(term).await {
                tracing::warn!(%error, "the snapshots' schedules could not be looked at; trying again");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&self, term: Term) -> Result<()> {
        let store: &dyn Store = &self.runner.store;
        for entry in records::entries(store, Consistency::Stale).await? {
            let mut claim = Claim {
                name: entry.schedule.name.clone(),
                term,
                revision: entry
                    .state
                    .as_ref()
                    .map_or(objects::Revision(0), |kept| kept.revision),
            };
            let now = clock::now();
            let state = entry
                .state
                .as_ref()
                .map_or_else(|| State::new(now), |kept| kept.value.clone());
            if let Some(interrupted) = &state.running {
                // This master runs nothing now, so whoever began it is gone.
                let state = after_failure(
                    &state,
                    interrupted,
                    "its master stopped leading before it was done",
                    None,
                    now,
                );
                claim.write(store, &state, Vec::new()).await?;
                continue;
            }
            if let Some(due) = wanted(&entry, &state, now) {
                self.work(&entry.schedule, state, due, claim).await?;
            }
        }
        Ok(())
    }

    /// Claims the run, does it, and notes what came of it.
    async fn work(
        &self,
        schedule: &SnapshotSchedule,
        state: State,
        due: Timestamp,
        mut claim: Claim,
    ) -> Result<()> {
        let store: &dyn Store = &self.runner.store;
        let is_asked = plan::due(schedule, state.done, state.retry_at, due) != Some(due);
        let mut running = SnapshotProgress {
            due,
            by: self.runner.identity.name.clone(),
            started: clock::now(),
            phase: objects::snapshots::SnapshotPhase::Saving,
            bytes: 0,
        };
        let mut state = State {
            running: Some(running.clone()),
            ..state
        };
        if !claim
            .write(store, &state, vec![records::drop_request(&schedule.name)])
            .await?
        {
            return Ok(()); // Another leader has it, or the schedule was changed: looked at again.
        }
        let progress = Progress::default();
        let mut save = std::pin::pin!(self.runner.save(schedule, due, &progress));
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        let saved = loop {
            tokio::select! {
                saved = &mut save => break saved,
                _ = ticks.tick() => {
                    let (phase, bytes) = progress.now();
                    if (phase, bytes) != (running.phase, running.bytes) {
                        (running.phase, running.bytes) = (phase, bytes);
                        state.running = Some(running.clone());
                        // A schedule that was removed meanwhile ends its run.
                        if !claim.write(store, &state, Vec::new()).await? {
                            return Ok(());
                        }
                    }
                }
            }
        };
        let now = clock::now();
        let (state, more) = match saved {
            Ok(saved) => {
                self.counters.saved.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    schedule = schedule.name,
                    name = saved.name,
                    bytes = saved.bytes,
                    revision = saved.revision,
                    verified = saved.verified,
                    "a snapshot was saved"
                );
                let note = records::note_saved(&saved);
                (after_success(&state, &running, saved, now), vec![note])
            }
            Err(error) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    schedule = schedule.name,
                    error = format!("{error:#}"),
                    "a snapshot was not saved; it is tried again later"
                );
                // What somebody asked for is for that person to try again.
                let retry_at = match is_asked {
                    true => state.retry_at,
                    false => Some(plan::retry_at(state.failures + 1, now)),
                };
                (
                    after_failure(&state, &running, &format!("{error:#}"), retry_at, now),
                    Vec::new(),
                )
            }
        };
        claim.write(store, &state, more).await?;
        self.sweep(schedule, now).await
    }

    /// Deletes what is old: from a bucket, or from this master's folder.
    async fn sweep(&self, schedule: &SnapshotSchedule, now: Timestamp) -> Result<()> {
        let store: &dyn Store = &self.runner.store;
        let all = records::saved(store, Consistency::Stale).await?;
        let own = &self.runner.identity.name;
        for old in plan::expired(schedule, &all, now) {
            if old.on.as_ref().is_some_and(|on| on != own) {
                continue; // The master whose folder it is does it.
            }
            match self.runner.delete(schedule, old).await {
                Ok(()) => {
                    records::forget_saved(store, old).await?;
                    tracing::info!(
                        schedule = schedule.name,
                        name = old.name,
                        "an old snapshot was deleted"
                    );
                }
                Err(error) => tracing::warn!(
                    name = old.name,
                    error = format!("{error:#}"),
                    "an old snapshot was not deleted; it is tried again after the next one"
                ),
            }
        }
        Ok(())
    }

    /// A master that saved snapshots while it led deletes them also when it leads no longer.
    async fn sweep_own_folder(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            let entries = records::entries(&self.runner.store, Consistency::Stale)
                .await
                .unwrap_or_default();
            for entry in entries {
                if matches!(entry.schedule.target, SnapshotTarget::Folder { .. })
                    && let Err(error) = self.sweep(&entry.schedule, clock::now()).await
                {
                    tracing::debug!(%error, "old snapshots were not looked for; trying again");
                }
            }
        }
    }
}

/// The moment for which the schedule must run now, if it must.
fn wanted(entry: &Entry, state: &State, now: Timestamp) -> Option<Timestamp> {
    match &entry.request {
        Some(request) => Some(request.value.due),
        None => plan::due(&entry.schedule, state.done, state.retry_at, now),
    }
}

fn after_success(
    state: &State,
    running: &SnapshotProgress,
    saved: SavedSnapshot,
    now: Timestamp,
) -> State {
    let run = ended(running, now, Some(saved), None);
    State {
        done: state.done.max(running.due),
        running: None,
        last: Some(run.clone()),
        last_success: Some(run),
        failures: 0,
        retry_at: None,
    }
}

fn after_failure(
    state: &State,
    running: &SnapshotProgress,
    error: &str,
    retry_at: Option<Timestamp>,
    now: Timestamp,
) -> State {
    State {
        running: None,
        last: Some(ended(running, now, None, Some(error.to_owned()))),
        failures: state.failures.saturating_add(1),
        retry_at,
        ..state.clone()
    }
}

fn ended(
    running: &SnapshotProgress,
    now: Timestamp,
    saved: Option<SavedSnapshot>,
    error: Option<String>,
) -> SnapshotRun {
    SnapshotRun {
        due: running.due,
        by: running.by.clone(),
        started: running.started,
        ended: now,
        saved,
        error,
    }
}
