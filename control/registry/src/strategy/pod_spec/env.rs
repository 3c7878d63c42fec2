//! Environment variables of containers.

use super::super::edit::{Members, read_map, read_maps, read_text};
use crate::Faults;
use objects::names;
use serde_json::Value;

const SOURCES: [&str; 4] = [
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
];
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Checks `env` and `envFrom`.
pub fn validate(container: &Members, field: &str, faults: &mut Faults) {
    for (index, variable) in read_maps(container, "env") {
        check_variable(variable, &format!("{field}.env[{index}]"), faults);
    }
    for (index, source) in read_maps(container, "envFrom") {
        check_bulk(source, &format!("{field}.envFrom[{index}]"), faults);
    }
}

fn check_variable(variable: &Members, field: &str, faults: &mut Faults) {
    let name = read_text(variable, "name");
    if name.is_empty() {
        faults.required(format!("{field}.name"), "");
    } else {
        faults.invalid_texts(format!("{field}.name"), name, &names::env_name(name));
    }
    let Some(source) = read_map(variable, "valueFrom") else {
        return;
    };
    let field = format!("{field}.valueFrom");
    let given: Vec<&str> = SOURCES
        .into_iter()
        .filter(|name| source.contains_key(*name))
        .collect();
    if given.is_empty() {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        faults.invalid_text(&field, "", detail);
    } else if !read_text(variable, "value").is_empty() {
        faults.invalid_text(&field, "", "may not be specified when `value` is not empty");
    } else if given.len() > 1 {
        faults.invalid_text(
            &field,
            "",
            "may not have more than one field specified at a time",
        );
    }
    if let Some(reference) = read_map(source, "fieldRef") {
        check_field_ref(reference, &format!("{field}.fieldRef"), faults);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = read_map(source, name) {
            check_key_ref(reference, &format!("{field}.{name}"), faults);
        }
    }
    if let Some(reference) = read_map(source, "resourceFieldRef")
        && read_text(reference, "resource").is_empty()
    {
        faults.required(format!("{field}.resourceFieldRef.resource"), "");
    }
}

fn check_field_ref(reference: &Members, field: &str, faults: &mut Faults) {
    let path = read_text(reference, "fieldPath");
    let keyed = ["metadata.labels['", "metadata.annotations['"];
    let known = FIELDS.contains(&path)
        || keyed
            .iter()
            .any(|prefix| path.starts_with(prefix) && path.ends_with("']"));
    if path.is_empty() {
        faults.required(format!("{field}.fieldPath"), "");
    } else if !known {
        let known: Vec<&str> = FIELDS
            .into_iter()
            .chain(["metadata.annotations['<KEY>']", "metadata.labels['<KEY>']"])
            .collect();
        faults.unsupported(format!("{field}.fieldPath"), path, &known);
    }
}

fn check_key_ref(reference: &Members, field: &str, faults: &mut Faults) {
    for name in ["name", "key"] {
        let text = read_text(reference, name);
        if text.is_empty() {
            faults.required(format!("{field}.{name}"), "");
        } else if name == "key" {
            faults.invalid_texts(format!("{field}.key"), text, &names::config_key(text));
        }
    }
}

fn check_bulk(source: &Members, field: &str, faults: &mut Faults) {
    let prefix = read_text(source, "prefix");
    if !prefix.is_empty() {
        faults.invalid_texts(format!("{field}.prefix"), prefix, &names::env_name(prefix));
    }
    let given: Vec<&str> = ["configMapRef", "secretRef"]
        .into_iter()
        .filter(|name| source.contains_key(*name))
        .collect();
    match given[..] {
        [] => {
            let value = Value::String(String::new());
            faults.invalid(
                field,
                &value,
                "must specify one of: `configMapRef` or `secretRef`",
            );
        }
        [one] => {
            let name = read_map(source, one)
                .map(|reference| read_text(reference, "name"))
                .unwrap_or_default();
            if name.is_empty() {
                faults.required(format!("{field}.{one}.name"), "");
            }
        }
        _ => faults.invalid_text(
            field,
            "",
            "may not have more than one field specified at a time",
        ),
    }
}
