//! Containers of a pod: names, images, ports, mounts.

use super::super::edit::{Members, read_map, read_maps, read_number, read_text};
use super::{env, one_of, probe, resources, volume};
use crate::Faults;
use objects::names;
use serde_json::Value;
use std::collections::BTreeSet;

/// Checks all containers of a spec; names are unique over all lists.
pub fn validate(spec: &Members, volumes: &BTreeSet<&str>, field: &str, faults: &mut Faults) {
    if read_maps(spec, "containers").next().is_none() {
        faults.required(format!("{field}.containers"), "");
    }
    let mut taken = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for list in super::CONTAINER_LISTS {
        for (index, container) in read_maps(spec, list) {
            let field = format!("{field}.{list}[{index}]");
            check_name(container, &field, &mut taken, faults);
            check_image(container, &field, faults);
            check_ports(container, &field, &mut host_ports, faults);
            env::validate(container, &field, faults);
            resources::validate(container, &field, faults);
            volume::validate_mounts(container, volumes, &field, faults);
            probe::validate(container, &field, faults);
            check_policies(container, list, &field, faults);
        }
    }
}

fn check_name<'a>(
    container: &'a Members,
    field: &str,
    taken: &mut BTreeSet<&'a str>,
    faults: &mut Faults,
) {
    let name = read_text(container, "name");
    if name.is_empty() {
        return faults.required(format!("{field}.name"), "");
    }
    faults.invalid_texts(format!("{field}.name"), name, &names::dns1123_label(name));
    if !taken.insert(name) {
        faults.duplicate(format!("{field}.name"), &Value::String(name.to_owned()));
    }
}

fn check_image(container: &Members, field: &str, faults: &mut Faults) {
    let image = read_text(container, "image");
    if image.is_empty() {
        faults.required(format!("{field}.image"), "");
    } else if image != image.trim() {
        let detail = "must not have leading or trailing whitespace";
        faults.invalid_text(format!("{field}.image"), image, detail);
    }
}

fn check_ports(
    container: &Members,
    field: &str,
    host_ports: &mut BTreeSet<(String, String, i64)>,
    faults: &mut Faults,
) {
    let mut port_names = BTreeSet::new();
    for (index, port) in read_maps(container, "ports") {
        let field = format!("{field}.ports[{index}]");
        let name = read_text(port, "name");
        if !name.is_empty() {
            faults.invalid_texts(format!("{field}.name"), name, &names::port_name(name));
            if !port_names.insert(name) {
                faults.duplicate(format!("{field}.name"), &Value::String(name.to_owned()));
            }
        }
        match port.get("containerPort") {
            None => faults.required(format!("{field}.containerPort"), ""),
            Some(value) => check_number(value, &format!("{field}.containerPort"), faults),
        }
        one_of(port, "protocol", &field, &["SCTP", "TCP", "UDP"], faults);
        if let Some(number) = read_number(port, "hostPort").filter(|number| *number != 0) {
            check_number(&port["hostPort"], &format!("{field}.hostPort"), faults);
            let text = |name: &str| read_text(port, name).to_owned();
            if !host_ports.insert((text("hostIP"), text("protocol"), number)) {
                faults.duplicate(format!("{field}.hostPort"), &port["hostPort"]);
            }
        }
    }
}

fn check_number(value: &Value, field: &str, faults: &mut Faults) {
    for detail in names::port_number(value.as_i64().unwrap_or_default()) {
        faults.invalid(field, value, &detail);
    }
}

fn check_policies(container: &Members, list: &str, field: &str, faults: &mut Faults) {
    one_of(
        container,
        "imagePullPolicy",
        field,
        &["Always", "IfNotPresent", "Never"],
        faults,
    );
    one_of(
        container,
        "terminationMessagePolicy",
        field,
        &["FallbackToLogsOnError", "File"],
        faults,
    );
    let sidecar = read_text(container, "restartPolicy");
    if !sidecar.is_empty() && list == "initContainers" {
        one_of(
            container,
            "restartPolicy",
            field,
            &["Always", "Never", "OnFailure"],
            faults,
        );
    } else if !sidecar.is_empty() {
        faults.forbidden(
            format!("{field}.restartPolicy"),
            "may not be set for non-init containers",
        );
    }
    let plain_init = list == "initContainers" && sidecar != "Always";
    for name in [
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
    ] {
        if plain_init && read_map(container, name).is_some() {
            let detail = "may not be set for init containers without restartPolicy=Always";
            faults.forbidden(format!("{field}.{name}"), detail);
        }
    }
}
