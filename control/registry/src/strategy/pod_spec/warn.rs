//! What is allowed in a pod's spec and probably not meant. Words: Kubernetes' `api/pod/warnings.go`.

use super::super::edit::{Members, read_maps, read_number, read_text};
use std::collections::BTreeMap;

/// Warnings for the spec at `field`.
pub fn warnings(spec: &Members, field: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for list in super::CONTAINER_LISTS {
        for (index, container) in read_maps(spec, list) {
            let field = format!("{field}.{list}[{index}]");
            hidden_variables(container, &field, &mut warnings);
            duplicate_ports(container, &field, &mut warnings);
        }
    }
    warnings
}

fn hidden_variables(container: &Members, field: &str, warnings: &mut Vec<String>) {
    let mut seen = BTreeMap::new();
    for (index, variable) in read_maps(container, "env") {
        let name = read_text(variable, "name");
        if seen.insert(name, index).is_some() {
            warnings.push(format!(
                "{field}.env[{index}]: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
}

fn duplicate_ports(container: &Members, field: &str, warnings: &mut Vec<String>) {
    let mut seen = BTreeMap::new();
    for (index, port) in read_maps(container, "ports") {
        let place = (
            read_text(port, "protocol"),
            read_number(port, "containerPort"),
        );
        if let Some(first) = seen.get(&place) {
            warnings.push(format!(
                "{field}.ports[{index}]: duplicate port definition with {field}.ports[{first}]"
            ));
        }
        seen.entry(place).or_insert(index);
    }
}
