//! What a node's agent may write, beyond what its rights tell: only what is its own, and no label that says where it may be
//! trusted. Rules and words: Kubernetes' NodeRestriction plugin.

use crate::rbac::{MIRROR_ANNOTATION, names_anything, node_of};
use crate::{Caller, Target, Verb};
use objects::{Object, Status};
use serde_json::Value;

/// Labels of Kubernetes' own domains that an agent sets on its node.
const OWN_LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Whether the node whose agent asks may do this to this object; others may.
pub fn may(caller: &Caller, verb: Verb, target: &Target, object: &Object) -> Result<(), Status> {
    let Some(node) = node_of(caller) else {
        return Ok(());
    };
    let name = object.metadata.name.as_str();
    let bound_to = bound_to(object);
    let subresource = target.subresource.as_deref().unwrap_or_default();
    let why = match (target.resource.resource.as_str(), verb) {
        ("nodes", _) if name != node => {
            format!("node {node:?} is not allowed to modify node {name:?}")
        }
        ("nodes", Verb::Create) => {
            return refuse_labels(target, node, object, None);
        }
        ("pods", Verb::Create) if subresource == "eviction" && bound_to != node => {
            format!("node {node:?} can only evict pods with spec.nodeName set to itself")
        }
        ("pods", Verb::Create) if subresource == "eviction" => return Ok(()),
        ("pods", Verb::Create) if !object.metadata.annotations.contains_key(MIRROR_ANNOTATION) => {
            format!(
                "pod does not have {MIRROR_ANNOTATION:?} annotation, node {node:?} can only create mirror pods"
            )
        }
        ("pods", Verb::Create) if bound_to != node => {
            format!("node {node:?} can only create pods with spec.nodeName set to itself")
        }
        ("pods", Verb::Create) if names_anything(object) => {
            format!(
                "node {node:?} can not create pods that reference secrets, configmaps, persistentvolumeclaims or a service account"
            )
        }
        ("pods", Verb::Delete) if bound_to != node => {
            format!("node {node:?} can only delete pods with spec.nodeName set to itself")
        }
        ("pods", _) if bound_to != node => {
            format!(
                "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
            )
        }
        _ => return Ok(()),
    };
    Err(Status::forbidden(&target.group_resource(), name, &why))
}

/// Whether the node may change the object so.
pub fn node_may_change(
    caller: &Caller,
    target: &Target,
    object: &Object,
    old: &Object,
) -> Result<(), Status> {
    let Some(node) = node_of(caller) else {
        return Ok(());
    };
    let refused = |why: String| {
        let name = &old.metadata.name;
        Err(Status::forbidden(&target.group_resource(), name, &why))
    };
    match target.resource.resource.as_str() {
        "nodes" => {
            let taints = |node: &Object| node.body.get("spec")?.get("taints").cloned();
            if taints(object) != taints(old) {
                return refused(format!("node {node:?} is not allowed to modify taints"));
            }
            if object.metadata.owner_references != old.metadata.owner_references {
                return refused(format!(
                    "node {node:?} is not allowed to modify its own ownerReferences"
                ));
            }
            refuse_labels(target, node, object, Some(old))
        }
        "pods" if object.metadata.labels != old.metadata.labels => refused(format!(
            "node {node:?} cannot update labels through pod status"
        )),
        _ => Ok(()),
    }
}

/// Labels by which administrators keep nodes apart are not for the nodes themselves.
fn refuse_labels(
    target: &Target,
    node: &str,
    object: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    let empty = Default::default();
    let (new, old) = (
        &object.metadata.labels,
        old.map_or(&empty, |old| &old.metadata.labels),
    );
    let changed = new
        .keys()
        .chain(old.keys())
        .filter(|key| new.get(*key) != old.get(*key));
    let mut refused: Vec<&str> = changed
        .map(String::as_str)
        .filter(|key| !may_label(key))
        .collect();
    refused.sort_unstable();
    refused.dedup();
    if refused.is_empty() {
        return Ok(());
    }
    let why = format!(
        "node {node:?} is not allowed to modify labels: {}",
        refused.join(", ")
    );
    let name = &object.metadata.name;
    Err(Status::forbidden(&target.group_resource(), name, &why))
}

fn may_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |of: &str| {
        domain == of
            || domain
                .strip_suffix(of)
                .is_some_and(|rest| rest.ends_with('.'))
    };
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    !kubernetes
        || OWN_LABELS.contains(&key)
        || OWN_LABEL_DOMAINS.iter().any(|domain| within(domain))
}

fn bound_to(object: &Object) -> &str {
    let spec = object.body.get("spec");
    spec.and_then(|spec| spec.get("nodeName"))
        .and_then(Value::as_str)
        .unwrap_or_default()
}
