//! What Deployments and ReplicaSets share: a selector and the template of the pods that it must select.
//! Rules: Kubernetes' apps/v1 validation.

use super::edit::{Members, default, map_at, read_map, read_text};
use super::pod_spec;
use crate::Faults;
use crate::metadata;
use objects::{LabelSelector, Object};
use serde_json::{Map, Value, json};

/// Fills in the replica count and the template.
pub fn default_workload(object: &mut Object) -> Option<&mut Members> {
    let spec = map_at(&mut object.body, "spec")?;
    default(spec, "replicas", 1);
    if let Some(template) = map_at(spec, "template") {
        map_at(template, "metadata");
        if let Some(pod) = map_at(template, "spec") {
            pod_spec::default_spec(pod);
        }
    }
    Some(spec)
}

/// Checks replicas, selector and template; `kind` is the word for messages.
pub fn validate_workload(spec: &Members, kind: &str, faults: &mut Faults) {
    for name in ["replicas", "minReadySeconds"] {
        not_negative(spec, name, faults);
    }
    let selector = check_selector(spec, kind, faults);
    let nothing = Map::new();
    let template = read_map(spec, "template").unwrap_or(&nothing);
    let meta = read_map(template, "metadata").unwrap_or(&nothing);
    if let Some(selector) = selector {
        let labels = read_map(meta, "labels").unwrap_or(&nothing);
        if selector.is_none_or(|selector| !selector.matches_map(labels)) {
            let shown = meta.get("labels").cloned().unwrap_or_default();
            let detail = "`selector` does not match template `labels`";
            faults.invalid("spec.template.metadata.labels", &shown, detail);
        }
    }
    check_labels(meta, faults);
    let pod = read_map(template, "spec").unwrap_or(&nothing);
    pod_spec::validate_spec(pod, "spec.template.spec", faults);
    let restart = read_text(pod, "restartPolicy");
    if matches!(restart, "Never" | "OnFailure") {
        faults.unsupported("spec.template.spec.restartPolicy", restart, &["Always"]);
    }
    if pod.contains_key("activeDeadlineSeconds") {
        faults.forbidden(
            "spec.template.spec.activeDeadlineSeconds",
            "activeDeadlineSeconds in a workload's template is not Supported",
        );
    }
}

/// The selector: None when it is broken, Some(None) when it is absent and so selects nothing.
fn check_selector(
    spec: &Members,
    kind: &str,
    faults: &mut Faults,
) -> Option<Option<LabelSelector>> {
    let field = "spec.selector";
    let Some(value) = spec.get("selector").filter(|value| !value.is_null()) else {
        faults.required(field, "");
        return Some(None);
    };
    match LabelSelector::from_value(value) {
        Ok(selector) if selector.is_empty() => {
            faults.invalid(
                field,
                value,
                &format!("empty selector is invalid for {kind}"),
            );
            None
        }
        Ok(selector) => Some(Some(selector)),
        Err(error) => {
            faults.invalid(field, value, &error.to_string());
            None
        }
    }
}

/// The selector of a workload never changes.
pub fn validate_workload_update(new: &Object, old: &Object, faults: &mut Faults) {
    let selector = |object: &Object| {
        read_map(&object.body, "spec")
            .and_then(|spec| spec.get("selector"))
            .cloned()
            .unwrap_or_default()
    };
    if selector(new) != selector(old) {
        faults.invalid("spec.selector", &selector(new), "field is immutable");
    }
}

/// Warnings about the template.
pub fn template_warnings(object: &Object) -> Vec<String> {
    let template = read_map(&object.body, "spec").and_then(|spec| read_map(spec, "template"));
    let pod = template.and_then(|template| read_map(template, "spec"));
    pod.map(|pod| pod_spec::warnings(pod, "spec.template.spec"))
        .unwrap_or_default()
}

/// Moves members of a pod's spec that stand in the workload's own spec into the template.
pub fn put_in_template(body: &mut Value, faults: &mut Faults) {
    let Some(spec) = body.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    for name in ["containers", "initContainers", "volumes"] {
        let Some(value) = spec.shift_remove(name) else {
            continue;
        };
        faults.forbidden(
            format!("spec.{name}"),
            &format!("belongs in spec.template.spec.{name}"),
        );
        let template = map_at(spec, "template");
        if let Some(pod) = template.and_then(|template| map_at(template, "spec")) {
            pod.insert(name.to_owned(), value);
        }
    }
}

/// Checks that a number is not below zero.
pub fn not_negative(spec: &Members, name: &str, faults: &mut Faults) {
    if let Some(value) = spec
        .get(name)
        .filter(|value| value.as_i64().is_some_and(|number| number < 0))
    {
        faults.invalid(
            format!("spec.{name}"),
            value,
            "must be greater than or equal to 0",
        );
    }
}

fn check_labels(meta: &Members, faults: &mut Faults) {
    let labels = read_map(meta, "labels").into_iter().flatten();
    let labels: Vec<(String, String)> = labels
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    let pairs = labels.iter().map(|(key, value)| (key, value));
    metadata::labels("spec.template.metadata.labels", pairs, faults);
}

/// A default that is a percentage or a number.
pub fn quarter() -> Value {
    json!("25%")
}
