//! What one object costs, by every name under which a quota may count it.

use super::{Amounts, pod, quantity};
use crate::{GroupResource, Object, Quantity, Timestamp};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// Kinds of the core group that are also counted under their own name.
const COUNTED_BY_NAME: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// What every container must state when a quota counts it.
const STATED: [&str; 6] = [
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
];
/// What stands between a storage class's name and what is counted of it.
const OF_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// The storage class of claims that are older than the field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// What the object costs, by every name.
pub fn usage(resource: &GroupResource, object: &Object, now: Timestamp) -> Amounts {
    let one = Quantity::from_units(1);
    let mut usage = Amounts::from([(count_name(resource), one)]);
    if !resource.group.is_empty() {
        return usage;
    }
    let name = resource.resource.as_str();
    if COUNTED_BY_NAME.contains(&name) && name != "pods" {
        usage.insert(name.to_owned(), one);
    }
    let empty = Map::new();
    let spec = object.body.get("spec").and_then(Value::as_object);
    let spec = spec.unwrap_or(&empty);
    match name {
        "pods" if is_counted_pod(object, now) => {
            usage.insert(name.to_owned(), one);
            let (requests, limits) = (
                pod::total(spec, pod::REQUESTS),
                pod::total(spec, pod::LIMITS),
            );
            usage.extend(compute(&requests, &limits));
        }
        "services" => usage.extend(of_service(spec)),
        "persistentvolumeclaims" => usage.extend(of_claim(object, spec)),
        _ => {}
    }
    usage
}

/// Whether objects of the resource may cost something of this name.
pub fn may_cost(resource: &GroupResource, name: &str) -> bool {
    if name == count_name(resource) {
        return true;
    }
    let kind = resource.resource.as_str();
    resource.group.is_empty()
        && match kind {
            "pods" => {
                let compute = ["requests.", "limits."];
                let plain = ["pods", "cpu", "memory", "ephemeral-storage"];
                let of_pods = compute.iter().any(|prefix| name.starts_with(prefix));
                (of_pods && name != "requests.storage")
                    || plain.contains(&name)
                    || name.starts_with("hugepages-")
            }
            "services" => name == kind || name.starts_with("services."),
            "persistentvolumeclaims" => {
                name == kind || name == "requests.storage" || name.contains(OF_STORAGE_CLASS)
            }
            _ => name == kind && COUNTED_BY_NAME.contains(&kind),
        }
}

/// Whether the pod still uses what it asked for: it has not ended, and its node was given no more time than it has had.
pub fn is_counted_pod(pod: &Object, now: Timestamp) -> bool {
    let phase = pod
        .body
        .get("status")
        .and_then(|status| status.get("phase"));
    if matches!(phase.and_then(Value::as_str), Some("Succeeded" | "Failed")) {
        return false;
    }
    let metadata = &pod.metadata;
    let overdue = metadata
        .deletion_timestamp
        .zip(metadata.deletion_grace_period_seconds)
        .is_some_and(|(asked, grace)| now > asked.plus(Duration::from_secs(grace.unsigned_abs())));
    !overdue
}

/// What containers leave unsaid that the quota's names ask of each: the name, and which containers.
pub fn missing(hard: &Amounts, pod: &Object) -> BTreeMap<String, Vec<String>> {
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Some(spec) = pod.body.get("spec").and_then(Value::as_object) else {
        return missing;
    };
    let asked: Vec<&String> = hard
        .keys()
        .filter(|name| STATED.contains(&name.as_str()))
        .collect();
    let of_pod = compute(
        &super::amounts(spec.get("resources").and_then(|all| all.get(pod::REQUESTS))),
        &super::amounts(spec.get("resources").and_then(|all| all.get(pod::LIMITS))),
    );
    for list in ["containers", "initContainers"] {
        for container in pod::containers(spec, list) {
            let stated = compute(
                &pod::of_container(container, pod::REQUESTS),
                &pod::of_container(container, pod::LIMITS),
            );
            let name = container.get("name").and_then(Value::as_str);
            for asked in &asked {
                if !stated.contains_key(*asked) && !of_pod.contains_key(*asked) {
                    let named = missing.entry((*asked).clone()).or_default();
                    named.push(name.unwrap_or_default().to_owned());
                }
            }
        }
    }
    missing
}

/// `count/pods`, `count/deployments.apps`.
fn count_name(resource: &GroupResource) -> String {
    match resource.group.as_str() {
        "" => format!("count/{}", resource.resource),
        group => format!("count/{}.{group}", resource.resource),
    }
}

/// Requests and limits under the names by which quotas count them.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::new();
    for (name, amount) in requests {
        let native = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if native || name.starts_with("hugepages-") {
            usage.insert(name.clone(), *amount);
        }
        usage.insert(format!("requests.{name}"), *amount);
    }
    for (name, amount) in limits {
        usage.insert(format!("limits.{name}"), *amount);
    }
    usage
}

fn of_service(spec: &Map<String, Value>) -> Amounts {
    let ports = spec.get("ports").and_then(Value::as_array);
    let ports = ports.map(Vec::as_slice).unwrap_or_default();
    let is_numbered = |port: &&Value| port.get("nodePort").and_then(Value::as_i64) > Some(0);
    let allocates = spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let kind = spec.get("type").and_then(Value::as_str);
    let node_ports = match kind {
        Some("NodePort") => ports.len(),
        Some("LoadBalancer") if allocates => ports.len(),
        Some("LoadBalancer") => ports.iter().filter(is_numbered).count(),
        _ => 0,
    };
    let count = |count: usize| Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX));
    let balancers = usize::from(kind == Some("LoadBalancer"));
    Amounts::from([
        ("services.nodeports".to_owned(), count(node_ports)),
        ("services.loadbalancers".to_owned(), count(balancers)),
    ])
}

fn of_claim(claim: &Object, spec: &Map<String, Value>) -> Amounts {
    let mut usage = Amounts::new();
    let size = spec
        .get("resources")
        .and_then(|resources| resources.get("requests")?.get("storage"))
        .and_then(quantity);
    let older = claim.metadata.annotations.get(CLASS_ANNOTATION);
    let class = spec.get("storageClassName").and_then(Value::as_str);
    let class = older.map(String::as_str).or(class).unwrap_or_default();
    if !class.is_empty() {
        let claims = format!("{class}{OF_STORAGE_CLASS}persistentvolumeclaims");
        usage.insert(claims, Quantity::from_units(1));
    }
    if let Some(size) = size {
        usage.insert("requests.storage".to_owned(), size);
        if !class.is_empty() {
            usage.insert(format!("{class}{OF_STORAGE_CLASS}requests.storage"), size);
        }
    }
    usage
}
