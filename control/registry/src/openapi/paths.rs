//! The paths of a resource and what can be done at each.

use super::components::Components;
use super::document_name;
use crate::{ResourceDef, Verb};
use objects::GroupVersionKind;
use serde_json::{Map, Value, json};

/// The media types that bodies may have; answers are JSON.
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Adds the paths of a resource, of its collections and of its subresources.
pub(super) fn of_resource(
    row: &ResourceDef,
    components: &mut Components<'_>,
    paths: &mut Map<String, Value>,
) {
    let root = format!("/{}", document_name(&row.group, &row.version));
    let (parent, namespace) = if row.namespaced {
        (
            format!("{root}/namespaces/{{namespace}}"),
            Some("namespace"),
        )
    } else {
        (root.clone(), None)
    };
    let collection = format!("{parent}/{}", row.resource);
    let object = format!("{collection}/{{name}}");
    let kind = row.kind();
    let list_kind = GroupVersionKind::new(&row.group, &row.version, &row.list_kind);
    let on_collection =
        |verb: &&Verb| matches!(verb, Verb::Create | Verb::List | Verb::DeleteCollection);
    let on_object =
        |verb: &&Verb| matches!(verb, Verb::Get | Verb::Update | Verb::Patch | Verb::Delete);
    let whole = Place {
        kind: &kind,
        list_kind: &list_kind,
    };
    let verbs = row.verbs.iter().filter(on_collection);
    add(
        paths,
        collection,
        whole.operations(verbs, components),
        &[namespace],
    );
    if row.namespaced && row.verbs.contains(&Verb::List) {
        let all = whole.operations([Verb::List].iter(), components);
        add(paths, format!("{root}/{}", row.resource), all, &[]);
    }
    let verbs = row.verbs.iter().filter(on_object);
    add(
        paths,
        object.clone(),
        whole.operations(verbs, components),
        &[namespace, Some("name")],
    );
    for subresource in &row.subresources {
        let place = Place {
            kind: &subresource.kind,
            list_kind: &list_kind,
        };
        let path = format!("{object}/{}", subresource.name);
        let operations = place.operations(subresource.verbs.iter(), components);
        add(paths, path, operations, &[namespace, Some("name")]);
    }
}

fn add(
    paths: &mut Map<String, Value>,
    path: String,
    mut operations: Map<String, Value>,
    parameters: &[Option<&str>],
) {
    if operations.is_empty() {
        return;
    }
    let parameters: Vec<Value> = parameters
        .iter()
        .flatten()
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    if !parameters.is_empty() {
        operations.insert("parameters".to_owned(), Value::Array(parameters));
    }
    paths.insert(path, Value::Object(operations));
}

/// What is read and written at a path.
struct Place<'a> {
    kind: &'a GroupVersionKind,
    list_kind: &'a GroupVersionKind,
}

impl Place<'_> {
    fn operations<'v>(
        &self,
        verbs: impl Iterator<Item = &'v Verb>,
        components: &mut Components<'_>,
    ) -> Map<String, Value> {
        let operation =
            |verb: &Verb| Some((method(*verb)?.to_owned(), self.operation(*verb, components)));
        verbs.filter_map(operation).collect()
    }

    fn operation(&self, verb: Verb, components: &mut Components<'_>) -> Value {
        let GroupVersionKind {
            group,
            version,
            kind,
        } = self.kind;
        let answer = match verb {
            Verb::List => components.kind(self.list_kind),
            Verb::Delete | Verb::DeleteCollection => {
                components.kind(&GroupVersionKind::new("", "v1", "Status"))
            }
            _ => components.kind(self.kind),
        };
        let mut operation = json!({
            "parameters": parameters(verb),
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": answer}}}},
            "x-kubernetes-action": action(verb),
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        let body = match verb {
            Verb::Create | Verb::Update => Some(content(&["*/*"], &components.kind(self.kind))),
            Verb::Delete | Verb::DeleteCollection => {
                let options = GroupVersionKind::new(group, version, "DeleteOptions");
                Some(content(&["*/*"], &components.kind(&options)))
            }
            Verb::Patch => Some(content(&PATCH_TYPES, &json!({"type": "object"}))),
            Verb::Get | Verb::List | Verb::Watch => None,
        };
        if let Some(content) = body {
            operation["requestBody"] = json!({"content": content});
        }
        operation
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    types
        .iter()
        .map(|name| ((*name).to_owned(), json!({"schema": schema})))
        .collect()
}

/// A watch has no method of its own: it is a list with a parameter.
fn method(verb: Verb) -> Option<&'static str> {
    match verb {
        Verb::Get | Verb::List => Some("get"),
        Verb::Create => Some("post"),
        Verb::Update => Some("put"),
        Verb::Patch => Some("patch"),
        Verb::Delete | Verb::DeleteCollection => Some("delete"),
        Verb::Watch => None,
    }
}

fn action(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "post",
        Verb::Update => "put",
        other => other.as_str(),
    }
}

fn parameters(verb: Verb) -> Value {
    let names: &[(&str, &str)] = match verb {
        Verb::Create | Verb::Update => &[
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
        ],
        Verb::Patch => &[
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
            ("force", "boolean"),
        ],
        Verb::Delete | Verb::DeleteCollection => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
        ],
        Verb::List | Verb::Watch => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        Verb::Get => &[],
    };
    let parameter = |(name, kind): &(&str, &str)| json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}});
    names.iter().map(parameter).collect()
}
