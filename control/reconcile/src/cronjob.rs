//! Starts a CronJob's jobs when they are due, and forgets the oldest of those that finished.
//!
//! A job's name follows from the minute for which it is due, so that one minute never starts two. Of several minutes that
//! were missed only the last is made up for. Times are UTC. Semantics: Kubernetes' `cronjob_controllerv2`.

use crate::children;
use crate::controller::{Asked, Change, Controller, Record, World};
use crate::job::finished_at;
use crate::plan::{Action, EventType, Plan, Precondition, Propagation};
use crate::status::StatusEdit;
use crate::view::{Viewed, resources};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use objects::cron::Schedule;
use objects::{GroupVersionKind, Object, ObjectError, ObjectKey, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The time for which a job was due, on the job.
const DUE_ANNOTATION: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than these are told to people: the clock jumped, or the job was suspended for long.
const MISSED_MAX: usize = 100;

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The cron job.
    pub cron: Viewed<CronJob>,
    /// The jobs that it controls.
    pub jobs: Vec<Viewed<Job>>,
}

/// Returns which job to start, which to forget, and when to look again.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let cron = &input.cron;
    if cron.is_deleting() {
        return Plan::nothing();
    }
    let mut actions = forget(input);
    let schedule = cron.spec("schedule").and_then(Value::as_str);
    let schedule = schedule.and_then(|text| Schedule::parse(text).ok());
    let mut edit = StatusEdit::of(cron);
    let mut wake_at = None;
    if let Some(schedule) = schedule.filter(|_| cron.spec("suspend") != Some(&json!(true))) {
        wake_at = schedule.next_after(now);
        let due = last_due(cron, &schedule, now, &mut actions);
        if let Some(due) = due.filter(|due| start(input, *due, now, &mut actions)) {
            edit.set("lastScheduleTime", json!(due));
        }
    }
    tell(input, &mut edit);
    Plan {
        actions,
        status: edit.into_update(cron, resources::cronjobs()),
        wake_at,
    }
}

fn is_active(job: &Viewed<Job>) -> bool {
    finished_at(job).is_none()
}

fn number(cron: &Viewed<CronJob>, name: &str) -> Option<u64> {
    cron.spec(name).and_then(Value::as_u64)
}

/// The last time that was due and has no job yet.
fn last_due(
    cron: &Viewed<CronJob>,
    schedule: &Schedule,
    now: Timestamp,
    actions: &mut Vec<Action>,
) -> Option<Timestamp> {
    let status = cron.object.body.get("status");
    let last = status.and_then(|status| status.get("lastScheduleTime")?.as_str());
    let last = last.and_then(Timestamp::parse);
    let mut since = last.or(cron.object.metadata.creation_timestamp)?;
    if let Some(seconds) = number(cron, "startingDeadlineSeconds") {
        since = since.max(now.minus(Duration::from_secs(seconds)));
    }
    let mut due = None;
    let mut missed = 0;
    while let Some(at) = schedule
        .next_after(due.unwrap_or(since))
        .filter(|at| *at <= now)
    {
        due = Some(at);
        missed += 1;
        if missed > MISSED_MAX {
            let message = format!(
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew (more than {MISSED_MAX})"
            );
            actions.push(event(
                cron,
                EventType::Warning,
                "TooManyMissedTimes",
                message,
            ));
            // The last time is found from the end: a schedule repeats at the latest every year.
            return newest_before(schedule, now);
        }
    }
    due
}

/// The newest time that is not after `now`, looked for in windows that grow.
fn newest_before(schedule: &Schedule, now: Timestamp) -> Option<Timestamp> {
    let windows = [120, 2 * 3600, 2 * 86_400, 62 * 86_400, 400 * 86_400];
    windows.into_iter().find_map(|seconds| {
        let mut newest = None;
        let mut at = now.minus(Duration::from_secs(seconds));
        while let Some(next) = schedule.next_after(at).filter(|next| *next <= now) {
            newest = Some(next);
            at = next;
        }
        newest
    })
}

/// Starts the job that is due, as the concurrency policy allows; says whether there is one for that time.
fn start(input: &Input, due: Timestamp, now: Timestamp, actions: &mut Vec<Action>) -> bool {
    let cron = &input.cron;
    let job = new_job(cron, due);
    let exists = input
        .jobs
        .iter()
        .any(|known| known.name() == job.metadata.name);
    if exists {
        return true; // Started before, and not told yet.
    }
    if let Some(seconds) = number(cron, "startingDeadlineSeconds") {
        let late = due.plus(Duration::from_secs(seconds));
        if late < now {
            let message = format!("Missed scheduled time to start a job: {due}");
            actions.push(event(cron, EventType::Warning, "MissSchedule", message));
            return false;
        }
    }
    let mut active = input.jobs.iter().filter(|job| is_active(job)).peekable();
    match cron.spec("concurrencyPolicy").and_then(Value::as_str) {
        Some("Forbid") if active.peek().is_some() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            let message = message.to_owned();
            actions.push(event(cron, EventType::Normal, "JobAlreadyActive", message));
            return false;
        }
        Some("Replace") => {
            for old in active {
                actions.push(delete(old));
                let message = format!("Deleted job {}", old.name());
                actions.push(event(cron, EventType::Normal, "SuccessfulDelete", message));
            }
        }
        _ => {}
    }
    let message = format!("Created job {}", job.metadata.name);
    actions.push(Action::Create(job));
    actions.push(event(cron, EventType::Normal, "SuccessfulCreate", message));
    true
}

