//! PodTemplates and ControllerRevisions: what workloads remember of their pods. Rules: Kubernetes' core/v1 and apps/v1
//! validation.

use super::Strategy;
use super::check::{at_least, frozen};
use super::template::{default_template, validate_template};
use crate::Faults;
use objects::Object;

/// The pod templates' strategy.
pub struct PodTemplates;

impl Strategy for PodTemplates {
    fn default_fields(&self, object: &mut Object) {
        default_template(&mut object.body);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_template(&object.body, "template", faults);
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn desired(&self) -> &'static str {
        "template"
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

/// The controller revisions' strategy.
pub struct ControllerRevisions;

impl Strategy for ControllerRevisions {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        if !object.body.contains_key("data") {
            faults.required("data", "data is mandatory");
        }
        at_least(&object.body, "revision", "", 0, faults);
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        frozen(object, old, &["data"], faults);
    }
}
