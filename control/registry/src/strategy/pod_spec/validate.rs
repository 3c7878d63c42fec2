//! What is wrong with a pod's spec.

use super::super::edit::{Members, read_map, read_maps, read_text};
use super::{at_least, container, one_of, volume};
use crate::Faults;
use objects::names;
use serde_json::Value;
use std::collections::BTreeSet;

/// Checks a spec at `field`: `spec` of a pod, `spec.template.spec` of a template.
pub fn validate_spec(spec: &Members, field: &str, faults: &mut Faults) {
    let volumes = volume::validate(spec, field, faults);
    container::validate(spec, &volumes, field, faults);
    one_of(
        spec,
        "restartPolicy",
        field,
        &["Always", "Never", "OnFailure"],
        faults,
    );
    let dns = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    one_of(spec, "dnsPolicy", field, &dns, faults);
    at_least(spec, "terminationGracePeriodSeconds", field, 0, faults);
    at_least(spec, "activeDeadlineSeconds", field, 1, faults);
    check_names(spec, field, faults);
    check_node_selector(spec, field, faults);
    for (index, toleration) in read_maps(spec, "tolerations") {
        check_toleration(toleration, &format!("{field}.tolerations[{index}]"), faults);
    }
    for (index, secret) in read_maps(spec, "imagePullSecrets") {
        if read_text(secret, "name").is_empty() {
            faults.required(format!("{field}.imagePullSecrets[{index}].name"), "");
        }
    }
    check_host_users(spec, field, faults);
    check_sysctls(spec, field, faults);
}

const SYSCTL_LENGTH_MAX: usize = 253;

/// Names of kernel parameters; whether the node allows them is the node's affair.
fn check_sysctls(spec: &Members, field: &str, faults: &mut Faults) {
    let Some(context) = read_map(spec, "securityContext") else {
        return;
    };
    let mut seen = BTreeSet::new();
    for (index, sysctl) in read_maps(context, "sysctls") {
        let field = format!("{field}.securityContext.sysctls[{index}].name");
        let name = read_text(sysctl, "name");
        if name.is_empty() {
            faults.required(field, "");
        } else if !is_sysctl(name) {
            let detail = format!(
                r"must have at most {SYSCTL_LENGTH_MAX} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            faults.invalid_text(field, name, &detail);
        } else if !seen.insert(name.replace('/', ".")) {
            faults.duplicate(field, &Value::from(name));
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let is_end = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let is_inner = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    name.len() <= SYSCTL_LENGTH_MAX
        && name.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            is_end(bytes.first()) && is_end(bytes.last()) && bytes.iter().copied().all(is_inner)
        })
}

fn check_names(spec: &Members, field: &str, faults: &mut Faults) {
    type Check = fn(&str) -> Vec<String>;
    let checks: [(&str, Check); 5] = [
        ("nodeName", names::dns1123_subdomain),
        ("serviceAccountName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("priorityClassName", names::dns1123_subdomain),
    ];
    for (name, check) in checks {
        let text = read_text(spec, name);
        if !text.is_empty() {
            faults.invalid_texts(format!("{field}.{name}"), text, &check(text));
        }
    }
}

fn check_node_selector(spec: &Members, field: &str, faults: &mut Faults) {
    for (key, value) in read_map(spec, "nodeSelector").into_iter().flatten() {
        let field = format!("{field}.nodeSelector");
        faults.invalid_texts(&field, key, &names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        faults.invalid_texts(&field, value, &names::label_value(value));
    }
}

fn check_toleration(toleration: &Members, field: &str, faults: &mut Faults) {
    let key = read_text(toleration, "key");
    let operator = read_text(toleration, "operator");
    let effect = read_text(toleration, "effect");
    if !key.is_empty() {
        faults.invalid_texts(format!("{field}.key"), key, &names::qualified_name(key));
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        faults.invalid_text(format!("{field}.operator"), operator, detail);
    }
    if toleration.contains_key("tolerationSeconds") && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        faults.invalid_text(format!("{field}.effect"), effect, detail);
    }
    match operator {
        "" | "Equal" => {
            let value = read_text(toleration, "value");
            faults.invalid_texts(
                format!("{field}.operator"),
                value,
                &names::label_value(value),
            );
        }
        "Exists" => {
            if let Some(value) = toleration
                .get("value")
                .filter(|value| value.as_str() != Some(""))
            {
                let detail = "value must be empty when `operator` is 'Exists'";
                faults.invalid(format!("{field}.operator"), value, detail);
            }
        }
        other => faults.unsupported(format!("{field}.operator"), other, &["Equal", "Exists"]),
    }
    if !matches!(effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        faults.unsupported(format!("{field}.effect"), effect, &known);
    }
}

fn check_host_users(spec: &Members, field: &str, faults: &mut Faults) {
    let Some(context) = read_map(spec, "securityContext") else {
        return;
    };
    for name in ["runAsUser", "runAsGroup", "fsGroup"] {
        let value = context.get(name);
        if let Some(value) = value.filter(|value| value.as_i64().is_some_and(|id| id < 0)) {
            let detail = "must be between 0 and 2147483647, inclusive";
            faults.invalid(format!("{field}.securityContext.{name}"), value, detail);
        }
    }
    let both = context.get("runAsNonRoot") == Some(&Value::Bool(true))
        && context.get("runAsUser").and_then(Value::as_i64) == Some(0);
    if both {
        let detail = "must not be 0 when `runAsNonRoot` is true";
        faults.invalid(
            format!("{field}.securityContext.runAsUser"),
            &Value::from(0),
            detail,
        );
    }
}
