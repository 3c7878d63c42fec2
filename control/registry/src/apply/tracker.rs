//! What a write makes of an object's managed fields. Rules: apimachinery's `managedfields`: what only the server sets is
//! nobody's; an object that was never tracked is tracked from its first apply on; kubectl's own client-side apply gives way
//! to kubectl's server-side apply.

use super::managed::{Managed, Manager, Operation};
use super::schema::Type;
use super::set::Set;
use super::typed::Duplicates;
use super::update::{ApplyError, Conflict, Ignored, Owned, Typed, Versions, Writer};
use super::{Fault, Path};
use objects::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// Where kubectl's client-side apply keeps what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The field manager of kubectl's server-side apply.
const KUBECTL: &str = "kubectl";
/// Who owns what was there before an object was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Bytes that all annotations of an object may have together.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// A write of an object of one kind through one version and subresource.
pub struct Tracker<'a, 's> {
    /// The type of the object.
    pub r#type: Type<'s>,
    /// The `apiVersion` of the request.
    pub version: &'a str,
    /// The subresource of the request; empty for the object itself.
    pub subresource: &'a str,
    /// What such a write cannot change.
    pub ignored: &'a Ignored,
    /// Other versions of the object.
    pub versions: &'a dyn Versions<'s>,
    /// The present.
    pub now: Timestamp,
}

/// What an apply makes.
#[derive(Debug)]
pub struct Applied {
    /// The object; None when it stays as it is.
    pub object: Option<Value>,
    /// Who owns what.
    pub managed: Managed,
}

impl<'s> Tracker<'_, 's> {
    /// The owners after `live` (null for a create) became `new` by a write that is no apply. None of both holds managed
    /// fields.
    pub fn update(
        &self,
        live: &Value,
        new: &Value,
        managed: Managed,
        manager: &str,
    ) -> Result<Managed, Fault> {
        // Nothing is known of who wrote what is there.
        if managed.owners.is_empty() && !live.is_null() {
            return Ok(managed);
        }
        self.update_tracked(live, new, managed, manager)
    }

    /// What `config` makes of `live` (null for a create), and who owns what then.
    pub fn apply(
        &self,
        live: &Value,
        config: &Value,
        mut managed: Managed,
        manager: &str,
        force: bool,
    ) -> Result<Applied, ApplyError<Manager>> {
        let faults = self.r#type.validate(config, Duplicates::Refuse);
        faults.map_err(|faults| ApplyError::Fault(several(&faults)))?;
        if managed.owners.is_empty() && !live.is_null() {
            managed = self.update_tracked(&Value::Null, live, managed, BEFORE_FIRST_APPLY)?;
        }
        let first = self.apply_tracked(live, config, managed.clone(), manager, force);
        let mut applied = match first {
            Err(ApplyError::Conflicts(conflicts)) if manager == KUBECTL => {
                let left = self.beyond_last_applied(live, conflicts);
                if !left.is_empty() {
                    return Err(ApplyError::Conflicts(left));
                }
                self.apply_tracked(live, config, managed, manager, true)?
            }
            other => other?,
        };
        if manager == KUBECTL {
            keep_last_applied(live, config, &mut applied.object);
        }
        Ok(applied)
    }

    fn typed(&self, value: &Value) -> Typed<'s> {
        let value = match value {
            // Go compares with an object of the kind that has nothing set.
            Value::Null => json!({}),
            value => value.clone(),
        };
        Typed {
            value,
            r#type: self.r#type,
            version: self.version.to_owned(),
        }
    }

    fn manager(&self, name: &str, operation: Operation) -> Manager {
        Manager {
            name: match name {
                "" => "unknown".to_owned(),
                name => name.to_owned(),
            },
            operation,
            version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => self.version.to_owned(),
            },
            subresource: self.subresource.to_owned(),
        }
    }

    fn update_tracked(
        &self,
        live: &Value,
        new: &Value,
        mut managed: Managed,
        manager: &str,
    ) -> Result<Managed, Fault> {
        // What this write takes is looked at alone: only then its time changes.
        let current = self.manager("current-operation", Operation::Update);
        let live = self.typed(live);
        let writer = Writer {
            live: &live,
            manager: &current,
            versions: self.versions,
            ignored: self.ignored,
        };
        managed.owners = writer.update(&self.typed(new), managed.owners)?;
        let taken = managed.owners.remove(&current).map(without_server_fields);
        if let Some(mut taken) = taken.filter(|taken| !taken.set.is_empty()) {
            let manager = self.manager(manager, Operation::Update);
            if let Some(before) = managed.owners.get(&manager) {
                taken.set = taken.set.union(&before.set);
            }
            managed.owners.insert(manager.clone(), taken);
            managed.times.insert(manager, self.now);
        }
        managed.cap_updates();
        Ok(managed)
    }

    fn apply_tracked(
        &self,
        live: &Value,
        config: &Value,
        mut managed: Managed,
        manager: &str,
        force: bool,
    ) -> Result<Applied, ApplyError<Manager>> {
        let manager = self.manager(manager, Operation::Apply);
        let live = self.typed(live);
        let writer = Writer {
            live: &live,
            manager: &manager,
            versions: self.versions,
            ignored: self.ignored,
        };
        let (object, owners) = writer.apply(&self.typed(config), managed.owners, force)?;
        managed.owners = owners;
        let own = managed.owners.remove(&manager).map(without_server_fields);
        if let Some(own) = own.filter(|own| !own.set.is_empty()) {
            managed.owners.insert(manager.clone(), own);
        }
        if object.is_some() {
            managed.times.insert(manager, self.now);
        }
        Ok(Applied { object, managed })
    }

    /// The conflicts that are not about what kubectl's client-side apply wrote, and nobody changed since.
    fn beyond_last_applied(
        &self,
        live: &Value,
        conflicts: Vec<Conflict<Manager>>,
    ) -> Vec<Conflict<Manager>> {
        match self.last_applied(live) {
            None => conflicts,
            Some(own) => conflicts
                .into_iter()
                .filter(|conflict| !own.has(&conflict.path))
                .collect(),
        }
    }

    fn last_applied(&self, live: &Value) -> Option<Set> {
        let config: Value = serde_json::from_str(last_applied_text(live)?).ok()?;
        if config.get("apiVersion").and_then(Value::as_str) != Some(self.version) {
            return None;
        }
        self.r#type.validate(&config, Duplicates::Refuse).ok()?;
        let change = self.r#type.compare(&config, live).ok()?;
        let own = self.r#type.field_set(&config).ok()?;
        Some(
            own.difference(&change.modified)
                .difference(&change.added)
                .difference(&change.removed),
        )
    }
}

