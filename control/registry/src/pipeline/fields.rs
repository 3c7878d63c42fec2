//! Who owns which fields after a write: the way between objects and [`crate::apply`]. Never touches the store.
//! Semantics: apimachinery's `FieldManager`: a write records what it changes before strategies and admission change more; a
//! failure to record never fails the write, but forgets who owned what.

use super::{Pipeline, versions};
use crate::apply::{
    self, Applied, ApplyError, Conflict, Fault, Ignored, Managed, Manager, Path, Set, Tracker,
    Typed, Versions, schema::Type,
};
use crate::{Registry, ResourceDef, Target, WriteOptions};
use objects::{Cause, GroupVersionKind, Object, Reason, Status, StatusDetails};
use serde_json::{Value, json};
use std::sync::Arc;

/// Records what a write that is no apply changed from `old` (none for a create) to `object`, whose own entries are those
/// that the client sent.
pub fn track(
    pipeline: &Pipeline,
    target: &Target,
    options: &WriteOptions,
    old: Option<&Object>,
    object: &mut Object,
) {
    let stored = old.map_or(&[][..], |old| &old.metadata.managed_fields);
    let given = std::mem::take(&mut object.metadata.managed_fields);
    let managed = known(target, &given, stored);
    let row = &target.resource;
    let live = old.map_or(Value::Null, |old| bare(row, old));
    let manager = options.field_manager.as_deref().unwrap_or_default();
    let entries = with_tracker(pipeline, target, |tracker| {
        tracker.update(&live, &bare(row, object), managed, manager)
    });
    let entries = entries.map_or_else(|_| Vec::new(), |managed| managed.encode());
    object.metadata.managed_fields = settle(entries, stored);
}

/// The entries to store: those that are there where only times differ, so that a write without change stays one.
pub fn settle(entries: Vec<Value>, stored: &[Value]) -> Vec<Value> {
    match apply::same_but_times(&entries, stored) {
        true => stored.to_vec(),
        false => entries,
    }
}

/// What `config` makes of an object (none: it is to be created); 409 with every conflict, 400 for what does not fit.
pub fn apply(
    pipeline: &Pipeline,
    target: &Target,
    options: &WriteOptions,
    old: Option<&Object>,
    config: &Value,
) -> Result<(Value, Vec<Value>), Status> {
    let stored = old.map_or(&[][..], |old| &old.metadata.managed_fields);
    let managed = Managed::decode(stored)
        .map_err(|error| Status::internal(format!("failed to decode managed fields: {error}")))?;
    let live = old.map_or(Value::Null, |old| bare(&target.resource, old));
    let manager = options.field_manager.as_deref().unwrap_or_default();
    let applied = with_tracker(pipeline, target, |tracker| {
        tracker.apply(&live, config, managed, manager, options.force)
    });
    let Applied { object, managed } = applied.map_err(|error| match error {
        ApplyError::Conflicts(conflicts) => conflict(target, &conflicts),
        ApplyError::Fault(fault) => unfit(target, config, &fault),
    })?;
    Ok((object.unwrap_or(live), settle(managed.encode(), stored)))
}

/// An object as the request's version has it, without its entries.
fn bare(row: &ResourceDef, object: &Object) -> Value {
    let mut object = object.clone();
    object.metadata.managed_fields.clear();
    let mut value = object.to_value();
    versions::load(row, &mut value);
    value
}

/// The entries that a write builds on: what the client sent, if it can be read, else what is stored. A list of one empty
/// entry forgets all. Through a subresource nobody changes entries by hand.
fn known(target: &Target, given: &[Value], stored: &[Value]) -> Managed {
    let decode = |entries| Managed::decode(entries).unwrap_or_default();
    if !target.subresource_name().is_empty() {
        return decode(stored);
    }
    if given == reset_mark() {
        return Managed::default();
    }
    match Managed::decode(given) {
        Ok(managed) if !managed.owners.is_empty() => managed,
        _ => decode(stored),
    }
}

/// Whether a body asks to forget all by an empty list of entries.
pub fn is_reset(body: &Value) -> bool {
    let entries = body.pointer("/metadata/managedFields");
    entries.and_then(Value::as_array).is_some_and(Vec::is_empty)
}

