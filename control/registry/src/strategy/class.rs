//! PriorityClasses and RuntimeClasses: what a pod's spec names. Rules: Kubernetes' scheduling/v1 and node/v1 defaults and
//! validation.

use super::Strategy;
use super::check::{frozen, named, one_of};
use super::edit::{default, default_text, read_flag, read_number};
use crate::Faults;
use objects::{Object, names};
use serde_json::{Value, json};

/// The priority classes' strategy.
pub struct PriorityClasses;

/// Classes of this name prefix are the system's.
const SYSTEM_PREFIX: &str = "system-";
/// The classes of every cluster.
pub const SYSTEM_CLASSES: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];
/// The highest priority of a class that is not the system's.
const PRIORITY_MAX: i64 = 1_000_000_000;

impl Strategy for PriorityClasses {
    fn default_fields(&self, object: &mut Object) {
        default_text(&mut object.body, "preemptionPolicy", "PreemptLowerPriority");
        default(&mut object.body, "value", 0);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let name = object.metadata.name.as_str();
        let value = read_number(&object.body, "value").unwrap_or(0);
        let is_default = read_flag(&object.body, "globalDefault");
        if name.starts_with(SYSTEM_PREFIX) {
            let known = SYSTEM_CLASSES.contains(&(name, value)) && !is_default;
            if !known {
                let detail =
                    "priority class names with 'system-' prefix are reserved for system use only";
                faults.forbidden("metadata.name", detail);
            }
        } else if value > PRIORITY_MAX {
            let detail =
                format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
            faults.forbidden("value", &detail);
        }
        let policies = ["Never", "PreemptLowerPriority"];
        one_of(&object.body, "preemptionPolicy", "", &policies, faults);
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        if object.body.get("value") != old.body.get("value") {
            faults.forbidden("value", "may not be changed in an update.");
        }
        frozen(object, old, &["preemptionPolicy"], faults);
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn desired(&self) -> &'static str {
        "value"
    }
}

/// The runtime classes' strategy.
pub struct RuntimeClasses;

impl Strategy for RuntimeClasses {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        named(&object.body, "handler", "", names::dns1123_label, faults);
        let overhead = super::field_value(&object.body, "overhead.podFixed");
        for (name, value) in overhead.and_then(Value::as_object).into_iter().flatten() {
            if serde_json::from_value::<objects::Quantity>(value.clone())
                .is_ok_and(objects::Quantity::is_negative)
            {
                let field = format!("overhead.podFixed.{name}");
                faults.invalid(field, &json!(value), "must be greater than or equal to 0");
            }
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        frozen(object, old, &["handler"], faults);
    }
}
