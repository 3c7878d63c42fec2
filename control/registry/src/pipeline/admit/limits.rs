//! Limit ranges: containers get the namespace's defaults, and what pods and claims ask for must lie in its bounds.
//! Rules and words: Kubernetes' LimitRanger plugin.

use super::{Attributes, Operation};
use crate::pipeline::{Pipeline, store};
use crate::strategy::edit::{self, Members};
use objects::quota::{self, Amounts, pod};
use objects::{GroupResource, Object, Quantity, Status};
use serde_json::Value;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const LISTS: [(&str, &str); 2] = [
    ("containers", "container"),
    ("initContainers", "init container"),
];

/// Gives a new pod's containers what the namespace's limit ranges say.
pub async fn mutate(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &mut Object,
) -> Result<(), Status> {
    if !asked.creates("", "pods") {
        return Ok(());
    }
    let mut said = Vec::new();
    for range in ranges(pipeline, object).await? {
        let (requests, limits) = defaults(&range);
        let Some(spec) = edit::existing_map(&mut object.body, "spec") else {
            return Ok(()); // Validation tells.
        };
        for (list, what) in LISTS {
            for container in edit::maps_in(spec, list) {
                fill(container, what, &requests, &limits, &mut said);
            }
        }
    }
    if !said.is_empty() {
        let said = format!("LimitRanger plugin set: {}", said.join("; "));
        object
            .metadata
            .annotations
            .insert(ANNOTATION.to_owned(), said);
    }
    Ok(())
}

/// Whether the pod or claim lies in the namespace's bounds.
pub async fn validate(
    pipeline: &Pipeline,
    asked: &Attributes<'_>,
    object: &Object,
) -> Result<(), Status> {
    let is_resize = asked.target.subresource_name() == "resize";
    let is_claim =
        asked.is_of("", "persistentvolumeclaims") && asked.operation != Operation::Delete;
    if !(asked.creates("", "pods") || is_resize || is_claim) {
        return Ok(());
    }
    let Some(spec) = edit::read_map(&object.body, "spec") else {
        return Ok(());
    };
    for range in ranges(pipeline, object).await? {
        let mut faults = Vec::new();
        for (_, limit) in edit::read_maps(&range, "limits") {
            match (edit::read_text(limit, "type"), is_claim) {
                ("PersistentVolumeClaim", true) => check_claim(limit, spec, &mut faults),
                ("Container", false) => {
                    let containers = LISTS
                        .iter()
                        .flat_map(|(list, _)| pod::containers(spec, list));
                    for container in containers {
                        let part = |part| pod::of_container(container, part);
                        check(limit, &part(pod::REQUESTS), &part(pod::LIMITS), &mut faults);
                    }
                }
                ("Pod", false) => {
                    let part = |part| pod::total(spec, part);
                    check(limit, &part(pod::REQUESTS), &part(pod::LIMITS), &mut faults);
                }
                _ => {}
            }
        }
        match &faults[..] {
            [] => {}
            [fault] => return Err(asked.forbidden(&object.metadata.name, fault)),
            faults => {
                let why = format!("[{}]", faults.join(", "));
                return Err(asked.forbidden(&object.metadata.name, &why));
            }
        }
    }
    Ok(())
}

/// The specs of the limit ranges of the object's namespace.
async fn ranges(pipeline: &Pipeline, object: &Object) -> Result<Vec<Members>, Status> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let resource = GroupResource::new("", "limitranges");
    let ranges = store::all(pipeline, &resource, Some(namespace)).await?;
    let specs =
        ranges
            .into_iter()
            .filter_map(|mut range| match range.object.body.shift_remove("spec") {
                Some(Value::Object(spec)) => Some(spec),
                _ => None,
            });
    Ok(specs.collect())
}

/// The requests and limits that containers get which state none.
fn defaults(range: &Members) -> (Amounts, Amounts) {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for (_, limit) in edit::read_maps(range, "limits") {
        if edit::read_text(limit, "type") == "Container" {
            requests.extend(quota::amounts(limit.get("defaultRequest")));
            limits.extend(quota::amounts(limit.get("default")));
        }
    }
    (requests, limits)
}

