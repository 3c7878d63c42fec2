//! The templates that a stateful or daemon set had, as ControllerRevisions. Semantics: Kubernetes' `controller/history`: a
//! template that comes back takes its old revision with a new number.

use crate::names;
use crate::owners;
use crate::plan::{Action, ObjectReference, Precondition};
use crate::view::resources;
use objects::{GroupVersionKind, Object, ObjectKey, ObjectMeta};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The revisions of one owner.
pub struct History<'a> {
    owner: &'a ObjectReference,
    own: Vec<&'a Object>,
}

impl<'a> History<'a> {
    /// Those of `revisions` that the owner controls, the oldest first.
    pub fn of(owner: &'a ObjectReference, revisions: &'a [Arc<Object>]) -> Self {
        let is_own = |revision: &&Object| {
            let mut owners = revision.metadata.owner_references.iter();
            owners.any(|found| found.controller == Some(true) && found.uid == owner.uid)
        };
        let all = revisions.iter().map(Arc::as_ref);
        let mut own: Vec<&Object> = all.filter(is_own).collect();
        own.sort_by_key(|revision| (number(revision), revision.metadata.name.clone()));
        History { owner, own }
    }

    /// The name of the template's revision, and the write that makes it the newest where it is not.
    pub fn settle(&self, template: &Value) -> (String, Option<Action>) {
        let newest = self.own.last().map_or(0, |revision| number(revision));
        let mut found = self.own.iter().rev();
        let found = found.find(|revision| {
            let its = template_of(revision);
            its.is_some_and(|its| names::same_template(&its, template))
        });
        let Some(revision) = found else {
            let revision = self.create(template, newest + 1);
            return (
                revision.metadata.name.clone(),
                Some(Action::Create(revision)),
            );
        };
        let name = revision.metadata.name.clone();
        let is_newest = number(revision) == newest;
        let renumber = (!is_newest).then(|| Action::Patch {
            key: key(revision),
            precondition: Precondition::unchanged(
                &revision.metadata.uid.0,
                &revision.metadata.resource_version,
            ),
            merge: json!({ "revision": newest + 1 }),
            subresource: None,
        });
        (name, renumber)
    }

    fn create(&self, template: &Value, number: i64) -> Object {
        let owner = self.owner;
        let hash = names::template_hash(template, 0);
        let name = names::child(&owner.name, &[&owner.uid.0, &hash]);
        let mut template = template.clone();
        template["$patch"] = json!("replace");
        let body = json!({ "data": { "spec": { "template": template } }, "revision": number });
        let Value::Object(body) = body else {
            unreachable!("written as a map above");
        };
        Object {
            types: GroupVersionKind::new("apps", "v1", "ControllerRevision"),
            metadata: ObjectMeta {
                name,
                namespace: owner.namespace.clone(),
                labels: labels_of(&template),
                owner_references: vec![owners::controller_reference(owner)],
                ..ObjectMeta::default()
            },
            body,
        }
    }

    /// The template of a revision.
    pub fn template(&self, name: &str) -> Option<Value> {
        let mut own = self.own.iter();
        template_of(own.find(|revision| revision.metadata.name == name)?)
    }

    /// Deletes the oldest of those that nothing needs, but for `limit` of them.
    pub fn prune(&self, live: &BTreeSet<&str>, limit: usize) -> Vec<Action> {
        let idle: Vec<&&Object> = self
            .own
            .iter()
            .filter(|revision| !live.contains(revision.metadata.name.as_str()))
            .collect();
        let surplus = idle.len().saturating_sub(limit);
        let delete = |revision: &&&Object| Action::Delete {
            key: key(revision),
            precondition: Precondition::uid(&revision.metadata.uid.0),
            grace_seconds: None,
            propagation: None,
        };
        idle.iter().take(surplus).map(delete).collect()
    }
}

fn number(revision: &Object) -> i64 {
    let number = revision.body.get("revision").and_then(Value::as_i64);
    number.unwrap_or(0)
}

fn template_of(revision: &Object) -> Option<Value> {
    let mut template = revision
        .body
        .get("data")?
        .pointer("/spec/template")?
        .clone();
    if let Value::Object(members) = &mut template {
        members.remove("$patch");
    }
    Some(template)
}

fn labels_of(template: &Value) -> std::collections::BTreeMap<String, String> {
    let labels = template.pointer("/metadata/labels");
    let labels = labels
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::iter);
    labels
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn key(revision: &Object) -> ObjectKey {
    let metadata = &revision.metadata;
    ObjectKey::new(
        resources::controllerrevisions(),
        metadata.namespace.as_deref(),
        &metadata.name,
    )
}
