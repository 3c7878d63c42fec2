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

use super::check::{at_least, one_of};
use crate::Faults;
use serde_json::Value;

/// The lists of containers that a spec has.
pub const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Checks a port, a number or a port's name.
fn port(value: Option<&Value>, field: &str, faults: &mut Faults) {
    match value {
        None | Some(Value::Null) => faults.required(field, ""),
        Some(value) => super::check::port(value, field, faults),
    }
}
