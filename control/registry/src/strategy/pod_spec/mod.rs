//! The spec of a pod, as pods and pod templates share it. Defaults and rules: Kubernetes' core/v1 `defaults.go` and
//! `validation.go`; never the pod's own life, which is [`super::pod`].

mod container;
mod default;
mod env;
mod probe;
mod resources;
mod validate;
mod volume;
mod warn;

pub use default::default_spec;
pub use resources::{default_requests, quality_of_service};
pub use validate::validate_spec;
pub use warn::warnings;

use super::edit::Members;
use crate::Faults;
use objects::names;
use serde_json::Value;

/// The lists of containers that a spec has.
pub const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Checks a number's lower bound.
fn at_least(members: &Members, name: &str, field: &str, least: i64, faults: &mut Faults) {
    if let Some(value) = members.get(name)
        && value.as_i64().is_some_and(|number| number < least)
    {
        let detail = format!("must be greater than or equal to {least}");
        faults.invalid(format!("{field}.{name}"), value, &detail);
    }
}

/// Checks that a text is one of a few, if it is there.
fn one_of(members: &Members, name: &str, field: &str, known: &[&str], faults: &mut Faults) {
    let text = members.get(name).and_then(Value::as_str);
    if let Some(text) = text.filter(|text| !known.contains(text)) {
        faults.unsupported(format!("{field}.{name}"), text, known);
    }
}

/// Checks a port, a number or a port's name.
fn port(value: Option<&Value>, field: &str, faults: &mut Faults) {
    match value {
        None | Some(Value::Null) => faults.required(field, ""),
        Some(Value::String(name)) => faults.invalid_texts(field, name, &names::port_name(name)),
        Some(value) => {
            for detail in names::port_number(value.as_i64().unwrap_or_default()) {
                faults.invalid(field, value, &detail);
            }
        }
    }
}
