//! Probes and lifecycle hooks of containers.

use super::super::edit::{Members, read_list, read_map, read_number, read_text};
use super::{at_least, one_of, port};
use crate::Faults;
use serde_json::json;

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Checks a container's probes and hooks.
pub fn validate(container: &Members, field: &str, faults: &mut Faults) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = read_map(container, name) {
            check_probe(probe, name, &format!("{field}.{name}"), faults);
        }
    }
    for name in ["postStart", "preStop"] {
        let hook = read_map(container, "lifecycle").and_then(|lifecycle| read_map(lifecycle, name));
        if let Some(hook) = hook {
            check_handler(hook, &format!("{field}.lifecycle.{name}"), faults);
        }
    }
}

fn check_probe(probe: &Members, name: &str, field: &str, faults: &mut Faults) {
    check_handler(probe, field, faults);
    for number in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        at_least(probe, number, field, 0, faults);
    }
    let successes = read_number(probe, "successThreshold").unwrap_or(1);
    if name != "readinessProbe" && successes != 1 {
        faults.invalid(
            format!("{field}.successThreshold"),
            &json!(successes),
            "must be 1",
        );
    }
    if name == "readinessProbe" && probe.contains_key("terminationGracePeriodSeconds") {
        let value = &probe["terminationGracePeriodSeconds"];
        faults.invalid(
            format!("{field}.terminationGracePeriodSeconds"),
            value,
            "must not be set for readinessProbes",
        );
    }
}

fn check_handler(handler: &Members, field: &str, faults: &mut Faults) {
    let given: Vec<&str> = HANDLERS
        .into_iter()
        .filter(|name| handler.contains_key(*name))
        .collect();
    match given[..] {
        [] => faults.required(field, "must specify a handler type"),
        [_] => {}
        [_, second, ..] => {
            faults.forbidden(
                format!("{field}.{second}"),
                "may not specify more than 1 handler type",
            );
        }
    }
    if let Some(exec) = read_map(handler, "exec")
        && read_list(exec, "command").is_empty()
    {
        faults.required(format!("{field}.exec.command"), "");
    }
    if let Some(http) = read_map(handler, "httpGet") {
        let field = format!("{field}.httpGet");
        if read_text(http, "path").is_empty() {
            faults.required(format!("{field}.path"), "");
        }
        port(http.get("port"), &format!("{field}.port"), faults);
        one_of(http, "scheme", &field, &["HTTP", "HTTPS"], faults);
    }
    for name in ["tcpSocket", "grpc"] {
        if let Some(socket) = read_map(handler, name) {
            port(socket.get("port"), &format!("{field}.{name}.port"), faults);
        }
    }
}
