//! Keeps a ResourceQuota's status: what it limits, and how much of that the namespace's objects use.
//!
//! Admission charges what a write uses in the write's own transaction; here what went is given back, and what was there before
//! the quota is counted. The status is written only over the very quota that was counted with, so that no charge is lost.
//! Semantics: Kubernetes' resource quota controller.

use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Plan, Precondition, StatusUpdate};
use crate::view::resources;
use objects::quota::{self, Quota};
use objects::{GroupResource, Object, ObjectError, ObjectKey, Timestamp};
use serde_json::json;
use std::sync::Arc;

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The ResourceQuota.
    pub quota: Arc<Object>,
    /// The objects of its namespace; those may be left out that it does not limit.
    pub objects: Vec<(GroupResource, Arc<Object>)>,
}

/// Returns the status that the quota should have, if it has another.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let object = &input.quota;
    if object.metadata.is_deleting() {
        return Plan::nothing();
    }
    let quota = Quota::of(object);
    let counted = input
        .objects
        .iter()
        .map(|(resource, object)| (resource, &**object));
    let used = quota.used(counted, now);
    let status = object.body.get("status");
    let told = |name: &str| quota::amounts(status.and_then(|status| status.get(name)));
    if told("hard") == quota.hard && told("used") == used {
        return Plan::nothing();
    }
    let metadata = &object.metadata;
    Plan {
        status: Some(StatusUpdate {
            key: ObjectKey::new(
                resources::resourcequotas(),
                metadata.namespace.as_deref(),
                &metadata.name,
            ),
            precondition: Precondition::unchanged(&metadata.uid.0, &metadata.resource_version),
            status: json!({"hard": quota::to_value(&quota.hard), "used": quota::to_value(&used)}),
        }),
        ..Plan::nothing()
    }
}

/// Runs [`reconcile`] for every quota.
pub struct QuotaController;

impl Controller for QuotaController {
    fn name(&self) -> &'static str {
        "resourcequota"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        let quotas = resources::resourcequotas();
        if change.key.resource == quotas {
            return vec![change.key.clone()];
        }
        let Some(namespace) = change.key.namespace.as_deref() else {
            return Vec::new();
        };
        // What comes is charged when it is written; what a change may give back are pods that end, ports and bytes.
        let core = change.key.resource.group.is_empty();
        let gives_back = core
            && matches!(
                change.key.resource.resource.as_str(),
                "pods" | "services" | "persistentvolumeclaims"
            );
        if change.after.is_some() && !gives_back {
            return Vec::new();
        }
        let mut keys = world.keys(&quotas, Some(namespace), &|_| true);
        keys.retain(|key| {
            world
                .get(key)
                .is_some_and(|quota| Quota::of(&quota).limits(&change.key.resource))
        });
        keys
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(object) = asked.world.get(asked.key) else {
            return Ok(Plan::nothing());
        };
        let quota = Quota::of(&object);
        let namespace = asked.key.namespace.as_deref().unwrap_or_default();
        let keys = asked.world.keys_in_namespace(namespace).into_iter();
        let counted = keys.filter(|key| quota.limits(&key.resource));
        let objects = counted.filter_map(|key| {
            let object = asked.world.get(&key)?;
            Some((key.resource, object))
        });
        let input = Input {
            objects: objects.collect(),
            quota: object,
        };
        Ok(reconcile(&input, asked.now))
    }
}
