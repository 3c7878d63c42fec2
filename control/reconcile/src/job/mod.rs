//! Runs a Job's pods until enough of them succeeded, or too many failed.
//!
//! ```text
//!            enough succeeded ──▶ SuccessCriteriaMet ──no pod left──▶ Complete
//!  running ─┤
//!            too many failed, or too late ──▶ FailureTarget ──no pod left──▶ Failed
//! ```
//!
//! A pod that ended counts once, even if it is deleted before anybody looks: a finalizer keeps it until its uid stands in
//! `status.uncountedTerminatedPods`; then the finalizer goes, and when it is seen to be gone the uid becomes a count.
//! Semantics: Kubernetes' job controller; pod failure policies, success policies and limits per index are not acted on.

mod index;
mod tally;

use crate::children;
use crate::conditions::{self, Condition};
use crate::controller::{self, Asked, Change, Controller, World};
use crate::names;
use crate::owners;
use crate::plan::{Action, EventType, Plan, Precondition};
use crate::pods;
use crate::status::StatusEdit;
use crate::view::{self, Viewed, resources};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use objects::{ObjectError, ObjectKey, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tally::Tally;

/// Keeps a pod until it was counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The most pods that one plan creates or deletes; the rest follows when these are seen.
const BURST_MAX: usize = 500;
/// The wait after a first failure; each failure in a row doubles it.
const BACKOFF: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The job.
    pub job: Viewed<Job>,
    /// The pods of its namespace; those may be left out that others control.
    pub pods: Vec<Arc<Pod>>,
}

/// Returns what must change for the job to go on.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let job = &input.job;
    let Some(selector) = job.selector() else {
        return Plan::nothing();
    };
    let (mut actions, mut owned) = children::claim(job, &selector, &input.pods, |_| true);
    // An adopted pod counts when it is seen to be the job's.
    owned.retain(|pod| owners::is_controlled_by(&pod.metadata, &job.uid().0));
    if job.is_deleting() || finished_at(job).is_some() {
        // Nothing is counted any more: whatever waits to be counted may go.
        actions.extend(owned.iter().filter_map(let_go));
        return Plan::of(actions);
    }
    let tally = Tally::of(job, &owned);
    actions.extend(tally.to_release().filter_map(let_go));
    let work = Work {
        job,
        pods: &owned,
        tally: &tally,
        now,
    };
    work.plan(actions)
}

/// When the job finished; None while it runs.
pub fn finished_at(job: &Viewed<Job>) -> Option<Timestamp> {
    let conditions = StatusEdit::of(job).conditions();
    ["Complete", "Failed"].into_iter().find_map(|kind| {
        let condition = conditions::find(&conditions, kind)?;
        let holds = conditions::text(condition, "status") == "True";
        holds.then(|| conditions::time(condition, "lastTransitionTime"))?
    })
}

fn is_tracked(pod: &Pod) -> bool {
    let finalizers = pod.metadata.finalizers.iter().flatten();
    finalizers
        .into_iter()
        .any(|finalizer| finalizer == FINALIZER)
}

/// Takes the finalizer from a pod that has it.
fn let_go(pod: &&Pod) -> Option<Action> {
    let finalizers = pod.metadata.finalizers.iter().flatten();
    let others: Vec<&String> = finalizers
        .filter(|finalizer| *finalizer != FINALIZER)
        .collect();
    is_tracked(pod).then(|| Action::Patch {
        key: view::key(resources::pods(), &pod.metadata),
        precondition: view::unchanged(&pod.metadata),
        merge: json!({ "metadata": { "finalizers": others } }),
        subresource: None,
    })
}

/// Why a job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Success,
    Failure(&'static str, &'static str),
}

/// One look at the job.
struct Work<'a> {
    job: &'a Viewed<Job>,
    pods: &'a [&'a Pod],
    tally: &'a Tally<'a>,
    now: Timestamp,
}

