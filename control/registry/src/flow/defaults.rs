//! The priority levels and flow schemas that every cluster has, out of `data/flows.txt`, and what brings a stored one up to date.
//! Semantics: Kubernetes' bootstrap objects: mandatory ones are always as they are here, suggested ones while their annotation
//! says so.

use super::GROUP;
use objects::{GroupVersionKind, Object, ObjectMeta};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

const DATA: &str = include_str!("../../data/flows.txt");
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

static OBJECTS: LazyLock<Vec<Object>> = LazyLock::new(|| {
    let blocks = DATA.split("\n\n");
    blocks.filter_map(object).collect()
});

/// All of them, levels before schemas.
pub fn default_objects() -> &'static [Object] {
    &OBJECTS
}

/// Those that no cluster can be without.
pub fn mandatory_objects() -> impl Iterator<Item = &'static Object> {
    let is_mandatory = |object: &&Object| MANDATORY.contains(&object.metadata.name.as_str());
    default_objects().iter().filter(is_mandatory)
}

/// The object as it counts: of a mandatory one, only what may be changed is taken over.
pub fn as_it_counts(stored: &Object) -> Object {
    let is_it = |object: &&Object| {
        object.types.kind == stored.types.kind && object.metadata.name == stored.metadata.name
    };
    match mandatory_objects().find(is_it) {
        Some(wanted) if !has_own_shares(stored) => Object {
            body: wanted.body.clone(),
            ..stored.clone()
        },
        _ => stored.clone(),
    }
}

/// What must be written over the stored one; None for nothing.
pub fn mend(wanted: &Object, stored: &Object) -> Option<Object> {
    let annotation = stored.metadata.annotations.get(AUTO_UPDATE);
    let is_mandatory = MANDATORY.contains(&wanted.metadata.name.as_str());
    let is_left_alone = match is_mandatory {
        true => has_own_shares(stored),
        false => annotation.map(String::as_str) != Some("true"),
    };
    if is_left_alone || stored.body.get("spec") == wanted.body.get("spec") {
        return None;
    }
    let mut mended = stored.clone();
    let spec = wanted.body.get("spec").cloned();
    mended
        .body
        .insert("spec".to_owned(), spec.unwrap_or_default());
    Some(mended)
}

/// Whether it is the exempt level, which an administrator may give seats for others to count with.
fn has_own_shares(stored: &Object) -> bool {
    stored.metadata.name == "exempt"
        && stored.body.get("spec").and_then(|spec| spec.get("type")) == Some(&json!("Exempt"))
}

/// The object that a block of the data describes; None for a comment.
fn object(block: &str) -> Option<Object> {
    let mut lines = block.lines().filter(|line| !line.starts_with('#'));
    let words: Vec<&str> = lines.next()?.split_whitespace().collect();
    let (kind, name, spec) = match &words[..] {
        ["level", name, shares, lendable, response @ ..] => {
            let spec = level(number(shares), number(lendable), response);
            ("PriorityLevelConfiguration", name, spec)
        }
        ["schema", name, precedence, level, method @ ..] => {
            let mut spec = json!({
                "matchingPrecedence": number(precedence),
                "priorityLevelConfiguration": {"name": level},
                "rules": rules(lines),
            });
            if let [method] = method {
                spec["distinguisherMethod"] = json!({"type": method});
            }
            ("FlowSchema", name, spec)
        }
        _ => return None,
    };
    let mut metadata = ObjectMeta {
        name: (*name).to_owned(),
        ..ObjectMeta::default()
    };
    metadata
        .annotations
        .insert(AUTO_UPDATE.to_owned(), "true".to_owned());
    Some(Object {
        types: GroupVersionKind::new(GROUP, "v1", kind),
        metadata,
        body: Map::from_iter([("spec".to_owned(), spec)]),
    })
}

fn number(word: &str) -> u32 {
    word.parse().unwrap_or_default()
}

fn level(shares: u32, lendable: u32, response: &[&str]) -> Value {
    let mut seats = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable});
    let response = match response {
        ["exempt"] => return json!({"type": "Exempt", "exempt": seats}),
        [queues, hand, length] => json!({"type": "Queue", "queuing": {
            "queues": number(queues), "handSize": number(hand), "queueLengthLimit": number(length),
        }}),
        _ => json!({"type": "Reject"}),
    };
    seats["limitResponse"] = response;
    json!({"type": "Limited", "limited": seats})
}

