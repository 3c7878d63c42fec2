//! LimitRanges and ResourceQuotas: what a namespace's objects may ask for. Rules: Kubernetes' core/v1 defaults and
//! validation; nothing here counts or limits.

use super::check::{below, choice, frozen};
use super::edit::{Members, map_at, maps_in, read_map, read_maps, read_text, read_texts};
use super::{Context, Strategy};
use crate::Faults;
use objects::{Object, Quantity, names};
use serde_json::Value;
use std::collections::BTreeSet;

/// The limit ranges' strategy.
pub struct LimitRanges;

const BOUNDS: [&str; 5] = [
    "max",
    "min",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
];
const LIMITED: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

impl Strategy for LimitRanges {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        for limit in maps_in(spec, "limits") {
            if read_text(limit, "type") == "Container" {
                fill(limit, "default", "max");
                fill(limit, "defaultRequest", "default");
                fill(limit, "defaultRequest", "min");
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = read_map(&object.body, "spec");
        let mut seen = BTreeSet::new();
        for (index, limit) in spec.into_iter().flat_map(|spec| read_maps(spec, "limits")) {
            let field = format!("spec.limits[{index}]");
            let kind = read_text(limit, "type");
            choice(limit, "type", &field, &LIMITED, faults);
            if !seen.insert(kind) {
                faults.duplicate(format!("{field}.type"), &Value::from(kind));
            }
            for bound in BOUNDS {
                check_amounts(limit, bound, &field, faults);
            }
            if kind == "Pod" {
                for bound in ["default", "defaultRequest"] {
                    if read_map(limit, bound).is_some_and(|bound| !bound.is_empty()) {
                        let detail = "may not be specified when `type` is 'Pod'";
                        faults.forbidden(format!("{field}.{bound}"), detail);
                    }
                }
            }
            check_order(limit, &field, faults);
        }
    }
}

/// Gives `to` the resources of `from` that it lacks.
fn fill(limit: &mut Members, to: &str, from: &str) {
    let Some(from) = read_map(limit, from).cloned() else {
        return;
    };
    if let Some(to) = map_at(limit, to) {
        for (name, value) in from {
            to.entry(name).or_insert(value);
        }
    }
}

/// Bounds that may not cross: the lower, the upper.
const ORDER: [(&str, &str); 6] = [
    ("min", "max"),
    ("min", "defaultRequest"),
    ("defaultRequest", "max"),
    ("defaultRequest", "default"),
    ("min", "default"),
    ("default", "max"),
];

fn check_order(limit: &Members, field: &str, faults: &mut Faults) {
    for (lower, upper) in ORDER {
        for (name, value) in read_map(limit, lower).into_iter().flatten() {
            let bound = read_map(limit, upper).and_then(|upper| upper.get(name));
            let Some((low, high)) = amount(value).zip(bound.and_then(amount)) else {
                continue;
            };
            if low > high {
                let value = value.as_str().unwrap_or_default();
                let detail = format!("{lower} value {low} is greater than {upper} value {high}");
                faults.invalid_text(format!("{field}.{lower}[{name}]"), value, &detail);
            }
        }
    }
}

/// Checks the amounts of a map of resources.
fn check_amounts(members: &Members, name: &str, field: &str, faults: &mut Faults) {
    let field = below(field, name);
    for (resource, value) in read_map(members, name).into_iter().flatten() {
        let field = format!("{field}[{resource}]");
        faults.invalid_texts(&field, resource, &names::qualified_name(resource));
        match amount(value) {
            None => faults.invalid(&field, value, &objects::quantity::QuantityError.to_string()),
            Some(amount) if amount.is_negative() => {
                faults.invalid(&field, value, "must be greater than or equal to 0");
            }
            Some(_) => {}
        }
    }
}

fn amount(value: &Value) -> Option<Quantity> {
    serde_json::from_value(value.clone()).ok()
}

/// The resource quotas' strategy.
pub struct ResourceQuotas;

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const OPPOSITES: [[&str; 2]; 2] = [
    ["BestEffort", "NotBestEffort"],
    ["NotTerminating", "Terminating"],
];

impl Strategy for ResourceQuotas {
    fn prepare_create(&self, object: &mut Object, _context: &Context<'_>) {
        object
            .body
            .insert("status".to_owned(), Value::Object(Members::new()));
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        check_amounts(spec, "hard", "spec", faults);
        let scopes: BTreeSet<&str> = read_texts(spec, "scopes").collect();
        for scope in &scopes {
            if !SCOPES.contains(scope) {
                faults.unsupported("spec.scopes", scope, &SCOPES);
            }
        }
        if OPPOSITES
            .iter()
            .any(|pair| pair.iter().all(|scope| scopes.contains(scope)))
        {
            let shown = spec.get("scopes").cloned().unwrap_or_default();
            faults.invalid("spec.scopes", &shown, "conflicting scopes");
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        frozen(object, old, &["spec.scopes"], faults);
    }

    fn validate_status(&self, object: &Object, _old: &Object, faults: &mut Faults) {
        if let Some(status) = read_map(&object.body, "status") {
            check_amounts(status, "hard", "status", faults);
            check_amounts(status, "used", "status", faults);
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}
