//! The directives of strategic merge patches: `$patch`, `$retainKeys`, `$setElementOrder/f`, `$deleteFromPrimitiveList/f`.
//! Semantics: apimachinery's `strategicpatch` and Kubernetes' design "preserve order in strategic merge patch".

use super::merge::{self, Level, MergeError, check_elements, go_text, is_directive};
use serde_json::{Map, Value};
use std::collections::VecDeque;

pub(super) const PATCH: &str = "$patch";
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const ORDER_PREFIX: &str = "$setElementOrder";
pub(super) const PRIMITIVE_DELETE_PREFIX: &str = "$deleteFromPrimitiveList";

/// Drops what `keys` does not list. Everything that the patch sets must be listed.
pub(super) fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    keys: &Value,
) -> Result<(), MergeError> {
    let keys = keys.as_array().ok_or(MergeError::RetainKeys)?;
    let listed = |name: &str| keys.iter().any(|key| key == name);
    let set = patch
        .iter()
        .filter(|(name, value)| !value.is_null() && !is_directive(name));
    if set.map(|member| member.0).any(|name| !listed(name)) {
        return Err(MergeError::RetainKeys);
    }
    original.retain(|name, _| listed(name));
    Ok(())
}

/// Takes the listed scalars out of a list.
pub(super) fn delete_from_primitive_list(
    original: &mut Map<String, Value>,
    directive: &str,
    deleted: Value,
) -> Result<(), MergeError> {
    let name = member_of(directive, PRIMITIVE_DELETE_PREFIX).ok_or(MergeError::PrimitiveList)?;
    let Value::Array(deleted) = deleted else {
        return match deleted {
            Value::Null => {
                original.shift_remove(name);
                Ok(())
            }
            _ => Err(MergeError::PrimitiveList),
        };
    };
    if let Some(Value::Array(list)) = original.get_mut(name) {
        check_elements(list, &deleted)?;
        list.retain(|value| !deleted.contains(value));
    }
    Ok(())
}

