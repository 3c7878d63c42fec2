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
const GRACE_SECONDS: i64 = 30;

impl Strategy for Pods {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        pod_spec::default_spec(spec);
        pod_spec::default_requests(spec);
        default(spec, "enableServiceLinks", true);
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
        let Some((spec, old)) = map_at(&mut object.body, "spec").zip(read_map(&old.body, "spec"))
        else {
            return;
        };
        // A client may send the spec that it knew before the pod was bound, or one without what the server filled in.
        let kept = [
            "nodeName",
            "ephemeralContainers",
            "priority",
            "preemptionPolicy",
            "overhead",
        ];
        for name in kept {
            if let Some(value) = old.get(name) {
                default(spec, name, value.clone());
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        match read_map(&object.body, "spec") {
            Some(spec) => pod_spec::validate_spec(spec, "spec", faults),
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

    fn validate_part(&self, part: &str, object: &Object, old: &Object, faults: &mut Faults) {
        let empty = Members::new();
        let new = read_map(&object.body, "spec").unwrap_or(&empty);
        let old = read_map(&old.body, "spec").unwrap_or(&empty);
        match part {
            "ephemeralcontainers" => check_ephemeral(new, old, faults),
            _ => check_resize(new, old, faults),
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

/// Ephemeral containers are added, never changed or taken away.
fn check_ephemeral(new: &Members, old: &Members, faults: &mut Faults) {
    let field = "spec.ephemeralContainers";
    for container in read_list(old, "ephemeralContainers") {
        let name = container.get("name");
        let mut all = read_list(new, "ephemeralContainers").iter();
        let detail = match all.find(|other| other.get("name") == name) {
            None => "may not be removed",
            Some(other) if other != container => "may not be changed",
            Some(_) => continue,
        };
        let name = name.and_then(Value::as_str).unwrap_or_default();
        faults.forbidden(
            field,
            &format!("existing ephemeral containers {name:?} {detail}"),
        );
    }
}

/// A resize changes amounts of CPU and memory, and leaves the quality of service as it is.
fn check_resize(new: &Members, old: &Members, faults: &mut Faults) {
    if pod_spec::quality_of_service(new) != pod_spec::quality_of_service(old) {
        faults.invalid_text(
            "spec",
            pod_spec::quality_of_service(new),
            "Pod QOS Class may not change as a result of resizing",
        );
    }
    for list in ["containers", "initContainers"] {
        let pairs = read_list(new, list).iter().zip(read_list(old, list));
        for (index, (new, old)) in pairs.enumerate() {
            for kind in ["requests", "limits"] {
                let pointer = format!("/resources/{kind}");
                let [new, old] = [new, old].map(|container| {
                    let amounts = container.pointer(&pointer).and_then(Value::as_object);
                    let mut amounts = amounts.cloned().unwrap_or_default();
                    for name in ["cpu", "memory"] {
                        amounts.shift_remove(name);
                    }
                    amounts
                });
                if new != old {
                    let detail = "only cpu and memory resources are mutable";
                    let field = format!("spec.{list}[{index}].resources.{kind}");
                    faults.forbidden(field, detail);
                }
            }
        }
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
    for name in ["activeDeadlineSeconds", "tolerations"] {
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
