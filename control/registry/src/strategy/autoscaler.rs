//! HorizontalPodAutoscalers, as autoscaling/v2 has them. Rules: Kubernetes' autoscaling defaults and validation.

use super::Strategy;
use super::check::{at_least, choice, named};
use super::edit::{
    Members, default, default_text, existing_map, map_at, read_list, read_map, read_maps,
    read_number, read_text,
};
use crate::Faults;
use objects::{Object, names};
use serde_json::{Value, json};

/// The autoscalers' strategy.
pub struct Autoscalers;

/// The kinds of metrics, each with the member that holds it.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const TARGETS: [(&str, &str); 3] = [
    ("AverageValue", "averageValue"),
    ("Utilization", "averageUtilization"),
    ("Value", "value"),
];
const STABLE_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

impl Strategy for Autoscalers {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        default(spec, "minReplicas", 1);
        if read_list(spec, "metrics").is_empty() {
            let half = json!({"type": "Utilization", "averageUtilization": 80});
            let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": half}});
            spec.insert("metrics".to_owned(), json!([cpu]));
        }
        let Some(behavior) = existing_map(spec, "behavior") else {
            return;
        };
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        if let Some(up) = map_at(behavior, "scaleUp") {
            default(up, "stabilizationWindowSeconds", 0);
            default_text(up, "selectPolicy", "Max");
            default(up, "policies", json!([pods, percent]));
        }
        if let Some(down) = map_at(behavior, "scaleDown") {
            default_text(down, "selectPolicy", "Max");
            default(down, "policies", json!([percent]));
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        at_least(spec, "minReplicas", "spec", 1, faults);
        let most = read_number(spec, "maxReplicas").unwrap_or(0);
        if most < 1 {
            faults.invalid("spec.maxReplicas", &json!(most), "must be greater than 0");
        }
        if most < read_number(spec, "minReplicas").unwrap_or(1) {
            let detail = "must be greater than or equal to `minReplicas`";
            faults.invalid("spec.maxReplicas", &json!(most), detail);
        }
        let nothing = Members::new();
        let target = read_map(spec, "scaleTargetRef").unwrap_or(&nothing);
        for name in ["kind", "name"] {
            named(
                target,
                name,
                "spec.scaleTargetRef",
                names::path_segment,
                faults,
            );
        }
        for (index, metric) in read_maps(spec, "metrics") {
            check_metric(metric, &format!("spec.metrics[{index}]"), faults);
        }
        if let Some(behavior) = read_map(spec, "behavior") {
            for way in ["scaleUp", "scaleDown"] {
                if let Some(rules) = read_map(behavior, way) {
                    check_rules(rules, &format!("spec.behavior.{way}"), faults);
                }
            }
        }
    }
}

fn check_metric(metric: &Members, field: &str, faults: &mut Faults) {
    choice(
        metric,
        "type",
        field,
        &SOURCES.map(|(kind, _)| kind),
        faults,
    );
    let kind = read_text(metric, "type");
    let Some((_, member)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        return;
    };
    let field = format!("{field}.{member}");
    let Some(source) = read_map(metric, member) else {
        return faults.required(
            &field,
            "must populate information for the given metric source",
        );
    };
    if matches!(kind, "Resource" | "ContainerResource") && read_text(source, "name").is_empty() {
        faults.required(format!("{field}.name"), "must specify a resource name");
    }
    if kind == "ContainerResource" && read_text(source, "container").is_empty() {
        faults.required(
            format!("{field}.container"),
            "must specify a container name",
        );
    }
    let Some(target) = read_map(source, "target") else {
        return faults.required(format!("{field}.target"), "must specify a target");
    };
    let field = format!("{field}.target");
    choice(
        target,
        "type",
        &field,
        &TARGETS.map(|(kind, _)| kind),
        faults,
    );
    at_least(target, "averageUtilization", &field, 1, faults);
    let amounts = TARGETS
        .iter()
        .filter(|(_, name)| target.contains_key(*name));
    if amounts.count() == 0 {
        faults.required(
            &field,
            "must set either a raw value, an average value or a utilization",
        );
    }
}

fn check_rules(rules: &Members, field: &str, faults: &mut Faults) {
    let window = read_number(rules, "stabilizationWindowSeconds").unwrap_or(0);
    if !(0..=STABLE_SECONDS_MAX).contains(&window) {
        let detail = format!("must be between 0 and {STABLE_SECONDS_MAX}, inclusive");
        let field = format!("{field}.stabilizationWindowSeconds");
        faults.invalid(field, &json!(window), &detail);
    }
    choice(
        rules,
        "selectPolicy",
        field,
        &["Disabled", "Max", "Min"],
        faults,
    );
    if read_list(rules, "policies").is_empty() {
        faults.required(
            format!("{field}.policies"),
            "must specify at least one Policy",
        );
    }
    for (index, policy) in read_maps(rules, "policies") {
        let field = format!("{field}.policies[{index}]");
        choice(policy, "type", &field, &["Percent", "Pods"], faults);
        at_least(policy, "value", &field, 1, faults);
        let period = read_number(policy, "periodSeconds").unwrap_or(0);
        if !(1..=PERIOD_SECONDS_MAX).contains(&period) {
            let detail = format!("must be between 1 and {PERIOD_SECONDS_MAX}, inclusive");
            faults.invalid(
                format!("{field}.periodSeconds"),
                &Value::from(period),
                &detail,
            );
        }
    }
}
