//! A deployment's status: counts, and the conditions `Available`, `Progressing` and `ReplicaFailure`.
//!
//! `kubectl rollout status` reads `observedGeneration`, the counts and the reason `ProgressDeadlineExceeded`.

use super::{Note, Rollout, size, status_of};
use crate::conditions::{self, Condition};
use crate::plan::StatusUpdate;
use crate::status::StatusEdit;
use crate::view::{Viewed, resources};
use k8s_openapi::api::apps::v1::ReplicaSet;
use objects::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// The counts of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    replicas: i64,
    updated: i64,
    ready: i64,
    available: i64,
}

/// Whether the deployment's present status says that the rollout is done.
pub fn is_complete(rollout: &Rollout<'_>) -> bool {
    let edit = StatusEdit::of(rollout.deployment());
    let seen = edit.count("observedGeneration") >= rollout.deployment().object.metadata.generation;
    seen && counts_complete(rollout, counts_in(&edit))
}

/// The status that the deployment should have, and when a deadline makes it another.
pub fn status(
    rollout: &Rollout<'_>,
    note: Option<&Note>,
    now: Timestamp,
) -> (Option<StatusUpdate>, Option<Timestamp>) {
    let deployment = rollout.deployment();
    let mut edit = StatusEdit::of(deployment);
    let before = counts_in(&edit);
    let counts = count(rollout);
    put_counts(&mut edit, counts);
    edit.set_nonzero("observedGeneration", deployment.object.metadata.generation);
    if let Some(Note::Collision) = note {
        edit.set_nonzero("collisionCount", edit.count("collisionCount") + 1);
    }
    let mut all = edit.conditions();
    set_paused(rollout, &mut all, now);
    set_available(rollout, &mut all, counts, now);
    set_failure(rollout, &mut all, now);
    if deadline(rollout).is_none() {
        conditions::remove(&mut all, PROGRESSING);
    } else if !rollout.is_paused() && !deployment.is_deleting() {
        set_progressing(rollout, note, &mut all, before, counts, now);
    }
    let wake_at = deadline_at(rollout, &all, counts).filter(|at| *at > now);
    edit.set_conditions(all);
    (
        edit.into_update(deployment, resources::deployments()),
        wake_at,
    )
}

fn count(rollout: &Rollout<'_>) -> Counts {
    let ready = |set: &Viewed<ReplicaSet>| {
        let status = set.view.status.as_ref();
        status.and_then(|status| status.ready_replicas).unwrap_or(0)
    };
    Counts {
        replicas: rollout.all().map(|set| i64::from(status_of(set).0)).sum(),
        updated: rollout.new.map_or(0, |new| i64::from(status_of(new).0)),
        ready: rollout.all().map(|set| i64::from(ready(set))).sum(),
        available: rollout.all().map(|set| i64::from(status_of(set).1)).sum(),
    }
}

fn counts_in(edit: &StatusEdit) -> Counts {
    Counts {
        replicas: edit.count("replicas"),
        updated: edit.count("updatedReplicas"),
        ready: edit.count("readyReplicas"),
        available: edit.count("availableReplicas"),
    }
}

fn put_counts(edit: &mut StatusEdit, counts: Counts) {
    edit.set_nonzero("replicas", counts.replicas);
    edit.set_nonzero("updatedReplicas", counts.updated);
    edit.set_nonzero("readyReplicas", counts.ready);
    edit.set_nonzero("availableReplicas", counts.available);
    edit.set_nonzero(
        "unavailableReplicas",
        (counts.replicas - counts.available).max(0),
    );
}

fn counts_complete(rollout: &Rollout<'_>, counts: Counts) -> bool {
    let wanted = i64::from(rollout.bounds.replicas);
    let Counts {
        replicas,
        updated,
        available,
        ..
    } = counts;
    [replicas, updated, available] == [wanted; 3]
}

/// Sets a condition as Kubernetes' deployment controller does: nothing changes while status and reason stay the same.
fn set(all: &mut Vec<Value>, new: &Condition<'_>, now: Timestamp) {
    let present = conditions::find(all, new.condition_type);
    let same = present.is_some_and(|present| {
        conditions::text(present, "status") == new.status
            && conditions::text(present, "reason") == new.reason
    });
    if !same {
        renew(all, new, now);
    }
}

/// Sets a condition and its `lastUpdateTime`, from which the progress deadline counts.
fn renew(all: &mut Vec<Value>, new: &Condition<'_>, now: Timestamp) {
    conditions::set(all, new, now);
    for condition in all.iter_mut() {
        if conditions::text(condition, "type") == new.condition_type {
            condition["lastUpdateTime"] = json!(now);
        }
    }
}

fn set_paused(rollout: &Rollout<'_>, all: &mut Vec<Value>, now: Timestamp) {
    let reason = conditions::find(all, PROGRESSING)
        .map_or("", |present| conditions::text(present, "reason"))
        .to_owned();
    if deadline(rollout).is_none() || reason == DEADLINE_EXCEEDED {
        return;
    }
    let (reason, message) = match (rollout.is_paused(), reason == PAUSED) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    let condition = Condition {
        condition_type: PROGRESSING,
        status: "Unknown",
        reason,
        message,
    };
    set(all, &condition, now);
}

