//! What workloads share: a selector and the template of the pods that it must select.
//! Rules: Kubernetes' apps/v1 and core/v1 validation.

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
    default_template(spec);
    Some(spec)
}

/// Fills in the member `template`.
pub fn default_template(spec: &mut Members) {
    if let Some(template) = map_at(spec, "template") {
        map_at(template, "metadata");
        if let Some(pod) = map_at(template, "spec") {
            pod_spec::default_spec(pod);
        }
    }
}

/// Checks replicas, selector and template; `kind` is the word for messages.
pub fn validate_workload(spec: &Members, kind: &str, faults: &mut Faults) {
    for name in ["replicas", "minReadySeconds"] {
        not_negative(spec, name, faults);
    }
    validate_selected_template(spec, kind, faults);
}

/// Checks selector and template, whose pods always run.
pub fn validate_selected_template(spec: &Members, kind: &str, faults: &mut Faults) {
    let selector = check_selector(spec, kind, faults);
    if let Some(selector) = selector {
        check_selected(spec, selector.as_ref(), faults);
    }
    validate_lasting_template(spec, faults);
}

/// Says so when the selector does not find the template's pods.
pub fn check_selected(spec: &Members, selector: Option<&LabelSelector>, faults: &mut Faults) {
    let nothing = Map::new();
    let meta = read_map(spec, "template").and_then(|template| read_map(template, "metadata"));
    let labels = meta.and_then(|meta| meta.get("labels"));
    let map = labels.and_then(Value::as_object).unwrap_or(&nothing);
    if selector.is_none_or(|selector| !selector.matches_map(map)) {
        let shown = labels.cloned().unwrap_or_default();
        let detail = "`selector` does not match template `labels`";
        faults.invalid("spec.template.metadata.labels", &shown, detail);
    }
}

/// Checks `spec.template` of a workload whose pods are started again when they end.
pub fn validate_lasting_template(spec: &Members, faults: &mut Faults) {
    validate_template(spec, "spec.template", faults);
    let pod = template_spec(spec);
    let restart = pod.map(|pod| read_text(pod, "restartPolicy"));
    if let Some(restart @ ("Never" | "OnFailure")) = restart {
        faults.unsupported("spec.template.spec.restartPolicy", restart, &["Always"]);
    }
    if pod.is_some_and(|pod| pod.contains_key("activeDeadlineSeconds")) {
        faults.forbidden(
            "spec.template.spec.activeDeadlineSeconds",
            "activeDeadlineSeconds in a workload's template is not Supported",
        );
    }
}

/// Checks the member `template` of a map; `field` is its path.
pub fn validate_template(members: &Members, field: &str, faults: &mut Faults) {
    let nothing = Map::new();
    let template = read_map(members, "template").unwrap_or(&nothing);
    let meta = read_map(template, "metadata").unwrap_or(&nothing);
    check_labels(meta, &format!("{field}.metadata.labels"), faults);
    let pod = read_map(template, "spec").unwrap_or(&nothing);
    pod_spec::validate_spec(pod, &format!("{field}.spec"), faults);
}

/// The spec of the pods of the member `template`.
pub fn template_spec(members: &Members) -> Option<&Members> {
    read_map(read_map(members, "template")?, "spec")
}

/// The selector: None when it is broken, Some(None) when it is absent and so selects nothing.
pub fn check_selector(
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
    let pod = read_map(&object.body, "spec").and_then(template_spec);
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

fn check_labels(meta: &Members, field: &str, faults: &mut Faults) {
    let labels = read_map(meta, "labels").into_iter().flatten();
    let labels: Vec<(String, String)> = labels
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    let pairs = labels.iter().map(|(key, value)| (key, value));
    metadata::labels(field, pairs, faults);
}

/// A default that is a percentage or a number.
pub fn quarter() -> Value {
    json!("25%")
}