impl Work<'_> {
    fn number(&self, name: &str) -> Option<usize> {
        let number = self.job.spec(name).and_then(Value::as_u64)?;
        usize::try_from(number).ok()
    }

    fn is_suspended(&self) -> bool {
        self.job.spec("suspend") == Some(&json!(true))
    }

    fn is_indexed(&self) -> bool {
        self.job.spec("completionMode") == Some(&json!("Indexed"))
    }

    /// Pods that run or shall run.
    fn active(&self) -> Vec<&Pod> {
        let pods = self.pods.iter().copied();
        pods.filter(|pod| pods::is_active(pod)).collect()
    }

    fn terminating(&self) -> usize {
        let pods = self.pods.iter();
        pods.filter(|pod| pods::is_deleting(pod) && !pods::is_finished(pod))
            .count()
    }

    fn plan(&self, mut actions: Vec<Action>) -> Plan {
        let mut edit = StatusEdit::of(self.job);
        let mut all = edit.conditions();
        let started = self.start(&mut edit);
        let mut wake_at = None;
        let mut active = self.active();
        if let Some(end) = self.end(&all, started) {
            self.delete(&active, &mut actions);
            active.clear();
            self.finish(end, &mut all, &mut edit, &mut actions);
        } else if self.is_suspended() {
            self.delete(&active, &mut actions);
            active.clear();
        } else {
            wake_at = self.scale(&active, &mut actions);
            if let (Some(started), Some(seconds)) = (started, self.number("activeDeadlineSeconds"))
            {
                let late = started.plus(Duration::from_secs(seconds as u64));
                wake_at = Some(wake_at.map_or(late, |at: Timestamp| at.min(late)));
            }
        }
        self.tell_suspension(&mut all, &mut actions);
        edit.set_conditions(all);
        self.count(&active, &mut edit);
        Plan {
            actions,
            status: edit.into_update(self.job, resources::jobs()),
            wake_at,
        }
    }

    /// When the job began: it begins when it is first looked at, and anew after a suspension.
    fn start(&self, edit: &mut StatusEdit) -> Option<Timestamp> {
        if self.is_suspended() {
            edit.remove("startTime");
            return None;
        }
        let status = self.job.object.body.get("status");
        let known = status.and_then(|status| status.get("startTime")?.as_str());
        let started = known.and_then(Timestamp::parse).unwrap_or(self.now);
        edit.set("startTime", json!(started));
        Some(started)
    }

    /// Whether the job has come to an end, or is on its way to one.
    fn end(&self, all: &[Value], started: Option<Timestamp>) -> Option<End> {
        let holds = |kind: &str| {
            let condition = conditions::find(all, kind);
            condition.is_some_and(|condition| conditions::text(condition, "status") == "True")
        };
        if holds("SuccessCriteriaMet") {
            return Some(End::Success);
        }
        if let Some(condition) =
            conditions::find(all, "FailureTarget").filter(|_| holds("FailureTarget"))
        {
            return Some(match conditions::text(condition, "reason") {
                "DeadlineExceeded" => LATE,
                _ => TOO_MANY,
            });
        }
        let limit = self.number("backoffLimit").unwrap_or(6);
        if self.tally.failed() > limit || self.restarts() > limit {
            return Some(TOO_MANY);
        }
        let late = started.zip(self.number("activeDeadlineSeconds"));
        let late = late.map(|(started, seconds)| started.plus(Duration::from_secs(seconds as u64)));
        if late.is_some_and(|late| late <= self.now) {
            return Some(LATE);
        }
        let succeeded = self.succeeded();
        let complete = match self.number("completions") {
            Some(completions) => succeeded >= completions,
            // A queue is done when one of its workers said so and the others ended.
            None => succeeded > 0 && self.active().is_empty(),
        };
        complete.then_some(End::Success)
    }

    /// How often containers were started again in pods that start them themselves.
    fn restarts(&self) -> usize {
        let policy = self
            .job
            .spec("template")
            .and_then(|template| template.pointer("/spec/restartPolicy")?.as_str());
        if policy != Some("OnFailure") {
            return 0;
        }
        let active = self.active();
        let restarts = active.iter().map(|pod| pods::restarts(pod));
        usize::try_from(restarts.sum::<i32>()).unwrap_or(0)
    }

    fn succeeded(&self) -> usize {
        if self.is_indexed() {
            return self.completed().len();
        }
        self.tally.succeeded()
    }

    /// The indexes that are done.
    fn completed(&self) -> BTreeSet<usize> {
        let status = self.job.object.body.get("status");
        let known = status.and_then(|status| status.get("completedIndexes")?.as_str());
        let mut done = index::parse(known.unwrap_or_default());
        let ended = self
            .pods
            .iter()
            .filter(|pod| pods::phase(pod) == "Succeeded");
        let completions = self.number("completions").unwrap_or(0);
        done.extend(ended.filter_map(|pod| index::of(pod)));
        done.retain(|index| *index < completions);
        done
    }

    fn finish(
        &self,
        end: End,
        all: &mut Vec<Value>,
        edit: &mut StatusEdit,
        actions: &mut Vec<Action>,
    ) {
        let (target, last, reason, message) = match end {
            End::Success => (
                "SuccessCriteriaMet",
                "Complete",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            ),
            End::Failure(reason, message) => ("FailureTarget", "Failed", reason, message),
        };
        let condition = |condition_type| Condition {
            condition_type,
            status: "True",
            reason,
            message,
        };
        conditions::set(all, &condition(target), self.now);
        let running = !self.active().is_empty() || self.terminating() > 0;
        if running || self.tally.is_counting() {
            return; // The last word waits for the last pod.
        }
        conditions::set(all, &condition(last), self.now);
        if end == End::Success {
            edit.set("completionTime", json!(self.now));
            actions.push(self.event(EventType::Normal, "Completed", "Job completed".to_owned()));
        } else {
            actions.push(self.event(EventType::Warning, reason, message.to_owned()));
        }
    }

    fn tell_suspension(&self, all: &mut Vec<Value>, actions: &mut Vec<Action>) {
        let condition = conditions::find(all, "Suspended");
        let was = condition.map(|condition| conditions::text(condition, "status") == "True");
        let is = self.is_suspended();
        if was.unwrap_or(false) == is {
            return;
        }
        let (status, reason, message) = if is {
            ("True", "JobSuspended", "Job suspended")
        } else {
            ("False", "JobResumed", "Job resumed")
        };
        let condition = Condition {
            condition_type: "Suspended",
            status,
            reason,
            message,
        };
        conditions::set(all, &condition, self.now);
        let reason = if is { "Suspended" } else { "Resumed" };
        actions.push(self.event(EventType::Normal, reason, message.to_owned()));
    }

    /// Starts pods that are missing, ends those that are too many; says when to look again.
    fn scale(&self, active: &[&Pod], actions: &mut Vec<Action>) -> Option<Timestamp> {
        let parallelism = self.number("parallelism").unwrap_or(1);
        let left = self
            .number("completions")
            .map(|all| all.saturating_sub(self.succeeded()));
        let wanted = match left {
            Some(left) => parallelism.min(left),
            None if self.tally.succeeded() > 0 => active.len().min(parallelism),
            None => parallelism,
        };
        if active.len() > wanted {
            let mut surplus = active.to_vec();
            surplus.sort_by_key(|pod| {
                (
                    pods::is_ready(pod),
                    std::cmp::Reverse(view::created(&pod.metadata)),
                )
            });
            surplus.truncate(active.len() - wanted);
            self.delete(&surplus, actions);
            return None;
        }
        let replaces_ended_only = self.job.spec("podReplacementPolicy") == Some(&json!("Failed"));
        let held = if replaces_ended_only {
            self.terminating()
        } else {
            0
        };
        let missing = wanted.saturating_sub(active.len() + held).min(BURST_MAX);
        if missing == 0 {
            return None;
        }
        let after = self.tally.retry_at(BACKOFF, BACKOFF_MAX);
        if let Some(at) = after.filter(|at| *at > self.now) {
            return Some(at);
        }
        self.create(missing, active, actions);
        None
    }

    fn create(&self, count: usize, active: &[&Pod], actions: &mut Vec<Action>) {
        let job = self.job;
        let taken: BTreeSet<&str> = self
            .pods
            .iter()
            .map(|pod| view::name(&pod.metadata))
            .collect();
        let mut free_numbers = (0..)
            .map(|number| names::pod(job.name(), &job.uid().0, number))
            .filter(|name| !taken.contains(name.as_str()));
        let mut indexes = self.free_indexes(active).into_iter();
        for _ in 0..count {
            let index = if self.is_indexed() {
                match indexes.next() {
                    Some(index) => Some(index),
                    None => return,
                }
            } else {
                None
            };
            let name = match index {
                None => free_numbers.next(),
                Some(index) => (0..)
                    .map(|number| index::pod_name(job.name(), &job.uid().0, index, number))
                    .find(|name| !taken.contains(name.as_str())),
            };
            let Some(name) = name else {
                return;
            };
            let mut pod = children::pod(&job.reference(), job.spec("template"), name.clone());
            pod.metadata.finalizers.push(FINALIZER.to_owned());
            if let Some(index) = index {
                index::mark(&mut pod, job.name(), index);
            }
            actions.push(Action::Create(pod));
            let message = format!("Created pod: {name}");
            actions.push(self.event(EventType::Normal, "SuccessfulCreate", message));
        }
    }

    /// The indexes that are neither done nor worked on.
    fn free_indexes(&self, active: &[&Pod]) -> Vec<usize> {
        let done = self.completed();
        let busy: BTreeSet<usize> = active.iter().filter_map(|pod| index::of(pod)).collect();
        let all = 0..self.number("completions").unwrap_or(0);
        all.filter(|index| !done.contains(index) && !busy.contains(index))
            .take(BURST_MAX)
            .collect()
    }

    fn delete(&self, pods: &[&Pod], actions: &mut Vec<Action>) {
        for pod in pods.iter().take(BURST_MAX) {
            actions.extend(let_go(pod)); // It did not fail: it is not wanted.
            actions.push(Action::Delete {
                key: view::key(resources::pods(), &pod.metadata),
                precondition: Precondition::uid(view::uid(&pod.metadata)),
                grace_seconds: None,
                propagation: None,
            });
            let message = format!("Deleted pod: {}", view::name(&pod.metadata));
            actions.push(self.event(EventType::Normal, "SuccessfulDelete", message));
        }
    }

    fn event(&self, event_type: EventType, reason: &'static str, message: String) -> Action {
        Action::Event {
            regarding: self.job.reference(),
            event_type,
            reason,
            message,
        }
    }

    fn count(&self, active: &[&Pod], edit: &mut StatusEdit) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        edit.set_nonzero("active", number(active.len()));
        let ready = active.iter().filter(|pod| pods::is_ready(pod)).count();
        edit.set_count("ready", number(ready));
        edit.set_count("terminating", number(self.terminating()));
        edit.set_nonzero("succeeded", number(self.succeeded()));
        edit.set_nonzero("failed", number(self.tally.failed()));
        if self.is_indexed() {
            let done = index::format(&self.completed());
            if done.is_empty() {
                edit.remove("completedIndexes");
            } else {
                edit.set("completedIndexes", json!(done));
            }
        }
        edit.set("uncountedTerminatedPods", self.tally.uncounted());
    }
}

