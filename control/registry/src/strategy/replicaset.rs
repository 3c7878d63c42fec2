//! ReplicaSets: a workload that keeps a count. Rules: Kubernetes' apps/v1 defaults and validation.

use super::Strategy;
use super::edit::read_map;
use super::template::{
    default_workload, put_in_template, template_warnings, validate_workload,
    validate_workload_update,
};
use crate::Faults;
use objects::Object;
use serde_json::Value;

/// The replica sets' strategy.
pub struct ReplicaSets;

impl Strategy for ReplicaSets {
    fn default_fields(&self, object: &mut Object) {
        default_workload(object);
    }

    fn put_in_place(&self, body: &mut Value, faults: &mut Faults) {
        put_in_template(body, faults);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        if let Some(spec) = read_map(&object.body, "spec") {
            validate_workload(spec, "replicaset", faults);
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        validate_workload_update(object, old, faults);
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        template_warnings(object)
    }

    fn has_generation(&self) -> bool {
        true
    }
}
