//! Conditions in a status. `lastTransitionTime` moves only when the status does, as the API conventions ask.

use objects::Timestamp;
use serde_json::{Map, Value, json};

/// A condition to set.
#[derive(Clone, Copy, Debug)]
pub struct Condition<'a> {
    /// `Available`, `Progressing`, `Ready`, …
    pub condition_type: &'a str,
    /// `True`, `False` or `Unknown`.
    pub status: &'a str,
    /// One word for machines.
    pub reason: &'a str,
    /// For people.
    pub message: &'a str,
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Value], condition_type: &str) -> Option<&'a Value> {
    conditions
        .iter()
        .find(|condition| text(condition, "type") == condition_type)
}

/// A text member of a condition, empty when absent.
pub fn text<'a>(condition: &'a Value, field: &str) -> &'a str {
    condition.get(field).and_then(Value::as_str).unwrap_or("")
}

/// A time member of a condition.
pub fn time(condition: &Value, field: &str) -> Option<Timestamp> {
    Timestamp::parse(text(condition, field))
}

/// Sets the condition, in its place or at the end. The time of transition is kept when the status is the same; members that
/// only other writers know are kept.
pub fn set(conditions: &mut Vec<Value>, new: &Condition<'_>, now: Timestamp) {
    let at = conditions
        .iter()
        .position(|condition| text(condition, "type") == new.condition_type);
    let mut map = match at.map(|at| &conditions[at]) {
        Some(Value::Object(map)) => map.clone(),
        _ => Map::new(),
    };
    let same_status = map.get("status").and_then(Value::as_str) == Some(new.status);
    map.insert("type".to_owned(), json!(new.condition_type));
    map.insert("status".to_owned(), json!(new.status));
    map.insert("reason".to_owned(), json!(new.reason));
    map.insert("message".to_owned(), json!(new.message));
    if !same_status || !map.contains_key("lastTransitionTime") {
        map.insert("lastTransitionTime".to_owned(), json!(now));
    }
    match at {
        Some(at) => conditions[at] = Value::Object(map),
        None => conditions.push(Value::Object(map)),
    }
}

/// Removes the condition of a type.
pub fn remove(conditions: &mut Vec<Value>, condition_type: &str) {
    conditions.retain(|condition| text(condition, "type") != condition_type);
}