fn rules<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Value> {
    let mut rules: Vec<Value> = Vec::new();
    for line in lines {
        if let Some(subjects) = line.strip_prefix("for ") {
            let subjects: Vec<Value> = subjects.split(' ').map(subject).collect();
            rules.push(json!({ "subjects": subjects }));
            continue;
        }
        let Some(rule) = rules.last_mut() else {
            continue;
        };
        let parts: Vec<Vec<&str>> = line
            .split('|')
            .map(|part| part.split_whitespace().collect())
            .collect();
        let (member, added) = match &parts[..] {
            [verbs, groups, resources, namespaces] => {
                ("resourceRules", on(verbs, groups, resources, namespaces))
            }
            [verbs, urls] => (
                "nonResourceRules",
                json!({"verbs": verbs, "nonResourceURLs": urls}),
            ),
            _ => continue,
        };
        match &mut rule[member] {
            Value::Array(known) => known.push(added),
            none => *none = json!([added]),
        }
    }
    rules
}

fn on(verbs: &[&str], groups: &[&str], resources: &[&str], namespaces: &[&str]) -> Value {
    let groups: Vec<&str> = groups
        .iter()
        .map(|group| if *group == "core" { "" } else { *group })
        .collect();
    let named = namespaces.iter().filter(|name| **name != "cluster");
    let named: Vec<&&str> = named.collect();
    let mut rule = json!({
        "verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": named,
    });
    if named.len() < namespaces.len() {
        rule["clusterScope"] = json!(true);
    }
    rule
}

fn subject(word: &str) -> Value {
    match word.split_once(':') {
        Some(("Group", name)) => json!({"kind": "Group", "group": {"name": name}}),
        Some(("ServiceAccount", name)) => {
            let (namespace, name) = name.split_once('/').unwrap_or(("", name));
            let account = json!({"namespace": namespace, "name": name});
            json!({"kind": "ServiceAccount", "serviceAccount": account})
        }
        Some((_, name)) => json!({"kind": "User", "user": {"name": name}}),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LevelConfig, Schema};
    use super::*;

    #[test]
    fn every_block_is_read() {
        let blocks = DATA.split("\n\n").filter(|block| !block.starts_with('#'));
        assert_eq!(default_objects().len(), blocks.count());
        assert_eq!(mandatory_objects().count(), 4);
        for object in default_objects() {
            let name = &object.metadata.name;
            match object.types.kind.as_str() {
                "FlowSchema" => {
                    let schema = Schema::read(object).expect(name);
                    let has_level = |it: &Object| it.metadata.name == schema.level;
                    assert!(default_objects().iter().any(has_level), "{name}");
                }
                _ => assert!(LevelConfig::read(object).is_some(), "{name}"),
            }
        }
    }

    #[test]
    fn mandatory_ones_are_put_back_and_suggested_ones_while_they_are_ours() {
        let find = |kind: &str, name: &str| {
            let is_it = |it: &&Object| it.types.kind == kind && it.metadata.name == name;
            default_objects().iter().find(is_it).expect(name)
        };
        let changed = |wanted: &Object| {
            let mut stored = wanted.clone();
            stored.body["spec"]["matchingPrecedence"] = json!(7);
            stored
        };
        let wanted = find("FlowSchema", "catch-all");
        assert_eq!(mend(wanted, wanted), None);
        assert_eq!(mend(wanted, &changed(wanted)), Some(wanted.clone()));
        assert_eq!(as_it_counts(&changed(wanted)), *wanted);
        let wanted = find("FlowSchema", "global-default");
        let mut stored = changed(wanted);
        assert_eq!(mend(wanted, &stored), Some(wanted.clone()));
        assert_eq!(as_it_counts(&stored), stored);
        let annotations = &mut stored.metadata.annotations;
        annotations.insert(AUTO_UPDATE.to_owned(), "false".to_owned());
        assert_eq!(mend(wanted, &stored), None);
        let mut stored = find("PriorityLevelConfiguration", "exempt").clone();
        stored.body["spec"]["exempt"]["nominalConcurrencyShares"] = json!(7);
        assert_eq!(
            mend(find("PriorityLevelConfiguration", "exempt"), &stored),
            None
        );
    }
}
