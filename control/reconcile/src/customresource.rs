//! CustomResourceDefinitions: accepts their names, establishes them, and empties them when they go.
//!
//! Never takes names that another definition of the group has; never lets a definition go while an object of it is left.
//! Semantics: Kubernetes' naming, establishing and finalizing controllers of apiextensions/v1.

use crate::conditions::{self, Condition};
use crate::controller::{Asked, Change, Controller, World};
use crate::plan::{Action, Plan, Precondition, Propagation};
use crate::status::StatusEdit;
use crate::view::Viewed;
use objects::{GroupResource, Object, ObjectError, ObjectKey, Timestamp, Uid};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// The most objects that one plan deletes; the rest follows.
pub const BURST_MAX: usize = 500;
/// How soon to look again while objects are left.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Everything that the decision may depend on, taken from one snapshot.
pub struct Input {
    /// The definition.
    pub definition: Viewed<Value>,
    /// The other definitions of its group.
    pub others: Vec<Arc<Object>>,
    /// Objects of it that are left; looked up only while it is deleted.
    pub objects: Vec<Left>,
}

/// An object that is left.
pub struct Left {
    /// Where it is.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Uid,
    /// Whether its deletion was asked already.
    pub is_deleting: bool,
}

/// Returns what the definition needs next.
pub fn reconcile(input: &Input, now: Timestamp) -> Plan {
    match input.definition.is_deleting() {
        true => empty(input, now),
        false => Plan {
            status: named(input, now).into_update(&input.definition, definitions()),
            ..Plan::default()
        },
    }
}

/// Accepts the names that nobody else has; a definition with all its names is established for good.
fn named(input: &Input, now: Timestamp) -> StatusEdit {
    let names = names_of(&input.definition.object, "spec");
    let accepted_before = names_of(&input.definition.object, "status");
    let mut accepted = Map::new();
    let mut conflict = None;
    for (field, reason) in [
        ("plural", "PluralConflict"),
        ("singular", "SingularConflict"),
        ("shortNames", "ShortNamesConflict"),
        ("kind", "KindConflict"),
        ("listKind", "ListKindConflict"),
    ] {
        match taken(input, &names, field) {
            None => accepted.extend(
                names
                    .get(field)
                    .map(|value| (field.to_owned(), value.clone())),
            ),
            Some(name) => {
                accepted.extend(
                    accepted_before
                        .get(field)
                        .map(|value| (field.to_owned(), value.clone())),
                );
                conflict.get_or_insert((reason, format!("{name:?} is already in use")));
            }
        }
    }
    accepted.extend(
        names
            .get("categories")
            .map(|value| ("categories".to_owned(), value.clone())),
    );
    for field in ["plural", "kind"] {
        accepted.entry(field).or_insert_with(|| json!(""));
    }
    let mut edit = StatusEdit::of(&input.definition);
    edit.set("acceptedNames", Value::Object(accepted));
    let mut all = edit.conditions();
    let message;
    let (status, reason, message) = match &conflict {
        None => ("True", "NoConflicts", "no conflicts found"),
        Some((reason, why)) => {
            message = why.clone();
            ("False", *reason, message.as_str())
        }
    };
    set(&mut all, "NamesAccepted", status, reason, message, now);
    let established =
        conditions::find(&all, "Established").map(|found| conditions::text(found, "status"));
    if conflict.is_none() {
        let message = "the initial names have been accepted";
        set(
            &mut all,
            "Established",
            "True",
            "InitialNamesAccepted",
            message,
            now,
        );
    } else if established != Some("True") {
        set(
            &mut all,
            "Established",
            "False",
            "NotAccepted",
            "not all names are accepted",
            now,
        );
    }
    edit.set_conditions(all);
    edit
}

/// The first of the definition's names in a field that another definition has.
fn taken(input: &Input, names: &Map<String, Value>, field: &str) -> Option<String> {
    let fields: &[&str] = match field {
        "kind" | "listKind" => &["kind", "listKind"],
        _ => &["plural", "singular", "shortNames"],
    };
    let others = input.others.iter().map(|other| names_of(other, "status"));
    let theirs: BTreeSet<String> = others
        .flat_map(|names| {
            fields
                .iter()
                .flat_map(move |field| words(&names, field))
                .collect::<Vec<_>>()
        })
        .collect();
    words(names, field)
        .into_iter()
        .find(|name| theirs.contains(name))
}

