//! Deployments: a workload with a way to replace its pods. Rules: Kubernetes' apps/v1 defaults and validation.

use super::Strategy;
use super::check::{PERCENT, percent};
use super::edit::{Members, default, default_text, map_at, read_map, read_number, read_text};
use super::template::{
    default_workload, not_negative, put_in_template, quarter, template_warnings, validate_workload,
    validate_workload_update,
};
use crate::Faults;
use objects::Object;
use serde_json::{Value, json};

/// The deployments' strategy.
pub struct Deployments;

impl Strategy for Deployments {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = default_workload(object) else {
            return;
        };
        default(spec, "revisionHistoryLimit", 10);
        default(spec, "progressDeadlineSeconds", 600);
        let Some(strategy) = map_at(spec, "strategy") else {
            return;
        };
        default_text(strategy, "type", "RollingUpdate");
        if read_text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = map_at(strategy, "rollingUpdate")
        {
            default(rolling, "maxUnavailable", quarter());
            default(rolling, "maxSurge", quarter());
        }
    }

    fn put_in_place(&self, body: &mut Value, faults: &mut Faults) {
        put_in_template(body, faults);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        validate_workload(spec, "deployment", faults);
        not_negative(spec, "revisionHistoryLimit", faults);
        check_strategy(spec, faults);
        let ready = read_number(spec, "minReadySeconds").unwrap_or(0);
        if let Some(deadline) =
            read_number(spec, "progressDeadlineSeconds").filter(|deadline| *deadline <= ready)
        {
            faults.invalid(
                "spec.progressDeadlineSeconds",
                &json!(deadline),
                "must be greater than minReadySeconds",
            );
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

fn check_strategy(spec: &Members, faults: &mut Faults) {
    let field = "spec.strategy";
    let Some(strategy) = read_map(spec, "strategy") else {
        return;
    };
    let rolling = read_map(strategy, "rollingUpdate");
    match read_text(strategy, "type") {
        "Recreate" => {
            if rolling.is_some() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                faults.forbidden(format!("{field}.rollingUpdate"), detail);
            }
        }
        "RollingUpdate" => {
            if let Some(rolling) = rolling {
                check_rolling(rolling, &format!("{field}.rollingUpdate"), faults);
            }
        }
        other => faults.unsupported(
            format!("{field}.type"),
            other,
            &["Recreate", "RollingUpdate"],
        ),
    }
}

fn check_rolling(rolling: &Members, field: &str, faults: &mut Faults) {
    let surge = bound(rolling, "maxSurge", field, faults);
    let unavailable = bound(rolling, "maxUnavailable", field, faults);
    if surge == Some(0) && unavailable == Some(0) {
        let value = &rolling["maxUnavailable"];
        faults.invalid(
            format!("{field}.maxUnavailable"),
            value,
            "may not be 0 when `maxSurge` is 0",
        );
    }
    let percent = rolling.get("maxUnavailable").is_some_and(Value::is_string);
    if percent && unavailable.is_some_and(|percent| percent > 100) {
        let value = &rolling["maxUnavailable"];
        faults.invalid(
            format!("{field}.maxUnavailable"),
            value,
            "must not be greater than 100%",
        );
    }
}

/// The number, or the percentage's number; None when it is neither.
fn bound(rolling: &Members, name: &str, field: &str, faults: &mut Faults) -> Option<i64> {
    let value = rolling.get(name)?;
    let field = format!("{field}.{name}");
    if value.is_string() {
        let percent = percent(value);
        if percent.is_none() {
            faults.invalid(&field, value, PERCENT);
        }
        return percent;
    }
    let number = value.as_i64()?;
    if number < 0 {
        faults.invalid(&field, value, "must be greater than or equal to 0");
    }
    Some(number)
}
