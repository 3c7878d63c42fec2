//! The roles and bindings that every cluster has, out of `data/roles.txt`, and what brings a stored one up to date.
//! Semantics: Kubernetes' bootstrap policy: what an administrator added stays, what is missing is put back, and the annotation
//! `autoupdate: "false"` leaves an object alone.

use super::policy::{GROUP, role_ref_of, rules_of};
use super::rule::{Rule, covers};
use objects::{GroupVersionKind, Object, ObjectMeta};
use serde_json::{Map, Value, json};

const DATA: &str = include_str!("../../data/roles.txt");
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const LABEL_DOMAIN: &str = "rbac.authorization.k8s.io/";

/// A role or binding as every cluster has it.
#[derive(Clone, Debug, PartialEq)]
pub struct DefaultObject(Object);

/// What must be done about a stored role or binding.
#[derive(Clone, Debug, PartialEq)]
pub enum Mend {
    /// Nothing.
    Nothing,
    /// Write this over it.
    Update(Box<Object>),
    /// It grants another role, which no update can change: delete it, and create the default.
    Recreate,
}

/// All of them, roles before bindings.
pub fn default_objects() -> Vec<DefaultObject> {
    let blocks = DATA.split("\n\n");
    let mut objects: Vec<DefaultObject> = blocks.filter_map(object).collect();
    objects.sort_by_key(|object| object.0.types.kind.ends_with("Binding"));
    objects
}

impl DefaultObject {
    /// The object, to be created where it is missing.
    pub fn object(&self) -> &Object {
        &self.0
    }

    /// What must be done about the one that is stored.
    pub fn mend(&self, stored: &Object) -> Mend {
        let wanted = &self.0;
        let annotations = &stored.metadata.annotations;
        if annotations.get(AUTO_UPDATE).map(String::as_str) == Some("false") {
            return Mend::Nothing;
        }
        let is_binding = wanted.types.kind.ends_with("Binding");
        if is_binding && role_ref_of(stored) != role_ref_of(wanted) {
            return Mend::Recreate;
        }
        let mut mended = stored.clone();
        for (key, value) in &wanted.metadata.labels {
            let labels = &mut mended.metadata.labels;
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        for (key, value) in &wanted.metadata.annotations {
            let annotations = &mut mended.metadata.annotations;
            annotations
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
        if is_binding {
            add_missing(&mut mended.body, &wanted.body, "subjects");
        } else if let Some(aggregation) = wanted.body.get("aggregationRule") {
            let body = &mut mended.body;
            body.entry("aggregationRule")
                .or_insert_with(|| aggregation.clone());
        } else {
            let mut rules = rules_of(stored);
            if let Err(missing) = covers(&rules, &rules_of(wanted)) {
                rules.extend(missing);
                mended.body.insert("rules".to_owned(), json!(rules));
            }
        }
        match mended == *stored {
            true => Mend::Nothing,
            false => Mend::Update(Box::new(mended)),
        }
    }
}

fn add_missing(body: &mut Map<String, Value>, wanted: &Map<String, Value>, member: &str) {
    let wanted = wanted.get(member).and_then(Value::as_array);
    let known = body.entry(member).or_insert_with(|| json!([]));
    if let Value::Array(known) = known {
        for entry in wanted.into_iter().flatten() {
            if !known.contains(entry) {
                known.push(entry.clone());
            }
        }
    }
}

/// The object that a block of the data describes; None for a comment.
fn object(block: &str) -> Option<DefaultObject> {
    let mut lines = block.lines().filter(|line| !line.starts_with('#'));
    let words: Vec<&str> = lines.next()?.split_whitespace().collect();
    let (kind, name, rest) = match &words[..] {
        [kind, name, rest @ ..] => (*kind, *name, rest),
        _ => return None,
    };
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, name),
    };
    let (kind, labels, body) = match kind {
        "bind" => ("RoleBinding", &[][..], binding(rest)),
        "aggregate" => ("Role", rest, aggregated(lines.next().unwrap_or_default())),
        _ => {
            let rules: Vec<Rule> = lines.map(rule).collect();
            ("Role", rest, json!({ "rules": rules }))
        }
    };
    let scope = if namespace.is_none() { "Cluster" } else { "" };
    let mut metadata = ObjectMeta {
        name: name.to_owned(),
        namespace: namespace.map(str::to_owned),
        ..ObjectMeta::default()
    };
    metadata
        .annotations
        .insert(AUTO_UPDATE.to_owned(), "true".to_owned());
    metadata.labels.insert(
        "kubernetes.io/bootstrapping".to_owned(),
        "rbac-defaults".to_owned(),
    );
    for label in labels {
        metadata
            .labels
            .insert(format!("{LABEL_DOMAIN}{label}"), "true".to_owned());
    }
    let Value::Object(body) = body else {
        return None;
    };
    Some(DefaultObject(Object {
        types: GroupVersionKind::new(GROUP, "v1", &format!("{scope}{kind}")),
        metadata,
        body,
    }))
}