fn set_available(rollout: &Rollout<'_>, all: &mut Vec<Value>, counts: Counts, now: Timestamp) {
    let enough = counts.available >= i64::from(rollout.bounds.available_min());
    let (status, reason, message) = if enough {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    let condition = Condition {
        condition_type: AVAILABLE,
        status,
        reason,
        message,
    };
    set(all, &condition, now);
}

/// Passes on that a set cannot make its pods; the new set's failure tells more than an old one's.
fn set_failure(rollout: &Rollout<'_>, all: &mut Vec<Value>, now: Timestamp) {
    let of_set = |set: &Viewed<ReplicaSet>| {
        let failures = StatusEdit::of(set).conditions();
        conditions::find(&failures, REPLICA_FAILURE).cloned()
    };
    let failure = rollout
        .new
        .into_iter()
        .chain(rollout.old.iter().copied())
        .find_map(of_set);
    let Some(failure) = failure else {
        conditions::remove(all, REPLICA_FAILURE);
        return;
    };
    let condition = Condition {
        condition_type: REPLICA_FAILURE,
        status: conditions::text(&failure, "status"),
        reason: conditions::text(&failure, "reason"),
        message: conditions::text(&failure, "message"),
    };
    set(all, &condition, now);
}

fn set_progressing(
    rollout: &Rollout<'_>,
    note: Option<&Note>,
    all: &mut Vec<Value>,
    before: Counts,
    counts: Counts,
    now: Timestamp,
) {
    let condition = |status, reason, message| Condition {
        condition_type: PROGRESSING,
        status,
        reason,
        message,
    };
    if let Some(Note::Created(name)) = note {
        let message = format!("Created new replica set {name:?}");
        set(
            all,
            &condition("True", "NewReplicaSetCreated", &message),
            now,
        );
        return;
    }
    let present = conditions::find(all, PROGRESSING);
    let reason = present.map_or("", |present| conditions::text(present, "reason"));
    if counts.replicas == counts.updated && reason == NEW_SET_AVAILABLE {
        return;
    }
    let subject = match rollout.new {
        Some(new) => format!("ReplicaSet {:?}", new.name()),
        None => format!("Deployment {:?}", rollout.deployment().name()),
    };
    if counts_complete(rollout, counts) && rollout.new.is_some() {
        let message = format!("{subject} has successfully progressed.");
        set(all, &condition("True", NEW_SET_AVAILABLE, &message), now);
    } else if has_progressed(before, counts) {
        let message = format!("{subject} is progressing.");
        renew(all, &condition("True", "ReplicaSetUpdated", &message), now);
    } else if has_timed_out(rollout, all, now) {
        let message = format!("{subject} has timed out progressing.");
        set(all, &condition("False", DEADLINE_EXCEEDED, &message), now);
    } else if let (None, Some(new)) = (present, rollout.new) {
        let message = format!("Found new replica set {:?}", new.name());
        set(all, &condition("True", "FoundNewReplicaSet", &message), now);
    }
}

fn has_progressed(before: Counts, counts: Counts) -> bool {
    counts.updated > before.updated
        || counts.replicas - counts.updated < before.replicas - before.updated
        || counts.ready > before.ready
        || counts.available > before.available
}

/// How long a rollout may stand still; None when it may for ever.
fn deadline(rollout: &Rollout<'_>) -> Option<Duration> {
    let seconds = rollout.spec.progress_deadline_seconds.unwrap_or(600);
    let bounded = seconds != i32::MAX;
    bounded.then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn due_at(rollout: &Rollout<'_>, all: &[Value]) -> Option<Timestamp> {
    let present = conditions::find(all, PROGRESSING)?;
    let since = conditions::time(present, "lastUpdateTime")?;
    Some(since.plus(deadline(rollout)?))
}

fn has_timed_out(rollout: &Rollout<'_>, all: &[Value], now: Timestamp) -> bool {
    let Some(present) = conditions::find(all, PROGRESSING) else {
        return false;
    };
    match conditions::text(present, "reason") {
        NEW_SET_AVAILABLE => false,
        DEADLINE_EXCEEDED => true,
        _ => due_at(rollout, all).is_some_and(|due| due <= now),
    }
}

/// When an unfinished rollout runs into its deadline.
fn deadline_at(rollout: &Rollout<'_>, all: &[Value], counts: Counts) -> Option<Timestamp> {
    let present = conditions::find(all, PROGRESSING)?;
    let reason = conditions::text(present, "reason");
    let settled = matches!(reason, NEW_SET_AVAILABLE | DEADLINE_EXCEEDED | PAUSED);
    let done = counts_complete(rollout, counts)
        && rollout
            .new
            .is_some_and(|new| size(new) == rollout.bounds.replicas);
    if settled || done {
        return None;
    }
    due_at(rollout, all)
}
