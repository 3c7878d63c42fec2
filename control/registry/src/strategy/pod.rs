//! Pods: a spec that hardly changes, a status that a node writes, a grace before the end.
//! Rules: Kubernetes' registry/core/pod, its DefaultTolerationSeconds, Priority and ServiceAccount admission.

use super::edit::{
    Members, default, default_text, map_at, read_list, read_map, read_number, read_text,
};
use super::{Context, Strategy, pod_spec};
use crate::Faults;
use objects::Object;
use serde_json::{Value, json};

/// The pods' strategy.
pub struct Pods;

/// What may be done to a running pod's spec, in Kubernetes' words.
const IMMUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const NODE_TROUBLES: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];
const NODE_TROUBLE_SECONDS: i64 = 300;
/// The classes that every cluster has; a pod without one has none.
const PRIORITY_CLASSES: [(&str, i64); 3] = [
    ("", 0),
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];
const GRACE_SECONDS: i64 = 30;

impl Strategy for Pods {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        pod_spec::default_spec(spec);
        pod_spec::default_requests(spec);
        default(spec, "enableServiceLinks", true);
        default(spec, "preemptionPolicy", "PreemptLowerPriority");
        default(spec, "priority", priority_of(spec).unwrap_or_default());
        default_text(spec, "serviceAccountName", "default");
        let account = spec["serviceAccountName"].clone();
        spec.insert("serviceAccount".to_owned(), account);
        tolerate_node_troubles(spec);
    }

    fn prepare_create(&self, object: &mut Object, _context: &Context<'_>) {
        let quality =
            read_map(&object.body, "spec").map_or("BestEffort", pod_spec::quality_of_service);
        let status = json!({"phase": "Pending", "qosClass": quality});
        object.body.insert("status".to_owned(), status);
    }

    fn prepare_update(&self, object: &mut Object, old: &Object, _context: &Context<'_>) {
        let node = read_map(&old.body, "spec")
            .and_then(|spec| spec.get("nodeName"))
            .cloned();
        if let (Some(node), Some(spec)) = (node, map_at(&mut object.body, "spec")) {
            default(spec, "nodeName", node); // A client may send the spec that it knew before the pod was bound.
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        match read_map(&object.body, "spec") {
            Some(spec) => {
                pod_spec::validate_spec(spec, "spec", faults);
                check_priority(spec, faults);
            }
            None => faults.required("spec", ""),
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        let empty = Members::new();
        let new = read_map(&object.body, "spec").unwrap_or(&empty);
        let old = read_map(&old.body, "spec").unwrap_or(&empty);
        let kept = read_list(old, "tolerations").iter().all(|old| {
            read_list(new, "tolerations")
                .iter()
                .any(|new| same_toleration(old, new))
        });
        if !kept {
            let detail = "existing toleration can not be modified except its tolerationSeconds";
            faults.forbidden("spec.tolerations", detail);
        }
        if fixed_part(new) != fixed_part(old) {
            let changed = first_difference(&fixed_part(new), &fixed_part(old), "spec");
            faults.forbidden("spec", &format!("{IMMUTABLE}; {changed} differs"));
        }
    }

    fn validate_status(&self, object: &Object, old: &Object, faults: &mut Faults) {
        let node = |object: &Object| {
            let spec = read_map(&object.body, "spec");
            spec.map(|spec| read_text(spec, "nodeName").to_owned())
                .unwrap_or_default()
        };
        if node(object) != node(old) {
            faults.invalid_text(
                "status.nodeName",
                &node(object),
                "may not be changed directly",
            );
        }
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        let spec = read_map(&object.body, "spec");
        spec.map(|spec| pod_spec::warnings(spec, "spec"))
            .unwrap_or_default()
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn grace_seconds(&self, object: &Object, asked: Option<i64>) -> Option<i64> {
        let spec = read_map(&object.body, "spec");
        let phase = read_map(&object.body, "status").map(|status| read_text(status, "phase"));
        let bound = spec.is_some_and(|spec| !read_text(spec, "nodeName").is_empty());
        if !bound || matches!(phase, Some("Succeeded" | "Failed")) {
            return Some(0); // Nobody runs it, so that nobody would confirm its end.
        }
        let own = spec.and_then(|spec| read_number(spec, "terminationGracePeriodSeconds"));
        let grace = asked.or(own).unwrap_or(GRACE_SECONDS);
        Some(if grace < 0 { 1 } else { grace })
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

/// The priority of the class that the pod names; None for a class that does not exist.
fn priority_of(spec: &Members) -> Option<i64> {
    let name = read_text(spec, "priorityClassName");
    PRIORITY_CLASSES
        .iter()
        .find(|(class, _)| *class == name)
        .map(|(_, priority)| *priority)
}

fn check_priority(spec: &Members, faults: &mut Faults) {
    match priority_of(spec) {
        None => faults.not_found(
            "spec.priorityClassName",
            read_text(spec, "priorityClassName"),
        ),
        Some(priority) if read_number(spec, "priority") != Some(priority) => {
            let detail = format!("must be the priority of its class, {priority}");
            faults.forbidden("spec.priority", &detail);
        }
        Some(_) => {}
    }
}

/// A pod stays on a node in trouble for five minutes unless it says otherwise.
fn tolerate_node_troubles(spec: &mut Members) {
    let tolerates = |key: &str| {
        read_list(spec, "tolerations")
            .iter()
            .filter_map(Value::as_object)
            .any(|toleration| {
                let given = read_text(toleration, "key");
                let effect = read_text(toleration, "effect");
                (given == key || given.is_empty()) && matches!(effect, "" | "NoExecute")
            })
    };
    let missing: Vec<&str> = NODE_TROUBLES
        .into_iter()
        .filter(|key| !tolerates(key))
        .collect();
    let list = spec.entry("tolerations").or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    if let Value::Array(list) = list {
        list.extend(missing.iter().map(|key| {
            json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_TROUBLE_SECONDS})
        }));
    }
}

fn same_toleration(old: &Value, new: &Value) -> bool {
    let timeless = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Value::Object(members) = &mut toleration {
            members.shift_remove("tolerationSeconds");
        }
        toleration
    };
    timeless(old) == timeless(new)
}

/// The spec without what an update may change.
fn fixed_part(spec: &Members) -> Value {
    let mut spec = spec.clone();
    for name in [
        "activeDeadlineSeconds",
        "tolerations",
        "ephemeralContainers",
    ] {
        spec.shift_remove(name);
    }
    for list in ["containers", "initContainers"] {
        for container in super::edit::maps_in(&mut spec, list) {
            container.shift_remove("image");
        }
    }
    Value::Object(spec)
}

/// The path of the first member in which two values differ.
fn first_difference(new: &Value, old: &Value, path: &str) -> String {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            let names = new
                .keys()
                .chain(old.keys().filter(|name| !new.contains_key(*name)));
            for name in names {
                let (new, old) = (new.get(name), old.get(name));
                if new != old {
                    let path = format!("{path}.{name}");
                    return new
                        .zip(old)
                        .map_or(path.clone(), |(new, old)| first_difference(new, old, &path));
                }
            }
            path.to_owned()
        }
        (Value::Array(new), Value::Array(old)) if new.len() == old.len() => {
            let differing = new
                .iter()
                .zip(old)
                .enumerate()
                .find(|(_, (new, old))| new != old);
            differing.map_or(path.to_owned(), |(index, (new, old))| {
                first_difference(new, old, &format!("{path}[{index}]"))
            })
        }
        _ => path.to_owned(),
    }
}