const TOO_MANY: End = End::Failure(
    "BackoffLimitExceeded",
    "Job has reached the specified backoff limit",
);
const LATE: End = End::Failure(
    "DeadlineExceeded",
    "Job was active longer than specified deadline",
);

/// Takes the finalizer from a pod whose job is no more.
pub fn release_orphan(pod: &Pod, has_job: bool) -> Plan {
    let deleted = pods::is_deleting(pod) && !has_job;
    let action = deleted.then(|| let_go(&pod)).flatten();
    Plan::of(action.into_iter().collect())
}

/// Runs [`reconcile`] for every Job, and [`release_orphan`] for pods that were deleted without one.
pub struct JobController;

impl Controller for JobController {
    fn name(&self) -> &'static str {
        "job"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        let jobs = resources::jobs();
        if change.key.resource == jobs {
            return vec![change.key.clone()];
        }
        if !change.is_of("", "pods") {
            return Vec::new();
        }
        let keys = controller::controllers_or_adopters(change, world, &jobs);
        let is_ending = change.after.is_some_and(|pod| pod.deleting);
        let has_controller = change.controllers().any(|uid| world.key_of(uid).is_some());
        if is_ending && !has_controller {
            return vec![change.key.clone()];
        }
        keys
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        if asked.key.resource == resources::pods() {
            let pod = asked.object::<Pod>()?;
            let record = asked.world.record(asked.key);
            let has_job = record.is_some_and(|record| {
                let mut owners = record.owners.iter().filter(|(_, controls)| *controls);
                owners.any(|(uid, _)| asked.world.key_of(uid).is_some())
            });
            return Ok(pod.map_or_else(Plan::nothing, |pod| release_orphan(&pod.view, has_job)));
        }
        let Some(job) = asked.object::<Job>()? else {
            return Ok(Plan::nothing());
        };
        let pods = children::pods_near(asked, job.uid())?;
        Ok(reconcile(&Input { job, pods }, asked.now))
    }
}