/// Merges every list that has an order directive and puts it into that order; both leave the patch.
pub(super) fn set_element_orders(
    level: Level<'_>,
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), MergeError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(ORDER_PREFIX))
        .cloned()
        .collect();
    for directive in directives {
        let order = patch.shift_remove(&directive).unwrap_or_default();
        let Value::Array(order) = order else {
            return Err(bad_argument(&order));
        };
        let name = member_of(&directive, ORDER_PREFIX).ok_or(MergeError::SetElementOrder)?;
        let field = level.field(name)?;
        let elements = level.elements(field)?;
        let patched = take_list(patch, name)?;
        let Some(old) = take_list_in_place(original, name)? else {
            // A list that was not there: the patch's order is the directive's, so nothing is to be moved.
            if let Some(patched) = patched {
                check_order(&patched, &order, field.patch.key)?;
                if let Some(list) = without_directives(Value::Array(patched)) {
                    original.insert(name.to_owned(), list);
                }
            }
            continue;
        };
        let (merged, server_order) = match patched {
            None => (old.clone(), old),
            Some(patched) => {
                check_order(&patched, &order, field.patch.key)?;
                let server_order = places_after(&old, &patched, field.patch.key);
                let merged = merge::merge_list(elements, field.patch, old, patched)?;
                (merged, server_order)
            }
        };
        if let Some(key) = field.patch.key {
            check_merge_keys(&merged, key)?;
        }
        let ordered = in_order(merged, &order, &server_order, field.patch.key);
        original.insert(name.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

/// Where the server's elements stand once the patch's deletions are done: new elements take the places that became free, as
/// they do in Kubernetes, where it decides whether the server's own elements come before them.
fn places_after(old: &[Value], patched: &[Value], key: Option<&str>) -> Vec<Value> {
    let is_deletion = |value: &&Value| value.get(PATCH).is_some_and(|word| word == "delete");
    let deleted: Vec<&Value> = patched.iter().filter(is_deletion).collect();
    let is_among =
        |list: &[&Value], value: &Value| list.iter().any(|other| same(other, value, key));
    let left: Vec<&Value> = old
        .iter()
        .filter(|value| !is_among(&deleted, value))
        .collect();
    let plain = patched.iter().filter(|value| value.get(PATCH).is_none());
    let added: Vec<&Value> = plain.filter(|value| !is_among(&left, value)).collect();
    left.into_iter()
        .chain(added)
        .take(old.len())
        .cloned()
        .collect()
}

/// Puts merged elements in order: those that `order` names as it names them, the server's own among them where they stood.
pub(super) fn in_order(
    merged: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let place =
        |list: &[Value], value: &Value| list.iter().position(|other| same(other, value, key));
    let (mut named, mut own): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|value| place(order, value).is_some());
    named.sort_by_key(|value| place(order, value));
    own.sort_by_key(|value| place(server_order, value).unwrap_or(usize::MAX));
    let mut own = VecDeque::from(own);
    let mut all = Vec::with_capacity(named.len() + own.len());
    for value in named {
        let stood = place(server_order, &value);
        while let Some(before) = own.front() {
            let goes_before = match (place(server_order, before), stood) {
                (Some(before), Some(stood)) => before < stood,
                _ => false,
            };
            if !goes_before {
                break;
            }
            all.extend(own.pop_front());
        }
        all.push(value);
    }
    all.extend(own);
    all
}

/// Applies elements that carry `$patch`, and returns both lists without them.
pub(super) fn take_element_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), MergeError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for element in patch {
        let Some((map, directive)) = element
            .as_object()
            .and_then(|map| Some((map, map.get(PATCH)?)))
        else {
            plain.push(element);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let value = map
                    .get(key)
                    .ok_or_else(|| MergeError::no_merge_key(map, key))?;
                original.retain(|old| old.get(key) != Some(value));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(MergeError::Other(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            _ => return Err(MergeError::bad_patch_type(directive, map)),
        }
    }
    Ok(if replace {
        (plain, Vec::new())
    } else {
        (original, plain)
    })
}

/// What remains of a patch's value where there is nothing to merge it with; None when it only was a directive.
pub(super) fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => {
            let members = map.into_iter().filter(|(_, value)| !value.is_null());
            let kept = members.filter_map(|(name, value)| Some((name, without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(list) => Some(Value::Array(
            list.into_iter().filter_map(without_directives).collect(),
        )),
        other => Some(other),
    }
}

/// Every element must be a map with the key.
pub(super) fn check_merge_keys(list: &[Value], key: &str) -> Result<(), MergeError> {
    for value in list {
        let map = value.as_object().ok_or_else(|| bad_argument(value))?;
        if !map.contains_key(key) {
            return Err(MergeError::no_merge_key(map, key));
        }
    }
    Ok(())
}

/// What the patch sets must come in the directive's order.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), MergeError> {
    if order.is_empty() || patch.is_empty() {
        return Ok(());
    }
    if let Some(key) = key {
        check_merge_keys(order, key)?;
    }
    let mut order_left = order.iter();
    for value in patch.iter().filter(|value| value.get(PATCH).is_none()) {
        if let (Some(key), Some(map)) = (key, value.as_object())
            && !map.contains_key(key)
        {
            return Err(MergeError::no_merge_key(map, key));
        }
        if !order_left.any(|other| same(other, value, key)) {
            return Err(MergeError::Other(format!(
                "The order in patch list:\n{}\n doesn't match {ORDER_PREFIX} list:\n{}\n",
                go_text(&patch.into()),
                go_text(&order.into())
            )));
        }
    }
    Ok(())
}

fn same(left: &Value, right: &Value, key: Option<&str>) -> bool {
    match key {
        None => left == right,
        Some(key) => left.get(key).is_some() && left.get(key) == right.get(key),
    }
}

/// `$setElementOrder/containers` is about `containers`.
fn member_of<'a>(directive: &'a str, prefix: &str) -> Option<&'a str> {
    directive.strip_prefix(prefix)?.strip_prefix('/')
}

fn take_list(map: &mut Map<String, Value>, name: &str) -> Result<Option<Vec<Value>>, MergeError> {
    match map.get(name) {
        Some(Value::Array(_)) => match map.shift_remove(name) {
            Some(Value::Array(list)) => Ok(Some(list)),
            _ => Ok(None),
        },
        None => Ok(None),
        Some(other) => Err(bad_argument(other)),
    }
}

/// Takes a list and leaves an empty one in its place, so that the member keeps its place in the map.
fn take_list_in_place(
    map: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<Vec<Value>>, MergeError> {
    match map.get_mut(name) {
        Some(Value::Array(list)) => Ok(Some(std::mem::take(list))),
        None => Ok(None),
        Some(other) => Err(bad_argument(other)),
    }
}

fn bad_argument(actual: &Value) -> MergeError {
    let actual = match actual {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    MergeError::Other(format!(
        "expected a []interface {{}}, but received a {actual}"
    ))
}
