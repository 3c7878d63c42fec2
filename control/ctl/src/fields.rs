//! Which fields differ between two versions of an object.
//!
//! Lists whose members all have a name (containers, ports, variables) or a type (conditions) of their own are compared member by
//! member, so that an added container is one line and not a shift of all that follow; other lists as a whole. What every write
//! changes (`resourceVersion`, `generation`, `managedFields`) says nothing and is left out, as is what `apply` notes of its own
//! input. The values of secrets are not shown.

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// `spec.replicas`, `spec.containers[web].image`
    pub path: String,
    /// What it was; None where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// What it became; None where it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

const SILENT: [&str; 4] = [
    "metadata.resourceVersion",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.annotations[kubectl.kubernetes.io/last-applied-configuration]",
];
/// The members by which the members of a list are told apart.
const LIST_KEYS: [&str; 2] = ["name", "type"];
const VALUE_LETTERS_MAX: usize = 120;

/// What differs between two versions, in the order of the paths.
pub fn changes(old: &Value, new: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(String::new(), Some(old), Some(new), &mut changes);
    changes.retain(|change| !SILENT.contains(&change.path.as_str()));
    if old["kind"] == "Secret" || new["kind"] == "Secret" {
        changes.iter_mut().for_each(hide);
    }
    changes
}

fn hide(change: &mut Change) {
    if change.path.starts_with("data") || change.path.starts_with("stringData") {
        let hidden = |value: &mut Value| *value = Value::String("***".to_owned());
        change.old.iter_mut().for_each(hidden);
        change.new.iter_mut().for_each(hidden);
    }
}

fn compare(path: String, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            compare_maps(&path, old, new, changes);
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => match keyed(old).zip(keyed(new)) {
            Some((old, new)) => compare_members(&path, &old, &new, changes),
            None => changes.push(Change {
                path,
                old: Some(Value::Array(old.clone())),
                new: Some(Value::Array(new.clone())),
            }),
        },
        (old, new) => changes.push(Change {
            path,
            old: old.cloned(),
            new: new.cloned(),
        }),
    }
}

fn compare_maps(
    path: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    changes: &mut Vec<Change>,
) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let below = match path {
            "" => name.clone(),
            path if name.contains(['.', '/']) => format!("{path}[{name}]"),
            path => format!("{path}.{name}"),
        };
        compare(below, old.get(name), new.get(name), changes);
    }
}

type Members<'a> = Vec<(&'a str, &'a Value)>;

fn compare_members(path: &str, old: &Members<'_>, new: &Members<'_>, changes: &mut Vec<Change>) {
    let find = |members: &Members<'_>, key: &str| {
        let found = members.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| (*value).clone())
    };
    let keys: BTreeSet<&str> = old.iter().chain(new).map(|(key, _)| *key).collect();
    for key in keys {
        let (was, is) = (find(old, key), find(new, key));
        compare(format!("{path}[{key}]"), was.as_ref(), is.as_ref(), changes);
    }
}

/// The members with their keys, if each has one of its own.
fn keyed(list: &[Value]) -> Option<Members<'_>> {
    LIST_KEYS.iter().find_map(|key| {
        let members: Members<'_> = list
            .iter()
            .map(|member| Some((member.get(key)?.as_str()?, member)))
            .collect::<Option<_>>()?;
        let distinct: BTreeSet<&str> = members.iter().map(|(key, _)| *key).collect();
        (distinct.len() == members.len()).then_some(members)
    })
}

/// The change as a line: `spec.replicas: 2 -> 3`.
pub fn line(change: &Change) -> String {
    let Change { path, old, new } = change;
    match (old, new) {
        (Some(old), Some(new)) => format!("{path}: {} -> {}", short(old), short(new)),
        (None, Some(new)) => format!("{path}: + {}", short(new)),
        (Some(old), None) => format!("{path}: - {}", short(old)),
        (None, None) => path.clone(),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_LETTERS_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(old: &Value, new: &Value) -> Vec<String> {
        changes(old, new).iter().map(line).collect()
    }

    #[test]
    fn fields_are_told_by_their_paths() {
        let old = json!({"metadata": {"resourceVersion": "1", "labels": {"a/b": "x"}},
            "spec": {"replicas": 2, "containers": [{"name": "web", "image": "a:1"}, {"name": "log"}], "args": ["x"]}});
        let new = json!({"metadata": {"resourceVersion": "2", "labels": {}},
            "spec": {"replicas": 3, "containers": [{"name": "new"}, {"name": "web", "image": "a:2"}], "args": ["x", "y"], "paused": true}});
        assert_eq!(
            lines(&old, &new),
            [
                "metadata.labels[a/b]: - \"x\"",
                "spec.args: [\"x\"] -> [\"x\",\"y\"]",
                "spec.containers[log]: - {\"name\":\"log\"}",
                "spec.containers[new]: + {\"name\":\"new\"}",
                "spec.containers[web].image: \"a:1\" -> \"a:2\"",
                "spec.paused: + true",
                "spec.replicas: 2 -> 3",
            ]
        );
        assert!(lines(&old, &old).is_empty());
    }

    #[test]
    fn secrets_stay_secret() {
        let applied = "kubectl.kubernetes.io/last-applied-configuration";
        let secret = |value: &str| json!({"kind": "Secret", "type": value, "data": {"key": value}, "metadata": {"annotations": {applied: value}}});
        assert_eq!(
            lines(&secret("YQ=="), &secret("Yg==")),
            ["data.key: \"***\" -> \"***\"", "type: \"YQ==\" -> \"Yg==\""]
        );
    }
}