/// How an object says so, whose empty list means that nothing was said: the other way in which clients ask it.
pub fn reset_mark() -> Vec<Value> {
    vec![json!({})]
}

fn with_tracker<T>(
    pipeline: &Pipeline,
    target: &Target,
    act: impl FnOnce(&Tracker<'_, '_>) -> T,
) -> T {
    let row = &target.resource;
    let version = row.api_version();
    let tracker = Tracker {
        r#type: type_of(row),
        version: &version,
        subresource: target.subresource_name(),
        ignored: &ignored(target, &version),
        versions: &Sisters {
            registry: &pipeline.registry(),
            row,
        },
        now: pipeline.shell.now(),
    };
    act(&tracker)
}

/// The type of a row's objects.
pub fn type_of(row: &ResourceDef) -> Type<'_> {
    match &row.custom {
        Some(custom) => custom.r#type(),
        None => apply::builtin::type_of(&row.kind()),
    }
}

/// What a request of this path cannot change, and therefore owns nothing of.
fn ignored(target: &Target, version: &str) -> Ignored {
    let fields: &[&[&str]] = match target.subresource_name() {
        "" if target.resource.subresource("status").is_some() => &[&["status"]],
        "status" => &[
            &["spec"],
            &["metadata", "finalizers"],
            &["metadata", "ownerReferences"],
        ],
        _ => return Ignored::new(),
    };
    let set = Set::of(fields.iter().map(|path| Path::fields(path)));
    Ignored::from([(version.to_owned(), set)])
}

/// The other versions of a kind, through the one that is stored. What is stored as it is has the same form in all.
struct Sisters<'a> {
    registry: &'a Registry,
    row: &'a ResourceDef,
}

impl<'a> Versions<'a> for Sisters<'a> {
    fn convert(&self, object: &Typed<'a>, version: &str) -> Result<Option<Typed<'a>>, Fault> {
        let is_sister = |row: &&Arc<ResourceDef>| {
            row.kind == self.row.kind
                && row.api_version() == version
                && row.storage_resource() == self.row.storage_resource()
        };
        let Some(sister) = self.registry.iter().find(is_sister) else {
            return Ok(None);
        };
        let mut value = object.value.clone();
        if self.row.custom.is_some() {
            // As far as no webhook changes more: who owns what is found without asking it.
            value["apiVersion"] = Value::from(version);
        }
        if let Some(stored) = self.row.stored_as {
            stored.store(&mut value);
        }
        versions::load(sister, &mut value);
        Ok(Some(Typed {
            value,
            r#type: type_of(sister),
            version: version.to_owned(),
        }))
    }
}

/// The 409 of an apply, in the words that kubectl looks for.
fn conflict(target: &Target, conflicts: &[Conflict<Manager>]) -> Status {
    let causes = conflicts.iter().map(|conflict| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", conflict.manager),
        field: conflict.path.to_string(),
    });
    let message = match conflicts {
        [one] => format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.manager, one.path
        ),
        several => {
            let mut lines = Vec::new();
            let mut last = None;
            for Conflict { manager, path } in several {
                if last != Some(manager) {
                    lines.push(format!("conflicts with {manager}:"));
                    last = Some(manager);
                }
                lines.push(format!("- {path}"));
            }
            format!(
                "Apply failed with {} conflicts: {}",
                several.len(),
                lines.join("\n")
            )
        }
    };
    let mut status = Status::failure(409, Reason::Conflict, message);
    status.details = Some(StatusDetails {
        name: target.name.clone().unwrap_or_default(),
        causes: causes.collect(),
        ..StatusDetails::default()
    });
    status
}

fn unfit(target: &Target, config: &Value, fault: &Fault) -> Status {
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str);
    let GroupVersionKind { kind, .. } = target.resource.kind();
    Status::bad_request(format!(
        "failed to create typed patch object ({}/{}; {}, Kind={kind}): {fault}",
        target.namespace.as_deref().unwrap_or_default(),
        text("/metadata/name")
            .or(target.name.as_deref())
            .unwrap_or_default(),
        target.resource.api_version(),
    ))
}