fn several(faults: &[Fault]) -> Fault {
    match faults {
        [one] => one.clone(),
        faults => {
            let lines: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
            Fault {
                path: String::new(),
                text: format!("errors:\n{}", lines.join("\n")),
            }
        }
    }
}

/// Takes out what only the server sets.
fn without_server_fields(mut owned: Owned) -> Owned {
    static SERVER_FIELDS: OnceLock<Set> = OnceLock::new();
    let fields = SERVER_FIELDS.get_or_init(|| {
        let metadata = [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ];
        let top = ["apiVersion", "kind", "metadata"].map(|name| Path::fields(&[name]));
        let metadata = metadata.map(|name| Path::fields(&["metadata", name]));
        Set::of(top.into_iter().chain(metadata))
    });
    owned.set = owned.set.difference(fields);
    owned
}

fn last_applied_text(object: &Value) -> Option<&str> {
    let annotations = object.get("metadata")?.get("annotations")?;
    annotations
        .get(LAST_APPLIED)?
        .as_str()
        .filter(|text| !text.is_empty())
}

/// Brings the annotation of client-side apply up to date, where it is, so that one may go back to it.
fn keep_last_applied(live: &Value, config: &Value, object: &mut Option<Value>) {
    if last_applied_text(object.as_ref().unwrap_or(live)).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.pointer_mut("/metadata/annotations") {
        annotations.shift_remove(LAST_APPLIED);
    }
    let text = format!("{}\n", sorted(&config));
    let new = object.get_or_insert_with(|| live.clone());
    let annotations = new.pointer_mut("/metadata/annotations");
    let Some(annotations) = annotations.and_then(Value::as_object_mut) else {
        return;
    };
    annotations.insert(LAST_APPLIED.to_owned(), Value::String(text));
    let bytes = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(bytes).sum::<usize>() > ANNOTATIONS_BYTES_MAX {
        annotations.shift_remove(LAST_APPLIED);
    }
}

/// With the members of maps in order, as Go writes them.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(map) => {
            let mut members: Vec<(&String, &Value)> = map.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members = members.into_iter();
            let members: Map<String, Value> = members
                .map(|(name, value)| (name.clone(), sorted(value)))
                .collect();
            Value::Object(members)
        }
        other => other.clone(),
    }
}