/// The template's job for a time.
fn new_job(cron: &Viewed<CronJob>, due: Timestamp) -> Object {
    let name = format!("{}-{}", cron.name(), due.unix_ms() / 60_000);
    let mut job = children::of_template(&cron.reference(), cron.spec("jobTemplate"), name);
    job.types = GroupVersionKind::new("batch", "v1", "Job");
    let annotations = &mut job.metadata.annotations;
    annotations.insert(DUE_ANNOTATION.to_owned(), due.to_string());
    job
}

fn delete(job: &Viewed<Job>) -> Action {
    Action::Delete {
        key: job.key(resources::jobs()),
        precondition: Precondition::uid(&job.uid().0),
        grace_seconds: None,
        propagation: Some(Propagation::Background),
    }
}

/// Deletes the oldest of the finished jobs, of those that succeeded and those that failed each beyond its limit.
fn forget(input: &Input) -> Vec<Action> {
    let cron = &input.cron;
    let mut actions = Vec::new();
    for (succeeded, limit, default) in [
        (true, "successfulJobsHistoryLimit", 3),
        (false, "failedJobsHistoryLimit", 1),
    ] {
        let of_kind = input
            .jobs
            .iter()
            .filter(|job| !is_active(job) && !job.is_deleting() && has_succeeded(job) == succeeded);
        let mut finished: Vec<&Viewed<Job>> = of_kind.collect();
        finished.sort_by_key(|job| (started_at(job), job.name().to_owned()));
        let limit = usize::try_from(number(cron, limit).unwrap_or(default)).unwrap_or(usize::MAX);
        let surplus = finished.len().saturating_sub(limit);
        for job in finished.into_iter().take(surplus) {
            actions.push(delete(job));
            let message = format!("Deleted job {}", job.name());
            actions.push(event(cron, EventType::Normal, "SuccessfulDelete", message));
        }
    }
    actions
}

fn has_succeeded(job: &Viewed<Job>) -> bool {
    completed_at(job).is_some()
}

fn completed_at(job: &Viewed<Job>) -> Option<Timestamp> {
    let status = job.view.status.as_ref()?;
    status
        .completion_time
        .as_ref()
        .map(|time| Timestamp(time.0))
}

fn started_at(job: &Viewed<Job>) -> Option<Timestamp> {
    let status = job.view.status.as_ref();
    let started = status.and_then(|status| status.start_time.as_ref());
    started
        .map(|time| Timestamp(time.0))
        .or(job.object.metadata.creation_timestamp)
}

/// The jobs that run, and when one last succeeded.
fn tell(input: &Input, edit: &mut StatusEdit) {
    let mut active: Vec<Value> = input
        .jobs
        .iter()
        .filter(|job| is_active(job) && !job.is_deleting())
        .map(|job| reference(&job.object))
        .collect();
    active.sort_by_key(|job| job["name"].as_str().unwrap_or_default().to_owned());
    if active.is_empty() {
        edit.remove("active");
    } else {
        edit.set("active", Value::Array(active));
    }
    if let Some(last) = input.jobs.iter().filter_map(completed_at).max() {
        let status = input.cron.object.body.get("status");
        let known = status.and_then(|status| status.get("lastSuccessfulTime")?.as_str());
        let known = known.and_then(Timestamp::parse);
        edit.set(
            "lastSuccessfulTime",
            json!(known.map_or(last, |known| known.max(last))),
        );
    }
}

fn reference(job: &Object) -> Value {
    let metadata = &job.metadata;
    json!({
        "kind": "Job",
        "namespace": metadata.namespace,
        "name": metadata.name,
        "uid": metadata.uid,
        "apiVersion": "batch/v1",
        "resourceVersion": metadata.resource_version,
    })
}

fn event(
    cron: &Viewed<CronJob>,
    event_type: EventType,
    reason: &'static str,
    message: String,
) -> Action {
    Action::Event {
        regarding: cron.reference(),
        event_type,
        reason,
        message,
    }
}

/// Runs [`reconcile`] for every CronJob.
pub struct CronJobController;

impl Controller for CronJobController {
    fn name(&self) -> &'static str {
        "cronjob"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        let crons = resources::cronjobs();
        if change.key.resource == crons {
            return vec![change.key.clone()];
        }
        if change.is_of("batch", "jobs") {
            let owners = change.controllers().filter_map(|uid| world.key_of(uid));
            return owners.filter(|key| key.resource == crons).collect();
        }
        Vec::new()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(cron) = asked.object::<CronJob>()? else {
            return Ok(Plan::nothing());
        };
        let uid = cron.uid().clone();
        let is_own = |record: &Record| record.owners.contains(&(uid.clone(), true));
        let namespace = asked.key.namespace.as_deref();
        let jobs = asked.world.list(&resources::jobs(), namespace, &is_own);
        let jobs = jobs
            .iter()
            .map(|job: &Arc<Object>| Viewed::new(Object::clone(job)))
            .collect::<Result<_, _>>()?;
        Ok(reconcile(&Input { cron, jobs }, asked.now))
    }
}
