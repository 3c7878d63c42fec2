//! What people ask of the schedules: any master answers.

use super::plan;
use super::records::{self, Entry, Request, State};
use crate::clock;
use crate::pki::Authority;
use crate::vault::{self, Holder};
use anyhow::Result;
use mvcc::{Consistency, Store};
use objects::snapshots::{
    SnapshotList, SnapshotRequested, SnapshotSchedule, SnapshotScheduleList, SnapshotSchedulePut,
    SnapshotScheduleStatus, SnapshotSeal, SnapshotTarget,
};
use objects::{Reason, Status, Timestamp, names};
use raft_store::RaftStore;
use std::time::Duration;

/// Schedules of one cluster at most.
const SCHEDULES_MAX: usize = 16;

/// The schedules in the store.
#[derive(Clone)]
pub struct Settings {
    /// Where they are.
    pub store: RaftStore,
    /// Locks their secrets.
    pub authority: Authority,
}

impl Settings {
    /// All schedules and how they go.
    pub async fn list(&self) -> Result<SnapshotScheduleList, Status> {
        let entries = records::entries(&self.store, Consistency::Linearizable)
            .await
            .map_err(unavailable)?;
        let now = clock::now();
        let schedules = entries
            .into_iter()
            .map(|entry| status_of(entry, now))
            .collect();
        Ok(SnapshotScheduleList { schedules })
    }

    /// One of them.
    pub async fn get(&self, name: &str) -> Result<SnapshotScheduleStatus, Status> {
        Ok(status_of(self.entry(name).await?, clock::now()))
    }

    /// Makes or changes one.
    pub async fn put(
        &self,
        name: &str,
        put: SnapshotSchedulePut,
    ) -> Result<SnapshotScheduleStatus, Status> {
        let entries = records::entries(&self.store, Consistency::Linearizable)
            .await
            .map_err(unavailable)?;
        let before = entries.iter().find(|entry| entry.schedule.name == name);
        if before.is_none() && entries.len() >= SCHEDULES_MAX {
            return Err(Status::bad_request(format!(
                "there are {SCHEDULES_MAX} schedules already; remove one first"
            )));
        }
        let mut schedule = SnapshotSchedule {
            name: name.to_owned(),
            ..put.schedule
        };
        check(&schedule)?;
        if let Some(passphrase) = put.passphrase {
            let holder =
                tokio::task::spawn_blocking(move || Holder::of_passphrase(&passphrase.0)).await;
            schedule.seal = holder.map_err(Status::internal)?.map_err(wrong)?.to_seal();
        } else if let SnapshotSeal::Passphrase { .. } = schedule.seal {
            // Only what was made here before may stay.
            if before.is_none_or(|entry| entry.schedule.seal != schedule.seal) {
                return Err(Status::bad_request(
                    "give the passphrase itself; the key that follows from it is made here",
                ));
            }
        }
        Holder::of_seal(&schedule.seal).map_err(wrong)?;
        self.lock_secret(&mut schedule, before)?;
        let state = State::new(clock::now());
        records::put_schedule(&self.store, &schedule, &state)
            .await
            .map_err(unavailable)?;
        self.get(name).await
    }

    /// Forgets one; its snapshots stay.
    pub async fn remove(&self, name: &str) -> Result<(), Status> {
        match records::remove_schedule(&self.store, name)
            .await
            .map_err(unavailable)?
        {
            true => Ok(()),
            false => Err(unknown(name)),
        }
    }

    /// Asks the leader for a run now.
    pub async fn request(&self, name: &str) -> Result<SnapshotRequested, Status> {
        let state = self.entry(name).await?.state;
        let last = state.and_then(|kept| kept.value.last).map(|last| last.due);
        // Whole seconds, as a moment is written, and none that was served already.
        let now = Timestamp::from_unix(clock::now().0.as_second());
        let due = last.map_or(now, |last| now.max(last.plus(Duration::from_secs(1))));
        records::put_request(&self.store, name, &Request { due })
            .await
            .map_err(unavailable)?;
        Ok(SnapshotRequested { due })
    }