fn words(names: &Map<String, Value>, field: &str) -> Vec<String> {
    match names.get(field) {
        Some(Value::String(name)) if !name.is_empty() => vec![name.clone()],
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

fn names_of(definition: &Object, part: &str) -> Map<String, Value> {
    let field = if part == "spec" {
        "names"
    } else {
        "acceptedNames"
    };
    let names = definition.body.get(part).and_then(|part| part.get(field));
    names
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

/// Deletes what is left; when nothing is, lets the definition go.
fn empty(input: &Input, now: Timestamp) -> Plan {
    let definition = &input.definition;
    let finalizers = &definition.object.metadata.finalizers;
    if !finalizers.iter().any(|name| name == CLEANUP) {
        return Plan::nothing();
    }
    if input.objects.is_empty() {
        let others: Vec<&String> = finalizers.iter().filter(|name| *name != CLEANUP).collect();
        return Plan::of(vec![Action::Patch {
            key: definition.key(definitions()),
            precondition: definition.unchanged(),
            merge: json!({"metadata": {"finalizers": others}}),
            subresource: None,
        }]);
    }
    let left = input
        .objects
        .iter()
        .filter(|left| !left.is_deleting)
        .take(BURST_MAX);
    let actions = left.map(|left| Action::Delete {
        key: left.key.clone(),
        precondition: Precondition::uid(&left.uid.0),
        grace_seconds: None,
        propagation: Some(Propagation::Background),
    });
    let mut edit = StatusEdit::of(definition);
    let mut all = edit.conditions();
    let message = "CustomResource deletion is in progress";
    set(
        &mut all,
        "Terminating",
        "True",
        "InstanceDeletionInProgress",
        message,
        now,
    );
    edit.set_conditions(all);
    Plan {
        actions: actions.collect(),
        status: edit.into_update(definition, definitions()),
        wake_at: Some(now.plus(AGAIN_AFTER)),
    }
}

fn set(
    all: &mut Vec<Value>,
    condition_type: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let condition = Condition {
        condition_type,
        status,
        reason,
        message,
    };
    conditions::set(all, &condition, now);
}

fn definitions() -> GroupResource {
    GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions")
}

/// Runs [`reconcile`] for every definition.
pub struct CustomResourceController;

impl Controller for CustomResourceController {
    fn name(&self) -> &'static str {
        "customresource"
    }

    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey> {
        if change.is_of("apiextensions.k8s.io", "customresourcedefinitions") {
            // Names that one gives up another may get.
            return world
                .keys(&definitions(), None, &|_| true)
                .into_iter()
                .chain([change.key.clone()])
                .collect();
        }
        if change.after.is_some() {
            return Vec::new();
        }
        let of = &change.key.resource;
        let key = ObjectKey::new(
            definitions(),
            None,
            &format!("{}.{}", of.resource, of.group),
        );
        let waits = world.record(&key).is_some_and(|record| record.deleting);
        waits.then_some(key).into_iter().collect()
    }

    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError> {
        let Some(definition) = asked.object::<Value>()? else {
            return Ok(Plan::nothing());
        };
        let group = definition
            .spec("group")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let is_other = |other: &Arc<Object>| {
            let its = other.body.get("spec").and_then(|spec| spec.get("group"));
            other.metadata.name != asked.key.name && its.and_then(Value::as_str) == Some(&group)
        };
        let mut others = asked.world.list(&definitions(), None, &|_| true);
        others.retain(is_other);
        let mut objects = Vec::new();
        if definition.is_deleting() {
            let names = names_of(&definition.object, "spec");
            let plural = names
                .get("plural")
                .and_then(Value::as_str)
                .unwrap_or_default();
            for key in asked
                .world
                .keys(&GroupResource::new(&group, plural), None, &|_| true)
            {
                if let Some(record) = asked.world.record(&key) {
                    objects.push(Left {
                        uid: record.uid.clone(),
                        is_deleting: record.deleting,
                        key,
                    });
                }
            }
        }
        let input = Input {
            definition,
            others,
            objects,
        };
        Ok(reconcile(&input, asked.now))
    }
}
