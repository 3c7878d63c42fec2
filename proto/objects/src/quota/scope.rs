//! The scopes of a quota: which objects it counts at all.

use super::pod;
use crate::{GroupResource, Object};
use serde_json::{Map, Value};

/// One scope; an object must lie in all of a quota's.
pub struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

impl Scope {
    /// The scopes of a quota's spec.
    pub fn all_of(spec: &Map<String, Value>) -> Vec<Self> {
        let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned();
        let plain = list(spec.get("scopes")).unwrap_or_default();
        let plain = plain.iter().filter_map(Value::as_str).map(|name| Scope {
            name: name.to_owned(),
            operator: "Exists".to_owned(),
            values: Vec::new(),
        });
        let selected = spec
            .get("scopeSelector")
            .and_then(|selector| selector.get("matchExpressions"));
        let selected = list(selected).unwrap_or_default();
        let selected = selected.iter().map(|expression| {
            let text = |name: &str| expression.get(name).and_then(Value::as_str);
            let values = expression.get("values").and_then(Value::as_array);
            let values = values.into_iter().flatten().filter_map(Value::as_str);
            Scope {
                name: text("scopeName").unwrap_or_default().to_owned(),
                operator: text("operator").unwrap_or_default().to_owned(),
                values: values.map(str::to_owned).collect(),
            }
        });
        plain.chain(selected).collect()
    }

    /// Whether an object of `resource` lies in the scope.
    pub fn covers(&self, resource: &GroupResource, object: &Object) -> bool {
        let empty = Map::new();
        let spec = object.body.get("spec").and_then(Value::as_object);
        let spec = spec.unwrap_or(&empty);
        let text = |name: &str| spec.get(name).and_then(Value::as_str).unwrap_or_default();
        let core = resource.group.is_empty();
        match (resource.resource.as_str(), self.name.as_str()) {
            ("pods", name) if core => match name {
                "Terminating" => has_deadline(spec),
                "NotTerminating" => !has_deadline(spec),
                "BestEffort" => pod::is_best_effort(spec),
                "NotBestEffort" => !pod::is_best_effort(spec),
                "PriorityClass" => self.holds(text("priorityClassName")),
                "CrossNamespacePodAffinity" => crosses_namespaces(spec),
                _ => false,
            },
            ("persistentvolumeclaims", "VolumeAttributesClass") if core => {
                self.holds(text("volumeAttributesClassName"))
            }
            _ => false,
        }
    }

    /// Whether the operator holds for a text that is absent when empty.
    fn holds(&self, text: &str) -> bool {
        let listed = self.values.iter().any(|value| value == text);
        match self.operator.as_str() {
            "Exists" => !text.is_empty(),
            "DoesNotExist" => text.is_empty(),
            "In" => !text.is_empty() && listed,
            "NotIn" => text.is_empty() || !listed,
            _ => false,
        }
    }
}

fn has_deadline(spec: &Map<String, Value>) -> bool {
    let seconds = spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    seconds.is_some_and(|seconds| seconds >= 0)
}

fn crosses_namespaces(spec: &Map<String, Value>) -> bool {
    let affinity = spec.get("affinity");
    let parts = ["podAffinity", "podAntiAffinity"];
    parts
        .iter()
        .filter_map(|part| affinity?.get(part)?.as_object())
        .flat_map(|part| part.values().filter_map(Value::as_array).flatten())
        .any(|term| {
            let term = term.get("podAffinityTerm").unwrap_or(term);
            let names = term.get("namespaces").and_then(Value::as_array);
            let selects = term
                .get("namespaceSelector")
                .is_some_and(|selector| !selector.is_null());
            selects || names.is_some_and(|names| !names.is_empty())
        })
}
