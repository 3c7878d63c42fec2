//! The `eviction` subresource of pods: a deletion that asks the pod's disruption budget first.
//! Semantics: Kubernetes' "API-initiated eviction": a budget that is used up, or that its controller has not looked at yet,
//! answers 429; each eviction takes one disruption off the budget before the pod goes.

use super::store::{self, Stored, TRIES_MAX};
use super::{Pipeline, body, change, delete};
use crate::strategy::field_value;
use crate::{
    Caller, DeleteOptions, Patch, PatchKind, Propagation, Target, WriteOptions, Written,
    parse_resource_version,
};
use mvcc::{Consistency, KeyRange, RangeRequest};
use objects::{
    Cause, GroupResource, LabelSelector, Object, Reason, Revision, Status, Uid, namespace_prefix,
};
use serde_json::{Value, json};

/// What a client is told to wait when the budget's controller lags.
const RETRY_SECONDS: u32 = 10;

/// Evicts the pod, or answers 429 for its budget.
pub async fn evict(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    mut eviction: Value,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let key = target.key()?;
    body::conform_subresource(pipeline, target, &mut eviction, options)?;
    let named = eviction.pointer("/metadata/name").and_then(Value::as_str);
    if let Some(other) = named.filter(|name| !name.is_empty() && *name != key.name) {
        return Err(Status::bad_request(format!(
            "name in URL does not match name in Eviction object: {:?}, {other:?}",
            key.name
        )));
    }
    let mut wanted = delete_options(&eviction, options)?;
    let options = &WriteOptions {
        dry_run: wanted.dry_run,
        ..options.clone()
    };
    let pod_target = Target {
        subresource: None,
        ..target.clone()
    };
    for _ in 0..TRIES_MAX {
        let pod = store::read(pipeline, &key, Consistency::Linearizable).await?;
        let pod = pod.ok_or_else(|| Status::not_found(&key.resource, &key.name))?;
        match admit(pipeline, target, &pod).await? {
            Leave::Given => {}
            Leave::Taking { budget, status } => {
                if !take(pipeline, caller, &budget, status, options).await? {
                    continue; // Others took from the budget meanwhile.
                }
                // Only the pod that was counted goes.
                wanted.uid.get_or_insert(pod.object.metadata.uid.clone());
            }
        }
        delete::delete(pipeline, caller, &pod_target, &wanted).await?;
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        return Ok(Written {
            json: status.to_string().into(),
            created: true,
            warnings: Vec::new(),
        });
    }
    Err(super::shape::busy(&key))
}

/// Whether a pod may go.
enum Leave {
    /// It may, and no budget counts it.
    Given,
    /// It may once the budget's status is this one.
    Taking { budget: Target, status: Value },
}

async fn admit(pipeline: &Pipeline, target: &Target, pod: &Stored) -> Result<Leave, Status> {
    let status = pod.object.body.get("status");
    let phase = status
        .and_then(|status| status.get("phase"))
        .and_then(Value::as_str);
    let counts_not = pod.object.metadata.is_deleting()
        || matches!(phase, Some("Succeeded" | "Failed" | "Pending"));
    if counts_not {
        return Ok(Leave::Given);
    }
    let budgets = budgets_of(pipeline, &pod.object).await?;
    let budget = match &budgets[..] {
        [] => return Ok(Leave::Given),
        [budget] => budget,
        _ => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let place = budget_target(pipeline, &budget.object)?;
    ask(pipeline, target, &pod.object, budget, place)
}

/// The budgets of the pod's namespace that select it.
async fn budgets_of(pipeline: &Pipeline, pod: &Object) -> Result<Vec<Stored>, Status> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let resource = GroupResource::new("policy", "poddisruptionbudgets");
    let range = KeyRange::prefix(namespace_prefix(&resource, namespace));
    let mut request = RangeRequest::new(range);
    request.consistency = Consistency::Linearizable;
    let response = pipeline.store.range(request).await;
    let stored = response.map_err(store::status_of)?.kvs.into_iter();
    let mut budgets = Vec::new();
    for budget in stored.map(store::parse) {
        let budget = budget?;
        let selector = field_value(&budget.object.body, "spec.selector");
        let selects = selector
            .and_then(|selector| LabelSelector::from_value(selector).ok())
            .is_some_and(|selector| selector.matches(&pod.metadata.labels));
        if selects {
            budgets.push(budget);
        }
    }
    Ok(budgets)
}

