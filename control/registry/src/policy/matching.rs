//! Whether a request is one that rules and selectors mean: those of policies, of their bindings and of webhooks.

use crate::ResourceDef;
use objects::LabelSelector;
use serde_json::{Map, Value};

/// A request, as rules and selectors see it.
pub struct Asked<'a> {
    /// The row.
    pub row: &'a ResourceDef,
    /// The subresource, empty for none.
    pub subresource: &'a str,
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`.
    pub operation: &'a str,
    /// The object's name; empty when it is to be generated.
    pub name: &'a str,
    /// The object; null for a delete.
    pub object: &'a Value,
    /// The object as it was; null for a create.
    pub old: &'a Value,
    /// The object's namespace; null for what lives in none.
    pub namespace: &'a Value,
}

/// Whether `matchConstraints` of a policy or `matchResources` of a binding mean the request; null means every one.
pub fn matches_resources(constraints: &Value, asked: &Asked<'_>) -> bool {
    if constraints.is_null() {
        return true;
    }
    let any = |list: &str| {
        let mut rules = constraints[list].as_array().into_iter().flatten();
        rules.any(|rule| matches_rule(rule, asked))
    };
    let has_rules = constraints["resourceRules"]
        .as_array()
        .is_some_and(|rules| !rules.is_empty());
    !any("excludeResourceRules")
        && (!has_rules || any("resourceRules"))
        && matches_selectors(constraints, asked)
}

/// Whether `namespaceSelector` and `objectSelector` select the request's namespace and object.
pub fn matches_selectors(of: &Value, asked: &Asked<'_>) -> bool {
    let selector = |name: &str| match of[name].as_object() {
        None => Some(LabelSelector::default()),
        Some(map) if map.is_empty() => Some(LabelSelector::default()),
        Some(_) => LabelSelector::from_value(&of[name]).ok(),
    };
    let (Some(of_namespace), Some(of_object)) =
        (selector("namespaceSelector"), selector("objectSelector"))
    else {
        return false;
    };
    let is_namespace = asked.row.group.is_empty() && asked.row.kind == "Namespace";
    let in_namespace = match asked.namespace {
        Value::Null if is_namespace => selects(&of_namespace, first(asked)),
        Value::Null => true,
        namespace => selects(&of_namespace, namespace),
    };
    in_namespace && (selects(&of_object, asked.object) || selects(&of_object, asked.old))
}

fn first<'a>(asked: &Asked<'a>) -> &'a Value {
    match asked.object {
        Value::Null => asked.old,
        object => object,
    }
}

/// An empty selector selects what is not there, too.
fn selects(selector: &LabelSelector, object: &Value) -> bool {
    if selector.is_empty() {
        return true;
    }
    let none = Map::new();
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    !object.is_null() && selector.matches_map(labels.unwrap_or(&none))
}

fn matches_rule(rule: &Value, asked: &Asked<'_>) -> bool {
    let row = asked.row;
    let has = |list: &str, wanted: &str| {
        let mut words = rule[list]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        words.any(|word| word == "*" || word == wanted)
    };
    let names = rule["resourceNames"]
        .as_array()
        .filter(|names| !names.is_empty());
    let named = names.is_none_or(|names| names.iter().any(|name| name == asked.name));
    let scope = match rule["scope"].as_str() {
        Some("Namespaced") => row.namespaced,
        Some("Cluster") => !row.namespaced,
        _ => true,
    };
    let mut resources = rule["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    named
        && scope
        && has("operations", asked.operation)
        && has("apiGroups", &row.group)
        && has("apiVersions", &row.version)
        && resources.any(|resource| is_resource(resource, &row.resource, asked.subresource))
}

/// `pods`, `*`, `pods/status`, `pods/*`, `*/scale`, `*/*`.
fn is_resource(rule: &str, resource: &str, subresource: &str) -> bool {
    let fits = |rule: &str, word: &str| rule == "*" || rule == word;
    match rule.split_once('/') {
        None => fits(rule, resource) && subresource.is_empty(),
        Some(("*", "*")) => true,
        Some((of, part)) => {
            fits(of, resource) && !subresource.is_empty() && fits(part, subresource)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_resource;

    #[test]
    fn rules_name_resources_and_parts() {
        for (rule, resource, part, expected) in [
            ("pods", "pods", "", true),
            ("pods", "pods", "status", false),
            ("*", "pods", "", true),
            ("*", "pods", "status", false),
            ("pods/*", "pods", "status", true),
            ("pods/*", "pods", "", false),
            ("*/scale", "deployments", "scale", true),
            ("*/*", "pods", "", true),
        ] {
            assert_eq!(
                is_resource(rule, resource, part),
                expected,
                "{rule} {resource}/{part}"
            );
        }
    }
}