    /// All snapshots, the newest first.
    pub async fn saved(&self) -> Result<SnapshotList, Status> {
        let mut snapshots = records::saved(&self.store, Consistency::Linearizable)
            .await
            .map_err(unavailable)?;
        snapshots.sort_by(|one, other| {
            other
                .saved
                .cmp(&one.saved)
                .then_with(|| other.name.cmp(&one.name))
        });
        Ok(SnapshotList { snapshots })
    }

    async fn entry(&self, name: &str) -> Result<Entry, Status> {
        let store: &dyn Store = &self.store;
        let found = records::entry(store, name).await.map_err(unavailable)?;
        found.ok_or_else(|| unknown(name))
    }

    /// The secret as the store keeps it: the new one locked, or the one that is there already, for the same access key.
    fn lock_secret(
        &self,
        schedule: &mut SnapshotSchedule,
        before: Option<&Entry>,
    ) -> Result<(), Status> {
        let SnapshotTarget::S3(target) = &mut schedule.target else {
            return Ok(());
        };
        if let Some(secret) = &mut target.secret_access_key {
            secret.0 = vault::lock_for_masters(&self.authority, &secret.0).map_err(wrong)?;
        } else if let Some(SnapshotTarget::S3(former)) = before.map(|entry| &entry.schedule.target)
            && former.access_key_id == target.access_key_id
        {
            target
                .secret_access_key
                .clone_from(&former.secret_access_key);
        }
        match target.access_key_id.is_some() == target.secret_access_key.is_some() {
            true => Ok(()),
            false => Err(Status::bad_request(
                "an S3 access key and its secret are given both or none",
            )),
        }
    }
}

fn check(schedule: &SnapshotSchedule) -> Result<(), Status> {
    if let Some(fault) = names::dns1123_label(&schedule.name).first() {
        return Err(Status::bad_request(format!(
            "the schedule's name {:?} is not valid: {fault}",
            schedule.name
        )));
    }
    match &schedule.target {
        SnapshotTarget::Folder { path } if !path.starts_with('/') => {
            return Err(Status::bad_request(format!(
                "the folder {path:?} must be an absolute path: it is one of the leading master's"
            )));
        }
        SnapshotTarget::S3(target) if target.bucket.is_empty() || target.bucket.contains('/') => {
            return Err(Status::bad_request(format!(
                "{:?} is no bucket's name",
                target.bucket
            )));
        }
        _ => {}
    }
    plan::check(schedule).map_err(wrong)
}

fn status_of(entry: Entry, now: Timestamp) -> SnapshotScheduleStatus {
    let mut schedule = entry.schedule;
    if let SnapshotTarget::S3(target) = &mut schedule.target {
        target.secret_access_key = None;
    }
    let state = entry
        .state
        .map_or_else(|| State::new(now), |kept| kept.value);
    let overdue = plan::due(&schedule, state.done, None, now).map(|_| now);
    let next = match (entry.request, state.retry_at) {
        (Some(_), _) => Some(now),
        (None, Some(retry_at)) => Some(retry_at),
        (None, None) => overdue.or_else(|| plan::next(&schedule, now)),
    };
    SnapshotScheduleStatus {
        next,
        running: state.running,
        last: state.last,
        last_success: state.last_success,
        failures: state.failures,
        schedule,
    }
}

fn unknown(name: &str) -> Status {
    Status::failure(
        404,
        Reason::NotFound,
        format!("there is no snapshot schedule {name:?}"),
    )
}

fn wrong(error: anyhow::Error) -> Status {
    Status::bad_request(format!("{error:#}"))
}

fn unavailable(error: anyhow::Error) -> Status {
    tracing::warn!(
        error = format!("{error:#}"),
        "the snapshots' records were not to be had"
    );
    Status::unavailable(format!("{error:#}"))
}
