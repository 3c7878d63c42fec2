//! Whether labels match a selector. Semantics: meta/v1 `LabelSelector`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

/// Whether `labels` match `selector`. An empty selector matches everything; one with an operator that is not known matches
/// nothing.
pub fn matches(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let get = |key: &str| labels.and_then(|labels| labels.get(key));
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| get(key) == Some(value));
    equal
        && selector
            .match_expressions
            .iter()
            .flatten()
            .all(|requirement| {
                let value = get(&requirement.key);
                let listed = value
                    .is_some_and(|value| requirement.values.iter().flatten().any(|v| v == value));
                match requirement.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
}

/// Whether the selector would match every object: nobody means that for a controller.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector
        .match_labels
        .as_ref()
        .is_none_or(BTreeMap::is_empty)
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty)
}

/// Whether `labels` hold every pair of `wanted`, as a Service selects its pods. An empty `wanted` matches nothing.
pub fn holds_all(
    wanted: &BTreeMap<String, String>,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    let labels = labels.filter(|_| !wanted.is_empty());
    labels.is_some_and(|labels| {
        wanted
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    })
}
