//! Empties a namespace that is being deleted, then lets it go.
//!
//! Never touches a namespace whose deletion nobody asked for. Semantics: core/v1 `Namespace`; the conditions are those of
//! Kubernetes' namespace controller.

use crate::conditions::{self, Condition};
use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Action, Plan, Precondition, Propagation};
use crate::status::StatusEdit;
use crate::view::{Viewed, resources};
use k8s_openapi::api::core::v1::Namespace;
use objects::{GroupResource, ObjectError, ObjectKey, Timestamp, Uid};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most objects that one plan deletes; the rest follows.
pub const BURST_MAX: usize = 500;
/// How soon to look again while something is left.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// The finalizer in `spec.finalizers` that stands for the content.
const FINALIZER: &str = "kubernetes";

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The namespace.
    pub namespace: Viewed<Namespace>,
    /// What is left in it, of every namespaced kind; a kind of which nothing is left may be missing.
    pub content: Vec<Content>,
}

/// The objects of one kind.
pub struct Content {
    /// The kind's resource.
    pub resource: GroupResource,
    /// What is left.
    pub remaining: Vec<Remaining>,
}

/// One object that is left.
pub struct Remaining {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Uid,
    /// Whether its deletion was asked already.
    pub is_deleting: bool,
    /// What holds it.
    pub finalizers: Vec<String>,
}

/// Returns what must be deleted next; when nothing is left, releases the namespace.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    let namespace = &input.namespace;
    if !namespace.is_deleting() {
        return Plan::nothing();
    }
    if input
        .content
        .iter()
        .all(|content| content.remaining.is_empty())
    {
        return Plan::of(release(namespace).into_iter().collect());
    }
    let actions = input
        .content
        .iter()
        .flat_map(|content| {
            content
                .remaining
                .iter()
                .map(move |object| (content, object))
        })
        .filter(|(_, object)| !object.is_deleting)
        .take(BURST_MAX)
        .map(|(content, object)| delete(namespace, &content.resource, object))
        .collect();
    let mut edit = StatusEdit::of(namespace);
    edit.set("phase", json!("Terminating"));
    let mut all = edit.conditions();
    set_remaining(&mut all, &input.content, now);
    set_finalizers(&mut all, &input.content, now);
    edit.set_conditions(all);
    Plan {
        actions,
        status: edit.into_update(namespace, resources::namespaces()),
        wake_at: Some(now.plus(AGAIN_AFTER)),
    }
}

fn delete(namespace: &Viewed<Namespace>, resource: &GroupResource, object: &Remaining) -> Action {
    Action::Delete {
        key: ObjectKey::new(resource.clone(), Some(namespace.name()), &object.name),
        precondition: Precondition::uid(&object.uid.0),
        grace_seconds: None,
        propagation: Some(Propagation::Background),
    }
}

/// Takes our finalizer from the namespace, through its subresource `finalize`.
fn release(namespace: &Viewed<Namespace>) -> Option<Action> {
    let finalizers = namespace.spec("finalizers").and_then(Value::as_array)?;
    let others: Vec<&Value> = finalizers
        .iter()
        .filter(|name| *name != FINALIZER)
        .collect();
    (others.len() < finalizers.len()).then(|| Action::Patch {
        key: namespace.key(resources::namespaces()),
        precondition: namespace.unchanged(),
        merge: json!({ "spec": { "finalizers": others } }),
        subresource: Some("finalize"),
    })
}

fn set_remaining(all: &mut Vec<Value>, content: &[Content], now: Timestamp) {
    let left = content
        .iter()
        .filter(|content| !content.remaining.is_empty());
    let parts: Vec<String> = left
        .map(|content| {
            let count = content.remaining.len();
            format!("{} has {count} resource instances", content.resource)
        })
        .collect();
    let message = format!("Some resources are remaining: {}", parts.join(", "));
    let condition = Condition {
        condition_type: "NamespaceContentRemaining",
        status: "True",
        reason: "SomeResourcesRemain",
        message: &message,
    };
    conditions::set(all, &condition, now);
}

fn set_finalizers(all: &mut Vec<Value>, content: &[Content], now: Timestamp) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let remaining = content.iter().flat_map(|content| &content.remaining);
    for finalizer in remaining.flat_map(|object| &object.finalizers) {
        *counts.entry(finalizer).or_default() += 1;
    }
    let parts: Vec<String> = counts
        .iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    let message = format!(
        "Some content in the namespace has finalizers remaining: {}",
        parts.join(", ")
    );
    let condition = if counts.is_empty() {
        Condition {
            condition_type: "NamespaceFinalizersRemaining",
            status: "False",
            reason: "ContentHasNoFinalizers",
            message: "All content-preserving finalizers finished",
        }
    } else {
        Condition {
            condition_type: "NamespaceFinalizersRemaining",
            status: "True",
            reason: "SomeFinalizersRemain",
            message: &message,
        }
    };
    conditions::set(all, &condition, now);
}

/// Runs [`reconcile`] for every namespace.
pub struct NamespaceController;

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        if change.is_of("", "namespaces") {
            return vec![change.key.clone()];
        }
        let namespace = change
            .key
            .namespace
            .as_deref()
            .filter(|_| change.after.is_none());
        let key =
            namespace.map(|name| ObjectKey::new(GroupResource::new("", "namespaces"), None, name));
        key.filter(|key| world.record(key).is_some_and(|record| record.deleting))
            .into_iter()
            .collect()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(namespace) = asked.object::<Namespace>()? else {
            return Ok(Plan::nothing());
        };
        let mut content: Vec<Content> = Vec::new();
        if namespace.is_deleting() {
            for key in asked.world.keys_in_namespace(&asked.key.name) {
                let Some(object) = asked.world.get(&key) else {
                    continue;
                };
                let remaining = Remaining {
                    name: key.name,
                    uid: object.metadata.uid.clone(),
                    is_deleting: object.metadata.is_deleting(),
                    finalizers: object.metadata.finalizers.clone(),
                };
                match content.last_mut() {
                    Some(last) if last.resource == key.resource => last.remaining.push(remaining),
                    _ => content.push(Content {
                        resource: key.resource,
                        remaining: vec![remaining],
                    }),
                }
            }
        }
        Ok(reconcile(&Input { namespace, content }, asked.now))
    }
}