fn fill(
    container: &mut Members,
    what: &str,
    requests: &Amounts,
    limits: &Amounts,
    said: &mut Vec<String>,
) {
    let name = edit::read_text(container, "name").to_owned();
    let Some(resources) = edit::map_at(container, "resources") else {
        return;
    };
    for (part, defaults, word) in [
        (pod::REQUESTS, requests, "request"),
        (pod::LIMITS, limits, "limit"),
    ] {
        if defaults.is_empty() {
            continue;
        }
        let Some(given) = edit::map_at(resources, part) else {
            continue;
        };
        let mut set: Vec<&str> = Vec::new();
        for (resource, amount) in defaults {
            if !given.contains_key(resource) {
                given.insert(resource.clone(), Value::String(amount.to_string()));
                set.push(resource);
            }
        }
        if !set.is_empty() {
            said.push(format!("{} {word} for {what} {name}", set.join(", ")));
        }
    }
}

/// Checks one container's, or the whole pod's, requests and limits.
fn check(limit: &Members, requests: &Amounts, limits: &Amounts, faults: &mut Vec<String>) {
    let kind = edit::read_text(limit, "type");
    for (name, min) in &quota::amounts(limit.get("min")) {
        let lowest = format!("minimum {name} usage per {kind} is {min}");
        match (requests.get(name), limits.get(name)) {
            (None, _) => faults.push(format!("{lowest}.  No request is specified")),
            (Some(request), _) if request < min => {
                faults.push(format!("{lowest}, but request is {request}"));
            }
            (_, Some(limit)) if limit < min => {
                faults.push(format!("{lowest}, but limit is {limit}"));
            }
            _ => {}
        }
    }
    for (name, max) in &quota::amounts(limit.get("max")) {
        let highest = format!("maximum {name} usage per {kind} is {max}");
        match (requests.get(name), limits.get(name)) {
            (_, None) => faults.push(format!("{highest}.  No limit is specified")),
            (_, Some(limit)) if limit > max => {
                faults.push(format!("{highest}, but limit is {limit}"));
            }
            (Some(request), _) if request > max => {
                faults.push(format!("{highest}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, ratio) in &quota::amounts(limit.get("maxLimitRequestRatio")) {
        check_ratio(
            kind,
            name,
            *ratio,
            requests.get(name),
            limits.get(name),
            faults,
        );
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Kubernetes compares and shows the ratio as a float too"
)]
fn check_ratio(
    kind: &str,
    name: &str,
    ratio: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
    faults: &mut Vec<String>,
) {
    let bound = format!("{name} max limit to request ratio per {kind} is {ratio}, but");
    let given = |amount: Option<&Quantity>| amount.copied().filter(|amount| !amount.is_zero());
    match (given(request), given(limit)) {
        (None, _) => faults.push(format!("{bound} no request is specified or request is 0")),
        (_, None) => faults.push(format!("{bound} no limit is specified or limit is 0")),
        (Some(request), Some(limit)) => {
            let observed = limit.milli() as f64 / request.milli() as f64;
            if observed > ratio.milli() as f64 / 1000.0 {
                faults.push(format!("{bound} provided ratio is {observed:.6}"));
            }
        }
    }
}

fn check_claim(limit: &Members, spec: &Members, faults: &mut Vec<String>) {
    let kind = edit::read_text(limit, "type");
    let requests = pod::of_container(spec, pod::REQUESTS);
    for (name, min) in &quota::amounts(limit.get("min")) {
        let lowest = format!("minimum {name} usage per {kind} is {min}");
        match requests.get(name) {
            None => faults.push(format!("{lowest}.  No request is specified")),
            Some(request) if request < min => {
                faults.push(format!("{lowest}, but request is {request}"));
            }
            Some(_) => {}
        }
    }
    for (name, max) in &quota::amounts(limit.get("max")) {
        let highest = format!("maximum {name} usage per {kind} is {max}");
        match requests.get(name) {
            None => faults.push(format!("{highest}.  No request is specified")),
            Some(request) if request > max => {
                faults.push(format!("{highest}, but request is {request}"));
            }
            Some(_) => {}
        }
    }
}
