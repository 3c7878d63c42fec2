//! StatefulSets: pods with a name and volumes of their own. Rules: Kubernetes' apps/v1 defaults and validation.

use super::Strategy;
use super::check::{at_least, one_of};
use super::edit::{
    Members, default, default_text, map_at, maps_in, read_map, read_maps, read_text,
};
use super::template::{
    default_workload, not_negative, put_in_template, template_warnings, validate_workload,
};
use super::volume::{default_claim, validate_claim_spec};
use crate::Faults;
use objects::{Object, names};
use serde_json::Value;

/// The stateful sets' strategy.
pub struct StatefulSets;

/// What an update may change.
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
/// The same, in Kubernetes' words.
const FROZEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
const RETENTION: &str = "persistentVolumeClaimRetentionPolicy";

impl Strategy for StatefulSets {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = default_workload(object) else {
            return;
        };
        default_text(spec, "podManagementPolicy", "OrderedReady");
        default(spec, "revisionHistoryLimit", 10);
        if let Some(update) = map_at(spec, "updateStrategy") {
            default_text(update, "type", "RollingUpdate");
            if read_text(update, "type") == "RollingUpdate"
                && let Some(rolling) = map_at(update, "rollingUpdate")
            {
                default(rolling, "partition", 0);
            }
        }
        if let Some(retention) = map_at(spec, RETENTION) {
            default_text(retention, "whenDeleted", "Retain");
            default_text(retention, "whenScaled", "Retain");
        }
        for claim in maps_in(spec, "volumeClaimTemplates") {
            default_text(claim, "apiVersion", "v1");
            default_text(claim, "kind", "PersistentVolumeClaim");
            default_claim(claim);
        }
    }

    fn put_in_place(&self, body: &mut Value, faults: &mut Faults) {
        put_in_template(body, faults);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        let policies = ["OrderedReady", "Parallel"];
        one_of(spec, "podManagementPolicy", "spec", &policies, faults);
        check_update(spec, faults);
        validate_workload(spec, "statefulset", faults);
        not_negative(spec, "revisionHistoryLimit", faults);
        if let Some(ordinals) = read_map(spec, "ordinals") {
            at_least(ordinals, "start", "spec.ordinals", 0, faults);
        }
        if let Some(retention) = read_map(spec, RETENTION) {
            for name in ["whenDeleted", "whenScaled"] {
                let field = format!("spec.{RETENTION}");
                one_of(retention, name, &field, &["Delete", "Retain"], faults);
            }
        }
        let service = read_text(spec, "serviceName");
        if !service.is_empty() {
            let found = names::dns1123_label(service);
            faults.invalid_texts("spec.serviceName", service, &found);
        }
        for (index, claim) in read_maps(spec, "volumeClaimTemplates") {
            let field = format!("spec.volumeClaimTemplates[{index}].spec");
            validate_claim_spec(read_map(claim, "spec"), &field, faults);
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        if fixed(object) != fixed(old) {
            faults.forbidden("spec", FROZEN);
        }
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
    one_of(
        update,
        "type",
        field,
        &["OnDelete", "RollingUpdate"],
        faults,
    );
    let Some(rolling) = read_map(update, "rollingUpdate") else {
        return;
    };
    if read_text(update, "type") == "OnDelete" {
        let detail = "only allowed for updateStrategy 'RollingUpdate'";
        faults.invalid(
            format!("{field}.rollingUpdate"),
            &Value::Object(rolling.clone()),
            detail,
        );
    }
    let field = format!("{field}.rollingUpdate");
    at_least(rolling, "partition", &field, 0, faults);
    super::check::share(rolling, "maxUnavailable", &field, faults);
}

/// The spec without what an update may change.
fn fixed(object: &Object) -> Members {
    let mut spec = read_map(&object.body, "spec").cloned().unwrap_or_default();
    for name in CHANGEABLE {
        spec.shift_remove(name);
    }
    spec
}
