//! Editing a status: starts from the one the object has, so that members that only other writers know are kept, and yields
//! a write only when something changed.

use crate::plan::StatusUpdate;
use crate::view::Viewed;
use objects::GroupResource;
use serde_json::{Map, Value, json};

/// A status being edited.
#[derive(Clone, Debug)]
pub struct StatusEdit {
    map: Map<String, Value>,
}

impl StatusEdit {
    /// Starts from the object's status.
    pub fn of<T>(viewed: &Viewed<T>) -> Self {
        let status = viewed.object.body.get("status");
        let map = status.and_then(Value::as_object).cloned();
        StatusEdit {
            map: map.unwrap_or_default(),
        }
    }

    /// A count, zero when absent.
    pub fn count(&self, field: &str) -> i64 {
        self.map.get(field).and_then(Value::as_i64).unwrap_or(0)
    }

    /// Sets a count that is written even when it is zero.
    pub fn set_count(&mut self, field: &str, count: i64) {
        self.map.insert(field.to_owned(), json!(count));
    }

    /// Sets a count that is left out when it is zero.
    pub fn set_nonzero(&mut self, field: &str, count: i64) {
        if count == 0 {
            self.map.remove(field);
        } else {
            self.set_count(field, count);
        }
    }

    /// The conditions.
    pub fn conditions(&self) -> Vec<Value> {
        let conditions = self.map.get("conditions").and_then(Value::as_array);
        conditions.cloned().unwrap_or_default()
    }

    /// Replaces the conditions; none at all leaves the member out.
    pub fn set_conditions(&mut self, conditions: Vec<Value>) {
        if conditions.is_empty() {
            self.map.remove("conditions");
        } else {
            self.map
                .insert("conditions".to_owned(), Value::Array(conditions));
        }
    }

    /// Takes a member away.
    pub fn remove(&mut self, field: &str) {
        self.map.remove(field);
    }

    /// Replaces any other member.
    pub fn set(&mut self, field: &str, value: Value) {
        self.map.insert(field.to_owned(), value);
    }

    /// The write; None when the object has this status already.
    pub fn into_update<T>(
        self,
        viewed: &Viewed<T>,
        resource: GroupResource,
    ) -> Option<StatusUpdate> {
        let before = viewed.object.body.get("status").and_then(Value::as_object);
        let changed = before.map_or(!self.map.is_empty(), |before| *before != self.map);
        changed.then(|| StatusUpdate {
            key: viewed.key(resource),
            precondition: viewed.unchanged(),
            status: Value::Object(self.map),
        })
    }
}
