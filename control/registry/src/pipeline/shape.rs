//! What a write may change of an object and what stays as it was; pure steps of [`super::create`] and [`super::change`].
//! Semantics: Kubernetes' generic registry.

use super::Pipeline;
use super::store::Stored;
use crate::strategy::Context;
use crate::{Caller, Faults, Strategy, Target, Verb};
use objects::{Object, ObjectKey, Reason, Status, Timestamp};
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Whether a deletion that was asked has nothing left to wait for.
pub fn is_released(strategy: &dyn Strategy, object: &Object) -> bool {
    let metadata = &object.metadata;
    metadata.is_deleting()
        && metadata.finalizers.is_empty()
        && metadata.deletion_grace_period_seconds.unwrap_or(0) == 0
        && !strategy.is_held(object)
}

/// 409 when the client meant another revision or another incarnation.
pub fn check_preconditions(
    key: &ObjectKey,
    object: &Object,
    stored: &Stored,
) -> Result<(), Status> {
    let metadata = &object.metadata;
    let known = &metadata.resource_version;
    if !known.is_empty() && *known != stored.revision.to_string() {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Status::conflict(&key.resource, &key.name, why));
    }
    let uid = &stored.object.metadata.uid;
    if !metadata.uid.0.is_empty() && metadata.uid != *uid {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {uid}",
            metadata.uid
        );
        return Err(Status::conflict(&key.resource, &key.name, &why));
    }
    Ok(())
}

/// A status update changes the status, labels and annotations; everything else stays.
pub fn keep_all_but_status(object: &mut Object, old: &Object) {
    let status = object.body.shift_remove("status");
    object.body = old.body.clone();
    object.body.shift_remove("status");
    object
        .body
        .extend(status.map(|status| ("status".to_owned(), status)));
    object.metadata.owner_references = old.metadata.owner_references.clone();
    object.metadata.finalizers = old.metadata.finalizers.clone();
}

/// The decisions on a certificate request; once made they stay.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

/// A decision on a certificate request adds conditions and changes nothing else; one that has no time gets the present.
pub fn keep_all_but_decision(object: &mut Object, old: &Object, now: Timestamp) {
    let conditions = object.body.get("status").map(|status| {
        let conditions = status.get("conditions").cloned();
        conditions.unwrap_or_else(|| Value::Array(Vec::new()))
    });
    let metadata = std::mem::replace(&mut object.metadata, old.metadata.clone());
    object.metadata.resource_version = metadata.resource_version;
    object.body = old.body.clone();
    let Some(Value::Array(mut conditions)) = conditions else {
        return;
    };
    for condition in &mut conditions {
        let kind = condition.get("type").and_then(Value::as_str);
        if !kind.is_some_and(|kind| DECISIONS.contains(&kind)) {
            continue;
        }
        if let Value::Object(condition) = condition {
            for time in ["lastUpdateTime", "lastTransitionTime"] {
                if condition.get(time).is_none_or(Value::is_null) {
                    condition.insert(time.to_owned(), serde_json::json!(now));
                }
            }
        }
    }
    let status = object
        .body
        .entry("status")
        .or_insert_with(|| Value::Object(Default::default()));
    if let Value::Object(status) = status {
        status.insert("conditions".to_owned(), Value::Array(conditions));
    }
}

/// A namespace's `finalize` changes only its spec's finalizers.
pub fn keep_all_but_finalizers(object: &mut Object, old: &Object) {
    let finalizers = object
        .body
        .get("spec")
        .and_then(|spec| spec.get("finalizers"))
        .cloned();
    let metadata = std::mem::replace(&mut object.metadata, old.metadata.clone());
    object.metadata.resource_version = metadata.resource_version;
    object.body = old.body.clone();
    let spec = object
        .body
        .entry("spec")
        .or_insert_with(|| Value::Object(Default::default()));
    if let Value::Object(spec) = spec {
        match finalizers {
            Some(finalizers) => drop(spec.insert("finalizers".to_owned(), finalizers)),
            None => drop(spec.shift_remove("finalizers")),
        }
    }
}

/// An update of `ephemeralcontainers` changes only these.
pub fn keep_all_but_ephemeral(object: &mut Object, old: &Object) {
    const MEMBER: &str = "ephemeralContainers";
    let added = object
        .body
        .get_mut("spec")
        .and_then(Value::as_object_mut)
        .and_then(|spec| spec.shift_remove(MEMBER));
    keep_metadata(object, old);
    if let Some(Value::Object(spec)) = object.body.get_mut("spec") {
        match added {
            Some(added) => drop(spec.insert(MEMBER.to_owned(), added)),
            None => drop(spec.shift_remove(MEMBER)),
        }
    }
}

/// An update of `resize` changes only what containers ask for.
pub fn keep_all_but_resources(object: &mut Object, old: &Object) {
    let wanted = std::mem::take(&mut object.body);
    keep_metadata(object, old);
    for list in ["containers", "initContainers"] {
        let pointer = format!("/spec/{list}");
        let wanted = Value::Object(wanted.clone());
        let wanted = wanted.pointer(&pointer).and_then(Value::as_array);
        let containers = object
            .body
            .get_mut("spec")
            .and_then(|spec| spec.get_mut(list)?.as_array_mut());
        for container in containers.into_iter().flatten() {
            let mut others = wanted.into_iter().flatten();
            let same = others.find(|other| other.get("name") == container.get("name"));
            for member in ["resources", "resizePolicy"] {
                if let Some(value) = same.and_then(|same| same.get(member)) {
                    container[member] = value.clone();
                }
            }
        }
    }
}

/// Puts the old object in the new one's place, but for the revision that the client knew.
fn keep_metadata(object: &mut Object, old: &Object) {
    let known = std::mem::take(&mut object.metadata.resource_version);
    *object = old.clone();
    object.metadata.resource_version = known;
}

/// Gives an object a member of the old one, or takes it away when the old one has none.
pub fn copy_member(object: &mut Object, old: &Object, name: &str) {
    match old.body.get(name) {
        Some(value) => drop(object.body.insert(name.to_owned(), value.clone())),
        None => drop(object.body.shift_remove(name)),
    }
}

/// 422 with every fault, if there is one.
pub fn refuse_invalid(target: &Target, object: &Object, faults: Faults) -> Result<(), Status> {
    if faults.is_empty() {
        return Ok(());
    }
    let row = &target.resource;
    let name = &object.metadata.name;
    Err(Status::invalid(
        &row.group,
        &row.kind,
        name,
        faults.into_causes(),
    ))
}

/// What strategies may depend on.
pub fn context<'a>(pipeline: &'a Pipeline, caller: &'a Caller, object: &Object) -> Context<'a> {
    let now: Timestamp = pipeline.shell.now();
    let mut hasher = DefaultHasher::new();
    (&object.metadata.uid, now.unix_ms()).hash(&mut hasher);
    Context {
        now,
        service_cidr: &pipeline.settings.service_cidr,
        seed: hasher.finish(),
        caller,
    }
}

/// 405 for what a resource does not do.
pub fn not_served(verb: Verb, target: &Target, subresource: &str) -> Status {
    let what = match subresource {
        "" => target.resource.resource.clone(),
        subresource => format!("{}/{subresource}", target.resource.resource),
    };
    Status::failure(
        405,
        Reason::MethodNotAllowed,
        format!("{verb} is not supported on resources of kind {what:?}"),
    )
}

/// 409 after too many lost races.
pub fn busy(key: &ObjectKey) -> Status {
    let why = "others changed it each time that this request was tried; try again";
    Status::conflict(&key.resource, &key.name, why)
}
