//! DaemonSets: a pod on every node. Rules: Kubernetes' apps/v1 defaults and validation.

use super::Strategy;
use super::check::{choice, share};
use super::edit::{Members, default, default_text, map_at, read_map, read_text};
use super::template::{
    default_template, not_negative, put_in_template, template_warnings, validate_selected_template,
    validate_workload_update,
};
use crate::Faults;
use objects::Object;
use serde_json::{Value, json};

/// The daemon sets' strategy.
pub struct DaemonSets;

impl Strategy for DaemonSets {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        default_template(spec);
        default(spec, "revisionHistoryLimit", 10);
        let Some(update) = map_at(spec, "updateStrategy") else {
            return;
        };
        default_text(update, "type", "RollingUpdate");
        if read_text(update, "type") == "RollingUpdate"
            && let Some(rolling) = map_at(update, "rollingUpdate")
        {
            default(rolling, "maxUnavailable", 1);
            default(rolling, "maxSurge", 0);
        }
    }

    fn put_in_place(&self, body: &mut Value, faults: &mut Faults) {
        put_in_template(body, faults);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        for name in ["minReadySeconds", "revisionHistoryLimit"] {
            not_negative(spec, name, faults);
        }
        validate_selected_template(spec, "daemonset", faults);
        check_update(spec, faults);
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

fn check_update(spec: &Members, faults: &mut Faults) {
    let Some(update) = read_map(spec, "updateStrategy") else {
        return;
    };
    let field = "spec.updateStrategy";
    choice(
        update,
        "type",
        field,
        &["OnDelete", "RollingUpdate"],
        faults,
    );
    let rolling = read_map(update, "rollingUpdate");
    let Some(rolling) = rolling.filter(|_| read_text(update, "type") == "RollingUpdate") else {
        return;
    };
    let field = format!("{field}.rollingUpdate");
    let set = |name: &str| {
        let value = rolling.get(name);
        value.is_some_and(|value| *value != json!(0) && *value != json!("0%"))
    };
    for name in ["maxUnavailable", "maxSurge"] {
        share(rolling, name, &field, faults);
    }
    match (set("maxUnavailable"), set("maxSurge")) {
        (false, false) => {
            faults.required(
                format!("{field}.maxUnavailable"),
                "cannot be 0 when maxSurge is 0",
            );
        }
        (true, true) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            faults.invalid(format!("{field}.maxSurge"), &rolling["maxSurge"], detail);
        }
        _ => {}
    }
}
