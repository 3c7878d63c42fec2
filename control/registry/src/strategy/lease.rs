//! Leases. Rules: Kubernetes' coordination/v1 validation.

use super::Strategy;
use super::edit::{read_map, read_number};
use crate::Faults;
use objects::Object;
use serde_json::json;

/// The leases' strategy.
pub struct Leases;

impl Strategy for Leases {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        if let Some(seconds) =
            read_number(spec, "leaseDurationSeconds").filter(|seconds| *seconds <= 0)
        {
            faults.invalid(
                "spec.leaseDurationSeconds",
                &json!(seconds),
                "must be greater than 0",
            );
        }
        if let Some(count) = read_number(spec, "leaseTransitions").filter(|count| *count < 0) {
            faults.invalid(
                "spec.leaseTransitions",
                &json!(count),
                "must be greater than or equal to 0",
            );
        }
    }
}
