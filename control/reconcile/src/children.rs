//! Pods made of a template, and the pods that an owner may have. Never decides how many there shall be.

use crate::controller::{self, Asked, Record};
use crate::owners::{self, Claim};
use crate::plan::{Action, ObjectReference};
use crate::view::{Viewed, resources};
use k8s_openapi::api::core::v1::Pod;
use objects::{GroupVersionKind, LabelSelector, Object, ObjectError, ObjectMeta, Uid};
use serde_json::Value;
use std::sync::Arc;

/// The pod of a template (`spec.template` of a workload), under the owner's control.
pub fn pod(owner: &ObjectReference, template: Option<&Value>, name: String) -> Object {
    let mut object = of_template(owner, template, name);
    object.types = GroupVersionKind::new("", "v1", "Pod");
    object.metadata.generate_name = format!("{}-", owner.name);
    object
}

/// What a template describes, without a type: its labels, annotations and spec, under the owner's control.
pub fn of_template(owner: &ObjectReference, template: Option<&Value>, name: String) -> Object {
    let part = |field| template.and_then(|template| template.get(field)).cloned();
    let metadata: ObjectMeta = part("metadata")
        .and_then(|metadata| serde_json::from_value(metadata).ok())
        .unwrap_or_default();
    Object {
        types: GroupVersionKind::default(),
        metadata: ObjectMeta {
            name,
            namespace: owner.namespace.clone(),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: vec![owners::controller_reference(owner)],
            ..ObjectMeta::default()
        },
        body: part("spec")
            .map(|spec| ("spec".to_owned(), spec))
            .into_iter()
            .collect(),
    }
}

/// Which of `pods` are the owner's, those that it now adopts among them, and what must be written for that: adoptions of those that
/// `may_adopt` lets in, and releases.
pub fn claim<'a, T>(
    owner: &Viewed<T>,
    selector: &LabelSelector,
    pods: impl IntoIterator<Item = &'a Arc<Pod>>,
    may_adopt: impl Fn(&Pod) -> bool,
) -> (Vec<Action>, Vec<&'a Pod>) {
    let (uid, is_deleting) = (&owner.uid().0, owner.is_deleting());
    let mut actions = Vec::new();
    let mut owned = Vec::new();
    for pod in pods {
        let metadata = &pod.metadata;
        match owners::claim(metadata, uid, is_deleting, selector) {
            Claim::Owned => owned.push(pod.as_ref()),
            Claim::Adopt if may_adopt(pod) => {
                let reference = owner.reference();
                actions.push(owners::adopt(resources::pods(), metadata, &reference));
                owned.push(pod.as_ref());
            }
            Claim::Release => actions.push(owners::release(resources::pods(), metadata, uid)),
            Claim::Adopt | Claim::Foreign => {}
        }
    }
    (actions, owned)
}

/// The owner's pods in its namespace, and those that nobody controls: it may adopt them.
pub fn pods_near(asked: &Asked<'_>, owner: &Uid) -> Result<Vec<Arc<Pod>>, ObjectError> {
    asked.neighbours(&controller::pods(), &|record| is_near(record, owner))
}

/// Whether the owner controls it, or nobody does.
pub fn is_near(record: &Record, owner: &Uid) -> bool {
    let mut owners = record.owners.iter();
    owners.all(|(uid, controls)| !controls || uid == owner)
}