fn binding(words: &[&str]) -> Value {
    let role = words.first().copied().unwrap_or_default();
    let (kind, role) = role.split_once('/').unwrap_or(("ClusterRole", role));
    let subjects: Vec<Value> = words
        .iter()
        .skip(1)
        .filter_map(|word| word.split_once(':'))
        .map(|(kind, name)| match (kind, name.split_once('/')) {
            ("ServiceAccount", Some((namespace, name))) => {
                json!({"kind": kind, "name": name, "namespace": namespace})
            }
            _ => json!({"apiGroup": GROUP, "kind": kind, "name": name}),
        })
        .collect();
    let mut body = json!({"roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}});
    if !subjects.is_empty() {
        body["subjects"] = json!(subjects);
    }
    body
}

fn aggregated(label: &str) -> Value {
    json!({
        "aggregationRule": {
            "clusterRoleSelectors": [{"matchLabels": {format!("{LABEL_DOMAIN}{label}"): "true"}}],
        },
        "rules": [],
    })
}

fn rule(line: &str) -> Rule {
    let mut parts = line.split('|').map(words);
    let mut next = || parts.next().unwrap_or_default();
    let (verbs, second, third, names) = (next(), next(), next(), next());
    if third.is_empty() {
        return Rule {
            verbs,
            non_resource_urls: second,
            ..Rule::default()
        };
    }
    let core = |group: String| {
        if group == "core" {
            String::new()
        } else {
            group
        }
    };
    Rule {
        verbs,
        api_groups: second.into_iter().map(core).collect(),
        resources: third,
        resource_names: names,
        ..Rule::default()
    }
}

fn words(part: &str) -> Vec<String> {
    let long = part.split_whitespace().flat_map(|word| match word {
        "read" => vec!["get", "list", "watch"],
        "write" => vec!["create", "delete", "deletecollection", "patch", "update"],
        word => vec![word],
    });
    long.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(kind: &str, name: &str) -> DefaultObject {
        let is =
            |object: &DefaultObject| object.0.types.kind == kind && object.0.metadata.name == name;
        default_objects()
            .into_iter()
            .find(is)
            .expect("is among them")
    }

    #[test]
    fn every_block_is_read() {
        let blocks = DATA.split("\n\n").filter(|block| !block.starts_with('#'));
        assert_eq!(default_objects().len(), blocks.count());
        for DefaultObject(object) in default_objects() {
            let rules = rules_of(&object);
            let name = &object.metadata.name;
            let is_role = object.types.kind.ends_with("Role");
            let is_aggregated = object.body.contains_key("aggregationRule");
            assert_eq!(is_role && !is_aggregated, !rules.is_empty(), "{name}");
            assert!(rules.iter().all(|rule| !rule.verbs.is_empty()), "{name}");
        }
    }

    #[test]
    fn a_role_that_lost_a_rule_gets_it_back_and_keeps_what_was_added() {
        let default = named("ClusterRole", "system:basic-user");
        let mut stored = default.object().clone();
        assert_eq!(default.mend(&stored), Mend::Nothing);
        let own = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]});
        stored.body.insert("rules".to_owned(), json!([own]));
        let Mend::Update(mended) = default.mend(&stored) else {
            panic!("it must be mended");
        };
        assert!(covers(&rules_of(&mended), &rules_of(default.object())).is_ok());
        assert!(covers(&rules_of(&mended), &rules_of(&stored)).is_ok());
        assert_eq!(default.mend(&mended), Mend::Nothing);
        stored
            .metadata
            .annotations
            .insert(AUTO_UPDATE.to_owned(), "false".to_owned());
        assert_eq!(default.mend(&stored), Mend::Nothing);
    }

    #[test]
    fn a_binding_of_another_role_is_made_anew() {
        let default = named("ClusterRoleBinding", "cluster-admin");
        let mut stored = default.object().clone();
        stored.body["roleRef"]["name"] = json!("view");
        assert_eq!(default.mend(&stored), Mend::Recreate);
        let mut stored = default.object().clone();
        stored.body.insert("subjects".to_owned(), json!([]));
        assert!(matches!(default.mend(&stored), Mend::Update(_)));
    }
}
