//! PodDisruptionBudgets: how many pods of a selector may be away. Rules: Kubernetes' policy/v1 validation.

use super::Strategy;
use super::check::{one_of, selector, share};
use super::edit::read_map;
use crate::Faults;
use objects::Object;

/// The disruption budgets' strategy.
pub struct DisruptionBudgets;

impl Strategy for DisruptionBudgets {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        if spec.contains_key("minAvailable") && spec.contains_key("maxUnavailable") {
            let value = serde_json::Value::Object(spec.clone());
            let detail = "minAvailable and maxUnavailable cannot be both set";
            faults.invalid("spec", &value, detail);
        }
        for name in ["minAvailable", "maxUnavailable"] {
            share(spec, name, "spec", faults);
        }
        selector(spec, "selector", "spec", faults);
        let policies = ["AlwaysAllow", "IfHealthyBudget"];
        one_of(
            spec,
            "unhealthyPodEvictionPolicy",
            "spec",
            &policies,
            faults,
        );
    }

    fn has_generation(&self) -> bool {
        true
    }
}
