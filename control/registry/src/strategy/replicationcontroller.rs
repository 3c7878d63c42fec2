//! ReplicationControllers: the replica sets of old, whose selector is a plain map. Rules: Kubernetes' core/v1 defaults and
//! validation.

use super::Strategy;
use super::edit::read_map;
use super::template::{
    check_selected, default_workload, not_negative, put_in_template, template_warnings,
    validate_lasting_template,
};
use crate::Faults;
use objects::{LabelSelector, Object};
use serde_json::{Value, json};

/// The replication controllers' strategy.
pub struct ReplicationControllers;

impl Strategy for ReplicationControllers {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = default_workload(object) else {
            return;
        };
        let labels = read_map(spec, "template")
            .and_then(|template| read_map(template, "metadata"))
            .and_then(|meta| read_map(meta, "labels"))
            .filter(|labels| !labels.is_empty())
            .cloned();
        let Some(labels) = labels else {
            return;
        };
        if read_map(spec, "selector").is_none_or(|selector| selector.is_empty()) {
            spec.insert("selector".to_owned(), Value::Object(labels.clone()));
        }
        if object.metadata.labels.is_empty() {
            let labels = labels
                .into_iter()
                .map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned()));
            object.metadata.labels = labels.collect();
        }
    }

    fn put_in_place(&self, body: &mut Value, faults: &mut Faults) {
        put_in_template(body, faults);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        for name in ["replicas", "minReadySeconds"] {
            not_negative(spec, name, faults);
        }
        match read_map(spec, "selector").filter(|selector| !selector.is_empty()) {
            None => faults.required("spec.selector", ""),
            Some(selector) => {
                let selector = LabelSelector::from_value(&json!({"matchLabels": selector}));
                check_selected(spec, selector.ok().as_ref(), faults);
            }
        }
        validate_lasting_template(spec, faults);
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        template_warnings(object)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn orphans_by_default(&self) -> bool {
        true
    }
}
