//! FlowSchemas and PriorityLevelConfigurations. Rules: Kubernetes' flowcontrol/v1 defaults and validation.

use super::Strategy;
use super::check::{at_least, choice, named};
use super::edit::{
    Members, default, existing_map, map_at, read_list, read_map, read_maps, read_number, read_text,
};
use crate::Faults;
use objects::{Object, names};
use serde_json::json;

/// The flow schemas' strategy.
pub struct FlowSchemas;

const PRECEDENCE_MAX: i64 = 10_000;

impl Strategy for FlowSchemas {
    fn default_fields(&self, object: &mut Object) {
        if let Some(spec) = map_at(&mut object.body, "spec") {
            default(spec, "matchingPrecedence", 1000);
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let nothing = Members::new();
        let spec = read_map(&object.body, "spec").unwrap_or(&nothing);
        let precedence = read_number(spec, "matchingPrecedence").unwrap_or_default();
        let field = "spec.matchingPrecedence";
        if precedence < 1 {
            faults.invalid(field, &json!(precedence), "must be a positive value");
        } else if precedence > PRECEDENCE_MAX {
            let detail = format!("must not be greater than {PRECEDENCE_MAX}");
            faults.invalid(field, &json!(precedence), &detail);
        } else if precedence == 1 && object.metadata.name != "exempt" {
            let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
            faults.invalid(field, &json!(precedence), detail);
        }
        if let Some(method) = read_map(spec, "distinguisherMethod") {
            let methods = ["ByNamespace", "ByUser"];
            choice(method, "type", "spec.distinguisherMethod", &methods, faults);
        }
        let level = read_map(spec, "priorityLevelConfiguration").unwrap_or(&nothing);
        named(
            level,
            "name",
            "spec.priorityLevelConfiguration",
            names::dns1123_subdomain,
            faults,
        );
        for (index, rule) in read_maps(spec, "rules") {
            let field = format!("spec.rules[{index}]");
            if read_list(rule, "subjects").is_empty() {
                faults.required(
                    format!("{field}.subjects"),
                    "subjects must contain at least one value",
                );
            }
            let lists = ["resourceRules", "nonResourceRules"];
            if lists.iter().all(|list| read_list(rule, list).is_empty()) {
                let detail =
                    "at least one of resourceRules and nonResourceRules has to be non-empty";
                faults.required(field, detail);
            }
        }
    }

    fn has_generation(&self) -> bool {
        true
    }
}

/// The strategy of priority levels.
pub struct PriorityLevels;

impl Strategy for PriorityLevels {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        if let Some(exempt) = existing_map(spec, "exempt") {
            default(exempt, "nominalConcurrencyShares", 0);
            default(exempt, "lendablePercent", 0);
        }
        let Some(limited) = existing_map(spec, "limited") else {
            return;
        };
        default(limited, "nominalConcurrencyShares", 30);
        default(limited, "lendablePercent", 0);
        if let Some(response) = map_at(limited, "limitResponse")
            && read_text(response, "type") == "Queue"
            && let Some(queuing) = map_at(response, "queuing")
        {
            for (name, number) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                default(queuing, name, number);
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let nothing = Members::new();
        let spec = read_map(&object.body, "spec").unwrap_or(&nothing);
        choice(spec, "type", "spec", &["Exempt", "Limited"], faults);
        let limited = read_map(spec, "limited");
        match (read_text(spec, "type"), limited) {
            ("Limited", None) => {
                faults.required("spec.limited", "must not be empty when type is Limited");
            }
            ("Limited", Some(limited)) => check_limited(limited, faults),
            ("Exempt", Some(_)) => {
                faults.forbidden("spec.limited", "must be nil if the type is not Limited");
            }
            _ => {}
        }
    }

    fn has_generation(&self) -> bool {
        true
    }
}

fn check_limited(limited: &Members, faults: &mut Faults) {
    let field = "spec.limited";
    at_least(limited, "nominalConcurrencyShares", field, 0, faults);
    let nothing = Members::new();
    let response = read_map(limited, "limitResponse").unwrap_or(&nothing);
    let field = "spec.limited.limitResponse";
    choice(response, "type", field, &["Queue", "Reject"], faults);
    match (read_text(response, "type"), read_map(response, "queuing")) {
        ("Queue", Some(queuing)) => {
            for name in ["queues", "handSize", "queueLengthLimit"] {
                at_least(queuing, name, &format!("{field}.queuing"), 1, faults);
            }
        }
        ("Reject", Some(_)) => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            faults.forbidden(format!("{field}.queuing"), detail);
        }
        _ => {}
    }
}
