//! Small steps through JSON that strategies share: reading members, filling in defaults. Never knows a kind.

use serde_json::{Map, Value};

/// A JSON map.
pub type Members = Map<String, Value>;

/// The map at `name`, made when it is absent or null; None when something else is there.
pub fn map_at<'a>(members: &'a mut Members, name: &str) -> Option<&'a mut Members> {
    let value = members.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// The map at `name`, if it is there.
pub fn existing_map<'a>(members: &'a mut Members, name: &str) -> Option<&'a mut Members> {
    members.get_mut(name).and_then(Value::as_object_mut)
}

/// The maps in the list at `name`.
pub fn maps_in<'a>(members: &'a mut Members, name: &str) -> impl Iterator<Item = &'a mut Members> {
    let list = members.get_mut(name).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Sets `name` when it is absent or null.
pub fn default(members: &mut Members, name: &str, value: impl Into<Value>) {
    let slot = members.entry(name).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value.into();
    }
}

/// Sets the text `name` when it is absent, null or empty.
pub fn default_text(members: &mut Members, name: &str, text: &str) {
    if read_text(members, name).is_empty() {
        members.insert(name.to_owned(), Value::String(text.to_owned()));
    }
}

/// The text at `name`; empty when there is none.
pub fn read_text<'a>(members: &'a Members, name: &str) -> &'a str {
    members
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The whole number at `name`.
pub fn read_number(members: &Members, name: &str) -> Option<i64> {
    members.get(name).and_then(Value::as_i64)
}

/// The flag at `name`; false when there is none.
pub fn read_flag(members: &Members, name: &str) -> bool {
    members.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// The map at `name`.
pub fn read_map<'a>(members: &'a Members, name: &str) -> Option<&'a Members> {
    members.get(name).and_then(Value::as_object)
}

/// The list at `name`; empty when there is none.
pub fn read_list<'a>(members: &'a Members, name: &str) -> &'a [Value] {
    members
        .get(name)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The maps in the list at `name`, each with its index.
pub fn read_maps<'a>(
    members: &'a Members,
    name: &str,
) -> impl Iterator<Item = (usize, &'a Members)> {
    let list = read_list(members, name).iter().enumerate();
    list.filter_map(|(index, value)| Some((index, value.as_object()?)))
}

/// The texts in the list at `name`.
pub fn read_texts<'a>(members: &'a Members, name: &str) -> impl Iterator<Item = &'a str> {
    read_list(members, name).iter().filter_map(Value::as_str)
}
