//! Deletes finished Jobs when their `ttlSecondsAfterFinished` is over. Never touches a job that runs.
//! Semantics: Kubernetes' TTL-after-finished controller.

use crate::controller::{Asked, Change, Controller, World};
use crate::job::finished_at;
use crate::plan::{Action, Plan, Precondition, Propagation};
use crate::view::{Viewed, resources};
use k8s_openapi::api::batch::v1::Job;
use objects::{ObjectError, ObjectKey, Timestamp};
use std::time::Duration;

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The job.
    pub job: Viewed<Job>,
}

/// Deletes the job when its time is over, else looks again then.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let job = &input.job;
    let seconds = job
        .spec("ttlSecondsAfterFinished")
        .and_then(serde_json::Value::as_u64);
    let Some((seconds, finished)) = seconds.zip(finished_at(job)) else {
        return Plan::nothing();
    };
    if job.is_deleting() {
        return Plan::nothing();
    }
    let ends = finished.plus(Duration::from_secs(seconds));
    if now < ends {
        return Plan {
            wake_at: Some(ends),
            ..Plan::nothing()
        };
    }
    let metadata = &job.object.metadata;
    Plan::of(vec![Action::Delete {
        key: job.key(resources::jobs()),
        // Given a longer time in between, it stays.
        precondition: Precondition::unchanged(&metadata.uid.0, &metadata.resource_version),
        grace_seconds: None,
        propagation: Some(Propagation::Foreground),
    }])
}

/// Runs [`reconcile`] for every Job.
pub struct TtlController;

impl Controller for TtlController {
    fn name(&self) -> &'static str {
        "ttl-after-finished"
    }

    fn keys_for(&self, change: &Change<'_>, _world: &dyn World) -> Vec<ObjectKey> {
        let is_there = change.is_of("batch", "jobs") && change.after.is_some();
        if is_there {
            vec![change.key.clone()]
        } else {
            Vec::new()
        }
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let job = asked.object::<Job>()?;
        Ok(job.map_or_else(Plan::nothing, |job| reconcile(&Input { job }, asked.now)))
    }
}