fn budget_target(pipeline: &Pipeline, budget: &Object) -> Result<Target, Status> {
    let resource = GroupResource::new("policy", "poddisruptionbudgets");
    let registry = pipeline.registry();
    let row = registry.by_resource(&resource);
    let row = row.ok_or_else(|| Status::internal("disruption budgets are not served"))?;
    let namespace = budget.metadata.namespace.as_deref();
    Ok(Target::object(row, namespace, &budget.metadata.name).subresource("status"))
}

/// What the budget says of the pod.
fn ask(
    pipeline: &Pipeline,
    target: &Target,
    pod: &Object,
    budget: &Stored,
    place: Target,
) -> Result<Leave, Status> {
    let object = &budget.object;
    let at = |path: &str| field_value(&object.body, path);
    let number = |path: &str| at(path).and_then(Value::as_i64).unwrap_or(0);
    let name = &object.metadata.name;
    let seen = number("status.observedGeneration") >= object.metadata.generation;
    let (healthy, wanted) = (
        number("status.currentHealthy"),
        number("status.desiredHealthy"),
    );
    if !is_ready(pod) {
        let always = at("spec.unhealthyPodEvictionPolicy") == Some(&json!("AlwaysAllow"));
        if always || (seen && healthy >= wanted && wanted > 0) {
            return Ok(Leave::Given);
        }
    }
    if !seen {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(target, &why, Some(RETRY_SECONDS)));
    }
    let allowed = number("status.disruptionsAllowed");
    if allowed <= 0 {
        let why = format!(
            "The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently"
        );
        return Err(refused(target, &why, None));
    }
    let mut status = at("status").cloned().unwrap_or_default();
    status["disruptionsAllowed"] = json!(allowed - 1);
    status["disruptedPods"][&pod.metadata.name] = json!(pipeline.shell.now());
    let metadata = json!({"resourceVersion": object.metadata.resource_version});
    let status = json!({"metadata": metadata, "status": status});
    Ok(Leave::Taking {
        budget: place,
        status,
    })
}

fn is_ready(pod: &Object) -> bool {
    let conditions = field_value(&pod.body, "status.conditions");
    let mut conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    conditions.any(|condition| {
        condition.get("type") == Some(&json!("Ready"))
            && condition.get("status") == Some(&json!("True"))
    })
}

/// Takes the disruption off the budget; false when somebody changed it meanwhile.
async fn take(
    pipeline: &Pipeline,
    caller: &Caller,
    budget: &Target,
    value: Value,
    options: &WriteOptions,
) -> Result<bool, Status> {
    let kind = PatchKind::Merge;
    let patch = Patch { kind, value };
    match change::patch(pipeline, caller, budget, &patch, options).await {
        Ok(_) => Ok(true),
        Err(status) if status.is(Reason::Conflict) || status.is(Reason::NotFound) => Ok(false),
        Err(status) => Err(status),
    }
}

/// The 429 that clients wait at.
fn refused(target: &Target, why: &str, retry_seconds: Option<u32>) -> Status {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut status = Status::failure(429, Reason::TooManyRequests, message);
    let details = status.details.get_or_insert_default();
    details.name = target.name.clone().unwrap_or_default();
    details.kind = target.resource.resource.clone();
    details.retry_after_seconds = retry_seconds;
    details.causes.push(Cause {
        reason: "DisruptionBudget".to_owned(),
        message: why.to_owned(),
        field: String::new(),
    });
    status
}

fn delete_options(eviction: &Value, options: &WriteOptions) -> Result<DeleteOptions, Status> {
    let at = |pointer: &str| eviction.pointer(&format!("/deleteOptions/{pointer}"));
    let text = |pointer: &str| at(pointer).and_then(Value::as_str);
    let propagation = match text("propagationPolicy") {
        None => None,
        Some("Orphan") => Some(Propagation::Orphan),
        Some("Background") => Some(Propagation::Background),
        Some("Foreground") => Some(Propagation::Foreground),
        Some(other) => {
            return Err(Status::bad_request(format!(
                "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
            )));
        }
    };
    let version: Option<Revision> = match text("preconditions/resourceVersion") {
        Some(version) => parse_resource_version(version)?,
        None => None,
    };
    let dry = at("dryRun").and_then(Value::as_array);
    let dry = dry.is_some_and(|values| values.contains(&json!("All")));
    Ok(DeleteOptions {
        grace_seconds: at("gracePeriodSeconds").and_then(Value::as_i64),
        propagation,
        uid: text("preconditions/uid").map(Uid::from),
        resource_version: version,
        dry_run: options.dry_run || dry,
        manager: options.field_manager.clone(),
        remarks: options.remarks.clone(),
    })
}
